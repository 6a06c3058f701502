"""Models that embed a hash of their inputs: what a class's code does with its token argument.

A hashed embedding combines several shifted views of one argument (``x[..., 1:]`` and ``x[..., :-1]``, a rolled or
padded copy, ``x`` and a carried previous token) by multiplication, exclusive-or or addition, reduces the result to a
table's size with ``%``, a mask or ``remainder``, and looks an embedding up at it. It needs no execution: a walk over
the class's methods that remembers which views each local name is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from audit import ir

ROLLS = frozenset("roll pad cat concatenate concat stack shift".split())
REDUCE = frozenset("remainder fmod mod bitwise_and".split())
MIX = frozenset("bitwise_xor xor".split())
#: what takes a shape from its argument, and no content
SHAPES = frozenset("zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full size numel".split())
LOOKS_UP = frozenset("Embedding embedding EmbeddingBag embedding_bag".split())


@dataclass(frozen=True, slots=True)
class HashedInput:
    """``module`` path and line of the reduction; ``owner`` is the class that holds it.

    ``functions``: for a function by itself, the identities of the definition that holds it and of those around it.
    """

    path: str
    line: int
    owner: str
    functions: tuple[int, ...] = ()


@dataclass(slots=True)
class _Made:
    """Which views of which arguments an expression is made of, and whether they were mixed and reduced."""

    views: frozenset[tuple[str, str]] = frozenset()
    mixed: bool = False
    reduced: int = 0

    def __or__(self, other: _Made) -> _Made:
        return _Made(self.views | other.views, self.mixed or other.mixed, self.reduced or other.reduced)


_NOTHING = _Made()


@dataclass(slots=True)
class _Method:
    names: dict[str, _Made] = field(default_factory=dict)
    hits: list[int] = field(default_factory=list)

    def run(self, body: list[ir.Stmt]) -> None:
        for stmt in body:
            if isinstance(stmt, ir.Assign):
                value = self.of(stmt.value)
                for t in stmt.targets:
                    self.bind(t, value)
            elif isinstance(stmt, ir.AnnAssign) and stmt.value is not None:
                self.bind(stmt.target, self.of(stmt.value))
            elif isinstance(stmt, ir.AugAssign):
                self.bind(stmt.target, self.combine(stmt.op, self.of(stmt.target), self.of(stmt.value), stmt.line))
            elif isinstance(stmt, (ir.ExprStmt, ir.Return)) and stmt.value is not None:
                self.of(stmt.value)
            elif isinstance(stmt, ir.If):
                self.run(stmt.body)
                self.run(stmt.orelse)
            elif isinstance(stmt, (ir.For, ir.While, ir.With)):
                # Twice, so that a hash built up over a loop is seen whole.
                self.run(stmt.body)
                self.run(stmt.body)

    def bind(self, target: ir.Expr, value: _Made) -> None:
        if isinstance(target, ir.Name):
            self.names[target.id] = value
        elif isinstance(target, ir.Sub) and isinstance(target.value, ir.Name):
            self.names[target.value.id] = self.names.get(target.value.id, _NOTHING) | value
        elif isinstance(target, ir.Collection):
            for t in target.elts:
                self.bind(t, value)

    def of(self, e: ir.Expr) -> _Made:
        if isinstance(e, ir.Name):
            return self.names.get(e.id, _NOTHING)
        if isinstance(e, ir.Sub):
            base = self.of(e.value)
            if not base.views:
                return base
            cut = _cut(e.index)
            return _Made(frozenset((n, v + cut) for n, v in base.views), base.mixed, base.reduced)
        if isinstance(e, ir.BinOp):
            return self.combine(e.op, self.of(e.left), self.of(e.right), e.line)
        if isinstance(e, ir.Call):
            return self.call(e)
        if isinstance(e, (ir.Attr, ir.Starred, ir.Await)):
            return self.of(e.value)
        if isinstance(e, ir.UnaryOp):
            return self.of(e.operand)
        if isinstance(e, ir.IfExp):
            return self.of(e.body) | self.of(e.orelse)
        if isinstance(e, ir.Collection):
            found = _NOTHING
            for x in e.elts:
                found = found | self.of(x)
            return found
        return _NOTHING

    def combine(self, op: str, a: _Made, b: _Made, line: int) -> _Made:
        both = a | b
        if op == "%" or op == "&":
            return self.reduce(both, line)
        if op in ("^", "*", "+", "|") and len(both.views) > max(len(a.views), len(b.views)):
            return _Made(both.views, True, both.reduced)
        return both

    def reduce(self, made: _Made, line: int) -> _Made:
        if made.mixed and len(made.views) >= 2:
            self.hits.append(line)
            return _Made(made.views, True, line)
        return made

    def call(self, e: ir.Call) -> _Made:
        name = e.func.attr if isinstance(e.func, ir.Attr) else e.func.id if isinstance(e.func, ir.Name) else ""
        if name in SHAPES:
            return _NOTHING
        parts = [self.of(a) for a in e.args] + [self.of(v) for _, v in e.keywords]
        found = self.of(e.func.value) if isinstance(e.func, ir.Attr) else _NOTHING
        first = found if found.views else parts[0] if parts else _NOTHING
        for p in parts:
            if name in MIX and len((found | p).views) > max(len(found.views), len(p.views)):
                found = _Made(found.views | p.views, True, found.reduced or p.reduced)
            found = found | p
        if name in REDUCE:
            return self.reduce(found, e.line)
        if name in ROLLS and first.views:
            # Another view of the same tokens.
            return _Made(frozenset((n, v + f"<{name}>") for n, v in found.views), found.mixed, found.reduced)
        return found


def _cut(index: ir.Expr) -> str:
    """How a subscript cuts its sequence axis, as text; "" for what does not shift."""
    last = index.elts[-1] if isinstance(index, ir.Collection) and index.elts else index
    if not isinstance(last, ir.Slice):
        return f"[{getattr(last, 'value', '?')}]" if isinstance(last, ir.Const) else "[?]"
    if last.lower is None and last.upper is None:
        return ""
    return f"[{'a' if last.lower is not None else ''}:{'b' if last.upper is not None else ''}]"


def _methods(cls: ir.ClassDef) -> Iterator[ir.FunctionDef]:
    return (s for s in cls.body if isinstance(s, ir.FunctionDef))


def hashed_inputs(modules: Iterable[ir.Module]) -> list[HashedInput]:
    """Every class, and every function by itself, that looks an embedding up at a hash of several views of its tokens."""
    found = []
    for module in modules:
        free = {s.name: s for s in module.body if isinstance(s, ir.FunctionDef)}
        for node in ir.walk(module.body, into_functions=False):
            if isinstance(node, ir.ClassDef) and _embeds(module, node):
                if line := _hit_by_methods(node) or _hit_by_helpers(node, free):
                    found.append(HashedInput(module.path, line, node.name))
            elif isinstance(node, ir.FunctionDef) and _embeds(module, node):
                found += _inside(module, node, ())
    return found


def _hit_by_methods(cls: ir.ClassDef) -> int:
    return next((hit for fn in _methods(cls) if (hit := _hit(fn, method=True))), 0)


def _hit_by_helpers(cls: ir.ClassDef, free: dict[str, ir.FunctionDef]) -> int:
    called = {n.func.id for n in ir.walk(cls.body) if isinstance(n, ir.Call) and isinstance(n.func, ir.Name)}
    return next((hit for name in sorted(called & free.keys()) if (hit := _hit(free[name]))), 0)


def _inside(module: ir.Module, fn: ir.FunctionDef, around: tuple[int, ...]) -> Iterator[HashedInput]:
    """An embedding made for the evaluation alone lives in the function that adapts it, or in one inside that."""
    here = (id(fn), *around)
    if line := _hit(fn):
        yield HashedInput(module.path, line, fn.name, here)
    for node in ir.walk(fn.body, into_functions=False):
        if isinstance(node, ir.FunctionDef):
            yield from _inside(module, node, here)


def _embeds(module: ir.Module, node: ir.ClassDef | ir.FunctionDef) -> bool:
    if not any("mbedding" in line for line in module.lines[node.line - 1 : node.end_line]):
        return False  # as most; their text is looked at faster than their nodes
    return any(
        isinstance(n, (ir.Attr, ir.Name)) and (n.attr if isinstance(n, ir.Attr) else n.id) in LOOKS_UP for n in ir.walk(node.body)
    )


def _hit(fn: ir.FunctionDef, method: bool = False) -> int:
    """The line at which a function reduces a hash of several views of an argument; 0 for none."""
    if fn.name == "__init__":
        return 0
    params = fn.params[1:] or fn.params if method else fn.params
    run = _Method({p.name: _Made(frozenset([(p.name, "")])) for p in params})
    run.run(fn.body)
    return run.hits[0] if run.hits else 0
