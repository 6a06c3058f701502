"""The source lines that a result carries with it, so that it can be shown with its code when the files are gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from audit.model import Finding, Obligation

#: source lines kept around a finding and around a step of its path
FRAME, STEP = 3, 0
#: characters of a line that are kept; packed scripts have no short ones
WIDEST = 400
_LINE = re.compile(r":(\d+)")


def excerpts(
    findings: Iterable[Finding],
    obligations: Iterable[Obligation],
    known: Iterable[str],
    source_line: Callable[[str, int], str | None],
) -> dict[str, dict[str, str]]:
    """The source around every finding and step, and at the places that undetermined obligations name."""
    wanted: dict[str, set[int]] = {}
    for f in findings:
        last = min(f.end_line or f.line, f.line + 12)
        wanted.setdefault(f.path, set()).update(range(f.line - FRAME, last + FRAME + 1))
        for step in f.trace:
            wanted.setdefault(step.path, set()).update(range(step.line - STEP, step.line + STEP + 1))
    known = list(known)
    for o in obligations:
        if o.status == "undetermined" and (place := place_named(o.reason, known)) is not None:
            wanted.setdefault(place[0], set()).add(place[1])
    out: dict[str, dict[str, str]] = {}
    for path, numbers in wanted.items():
        kept = {str(n): text[:WIDEST] for n in sorted(numbers) if (text := source_line(path, n)) is not None}
        if kept:
            out[path] = kept
    return out


def place_named(reason: str, known: Iterable[str]) -> tuple[str, int] | None:
    """The first ``path:line`` of a known file in a sentence."""
    known = list(known)
    for match in _LINE.finditer(reason):
        before = reason[: match.start()]
        if paths := [p for p in known if p and before.endswith(p)]:
            return max(paths, key=len), int(match.group(1))
    return None
