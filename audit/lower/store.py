"""Lowered modules of one sweep, by the digest of their text.

A third of the scripts that a contest's history holds are copies of others. Parsing takes half of an audit and
reading a lowered module back a tenth of that. The folder belongs to one sweep: who makes it (`tempfile`, readable by
the user alone) removes it. Nothing in it comes from outside: it holds this program's own nodes.
"""

from __future__ import annotations

import os
import pickle
import zlib
from contextlib import suppress
from pathlib import Path

from audit import ir

#: characters; longer texts are data and rarely come twice
LONGEST = 1_000_000
_folder: Path | None = None


def keep_in(folder: str | None) -> None:
    """Where this process keeps lowered modules from now on; None for nowhere."""
    global _folder
    _folder = Path(folder) if folder else None


def kept(digest: str) -> ir.Module | None:
    """The module without its lines, or None."""
    if _folder is None:
        return None
    try:
        found = pickle.loads(zlib.decompress((_folder / digest).read_bytes()))
    except (OSError, zlib.error, pickle.UnpicklingError, EOFError):
        return None
    return found if isinstance(found, ir.Module) else None


def keep(digest: str, module: ir.Module, length: int) -> None:
    """Keeps a module, before its lines are attached. Never raises: what cannot be kept is parsed again."""
    if _folder is None or length > LONGEST:
        return
    unfinished = _folder / f"{digest}.{os.getpid()}"
    with suppress(OSError, RecursionError, pickle.PicklingError):
        unfinished.write_bytes(zlib.compress(pickle.dumps(module, pickle.HIGHEST_PROTOCOL), 1))
        unfinished.replace(_folder / digest)


__all__ = ["keep", "keep_in", "kept"]
