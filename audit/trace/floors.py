"""Bytes that no token has: a table, or what it gives for each token, that is raised to one at least.

``lengths.clamp(min=1)`` gives separators and control tokens a byte each, and the score a larger divisor. The same on the
number of all bytes only keeps a quotient finite.
"""

from __future__ import annotations

from typing import Any

from audit.trace.even import EVEN, only_even
from audit.trace.left_out import ADDED, LAID, ONLY
from audit.trace.positions import FAR, FIRST_STEP, TOTAL, Place
from audit.trace.shaping import number
from audit.trace.spans import OF_ROWS
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

#: ``(FLOORED, path, line, least)``: of bytes; the same of a score that was divided by them
FLOORED, DIVIDED = "floored", "divided by floored"
#: ``(SCALED, path, line)``: of bytes that were multiplied by a number (`audit.trace.scaled`); of a score divided by them
SCALED, DIVIDED_BY_SCALED = "scaled", "divided by scaled"
#: ``(MORE, path, line)``: of bytes of a whole window, of which only a later part is scored; of a score divided by them
MORE, DIVIDED_BY_MORE = "more", "divided by more"
DIVIDED_BY_EVEN = "divided by even"
_OF_SCORE = {EVEN: DIVIDED_BY_EVEN, FLOORED: DIVIDED, MORE: DIVIDED_BY_MORE, SCALED: DIVIDED_BY_SCALED}
#: what is known of a table is known of what is looked up in it
OF_TABLE = frozenset([FLOORED, SCALED])
#: bytes that others were taken from
LESS = ("less bytes",)
#: so many tokens later is no shift from a token to the next
_LATER = 2
#: no more than a token has on average; a larger number is none of bytes
MOST_RAISED = 8.0
_RAISES = frozenset(["clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_", "maximum", "fmax", "max"])


def of_tokens(v: V) -> bool:
    """What a table of constants gives for each of some tokens."""
    return (
        v.kind == "val" and bool(v.flags & BYTES and v.flags & VAL) and "lut" in kinds(v)
        and not v.flags & (META | MASK | LOSS | LOGITS | PROB | COUNT) and not v.keys & {TOTAL, ADDED, LAID}
    )  # fmt: skip


def read_beside(v: V) -> bool:
    """Numbers that stand beside the tokens in a stream of their own, such as how many bytes each has; or tokens."""
    return (
        v.kind == "val" and bool(v.flags & VAL) and "t" in kinds(v)
        and not v.flags & (META | LOSS | LOGITS | PROB | COUNT | PARAM | BYTES) and not v.keys & {LAID}
    )  # fmt: skip


def table(v: V) -> bool:
    """An array of constants."""
    other = VAL | TRAIN | LOSS | LOGITS | PROB | COUNT | META | MASK | PARAM | GRAD | RAND | TIME | BYTES
    return v.kind == "val" and not v.flags & other and not v.atoms and not v.taint and not v.models


class Floors:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_raised(self: Any, name: str, v: V, args: list[V], kwargs: dict[str, V], out: V, node: Any) -> None:
        """``bytes.clamp(min=1)``, ``maximum(bytes, 1)``"""
        if name not in _RAISES or not (of_tokens(v) or read_beside(v) or (table(v) and name != "max")):
            return
        least = kwargs.get("min", kwargs.get("a_min", args[0] if args else const(None)))
        if (n := number(least)) is not None and 1.0 <= n <= MOST_RAISED:
            self.floor(out, node, int(n))

    def note_made_one(self: Any, a: V, b: V, out: V, node: Any) -> None:
        """``bytes + (bytes == 0)``"""
        for v, test in ((a, b), (b, a)):
            if of_tokens(v) and ONLY in test.keys and test.flags & BYTES and test.flags & MASK:
                self.floor(out, node)

    def floor(self: Any, out: V, node: Any, least: int = 1) -> None:
        out.keys = out.keys | {(FLOORED, self.scope.path, getattr(node, "line", 0), least)}

    def note_divided(self: Any, a: V, b: V, out: V) -> None:
        """The sum of losses over such bytes; as a weight of single losses they are no divisor."""
        if kinds(out).isdisjoint(_OF_SCORE):
            return
        found = frozenset(k for k in out.keys if k[0] in _OF_SCORE)
        out.keys = out.keys - found
        for losses, size in ((a, b), (b, a)):
            summed = size.keys & {TOTAL, ADDED} and size.flags & BYTES and not size.flags & (LOSS | COUNT | PROB | LOGITS)
            summed = summed or read_beside(size)
            if losses.flags & LOSS and losses.scores and summed:
                out.keys = out.keys | {(_OF_SCORE[k[0]], *k[1:]) for k in found & size.keys if k[0] != EVEN or (k[3] and only_even(size))}

    def note_bytes_taken(self: Any, out: V) -> None:
        """``bytes_of(y) - bytes_of(y[:new])``"""
        out.keys = frozenset(k for k in out.keys if k[0] != MORE) | {LESS}

    def note_summed_bytes(self: Any, size: V, out: V, node: Any) -> None:
        """``total += loss[new:].sum(); count += bytes_of(x, y)``: what a turn adds up, of the window and of its new tokens."""
        if self.forks or ADDED not in size.keys or size.flags & (META | MASK | LOSS | LOGITS | PROB | COUNT) or size.keys & {OF_ROWS, LAID, LESS}:
            return
        counted = _places(size.keys, "l")
        at = tuple(self.loops)
        scored = [e for e in self.trace.events if e.kind == "SCORE" and e.loops == at and e.stack == tuple(self.stack) and e.on_val]
        places = [_places(e.detail["keys"], "t") for e in scored]
        if len(counted) == 1 and places and all(self.begins_later(*counted, one) for one in places):
            out.keys = out.keys | {(MORE, self.scope.path, getattr(node, "line", 0))}

    def begins_later(self: Any, whole: Place, part: list[Place]) -> bool:
        """Is what begins at ``part`` cut out of a window that begins at ``whole``, by the beginning of a slice."""
        if len(part) != 1 or part[0][1] < -FAR // 2 or whole[1] < -FAR // 2:
            return False
        more = list(part[0][0])
        for s in whole[0]:
            if s not in more:
                return False
            more.remove(s)
        if not more:
            return part[0][1] - whole[1] >= _LATER
        return all(s < FIRST_STEP and s not in self.trace.advances.per_turn for s in more) and bool(whole[0]) and part[0][1] >= whole[1]


def divided_by(v: V) -> dict[str, list[tuple]]:
    """What is wrong with the bytes that a printed figure was divided by: where, by kind."""
    found = kinds(v)
    return {kind: sorted(k[1:] for k in v.keys if k[0] == divided) if divided in found else [] for kind, divided in _OF_SCORE.items()}


def _places(keys: frozenset, kind: str) -> list[Place]:
    """The last token of each group of symbols."""
    found: dict[tuple[int, ...], int] = {}
    for k in keys:
        if k[0] == kind:
            found[k[1]] = max(found.get(k[1], k[2]), k[2])
    return list(found.items())


__all__ = ["FLOORED", "MORE", "OF_TABLE", "SCALED", "Floors", "divided_by", "of_tokens", "table"]
