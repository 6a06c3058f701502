"""Compressors: exact lengths, bombs stopped, and an entropy-coded layout that beats general ones on weights."""

import lzma
import zlib

import brotli
import numpy as np
import pytest
import zstandard

from harness.artifact import fuzz, rowcoder
from harness.artifact.codecs import ENCODERS, GENERAL, Corrupt, decompress
from harness.artifact.decoder import decoder_bytes, decoder_source
from harness.artifact.grids import quantized_record
from harness.artifact.inspection import order0_bits
from harness.artifact.layout import pack_bits, planes, unpack_bits


def entry(record):
    return {
        "name": record.name, "shape": list(record.shape), "grid": record.grid, "scales": record.scales.size,
        "columns": record.columns.size, "by_column": record.by_column,
    }  # fmt: skip


def matrix(rows=96, columns=160, grid="int6", clip=31, seed=0, by_column=False, spread=0.5):
    """Gaussian codes whose rows and columns differ in spread, as weights' do."""
    rng = np.random.default_rng(seed)
    sigma = 6 * np.exp(spread * rng.normal(size=(rows, 1)) + spread * rng.normal(size=(1, columns)))
    codes = np.clip(np.rint(rng.normal(size=(rows, columns)) * sigma), -clip, clip).astype(np.int8)
    return quantized_record(f"m{seed}", (rows, columns), grid, codes, np.ones(rows), by_column=by_column)


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("data", [b"", b"x", bytes(100_000), bytes(range(256)) * 40], ids=range(4))
def test_general_compressors_round_trip(name, data):
    assert decompress(name, ENCODERS[name](data), len(data)) == data


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("off", [-1, 1])
def test_a_stream_of_another_length_than_promised_is_corrupt(name, off):
    data = bytes(range(256)) * 8
    with pytest.raises(Corrupt):
        decompress(name, ENCODERS[name](data), len(data) + off)


@pytest.mark.parametrize("name", [n for n in GENERAL if n != "none"])
def test_a_bomb_costs_no_more_than_an_honest_file(name, monkeypatch):
    """A stream of 64 MiB that claims 1,000 bytes: no decoder hands out more than a few of its blocks."""
    bomb = fuzz._bomb(name)
    asked = []
    for module, attribute in ((zlib, "decompressobj"), (lzma, "LZMADecompressor")):
        original = getattr(module, attribute)

        def spy(*args, _original=original, **kwargs):
            decoder = _original(*args, **kwargs)

            class Watched:
                def decompress(self, data, *limit, **named):
                    out = decoder.decompress(data, *limit, **named)
                    asked.append(len(out))
                    return out

            return Watched()

        monkeypatch.setattr(module, attribute, spy)
    with pytest.raises(Corrupt, match="more"):
        decompress(name, bomb, 1000)
    assert all(size <= 1001 for size in asked)


def test_a_zstd_window_beyond_the_limit_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=30)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = stream.compress(bytes(1000)) + stream.flush()
    with pytest.raises(Corrupt):
        decompress("zstd", data, 1000)


def test_brotli_output_is_bounded_by_the_promise():
    with pytest.raises(Corrupt):
        decompress("brotli", brotli.compress(bytes(1 << 22)), 10)


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize(("grid", "clip"), [("int2", 1), ("int5", 15), ("int6", 31), ("int8", 127)])
def test_row_coding_and_bit_packing_round_trip(grid, clip, by_column):
    found = [matrix(33, 47, grid, clip, seed, by_column) for seed in range(3)]
    table = [entry(r) for r in found]
    expected = np.frombuffer(planes(found)["codes"], np.int8)
    np.testing.assert_array_equal(rowcoder.decode_plane(table, rowcoder.encode_plane(found)), expected)
    packed = pack_bits(found)
    np.testing.assert_array_equal(unpack_bits(table, packed), expected)
    assert len(packed) == sum(-(-33 * 47 * int(grid[3:]) // 8) for _ in found)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((700, 900), np.int8),
        np.full((5, 7), -31, np.int8),
        np.eye(40, dtype=np.int8) * 31,
        np.where(np.arange(64)[:, None] == 3, 31, 0).repeat(16, 1).astype(np.int8),
        np.zeros((1, 1), np.int8),
        np.tile(np.arange(-31, 32, dtype=np.int8), (3, 1)),
    ],
    ids=["zeros", "constant", "diagonal", "one loud row", "single", "uniform"],
)
def test_row_coding_survives_unnatural_matrices(codes):
    record = quantized_record("m", codes.shape, "int6", codes, np.ones(codes.shape[0]))
    plane = rowcoder.encode_plane([record])
    np.testing.assert_array_equal(rowcoder.decode_plane([entry(record)], plane), codes.reshape(-1))


