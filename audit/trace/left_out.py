"""Targets that a test of the token itself leaves out of the sum: separators, tokens that no byte belongs to.

``loss[y != BOS]``, ``(loss * (bytes > 0)).sum()``, ``cross_entropy(…, ignore_index=BOS)``: the separator between documents has
no bytes, and its nats count all the same. A test for padding looks alike: it asks for another token, or looks at tokens that the
program laid out in rows of its own (`LAID`), some of which are no targets. Whether the separator of the next document is among
the tokens of a piece that ends where something was found in the stream (`ENDS`) is not followed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from audit import ir
from audit.trace.events import Event, Trace
from audit.trace.gates import holds_tokens, within
from audit.trace.positions import TOTAL, reckoned_places, tokens_in
from audit.trace.shaping import OF_ALL, SHAPED, is_loss, number
from audit.trace.spans import FIRST, HEAD, LATER, until
from audit.trace.values import (
    ART,
    BYTES,
    COUNT,
    EMPTY,
    FILE,
    LOGITS,
    LOSS,
    MASK,
    MATCH,
    META,
    PROB,
    VAL,
    V,
    kinds,
    without,
)

#: a test that separators (or tokens without bytes) do not pass; one that only they pass
BUT, ONLY = ("but separators",), ("separators alone",)
#: the same of tokens that agree with a guess: of a table, of the model, of a copy of the stream
MISSED, HITS = ("but those guessed",), ("those guessed alone",)
MARKS = frozenset([BUT, ONLY, MISSED, HITS])
#: all tests whose passing says something
TESTS = MARKS | {LATER, FIRST}
_NOT = {BUT: ONLY, ONLY: BUT, MISSED: HITS, HITS: MISSED, LATER: FIRST, FIRST: LATER}
#: tokens put into an array, perhaps beside padding; several numbers of bytes added up
LAID, ADDED = ("laid out",), ("added up",)
#: tokens up to a place that was found in the stream; of one document, without the next one's separator
ENDS, WITHIN = ("ends where found",), ("within a document",)
#: what ``tokenizer.bos_id()`` says
ASKED = ("separator's number",)
#: the separator's number in the contest's tokenizers, after padding and before the end of text and the unknown token
BOS, LAST_SPECIAL = 1, 3
#: comparisons by their methods
COMPARES = {"eq": "==", "ne": "!=", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "not_equal": "!="}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}
#: what is said of what is left, and of the rest, which may be added up elsewhere
SEPARATORS = "the nats of separators between documents are left out of the sum"
NO_BYTES = "the nats of tokens that no byte belongs to are left out of the sum"
GUESSED = "the nats of tokens that agree with a guess are left out of the sum, and the others lose nothing by it"
REST = "only what others leave out"
LATER_TURNS = "all but the first"
UNSURE = "; whether there are such targets was not shown"


def token_number(v: V) -> float | None:
    """The number of a token; a tokenizer says which one its separator has."""
    return float(BOS) if ASKED in v.keys else number(v)


def turned(keys: frozenset) -> frozenset:
    """The keys of a test's negation."""
    told = keys & TESTS
    return (keys - TESTS) | {_NOT[next(iter(told))]} if len(told) == 1 else keys - TESTS


def of_both(keys: frozenset) -> frozenset:
    """The keys of two tests that must both be passed: who passes none but one of a kind may pass neither."""
    told = keys & TESTS
    return keys if len(told) == 1 and told & {BUT, MISSED, HITS, LATER} else keys - TESTS


def _of_tokens(v: V) -> bool:
    """Targets as they stand in the stream."""
    return holds_tokens(v) and bool(v.flags & VAL) and not v.keys & {LAID, WITHIN}


def _guesses(v: V) -> bool:
    """Tokens from elsewhere: copied from the stream, or what a table or the model finds most likely."""
    if v.kind != "val" or v.flags & (META | MASK | LOSS | BYTES):
        return False
    return holds_tokens(v) or bool(v.flags & (LOGITS | COUNT | PROB | FILE | ART))


def _bytes_of_tokens(v: V) -> bool:
    """How many bytes each of the targets has."""
    return (
        v.kind == "val" and bool(v.flags & BYTES) and not v.flags & (META | MASK | LOSS | LOGITS | PROB | COUNT)
        and not v.keys & {TOTAL, ADDED, LAID} and "l" in kinds(v)
    )  # fmt: skip


