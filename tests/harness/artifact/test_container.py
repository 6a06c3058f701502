"""The artifact file: what goes in comes out, and whatever is not an intact artifact is one clear error."""

import hashlib
import json
import pickle
import zlib

import numpy as np
import pytest

from audit.contracts import InputError
from harness.artifact.codecs import Corrupt
from harness.artifact.container import (
    COMPRESSORS,
    PREAMBLE,
    from_bytes,
    read_artifact,
    to_bytes,
    write_artifact,
)
from harness.artifact.grids import float_record, quantized_record


def records(seed=0):
    """One of each kind: row scales, one scale, column factors, column order, fp16, bf16, fp32, scalar, empty."""
    rng = np.random.default_rng(seed)

    def codes(rows, columns, clip):
        return np.clip(np.rint(rng.normal(0, clip / 3, (rows, columns))), -clip, clip).astype(np.int8)

    def scales(n):
        return np.abs(rng.normal(0.01, 0.002, n)).astype(np.float16)

    return [
        quantized_record("six", (24, 40), "int6", codes(24, 40, 31), scales(24)),
        quantized_record("five.by_column", (24, 40), "int5", codes(24, 40, 15), scales(24), by_column=True),
        quantized_record(
            "eight", (2, 3, 16), "int8", codes(6, 16, 127), scales(1), column_factors=scales(16)
        ),
        quantized_record("nothing", (0, 16), "int4", np.zeros((0, 16), np.int8), scales(1)),
        quantized_record("zeros", (64, 64), "int6", np.zeros((64, 64), np.int8), scales(64)),
        float_record("gain", rng.normal(size=7)),
        float_record("mix", rng.normal(size=(2, 5)) * 1e5, "bf16"),
        float_record("exact", rng.normal(size=3), "fp32"),
        float_record("scalar", np.float32(0.05), "fp32"),
    ]


def sealed(compressor="zstd", **changes):
    data, _ = to_bytes(
        family="golf", config={"layers": 2}, tensors=records(), compressor=compressor, recipe={"bits": 6}
    )
    return data if not changes else reseal(data, **changes)


def parts(data):
    _, _, _, header_length, _, _ = PREAMBLE.unpack_from(data)
    header = data[PREAMBLE.size : PREAMBLE.size + header_length]
    return json.loads(zlib.decompress(header)), data[PREAMBLE.size + header_length :]


def build(header, body, *, version=1, packed=None):
    """A file around an arbitrary header and body whose lengths and digest are right."""
    packed = zlib.compress(json.dumps(header).encode()) if packed is None else packed
    start = PREAMBLE.pack(b"PGARTFCT", version, 0, len(packed), len(body), b"\0" * 32)[:24]
    return start + hashlib.sha256(start + packed + body).digest() + packed + body


def reseal(data, **changes):
    header, body = parts(data)
    return build(header | changes, body)


def same(a, b):
    assert [(r.name, r.shape, r.grid, r.by_column) for r in a] == [
        (r.name, r.shape, r.grid, r.by_column) for r in b
    ]
    for x, y in zip(a, b, strict=True):
        assert x.values.dtype == y.values.dtype
        np.testing.assert_array_equal(x.values, y.values)
        np.testing.assert_array_equal(x.scales, y.scales)
        np.testing.assert_array_equal(x.columns, y.columns)
        np.testing.assert_array_equal(x.dequantize(), y.dequantize())


@pytest.mark.parametrize("compressor", [*COMPRESSORS, "auto"])
def test_round_trip_is_exact(compressor, tmp_path):
    path = tmp_path / "model.art"
    written = write_artifact(
        path, family="golf", config={"layers": 2, "deep": [1.5, None]}, tensors=records(),
        compressor=compressor, recipe={"bits": 6},
    )  # fmt: skip
    artifact = read_artifact(path)
    same(records(), artifact.records)
    assert artifact.family == "golf"
    assert artifact.config == {"layers": 2, "deep": [1.5, None]}
    assert artifact.header["recipe"] == {"bits": 6}
    assert artifact.digest == written.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert artifact.file_bytes == written.file_bytes == path.stat().st_size == sum(written.parts.values())
    assert not list(tmp_path.glob("*.partial"))


def test_the_same_model_gives_the_same_bytes():
    assert sealed("rows") == sealed("rows")


def test_auto_is_no_larger_than_any_single_compressor():
    sizes = {name: len(sealed(name)) for name in COMPRESSORS}
    assert len(sealed("auto")) <= min(sizes.values())


def test_dequantize_multiplies_code_row_scale_and_column_factor():
    codes = np.array([[1, -2], [3, 0]], np.int8)
    record = quantized_record(
        "w", (2, 2), "int3", codes, np.array([0.5, 2.0]), column_factors=np.array([1.0, 4.0])
    )
    np.testing.assert_array_equal(record.dequantize(), [[0.5, -4.0], [6.0, 0.0]])


def test_bfloat16_rounds_to_nearest_even():
    # 1 + 2^-8 lies halfway between 1 and 1 + 2^-7: to the even one; 1 + 3 * 2^-8 goes up.
    record = float_record("b", np.array([1 + 2**-8, 1 + 3 * 2**-8]), "bf16")
    np.testing.assert_array_equal(record.dequantize(), np.array([1.0, 1 + 2**-6], np.float32))


def test_every_single_flipped_bit_is_noticed():
    data = sealed("rows")
    rng = np.random.default_rng(1)
    for place in [*range(60), *rng.integers(60, len(data), 300)]:
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(Corrupt):
            from_bytes(bytes(broken))


