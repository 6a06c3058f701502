"""Gaps: where a loop goes on by more tokens per turn than its turns score.

Windows that do not overlap and whose first losses are dropped, or windows that are cut one token short, leave the same
share of every turn's targets out of the sum. A loop's counter is known by how much it grows per turn, and a score by the
places of its first and last target (`audit.trace.spans`); where a score's own places are not known, what its turn reads
bounds them (`audit.trace.walks`). All that a walk scores lies at the same distances from multiples of its step: where the
scores behind a figure together leave some distance out, no turn scores what lies there. Loops within loops have the
greatest common divisor of their steps. A bound that is a share of all tokens (`audit.trace.shares`) ends the walk early. Only walks from a number that stands in the script count, or from where a rank's contiguous
share begins: ranks that take turns, outer loops and settings start elsewhere, and together they may cover what each leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from audit.trace.events import Event, Trace
from audit.trace.spans import OF_ROWS
from audit.trace.strides import HELD, STRIDE, STRIDE_BY

#: a walk that trims the stream to whole windows, or that begins after an order of n-grams, goes further than this
NEARLY_ALL = Fraction(19, 20)
#: so many of a document's first targets are more than an order of n-grams goes without
MOST_CONTEXT = 32


@dataclass(frozen=True, slots=True)
class Gap:
    """Of ``step`` targets ``missing`` are never scored."""

    score: Event
    step: int
    missing: int

    @property
    def said(self) -> str:
        return (
            f"the loop goes on by {self.step:,} tokens and scores {self.step - self.missing:,} of them: "
            f"{self.missing:,} in {self.step:,} are never scored"
        )


@dataclass(frozen=True, slots=True)
class Walked:
    """What a loop's scores go through: ``share`` of all tokens; ``chosen``: a setting decides that."""

    score: Event
    share: Fraction
    chosen: bool

    @property
    def said(self) -> str:
        return f"the loop ends after {float(self.share):.3g} of the stream; the rest is never scored"


@dataclass(frozen=True, slots=True)
class Head:
    """The first ``missing`` targets of each document are never scored."""

    score: Event
    missing: int

    @property
    def said(self) -> str:
        return f"the first {self.missing:,} targets of each document are never scored"


@dataclass(frozen=True, slots=True)
class _Part:
    """A loop's step, the first and the last distance from its multiples, and the symbols of the place."""

    step: int
    first: int
    last: int
    symbols: tuple[int, ...] = ()


def gap_of(trace: Trace, scores: Iterable[Event]) -> Gap | None:
    """What all of these scores together leave out, turn by turn; None where one of them is not known in numbers."""
    if not (found := _parts(trace, scores)):
        return None
    step = gcd(*(part.step for _, part in found))
    left = step - _covered(step, [part for _, part in found])
    return Gap(found[-1][0], step, left) if left > 0 else None


def stride_of(trace: Trace, scores: Iterable[Event]) -> Gap | None:
    """The same where windows stand in rows: what is scored of each, against how far they lie apart (`audit.trace.strides`)."""
    parts: list[_Part] = []
    steps: set[int] = set()
    score = None
    for e in scores:
        keys = e.detail["keys"]
        held = [_Part(0, k[1], k[2]) for k in keys if k[0] == HELD]
        apart = {k[1] if k[0] == STRIDE else trace.advances.per_turn.get(k[1], (0, 0))[1] for k in keys if k[0] in (STRIDE, STRIDE_BY)}
        if not held or len(apart) != 1:
            return None
        parts += held
        steps |= apart
        score = e
    if score is None or len(steps) != 1 or (step := steps.pop()) <= 1:
        return None
    left = step - _covered(step, parts)
    return Gap(score, step, left) if left > 0 else None


