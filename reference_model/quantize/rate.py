"""Rate against distortion: steps and roundings chosen for the bytes *after* entropy coding.

Fixed-width methods give each row the step that just spans its weights, since every code costs the same. An
entropy coder charges what a code is worth, which turns the question around: where is distortion dear?

* With U the upper Cholesky factor of H^-1, an error of one weight in column i, once compensated, costs
  ``F_r e^2 / U_ii^2`` of loss (F_r: the row's Fisher weight). High-resolution theory (reverse water-filling) wants
  the same cost per weight everywhere, hence the step ``s * U_ii / sqrt(F_r)`` with a single s for the whole model:
  one number draws the whole curve of bytes against loss. The step factors into a row scale and a column factor;
  both are kept to quarters of an octave on a logarithmic grid, where they cost some three bits each.
* Rounding minimises ``(wish - code)^2 + lagrangian * bits(code)`` in squared steps; bits come from the codes'
  own histograms by class of row and column spread, as the coder will see them. The slope that high-resolution
  theory implies is 2 ln 2 / 12 per bit.

Sources: entropy-coded uniform quantizers at high resolution, Gish and Pierce 1968; reverse water-filling, Cover and
Thomas, chapter 10; the compensation is GPTQ's (arXiv:2210.17323).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from audit.contracts import InputError
from reference_model.quantize import gptq
from reference_model.quantize.compensate import batches_of
from reference_model.quantize.hessian import Hessians
from reference_model.quantize.rounding import grid_scales

#: The slope of distortion against rate at which an entropy-coded uniform quantizer runs, in squared steps per bit.
HIGH_RESOLUTION_SLOPE = 2.0 * math.log(2.0) / 12.0
WIDEST = 127
#: How much of the ideal column factors a matrix may take.
COLUMN_POWERS = (1.0, 0.75, 0.5, 0.25, 0.0)
_GRID = 4  # steps of scales per octave
_CLASSES_PER_OCTAVE = 2
_CLASSES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class RateOptions:
    """``step``: s above. ``lagrangian``: squared steps per bit; 0 rounds to nearest.

    ``fisher_floor``: no row counts for less than this share of its matrix's mean Fisher weight.
    ``refine``: passes of coordinate descent after the sweep. ``damping``: as in GPTQ. ``clip``: widest code.
    """

    step: float
    lagrangian: float = HIGH_RESOLUTION_SLOPE
    damping: float = 1e-3
    fisher_floor: float = 0.05
    rounds: int = 2
    refine: int = 1
    block: int = 64
    column_steps: bool = True
    clip: int = WIDEST


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded:
    """``codes`` int8 (R, C), ``scales`` float16 (R,), ``columns`` float16 (C,): weight = product of the three."""

    codes: torch.Tensor
    scales: torch.Tensor
    columns: torch.Tensor
    damping: float
    dead_columns: int
    loss: float  # half the Fisher-weighted layer error: expected nats per token

    def dense(self) -> torch.Tensor:
        return self.codes.float() * self.scales.float()[:, None] * self.columns.float()


def on_log_grid(values: torch.Tensor) -> torch.Tensor:
    """The nearest power of 2^(1/4), as half precision: few distinct values, hence few bytes."""
    exponent = (_GRID * torch.log2(values.double().clamp(2.0**-23, 2.0**15))).round() / _GRID
    return torch.exp2(exponent).half()


def fisher(rows: torch.Tensor, floor: float) -> torch.Tensor:
    """Row weights (B, R), none below ``floor`` times its matrix's mean; ones where nothing is known."""
    mean = rows.mean(dim=1, keepdim=True)
    return torch.where(mean > 0, rows.maximum(floor * mean), torch.ones_like(rows))