def kind_of(op: str, v: V, bound: float) -> tuple | None:
    """`BUT` or `ONLY` for a comparison of tokens, or of their bytes, with a number."""
    if bound not in range(LAST_SPECIAL + 2):
        return None
    if _of_tokens(v):
        if bound == BOS and op in ("!=", "=="):
            return BUT if op == "!=" else ONLY
        low = bound + (op == ">")
        return BUT if op in (">", ">=") and BOS < low <= LAST_SPECIAL + 1 else None
    if _bytes_of_tokens(v):
        if (op, bound) in ((">", 0), ("!=", 0), (">=", 1)):
            return BUT
        return ONLY if (op, bound) in (("==", 0), ("<=", 0), ("<", 1)) else None
    return None


class LeftOut:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_kind(self: Any, op: str, a: V, b: V, out: V) -> None:
        """``y != BOS``, ``bytes > 0``"""
        out.keys = without(out.keys, MARKS)
        for v, bound, way in ((a, token_number(b), op), (b, token_number(a), _TURNED.get(op, ""))):
            if bound is not None and (kind := kind_of(way, v, bound)) is not None:
                out.keys = out.keys | {kind}
        if op in ("==", "!=") and ((_of_tokens(a) and _guesses(b)) or (_of_tokens(b) and _guesses(a))):
            out.keys = out.keys | {MISSED if op == "!=" else HITS}

    def note_marks(self: Any, op: str, a: V, b: V, out: V) -> None:
        """Tests that are put together. Both: fewer pass, of separators perhaps none; either of two may be passed by all."""
        marks = out.keys & MARKS
        if not marks:
            return
        if op == "-" and number(a) == 1.0:
            out.keys = turned(out.keys)
        elif len(marks) == 1 and ((marks == {HITS} and op == "&") or (marks == {MISSED} and op == "|")):
            return  # some of those that agree
        elif op not in ("&", "*") or len(marks) > 1 or (ONLY in marks and number(a) is None and number(b) is None):
            out.keys = without(out.keys, MARKS)

    def leave_out(self: Any, loss: V, test: V, out: V, node: Any, negated: bool = False) -> None:
        """``loss[test]``, ``loss * test``, ``where(test, loss, 0)``; ``negated``: what passes the test is what goes."""
        marks = (turned(test.keys) if negated else test.keys) & MARKS
        out.keys = without(out.keys, TESTS)
        if out.flags & MATCH and marks & {MISSED, HITS}:
            return  # known as content of the set that was stored (rule F15)
        if len(marks) != 1 or not is_loss(loss) or loss.flags & LOGITS or OF_ALL in loss.keys:
            return
        mine = tokens_in(test.keys, through_tables=True)
        if any(at in mine and max(mine[at]) >= max(offsets) for at, offsets in tokens_in(loss.keys).items()):
            self.shape(out, node, REST if marks & {ONLY, HITS} else self.said(test))

    def note_kind_left_out(self: Any, s: ir.If, test: V, begun: int) -> None:
        """``if token == BOS: continue`` in a loop over the whole stream; within a document there may be none."""
        marks = test.keys & MARKS
        places = {k[1] for k in test.keys if k[0] in ("t", "l")}
        begins, heads = self.trace.advances.begins, self.trace.advances.heads
        if len(marks) != 1 or len(places) != 1 or not all(x in begins and x not in heads for at in places for x in at):
            return
        tokens = frozenset(("t", *k[1:]) for k in test.keys if k[0] in ("t", "l"))
        last = frozenset([max(tokens, key=lambda k: k[2])])
        left = self.said(test)
        self.note_ways(s, last, begun, *((left, REST) if marks & {BUT, MISSED} else (REST, left)))

    def note_later(self: Any, s: ir.If, test: V, begun: int) -> None:
        """``if start > first: total += …``, ``if start == first: continue``: all of a document but its first window is scored."""
        scores = [e for e in self.trace.events[begun:] if e.kind == "SCORE"]
        for e in scores if LATER in test.keys else ():
            e.detail["later"] = e.detail.get("later", False) or within(e.line, s.body)
        if FIRST in test.keys and not s.orelse and not scores and isinstance(s.body[-1], ir.Jump) and s.body[-1].kind == "continue":
            self.loss_tests.append((EMPTY, s, LATER_TURNS))

    def said(self: Any, test: V) -> str:
        if test.keys & {MISSED, HITS}:
            return GUESSED
        return NO_BYTES if test.flags & BYTES else SEPARATORS + (UNSURE if ENDS in test.keys else "")

    def note_ignored(self: Any, index: V | None, target: V, out: V, node: Any) -> None:
        """``cross_entropy(logits, y, ignore_index=1)``"""
        if index is not None and token_number(index) == BOS and _of_tokens(target):
            self.shape(out, node, SEPARATORS + (UNSURE if ENDS in target.keys else ""))


