"""Baselines: findings that are known and accepted, named by fingerprints that survive edits.

A fingerprint holds rule, path and the words of the finding's source line, not its number, so that
lines inserted above do not make an old finding new. Equal lines are told apart by their order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from audit.contracts import InputError
from audit.excerpts import WIDEST
from audit.model import Finding, Submission

SCHEMA = "referee.baseline/1"


def fingerprint(rule: str, path: str, words: str, count: int) -> str:
    """Of one finding: ``words`` are its source line's, ``count`` how many equal ones came before."""
    return hashlib.sha256("\0".join((rule, path, words, str(count))).encode("utf-8", "replace")).hexdigest()[
        :32
    ]


def fingerprints(findings: Iterable[Finding], line_text: dict[tuple[str, int], str]) -> list[str]:
    """One stable hexadecimal fingerprint per finding, in order. ``line_text``: (path, line) -> source."""
    seen: Counter[tuple[str, str, str]] = Counter()
    out = []
    for finding in findings:
        text = line_text.get((finding.path, finding.line))
        # Of a long line a result keeps the beginning; the same is compared whether the file or a result is at hand.
        words = " ".join((finding.message if text is None else text[:WIDEST]).split())
        key = (finding.rule, finding.path, words)
        out.append(fingerprint(*key, seen[key]))
        seen[key] += 1
    return out


def of_submission(submission: Submission) -> list[str]:
    """The fingerprints of a finished submission's findings, from its own excerpts."""
    texts = {
        (path, int(number)): text
        for path, lines in submission.excerpts.items()
        for number, text in lines.items()
    }
    return fingerprints(submission.findings, texts)


def read(path: str) -> frozenset[str]:
    """The fingerprints in a baseline file; InputError where it is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise KeyError("schema")
        return frozenset(str(entry["fingerprint"]) for entry in data["findings"])
    except OSError as error:
        raise InputError(f"cannot read baseline {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} is not a baseline; write one with: referee audit TARGET --write-baseline {path}"
        ) from None


def write(path: str, submissions: Iterable[Submission]) -> int:
    """Writes every counted finding to ``path`` and returns their number."""
    entries = [
        {"fingerprint": print_, "rule": f.rule, "path": f.path, "line": f.line, "message": f.message}
        for submission in submissions
        for f, print_ in zip(submission.findings, of_submission(submission), strict=True)
    ]
    text = json.dumps({"schema": SCHEMA, "findings": entries}, indent=1) + "\n"
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write baseline {path}: {error.strerror}") from None
    return len(entries)


def apply(
    findings: list[Finding], known: frozenset[str], line_text: dict[tuple[str, int], str]
) -> list[Finding]:
    """Marks the findings that the baseline holds."""
    return [
        replace(f, suppressed="baseline") if print_ in known and f.suppressed is None else f
        for f, print_ in zip(findings, fingerprints(findings, line_text), strict=True)
    ]