def test_every_cut_and_every_addition_is_noticed():
    data = sealed()
    for length in [0, 1, 7, 8, 24, 55, 56, 57, len(data) // 2, len(data) - 1]:
        with pytest.raises(Corrupt):
            from_bytes(data[:length])
    with pytest.raises(Corrupt):
        from_bytes(data + b"\0")


HEADER, BODY = parts(sealed())


def table(**changes):
    """The header's tensor table with one field of its first row changed."""
    names = ["name", "shape", "grid", "scales", "columns", "by_column"]
    row = dict(zip(names, HEADER["tensors"][0], strict=True)) | changes
    return {"tensors": [list(row.values()), *HEADER["tensors"][1:]]}


def section(index, place, value):
    found = [list(row) for row in HEADER["sections"]]
    found[index][place] = value
    return {"sections": found}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (table(name=""), "name"),
        (table(name=7), "name"),
        (table(name="gain"), "same name"),
        (table(shape=[24, -40]), "shape"),
        (table(shape=[24, 40.0]), "shape"),
        (table(shape=[True, 40]), "shape"),
        (table(shape=[1 << 39, 1 << 39]), "large"),
        (table(shape=[1 << 39, 1 << 39, 0]), "large"),
        (table(shape=[1] * 9), "shape"),
        (table(shape=[1 << 30, 40], scales=1), "more than the cap"),
        (table(shape=[24, 41]), "promises"),
        (table(grid="int9"), "grid"),
        (table(grid=["int6"]), "grid"),
        (table(scales=23), "scales"),
        (table(scales=True), "scales"),
        (table(columns=3), "column factors"),
        (table(by_column=2), "order"),
        (table(grid="int2"), "outside its grid"),
        ({"tensors": {}}, "table"),
        ({"tensors": [[]]}, "six fields"),
        ({"sections": HEADER["sections"][:2]}, "section"),
        (section(0, 0, "halves"), "section"),
        (section(0, 1, "pickle"), "unknown compressor"),
        (section(1, 1, "rows"), "unknown compressor"),
        (section(0, 2, -1), "length"),
        (section(0, 2, 10**9), "promises"),
        (section(0, 3, 5), "do not fill"),
        (section(0, 1, "lzma"), "lzma|digest"),
        (section(0, 1, "brotli"), "brotli"),
        (section(0, 1, "zlib"), "zlib"),
        (section(0, 1, "none"), "none"),
        (section(0, 1, "bits"), "packed codes"),
        (section(0, 1, "rows"), "coded integers|digest|grid"),
        ({"sha256": "0" * 64}, "digest"),
        ({"sha256": 5}, "text"),
        ({"family": None}, "text"),
        ({"config": []}, "objects"),
        ({"extra": 1}, "field"),
    ],
)  # fmt: skip
def test_a_lying_header_with_a_valid_digest_is_refused(changes, says):
    with pytest.raises(Corrupt, match=says):
        from_bytes(build(HEADER | changes, BODY))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "damaged"),
        (b"[]", "field"),
        (b'{"family": NaN}', "no JSON number"),
        (b'{"family": 1e999}', "out of range"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[" * 100_000, "damaged"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b" " * (5 << 20), "too long"),
    ],
    ids=range(9),
)
def test_a_header_that_is_no_proper_json_is_refused(text, says):
    with pytest.raises(Corrupt, match=says):
        from_bytes(build(None, b"", packed=zlib.compress(text)))


def test_another_format_version_says_which_one_it_is():
    with pytest.raises(Corrupt, match="format version 2"):
        from_bytes(build(HEADER, BODY, version=2))


def test_a_pickle_is_never_executed(tmp_path):
    flag = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (flag.write_text, ("x",))

    path = tmp_path / "model.art"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"wrong magic|fewer"):
        read_artifact(path)
    assert not flag.exists()


def test_scales_that_are_not_finite_are_refused():
    bad = records()
    bad[0].scales[3] = np.float16(np.inf)
    data, _ = to_bytes(family="golf", config={}, tensors=bad, compressor="zlib")
    with pytest.raises(Corrupt, match="not finite"):
        from_bytes(data)


def test_the_cap_bounds_what_a_file_may_unpack_to(tmp_path):
    path = tmp_path / "model.art"
    zeros = quantized_record("z", (1024, 1024), "int6", np.zeros((1024, 1024), np.int8), np.ones(1024))
    write_artifact(path, family="golf", config={}, tensors=[zeros], compressor="zlib")
    read_artifact(path, max_bytes=1 << 21)
    with pytest.raises(InputError, match=f"{path}.*cap of {1 << 20}"):
        read_artifact(path, max_bytes=1 << 20)


def test_a_missing_file_and_a_folder_are_one_line_errors(tmp_path):
    for path in (tmp_path / "none.art", tmp_path):
        with pytest.raises(InputError) as caught:
            read_artifact(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_writer_refuses_what_no_reader_would_take():
    good = records()
    with pytest.raises(InputError, match="same name"):
        to_bytes(family="golf", config={}, tensors=[good[0], good[0]])
    with pytest.raises(InputError, match="compressor"):
        to_bytes(family="golf", config={}, tensors=good, compressor="rar")
    with pytest.raises(InputError, match="plain JSON"):
        to_bytes(family="golf", config={"x": object()}, tensors=good)
    with pytest.raises(InputError, match="outside"):
        quantized_record("w", (1, 2), "int5", np.array([[16, 0]], np.int8), np.ones(1))
    with pytest.raises(InputError, match="not finite"):
        quantized_record("w", (1, 2), "int5", np.array([[1, 0]], np.int8), np.array([1e9]))
    with pytest.raises(InputError, match="half precision"):
        float_record("w", np.array([1e6]))


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.art"
    write_artifact(path, family="golf", config={}, tensors=records())
    before = path.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_artifact(path, family="other", config={}, tensors=records())
    assert path.read_bytes() == before
