"""The byte table equals the official one, and the length of the decoded text wherever that is defined."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.contracts import InputError
from harness.tokens.bytes import ByteTable
from harness.tokens.tokenizer import Piece, Tokenizer, train_tokenizer

ENGLISH = [
    "The referee reads every line of the submission twice, and then once more.",
    "Numbers such as 1024, 20240520 and 62021846 are split into digits.",
    "A café in Zürich serves crème brûlée; naïve façades follow.",
    "日本語の文章 and some 漢字 in between, then English again.",
] * 40


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer(ENGLISH, 420, tmp_path_factory.mktemp("tok") / "t.model")


@pytest.fixture(scope="module")
def table(tokenizer):
    return ByteTable.from_tokenizer(tokenizer)


def official_bytes(tokenizer, tokens):
    """The contest's loop, transcribed from its description: piece by piece, previous token decides the space."""
    total = 0
    for prev, target in itertools.pairwise(tokens):
        piece = tokenizer.pieces[target]
        if piece.kind in ("control", "unknown", "unused"):
            continue
        if piece.kind == "byte":
            total += 1
            continue
        total += (
            len(piece.text.lstrip("\u2581").encode())
            if piece.text[:2] != "\u2581\u2581"
            else len(piece.text[1:].encode())
        )
        if piece.text.startswith("\u2581") and tokenizer.pieces[prev].kind in ("text", "byte"):
            total += 1
    return total


TEXTS = [
    "plain words",
    "emoji 😀👩‍👩‍👧 and flags 🇨🇭",
    "CJK 漢字かな交じり文 한국어",
    "combining e\u0301 o\u0308 \u0915\u094d\u0937",
    "runs   of    spaces",
    "tabs\tand\nnewlines",
    "right-to-left שלום مرحبا",
    "▁ is the marker itself",
]


@pytest.mark.parametrize("text", TEXTS)
def test_sum_is_the_utf8_length_of_the_decoded_document(tokenizer, table, text):
    tokens = np.array([tokenizer.bos_id, *tokenizer.encode(text)])
    assert table.stream_bytes(tokens) == len(tokenizer.decode(tokens).encode())


@settings(max_examples=80, deadline=None)
@given(text=st.text(min_size=1, max_size=60))
def test_any_text_counts_as_its_decoded_form(tokenizer, table, text):
    tokens = np.array([tokenizer.bos_id, *tokenizer.encode(text)])
    decoded = tokenizer.decode(tokens)
    if "\ufffd" in decoded:
        return  # not valid UTF-8 any more, or U+FFFD itself: pieces count by the table alone
    assert table.stream_bytes(tokens) == len(decoded.encode())


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(0, 419), min_size=2, max_size=50))
def test_any_token_row_counts_as_the_official_loop_does(tokenizer, table, ids):
    ids = [i % tokenizer.vocab_size for i in ids]
    assert table.stream_bytes(np.array(ids)) == official_bytes(tokenizer, ids)


def test_space_after_a_boundary_counts_nothing_and_after_a_byte_piece_one(tokenizer, table):
    spaced = next(
        i
        for i, p in enumerate(tokenizer.pieces)
        if p.kind == "text" and p.text.startswith("\u2581") and len(p.text) > 1
    )
    own = len(tokenizer.pieces[spaced].text[1:].encode())
    byte = tokenizer.encode("😀")[-1]
    assert tokenizer.pieces[byte].kind == "byte"
    assert table.target_bytes(np.array([1, byte]), np.array([spaced, spaced])).tolist() == [own, own + 1]
    assert table.target_bytes(np.array([spaced]), np.array([1])).tolist() == [0]


def test_byte_pieces_count_one_each(tokenizer, table):
    ids = tokenizer.encode("😀")
    assert [tokenizer.pieces[i].kind for i in ids] == ["byte"] * 4
    assert table.target_bytes(np.array([1, *ids[:-1]]), np.array(ids)).tolist() == [1, 1, 1, 1]


def hand_made(*pieces):
    from pathlib import Path

    return Tokenizer(
        path=Path("hand"), digest="0", bos_id=0, pieces=tuple(Piece(text=t, kind=k) for t, k in pieces)
    )


def test_unused_unknown_and_control_pieces_are_boundaries_of_zero_bytes():
    table = ByteTable.from_tokenizer(
        hand_made(
            ("<s>", "control"),
            ("<unk>", "unknown"),
            ("abc", "unused"),
            ("<0x41>", "byte"),
            ("\u2581é", "text"),
            ("\u2581\u2581", "text"),
        )
    )
    assert table.base_bytes.tolist() == [0, 0, 0, 1, 2, 3]
    assert table.is_boundary.tolist() == [True, True, True, False, False, False]
    assert table.has_leading_space.tolist() == [False, False, False, False, True, True]
    prev = np.array([0, 1, 2, 3, 4, 5])
    assert table.target_bytes(prev, np.full(6, 4)).tolist() == [2, 2, 2, 3, 3, 3]


def test_model_vocabulary_beyond_the_tokenizer_is_boundary():
    table = ByteTable.from_tokenizer(hand_made(("<s>", "control"), ("a", "text")), vocab_size=4)
    assert table.vocab_size == 4
    assert table.is_boundary.tolist() == [True, False, True, True]


def test_ids_outside_the_table_are_refused(table):
    with pytest.raises(InputError, match="outside the byte table"):
        table.target_bytes(np.array([1]), np.array([table.vocab_size]))
    with pytest.raises(ValueError, match="shape"):
        table.target_bytes(np.array([1]), np.array([1, 2]))


def test_slabs_do_not_change_the_sum(tokenizer, table):
    tokens = np.array([1, *tokenizer.encode(ENGLISH[0])], dtype=np.uint16)
    halves = table.stream_bytes(tokens[:9]) + table.stream_bytes(tokens[8:])
    assert halves == table.stream_bytes(tokens)
    assert table.stream_bytes(tokens[:1]) == 0
