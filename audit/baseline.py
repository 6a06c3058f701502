"""Baselines: findings that are known and accepted, named by fingerprints that survive edits.

A fingerprint says which code of which submission is accused of what: the rule, the submission's folder, the file's
name, the function, the words of the finding's line and of the lines on the value's path. It holds no line number and
no leading folders, so that lines inserted above change nothing and a folder, a script and a revision of a repository
give the same. Scripts of this contest are copied from each other line by line: the folder keeps one author's baseline
from silencing the same code of another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from audit.contracts import InputError
from audit.excerpts import WIDEST
from audit.model import Finding, Submission

SCHEMA = "referee.baseline/2"
_PULL = re.compile(r"refs/pull/(\d+)(?:/|$)")


def home(target: str, commit: str | None, primary: str | None) -> str:
    """The name of the folder that a submission lies in, the same however it was named.

    In ``records/TRACK/NAME/…`` it is NAME, elsewhere the script's own folder. A script at the root of a repository
    has none: it goes by its pull request or revision, and as HEAD by the repository's folder, where it lies.
    """
    parts = PurePosixPath(primary or "").parent.parts
    if commit is None:
        place = Path(target).resolve()
        parts = (*(place.parent if place.is_file() else place).parts[1:], *parts)
    below = parts[len(parts) - parts[::-1].index("records") :] if "records" in parts else ()
    if parts:
        return below[1] if len(below) > 1 else parts[-1]
    repository, _, revision = target.rpartition("@")
    if (number := pull_request(target)) is not None:
        return f"pull/{number}"
    return Path(repository).resolve().name if revision == "HEAD" else revision


def pull_request(target: str) -> str | None:
    """The number of the pull request that a target names by its ref."""
    found = _PULL.search(target.rpartition("@")[2])
    return found[1] if found else None


def fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


def fingerprints(
    where: str, findings: Iterable[Finding], line_text: dict[tuple[str, int], str]
) -> list[str]:
    """One hexadecimal fingerprint per finding, in order. ``where``: `home`; ``line_text``: (path, line) -> source.

    Findings that are equal in all of it are told apart by their order in the source.
    """

    def words(path: str, line: int, otherwise: str) -> str:
        # Of a long line a result keeps the beginning; the same is compared whether the file or a result is at hand.
        return " ".join(line_text.get((path, line), otherwise)[:WIDEST].split())

    keys: list[tuple[str, ...]] = []
    places: list[tuple[str, int]] = []
    for f in findings:
        steps = [words(s.path, s.line, s.message) for s in f.trace if (s.path, s.line) != (f.path, f.line)]
        name = PurePosixPath(f.path).name
        keys.append((f.rule, where, name, f.function, words(f.path, f.line, f.message), *steps))
        places.append((f.path, f.line))
    prints = [""] * len(keys)
    seen: Counter[tuple[str, ...]] = Counter()
    for n in sorted(range(len(keys)), key=places.__getitem__):
        prints[n] = fingerprint(*keys[n], str(seen[keys[n]]))
        seen[keys[n]] += 1
    return prints


def of_submission(submission: Submission) -> list[str]:
    """The fingerprints of a finished submission's findings, from its own excerpts."""
    where = home(submission.target, submission.commit, submission.primary)
    return fingerprints(where, submission.findings, _texts(submission.excerpts))


def _texts(excerpts: dict[str, dict[str, str]]) -> dict[tuple[str, int], str]:
    return {(path, int(number)): text for path, lines in excerpts.items() for number, text in lines.items()}


def read(path: str) -> frozenset[str]:
    """The entries of a baseline file, as `apply` takes them; InputError where it is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["schema"] == "referee.baseline/1":
            raise InputError(
                f"{path} was written by an earlier version, whose entries do not say which submission they belong to; "
                f"write it again with: referee audit TARGET --write-baseline {path}"
            )
        if data["schema"] != SCHEMA:
            raise KeyError("schema")
        return frozenset(_entry(str(e["fingerprint"]), e.get("pull_request")) for e in data["findings"])
    except OSError as error:
        raise InputError(f"cannot read baseline {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path} is not a baseline; write one with: referee audit TARGET --write-baseline {path}"
        ) from None


def _entry(fingerprint: str, number: Any) -> str:
    return fingerprint if number is None else f"{fingerprint}@{number}"


def write(path: str, submissions: Iterable[Submission]) -> int:
    """Writes every counted finding to ``path`` and returns their number."""
    entries: list[dict[str, Any]] = [
        {"fingerprint": print_, "submission": home(s.target, s.commit, s.primary), "pull_request": pull_request(s.target),
         "rule": f.rule, "path": f.path, "line": f.line, "message": f.message}
        for s in submissions
        for f, print_ in zip(s.findings, of_submission(s), strict=True)
    ]  # fmt: skip
    text = json.dumps({"schema": SCHEMA, "findings": entries}, indent=1) + "\n"
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write baseline {path}: {error.strerror}") from None
    return len(entries)


def apply(findings: list[Finding], known: frozenset[str], submission: Submission) -> list[Finding]:
    """Marks the findings that the baseline holds. ``submission``: what they are of, its excerpts filled in.

    Folders of one name (``code``, ``my_submission``) are in many pull requests: what is known of one is not of another.
    """
    own = pull_request(submission.target)
    anywhere = {entry.partition("@")[0] for entry in known if own is None or entry.partition("@")[2] in ("", own)}
    where = home(submission.target, submission.commit, submission.primary)
    return [
        replace(f, suppressed="baseline") if print_ in anywhere and f.suppressed is None else f
        for f, print_ in zip(findings, fingerprints(where, findings, _texts(submission.excerpts)), strict=True)
    ]
