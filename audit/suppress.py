"""Suppressions in the source: ``# referee: ignore[F8] reason`` on the line or the line above.

A suppressed finding is never dropped: it stays in every output with the reason, and only stops
counting towards the verdict. Whoever audits a stranger passes ``--ignore-suppressions``.
"""

from __future__ import annotations

import re
from dataclasses import replace

from audit.model import Finding

_COMMENT = re.compile(r"#\s*referee:\s*ignore\[([A-Z]\d+(?:\s*,\s*[A-Z]\d+)*)\]\s*(.*)$")


def suppressions(text: str) -> dict[int, tuple[frozenset[str], str]]:
    """Line (1-based) -> the rule ids it suppresses and the reason given.

    A comment on a line of its own speaks for the next line.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if "referee:" not in line or not (match := _COMMENT.search(line)):
            continue
        rules = frozenset(r.strip() for r in match.group(1).split(","))
        reason = match.group(2).strip() or "no reason given"
        found[number + 1 if line.lstrip().startswith("#") else number] = (rules, reason)
    return found


def apply(findings: list[Finding], sources: dict[str, str]) -> list[Finding]:
    """Marks the findings that a comment in the source speaks for."""
    by_path = {path: suppressions(text) for path, text in sources.items() if "referee:" in text}
    out = []
    for finding in findings:
        entry = by_path.get(finding.path, {}).get(finding.line)
        if entry and finding.rule in entry[0] and finding.suppressed is None:
            finding = replace(finding, suppressed=f"in the source: {entry[1]}")
        out.append(finding)
    return out
