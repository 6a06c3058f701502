"""The window plan: which inputs the model sees and which targets each window scores.

A plan is a pure function of five numbers. It exists apart from the evaluator so that coverage can be
proved by tests, repeated by the verifier from the header of a scorecard, and read by a person.

Conventions: the stream has ``total`` inputs ``tokens[0:total]`` and as many targets; target ``t`` is
``tokens[t + 1]`` and is predicted by input ``t``. A window ``w`` shows the model the inputs
``[start, start + length)`` and scores the targets ``[score_from, score_to)``, with
``score_to <= start + length``. A *chunk* is the unit of adaptation: its targets are scored, then
adapted on, then the next chunk begins.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.contracts import InputError

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Windows in scoring order. All arrays are int64; ``W`` windows, ``C`` chunks."""

    variant: str  # "strict" or "official"
    total: int  # targets
    context: int
    stride: int
    chunk: int | None
    starts: Ints  # (W,) first input
    lengths: Ints  # (W,) inputs shown, <= context
    score_from: Ints  # (W,) first target scored
    score_to: Ints  # (W,) one past the last target scored
    fresh_from: Ints  # (W,) first target not scored by an earlier window; == score_from in a strict plan
    chunk_targets: Ints  # (C + 1,) chunk c adapts on targets [chunk_targets[c], chunk_targets[c + 1])
    chunk_windows: Ints  # (C + 1,) chunk c scores windows [chunk_windows[c], chunk_windows[c + 1])

    @property
    def windows(self) -> int:
        return len(self.starts)

    @property
    def chunks(self) -> int:
        return len(self.chunk_targets) - 1

    @property
    def repeats(self) -> int:
        """Targets that a later window scores again (0 in a strict plan)."""
        return int((np.minimum(self.fresh_from, self.score_to) - self.score_from).sum())

    def scored(self, chunk: int) -> tuple[int, int]:
        """Range of targets that chunk ``chunk``'s windows score for the first time."""
        first, last = self.chunk_windows[chunk], self.chunk_windows[chunk + 1]
        if first == last:
            at = int(self.score_to[:first].max(initial=0))
            return at, at
        fresh = self.fresh_from[first:last] < self.score_to[first:last]
        if not fresh.any():
            at = int(self.score_to[:last].max(initial=0))
            return at, at
        return int(self.fresh_from[first:last][fresh].min()), int(self.score_to[first:last][fresh].max())

    def digest(self) -> str:
        """SHA-256 over the arrays (little-endian int64): two plans with one digest do the same thing."""
        state = hashlib.sha256(f"{self.variant} {self.total} {self.context} {self.stride}".encode())
        for array in (self.starts, self.lengths, self.score_from, self.score_to, self.chunk_targets, self.chunk_windows):
            state.update(np.ascontiguousarray(array, dtype="<i8").data)
        return state.hexdigest()

    def batches(self, chunk: int, size: int, rank: int = 0, world: int = 1) -> Iterator[tuple[int, int]]:
        """Window ranges of one chunk, at most ``size`` windows of one shape each, for one rank.

        Windows of one batch have equal length and score equally many last positions, so that they
        stack without padding. The rank's share is a contiguous run of the chunk's windows.
        """
        lo, hi = int(self.chunk_windows[chunk]), int(self.chunk_windows[chunk + 1])
        lo, hi = lo + (hi - lo) * rank // world, lo + (hi - lo) * (rank + 1) // world
        if lo == hi:
            return
        counts = self.score_to[lo:hi] - self.score_from[lo:hi]
        tails = self.starts[lo:hi] + self.lengths[lo:hi] - self.score_to[lo:hi]
        shape = np.stack([self.lengths[lo:hi], counts, tails])
        breaks = np.flatnonzero((shape[:, 1:] != shape[:, :-1]).any(axis=0)) + 1
        edges = [lo, *(lo + breaks).tolist(), hi]
        for a, b in itertools.pairwise(edges):
            for at in range(a, b, size):
                yield at, min(at + size, b)


def boundaries(total: int, chunk: int | None, documents: Sequence[int] | None = None) -> Ints:
    """Chunk edges: every ``chunk`` targets, starting afresh at each document when those are given.

    ``documents`` are the targets' indices at which a document begins (its first *input* position).
    """
    edges = {0, total}
    if documents is None:
        if chunk is not None:
            edges.update(range(0, total, chunk))
    else:
        marks = sorted({0, total, *(int(d) for d in documents if 0 < d < total)})
        edges.update(marks)
        if chunk is not None:
            for a, b in itertools.pairwise(marks):
                edges.update(range(a, b, chunk))
    return np.array(sorted(edges), dtype=np.int64)


