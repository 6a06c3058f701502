"""Suppressions in the source: ``# referee: ignore[F8] reason`` on the line or the line above.

Several rules are separated by commas or spaces, and a rule's name stands for its id. A suppressed finding is never
dropped: it stays in every output with the reason, and only stops counting towards the verdict. Whoever audits a
stranger passes ``--ignore-suppressions``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache

from audit.model import Finding
from audit.rules.base import rule_modules

_ID = re.compile(r"[A-Za-z]\d+")
_COMMENT = re.compile(r"#\s*referee:\s*ignore\b(?:\s*\[([^\]\n]*)\])?\s*(.*)$", re.I)


@dataclass(frozen=True, slots=True)
class Suppression:
    """One comment: where it stands, the line it speaks for, the ids it names, and words that name no rule."""

    at: int
    line: int
    rules: frozenset[str]
    reason: str
    unknown: tuple[str, ...] = ()


@cache
def _ids() -> dict[str, str]:
    """Ids and names of the rules, in lower case, to ids."""
    known = {id_.lower(): id_ for id_ in rule_modules()}
    return known | {module.RULE.name.lower(): id_ for id_, module in rule_modules().items()}


def suppressions(text: str) -> list[Suppression]:
    """The suppressions of a source. A comment on a line of its own speaks for the next line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if "referee:" not in line or not (match := _COMMENT.search(line)):
            continue
        words = re.split(r"[\s,]+", (match[1] or "").strip(" ,\t"))
        # An id of another version's rulebook still stands for that rule.
        rules = frozenset(_ids().get(w.lower(), w.upper()) for w in words if w.lower() in _ids() or _ID.fullmatch(w))
        unknown = tuple(w for w in words if w and w.lower() not in _ids())
        spoken = number + 1 if line.lstrip().startswith("#") else number
        found.append(Suppression(number, spoken, rules, match[2].strip() or "no reason given", unknown))
    return found


def mistakes(text: str) -> Iterator[tuple[int, str]]:
    """Line and words for every suppression that does not say what it should."""
    for s in suppressions(text):
        for word in s.unknown:
            near = get_close_matches(word.lower(), _ids(), n=1)
            hint = f"did you mean {near[0]}?" if near else "`referee rules` lists them"
            yield s.at, f"ignore[…] names {word!r}, which is no rule and suppresses nothing; {hint}"
        if not s.rules and not s.unknown:
            yield s.at, "this suppresses nothing, it names no rule; write: # referee: ignore[F8] reason"


def apply(findings: list[Finding], sources: dict[str, str]) -> list[Finding]:
    """Marks the findings that a comment in the source speaks for."""
    by_path = {path: suppressions(text) for path, text in sources.items() if "referee:" in text}
    out = []
    for finding in findings:
        for s in by_path.get(finding.path, ()):
            if s.line == finding.line and finding.rule in s.rules and finding.suppressed is None:
                finding = replace(finding, suppressed=f"in the source: {s.reason}")
        out.append(finding)
    return out
