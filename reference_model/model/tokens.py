"""What token ids turn into before the first block: SmearGate, BigramHash, shared value embedding.

All of it sees input ids only, never a target: a table keyed by the token to be predicted would be a
leak (rule F10), not a feature.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference_model.model.layers import Linear

HASH = (36313, 27191)


class SmearGate(nn.Module):
    """x_t <- (1 - g) x_t + g x_{t-1}, g = sigmoid of one parameter per channel, x_{-1} = 0.

    With ``document_mask`` the first token of a document (``bos``) counts as first position too, so that
    nothing crosses a document boundary (rule F12); off reproduces submissions that lack the mask.
    """

    def __init__(self, dim: int, bos: int, document_mask: bool) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim))
        self.bos, self.document_mask = bos, document_mask

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        g = torch.sigmoid(self.gate).to(x.dtype)  # (D,)
        previous = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)  # (B, T, D)
        if self.document_mask:
            previous = previous.masked_fill((ids == self.bos)[..., None], 0.0)
        return (1 - g) * x + g * previous


class BigramHash(nn.Module):
    """A row of a small table for the last two input ids, projected and scaled (init 0.05).

    Row (36313 t_i XOR 27191 t_{i-1}) mod (size - 1); the last row serves the first position.
    """

    def __init__(self, size: int, width: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, width)
        self.proj = Linear(width, dim)
        self.scale = nn.Parameter(torch.tensor(0.05))

    def rows(self, ids: Tensor) -> Tensor:
        modulus = self.embed.num_embeddings - 1
        # int64 keeps the products exact for any vocabulary; nothing ever wraps around.
        hashed = ((HASH[0] * ids[:, 1:]) ^ (HASH[1] * ids[:, :-1])) % modulus
        return torch.cat((torch.full_like(ids[:, :1], modulus), hashed), dim=1)  # (B, T)

    def forward(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(self.embed(self.rows(ids)).to(dtype)) * self.scale.to(dtype)


class ValueEmbedding(nn.Module):
    """Token identity for attention's values: one shared table, one factor per layer that uses it."""

    def __init__(self, vocab: int, width: int, out: int, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.proj = Linear(width, out)
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.layer_scale = nn.Parameter(torch.ones(len(layers)))
        self.layers = layers

    def forward(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(self.embed(ids).to(dtype)) * self.scale.to(dtype)  # (B, T, K * d)

    def at(self, layer: int, shared: Tensor) -> Tensor | None:
        if layer not in self.layers:
            return None
        return shared * self.layer_scale[self.layers.index(layer)].to(shared.dtype)
