"""Where a finding is shown: its source line, its fingerprint, and its path as a repository sees it."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import PurePosixPath
from typing import Any

from audit.baseline import of_submission
from audit.excerpts import CUT
from audit.model import Finding, Step, Submission

_FIELDS = [f.name for f in fields(Finding) if f.name != "trace"]


def safe(text: str) -> str:
    """A stranger's text without what could drive a terminal, a page or a comment's layout."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text.replace("\t", "    "))


def clip(text: str, width: int, column: int = 0) -> str:
    """At most ``width`` characters of a line of code, around ``column`` (1-based) where the beginning does not hold it.

    What is left out is marked.
    """
    column += 3 * text[: max(column - 1, 0)].count("\t")  # a tab becomes four spaces
    text, width = safe(text), max(width, 20)
    if len(text) <= width:
        return text
    start = 0
    if column > width * 3 // 4:
        start = max(0, min(column - 1 - width // 4, len(text) - width + 1))
    head = CUT if start else ""
    room = width - len(head)
    if len(text) - start <= room:
        return head + text[start:]
    return f"{head}{text[start : start + room - 1]}{CUT}"


def source_line(submission: dict[str, Any], path: str, line: int) -> str | None:
    """The line from the result's own excerpts, None where they do not hold it."""
    found = submission.get("excerpts", {}).get(path, {}).get(str(line))
    return None if found is None else str(found)


def stripped(submission: dict[str, Any], place: dict[str, Any]) -> str:
    """The source line of a step or finding without its indentation, "" where it is not at hand."""
    return (source_line(submission, place["path"], place["line"]) or "").strip()


def column_in(submission: dict[str, Any], place: dict[str, Any]) -> int:
    """The place's column in what `stripped` gives; 0 where it is not known."""
    text = source_line(submission, place["path"], place["line"]) or ""
    return max(0, int(place.get("column") or 0) - (len(text) - len(text.lstrip())))


def fingerprints(submission: dict[str, Any]) -> list[str]:
    """One stable fingerprint per finding, in order; the same that a baseline holds."""
    findings = [
        Finding(**{k: f[k] for k in _FIELDS if k in f}, trace=tuple(Step(**step) for step in f.get("trace", ())))
        for f in submission["findings"]
    ]
    return of_submission(
        Submission(
            target=str(submission.get("target") or ""), commit=submission.get("commit"),
            primary=submission.get("primary"), findings=findings, excerpts=submission.get("excerpts", {}),
        )
    )  # fmt: skip


def with_warnings(submission: dict[str, Any]) -> list[dict[str, str]]:
    """The obligations; of one that holds beside a warning of its rule the status is ``warned``, with what is warned of."""
    said: dict[str, str] = {}
    for f in submission["findings"]:
        if f["severity"] == "warning" and not f.get("suppressed"):
            said.setdefault(f["rule"], f"{f['path']}:{f['line']}: {f['message']}")
    return [
        {**o, "status": "warned", "reason": said[o["rule"]]} if o["status"] == "holds" and o["rule"] in said else o
        for o in submission["obligations"]
    ]


def standing(finding: dict[str, Any]) -> str:
    """Who stands behind the rule, with the threads of its ruling: ``MAINT (#779, #982)``."""
    from audit.rules.base import rule_modules

    module = rule_modules().get(finding["rule"])
    own = module is not None and module.RULE.authority == finding["authority"]
    ruling = module.RULE.ruling if module is not None and own else ""
    return f"{finding['authority']} ({ruling})" if ruling else str(finding["authority"])


def repository_path(submission: dict[str, Any], path: str) -> str:
    """``path`` (relative to the submission's root) as seen from where the audit was started.

    A target in a git repository and a target elsewhere on the disk keep the submission's own paths.
    """
    target = str(submission.get("target") or "")
    if submission.get("commit") or not target:
        return PurePosixPath(path).as_posix()
    if os.path.isabs(target):
        target = os.path.relpath(target)
    primary = submission.get("primary") or ""
    folder = PurePosixPath(target)
    if primary and folder.suffix == ".py" and folder.name == PurePosixPath(primary).name:
        folder = folder.parent
    if ".." in folder.parts:
        return PurePosixPath(path).as_posix()
    return (folder / path).as_posix()


def unpacked_hint(submission: dict[str, Any]) -> str | None:
    """Whose lines are shown where they are not those of the submitted file, and how to see them."""
    packed = submission.get("packed", {})
    shown = {p for f in submission["findings"] for p in (f["path"], *(step["path"] for step in f["trace"]))}
    held = [(path, packed[path]) for path in sorted(shown) if path in packed]
    if any(place["line"] for _path, place in held):
        return "lines are of the unpacked source: referee audit \N{HORIZONTAL ELLIPSIS} --dump-source DIR"
    return next((f"lines of {path} are those of {place['path']}, which it runs" for path, place in held), None)
