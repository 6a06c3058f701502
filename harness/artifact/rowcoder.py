"""The entropy-coded layout for integer weights: every symbol is coded with the spread of its row and column.

A general compressor sees one long string of integers and can at best reach its overall (order-0) entropy.
But rows differ in spread, since a row's scale hangs on its largest weight, and columns differ because inputs
do. So each row and each column gets a small integer *level* (log2 of its mean magnitude in steps of 1/8),
and the symbol at (i, j) belongs to class ``row level + column level``. Symbols of one class are coded
together with a table that adapts (``adaptive``). Levels cost two to three bits a row or column.

Lookup tables hold rows that are nearly alike: tokens that were never seen all get the same gradient. Such a row
is coded as the difference from the last such row (modulo the alphabet), one flag per row, where that pays.

Per tensor the encoder decides by size whether levels of rows, of columns, of both or of none pay.
Everything is vectorised: a few coder calls per class and tensor, no Python loop over weights.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import constriction
import numpy as np

from harness.artifact.adaptive import Tables, decode_symbols, encode_symbols
from harness.artifact.codecs import Corrupt
from harness.artifact.grids import INTEGER_GRIDS, Record, matrix_shape

STEPS = 8
#: Classes are levels from LOWEST to HIGHEST eighths of an octave of mean magnitude.
LOWEST, HIGHEST = -40, 56
LEVEL_CLIP = 63
_ENTRY = struct.Struct("<Bbb")
_ROWS, _COLUMNS, _REFERENCES = 1, 2, 4
#: What a row is: by itself, by itself and a reference from here on, or a difference from the reference.
_ALONE, _REFERENCE, _DIFFERENCE = 0, 1, 2
#: A file may not claim more than this many integers per coded byte (a bomb would); the writer pads to keep it.
MAX_RATIO = 2048


def _class_level(key: int) -> float:
    return 2.0 ** (key // STEPS) * (1.0 + (key % STEPS) / STEPS)


class _Coder:
    """The tables of one file: one set per clip range, and one for levels."""

    def __init__(self) -> None:
        self._symbols: dict[int, Tables] = {}
        self.levels = Tables(LEVEL_CLIP, lambda key: 3.0)

    def symbols(self, clip: int) -> Tables:
        return self._symbols.setdefault(clip, Tables(clip, _class_level))

    def next_tensor(self) -> None:
        self.levels.next_tensor()
        for tables in self._symbols.values():
            tables.next_tensor()


def _levels(values: np.ndarray) -> np.ndarray:
    return np.rint(STEPS * np.log2(np.maximum(values, 2.0 ** (LOWEST / STEPS)))).astype(np.int64)


def _fit(codes: np.ndarray, mode: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column levels whose sum predicts log2 of the magnitude; zeros for what the mode leaves out."""
    magnitude = np.abs(codes.astype(np.float32))
    rows, columns = codes.shape
    row = np.full(rows, max(float(magnitude.mean()), 1e-3), np.float64)
    column = np.ones(columns, np.float64)
    for _ in range(3 if mode == _ROWS | _COLUMNS else 1):
        if mode & _ROWS:
            row = np.maximum((magnitude / column).mean(axis=1, dtype=np.float64), 1e-3)
        if mode & _COLUMNS:
            column = np.maximum((magnitude / row[:, None]).mean(axis=0, dtype=np.float64), 1e-3)
    return _levels(row), _levels(column)


