"""Runs: lists cut out of another list, which begin so many elements further on (or back) than it does.

``zip(pieces, pieces[1:])`` hands out the next piece beside each one. So what the second name holds is what the first one
holds a turn later, be it scored or learned from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from audit.trace.values import META, VAL, V, clone


def _run_of(v: V) -> tuple[Any, int]:
    return v.run if v.run is not None else (v, 0)


def _number(v: V, default: int) -> int | None:
    """A bound that stands in the script."""
    if v.kind == "const" and v.const is None:
        return default
    return v.const if v.kind == "const" and type(v.const) is int and not v.deps else None


def cut_out(base: V, bounds: list[V], out: V) -> V:
    """``out`` is ``base[low:high:step]``."""
    low, by = _number(bounds[0], 0), _number(bounds[2], 1)
    if base.kind == "seq" and low is not None and low >= 0 and by == 1:
        root, offset = _run_of(base)
        out.run = root, offset + low
    if bounds[0].lv is not None and bounds[1].kind == "const" and bounds[1].const is None:
        out.lv = bounds[0].lv  # from a loop's number on, and open: what is cut out of it counts from there
        out.deps = bounds[0].deps
    return out


def suffix(base: V, bounds: list[V]) -> tuple[V | None, V | None]:
    """The bounds of a slice; ``items[i:][:3]`` is ``items[i : i + 3]``."""
    low, high = bounds[0], bounds[1]
    if base.lv is not None and len(base.lv) == 2 and _number(low, 0) == 0 and (many := _number(high, -1)) is not None and many > 0:
        first, end = V("val"), V("val")
        first.lv, end.lv = base.lv, (base.lv[0], base.lv[1] + many)
        first.deps = end.deps = base.deps
        return first, end
    return low, high


def one_element(bounds: list[V]) -> bool:
    """``items[i : i + 1]``"""
    low, high = bounds[0].lv, bounds[1].lv
    return low is not None and high is not None and len(low) == len(high) == 2 and high == (low[0], low[1] + 1)


def joined(a: V, b: V, out: V) -> V:
    """``out`` is ``a + b``; a few elements before a list move it back."""
    known = len(a.data or []) if a.rest is None else None
    if known is not None and b.run is not None:
        out.run = b.run[0], b.run[1] - known
    elif known is None:
        out.run = a.run
    return out


def moved(v: V, loop: int, turn: Callable[[int], int]) -> V:
    """The element as another turn of ``loop`` finds it."""
    if v.kind not in ("val", "const", "seq"):
        return v

    def pairs(found: frozenset) -> frozenset:
        return frozenset((x, turn(n)) if x == loop else (x, n) for x, n in found)

    out = clone(v)
    out.deps = pairs(v.deps)
    out.atoms = frozenset((pairs(deps), low, high) for deps, low, high in v.atoms)
    if v.lv is not None and v.lv[-2] == loop:
        out.lv = (*v.lv[:-1], turn(v.lv[-1]))
    if v.kind == "seq":
        out.data = [moved(x, loop, turn) for x in v.data or []]
        out.rest = moved(v.rest, loop, turn) if v.rest is not None else None
    return out


def abreast(lists: list[V], columns: list[list[V]], loop: int) -> list[list[V]]:
    """The columns of a ``zip`` in ``loop``: of lists that are parts of one, each holds the elements that its place says.

    Not so where they are plain numbers: ``zip(cuts, cuts[1:])`` says where pieces begin and end.
    """
    runs = [_run_of(v) for v in lists]
    found = []
    for (root, offset), turns in zip(runs, columns, strict=True):
        some = [t for t in turns if t.kind != "const" or t.const is not None]
        pieces = all(t.kind == "seq" or (t.flags & VAL and not t.flags & META) for t in some)
        beside = any(other is root and at != offset for other, at in runs)
        found.append([moved(t, loop, lambda n, by=offset: n + by) for t in turns] if pieces and beside and offset else turns)  # type: ignore[misc]
    return found


__all__ = ["abreast", "cut_out", "joined", "moved", "suffix"]
