"""Where calibration text may come from; each source is a small class that yields batches of token ids.

Calibration decides how errors are weighed, so it is part of training in the contest's eyes. Four sources are
legal: training tokens that were held out (inside the training clock), text the model writes itself, uniform
random tokens, and Hessians that were accumulated during training (``hessian.OnlineHessians``). Validation
tokens are none of them, and there is no way to pass them: a source takes no raw tokens, only a ``TrainTokens``,
which can be made from the shards of a training split and from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from audit.contracts import InputError
from harness.tokens.shards import ShardSet


class CalibrationSource(Protocol):
    """Yields batches of ids (B, T), int64 on the CPU. ``describe`` goes into the artifact's recipe."""

    def batches(self) -> Iterator[torch.Tensor]: ...

    def describe(self) -> dict[str, Any]: ...


class TrainTokens:
    """Tokens of a training split. The only way in is a ``ShardSet`` whose split is ``train``."""

    __slots__ = ("digest", "tokens")

    def __init__(self, shards: ShardSet) -> None:
        if not isinstance(shards, ShardSet):
            raise TypeError(
                f"TrainTokens takes a ShardSet of the training split, not {type(shards).__name__}"
            )
        if shards.split != "train" or any(
            "_val_" in path.name or path.name.startswith("val_") for path in shards.paths
        ):
            raise InputError(
                "calibration on validation tokens is forbidden; give the shards of the training split"
            )
        self.tokens = shards.tokens()
        self.digest = shards.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The last ``sequences`` x ``length`` tokens of the training split, which training should not have used."""

    train: TrainTokens
    sequences: int = 64
    length: int = 1024
    batch: int = 8

    def batches(self) -> Iterator[torch.Tensor]:
        if not isinstance(self.train, TrainTokens):
            raise TypeError("HeldOut takes TrainTokens, so that validation tokens cannot be passed")
        count = min(self.sequences, self.train.tokens.size // self.length)
        if count < 1:
            raise InputError(f"the training split has no {self.length} tokens to calibrate on")
        tail = (
            np.asarray(self.train.tokens[-count * self.length :]).astype(np.int64).reshape(count, self.length)
        )
        for start in range(0, count, self.batch):
            yield torch.from_numpy(tail[start : start + self.batch])

    def describe(self) -> dict[str, Any]:
        return {
            "source": "held-out training tokens",
            "sequences": self.sequences,
            "length": self.length,
            "train_digest": self.train.digest,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformRandom:
    """Uniformly random tokens: no data at all, and the worst picture of real inputs."""

    vocab: int
    sequences: int = 64
    length: int = 1024
    batch: int = 8
    seed: int = 0

    def batches(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        for start in range(0, self.sequences, self.batch):
            count = min(self.batch, self.sequences - start)
            yield torch.randint(0, self.vocab, (count, self.length), generator=generator)

    def describe(self) -> dict[str, Any]:
        return {
            "source": "uniform random tokens",
            "sequences": self.sequences,
            "length": self.length,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfGenerated:
    """Text that the model writes itself, token by token from its own samples, starting from ``bos``.

    Really autoregressive: each token is drawn from the model's distribution given all drawn before it (the
    last ``window`` of them), at the given temperature. Filling a sequence with random ids is not this.
    """

    model: Any = field(repr=False)
    bos: int = 1
    sequences: int = 16
    length: int = 256
    batch: int = 16
    temperature: float = 0.8
    window: int = 256
    seed: int = 0

    def batches(self) -> Iterator[torch.Tensor]:
        if self.temperature <= 0:
            raise InputError("the temperature of self-generated text must be positive")
        device = next(self.model.parameters()).device
        generator = torch.Generator().manual_seed(self.seed)
        for start in range(0, self.sequences, self.batch):
            ids = torch.full((min(self.batch, self.sequences - start), 1), self.bos, dtype=torch.long)
            while ids.shape[1] < self.length:
                with torch.no_grad():
                    logits = self.model.forward_logits(ids[:, -self.window :].to(device), last=1)[:, -1]
                odds = torch.softmax(logits.float() / self.temperature, dim=-1).cpu()
                ids = torch.cat([ids, torch.multinomial(odds, 1, generator=generator)], dim=1)
            yield ids

    def describe(self) -> dict[str, Any]:
        return {
            "source": "self-generated text",
            "sequences": self.sequences,
            "length": self.length,
            "temperature": self.temperature,
            "seed": self.seed,
        }
