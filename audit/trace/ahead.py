"""Does a turn learn from tokens that only a later turn scores.

Put in places of the stream (`audit.trace.spans`), in one of three ways: where the slice that it learned from ends, against
where the next turn begins to score (the loop's step is known); that the slice begins behind there, however long it is; where
it ends, against the last token that the turn itself scored (a window of a list, whose step is not known).

A turn that learns before it scores may learn from what ends before the first token that it then scores: ``if chunk > 0:
learn(start - size, start)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from audit.trace.positions import FAR
from audit.trace.spans import Place, beyond
from audit.trace.values import MASK, ORDER, VAL

#: more tokens than one, how many is not known
SOME = 1 << 60


class Turns:
    """The turns of a whole trace, which every pair of an update and a score is asked about: each answer is looked for once."""

    def __init__(self, trace: Any) -> None:
        self.trace = trace
        self._places: dict[tuple, list[Any]] = {}
        for e in trace.events:
            self._places.setdefault((e.kind, e.path, e.line), []).append(e)
        self._own: dict[tuple, int | None] = {}

    def past(self, u: Any, s: Any) -> int | None:
        """How many tokens of what a later turn scores at ``s`` an update of an earlier turn has learned from.

        Seen in the turn of ``s``, where the update comes again: both read the same counter there. At most 0 where it ends
        before them; None where their places cannot be compared.
        """
        if not u.detail.get("spans") or (u.flags | s.flags) & ORDER:
            return None
        later = next((loop for (loop, i), (other, j) in zip(u.loops, s.loops, strict=False) if loop == other and i < j), None)
        if (u.flags | s.flags) & MASK:
            return self._past_own(u, later, _behind_scored) if later is not None else None
        if later is None:
            return self._in_turn(u, s)
        turn = dict(s.loops)[later]
        advances = self.trace.advances
        learned = [span for e in self._again(u) if dict(e.loops).get(later) == turn for span in e.detail.get("spans", ())]
        scored = s.detail.get("span")
        found = [advances.past(span, scored, later) if span and scored else None for span in learned]
        known = [n for n in found if n is not None]
        if known and (len(known) == len(found) or max(known) > 0):
            return max(known)
        begins = [x for x in (scored[0] if scored else None, _floor(self.trace, s, later, turn)) if x is not None]
        if any(span and advances.begins_past(span, first, later) for span in learned for first in begins):
            return SOME
        return self._past_own(u, later, _past_scored, _behind_scored)

    def _in_turn(self, u: Any, s: Any) -> int | None:
        """The same within a turn, of what it scores after the update. Places that its own counters say are compared, no others:
        the elements of a list have the same place in all turns."""
        if not same_turn(u, s):
            return None
        shared = [loop for (loop, turn), at in zip(u.loops, s.loops, strict=False) if (loop, turn) == at]
        advances, scored = self.trace.advances, s.detail.get("span")
        if not shared or not scored or (first := advances.first_of(scored, shared[-1])) is None:
            return None
        counted = advances.counted(first, shared)
        if not counted and first[0]:
            return None
        found = []
        for span in u.detail["spans"]:
            last = advances.last_of(span, shared[-1]) if span else None
            found.append(last[1] - first[1] + 1 if last is not None and last[0] == first[0] else None)
        known = [n for n in found if n is not None]
        if known and (len(known) == len(found) or max(known) > 0):
            return max(known) if counted or max(known) <= 0 else None  # in a first turn both are numbers
        return 0 if any(advances.counted(x, shared) and _behind(x, scored[0]) for x in u.detail.get("upto", ())) else None

    def _again(self, u: Any) -> list[Any]:
        return self._places[u.kind, u.path, u.line]

    def _past_own(self, u: Any, later: int, *ways: Callable[[Any, Any, int], int | None]) -> int | None:
        """How far behind the last token that its own turn scores an update ends."""
        key = (u.kind, u.path, u.line, later, ways)
        if key not in self._own:
            found = (past for e in self._again(u) for how in ways if (past := how(self.trace, e, later)) is not None)
            self._own[key] = next(found, None)
        return self._own[key]


def same_turn(u: Any, s: Any) -> bool:
    """Is no turn of a loop around both another one."""
    return all(a == b for a, b in zip(u.loops, s.loops, strict=False) if a[0] == b[0])


def _floor(trace: Any, s: Any, later: int, turn: int) -> Place | None:
    """Where the windows that were sorted into a turn begin to be scored, at the earliest."""
    floor = trace.floors.get((later, turn))
    if floor is None or not all((later, turn) in chosen for chosen, _, _ in s.atoms):
        return None
    read = {(len(k[1]), k[2]) for k in s.detail.get("keys", ()) if k[0] == "t"}
    return floor.place(*max(read)) if len({n for n, _ in read}) == 1 else None


def wholly_before(trace: Any, u: Any, s: Any) -> bool:
    """Does what a table took in lie before the first token that ``s`` scores, as that turn finds both: an earlier turn's."""
    upto = u.detail.get("upto")
    shared = [a for a, b in zip(u.loops, s.loops, strict=False) if a == b]
    if not upto or not shared or (u.flags | s.flags) & ORDER:
        return False
    read: dict[tuple[int, ...], set[int]] = {}
    for k in s.detail.get("keys", ()):
        if k[0] == "t":
            read.setdefault(k[1], set()).add(k[2])
    span = s.detail.get("span")
    begins = [span[0]] if span else [x for at in shared if (x := _floor(trace, s, *at)) is not None]
    begins = begins or _asked_for(s, read)
    if not begins and all(at <= {max(at), max(at) - 1} for at in read.values()):
        begins = [(symbols, max(at)) for symbols, at in read.items()]  # a pair of input and target
    return bool(begins) and any(all(_behind(last, first) for first in begins) for last in upto)


