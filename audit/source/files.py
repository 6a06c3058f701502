"""One submission's files, as the rest of the auditor sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from audit.source.tree import FileTree
from audit.text import decode

#: texts of a folder without logs that are looked into
MAX_TEXTS = 8
_STEP = re.compile(rb"^step[: ]\d+/\d+ (?:train|val)_loss:\d", re.M)
_LOG = re.compile(r"(^|[_\-.])(train|eval|log|seed|run|result|output|stdout)\w*", re.I)


@dataclass(slots=True, kw_only=True)
class SubmissionFiles:
    """The file set around one primary script.

    ``target``: what the user named. ``paths``: files of the submission, relative to the tree's
    root: everything in the primary's folder and what the submission changed. ``read`` reaches any
    file of the tree (a records README may point to the root's script). ``primary`` is None, with
    ``reason``, where there is no script.
    """

    target: str
    tree: FileTree
    commit: str | None = None
    primary: str | None = None
    reason: str = ""
    paths: list[str] = field(default_factory=list)
    #: Paths that the submission added or changed; equal to ``paths`` for folders and single files.
    changed: list[str] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """The primary's folder, "" for the root."""
        return (self.primary or "").rpartition("/")[0]

    def read(self, path: str) -> bytes | None:
        """Bytes of any file in the tree; None if it is absent, withheld or too large."""
        return self.tree.read(path)

    def text(self, path: str) -> str | None:
        """The file decoded; None like `read`."""
        data = self.tree.read(path)
        return None if data is None else decode(data)

    def near(self) -> list[str]:
        """Paths in the primary's folder and below; for a script at the root the changed ones there and its record."""
        if not self.folder:
            own = self._record_of_the_root()
            found = [p for p in self.paths if not p.startswith("records/") or (own and p.startswith(own))]
            return found or self.paths
        return [p for p in self.paths if p.startswith(self.folder + "/")]

    def _record_of_the_root(self) -> str | None:
        """The one changed record folder, where it holds papers and no script: they speak of the root's script."""
        changed = [p for p in self.changed if p.startswith("records/")]
        folders = {"/".join(p.split("/")[:3]) + "/" for p in changed if p.count("/") > 2}
        if len(folders) != 1 or any(p.endswith(".py") for p in changed):
            return None
        return folders.pop()

    def ending(self, *suffixes: str) -> list[str]:
        """Files near the primary with one of the suffixes (lower case)."""
        return [p for p in self.near() if p.lower().endswith(suffixes)]

    def beside(self, *suffixes: str) -> list[str]:
        """Files in the primary's own folder or at the root."""
        return [p for p in self.paths if p.endswith(suffixes) and p.rpartition("/")[0] in (self.folder, "")]

    def anywhere(self, *suffixes: str) -> list[str]:
        """Files of the submission wherever they lie."""
        return [p for p in self.paths if p.endswith(suffixes)]

    def readmes(self) -> list[str]:
        """README-like documents, the nearest first."""
        found = [p for p in self.ending(".md", ".rst") if "readme" in p.lower()] or self.ending(".md")
        return sorted(found, key=lambda p: (p.count("/"), p))

    def shell_scripts(self) -> list[str]:
        """Run scripts beside the primary; where there are none, those that the submission changes at the root."""
        suffixes = (".sh", ".bash", ".slurm", ".sbatch", ".env")
        outside = [p for p in self.changed if p.lower().endswith(suffixes) and "/" not in p]
        return self.ending(*suffixes) or outside

    def logs(self) -> list[str]:
        """Log-like files: .log, .out, and .txt files whose name says so; else those in a folder of logs, or that print training steps."""
        texts = [p for p in self.near() if p.lower().endswith(".txt") and "requirement" not in p.lower()]
        named = {p for p in texts if _LOG.search(PurePosixPath(p).name)}
        found = [p for p in self.near() if p.lower().endswith((".log", ".out")) or p in named]
        found = found or [p for p in texts if PurePosixPath(p).parent.name.lower() in ("log", "logs")]
        return found or [p for p in texts[:MAX_TEXTS] if _STEP.search(self.read(p) or b"")]

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)
