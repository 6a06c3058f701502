"""Shard arithmetic: do training shards of the case-transformed data hold validation documents.

The preparation script writes documents in order: the first ``val_docs`` to validation, the rest to
training shards of ten million tokens. Its default of 10,000 leaves 40,000 of the 50,000 validation
documents in the training shards wherever the validation shards come from elsewhere. How many
shards there are tells the two apart, just: 40,000 documents are under four shards of some 1,500.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: tokens of the 50,000 validation documents under the transform, so 957 a document
VAL_TOKENS, VAL_DOCS = 47_851_520, 50_000
#: tokens of the first 10,000 of them
SHORT_VAL_TOKENS = 9_662_464
SHARD_TOKENS = 10_000_000
#: shards of the published, disjoint data set
PUBLISHED = 80
#: shard counts seen with each setting (public logs): 1502 with 10,000 (#1854), 1499 with 50,000 (#1881)
WITH_SHORT, WITH_FULL = 1502, 1499

Kind = Literal["disjoint", "overlap", "disputed", "unknown"]


@dataclass(frozen=True, slots=True)
class Shards:
    """What a shard count says, and the arithmetic."""

    kind: Kind
    message: str


def judge(train_shards: int, val_tokens: int | None) -> Shards:
    """Judges one run on case-transformed data. ``val_tokens``: of its validation loader."""
    documents = (VAL_DOCS - 10_000) * VAL_TOKENS / VAL_DOCS
    apart = f"40,000 documents x {VAL_TOKENS / VAL_DOCS:.0f} tokens = {documents / 1e6:.1f} million = "
    apart += f"{documents / SHARD_TOKENS:.1f} shards of ten million"
    if train_shards <= PUBLISHED:
        return Shards(
            "disjoint", f"{train_shards} training shards, the published disjoint set or a part of it"
        )
    if val_tokens is not None and abs(val_tokens - SHORT_VAL_TOKENS) < 3000:
        return Shards(
            "disjoint", f"{train_shards} training shards beside a validation set of 10,000 documents: "
            "training starts where that set ends (but see D2)",
        )  # fmt: skip
    if train_shards in range(WITH_SHORT - 1, WITH_SHORT + 3):
        return Shards(
            "overlap", f"{train_shards} training shards and the full validation set: a local preparation that left "
            f"only 10,000 documents out gives {WITH_SHORT}, one that left all 50,000 out {WITH_FULL} ({apart})",
        )  # fmt: skip
    if train_shards in range(WITH_FULL - 2, WITH_FULL + 2):
        return Shards(
            "disputed", f"{train_shards} training shards, of a local preparation. For an overlap: the maintainers removed "
            f"a submission with this count (#2146). Against: {apart}, and {WITH_SHORT} - {WITH_FULL} = "
            f"{WITH_SHORT - WITH_FULL} shards, so that {WITH_FULL} is the count with all 50,000 documents left out",
        )  # fmt: skip
    return Shards(
        "disputed", f"{train_shards} training shards of the case-transformed data are not the published {PUBLISHED}: a local "
        f"preparation, whose default leaves 40,000 validation documents in training ({apart}); the count "
        "decides nothing",
    )  # fmt: skip
