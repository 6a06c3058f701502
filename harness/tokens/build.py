"""Turns documents into a data folder: tokenizer, validation and training shards, manifest.

The first documents are the validation split, as in the contest. A training document whose text
(whitespace aside) equals a validation document is dropped, and a tokenizer trained here sees
training documents only. The manifest is written last: a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audit.contracts import InputError
from harness.tokens.bytes import ByteTable
from harness.tokens.shards import SHARD_TOKENS, ShardWriter, file_digest
from harness.tokens.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

SCHEMA = "referee.data/1"
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.model"
#: Text read for tokenizer training; more changes a small vocabulary little and costs minutes.
TOKENIZER_BYTES = 8_000_000
_BATCH = 256

#: Called with a stage name and the documents done in it.
Progress = Callable[[str, int], None]


def build(
    documents: Iterable[str],
    out: str | os.PathLike[str],
    *,
    val_documents: int,
    vocab_size: int = 1024,
    tokenizer: str | os.PathLike[str] | None = None,
    prefix: str = "fineweb",
    shard_tokens: int = SHARD_TOKENS,
    tokenizer_bytes: int = TOKENIZER_BYTES,
    source: str = "",
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds ``out`` and returns the manifest.

    ``documents`` must be iterable twice (a list, a `FileSource`). With ``tokenizer`` that model is
    copied in and used; else one of ``vocab_size`` pieces is trained. Empty documents are skipped.
    Raises `InputError` when a split would be empty.
    """
    if val_documents < 1:
        raise InputError("the validation split needs at least one document")
    if iter(documents) is documents:
        raise TypeError("documents must be iterable twice, not an iterator")
    tell: Progress = progress or (lambda _stage, _done: None)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    model = _tokenizer(documents, folder, val_documents, vocab_size, tokenizer, tokenizer_bytes, tell)
    table = ByteTable.from_tokenizer(model)

    texts = (d for d in documents if d.strip())
    held_out: set[bytes] = set()
    splits: dict[str, Any] = {}

    def validation() -> Iterator[str]:
        for text in itertools.islice(texts, val_documents):
            held_out.add(_key(text))
            yield text

    splits["val"] = _split(folder, "val", validation(), model, table, prefix, shard_tokens, threads, tell)
    dropped = 0

    def training() -> Iterator[str]:
        nonlocal dropped
        for text in texts:
            if _key(text) in held_out:
                dropped += 1
            else:
                yield text

    splits["train"] = _split(folder, "train", training(), model, table, prefix, shard_tokens, threads, tell)
    splits["train"]["dropped_as_validation"] = dropped
    manifest = {
        "schema": SCHEMA,
        "source": source,
        "tokenizer": {"file": model.path.name, "sha256": model.digest, "vocab_size": model.vocab_size},
        "splits": splits,
    }
    partial = folder / (MANIFEST + ".partial")
    partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / MANIFEST)
    return manifest


def _key(text: str) -> bytes:
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", errors="replace"), digest_size=16).digest()


def _tokenizer(
    documents: Iterable[str],
    folder: Path,
    val_documents: int,
    vocab_size: int,
    given: str | os.PathLike[str] | None,
    max_bytes: int,
    tell: Progress,
) -> Tokenizer:
    if given is not None:
        loaded = load_tokenizer(given)
        target = folder / (TOKENIZER if loaded.path.suffix != ".json" else "tokenizer.json")
        if loaded.path.resolve() != target.resolve():
            shutil.copyfile(loaded.path, target)
        return load_tokenizer(target)

    def training() -> Iterator[str]:
        kept = (d for d in documents if d.strip())
        for done, text in enumerate(itertools.islice(kept, val_documents, None), start=1):
            if done % _BATCH == 0:
                tell("tokenizer", done)
            yield text

    tell("tokenizer", 0)
    if next(training(), None) is None:
        raise InputError(
            f"no training documents: the source holds no more than the {val_documents} for validation"
        )
    return train_tokenizer(training(), vocab_size, folder / TOKENIZER, max_bytes=max_bytes)


def _split(
    folder: Path,
    split: str,
    texts: Iterator[str],
    tokenizer: Tokenizer,
    table: ByteTable,
    prefix: str,
    shard_tokens: int,
    threads: int,
    tell: Progress,
) -> dict[str, Any]:
    """Encodes one split; ``bytes`` is what its targets stand for when the stream starts with its first BOS."""
    total_bytes = 0
    with ShardWriter(folder, split, prefix=prefix, shard_tokens=shard_tokens) as writer:
        while batch := list(itertools.islice(texts, _BATCH)):
            for row in tokenizer.encode_documents(batch, threads):
                writer.add(row)
                total_bytes += table.stream_bytes(row)
            tell(split, writer.documents)
    if not writer.documents:
        raise InputError(f"no {split} documents: the source holds too few for this split")
    return {
        "documents": writer.documents,
        "tokens": writer.tokens,
        "bytes": total_bytes,
        "files": [
            {"file": p.name, "tokens": int(np.fromfile(p, dtype="<i4", count=3)[2]), "sha256": file_digest(p)}
            for p in writer.paths
        ],
    }
