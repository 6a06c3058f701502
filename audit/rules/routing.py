"""Positions put in the order of their classes and cut into fixed shares, each of which meets weights of its own.

No rule lives here. Where experts get equal shares of the sorted positions, how many positions of a class there are in
the whole window decides who stands in which share, the later ones included. Shares that are cut at the classes' true
counts, or that all go through the same layer, give each position what it would get alone; a capacity that is counted in
the order of the text (``cumsum``) lets no later position push out an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from audit import ir
from audit.rules.axes import argument, number
from audit.rules.code import Place
from audit.rules.layers import Layers
from audit.rules.mixing import KEEPS
from audit.rules.settings import decided

SHARES = "positions are cut into fixed shares in the order of their classes: where one falls depends on later ones"
_KEPT = KEEPS | frozenset("long int reshape view flatten squeeze softmax remainder bitwise_xor".split())
_WHOLE_NUMBERS = frozenset({"int", "max", "min", "round", "ceil", "floor", "size", "numel", "len"})
_CUTS = frozenset({"chunk", "split", "tensor_split"})
#: how far names are followed to what they were made of
DEPTH = 16
#: is the order made, or cut, in a branch that nothing decides
_Doubt = bool


class Routing:
    """Where orders of positions are made, handed on and cut, over all methods of the script's modules."""

    def __init__(self, layers: Layers) -> None:
        self.layers, self.along = layers, layers.along
        self.places = [p for p in layers.code.places if p.owner is not None and p.function is not None]
        self.assigned = {id(p): _assigned(p) for p in self.places}
        #: names, and methods under the name "", that hold such an order
        self.orders: dict[tuple[int, str], _Doubt] = {}
        if any(_sorts(n) for p in self.places for n in p.nodes(ir.Call)):
            self._follow()

    def _follow(self) -> None:
        for _ in range(4):
            before = len(self.orders)
            for place in self.places:
                self._names(place)
                for n in place.nodes(ir.Call):
                    for at, a in enumerate(n.args):
                        doubt = self._order(place, a)
                        if doubt is not None:
                            for target, name in self.along.parameters(place, n, [at]):
                                self.orders.setdefault((id(target), name), doubt)
            if len(self.orders) == before:
                break

    def _names(self, place: Place) -> None:
        for n in place.nodes(ir.Assign, ir.Return):
            if n.value is None or (doubt := self._order(place, n.value)) is None:
                continue
            for t in n.targets if isinstance(n, ir.Assign) else [ir.Name("")]:
                if isinstance(t, ir.Collection) and len(t.elts) == 2 and _named(n.value) == "sort":
                    t = t.elts[1]
                if isinstance(t, ir.Name):
                    self.orders.setdefault((id(place), t.id), doubt)

    def _order(self, place: Place, node: Any) -> _Doubt | None:
        """Does an expression hold all positions in the order of something per position; None where it does not."""
        if isinstance(node, ir.Name):
            return self.orders.get((id(place), node.id))
        second = isinstance(node, ir.Sub) and number(node.index) == 1
        if second or (isinstance(node, ir.Attr) and node.attr == "indices"):
            node = node.value
        if not isinstance(node, ir.Call):
            return None
        if not _sorts(node):
            target = self.layers.target(place, node.func)
            return self.orders.get((id(target), "")) if target is not None and target.function is not None else None
        assert isinstance(node.func, ir.Attr)
        library = isinstance(node.func.value, ir.Name) and node.func.value.id in ("torch", "mx", "jnp", "np")
        key = node.func.value if not library else node.args[0] if node.args else None
        dim = argument(node.args[int(library) :], 0, node.keywords, "dim", "axis")
        if number(dim) not in (None, -1, 0, 1) or not self._row(place, key) or not self._per_position(place, key):
            return None
        return self.doubtful(place, node)

    def _row(self, place: Place, node: Any) -> bool:
        """Is the last axis time, or all positions in a row."""
        if isinstance(node, ir.Name):
            made = self.assigned[id(place)].get(node.id, [])
            return (id(place), node.id) in self.layers.ids if not made else len(made) == 1 and self._row(place, made[0])
        if isinstance(node, ir.BinOp):
            return self._row(place, node.left) or self._row(place, node.right)
        if isinstance(node, ir.Sub):
            last = node.index.elts[-1] if isinstance(node.index, ir.Collection) and len(node.index.elts) > 1 else None
            return number(last) is not None
        if not (isinstance(node, ir.Call) and isinstance(node.func, ir.Attr)):
            return False
        name, rest = node.func.attr, node.args
        if name in ("reshape", "view"):
            return len(rest) == 1 and number(rest[0]) == -1
        if name == "flatten":
            return not rest
        if name in ("argmax", "squeeze"):
            return number(argument(rest, 0, node.keywords, "dim")) == -1
        return name in _KEPT and self._row(place, node.func.value)

    def _per_position(self, place: Place, node: Any, depth: int = 0) -> bool:
        """Made of token ids or activations by steps that act on each position by itself."""
        if depth > DEPTH:
            return False
        if self.along.along(place, node):
            return True
        if isinstance(node, ir.Name):
            made = self.assigned[id(place)].get(node.id, [])
            return (id(place), node.id) in self.layers.ids or (len(made) == 1 and self._per_position(place, made[0], depth + 1))
        if isinstance(node, ir.BinOp):
            return any(self._per_position(place, x, depth + 1) for x in (node.left, node.right))
        if isinstance(node, ir.Sub):
            first = node.index.elts[0] if isinstance(node.index, ir.Collection) and node.index.elts else node.index
            whole = (isinstance(first, ir.Slice) and first.lower is first.upper is None) or (isinstance(first, ir.Const) and first.value is ...)
            return self._per_position(place, node.value if whole else node.index, depth + 1)
        if isinstance(node, ir.Call):
            over = argument(node.args, 0, node.keywords, "dim")
            if isinstance(node.func, ir.Attr) and (node.func.attr in _KEPT or (node.func.attr == "argmax" and number(over) == -1)):
                return self._per_position(place, node.func.value, depth + 1)
            made_of = self.layers.made(place, node.func)
            linear = made_of is not None and self.layers.kind(place, made_of) == "Linear"
            return linear and bool(node.args) and self._per_position(place, node.args[0], depth + 1)
        return False

    def cuts(self) -> Iterator[tuple[Place, Any, _Doubt]]:
        """Where an order, or what was put in it, is cut into fixed shares that meet different weights."""
        for place in self.places:
            mine = {name: doubt for (at, name), doubt in self.orders.items() if at == id(place) and name}
            if not mine:
                continue
            rows = set(mine)
            rows |= {name for name, values in self.assigned[id(place)].items() if any(self._arranged(v, rows) for v in values)}
            doubt = all(mine.values())
            for node in self._shares(place, rows):
                if (own := self.doubtful(place, node)) is not None:
                    yield place, node, doubt or own

    def _arranged(self, node: Any, rows: set[str]) -> bool:
        """``flat[order]`` or its like."""
        if isinstance(node, ir.Sub):
            return isinstance(node.index, ir.Name) and node.index.id in rows and not _is(node.value, rows)
        called = isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr == "index_select"
        return called and bool(node.args) and _is(node.args[-1], rows)

    def _shares(self, place: Place, rows: set[str]) -> Iterator[Any]:
        for loop in place.nodes(ir.For, ir.Comp):
            heads = [loop] if isinstance(loop, ir.For) else loop.generators
            body = loop.body if isinstance(loop, ir.For) else [loop.elt]
            names = {x.id for h in heads for x in ir.walk(h.target) if isinstance(x, ir.Name)}
            if not self._own_weights(place, heads, body, names):
                continue
            yield from (n for n in ir.walk([h.iter for h in heads]) if self._cut(place, n, rows, names))
            for n in ir.walk(body):
                if self._cut(place, n, rows, names) and isinstance(n, ir.Sub):
                    yield n
        for n in place.nodes(ir.Assign):
            if self._cut(place, n.value, rows, set()) and isinstance(n.value, ir.Call):
                several = [t.elts for t in n.targets if isinstance(t, ir.Collection)]
                if several and len({_layer(place, t) for t in several[0]} - {""}) > 1:
                    yield n.value
        for n in place.nodes(ir.Call):
            if isinstance(n.func, ir.Attr) and n.func.attr in ("bmm", "einsum") and self._apart(place, n):
                for p in n.args:
                    made = self.assigned[id(place)].get(p.id, []) if isinstance(p, ir.Name) else [p]
                    if len(made) == 1 and self._viewed(place, made[0], rows):
                        yield made[0]

    def _apart(self, place: Place, call: ir.Call) -> bool:
        """Does each row of the first operand meet another row of a weight: in ``bmm``, or by the first letters."""
        if not any(_of_self(place, a, self.assigned[id(place)]) for a in call.args):
            return False
        if isinstance(call.func, ir.Attr) and call.func.attr == "bmm":
            return True
        spec = call.args[0].value if isinstance(call.args[0], ir.Const) else None
        first, _, second = spec.replace(" ", "").partition("->")[0].partition(",") if isinstance(spec, str) else ("", "", "")
        return bool(first) and first[:1] == second[:1]

    def _own_weights(self, place: Place, heads: list[Any], body: Any, names: set[str]) -> bool:
        """Does a loop take another weight or layer of the module each time."""
        local = self.assigned[id(place)]
        if any(_of_self(place, x, {}) for h in heads for x in _zipped(h.iter)):
            return True
        targets = {id(t) for n in ir.walk(body) if isinstance(n, ir.Assign) for t in n.targets}
        for n in ir.walk(body):
            if isinstance(n, ir.Sub) and id(n) not in targets and _of_self(place, n.value, local):
                first = n.index.elts[0] if isinstance(n.index, ir.Collection) and n.index.elts else n.index
                if isinstance(first, ir.Name) and first.id in names:
                    return True
        return False

    def _cut(self, place: Place, node: Any, rows: set[str], names: set[str]) -> bool:
        if isinstance(node, ir.Sub) and _is(node.value, rows) and isinstance(node.index, ir.Slice) and node.index.step is None:
            ends = [x for x in (node.index.lower, node.index.upper) if x is not None]
            return bool(ends) and all(self._fixed(place, x, names) for x in ends) and any(self._turns(place, x, names) for x in ends)
        if not (isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _CUTS):
            return False
        own = _is(node.func.value, rows)
        if not own and not (node.args and _is(node.args[0], rows)):
            return False
        by = argument(node.args, int(not own), node.keywords, "chunks", "split_size_or_sections", "split_size", "indices_or_sections")
        over = argument(node.args, int(not own) + 1, node.keywords, "dim")
        return by is not None and self._fixed(place, by, set()) and number(over) in (None, 0)

    def _viewed(self, place: Place, node: Any, rows: set[str]) -> bool:
        """``arranged.view(experts, -1, dim)``"""
        if not (isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in ("view", "reshape")):
            return False
        base = node.func.value
        first = node.args[0] if len(node.args) > 1 else None
        made = self.assigned[id(place)].get(first.id, []) if isinstance(first, ir.Name) else [first]
        counted = len(made) == 1 and isinstance(made[0], ir.Attr) and _of_self(place, made[0], {})
        return counted and (_is(base, rows) or self._arranged(base, rows))

    def _turns(self, place: Place, node: Any, names: set[str], depth: int = 0) -> bool:
        """Does a bound move with the loop."""
        for n in ir.walk(node):
            if isinstance(n, ir.Name):
                made = self.assigned[id(place)].get(n.id, [])
                if n.id in names or (depth < 4 and any(self._turns(place, m, names, depth + 1) for m in made)):
                    return True
        return False

    def _fixed(self, place: Place, node: Any, names: set[str], depth: int = 0) -> bool:
        """Made of lengths, settings and numbers alone."""
        if depth > DEPTH:
            return False
        if isinstance(node, ir.Const):
            return isinstance(node.value, (int, float))
        if isinstance(node, ir.Name):
            made = self.assigned[id(place)].get(node.id, [])
            return node.id in names or (bool(made) and all(self._fixed(place, m, names, depth + 1) for m in made))
        if isinstance(node, ir.Attr):
            return node.attr == "shape" or (isinstance(node.value, ir.Name) and node.value.id == "self")
        if isinstance(node, ir.Sub):
            return isinstance(node.value, ir.Attr) and node.value.attr == "shape"
        if isinstance(node, ir.Call):
            func = node.func
            name = func.attr if isinstance(func, ir.Attr) else func.id if isinstance(func, ir.Name) else ""
            if name in ("size", "numel", "len"):
                return True
            own = isinstance(func, ir.Name) or (isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "math")
            return own and name in _WHOLE_NUMBERS and all(self._fixed(place, a, names, depth + 1) for a in node.args)
        if isinstance(node, (ir.BinOp, ir.UnaryOp, ir.IfExp, ir.Compare)):
            return all(self._fixed(place, c, names, depth + 1) for c in ir.children(node))
        return False

    def doubtful(self, place: Place, node: Any) -> _Doubt | None:
        """Does an undecided branch stand around a node; None where the settings keep it closed."""
        settings, doubt = self.layers.settings(place), False
        for s in place.nodes(ir.If, ir.IfExp):
            ways = (s.body, s.orelse) if isinstance(s, ir.If) else ([s.body], [s.orelse])
            inside = [any(x is node for x in ir.walk(way)) for way in ways]
            if any(inside):
                if any(isinstance(x, ir.Attr) and x.attr == "training" for x in ir.walk(s.test)):
                    return None  # not where scores are made
                test = decided(s.test, settings)
                if test is not None and not inside[0 if test else 1]:
                    return None
                doubt = doubt or test is None
        return doubt


