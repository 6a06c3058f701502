"""The model: embedding, a sequence of visits to blocks with U-Net skips, head with softcap.

Depth is a list of *visits*: which block runs, through which gate, with which MLP. Looped layers,
gated depth recurrence and the repeated layers of PR 827 are then only different lists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.config import ModelConfig
from reference_model.model.block import Block
from reference_model.model.layers import Linear, rms_norm, rope_tables
from reference_model.model.tokens import BigramHash, SmearGate, ValueEmbedding


@dataclass(frozen=True, slots=True)
class Visit:
    layer: int
    gate: int | None = None  # blend with the input through this gate
    repeat: bool = False  # use the layer's second MLP
    push: bool = False  # keep the output for a skip
    skip: int | None = None  # add the last kept output, with this weight, to the input


def visits(config: ModelConfig, repeat_active: bool) -> list[Visit]:
    """The order in which blocks run."""
    plain: list[tuple[int, int | None]] = []
    for layer in range(config.layers):
        if config.gated_repeats and layer == config.gated_layer:
            plain += [(layer, gate) for gate in range(config.gated_repeats)]
        else:
            plain.append((layer, None))
    if config.loops > 1:
        middle = plain[config.loop_from : config.loop_to + 1]
        plain = plain[: config.loop_from] + middle * config.loops + plain[config.loop_to + 1 :]
    encoder = config.unet_encoder or len(plain) // 2
    repeats = [Visit(layer, repeat=True) for layer in config.repeat_layers] if repeat_active else []
    if not config.unet:
        order = [Visit(layer, gate) for layer, gate in plain]
        return order[:encoder] + repeats + order[encoder:]
    skips = min(encoder, len(plain) - encoder)
    down = [Visit(layer, gate, push=True) for layer, gate in plain[:encoder]]
    up = [
        Visit(layer, gate, skip=i if i < skips else None) for i, (layer, gate) in enumerate(plain[encoder:])
    ]
    return down + repeats + up


class Golf(nn.Module):
    """Answers ``forward_logits``; ``forward`` gives the mean loss in nats per target."""

    def __init__(self, config: ModelConfig, *, initialize: bool = True) -> None:
        """``initialize`` False leaves the weights as the layers' own defaults, for a state dict to fill."""
        super().__init__()
        config.check()
        self.config = config
        self.compute_dtype = torch.float32  # activations; the trainer sets bfloat16 on GPUs
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.bigram = (
            BigramHash(config.bigram_size, config.bigram_dim, config.dim) if config.bigram_size else None
        )
        self.smear = SmearGate(config.dim, config.bos, config.smear_document_mask) if config.smear else None
        self.value = (
            ValueEmbedding(
                config.vocab, config.value_dim, config.kv_heads * config.head_dim, config.value_layers
            )
            if config.value_layers
            else None
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.gates = nn.Parameter(torch.full((config.gated_repeats,), 0.5)) if config.gated_repeats else None
        self.visits = visits(config, config.repeat_active)
        skips = sum(visit.skip is not None for visit in self.visits)
        self.skip_scale = nn.Parameter(torch.ones(skips, config.dim)) if skips else None
        self.head = None if config.tied else Linear(config.dim, config.vocab)
        if initialize:
            self.reset()

    def each_block(self) -> Iterator[Block]:
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    @torch.no_grad()
    def reset(self) -> None:
        """Orthogonal (or normal) matrices, zero output projections, small embedding."""
        for name, module in self.named_modules():
            if not isinstance(module, Linear):
                continue
            if name == "head" or name.rsplit(".", 1)[-1] in ("o", "down"):
                module.weight.zero_()
            elif self.config.init == "orthogonal":
                nn.init.orthogonal_(module.weight)
            else:
                module.weight.normal_(std=1.0 / math.sqrt(module.in_features))
        self.embed.weight.normal_(std=self.config.embed_std)
        if self.bigram is not None:
            self.bigram.embed.weight.zero_()
        if self.value is not None:
            self.value.embed.weight.normal_(std=0.01)
        self.copy_repeats()

    @torch.no_grad()
    def copy_repeats(self) -> None:
        """The repeated layers' own MLPs start as copies of the first ones."""
        for block in self.each_block():
            if block.repeat_mlp is not None:
                block.repeat_mlp.load_state_dict(block.mlp.state_dict())

    def activate_repeats(self) -> None:
        """Switches the repeated layers on; their MLPs start from what the first ones have learned."""
        self.copy_repeats()
        self.visits = visits(self.config, True)

    def use_kernels(self, *, mlp: str = "eager", attention: str = "eager") -> None:
        """Chooses eager or fused kernels; the numbers agree to rounding, the parameters are the same."""
        for block in self.each_block():
            plain = self.config.moe_experts < 2
            block.mega = mlp == "mega" and plain
            block.mlp.fused = mlp == "fused"
            if block.repeat_mlp is not None:
                block.repeat_mlp.fused = mlp == "fused"
            block.attn.fused = attention == "fused"

    def embedded(self, ids: Tensor) -> Tensor:
        """x0 (B, T, D): the normalised embedding that every block can mix in again."""
        x = self.embed(ids).to(self.compute_dtype)
        if self.bigram is not None:
            x = x + self.bigram(ids, self.compute_dtype)
        x = rms_norm(x)
        return x if self.smear is None else self.smear(x, ids)

    def body(self, ids: Tensor, last: int | None = None) -> Tensor:
        """(B, T) ids -> (B, T or last, D), normalised. Only the final visit knows about ``last``."""
        config = self.config
        x = x0 = self.embedded(ids)
        cos, sin = rope_tables(
            ids.size(1),
            config.rope_dims or config.head_dim,
            config.rope_base,
            config.rope_reference,
            ids.device,
        )
        shared = None if self.value is None else self.value(ids, self.compute_dtype)
        kept: list[Tensor] = []
        lanes: tuple[Tensor, Tensor] | None = None
        for index, visit in enumerate(self.visits):
            block = self.blocks[visit.layer]
            assert isinstance(block, Block)
            if visit.skip is not None:
                assert self.skip_scale is not None
                bridge = self.skip_scale[visit.skip].to(x.dtype) * kept.pop()
                x = x + bridge
                if lanes is not None:
                    lanes = (lanes[0] + bridge, lanes[1] + bridge)
            value = None if self.value is None or shared is None else self.value.at(visit.layer, shared)
            cut = last if index == len(self.visits) - 1 else None
            if block.lanes is not None:
                lanes = block.two_lane((x, x) if lanes is None else lanes, x0, cos, sin, value, cut)
                x = lanes[0]
            else:
                y = block(x, x0, cos, sin, value, cut, visit.repeat)
                if visit.gate is not None:
                    assert self.gates is not None
                    gate = torch.sigmoid(self.gates[visit.gate]).to(y.dtype)
                    y = gate * y + (1 - gate) * (x if cut is None else x[:, -cut:])
                x = y
            if visit.push:
                kept.append(x)
        if lanes is not None:
            x = 0.5 * (lanes[0] + lanes[1])
        return rms_norm(x)

    def logits(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, V) float32 (float64 stays), softcapped."""
        y = F.linear(x, self.embed.weight.to(x.dtype)) if self.head is None else self.head(x)
        y = y if y.dtype == torch.float64 else y.float()
        cap = self.config.softcap
        return cap * torch.tanh(y / cap) if cap else y

    def forward_logits(self, inputs: Tensor, *, last: int | None = None) -> Tensor:
        """inputs (B, T) -> (B, T, V), or (B, last, V) for the last positions only, float32.

        ``last`` spares the final block's queries and MLP and the head for positions nobody asked for.
        """
        return self.logits(self.body(inputs, None if last is None else min(last, inputs.size(1))))

    def loss(self, x: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats of hidden states (B, T, D): a scalar, or (B * T,) for "none"."""
        return F.cross_entropy(self.logits(x).flatten(0, 1), targets.flatten(), reduction=reduction)

    def forward(self, inputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """inputs, targets (B, T) -> the loss."""
        return self.loss(self.body(inputs), targets, reduction)

    def quantizable(self) -> dict[str, Linear]:
        """Linear layers by the ``state_dict`` name of their weight.

        A forward pre-hook on one sees the inputs (…, in_features) of its matrix. Eager kernels only.
        """
        return {f"{name}.weight": m for name, m in self.named_modules() if isinstance(m, Linear)}
