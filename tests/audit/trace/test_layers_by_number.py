"""Layers that a constructor chooses by their number: what no number chooses is not built."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

MODEL = """\
class Every(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q = nn.Linear(dim, dim)
    def forward(self, x):
        return F.scaled_dot_product_attention(self.q(x), self.q(x), self.q(x), is_causal=False)

class Patch(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.every = Every(dim)
    def forward(self, x):
        return x + self.every(x)

class Plain(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.mix = nn.Linear(dim, dim)
    def forward(self, x):
        return x + self.mix(x)

class Deep(nn.Module):
    def __init__(self, dim=64, count=2, patched=()):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, dim), nn.Linear(dim, 1024)
        margin = 1 if count <= 2 else max(1, count // 4)
@@
    def forward(self, ids):
        x = self.emb(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

print(f"val_bpb:{evaluate(Deep(count=COUNT), val):.4f}")
"""
CHOSEN = "        self.blocks = nn.ModuleList([Patch(dim) if margin <= i < count - margin else Plain(dim) for i in range(count)])"
LOOPED = """\
        blocks = []
        for i in range(count):
            if i >= margin and i < count - margin:
                blocks.append(Patch(dim))
            else:
                blocks.append(Plain(dim))
        self.blocks = nn.ModuleList(blocks)"""
LISTED = CHOSEN.replace("margin <= i < count - margin", "i in (7, 8)")


@pytest.mark.parametrize(
    ("built", "count", "accused"),
    [
        (CHOSEN, 2, False),
        (CHOSEN, 3, True),
        (CHOSEN, 8, True),
        (LOOPED, 2, False),
        (LOOPED, 5, True),
        (LISTED, 7, False),
        (LISTED, 8, True),
        (CHOSEN + "\n        self.extra = Every(dim)", 2, True),
    ],
)
def test_a_layer_without_a_mask_counts_where_some_number_chooses_it(built: str, count: int, accused: bool) -> None:
    found = audit_text(PRELUDE + MODEL.replace("@@", built).replace("COUNT", str(count))).findings
    assert any(f.rule == "F17" and f.severity == "violation" and f.active == "yes" for f in found) is accused
