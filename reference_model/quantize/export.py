"""From a state dict to the records of an artifact: plain rounding, GPTQ, or rate against distortion."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from audit.contracts import InputError
from harness.artifact.grids import (
    INTEGER_GRIDS,
    Record,
    clip_range,
    float_record,
    integer_grid,
    quantized_record,
)
from reference_model.quantize.compensate import GptqOptions, LayerLog, ScaleSearch, compensate
from reference_model.quantize.hessian import Hessians
from reference_model.quantize.policy import Policy, as_matrix, tensor_class
from reference_model.quantize.rate import Coded, RateOptions
from reference_model.quantize.rate import quantize as quantize_for_rate
from reference_model.quantize.rounding import (
    PERCENTILE_SETS,
    Rounded,
    deviation_scales,
    exact_scales,
    grid_scales,
    half_scales,
    percentile_scales,
    round_to_nearest,
)

State = Mapping[str, torch.Tensor]


def scale_search(name: str) -> ScaleSearch:
    """The clip search of a name.

    ``max``, ``wide`` and ``tight`` (percentile sets), ``grid`` (26 clips), ``exact``, or ``std:K`` (clip at K
    standard deviations; like ``max`` it has nothing to weigh). Raises ``InputError`` for any other.
    """
    if name == "max":
        return lambda weight, clip, importance: half_scales(weight.abs().amax(dim=1), clip)
    if name in PERCENTILE_SETS:
        return lambda weight, clip, importance: percentile_scales(
            weight, clip, PERCENTILE_SETS[name], importance
        )
    if name == "grid":
        return grid_scales
    if name == "exact":
        return exact_scales
    kind, _, value = name.partition(":")
    if kind == "std":
        try:
            deviations = float(value)
        except ValueError:
            deviations = 0.0
        if 0 < deviations < float("inf"):
            return lambda weight, clip, importance: deviation_scales(weight, clip, deviations)
    raise InputError(f"unknown clip search {name!r}; known: max, wide, tight, grid, exact, std:K with K > 0")


def record_of(name: str, tensor: torch.Tensor, rounded: Rounded, grid: str) -> Record:
    """A record from the codes and scales of plain rounding or GPTQ."""
    return quantized_record(
        name, tuple(tensor.shape), grid, rounded.codes.cpu().numpy(), rounded.scales.cpu().numpy()
    )


def narrowest_grid(largest: int) -> str:
    """The narrowest integer grid that holds codes up to this magnitude."""
    return next(name for name, clip in INTEGER_GRIDS.items() if clip >= largest)


def coded_record(name: str, tensor: torch.Tensor, coded: Coded) -> Record:
    """A record from codes with column factors, on the narrowest grid that holds them."""
    grid = narrowest_grid(int(coded.codes.abs().max()) if coded.codes.numel() else 0)
    plain = bool((coded.columns == 1).all())
    return quantized_record(
        name, tuple(tensor.shape), grid, coded.codes.cpu().numpy(), coded.scales.cpu().numpy(),
        column_factors=None if plain else coded.columns.cpu().numpy(),
    )  # fmt: skip


def control_record(name: str, tensor: torch.Tensor, grid: str) -> Record:
    """A control tensor; one whose values exceed half precision is kept as fp32."""
    dense = tensor.float().cpu().numpy()
    if grid == "fp16" and tensor.numel() and float(tensor.abs().max()) > 65504.0:
        grid = "fp32"
    return float_record(name, dense, grid)


def matrices(state: State) -> dict[str, torch.Tensor]:
    """What gets quantized, as (rows, columns) float32. Raises ``InputError`` for values that are not finite."""
    found = {}
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"tensor {name} holds values that are not finite; the checkpoint is broken")
        if tensor_class(name, tuple(tensor.shape)) != "control":
            found[name] = as_matrix(tensor).float()
    return found


def _assemble(
    state: State, policy: Policy, done: Mapping[str, Record], search: ScaleSearch | None
) -> list[Record]:
    """All tensors in the state's order; what no method has done is rounded plainly or kept in floating point."""
    records = []
    for name, tensor in state.items():
        if name in done:
            records.append(done[name])
            continue
        kind = tensor_class(name, tuple(tensor.shape))
        if kind == "control" or search is None:
            records.append(control_record(name, tensor, policy.control))
            continue
        grid = integer_grid(policy.bits_of(kind))
        matrix = as_matrix(tensor).float()
        rounded = round_to_nearest(matrix, search(matrix, clip_range(grid), None), clip_range(grid))
        records.append(record_of(name, tensor, rounded, grid))
    return records


def export_rtn(state: State, policy: Policy, clip: str = "wide") -> list[Record]:
    """Round-to-nearest records of a whole state dict."""
    matrices(state)
    return _assemble(state, policy, {}, scale_search(clip))


def export_gptq(
    state: State,
    policy: Policy,
    hessians: Hessians,
    clip: str = "grid",
    options: GptqOptions | None = None,
    *,
    tables: bool = False,
    progress: Callable[[LayerLog], None] = lambda log: None,
) -> tuple[list[Record], list[LayerLog]]:
    """GPTQ of every matrix with a Hessian; lookup tables are rounded plainly unless ``tables``."""

    def grid_of(name: str) -> str:
        return integer_grid(policy.bits_of(tensor_class(name, tuple(state[name].shape))))

    chosen = {
        name: matrix
        for name, matrix in matrices(state).items()
        if name in hessians.inputs and (tables or tensor_class(name, tuple(state[name].shape)) != "embedding")
    }
    solved = compensate(
        chosen, hessians.inputs, lambda name: clip_range(grid_of(name)), scale_search(clip), options, progress
    )
    done = {name: record_of(name, state[name], s.rounded, grid_of(name)) for name, s in solved.items()}
    return _assemble(state, policy, done, scale_search(clip)), [s.log for s in solved.values()]


def export_rate(
    state: State,
    policy: Policy,
    hessians: Hessians,
    options: RateOptions,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[list[Record], dict[str, Coded]]:
    """Every matrix with a Hessian and row weights by ``rate``; others by plain rounding at 8 bits."""
    chosen = {
        name: m for name, m in matrices(state).items() if name in hessians.inputs and name in hessians.rows
    }
    coded = quantize_for_rate(chosen, hessians, options, progress)
    done = {name: coded_record(name, state[name], c) for name, c in coded.items()}
    return _assemble(state, Policy(bits=8, control=policy.control), done, scale_search("grid")), coded
