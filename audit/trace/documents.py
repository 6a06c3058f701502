"""Documents: which of the stream's documents the program walks over.

Documents lie between places that were found in the stream. A list of such places that is cut to its first ones, or of
which some are drawn at random, is a part of the set like a stream that is cut to its first tokens (`audit.trace.coverage`):
the loop over it leaves the other documents out. How many are kept is a number, or a share of how many there are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from audit.trace.shares import Share, documents
from audit.trace.spans import NUMBER_OF
from audit.trace.values import CUT, META, V, clone, const, derive, seq, summary

#: documents of the validation set
ALL = 50_000
#: a share that leaves out no more than this is one that trims
NEARLY = 0.95


def kept(v: V) -> bool:
    """Is it a list of documents, or of their numbers, that was cut to some of them."""
    inner = summary(v) if v.kind == "seq" else v
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
        low, high, step = bounds
        begins = low is None or (low.kind == "const" and low.const in (0, None))
        if high is None or not begins or not (step is None or (step.kind == "const" and step.const in (1, None))):
            return part
        if self.loops or kept(part) or not (documents(whole) or NUMBER_OF in summary(whole).keys):
            return part
        return marked(part) if self.note_documents(high, node, drawn=False) else part

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
        if self.loops or not (numbered or documents(whole)):
            return None
        if self.note_documents(count, node, drawn=True):
            part = marked(part)
        return seq([], part)

    def note_kept(self: Any, it: V, loop: int) -> None:
        """A loop over documents that were kept."""
        if kept(it):
            found = next((cut for _, cut in reversed(self.trace.cuts) if cut.unit == "documents"), None)
            if found is not None:
                self.trace.stops.setdefault(loop, found)


__all__ = ["Documents", "kept", "marked"]
