"""Where calibration text may come from; each source is a small class that yields batches of token ids.

Calibration decides how errors are weighed, so it is part of training in the contest's eyes (rule F1). Four sources
are legal: training tokens that were held out (inside the training clock), text the model writes itself, uniform
random tokens, and Hessians that were accumulated during training (``hessian.OnlineHessians``).

Validation tokens are none of them, and there is no way to pass them: ``hessian.collect`` takes a ``Source``, no
tensors; a ``Source`` takes no raw tokens, only a ``TrainTokens``; and that is made from the shards of a training
split and from nothing else. Tokens of the evaluator's stream carry their positions, which ``collect`` refuses too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from audit.contracts import InputError
from harness.tokens.shards import ShardSet


class TrainTokens:
    """Tokens of a training split. The only way in is a ``ShardSet`` whose split is ``train``.

    Raises ``TypeError`` for anything else and ``InputError`` for files that are named as validation shards.
    """

    __slots__ = ("__digest", "__shards", "__tokens")

    def __init__(self, shards: ShardSet) -> None:
        if not isinstance(shards, ShardSet):
            raise TypeError(
                f"TrainTokens takes a ShardSet of the training split, not {type(shards).__name__}"
            )
        named = any("_val_" in path.name or path.name.startswith("val_") for path in shards.paths)
        if shards.split != "train" or named:
            raise InputError(
                "calibration on validation tokens is forbidden; give the shards of the training split"
            )
        self.__tokens = shards.tokens()
        self.__digest: str | None = None
        self.__shards = shards

    @property
    def tokens(self) -> np.ndarray:
        """The stream, uint16 of shape (N,)."""
        return self.__tokens

    @property
    def digest(self) -> str:
        """SHA-256 of the shards, as in ``ShardSet.digest``."""
        if self.__digest is None:
            self.__digest = self.__shards.digest()
        return self.__digest


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"calibration: {name} must be at least 1, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The last ``sequences`` x ``length`` tokens of the training split, which training should not have used."""

    train: TrainTokens
    sequences: int = 64
    length: int = 1024
    batch: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.train, TrainTokens):
            raise TypeError("HeldOut takes TrainTokens, so that validation tokens cannot be passed")
        _positive(sequences=self.sequences, length=self.length, batch=self.batch)

    def batches(self) -> Iterator[torch.Tensor]:
        """Ids (B, T), int64 on the CPU. Raises ``InputError`` when the split is shorter than one sequence."""
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

    def __post_init__(self) -> None:
        _positive(vocab=self.vocab, sequences=self.sequences, length=self.length, batch=self.batch)

    def batches(self) -> Iterator[torch.Tensor]:
        """Ids (B, T), int64 on the CPU."""
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

    def __post_init__(self) -> None:
        _positive(sequences=self.sequences, length=self.length, batch=self.batch, window=self.window)
        if not 0 < self.temperature < float("inf"):
            raise InputError("the temperature of self-generated text must be positive")

    def batches(self) -> Iterator[torch.Tensor]:
        """Ids (B, T), int64 on the CPU; the first of each sequence is ``bos``."""
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


#: Every kind of source that Hessians may be collected from.
Source = HeldOut | UniformRandom | SelfGenerated