def _assigned(place: Place) -> dict[str, list[Any]]:
    """What each local name is assigned; of lengths that are unpacked, the shape."""
    found: dict[str, list[Any]] = {}
    for n in place.nodes(ir.Assign, ir.AugAssign):
        for t in n.targets if isinstance(n, ir.Assign) else [n.target]:
            several = isinstance(t, ir.Collection)
            pairs: Iterable[tuple[Any, Any]] = [(t, n.value)]
            if isinstance(t, ir.Collection):
                apart = isinstance(n.value, ir.Collection) and len(n.value.elts) == len(t.elts)
                pairs = zip(t.elts, n.value.elts if apart else [n.value] * len(t.elts), strict=True)
                several = not apart
            for x, value in pairs:
                if isinstance(x, ir.Name):
                    shape = (isinstance(value, ir.Attr) and value.attr == "shape") or _named(value) == "size"
                    found.setdefault(x.id, []).append(value if not several or shape else ir.Const(None))
    return found


def _named(node: Any) -> str:
    return node.func.attr if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) else ""


def _sorts(call: ir.Call) -> bool:
    return _named(call) in ("argsort", "sort")


def _is(node: Any, rows: set[str]) -> bool:
    return isinstance(node, ir.Name) and node.id in rows


def _of_self(place: Place, node: Any, local: dict[str, list[Any]]) -> bool:
    """A weight or layer of the module, also under a local name or in another type."""
    while isinstance(node, (ir.Attr, ir.Call)) and not (isinstance(node, ir.Attr) and isinstance(node.value, ir.Name)):
        node = node.value if isinstance(node, ir.Attr) else node.func
    if isinstance(node, ir.Attr):
        return isinstance(node.value, ir.Name) and node.value.id == "self"
    made = local.get(node.id, []) if isinstance(node, ir.Name) else []
    return len(made) == 1 and _of_self(place, made[0], {})


def _zipped(node: Any) -> list[Any]:
    """``enumerate(self.experts)``, ``zip(parts, self.experts)``: what is walked over."""
    walks = isinstance(node, ir.Call) and isinstance(node.func, ir.Name) and node.func.id in ("enumerate", "zip")
    return [inner for a in node.args for inner in _zipped(a)] if walks else [node]


def _layer(place: Place, target: Any) -> str:
    """The layer of the module that a name is given to."""
    for n in place.nodes(ir.Call):
        own = isinstance(n.func, ir.Attr) and isinstance(n.func.value, ir.Name) and n.func.value.id == "self"
        if own and isinstance(target, ir.Name) and any(isinstance(a, ir.Name) and a.id == target.id for a in n.args):
            return str(n.func.attr)
    return ""


__all__ = ["SHARES", "Routing"]
