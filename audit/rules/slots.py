"""Slots that read the whole window (a Perceiver's latents, a shared workspace), and positions that read them back.

No rule lives here. Queries that do not stand on the window's positions, learned ones as a rule, attend to all of them
without a mask: each slot then holds the window's end. That says nothing yet (a classifier does so); where positions of
the same window attend to the slots, or slots are added to them, each position sees what comes after it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from audit.rules.axes import Known, Value

SLOTS = "slots"
#: weights of the window's positions that sum to one over all of them
POOL = "pool"
READ = "slots that attend to the whole window are read back by every position"


def attended(node: Any, args: list[Known], time: int) -> tuple[Value | None, bool]:
    """What attention without a mask returns for queries, keys and values whose positions stand at axis ``time``, if
    slots are among them, and whether every position reads slots there."""
    if len(args) < 3:
        return None, False
    q, k, v = args[:3]
    if not (isinstance(k, Value) and isinstance(v, Value)) or k.origin != v.origin or len(k.origin) != 1:
        return None, False
    timeless = not isinstance(q, Value) or not {"t", "f"} & set(q.axes)
    if timeless and not k.state and not v.state and k.axis(time) == v.axis(time) == "t":
        at = time % len(k.axes)
        return Value(tuple("." if n == at else a for n, a in enumerate(k.axes)), k.origin, SLOTS, (node, READ)), False
    if k.state != SLOTS or v.state != SLOTS:
        return None, False
    if timeless:
        return k, False
    own = isinstance(q, Value) and not q.state and q.axis(time) == "t" and q.origin == k.origin
    return (replace(q, ahead=None), True) if own and isinstance(q, Value) else (None, False)


def pooled(v: Value, node: Any, dim: int) -> Value | None:
    """Weights that sum to one over all positions of the window, for each channel or slot."""
    plain = not v.state and v.axis(dim) == "t" and v.axes.count("t") == 1
    return replace(v, state=POOL, ahead=(node, READ)) if plain else None


def weighed(a: Known, b: Known, node: Any) -> Value | None:
    """``pool @ values`` sums the window up; ``queries @ slots`` gives each position what it holds."""
    if not (isinstance(a, Value) and isinstance(b, Value)) or a.origin != b.origin or len(a.origin) != 1:
        return None
    if {a.state, b.state} == {"", POOL} and a.axis(-1) == b.axis(-2) == "t":
        return Value((*a.axes[:-1], *b.axes[-1:]), a.origin, SLOTS, a.ahead if a.state else b.ahead)
    if not a.state and b.state == SLOTS and "t" in a.axes[:-1]:
        return replace(a, axes=(*a.axes[:-1], "c"), ahead=b.ahead or (node, READ))
    return None


def learned(at: Any, v: Value) -> Value | None:
    """``latents @ x.transpose(1, 2)``: of each position, one number for every row of ``at``, which is no part of the input."""
    turned = at == frozenset() and not v.state and v.axis(-1) == "t" and v.axes.count("t") == 1
    return replace(v, axes=(*v.axes[:-2], ".", "t")) if turned else None


def contracted(letters: list[str], output: str, a: Known, b: Known, node: Any) -> Value | None:
    """The same, by ``einsum``."""
    if not (isinstance(a, Value) and isinstance(b, Value)) or a.origin != b.origin or len(a.origin) != 1:
        return None
    if [len(x) for x in letters] != [len(a.axes), len(b.axes)]:
        return None
    first, second = (dict(zip(x, v.axes, strict=True)) for x, v in zip(letters, (a, b), strict=True))
    shared = [x for x in first if x in second and x not in output]
    axes = tuple(first.get(x, second.get(x, ".")) for x in output)
    states = {a.state, b.state}
    held = (a if a.state else b).ahead or (node, READ)
    if states == {"", POOL} and [first[x] for x in shared] == [second[x] for x in shared] == ["t"] and "t" not in axes:
        return Value(axes, a.origin, SLOTS, held)
    if states == {"", SLOTS} and axes.count("t") == 1:
        return Value(axes, a.origin, "", held)
    return None


def reduced(v: Value, dims: list[int] | None, held: bool) -> Value | None:
    """A statistic over slots still holds what they hold."""
    if not dims or not all(v.axis(d) for d in dims):
        return None
    gone = {d % len(v.axes) for d in dims}
    return replace(v, axes=tuple("." if n in gone else a for n, a in enumerate(v.axes) if held or n not in gone))


__all__ = ["POOL", "READ", "SLOTS", "attended", "contracted", "pooled", "reduced", "weighed"]
