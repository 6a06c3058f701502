"""Settings that the papers contradict: a breach has to stand under both readings to accuse.

Where statements of the same standing disagree about a knob (`audit.knobs`), or only a title names it, nobody can
tell which value the reported run had. If some condition of the program depends on such a knob, the program is
judged a second time with the other value. What breaches a rule under one reading only is neither shown nor
excluded: the finding stays, its ``active`` is ``unknown``, its gate says which settings are in doubt, and the
verdict is ``undetermined`` unless something else decides it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from audit.knobs import Knobs
from audit.model import Finding

Found = Mapping[str, Sequence[Finding]]


def doubtful(knobs: Knobs, deciding: set[str]) -> list[str]:
    """The knobs in doubt that some condition depends on."""
    return sorted(name for name, value in knobs.values.items() if value.ambiguous and name in deciding)


def merge(first: Found, second: Found, knobs: Knobs, other: Knobs, names: Sequence[str]) -> dict[str, list[Finding]]:
    """The findings of the first reading, and the breaches of the second; what only one reading has is ``unknown``."""
    gate = "; ".join(_said(name, knobs, other) for name in names[:3])
    stands = {rule: [f for f in second.get(rule, ()) if _breach(f)] for rule in first}
    # A rule that is broken either way is broken; where it shows may differ.
    both = {rule for rule, found in first.items() if stands[rule] and any(_breach(f) for f in found)}
    papers = any(f.severity == "violation" and f.active == "yes" and not _breach(f) for found in first.values() for f in found)

    def doubt(f: Finding) -> Finding:
        # Where the verdict does not hang on it, a reader should know, and need not count.
        return replace(f, active="unknown", gate=gate, severity="warning" if both or papers else f.severity)

    merged: dict[str, list[Finding]] = {}
    for rule, found in first.items():
        places = {(f.path, f.line) for f in stands[rule]}
        merged[rule] = list(found) if rule in both else [
            *(doubt(f) if _breach(f) else f for f in found if _breach(f) or (f.path, f.line) not in places),
            *map(doubt, stands[rule]),
        ]  # fmt: skip
    return merged


def _breach(finding: Finding) -> bool:
    return finding.severity == "violation" and finding.active == "yes" and finding.basis == "source"


def _said(name: str, knobs: Knobs, other: Knobs) -> str:
    ours, theirs = knobs.values[name], other.values.get(name)
    at = f"{ours.path}:{ours.line}" if ours.line else ours.path
    if theirs is None:
        return f"{name}={ours.value} only by {at}, the code's default is {knobs.default(name)}"
    there = f"{theirs.path}:{theirs.line}" if theirs.line else theirs.path
    return f"{name}={ours.value} by {at}, {theirs.value} by {there}"


__all__ = ["doubtful", "merge"]
