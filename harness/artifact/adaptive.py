"""Adaptive coding of small integers with a range coder: frequency tables that learn as they go.

The coder itself is ``constriction``'s range coder; here live the tables. A table serves one *class* of
symbols that are alike (see ``rowcoder``). It starts from a bell curve, and after each block both sides
add what they have seen, so no table is ever stored. Two memories are blended: what this tensor has shown
so far, and what all earlier tensors have shown; the second carries a small tensor over its first symbols.

All arithmetic on frequencies is integer: encoder and decoder must agree to the last bit on any machine.
"""

from __future__ import annotations

from collections.abc import Callable

import constriction
import numpy as np

FIRST_BLOCK = 128
LAST_BLOCK = 1 << 15
#: Weight, in symbols, of the memory of earlier tensors against what this tensor has shown.
SHARED_WEIGHT = 2048
#: Weight, in symbols, of the initial bell curve against what earlier tensors have shown.
PRIOR_WEIGHT = 256
_UNIT = 1 << 12


def bell(clip: int, level: float) -> np.ndarray:
    """Integer weights of a discrete Gaussian over [-clip, clip] whose mean magnitude is ``level``.

    The exponential is built from squarings alone: library versions of ``exp`` differ in the last bit.
    """
    symbols = np.arange(-clip, clip + 1, dtype=np.float64)
    variance = max(level * level * 1.6, 0.05)
    base = np.maximum(0.0, 1.0 - symbols * symbols / (2.0 * variance) / 1024.0)
    for _ in range(10):
        base = base * base
    return np.floor(base * 65536.0).astype(np.int64) + 8


class Tables:
    """Frequency tables by class for one alphabet [-clip, clip]."""

    def __init__(self, clip: int, level_of: Callable[[int], float]) -> None:
        self._clip = clip
        self._level_of = level_of
        self._shared: dict[int, np.ndarray] = {}
        self._local: dict[int, np.ndarray] = {}

    def _frequencies(self, key: int) -> np.ndarray:
        local = self._local[key]
        shared = self._shared[key]
        return local * _UNIT + (shared * (SHARED_WEIGHT * _UNIT)) // int(shared.sum()) + 1

    def model(self, key: int) -> constriction.stream.model.Categorical:
        """The current distribution of a class."""
        if key not in self._local:
            self._local[key] = np.zeros(2 * self._clip + 1, np.int64)
        if key not in self._shared:
            start = bell(self._clip, self._level_of(key))
            self._shared[key] = np.maximum(1, start * (PRIOR_WEIGHT * 64) // int(start.sum()))
        frequencies = self._frequencies(key).astype(np.float64)
        return constriction.stream.model.Categorical(frequencies, perfect=False)

    def learn(self, key: int, symbols: np.ndarray) -> None:
        """Counts symbols (0-based) that both sides now know."""
        self._local[key] += np.bincount(symbols, minlength=2 * self._clip + 1)

    def next_tensor(self) -> None:
        """Moves what this tensor has shown into the shared memory (64ths of a symbol, halved when large)."""
        for key, local in self._local.items():
            shared = self._shared[key] + 64 * local
            while int(shared.sum()) > 1 << 30:
                shared = (shared + 1) // 2
            self._shared[key] = shared
        self._local = {}


def blocks(count: int) -> list[tuple[int, int]]:
    """(start, stop) of the coding blocks of ``count`` symbols: small at first, while there is much to learn."""
    found = []
    start, size = 0, FIRST_BLOCK
    while start < count:
        stop = min(count, start + size)
        found.append((start, stop))
        start, size = stop, min(LAST_BLOCK, size * 2)
    return found


def encode_symbols(
    encoder: constriction.stream.queue.RangeEncoder, tables: Tables, key: int, symbols: np.ndarray
) -> None:
    """Encodes 0-based symbols of one class."""
    symbols = np.ascontiguousarray(symbols, dtype=np.int32)
    for start, stop in blocks(symbols.size):
        part = symbols[start:stop]
        encoder.encode(part, tables.model(key))
        tables.learn(key, part)


def decode_symbols(
    decoder: constriction.stream.queue.RangeDecoder, tables: Tables, key: int, count: int
) -> np.ndarray:
    """Decodes ``count`` 0-based symbols of one class as int32."""
    out = np.empty(count, np.int32)
    for start, stop in blocks(count):
        out[start:stop] = decoder.decode(tables.model(key), stop - start)
        tables.learn(key, out[start:stop])
    return out
