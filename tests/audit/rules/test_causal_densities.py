"""F17: one number per position, looked up with its token, in shares of what the window holds."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
class Rare(nn.Module):
    def __init__(self, dim=64, every=16):
        super().__init__()
        self.emb, self.head, self.mix = nn.Embedding(1024, dim), nn.Linear(dim, 1024), nn.Linear(dim, dim)
        self.every = every
        self.register_buffer("open_after", torch.zeros(1024))
    def lookup(self, ids):
        return self.open_after.index_select(0, ids.reshape(-1)).reshape(ids.shape)
    def density(self, each, every):
        B, T = each.shape
        w = each.reshape(B, T // every, every).mean(dim=-1)
        SHARE
        return torch.cat([torch.ones_like(w[:, :1]), w[:, :-1]], dim=1)
    def weigh(self, y, weights=None):
        k = self.mix(y)
        w = weights.to(torch.float32).unsqueeze(-1)
        return (k.float() * w).cumsum(1) / w.cumsum(1)
    def forward(self, ids):
        EMBED
        BODY
        return self.head(x)

print(f"val_bpb:{evaluate(Rare(), val):.4f}")
"""
EMBED = "x = self.emb(ids)"
TABLE = "x = F.embedding(ids, self.emb.weight)"
BLOCKS = "w = self.density(self.lookup(ids), self.every)\nx = x + self.weigh(x, weights=w).repeat_interleave(self.every, 1)"
MEAN = "w = w / w.mean(dim=1, keepdim=True).clamp_min(1e-6)\nw = w.clamp(0.25, 4.0)"
ILLEGAL = {
    "blocks": (BLOCKS, MEAN, EMBED),
    "blocks, with a table that is handed over": (BLOCKS, MEAN, TABLE),
    "positions": ("w = self.lookup(ids)\nw = w / w.sum(dim=-1, keepdim=True)\nx = self.mix(x) * w[..., None]", "pass", EMBED),
    "less the mean": ("w = self.lookup(ids)\nx = self.mix(x) * (w - w.mean(1, keepdim=True)).unsqueeze(-1)", "pass", EMBED),
    "an index": ("w = self.open_after[ids]\nw = w / w.mean(dim=1, keepdim=True)\nx = x * w.unsqueeze(-1)", "pass", EMBED),
}
LEGAL = {
    "as they are": (BLOCKS, "w = w.clamp(0.25, 4.0)", EMBED),
    "by a number": (BLOCKS, "w = w / 3.0", EMBED),
    "a running mean": (BLOCKS, "w = w / (w.cumsum(1) / torch.arange(1, w.size(1) + 1))", EMBED),
    "the table's mean": ("w = self.lookup(ids) / self.open_after.mean()\nx = self.mix(x) * w[..., None]", "pass", EMBED),
    "within a block of earlier ones": (BLOCKS, "self.note = w / w.mean(dim=1, keepdim=True)", EMBED),
    "weights of a loss": (
        "w = self.lookup(ids)\nw = w / w.mean(dim=1, keepdim=True)\nx = self.mix(x)\nself.extra = (F.cross_entropy(x, ids, reduction='none') * w).mean()",
        "pass", EMBED,
    ),
    "a figure": ("w = self.lookup(ids)\nself.spread = (w / w.mean(dim=1, keepdim=True)).max()\nx = self.mix(x)", "pass", EMBED),
    "training alone": (
        "if self.training:\n    w = self.lookup(ids)\n    w = w / w.mean(dim=1, keepdim=True)\n    x = self.mix(x) * w[..., None]", "pass", EMBED,
    ),
}  # fmt: skip


def text(body: str, share: str, embed: str) -> str:
    return PRELUDE + MODEL.replace("BODY", indent(body)).replace("SHARE", indent(share)).replace("EMBED", embed)


@pytest.mark.parametrize("name", ILLEGAL)
def test_shares_of_the_window_are_seen(name):
    found, whole = audited(text(*ILLEGAL[name]))
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations


@pytest.mark.parametrize("name", LEGAL)
def test_a_look_alike_is_not_accused(name):
    found, _ = audited(text(*LEGAL[name]))
    assert not found
