"""Lowered nodes of one sweep, by the digest of their text; see `audit.lower.pieces`.

Parsing takes half of an audit, and reading lowered nodes back an eighth of that. The file belongs to one sweep: who
makes its folder (`tempfile`, readable by the user alone) removes it. Nothing in it comes from outside: it holds this
program's own nodes.
"""

from __future__ import annotations

import pickle
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

#: parameters of one query; SQLite takes no more than 999 in older builds
AT_ONCE = 500
_file: Path | None = None


def keep_in(folder: str | None) -> None:
    """Where this process keeps lowered nodes from now on; None for nowhere."""
    global _file
    _file = None
    if folder is None:
        return
    with suppress(sqlite3.Error):
        with closing(sqlite3.connect(Path(folder) / "lowered", timeout=30)) as made:
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("CREATE TABLE IF NOT EXISTS lowered (key TEXT PRIMARY KEY, nodes BLOB) WITHOUT ROWID")
        _file = Path(folder) / "lowered"


def active() -> bool:
    return _file is not None


def kept(keys: Sequence[str]) -> dict[str, bytes]:
    """What is there under ``keys``, packed. Never raises: what cannot be read is parsed again."""
    found: dict[str, bytes] = {}
    if _file is None:
        return found
    with suppress(sqlite3.Error), closing(_open(_file)) as opened:
        for at in range(0, len(keys), AT_ONCE):
            part = keys[at : at + AT_ONCE]
            marks = ",".join("?" * len(part))
            found.update(opened.execute(f"SELECT key, nodes FROM lowered WHERE key IN ({marks})", part))
    return found


def keep(packed: Mapping[str, bytes]) -> None:
    """Keeps nodes. Never raises."""
    if _file is None or not packed:
        return
    with suppress(sqlite3.Error), closing(_open(_file)) as opened, opened:
        opened.executemany("INSERT OR IGNORE INTO lowered VALUES (?, ?)", packed.items())


def _open(file: Path) -> sqlite3.Connection:
    opened = sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=30)
    opened.execute("PRAGMA synchronous = OFF")  # a lost file costs a parse
    return opened


def pack(nodes: Any) -> bytes:
    """Raises ValueError for what nests too deeply."""
    try:
        return zlib.compress(pickle.dumps(nodes, pickle.HIGHEST_PROTOCOL), 1)
    except (RecursionError, pickle.PicklingError) as error:
        raise ValueError(f"cannot be kept: {error}") from None


def unpack(packed: bytes) -> Any:
    """Raises ValueError for what is torn."""
    try:
        return pickle.loads(zlib.decompress(packed))
    except (zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"cannot be read: {error}") from None


__all__ = ["active", "keep", "keep_in", "kept", "pack", "unpack"]
