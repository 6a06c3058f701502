"""The squared-LeakyReLU MLP and its tiny mixture-of-experts form."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.config import ModelConfig
from reference_model.model.layers import Linear


def leaky_square(x: Tensor, slope: float) -> Tensor:
    """LeakyReLU, then square: negative inputs keep slope^2 of the curve and hence a gradient (PR 493)."""
    return F.leaky_relu(x, slope).square()


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.dim, config.mlp_hidden)
        self.down = Linear(config.mlp_hidden, config.dim)
        self.slope = config.mlp_slope
        self.fused = False  # set by Golf.use_kernels

    def hidden(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, hidden)."""
        if self.fused:
            from reference_model.kernels.mlp import linear_leaky_square

            return linear_leaky_square(x, self.up.matrix().to(x.dtype), self.slope)
        return leaky_square(self.up(x), self.slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.hidden(x))


class MoE(MLP):
    """The hidden width split over the experts; a linear router on the detached input picks one (PR 827).

    Expert e owns rows e * w .. (e + 1) * w of ``up`` and the same columns of ``down``, so running one
    expert per token equals masking the others' hidden units: static shapes, the arithmetic of a dense
    MLP, no gather. The router's choice is an argmax of a detached input: it gets no gradient.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.experts = config.moe_experts
        self.router = Linear(config.dim, config.moe_experts)

    def hidden(self, x: Tensor) -> Tensor:
        choice = self.router(x.detach()).argmax(-1)  # (B, T)
        chosen = F.one_hot(choice, self.experts).to(x.dtype)  # (B, T, E)
        h = super().hidden(x)
        return (h.unflatten(-1, (self.experts, -1)) * chosen[..., None]).flatten(-2)


def make_mlp(config: ModelConfig) -> MLP:
    return MoE(config) if config.moe_experts > 1 else MLP(config)
