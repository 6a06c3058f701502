"""Helpers: an expression or a run of statements moved into a function, and a function put back."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator

from audit.rewrite.base import BUILTINS, Fresh, NothingToRewrite, parse, uses

Function = ast.FunctionDef | ast.AsyncFunctionDef
_OPAQUE = (ast.Yield, ast.YieldFrom, ast.Await, ast.NamedExpr, ast.Lambda)


def _module_names(tree: ast.Module) -> set[str]:
    """Names that a new function at the top level can read for itself."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(a.asname or a.name).split(".")[0] for a in node.names}
        else:
            names |= {
                n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
    return names


def _functions(tree: ast.Module) -> Iterator[tuple[Function, set[str]]]:
    """Top-level functions and methods, each with all names bound anywhere inside it."""
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for fn in inner:
            if isinstance(fn, (ast.FunctionDef, ast.AsyncFunctionDef)):
                bound = {a.arg for n in ast.walk(fn) if isinstance(n, ast.arguments)
                         for a in (*n.posonlyargs, *n.args, *n.kwonlyargs, n.vararg, n.kwarg) if a}  # fmt: skip
                bound |= {
                    n.id for n in ast.walk(fn) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)
                }
                bound |= {
                    n.name
                    for n in ast.walk(fn)
                    if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n is not fn
                }
                yield fn, bound


def _blocks(fn: Function) -> Iterator[list[ast.stmt]]:
    """Every statement list inside the function, nested functions and classes left out."""
    stack: list[ast.AST] = [fn]
    while stack:
        node = stack.pop()
        for name in ("body", "orelse", "finalbody", "handlers"):
            block = getattr(node, name, None)
            if not isinstance(block, list) or not block:
                continue
            if name != "handlers":
                yield block
            stack += [
                s for s in block if not isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            ]


def _free(nodes: list[ast.AST], bound: set[str], outside: set[str]) -> list[str] | None:
    """Local names that the nodes read, in order; None where they cannot be passed as arguments."""
    names: dict[str, None] = {}
    own: set[str] = set()
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, _OPAQUE):
                return None
            if isinstance(node, ast.comprehension):
                own |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Name) and node.id not in own:
                if node.id == "super" or node.id == "__class__":
                    return None
                if node.id in bound:
                    names[node.id] = None
                elif (
                    node.id not in outside
                    and node.id not in BUILTINS
                    and node.id not in ("__file__", "__name__")
                ):
                    return None
    return list(names)


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _span(text: str, first: ast.AST, last: ast.AST, starts: list[int]) -> tuple[int, int]:
    a = starts[first.lineno - 1] + first.col_offset  # type: ignore[attr-defined]
    b = starts[last.end_lineno - 1] + last.end_col_offset  # type: ignore[attr-defined]
    return a, b


def _insertion(tree: ast.Module, fn: Function, starts: list[int]) -> int:
    """Byte offset of the top-level statement that holds the function, its decorators included."""
    for node in tree.body:
        if node.lineno <= fn.lineno <= (node.end_lineno or node.lineno):
            decorators = getattr(node, "decorator_list", [])
            return starts[min([node.lineno, *(d.lineno for d in decorators)]) - 1]
    raise NothingToRewrite("the function lies in no top-level statement")


def _weight(node: ast.AST) -> int:
    """How interesting an expression is: calls that touch losses, models and tables come first."""
    words = {
        "cross_entropy",
        "backward",
        "step",
        "log_softmax",
        "forward_logits",
        "gather",
        "tokens",
        "hints",
    }
    names = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return 1 + 4 * len(names & words)


def extract_expression(text: str, chance: random.Random) -> tuple[str, str]:
    """``x = expression`` becomes ``x = helper(names)`` with a new function that returns it."""
    tree = parse(text)
    outside = _module_names(tree)
    starts = _line_starts(text)
    places = []
    for fn, bound in _functions(tree):
        if fn.name in ("__init__", "forward"):
            continue
        for block in _blocks(fn):
            for s in block:
                if not isinstance(s, (ast.Assign, ast.AugAssign)) or isinstance(
                    s.value, (ast.Constant, ast.Name)
                ):
                    continue
                if sum(1 for _ in ast.walk(s.value)) < 6:
                    continue
                names = _free([s.value], bound, outside - bound)
                if names is not None:
                    places.append((fn, s.value, names, _weight(s.value)))
    if not places:
        raise NothingToRewrite("no assignment can be moved into a helper")
    fn, value, names, _ = chance.choices(places, [w for *_, w in places])[0]
    name = Fresh(uses(tree).all(), chance)()
    data = text.encode()
    a, b = _span(text, value, value, starts)
    at = _insertion(tree, fn, starts)
    body = ast.unparse(value)
    head = f"def {name}({', '.join(names)}):\n    return {body}\n\n\n".encode()
    out = data[:at] + head + data[at:a] + f"{name}({', '.join(names)})".encode() + data[b:]
    return _checked(out.decode()), f"moved an expression of {fn.name} into {name}"


