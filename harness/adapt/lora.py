"""Per-document low-rank adaptation: a fresh pair of thin matrices for every document (PR 1530, PR 1610).

Each chosen matrix W acts as W + scale * B A; A is random, B zero, so that a document starts from the artifact
itself. Chunks end at documents; within one, every scored chunk trains the pair; after it, the pair is
reset. No document learns from another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils import parametrize

from harness.adapt.grant import Grant, ModelHandle
from harness.adapt.recipes import Named, optimizer_tensors


class LowRank(torch.nn.Module):
    """The parametrization W -> W + scale * B A, with A (rank, in) and B (out, rank)."""

    def __init__(self, weight: torch.Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        out, into = weight.shape
        a = torch.randn(rank, into, generator=generator) / into**0.5
        self.a = torch.nn.Parameter(a.to(weight.device, weight.dtype))
        self.b = torch.nn.Parameter(torch.zeros(out, rank, device=weight.device, dtype=weight.dtype))
        self.scale = scale

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.scale * (self.b @ self.a)


@dataclass(kw_only=True)
class DocumentLoRA:
    """Adam on the low-rank pairs of all square-ish matrices of at least ``least`` elements."""

    rank: int = 8
    lr: float = 1e-2
    scale: float = 1.0
    epochs: int = 1
    length: int = 2048
    rows: int = 32
    chunk: int | None = 1024
    least: int = 1024
    seed: int = 0
    by_document: bool = True
    _model: ModelHandle = field(init=False, repr=False)
    _pairs: list[LowRank] = field(init=False, repr=False, default_factory=list)
    _initial: list[torch.Tensor] = field(init=False, repr=False, default_factory=list)
    _optimizer: torch.optim.Optimizer | None = field(init=False, repr=False, default=None)

    def begin(self, model: ModelHandle) -> None:
        self._model = model
        model.module.requires_grad_(False)
        generator = torch.Generator().manual_seed(self.seed)
        for owner in list(model.module.modules()):
            for key, p in list(owner.named_parameters(recurse=False)):
                if p.ndim == 2 and p.numel() >= self.least and not isinstance(owner, torch.nn.Embedding):
                    pair = LowRank(p, self.rank, self.scale, generator)
                    # Shapes and dtype stay; the check would run the forward on a meta copy for nothing.
                    parametrize.register_parametrization(owner, key, pair, unsafe=True)
                    self._pairs.append(pair)
        # One parameter shared by two owners (tied embeddings) stays shared: each gets its own pair.
        self._initial = [t.detach().clone() for pair in self._pairs for t in (pair.a, pair.b)]
        self._fresh()

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [t for pair in self._pairs for t in (pair.a, pair.b)]

    def _fresh(self) -> None:
        with torch.no_grad():
            for p, value in zip(self._parameters(), self._initial, strict=True):
                p.copy_(value)
        chosen = self._parameters()
        self._optimizer = torch.optim.AdamW(chosen, lr=self.lr, weight_decay=0.0) if chosen else None

    def adapt(self, grant: Grant) -> None:
        if grant.document_ends or self._optimizer is None:
            self._fresh()
            return
        if grant.last:
            return
        for _epoch in range(self.epochs):
            for mine, total in grant.batches(grant.rows(self.length, remainder=True), self.rows):
                self._optimizer.zero_grad(set_to_none=True)
                for inputs, targets in mine:
                    (self._model.loss(inputs, targets) / total).backward()
                grant.reduce_gradients(self._parameters())
                self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> Named:
        return optimizer_tensors(self._optimizer)

    def state(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict() if self._optimizer else {}, "initial": self._initial}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._initial = list(state["initial"])
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
