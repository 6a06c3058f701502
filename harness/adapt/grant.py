"""The capability through which adaptation code gets tokens: already scored ranges, nothing else.

An adaptation never sees the stream. After a chunk's scores are committed it receives a `Grant`; asking it
for a token that has not been scored raises `NotYetScored` and leaves a record in the scorecard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.provenance.positions import Positions
from harness.provenance.tracked import Tracked, plain, positions_of, track
from harness.provenance.watch import Ledger


class NotYetScored(PermissionError):
    """Adaptation code asked for tokens whose scores were not committed."""


@dataclass(slots=True, kw_only=True)
class Ranks:
    """This process among those of the run; ``sequence`` counts collectives, the only shared clock."""

    rank: int = 0
    world: int = 1
    sequence: int = 0

    def share(self, items: int) -> tuple[int, int]:
        """This rank's contiguous share of ``items``."""
        return items * self.rank // self.world, items * (self.rank + 1) // self.world


class ModelHandle:
    """The model as adaptation code sees it: parameters to choose from, and one opaque forward step.

    ``logits(inputs)`` runs the model (eager or compiled) without tracking inside; its result depends on
    the union of what went in.
    """

    def __init__(self, module: torch.nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.module, self._forward = module, forward

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, T) token ids to (B, T, V) logits, with gradients."""
        out = self._forward(plain(inputs))
        listener = inputs.listener if isinstance(inputs, Tracked) else None
        return track(out, None, positions_of(inputs), listener)

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Summed cross entropy in nats, float32."""
        logits = self.logits(inputs)
        flat = logits.reshape(-1, logits.shape[-1]).float()
        return torch.nn.functional.cross_entropy(flat, targets.reshape(-1), reduction="sum")


@dataclass(kw_only=True)
class Grant:
    """What one adaptation step may use. ``targets``: the chunk just scored; ``scored``: all targets so far.

    ``document_ends``: the next chunk begins a new document. ``finished``: ranges of targets of the
    documents that were fully scored since the last grant. ``last``: no score follows.
    """

    chunk: int
    chunks: int
    targets: tuple[int, int]
    scored: int
    document_ends: bool = False
    finished: list[tuple[int, int]] = field(default_factory=list)
    ranks: Ranks = field(default_factory=Ranks)
    _tokens: torch.Tensor = field(repr=False)
    _ledger: Ledger = field(repr=False)
    _refused: Callable[[str], None] = field(repr=False)

    @property
    def last(self) -> bool:
        return self.chunk == self.chunks - 1

    def tokens(self, lo: int, hi: int) -> torch.Tensor:
        """Tokens ``[lo, hi)`` of the stream, int64 (hi - lo,), on the device. Token ``i`` is target ``i - 1``.

        Raises `NotYetScored` when one of them has not been scored.
        """
        if not 0 <= lo <= hi or hi > self.scored + 1:
            message = f"adaptation asked for tokens {lo}:{hi} when {self.scored} targets were scored"
            self._refused(message)
            raise NotYetScored(message)
        shadow = torch.arange(lo, hi, dtype=torch.int32)
        return track(self._tokens[lo:hi].long(), shadow, Positions.span(lo, hi), self._ledger)

    def rows(
        self, length: int, span: tuple[int, int] | None = None, *, remainder: bool = False
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(inputs, targets) of a range of targets (default: the chunk just scored) as rows of ``length``.

        Whole rows come as one pair of (n, length); with ``remainder`` a shorter last row follows.
        """
        lo, hi = span if span is not None else self.targets
        count, rest = divmod(hi - lo, length)
        pairs = []
        if count:
            block = self.tokens(lo, lo + count * length + 1)
            pairs.append((block[:-1].reshape(count, length), block[1:].reshape(count, length)))
        if rest and (remainder or not count):
            block = self.tokens(hi - rest, hi + 1)
            pairs.append((block[None, :-1], block[None, 1:]))
        return pairs

    def batches(
        self, pairs: list[tuple[torch.Tensor, torch.Tensor]], size: int
    ) -> Iterator[tuple[list[tuple[torch.Tensor, torch.Tensor]], int]]:
        """Batches of at most ``size`` rows: this rank's part (maybe empty) and the targets of all ranks."""
        for inputs, targets in pairs:
            for at in range(0, len(inputs), size):
                x, y = inputs[at : at + size], targets[at : at + size]
                a, b = self.ranks.share(len(x))
                yield ([(x[a:b], y[a:b])] if b > a else []), x.numel()

    def reduce_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Sums the gradients of all ranks; their token positions are united on every rank."""
        if self.ranks.world == 1:
            return
        import torch.distributed as dist

        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for p in parameters:
            dist.all_reduce(p.grad)
        everyone: list[Any] = [None] * self.ranks.world
        dist.all_gather_object(everyone, self._ledger.gradients().intervals)
        self.ranks.sequence += 1
        self._ledger.adopt([p for p in parameters], Positions.unite(Positions(tuple(i)) for i in everyone))
