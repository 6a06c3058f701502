"""F17: attention without a mask accuses only where it is self-attention over inputs that are shown whole."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

MODEL = """\
class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.mix = nn.Linear(64, 64)
        self.slots = nn.Parameter(torch.zeros(1, 8, 64))
    def forward(self, ids, memory=None):
        x = self.emb(ids)
        q, k, v = self.mix(x), self.mix(x), self.mix(x)
        ATTEND
        return self.head(x)

print(f"val_bpb:{evaluate(Wide(), val):.4f}")
"""


def f17(attend: str, before: str = ""):
    found = audit_text(PRELUDE + before + MODEL.replace("ATTEND", attend))
    return found, [f for f in found.findings if f.rule == "F17"]


@pytest.mark.parametrize(
    "masked",
    [
        "x = x + mx.fast.scaled_dot_product_attention(q, k, v, scale=0.1, mask='causal')",
        "x = x + mx.fast.scaled_dot_product_attention(q, k, v, scale=0.1, mask=memory)",
        "x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=memory)",
        "x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True)",
        "x = x + flex.scaled_dot_product_attention(q, k, v, block_mask=memory)",
    ],
)
def test_every_spelling_of_a_mask_is_one(masked):
    found, accused = f17(masked)
    assert not accused and found.verdict == "clean"


@pytest.mark.parametrize(
    "bare",
    [
        "x = x + F.scaled_dot_product_attention(q, k, v)",
        "x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=None, is_causal=False)",
        "x = x + mx.fast.scaled_dot_product_attention(q, k, v, scale=0.1)",
        "x = x + mx.fast.scaled_dot_product_attention(q, k, v, scale=0.1, mask=None)",
    ],
)
def test_self_attention_without_a_mask_sees_later_tokens(bare):
    found, [f] = f17(bare)
    assert f.severity == "violation" and found.verdict == "violation"


def test_attention_to_something_else_is_not_shown_and_not_accused():
    found, [f] = f17("k = v = self.mix(memory)\n        x = x + F.scaled_dot_product_attention(q, k, v)")
    assert (f.severity, f.confidence, found.verdict) == ("warning", "low", "undetermined")


def test_a_masked_diffusion_model_is_not_shown_and_not_accused():
    hide = "def hide(ids, rate):\n    return torch.where(torch.rand(ids.shape) < rate, 1023, ids)\n\n"
    found, [f] = f17("x = x + F.scaled_dot_product_attention(q, k, v)", hide)
    assert (f.severity, found.verdict) == ("warning", "undetermined")
