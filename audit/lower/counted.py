"""``i = 0`` / ``while i < n: ...; i += k`` as ``for i in range(0, n, k): ...``.

The two are one loop, and everything that is known of walks over the stream is known of ``range``. A ``while`` is only
rewritten where nothing tells them apart: the counter is set right before, in the same block, counted up once, as the last
statement of the body, read in it, and not behind the loop; nothing that the bound or the step is made of changes inside, and no
``continue`` goes past the count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir

_BLOCKS = ("body", "orelse", "finalbody")
#: calls whose answer does not change as long as their arguments do not
_MEASURES = frozenset(("len", "int", "min", "max", "numel", "size"))
_GROWS = frozenset(("append", "extend", "pop", "popleft", "insert", "clear", "remove", "update", "add", "put", "get"))


def counted(body: list[ir.Stmt]) -> None:
    """Rewrites such loops below ``body``, in place."""
    for scope in (body, *(f.body for f in ir.functions(body))):
        own = list(_blocks(scope))
        if any(type(s) is ir.While for block in own for s in block):
            for block in reversed(own):  # the innermost first
                for n, s in enumerate(block):
                    if type(s) is ir.While and (made := _for(s, block[:n], scope)) is not None:
                        block[n] = made


def _blocks(body: list[ir.Stmt]) -> Iterator[list[ir.Stmt]]:
    """The lists of statements of one function or module, without those of functions and classes inside."""
    todo = [body]
    while todo:
        block = todo.pop()
        yield block
        for s in block:
            if not isinstance(s, (ir.FunctionDef, ir.ClassDef)):
                todo += [inner for name in _BLOCKS if (inner := getattr(s, name, None))]
                for part in (*getattr(s, "handlers", ()), *getattr(s, "cases", ())):
                    todo.append(part.body)


def _for(s: ir.While, before: list[ir.Stmt], scope: list[ir.Stmt]) -> ir.For | None:
    found = _bound(s.test)
    if found is None or s.orelse or len(s.body) < 2:
        return None
    name, stop = found
    step = _step(s.body[-1], name)
    if step is None or not (_steady(stop) and _steady(step)):
        return None
    start = _start(before, name)
    if start is None:
        return None
    inside = s.body[:-1]
    stored = _stored(inside)
    measured = {n.id for part in (stop, step) for n in ir.walk(part) if type(n) is ir.Name}
    if name in stored or not measured.isdisjoint(stored) or _leaves_out(inside) or _changes(inside, measured):
        return None
    if _read_behind(name, s, scope) or not any(type(n) is ir.Name and n.id == name for n in ir.walk(inside)):
        return None  # one that nobody reads counts turns, and is no place
    at = {"line": s.test.line, "col": s.test.col, "end_line": s.test.end_line}
    first: ir.Expr = ir.Const(start.value, **at) if isinstance(start, ir.Const) else ir.Name(name, **at)
    args = [first, stop, step]
    if isinstance(step, ir.Const) and step.value == 1:
        args = [stop] if isinstance(first, ir.Const) and first.value == 0 else args[:2]
    span = ir.Call(ir.Name("range", **at), args, [], **at)
    return ir.For(ir.Name(name, **at), span, inside, [], line=s.line, col=s.col, end_line=s.end_line)


def _bound(test: ir.Expr) -> tuple[str, ir.Expr] | None:
    """The counter and what it stays below: of ``i < n``, ``i + k <= n``, ``n > i``."""
    if not (isinstance(test, ir.Compare) and len(test.ops) == 1):
        return None
    op = test.ops[0]
    small, large = test.left, test.comparators[0]
    if op in (">", ">="):
        op, small, large = {">": "<", ">=": "<="}[op], large, small
    if op not in ("<", "<="):
        return None
    at = {"line": large.line, "col": large.col, "end_line": large.end_line}
    if isinstance(small, ir.BinOp) and small.op == "+" and isinstance(small.left, ir.Name):
        left, more = small.left, small.right
        small, large = left, ir.BinOp("-", large, more, **at)
    if not isinstance(small, ir.Name):
        return None
    return small.id, large if op == "<" else ir.BinOp("+", large, ir.Const(1, **at), **at)


def _start(before: list[ir.Stmt], name: str) -> ir.Expr | None:
    """What the counter is set to, as the last thing that is done to it before the loop."""
    last = next((x for x in reversed(before) if name in _stored([x])), None)
    if not (isinstance(last, ir.Assign) and len(last.targets) == 1):
        return None
    pairs = ir.paired(last.targets[0], last.value)
    return next((value for target, value in pairs if isinstance(target, ir.Name) and target.id == name), None)


def _step(s: ir.Stmt, name: str) -> ir.Expr | None:
    """``k`` of ``i += k`` or ``i = i + k``."""
    step: Any = None
    if isinstance(s, ir.AugAssign) and s.op == "+" and isinstance(s.target, ir.Name) and s.target.id == name:
        step = s.value
    elif isinstance(s, ir.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ir.Name) and s.targets[0].id == name:
        value = s.value
        if isinstance(value, ir.BinOp) and value.op == "+" and isinstance(value.left, ir.Name) and value.left.id == name:
            step = value.right
    if step is None or any(type(n) is ir.Name and n.id == name for n in ir.walk(step)):
        return None
    if isinstance(step, ir.Const):
        return step if type(step.value) is int and step.value > 0 else None
    return step  # type: ignore[no-any-return]


def _steady(e: ir.Expr) -> bool:
    """Numbers, names, attributes and sizes: the same in every turn if their names are."""
    return ir.made_of(e, (ir.Name, ir.Const, ir.Attr, ir.BinOp, ir.Sub), _MEASURES)


def _stored(body: list[ir.Stmt]) -> set[str]:
    """Names that statements may give another value, those of functions inside included."""
    found: set[str] = set()
    for n in ir.walk(body):
        targets: list[Any] = []
        if isinstance(n, ir.Assign):
            targets = n.targets
        elif isinstance(n, (ir.AugAssign, ir.AnnAssign, ir.For, ir.NamedExpr, ir.CompFor)):
            targets = [n.target]
        elif isinstance(n, ir.With):
            targets = [t for _, t in n.items if t is not None]
        elif isinstance(n, ir.Delete):
            targets = n.targets
        elif isinstance(n, (ir.FunctionDef, ir.ClassDef)):
            found.add(n.name)
        elif isinstance(n, ir.Import):
            found.update(alias or name.split(".")[0] for name, alias in n.names)
        elif isinstance(n, ir.Scope):
            found.update(n.names)
        for target in targets:
            found.update(x.id for x in _bases(target))
    return found


def _bases(target: Any) -> Iterator[ir.Name]:
    """The names that a target binds, or whose elements or attributes it changes."""
    if isinstance(target, ir.Name):
        yield target
    elif isinstance(target, ir.Collection):
        for e in target.elts:
            yield from _bases(e)
    elif isinstance(target, (ir.Starred, ir.Attr)):
        yield from _bases(target.value)


def _leaves_out(body: list[ir.Stmt]) -> bool:
    """Is there a ``continue`` of this very loop."""
    todo: list[Any] = list(body)
    while todo:
        s = todo.pop()
        if isinstance(s, ir.Jump) and s.kind == "continue":
            return True
        if isinstance(s, (ir.For, ir.While, ir.FunctionDef, ir.ClassDef)):
            continue
        for name in (*_BLOCKS, "handlers", "cases"):
            todo += getattr(s, name, None) or []
    return False


def _changes(body: list[ir.Stmt], names: set[str]) -> bool:
    """Does a list among ``names`` grow or shrink."""
    return any(
        isinstance(n, ir.Call) and isinstance(n.func, ir.Attr) and n.func.attr in _GROWS
        and isinstance(n.func.value, ir.Name) and n.func.value.id in names
        for n in ir.walk(body)
    )  # fmt: skip


def _read_behind(name: str, loop: ir.While, scope: list[ir.Stmt]) -> bool:
    """May the counter's last value be read: by a line below the loop before it is set again, or by a function inside."""
    within = {id(n) for n in ir.walk(loop)}
    set_at: list[int] = []
    reads: list[int] = []
    targets: set[int] = set()
    for n in ir.walk(scope):
        if id(n) in within:
            continue
        if isinstance(n, ir.Assign):
            own = [x for t in n.targets for x in _bases(t) if isinstance(t, (ir.Name, ir.Collection)) and x.id == name]
            targets.update(map(id, own))
            set_at += [n.line] if own else []
        elif isinstance(n, ir.For):
            own = [x for x in _bases(n.target) if x.id == name]
            targets.update(map(id, own))
            set_at += [n.line] if own else []
        elif isinstance(n, ir.Scope) and name in n.names:
            return True
        elif type(n) is ir.Name and n.id == name and id(n) not in targets and n.line >= loop.end_line:
            reads.append(n.line)
    again = min((line for line in set_at if line >= loop.end_line), default=None)
    return any(again is None or line <= again for line in reads)