def walked_of(trace: Trace, scores: Iterable[Event]) -> Walked | None:
    """How far into the stream the furthest of these scores go, if that is less than `NEARLY_ALL`."""
    far: list[Walked] = []
    for e in scores:
        known = e.detail.get("span") is not None and OF_ROWS not in e.detail["keys"]
        symbols = trace.advances.apart_from_ranks(e.detail["span"][0][0]) if known else ()
        moves = [m for s in symbols if (m := trace.advances.per_turn.get(s)) is not None]
        chosen = {frozenset(loop for loop, _ in pairs) for pairs, _, _ in e.atoms}
        if not moves or len(moves) < len(symbols) or chosen != {frozenset(loop for loop, _ in moves)}:
            if any(turn == 1 for pairs, _, _ in e.atoms for _, turn in pairs) and not moves:
                continue  # a first turn, which begins at a number
            return None
        loop, tokens = min(moves)  # the outermost one
        if loop not in trace.advances.bounds or not trace.advances.bounds[loop][0].part:
            return None
        share, step = trace.advances.bounds[loop]
        part, others = share.part * tokens / step, share.part / share.fixed * tokens / step
        # What settings divide by may be what a turn goes on by: then it is the script's own number that ends the walk.
        far.append(Walked(e, part, share.chosen and not NEARLY_ALL <= others <= 1 / NEARLY_ALL))
    most = max(far, key=lambda w: w.share, default=None)
    return most if most is not None and most.share < NEARLY_ALL else None


def head_of(trace: Trace, scores: Iterable[Event]) -> Head | None:
    """What walks through documents leave out at the beginning of each, where all of these scores are such walks."""
    heads, found = trace.advances.heads, []
    for e in scores:
        span = e.detail.get("span")
        symbols, first = span[0] if span is not None else ((), 0)
        steps = [s for s in symbols if s in heads]
        if len(steps) != 1 or symbols != tuple(sorted((*heads[steps[0]], steps[0]))) or OF_ROWS in e.detail["keys"]:
            return None
        later = trace.advances.per_turn[steps[0]][1] if e.detail.get("later") else 0
        found.append(Head(e, first - 1 + later))
    least = min(found, key=lambda h: h.missing, default=None)
    return least if least is not None and least.missing >= MOST_CONTEXT else None


def _parts(trace: Trace, scores: Iterable[Event]) -> list[tuple[Event, _Part]]:
    """The scores in numbers; first turns, which begin at a number, need none. [] where one of them is not known."""
    found: list[tuple[Event, _Part]] = []
    first_turns: list[Event] = []
    for e in scores:
        if (part := _part(trace, e)) is not None:
            found.append((e, part))
        elif any(turn == 1 for chosen, _, _ in e.atoms for _, turn in chosen):
            first_turns.append(e)
        else:
            return []
    sites = {(e.path, e.line, e.stack) for e, _ in found}
    return found if all((e.path, e.line, e.stack) in sites for e in first_turns) else []


def _part(trace: Trace, e: Event) -> _Part | None:
    chosen = {frozenset(loop for loop, _ in pairs) for pairs, _, _ in e.atoms}
    if len(chosen) != 1:
        return None
    loops = chosen.pop()
    span = e.detail.get("span")
    advances = trace.advances
    if span is not None and span[1] is not None and OF_ROWS not in e.detail["keys"]:
        (symbols, first), (others, last) = span
        symbols, others = advances.apart_from_ranks(symbols), advances.apart_from_ranks(others)
        moves = [m for s in symbols if (m := advances.per_turn.get(s)) is not None]
        if symbols != others or len(moves) < len(symbols) or {loop for loop, _ in moves} != loops:
            return None
        if not loops or any(s not in advances.begins for s in symbols):
            return None
        begin = sum(advances.begins[s] for s in symbols)
        return _Part(gcd(*(tokens for _, tokens in moves)), begin + first, begin + last, symbols)
    walk = trace.walks.get(next(iter(loops))) if len(loops) == 1 else None
    if walk is None or walk.start is None or not walk.reach or walk.begin is None:
        return None
    return _Part(walk.step, walk.start + walk.begin, walk.start + walk.reach - 1)


def _covered(step: int, parts: list[_Part]) -> int:
    """How many of the distances 0 .. step - 1 lie in one of the parts."""
    pieces: list[tuple[int, int]] = []
    for part in parts:
        first, last = part.first, part.last
        if last - first + 1 >= step:
            return step
        if last >= first:
            begin = first % step
            end = begin + last - first
            pieces += [(begin, end)] if end < step else [(begin, step - 1), (0, end - step)]
    done, total = -1, 0
    for begin, end in sorted(pieces):
        total += max(end - max(begin, done + 1) + 1, 0)
        done = max(done, end)
    return total


__all__ = ["Gap", "Head", "Walked", "gap_of", "head_of", "stride_of", "walked_of"]
