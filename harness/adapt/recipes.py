"""The adaptation recipes. Each is a small class with the same four methods.

``begin(model)`` chooses parameters and builds optimizers before any token is seen; ``adapt(grant)`` runs
after a chunk's scores are committed; ``tensors()`` names the optimizer state for the ledger; and
``state()``/``restore(state)`` let an interrupted run continue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from harness.adapt.grant import Grant, ModelHandle
from harness.adapt.select import Discriminative, Schedule, blocks, constant

Named = list[tuple[str, torch.Tensor]]


class Adaptation(Protocol):
    """``chunk``: targets per chunk, None for one chunk; ``by_document``: chunks end at documents."""

    @property
    def chunk(self) -> int | None: ...
    @property
    def by_document(self) -> bool: ...

    def begin(self, model: ModelHandle) -> None: ...
    def adapt(self, grant: Grant) -> None: ...
    def tensors(self) -> Named: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


def optimizer_tensors(optimizer: torch.optim.Optimizer | None) -> Named:
    """The tensors of an optimizer's state, named ``opt:<parameter index>.<key>``."""
    if optimizer is None:
        return []
    order = [p for g in optimizer.param_groups for p in g["params"]]
    return [
        (f"opt:{i}.{key}", value)
        for i, p in enumerate(order)
        for key, value in optimizer.state.get(p, {}).items()
        if isinstance(value, torch.Tensor)
    ]


class NoAdaptation:
    """Scores only. Chunks are then mere units of commitment."""

    by_document = False

    def __init__(self, chunk: int | None = 65_536) -> None:
        self.chunk = chunk

    def begin(self, model: ModelHandle) -> None:
        model.module.requires_grad_(False)

    def adapt(self, grant: Grant) -> None:
        pass

    def tensors(self) -> Named:
        return []

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


@dataclass(kw_only=True)
class ChunkTTT:
    """Score-first training on each scored chunk: ``epochs`` passes in batches of ``rows`` sequences.

    With SGD and the defaults this is the recipe of PR 461 and PR 726; with AdamW, 5 epochs and
    `LastBlocks` that of PR 1171. ``make(groups)`` builds the optimizer.
    """

    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    lr: float
    select: Callable[[list[tuple[str, torch.nn.Parameter]]], list[tuple[str, torch.nn.Parameter]]] = list
    rates: Discriminative | None = None
    schedule: Schedule = constant
    epochs: int = 3
    length: int = 2048
    rows: int = 32
    clip: float | None = 1.0
    chunk: int | None = 32_768
    by_document: bool = False
    _model: ModelHandle = field(init=False, repr=False)
    _parameters: list[torch.nn.Parameter] = field(init=False, repr=False, default_factory=list)
    _optimizer: torch.optim.Optimizer | None = field(init=False, repr=False, default=None)

    def begin(self, model: ModelHandle) -> None:
        self._model = model
        model.module.requires_grad_(False)
        everything = list(model.module.named_parameters())
        chosen = self.select(everything)
        depth = blocks([n for n, _p in everything])
        by_rate: dict[float, list[torch.nn.Parameter]] = {}
        for name, p in chosen:
            if p.is_floating_point():
                p.requires_grad_(True)
                by_rate.setdefault(self.rates(name, depth) if self.rates else 1.0, []).append(p)
        groups = [{"params": ps, "lr": self.lr * f, "factor": f} for f, ps in by_rate.items()]
        self._parameters = [p for ps in by_rate.values() for p in ps]
        self._optimizer = self.make(groups) if groups else None

    def adapt(self, grant: Grant) -> None:
        if not grant.last:
            self.train_on(grant, grant.rows(self.length), self.schedule(grant.chunk, grant.chunks))

    def train_on(self, grant: Grant, pairs: list[tuple[torch.Tensor, torch.Tensor]], factor: float) -> None:
        """``epochs`` passes over rows of scored tokens at ``lr * factor``."""
        if self._optimizer is None:
            return
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * group["factor"] * factor
        for _epoch in range(self.epochs):
            for mine, total in grant.batches(pairs, self.rows):
                self._optimizer.zero_grad(set_to_none=True)
                for inputs, targets in mine:
                    (self._model.loss(inputs, targets) / total).backward()
                grant.reduce_gradients(self._parameters)
                if self.clip is not None:
                    torch.nn.utils.clip_grad_norm_(self._parameters, self.clip)
                self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> Named:
        return optimizer_tensors(self._optimizer)

    def state(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict() if self._optimizer else {}}

    def restore(self, state: Mapping[str, Any]) -> None:
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])


@dataclass(kw_only=True)
class PeriodicReset:
    """Returns to the artifact's own parameters every ``every`` chunks (icryo: 50 or 100), else as ``inner``."""

    inner: ChunkTTT
    every: int = 50
    _initial: dict[str, torch.Tensor] = field(init=False, repr=False, default_factory=dict)

    @property
    def chunk(self) -> int | None:
        return self.inner.chunk

    @property
    def by_document(self) -> bool:
        return self.inner.by_document

    def begin(self, model: ModelHandle) -> None:
        self._initial = {n: p.detach().clone() for n, p in model.module.named_parameters()}
        self.inner.begin(model)

    def adapt(self, grant: Grant) -> None:
        if (grant.chunk + 1) % self.every == 0:
            with torch.no_grad():
                for name, p in self.inner._model.module.named_parameters():
                    p.copy_(self._initial[name])
            if self.inner._optimizer is not None:
                self.inner._optimizer.state.clear()
        else:
            self.inner.adapt(grant)

    def tensors(self) -> Named:
        return self.inner.tensors()

    def state(self) -> dict[str, Any]:
        return {"inner": self.inner.state(), "initial": self._initial}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.inner.restore(state["inner"])
        self._initial = dict(state["initial"])


@dataclass(kw_only=True)
class Phased:
    """A global update after every ``documents`` fully scored documents, on exactly those (PR 1610, PR 1626)."""

    inner: ChunkTTT
    documents: int = 50
    _waiting: list[tuple[int, int]] = field(init=False, default_factory=list)

    by_document = True

    @property
    def chunk(self) -> int | None:
        return self.inner.chunk

    def begin(self, model: ModelHandle) -> None:
        self.inner.begin(model)

    def adapt(self, grant: Grant) -> None:
        self._waiting += grant.finished
        if len(self._waiting) < self.documents or grant.last:
            return
        pairs = [p for span in self._waiting for p in grant.rows(self.inner.length, span, remainder=True)]
        self._waiting = []
        self.inner.train_on(grant, pairs, self.inner.schedule(grant.chunk, grant.chunks))

    def tensors(self) -> Named:
        return self.inner.tensors()

    def state(self) -> dict[str, Any]:
        return {"inner": self.inner.state(), "waiting": [list(s) for s in self._waiting]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.inner.restore(state["inner"])
        self._waiting = [(int(a), int(b)) for a, b in state["waiting"]]
