"""Which grid each tensor goes to: mixed precision per tensor class.

The classes are those the submissions distinguish: embeddings (and an untied head), attention matrices, MLP
matrices, other matrices, and *control* tensors (norms, gates, mixing vectors: tiny and sensitive), which
stay floating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from audit.contracts import InputError

CLASSES = ("embedding", "attention", "mlp", "matrix", "control")
#: Matrices with fewer weights than this are control tensors: their scales would eat the saving.
SMALLEST_MATRIX = 2048


def tensor_class(name: str, shape: tuple[int, ...]) -> str:
    """The class of a tensor, from its shape and the words in its name."""
    size = 1
    for axis in shape:
        size *= axis
    if len(shape) < 2 or size < SMALLEST_MATRIX or shape[-1] < 16:
        return "control"
    words = set(name.lower().replace("_", ".").split("."))
    if words & {"scale", "scales", "gain", "gate", "gates", "mix", "norm"}:
        return "control"
    if words & {"embed", "emb", "embedding", "wte", "head", "bigram", "table"} and "proj" not in words:
        return "embedding"
    if words & {"attn", "attention", "qkv", "qo", "kv"}:
        return "attention"
    if words & {"mlp", "ffn", "fc", "expert", "experts"}:
        return "mlp"
    return "matrix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Bits per class: ``bits`` unless ``overrides`` gives the class its own; ``control`` is a float grid.

    Embeddings default to 8 bits, as in the submissions: a row of theirs is one token's whole meaning.
    """

    bits: int = 6
    overrides: Mapping[str, int] = field(default_factory=lambda: {"embedding": 8})
    control: str = "fp16"

    def bits_of(self, kind: str) -> int:
        return self.overrides.get(kind, self.bits)


def parse_overrides(texts: list[str]) -> dict[str, int]:
    """``["embedding=6", "mlp=5"]`` as a mapping, over the default of 8 bits for embeddings."""
    found = {"embedding": 8}
    for text in texts:
        kind, _, bits = text.partition("=")
        if kind not in CLASSES[:-1] or not bits.isdigit() or not 2 <= int(bits) <= 8:
            raise InputError(
                f"--class-bits {text}: expected CLASS=BITS with a class of {', '.join(CLASSES[:-1])}, bits 2-8"
            )
        found[kind] = int(bits)
    return found


def as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """(rows, columns) view under which a tensor is quantized: the last axis is the input."""
    return tensor.reshape(-1, tensor.shape[-1])
