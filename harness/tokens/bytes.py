"""How many bytes of text a target stands for: the denominator of bits per byte.

This is the contest's own table (``build_sentencepiece_luts`` of its baseline script), which is the
law even where one could argue for another count:

- control, unknown and unused pieces: 0 bytes, and they are a boundary;
- a byte-fallback piece: 1 byte;
- any other piece: its UTF-8 length without one leading U+2581 marker, and 1 more for the marker's
  space when the previous token is no boundary. A space after BOS thus counts nothing.

The sum over a document equals the UTF-8 length of its decoded text, unless that text starts with a
space. The count is over the tokenizer's normalised text: what nmt_nfkc drops before encoding (tabs
and newlines turned to spaces, runs of spaces folded) was never in the stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audit.contracts import InputError
from harness.tokens.tokenizer import MARKER, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteTable:
    """Per vocabulary entry: own bytes (int16), leading-space marker (bool), boundary (bool), each (V,)."""

    base_bytes: np.ndarray
    has_leading_space: np.ndarray
    is_boundary: np.ndarray

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, vocab_size: int | None = None) -> ByteTable:
        """Builds the table; with a model vocabulary larger than the tokenizer's, the rest is boundary of 0 bytes."""
        size = max(tokenizer.vocab_size, vocab_size or 0)
        base = np.zeros(size, dtype=np.int16)
        space = np.zeros(size, dtype=np.bool_)
        boundary = np.ones(size, dtype=np.bool_)
        for index, piece in enumerate(tokenizer.pieces):
            if piece.kind in ("control", "unknown", "unused"):
                continue
            boundary[index] = False
            if piece.kind == "byte":
                base[index] = 1
                continue
            space[index] = piece.text.startswith(MARKER)
            base[index] = len(piece.text.removeprefix(MARKER).encode())
        return cls(base_bytes=base, has_leading_space=space, is_boundary=boundary)

    @property
    def vocab_size(self) -> int:
        return len(self.base_bytes)

    def target_bytes(self, prev: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Bytes of each target given the token before it; int64 of the arrays' common shape."""
        prev, target = np.asarray(prev), np.asarray(target)
        if prev.shape != target.shape:
            raise ValueError(f"prev {prev.shape} and target {target.shape} differ in shape")
        for name, ids in (("previous token", prev), ("target", target)):
            if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_size:
                raise InputError(f"{name} outside the byte table's vocabulary of {self.vocab_size}")
        spaces = self.has_leading_space[target] & ~self.is_boundary[prev]
        return self.base_bytes[target].astype(np.int64) + spaces

    def stream_bytes(self, tokens: np.ndarray) -> int:
        """Bytes of all targets of a stream, ``tokens[1:]``, each after its predecessor. Works in slabs."""
        total, slab = 0, 1 << 22
        for start in range(0, max(len(tokens) - 1, 0), slab):
            part = tokens[start : start + slab + 1]
            total += int(self.target_bytes(part[:-1], part[1:]).sum())
        return total
