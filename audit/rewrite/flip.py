"""Flips: the smallest changes that turn a legal evaluation into an illegal one, or back.

Each flip looks for its shape in the syntax, across the script's own functions:

- *order*: a loop whose body scores (a loss without a gradient step) and updates (a backward pass);
  the two change places.
- *key*: a memory's address is the slice of tokens that ends before the target; one further and it
  holds the target, one back and it does not.
- *mask*: the positions whose loss a fitted offset is trained on; those before the scored ones, or
  the scored ones themselves.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable

from audit.rewrite.base import NothingToRewrite, parse
from audit.rewrite.helpers import _line_starts, _span

_SCORES = {"cross_entropy", "nll_loss", "log_softmax", "logsumexp", "gather"}
_LEARNS = {"backward"}


def _calls(node: ast.AST) -> set[str]:
    found = set()
    for n in ast.walk(node):
        if isinstance(n, ast.Call):
            if isinstance(n.func, ast.Attribute):
                found.add(n.func.attr)
            elif isinstance(n.func, ast.Name):
                found.add(n.func.id)
    return found


def _reach(tree: ast.Module) -> Callable[[ast.AST], set[str]]:
    """Names of all calls made by a node, through the script's own functions and methods."""
    bodies: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            bodies.setdefault(node.name, set()).update(_calls(node))

    def reach(node: ast.AST) -> set[str]:
        found, todo = set(), list(_calls(node))
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += bodies.get(name, ())
        return found

    return reach


def _accumulates(node: ast.AST) -> bool:
    """Is a total added to inside, as a score does and a training pass does not."""
    return any(
        isinstance(n, ast.AugAssign) and isinstance(n.op, (ast.Add, ast.Sub)) for n in ast.walk(node)
    ) or any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "add_"
        for n in ast.walk(node)
    )


def flip_order(text: str, chance: random.Random) -> tuple[str, str]:
    """Moves the update of a loop's body above its score, or below it where it stood above."""
    tree = parse(text)
    reach = _reach(tree)
    starts = _line_starts(text)
    found = []
    for loop in ast.walk(tree):
        if not isinstance(loop, (ast.For, ast.While)):
            continue
        kinds = []
        for s in loop.body:
            called = reach(s)
            if called & _LEARNS:
                kinds.append("update")
            elif (called & _SCORES) and (_accumulates(s) or isinstance(s, ast.Expr | ast.Assign)):
                kinds.append("score")
            else:
                kinds.append("other")
        if "score" in kinds and kinds.count("update") == 1 and _apart(tree, loop, kinds):
            found.append((loop, kinds))
    if not found:
        raise NothingToRewrite("no loop scores and updates in separate statements")
    loop, kinds = chance.choice(found)
    body = loop.body
    update = kinds.index("update")
    scores = [i for i, k in enumerate(kinds) if k == "score"]
    lines = text.encode()
    above = scores[0] < update
    head, tail = (scores[0], update) if above else (update, scores[-1])
    span = range(head, tail + 1)
    # What stands between goes with the part that comes first, so that its names are bound in time;
    # an early exit would cut the second part off and is left out.
    late = [i for i in span if kinds[i] == ("score" if above else "update")]
    order = [i for i in span if i not in late and not _leaves(body[i])] + late
    pieces = {i: piece for i in span if (piece := _piece(lines, starts, body[i])) is not None}
    if len(pieces) < len(span):
        raise NothingToRewrite("the loop's statements share lines")
    moved = b"".join(lines[pieces[i][0] : pieces[i][1]] for i in order)
    out = (lines[: pieces[head][0]] + moved + lines[pieces[tail][1] :]).decode()
    parse(out)
    where = "above" if above else "below"
    return out, f"moved the update {where} the score in the loop at line {loop.lineno}"


def _leaves(node: ast.stmt) -> bool:
    """Is it an early exit of the loop: an ``if`` that ends in break, continue or return."""
    return isinstance(node, ast.If) and isinstance(node.body[-1], (ast.Break, ast.Continue, ast.Return))


