"""Reads and writes token shards in the contest's format.

A shard is 256 little-endian int32 (magic 20240520, version 1, token count, zeros) followed by that
many little-endian uint16 tokens; its size is exactly 1024 + 2 n bytes. A document is BOS followed by
its pieces; documents are concatenated and may span shards. The validation stream is the sorted
``*_val_*`` shards, concatenated.

Every way in which a file can break this raises `InputError` naming the file, because a shard that
is silently short or of another vocabulary yields a plausible wrong score.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audit.contracts import InputError

MAGIC = 20240520
VERSION = 1
HEADER_INTS = 256
HEADER_BYTES = HEADER_INTS * 4
SHARD_TOKENS = 100_000_000  # the official shard length; the last shard of a split is shorter
MAX_TOKENS = 2**31 - 1  # the count is a signed 32-bit field
_SLAB = 1 << 24


class NoShards(InputError):
    """The folder exists but holds no shards of the wanted split."""


def read_shard(path: str | os.PathLike[str], vocab_size: int | None = None) -> np.memmap:
    """Maps one shard's tokens, uint16 of shape (n,), read-only, after checking the whole file.

    With ``vocab_size`` every token is compared with it, which reads the file once.
    Raises `InputError` for anything but a well-formed, non-empty shard.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            header = np.frombuffer(handle.read(HEADER_BYTES), dtype=np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such shard") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the shard: {error.strerror or error}") from None
    if size == 0:
        raise InputError(f"{path}: empty file, not a token shard")
    if header.size < HEADER_BYTES:
        raise InputError(f"{path}: truncated shard: {size} bytes, the header alone has {HEADER_BYTES}")
    magic, version, count = (int(v) for v in header.view("<i4")[:3])
    if magic != MAGIC:
        raise InputError(f"{path}: wrong magic number {magic}, a token shard starts with {MAGIC}")
    if version != VERSION:
        raise InputError(f"{path}: shard version {version}, only version {VERSION} is known")
    if count < 0:
        raise InputError(f"{path}: negative token count {count} in the shard header")
    body = size - HEADER_BYTES
    if body % 2:
        raise InputError(f"{path}: odd length: {body} bytes after the header, tokens take 2 bytes each")
    if body < 2 * count:
        raise InputError(
            f"{path}: truncated shard: header promises {count} tokens, the file holds {body // 2}"
        )
    if body > 2 * count:
        raise InputError(
            f"{path}: shard longer than its count: header promises {count} tokens, the file holds {body // 2}"
        )
    if count == 0:
        raise InputError(f"{path}: empty shard: its header says 0 tokens")
    tokens = np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(count,))
    if vocab_size is not None:
        check_vocabulary(tokens, vocab_size, path)
    return tokens


def check_vocabulary(tokens: np.ndarray, vocab_size: int, path: str | os.PathLike[str]) -> None:
    """Raises `InputError` at the first token that is not below ``vocab_size``. Reads in slabs."""
    for start in range(0, len(tokens), _SLAB):
        slab = tokens[start : start + _SLAB]
        if int(slab.max()) >= vocab_size:
            at = int(np.argmax(slab >= vocab_size))
            raise InputError(
                f"{path}: token {int(slab[at])} at position {start + at} is outside the vocabulary of {vocab_size}; "
                "shards and tokenizer do not belong together"
            )


