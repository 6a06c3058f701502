"""Submissions that differ in nothing that an audit looks at: judged once in a sweep.

Branches of one author and copies of a record hold the same script beside the same papers. What a verdict rests on is
what was asked about the files: which lie near the script, and what is in them. `Watched` notes the questions. Under the
script's digest a tree of such questions is kept, with a result wherever they are all answered: a submission that gives
the same answers has the same result, whatever else its commit holds.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from audit.lower import store
from audit.source.files import SubmissionFiles
from audit.source.tree import FileTree

#: ("near",), ("anywhere", ".c", …), ("read", path), …
Question = tuple[str, ...]


@dataclass(slots=True)
class WatchedTree:
    """A tree that notes what it was asked."""

    tree: FileTree
    asked: dict[Question, None]

    def walk(self, folder: str = "") -> Iterator[str]:
        self.asked["walk", folder] = None
        return self.tree.walk(folder)

    def read(self, path: str) -> bytes | None:
        self.asked["read", path] = None
        return self.tree.read(path)

    def has(self, path: str) -> bool:
        self.asked["has", path] = None
        return self.tree.has(path)

    def identity(self, path: str) -> str | None:
        self.asked["read", path] = None
        return self.tree.identity(path)


@dataclass(slots=True, kw_only=True)
class Watched(SubmissionFiles):
    """A submission's files that note every question about them; ``plain``: the files themselves."""

    plain: SubmissionFiles
    asked: dict[Question, None] = field(default_factory=dict)

    def near(self) -> list[str]:
        self.asked["near",] = None
        return SubmissionFiles.near(self)

    def beside(self, *suffixes: str) -> list[str]:
        self.asked["beside", *suffixes] = None
        return SubmissionFiles.beside(self, *suffixes)

    def anywhere(self, *suffixes: str) -> list[str]:
        self.asked["anywhere", *suffixes] = None
        return SubmissionFiles.anywhere(self, *suffixes)

    def shell_scripts(self) -> list[str]:
        self.asked["shell",] = None
        return SubmissionFiles.shell_scripts(self)


def watched(files: SubmissionFiles) -> Watched:
    asked: dict[Question, None] = {}
    return Watched(
        plain=files, asked=asked, tree=WatchedTree(files.tree, asked), target=files.target, commit=files.commit,
        primary=files.primary, reason=files.reason, paths=list(files.paths), changed=list(files.changed),
    )  # fmt: skip


def found(files: SubmissionFiles) -> dict[str, Any] | None:
    """The result of a submission that answers every question alike; None if there is none yet."""
    key = _root(files)
    while key is not None and (node := _node(key)) is not None:
        if "result" in node:
            return node["result"]  # type: ignore[no-any-return]
        key = _below(key, files, node["questions"])
    return None


def keep(files: Watched, result: dict[str, Any]) -> None:
    """Keeps a result below the questions that led to it."""
    key, left = _root(files.plain), dict(files.asked)
    while key is not None:
        node = _node(key)
        if node is None:
            node = {"questions": list(left)} if left else {"result": result}
            store.keep({key: zlib.compress(json.dumps(node).encode(), 1)})
        if "result" in node:
            return
        for question in node["questions"]:
            left.pop(tuple(question), None)
        key = _below(key, files.plain, node["questions"])


def _root(files: SubmissionFiles) -> str | None:
    if files.primary is None or not store.active():
        return None
    return _digest("alike", files.primary, _answer(files, ("read", files.primary)))


def _node(key: str) -> dict[str, Any] | None:
    kept = store.kept([key]).get(key)
    return json.loads(zlib.decompress(kept)) if kept is not None else None


def _below(key: str, files: SubmissionFiles, questions: list[Question]) -> str:
    return _digest(key, *(_answer(files, tuple(q)) for q in questions))


def _answer(files: SubmissionFiles, question: Question) -> str:
    name, *rest = question
    if name == "read":
        return files.tree.identity(rest[0]) or "absent"
    if name == "has":
        return str(files.tree.has(rest[0]))
    if name == "walk":
        return _digest(*files.tree.walk(rest[0]))
    if name == "near":
        return _digest(*files.near())
    return _digest(*{"beside": files.beside, "anywhere": files.anywhere, "shell": files.shell_scripts}[name](*rest))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


__all__ = ["Watched", "found", "keep", "watched"]
