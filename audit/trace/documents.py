"""Documents: which of the stream's documents the program walks over.

Documents lie between places that were found in the stream. A list of such places that is cut to its first ones, or of
which some are drawn at random, is a part of the set like a stream that is cut to its first tokens (`audit.trace.coverage`):
the loop over it leaves the other documents out. How many are kept is a number, or a share of how many there are.

So is a list of the places at which a walk through all of the stream begins its windows (`audit.trace.shares.starts`):
``windows[::2]``, ``windows[:1000]``, ``[w for w in windows if no separator is in it]``. A rank's own windows, and those of
a chunk, are parts that other ranks and other turns complete.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from audit import ir
from audit.trace.coverage import FEWEST, PIECES, Cut, plain
from audit.trace.positions import place_of
from audit.trace.shaping import number
from audit.trace.shares import OF_WORLD, WINDOW_STARTS, Share, documents, known, starts
from audit.trace.spans import NUMBER_OF
from audit.trace.strides import STRIDE_BY
from audit.trace.values import CUT, LOGITS, LOSS, META, VAL, V, clone, const, derive, kinds, seq, summary

#: documents of the validation set
ALL = 50_000
#: a share that leaves out no more than this is one that trims
NEARLY = 0.95
#: no more tokens than that are lost where the end of the stream makes no whole window
TRIMMED = 4096
#: more tokens than a walk goes on by from window to window, where that is not known
MOST_TOKENS = 2048


def kept(v: V) -> bool:
    """Is it a list of documents, or of their numbers, that was cut to some of them."""
    inner = summary(v) if v.kind == "seq" else v
    if inner.flags & CUT and starts(inner) is not None:
        return True
    return bool(inner.flags & CUT and inner.flags & META) and (NUMBER_OF in inner.keys or documents(v))


def marked(v: V) -> V:
    """An element of a list that was cut."""
    out = clone(v)
    if v.kind == "seq":
        out.data = [marked(x) for x in v.data or []]
        out.rest = marked(v.rest) if v.rest is not None else None
    elif v.kind == "val":
        out.flags |= CUT
    return out


class Documents:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_first_documents(self: Any, whole: V, part: V, bounds: list[V | None], node: Any) -> V:
        """``documents[:n]``; ``part``: what stands for each of the elements."""
        if (tokens := starts(whole)) is not None:
            return self.note_windows(whole, part, bounds, tokens, node)
        low, high, step = bounds
        begins = low is None or (low.kind == "const" and low.const in (0, None))
        if high is None or not begins or not (step is None or (step.kind == "const" and step.const in (1, None))):
            return part
        if self.loops or kept(part) or not (documents(whole) or NUMBER_OF in summary(whole).keys):
            return part
        return marked(part) if self.note_documents(high, node, drawn=False) else part

    def note_windows(self: Any, whole: V, part: V, bounds: list[V | None], tokens: int, node: Any) -> V:
        """``windows[:n]``, ``windows[::2]``, ``windows[:-100]``; a window begins every so many ``tokens``."""
        low, high, step = bounds
        if self.loops or kept(part) or any(b is not None and b.deps for b in bounds):
            return part
        by = number(step)
        many = number(high)
        own = low is None or low.kind == "const" or low.share is not None  # ranks that take turns begin at their numbers
        if own and step is not None and by is not None and by >= 2 and OF_WORLD not in step.keys:
            return self.note_some(part, step, f"one in {by:g} of its windows", node)
        if high is None or (step is not None and step.const not in (1, None)):
            return part
        if many is not None and many < -1 and not high.knobs and -many * tokens > TRIMMED:
            return self.note_some(part, high, f"its windows but the last {-many:g}", node, sure=False)
        if (share := known(high.share)) is not None and NUMBER_OF in high.keys:
            if share.part < NEARLY:
                return self.note_some(part, high, f"the first {float(share.part):.3g} of its windows", node)
        elif many is not None and 0 < many < NEARLY * FEWEST / max(tokens, MOST_TOKENS):
            return self.note_some(part, high, f"the first {many:g} of its windows", node)
        return part

    def note_begun(self: Any, test: ir.Expr, counters: set[str]) -> None:
        """``while start + length <= number of tokens``: the counter is where a window begins."""
        if not isinstance(test, ir.Compare) or len(test.ops) != 1 or test.ops[0] not in ("<", "<=") or not plain(test):
            return
        bound = self.ev(test.comparators[0])
        share = known(bound.share)
        if share is None or share.part != 1 or NUMBER_OF in bound.keys or bound.deps:
            return
        for n in ir.walk(test.left):
            turn = self.scope.names.get(n.id) if isinstance(n, ir.Name) and n.id in counters else None
            if turn is not None and turn.kind == "val" and not turn.flags:
                turn.keys = turn.keys | {(WINDOW_STARTS, 0)}
                if len(symbols := place_of(turn)[0]) == 1:
                    turn.keys = turn.keys | {(STRIDE_BY, symbols[0], place_of(turn)[1])}

    def note_some(self: Any, part: V, bound: V, which: str, node: Any, drawn: bool = False, sure: bool = True) -> V:
        """Of the windows, those that ``part`` stands for are kept."""
        sure = sure and not self.forks
        names = frozenset(name for name, _value in bound.knobs)
        found = Cut(self.scope.path, node.line, 0, "windows", self.gate_text(bound), sure=sure, settings=names, drawn=drawn, which=which)
        self.trace.cuts.append((self.next_id, found))
        return marked(part)

    def note_filtered(self: Any, item: V, test: V, node: Any) -> V:
        """``[w for w in windows if not (tokens[w : w + n] == 1).any()]``: the tokens decide which windows are scored."""
        if self.loops or WINDOW_STARTS not in kinds(summary(item)) or kept(item) or not test.flags & VAL or test.flags & (META | LOSS | LOGITS):
            return item
        return self.note_some(item, const(None), "windows that a test of their tokens picks", node, sure=False)

    def note_documents(self: Any, count: V, node: Any, drawn: bool) -> bool:
        """``count`` of the documents are kept. Says whether that is known to leave some out."""
        share: Share | None = count.share if NUMBER_OF in count.keys else None
        if count.flags & META and count.flags & CUT and self.trace.cuts:
            found = replace(self.trace.cuts[-1][1], unit="documents")  # ``min(len(documents), n)``
        elif share is not None:
            if share.open or share.part >= NEARLY:
                return False
            found = self.cut(self.counted_out(count, int(share.part * ALL)), ALL, "documents", node)
        else:
            found = self.cut(count, ALL, "documents", node)
        if found is None:
            return False
        self.trace.cuts.append((self.next_id, replace(found, drawn=drawn)))
        return True

    def counted_out(self: Any, count: V, amount: int) -> V:
        out = const(max(amount, 2))
        out.knobs = count.knobs
        return out

    def note_drawn(self: Any, whole: V, count: V, node: Any) -> V | None:
        """``random.sample(documents, n)``: some of them in another order; None where they are no documents."""
        if whole.kind == "iter" and whole.data[0] == "range":
            numbered = any(x.kind == "val" and NUMBER_OF in x.keys for x in whole.data[1:])
            part = derive([x for x in whole.data[1:] if x.kind == "val"])
        else:
            numbered = NUMBER_OF in summary(whole).keys
            part = self.element(whole) if whole.kind == "seq" else clone(whole)
            if whole.kind == "seq" and starts(whole) is not None:
                return self.note_drawn_windows(part, count, starts(whole) or 0, node)
        if self.loops or not (numbered or documents(whole)):
            return None
        if self.note_documents(count, node, drawn=True):
            part = marked(part)
        return seq([], part)

    def note_drawn_windows(self: Any, part: V, count: V, tokens: int, node: Any) -> V:
        """``random.sample(windows, n)``"""
        many, share = number(count), known(count.share) if NUMBER_OF in count.keys else None
        few = many is not None and many < NEARLY * FEWEST / max(tokens, MOST_TOKENS)
        if not self.loops and not kept(part) and (few or (share is not None and share.part < NEARLY)):
            part = self.note_some(part, count, "some of its windows, drawn at random", node, drawn=True)
        return seq([], part)

    def note_kept(self: Any, it: V, loop: int) -> None:
        """A loop over documents that were kept."""
        if kept(it):
            found = next((cut for _, cut in reversed(self.trace.cuts) if cut.unit in PIECES), None)
            if found is not None:
                self.trace.stops.setdefault(loop, found)


__all__ = ["Documents", "kept", "marked"]
