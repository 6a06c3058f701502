"""Lengths of documents: what a program leaves out of its sum because a document is long, or short.

A document lies between two places at which separators were found (`audit.trace.spans.HEAD`); the difference of the two, and
the number of tokens between them, is its length. ``if b - a > 8192: continue`` drops documents, ``range(0, min(len(x),
1024), 1024)`` and ``tokens[a : a + 1024]`` drop what lies behind their first tokens. All scores behind a figure have to
lose them: where another loop takes the others, or the rest, nothing is said. Nor where a turn keeps places for the next
one (short documents that are joined).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from audit import ir
from audit.trace.events import Event, Trace
from audit.trace.gates import within
from audit.trace.positions import place_of
from audit.trace.shaping import number
from audit.trace.shares import counted
from audit.trace.spans import HEAD, OF_ROWS, ROWS
from audit.trace.values import EMPTY, LOGITS, LOSS, META, VAL, V, without

#: a number that is a document's length
LENGTH = "a document's length"
#: the tokens of a document; no more than so many of its first ones
DOCUMENT, FIRST_TOKENS = ("document",), "first tokens"
#: by so much a length may differ from the number of targets
SLACK = 2
#: some documents of the set are longer than this, and more of them are shorter than that
LONG, SHORT = 16_384, 256
#: that some document is this long, or this short, is not certain
LONGEST, SHORTEST = 131_072, 16
LONGER, SHORTER, BEYOND = "longer", "shorter", "beyond"


@dataclass(frozen=True, slots=True)
class AtMost:
    """``min(length, n)``, or with ``begin`` the place ``min(end, begin + n)``."""

    tokens: int
    begin: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Missed:
    """``way``: documents that are longer or shorter than ``tokens``, or what lies beyond so many of their tokens."""

    score: Event
    way: str
    tokens: int
    line: int

    @property
    def sure(self) -> bool:
        return self.tokens >= SHORT if self.way == SHORTER else self.tokens <= LONG

    @property
    def said(self) -> str:
        if self.way == BEYOND:
            what = f"the tokens of a document after its first {self.tokens:,} are left out of the sum"
        else:
            what = f"documents of {'more' if self.way == LONGER else 'fewer'} than {self.tokens:,} tokens are left out of the sum"
        return what if self.sure else f"{what}; whether there are any was not shown"


class Lengths:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_length(self: Any, op: str, a: V, b: V, out: V) -> None:
        """``end - begin``, ``length - 1``"""
        by = number(b)
        between = op == "-" and all(v.kind == "val" and HEAD in v.keys and abs(shift_of(v)) <= SLACK for v in (a, b))
        moved = op in "+-" and a.kind == "val" and a.const == LENGTH and by is not None and abs(by) <= SLACK
        if between or moved:
            out.const = LENGTH

    def note_counted(self: Any, v: V, out: V) -> None:
        """``len(v)``"""
        counted(v, out)
        if v.kind == "val" and v.flags & VAL and not v.flags & (META | LOSS | LOGITS) and DOCUMENT in v.keys and not v.keys & {ROWS, OF_ROWS}:
            out.const = LENGTH

    def note_document(self: Any, base: V, low: V | None, high: V | None, out: V) -> None:
        """``tokens[begin:end]``; a part of that is no document any more."""
        out.keys = without(out.keys, {DOCUMENT})
        if not base.flags & VAL or base.flags & (META | LOSS | LOGITS) or low is None or high is None or HEAD not in low.keys:
            return
        self.trace.advances.documents.add(place_of(low)[0])
        if HEAD in high.keys and abs(shift_of(low)) <= SLACK and abs(shift_of(high)) <= SLACK:
            out.keys = out.keys | {DOCUMENT}
        elif isinstance(high.const, AtMost) and high.const.begin == place_of(low)[0]:
            out.keys = out.keys | {(FIRST_TOKENS, high.const.tokens)}

    def note_at_most(self: Any, args: list[V], out: V) -> None:
        """``min(length, n)``, ``min(end, begin + n)``"""
        if len(args) != 2:
            return
        for v, bound in (args, args[::-1]):
            if v.kind != "val":
                continue
            most = number(bound)
            if v.const == LENGTH and most is not None and most > SLACK:
                out.const = AtMost(int(most))
            elif HEAD in v.keys and HEAD in bound.keys and abs(shift_of(v)) <= SLACK < shift_of(bound):
                out.const = AtMost(shift_of(bound), place_of(bound)[0])

    def note_first_tokens(self: Any, start: V, stop: V, loop: int) -> None:
        """``range(0, min(length, n), step)``, ``range(begin, min(end, begin + n), step)``"""
        most = stop.const
        if stop.kind == "val" and isinstance(most, AtMost):
            if (number(start) == 0.0 and most.begin is None) or (most.begin is not None and HEAD in start.keys and place_of(start)[0] == most.begin):
                self.trace.advances.first_tokens[loop] = most.tokens

    def note_by_length(self: Any, s: ir.If, test: V, begun: int) -> None:
        """``if end - begin > n: continue``, ``if end - begin <= n: total += …``"""
        if not isinstance(s.test, ir.Compare) or len(s.test.ops) != 1 or test.rest is None or s.orelse or not self.loops:
            return
        a, b = test.rest.data
        op, v, bound = s.test.ops[0], a, number(b)
        if bound is None:
            op, v, bound = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(op, ""), b, number(a)
        if bound is None or v.kind != "val" or v.const != LENGTH or op not in ("<", "<=", ">", ">=") or self.loops[-1] not in v.deps:
            return
        goes_on = isinstance(s.body[-1], ir.Jump) and s.body[-1].kind == "continue"
        scores = [e for e in self.trace.events[begun:] if e.kind == "SCORE" and within(e.line, s.body)]
        way = LONGER if (op in (">", ">=")) == goes_on else SHORTER
        n = int(bound) + {">": 0, ">=": -1, "<": 0, "<=": 1}[op] if goes_on else int(bound) + {">": 1, ">=": 0, "<": -1, "<=": 0}[op]
        if (way == LONGER and n > LONGEST) or (way == SHORTER and n <= SHORTEST):
            return
        if goes_on == bool(scores) or (goes_on and not all(map(_harmless, s.body[:-1]))) or self.keeps_places(s):
            return
        if goes_on:
            self.loss_tests.append((EMPTY, s, f"{way} {n}"))
        for e in scores:
            e.detail["length"] = way, n, s.line

    def keeps_places(self: Any, s: ir.If) -> bool:
        """May a turn of the loop around ``s`` have to do with places that earlier turns left."""
        body = self.bodies[-1]
        return not any(n is s for n in ir.walk(body)) or bool(_kept_over(body) & _deciding(body, s))

    def lengths_passed(self: Any) -> tuple[str, int, int] | None:
        """What a test of a document's length, which this turn went past, leaves out."""
        for _, s, how in self.loss_tests:
            way, _, n = how.partition(" ")
            if way in (LONGER, SHORTER) and n.isdecimal():
                return way, int(n), s.line
        return None


