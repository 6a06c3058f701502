"""The protocol of an evaluator that can be probed: a function from model and stream to scores.

The evaluator owns its loop (that is what is on trial); the prober owns the stream, the model's weights and the
clock. A probe only ever compares answers: it looks neither at the evaluator's code nor at anything it says
about itself beyond its report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How to evaluate: windows of ``context`` inputs, ``stride`` targets each, adaptation after ``chunk`` targets.

    ``batch``: windows per forward pass. ``world``: ranks among which the windows of a chunk are split.
    """

    context: int = 32
    stride: int = 8
    chunk: int = 64
    batch: int = 8
    world: int = 1
    vocab: int = 24
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an evaluator answers. ``nll``: nats per target (T,); the rest is its own account of them."""

    nll: np.ndarray
    nats: float
    targets: int
    bytes: int
    bits_per_byte: float
    seconds: float


class Evaluator(Protocol):
    """``model()`` builds a fresh model from the artifact; ``tokens`` (T + 1,), ``target_bytes`` (T,)."""

    def __call__(
        self, model: Callable[[], torch.nn.Module], tokens: np.ndarray, target_bytes: np.ndarray, setting: Setting
    ) -> Report: ...
