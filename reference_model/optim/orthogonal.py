"""Approximate orthogonalization by matrix polynomials: Newton-Schulz 5 and Polar Express.

Both drive the singular values of a matrix towards 1 with products alone, which is what makes them
fast in bfloat16. Newton-Schulz repeats one quintic; Polar Express uses the best quintic for each step.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: X <- a X + b (X X^T) X + c (X X^T)^2 X; the classic Muon coefficients (Keller Jordan's Muon, 2024).
NS5 = (3.4445, -4.7750, 2.0315)
#: One triple per step, from "The Polar Express" (arXiv:2505.16932), table of optimal composite quintics
#: for singular values in [0.001, 1].
POLAR = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
#: Polar Express divides the coefficients of all but its last step by powers of this, so that a singular
#: value that rounding pushed above 1 still converges.
SAFETY = 1.01


def coefficients(kind: str, steps: int) -> list[tuple[float, float, float]]:
    if kind == "ns5":
        return [NS5] * steps
    return [(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in POLAR[:steps]]


def orthogonalize(
    matrices: Tensor, kind: str = "ns5", steps: int = 5, dtype: torch.dtype | None = None
) -> Tensor:
    """(N, R, C) or (R, C) to matrices whose singular values lie near 1, in ``dtype``.

    ``dtype`` defaults to bfloat16 on GPUs and float32 on CPUs, where bfloat16 products are slow.
    """
    if dtype is None:
        dtype = torch.bfloat16 if matrices.is_cuda else torch.float32
    x = matrices.to(dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:  # work with the smaller Gram matrix
        x = x.mT
    # The Frobenius norm bounds the largest singular value.
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * (SAFETY if kind == "polar" else 1.0) + 1e-7)
    for a, b, c in coefficients(kind, steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


def normalize_rows(matrices: Tensor) -> Tensor:
    """MuonEq-R: every row scaled to norm 1, so that no row dominates the polynomial's start (PR 827)."""
    return matrices / matrices.norm(dim=-1, keepdim=True).clamp_min(1e-7)