def extract_statements(text: str, chance: random.Random) -> tuple[str, str]:
    """A run of call statements (``loss.backward()``, ``opt.step()``) becomes one call of a helper."""
    tree = parse(text)
    outside = _module_names(tree)
    starts = _line_starts(text)
    places = []
    for fn, bound in _functions(tree):
        for block in _blocks(fn):
            runs: list[list[ast.Expr]] = []
            for s in block:
                if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and not _super(s):
                    if runs and runs[-1] and runs[-1][-1] is block[block.index(s) - 1]:
                        runs[-1].append(s)
                    else:
                        runs.append([s])
            for run in runs:
                names = _free(list(run), bound, outside - bound)
                if names is not None:
                    places.append((fn, run, names, sum(_weight(s) for s in run)))
    if not places:
        raise NothingToRewrite("no run of calls can be moved into a helper")
    fn, run, names, _ = chance.choices(places, [w for *_, w in places])[0]
    name = Fresh(uses(tree).all(), chance)()
    data = text.encode()
    a, b = _span(text, run[0], run[-1], starts)
    at = _insertion(tree, fn, starts)
    body = "\n".join("    " + ast.unparse(s) for s in run)
    head = f"def {name}({', '.join(names)}):\n{body}\n\n\n".encode()
    out = data[:at] + head + data[at:a] + f"{name}({', '.join(names)})".encode() + data[b:]
    return _checked(out.decode()), f"moved {len(run)} statements of {fn.name} into {name}"


def _super(statement: ast.stmt) -> bool:
    return any(isinstance(n, ast.Name) and n.id in ("super", "exit", "print") for n in ast.walk(statement))


class _Put(ast.NodeTransformer):
    def __init__(self, values: dict[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self.values.get(node.id, node)


def inline(text: str, chance: random.Random) -> tuple[str, str]:
    """One call of a function that only returns an expression becomes that expression."""
    tree = parse(text)
    starts = _line_starts(text)
    single = {}
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        args = node.args
        if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
            continue
        if args.vararg or args.kwarg or args.kwonlyargs or args.posonlyargs or args.defaults:
            continue
        inner = list(ast.walk(body[0].value))
        if any(isinstance(n, (*_OPAQUE, ast.comprehension)) for n in inner):
            continue
        single[node.name] = ([p.arg for p in args.args], body[0].value)
    calls = []
    for fn, bound in _functions(tree):
        for at in ast.walk(fn):
            if not (isinstance(at, ast.Call) and isinstance(at.func, ast.Name) and at.func.id in single):
                continue
            params, value = single[at.func.id]
            simple = all(isinstance(x, (ast.Name, ast.Constant, ast.Attribute)) for x in at.args)
            free = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)} - set(params)
            # A name that the body takes from the module must mean the same where it is written out.
            if simple and not at.keywords and len(at.args) == len(params) and not free & bound:
                calls.append((fn, at))
    if not calls:
        raise NothingToRewrite("no call of a one-expression function can be written out")
    fn, call = chance.choice(calls)
    assert isinstance(call.func, ast.Name)
    params, value = single[call.func.id]
    copy = parse(ast.unparse(value)).body[0]
    assert isinstance(copy, ast.Expr)
    put = _Put(dict(zip(params, call.args, strict=True))).visit(copy.value)
    a, b = _span(text, call, call, starts)
    data = text.encode()
    out = data[:a] + f"({ast.unparse(put)})".encode() + data[b:]
    return _checked(out.decode()), f"wrote {call.func.id} out in {fn.name}"


def _checked(text: str) -> str:
    parse(text)
    return text
