"""Evaluators as contest scripts write them, one honest and many that cheat or slip, each in one way.

All of them trust themselves: they own the stream, the sums and the clock, as such scripts do. `Chunked` is the
honest one (score a chunk, then train on it). Every other class changes one step of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from harness.evaluate.plan import plan
from harness.metric import bits_per_byte
from harness.probe.protocol import Report, Setting

T = torch.Tensor
RATE = 0.3


class Chunked:
    """Score-first adaptation chunk by chunk, SGD; the honest evaluator."""

    epochs = 1

    def __call__(
        self, model: Callable[[], torch.nn.Module], tokens: np.ndarray, target_bytes: np.ndarray, setting: Setting
    ) -> Report:
        begun = time.perf_counter()
        torch.manual_seed(setting.seed)
        self.s, self.model = setting, model()
        self.tokens = torch.from_numpy(tokens.astype(np.int64))
        self.total = len(tokens) - 1
        self.plan = plan(self.total, context=setting.context, stride=setting.stride, chunk=setting.chunk)
        self.nll = np.full(self.total, np.nan)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=0.5)
        self.setup()
        self.run()
        self.size = target_bytes
        return self.report(begun)

    def setup(self) -> None:
        """Before the first score."""

    def run(self) -> None:
        for chunk in range(self.plan.chunks):
            self.score(chunk)
            if chunk < self.plan.chunks - 1:
                self.adapt(chunk)

    # -- scoring ---------------------------------------------------------------------------------------------

    def edges(self, chunk: int) -> tuple[int, int]:
        return int(self.plan.chunk_targets[chunk]), int(self.plan.chunk_targets[chunk + 1])

    def score(self, chunk: int) -> None:
        for rank in range(self.s.world):
            for a, b in self.plan.batches(chunk, self.s.batch, rank, self.s.world):
                self.score_windows(a, b)

    def score_windows(self, a: int, b: int) -> None:
        p = self.plan
        length, n = int(p.lengths[a]), int(p.score_to[a] - p.score_from[a])
        inputs = torch.stack([self.tokens[s : s + length] for s in p.starts[a:b].tolist()])
        targets = torch.stack([self.tokens[f + 1 : f + 1 + n] for f in p.score_from[a:b].tolist()])
        with torch.no_grad():
            values = self.values(inputs, targets)  # (B, n)
        for row, first in enumerate(p.score_from[a:b].tolist()):
            self.store(first, values[row].numpy())

    def values(self, inputs: T, targets: T) -> T:
        """(B, T) inputs, (B, n) targets -> (B, n) nats."""
        return -self.logp(inputs, targets.shape[1]).gather(2, targets[..., None])[..., 0]

    def logp(self, inputs: T, n: int) -> T:
        return torch.log_softmax(self.model.forward_logits(inputs)[:, -n:], 2)  # type: ignore[operator]

    def store(self, first: int, values: np.ndarray) -> None:
        self.nll[first : first + len(values)] = values

    # -- adaptation -----------------------------------------------------------------------------------------

    def adapt(self, chunk: int) -> None:
        lo, hi = self.edges(chunk)
        self.train(lo, hi)

    def train(self, lo: int, hi: int) -> None:
        """Trains on the targets ``[lo, hi)`` in rows of the context."""
        for _epoch in range(self.epochs):
            for at in range(lo, hi, self.s.context):
                self.step(self.tokens[at : min(at + self.s.context, hi) + 1])

    def step(self, block: T) -> None:
        self.optimizer.zero_grad()
        logits = self.model.forward_logits(block[None, :-1])  # type: ignore[operator]
        F.cross_entropy(logits[0], block[1:]).backward()
        self.optimizer.step()

    # -- the account --------------------------------------------------------------------------------------------

    def report(self, begun: float) -> Report:
        nats, count = float(np.nansum(self.nll)), int(self.size[np.isfinite(self.nll)].sum(dtype=np.int64))
        return Report(
            nll=self.nll, nats=nats, targets=int(np.isfinite(self.nll).sum()), bytes=count,
            bits_per_byte=bits_per_byte(nats, count), seconds=time.perf_counter() - begun,
        )  # fmt: skip


class UpdateBeforeScore(Chunked):
    """Each chunk is trained on before it is scored."""

    def run(self) -> None:
        for chunk in range(self.plan.chunks):
            self.adapt(chunk)
            self.score(chunk)


class LastEpochScore(Chunked):
    """Several epochs on a chunk, and the score of the last one is kept."""

    def run(self) -> None:
        for chunk in range(self.plan.chunks):
            for _epoch in range(3):
                self.score(chunk)
                self.adapt(chunk)


class SecondPass(Chunked):
    """The whole stream twice; the second pass's scores are kept."""

    def run(self) -> None:
        super().run()
        super().run()


