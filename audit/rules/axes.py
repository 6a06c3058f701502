"""Where the time axis stands in a layer's local values, and what has been done along it.

No rule lives here. `Sequences` knows which names hold (B, T, C) activations; layers turn these (heads before time,
channels before time), multiply them into scores of every position against every other, shift and filter them.
`audit.rules.reading` follows a method's statements in order with one such value per name; `audit.rules.mixing` says what
an operation along time does to it. Where an axis is not known any more, the value is not either, and nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from audit import ir

#: states of a value: "" activations; "rank" the positions in the order of their values; "score", "scaled" of queries against keys, "share" what the values are weighed by;
#: "zeroed" scores of which a mask leaves some at zero, which hides them from a sum and not from a softmax;
#: "wrap" embedded ids whose first is the window's last; "window" a statistic over time; "tail" all but the first positions; "flip" last position first; "freq" a spectrum;
#: "pool" weights that sum to one over all positions, "slots" that attend to the whole window, without an axis for it;
#: "level" less what is largest in the window, which cancels out where shares are made of it;
#: "sorted" values in their order; "block" what the positions of a block add up to;
#: "pad" with zeros after the last position; "fill" with as many as make its length even; "long" a filter's result with its overhang on both sides


@dataclass(frozen=True, slots=True)
class Value:
    """``axes``: "b", "t" (time), "s" (time of the keys), "f" (all positions of all windows in a row), "g" (groups of positions), "p", "r" (those of one group), "c", "." (anything
    else); ``origin``: the inputs it is made of; ``ahead``: where, and by what, each position came to hold later ones;
    ``sees``: of scores, which (time, time of the keys) a mask that is known leaves in sight, None without a mask;
    ``late``: by how many positions all of it was moved on, as far as shifts and zeros in front say;
    ``front``: how many zeros stand in front of it where zeros also stand behind it."""

    axes: tuple[str, ...]
    origin: frozenset[str]
    state: str = ""
    ahead: tuple[Any, str] | None = None
    sees: frozenset[tuple[int, int]] | None = None
    late: int = 0
    front: Any = None

    def axis(self, n: Any) -> str:
        return self.axes[n] if isinstance(n, int) and -len(self.axes) <= n < len(self.axes) else ""


@dataclass(frozen=True, slots=True)
class Size:
    """The length of an axis."""

    axis: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """A constant that was handed in."""

    value: Any


@dataclass(frozen=True, slots=True)
class Grid:
    """A mask on a small window, entry by entry: ``axes`` say by which length each axis goes, "" where it has one entry.

    ``boolean``: are its entries truth values; None where that is not known.
    """

    axes: tuple[str, ...]
    cells: tuple[Any, ...]
    boolean: bool | None


Known = Value | Size | Fixed | Grid | tuple[Any, ...] | None
Env = dict[str, Known]

_TURNS = frozenset({"transpose", "swapaxes"})


def number(node: Any) -> int | None:
    """A whole number that is written out."""
    if isinstance(node, ir.UnaryOp) and node.op == "-":
        inner = number(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ir.Const) and type(node.value) is int else None


def numbers(nodes: list[Any]) -> list[int] | None:
    """Written out one by one or as one tuple."""
    if len(nodes) == 1 and isinstance(nodes[0], ir.Collection):
        nodes = nodes[0].elts
    found = [number(n) for n in nodes]
    return [n for n in found if n is not None] if found and None not in found else None


def argument(args: list[Any], at: int, keywords: Iterable[tuple[Any, Any]], *names: str) -> Any:
    """The argument at a position or under one of its names."""
    return args[at] if at < len(args) else next((v for k, v in keywords if k in names), None)


def length(node: Any, known: Any) -> Known:
    """``x.shape``, ``x.shape[1]``, ``x.size(1)``: lengths of a value's axes; ``known`` reads an expression."""
    if isinstance(node, ir.Attr) and node.attr == "shape":
        base = known(node.value)
        return tuple(Size(a) for a in base.axes) if isinstance(base, Value) else None
    if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr == "size":
        base = known(node.func.value)
        if not isinstance(base, Value):
            return None
        if not node.args:
            return tuple(Size(a) for a in base.axes)
        axis = base.axis(number(node.args[0]))
        return Size(axis) if axis else None
    return None