def _classes(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.clip(row[:, None] + column[None, :], LOWEST, HIGHEST).astype(np.int8)


def _wrap(values: np.ndarray, clip: int) -> np.ndarray:
    """Values modulo the alphabet's size, back in [-clip, clip]."""
    return (values + clip) % (2 * clip + 1) - clip


def _row_kinds(codes: np.ndarray, clip: int) -> np.ndarray:
    """Which rows are references and which are better told by their difference from the last one; (rows,)."""
    rows = codes.shape[0]
    kinds = np.zeros(rows, np.int64)
    dense = codes.astype(np.float32)
    dense /= np.maximum(np.sqrt((dense * dense).sum(axis=1, keepdims=True)), 1e-6)
    followed = np.zeros(rows, bool)
    for distance in (1, 2, 3, 4, 6, 8):
        if distance < rows:
            followed[:-distance] |= (dense[:-distance] * dense[distance:]).sum(axis=1) > 0.8
    if not followed.any():
        return kinds
    wide, reference = codes.astype(np.int16), -1
    sizes = np.abs(wide).mean(axis=1)
    for row in range(rows):
        if reference >= 0 and np.abs(_wrap(wide[row] - wide[reference], clip)).mean() < 0.6 * sizes[row]:
            kinds[row] = _DIFFERENCE
        elif followed[row]:
            kinds[row] = _REFERENCE
        if kinds[row]:
            reference = row
    return kinds if (kinds == _DIFFERENCE).any() else np.zeros(rows, np.int64)


def _told(codes: np.ndarray, kinds: np.ndarray, clip: int) -> np.ndarray:
    """Codes with every difference row replaced by its difference from the nearest reference before it."""
    out, wide, reference = codes.copy(), codes.astype(np.int16), 0
    for row in np.flatnonzero(kinds).tolist():
        if kinds[row] == _DIFFERENCE:
            out[row] = _wrap(wide[row] - wide[reference], clip)
        reference = row
    return out


def _untold(codes: np.ndarray, kinds: np.ndarray, clip: int) -> None:
    """Undoes ``_told`` in place."""
    reference = 0
    for row in np.flatnonzero(kinds).tolist():
        if kinds[row] == _DIFFERENCE:
            codes[row] = _wrap(codes[row].astype(np.int16) + codes[reference], clip)
        reference = row


def _by_class(keys: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Places of a matrix sorted by class (a radix sort: stable), and (class, start, stop) of each."""
    flat = keys.reshape(-1)
    order = np.argsort(flat, kind="stable")
    counts = np.bincount(flat.astype(np.int64) - LOWEST, minlength=HIGHEST - LOWEST + 1)
    ends = np.cumsum(counts)
    bounds = [(LOWEST + i, int(ends[i] - counts[i]), int(ends[i])) for i in np.flatnonzero(counts).tolist()]
    return order, bounds


def _entropy_bits(counts: np.ndarray) -> float:
    used = counts[counts > 0].astype(np.float64)
    return float(used.sum() * np.log2(used.sum()) - (used * np.log2(used)).sum()) if used.size else 0.0


def _cost(codes: np.ndarray, row: np.ndarray, column: np.ndarray, clip: int) -> float:
    """Estimated bits: entropy per class, about half a log per learnt frequency, and the levels."""
    keys = _classes(row, column).astype(np.int32) - LOWEST
    width = 2 * clip + 1
    table = np.bincount((keys * width + codes + clip).ravel(), minlength=(HIGHEST - LOWEST + 1) * width)
    bits = 0.0
    for counts in table.reshape(-1, width):
        if counts.any():
            bits += _entropy_bits(counts) + 0.25 * np.count_nonzero(counts) * np.log2(
                1.0 + counts.sum() / 256.0
            )
    for levels in (row, column):
        bits += _entropy_bits(np.bincount(levels - levels.min()))
    return bits


def _choose(codes: np.ndarray, clip: int) -> tuple[int, np.ndarray, np.ndarray]:
    best = None
    for mode in (0, _ROWS, _COLUMNS, _ROWS | _COLUMNS):
        row, column = _fit(codes, mode)
        # Levels travel as offsets of at most LEVEL_CLIP around their median.
        row = np.clip(row, np.median(row) - LEVEL_CLIP, np.median(row) + LEVEL_CLIP).astype(np.int64)
        column = np.clip(column, np.median(column) - LEVEL_CLIP, np.median(column) + LEVEL_CLIP).astype(
            np.int64
        )
        cost = _cost(codes, row, column, clip)
        if best is None or cost < best[0]:
            best = (cost, mode, row, column)
    assert best is not None
    return best[1:]


def _base(levels: np.ndarray) -> int:
    return int(np.clip(np.floor(np.median(levels)), -128, 127))


def encode_plane(records: Sequence[Record]) -> bytes:
    """The coded code plane of these records."""
    return _encode(records)[0]


def tensor_bytes(records: Sequence[Record]) -> dict[str, int]:
    """Bytes that each tensor takes in the coded plane, to within one coder word."""
    return _encode(records)[1]


def _encode(records: Sequence[Record]) -> tuple[bytes, dict[str, int]]:
    encoder = constriction.stream.queue.RangeEncoder()
    used: dict[str, int] = {}
    coder = _Coder()
    entries = []
    for record in records:
        if not record.quantized or not record.size:
            continue
        before = encoder.num_words()
        clip = INTEGER_GRIDS[record.grid]
        codes = record.values
        kinds = _row_kinds(codes, clip)
        if kinds.any():
            codes = _told(codes, kinds, clip)
        mode, row, column = _choose(codes, clip)
        mode |= _REFERENCES if kinds.any() else 0
        row_base, column_base = _base(row), _base(column)
        entries.append(_ENTRY.pack(mode, row_base, column_base))
        if mode & _REFERENCES:
            encode_symbols(encoder, coder.levels, _REFERENCES, kinds + LEVEL_CLIP)
        if mode & _ROWS:
            row = np.clip(row - row_base, -LEVEL_CLIP, LEVEL_CLIP) + row_base
            encode_symbols(encoder, coder.levels, _ROWS, row - row_base + LEVEL_CLIP)
        if mode & _COLUMNS:
            column = np.clip(column - column_base, -LEVEL_CLIP, LEVEL_CLIP) + column_base
            encode_symbols(encoder, coder.levels, _COLUMNS, column - column_base + LEVEL_CLIP)
        tables = coder.symbols(clip)
        order, bounds = _by_class(_classes(row, column))
        flat = codes.reshape(-1)
        for key, start, stop in bounds:
            encode_symbols(encoder, tables, key, flat[order[start:stop]].astype(np.int32) + clip)
        coder.next_tensor()
        used[record.name] = 4 * (encoder.num_words() - before) + _ENTRY.size
    plane = b"".join(entries) + encoder.get_compressed().astype("<u4").tobytes()
    # Almost constant tensors compress below what a reader believes; words past the end are never read.
    short = -(-sum(r.size for r in records if r.quantized) // MAX_RATIO) - 64 - len(plane)
    return plane + b"\0" * (4 * max(0, -(-short // 4))), used


def decode_plane(table: Sequence[dict], data: bytes) -> np.ndarray:
    """The flat int8 code plane in file order, from a tensor table. Raises ``Corrupt``."""
    entries = [e for e in table if e["grid"] in INTEGER_GRIDS]
    sizes = [int(np.prod(matrix_shape(e["shape"]))) for e in entries]
    coded = sum(1 for size in sizes if size)
    start = coded * _ENTRY.size
    if len(data) < start or (len(data) - start) % 4:
        raise Corrupt("the coded integers are cut")
    if sum(sizes) > MAX_RATIO * (len(data) + 64):
        raise Corrupt("the coded integers claim to be far more than such a stream can hold")
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(data[start:], "<u4").astype(np.uint32))
    coder = _Coder()
    out = np.empty(sum(sizes), np.int8)
    done = 0
    seen = 0
    for entry, size in zip(entries, sizes, strict=True):
        if not size:
            continue
        rows, columns = matrix_shape(entry["shape"])
        clip = INTEGER_GRIDS[entry["grid"]]
        mode, row_base, column_base = _ENTRY.unpack_from(data, seen * _ENTRY.size)
        seen += 1
        try:
            codes = _decode_one(decoder, coder, rows, columns, clip, mode, row_base, column_base)
        except (AssertionError, ValueError) as error:
            raise Corrupt(f"the coded integers of {entry['name']} are damaged") from error
        out[done : done + size] = (codes.T if entry["by_column"] else codes).reshape(-1)
        done += size
        coder.next_tensor()
    return out


def _decode_one(
    decoder: constriction.stream.queue.RangeDecoder,
    coder: _Coder,
    rows: int,
    columns: int,
    clip: int,
    mode: int,
    row_base: int,
    column_base: int,
) -> np.ndarray:
    row = np.full(rows, row_base, np.int64)
    column = np.full(columns, column_base, np.int64)
    kinds = np.zeros(0, np.int64)
    if mode & _REFERENCES:
        kinds = decode_symbols(decoder, coder.levels, _REFERENCES, rows) - LEVEL_CLIP
    if mode & _ROWS:
        row += decode_symbols(decoder, coder.levels, _ROWS, rows) - LEVEL_CLIP
    if mode & _COLUMNS:
        column += decode_symbols(decoder, coder.levels, _COLUMNS, columns) - LEVEL_CLIP
    tables = coder.symbols(clip)
    order, bounds = _by_class(_classes(row, column))
    codes = np.empty(rows * columns, np.int8)
    for key, start, stop in bounds:
        codes[order[start:stop]] = decode_symbols(decoder, tables, key, stop - start) - clip
    matrix = codes.reshape(rows, columns)
    _untold(matrix, kinds, clip)
    return matrix