def write_shard(path: str | os.PathLike[str], tokens: np.ndarray) -> int:
    """Writes ``tokens`` (n,) as one shard and returns its size in bytes; the file appears only when complete."""
    path = Path(path)
    values = np.asarray(tokens)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"{path}: a shard needs a non-empty row of tokens, got shape {values.shape}")
    if values.size > MAX_TOKENS:
        raise InputError(f"{path}: {values.size} tokens do not fit the 32-bit count of a shard")
    if values.dtype != np.uint16:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 0xFFFF:
            raise InputError(f"{path}: tokens span {low} to {high}, a shard holds 0 to 65535")
    header = np.zeros(HEADER_INTS, dtype="<i4")
    header[:3] = MAGIC, VERSION, values.size
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as handle:
        handle.write(header.tobytes())
        handle.write(values.astype("<u2", copy=False).tobytes())
    os.replace(partial, path)
    return HEADER_BYTES + 2 * int(values.size)


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal. Raises `InputError` when it cannot be read."""
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}") from None


def find_shards(where: str | os.PathLike[str], split: str) -> list[Path]:
    """The sorted shard files of one split (``val``, ``train``, or ``val_bytes`` for byte sidecars).

    ``where`` is one file, a glob pattern, or a folder. A folder holding none itself is searched
    in ``datasets/*/``, the official layout. Raises `InputError` when nothing matches.
    """
    text = os.fspath(where)
    root = Path(text)
    if root.is_file():
        return [root]
    if root.is_dir():
        for base in (root, *sorted(p for p in root.glob("datasets/*") if p.is_dir())):
            found = sorted(base.glob(f"*_{split}_*.bin")) or sorted(base.glob(f"{split}_*.bin"))
            found = [p for p in found if split.endswith("_bytes") or f"_{split}_bytes_" not in p.name]
            if found:
                return found
        raise NoShards(f"{root}: no {split} shards in this folder (looked for *_{split}_*.bin)")
    if any(c in text for c in "*?["):
        # The pattern itself says what is wanted; sidecars are no token shards.
        base = Path(root.anchor) if root.is_absolute() else Path()
        found = sorted(base.glob(str(root.relative_to(root.anchor)) if root.is_absolute() else text))
        found = [p for p in found if split.endswith("_bytes") or "_bytes_" not in p.name]
        if found:
            return found
        raise InputError(f"{text}: no file matches this pattern")
    raise InputError(f"{root}: no such file or folder")


@dataclass(slots=True)
class ShardSet:
    """The shards of one split in stream order, checked and mapped.

    ``arrays[i]`` maps ``paths[i]``; ``total`` counts all tokens.
    """

    paths: list[Path]
    arrays: list[np.ndarray]
    split: str

    @classmethod
    def open(
        cls, where: str | os.PathLike[str], split: str = "val", vocab_size: int | None = None
    ) -> ShardSet:
        """Opens every shard of ``split`` under ``where`` (see `find_shards`); all are checked at once."""
        paths = find_shards(where, split)
        return cls(paths=paths, arrays=[read_shard(p, vocab_size) for p in paths], split=split)

    @property
    def total(self) -> int:
        return sum(len(a) for a in self.arrays)

    def tokens(self) -> np.ndarray:
        """The whole stream, uint16 of shape (total,): a read-only map for one shard, a copy for several."""
        return self.arrays[0] if len(self.arrays) == 1 else np.concatenate(self.arrays)

    def file_digests(self) -> list[str]:
        """SHA-256 of each file, in stream order."""
        return [file_digest(p) for p in self.paths]

    def digest(self) -> str:
        """SHA-256 over the files' hexadecimal digests, newline-terminated, in stream order.

        File names do not enter: the same bytes under another folder are the same data.
        """
        return hashlib.sha256("".join(d + "\n" for d in self.file_digests()).encode()).hexdigest()

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop`` of the stream without copying more than these."""
        if not 0 <= start <= stop <= self.total:
            raise IndexError(f"tokens {start} to {stop} of {self.total}")
        parts, offset = [], 0
        for array in self.arrays:
            low, high = max(start - offset, 0), min(stop - offset, len(array))
            if low < high:
                parts.append(array[low:high])
            offset += len(array)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint16)


def official_trim(tokens: np.ndarray, seq_len: int) -> np.ndarray:
    """The validation stream as the contest cuts it: ((N - 1) // L) * L + 1 tokens.

    Inputs are ``result[:-1]`` and targets ``result[1:]``. Raises `InputError` when not even one
    sequence of ``seq_len`` fits.
    """
    if seq_len < 1:
        raise InputError(f"sequence length {seq_len}: must be at least 1")
    usable = ((len(tokens) - 1) // seq_len) * seq_len
    if usable <= 0:
        raise InputError(f"validation stream of {len(tokens)} tokens is too short for sequences of {seq_len}")
    return tokens[: usable + 1]


def document_starts(tokens: np.ndarray, bos_id: int) -> np.ndarray:
    """Positions of the documents' BOS tokens, int64 of shape (documents,)."""
    return np.flatnonzero(tokens == bos_id)


class ShardWriter:
    """Writes documents of one split as a sequence of shards named ``<prefix>_<split>_%06d.bin``.

    Stale shards of the same split are removed first, so that a shorter rebuild leaves none behind.
    Use as a context manager; leaving it normally writes the last, shorter shard.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str,
        *,
        prefix: str = "fineweb",
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        if not 1 <= shard_tokens <= MAX_TOKENS:
            raise InputError(f"shard length {shard_tokens}: must be between 1 and {MAX_TOKENS}")
        self.folder, self.split, self.prefix, self.shard_tokens = Path(folder), split, prefix, shard_tokens
        self.paths: list[Path] = []
        self.documents = 0
        self.tokens = 0
        self._parts: list[np.ndarray] = []
        self._held = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob(f"{prefix}_{split}_*.bin"):
            with contextlib.suppress(FileNotFoundError):
                stale.unlink()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and self._held:
            self._flush(self._held)

    def add(self, document: np.ndarray) -> None:
        """Appends one document's tokens (BOS included)."""
        self._parts.append(np.asarray(document, dtype=np.uint16))
        self._held += len(document)
        self.documents += 1
        self.tokens += len(document)
        while self._held >= self.shard_tokens:
            self._flush(self.shard_tokens)

    def _flush(self, count: int) -> None:
        joined = np.concatenate(self._parts)
        path = self.folder / f"{self.prefix}_{self.split}_{len(self.paths):06d}.bin"
        write_shard(path, joined[:count])
        self.paths.append(path)
        self._parts, self._held = [joined[count:]], len(joined) - count


def iter_documents(tokens: np.ndarray, bos_id: int) -> Iterator[np.ndarray]:
    """The documents of a stream, each starting with BOS; tokens before the first BOS come as one piece."""
    starts = document_starts(tokens, bos_id)
    edges = np.unique(np.concatenate(([0], starts, [len(tokens)])))
    for low, high in itertools.pairwise(edges):
        yield tokens[low:high]
