"""The small parts: bias-free linear with optional fake quantization, RMSNorm, rotary embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.qat import fake_quantize

#: What RMSNorm adds to the mean square, in every dtype. Left to itself, torch takes the input dtype's own
#: epsilon, which for bfloat16 is 1 / 128.
EPSILON = 1.1920929e-07


class Linear(nn.Linear):
    """y = x W^T in the input's dtype; the master weight stays float32.

    While ``qat_bits`` is set and the module trains, W is replaced by its quantized value with a
    straight-through gradient, so the network learns to live on the export grid.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.qat_bits = 0

    def matrix(self) -> Tensor:
        """The weight that the forward pass uses, float32."""
        return fake_quantize(self.weight, self.qat_bits) if self.qat_bits and self.training else self.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.matrix().to(x.dtype))


def rms_norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last dimension, without a gain (arXiv:1910.07467)."""
    return F.rms_norm(x, (x.size(-1),), eps=EPSILON)


def rope_tables(
    length: int, dims: int, base: float, reference: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotation angles, each (length, dims / 2), float32 (arXiv:2104.09864).

    With ``reference`` > 0 and a longer context the base grows so that the slowest pair turns as far
    over the context as it did over ``reference`` tokens (NTK-aware scaling, as PR 726 computes it).
    """
    if reference and length > reference:
        base = base * (length / reference) ** (dims / (dims - 2))
    frequency = base ** (-torch.arange(0, dims, 2, device=device, dtype=torch.float32) / dims)
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequency)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the first 2 * cos.size(-1) dimensions of each head; the rest passes through.

    x (B, T, H, d); cos, sin (T, r / 2). Pair i is (x[i], x[i + r / 2]), turned clockwise.
    """
    half = cos.size(-1)
    cos, sin = cos[:, None, :].to(x.dtype), sin[:, None, :].to(x.dtype)  # (T, 1, r / 2)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), dim=-1)