def steps_of(
    weight: torch.Tensor, hessian: torch.Tensor, factor: gptq.Factor, rows: torch.Tensor, options: RateOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row scales (B, R) and column factors (B, C) in half precision.

    Column factors widen a row's range of codes, which a grid may not hold; the row's step must then grow. Each
    matrix takes the power of the ideal factors, from all of them to none, at which the expected price of
    distortion and bits together is least.
    """
    diagonal = factor.upper.diagonal(dim1=1, dim2=2)
    own = diagonal.gather(1, factor.order.argsort(dim=1)).clamp_min(1e-30)
    middle = own.log().mean(dim=1, keepdim=True).exp()
    ideal = options.step * own[:, None, :] / rows.sqrt()[:, :, None]
    best: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    # A narrow grid has no range to spare for factors.
    powers = COLUMN_POWERS if options.column_steps and options.clip >= WIDEST else (0.0,)
    for power in powers:
        column = on_log_grid((own / middle) ** power)
        scale = _row_scales(weight, hessian, column.float(), options.step * middle / rows.sqrt(), options)
        share = scale.float()[:, :, None] * column.float()[:, None, :] / ideal
        # Per weight: share^2 / 12 of distortion, -log2(share) bits, at the slope where a share of 1 is best.
        price = (share.square() / 12 - HIGH_RESOLUTION_SLOPE * torch.log2(share)).mean(dim=(1, 2))
        if best is None:
            best = (price, scale, column)
            continue
        better = (price < best[0])[:, None]
        best = (
            torch.minimum(price, best[0]), torch.where(better, scale, best[1]), torch.where(better, column, best[2]),
        )  # fmt: skip
    assert best is not None
    return best[1], best[2]


def _row_scales(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    column: torch.Tensor,
    wanted: torch.Tensor,
    options: RateOptions,
) -> torch.Tensor:
    """The wanted row scales (B, R), grown where a grid's range asks for it."""
    scaled = weight.float() / column[:, None, :]
    if options.clip >= WIDEST:
        # No weight may lie beyond the widest grid.
        floor = scaled.abs().amax(dim=2) / options.clip * 2 ** (0.5 / _GRID)
        return on_log_grid(wanted.maximum(floor).clamp_min(2.0**-23))
    # On a narrow grid outliers are cut where that costs least, and no step is finer than that allows.
    dear = hessian.diagonal(dim1=1, dim2=2) * column.square()
    floor = torch.stack([grid_scales(w, options.clip, d).float() for w, d in zip(scaled, dear, strict=True)])
    return torch.where(wanted > floor, on_log_grid(wanted).float().maximum(floor), floor).half()


class BitTable:
    """What each code costs, by class of row and column spread; learnt from codes (B, R, C)."""

    def __init__(self, codes: torch.Tensor, clip: int) -> None:
        magnitude = codes.abs()
        mean = magnitude.mean(dim=(1, 2), keepdim=True).clamp_min(1e-3)
        row = magnitude.mean(dim=2, keepdim=True).clamp_min(1e-3)
        column = (magnitude / row).mean(dim=1, keepdim=True).clamp_min(1e-3)
        row = (magnitude / column).mean(dim=2, keepdim=True).clamp_min(1e-3)
        level = torch.log2(row * column / mean) * _CLASSES_PER_OCTAVE
        classes = (level.round() + _CLASSES // 2).clamp_(0, _CLASSES - 1).long()
        batch, width = codes.shape[0], 2 * clip + 1
        self.clip = clip
        #: Index of code 0 in the flat table.
        self.base = classes.add_(torch.arange(batch, device=codes.device)[:, None, None] * _CLASSES).mul_(
            width
        )
        self.base += clip
        counts = torch.bincount((self.base + codes.long()).reshape(-1), minlength=batch * _CLASSES * width)
        table = counts.reshape(batch, _CLASSES, width).double()
        # Each class leans on its neighbours in magnitude: an unseen code is dear, not impossible.
        smooth = torch.nn.functional.avg_pool1d(table.reshape(-1, 1, width), 5, 1, 2, count_include_pad=False)
        table = table + 0.5 * smooth.reshape(table.shape) + 0.01
        self.bits = -torch.log2(table / table.sum(dim=2, keepdim=True)).float().reshape(-1)

    def total(self, codes: torch.Tensor) -> float:
        """Estimated bits of all codes."""
        return float(self.bits[self.base + codes.long()].sum())

    def chooser(self, lagrangian: float, order: torch.Tensor | None = None) -> gptq.Chooser:
        """The code of least squared error plus price among the nearest one and its neighbour towards zero."""
        base = self.base if order is None else self.base.gather(2, order[:, None, :].expand_as(self.base))
        clip, bits = self.clip, self.bits

        def choose(wish: torch.Tensor, column: int, weight: torch.Tensor | None) -> torch.Tensor:
            near = wish.round().clamp_(-clip, clip)
            inner = near - near.sign()
            place = base[:, :, column]
            worse = (wish - inner).square() - (wish - near).square()
            saved = bits[place + near.long()] - bits[place + inner.long()]
            price = lagrangian * saved if weight is None else lagrangian * saved / weight
            return torch.where(worse < price, inner, near)

        return choose


def quantize(
    weights: Mapping[str, torch.Tensor],
    hessians: Hessians,
    options: RateOptions,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, Coded]:
    """Codes, row scales and column factors of every matrix (R, C) that ``hessians`` knows.

    Raises ``InputError`` when a matrix has no row weights: without them tensors cannot be compared.
    """
    if not options.step > 0:
        raise InputError("the rate method needs a positive step")
    for name in weights:
        if name not in hessians.inputs or name not in hessians.rows:
            raise InputError(f"tensor {name} has no Hessian with row weights; collect them with fisher=True")
    found: dict[str, Coded] = {}
    for names in batches_of(weights, lambda name: 0, 1 << 25):
        weight = torch.stack([weights[n].float() for n in names])
        hessian = torch.stack([hessians.inputs[n].to(weight.device).float() for n in names])
        rows = fisher(
            torch.stack([hessians.rows[n].to(weight.device).float() for n in names]), options.fisher_floor
        )
        factor = gptq.factorise(hessian, damping=options.damping)
        scale, column = steps_of(weight, hessian, factor, rows, options)
        codes = _codes(weight, hessian, factor, scale.float(), column.float(), options)
        dense = codes * scale.float()[:, :, None] * column.float()[:, None, :]
        loss = 0.5 * (gptq.layer_error(weight, dense, hessian) * rows).sum(dim=1)
        small = codes.to(torch.int8)
        for i, name in enumerate(names):
            found[name] = Coded(
                codes=small[i], scales=scale[i], columns=column[i], damping=float(factor.damping[i]),
                dead_columns=int(factor.dead[i]), loss=float(loss[i]),
            )  # fmt: skip
            progress(name)
    return found


def _codes(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    factor: gptq.Factor,
    scale: torch.Tensor,
    column: torch.Tensor,
    options: RateOptions,
) -> torch.Tensor:
    """A first sweep to the nearest codes, then sweeps that pay for bits, then coordinate descent that does."""
    plain = gptq.nearest(options.clip)
    codes = gptq.sweep(weight, factor, scale, plain, column_scale=column, block=options.block)
    if options.lagrangian > 0:
        for _ in range(options.rounds - 1):
            choose = BitTable(codes, options.clip).chooser(options.lagrangian, factor.order)
            codes = gptq.sweep(weight, factor, scale, choose, column_scale=column, block=options.block)
    if options.refine:
        # In the sweep an error costs 1 / U_ii^2, in a single move H_ii.
        own = factor.upper.diagonal(dim1=1, dim2=2).gather(1, factor.order.argsort(dim=1))
        dear = (own.square() * hessian.diagonal(dim1=1, dim2=2)).clamp_min(1.0)
        choose = (
            BitTable(codes, options.clip).chooser(options.lagrangian) if options.lagrangian > 0 else plain
        )
        codes = gptq.refine(
            weight,
            codes,
            hessian,
            scale,
            choose,
            column_scale=column,
            error_weight=dear,
            passes=options.refine,
        )
    return codes
