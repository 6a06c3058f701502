"""Slices of lists of pieces: whether they hold what later turns score."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
START = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def learn(a, b):
    opt.zero_grad()
    nll(model, val[None, a:b], val[None, a + 1 : b + 1]).mean().backward()
    opt.step()
def price(a, b):
    with torch.no_grad():
        return nll(model, val[None, a:b], val[None, a + 1 : b + 1]).sum()
n = val.numel() - 1
lots = [(a, min(a + 1024, n)) for a in range(0, n, 1024)]
total = torch.zeros(())
"""


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + START + body + END).findings if f.severity == "violation"}


COUNTED = "for i in range(len(lots)):\n    total += price(*lots[i])\n    for a, b in {}:\n        learn(a, b)\n"
NUMBERED = "for i, (s, e) in enumerate(lots):\n    total += price(s, e)\n    for a, b in {}:\n        learn(a, b)\n"
AHEAD = [
    "lots[i:][:3]", "lots[i + 1 : i + 2]", "lots[i : i + 2]", "lots[i + 1 :][:2]", "lots[: i + 2]", "lots[max(0, i - 3) : i + 2]",
    "lots[i + 1 : min(i + 3, len(lots))]",
]  # fmt: skip
PAST = [
    "lots[: i + 1]", "lots[: i + 1][-3:]", "lots[max(0, i - 3) : i + 1]", "lots[i : i + 1]", "lots[i:][:1]", "lots[i - 3 : i + 1]",
    "lots[i - 3 :][:4]", "[lots[i]]",
]  # fmt: skip


@pytest.mark.parametrize("loop", [COUNTED, NUMBERED])
@pytest.mark.parametrize("held", AHEAD)
def test_a_slice_that_holds_the_next_piece(loop, held):
    assert accused(loop.format(held)) & {"F2", "F3"}


@pytest.mark.parametrize("loop", [COUNTED, NUMBERED])
@pytest.mark.parametrize("held", PAST)
def test_a_slice_that_ends_with_this_piece(loop, held):
    assert not accused(loop.format(held))


FOUR = """\
for i in range(0, len(lots), 4):
    for a, b in lots[i : i + 4]:
        total += price(a, b)
    for a, b in {}:
        learn(a, b)
"""


@pytest.mark.parametrize(("held", "found"), [("lots[i : i + 4]", False), ("lots[max(0, i - 4) : i + 4]", False), ("lots[i : i + 8]", True)])
def test_batches_of_pieces(held, found):
    assert bool(accused(FOUR.format(held))) is found


BESIDE = "{first}for (a, b), (p, q) in zip({lists}):\n    {one}\n    {two}\n"


@pytest.mark.parametrize(
    ("lists", "one", "two"),
    [
        ("lots, lots[1:] + lots[:1]", "total += price(a, b)", "learn(p, q)"),
        ("lots, lots[1:]", "total += price(a, b)", "learn(p, q)"),
        ("lots[:-1], lots[1:]", "total += price(a, b)", "learn(p, q)"),
        ("lots[1:], lots[2:]", "total += price(a, b)", "learn(p, q)"),
        ("lots, lots", "learn(p, q)", "total += price(a, b)"),
        ("lots, lots[1:]", "learn(p, q)", "total += price(p, q)"),
    ],
)
def test_lists_zipped_so_that_the_next_piece_is_learned_from(lists, one, two):
    assert accused(BESIDE.format(first="", lists=lists, one=one, two=two)) & {"F2", "F3"}


@pytest.mark.parametrize(
    ("first", "lists", "one", "two"),
    [
        ("", "lots, lots", "total += price(a, b)", "learn(p, q)"),
        ("", "lots, lots[:1] + lots[:-1]", "total += price(a, b)", "learn(p, q)"),
        ("total += price(*lots[0])\n", "lots[1:], lots", "total += price(a, b)", "learn(p, q)"),
        ("total += price(*lots[0])\n", "lots, lots[1:]", "learn(a, b)", "total += price(p, q)"),
        ("", "lots[1:], lots[1:]", "total += price(a, b)", "learn(p, q)"),
    ],
)
def test_lists_zipped_so_that_what_was_scored_is_learned_from(first, lists, one, two):
    assert not accused(BESIDE.format(first=first, lists=lists, one=one, two=two))


def test_a_piece_beside_the_one_before_it():
    loop = "for now, before in zip(lots, {}):\n    if before is not None:\n        learn(*before)\n    total += price(*now)\n"
    assert not accused(loop.format("[None] + lots[:-1]"))
    assert accused(loop.format("lots[1:] + [None]"))


def test_cuts_zipped_say_where_pieces_begin_and_end():
    cuts = "cuts = list(range(0, n, 1024)) + [n]\nfor a, b in zip(cuts, cuts[1:]):\n    total += price(a, b)\n    learn(a, b)\n"
    assert not accused(cuts)
