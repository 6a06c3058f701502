"""GPTQ: rounding with Hessian-weighted error compensation (arXiv:2210.17323), batched over equal shapes.

Columns are rounded one after the other; the error of each is spread over the columns not yet rounded so that
the layer's output changes least. With U the upper Cholesky factor of H^-1 the compensation of column i is
``- error / U[i, i] * U[i, i+1:]``. Three things that are often got wrong are done here on purpose:

* *order*: columns are taken by falling diagonal of H ("act-order"), and the codes go back to their own places;
* *damping*: when a damped H is not positive definite its damping grows tenfold until it is, and every
  escalation is reported per tensor, never replaced by a silent fallback;
* *dead columns* (inputs that were always zero) get the mean diagonal and lose nothing, since their error
  costs nothing.

Greedy compensation may, for a row here and there, do worse than plain rounding. ``refine`` therefore descends
on the true error by single-code moves, and rows that still lose to plain rounding take the plain codes (counted;
see ``compensate``).

Which code a weight gets once its wish is known is a *chooser*'s business: the nearest one here, one that also
pays for its bits in ``rate``.

Shapes: B matrices of R rows and C columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from audit.contracts import InputError

DAMPING = 0.01
_MAX_ESCALATIONS = 8

#: (wish in steps (B, R), column, weight of the squared error (B, 1) against one) -> codes (B, R), float integers.
Chooser = Callable[[torch.Tensor, int, torch.Tensor | None], torch.Tensor]


def nearest(clip: int) -> Chooser:
    """The nearest code in [-clip, clip]."""
    return lambda wish, column, weight: wish.round().clamp_(-clip, clip)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factor:
    """``order`` (B, C): column taken at each place; ``upper`` (B, C, C): U of the permuted, damped H.

    ``damping`` (B,): the fraction of the mean diagonal that made each H positive definite.
    ``dead`` (B,): how many columns never saw an input.
    """

    order: torch.Tensor
    upper: torch.Tensor
    damping: torch.Tensor
    dead: torch.Tensor


def factorise(hessian: torch.Tensor, *, damping: float = DAMPING, act_order: bool = True) -> Factor:
    """Factors (B, C, C) Hessians in float64. Raises ``InputError`` when no damping makes one positive definite."""
    if not torch.isfinite(hessian).all():
        raise InputError("a Hessian is not finite; the calibration activations overflowed")
    hessian = hessian.double()
    batch, columns, _ = hessian.shape
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    dead = diagonal <= 0
    # The mean over live columns: dead ones would only dilute the damping.
    mean = diagonal.clamp_min(0.0).sum(dim=1) / (~dead).sum(dim=1).clamp_min(1)
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    hessian = hessian.masked_fill(dead[:, None, :] | dead[:, :, None], 0.0)
    hessian.diagonal(dim1=1, dim2=2).add_(dead * mean[:, None])
    key = hessian.diagonal(dim1=1, dim2=2).masked_fill(dead, -1.0)
    if act_order:
        order = key.argsort(dim=1, descending=True, stable=True)
    else:
        order = torch.arange(columns, device=hessian.device).expand(batch, -1).clone()
    permuted = hessian.gather(1, order[:, :, None].expand(-1, -1, columns))
    permuted = permuted.gather(2, order[:, None, :].expand(-1, columns, -1))
    used = torch.full((batch,), damping, dtype=torch.float64, device=hessian.device)
    for _ in range(_MAX_ESCALATIONS + 1):
        damped = permuted.clone()
        damped.diagonal(dim1=1, dim2=2).add_((used * mean)[:, None])
        # The upper factor of the inverse, from one factorisation of the matrix read backwards:
        # H = V V^T with V upper, so H^-1 = V^-T V^-1 = U^T U with U = V^-1 upper.
        lower, info = torch.linalg.cholesky_ex(damped.flip(1, 2))
        if not info.any():
            v = lower.flip(1, 2)
            identity = torch.eye(columns, dtype=v.dtype, device=v.device).expand_as(v)
            upper = torch.linalg.solve_triangular(v, identity, upper=True)
            if torch.isfinite(upper).all():
                return Factor(order=order, upper=upper.float(), damping=used, dead=dead.sum(dim=1))
        failed = (info != 0) | ~torch.isfinite(lower).all(dim=(1, 2))
        used = torch.where(failed, (used * 10.0).clamp_min(1e-8), used)
    raise InputError(
        f"a Hessian stays indefinite under {used.max():.0e} of its mean diagonal; the calibration is broken"
    )


def _permute(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Columns of (B, R, C) in the given order (B, C)."""
    return values.gather(2, order[:, None, :].expand(-1, values.shape[1], -1))