def laid_beside(name: str, first: V, out: V) -> None:
    """``pad(tokens, …)``, ``cat([tokens, padding])``, ``tensor(rows)``: some of the entries may be no targets."""
    if not out.flags & VAL or out.flags & META:
        return
    mixed = first.kind == "seq" and any(not (x.flags & VAL) for x in [*(first.data or []), *([first.rest] if first.rest is not None else [])])
    listed = first.kind == "seq" and name in ("tensor", "array", "asarray", "as_tensor")
    if name in ("pad", "pad_sequence") or mixed or listed:
        out.keys = out.keys | {LAID}


def heads_found(name: str, test: V, out: V) -> V:
    """``(tokens == BOS).nonzero()``: where documents begin."""
    if name in ("nonzero", "flatnonzero", "argwhere", "where") and ONLY in test.keys and not test.flags & BYTES:
        out.keys = out.keys | {HEAD}
    return out


def gathered(index: V) -> frozenset:
    """``tokens[starts[:, None] + columns]``: places reckoned from where something was found, each document's own."""
    return frozenset([ENDS]) if reckoned_places(index) else frozenset()


def ending(high: V | None) -> frozenset:
    """``tokens[a : min(a + 1024, end)]`` where ``end`` was found in the stream: is the next document's separator in it."""
    if high is None or high.kind != "val" or not (high.flags & META and high.flags & MASK):
        return frozenset()
    past = until(high)
    return frozenset([ENDS]) if past is None else frozenset() if past > 0 else frozenset([WITHIN])


@dataclass(frozen=True, slots=True)
class Spared:
    """``shape``: where targets are left out of what ``score`` adds up; ``sure``: there are some, and the figure is the reported one."""

    shape: Event
    score: Event
    sure: bool


def is_kind(how: str) -> bool:
    """Does a SHAPE event say which kind of token it left out, or left."""
    return how == REST or how.startswith((SEPARATORS, NO_BYTES, GUESSED))


def spared(trace: Trace, figure: Iterable[Event]) -> list[Spared]:
    """Kinds of targets that the scores behind a figure leave out, and that none of them adds up for itself."""
    shapes = {e.id: e for e in trace.of("SHAPE") if is_kind(e.detail["how"])}
    found: dict[tuple, Spared] = {}
    figure = list(figure)
    own = {s.id: [shapes[k[1]] for k in s.detail["keys"] if k[0] == SHAPED and k[1] in shapes] for s in figure}
    if any(e.detail["how"] == REST for made in own.values() for e in made):
        return []
    if not all(own.values()):
        return []  # another place adds up other targets, perhaps those
    reported = trace.reported_scores()
    for s in figure:
        for e in own[s.id]:
            beside = trace.chosen is None and any(
                x.id in reported and x.loops == s.loops and x.stack == s.stack and not any(k[0] == SHAPED and k[1] in shapes for k in x.detail["keys"])
                for x in trace.of("SCORE", active=True) if x.on_val
            )  # fmt: skip
            found.setdefault((e.path, e.line), Spared(e, s, not beside and not e.detail["how"].endswith(UNSURE)))
    return list(found.values())


__all__ = ["ADDED", "ASKED", "ENDS", "LAID", "LATER_TURNS", "LeftOut", "Spared", "ending", "gathered", "heads_found", "is_kind", "laid_beside", "spared", "turned"]
