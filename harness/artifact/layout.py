"""How the values of many tensors are arranged in the body of an artifact: three planes.

``codes``: one byte per integer, tensor after tensor, row by row or column by column.
``halves``: every 16-bit value (row scales, column factors, then fp16 and bf16 tensors), all low bytes, then all high
bytes: the high bytes (sign and exponent) are alike and compress, the low ones hardly do.
``words``: fp32 tensors, split into four byte planes in the same way.

Each plane is compressed by itself, by whatever suits it: entropy coding for codes, a general compressor
for the rest. ``bits`` is the plain packing of codes at their grid's width, for when nothing compresses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.artifact.codecs import Corrupt
from harness.artifact.grids import INTEGER_GRIDS, Record, matrix_shape

PLANES = ("codes", "halves", "words")


def _shuffle(values: np.ndarray, width: int) -> bytes:
    return values.view(np.uint8).reshape(-1, width).T.tobytes()


def _unshuffle(data: bytes, width: int) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(width, -1).T.copy().reshape(-1)


def flat_codes(record: Record) -> np.ndarray:
    """Codes of one tensor as a flat int8 array in file order."""
    return (record.values.T if record.by_column else record.values).reshape(-1)


def planes(records: Sequence[Record]) -> dict[str, bytes]:
    """The uncompressed planes of these records."""
    quantized = [r for r in records if r.quantized]
    codes = b"".join(flat_codes(r).tobytes() for r in quantized)
    halves = [r.scales.view(np.uint16) for r in quantized]
    halves += [r.columns.view(np.uint16) for r in quantized]
    halves += [r.values.view(np.uint16) for r in records if r.grid in ("fp16", "bf16")]
    words = [r.values.view(np.uint32) for r in records if r.grid == "fp32"]
    return {
        "codes": codes,
        "halves": _shuffle(np.concatenate([*halves, np.zeros(0, np.uint16)]), 2),
        "words": _shuffle(np.concatenate([*words, np.zeros(0, np.uint32)]), 4),
    }


def plane_sizes(table: Sequence[dict]) -> dict[str, int]:
    """Bytes of each plane that a tensor table implies; the file must agree."""
    sizes = dict.fromkeys(PLANES, 0)
    for entry in table:
        rows, columns = matrix_shape(entry["shape"])
        if entry["grid"] in INTEGER_GRIDS:
            sizes["codes"] += rows * columns
            sizes["halves"] += 2 * (entry["scales"] + entry["columns"])
        elif entry["grid"] == "fp32":
            sizes["words"] += 4 * rows * columns
        else:
            sizes["halves"] += 2 * rows * columns
    return sizes


def records_from_planes(
    table: Sequence[dict], codes: np.ndarray, halves: bytes, words: bytes
) -> list[Record]:
    """Rebuilds the records; ``codes`` is the flat int8 plane. Raises ``Corrupt`` on impossible values."""
    half_values = _unshuffle(halves, 2).view(np.uint16)
    word_values = _unshuffle(words, 4).view(np.float32)
    at = {"codes": 0, "halves": 0, "words": 0}

    def take(plane: str, source: np.ndarray, count: int) -> np.ndarray:
        start = at[plane]
        at[plane] += count
        return source[start : start + count]

    # All scales lie first, then all factors, then the 16-bit tensors.
    quantized = [e for e in table if e["grid"] in INTEGER_GRIDS]
    scales = {e["name"]: take("halves", half_values, e["scales"]).view(np.float16) for e in quantized}
    factors = {e["name"]: take("halves", half_values, e["columns"]).view(np.float16) for e in quantized}
    records = []
    for entry in table:
        name, grid, shape = entry["name"], entry["grid"], tuple(entry["shape"])
        rows, columns = matrix_shape(shape)
        if grid in INTEGER_GRIDS:
            flat = take("codes", codes, rows * columns)
            clip = INTEGER_GRIDS[grid]
            if flat.size and (int(flat.max()) > clip or int(flat.min()) < -clip):
                raise Corrupt(f"tensor {name} has a code outside its grid {grid}")
            if not (np.isfinite(scales[name]).all() and np.isfinite(factors[name]).all()):
                raise Corrupt(f"tensor {name} has a scale that is not finite")
            by_column = entry["by_column"]
            values = flat.reshape(columns, rows).T if by_column else flat.reshape(rows, columns)
        else:
            by_column = False
            if grid == "fp32":
                values = take("words", word_values, rows * columns)
            else:
                values = take("halves", half_values, rows * columns)
                values = values.view(np.float16) if grid == "fp16" else values
        records.append(
            Record(
                name=name,
                shape=shape,
                grid=grid,
                values=values,
                scales=scales.get(name, np.zeros(0, np.float16)),
                columns=factors.get(name, np.zeros(0, np.float16)),
                by_column=by_column,
            )
        )
    return records


def pack_bits(records: Sequence[Record]) -> bytes:
    """Codes at their grid's width: 6 bits each for int6, tensors byte-aligned."""
    parts = []
    for record in records:
        if record.quantized:
            width = int(record.grid[3:])
            unsigned = (flat_codes(record).astype(np.int16) + INTEGER_GRIDS[record.grid]).astype(np.uint8)
            parts.append(np.packbits(np.unpackbits(unsigned[:, None], axis=1)[:, 8 - width :]).tobytes())
    return b"".join(parts)


def unpack_bits(table: Sequence[dict], data: bytes) -> np.ndarray:
    """The flat int8 code plane from packed bits."""
    source = np.frombuffer(data, np.uint8)
    parts = [np.zeros(0, np.int8)]
    start = 0
    for entry in table:
        if entry["grid"] not in INTEGER_GRIDS:
            continue
        width = int(entry["grid"][3:])
        count = int(np.prod(matrix_shape(entry["shape"])))
        stop = start + (count * width + 7) // 8
        if stop > source.size:
            raise Corrupt("packed codes end before the last tensor")
        bits = np.unpackbits(source[start:stop], count=count * width).reshape(count, width)
        padded = np.concatenate([np.zeros((count, 8 - width), np.uint8), bits], axis=1)
        codes = np.packbits(padded, axis=1)[:, 0].astype(np.int16) - INTEGER_GRIDS[entry["grid"]]
        parts.append(codes.astype(np.int8))
        start = stop
    if start != source.size:
        raise Corrupt("packed codes go on after the last tensor")
    return np.concatenate(parts)
