"""Walks along the stream: in which steps a loop goes, how far each turn reads, and whether it covers everything.

A loop over places (``range(0, n, 1024)``) selects a part of the stream per turn. A part that begins a whole step further
on is the next turn's. Where every turn reads less than a step, what lies between is never scored. A loop over all
places that only counts tokens makes a table of the whole stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audit.trace.gates import holds_tokens
from audit.trace.positions import place_of
from audit.trace.spans import MAX_START, exact_place, given
from audit.trace.values import (
    COUNT,
    CUT,
    EMPTY,
    LOGITS,
    LOSS,
    MASK,
    META,
    PARAM,
    TGT,
    VAL,
    Instance,
    V,
    clone,
    summary,
    with_deps,
)

MAX_AHEAD = 3  # later turns whose elements a slice is said to hold: the next ones tell
#: a share of a number of tokens: what one rank has to do
SHARE = ("share",)
#: tokens up to a place that differs from rank to rank, or from turn to turn
PART = ("part",)


@dataclass(slots=True)
class Walk:
    """``reach``: how many tokens from its place on a turn reads, the most that was seen; None: not known. ``begin``: how
    far from its place the first of them is, the least that was seen.

    ``start``: where it starts, if the script says it; ranks that take turns start at different places.
    """

    step: int
    start: int | None
    reach: int | None = 0
    begin: int | None = None


def marked(v: V, picked: frozenset) -> V:
    """A copy of a pair of places, or of a record that holds nothing else, that tests of places picked."""
    if v.kind != "obj":
        return with_deps(v, picked) if summary(v).flags & META else v
    held = v.data.attrs
    if v.models or not held or any(x.kind not in ("val", "const") or x.flags & ~(META | MASK | TGT) for x in held.values()):
        return v
    out = clone(v)
    out.data = Instance(v.data.cls, v.data.serial, v.data.line, v.data.born)
    out.data.attrs = {name: with_deps(x, picked) for name, x in held.items()}
    return out


class Walks:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_walk(self: Any, start: V, stop: V, step: V, loop: int) -> None:
        """A loop over ``range(start, stop, step)``."""
        size = step.const if step.kind == "const" and type(step.const) is int else None
        if size is not None and size > 1:
            self.trace.walks[loop] = Walk(size, start.const if given(start) else None)
        elif size == 1:
            self.one_by_one.add(loop)
        elif step.kind == "val" and not step.deps and not step.flags & VAL and (by := exact_place(step))[0]:
            self.steps_of[loop] = by
        from_the_start = start.kind == "const" and type(start.const) is int and 0 <= start.const <= MAX_START
        everything = (
            stop.kind == "val" and stop.flags & META and not stop.flags & CUT and SHARE not in stop.keys
        )
        if size == 1 and from_the_start and everything and not stop.deps:
            self.whole_walks.add(loop)

    def walked(self: Any, low: V, single: int | None = None) -> frozenset:
        """The turns that chose the part which begins at ``low``: a step further on is the next turn's.

        ``single``: the step of a loop that takes one element after the other.
        """
        if low.lv is None:
            return self.further_on(low)
        if len(low.lv) == 3:  # ``(chunk + 1) * size``
            _, loop, at = low.lv
            turn = max((n for _, n in low.deps), default=at)
            return frozenset([(loop, min(at, turn + 1))]) if {x for x, _ in low.deps} == {loop} else low.deps
        loop, at = low.lv
        walk = self.trace.walks.get(loop)
        step = walk.step if walk is not None else single
        turn = max((n for x, n in low.deps if x == loop), default=None)
        if step is None or turn is None or at - turn < step:
            return low.deps
        # What any later turn scores the next one stands for.
        return frozenset((x, n + 1) if (x, n) == (loop, turn) else (x, n) for x, n in low.deps)

    def between(self: Any, low: V | None, high: V | None) -> frozenset:
        """The turns that chose what lies between two bounds: those of its beginning, and of its end what other loops say.

        A prefix is chosen by the loop that stands where it ends.
        """
        if low is None or not low.deps:
            return high.deps if high is not None else EMPTY
        loops = {loop for loop, _ in low.deps}
        return self.walked(low) | frozenset(d for d in (high.deps if high is not None else ()) if d[0] not in loops)

    def elements_ahead(self: Any, low: V | None, high: V | None) -> frozenset:
        """The later turns whose elements lie in ``items[low:high]``: ``items[i : i + 2]`` holds the next turn's as well."""
        if high is None or high.lv is None or len(high.lv) != 2:
            return EMPTY
        loop, end = high.lv
        turn = dict(self.loops).get(loop)
        walk = self.trace.walks.get(loop)
        if turn is None or (loop, turn) not in high.deps or (walk is None and loop not in self.one_by_one):
            return EMPTY
        last = turn + (end - 1 - turn) // (walk.step if walk is not None else 1)
        first = turn
        if low is not None and low.lv is not None and low.lv[0] == loop:
            first = max((n for x, n in self.walked(low, 1) if x == loop), default=turn)
        return frozenset((loop, n) for n in range(first, min(last, first + MAX_AHEAD) + 1) if n > turn)

    def note_span(self: Any, low: V | None, high: V | None) -> None:
        """``stream[low:high]`` in one of the loops."""
        if low is None:
            return
        for loop, turn in low.deps:
            walk = self.trace.walks.get(loop)
            if walk is None or walk.reach is None:
                continue
            here = self.turn_of.get((loop, turn))
            if (
                here is None
                or high is None
                or here.kind not in ("val", "const")
                or place_of(high)[0] != place_of(here)[0]
                or place_of(low)[0] != place_of(here)[0]
            ):
                walk.reach = None
            else:
                at = place_of(here)[1]
                walk.reach = max(walk.reach, place_of(high)[1] - at)
                begin = place_of(low)[1] - at
                walk.begin = begin if walk.begin is None else min(walk.begin, begin)

    def tests_places(self: Any, test: V) -> frozenset:
        """What a test depends on that says no more than where something stands; nothing for another test."""
        return EMPTY if test.kind != "val" or test.flags & (VAL | LOSS | LOGITS | PARAM | COUNT) else test.deps

    def picked_by_place(self: Any, tests: list[frozenset], chosen: frozenset | None = None) -> frozenset:
        """The open turns that the tests compare the places of a piece with, marked by their loops below zero.

        ``docs`` that end in what the turn scored (``if c < stop <= end``): which turn's pieces these are, the test decides,
        and whether its bounds do so rightly is not followed. ``chosen``: the turns that chose the piece.
        """
        return frozenset(
            (-loop, turn) for deps in tests for loop, turn in deps & frozenset(self.loops)
            if chosen is None or (deps & chosen and all(loop != x for x, _ in chosen))
        )  # fmt: skip

    def note_share(self: Any, op: str, a: V, b: V, out: V) -> None:
        """``n * (rank + 1) // world``: no number of all tokens any more."""
        if op in ("*", "/", "//", "%") and (a.flags | b.flags) & META and "const" not in (a.kind, b.kind):
            out.keys = out.keys | {SHARE}

    def fills_whole(self: Any, index: V, value: V) -> bool:
        """Does a table take in every token of the stream, without its place."""
        atoms = index.atoms or value.atoms
        tokens = summary(index) if index.kind == "seq" else index
        if value.pos is not None or not atoms or not (holds_tokens(tokens) or holds_tokens(value)):
            return False
        if PART in index.keys or PART in value.keys:
            return False
        return all(
            low is None and all(loop in self.whole_walks for loop, _ in chosen)
            for chosen, low, _high in atoms
        )
