"""Benign evaluators that look suspicious. None of them may be accused."""

from __future__ import annotations

import time

import numpy as np
import torch

from harness.mutants.evaluators import Chunked, T, Unnormalised
from harness.probe.protocol import Report


class SeveralEpochs(Chunked):
    """Four epochs on a chunk that has been scored."""

    epochs = 4


class GradientsWhileScoring(Chunked):
    """Scores with gradients enabled, and throws the graph away."""

    def logp(self, inputs: T, n: int) -> T:
        with torch.enable_grad():
            return torch.log_softmax(self.model.forward_logits(inputs)[:, -n:], 2).detach()  # type: ignore[operator]


class NoLastChunkGuard(Chunked):
    """Also trains after the last chunk, for nothing."""

    def run(self) -> None:
        for chunk in range(self.plan.chunks):
            self.score(chunk)
            self.adapt(chunk)


class RestoredWarmUp(Chunked):
    """Warms up with training steps on random tokens, then restores every weight."""

    def setup(self) -> None:
        kept = {k: v.clone() for k, v in self.model.state_dict().items()}
        for _ in range(3):
            self.step(torch.randint(2, self.s.vocab, (self.s.context + 1,)))
        self.model.load_state_dict(kept)
        self.optimizer.state.clear()


class NormalisedCache(Unnormalised):
    """Mixes in a cache of tokens scored before, keyed by the input, and divides by the sum."""

    def mixed(self, p: T, before: T) -> T:
        rows = self.counts[before]
        known = rows.sum(-1, keepdim=True)
        share = 0.3 * (known > 0)
        return (1 - share) * p + share * rows / known.clamp(min=1.0)


class ReplayBuffer(Chunked):
    """Trains on the chunk just scored and once more on the first one."""

    def adapt(self, chunk: int) -> None:
        super().adapt(chunk)
        self.train(*self.edges(0))


class PeriodicallyReset(Chunked):
    """Returns to the artifact's weights every second chunk."""

    def setup(self) -> None:
        self.kept = {k: v.clone() for k, v in self.model.state_dict().items()}

    def adapt(self, chunk: int) -> None:
        if chunk % 2:
            self.model.load_state_dict(self.kept)
            self.optimizer.state.clear()
        else:
            super().adapt(chunk)


class TrainingMode(Chunked):
    """Scores in training mode; the model has neither dropout nor batch statistics."""

    def score(self, chunk: int) -> None:
        self.model.train()
        super().score(chunk)
        self.model.eval()


class Averaged(Chunked):
    """Scores with an exponential average of the weights, written in place after each step."""

    def setup(self) -> None:
        self.average = [p.detach().clone() for p in self.model.parameters()]

    def step(self, block: T) -> None:
        super().step(block)
        with torch.no_grad():
            for mean, p in zip(self.average, self.model.parameters(), strict=True):
                mean.lerp_(p, 0.5)

    def score(self, chunk: int) -> None:
        kept = [p.detach().clone() for p in self.model.parameters()]
        with torch.no_grad():
            for p, mean in zip(self.model.parameters(), self.average, strict=True):
                p.copy_(mean)
        super().score(chunk)
        with torch.no_grad():
            for p, own in zip(self.model.parameters(), kept, strict=True):
                p.copy_(own)


class FrozenBlocks(Chunked):
    """Trains the head alone."""

    def setup(self) -> None:
        for name, p in self.model.named_parameters():
            p.requires_grad_(name.startswith("head"))
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], lr=0.3)


class FrozenTwice(Chunked):
    """Without adaptation, evaluates everything twice and keeps the second time: the same numbers."""

    def run(self) -> None:
        for _ in range(2):
            for chunk in range(self.plan.chunks):
                self.score(chunk)


class SlowStart(Chunked):
    """Spends most of its time before the first score, and reports that time."""

    def setup(self) -> None:
        torch.randn(64, 64) @ torch.randn(64, 64)
        time.sleep(0.002)

    def report(self, begun: float) -> Report:
        self.nll = np.ascontiguousarray(self.nll)
        return super().report(begun)