def shift_of(v: V) -> int:
    """How far from where the document begins a place lies that is known by that."""
    return v.pos[1] if v.pos is not None else 0


def _harmless(s: ir.Stmt) -> bool:
    """A line for the log, a count: nothing that keeps the document for later."""
    if isinstance(s, ir.ExprStmt):
        return isinstance(s.value, ir.Call) and isinstance(s.value.func, ir.Name) and s.value.func.id == "print"
    return isinstance(s, ir.AugAssign) and isinstance(s.value, ir.Const)


def _names(nodes: Any) -> set[str]:
    return {n.id for n in ir.walk(nodes) if isinstance(n, ir.Name)}


def _deciding(body: list[ir.Stmt], s: ir.If) -> set[str]:
    """Names that a test, or a slice of its loop's body, is made of."""
    found = _names(s.test)
    for n in ir.walk(body):
        if isinstance(n, ir.Slice):
            found |= _names([x for x in (n.lower, n.upper) if x is not None])
        elif isinstance(n, ir.For):
            found |= _names(n.iter)
    made = [(_names(n.targets), _names(n.value)) for n in ir.walk(body) if isinstance(n, ir.Assign)]
    while any(targets & found and not values <= found for targets, values in made):
        for targets, values in made:
            found |= values if targets & found else set()
    return found


def _kept_over(body: list[ir.Stmt]) -> set[str]:
    """Names that a turn may read as an earlier one left them: changed in the turn, and not first of all set by it."""
    kept = {n.target.id for n in ir.walk(body) if isinstance(n, ir.AugAssign) and isinstance(n.target, ir.Name)}
    targets = {id(x) for n in ir.walk(body) if isinstance(n, ir.Assign) for t in n.targets for x in ir.walk(t)}
    unsure = {id(n) for s in ir.walk(body) if isinstance(s, (ir.If, ir.Try)) for n in ir.walk(s) if isinstance(n, ir.Assign)}
    first: dict[str, tuple[int, bool]] = {}
    for n in ir.walk(body):
        for name in _names([t for t in n.targets if not isinstance(t, ir.Sub)]) if isinstance(n, ir.Assign) else ():
            first[name] = min(first.get(name, (1 << 30, True)), (n.line, id(n) in unsure))
    kept |= {name for name, (_, sometimes) in first.items() if sometimes}
    for n in ir.walk(body):
        if isinstance(n, ir.Name) and id(n) not in targets and n.id in first and n.line <= first[n.id][0]:
            kept.add(n.id)
    return kept


def missed(trace: Trace, scores: Iterable[Event]) -> Missed | None:
    """What all of these scores leave out by the lengths of documents, in the same way."""
    found = [_missed(trace, e) for e in scores]
    known = [m for m in found if m is not None]
    if not known or len(known) < len(found) or len({m.way for m in known}) > 1:
        return None
    return min(known, key=lambda m: m.tokens) if known[0].way == SHORTER else max(known, key=lambda m: m.tokens)


def _missed(trace: Trace, e: Event) -> Missed | None:
    if (by := e.detail.get("length")) is not None:
        return Missed(e, *by)
    for n in _first_tokens(trace, e):
        return Missed(e, BEYOND, n, e.line) if n <= LONGEST else None
    return None


def _first_tokens(trace: Trace, e: Event) -> Iterator[int]:
    """How many of a document's tokens a score is about, where the rest of the document is in none of the loop's turns."""
    for loop, _ in e.loops:
        if loop in trace.advances.first_tokens:
            yield trace.advances.first_tokens[loop]
    chosen = {frozenset(loop for loop, _ in pairs) for pairs, _, _ in e.atoms}
    if not e.loops or chosen != {frozenset([e.loops[-1][0]])} or OF_ROWS in e.detail["keys"]:
        return  # the turns of another loop may take the rest
    yield from (k[1] for k in e.detail["keys"] if k[0] == FIRST_TOKENS)
    if (span := e.detail.get("span")) is not None and span[1] is not None and span[0][0] == span[1][0] and span[0][0] in trace.advances.documents:
        if 0 <= span[0][1] <= SLACK:
            yield span[1][1]


__all__ = ["Lengths", "Missed", "missed"]