def sweep(
    weight: torch.Tensor,
    factor: Factor,
    row_scale: torch.Tensor,
    choose: Chooser,
    *,
    column_scale: torch.Tensor | None = None,
    block: int = 64,
) -> torch.Tensor:
    """Codes (B, R, C), float32 integers, of weights (B, R, C).

    ``row_scale`` (B, R); ``column_scale`` (B, C) multiplies it. ``choose`` hears places in the factor's order.
    ``block`` columns are compensated one by one, what lies beyond them by one product per block.
    """
    batch, _, columns = weight.shape
    left = _permute(weight.float(), factor.order).clone()
    if column_scale is None:
        column_scale = torch.ones(batch, columns, device=weight.device)
    steps = column_scale.gather(1, factor.order)
    codes = torch.empty_like(left)
    upper = factor.upper
    for start in range(0, columns, block):
        stop = min(columns, start + block)
        part = left[:, :, start:stop].clone()
        errors = torch.empty_like(part)
        for i in range(stop - start):
            column = start + i
            step = row_scale * steps[:, column : column + 1]  # (B, R)
            wanted = part[:, :, i]
            code = choose(wanted / step, column, None)
            codes[:, :, column] = code
            error = (wanted - code * step) / upper[:, column, column][:, None]
            errors[:, :, i] = error
            if i + 1 < stop - start:
                part[:, :, i + 1 :] -= error[:, :, None] * upper[:, None, column, column + 1 : stop]
        if stop < columns:
            left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return _permute(codes, factor.order.argsort(dim=1))


def layer_error(weight: torch.Tensor, dense: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """(B, R): each row's error (w - q) H (w - q)^T, undamped."""
    delta = (weight - dense).float()
    return ((delta @ hessian.float()) * delta).sum(dim=2)


def refine(
    weight: torch.Tensor,
    codes: torch.Tensor,
    hessian: torch.Tensor,
    row_scale: torch.Tensor,
    choose: Chooser,
    *,
    column_scale: torch.Tensor | None = None,
    error_weight: torch.Tensor | None = None,
    passes: int = 2,
    damping: float = 1e-4,
) -> torch.Tensor:
    """Coordinate descent: every move gives one code its best value, all others being as they are.

    With ``nearest`` the error never grows. ``error_weight`` (B, C) is passed on to the chooser. ``damping``
    (a fraction of the mean diagonal) keeps dead columns from drifting.
    """
    batch, _, columns = weight.shape
    metric = hessian.float().clone()
    ridge = damping * metric.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-30)
    metric.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    if column_scale is None:
        column_scale = torch.ones(batch, columns, device=weight.device)
    step = row_scale[:, :, None] * column_scale[:, None, :]
    codes = codes.clone()
    for _ in range(passes):
        gradient = (weight.float() - codes * step) @ metric  # (B, R, C), recomputed: no drift over passes
        for i in range(columns):
            curve = metric[:, i, i][:, None]
            here = step[:, :, i]
            wish = codes[:, :, i] + gradient[:, :, i] / curve / here
            best = choose(wish, i, None if error_weight is None else error_weight[:, i : i + 1])
            change = (codes[:, :, i] - best) * here  # how much w - q grows
            codes[:, :, i] = best
            gradient += change[:, :, None] * metric[:, None, i, :]
    return codes
