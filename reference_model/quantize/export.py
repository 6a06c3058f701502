"""From a state dict to the records of an artifact, by round-to-nearest under a chosen clip search.

The Hessian-weighted methods live in ``gptq`` and ``rate``; they fill the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from audit.contracts import InputError
from harness.artifact.grids import Record, clip_range, float_record, integer_grid, quantized_record
from reference_model.quantize.policy import Policy, as_matrix, tensor_class
from reference_model.quantize.rounding import (
    PERCENTILE_SETS,
    Rounded,
    deviation_scales,
    exact_scales,
    half_scales,
    percentile_scales,
    round_to_nearest,
)

#: Chooses half-precision scales for a matrix: (weight, clip_range) -> (rows,).
ScaleSearch = Callable[[torch.Tensor, int], torch.Tensor]


def scale_search(name: str) -> ScaleSearch:
    """``max``, ``wide``, ``tight`` (percentile sets), ``exact``, or ``std:K`` (clip at K standard deviations)."""
    if name == "max":
        return lambda weight, clip: half_scales(weight.abs().amax(dim=1), clip)
    if name in PERCENTILE_SETS:
        return lambda weight, clip: percentile_scales(weight, clip, PERCENTILE_SETS[name])
    if name == "exact":
        return exact_scales
    kind, _, value = name.partition(":")
    if kind == "std":
        try:
            deviations = float(value)
        except ValueError:
            deviations = 0.0
        if deviations > 0:
            return lambda weight, clip: deviation_scales(weight, clip, deviations)
    raise InputError(f"unknown clip search {name!r}; known: max, wide, tight, exact, std:K with K > 0")


def record_of(name: str, tensor: torch.Tensor, rounded: Rounded, grid: str) -> Record:
    return quantized_record(
        name, tuple(tensor.shape), grid, rounded.codes.cpu().numpy(), rounded.scales.cpu().numpy()
    )


def control_record(name: str, tensor: torch.Tensor, grid: str) -> Record:
    """A control tensor; one whose values exceed half precision is kept as fp32."""
    dense = tensor.float().cpu().numpy()
    if grid == "fp16" and tensor.numel() and float(tensor.abs().max()) > 65504.0:
        grid = "fp32"
    return float_record(name, dense, grid)


def export_rtn(
    state: Mapping[str, torch.Tensor],
    policy: Policy,
    clip: str = "wide",
    progress: Callable[[str], None] = lambda name: None,
) -> list[Record]:
    """Round-to-nearest records of a whole state dict."""
    search = scale_search(clip)
    records = []
    for name, tensor in state.items():
        kind = tensor_class(name, tuple(tensor.shape))
        progress(name)
        if kind == "control":
            records.append(control_record(name, tensor, policy.control))
            continue
        grid = integer_grid(policy.bits_of(kind))
        matrix = as_matrix(tensor).float()
        if not torch.isfinite(matrix).all():
            raise InputError(f"tensor {name} holds values that are not finite; the checkpoint is broken")
        scales = search(matrix, clip_range(grid))
        records.append(record_of(name, tensor, round_to_nearest(matrix, scales, clip_range(grid)), grid))
    return records
