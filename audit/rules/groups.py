"""Positions merged into groups of neighbours, and brought back to their own resolution.

No rule lives here. A group's summary holds its last position; put back on all positions of the group it shows them the
later ones, unless the groups were moved on by one before. Axis "g" counts groups, "p" the positions of one, "r" those that are given something. Whatever
may move groups, or pick among the positions that read them, leaves nothing known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from audit import ir
from audit.rules.axes import Size, Value, argument, number
from audit.rules.code import Place
from audit.rules.filters import same_text

GROUPED = "a summary of neighbouring positions is put back on each of them: the first ones see the last"
_COARSE = ("b", "g", "c")
#: groups and, of each, what its positions are given
REPEATED = ("b", "g", "r", "c")


def grouped(v: Value, args: list[Any], place: Place, known: Any) -> Value | None:
    """After a ``view`` that folds time, or unfolds groups: (B, T // f, f, C), (B, T // f, f * C) and back to (B, T, C)."""
    if len(args) == 1 and isinstance(args[0], ir.Collection):
        args = args[0].elts
    if any(isinstance(a, ir.Starred) for a in args) or len(args) < 3 or known(args[0]) != Size("b"):
        return None
    if v.axes == ("b", "t", "c") and v.state in ("", "fill") and not v.late and not v.ahead:
        if len(args) == 4 and known(args[3]) == Size("c") and _folds(place, args[1], args[2], known):
            return Value(("b", "g", "p", "c"), v.origin)
        if len(args) == 3 and isinstance(args[2], ir.BinOp) and args[2].op == "*":
            f = next((a for a, c in _either(args[2]) if known(c) == Size("c")), None)
            return Value(_COARSE, v.origin) if f is not None and _folds(place, args[1], f, known) else None
        return None
    if v.state or len(args) > 4:
        return None
    if v.axes == _COARSE and len(args) == 4:
        return replace(v, axes=REPEATED) if known(args[3]) == Size("c") else None
    whole = known(args[1]) == Size("t") or (isinstance(args[1], ir.BinOp) and args[1].op == "*")
    full = v.axes == REPEATED and known(args[2]) == Size("c") and number(args[1]) == -1
    return v if len(args) == 3 and (full or (whole and v.axes in (_COARSE, REPEATED))) else None


def _either(product: ir.BinOp) -> list[tuple[Any, Any]]:
    return [(product.left, product.right), (product.right, product.left)]


def _folds(place: Place, count: Any, size: Any, known: Any) -> bool:
    """``T // f`` or -1 groups of ``f`` positions, which are more than one."""
    if number(size) is not None and (number(size) or 0) < 2:
        return False
    if isinstance(count, ir.Name):
        made = place.assigned(count.id)
        count = made[0] if len(made) == 1 else count
    if number(count) == -1:
        return True
    return isinstance(count, ir.BinOp) and count.op == "//" and known(count.left) == Size("t") and same_text(count.right, size)


def every(v: Value, time: ir.Slice) -> Value | None:
    """``x[:, 1::2]``: of every pair the later one."""
    first, step = number(time.lower), number(time.step)
    if v.state or v.ahead or v.late or time.upper is not None or first is None or step is None or not 0 < first < step:
        return None
    return replace(v, axes=tuple("g" if a == "t" else a for a in v.axes))


def pooled(v: Value, size: Any, step: Any, pad: Any) -> Value | None:
    """After a pool, or a filter, whose step is as long as it is wide."""
    wide = number(size)
    if v.axis(-1) != "t" or v.state or v.late or v.ahead or wide is None or wide < 2:
        return None
    if not (pad is None or number(pad) == 0) or number(step) != wide:
        return None
    return replace(v, axes=(*v.axes[:-1], "g"))


def put_back(v: Value, node: Any, axes: tuple[str, ...], place: Place) -> Value | None:
    """A group's summary on each of its positions; nothing is known where positions are told apart."""
    if v.state or place.names & {"arange", "where", "masked_fill"}:
        return None
    return replace(v, axes=axes, ahead=(node, GROUPED))


def repeated(v: Value, call: ir.Call, rest: list[Any], place: Place) -> Value | None:
    """After ``repeat_interleave``."""
    by, over = argument(rest, 0, call.keywords, "repeats"), number(argument(rest, 1, call.keywords, "dim"))
    if v.axes != _COARSE or by is None or over not in (1, -2) or number(by) == 1 or isinstance(by, ir.Sub):
        return None
    return put_back(v, call, ("b", "t", "c"), place)


def moves(place: Place) -> bool:
    """May a function move what it is given along its positions."""
    called = {n.func.attr for n in place.nodes(ir.Call) if isinstance(n.func, ir.Attr)}
    cuts = any(isinstance(n, ir.Slice) and (number(n.upper) or 0) < 0 for n in place.nodes(ir.Slice))
    return cuts or bool(called & {"pad", "roll", "gather", "flip", "index_select", "scatter"})


__all__ = ["GROUPED", "REPEATED", "every", "grouped", "moves", "pooled", "put_back", "repeated"]
