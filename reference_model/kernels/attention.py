"""Attention preparation in one kernel for queries and one for keys: QK norm, partial RoPE, q gain.

Eager, that is six or more passes over queries and keys; here each is read once and written once (AR6420's
fused preprocessing, cited in PR 1072). The backward pass is plain tensor algebra that a compiler fuses.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from reference_model.model.layers import EPSILON


@triton.jit
def _prepare(
    x, cos, sin, gain, out, rows, T, H, eps,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr, GAIN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """x (rows, WIDTH) with row = (b * T + t) * H + h -> out, the same shape."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i = tl.arange(0, PADDED)
    live = (row < rows)[:, None] & (i < WIDTH)[None, :]
    base = row.to(tl.int64)[:, None] * WIDTH
    own = tl.load(x + base + i[None, :], mask=live, other=0.0).to(tl.float32)
    # The other half of the pair, a second read of the same cache lines.
    partner = tl.where(i < HALF, i + HALF, tl.where(i < 2 * HALF, i - HALF, i))
    other = tl.load(x + base + partner[None, :], mask=live, other=0.0).to(tl.float32)
    t = (row // H) % T
    turning = (row < rows)[:, None] & (i < 2 * HALF)[None, :]
    angle = t[:, None] * HALF + (i % HALF)[None, :]
    c = tl.load(cos + angle, mask=turning, other=1.0)
    s = tl.load(sin + angle, mask=turning, other=0.0)
    y = own * c + other * tl.where(i < HALF, 1.0, -1.0)[None, :] * s
    if NORM:
        y = y * tl.rsqrt(tl.sum(own * own, axis=1) / WIDTH + eps)[:, None]
    if GAIN:
        y = y * tl.load(gain + row % H, mask=row < rows, other=0.0).to(tl.float32)[:, None]
    tl.store(out + base + i[None, :], y.to(out.dtype.element_ty), mask=live)


@torch.library.custom_op("golf::prepare", mutates_args=())
def _prepare_op(x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None, norm: bool) -> Tensor:
    x = x.contiguous()
    b, t, h, d = x.shape
    out = torch.empty_like(x)
    rows, block = b * t * h, 64 if x.is_cuda else 256
    _prepare[(triton.cdiv(rows, block),)](
        x, cos.float().contiguous(), sin.float().contiguous(), cos if gain is None else gain.contiguous(), out,
        rows, t, h, EPSILON,
        WIDTH=d, PADDED=triton.next_power_of_2(d), HALF=cos.size(-1), NORM=norm, GAIN=gain is not None, BLOCK=block,
        num_warps=4,
    )  # fmt: skip
    return out


@_prepare_op.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None, norm: bool) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, cos, sin, gain, ctx.norm = inputs
    ctx.save_for_backward(x, cos, sin, gain)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Float32 rotation of (B, T, H, d) by (T, r / 2) tables; negate ``sin`` to turn back."""
    half = cos.size(-1)
    a, b = x[..., :half], x[..., half : 2 * half]
    c, s = cos[:, None, :], sin[:, None, :]
    return torch.cat((a * c + b * s, b * c - a * s, x[..., 2 * half :]), dim=-1)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, cos, sin, gain = ctx.saved_tensors
    wide, g = x.float(), grad.float()
    norm: bool = ctx.norm
    inverse = (
        torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
        if norm
        else torch.ones_like(wide[..., :1])
    )
    grad_gain = None
    if gain is not None:
        grad_gain = (g * _turn(wide * inverse, cos, sin)).sum((0, 1, 3)).to(gain.dtype)
        g = g * gain.float()[:, None]
    back = _turn(g, cos, -sin)
    if norm:
        back = inverse * (back - wide * inverse.square() * (back * wide).mean(-1, keepdim=True))
    return back.to(x.dtype), None, None, grad_gain, None


_prepare_op.register_autograd(_backward, setup_context=_keep)


def prepare_fused(x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None, norm: bool) -> Tensor:
    """``model.attention.prepare`` as one kernel: x (B, T, H, d), cos and sin (T, r / 2), gain (H,) or None."""
    return _prepare_op(x, cos, sin, gain, norm)
