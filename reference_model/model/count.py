"""How many parameters a model has and how many operations a token costs."""

from __future__ import annotations

from torch import nn

from reference_model.config import ModelConfig
from reference_model.model.golf import Golf, visits
from reference_model.model.layers import Linear


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def flops_per_token(model: Golf, context: int) -> float:
    """Model floating-point operations of one training token, forward and backward.

    6 per weight of every matrix product that the token passes through (2 forward, 4 backward), counted
    per visit, plus 12 * D * T / 2 per visit for the causal half of the attention scores and sums.
    """
    config: ModelConfig = model.config
    weights = 0
    blocks = list(model.each_block())
    order = visits(config, config.repeat_active)
    for visit in order:
        attention = blocks[visit.layer].attn
        weights += sum(m.weight.numel() for m in attention.modules() if isinstance(m, Linear))
        weights += 2 * config.dim * config.mlp_hidden
    weights += config.vocab * config.dim
    if config.bigram_size:
        weights += config.bigram_dim * config.dim
    if config.value_layers:
        weights += config.value_dim * config.kv_heads * config.head_dim
    return 6.0 * weights + 6.0 * config.dim * context * len(order)
