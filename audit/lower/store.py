"""Lowered nodes of one sweep, by the digest of their text; see `audit.lower.pieces`.

Parsing takes nearly half of an audit, and reading lowered nodes back (`audit.lower.packing`) a tenth of that. The file
belongs to one sweep: who makes its folder (`tempfile`, readable by the user alone) removes it. Nothing in it comes from
outside: it holds this program's own nodes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: parameters of one query; SQLite takes no more than 999 in older builds
AT_ONCE = 500
_folder: str | None = None
_opened: sqlite3.Connection | None = None


def keep_in(folder: str | None) -> None:
    """Where this process keeps lowered nodes from now on; None for nowhere."""
    global _folder, _opened
    if folder == _folder:
        return
    if _opened is not None:
        _opened.close()
    _folder, _opened = folder, None
    if folder is None:
        return
    with suppress(sqlite3.Error):
        # Lowering runs in a thread of its own (`audit.lower`), one at a time.
        opened = sqlite3.connect(Path(folder) / "lowered", timeout=30, check_same_thread=False)
        opened.execute("PRAGMA journal_mode = WAL")
        opened.execute("PRAGMA synchronous = OFF")  # a lost file costs a parse
        opened.execute("CREATE TABLE IF NOT EXISTS lowered (key TEXT PRIMARY KEY, nodes BLOB) WITHOUT ROWID")
        _opened = opened


def active() -> bool:
    return _opened is not None


def kept(keys: Sequence[str]) -> dict[str, bytes]:
    """What is there under ``keys``, packed. Never raises: what cannot be read is parsed again."""
    found: dict[str, bytes] = {}
    if _opened is None:
        return found
    with suppress(sqlite3.Error):
        for at in range(0, len(keys), AT_ONCE):
            part = keys[at : at + AT_ONCE]
            marks = ",".join("?" * len(part))
            found.update(_opened.execute(f"SELECT key, nodes FROM lowered WHERE key IN ({marks})", part))
    return found


def keep(packed: Mapping[str, bytes]) -> None:
    """Keeps nodes. Never raises."""
    if _opened is None or not packed:
        return
    with suppress(sqlite3.Error), _opened:
        _opened.executemany("INSERT OR IGNORE INTO lowered VALUES (?, ?)", packed.items())


__all__ = ["active", "keep", "keep_in", "kept"]
