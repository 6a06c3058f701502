"""The validation stream: tokens, the bytes that each target stands for, and digests of where they came from.

The harness owns it. A model sees windows of inputs, adaptation code sees grants of scored ranges; neither
ever holds a `Stream`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audit.contracts import InputError
from harness.tokens.bytes import ByteTable
from harness.tokens.shards import ShardSet, document_starts, official_trim
from harness.tokens.tokenizer import Tokenizer, load_tokenizer

_SLAB = 1 << 22


@dataclass(slots=True, kw_only=True, eq=False)
class Stream:
    """``tokens`` uint16 (T + 1,): inputs are all but the last, targets all but the first.

    ``target_bytes`` uint16 (T,): bytes of original text per target. ``available`` counts the targets
    of the whole split after the official trim; ``partial`` says that a cap left some of them out.
    """

    tokens: np.ndarray
    target_bytes: np.ndarray
    vocab: int
    bos: int = 1
    partial: bool = False
    available: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> int:
        return len(self.tokens) - 1

    def documents(self) -> np.ndarray:
        """Targets at which a document begins: the input of target ``t`` is that document's BOS."""
        return document_starts(self.tokens[:-1], self.bos)

    def bytes_in(self, lo: int, hi: int) -> int:
        """Bytes of the targets ``[lo, hi)``."""
        return int(self.target_bytes[lo:hi].sum(dtype=np.int64))

    @classmethod
    def of(cls, tokens: np.ndarray, *, vocab: int, target_bytes: np.ndarray | None = None, bos: int = 1) -> Stream:
        """A stream from memory, for tests and probes; without byte counts every target is one byte."""
        tokens = np.ascontiguousarray(tokens, dtype=np.uint16)
        if len(tokens) < 2:
            raise InputError(f"a stream of {len(tokens)} tokens has no target")
        sizes = np.ones(len(tokens) - 1, np.uint16) if target_bytes is None else target_bytes
        digest = hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest()
        return cls(
            tokens=tokens, target_bytes=sizes, vocab=vocab, bos=bos, available=len(tokens) - 1,
            provenance={"shards": [{"name": "memory", "sha256": digest, "tokens": len(tokens)}],
                        "tokenizer": None, "bytes": {"kind": "one per target"}},
        )  # fmt: skip


def open_stream(
    data: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str],
    *,
    context: int,
    max_tokens: int | None = None,
    sidecar: str | os.PathLike[str] | None = None,
) -> Stream:
    """The validation split of a shard folder, cut by the official trim for sequences of ``context``.

    ``max_tokens`` keeps only the first so many tokens and marks the stream as partial. ``sidecar``
    names byte-count shards (CaseOps); their counts replace the tokenizer's byte table.
    Raises `InputError` for shards, tokenizer and sidecar that do not belong together.
    """
    tok: Tokenizer = load_tokenizer(tokenizer)
    shards = ShardSet.open(data, "val", tok.vocab_size)
    whole = shards.tokens()
    available = max(((len(whole) - 1) // context) * context, 0)
    if max_tokens is not None and max_tokens < 2:
        raise InputError(f"--max-tokens {max_tokens} leaves no target to score")
    used = whole if max_tokens is None else whole[:max_tokens]
    tokens = np.array(official_trim(used, context), dtype=np.uint16)
    table = ByteTable.from_tokenizer(tok)
    sizes = np.empty(len(tokens) - 1, np.uint16)
    for a in range(0, len(sizes), _SLAB):
        b = min(a + _SLAB, len(sizes))
        sizes[a:b] = table.target_bytes(tokens[a:b], tokens[a + 1 : b + 1])
    source: dict[str, Any] = {"kind": "tokenizer table"}
    if sidecar is not None:
        sizes, source = _sidecar(sidecar, whole, tokens, sizes, tok.bos_id)
    return Stream(
        tokens=tokens, target_bytes=sizes, vocab=tok.vocab_size, bos=tok.bos_id,
        partial=len(tokens) - 1 < available, available=available,
        provenance={
            "shards": [
                {"name": Path(p).name, "sha256": d, "tokens": len(a)}
                for p, d, a in zip(shards.paths, shards.file_digests(), shards.arrays, strict=True)
            ],
            "tokenizer": {"name": Path(tokenizer).name, "sha256": tok.digest, "vocab": tok.vocab_size},
            "bytes": source,
        },
    )  # fmt: skip


def _sidecar(
    where: str | os.PathLike[str], whole: np.ndarray, tokens: np.ndarray, table: np.ndarray, bos: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Byte counts per token from ``*_val_bytes_*.bin``, checked against tokens and tokenizer.

    A lossless case transform moves bytes between neighbouring tokens, so single counts may differ
    from the table; what may not: one count per token, none for BOS, and no document of far more bytes
    than its pieces have (a larger denominator is how a wrong sidecar buys a better score).
    """
    side = ShardSet.open(where, "val_bytes")
    counts = side.tokens()
    if len(counts) != len(whole):
        raise InputError(f"{where}: {len(counts)} byte counts for {len(whole)} tokens; not this stream's sidecar")
    sizes = np.array(counts[1 : len(tokens)], dtype=np.uint16)
    marked = np.flatnonzero((tokens[1:] == bos) & (sizes != 0))
    if len(marked):
        raise InputError(f"{where}: BOS at token {int(marked[0]) + 1} claims {int(sizes[marked[0]])} bytes, not 0")
    total, tabled = int(sizes.sum(dtype=np.int64)), int(table.sum(dtype=np.int64))
    if total > tabled * 1.02 + 16:
        raise InputError(
            f"{where}: the sidecar counts {total} bytes where the pieces hold {tabled}; it inflates the denominator"
        )
    return sizes, {"kind": "sidecar", "sha256": side.digest(), "bytes": total, "table_bytes": tabled}