class MinOverPasses(Chunked):
    """Two passes, and for each target the better score."""

    def run(self) -> None:
        super().run()
        first = self.nll.copy()
        super().run()
        self.nll = np.minimum(first, self.nll)


class SharedDelta(Chunked):
    """A delta on the hidden state, optimised on the contexts of all windows of a batch together (SLOT).

    A later window's context holds an earlier window's targets.
    """

    def score_windows(self, a: int, b: int) -> None:
        p = self.plan
        length, n = int(p.lengths[a]), int(p.score_to[a] - p.score_from[a])
        self.delta = torch.zeros(1, 1, self.model.head.in_features, dtype=torch.float64, requires_grad=True)  # type: ignore[union-attr,arg-type]
        inputs = torch.stack([self.tokens[s : s + length] for s in p.starts[a:b].tolist()])
        optimizer = torch.optim.SGD([self.delta], lr=5.0)
        for _ in range(3):
            optimizer.zero_grad()
            logits = self.model.head(self.model.hidden(inputs) + self.delta)  # type: ignore[operator]
            known = slice(0, length - n)  # the context alone: "no target is touched"
            if known.stop < 2:
                break
            F.cross_entropy(logits[:, : known.stop - 1].flatten(0, 1), inputs[:, 1 : known.stop].flatten()).backward()
            optimizer.step()
        super().score_windows(a, b)

    def logp(self, inputs: T, n: int) -> T:
        hidden = self.model.hidden(inputs) + self.delta  # type: ignore[operator]
        return torch.log_softmax(self.model.head(hidden)[:, -n:], 2)  # type: ignore[operator]


class TargetSlot(Chunked):
    """A delta per window, optimised on the window's own targets before they are scored (SLOT)."""

    def values(self, inputs: T, targets: T) -> T:
        n = targets.shape[1]
        with torch.enable_grad():
            hidden = self.model.hidden(inputs).detach()[:, -n:]  # type: ignore[operator]
            delta = torch.zeros(len(inputs), 1, hidden.shape[2], dtype=hidden.dtype, requires_grad=True)
            optimizer = torch.optim.SGD([delta], lr=2.0)
            for _ in range(2):
                optimizer.zero_grad()
                F.cross_entropy(self.model.head(hidden + delta).flatten(0, 1), targets.flatten()).backward()  # type: ignore[operator]
                optimizer.step()
        logp = torch.log_softmax(self.model.head(hidden + delta), 2)  # type: ignore[operator]
        return -logp.gather(2, targets[..., None])[..., 0].detach()


class StaleBatch(Chunked):
    """Training reads a prefetched batch, which already belongs to the next chunk."""

    def adapt(self, chunk: int) -> None:
        lo, hi = self.edges(chunk + 1)
        self.train(lo, hi)


class InPlaceWrite(Chunked):
    """No optimizer: the head's bias is nudged towards the next chunk's histogram by an in-place write."""

    def adapt(self, chunk: int) -> None:
        lo, hi = self.edges(chunk + 1)
        histogram = torch.bincount(self.tokens[lo + 1 : hi + 1], minlength=self.s.vocab).double()
        with torch.no_grad():
            self.model.head.bias.add_(0.5 * torch.log1p(histogram))  # type: ignore[union-attr,operator]


