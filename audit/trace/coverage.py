"""Coverage: where the program evaluates a known number of tokens or turns and leaves the rest of the stream out.

The score has to be over the full validation set (rule D2). These shapes tell that it is not: the stream is cut to a
number of tokens (``val_tokens[:131072]``), the number of turns is bounded (``range(min(n, 32))``), the
loop over the stream is left after a number of turns (``if batch == 50: break``), or its documents are cut to some of
them, or the list of its windows to some of these (`audit.trace.documents`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from audit import ir
from audit.trace.events import Event, Trace
from audit.trace.positions import place_of
from audit.trace.shares import known as of_all
from audit.trace.spans import NUMBER_OF, OF_ROWS, ROWS
from audit.trace.values import BPB, CUT, LOSS, META, TIME, VAL, V

#: tokens; fewer than any tokenizer's full set has (SP8192: 40.5 million)
FEWEST = 30_000_000
#: turns; the set has 50,000 documents, and so many turns may be all of them
MOST_TURNS = 50_000
#: units of lists that were cut (`audit.trace.documents`)
PIECES = frozenset(["documents", "windows"])
#: calls that ask how large something is
_MEASURES = frozenset(["len", "int", "max", "numel", "size"])


@dataclass(frozen=True, slots=True)
class Cut:
    """``amount`` of ``unit`` (tokens, turns, documents) at ``path:line``; ``knobs``: the settings that say so, as text."""

    path: str
    line: int
    amount: int
    unit: str
    knobs: str
    #: it leaves a loop that would go on
    leaves: bool = False
    #: no branch decides whether it comes to that, and no loop comes by it again
    sure: bool = False
    #: the names of the settings, and of those that decide whether it comes to that at all
    settings: frozenset[str] = frozenset()
    under: frozenset[str] = frozenset()
    #: of documents and windows: at random
    drawn: bool = False
    #: of windows: which ones, where it is not the first
    which: str = ""

    @property
    def said(self) -> str:
        what = f"at most {self.amount:,} turns of its loop"
        if self.which:
            what = self.which
        elif self.unit != "turns":
            what = f"{self.amount:,} {self.unit} at random" if self.drawn else f"the first {self.amount:,} {self.unit}"
        return f"the evaluation keeps to {what}" + (f" ({self.knobs})" if self.knobs else "")

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.said}"


def cut_of(trace: Trace, score: Event) -> Cut | None:
    """What the tokens of a score were limited to, if to anything known."""
    parts: list[Cut | None] = []
    for chosen, _low, _high in score.atoms:
        loops = sorted(loop for loop, _turn in chosen)
        stops = [(loop, found) for loop in loops if (found := trace.stops.get(loop)) is not None]
        for loop, found in stops:
            # A number of turns may be that of a batch, unless no other loop over the stream is around it.
            if found.unit not in PIECES and (found.leaves or loop == loops[0]):
                return found
        parts.append(next((found for _, found in stops if found.unit in PIECES), None))
    if parts and None not in parts:
        return parts[0]  # what one loop leaves out is no part that another one takes
    if score.flags & CUT:
        return next((cut for begun, cut in reversed(trace.cuts) if begun <= score.id), None)
    return None


class Coverage:
    """Mixed into the machine; see `audit.trace.machine`."""

    def cut(self: Any, bound: V, most: int, unit: str, node: Any) -> Cut | None:
        """The limit that ``bound`` sets; None where it is unknown, or too high to leave anything out."""
        amount = bound.const if bound.kind == "const" else None
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 1 < amount < most:
            return None
        sure = not self.loops and self.forks == self.sized
        names = frozenset(name for name, _value in bound.knobs)
        under = frozenset(name for _state, gate in self.guards for _rank, name, _value in gate)
        return Cut(self.scope.path, node.line, int(amount), unit, self.gate_text(bound), sure=sure, settings=names, under=under)

    def note_prefix(self: Any, base: V, elements: list, parts: list, out: V, node: Any) -> None:
        """``stream[:n]``"""
        if len(elements) != 1 or not base.flags & VAL or base.flags & (META | LOSS) or not from_the_start(base):
            return
        x = elements[0]
        if not isinstance(x, ir.Slice) or x.upper is None or x.step is not None:
            return
        low, high = parts[0]
        if (low is not None and low.deps) or high.deps:
            return  # the first turn of a loop over places
        if low is not None and not (low.kind == "const" and low.const == 0):
            return
        if high.flags & META and high.flags & CUT:
            out.flags |= CUT
        elif (cut := self.cut(high, FEWEST, "tokens", node)) is not None:
            self.trace.cuts.append((self.next_id, cut))
            out.flags |= CUT

    def note_least(self: Any, args: list[V], out: V, node: Any) -> None:
        """``min(number of sequences, n)``, ``min(number of tokens, n)``, outside of loops."""
        if len(args) == 2 and not out.deps and out.flags & META and not out.flags & CUT:
            most, unit = (FEWEST, "tokens") if any(of_tokens(a) for a in args) else (MOST_TURNS, "turns")
            for bound in args:
                if (cut := self.cut(bound, most, unit, node)) is not None:
                    self.trace.cuts.append((self.next_id, cut))
                    out.flags |= CUT

    def note_range(self: Any, stop: V, loop: int) -> None:
        """``range(min(...))``"""
        if stop.flags & META and stop.flags & CUT and self.trace.cuts:
            self.trace.stops.setdefault(loop, self.trace.cuts[-1][1])

    def note_turns(self: Any, bounds: list[V], loop: int, node: Any) -> None:
        """``for _ in range(64)``: what its turns read is known if each of them reads a known number of tokens (`note_read_in_turns`)."""
        if all(b.kind == "const" and type(b.const) is int for b in bounds) and bounds[2].const:
            turns = len(range(*(b.const for b in bounds)))
            if turns > 1 and (cut := self.cut(bounds[1], FEWEST, "turns", node)) is not None:
                self.turns_of[loop] = replace(cut, amount=turns)

    def note_read_in_turns(self: Any, base: V, part: Any) -> None:
        """``stream[at : at + 1025]`` in a loop that has a number of turns: together they read no more than so many times as much."""
        if not isinstance(part, tuple) or not from_the_start(base) or base.flags & (META | LOSS):
            return
        low, high = part
        for loop in {x for v in part if v is not None for x, _ in v.deps} & self.turns_of.keys():
            one = low is not None and high is not None and {x for x, _ in low.deps | high.deps} == {loop} == {x for x, _ in self.loops[-1:]}
            (begins, first), (ends, last) = (place_of(low), place_of(high)) if one else (((), 0), ((), FEWEST))
            if begins == ends and last > first and self.turns_of[loop].amount * (last - first) < FEWEST:
                self.trace.stops.setdefault(loop, self.turns_of[loop])
            elif self.trace.stops.get(loop) is self.turns_of.pop(loop):
                del self.trace.stops[loop]

    def note_break(self: Any, s: ir.If) -> None:
        """``if count >= n: break``, from the second turn on: what a sum of losses is does not show in the first."""
        if self.loops and self.loops[-1][1] > 1 and any(isinstance(x, ir.Jump) and x.kind == "break" for x in s.body):
            self.note_stop(s.test, self.loops[-1][0], (">=", ">", "=="), "or")

    def note_stop(self: Any, test: ir.Expr, loop: int, ops: tuple[str, ...], enough: str) -> None:
        """A test on the number of turns that ends ``loop``.

        ``enough``: the operator of which one operand suffices to end it; with the other one the rest has to be so anyway.
        """
        parts = [test]
        if isinstance(test, ir.BoolOp):
            parts = [p for p in test.values if test.op == enough or self.known(p) is not (enough == "or")]
            if test.op != enough and len(parts) != 1:
                return
        for part in parts:
            if not isinstance(part, ir.Compare) or len(part.ops) != 1 or part.ops[0] not in ops or not plain(part):
                continue
            counter, bound = self.ev(part.left), self.ev(part.comparators[0])
            counts = any(d[0] == loop for d in counter.deps) and not counter.flags & (LOSS | BPB | TIME)
            if counts and (not counter.flags & VAL or counter.flags & META):
                if (cut := self.cut(bound, MOST_TURNS, "turns", part)) is not None:
                    self.trace.stops.setdefault(loop, replace(cut, leaves=True))

    def long_enough(self: Any, test: ir.Expr) -> bool:
        """``n < tokens.numel()``: does a test hold for the full set, that has more tokens than any number the script names.

        A part that is taken under it is one that the reported run took (`Cut.sure`).
        """
        if isinstance(test, ir.BoolOp):
            enough = all if test.op == "and" else any
            return enough(self.known(part) or self.long_enough(part) for part in test.values)
        if not isinstance(test, ir.Compare) or len(test.ops) != 1 or not measures(test):
            return False
        few, many = test.left, test.comparators[0]
        if test.ops[0] in (">", ">="):
            few, many = many, few
        elif test.ops[0] not in ("<", "<="):
            return False
        bound, count = self.ev(few), self.ev(many)
        amount = bound.const if bound.kind == "const" else None
        return isinstance(amount, (int, float)) and amount < FEWEST and of_tokens(count)

    def known(self: Any, test: ir.Expr) -> bool | None:
        known: bool | None = self.truth(self.ev(test)) if plain(test) else None
        return known


def from_the_start(stream: V) -> bool:
    """All of the stream, or all but what was trimmed off its end."""
    return bool(stream.atoms) and all(not chosen and low is None for chosen, low, _high in stream.atoms) and not stream.keys & {ROWS, OF_ROWS}


def of_tokens(v: V) -> bool:
    """The number of the set's tokens, and not of sequences or windows."""
    share = of_all(v.share)
    return share is not None and share.part == 1 and NUMBER_OF not in v.keys


def measures(e: ir.Expr) -> bool:
    """Numbers and sizes, and nothing that could do anything."""
    return ir.made_of(e, (ir.Name, ir.Const, ir.Attr, ir.BinOp, ir.Compare), _MEASURES)


def plain(e: ir.Expr) -> bool:
    """Nothing is called: to evaluate it once more does nothing twice."""
    return not any(isinstance(n, (ir.Call, ir.NamedExpr, ir.Await, ir.Yield)) for n in ir.walk(e))


__all__ = ["Coverage", "Cut", "cut_of"]
