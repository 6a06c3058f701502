"""Positions that a layer picks by comparing all positions of its window: ``scores.topk(k, dim=1)``.

No rule lives here. A mixture of depths, or experts that choose their tokens, ranks one number per position over the
whole window; whether an early position is among the best depends on the later ones. A gate that ranks experts for each
position by itself compares along another axis, and is told from this by how its numbers were made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from audit import ir
from audit.rules.code import Code, Place
from audit.rules.sequence import Sequences
from audit.rules.window import minus_one

_REDUCE = frozenset({"mean", "sum", "norm", "amax", "amin", "logsumexp", "select"})
_PASS = frozenset(
    {"float", "to", "sigmoid", "softplus", "tanh", "abs", "detach", "bfloat16", "type_as", "clone"}
)


def ranked_over_time(code: Code, along: Sequences, place: Place, shut: set[int]) -> Iterator[ir.Call]:
    """Calls in a module's method that rank the window's positions; ``shut``: nodes that its settings keep closed."""
    function = place.function
    if function is None or place.owner is None:
        return
    found = [
        n
        for n in place.nodes()
        if isinstance(n, ir.Call) and isinstance(n.func, ir.Attr) and n.func.attr == "topk"
    ]
    if not found:
        return
    made: dict[str, list[Any]] = {}
    for n in place.nodes():
        if isinstance(n, ir.Assign) and len(n.targets) == 1 and isinstance(n.targets[0], ir.Name):
            made.setdefault(n.targets[0].id, []).append(n.value)
    for call in found:
        library = code.dotted(place, call.func).startswith("torch.")
        func: Any = call.func
        subject, rest = (call.args[0], call.args[2:]) if library and call.args else (func.value, call.args[1:])
        over = rest[0] if rest else next((v for k, v in call.keywords if k in ("dim", "axis")), None)
        time = isinstance(over, ir.Const) and over.value == 1 and over.value is not True
        if time and id(call) not in shut and _one_per_position(along, place, subject, made, 0):
            yield call


def _one_per_position(
    along: Sequences, place: Place, node: Any, made: Mapping[str, list[Any]], depth: int
) -> bool:
    """Is the value (batch, time): activations of which the last axis was reduced away."""
    if depth > 6:
        return False
    if isinstance(node, ir.Name):
        return any(_one_per_position(along, place, v, made, depth + 1) for v in made.get(node.id, ()))
    if isinstance(node, ir.BinOp):
        return any(_one_per_position(along, place, v, made, depth + 1) for v in (node.left, node.right))
    if isinstance(node, ir.Sub):
        last = node.index.elts[-1] if isinstance(node.index, ir.Collection) and node.index.elts else None
        return isinstance(last, ir.Const) and type(last.value) is int and along.along(place, node.value)
    if not isinstance(node, ir.Call):
        return False
    func: Any = node.func
    name = func.attr if isinstance(func, ir.Attr) else ""
    if name == "squeeze":
        return bool(node.args) and minus_one(node.args[0]) and _of_activations(along, place, func.value)
    if name in _REDUCE:
        over = (
            node.args[0] if node.args else next((v for k, v in node.keywords if k in ("dim", "axis")), None)
        )
        kept = any(k == "keepdim" for k, _ in node.keywords)
        return over is not None and minus_one(over) and not kept and _of_activations(along, place, func.value)
    if name in _PASS and isinstance(func, ir.Attr):
        inner = node.args[0] if node.args and name in ("sigmoid", "tanh", "softplus") else func.value
        return _one_per_position(along, place, inner, made, depth + 1)
    return False


def _of_activations(along: Sequences, place: Place, node: Any) -> bool:
    return along.along(place, node) or any(
        along.along(place, n) for n in ir.walk(node) if isinstance(n, ir.Name)
    )


__all__ = ["ranked_over_time"]