def _asked_for(s: Any, read: dict[tuple[int, ...], set[int]]) -> list[Place]:
    """The one token that this turn read an entry for, the latest of its walk, where tokens found elsewhere are in the score as well."""
    own = {(k[1], k[2]) for k in s.detail.get("keys", ()) if k[0] == "own" and k[3] == s.loops}
    return [*own] if len(own) == 1 and all(max(read.get(symbols, {offset})) == offset for symbols, offset in own) else []


def _behind(place: Place, first: Place) -> bool:
    more = beyond(first, place[0])
    return more is not None and all(x > 0 for x in more[0]) and place[1] < more[1]


def _scored_in_turn(trace: Any, e: Any, later: int) -> list[Any]:
    """What the turn of an update scores, where the same lists chose it; none where that is not so."""
    if dict(e.loops).get(later) is None:
        return []
    there = e.loops[: [loop for loop, _ in e.loops].index(later) + 1]
    scores = [s for s in trace.of("SCORE") if s.flags & VAL and s.loops[: len(there)] == there]
    return scores if {_lists(trace, s, len(there)) for s in scores} == {_lists(trace, e, len(there))} else []


def _past_scored(trace: Any, e: Any, later: int) -> int | None:
    """How far behind the last token that this turn scores an update of it ends; None where it ends before, or is not known."""
    scores = _scored_in_turn(trace, e, later)
    ends = [trace.advances.last_of(s.detail["span"], later) if s.detail.get("span") else None for s in scores]
    mine = [trace.advances.last_of(span, later) if span else None for span in e.detail["spans"]]
    if not ends or None in ends or None in mine or len({p[0] for p in (*ends, *mine) if p is not None}) != 1:
        return None
    past = max(p[1] for p in mine if p is not None) - max(p[1] for p in ends if p is not None)
    return past if past > 0 else None


def _behind_scored(trace: Any, e: Any, later: int) -> int | None:
    """The same for windows gathered row by row: do all targets of an update of this turn lie behind all that the turn scored."""
    if len(reads := e.detail.get("reads") or {}) != 1:
        return None
    symbols, offsets = next(iter(reads.items()))
    if offsets != {max(offsets), max(offsets) - 1} or max(offsets) < -FAR // 2:
        return None  # not a pair of input and target
    scores = _scored_in_turn(trace, e, later)
    if not scores:
        return None
    behind = all(any(_behind(x, (symbols, max(offsets))) for x in s.detail["upto"]) for s in scores)
    return SOME if behind else None


def _lists(trace: Any, e: Any, depth: int) -> frozenset:
    """The lists of a turn that chose what an event is about."""
    chose = {loop for chosen, _, _ in e.atoms for loop, _ in chosen}
    return frozenset(id(trace.lists[loop]) for loop, _ in e.loops[depth:] if loop in chose and loop in trace.lists)


__all__ = ["SOME", "Turns", "same_turn", "wholly_before"]
