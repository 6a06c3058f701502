"""Statements in other words: sums written out, counted loops with a counter of their own, branches as expressions and back."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator

from audit.rewrite.base import NothingToRewrite, parse, uses

_Function = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef
#: calls whose result is a number or a tensor of its own, which no other name shares
_FRESH = frozenset(["zeros", "tensor", "float", "int", "zeros_like", "new_zeros"])


def sums_written_out(text: str, chance: random.Random) -> tuple[str, str]:
    """``total += x`` as ``total = total + (x)``, where the total begins as a number or as a tensor of its own."""
    edits: list[tuple[ast.AST, str]] = []
    for function in _functions(parse(text)):
        inside = list(_own(function))
        fresh = {t.id for s in inside if isinstance(s, ast.Assign) and _is_fresh(s.value) for t in s.targets if isinstance(t, ast.Name)}
        for s in inside:
            if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name) and s.target.id in fresh and isinstance(s.op, (ast.Add, ast.Sub)):
                value = ast.get_source_segment(text, s.value)
                name = s.target.id
                edits.append((s, f"{name} = {name} {'+' if isinstance(s.op, ast.Add) else '-'} ({value})"))
    if not edits:
        raise NothingToRewrite("no sum of a fresh number")
    return _edited(text, edits), f"{len(edits)} sums written out"


def counters_of_their_own(text: str, chance: random.Random) -> tuple[str, str]:
    """``for i in range(a, b, c):`` as ``i = a`` and ``while i < end:``, where nothing leaves a turn early or reads ``i`` later."""
    tree = parse(text)
    lines = text.splitlines()
    known = uses(tree).all()
    done: list[ast.For] = []
    for function in _functions(tree):
        loops = [s for s in _own(function) if isinstance(s, ast.For)]
        for loop in loops:
            within = set(map(id, ast.walk(loop)))
            if _counts(loop, lines) and not any(
                isinstance(n, ast.Name) and n.id == loop.target.id and id(n) not in within  # type: ignore[attr-defined]
                for n in ast.walk(function)
            ):
                done.append(loop)
    chosen = {id(loop) for loop in done}  # of loops inside one another the innermost, so that lines stay where they are
    done = [loop for loop in done if not any(id(n) in chosen for n in ast.walk(loop) if n is not loop)]
    if not done:
        raise NothingToRewrite("no loop over a range that counts upwards")
    for number, loop in sorted(enumerate(done), key=lambda x: -x[1].lineno):
        call = loop.iter
        assert isinstance(call, ast.Call) and isinstance(loop.target, ast.Name)
        a, b, c = (["0", *_texts(text, call), "1"] if len(call.args) == 1 else [*_texts(text, call), "1"])[:3]
        end = f"end_{number}"
        while end in known:
            end += "_"
        name, indent = loop.target.id, lines[loop.lineno - 1][: loop.col_offset]
        inner = lines[loop.body[0].lineno - 1][: loop.body[0].col_offset]
        last = max(s.end_lineno or s.lineno for s in loop.body)
        lines[last:last] = [f"{inner}{name} = {name} + ({c})"]
        first = loop.body[0].lineno - 1
        lines[loop.lineno - 1 : first] = [f"{indent}{name}, {end} = ({a}), ({b})", f"{indent}while {name} < {end}:"]
    return "\n".join(lines) + "\n", f"{len(done)} loops with a counter of their own"


def branches_as_expressions(text: str, chance: random.Random) -> tuple[str, str]:
    """``if a: x = b`` / ``else: x = c`` as ``x = b if a else c``."""
    edits: list[tuple[ast.AST, str]] = []
    for s in ast.walk(parse(text)):
        if isinstance(s, ast.If) and len(s.body) == len(s.orelse) == 1:
            one, other = s.body[0], s.orelse[0]
            if isinstance(one, ast.Assign) and isinstance(other, ast.Assign) and ast.dump(one.targets[0]) == ast.dump(other.targets[0]) and len(one.targets) == 1:
                test, b, c, target = (ast.get_source_segment(text, n) for n in (s.test, one.value, other.value, one.targets[0]))
                if isinstance(one.targets[0], ast.Name) and text.splitlines()[s.lineno - 1].lstrip().startswith("if"):
                    edits.append((s, f"{target} = ({b}) if ({test}) else ({c})"))
    if not edits:
        raise NothingToRewrite("no branch that only chooses a value")
    return _edited(text, edits), f"{len(edits)} branches as expressions"


def parts_named(text: str, chance: random.Random) -> tuple[str, str]:
    """``total += losses[a:b].sum()`` as ``part = losses[a:b]`` and ``total += part.sum()``."""
    tree = parse(text)
    known = uses(tree).all()
    lines = text.splitlines()
    name = "part"
    while any(k.startswith(f"{name}_") for k in known):
        name += "_"
    edits: list[tuple[ast.stmt, ast.Subscript]] = []
    for s in ast.walk(tree):
        if isinstance(s, (ast.Assign, ast.AugAssign, ast.Expr, ast.Return)) and s.value is not None and s.lineno == s.end_lineno:
            line = lines[s.lineno - 1]
            if not line[: s.col_offset].strip() and line[s.end_col_offset :].strip()[:1] in ("", "#") and line.isascii():
                edits += [(s, part) for part in _read_parts(s.value)[:1] if chance.random() < 0.7]
    if not edits:
        raise NothingToRewrite("no part of an array that is read in a statement of one line")
    for number, (s, part) in sorted(enumerate(edits), key=lambda e: -e[1][0].lineno):
        line = lines[s.lineno - 1]
        lines[s.lineno - 1 : s.lineno] = [
            f"{line[: s.col_offset]}{name}_{number} = {line[part.col_offset : part.end_col_offset]}",
            f"{line[: part.col_offset]}{name}_{number}{line[part.end_col_offset :]}",
        ]
    return "\n".join(lines) + "\n", f"{len(edits)} parts of arrays with a name of their own"


def _read_parts(value: ast.expr) -> list[ast.Subscript]:
    """Outermost ``x[…]`` that are evaluated come what may, before anything is called."""
    if isinstance(value, ast.Subscript):
        plain = not any(isinstance(n, (ast.Call, ast.NamedExpr, ast.Lambda, ast.ListComp, ast.GeneratorExp, ast.Await, ast.Yield)) for n in ast.walk(value))
        return [value] if plain else []
    if isinstance(value, (ast.BinOp, ast.UnaryOp, ast.Call, ast.Attribute)):
        first = next((c for c in ast.iter_child_nodes(value) if isinstance(c, ast.expr)), None)
        return _read_parts(first) if first is not None else []
    return []


def _functions(tree: ast.Module) -> Iterator[_Function]:
    yield tree
    yield from (n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _own(function: _Function) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions and classes inside it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))


def _is_fresh(value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return isinstance(value.value, (int, float)) and not isinstance(value.value, bool)
    name = value.func if isinstance(value, ast.Call) else None
    return isinstance(name, (ast.Attribute, ast.Name)) and (name.attr if isinstance(name, ast.Attribute) else name.id) in _FRESH


def _counts(loop: ast.For, lines: list[str]) -> bool:
    call = loop.iter
    if not (isinstance(loop.target, ast.Name) and isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
        return False
    if loop.orelse or call.keywords or not call.args or loop.body[0].lineno == loop.lineno or lines[loop.lineno - 1][: loop.col_offset].strip():
        return False
    step = call.args[2] if len(call.args) > 2 else None
    if isinstance(step, ast.UnaryOp) or any(isinstance(a, ast.Starred) for a in call.args):
        return False
    own = loop.target.id
    last = max(loop.body, key=lambda s: s.end_lineno or s.lineno)
    shared = any(s is not last and s.lineno == last.lineno for s in loop.body) or len(lines[(last.end_lineno or 0) - 1].split(";")) > 1
    leaves = any(isinstance(n, (ast.Continue, ast.Lambda, ast.FunctionDef)) for s in loop.body for n in ast.walk(s))
    again = any(isinstance(n, ast.Name) and n.id == own and isinstance(n.ctx, ast.Store) for s in loop.body for n in ast.walk(s))
    # ``if other != rank``: a walk over ranks, which the auditor tells by its range
    ranks = any(isinstance(n, ast.Compare) and isinstance(n.left, ast.Name) and n.left.id == own and isinstance(n.ops[0], (ast.Eq, ast.NotEq))
                for s in loop.body for n in ast.walk(s))  # fmt: skip
    return not (shared or leaves or again or ranks)


def _texts(text: str, call: ast.Call) -> list[str]:
    return [ast.get_source_segment(text, a) or "" for a in call.args]


def _edited(text: str, edits: list[tuple[ast.AST, str]]) -> str:
    """The text with statements replaced; those inside others that are replaced as well stay as they are."""
    lines = text.encode().split(b"\n")
    taken: list[tuple[int, int]] = []
    for node, made in sorted(edits, key=lambda e: (-e[0].lineno, -e[0].col_offset)):  # type: ignore[attr-defined]
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1  # type: ignore[attr-defined]
        if any(first <= b and a <= last and first != last for a, b in taken):
            continue
        head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]  # type: ignore[attr-defined]
        lines[first : last + 1] = [head + made.encode() + tail]
        taken.append((first, first))
    return b"\n".join(lines).decode()


__all__ = ["branches_as_expressions", "counters_of_their_own", "parts_named", "sums_written_out"]
