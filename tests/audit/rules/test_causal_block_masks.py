"""F17: masks that are functions of places, as ``flex_attention`` takes them."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
from torch.nn.attention.flex_attention import flex_attention, create_block_mask
attend = torch.compile(flex_attention)

def causal(b, h, q, k):
    return q >= k

def near(window):
    def mask_mod(b, h, q_idx, kv_idx):
        return (q_idx >= kv_idx) & (q_idx - kv_idx < window)
    return mask_mod

def around(window):
    def mask_mod(b, h, q_idx, kv_idx):
        return (q_idx - kv_idx).abs() < window
    return mask_mod

class Mix(nn.Module):
    def __init__(self, dim=64, heads=4, window=128, strict=len("x") > 1):
        super().__init__()
        self.heads, self.window, self.strict = heads, window, strict
        self.q, self.k, self.v, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
    def forward(self, x, docs=None):
        B, T, C = x.shape
        q, k, v = (p(x).view(B, T, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        window, strict = self.window, self.strict
        BODY
        return self.out(y.transpose(1, 2).reshape(B, T, C))

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head, self.mix = nn.Embedding(1024, 64), nn.Linear(64, 1024), Mix()
    def forward(self, ids):
        x = self.emb(ids)
        return self.head(x + self.mix(x))

print(f"val_bpb:{evaluate(Wide(), val):.4f}")
"""
MADE = "bm = create_block_mask({}, None, None, T, T)\ny = attend(q, k, v, block_mask=bm)"
INNER = "def mask(b, h, q, k):\n    {}\n" + MADE.format("mask")
ILLEGAL = {
    "no mask": "y = attend(q, k, v)",
    "no mask, by its own name": "y = flex_attention(q, k, v, enable_gqa=True)",
    "the wrong way round": MADE.format("lambda b, h, q, k: q <= k"),
    "a window to both sides": INNER.format("return (q - k).abs() < window"),
    "a window without an end": INNER.format("return q - k < window"),
    "a maker of masks": MADE.format("around(128)"),
    "one place ahead": INNER.format("return q + 1 >= k"),
    "either of two": INNER.format("return (q >= k) | (q // 4 == k // 4)"),
    "within a text": INNER.format("return (docs[q] == docs[k]) & (abs(q - k) < window)"),
    "two ways": INNER.format("near = (q - k).abs() < window\n    return near & (q != k) if strict else near"),
}
LEGAL = {
    "a function of the module": MADE.format("causal"),
    "a lambda": MADE.format("lambda b, h, q, k: q >= k"),
    "a window": INNER.format("return (q >= k) & (q - k < window)"),
    "a maker of masks": MADE.format("near(128)"),
    "strictly before": INNER.format("return q > k if strict else q >= k"),
    "within a text": INNER.format("return causal(b, h, q, k) & (docs[q] == docs[k])"),
    "sinks": INNER.format("return (q >= k) & ((q - k < window) | (k < 4))"),
    "something else": INNER.format("return docs[q, k]"),
    "a function from elsewhere": MADE.format("docs"),
    "keys of a memory": "m = docs\nbm = create_block_mask(lambda b, h, q, k: k >= 0, None, None, T, m.size(1))\ny = attend(q, self.k(m), self.v(m), block_mask=bm)",
    "a score's function": "y = attend(q, k, v, score_mod=lambda s, b, h, q, k: torch.where(q >= k, s, -1e9))",
}


def text(body: str) -> str:
    return PRELUDE + MODEL.replace("BODY", indent(body))


@pytest.mark.parametrize("name", ILLEGAL)
def test_later_keys_are_seen(name):
    found, whole = audited(text(ILLEGAL[name]))
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations


@pytest.mark.parametrize("name", LEGAL)
def test_a_look_alike_is_not_accused(name):
    found, _ = audited(text(LEGAL[name]))
    assert not found


PUT_IN = """\
wide = Wide()
for layer in wide.modules():
    if isinstance(layer, Mix):
        layer.block_mask = create_block_mask(causal, None, None, 1024, 1024)
print(f"val_bpb:{evaluate(wide, val):.4f}")
"""


@pytest.mark.parametrize("outside", [True, False])
def test_a_mask_that_is_put_into_a_layer_from_outside(outside):
    code = text("y = attend(q, k, v, block_mask=self.block_mask)")
    code = code.replace("super().__init__()\n        self.heads", "super().__init__()\n        self.block_mask = None\n        self.heads")
    if outside:
        code = code.replace('print(f"val_bpb:{evaluate(Wide(), val):.4f}")\n', PUT_IN)
    found, whole = audited(code)
    assert bool(found) != outside, whole.obligations
