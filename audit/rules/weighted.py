"""Losses that a model's own method weights by their places before it adds them up.

No rule lives here. A ramp over the first positions of a window (``pos / 256``, cut off at 1) makes the hardest targets
count for less; in training that is a choice, in the score it leaves their nats out while their bytes stay. A comparison
of places makes a mask (padding, the scored part of a window), which is something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from audit import ir
from audit.rules.code import Code, Place
from audit.rules.settings import closed_by, decided

LOSS, RAMP = "loss", "ramp"
_LOSSES = ("cross_entropy", "nll_loss")
_PLACES = ("arange", "linspace")
#: what leaves one loss per token
_SHAPES = frozenset(["view", "reshape", "float", "double", "to", "squeeze", "unsqueeze", "flatten", "contiguous", "transpose"])


def weighted(code: Code, place: Place, settings: Mapping[str, Any]) -> Iterator[tuple[Any, bool]]:
    """(product, certain) of losses per token and a function of their places that the method takes in evaluation."""
    if place.function is None:
        return
    known = {**settings, "training": False}
    shut = set(closed_by(place.function.body, known))
    open_: set[int] = set()
    for n in place.nodes(ir.If):
        if decided(n.test, known) is None:
            open_.update(id(x) for x in ir.walk([*n.body, *n.orelse]))
    made: dict[str, str] = {}
    found: list[tuple[Any, bool]] = []

    def kind(node: Any) -> str | None:
        if isinstance(node, ir.Name):
            return made.get(node.id)
        if isinstance(node, ir.Sub):
            return kind(node.value)
        if isinstance(node, ir.UnaryOp):
            return kind(node.operand)
        if isinstance(node, ir.BinOp):
            a, b = kind(node.left), kind(node.right)
            if {a, b} == {LOSS, RAMP}:
                if node.op in "*/":
                    found.append((node, id(node) not in open_))
                return LOSS
            return a or b
        if isinstance(node, ir.Call):
            name = code.dotted(place, node.func).rpartition(".")[2]
            if name in _LOSSES:
                each = any(k == "reduction" and isinstance(v, ir.Const) and v.value == "none" for k, v in node.keywords)
                return LOSS if each else None
            if name in _PLACES:
                return RAMP
            if isinstance(node.func, ir.Attr) and (inner := kind(node.func.value)) is not None:
                return inner if inner == RAMP or node.func.attr in _SHAPES else None
            kinds = [kind(a) for a in node.args]
            return RAMP if RAMP in kinds and LOSS not in kinds and name in ("clamp", "clip", "minimum", "where", "exp", "pow") else None
        return None

    for s in sorted(place.nodes(ir.Assign, ir.AugAssign, ir.Return), key=lambda n: (n.line, n.col)):
        if id(s) in shut or s.value is None:
            continue
        if isinstance(s, ir.AugAssign):
            if isinstance(s.target, ir.Name):
                both = {made.get(s.target.id), kind(s.value)}
                if both == {LOSS, RAMP} and s.op in "*/":
                    found.append((s, id(s) not in open_))
                elif RAMP in both and LOSS not in both:
                    made[s.target.id] = RAMP
            continue
        value = kind(s.value)
        if isinstance(s, ir.Assign):
            for t in s.targets:
                if isinstance(t, ir.Name):
                    if value is not None:
                        made[t.id] = value
                    elif id(s) not in open_:
                        made.pop(t.id, None)
    yield from found


__all__ = ["weighted"]
