"""Attention over kept keys in a method that only writes text decides no score."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

MODEL = """\
class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.q, self.k, self.v = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)
    def forward(self, ids):
        x = self.emb(ids)
        return self.head(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), is_causal=True))
    def one(self, ids, kept=None):
        x = self.emb(ids)
        q, k, v = self.q(x), self.k(x), self.v(x)
        if kept is not None:
            k, v = torch.cat((kept[0], k), dim=1), torch.cat((kept[1], v), dim=1)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=False)), (k, v)
    def next_logits(self, ids, kept=None):
        return self.one(ids[:, -1:], kept)
    def {other}
net = Cached()
def write(model, n):
    tokens, kept = torch.zeros(4, 1, dtype=torch.long), None
    for _ in range(n):
        logits, kept = model.next_logits(tokens, kept)
        tokens = torch.cat((tokens, torch.multinomial(torch.softmax(logits[:, -1], -1), 1)), dim=1)
    return tokens
text = write(net, 64)
{more}
print(f"val_bpb:{{evaluate({scored}, val):.4f}}")
"""
SPARE = "spare(self, ids):\n        return self.forward(ids)"
NOTHING = {"other": SPARE, "more": "", "scored": "net"}
SCORED = [
    {"more": "net.forward = lambda ids: net.next_logits(ids)[0]"},
    {"more": "class Out(nn.Module):\n    def __init__(self, m):\n        super().__init__()\n        self.m = m\n    def forward(self, ids):\n        return self.m.one(ids)[0]", "scored": "Out(net)"},
    {"scored": "lambda ids: net.one(ids)[0]"},
    {"more": "step = net.one", "scored": "lambda ids: step(ids)[0]"},
    {"scored": 'lambda ids: getattr(net, "one")(ids)[0]'},
    {"more": "first = net.one(val[None, :64])[0]"},
    {"other": "__call__(self, ids):\n        return self.one(ids)[0]"},
]


def status(**fill: str) -> str:
    return next(o.status for o in audit_text(PRELUDE + MODEL.format(**{**NOTHING, **fill})).obligations if o.rule == "F17")


def test_a_method_that_only_writes_text_is_no_part_of_the_score():
    assert status() == "holds"


@pytest.mark.parametrize("fill", SCORED)
def test_a_method_that_may_score_stays_undetermined(fill):
    assert status(**fill) in ("undetermined", "violated")
