"""Reads the sampler's windows out of memory-mapped shards, ahead of time, on a daemon thread.

Tokens stay uint16 until they are on the device: a quarter of the bytes to copy and to transfer. Windows
that touch in a shard are read as one slab. Every item carries the sampler state *after* it, so that a
checkpoint resumes with the batch after the last one that was trained on, whatever was built ahead.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference_model.data.sampler import Sampler


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: np.ndarray  # (rows, T + 1) uint16
    state: dict[str, Any]  # the sampler's, after this batch


def read_windows(shards: Sequence[np.ndarray], windows: np.ndarray, context: int) -> np.ndarray:
    """(n, 2) windows -> (n, context + 1) uint16, in the order asked for.

    Windows are read in file order; a run in which each starts where the last one ended is one slab of
    m * context + 1 tokens, which the rows then share as overlapping views.
    """
    out = np.empty((len(windows), context + 1), dtype=np.uint16)
    order = np.lexsort((windows[:, 1], windows[:, 0]))
    shard, first = windows[order, 0], windows[order, 1]
    breaks = np.flatnonzero((np.diff(shard) != 0) | (np.diff(first) != context)) + 1
    edges = [0, *breaks.tolist(), len(order)]
    rows, places, starts = order.tolist(), shard.tolist(), first.tolist()
    for low, high in itertools.pairwise(edges):
        start, count = starts[low], high - low
        if count == 1:  # nothing touches it: a view of a slab would cost more than it saves
            out[rows[low]] = shards[places[low]][start : start + context + 1]
            continue
        slab = shards[places[low]][start : start + count * context + 1]
        step = slab.strides[0]
        out[order[low:high]] = np.lib.stride_tricks.as_strided(
            slab, (count, context + 1), (context * step, step)
        )
    return out


class Loader:
    """Iterates over this rank's batches for ever. Deterministic in (seed, rank, world); resumable.

    ``shards``: mapped uint16 arrays (``harness.tokens.shards.ShardSet.arrays``). ``ahead`` batches are
    built in advance; 0 builds each when asked, on the caller's thread.
    """

    def __init__(
        self, shards: Sequence[np.ndarray], sampler: Sampler, *, rank: int = 0, world: int = 1, ahead: int = 2
    ) -> None:
        if sampler.windows % world:
            raise ValueError(f"{sampler.windows} windows do not divide over {world} ranks")
        # A plain view skips memmap's per-slice bookkeeping, which costs more than the copy.
        self.shards = [np.asarray(shard).view(np.ndarray) for shard in shards]
        self.sampler, self.rank, self.world, self.ahead = sampler, rank, world, ahead
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(max(1, ahead))
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def build(self) -> Batch:
        windows = self.sampler.batch()[self.rank :: self.world]
        tokens = read_windows(self.shards, windows, self.sampler.context)
        return Batch(tokens, self.sampler.state_dict())

    def __iter__(self) -> Iterator[Batch]:
        if not self.ahead:
            while True:
                yield self.build()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
            self._thread.start()
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._put(self.build())
        except BaseException as error:  # the training thread must see it, or it would wait for ever
            self._put(error)

    def _put(self, item: Batch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
