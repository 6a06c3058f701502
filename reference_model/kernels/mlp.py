"""Two kernels for the squared-LeakyReLU MLP.

``linear_leaky_square``: matrix product and activation in one pass (PR 1072). The activation's input never
goes to memory; what the backward pass needs is a = LeakyReLU(x W^T), whose sign is its input's sign.

``mlp_residual``: the whole branch, RMSNorm -> up -> LeakyReLU squared -> down -> scale -> residual (AR6420's
megakernel, cited in PR 1072). The hidden activations live in registers, one slice of the width at a
time, and are computed again in the backward pass, a few thousand rows at a time.

On Hopper the first kernel loads its tiles through tensor descriptors (the bulk copy engine); elsewhere,
and for shapes that descriptors cannot address, through plain pointers. Both compute the same sums.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources

from audit.contracts import InputError
from reference_model.model.layers import EPSILON

#: Rows of one backward step of ``mlp_residual``: bounds the hidden activations that exist at once.
BACKWARD_ROWS = 16_384


@triton.jit
def _activate(h, slope):
    return tl.where(h > 0, h, h * slope)


@triton.jit
def _tile(pid, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):
    """Program number -> (row tile, column tile), in groups of rows so that tiles are reused out of L2."""
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = pid // (GROUP * tiles_n)
    first = group * GROUP
    rows = tl.minimum(tiles_m - first, GROUP)
    inside = pid % (GROUP * tiles_n)
    return first + inside % rows, inside // rows


@triton.jit
def _up_pointers(
    x, w, y, a, M, N, K, slope,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """x (M, K), w (N, K), both row-major -> y, a (M, N)."""
    m, n = _tile(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP)
    rows, columns = m * BLOCK_M + tl.arange(0, BLOCK_M), n * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    # int64: rows times width passes 2^31 for large batches.
    left = x + rows.to(tl.int64)[:, None] * K + inner[None, :]
    right = w + columns.to(tl.int64)[:, None] * K + inner[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        here = inner[None, :] < K - k
        left_tile = tl.load(left + k, mask=(rows < M)[:, None] & here, other=0.0)
        right_tile = tl.load(right + k, mask=(columns < N)[:, None] & here, other=0.0)
        total = tl.dot(left_tile, right_tile.T, total, input_precision="ieee" if EXACT else "tf32")
    active = _activate(total, slope)
    where = rows.to(tl.int64)[:, None] * N + columns[None, :]
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(a + where, active.to(a.dtype.element_ty), mask=inside)
    tl.store(y + where, (active * active).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _up_descriptors(
    x, w, y, a, M, N, K, slope,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The same through tensor descriptors, which pad with zeros and clip stores by themselves."""
    m, n = _tile(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        left_tile = x.load([m * BLOCK_M, k])
        right_tile = w.load([n * BLOCK_N, k])
        total = tl.dot(left_tile, right_tile.T, total, input_precision="ieee" if EXACT else "tf32")
    active = _activate(total, slope)
    a.store([m * BLOCK_M, n * BLOCK_N], active.to(a.dtype))
    y.store([m * BLOCK_M, n * BLOCK_N], (active * active).to(y.dtype))


@functools.cache
def hopper(index: int) -> bool:
    return torch.cuda.get_device_capability(index)[0] >= 9


def _descriptors_fit(x: Tensor, w: Tensor) -> bool:
    """Rows must start on 16-byte boundaries."""
    aligned = all(t.data_ptr() % 16 == 0 and t.stride(0) * t.element_size() % 16 == 0 for t in (x, w))
    return aligned and w.size(0) * x.element_size() % 16 == 0


def _blocks(x: Tensor) -> tuple[int, int, int]:
    """Tile of (M, N, K): what a tensor core likes, or small ones for the interpreter and float32."""
    if not x.is_cuda:
        return 32, 32, 32
    return (128, 128, 64) if x.element_size() == 2 else (64, 64, 32)


def up_forward(x: Tensor, w: Tensor, slope: float, descriptors: bool | None = None) -> tuple[Tensor, Tensor]:
    """x (M, K), w (N, K) -> y = LeakyReLU(x w^T)^2 and a = LeakyReLU(x w^T), each (M, N).

    ``descriptors`` None chooses the path by device and shape.
    """
    x, w = x.contiguous(), w.contiguous()
    (rows, inner), columns = x.shape, w.size(0)
    y = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    a = torch.empty_like(y)
    block_m, block_n, block_k = _blocks(x)
    grid = (triton.cdiv(rows, block_m) * triton.cdiv(columns, block_n),)
    if descriptors is None:
        wanted = os.environ.get("GOLF_DESCRIPTORS", "1") != "0"
        descriptors = wanted and x.is_cuda and hopper(x.get_device()) and _descriptors_fit(x, w)
    arguments = {
        "BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k, "GROUP": 8, "EXACT": x.dtype == torch.float32,
    }  # fmt: skip
    launch = {"num_warps": 8 if x.is_cuda and x.element_size() == 2 else 4, "num_stages": 3}
    if descriptors:
        from triton.tools.tensor_descriptor import TensorDescriptor

        tile = TensorDescriptor.from_tensor
        _up_descriptors[grid](
            tile(x, [block_m, block_k]), tile(w, [block_n, block_k]), tile(y, [block_m, block_n]),
            tile(a, [block_m, block_n]), rows, columns, inner, slope, **arguments, **launch,
        )  # fmt: skip
    else:
        _up_pointers[grid](x, w, y, a, rows, columns, inner, slope, **arguments, **launch)
    return y, a


@torch.library.custom_op("golf::linear_leaky_square", mutates_args=())
def _linear_leaky_square(x: Tensor, w: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    return up_forward(x, w, slope)


@_linear_leaky_square.register_fake
def _(x: Tensor, w: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    shape = (x.size(0), w.size(0))
    return x.new_empty(shape), x.new_empty(shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w, ctx.slope = inputs
    ctx.save_for_backward(x, w, output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
    x, w, a = ctx.saved_tensors
    inner = grad * torch.where(a > 0, 2 * a, (2 * ctx.slope) * a)
    return inner @ w, inner.mT @ x, None


_linear_leaky_square.register_autograd(_backward, setup_context=_keep)


def linear_leaky_square(x: Tensor, w: Tensor, slope: float) -> Tensor:
    """x (…, K), w (N, K) -> LeakyReLU(x w^T, slope)^2 (…, N), with a gradient for both."""
    return _linear_leaky_square(x.flatten(0, -2), w, slope)[0].unflatten(0, x.shape[:-1])


@triton.jit
def _mega(
    x, up, down, scale, norm_scale, out, M, D, N, slope, eps,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """x (M, D), up (N, D), down (D, N) -> x + scale * down(LeakyReLU(up(norm(x)))^2)."""
    precision: tl.constexpr = "ieee" if EXACT else "tf32"
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    width = tl.arange(0, BLOCK_D)
    where = rows.to(tl.int64)[:, None] * D + width[None, :]
    inside = (rows < M)[:, None] & (width < D)[None, :]
    tile = tl.load(x + where, mask=inside, other=0.0)
    wide = tile.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(wide * wide, axis=1) / D + eps)
    normal = (wide * inverse[:, None] * tl.load(norm_scale)).to(tile.dtype)
    total = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    hidden = tl.arange(0, BLOCK_N)
    for n in range(0, N, BLOCK_N):
        units = n + hidden
        up_tile = tl.load(
            up + units[:, None] * D + width[None, :],
            mask=(units < N)[:, None] & (width < D)[None, :],
            other=0.0,
        )
        active = _activate(tl.dot(normal, up_tile.T, input_precision=precision), slope)
        down_tile = tl.load(
            down + width[:, None] * N + units[None, :],
            mask=(width < D)[:, None] & (units < N)[None, :],
            other=0.0,
        )
        total = tl.dot((active * active).to(tile.dtype), down_tile.T, total, input_precision=precision)
    factor = tl.load(scale + width, mask=width < D, other=0.0)
    tl.store(out + where, (wide + factor[None, :] * total).to(out.dtype.element_ty), mask=inside)


#: Tile shapes that a device has accepted, by (device, dtype, padded width).
_FITTING: dict[tuple[int, torch.dtype, int], tuple[int, int, int]] = {}


def _mega_shapes(x: Tensor) -> list[tuple[int, int, int]]:
    """(rows, hidden units, warps) of one step, best first; wide models may only fit the smaller ones."""
    if not x.is_cuda or x.element_size() == 4:
        return [(16, 16, 4)]
    return [(64, 64, 8), (64, 32, 8), (32, 32, 4), (16, 32, 4)]


@torch.library.custom_op("golf::mlp_residual", mutates_args=())
def _mlp_residual(
    x: Tensor, up: Tensor, down: Tensor, scale: Tensor, norm_scale: Tensor, slope: float
) -> Tensor:
    x, up, down = x.contiguous(), up.contiguous(), down.contiguous()
    rows, dim = x.shape
    out = torch.empty_like(x)
    block_d = max(16, triton.next_power_of_2(dim))
    exact = x.dtype == torch.float32
    factor, norm = scale.float().contiguous(), norm_scale.float()
    key = (x.get_device(), x.dtype, block_d)
    for block_m, block_n, warps in [_FITTING[key]] if key in _FITTING else _mega_shapes(x):
        try:
            _mega[(triton.cdiv(rows, block_m),)](
                x, up, down, factor, norm, out, rows, dim, up.size(0), slope, EPSILON,
                BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_D=block_d, EXACT=exact, num_warps=warps, num_stages=1,
            )  # fmt: skip
        except OutOfResources:
            continue
        _FITTING[key] = (block_m, block_n, warps)
        return out
    raise InputError(f"mlp_residual: width {dim} does not fit this device's shared memory; set run.mlp=fused")


@_mlp_residual.register_fake
def _(x: Tensor, up: Tensor, down: Tensor, scale: Tensor, norm_scale: Tensor, slope: float) -> Tensor:
    return torch.empty_like(x)


def _keep_mega(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.slope = inputs
    ctx.save_for_backward(*tensors)


def _backward_mega(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Hidden activations are computed again, BACKWARD_ROWS rows at a time; weight sums stay float32."""
    x, up, down, scale, norm_scale = ctx.saved_tensors
    slope = ctx.slope
    into = torch.empty_like(x)
    grad_up = torch.zeros(up.shape, dtype=torch.float32, device=x.device)
    outer = torch.zeros(down.shape, dtype=torch.float32, device=x.device)  # sum of g y^T
    factor = scale.to(x.dtype)
    for first in range(0, x.size(0), BACKWARD_ROWS):
        part, g = x[first : first + BACKWARD_ROWS], grad[first : first + BACKWARD_ROWS]
        wide = part.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
        normal = (wide * inverse * norm_scale.float()).to(x.dtype)
        h = normal @ up.mT
        a = torch.where(h > 0, h, slope * h)
        outer += (g.mT @ (a * a)).float()
        inner = ((g * factor) @ down) * torch.where(h > 0, 2 * a, (2 * slope) * a)
        grad_up += (inner.mT @ normal).float()
        back = (inner @ up).float() * norm_scale.float()
        back = inverse * (back - wide * inverse.square() * (back * wide).mean(-1, keepdim=True))
        into[first : first + BACKWARD_ROWS] = g + back.to(x.dtype)
    grad_down = (outer * scale.float()[:, None]).to(down.dtype)
    grad_scale = (outer * down.float()).sum(1).to(scale.dtype)
    return into, grad_up.to(up.dtype), grad_down, grad_scale, None, None


_mlp_residual.register_autograd(_backward_mega, setup_context=_keep_mega)


def mlp_residual(
    x: Tensor, up: Tensor, down: Tensor, scale: Tensor | None, norm_scale: Tensor, slope: float
) -> Tensor:
    """x (…, D), up (N, D), down (D, N), scale (D,) or None, norm_scale () -> x + the MLP branch, (…, D)."""
    factor = torch.ones(x.size(-1), device=x.device) if scale is None else scale
    return _mlp_residual(x.flatten(0, -2), up, down, factor, norm_scale, slope).view(x.shape)
