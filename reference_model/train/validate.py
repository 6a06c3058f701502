"""Bits per byte during training: non-overlapping contexts over the start of the validation stream.

This is the quick figure that training prints. What a submission reports comes from the evaluator
(``referee eval``), which owns its own tokens and accumulates in stream order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from audit.contracts import InputError
from harness.metric import bits_per_byte
from harness.tokens.bytes import ByteTable
from harness.tokens.shards import official_trim
from reference_model.model import Golf


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The first ``targets`` validation targets, cut into rows of ``context``."""

    inputs: np.ndarray  # (rows, T) int64
    targets: np.ndarray  # (rows, T) int64
    byte_count: int

    @classmethod
    def of(cls, tokens: np.ndarray, table: ByteTable, context: int, limit: int) -> Validation:
        usable = tokens[: min(len(tokens), max(limit, context) + 1)]
        if len(usable) <= context:
            raise InputError(
                f"validation stream of {len(tokens)} tokens is shorter than one context of {context}"
            )
        stream = official_trim(usable, context).astype(np.int64)
        rows = stream[:-1].reshape(-1, context), stream[1:].reshape(-1, context)
        return cls(inputs=rows[0], targets=rows[1], byte_count=int(table.target_bytes(*rows).sum()))

    @property
    def bpb_per_nat(self) -> float:
        """Bits per byte for each nat per target, at this text's bytes per target."""
        return bits_per_byte(float(self.targets.size), self.byte_count)

    @torch.no_grad()
    def measure(self, model: Golf, batch_tokens: int = 65_536) -> tuple[float, float]:
        """(mean loss in nats per target, bits per byte) of the model as it stands."""
        training = model.training
        model.eval()
        device = model.embed.weight.device
        rows = max(1, batch_tokens // self.inputs.shape[1])
        total = torch.zeros((), dtype=torch.float64, device=device)
        for start in range(0, len(self.inputs), rows):
            x = torch.from_numpy(self.inputs[start : start + rows]).to(device)
            y = torch.from_numpy(self.targets[start : start + rows]).to(device)
            total += model(x, y, reduction="sum").double()
        model.train(training)
        nats = float(total)
        return nats / self.targets.size, bits_per_byte(nats, self.byte_count)
