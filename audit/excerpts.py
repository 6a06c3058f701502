"""The source lines that a result carries with it, so that it can be shown with its code when the files are gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from audit.model import Finding, Obligation, Step

#: source lines kept around a finding and around a step of its path
FRAME, STEP = 3, 0
#: characters of a line that are kept, of one whose place lies further to the right, and behind such a place
WIDEST, FARTHEST, BEHIND = 400, 8_000, 200
CUT = "\N{HORIZONTAL ELLIPSIS}"
#: from here on a line is searched for what a step says of it
LONG = 80
_CALLS = re.compile(r"^call(?:s|ed as) (\w+)$")
_LINE = re.compile(r":(\d+)")


def excerpts(
    findings: Iterable[Finding],
    obligations: Iterable[Obligation],
    known: Iterable[str],
    source_line: Callable[[str, int], str | None],
) -> dict[str, dict[str, str]]:
    """The source around every finding and step, and at the places that undetermined obligations name."""
    wanted: dict[str, set[int]] = {}
    reach: dict[tuple[str, int], int] = {}
    for f in findings:
        for path, line, column in [(f.path, f.line, f.column), *((s.path, s.line, s.column) for s in f.trace)]:
            reach[path, line] = max(reach.get((path, line), 0), min(column + BEHIND, FARTHEST))
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
        kept = {
            str(n): _kept(text, max(WIDEST, reach.get((path, n), 0)))
            for n in sorted(numbers)
            if (text := source_line(path, n)) is not None
        }
        if kept:
            out[path] = kept
    return out


def _kept(text: str, size: int) -> str:
    return text if len(text) <= size else text[:size] + CUT


def with_columns(findings: Iterable[Finding], source_line: Callable[[str, int], str | None]) -> list[Finding]:
    """The findings, with the columns of the calls on the way to them: where a line names the callee that a step names.

    A minified line holds many statements, and the beginning of it says nothing.
    """
    return [
        replace(f, trace=tuple(_with_column(step, source_line) for step in f.trace)) if f.trace else f for f in findings
    ]


def _with_column(step: Step, source_line: Callable[[str, int], str | None]) -> Step:
    match = _CALLS.search(step.message)
    if step.column or match is None or (text := source_line(step.path, step.line)) is None or len(text) < LONG:
        return step
    called = re.search(rf"(?<![\w.]){re.escape(match[1])}\b", text) or re.search(rf"\b{re.escape(match[1])}\b", text)
    return replace(step, column=called.start() + 1) if called is not None else step


def place_named(reason: str, known: Iterable[str]) -> tuple[str, int] | None:
    """The first ``path:line`` of a known file in a sentence."""
    known = list(known)
    for match in _LINE.finditer(reason):
        before = reason[: match.start()]
        if paths := [p for p in known if p and before.endswith(p)]:
            return max(paths, key=len), int(match.group(1))
    return None