def _apart(tree: ast.Module, loop: ast.For | ast.While, kinds: list[str]) -> bool:
    """Are score and update two steps of one adaptation, either of which could come first.

    Not where the update needs what only the scoring statements compute (its loss, above all), and
    not where each round fits something of its own from scratch: there the order is no question.
    """
    score = [s for s, k in zip(loop.body, kinds, strict=True) if k == "score"]
    update = loop.body[kinds.index("update")]
    inside = {id(n) for s in score for n in ast.walk(s)}
    stored: set[str] = set()
    elsewhere: set[str] = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
            (stored if id(n) in inside else elsewhere).add(n.id)
    reads = {n.id for n in ast.walk(update) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    steppers = {
        n.func.value.id for n in ast.walk(update)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "step"
        and isinstance(n.func.value, ast.Name)
    }  # fmt: skip
    renewed = {n.id for n in ast.walk(loop) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return not reads & (stored - elsewhere) and not steppers & renewed


def _piece(data: bytes, starts: list[int], node: ast.stmt) -> tuple[int, int] | None:
    """Byte range of the statement's whole lines; None where it shares a line."""
    end = node.end_lineno or node.lineno
    a, b = starts[node.lineno - 1], starts[end]
    before = data[a : a + node.col_offset]
    after = data[starts[end - 1] + (node.end_col_offset or 0) : b].split(b"#")[0]
    return None if before.strip() or after.strip() else (a, b)


def flip_key(text: str, chance: random.Random) -> tuple[str, str]:
    """Shifts the slice of tokens that forms a memory's address by one token, onto the target or off it."""
    tree = parse(text)
    starts = _line_starts(text)
    found = []
    unused = _unused_methods(tree)
    for fn in ast.walk(tree):
        if not isinstance(fn, ast.FunctionDef) or fn in unused:
            continue
        returned = [n.value for n in ast.walk(fn) if isinstance(n, ast.Return) and n.value is not None]
        returned += [n.value for n in ast.walk(fn) if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
                     and isinstance(n.value.func, ast.Name) and n.value.func.id in ("tuple", "hash", "bytes")]  # fmt: skip
        for value in returned:
            for node in ast.walk(value):
                if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
                    shift = _window(node.slice)
                    if shift is not None:
                        found.append((fn, node.slice, shift))
    if not found:
        raise NothingToRewrite("no function forms a memory's key from a slice that ends at the target")
    fn, part, shift = chance.choice(found)
    assert part.lower is not None and part.upper is not None
    step = 1 if shift == 1 else -1
    low, high = _plus(part.lower, step), _plus(part.upper, step)
    a, b = _span(text, part.lower, part.upper, starts)
    data = text.encode()
    out = (data[:a] + f"{low} : {high}".encode() + data[b:]).decode()
    parse(out)
    what = "into" if step == 1 else "out of"
    return out, f"moved the target {what} the key that {fn.name} forms"


def _unused_methods(tree: ast.Module) -> set[ast.AST]:
    """The methods of classes that nothing mentions: a change in them changes no behaviour."""
    named = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    named |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return {n for c in tree.body if isinstance(c, ast.ClassDef) and c.name not in named for n in ast.walk(c)}


def _window(part: ast.Slice) -> int | None:
    """1 where the slice is ``at - k + 1 : at + 1`` (context), 2 where it is one further (target)."""
    lower, upper = part.lower, part.upper
    if not (
        isinstance(upper, ast.BinOp)
        and isinstance(upper.op, ast.Add)
        and isinstance(upper.right, ast.Constant)
    ):
        return None
    if not isinstance(upper.left, ast.Name) or upper.right.value not in (1, 2) or lower is None:
        return None
    names = {n.id for n in ast.walk(lower) if isinstance(n, ast.Name)}
    subtracts = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Sub) for n in ast.walk(lower))
    return (1 if upper.right.value == 1 else 2) if upper.left.id in names and subtracts else None


def _plus(node: ast.expr, step: int) -> str:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and isinstance(node.right, ast.Constant):
        total = node.right.value + step  # type: ignore[operator]
        left = ast.unparse(node.left)
        return f"{left} + {total}" if total else left
    return f"{ast.unparse(node)} {'+' if step > 0 else '-'} 1"


def flip_mask(text: str, chance: random.Random) -> tuple[str, str]:
    """Moves the positions that an offset is fitted on: ``m[i, c:e] = 1`` to ``m[i, :c] = 1`` or back."""
    tree = parse(text)
    starts = _line_starts(text)
    found = []
    for fn in ast.walk(tree):
        if not isinstance(fn, ast.FunctionDef) or "backward" not in _calls(fn):
            continue
        for node in ast.walk(fn):
            if not (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.value, ast.Constant)
            ):
                continue
            target = node.targets[0]
            if (
                node.value.value != 1
                or not isinstance(target, ast.Subscript)
                or not isinstance(target.slice, ast.Tuple)
            ):
                continue
            last = target.slice.elts[-1]
            if isinstance(last, ast.Slice) and (last.lower is not None or last.upper is not None):
                found.append((fn, target, last))
    if not found:
        raise NothingToRewrite("no mask of fitted positions is set")
    fn, target, last = chance.choice(found)
    if last.lower is not None:
        new = f":{ast.unparse(last.lower)}"
        what = "before the scored ones"
    else:
        assert last.upper is not None
        new = f"{ast.unparse(last.upper)}:"
        what = "onto the scored ones"
    assert isinstance(target.slice, ast.Tuple)
    rows = ",".join(ast.unparse(e) for e in target.slice.elts[:-1])
    a, b = _span(text, target, target, starts)
    data = text.encode()
    out = (data[:a] + f"{ast.unparse(target.value)}[{rows},{new}]".encode() + data[b:]).decode()
    parse(out)
    return out, f"moved the fitted positions of {fn.name} {what}"


FLIPS: tuple[Callable[[str, random.Random], tuple[str, str]], ...] = (flip_order, flip_key, flip_mask)
