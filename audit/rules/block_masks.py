"""Masks that are functions of places: what ``flex_attention``'s ``create_block_mask`` is given.

No rule lives here. A function of (batch, head, query, key) is asked about every pair of a small window. Numbers and
switches that it takes from around it are tried out: what holds for each of a few was meant so. Documents that it compares
(``docs[q] == docs[k]``) are one text. Where it asks anything else, nothing is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from audit import ir
from audit.rules.axes import argument
from audit.rules.code import Code, Place
from audit.rules.filters import same_text
from audit.rules.masks import COMBINES, COMPARES, LOGIC

#: positions of the small window, and what a number from elsewhere is tried with
_POSITIONS, _NUMBERS = 8, (3, 100)
#: names from elsewhere that are tried at once
_FEW = 3
_DEPTH = 4
_SAME = frozenset({"to", "bool", "float", "int", "long"})
#: asked for a name that is not known yet
_Tried = Mapping[str, Any]


class _Unknown(Exception):
    """Something else than places decides."""


def attends_ahead(code: Code) -> Iterator[tuple[Place, ir.Call]]:
    """Calls that make a mask over one window which leaves later keys in sight."""
    for place, call, name in code.calls():
        if name.rpartition(".")[2] != "create_block_mask" or any(k is None for k, _ in call.keywords):
            continue
        queries, keys = argument(call.args, 3, call.keywords, "Q_LEN"), argument(call.args, 4, call.keywords, "KV_LEN")
        mask = argument(call.args, 0, call.keywords, "mask_mod")
        if mask is not None and queries is not None and keys is not None and same_text(queries, keys) and _shows(code, place, mask):
            yield place, call


def _shows(code: Code, place: Place, mask: Any) -> bool:
    """Does a key stand behind a query that it is shown to, whatever the names from elsewhere stand for."""
    found = list(_functions(code, place, mask, _DEPTH))
    if len(found) != 1:
        return False
    asked: dict[str, str] = {}
    while True:
        answers = []
        try:
            for several in itertools.product(*(_NUMBERS if kind == "number" else (True, False) for kind in asked.values())):
                tried = dict(zip(asked, several, strict=True))
                ask = _Ask(code, place, tried)
                answers.append(any(ask.shown(found[0], q, k) for q in range(_POSITIONS) for k in range(q + 1, _POSITIONS)))
        except _Wanted as wanted:
            if wanted.name in asked or len(asked) == _FEW:
                return False
            asked[wanted.name] = wanted.kind
            continue
        except _Unknown:
            return False
        return all(answers)


class _Wanted(_Unknown):
    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name)
        self.name, self.kind = name, kind


def _functions(code: Code, place: Place, node: Any, depth: int) -> Iterator[Any]:
    """The function or functions that an expression stands for: nested ones, lambdas, what a maker of masks returns."""
    if isinstance(node, ir.Lambda):
        yield node
    elif isinstance(node, ir.Name) and depth:
        named = [p for p in code.places if p.function is not None and p.owner is None and p.path == place.path and p.function.name == node.id]
        if len(named) > 1 and place.function is not None:  # the one inside
            inside = {id(n) for n in ir.walk(place.function.body) if isinstance(n, ir.FunctionDef)}
            named = [p for p in named if id(p.function) in inside] or named
        yield from named
        for value in place.assigned(node.id):
            yield from _functions(code, place, value, depth - 1)
    elif isinstance(node, ir.Attr) and isinstance(node.value, ir.Name) and node.value.id == "self" and depth:
        for p in code.places:
            if p.owner is place.owner is not None:
                for s in p.nodes(ir.Assign):
                    if any(isinstance(t, ir.Attr) and t.attr == node.attr for t in s.targets):
                        yield from _functions(code, p, s.value, depth - 1)
    elif isinstance(node, ir.Call) and depth:
        for made in _functions(code, place, node.func, depth - 1):
            for r in made.nodes(ir.Return) if isinstance(made, Place) else ():
                yield from _functions(code, made, r.value, depth - 1)


class _Ask:
    """Reads a mask's function for one query and one key."""

    def __init__(self, code: Code, place: Place, tried: _Tried) -> None:
        self.code, self.place, self.tried = code, place, tried

    def shown(self, function: Any, query: int, key: int) -> bool:
        return bool(self.run(function, [0, 0, query, key], _DEPTH))

    def run(self, function: Any, args: list[Any], depth: int) -> Any:
        params = [p.name for p in (function.params if isinstance(function, ir.Lambda) else function.function.params)]
        if len(params) != len(args) or not depth:
            raise _Unknown
        local: dict[str, Any] = dict(zip(params, args, strict=True))
        if isinstance(function, ir.Lambda):
            return self.value(function.body, local, depth)
        return self.body(function.function.body, local, depth)

    def body(self, body: list[Any], local: dict[str, Any], depth: int) -> Any:
        for s in body:
            if isinstance(s, ir.Return) and s.value is not None:
                return self.value(s.value, local, depth)
            if isinstance(s, ir.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ir.Name):
                local[s.targets[0].id] = self.value(s.value, local, depth)
            elif isinstance(s, ir.If):
                result = self.body(s.body if self.value(s.test, local, depth, switch=True) else s.orelse, local, depth)
                if result is not None:
                    return result
            elif not (isinstance(s, ir.ExprStmt) and isinstance(s.value, ir.Const)):
                raise _Unknown
        return None

    def value(self, node: Any, local: dict[str, Any], depth: int, switch: bool = False) -> Any:
        if isinstance(node, ir.Const) and isinstance(node.value, (bool, int, float)):
            return node.value
        if isinstance(node, ir.Name):
            return local[node.id] if node.id in local else self.elsewhere(node.id, switch)
        if isinstance(node, ir.Attr) and isinstance(node.value, ir.Name) and node.value.id == "self":
            return self.elsewhere("self." + node.attr, switch)
        if isinstance(node, ir.UnaryOp):
            inner = self.value(node.operand, local, depth, switch and node.op == "not")
            return -inner if node.op == "-" else not inner if node.op in ("not", "~") else inner
        if isinstance(node, ir.IfExp):
            return self.value(node.body if self.value(node.test, local, depth, switch=True) else node.orelse, local, depth)
        if isinstance(node, ir.BoolOp):
            parts = [self.value(v, local, depth) for v in node.values]
            return all(parts) if node.op == "and" else any(parts)
        if isinstance(node, ir.Compare):
            return self.compared(node, local, depth)
        if isinstance(node, ir.BinOp):
            a, b = self.value(node.left, local, depth), self.value(node.right, local, depth)
            return self.combined(node.op, a, b)
        if isinstance(node, ir.Call):
            return self.called(node, local, depth)
        raise _Unknown

    def elsewhere(self, name: str, switch: bool) -> Any:
        if name not in self.tried:
            raise _Wanted(name, "switch" if switch else "number")
        return self.tried[name]

    def combined(self, op: str, a: Any, b: Any) -> Any:
        do = LOGIC.get(op) if isinstance(a, bool) and isinstance(b, bool) else None
        do = do or COMBINES.get(op) or COMPARES.get(op)
        if do is None or (op in ("//", "/", "%", "div", "remainder") and b == 0):
            raise _Unknown
        return do(a, b)

    def compared(self, node: ir.Compare, local: dict[str, Any], depth: int) -> bool:
        sides = [node.left, *node.comparators]
        if len(sides) == 2 and node.ops[0] == "==" and _one_text(*sides):
            return True
        values = [self.value(x, local, depth) for x in sides]
        return all(bool(self.combined(op, a, b)) for op, a, b in zip(node.ops, values, values[1:], strict=False))

    def called(self, node: ir.Call, local: dict[str, Any], depth: int) -> Any:
        name = node.func.attr if isinstance(node.func, ir.Attr) else node.func.id if isinstance(node.func, ir.Name) else ""
        if node.keywords:
            raise _Unknown
        if name in ("and_masks", "or_masks"):
            raise _Unknown
        library = isinstance(node.func, ir.Attr) and isinstance(node.func.value, ir.Name) and node.func.value.id == "torch"
        given = list(node.args) if library or isinstance(node.func, ir.Name) else [getattr(node.func, "value", None), *node.args]
        own = list(_functions(self.code, self.place, node.func, 2)) if isinstance(node.func, ir.Name) else []
        values = [self.value(x, local, depth) for x in given]
        if len(own) == 1:
            return self.run(own[0], values, depth - 1)
        if name in ("abs", "absolute") and len(values) == 1:
            return abs(values[0])
        if name in _SAME and len(values) == 1:
            return values[0]
        if name in ("minimum", "maximum", "min", "max") and len(values) == 2:
            return min(values) if name.startswith("min") else max(values)
        if name in ("logical_and", "logical_or", *COMPARES) and len(values) == 2:
            return self.combined(name, *values)
        if name == "logical_not" and len(values) == 1:
            return not values[0]
        raise _Unknown


def _one_text(a: Any, b: Any) -> bool:
    """``docs[q] == docs[k]``: the same table, asked at two places."""
    return isinstance(a, ir.Sub) and isinstance(b, ir.Sub) and same_text(a.value, b.value)


__all__ = ["attends_ahead"]
