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
BLOCKED = "each position of a block is given what the whole block adds up to: the first ones see the last"
#: what a block's positions add up to, keys times values as a rule, with the blocks before it or without
BLOCK = "block"
_COARSE = ("b", "g", "c")
_BLOCKS = ("b", "g", "p", "c")
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
            return Value(_BLOCKS, v.origin)
        if len(args) == 3 and isinstance(args[2], ir.BinOp) and args[2].op == "*":
            f = next((a for a, c in _either(args[2]) if known(c) == Size("c")), None)
            return Value(_COARSE, v.origin) if f is not None and _folds(place, args[1], f, known) else None
    if v.axes.count("t") == 1 and v.state in ("", "fill") and not v.late and not v.ahead:
        at = v.axes.index("t")
        split = v.axes == ("b", "t", "c") and len(args) == 5  # heads at once
        told = split or len(args) == len(v.axes) + 1
        if told and number(args[at]) != -1 and _folds(place, args[at], args[at + 1], known):
            return Value(("b", "g", "p", ".", ".") if split else (*v.axes[:at], "g", "p", *v.axes[at + 1 :]), v.origin)
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


def unfolded(v: Value, args: list[Any], known: Any) -> Value | None:
    """(B, T // f, f, C) after ``reshape(B, -1, C)`` or ``reshape(x.shape)``: positions in a row again."""
    if len(args) == 1 and isinstance(args[0], ir.Collection):
        args = args[0].elts
    if v.state or not {"g", "p"} <= set(v.axes) or not args or any(isinstance(a, ir.Starred) for a in args):
        return None
    whole = known(args[0]) if len(args) == 1 else tuple(Size("t") if number(a) == -1 else known(a) for a in args)
    if not isinstance(whole, tuple) or len(whole) < 3 or whole[0] != Size("b") or whole.count(Size("t")) != 1:
        return None
    if v.axes == _BLOCKS and whole == (Size("b"), Size("t"), Size("c")):
        return replace(v, axes=("b", "t", "c"))
    blocked = v.ahead is not None and v.ahead[1] == BLOCKED and len(whole) < len(v.axes)
    return replace(v, axes=tuple(s.axis if isinstance(s, Size) else "." for s in whole)) if blocked else None


def rearranged(v: Value, pattern: Any) -> Value | None:
    """After ``rearrange(x, "b (n c) d -> b n c d")``, and back again."""
    text = pattern.value if isinstance(pattern, ir.Const) and isinstance(pattern.value, str) else ""
    old, arrow, new = text.partition("->")
    left, right = _words(old), _words(new)
    if not arrow or len(left) != len(v.axes) or v.late or v.state not in ("", "fill") or (v.state and v.ahead):
        return None
    names: dict[str, str] = {}
    for word, axis in zip(left, v.axes, strict=True):
        if len(word) == 2 and axis == "t":
            names |= {word[0]: "g", word[1]: "p"}
        else:
            names |= dict.fromkeys(word, axis if len(word) == 1 else ".")
    if not {"g", "p"} <= set(names.values()) or any(w not in names for word in right for w in word):
        return None
    axes = []
    for word in right:
        several = [names[w] for w in word]
        axes.append("t" if several == ["g", "p"] else several[0] if len(several) == 1 else ".")
        if len(several) > 1 and several != ["g", "p"] and {"g", "p", "b"} & set(several):
            return None
    return replace(v, axes=tuple(axes), state="") if axes.count("t") == 1 or ("g" in axes and "p" in axes) else None


def _words(side: str) -> list[tuple[str, ...]]:
    """Of each axis the names that it is made of."""
    found: list[tuple[str, ...]] = []
    for n, part in enumerate(side.replace("(", ")").split(")")):
        found += [tuple(part.split())] if n % 2 else [(w,) for w in part.split()]
    return found


def contracted(letters: list[str], output: str, a: Value, b: Value, node: Any) -> Value | None:
    """A product that sums up what a block's positions hold, or gives it to each of them: ``einsum``, axes under letters."""
    if [len(x) for x in letters] != [len(a.axes), len(b.axes)] or a.origin != b.origin or len(a.origin) != 1:
        return None
    first, second = (dict(zip(x, v.axes, strict=True)) for x, v in zip(letters, (a, b), strict=True))
    at = [next((x for x in of if of[x] == "g"), "") for of in (first, second)]
    axes = tuple(first.get(x) or second.get(x) or "." for x in output)
    if not at[0] or at[0] != at[1] or at[0] not in output:
        return None
    gone = [x for x in first if x in second and x not in output]
    plain = not a.ahead and not b.ahead
    if not a.state and not b.state and plain and [first[x] for x in gone] == [second[x] for x in gone] == ["p"] and "p" not in axes:
        return Value(axes, a.origin, BLOCK, (node, BLOCKED))
    if {a.state, b.state} == {"", BLOCK} and axes.count("p") == 1:
        return Value(axes, a.origin, "", (node, BLOCKED))
    return None


def multiplied(a: Value, b: Value, node: Any) -> Value | None:
    """The same, by ``@``."""
    if len(a.axes) != len(b.axes) or len(a.axes) < 3:
        return None
    front = [chr(65 + n) for n in range(len(a.axes) - 2)]
    letters = ["".join([*front, *"xy"]), "".join([*front, *"yz"])]
    return contracted(letters, "".join([*front, *"xz"]), a, b, node)


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


def thinned(v: Value, scale: Any, mode: Any) -> Value | None:
    """After ``F.interpolate`` to fewer positions, each of which is made of several; the nearest one alone is a group's first."""
    less = isinstance(scale, ir.Const) and isinstance(scale.value, float) and 0 < scale.value < 1
    less = less or (isinstance(scale, ir.BinOp) and scale.op == "/" and number(scale.left) == 1)
    several = isinstance(mode, ir.Const) and mode.value in ("linear", "area")
    plain = v.axes == ("b", "c", "t") and not v.state and not v.late and not v.ahead
    return replace(v, axes=("b", "c", "g")) if less and several and plain else None


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


__all__ = [
    "BLOCK", "BLOCKED", "GROUPED", "REPEATED", "contracted", "every", "grouped", "moves", "multiplied", "pooled", "put_back",
    "rearranged", "repeated", "thinned", "unfolded",
]  # fmt: skip
