"""The artifact file: one self-describing, hardened container for a compressed model.

Layout, little-endian::

    0   8   magic  b"PGARTFCT"
    8   2   format version (1)
    10  2   reserved, zero
    12  4   header length, compressed
    16  8   body length
    24  32  SHA-256 over bytes 0..24, header and body
    56  …   header: zlib-compressed JSON
    …   …   body: the compressed planes, one after another

The header holds family, config, recipe, the tensor table and the sections (plane, compressor, lengths)
with the SHA-256 of the uncompressed planes. Nothing is pickled, no length is believed before it was
compared with the file and the caller's cap, and any damage is one ``InputError`` that names the file.
Reading needs numpy and the compressors, never torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit.contracts import InputError
from harness.artifact.codecs import ENCODERS, GENERAL, Corrupt, decompress
from harness.artifact.grids import FLOAT_GRIDS, INTEGER_GRIDS, Record, matrix_shape
from harness.artifact.layout import PLANES, pack_bits, plane_sizes, planes, records_from_planes, unpack_bits
from harness.artifact.rowcoder import decode_plane, encode_plane

MAGIC = b"PGARTFCT"
VERSION = 1
PREAMBLE = struct.Struct("<8sHHIQ32s")
MAX_HEADER = 4 << 20
#: Default cap on the uncompressed planes; a contest artifact is some 30 MB.
MAX_RAW = 256 << 20
#: Codecs of the code plane that look at the tensor table rather than at bytes.
CODE_CODECS = ("bits", "rows")
COMPRESSORS = (*GENERAL, *CODE_CODECS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Artifact:
    """A read artifact. ``digest``: SHA-256 (hex) of the whole file; ``file_bytes``: its size."""

    path: str
    header: dict[str, Any]
    records: list[Record]
    digest: str
    file_bytes: int

    @property
    def family(self) -> str:
        return self.header["family"]

    @property
    def config(self) -> dict[str, Any]:
        return self.header["config"]

    def arrays(self) -> dict[str, np.ndarray]:
        """Every tensor, dequantized to float32 in its own shape."""
        return {record.name: record.dequantize() for record in self.records}


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What ``write_artifact`` wrote: file digest (hex), total bytes, and bytes of each part."""

    digest: str
    file_bytes: int
    parts: dict[str, int]


def _encode_plane(plane: str, codec: str, raw: bytes, records: Sequence[Record]) -> bytes:
    if codec == "bits":
        return pack_bits(records)
    if codec == "rows":
        return encode_plane(records)
    return ENCODERS[codec](raw)


def _smallest(plane: str, raw: bytes, records: Sequence[Record]) -> tuple[str, bytes]:
    names = COMPRESSORS if plane == "codes" else GENERAL
    tried = [(name, _encode_plane(plane, name, raw, records)) for name in names]
    return min(tried, key=lambda pair: len(pair[1]))


def to_bytes(
    *,
    family: str,
    config: Mapping[str, Any],
    tensors: Sequence[Record],
    compressor: str = "zstd",
    recipe: Mapping[str, Any] | None = None,
) -> tuple[bytes, dict[str, int]]:
    """The file's bytes and the bytes of its parts (preamble, header and one entry per plane)."""
    if compressor not in (*COMPRESSORS, "auto"):
        raise InputError(f"unknown compressor {compressor!r}; known: auto, {', '.join(COMPRESSORS)}")
    if len({record.name for record in tensors}) != len(tensors):
        raise InputError("two tensors have the same name; every tensor of an artifact needs its own")
    raw = planes(tensors)
    sections, blobs = [], []
    for plane in PLANES:
        if compressor == "auto":
            codec, blob = _smallest(plane, raw[plane], tensors)
        else:
            # The code-plane codecs say nothing about floats: those then take the best general one.
            codec = compressor
            if codec in CODE_CODECS and plane != "codes":
                codec, blob = (
                    _smallest(plane, raw[plane], tensors) if codec == "rows" else ("none", raw[plane])
                )
            else:
                blob = _encode_plane(plane, codec, raw[plane], tensors)
        sections.append([plane, codec, len(raw[plane]), len(blob)])
        blobs.append(blob)
    header = {
        "family": family,
        "config": dict(config),
        "recipe": dict(recipe or {}),
        "tensors": [
            [r.name, list(r.shape), r.grid, int(r.scales.size), int(r.columns.size), int(r.by_column)]
            for r in tensors
        ],
        "sections": sections,
        "sha256": hashlib.sha256(b"".join(raw[plane] for plane in PLANES)).hexdigest(),
    }
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"config and recipe of an artifact must be plain JSON: {error}") from error
    packed = zlib.compress(text.encode(), 9)
    body = b"".join(blobs)
    start = PREAMBLE.pack(MAGIC, VERSION, 0, len(packed), len(body), b"\0" * 32)[:24]
    digest = hashlib.sha256(start + packed + body).digest()
    parts = {"preamble": PREAMBLE.size, "header": len(packed)}
    parts |= {plane: len(blob) for plane, blob in zip(PLANES, blobs, strict=True)}
    return start + digest + packed + body, parts


