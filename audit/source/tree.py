"""Where a submission's files come from: a folder on disk, a git tree, or memory.

All paths are POSIX, relative to the tree's root. Reading never raises for an absent or unreadable
file: a repository may list blobs that it does not hold (partial clones, size-limited mirrors), and
that is a fact about the evidence, not an error.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

#: Files above this are not source, README or log text that anybody reads; they are listed only.
MAX_READ = 64 * 2**20
#: A folder target with more files than this is a data set by mistake; the walk stops there.
MAX_FILES = 50_000
SKIPPED_FOLDERS = frozenset({".git", "__pycache__", "node_modules", ".venv", "venv", "target"})
#: git's mode of a symbolic link
LINK = 0o120000


def digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


class FileTree(Protocol):
    """What every source of files answers."""

    def walk(self, folder: str = "") -> Iterator[str]:
        """Paths of all files at or below ``folder``, sorted within each folder."""

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None if absent, too large (`MAX_READ`) or unreadable."""

    def has(self, path: str) -> bool:
        """Whether a file (not a folder) is listed at ``path``."""

    def identity(self, path: str) -> str | None:
        """A digest of what `read` gives; None for what is not listed."""


def normal(path: str) -> str | None:
    """``a/./b/../c`` -> ``a/c``; None for what leaves the tree."""
    parts: list[str] = []
    for part in PurePosixPath(path.replace("\\", "/")).parts:
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in (".", "/"):
            parts.append(part)
    return "/".join(parts)


class FolderTree:
    """A folder on disk. Links that lead out of it are not followed."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        #: folders that a walk could not look into
        self.unreadable: list[str] = []

    def walk(self, folder: str = "") -> Iterator[str]:
        count = 0
        for at, folders, files in os.walk(self.root / folder, onerror=self._missed):
            folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS)
            for name in sorted(files):
                count += 1
                if count > MAX_FILES:
                    return
                yield (Path(at) / name).relative_to(self.root).as_posix()

    def _missed(self, error: OSError) -> None:
        if isinstance(error, PermissionError) and error.filename:
            self.unreadable.append(str(error.filename))

    def _locate(self, path: str) -> Path | None:
        clean = normal(path)
        if not clean:
            return None
        try:
            full = (self.root / clean).resolve()
            inside = full.is_relative_to(self.root) and full.is_file()
        except (OSError, ValueError, RuntimeError):
            return None
        return full if inside else None

    def has(self, path: str) -> bool:
        return self._locate(path) is not None

    def read(self, path: str) -> bytes | None:
        full = self._locate(path)
        try:
            if full is None or full.stat().st_size > MAX_READ:
                return None
            return full.read_bytes()
        except OSError:
            return None

    def identity(self, path: str) -> str | None:
        return digest(self.read(path))

    def open(self, path: str) -> BinaryIO | None:
        """The file as a stream, for logs of any size; None like `read` for what is absent."""
        full = self._locate(path)
        try:
            return None if full is None else full.open("rb")
        except OSError:
            return None


class MemoryTree:
    """Files held in a mapping: tests, examples beside rules, unpacked payloads."""

    def __init__(self, files: Mapping[str, bytes | str]) -> None:
        self.files = {
            k: v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v for k, v in files.items()
        }

    def walk(self, folder: str = "") -> Iterator[str]:
        prefix = folder.rstrip("/") + "/" if folder else ""
        yield from sorted(p for p in self.files if p.startswith(prefix))

    def has(self, path: str) -> bool:
        return (normal(path) or "") in self.files

    def read(self, path: str) -> bytes | None:
        return self.files.get(normal(path) or "")

    def identity(self, path: str) -> str | None:
        return digest(self.read(path))


class GitTree:
    """One commit's tree, read from the object store; nothing is checked out."""

    def __init__(self, repo: Any, tree: Any) -> None:
        self.repo, self.tree = repo, tree

    def walk(self, folder: str = "") -> Iterator[str]:
        start = self.tree
        if folder:
            try:
                start = self.tree[folder.rstrip("/")]
            except KeyError:
                return
        stack = [(folder.rstrip("/"), start)]
        while stack:
            at, tree = stack.pop()
            if getattr(tree, "type_str", "") != "tree":
                continue
            try:
                entries = list(tree)
            except (KeyError, ValueError):
                continue
            for entry in entries:
                path = f"{at}/{entry.name}" if at else str(entry.name)
                if entry.type_str == "tree":
                    stack.append((path, entry))
                elif entry.type_str == "blob":
                    yield path

    def _entry(self, path: str) -> Any:
        clean = normal(path)
        if not clean:
            return None
        try:
            return self.tree[clean]
        except (KeyError, ValueError, TypeError):
            return None

    def has(self, path: str) -> bool:
        entry = self._entry(path)
        return entry is not None and entry.type_str == "blob"

    def read(self, path: str, links: int = 8) -> bytes | None:
        entry = self._entry(path)
        if entry is None or entry.type_str != "blob" or links == 0:
            return None
        try:
            blob = self.repo[entry.id]
            data = None if blob.size > MAX_READ else bytes(blob.data)
        except (KeyError, ValueError, OSError):
            return None
        if data is not None and int(entry.filemode) == LINK:
            # A link: its text is a path relative to where it lies.
            target = normal(f"{path.rpartition('/')[0]}/{data.decode('utf-8', 'replace')}")
            return self.read(target, links - 1) if target else None  # links may lead in a circle
        return data

    def identity(self, path: str) -> str | None:
        entry = self._entry(path)
        if entry is None or entry.type_str != "blob":
            return None
        return digest(self.read(path)) if int(entry.filemode) == LINK else str(entry.id)


class OverlayTree:
    """A tree with extra files in front of it (what a wrapper unpacked)."""

    def __init__(self, front: MemoryTree, back: FileTree) -> None:
        self.front, self.back = front, back

    def walk(self, folder: str = "") -> Iterator[str]:
        seen = set()
        for path in self.front.walk(folder):
            seen.add(path)
            yield path
        yield from (p for p in self.back.walk(folder) if p not in seen)

    def has(self, path: str) -> bool:
        return self.front.has(path) or self.back.has(path)

    def read(self, path: str) -> bytes | None:
        found = self.front.read(path)
        return found if found is not None else self.back.read(path)

    def identity(self, path: str) -> str | None:
        return self.front.identity(path) or self.back.identity(path)