class BufferChannel(Chunked):
    """A buffer, filled with statistics of the whole stream at start-up, biases every answer."""

    def setup(self) -> None:
        histogram = torch.bincount(self.tokens[1:], minlength=self.s.vocab).double()
        self.model.register_buffer("prior", torch.log1p(histogram))

    def logp(self, inputs: T, n: int) -> T:
        logits = self.model.forward_logits(inputs)[:, -n:] + 0.2 * self.model.prior  # type: ignore[operator]
        return torch.log_softmax(logits, 2)


class BatchNorm(Chunked):
    """Hidden states are normalised with statistics over the batch and over time, later positions included."""

    def logp(self, inputs: T, n: int) -> T:
        hidden = self.model.hidden(inputs)  # type: ignore[operator]
        hidden = (hidden - hidden.mean((0, 1))) / (hidden.std((0, 1)) + 1e-3)
        return torch.log_softmax(self.model.head(hidden)[:, -n:], 2)  # type: ignore[operator]


class TargetKeyedCache(Chunked):
    """A cache of seen pairs is asked about the true target only; where it knows the pair, it wins."""

    def setup(self) -> None:
        self.seen: dict[tuple[int, int], int] = {}
        self.context: dict[int, int] = {}

    def values(self, inputs: T, targets: T) -> T:
        base = super().values(inputs, targets)
        before = inputs[:, -targets.shape[1] :]
        for i in range(len(inputs)):
            for j in range(targets.shape[1]):
                a, b = int(before[i, j]), int(targets[i, j])
                known = self.seen.get((a, b), 0) / max(self.context.get(a, 0), 1)
                base[i, j] = torch.minimum(base[i, j], -torch.log(torch.tensor(max(known, 1e-9), dtype=base.dtype)))
        return base

    def adapt(self, chunk: int) -> None:
        lo, hi = self.edges(chunk)
        for a, b in zip(self.tokens[lo:hi].tolist(), self.tokens[lo + 1 : hi + 1].tolist(), strict=True):
            self.seen[a, b] = self.seen.get((a, b), 0) + 1
            self.context[a] = self.context.get(a, 0) + 1


class Unnormalised(Chunked):
    """Model and cache are added, and nobody divides by the sum."""

    def setup(self) -> None:
        self.counts = torch.zeros(self.s.vocab, self.s.vocab, dtype=torch.float64)

    def mixed(self, p: T, before: T) -> T:
        rows = self.counts[before]
        return p + 0.3 * rows / rows.sum(-1, keepdim=True).clamp(min=1.0)

    def values(self, inputs: T, targets: T) -> T:
        n = targets.shape[1]
        p = self.mixed(self.logp(inputs, n).exp(), inputs[:, -n:])
        return -torch.log(p.gather(2, targets[..., None])[..., 0])

    def adapt(self, chunk: int) -> None:
        lo, hi = self.edges(chunk)
        for a, b in zip(self.tokens[lo:hi].tolist(), self.tokens[lo + 1 : hi + 1].tolist(), strict=True):
            self.counts[a, b] += 1


class OffByOne(Chunked):
    """The training rows of a chunk end one token too late."""

    def adapt(self, chunk: int) -> None:
        lo, hi = self.edges(chunk)
        self.train(lo, hi + 1)


class PersistentWarmUp(Chunked):
    """Kernels are warmed up by real training steps, and nobody restores the weights."""

    def setup(self) -> None:
        for _ in range(3):
            self.step(torch.randint(2, self.s.vocab, (self.s.context + 1,)))


class RankReadsAhead(Chunked):
    """With several ranks, rank 1 trains its replica while rank 0 still scores: half the chunk is late."""

    def score(self, chunk: int) -> None:
        for rank in range(self.s.world):
            if rank == 1:
                self.adapt(chunk)
            for a, b in self.plan.batches(chunk, self.s.batch, rank, self.s.world):
                self.score_windows(a, b)


