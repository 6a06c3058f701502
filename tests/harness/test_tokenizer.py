"""Tokenizers: loading, refusal of damaged files, training with the contest's options."""

from __future__ import annotations

import json

import numpy as np
import pytest

from audit.contracts import InputError
from harness.tokens.bytes import ByteTable
from harness.tokens.tokenizer import load_tokenizer, train_tokenizer

TEXTS = [f"Sentence number {i} speaks of weights, windows and strides in 4096 ways." for i in range(300)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer(TEXTS, 320, tmp_path_factory.mktemp("tok") / "sub" / "t.model")


def test_special_ids_and_byte_pieces_are_the_contests(tokenizer):
    kinds = [p.kind for p in tokenizer.pieces]
    assert kinds[:4] == ["control", "control", "control", "unknown"]
    assert tokenizer.bos_id == 1
    assert kinds[4:260] == ["byte"] * 256
    assert tokenizer.vocab_size <= 320


def test_no_dummy_prefix_digits_split_and_whitespace_normalised(tokenizer):
    assert tokenizer.decode(tokenizer.encode("windows\tand\nstrides")) == "windows and strides"
    pieces = [tokenizer.pieces[i].text for i in tokenizer.encode("weights 4096")]
    assert not pieces[0].startswith("\u2581")
    assert [p for p in pieces if any(c.isdigit() for c in p)] == ["4", "0", "9", "6"]


def test_training_is_deterministic_and_digest_is_the_files(tmp_path, tokenizer):
    import hashlib

    again = train_tokenizer(TEXTS, 320, tmp_path / "again.model")
    assert again.digest == tokenizer.digest == hashlib.sha256(again.path.read_bytes()).hexdigest()


def test_documents_start_with_bos(tokenizer):
    rows = tokenizer.encode_documents(["windows", ""])
    assert rows[0][0] == rows[1][0] == 1
    assert rows[0].dtype == np.uint16
    assert len(rows[1]) == 1
    both = tokenizer.encode_documents(TEXTS[:9], threads=2)
    assert [r.tolist() for r in both] == [r.tolist() for r in tokenizer.encode_documents(TEXTS[:9])]


@pytest.mark.parametrize("content", [b"", b"no model at all" * 50])
def test_damaged_model_is_one_clear_error(tmp_path, content):
    path = tmp_path / "bad.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a SentencePiece model") as error:
        load_tokenizer(path)
    assert str(path) in str(error.value)


def test_truncated_model_is_refused(tmp_path, tokenizer):
    path = tmp_path / "cut.model"
    path.write_bytes(tokenizer.path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a SentencePiece model"):
        load_tokenizer(path)


def test_missing_model(tmp_path):
    with pytest.raises(InputError, match="no such tokenizer"):
        load_tokenizer(tmp_path / "none.model")


def test_decoding_foreign_ids_is_refused(tokenizer):
    with pytest.raises(InputError, match="outside the vocabulary"):
        tokenizer.decode([1, tokenizer.vocab_size])


def test_training_needs_text_and_a_sensible_size(tmp_path):
    with pytest.raises(InputError, match="choose more than 260"):
        train_tokenizer(TEXTS, 260, tmp_path / "t.model")
    with pytest.raises(InputError, match="cannot train"):
        train_tokenizer(["", " "], 300, tmp_path / "t.model")
    assert not (tmp_path / "t.model").exists()


def test_pure_byte_tokenizer(tmp_path):
    path = tmp_path / "bytes.json"
    path.write_text(json.dumps({"tokenizer_type": "pure_byte", "vocab_size": 260, "config": {}}))
    tokenizer = load_tokenizer(path)
    text = "Ünïcode 😀\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    row = tokenizer.encode_documents([text])[0]
    assert ByteTable.from_tokenizer(tokenizer).stream_bytes(row) == len(text.encode())
    path.write_text("{}")
    with pytest.raises(InputError, match="pure-byte"):
        load_tokenizer(path)
