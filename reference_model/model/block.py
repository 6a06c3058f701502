"""One transformer block, in its three forms: sequential, repeated with an MLP of its own, two-lane."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reference_model.config import ModelConfig
from reference_model.model.attention import Attention
from reference_model.model.layers import rms_norm
from reference_model.model.mlp import make_mlp


class Lanes(nn.Module):
    """Cross-lane routing of one layer: branch i writes to lane j with weight post[i, j] (PR 827).

    Each lane keeps its residual with a learned factor that starts at sqrt(1.1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.post = nn.Parameter(torch.ones(2, 2))
        self.keep = nn.Parameter(torch.full((2,), math.sqrt(1.1)))

    def forward(self, lanes: tuple[Tensor, Tensor], attn: Tensor, mlp: Tensor) -> tuple[Tensor, Tensor]:
        post, keep = self.post.to(attn.dtype), self.keep.to(attn.dtype)
        first = keep[0] * lanes[0] + post[0, 0] * attn + post[1, 0] * mlp
        second = keep[1] * lanes[1] + post[0, 1] * attn + post[1, 1] * mlp
        return first, second


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = make_mlp(config)
        self.repeat_mlp = make_mlp(config) if layer in config.repeat_layers else None
        self.lanes = Lanes() if 0 <= config.lanes_from <= layer else None
        # a * x + b * x0, starting as the identity
        mix = torch.stack((torch.ones(config.dim), torch.zeros(config.dim)))
        self.mix = nn.Parameter(mix) if config.residual_mix else None
        ones = torch.ones(config.dim)
        self.attn_scale = nn.Parameter(ones.clone()) if config.branch_scale else None
        self.mlp_scale = nn.Parameter(ones.clone()) if config.branch_scale else None
        # A tensor, not a float, so that one compiled block serves every depth.
        scale = 1.0 / math.sqrt(layer + 1) if config.norm_scale else 1.0
        self.norm_scale: Tensor
        self.register_buffer("norm_scale", torch.tensor(scale), persistent=False)
        self.mega = False  # set by Golf.use_kernels

    def mixed(self, x: Tensor, x0: Tensor) -> Tensor:
        if self.mix is None:
            return x
        mix = self.mix.to(x.dtype)
        return mix[0] * x + mix[1] * x0

    def normed(self, x: Tensor) -> Tensor:
        return rms_norm(x) * self.norm_scale.to(x.dtype)

    def attention(
        self, x: Tensor, cos: Tensor, sin: Tensor, value: Tensor | None, last: int | None
    ) -> Tensor:
        y = self.attn(self.normed(x), cos, sin, value, last)
        return y if self.attn_scale is None else y * self.attn_scale.to(y.dtype)

    def feed(self, x: Tensor, mlp: nn.Module) -> Tensor:
        y = mlp(self.normed(x))
        return y if self.mlp_scale is None else y * self.mlp_scale.to(y.dtype)

    def forward(
        self,
        x: Tensor,
        x0: Tensor,
        cos: Tensor,
        sin: Tensor,
        value: Tensor | None = None,
        last: int | None = None,
        repeat: bool = False,
    ) -> Tensor:
        """x, x0 (B, T, D) -> (B, T or last, D)."""
        x = self.mixed(x, x0)
        kept = x if last is None else x[:, -last:]
        x = kept + self.attention(x, cos, sin, value, last)
        mlp = self.repeat_mlp if repeat else self.mlp
        assert mlp is not None
        if self.mega:
            from reference_model.kernels.mlp import mlp_residual

            up, down = mlp.up.matrix().to(x.dtype), mlp.down.matrix().to(x.dtype)
            return mlp_residual(x, up, down, self.mlp_scale, self.norm_scale, mlp.slope)
        return x + self.feed(x, mlp)

    def two_lane(
        self,
        lanes: tuple[Tensor, Tensor],
        x0: Tensor,
        cos: Tensor,
        sin: Tensor,
        value: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention reads lane 0, the MLP reads lane 1, both write to both."""
        assert self.lanes is not None
        attn = self.attention(self.mixed(lanes[0], x0), cos, sin, value, last)
        if last is not None:
            lanes, x0 = (lanes[0][:, -last:], lanes[1][:, -last:]), x0[:, -last:]
        mlp = self.feed(self.mixed(lanes[1], x0), self.mlp)
        return self.lanes(lanes, attn, mlp)
