"""Bytes that no token has: a table, or what it gives for each token, that is raised to one at least.

``lengths.clamp(min=1)`` gives separators and control tokens a byte each, and the score a larger divisor. The same on the
number of all bytes only keeps a quotient finite.
"""

from __future__ import annotations

from typing import Any

from audit.trace.left_out import ADDED, LAID, ONLY
from audit.trace.positions import TOTAL
from audit.trace.shaping import number
from audit.trace.values import (
    BYTES,
    COUNT,
    GRAD,
    LOGITS,
    LOSS,
    MASK,
    META,
    PARAM,
    PROB,
    RAND,
    TIME,
    TRAIN,
    VAL,
    V,
    const,
    kinds,
)

#: ``(FLOORED, path, line)``: of bytes; the same of a score that was divided by them
FLOORED, DIVIDED = "floored", "divided by floored"
_RAISES = frozenset(["clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_", "maximum", "fmax", "max"])


def of_tokens(v: V) -> bool:
    """What a table of constants gives for each of some tokens."""
    return (
        v.kind == "val" and bool(v.flags & BYTES and v.flags & VAL) and "lut" in kinds(v)
        and not v.flags & (META | MASK | LOSS | LOGITS | PROB | COUNT) and not v.keys & {TOTAL, ADDED, LAID}
    )  # fmt: skip


def _table(v: V) -> bool:
    """An array of constants."""
    other = VAL | TRAIN | LOSS | LOGITS | PROB | COUNT | META | MASK | PARAM | GRAD | RAND | TIME | BYTES
    return v.kind == "val" and not v.flags & other and not v.atoms and not v.taint and not v.models


class Floors:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_raised(self: Any, name: str, v: V, args: list[V], kwargs: dict[str, V], out: V, node: Any) -> None:
        """``bytes.clamp(min=1)``, ``maximum(bytes, 1)``"""
        if name not in _RAISES or not (of_tokens(v) or (_table(v) and name != "max")):
            return
        least = kwargs.get("min", kwargs.get("a_min", args[0] if args else const(None)))
        if number(least) == 1.0:
            self.floor(out, node)

    def note_made_one(self: Any, a: V, b: V, out: V, node: Any) -> None:
        """``bytes + (bytes == 0)``"""
        for v, test in ((a, b), (b, a)):
            if of_tokens(v) and ONLY in test.keys and test.flags & BYTES and test.flags & MASK:
                self.floor(out, node)

    def floor(self: Any, out: V, node: Any) -> None:
        out.keys = out.keys | {(FLOORED, self.scope.path, getattr(node, "line", 0))}

    def note_divided(self: Any, a: V, b: V, out: V) -> None:
        """The sum of losses over such bytes; as a weight of single losses they are no divisor."""
        if FLOORED not in kinds(out):
            return
        found = frozenset(k for k in out.keys if k[0] == FLOORED)
        out.keys = out.keys - found
        for losses, size in ((a, b), (b, a)):
            summed = size.keys & {TOTAL, ADDED} and size.flags & BYTES and not size.flags & (LOSS | COUNT | PROB | LOGITS)
            if losses.flags & LOSS and losses.scores and summed:
                out.keys = out.keys | {(DIVIDED, *k[1:]) for k in found & size.keys}


__all__ = ["DIVIDED", "FLOORED", "Floors"]
