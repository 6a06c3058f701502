"""Tokenizers of the contest: SentencePiece models and the pure-byte vocabulary of 260.

Training uses the options of the contest's own export script, so that a tokenizer made here is one
the contest's scripts would accept: BPE, character coverage 0.999, byte fallback, digits split,
nmt_nfkc, no dummy prefix, pad/bos/eos/unk = 0/1/2/3, vocabulary size as a soft limit.

nmt_nfkc maps tabs and newlines to spaces and folds runs of spaces; the contest tolerates that loss
(the stored text is what the byte table counts). ``decode(encode(text))`` is therefore the
normalised text, not the text.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audit.contracts import InputError

PAD_ID, BOS_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
SPECIAL = 4
MARKER = "\u2581"  # SentencePiece's visible space


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One vocabulary entry. ``kind``: ``text``, ``byte``, ``control``, ``unknown`` or ``unused``."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """A loaded tokenizer. ``digest`` is the SHA-256 of the model file, ``pieces[i]`` describes id i."""

    path: Path
    digest: str
    bos_id: int
    pieces: tuple[Piece, ...] = field(repr=False)
    _processor: Any = field(repr=False, default=None)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Pieces of ``text``, without BOS."""
        if self._processor is None:
            return [byte + SPECIAL for byte in text.encode("utf-8", errors="replace")]
        return self._processor.encode(text, out_type=int)

    def encode_documents(self, texts: Sequence[str], threads: int = 1) -> list[np.ndarray]:
        """Each text as a document: BOS and its pieces, uint16."""
        if self._processor is None or threads < 2:
            rows = [self.encode(t) for t in texts]
        else:
            rows = self._processor.encode(list(texts), out_type=int, num_threads=threads)
        return [np.array([self.bos_id, *row], dtype=np.uint16) for row in rows]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of a row of ids; control pieces give nothing, invalid UTF-8 becomes U+FFFD."""
        row = [int(i) for i in ids]
        if row and not 0 <= min(row) <= max(row) < self.vocab_size:
            raise InputError(f"{self.path}: cannot decode ids outside the vocabulary of {self.vocab_size}")
        if self._processor is None:
            return bytes(i - SPECIAL for i in row if i >= SPECIAL).decode("utf-8", errors="replace")
        return self._processor.decode(row)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Loads a SentencePiece ``.model`` or the contest's pure-byte ``.json``.

    Raises `InputError` when the file is missing, unreadable or neither of the two.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such tokenizer") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the tokenizer: {error.strerror or error}") from None
    digest = hashlib.sha256(data).hexdigest()
    if path.suffix == ".json":
        return _pure_byte(path, data, digest)
    try:
        import sentencepiece
    except ImportError:
        raise InputError(
            "tokenizers need sentencepiece; install it with: pip install 'parameter-golf-referee[eval]'"
        ) from None
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data)
        size = processor.vocab_size()
    except RuntimeError:
        size = 0
    if size == 0:
        raise InputError(f"{path}: not a SentencePiece model (or a damaged one)")
    if size > 2**16:
        raise InputError(f"{path}: {size} pieces do not fit the shards' 16-bit tokens")
    return Tokenizer(
        path=path,
        digest=digest,
        bos_id=processor.bos_id(),
        pieces=tuple(_piece(processor, i) for i in range(size)),
        _processor=processor,
    )


def _piece(processor: Any, index: int) -> Piece:
    kinds = (
        ("control", processor.is_control), ("unknown", processor.is_unknown),
        ("unused", processor.is_unused), ("byte", processor.is_byte),
    )  # fmt: skip
    kind = next((name for name, test in kinds if test(index)), "text")
    return Piece(text=processor.id_to_piece(index), kind=kind)


def _pure_byte(path: Path, data: bytes, digest: str) -> Tokenizer:
    try:
        payload = json.loads(data)
        known = payload["tokenizer_type"] == "pure_byte" and payload["vocab_size"] == 256 + SPECIAL
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InputError(f"{path}: not a pure-byte tokenizer of {256 + SPECIAL} ids")
    names = ("<pad>", "<s>", "</s>", "<unk>")
    control = [Piece(text=n, kind="unknown" if n == "<unk>" else "control") for n in names]
    pieces = (*control, *(Piece(text=f"<0x{b:02X}>", kind="byte") for b in range(256)))
    return Tokenizer(path=path, digest=digest, bos_id=BOS_ID, pieces=pieces)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, path: str | os.PathLike[str], *, max_bytes: int | None = None
) -> Tokenizer:
    """Trains a BPE model with the contest's options, writes it to ``path`` and loads it.

    ``max_bytes`` stops reading texts after about that many bytes: merges of a small vocabulary settle
    long before the corpus ends. Deterministic for the same texts. Raises `InputError` when there is
    no text or the vocabulary cannot be reached.
    """
    try:
        import sentencepiece
    except ImportError:
        raise InputError(
            "tokenizers need sentencepiece; install it with: pip install 'parameter-golf-referee[eval]'"
        ) from None
    if not 256 + SPECIAL < vocab_size <= 2**16:
        raise InputError(
            f"vocabulary of {vocab_size}: choose more than {256 + SPECIAL} (specials and bytes) and at most 65536"
        )

    def sentences() -> Iterable[str]:
        used = 0
        for text in texts:
            cleaned = text.replace("\x00", " ").strip()
            if not cleaned:
                continue
            yield cleaned
            used += len(cleaned.encode())
            if max_bytes is not None and used >= max_bytes:
                return

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences()),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.999,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="nmt_nfkc",
            add_dummy_prefix=False,
            pad_id=PAD_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(f"cannot train a tokenizer of {vocab_size} pieces on this text: {error}") from None
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(model.getvalue())
    os.replace(partial, path)
    return load_tokenizer(path)
