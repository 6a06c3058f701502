"""Where a layer rounds its activations to steps of a scale: divided by it, rounded, multiplied back by it.

No rule lives here. A scale that is a maximum over the whole window goes into the rounding alone then: a position's grid
depends on later positions, its value does not, up to half a step. The same maximum in the values themselves (``x / m``,
``x * sigmoid(m)``) is another matter. What counts is that the same scale is taken out and put back, in whatever spelling
(``x * (31 / m)`` and ``q * (m / 31)``, one name for every step, a zero point that is added and taken off again).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from audit import ir
from audit.rules.code import Place

ROUNDED = (
    "the activations' scale is a statistic over the whole window: at what steps a position is rounded depends on later ones"
)
_ROUNDS = frozenset({"round", "round_", "rint", "floor", "trunc"})
_TYPES = frozenset({"int8", "uint8", "int16", "int32"})
#: what leaves a value, or a scale, what it is; a least or greatest number among it
_SAME = frozenset(
    """clamp clamp_ clamp_min clamp_min_ clamp_max clip to type float half bfloat16 double type_as detach clone contiguous nan_to_num
    maximum minimum item cuda cpu""".split()
)
#: how many names are read through at most
_THROUGH = 8


@dataclass(slots=True)
class Rounding:
    """``sides``: of each step's arithmetic, by id of its node, the side that is rounded; the other one is the scale or the zero
    point. ``back``: the steps that put the scale back, with that scale. ``calls``: ids of the calls that round."""

    sides: dict[int, Any] = field(default_factory=dict)
    back: dict[int, Any] = field(default_factory=dict)
    calls: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Way:
    """What lies between two steps: ``node`` at its end, and what was added on the way, by how it is written."""

    node: Any
    added: Counter[Any] = field(default_factory=Counter)
    passed: list[tuple[Any, Any]] = field(default_factory=list)


def rounding_of(place: Place) -> Rounding:
    """The place's steps of rounding, where the scale is put back."""
    found = Rounding()
    calls = [n for n in place.nodes(ir.Call) if _rounds(n)]
    if not calls:
        return found
    reads = _Reads(place)
    for call in calls:
        for way, scaled, side, scale in reads.scaled(_given(call)):
            out = reads.powers(scale, -1 if scaled.op == "/" else 1)
            for node in place.nodes(ir.BinOp) if out else ():
                for back, other in _sides(node):
                    if node is scaled or reads.powers(other, -1 if node.op == "/" else 1) != {k: -v for k, v in out.items()}:
                        continue
                    behind = reads.to(back, call)
                    if behind is None or not _cancel(way, behind):
                        continue
                    found.calls.add(id(call))
                    found.sides |= {id(scaled): side, id(node): back} | {id(n): s for n, s in (*way.passed, *behind.passed)}
                    found.back[id(node)] = other
                    found.sides |= reads.origin(side, node, place)
    return found


def _cancel(before: _Way, behind: _Way) -> bool:
    """Is what was added before rounding, halves aside, taken off again behind it."""
    total = before.added.copy()
    total.update(behind.added)
    return not any(total.values())


def _sides(node: ir.BinOp) -> list[tuple[Any, Any]]:
    return [(node.left, node.right)] if node.op == "/" else [(node.left, node.right), (node.right, node.left)] if node.op == "*" else []


def _rounds(call: ir.Call) -> bool:
    name = ir.called(call)
    if name in ("to", "type"):
        types = [a.attr for a in (*call.args, *(v for _, v in call.keywords)) if isinstance(a, ir.Attr)]
        return any(t in _TYPES or t.startswith("float8") for t in types)
    return name in _ROUNDS


def _given(call: ir.Call) -> Any:
    """What a function, or a method of the value, is given."""
    if isinstance(call.func, ir.Attr) and not (isinstance(call.func.value, ir.Name) and call.func.value.id in ("torch", "np", "mx", "jnp", "F")):
        return call.func.value
    return call.args[0] if call.args else None


