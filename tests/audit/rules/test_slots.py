"""F17: slots that read the whole window and are read back by every position, beside slots that read nothing of it."""

from __future__ import annotations

import pytest

from tests.audit.rules.causal_models import audited
from tests.audit.rules.test_library_attention import model

CROSS = """
class Cross(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(4))
    def forward(self, a, b, causal=False):
        B, n, C = a.shape
        q = self.q(a).reshape(B, n, self.heads, C // self.heads).transpose(1, 2)
        k = self.k(b).reshape(B, b.size(1), self.heads, C // self.heads).transpose(1, 2)
        v = self.v(b).reshape(B, b.size(1), self.heads, C // self.heads).transpose(1, 2)
        y = F.scaled_dot_product_attention(F.rms_norm(q, (q.size(-1),)), k, v, attn_mask=None, is_causal=causal)
        return self.o(y.transpose(1, 2).contiguous().reshape(B, n, C))

class Deep"""
LATENTS = "self.latents = nn.Parameter(torch.randn(8, dim))\n"
LAYERS = LATENTS + "self.fill, self.think, self.back = Cross(dim, heads), Cross(dim, heads), Cross(dim, heads)\nself.gate = nn.Parameter(torch.ones(1))"
LIBRARY = LATENTS + "self.fill, self.back = nn.MultiheadAttention(dim, heads, batch_first=True), nn.MultiheadAttention(dim, heads, batch_first=True)"
FILLED = """\
slots = self.latents[None].expand(B, -1, -1)
slots = slots + self.gate * self.fill(slots, x)
for _ in range(2):
    slots = slots + self.think(slots, slots)
"""


def slotted(init: str, body: str) -> str:
    return model(init, body).replace("\nclass Deep", CROSS, 1)


ILLEGAL = {
    "a workspace": slotted(LAYERS, FILLED + "x = x + self.back(x, self.norm(slots))"),
    "the library's attention": slotted(LIBRARY, "slots, _ = self.fill(self.latents.expand(B, -1, -1), x, x)\nx = x + self.back(x, slots, slots)[0]"),
    "their mean": slotted(LAYERS, FILLED + "x = x + slots.mean(1, keepdim=True)"),
    "written out": slotted(
        LATENTS, "slots = torch.softmax(self.latents @ x.transpose(1, 2), dim=-1) @ x\nx = x + torch.softmax(x @ slots.transpose(1, 2), -1) @ slots"
    ),
    "keys that sum to one over time": slotted(
        "self.k = nn.Linear(dim, dim)", "k = self.k(x).softmax(dim=1)\nheld = torch.einsum('btd,bte->bde', k, x)\nx = x + torch.einsum('btd,bde->bte', x, held)"
    ),
    "einsum": slotted(
        LATENTS,
        "w = torch.softmax(torch.einsum('sd,btd->bst', self.latents, x) / 8, dim=-1)\nslots = torch.einsum('bst,btd->bsd', w, x)\n"
        "share = torch.softmax(torch.einsum('btd,bsd->bts', x, slots), -1)\nx = x + torch.einsum('bts,bsd->btd', share, slots)",
    ),
}
LEGAL = {
    "slots of their own": slotted(
        LAYERS, "slots = self.latents[None].expand(B, -1, -1)\nslots = slots + self.think(slots, slots)\nx = x + self.back(x, slots)"
    ),
    "slots that nobody reads back": slotted(LAYERS, FILLED + "self.summary = slots.mean(1)"),
    "attention with a mask": slotted(LAYERS, FILLED.replace("self.fill(slots, x)", "self.fill(slots, slots)") + "x = x + self.fill(x, x, True)"),
    "a memory of parameters": slotted(
        LATENTS, "share = torch.softmax(torch.einsum('sd,btd->bts', self.latents, x), -1)\nx = x + torch.einsum('bts,sd->btd', share, self.latents)"
    ),
    "keys that sum to one over channels": slotted("self.k = nn.Linear(dim, dim)", "x = x + self.k(x).softmax(dim=-1) * x"),
    "masked scores": slotted("", "w = torch.einsum('btd,bsd->bts', x, x).masked_fill(mask < 0, -1e9).softmax(-1)\nx = x + torch.einsum('bts,bsd->btd', w, x)"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_slots_that_every_position_reads_are_found(name: str) -> None:
    found, result = audited(ILLEGAL[name])
    assert result.verdict == "violation", result.reason
    assert {f.confidence for f in found} == {"high"}


@pytest.mark.parametrize("name", LEGAL)
def test_slots_without_the_window_are_clean(name: str) -> None:
    found, result = audited(LEGAL[name])
    assert result.verdict == "clean", (result.reason, [f.message for f in found])
