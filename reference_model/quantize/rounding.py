"""Rounding a matrix to a grid: scales per row, and the ways to choose them.

A row's scale is ``clip / clip_range``: weights beyond the clip saturate, weights inside it are rounded to the
nearest step. A wide clip wastes resolution on outliers, a narrow one cuts them; the searches below trade the two.
Scales are half precision *before* the codes are computed, so that the codes answer to the scale that is stored.

All functions take weights of shape (rows, columns), float32, on any device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: The percentile set of the early records: five clips per row, best squared error wins.
PERCENTILES_WIDE = (0.999, 0.9995, 0.9999, 0.99999, 1.0)
#: The tighter set of the "GPTQ-lite" records.
PERCENTILES_TIGHT = (0.9999, 0.99995, 0.99999, 0.999995, 1.0)
PERCENTILE_SETS = {"wide": PERCENTILES_WIDE, "tight": PERCENTILES_TIGHT}

_SMALLEST = 2.0**-24  # the smallest positive half: a scale may not become zero


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """``codes`` int8 (rows, columns), ``scales`` float16 (rows,)."""

    codes: torch.Tensor
    scales: torch.Tensor

    def dense(self) -> torch.Tensor:
        return self.codes.float() * self.scales.float()[:, None]


def half_scales(clips: torch.Tensor, clip_range: int) -> torch.Tensor:
    """Half-precision scales for the given clips; a row of zeros gets the smallest one."""
    return (clips.float() / clip_range).clamp(_SMALLEST, 65504.0).half()


def to_grid(weight: torch.Tensor, scales: torch.Tensor, clip_range: int) -> torch.Tensor:
    """Nearest codes under the given half-precision scales, as float32 integers."""
    return torch.round(weight / scales.float()[:, None]).clamp_(-clip_range, clip_range)


def round_to_nearest(weight: torch.Tensor, scales: torch.Tensor, clip_range: int) -> Rounded:
    return Rounded(codes=to_grid(weight, scales, clip_range).to(torch.int8), scales=scales)


def row_quantiles(magnitude: torch.Tensor, fractions: tuple[float, ...]) -> torch.Tensor:
    """(len(fractions), rows): linear-interpolated quantiles of each row, without torch.quantile's size limit."""
    ordered = magnitude.sort(dim=1).values
    last = magnitude.shape[1] - 1
    found = []
    for fraction in fractions:
        position = fraction * last
        low = min(int(position), last)
        high = min(low + 1, last)
        found.append(torch.lerp(ordered[:, low], ordered[:, high], position - low))
    return torch.stack(found)


def _row_errors(
    weight: torch.Tensor, scales: torch.Tensor, clip_range: int, importance: torch.Tensor | None
) -> torch.Tensor:
    error = (weight - to_grid(weight, scales, clip_range) * scales.float()[:, None]).square_()
    return error.sum(dim=1) if importance is None else error @ importance


def _best_of(
    weight: torch.Tensor, candidates: list[torch.Tensor], clip_range: int, importance: torch.Tensor | None
) -> torch.Tensor:
    best_error = torch.full((weight.shape[0],), float("inf"), device=weight.device)
    best = candidates[0].clone()
    for scales in candidates:
        error = _row_errors(weight, scales, clip_range, importance)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better, scales, best)
    return best


def percentile_scales(
    weight: torch.Tensor,
    clip_range: int,
    fractions: tuple[float, ...] = PERCENTILES_WIDE,
    importance: torch.Tensor | None = None,
) -> torch.Tensor:
    """Per row the percentile clip of least squared error (weighted by ``importance`` (columns,) if given)."""
    clips = row_quantiles(weight.abs(), fractions)
    return _best_of(weight, [half_scales(clip, clip_range) for clip in clips], clip_range, importance)


#: Share of a row's largest magnitude at which the coarse search clips.
GRID_SHARES = tuple(1.0 - 0.025 * step for step in range(26))


def grid_scales(
    weight: torch.Tensor, clip_range: int, importance: torch.Tensor | None = None
) -> torch.Tensor:
    """Per row the best of 26 clips, evenly spaced from the largest magnitude down to 0.375 of it.

    Nearly as good as ``exact_scales`` at a thousandth of its memory; for whole models on a GPU.
    """
    top = weight.abs().amax(dim=1)
    return _best_of(
        weight, [half_scales(top * share, clip_range) for share in GRID_SHARES], clip_range, importance
    )


def _halves_around(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest half <= value and the smallest half >= value, as float64 (value positive, in range)."""
    near = value.half()
    bits = near.view(torch.int16).to(torch.int32)
    below = torch.where(near.double() > value, bits - 1, bits).clamp(1, 0x7BFF)
    above = torch.where(near.double() < value, bits + 1, bits).clamp(1, 0x7BFF)
    return (
        below.to(torch.int16).view(torch.float16).double(),
        above.to(torch.int16).view(torch.float16).double(),
    )


def exact_scales(
    weight: torch.Tensor, clip_range: int, importance: torch.Tensor | None = None, chunk: int = 1 << 22
) -> torch.Tensor:
    """Per row the half-precision scale of least (weighted) squared error; exact, not a grid of guesses.

    As the scale s falls from infinity, weight w moves from code k to k + 1 at s = |w| / (k + 1/2). Between
    two such points the codes q stay, and the error is the parabola sum(w^2) - 2 s B + s^2 A with
    A = sum(q^2), B = sum(|w| q). So: sort all points of a row, run A and B along as cumulative sums, and on
    each stretch take the half-precision value nearest to the parabola's vertex B / A that lies on it.
    """
    rows, columns = weight.shape
    mass = (
        torch.ones(columns, dtype=torch.float64, device=weight.device)
        if importance is None
        else importance.double()
    )
    steps = torch.arange(clip_range, dtype=torch.float64, device=weight.device)
    best = torch.empty(rows, dtype=torch.float16, device=weight.device)
    per = max(1, chunk // (columns * clip_range))
    for start in range(0, rows, per):
        magnitude = weight[start : start + per].abs().double()
        count = magnitude.shape[0]
        points = (magnitude[:, :, None] / (steps + 0.5)).reshape(count, -1)
        points, order = points.sort(dim=1, descending=True)
        square_gain = (mass[:, None] * (2 * steps + 1)).reshape(-1)
        product_gain = ((mass * magnitude)[:, :, None]).expand(-1, -1, clip_range).reshape(count, -1)
        a = square_gain[order].cumsum(dim=1)
        b = product_gain.gather(1, order).cumsum(dim=1)
        lower = torch.cat([points[:, 1:], torch.zeros_like(points[:, :1])], dim=1)
        vertex = (b / a.clamp_min(1e-300)).minimum(points).maximum(lower).clamp(_SMALLEST, 65504.0)
        found = torch.full((count,), float("inf"), dtype=torch.float64, device=weight.device)
        scale = torch.full((count,), _SMALLEST, dtype=torch.float64, device=weight.device)
        for candidate in _halves_around(vertex):
            gain = candidate * candidate * a - 2 * candidate * b
            gain = torch.where((candidate <= points) & (candidate >= lower), gain, torch.inf)
            value, place = gain.min(dim=1)
            better = value < found
            found = torch.where(better, value, found)
            scale = torch.where(better, candidate.gather(1, place[:, None])[:, 0], scale)
        best[start : start + per] = scale.half()
    return best


def deviation_scales(weight: torch.Tensor, clip_range: int, deviations: float) -> torch.Tensor:
    """Clip at ``deviations`` standard deviations of the row: steps follow the spread, not the outliers."""
    return half_scales(deviations * weight.square().mean(dim=1).sqrt(), clip_range)
