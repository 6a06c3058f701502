"""When a loss counts as scored: the ways in which a turn adds it to a total, or puts it into a list, before it is learned from."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

BODY = """\
import itertools, operator
from collections import namedtuple
from dataclasses import dataclass, replace
from typing import NamedTuple
@dataclass
class Sums:
    nats: float = 0.0
class Named(NamedTuple):
    nats: object
    tokens: int
Pair = namedtuple("Pair", "nats tokens")
def added(total, losses):
    return total + losses.sum()
def both(total, count, losses):
    return total + losses.sum(), count + losses.numel()
def pair(old, losses):
    nats, tokens = old
    return Pair(nats + losses.sum(), tokens + 1)
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
total, zero, count, held, losses, many, sums = 0.0, torch.tensor(0.0), 0, {"nats": 0.0}, [], torch.zeros(0), Sums()
named, old = Named(0.0, 0), Pair(0.0, 0)
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
@@
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
LEARN = "nll(model, x, y).mean().backward()\nopt.step()"
ADDS = [
    "total = total + LOSS.sum()",
    "total = LOSS.sum() + total",
    "total = total - (-LOSS).sum()",
    "zero = zero + LOSS.sum()\ntotal = zero",
    "total = total + LOSS.sum().item()",
    "total, count = total + LOSS.sum(), count + 1",
    "total = added(total, LOSS)",
    "total, count = both(total, count, LOSS)",
    "total = torch.add(total, LOSS.sum())",
    "total = zero.add(LOSS.sum())\nzero = total",
    "total = operator.add(total, LOSS.sum())",
    'held["nats"] = held["nats"] + LOSS.sum()\ntotal = held["nats"]',
    "sums.nats = sums.nats + LOSS.sum()\ntotal = sums.nats",
    "sums = replace(sums, nats=sums.nats + LOSS.sum())\ntotal = sums.nats",
    "named = Named(named.nats + LOSS.sum(), named.tokens + 1)\ntotal = named.nats",
    "named = named._replace(nats=named.nats + LOSS.sum())\ntotal = named.nats",
    "old = pair(old, LOSS)\ntotal = old[0]",
    "losses = losses + [LOSS.sum()]\ntotal = sum(losses)",
    "losses = [*losses, LOSS.sum()]\ntotal = sum(losses)",
    "many = torch.cat([many, LOSS.flatten()])\ntotal = many.sum()",
]


def found(*turn: str) -> tuple[str, set[str], str]:
    lines = "\n".join("    " + line for step in turn for line in step.replace("LOSS", "nll(model, x, y).detach()").splitlines())
    result = audit_text(PRELUDE + BODY.replace("@@", lines))
    return result.verdict, {f.rule for f in result.findings if f.severity == "violation"}, result.ttt["kind"]


@pytest.mark.parametrize("add", ADDS)
def test_a_turn_that_adds_up_first_and_learns_then(add: str) -> None:
    assert found(add, LEARN) == ("clean", set(), "score-first-chunk")


@pytest.mark.parametrize("add", ADDS)
def test_a_turn_that_learns_first(add: str) -> None:
    verdict, rules, kind = found(LEARN, add)
    assert (verdict, kind) == ("violation", "train-then-score")
    assert rules & {"F1", "F2"}


@pytest.mark.parametrize("start", ["inner = 0.0", "inner = torch.zeros(())"])
def test_a_loss_that_is_added_up_to_be_learned_from_is_no_score(start: str) -> None:
    learn = f"{start}\nfor _ in range(3):\n    inner = inner + nll(model, x, y).mean()\ninner.backward()\nopt.step()"
    assert found(learn, "total = total + LOSS.sum()")[0] == "violation"
