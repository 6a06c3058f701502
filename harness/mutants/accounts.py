"""Evaluators whose scores are honest and whose account of them is not: sums, counts, bytes and clocks."""

from __future__ import annotations

import numpy as np

from harness.metric import bits_per_byte
from harness.mutants.evaluators import Chunked
from harness.probe.protocol import Report


class DroppedTail(Chunked):
    """The last incomplete chunk is never scored."""

    def run(self) -> None:
        for chunk in range(self.plan.chunks - 1):
            self.score(chunk)
            self.adapt(chunk)


class DoubleCounted(Chunked):
    """Windows overlap by half a stride; what is scored twice is counted twice."""

    def report(self, begun: float) -> Report:
        honest = super().report(begun)
        again = np.concatenate([np.arange(f, f + self.s.stride // 2) for f in self.plan.score_from.tolist() if f >= self.s.stride])
        again = again[again < self.total]
        nats, count = honest.nats + float(self.nll[again].sum()), honest.bytes + int(self.size[again].sum())
        return Report(nll=self.nll, nats=nats, targets=self.total + len(again), bytes=count,
                      bits_per_byte=bits_per_byte(nats, count), seconds=honest.seconds)  # fmt: skip


class WrongBytes(Chunked):
    """The byte table counts a leading space for every piece."""

    def report(self, begun: float) -> Report:
        self.size = self.size + 1
        return super().report(begun)


class TamperedAccumulator(Chunked):
    """The sum of the scores is kept in a variable that forgets two per cent."""

    def report(self, begun: float) -> Report:
        honest = super().report(begun)
        nats = 0.98 * honest.nats
        return Report(nll=self.nll, nats=nats, targets=honest.targets, bytes=honest.bytes,
                      bits_per_byte=bits_per_byte(nats, honest.bytes), seconds=honest.seconds)  # fmt: skip


class RoundedScores(Chunked):
    """Scores are accumulated after rounding down to whole tenths."""

    def report(self, begun: float) -> Report:
        honest = super().report(begun)
        nats = float((np.floor(self.nll * 10) / 10).sum())
        return Report(nll=self.nll, nats=nats, targets=honest.targets, bytes=honest.bytes,
                      bits_per_byte=bits_per_byte(nats, honest.bytes), seconds=honest.seconds)  # fmt: skip


class StoppedClock(Chunked):
    """Adaptation is not timed: the clock that is reported runs while scoring only (and not even always)."""

    def report(self, begun: float) -> Report:
        honest = super().report(begun)
        return Report(nll=self.nll, nats=honest.nats, targets=honest.targets, bytes=honest.bytes,
                      bits_per_byte=honest.bits_per_byte, seconds=0.1 * honest.seconds)  # fmt: skip


class ClippedScores(Chunked):
    """Outliers are clipped: no target costs more than three nats."""

    def store(self, first: int, values: np.ndarray) -> None:
        super().store(first, np.minimum(values, 3.0))
