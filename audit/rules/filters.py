"""How far a filter over time reaches: its taps, the gaps between them, and the zeros on either side of the window.

No rule lives here. A constructor may say these in numbers, in settings that every instance is built with, or by names
(``padding=dilation * (kernel_size - 1) // 2``). Names are tried out: what is true of a few odd numbers of taps and of a
few gaps between them is how the padding was meant. A padding that is made of anything else is not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from audit import ir
from audit.rules.axes import Value, argument, number
from audit.rules.code import Place
from audit.rules.layers import Layers

PADDED = "the filter is padded on both sides: it reaches later positions"
OVERHANG = "the filter's overhang is cut off before the first position: the rest reach later ones"
#: of a position that moved on by a number of steps that is not known
FAR = 1 << 30
#: what names are tried with: numbers of taps, and gaps
_TAPS, _GAPS = (3, 5, 9), (1, 2, 5)
_FEW = 3
#: of a ``Conv1d``: what it tells about itself, by the argument that says so
_TOLD = {"kernel_size": 2, "padding": 4, "dilation": 5}


class Taps:
    """Reads numbers in the constructor of a class: what names and attributes stand for, as far as that is known."""

    def __init__(self, layers: Layers, place: Place) -> None:
        self.layers, self.place = layers, place
        self.settings = layers.settings(place)
        self.init = layers.methods.get(id(place.owner), {}).get("__init__")

    def leaves(self, node: Any, depth: int = 6) -> frozenset[str] | None:
        """The names that a number is made of; None where it is made of something else."""
        node = self._stands_for(node)
        if isinstance(node, ir.Const):
            return frozenset() if type(node.value) is int else None
        if (text := _named(node)) is not None:
            return frozenset({text})
        parts = [self.leaves(n, depth - 1) for n in _below(node)] if depth else []
        if not parts or None in parts:
            return None
        return frozenset().union(*(p for p in parts if p is not None))

    def at(self, node: Any, tried: dict[str, int]) -> int | None:
        """The number, where each of those names stands for the one that is tried."""
        node = self._stands_for(node)
        if isinstance(node, ir.Const):
            return node.value if type(node.value) is int else None
        if (text := _named(node)) is not None:
            return tried.get(text)
        parts = [self.at(n, tried) for n in _below(node)]
        if not parts or None in parts:
            return None
        a, b = (*(p for p in parts if p is not None), 0)[:2]
        if not isinstance(node, ir.BinOp):
            return -a if isinstance(node, ir.UnaryOp) else a
        if node.op in ("//", "/"):
            return a // b if b and (node.op == "//" or a % b == 0) else None
        return {"+": a + b, "-": a - b, "*": a * b}.get(node.op)

    def number(self, node: Any) -> int | None:
        return self.at(node, {})

    def positive(self, node: Any, even: bool = True) -> bool:
        """Is a number above zero for whatever number of taps its constructor is given; ``even``: also for two."""
        names = self.leaves(node)
        if names is None or len(names) > 1 or not names <= (self.init.params if self.init is not None else frozenset()):
            return False
        return all((n := self.at(node, dict.fromkeys(names, k))) is not None and n > 0 for k in ((2, *_TAPS) if even else _TAPS))

    def _stands_for(self, node: Any) -> Any:
        """The expression or the constant behind names that are assigned once."""
        for _ in range(4):
            while isinstance(node, ir.Collection) and len(node.elts) == 1:  # ``kernel_size=(k,)``
                node = node.elts[0]
            found = self._behind(node)
            if found is None:
                return node
            node = found
        return node

    def _behind(self, node: Any) -> Any:
        if isinstance(node, ir.Sub) and number(node.index) == 0 and isinstance(node.value, ir.Attr) and node.value.attr in _TOLD:
            conv = self.layers.made(self.place, node.value.value)  # ``self.conv.padding[0]``
            if conv is None or self.layers.kind(self.place, conv) != "Conv1d":
                return None
            return argument(conv.args, _TOLD[node.value.attr], conv.keywords, node.value.attr)
        if isinstance(node, ir.Attr) and isinstance(node.value, ir.Name) and node.value.id == "self":
            if node.attr in self.settings:
                return ir.Const(self.settings[node.attr])
            made = self.layers.calls.get((id(self.place.owner), node.attr), [])
            return made[0] if len(made) == 1 else None
        if not isinstance(node, ir.Name) or self.init is None:
            return None
        if node.id in self.init.params:
            given = "__init__." + node.id
            written = self.init.assigned(node.id) or any(_binds(n, node.id) for n in self.init.nodes(ir.AugAssign, ir.For))
            return ir.Const(self.settings[given]) if given in self.settings and not written else None
        made = self.init.assigned(node.id)
        return made[0] if len(made) == 1 and not any(_binds(n, node.id) for n in self.init.nodes(ir.AugAssign, ir.For)) else None


def _binds(node: Any, name: str) -> bool:
    return any(isinstance(n, ir.Name) and n.id == name for n in ir.walk(node.target))


def _named(node: Any) -> str | None:
    if isinstance(node, ir.Name):
        return node.id
    inner = _named(node.value) if isinstance(node, ir.Attr) else None
    return f"{inner}.{node.attr}" if inner is not None and isinstance(node, ir.Attr) else None


def _below(node: Any) -> list[Any]:
    if isinstance(node, ir.BinOp) and node.op in ("+", "-", "*", "/", "//"):
        return [node.left, node.right]
    if isinstance(node, ir.UnaryOp) and node.op == "-":
        return [node.operand]
    plain = isinstance(node, ir.Call) and isinstance(node.func, ir.Name) and node.func.id == "int"
    return [node.args[0]] if plain and len(node.args) == 1 else []


def filtered(v: Value, call: ir.Call, made: ir.Call, taps: Taps) -> Value | None:
    """After a ``Conv1d`` that ``made`` built, over (B, C, T)."""
    if v.axis(-1) != "t" or v.state not in ("", "pad", "wrap"):
        return None
    if v.state == "wrap":  # the filter's other taps may reach what was moved on
        v = replace(v, state="", ahead=None)
    size, pad, gap, step = (
        argument(made.args, n, made.keywords, k) for n, k in ((2, "kernel_size"), (4, "padding"), (5, "dilation"), (3, "stride"))
    )
    k = taps.number(size)
    if k == 1 or (step is not None and taps.number(step) != 1):
        return replace(v, state="") if k == 1 and v.state == "" else None
    d = 1 if gap is None else taps.number(gap)
    reach = (k - 1) * d if k is not None and d is not None else None
    if pad is None or taps.number(pad) == 0:
        if v.state == "pad":
            beyond = reaches(v.front, size, gap, taps) if v.front is not None else None
            if beyond is False:
                return None
            return _ahead(replace(v, late=0), call, None) if beyond and v.late == FAR else _ahead(v, call, reach)
        late = 0 if reach is None or v.late == FAR else max(v.late - reach, 0)
        return replace(v, late=late)
    if isinstance(pad, ir.Const) and pad.value == "same":
        return _ahead(v, call, None if reach is None else reach - reach // 2)
    seen = list(_tried(size, gap, pad, taps))
    if not seen or any(p <= 0 for p, _, _ in seen):
        return None
    # An even number of taps gives one position more, and two of them no later one.
    if all(2 * p in (w, w + 1) and w > p for p, w, _ in seen):
        p, w, exact = seen[0]
        return _ahead(v, call, w - p if exact else None)
    return replace(v, state="long") if all(p == w for p, w, _ in seen) and not v.state else None


def reaches(front: Any, size: Any, gap: Any, taps: Taps) -> bool | None:
    """Do taps reach beyond a position that has these zeros in front, for whatever numbers are meant."""
    inner, between, outer = taps.leaves(size), frozenset() if gap is None else taps.leaves(gap), taps.leaves(front)
    if inner is None or between is None or outer is None or not outer <= inner | between or len(inner | between) > _FEW:
        return None
    names = sorted(inner | between)
    found: set[bool] = set()
    for several in itertools.product(*((_TAPS if outer else (2, *_TAPS)) if n in inner else _GAPS for n in names)):
        tried = dict(zip(names, several, strict=True))
        k, d, f = taps.at(size, tried), 1 if gap is None else taps.at(gap, tried), taps.at(front, tried)
        if k is None or d is None or f is None:
            return None
        found.add((k - 1) * d > f)
    return found.pop() if len(found) == 1 else None


def _ahead(v: Value, call: ir.Call, by: int | None) -> Value | None:
    """Positions that come to hold later ones, unless they had moved on by at least as many before."""
    if v.late and (by is None or by <= v.late):
        return None
    return replace(v, state="", late=0, ahead=v.ahead or (call, PADDED))


def _tried(size: Any, gap: Any, pad: Any, taps: Taps) -> Iterator[tuple[int, int, bool]]:
    """(zeros on either side, distance between the first tap and the last, is it known) for numbers that may be meant."""
    inner, between, outer = taps.leaves(size), frozenset() if gap is None else taps.leaves(gap), taps.leaves(pad)
    if inner is None or between is None or outer is None or not outer <= inner | between or len(inner | between) > _FEW:
        return
    names = sorted(inner | between)
    for several in itertools.product(*(_TAPS if n in inner else _GAPS for n in names)):
        tried = dict(zip(names, several, strict=True))
        k, d, p = taps.at(size, tried), 1 if gap is None else taps.at(gap, tried), taps.at(pad, tried)
        if k is None or d is None or p is None:
            yield 0, 0, False
            return
        yield p, (k - 1) * d, not names


def moved_on(before: Any, behind: Any, late: int) -> int:
    """How many steps positions have moved on after zeros before the window."""
    left = number(before)
    if left is not None:
        return late + max(left, 0)
    return late if behind is not None and same_text(before, behind) else FAR


def same_text(a: Any, b: Any) -> bool:
    """Written alike, of names, attributes, constants and arithmetic."""
    if isinstance(a, ir.BinOp) and isinstance(b, ir.BinOp):
        return a.op == b.op and same_text(a.left, b.left) and same_text(a.right, b.right)
    if isinstance(a, ir.Const) and isinstance(b, ir.Const):
        return bool(a.value == b.value)
    return _named(a) is not None and _named(a) == _named(b)


__all__ = ["FAR", "OVERHANG", "PADDED", "Taps", "filtered", "moved_on", "reaches", "same_text"]
