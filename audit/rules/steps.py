"""The steps of a finding's path: where the tokens come from, which of them, what is made of them, what is wrong.

No rule lives here. Events know where what they are about was given its names (`audit.trace.values.Link`); from there the
path is followed back, for findings only. Calls that two places share are told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from audit.model import Step
from audit.trace import Event, Trace
from audit.trace.caches import Spread, marks, sources
from audit.trace.positions import tokens_in
from audit.trace.values import COUNT, GRAD, LOGITS, LOSS, PARAM, PROB, TGT, TRAIN, VAL, Link

#: what is no token any more, though it was made of tokens
MADE = LOSS | LOGITS | GRAD | PARAM | PROB | COUNT
MAX_CALLS = 6


class Somewhere(Protocol):
    """An event or a link."""

    path: str
    line: int
    stack: tuple


class Steps:
    """Steps in the order of the program, each after the calls that lead to it from where the one before stood."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._open: tuple = ()

    def to(self, place: Somewhere, message: str, most: int = MAX_CALLS) -> None:
        self.at(place.path, place.line, place.stack, message, most, getattr(place, "column", 0))

    def aside(self, path: str, line: int, message: str, column: int = 0) -> None:
        """A step at the module's own level: a setting, a file's name."""
        self.steps.append(Step(path=path, line=line, column=column, message=message))

    def at(self, path: str, line: int, stack: tuple, message: str, most: int = MAX_CALLS, column: int = 0) -> None:
        shared = 0
        while shared < min(len(stack), len(self._open)) and stack[shared] == self._open[shared]:
            shared += 1
        calls = stack[shared:]
        if stack == self._open[: len(stack)]:
            stack = self._open  # further on, these calls are still open
        if len(calls) > most:
            calls = (*calls[: most - most // 2], *calls[-(most // 2) :])
        self.steps += [Step(path=p, line=n, message=f"calls {name}") for p, n, name in calls]
        self.steps.append(Step(path=path, line=line, column=column, message=message))
        self._open = stack

    def reading(self, e: Event) -> None:
        """The file that the tokens of the event come from."""
        links = list(chain(e))
        at = next((n for n, x in enumerate(links) if x.read), None)
        if at is None or self._told(links[at]):
            return
        read, files = links[at], links[at + 1 :]
        if files and not self._told(files[-1]):
            say = self.to if files[-1].stack else lambda place, message: self.aside(place.path, place.line, message)
            say(files[-1], f"the {whose(read.flags)} files are named here")
        loader = bool(files) and files[0].stack != read.stack[: len(files[0].stack)]
        if loader and not self._told(files[0]):
            self.to(files[0], "they are handed over here")
        self.to(read, f"the {whose(read.flags)} tokens are read here", 3 if loader else MAX_CALLS)

    def taking(self, e: Event, message: str) -> None:
        """Where the tokens of the event are taken from those that were read, as its function and its callers see it."""
        for link in taken(e, [x for x in chain(e) if (x.path, x.line) != (e.path, e.line) and not self._told(x)]):
            if not self._told(link):
                self.to(link, message)

    def backward(self, e: Event) -> None:
        """Where the loss behind an update was propagated back."""
        if (place := e.detail.get("backward")) is not None and place[:2] != (e.path, e.line):
            path, line, stack = place
            self.at(path, line, stack, "their loss is propagated back")

    def _told(self, place: Somewhere) -> bool:
        return any((s.path, s.line) == (place.path, place.line) for s in self.steps)

    def done(self) -> tuple[Step, ...]:
        return tuple(self.steps)


def whose(flags: int) -> str:
    return "validation" if flags & VAL else "training" if flags & TRAIN else "other"


def chain(e: Event) -> Iterator[Link]:
    """The links from the event back to the file, along the tokens that are to be predicted where there are several ways."""
    links, seen, wanted = e.via, set(), VAL if e.flags & VAL else TRAIN
    while links:
        own = [x for x in links if x.flags & wanted] or list(links)
        link = next((x for x in own if x.flags & TGT), own[0])
        if id(link) in seen:
            return
        seen.add(id(link))
        yield link
        links = link.before


def taken(e: Event, links: list[Link]) -> list[Link]:
    """The assignments of the event's tokens in the calls that are open there: of each call the first and the last."""
    found: list[Link] = []
    for link in reversed(links):
        if link.read:
            found.clear()  # before that, files are meant
        elif link.stack == e.stack[: len(link.stack)] and not link.flags & MADE:
            if len(found) > 1 and found[-2].stack == found[-1].stack == link.stack:
                found.pop()
            found.append(link)
    return found


def path_to(e: Event, message: str) -> tuple[Step, ...]:
    """From the file that the tokens were read from to the event."""
    steps = Steps()
    steps.reading(e)
    steps.taking(e, "its tokens come from here")
    steps.to(e, message)
    return steps.done()


def behind(links: Iterable[Link]) -> list[Link]:
    """All links that these lead back to, the nearest first."""
    found: list[Link] = []
    todo, seen = list(links), set()
    while todo:
        link = todo.pop(0)
        if id(link) not in seen:
            seen.add(id(link))
            found.append(link)
            todo += link.before
    return found


def address(steps: Steps, read: Event, other: Event | None, scores: Iterable[Event]) -> None:
    """Where the token that a table's address holds is taken, and where the address is made of it.

    It is the latest of the tokens in the address. ``other``: a read at the same address without it; ``scores``: what the
    read reaches.
    """
    held = tokens_in(read.detail.get("address", frozenset()), through_tables=True)
    latest = {(x, max(offsets)) for x, offsets in held.items()}
    less = tokens_in(other.detail.get("address", frozenset()), through_tables=True) if other is not None else {}
    of_scores = {x for s in scores for x in tokens_in(s.detail.get("keys", frozenset()))}
    for narrower in ({p for p in latest if p[1] not in less.get(p[0], ())}, {p for p in latest if p[0] in of_scores}):
        latest = latest & narrower or latest
    alone: Link | None = None
    joined: Link | None = None
    for link in behind(read.via):
        if link.read or link.flags & (LOSS | LOGITS):
            continue
        own = {(x, o) for x, offsets in tokens_in(link.keys, through_tables=True).items() for o in offsets}
        if own & latest:
            if own - latest:
                joined = link
            elif len(latest) == 1:
                alone = link
    it = "it" if alone is not None else "the token that is scored"
    for found, message in ((alone, "the token that is scored is taken here"), (joined, f"the address is made of {it} and of tokens before it")):
        if found is not None and (found.path, found.line) != (read.path, read.line):
            steps.to(found, message)


def named(e: Event) -> Link | None:
    """Where what the event is about, and no part of it, was given its name; None where it has none or the same line does."""
    link = e.via[0] if len(e.via) == 1 else None
    whole = link is not None and link.flags == e.flags and link.keys == e.detail.get("keys", link.keys)
    return link if whole and link is not None and (link.path, link.line) != (e.path, e.line) else None


def spread(trace: Trace, x: Spread) -> Steps:
    """A token's loss, its division over the bytes, the table that each share is mixed with, and the score."""
    steps, e = Steps(), x.spread
    steps.reading(e)
    helper = e.detail.get("helper")
    if helper is not None and helper.spreads:
        steps.to(e, f"called as {helper.name}")
        steps.aside(helper.path, helper.spreads[0], "the loss is spread over the token's bytes")
    else:
        own = [link for link in behind(e.via) if link.flags & (LOSS | PROB) and link.flags & VAL and not link.flags & COUNT]
        for link in own[:1]:
            if (link.path, link.line) != (e.path, e.line):
                steps.to(link, "the model's loss or probability of the token")
        steps.to(e, "the loss is spread over the token's bytes")
    if x.score is not None:
        reads = sources(trace, "LOOKUP")
        # Earlier turns of a loop read it as well, where they counted.
        for read in [reads[k[1]] for k in marks(x.score, "lookup") if k[1] in reads and e.id < k[1] < x.score.id][-1:]:
            steps.to(read, "a table of the bytes before is read for the mixture")
        steps.to(x.score, "the mixture is scored")
    return steps
