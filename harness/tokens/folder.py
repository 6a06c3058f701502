"""Finds and describes what a data folder holds: tokenizer, splits, and whether its manifest is true."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from audit.contracts import InputError
from harness.tokens.build import MANIFEST, SCHEMA
from harness.tokens.bytes import ByteTable
from harness.tokens.shards import NoShards, ShardSet, document_starts
from harness.tokens.tokenizer import Tokenizer, load_tokenizer


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The folder's manifest, or None where there is none of ours. Raises `InputError` on a damaged one."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable manifest: {error}") from None
    return manifest if isinstance(manifest, dict) and manifest.get("schema") == SCHEMA else None


def find_tokenizer(folder: str | os.PathLike[str]) -> Path:
    """The tokenizer that belongs to a data folder.

    The manifest's one; else the only model file in the folder, in its ``tokenizers/``, or in the
    official place beside it (``../../tokenizers/fineweb_<V>_bpe.model`` of
    ``datasets/fineweb10B_sp<V>``). Raises `InputError` when there is none or more than one.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    if manifest is not None:
        return root / manifest["tokenizer"]["file"]
    if not root.is_dir():
        root = root.parent
    vocab = root.name.rpartition("_sp")[2]
    official = root.parent.parent / "tokenizers" / f"fineweb_{vocab}_bpe.model"
    if vocab.isdigit() and official.is_file():
        return official
    for place in (root, root / "tokenizers"):
        found = sorted(place.glob("*.model"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(p.name for p in found)
            raise InputError(f"{place}: several tokenizers ({names}); name one with --tokenizer")
    raise InputError(f"{root}: no tokenizer in this data folder; name one with --tokenizer")


def describe(
    where: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """What ``where`` holds (schema ``referee.data-inspect/1``), counted from the shards themselves.

    Per split: documents, tokens, bytes of text, bytes per token, document lengths, file digests.
    Byte figures need a tokenizer; without one they are None and the reason is in ``tokenizer``.
    """
    model: Tokenizer | None = None
    why = ""
    try:
        model = load_tokenizer(tokenizer if tokenizer is not None else find_tokenizer(where))
    except InputError as error:
        if tokenizer is not None:
            raise
        why = str(error)
    result: dict[str, Any] = {
        "schema": "referee.data-inspect/1",
        "where": os.fspath(where),
        "tokenizer": describe_tokenizer(model) if model is not None else {"missing": why},
        "splits": {},
    }
    only_file = Path(where).is_file()
    for split in ("file",) if only_file else ("val", "train"):
        try:
            shards = ShardSet.open(where, split, model.vocab_size if model is not None else None)
        except NoShards:
            continue
        result["splits"][split] = _describe_split(shards, model)
    if not result["splits"]:
        raise InputError(f"{where}: no val and no train shards here")
    manifest = None if only_file else read_manifest(where)
    result["manifest"] = None if manifest is None else _compare(manifest, result)
    return result


def describe_tokenizer(model: Tokenizer) -> dict[str, Any]:
    """Path, digest, size, and how many pieces are of each kind."""
    kinds: dict[str, int] = {}
    for piece in model.pieces:
        kinds[piece.kind] = kinds.get(piece.kind, 0) + 1
    return {
        "path": os.fspath(model.path),
        "sha256": model.digest,
        "vocab_size": model.vocab_size,
        "bos_id": model.bos_id,
        "pieces": kinds,
    }


def _describe_split(shards: ShardSet, model: Tokenizer | None) -> dict[str, Any]:
    bos = model.bos_id if model is not None else 1
    table = ByteTable.from_tokenizer(model) if model is not None else None
    starts: list[np.ndarray] = []
    offset = text_bytes = 0
    last: np.ndarray | None = None
    for array in shards.arrays:
        starts.append(document_starts(array, bos) + offset)
        if table is not None:
            # A target's bytes depend on the token before it, which may lie in the shard before.
            joined = array if last is None else np.concatenate([last, array])
            text_bytes += table.stream_bytes(joined)
            last = array[-1:]
        offset += len(array)
    all_starts = np.concatenate(starts)
    lengths = np.diff(np.append(all_starts, shards.total)) if len(all_starts) else np.empty(0, dtype=np.int64)
    preview = ""
    if model is not None:
        preview = model.decode(shards.slice(0, min(shards.total, 64)))
    return {
        "files": [
            {"file": p.name, "tokens": len(a), "sha256": d}
            for p, a, d in zip(shards.paths, shards.arrays, shards.file_digests(), strict=True)
        ],
        "digest": shards.digest(),
        "tokens": shards.total,
        "documents": len(all_starts),
        "tokens_per_document": (
            {
                "mean": float(lengths.mean()),
                "median": float(np.median(lengths)),
                "longest": int(lengths.max()),
            }
            if len(lengths)
            else None
        ),
        "bytes": text_bytes if table is not None else None,
        "bytes_per_token": text_bytes / max(shards.total - 1, 1) if table is not None else None,
        "starts_with": preview,
    }


def _compare(manifest: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Which statements of the manifest the files contradict."""
    differences = []
    if manifest["tokenizer"]["sha256"] != found["tokenizer"].get("sha256"):
        differences.append("tokenizer: another file than the manifest's")
    for split, stated in manifest["splits"].items():
        present = found["splits"].get(split)
        if present is None:
            differences.append(f"{split}: no shards, the manifest names {len(stated['files'])}")
        elif [f["sha256"] for f in stated["files"]] != [f["sha256"] for f in present["files"]]:
            differences.append(f"{split}: the shards are not the manifest's")
    return {"agrees": not differences, "differences": differences}