class _Reads:
    """Reads expressions of one function back through the names they are held under."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.changed = {n.target.id for n in place.nodes(ir.AugAssign) if isinstance(n.target, ir.Name)}

    def _through(self, node: Any) -> Any:
        """What stands behind names, clamps and casts, what is rounded on the way not among it."""
        for _ in range(_THROUGH):
            if isinstance(node, ir.Name):
                made = [a for a in self.place.by_name.get(node.id, ()) if a.end_line < node.line and all(isinstance(t, ir.Name) for t in a.targets)]
                if not made or node.id in self.changed:
                    return node
                node = max(made, key=lambda a: (a.line, a.col)).value
            elif isinstance(node, ir.Call) and not _rounds(node) and ir.called(node) in _SAME and _given(node) is not None:
                node = _given(node)
            else:
                return node
        return node

    def scaled(self, node: Any, way: _Way | None = None) -> list[tuple[_Way, ir.BinOp, Any, Any]]:
        """The divisions, or products, that a rounded value is made by: the step, its two sides, what was added after it."""
        way = _Way(None) if way is None else way
        node = self._through(node)
        if not isinstance(node, ir.BinOp) or len(way.passed) > _THROUGH:
            return []
        if node.op in "+-":
            return [f for side, added in ((node.left, node.right), (node.right, node.left)) if node.op == "+" or side is node.left
                    for f in self.scaled(side, self._added(way, node, side, added))]  # fmt: skip
        found: list[tuple[_Way, ir.BinOp, Any, Any]] = []
        for side, scale in _sides(node):
            found += self.scaled(side, way) if isinstance(scale, ir.Const) else [(way, node, side, scale)]
        return found

    def to(self, node: Any, call: ir.Call, way: _Way | None = None) -> _Way | None:
        """The way back from an expression to the call that rounds, None where it does not come from there."""
        way = _Way(None) if way is None else way
        node = self._through(node)
        if node is call:
            return way
        if isinstance(node, ir.Call) and _rounds(node):
            return self.to(_given(node), call, way)  # ``.round().to(torch.int8)``
        if isinstance(node, ir.BinOp) and node.op in "+-" and len(way.passed) < _THROUGH:
            return self.to(node.left, call, self._added(way, node, node.left, node.right))
        if isinstance(node, ir.BinOp) and node.op in "*/" and isinstance(node.right, ir.Const):
            return self.to(node.left, call, way)
        return None

    def origin(self, side: Any, back: ir.BinOp, place: Place) -> dict[int, Any]:
        """``(x - low) / scale`` before, ``q * scale + low`` behind: the two steps, with the sides that are rounded."""
        first = self._through(side)
        if not isinstance(first, ir.BinOp) or first.op not in "+-":
            return {}
        for node in place.nodes(ir.BinOp):
            for inner, other in ((node.left, node.right), (node.right, node.left)):
                undoes = {first.op, node.op} == {"+", "-"} and (node.op == "+" or inner is node.left)
                if undoes and self._through(inner) is back and self.key(other) == self.key(first.right):
                    return {id(first): first.left, id(node): inner}
        return {}

    def _added(self, way: _Way, node: ir.BinOp, side: Any, added: Any) -> _Way:
        made = _Way(None, way.added.copy(), [*way.passed, (node, side)])
        if not isinstance(self._through(added), ir.Const):
            made.added[self.key(added)] += 1 if node.op == "+" else -1
        return made

    def powers(self, node: Any, sign: int = 1) -> dict[Any, int]:
        """Of what a scale is a product, each with its power; numbers aside."""
        found: Counter[Any] = Counter()
        todo = [(node, sign)]
        while todo:
            n, power = todo.pop()
            n = self._through(n)
            if isinstance(n, ir.BinOp) and n.op in "*/":
                todo += [(n.left, power), (n.right, -power if n.op == "/" else power)]
            elif isinstance(n, ir.BinOp) and n.op == "+" and isinstance(n.right, ir.Const):
                todo.append((n.left, power))
            elif not isinstance(n, ir.Const):
                found[self.key(n)] += power
        return {k: v for k, v in found.items() if v}

    def key(self, node: Any) -> Any:
        """How an expression is written, names read through."""
        node = self._through(node)
        if isinstance(node, ir.Name):
            return "name", node.id
        if isinstance(node, ir.Const):
            return "number", repr(node.value)
        if isinstance(node, ir.Attr):
            return "of", node.attr, self.key(node.value)
        if isinstance(node, ir.Call):
            own = [self.key(a) for a in node.args] + [(k, self.key(v)) for k, v in node.keywords]
            return ("call", self.key(node.func), *own)
        return (type(node).__name__, getattr(node, "op", ""), *(self.key(n) for n in ir.children(node)))


__all__ = ["ROUNDED", "Rounding", "rounding_of"]