def test_rows_and_columns_of_differing_spread_are_worth_more_than_order_0():
    record = matrix(256, 512)
    coded = len(rowcoder.encode_plane([record]))
    assert coded < 0.95 * order0_bits(record) / 8
    codes = planes([record])["codes"]
    transposed = record.values.T.tobytes()
    general = min(len(ENCODERS[n](data)) for n in ("zstd", "lzma", "brotli") for data in (codes, transposed))
    assert coded < 0.97 * general


def test_what_a_tensor_costs_adds_up_to_the_plane():
    found = [matrix(64, 96, seed=s) for s in range(4)]
    assert abs(sum(rowcoder.tensor_bytes(found).values()) - len(rowcoder.encode_plane(found))) <= 16


def test_order_0_entropy_of_known_distributions():
    uniform = quantized_record(
        "u", (4, 8), "int6", np.arange(-16, 16, dtype=np.int8).reshape(4, 8), np.ones(4)
    )
    constant = quantized_record("c", (4, 8), "int6", np.full((4, 8), 5, np.int8), np.ones(4))
    assert order0_bits(uniform) == pytest.approx(32 * 5)
    assert order0_bits(constant) == 0


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-4], lambda d: d[:-3], lambda d: b"", lambda d: b"\xff" * len(d)]
)
def test_damaged_row_coding_is_corrupt_or_other_codes_but_never_a_crash(damage):
    record = matrix(16, 32)
    plane = rowcoder.encode_plane([record])
    try:
        codes = rowcoder.decode_plane([entry(record)], damage(plane))
    except Corrupt:
        return
    assert codes.size == record.size  # the file's digest then says that these are not the sealed ones


def test_a_tiny_stream_may_not_claim_a_huge_matrix():
    claim = {
        "name": "m",
        "shape": [20_000, 10_000],
        "grid": "int6",
        "scales": 1,
        "columns": 0,
        "by_column": False,
    }
    with pytest.raises(Corrupt, match="far more"):
        rowcoder.decode_plane([claim], bytes(63))


def test_the_shipped_decoder_reads_what_the_package_writes():
    from harness.artifact.container import to_bytes
    from harness.artifact.grids import float_record

    space: dict = {}
    exec(decoder_source(), space)
    found = [matrix(40, 60), matrix(40, 60, "int5", 15, 1, True), float_record("g", np.arange(5))]
    for compressor in ("auto", "rows", "bits", "zstd", "lzma", "brotli", "zlib", "none"):
        data, _ = to_bytes(family="golf", config={}, tensors=found, compressor=compressor)
        _, tensors = space["from_bytes"](data)
        for a, b in zip(found, tensors, strict=True):
            np.testing.assert_array_equal(a.dequantize(), b.dequantize())
    assert "harness" not in decoder_source()
    assert 3000 < decoder_bytes() < 12_000


@pytest.mark.parametrize(("grid", "clip"), [("int5", 15), ("int8", 127)])
def test_rows_that_are_nearly_alike_are_told_by_their_difference(grid, clip):
    rng = np.random.default_rng(3)
    codes = np.clip(np.rint(rng.normal(0, clip / 3, (120, 90))), -clip, clip).astype(np.int64)
    alike = rng.random(120) < 0.4
    codes[alike] = codes[7] + rng.integers(-1, 2, (int(alike.sum()), 90))
    codes[20], codes[21] = clip, -clip  # differences that leave the alphabet
    codes = np.clip(codes, -clip, clip).astype(np.int8)
    record = quantized_record("m", (120, 90), grid, codes, np.ones(120))
    plane = rowcoder.encode_plane([record])
    np.testing.assert_array_equal(rowcoder.decode_plane([entry(record)], plane), codes.reshape(-1))
    shuffled = quantized_record("m", (120, 90), grid, rng.permuted(codes, axis=1), np.ones(120))
    assert len(plane) < 0.85 * len(rowcoder.encode_plane([shuffled]))