def viewed(v: Value, args: list[Any], known: Any) -> Value | None:
    """After ``view`` or ``reshape``: known where one of the new lengths is time's, by name, or all positions are in a row."""
    if len(args) == 1 and isinstance(args[0], ir.Collection):
        args = args[0].elts
    axes: list[str] = []
    for a in args:
        if isinstance(a, ir.Starred):
            inner = known(a.value)
            if not (isinstance(inner, tuple) and all(isinstance(i, Size) for i in inner)):
                return None
            axes += [i.axis for i in inner]
            continue
        k = known(a)
        if isinstance(k, tuple) and len(args) == 1 and all(isinstance(i, Size) for i in k):
            axes += [i.axis for i in k]
        else:
            axes.append(k.axis if isinstance(k, Size) else ".")
    row = number(args[0]) == -1 or axes[0] == "f"
    if v.state == "" and v.axes in (("b", "t"), ("b", "t", "c")) and row and tuple(axes[1:]) == v.axes[2:]:
        return replace(v, axes=("f", *axes[1:]))
    if v.state == "" and v.axes[0] == "f" and axes[:2] == ["b", "t"] and axes.count("t") == 1:
        return replace(v, axes=tuple(axes))
    plain = v.state == "" and axes.count("t") == 1 and "s" not in axes and v.axes.count("t") == 1
    return replace(v, axes=tuple(axes)) if plain or (v.state == "slots" and "t" not in axes) else None


def turned(v: Value, call: ir.Call, name: str, args: list[Any]) -> Value | None:
    """After ``transpose``, ``permute`` or their like."""
    if name in _TURNS:
        pair = numbers(args[:2])
        if pair is None or len(pair) != 2 or not all(v.axis(n) for n in pair):
            return None
        axes = list(v.axes)
        axes[pair[0]], axes[pair[1]] = axes[pair[1]], axes[pair[0]]
        return replace(v, axes=tuple(axes))
    order = numbers(args)
    if order is None or len(order) != len(v.axes) or not all(v.axis(n) for n in order):
        return None
    return replace(v, axes=tuple(v.axes[n] for n in order))


def rearranged(v: Value, pattern: Any) -> Value | None:
    """After einops' ``rearrange(x, "b t (h d) -> b h t d")``."""
    if not (isinstance(pattern, ir.Const) and isinstance(pattern.value, str) and "->" in pattern.value):
        return None
    old, _, new = pattern.value.partition("->")
    sides: list[list[str]] = []
    for side in (old, new):
        words, depth = [], 0
        for word in side.replace("(", " ( ").replace(")", " ) ").split():
            if word in "()":
                depth += 1 if word == "(" else -1
                words += ["."] if word == "(" else []
            elif not depth:
                words.append(word)
        sides.append(words)
    if len(sides[0]) != len(v.axes) or v.state:
        return None
    names = {w: a for w, a in zip(sides[0], v.axes, strict=True) if w != "."}
    axes = tuple(names.get(w, ".") for w in sides[1])
    return replace(v, axes=axes) if axes.count("t") == 1 else None


def without_dots(parts: list[Any], axes: int) -> list[Any] | None:
    """An index of so many axes with whole slices for ``...``; None with two of those."""
    dots = [n for n, p in enumerate(parts) if isinstance(p, ir.Const) and p.value is Ellipsis]
    if len(dots) > 1:
        return None
    if not dots:
        return parts
    new = sum(isinstance(p, ir.Const) and p.value is None for p in parts)
    fill = max(axes - (len(parts) - 1 - new), 0)
    return [*parts[: dots[0]], *[ir.Slice(None, None, None)] * fill, *parts[dots[0] + 1 :]]


