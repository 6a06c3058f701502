"""Chooses training windows over all shards: coprime strides, shard weights, full coverage, no permutations.

Each shard is cut into blocks of T tokens. Within an epoch a shard's blocks are visited as
(start + k * stride) mod blocks with a stride coprime to the number of blocks: k = 0, 1, 2, … meets
every block exactly once (multiplication by a unit is a bijection), so no permutation is ever stored
(PR 1171). How many of a batch's windows come from which shard follows weights remaining^alpha, where
alpha decays over training: early batches favour shards with much left, later ones mix more evenly.

Everything is a function of (seed, epoch, shard) and (seed, batch) through a counter-based generator.
The state is a handful of integers, the same on every rank; a rank only picks its rows of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from audit.contracts import InputError


def _generator(seed: int, *counter: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[*counter, 0, 0, 0, 0][:4]))


def coprime_stride(blocks: int, generator: np.random.Generator) -> int:
    """A stride coprime to ``blocks``, at least about a third of the way round where there is room.

    A long stride keeps neighbouring text out of the same batch.
    """
    if blocks <= 2:
        return 1
    stride = int(generator.integers(max(1, blocks // 3), blocks))
    while math.gcd(stride, blocks) != 1:
        stride = stride + 1 if stride + 1 < blocks else 1
    return stride


class Sampler:
    """Yields batches of windows (shard, first token); call ``batch`` once per step, on every rank alike."""

    def __init__(
        self, lengths: Sequence[int], context: int, windows: int, seed: int, alpha: Callable[[int], float]
    ) -> None:
        """``lengths``: tokens per shard; ``windows`` per batch; ``alpha`` of the batch number."""
        self.context, self.windows, self.seed, self.alpha = context, windows, seed, alpha
        # A window needs one token more than the context: the last target.
        self.blocks = np.array([max(0, (n - 1) // context) for n in lengths], dtype=np.int64)
        self.slack = np.array(
            [max(0, n - 1 - b * context) for n, b in zip(lengths, self.blocks, strict=True)]
        )
        if not self.blocks.sum():
            raise InputError(f"no training shard holds even one sequence of {context + 1} tokens")
        self.index = 0
        self._start_epoch(0)

    def _start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.used = np.zeros(len(self.blocks), dtype=np.int64)
        self._walk = []
        for shard, blocks in enumerate(self.blocks.tolist()):
            generator = _generator(self.seed, 1, epoch, shard)
            phase = int(generator.integers(0, self.slack[shard] + 1))  # shifts the cuts between epochs
            start = int(generator.integers(0, max(1, blocks)))
            self._walk.append((phase, start, coprime_stride(blocks, generator)))

    def position(self, shard: int, k: int) -> int:
        """First token of the shard's k-th window of this epoch."""
        phase, start, stride = self._walk[shard]
        return phase + (start + k * stride) % int(self.blocks[shard]) * self.context

    def _shares(self, want: int, alpha: float, generator: np.random.Generator) -> np.ndarray:
        """Windows per shard, ``want`` in all, proportional to remaining^alpha and never more than remain.

        Systematic sampling: one random offset, equidistant picks, so a shard's share differs from its
        expectation by less than one window.
        """
        left = self.blocks - self.used
        shares = np.zeros_like(left)
        while want:
            open_ = np.maximum(left - shares, 0)
            weight = np.where(open_ > 0, (open_ * float(self.context)) ** alpha, 0.0)
            edges = np.cumsum(weight / weight.sum()) * want
            edges[-1] = want
            picks = np.searchsorted(edges, np.arange(want) + generator.random(), side="right")
            more = np.bincount(np.minimum(picks, len(left) - 1), minlength=len(left))
            shares += np.minimum(more, open_)
            want -= int(np.minimum(more, open_).sum())
        return shares

    def batch(self) -> np.ndarray:
        """The next batch: (windows, 2) int64 of (shard, first token), in random order."""
        generator = _generator(self.seed, 2, self.index)
        alpha = self.alpha(self.index)
        rows: list[tuple[int, int]] = []
        while len(rows) < self.windows:
            left = int((self.blocks - self.used).sum())
            if not left:
                self._start_epoch(self.epoch + 1)
                continue
            shares = self._shares(min(left, self.windows - len(rows)), alpha, generator)
            for shard in np.flatnonzero(shares).tolist():
                first = int(self.used[shard])
                rows += [(shard, self.position(shard, k)) for k in range(first, first + int(shares[shard]))]
            self.used += shares
        self.index += 1
        return np.array(rows, dtype=np.int64)[generator.permutation(len(rows))]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "used": self.used.tolist(), "index": self.index}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start_epoch(state["epoch"])
        self.used = np.array(state["used"], dtype=np.int64)
        self.index = state["index"]
