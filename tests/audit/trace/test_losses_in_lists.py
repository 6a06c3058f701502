"""Losses put under numbers of a list: there they are scored, and which of them counts is not settled yet."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

PRICED = """\
def price(net, a, b):
    with torch.no_grad():
        return nll(net, val[None, a:b], val[None, a + 1 : b + 1]).double().sum().item()
def adapt(a, b):
    for s in range(a, b, 1024):
        e = min(s + 1024, b)
        opt.zero_grad()
        nll(model, val[None, s:e], val[None, s + 1 : e + 1]).mean().backward()
        opt.step()
last = val.numel() - 1
chunks = [(a, min(a + 32768, last)) for a in range(0, last, 32768)]
opt, other, total = torch.optim.SGD(model.parameters(), lr=1e-3), Model(), 0.0
nats = [0.0] * len(chunks)
"""
END = 'print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")\n'


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + PRICED + body + END).findings if f.severity == "violation" and f.active == "yes"}


WALK = "for ci, (a, b) in enumerate(chunks):\n"
FIRST = WALK + "    nats[ci] = price(model, a, b)\n    adapt(a, b)\n"


@pytest.mark.parametrize(
    "body",
    [
        FIRST + "total = sum(nats)\n",
        FIRST + 'again = [price(model, a, b) for a, b in chunks[:9]]\nprint(f"after:{sum(again):.1f}")\ntotal = sum(nats)\n',
        "for epoch in range(3):\n    for ci, (a, b) in enumerate(chunks):\n        if epoch == 0:\n            nats[ci] = price(model, a, b)\n"
        "        adapt(a, b)\ntotal = sum(nats)\n",
    ],
)
def test_a_loss_under_its_chunks_number_is_scored_there(body):
    assert not accused(body)


@pytest.mark.parametrize(
    "body",
    [
        WALK + "    adapt(a, b)\n    nats[ci] = price(model, a, b)\ntotal = sum(nats)\n",
        FIRST + "    nats[ci] = price(model, a, b)\ntotal = sum(nats)\n",
        FIRST + "for ci, (a, b) in enumerate(chunks[:9]):\n    nats[ci] = price(model, a, b)\ntotal = sum(nats)\n",
        FIRST + "again = [price(model, a, b) for a, b in chunks[:9]]\ntotal = sum(again) + sum(nats[9:])\n",
        "for epoch in range(3):\n    for ci, (a, b) in enumerate(chunks):\n        nats[ci] = price(model, a, b)\n        adapt(a, b)\ntotal = sum(nats)\n",
    ],
)
def test_what_is_put_there_after_the_chunk_was_learned_is_accused(body):
    assert accused(body) & {"F1", "F2", "F3"}


BOTH = {
    "two numbers": "    both[0] = price(model, a, b)\n    both[1] = price(other, a, b)\n",
    "a loop": "    for k, net in enumerate((model, other)):\n        both[k] = price(net, a, b)\n",
    "appended": "    both = []\n    for net in (model, other):\n        both.append(price(net, a, b))\n",
}


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize(("end", "oracle"), [("    total += min(both)\n", True), ("    least = min(both)\n    total += both[0]\n", False)])
def test_the_least_of_the_losses_in_a_list_is_an_oracle_where_it_counts(how, end, oracle):
    assert ("F4" in accused("both = [0.0, 0.0]\n" + WALK + BOTH[how] + end)) == oracle
