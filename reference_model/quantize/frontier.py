"""The curve of artifact bytes against bits per byte of one checkpoint, with the submissions' methods as points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from harness.artifact.container import to_bytes
from harness.artifact.grids import Record
from reference_model.quantize.export import State, export_rate
from reference_model.quantize.hessian import Hessians
from reference_model.quantize.methods import SUBMISSIONS, HessiansOf, Method, apply, file_bytes
from reference_model.quantize.policy import Policy
from reference_model.quantize.rate import RateOptions

#: Bits per byte of a dequantized state dict.
Measure = Callable[[Mapping[str, np.ndarray]], float]
#: Steps of the rate method, half an octave apart, from coarse to fine.
STEPS = tuple(2.0 ** (-11 - 0.5 * i) for i in range(13))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """``kind``: "submission" or "rate". ``loss``: bits per byte above the unquantized model."""

    name: str
    kind: str
    bytes: int
    bits_per_byte: float
    loss: float
    note: str = ""
    step: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def dense(records: Sequence[Record]) -> dict[str, np.ndarray]:
    return {record.name: record.dequantize() for record in records}


def submission_points(
    state: State,
    hessians_of: HessiansOf,
    measure: Measure,
    exact: float,
    methods: Sequence[Method] = SUBMISSIONS,
    config: Mapping[str, Any] | None = None,
) -> Iterator[Point]:
    """One point per method; ``exact`` is the unquantized model's bits per byte."""
    for method in methods:
        records, _ = apply(method, state, hessians_of)
        found = measure(dense(records))
        size = file_bytes(records, method.compressor, config=config)
        yield Point(
            name=method.name,
            kind="submission",
            bytes=size,
            bits_per_byte=found,
            loss=found - exact,
            note=method.source,
        )


def rate_records(state: State, hessians: Hessians, step: float, **options: Any) -> list[Record]:
    return export_rate(state, Policy(), hessians, RateOptions(step=step, **options))[0]


def rate_points(
    state: State,
    hessians: Hessians,
    measure: Measure,
    exact: float,
    steps: Sequence[float] = STEPS,
    config: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Point]:
    """The curve of the rate method, one point per step."""
    for step in steps:
        records = rate_records(state, hessians, step, **options)
        data, _ = to_bytes(family="golf", config=config or {}, tensors=records, compressor="rows")
        found = measure(dense(records))
        yield Point(
            name=f"step {step:.3g}",
            kind="rate",
            bytes=len(data),
            bits_per_byte=found,
            loss=found - exact,
            step=step,
        )


def dominating(points: Sequence[Point], against: Point) -> list[Point]:
    """Points with no more bytes and no more bits per byte."""
    return [p for p in points if p.bytes <= against.bytes and p.bits_per_byte <= against.bits_per_byte]


def bytes_at(points: Sequence[Point], bits_per_byte: float) -> float | None:
    """Bytes at which the curve reaches a figure, interpolated between neighbours; None where it never does.

    The curve is made monotone first: a point that another one dominates is no part of it.
    """
    kept = [p for p in points if not any(q is not p and q in dominating(points, p) for q in points)]
    kept.sort(key=lambda p: p.bytes)
    if not kept or kept[-1].bits_per_byte > bits_per_byte:
        return None
    if kept[0].bits_per_byte <= bits_per_byte:
        return float(kept[0].bytes)
    for small, large in itertools.pairwise(kept):
        if large.bits_per_byte <= bits_per_byte:
            share = (small.bits_per_byte - bits_per_byte) / (small.bits_per_byte - large.bits_per_byte)
            return small.bytes + share * (large.bytes - small.bytes)
    return None


def on(device: torch.device | str, state: State) -> dict[str, torch.Tensor]:
    """A float32 copy of a state dict on a device."""
    return {name: tensor.detach().float().to(device) for name, tensor in state.items()}
