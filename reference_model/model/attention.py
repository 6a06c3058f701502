"""Causal self-attention: GQA or MHA, QK norm, partial RoPE, q gain, value embedding, XSA."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.config import ModelConfig
from reference_model.model.layers import Linear, rms_norm, rotate


def _lacks_grouped_kernel(q: Tensor) -> bool:
    """Whether grouped heads would be computed with the whole T x T matrix in memory.

    Only the half-precision GPU kernels read grouped heads as they are. In float32, with T = 2,048, the fallback
    keeps 128 MiB of scores per sequence and layer, several times over when a backward pass is to follow.
    """
    return q.is_cuda and q.element_size() > 2


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of the last n queries over T keys; q (B, n, H, d), k and v (B, T, K, d)."""
    n, t, groups = q.size(1), k.size(1), q.size(2) // k.size(2)
    if n == t:
        if groups > 1 and _lacks_grouped_kernel(q):
            k, v, groups = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2), 1
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=groups > 1)
        return y.transpose(1, 2)  # (B, n, H, d)
    # The queries are the last n positions, which SDPA's own causal mask would put first; so the mask is
    # explicit, and the query heads of a group become further rows, since GPU kernels take a mask or
    # grouped heads but not both.
    b, d, kv_heads = q.size(0), q.size(3), k.size(2)
    rows = q.view(b, n, kv_heads, groups, d).permute(0, 2, 3, 1, 4).reshape(b, kv_heads, groups * n, d)
    mask = torch.ones(n, t, dtype=torch.bool, device=q.device).tril(t - n).repeat(groups, 1)
    y = F.scaled_dot_product_attention(rows, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return y.view(b, kv_heads, groups, n, d).permute(0, 3, 1, 2, 4).reshape(b, n, -1, d)


def exclude_self(y: Tensor, v: Tensor) -> Tensor:
    """XSA: y - (y . v^) v^ with v^ the position's own value of the head's group, normalised (PR 198)."""
    b, n, h, d = y.shape
    unit = F.normalize(v, dim=-1)[:, :, :, None]  # (B, n, K, 1, d)
    grouped = y.reshape(b, n, v.size(2), -1, d)  # (B, n, K, H / K, d)
    return (grouped - (grouped * unit).sum(-1, keepdim=True) * unit).reshape(b, n, h, d)


def prepare(x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None, norm: bool) -> Tensor:
    """QK norm, partial RoPE and, for queries, the gain per head: x (B, T, H, d) to the same shape."""
    x = rotate(rms_norm(x) if norm else x, cos, sin)
    return x if gain is None else x * gain.to(x.dtype)[:, None]


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = config.heads, config.kv_heads, config.head_dim
        self.qk_norm = config.qk_norm
        self.xsa = layer >= config.layers - config.xsa_layers
        self.q = Linear(config.dim, config.dim)
        self.k = Linear(config.dim, config.kv_heads * config.head_dim)
        self.v = Linear(config.dim, config.kv_heads * config.head_dim)
        self.o = Linear(config.dim, config.dim)
        self.q_gain = nn.Parameter(torch.full((config.heads,), config.q_gain))
        self.fused = False  # set by Golf.use_kernels

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, value: Tensor | None = None, last: int | None = None
    ) -> Tensor:
        """x (B, T, D), value (B, T, K * d) -> (B, T or last, D)."""
        b, t, _ = x.shape
        n = t if last is None else min(last, t)
        q = self.q(x[:, t - n :]).view(b, n, self.heads, self.width)
        k = self.k(x).view(b, t, self.kv_heads, self.width)
        v = self.v(x)
        if value is not None:
            v = v + value
        v = v.view(b, t, self.kv_heads, self.width)
        if self.fused:
            from reference_model.kernels.attention import prepare_fused

            q = prepare_fused(q, cos[t - n :], sin[t - n :], self.q_gain, self.qk_norm)
            k = prepare_fused(k, cos, sin, None, self.qk_norm)
        else:
            q = prepare(q, cos[t - n :], sin[t - n :], self.q_gain, self.qk_norm)
            k = prepare(k, cos, sin, None, self.qk_norm)
        y = attend(q, k, v)
        if self.xsa:
            y = exclude_self(y, v[:, t - n :])
        return self.o(y.reshape(b, n, -1))
