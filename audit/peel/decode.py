"""The whitelisted decoders: pure functions from bytes to bytes, each with a bounded output.

Keys are the canonical dotted names a wrapper calls; the short name is what a layer is called.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import codecs
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from audit.peel.limits import MAX_DICTIONARY, Bomb, Budget

Decoder = Callable[..., Any]


def _lzma(
    budget: Budget, data: bytes, format: int = lzma.FORMAT_AUTO, memlimit: Any = None, filters: Any = None
) -> bytes:
    for entry in filters or ():
        if isinstance(entry, dict) and int(entry.get("dict_size", 0) or 0) > MAX_DICTIONARY:
            raise Bomb("LZMA dictionary over the limit")
    limit = None if format == lzma.FORMAT_RAW else MAX_DICTIONARY * 2
    out = b""
    while True:
        engine = lzma.LZMADecompressor(format=format, memlimit=limit, filters=filters)
        piece = engine.decompress(data, max_length=budget.left - len(out) + 1)
        out += piece
        if len(out) > budget.left:
            budget.spend(len(out))
        data = engine.unused_data if engine.eof else b""
        if not data or format == lzma.FORMAT_RAW:
            return out


def _zlib(budget: Budget, data: bytes, wbits: int = zlib.MAX_WBITS, bufsize: int = 0) -> bytes:
    return zlib.decompressobj(wbits).decompress(data, budget.left + 1)


def _gzip(budget: Budget, data: bytes) -> bytes:
    return _zlib(budget, data, 31)


def _bz2(budget: Budget, data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, budget.left + 1)


def _brotli(budget: Budget, data: bytes) -> bytes:
    import brotli

    engine, out = brotli.Decompressor(), bytearray()
    # Fed in small pieces: 32 bytes of brotli can stand for two 16 MB blocks.
    for start in range(0, len(data), 32):
        out += engine.process(data[start : start + 32])
        if len(out) > budget.left:
            raise Bomb("brotli stream over the limit")
    return bytes(out)


def _zstd(budget: Budget, data: bytes, max_output_size: int = 0) -> bytes:
    import zstandard

    return (
        zstandard.ZstdDecompressor(max_window_size=2**27)
        .stream_reader(data, read_across_frames=True)
        .read(budget.left + 1)
    )


def _plain(function: Callable[..., bytes]) -> Decoder:
    return lambda budget, *args, **kwargs: function(*args, **kwargs)


def _codecs(budget: Budget, data: Any, encoding: str = "utf-8", errors: str = "strict") -> Any:
    name = encoding.lower().replace("-", "_")
    by_codec = {"zlib": _zlib, "zip": _zlib, "bz2": _bz2, "zlib_codec": _zlib, "bz2_codec": _bz2}
    if name in by_codec:
        return by_codec[name](budget, data)
    return codecs.decode(data, encoding, errors)


DECODERS: dict[str, tuple[str, Decoder]] = {
    "base64.b64decode": ("b64", _plain(base64.b64decode)),
    "base64.standard_b64decode": ("b64", _plain(base64.standard_b64decode)),
    "base64.urlsafe_b64decode": ("b64", _plain(base64.urlsafe_b64decode)),
    "base64.decodebytes": ("b64", _plain(base64.decodebytes)),
    "base64.b85decode": ("b85", _plain(base64.b85decode)),
    "base64.a85decode": ("a85", _plain(base64.a85decode)),
    "base64.b32decode": ("b32", _plain(base64.b32decode)),
    "base64.b16decode": ("b16", _plain(base64.b16decode)),
    "binascii.a2b_base64": ("b64", _plain(binascii.a2b_base64)),
    "binascii.unhexlify": ("b16", _plain(binascii.unhexlify)),
    "binascii.a2b_hex": ("b16", _plain(binascii.a2b_hex)),
    "bytes.fromhex": ("b16", _plain(bytes.fromhex)),
    "bytearray.fromhex": ("b16", _plain(bytes.fromhex)),
    "lzma.decompress": ("lzma", _lzma),
    "zlib.decompress": ("zlib", _zlib),
    "gzip.decompress": ("gzip", _gzip),
    "bz2.decompress": ("bz2", _bz2),
    "brotli.decompress": ("brotli", _brotli),
    "brotlicffi.decompress": ("brotli", _brotli),
    "zstandard.decompress": ("zstd", _zstd),
    "zstandard.ZstdDecompressor.decompress": ("zstd", _zstd),
    "zstd.decompress": ("zstd", _zstd),
    "zstd.ZstdDecompressor.decompress": ("zstd", _zstd),
    "pyzstd.decompress": ("zstd", _zstd),
    "compression.zstd.decompress": ("zstd", _zstd),
    "codecs.decode": ("codec", _codecs),
}

#: Constants that wrappers pass to decoders.
CONSTANTS: dict[str, Any] = {
    f"lzma.{name}": getattr(lzma, name) for name in dir(lzma) if name.startswith(("FORMAT_", "FILTER_", "PRESET_", "MF_", "MODE_", "CHECK_"))
} | {"zlib.MAX_WBITS": zlib.MAX_WBITS}  # fmt: skip


def decode(budget: Budget, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Applies one decoder and charges its output. Raises `Bomb`, or ValueError for a bad payload."""
    _short, function = DECODERS[name]
    try:
        out = function(budget, *args, **kwargs)
    except Bomb:
        raise
    except Exception as error:  # each codec has exceptions of its own; all mean a bad payload
        raise ValueError(f"{name}: {type(error).__name__}: {error}") from None
    budget.spend(len(out))
    return out
