"""Results kept between sweeps: one SQLite file, keyed so that a stale entry cannot be found.

A key covers the content (the commit's tree and what it changes), the options that bear on a verdict,
and a digest of the auditor's own code: whoever edits a rule sweeps anew, without having to know.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from audit.context import Options
from audit.contracts import InputError

#: Entries of other code versions or options that the file may hold before they are dropped.
MAX_BYTES = 2 * 2**30


def default_folder() -> Path:
    """Where the cache lies unless the user says otherwise (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "referee"


@lru_cache(maxsize=1)
def code_digest() -> str:
    """A digest of everything that decides a verdict besides the submission: code, parsers, Python."""
    from importlib import metadata

    seen = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for name in ("libcst", "tree-sitter", "tree-sitter-c", "tree-sitter-cpp", "zstandard", "brotli"):
        try:
            seen.update(f"{name} {metadata.version(name)}".encode())
        except metadata.PackageNotFoundError:
            seen.update(f"{name} absent".encode())
    root = Path(__file__).resolve().parent.parent
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        if not relative.startswith(("render/", "sweep/")):
            seen.update(relative.encode() + b"\0" + path.read_bytes())
    return seen.hexdigest()[:20]


def options_digest(options: Options) -> str:
    """A digest of the options that a verdict depends on."""
    said = {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name not in ("base", "dump_source", "limit_s", "warn")
    }
    said = {
        k: sorted(v) if isinstance(v, frozenset) else dict(v) if isinstance(v, Mapping) else v
        for k, v in said.items()
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:20]


class Cache:
    """Keys to lists of JSON objects. ``path`` None keeps nothing.

    Raises InputError where the file cannot be opened or is no cache.
    """

    def __init__(self, path: Path | None) -> None:
        self.db: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.stat().st_size > MAX_BYTES:
                path.unlink()
            self.db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=NORMAL")
            self.db.execute("CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, body BLOB)")
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{path}: not usable as a cache ({error}); name another with --cache") from None

    def get(self, key: str) -> list[dict[str, Any]] | None:
        if self.db is None:
            return None
        row = self.db.execute("SELECT body FROM results WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            found = json.loads(zlib.decompress(row[0]))
        except (ValueError, zlib.error):
            return None  # a torn entry is no entry
        return found if isinstance(found, list) else None

    def put(self, key: str, lines: Iterable[dict[str, Any]]) -> None:
        if self.db is not None:
            body = zlib.compress(json.dumps(list(lines), ensure_ascii=False).encode(errors="replace"), 3)
            self.db.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, body))

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None
