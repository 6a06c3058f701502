"""Magnitude pruning: the smallest weights of each matrix become exact zeros, which compress well."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def prune_smallest(module: nn.Module, share: float) -> int:
    """Zeroes the ``share`` of smallest magnitudes in every linear matrix; returns how many became zero."""
    count = 0
    for child in module.modules():
        if isinstance(child, nn.Linear):
            weight = child.weight
            victims = int(share * weight.numel())
            if victims:
                order = weight.abs().flatten().argsort(stable=True)[:victims]
                weight.view(-1)[order] = 0.0
                count += victims
    return count
