"""Which parameters adapt, and at what rate: freezing, discriminative rates, schedules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers|h|transformer|block)\.(\d+)(?:\.|$)")
_NORM_OR_HEAD = re.compile(r"norm|ln_|head|tok_emb|embed|wte|scale|gain", re.IGNORECASE)

Named = list[tuple[str, torch.nn.Parameter]]


def block_of(name: str) -> int | None:
    """The transformer block that a parameter belongs to, by its name; None outside the blocks."""
    found = _BLOCK.search(name)
    return int(found.group(1)) if found else None


def blocks(names: list[str]) -> int:
    """Number of blocks that the names speak of."""
    return 1 + max((b for n in names if (b := block_of(n)) is not None), default=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeFirst:
    """Everything but the first ``count`` blocks (PR 726 freezes 2)."""

    count: int = 2

    def __call__(self, named: Named) -> Named:
        return [(n, p) for n, p in named if (b := block_of(n)) is None or b >= self.count]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBlocks:
    """The last ``count`` blocks, all norms and the head (PR 1171: 2)."""

    count: int = 2

    def __call__(self, named: Named) -> Named:
        depth = blocks([n for n, _p in named])
        return [
            (n, p)
            for n, p in named
            if ((b := block_of(n)) is not None and b >= depth - self.count) or (_NORM_OR_HEAD.search(n) is not None)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discriminative:
    """Rate factor ``decay ** (distance from the last block)`` per block (PR 827); 1 outside the blocks."""

    decay: float = 0.8

    def __call__(self, name: str, depth: int) -> float:
        b = block_of(name)
        return 1.0 if b is None else self.decay ** (depth - 1 - b)


def cosine(chunk: int, chunks: int) -> float:
    """1 at the first chunk, 0 at the last (PR 461)."""
    return 0.5 * (1.0 + math.cos(math.pi * chunk / max(chunks - 1, 1)))


def constant(chunk: int, chunks: int) -> float:
    return 1.0


Schedule = Callable[[int, int], float]
