"""Causality probes inside the real batches (claim P2): do logits move when only later tokens change?

A probe takes the inputs of a batch that was just scored, draws one cut per window, replaces every token
after the cut by random ones, and runs the same shape again. Scores up to the cut must not move by more
than two identical runs differ. Cuts are drawn from a seed that depends on the digest of the scorecard's
header, so on the artifact and on a nonce drawn after it was committed.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.evaluate.score import Scorer

CONFIDENCE = 0.95


def excluded(probes: int, confidence: float = CONFIDENCE) -> float:
    """The share of positions that could leak unseen: with more, ``probes`` would have met one."""
    return 1.0 if probes < 1 else 1.0 - (1.0 - confidence) ** (1.0 / probes)


@dataclass(slots=True)
class CausalityProbe:
    """About ``most`` probed batches, spread over the run. Counts windows compared and windows that moved."""

    scorer: Scorer
    seed: str
    most: int = 16
    batches: int = 0
    compared: int = 0
    moved: int = 0
    tolerance: float = 0.0
    worst: float = 0.0
    seconds: float = 0.0
    last: dict[str, Any] | None = None
    _due: set[int] = field(default_factory=set)
    _at: int = 0

    def begin_chunk(self, chunk: int, chunks: int) -> None:
        """Chooses which of this chunk's batches are probed, spreading ``most`` over all chunks."""
        self.last = None
        due = (chunk + 1) * self.most // chunks - chunk * self.most // chunks
        if due < 1:
            self.scorer.on_batch(None)
            return
        ranks, plan = self.scorer.ranks, self.scorer.plan
        shapes = [(a, b) for a, b in plan.batches(chunk, self.scorer.numerics.batch, ranks.rank, ranks.world)]
        draw = torch.Generator().manual_seed(self._seed(f"batches {chunk}"))
        # Larger batches first: one probe compares every window in its batch.
        order = torch.randperm(len(shapes), generator=draw).tolist()
        self._due = set(sorted(order, key=lambda i: shapes[i][0] - shapes[i][1])[:due])
        self._at = 0
        self.scorer.on_batch(lambda *batch: self._maybe(chunk, *batch))

    def _seed(self, purpose: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed} {purpose}".encode()).digest()[:8], "little") >> 1

    def _maybe(self, chunk: int, inputs: torch.Tensor, targets: torch.Tensor, nll: torch.Tensor) -> None:
        if self._at in self._due:
            if inputs.is_cuda:
                torch.cuda.synchronize(inputs.device)  # what is still queued is scoring, not probing
            begun = time.perf_counter()
            self._probe(f"{chunk} {self._at}", inputs, targets, nll)
            self.seconds += time.perf_counter() - begun
        self._at += 1

    def _probe(self, place: str, inputs: torch.Tensor, targets: torch.Tensor, nll: torch.Tensor) -> None:
        rows, length = inputs.shape
        n = targets.shape[1]
        if length < 2:
            return
        if n < 2:  # a window of one score has none to move: look at the one before as well
            n, targets = 2, torch.cat([inputs[:, -1:], targets], 1)
            nll = self.scorer.again(inputs, targets)
        self.batches += 1
        draw = torch.Generator().manual_seed(self._seed(place))
        cuts = torch.randint(length - n, length - 1, (rows,), generator=draw)  # last input kept
        noise = torch.randint(0, self.scorer.stream.vocab, inputs.shape, generator=draw)
        later = torch.arange(length)[None, :] > cuts[:, None]
        changed = torch.where(later.to(inputs.device), noise.to(inputs.device), inputs)
        kept = (~later[:, -n:]).to(inputs.device)
        # Compared on the harness's own scores, so that a constant added to all logits is no leak.
        noise_floor = float((nll - self.scorer.again(inputs, targets)).abs().max())
        self.tolerance = max(self.tolerance, 1e-5, 10 * noise_floor)
        gap = ((nll - self.scorer.again(changed, targets)).abs() * kept).amax(1)
        self.worst = max(self.worst, float(gap.max()))
        moved = int((gap > self.tolerance).sum())
        self.compared += rows
        self.moved += moved
        seen = self.last or {"windows": 0, "moved": 0}
        self.last = {"windows": seen["windows"] + rows, "moved": seen["moved"] + moved,
                     "largest": self.worst, "tolerance": self.tolerance}  # fmt: skip

    def found(self) -> dict[str, Any]:
        """What this rank's probes saw in all, in the form of a ``probe`` event."""
        return {"windows": self.compared, "moved": self.moved, "largest": self.worst, "tolerance": self.tolerance}

    def add(self, other: dict[str, Any]) -> None:
        """Takes another rank's findings over."""
        self.compared += other["windows"]
        self.moved += other["moved"]
        self.worst, self.tolerance = max(self.worst, other["largest"]), max(self.tolerance, other["tolerance"])

    def claim(self) -> dict[str, Any]:
        """Status and statement of P2."""
        if self.compared == 0:
            return {"status": "not shown", "reason": "no window was probed"}
        if self.moved:
            return {
                "status": "violated",
                "reason": f"{self.moved} of {self.compared} probed windows changed earlier scores (by up to "
                f"{self.worst:.3g} nats) when only later tokens changed",
            }
        share = excluded(self.compared)
        return {
            "status": "shown",
            "reason": f"statistical: {self.compared} windows in {self.batches} batches, none moved by more than "
            f"{self.tolerance:.1g} nats; leaks at more than {100 * share:.2g} % of windows are excluded at 95 % confidence",
        }