def taken(v: Value, node: ir.Sub, known: Any) -> Value | None:
    """After an index: whole numbers and slices, an ellipsis among them; slices of time say which end they leave out."""
    parts = without_dots(node.index.elts if isinstance(node.index, ir.Collection) else [node.index], len(v.axes))
    if parts is None:
        return None
    axes: list[str] = []
    state, ahead, at = v.state, v.ahead, 0
    for p in parts:
        if isinstance(p, ir.Const) and p.value is None:
            axes.append(".")
            continue
        if at >= len(v.axes):
            return None
        axis, at = v.axes[at], at + 1
        if isinstance(p, ir.Slice):
            axes.append(axis)
            if axis in ("g", "p") and not (p.lower is None and p.upper is None and p.step is None):
                return None
            if axis in ("t", "s") and not (p.lower is None and p.upper is None and p.step is None):
                cut = _cut(v, p, node, known)
                if cut is None:
                    return None
                state, ahead = cut
        elif axis == "p" and number(p) == 0:
            return None  # a group's first position
        elif axis not in ("t", "s", "g") and (number(p) is not None or isinstance(known(p), Size)):
            continue
        else:
            return None
    return Value((*axes, *v.axes[at:]), v.origin, state, ahead, late=v.late)


def _cut(v: Value, time: ir.Slice, node: Any, known: Any) -> tuple[str, tuple[Any, str] | None] | None:
    if v.ahead is not None and not v.state and not v.late and time.lower is None and time.step is None and known(time.upper) == Size("t"):
        return v.state, v.ahead  # as long as before
    if time.step is not None or v.ahead is not None:
        return None
    first = 0 if time.lower is None else number(time.lower)
    if v.state == "long":  # the overhang: cut off behind, each result has only seen what is before it
        return ("", None) if time.lower is None else None
    if v.state == "" and time.upper is None and first is not None and first > 0:
        return "tail", None
    return None


def parts_of(v: Value, name: str, args: list[Any], keywords: Mapping[Any, Any]) -> Value | None:
    """One of the pieces of ``unbind``, ``chunk`` or ``split``; None where these are pieces of time."""
    over = argument(args, int(name != "unbind"), keywords.items(), "dim")
    dim = 0 if over is None else number(over)
    if dim is None or v.axis(dim) in ("", "t", "s") or v.state not in ("", "flip"):
        return None
    if name != "unbind":
        return v
    axes = list(v.axes)
    del axes[dim]
    return replace(v, axes=tuple(axes))


def joined(values: list[Known], dim: int | None, node: Any) -> Value | None:
    """After ``torch.cat``: along channels everything has the same axes; along time a tail in front is a shift."""
    first = values[0] if values else None
    if dim is None or not isinstance(first, Value) or first.state not in ("", "tail"):
        return None
    if first.axis(dim) == "t":
        if first.state == "tail" and len(values) == 2:
            return replace(first, state="", ahead=(node, "each position is given the next one's state"))
        return None
    if any(not isinstance(v, Value) or v.axes != first.axes or v.state != first.state for v in values):
        return None
    known = [v for v in values if isinstance(v, Value)]
    ahead = next((v.ahead for v in known if v.ahead is not None), None)
    late = min(v.late for v in known)
    return replace(first, origin=frozenset().union(*(v.origin for v in known)), ahead=ahead, late=late)


def squeezed(v: Value, dim: int | None) -> Value | None:
    """After ``squeeze`` of one axis, which is neither the batch's nor time's."""
    if dim is None or v.axis(dim) not in (".", "c"):
        return None
    at = dim % len(v.axes)
    return replace(v, axes=(*v.axes[:at], *v.axes[at + 1 :]))


def merged(a: Env, b: Env) -> Env:
    """What both ways of a branch leave behind."""
    found = {k: v for k, v in a.items() if k in b and b[k] == v}
    for k, v in a.items():  # zeros behind the window, or none
        other = b.get(k)
        if isinstance(v, Value) and isinstance(other, Value) and {v.state, other.state} == {"", "fill"}:
            if replace(v, state="") == replace(other, state=""):
                found[k] = replace(v, state="")
    return found


__all__ = [
    "Env",
    "Fixed",
    "Grid",
    "Known",
    "Size",
    "Value",
    "argument",
    "joined",
    "length",
    "merged",
    "number",
    "numbers",
    "parts_of",
    "rearranged",
    "squeezed",
    "taken",
    "turned",
    "viewed",
]