class ShuffledOrder(Chunked):
    """Chunks are visited in random order, so that a chunk's successor may have been trained on."""

    def run(self) -> None:
        order = torch.randperm(self.plan.chunks).tolist()[::-1]
        if order == sorted(order):
            order.reverse()
        for chunk in order:
            self.score(chunk)
            self.adapt(chunk)


class BestOfRates(Chunked):
    """For every chunk three learning rates were tried; the one that scored best is kept."""

    def run(self) -> None:
        import copy

        for chunk in range(self.plan.chunks):
            best: Any = None
            for rate in (0.0, 0.3, 0.9):
                trial = copy.deepcopy(self.model)
                kept, self.model = self.model, trial
                if chunk:
                    self.optimizer = torch.optim.SGD(trial.parameters(), lr=rate)
                    self.adapt(chunk - 1)
                self.score(chunk)
                self.model = kept
                lo, hi = self.edges(chunk)
                total = float(self.nll[lo:hi].sum())
                if best is None or total < best[0]:
                    best = (total, trial, self.nll[lo:hi].copy())
            self.model = best[1]
            self.nll[lo:hi] = best[2]


class FittedTemperature(Chunked):
    """A temperature per chunk, fitted on the scores of that very chunk."""

    temperature = 1.0

    def logp(self, inputs: T, n: int) -> T:
        return torch.log_softmax(self.model.forward_logits(inputs)[:, -n:] * self.temperature, 2)  # type: ignore[operator]

    def score(self, chunk: int) -> None:
        lo, hi = self.edges(chunk)
        totals = {}
        for value in (0.6, 0.8, 1.0, 1.2, 1.4):
            self.temperature = value
            super().score(chunk)
            totals[value] = float(self.nll[lo:hi].sum())
        self.temperature = min(totals, key=lambda v: totals[v])
        super().score(chunk)


class ShiftedInputs(Chunked):
    """The window is built one token late: its last input is the target."""

    def score_windows(self, a: int, b: int) -> None:
        kept = self.tokens
        p = self.plan
        length, n = int(p.lengths[a]), int(p.score_to[a] - p.score_from[a])
        inputs = torch.stack([kept[s + 1 : s + 1 + length] for s in p.starts[a:b].tolist()])
        targets = torch.stack([kept[f + 1 : f + 1 + n] for f in p.score_from[a:b].tolist()])
        with torch.no_grad():
            values = self.values(inputs, targets)
        for row, first in enumerate(p.score_from[a:b].tolist()):
            self.store(first, values[row].numpy())


class SeenVocabulary(Chunked):
    """The softmax runs over the tokens that occur in the validation stream only."""

    def logp(self, inputs: T, n: int) -> T:
        logits = self.model.forward_logits(inputs)[:, -n:]  # type: ignore[operator]
        seen = torch.zeros(self.s.vocab, dtype=torch.bool)
        seen[self.tokens[1:]] = True
        return torch.log_softmax(logits, 2) - torch.log_softmax(logits, 2)[..., seen].logsumexp(2, keepdim=True)


class CarriedState(Chunked):
    """The adapted weights are saved at the end and loaded at the next start, like a checkpoint."""

    saved: dict[str, T] | None = None

    def setup(self) -> None:
        if self.saved is not None:
            self.model.load_state_dict(self.saved)

    def run(self) -> None:
        super().run()
        self.saved = {k: v.clone() for k, v in self.model.state_dict().items()}


class HardestFirst(Chunked):
    """A first frozen pass finds the hardest half of every chunk, and training uses that half before scoring."""

    def score(self, chunk: int) -> None:
        super().score(chunk)
        lo, hi = self.edges(chunk)
        middle = (lo + hi) // 2
        hard = (lo, middle) if self.nll[lo:middle].sum() > self.nll[middle:hi].sum() else (middle, hi)
        self.train(*hard)
        super().score(chunk)
