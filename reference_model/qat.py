"""Late quantization-aware training: weights on the export grid, straight-through gradients.

The grid is the artifact's own: symmetric codes in [-clip, clip] and one half-precision scale per row
(``harness.artifact.grids``), so a weight that training has settled on survives export unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.artifact.grids import clip_range, integer_grid


def row_scales(weight: Tensor, bits: int) -> Tensor:
    """(rows, 1) float32 scales that half precision can hold: largest magnitude over the largest code."""
    top = weight.detach().float().abs().amax(dim=-1, keepdim=True)
    scale = (top / clip_range(integer_grid(bits))).half().float()
    return torch.where(scale > 0, scale, torch.ones_like(scale))  # an all-zero row: any scale will do


def fake_quantize(weight: Tensor, bits: int) -> Tensor:
    """The nearest grid point of each weight; the gradient passes as if nothing had happened."""
    clip = clip_range(integer_grid(bits))
    scale = row_scales(weight, bits)
    nearest = (weight.detach() / scale).round().clamp(-clip, clip) * scale
    return weight + (nearest - weight).detach()


def enable(model: nn.Module, bits: int) -> None:
    """Turns fake quantization on (bits > 0) or off (0) in every linear layer that offers it."""
    for module in model.modules():
        if hasattr(module, "qat_bits"):
            setattr(module, "qat_bits", bits)  # noqa: B010 - nn.Module's own attribute typing
