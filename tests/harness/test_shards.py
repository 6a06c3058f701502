"""The shard format: what is written is read back, and nothing malformed passes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.contracts import InputError
from harness.tokens.shards import (
    HEADER_BYTES,
    MAGIC,
    NoShards,
    ShardSet,
    ShardWriter,
    find_shards,
    iter_documents,
    official_trim,
    read_shard,
    write_shard,
)


def raw_shard(path, tokens=(1, 5, 6), *, magic=MAGIC, version=1, count=None, tail=b""):
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    path.write_bytes(header.tobytes() + np.array(tokens, dtype="<u2").tobytes() + tail)
    return path


def test_layout_is_the_official_one_byte_by_byte(tmp_path):
    path = tmp_path / "fineweb_val_000000.bin"
    size = write_shard(path, np.array([1, 258, 65535]))
    data = path.read_bytes()
    assert size == len(data) == 1024 + 6
    assert data[:12] == (20240520).to_bytes(4, "little") + (1).to_bytes(4, "little") + (3).to_bytes(
        4, "little"
    )
    assert set(data[12:1024]) == {0}
    assert data[1024:] == b"\x01\x00\x02\x01\xff\xff"


@settings(max_examples=25, deadline=None)
@given(tokens=st.lists(st.integers(0, 65535), min_size=1, max_size=300))
def test_round_trip(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("shard") / "s.bin"
    write_shard(path, np.array(tokens))
    assert read_shard(path).tolist() == tokens


def test_reading_maps_the_file_and_refuses_writes(tmp_path):
    tokens = read_shard(raw_shard(tmp_path / "s.bin"))
    assert isinstance(tokens, np.memmap)
    with pytest.raises(ValueError):
        tokens[0] = 3


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"magic": 20240521}, "wrong magic number 20240521"),
        ({"version": 2}, "shard version 2"),
        ({"count": 4}, "truncated shard: header promises 4 tokens, the file holds 3"),
        ({"count": 2}, "longer than its count: header promises 2 tokens, the file holds 3"),
        ({"count": -1}, "negative token count -1"),
        ({"tail": b"\x00"}, "odd length"),
        ({"tokens": ()}, "empty shard"),
    ],
)
def test_malformed_shard_is_one_clear_error_naming_the_file(tmp_path, broken, says):
    path = raw_shard(tmp_path / "bad.bin", **broken)
    with pytest.raises(InputError) as error:
        read_shard(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "says"), [(0, "empty file"), (3, "truncated"), (HEADER_BYTES - 1, "truncated")]
)
def test_file_shorter_than_a_header(tmp_path, size, says):
    path = tmp_path / "bad.bin"
    path.write_bytes(b"\0" * size)
    with pytest.raises(InputError, match=says):
        read_shard(path)


def test_missing_file_and_folder_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no such shard"):
        read_shard(tmp_path / "none.bin")
    with pytest.raises(InputError, match="cannot read"):
        read_shard(tmp_path)


def test_token_outside_vocabulary_is_found_with_its_position(tmp_path):
    path = raw_shard(tmp_path / "s.bin", (1, 1023, 1024, 7))
    assert read_shard(path, 1025).tolist() == [1, 1023, 1024, 7]
    with pytest.raises(InputError, match=r"token 1024 at position 2 is outside the vocabulary of 1024"):
        read_shard(path, 1024)


@pytest.mark.parametrize("tokens", [[], [-1], [65536], [[1, 2]]])
def test_writing_refuses_what_the_format_cannot_hold(tmp_path, tokens):
    with pytest.raises(InputError):
        write_shard(tmp_path / "s.bin", np.array(tokens, dtype=np.int64))
    assert list(tmp_path.iterdir()) == []


def test_set_concatenates_sorted_shards_and_leaves_sidecars_out(tmp_path):
    raw_shard(tmp_path / "fineweb_val_000001.bin", (4, 5))
    raw_shard(tmp_path / "fineweb_val_000000.bin", (1, 2, 3))
    raw_shard(tmp_path / "fineweb_val_bytes_000000.bin", (9, 9))
    raw_shard(tmp_path / "fineweb_train_000000.bin", (7,))
    val = ShardSet.open(tmp_path, "val")
    assert [p.name for p in val.paths] == ["fineweb_val_000000.bin", "fineweb_val_000001.bin"]
    assert val.total == 5
    assert val.tokens().tolist() == [1, 2, 3, 4, 5]
    assert val.slice(2, 4).tolist() == [3, 4]
    assert val.slice(1, 1).tolist() == []
    assert ShardSet.open(tmp_path, "train").tokens().tolist() == [7]
    assert ShardSet.open(tmp_path, "val_bytes").tokens().tolist() == [9, 9]
    assert ShardSet.open(str(tmp_path / "fineweb_val_*.bin")).tokens().tolist() == [1, 2, 3, 4, 5]


def test_official_folder_layout_is_found_from_its_root(tmp_path):
    folder = tmp_path / "datasets" / "fineweb10B_sp1024"
    folder.mkdir(parents=True)
    raw_shard(folder / "fineweb_val_000000.bin")
    assert find_shards(tmp_path, "val") == [folder / "fineweb_val_000000.bin"]


def test_absent_split_and_absent_path_say_so(tmp_path):
    with pytest.raises(NoShards, match="no val shards"):
        find_shards(tmp_path, "val")
    with pytest.raises(InputError, match="no such file or folder"):
        find_shards(tmp_path / "x", "val")
    with pytest.raises(InputError, match="no file matches"):
        find_shards(str(tmp_path / "*.bin"), "val")


def test_digest_depends_on_bytes_and_order_but_not_on_names(tmp_path):
    for name, order in (("a", (0, 1)), ("b", (5, 9)), ("c", (1, 0))):
        (tmp_path / name).mkdir()
        raw_shard(tmp_path / name / f"x_val_{order[0]:06d}.bin", (1, 2))
        raw_shard(tmp_path / name / f"x_val_{order[1]:06d}.bin", (3,))
    a, b, c = (ShardSet.open(tmp_path / n).digest() for n in "abc")
    assert a == b != c
    files = [hashlib.sha256(p.read_bytes()).hexdigest() for p in find_shards(tmp_path / "a", "val")]
    assert a == hashlib.sha256("".join(f + "\n" for f in files).encode()).hexdigest()


@given(total=st.integers(0, 400), seq_len=st.integers(1, 64))
def test_official_trim(total, seq_len):
    tokens = np.arange(total)
    targets = ((total - 1) // seq_len) * seq_len
    if targets <= 0:
        with pytest.raises(InputError):
            official_trim(tokens, seq_len)
    else:
        assert official_trim(tokens, seq_len).tolist() == list(range(targets + 1))


def test_writer_splits_documents_over_shards_and_clears_stale_ones(tmp_path):
    raw_shard(tmp_path / "fineweb_val_000007.bin")
    raw_shard(tmp_path / "fineweb_train_000000.bin", (8, 8))
    with ShardWriter(tmp_path, "val", shard_tokens=4) as writer:
        for document in ([1, 10, 11], [1, 12], [1, 13, 14, 15, 16, 17]):
            writer.add(np.array(document))
    assert [len(read_shard(p)) for p in writer.paths] == [4, 4, 3]
    assert ShardSet.open(tmp_path).tokens().tolist() == [1, 10, 11, 1, 12, 1, 13, 14, 15, 16, 17]
    assert (writer.documents, writer.tokens) == (3, 11)
    assert read_shard(tmp_path / "fineweb_train_000000.bin").tolist() == [8, 8]


def test_documents_of_a_stream_that_starts_in_the_middle_of_one():
    tokens = np.array([9, 9, 1, 5, 1, 1, 6])
    assert [d.tolist() for d in iter_documents(tokens, 1)] == [[9, 9], [1, 5], [1], [1, 6]]
