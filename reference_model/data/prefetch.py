"""Moves batches to the device, one ahead of the step that needs them.

On a GPU the copy runs on a stream of its own out of pinned memory while the current step computes; the
training stream waits for the copy's event, never the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference_model.data.loader import Batch


def widen(tokens: Tensor) -> Tensor:
    """int16 bit patterns of uint16 tokens -> int64. Few GPU kernels know uint16."""
    return tokens.to(torch.int64) & 0xFFFF


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yields ((rows, T + 1) int64 on ``device``, sampler state after the batch)."""
    source = iter(batches)
    if device.type != "cuda":
        for batch in source:
            yield widen(torch.from_numpy(batch.tokens.view(np.int16))), batch.state
        return
    stream = torch.cuda.Stream(device)

    def send(batch: Batch) -> tuple[Tensor, torch.cuda.Event, dict[str, Any], Tensor]:
        pinned = torch.from_numpy(batch.tokens.view(np.int16)).pin_memory()
        with torch.cuda.stream(stream):
            there = widen(pinned.to(device, non_blocking=True))
            arrived = torch.cuda.Event()
            arrived.record(stream)
        return there, arrived, batch.state, pinned  # the pinned source must outlive the copy

    coming = send(next(source))
    while True:
        tokens, arrived, state, _source = coming
        torch.cuda.current_stream(device).wait_event(arrived)
        tokens.record_stream(torch.cuda.current_stream(device))
        coming = send(next(source))
        yield tokens, state