def write_artifact(
    path: str | os.PathLike[str],
    *,
    family: str,
    config: Mapping[str, Any],
    tensors: Sequence[Record],
    compressor: str = "zstd",
    recipe: Mapping[str, Any] | None = None,
) -> Written:
    """Writes an artifact atomically. ``compressor``: one of ``COMPRESSORS`` or ``auto``."""
    data, parts = to_bytes(
        family=family, config=config, tensors=tensors, compressor=compressor, recipe=recipe
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".partial")
    temporary.write_bytes(data)
    os.replace(temporary, target)
    return Written(digest=hashlib.sha256(data).hexdigest(), file_bytes=len(data), parts=parts)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is out of range")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _parse_header(packed: bytes) -> dict[str, Any]:
    try:
        decoder = zlib.decompressobj()
        text = decoder.decompress(packed, MAX_HEADER)
        if not decoder.eof or decoder.unused_data:
            raise Corrupt("the header is cut or too long")
        header = json.loads(
            text.decode(),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_no_duplicates,
        )
    except (zlib.error, ValueError, RecursionError) as error:
        raise Corrupt(f"the header is damaged: {error}") from error
    if not isinstance(header, dict) or set(header) != {
        "family",
        "config",
        "recipe",
        "tensors",
        "sections",
        "sha256",
    }:
        raise Corrupt("the header lacks a field or has one too many")
    if not (isinstance(header["family"], str) and isinstance(header["sha256"], str)):
        raise Corrupt("family and sha256 must be text")
    if not (isinstance(header["config"], dict) and isinstance(header["recipe"], dict)):
        raise Corrupt("config and recipe must be objects")
    header["tensors"] = _check_table(header["tensors"])
    header["sections"] = _check_sections(header["sections"])
    return header


def _is_count(value: object, limit: int) -> bool:
    return type(value) is int and 0 <= value <= limit


def _check_table(table: object) -> list[dict[str, Any]]:
    if not isinstance(table, list) or len(table) > 100_000:
        raise Corrupt("the tensor table is no list, or too long")
    entries: list[dict[str, Any]] = []
    for row in table:
        if not (isinstance(row, list) and len(row) == 6):
            raise Corrupt("a row of the tensor table has not six fields")
        name, shape, grid, scales, factors, by_column = row
        if not (isinstance(name, str) and 0 < len(name) <= 500):
            raise Corrupt("a tensor's name is no text, empty or too long")
        if not (isinstance(shape, list) and len(shape) <= 8 and all(_is_count(n, 1 << 40) for n in shape)):
            raise Corrupt(f"tensor {name!r} has an impossible shape")
        size = 1
        for axis in shape:
            size *= max(axis, 1)  # an empty tensor may not hide an axis that overflows
        if size > 1 << 40:
            raise Corrupt(f"tensor {name!r} is impossibly large")
        rows, columns = matrix_shape(shape)
        if not isinstance(grid, str) or grid not in INTEGER_GRIDS | FLOAT_GRIDS:
            raise Corrupt(f"tensor {name!r} lies on an unknown grid")
        allowed = (1, rows) if grid in INTEGER_GRIDS else (0,)
        factors_allowed = (0, columns) if grid in INTEGER_GRIDS else (0,)
        if type(factors) is not int or factors not in factors_allowed:
            raise Corrupt(f"tensor {name!r} has an impossible number of column factors")
        if (
            type(scales) is not int
            or scales not in allowed
            or type(by_column) is not int
            or by_column not in (0, 1)
        ):
            raise Corrupt(f"tensor {name!r} has an impossible number of scales or order")
        entries.append(
            {
                "name": name,
                "shape": shape,
                "grid": grid,
                "scales": scales,
                "columns": factors,
                "by_column": bool(by_column),
            }
        )
    if len({entry["name"] for entry in entries}) != len(entries):
        raise Corrupt("two tensors have the same name")
    return entries


