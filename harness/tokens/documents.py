"""Reads documents from files: JSON lines (plain or zstd-compressed) and plain text.

A source can be walked several times (tokenizer training, then encoding) without holding the text:
the contest's document files have tens of gigabytes.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from audit.contracts import InputError

_ZSTD_WINDOW = 1 << 27  # long-distance archives use windows up to 128 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """The documents of files in the given order; iterating again starts again.

    ``.jsonl`` and ``.json`` lines are objects with a text under ``field``; any other file is plain
    text, one document per run of lines between blank lines, or the whole file with ``whole_files``.
    ``.zst`` is undone on the way.
    """

    paths: tuple[Path, ...]
    field: str = "text"
    whole_files: bool = False

    @classmethod
    def open(
        cls, paths: Iterable[str | os.PathLike[str]], *, field: str = "text", whole_files: bool = False
    ) -> FileSource:
        """Checks that every path exists; a folder stands for its ``.jsonl``, ``.txt`` and ``.md`` files, sorted."""
        found: list[Path] = []
        for path in map(Path, paths):
            if path.is_dir():
                inside = sorted(
                    p
                    for p in path.rglob("*")
                    if p.name.removesuffix(".zst").endswith((".jsonl", ".txt", ".md"))
                )
                if not inside:
                    raise InputError(
                        f"{path}: no .jsonl, .txt or .md files (or .zst of these) in this folder"
                    )
                found += inside
            elif path.is_file():
                found.append(path)
            else:
                raise InputError(f"{path}: no such file or folder")
        return cls(paths=tuple(found), field=field, whole_files=whole_files)

    def __iter__(self) -> Iterator[str]:
        for path in self.paths:
            kind = path.name.removesuffix(".zst")
            with _text(path) as handle:
                try:
                    if kind.endswith((".jsonl", ".json")):
                        yield from _json_lines(path, handle, self.field)
                    elif self.whole_files:
                        yield handle.read()
                    else:
                        yield from _blocks(handle)
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}: not UTF-8 text: {error.reason} at byte {error.start}"
                    ) from None


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    try:
        raw = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}") from None
    with raw:
        if path.suffix != ".zst":
            yield io.TextIOWrapper(raw, encoding="utf-8")
            return
        yield io.TextIOWrapper(io.BufferedReader(_Zstd(path, raw), 1 << 20), encoding="utf-8")


class _Zstd(io.RawIOBase):
    """Decompresses consecutive zstd frames. Unlike zstandard's own reader it notices a cut-off frame."""

    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        import zstandard

        self._path, self._raw = path, raw
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._error: type[Exception] = zstandard.ZstdError
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._raw.read(1 << 18)
            if not self._input:
                if self._frame is not None:
                    raise InputError(f"{self._path}: truncated zstd file")
                return 0
            self._advance()
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _advance(self) -> None:
        if self._frame is None:
            self._frame = self._decompressor.decompressobj()
        try:
            self._output = memoryview(self._frame.decompress(self._input))
        except self._error as error:
            raise InputError(f"{self._path}: damaged zstd file: {error}") from None
        self._input = b""
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None


def _json_lines(path: Path, handle: IO[str], field: str) -> Iterator[str]:
    for number, line in enumerate(handle, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON: {error}") from None
        text = record.get(field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise InputError(f"{path}, line {number}: no text under {field!r}; name another with --field")
        yield text


def _blocks(handle: IO[str]) -> Iterator[str]:
    held: list[str] = []
    for line in handle:
        if line.strip():
            held.append(line)
        elif held:
            yield "".join(held)
            held = []
    if held:
        yield "".join(held)
