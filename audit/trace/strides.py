"""Strides: how far windows of the stream lie apart, and which part of each is scored.

``starts = range(0, n, stride)``, ``x[i, :length] = tokens[w : w + 1024]``, ``total += nll[i, s:length].sum()``: the windows are
in rows, and a loop over the rows knows no places in the stream. What is read at a window's beginning carries the stride,
and which of the window's tokens it holds at most; slices narrow that. Where the scored parts of a window are together
shorter than the stride, the rest is in no window's part. Whatever is not known in numbers counts as scored.

The first window is scored whole, or from further on than the others: ``s = 0 if w == 0 else context``. It is one of many,
and the number of all others is meant.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import EMPTY, LOGITS, LOSS, META, VAL, V, clone, kinds, without

#: ``(STRIDE, tokens, offset)`` of a place ``offset`` behind a window's beginning; of tokens that were read there.
#: ``(STRIDE_BY, symbol, offset)``: the counter of a loop says how far windows lie apart
STRIDE, STRIDE_BY = "stride", "stride by"
#: ``(LATER_START, n)`` of a number that is n for all windows but the first
LATER_START = "of later windows"
#: ``(HELD, first, last)``: of its window's tokens it holds none before ``first`` and none behind ``last``
HELD = "of its window"
#: a run of tokens side by side, in no rows
ONE_AXIS = ("one axis",)
_OF_PLACES = (STRIDE, STRIDE_BY)
_OF_NUMBERS = (*_OF_PLACES, LATER_START)


def whole_number(v: V | None) -> int | None:
    if v is None or v.kind != "const" or type(v.const) is not int or v.deps:
        return None
    return v.const


def later_start(v: V | None) -> int | None:
    """The number that a bound is for all windows but the first."""
    if (n := whole_number(v)) is not None or v is None:
        return n
    found = {k[1] for k in v.keys if k[0] == LATER_START} if LATER_START in kinds(v) else set()
    return found.pop() if len(found) == 1 else None


def moved(op: str, a: V, b: V, out: V) -> None:
    """``start + 1``, ``context + 8``; no other arithmetic is followed."""
    if kinds(out).isdisjoint(_OF_NUMBERS):
        return
    by = whole_number(b) if op in "+-" else None
    by = whole_number(a) if by is None and op == "+" else -by if by is not None and op == "-" else by
    found = {k for k in out.keys if k[0] in _OF_NUMBERS}
    out.keys = out.keys - found
    if by is not None:
        out.keys = out.keys | {(k[0], k[1] + by) if k[0] == LATER_START else (k[0], k[1], k[2] + by) for k in found}


def note_later_start(e: ir.IfExp, test: V, a: V, b: V, out: V) -> V:
    """``0 if start == 0 else context``"""
    if kinds(test).isdisjoint(_OF_PLACES) or out is a or out is b:
        return out
    made = clone(out)
    made.keys = frozenset(k for k in out.keys if k[0] not in _OF_NUMBERS)  # the number is no place
    compared = test.rest.data if test.rest is not None and test.rest.kind == "seq" else [test]
    if any(k[2] for k in test.keys if k[0] in _OF_PLACES) or any(whole_number(v) != 0 for v in compared[1:]):
        return made
    if isinstance(e.test, ir.Compare):
        later = {"==": b, "<=": b, "!=": a, ">": a}.get(e.test.ops[0]) if len(compared) == 2 else None
    else:
        later = a if isinstance(e.test, (ir.Name, ir.Sub)) else None
    if (n := later_start(later)) is not None:
        made.keys = made.keys | {(LATER_START, n)}
    return made


def note_held(base: V, elements: list[Any], parts: list[Any], out: V) -> None:
    """``tokens[w : w + 1024]``, ``nll[i, s:length]``"""
    if not base.flags & VAL or base.flags & META:
        return
    if any(isinstance(x, ir.Const) and x.value is None for x in elements):
        out.keys = without(out.keys, {ONE_AXIS})
    axes = [(x, p) for x, p in zip(elements, parts, strict=True) if isinstance(x, ir.Slice)]
    if not axes or any(x.step is not None for x, _ in axes) or not isinstance(elements[-1], ir.Slice):
        return
    low, high = axes[-1][1]
    if HELD in kinds(base):
        if len(elements) > 1 or ONE_AXIS in base.keys:
            held = [k for k in base.keys if k[0] == HELD]
            first, last = narrowed(min(k[1] for k in held), max(k[2] for k in held), low, high)
            out.keys = frozenset(k for k in out.keys if k[0] != HELD) | {(HELD, first, last)}
        return
    if base.flags & (LOSS | LOGITS) or low is None or kinds(low).isdisjoint(_OF_PLACES) or out.span is None or out.span[1] is None:
        return
    begins = [k for k in low.keys if k[0] in _OF_PLACES]
    (symbols, first), (others, last) = out.span
    if len(begins) == 1 and symbols == others and last >= first and all(isinstance(x, (ir.Slice, ir.Const)) for x in elements):
        kind, by, offset = begins[0]
        out.keys = out.keys | {(kind, by, 0), (HELD, offset, offset + last - first)} | ({ONE_AXIS} if len(elements) == 1 else EMPTY)


def filled(value: V, elements: list[Any]) -> V:
    """``rows[i, :length] = run``; where the run does not begin at the row's beginning, it is not known where its tokens stand."""
    if HELD not in kinds(value):
        return value
    moved_on = any(isinstance(x, ir.Slice) and x.lower is not None and not (isinstance(x.lower, ir.Const) and x.lower.value == 0) for x in elements)
    out = clone(value)
    out.keys = frozenset(k for k in value.keys if k != ONE_AXIS and not (moved_on and k[0] in (HELD, *_OF_PLACES)))
    return out


def narrowed(first: int, last: int, low: V | None, high: V | None) -> tuple[int, int]:
    begin = 0 if low is None else later_start(low)
    end = whole_number(high)
    if end is not None and end != 0:
        to = first + end - 1 if end > 0 else last + end
    else:
        to = last
    if begin is not None:
        return (max(first, last + 1 + begin) if begin < 0 else first + begin), min(last, to)
    return first, min(last, to)


def held_by_target(target: V, out: V) -> None:
    """A loss is that of its targets, whatever more the predictions were made for."""
    if HELD in kinds(target):
        out.keys = frozenset(k for k in out.keys if k[0] != HELD) | {k for k in target.keys if k[0] == HELD}


__all__ = ["HELD", "LATER_START", "ONE_AXIS", "STRIDE", "STRIDE_BY", "filled", "held_by_target", "moved", "note_held", "note_later_start"]