def _check_sections(sections: object) -> list[dict[str, Any]]:
    if not isinstance(sections, list) or len(sections) != len(PLANES):
        raise Corrupt("the section list is damaged")
    checked = []
    for row, plane in zip(sections, PLANES, strict=True):
        if not (isinstance(row, list) and len(row) == 4 and row[0] == plane):
            raise Corrupt(f"section {plane} is damaged")
        codec, raw, packed = row[1:]
        known = COMPRESSORS if plane == "codes" else GENERAL
        if not isinstance(codec, str) or codec not in known:
            raise Corrupt(f"section {plane} names an unknown compressor")
        if not (_is_count(raw, 1 << 44) and _is_count(packed, 1 << 44)):
            raise Corrupt(f"section {plane} has an impossible length")
        checked.append({"plane": plane, "codec": codec, "raw": raw, "packed": packed})
    return checked


def from_bytes(data: bytes, *, max_bytes: int = MAX_RAW) -> tuple[dict[str, Any], list[Record]]:
    """Header and records of a file's bytes. Raises ``Corrupt`` with what is wrong."""
    if len(data) < PREAMBLE.size:
        raise Corrupt(f"it has {len(data)} bytes, fewer than a preamble")
    magic, version, reserved, header_length, body_length, digest = PREAMBLE.unpack_from(data)
    if magic != MAGIC:
        raise Corrupt("it is no artifact (wrong magic)")
    if version != VERSION or reserved:
        raise Corrupt(f"it has format version {version}; this program reads version {VERSION}")
    if len(data) != PREAMBLE.size + header_length + body_length:
        raise Corrupt("its length is not the one it states (cut, or longer)")
    view = memoryview(data)
    if hashlib.sha256(bytes(view[:24]) + bytes(view[PREAMBLE.size :])).digest() != digest:
        raise Corrupt("its digest does not match its content")
    body_start = PREAMBLE.size + header_length
    header = _parse_header(bytes(view[PREAMBLE.size : body_start]))
    table, sections = header["tensors"], header["sections"]
    sizes = plane_sizes(table)
    total = sum(sizes.values())
    if total > max_bytes:
        raise Corrupt(f"it would unpack to {total} bytes, more than the cap of {max_bytes}")
    if sum(section["packed"] for section in sections) != body_length:
        raise Corrupt("its sections do not fill its body")
    unpacked: dict[str, bytes] = {}
    at = body_start
    for section in sections:
        plane, codec, length = section["plane"], section["codec"], sizes[section["plane"]]
        if section["raw"] != length:
            raise Corrupt(f"section {plane} promises {section['raw']} bytes, the tensor table {length}")
        blob = bytes(view[at : at + section["packed"]])
        at += section["packed"]
        if codec == "bits":
            unpacked[plane] = unpack_bits(table, blob).tobytes()
        elif codec == "rows":
            unpacked[plane] = decode_plane(table, blob).tobytes()
        else:
            unpacked[plane] = decompress(codec, blob, length)
    if hashlib.sha256(b"".join(unpacked[plane] for plane in PLANES)).hexdigest() != header["sha256"]:
        raise Corrupt("the unpacked tensors do not match their digest")
    codes = np.frombuffer(unpacked["codes"], np.int8)
    return header, records_from_planes(table, codes, unpacked["halves"], unpacked["words"])


def read_artifact(path: str | os.PathLike[str], *, max_bytes: int = MAX_RAW) -> Artifact:
    """Reads and checks an artifact; ``max_bytes`` caps the uncompressed planes.

    Raises ``InputError`` with one line for anything that is not exactly an intact artifact.
    """
    try:
        size = os.path.getsize(path)
        if size > max_bytes + MAX_HEADER:
            raise InputError(
                f"{path}: {size} bytes, more than the cap of {max_bytes}; raise the cap if you trust it"
            )
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        header, records = from_bytes(data, max_bytes=max_bytes)
    except Corrupt as error:
        raise InputError(f"{path}: {error}; fetch or build the artifact again") from error
    return Artifact(
        path=str(path),
        header=header,
        records=records,
        digest=hashlib.sha256(data).hexdigest(),
        file_bytes=len(data),
    )