def plan(
    total: int,
    *,
    context: int,
    stride: int,
    chunk: int | None = None,
    documents: Sequence[int] | None = None,
    variant: str = "strict",
) -> Plan:
    """Plans the windows for ``total`` targets.

    strict: every target exactly once. Target ``t`` sees ``t + 1`` inputs if that fits the context,
    and at least ``context - stride + 1`` otherwise. A window that would cross a chunk's end is cut
    there (it keeps its start); at the end of the stream the last window is shifted left to full context.

    official: the windows of the contest's own scripts (start every ``stride`` inputs; the first scores
    all its targets, each later one its last ``stride``; a window belongs to the chunk of its first
    scored target). Near the end of the stream those windows score the same last targets again and
    again, with ever less context; ``fresh_from`` marks what each scores for the first time.
    """
    if total < 1:
        raise InputError(f"nothing to score: {total} targets; give a longer validation stream or a shorter context")
    if not 1 <= stride <= context:
        raise InputError(f"stride {stride} must be between 1 and the context {context}")
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk {chunk} must be at least 1 target")
    if variant == "official":
        if documents is not None:
            raise InputError("the official plan has no document chunks; use the strict plan")
        return _official(total, context, stride, chunk)
    if variant != "strict":
        raise InputError(f"unknown plan {variant!r}; choose strict or official")
    edges = boundaries(total, chunk, documents)
    starts, ends, score_from, per_chunk = [], [], [], []
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        first = []
        at = a
        if at < context:
            # Everything that one window from the stream's start can score with its full prefix.
            end = min(context, b)
            first = [(0, end, at)]
            at = end
        full = np.arange(at + stride, b + stride, stride, dtype=np.int64) if at < b else np.empty(0, np.int64)
        begin, end_ = full - context, np.minimum(full, b)
        if b == total and len(full):
            begin = np.maximum(np.minimum(begin, end_ - context), 0)
        starts.append(np.concatenate([np.array([w[0] for w in first], np.int64), begin]))
        ends.append(np.concatenate([np.array([w[1] for w in first], np.int64), end_]))
        score_from.append(np.concatenate([np.array([w[2] for w in first], np.int64), full - stride]))
        per_chunk.append(len(first) + len(full))
    s, e, f = np.concatenate(starts), np.concatenate(ends), np.concatenate(score_from)
    return Plan(
        variant="strict", total=total, context=context, stride=stride, chunk=chunk,
        starts=s, lengths=e - s, score_from=f, score_to=e, fresh_from=f,
        chunk_targets=edges, chunk_windows=np.concatenate([[0], np.cumsum(per_chunk)]).astype(np.int64),
    )  # fmt: skip


def _official(total: int, context: int, stride: int, chunk: int | None) -> Plan:
    """Source: the sliding and score-first loops shared by the contest's record scripts since March 2026."""
    starts = np.arange(0, total, stride, dtype=np.int64)
    ends = np.minimum(starts + context, total)
    starts, ends = (a[(ends - starts >= stride) | (starts == 0)] for a in (starts, ends))
    lengths = ends - starts
    score_from = np.where(starts == 0, 0, starts + np.maximum(lengths - stride, 0))
    fresh = np.maximum(score_from, np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]))
    if int(ends.max()) < total:
        # Those scripts drop a last window shorter than the stride; on the contest's stream there is none.
        raise InputError(
            f"the official windows would drop the last {total - int(ends.max())} of {total} targets; "
            f"choose a stride that divides the context, or the strict plan"
        )
    edges = boundaries(total, chunk)
    size = chunk if chunk is not None else total
    of_chunk = np.minimum(score_from // size, len(edges) - 2)
    return Plan(
        variant="official", total=total, context=context, stride=stride, chunk=chunk,
        starts=starts, lengths=lengths, score_from=score_from, score_to=ends, fresh_from=fresh,
        chunk_targets=edges, chunk_windows=np.searchsorted(of_chunk, np.arange(len(edges))).astype(np.int64),
    )  # fmt: skip
