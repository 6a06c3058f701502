"""Sets of stream positions as sorted disjoint intervals: small, immutable, cheap to unite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# A set of more intervals than this is widened to its hull. Widening can only accuse, never clear.
MOST_INTERVALS = 4096


@dataclass(frozen=True, slots=True)
class Positions:
    """Token positions ``[lo, hi)`` of the stream; intervals are sorted and do not touch."""

    intervals: tuple[tuple[int, int], ...] = ()

    @classmethod
    def span(cls, lo: int, hi: int) -> Positions:
        return cls(((lo, hi),)) if hi > lo else NONE

    @classmethod
    def of(cls, shadow: torch.Tensor) -> Positions:
        """The positions in a shadow: an int tensor on the CPU, -1 where an element has none."""
        if shadow.numel() == 0:
            return NONE
        flat = shadow.reshape(-1)
        first, last = int(flat[0]), int(flat[-1])
        if first >= 0 and last - first == flat.numel() - 1 and bool((flat[1:] > flat[:-1]).all()):
            return cls(((first, last + 1),))
        return cls.points(flat.numpy())

    @classmethod
    def points(cls, values: np.ndarray) -> Positions:
        """The set of these positions (negative ones are none)."""
        sorted_ = np.unique(values)
        sorted_ = sorted_[sorted_ >= 0]
        if not len(sorted_):
            return NONE
        cuts = np.flatnonzero(np.diff(sorted_) > 1)
        los = sorted_[np.concatenate([[0], cuts + 1])]
        his = sorted_[np.concatenate([cuts, [len(sorted_) - 1]])] + 1
        return cls(tuple(zip(los.tolist(), his.tolist(), strict=True)))._bounded()

    def __or__(self, other: Positions) -> Positions:
        if not other.intervals or other is self:
            return self
        if not self.intervals:
            return other
        return Positions.unite((self, other))

    @staticmethod
    def unite(sets: Iterable[Positions]) -> Positions:
        """The union of several sets."""
        rows = sorted({pair for s in sets for pair in s.intervals})
        merged: list[tuple[int, int]] = []
        for lo, hi in rows:
            if merged and lo <= merged[-1][1]:
                if hi > merged[-1][1]:
                    merged[-1] = (merged[-1][0], hi)
            else:
                merged.append((lo, hi))
        return Positions(tuple(merged))._bounded() if merged else NONE

    def _bounded(self) -> Positions:
        if len(self.intervals) <= MOST_INTERVALS:
            return self
        return Positions(((self.intervals[0][0], self.intervals[-1][1]),))

    @property
    def end(self) -> int:
        """One past the last position; 0 for the empty set."""
        return self.intervals[-1][1] if self.intervals else 0

    def __bool__(self) -> bool:
        return bool(self.intervals)

    def json(self) -> list[list[int]]:
        return [list(pair) for pair in self.intervals]


NONE = Positions()
