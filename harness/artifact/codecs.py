"""General compressors behind one interface, each with a bound on what it may produce.

An artifact comes from a stranger: a stream of a few bytes may claim to be gigabytes. Every decoder here
is told the exact length it must produce and stops one byte past it, with bounded working memory, so a
bomb costs no more than an honest file.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable

import brotli
import zstandard

# Raw LZMA2: no container, hence no dictionary size that a hostile stream could set.
_LZMA_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
_ZSTD_WINDOW_LIMIT = 1 << 27


class Corrupt(Exception):
    """A stream that does not decode to exactly the promised length."""


def _zstd_encode(data: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        22, source_size=len(data), write_content_size=0, write_checksum=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _zstd_decode(data: bytes, length: int) -> bytes:
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_LIMIT)
    parts: list[bytes] = []
    left = length + 1
    with decoder.stream_reader(data, read_across_frames=False) as reader:
        while left > 0 and (part := reader.read(min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def _lzma_encode(data: bytes) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=_LZMA_FILTERS)


def _lzma_decode(data: bytes, length: int) -> bytes:
    # The dictionary is allocated up front: one no longer than the output suffices to read any valid stream.
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": min(1 << 26, max(4096, length))}]
    return lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters).decompress(
        data, max_length=length + 1
    )


def _zlib_decode(data: bytes, length: int) -> bytes:
    return zlib.decompressobj().decompress(data, length + 1)


def _brotli_encode(data: bytes) -> bytes:
    return brotli.compress(data, quality=11, lgwin=24)


def _brotli_decode(data: bytes, length: int) -> bytes:
    decoder = brotli.Decompressor()
    parts = [decoder.process(data, output_buffer_limit=length + 1)]
    produced = len(parts[0])
    while produced <= length and not decoder.is_finished():
        part = decoder.process(b"", output_buffer_limit=length + 1 - produced)
        if not part:
            break
        parts.append(part)
        produced += len(part)
    return b"".join(parts)


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zlib": lambda data: zlib.compress(data, 9),
    "zstd": _zstd_encode,
    "lzma": _lzma_encode,
    "brotli": _brotli_encode,
}
DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "none": lambda data, length: data,
    "zlib": _zlib_decode,
    "zstd": _zstd_decode,
    "lzma": _lzma_decode,
    "brotli": _brotli_decode,
}
GENERAL = tuple(DECODERS)


def decompress(name: str, data: bytes, length: int) -> bytes:
    """Exactly ``length`` bytes, or ``Corrupt``."""
    if name not in DECODERS:
        raise Corrupt(f"unknown compressor {name!r}")
    try:
        out = DECODERS[name](data, length)
    except (zstandard.ZstdError, lzma.LZMAError, zlib.error, brotli.error, EOFError, ValueError) as error:
        raise Corrupt(f"{name} stream is damaged: {error}") from error
    if len(out) != length:
        what = "more" if len(out) > length else "less"
        raise Corrupt(f"{name} stream holds {what} than the {length} bytes it promises")
    return out
