"""What the rules that read papers share: the evidence view, once per audit, and their findings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from audit.evidence.runs import Evidence, Run, view
from audit.model import Authority, Confidence, Fact, Finding, Obligation, Severity, Step
from audit.rules.base import Rule

_NON_RECORD = re.compile(r"non[-_ ]?record|unlimited", re.I)


def evidence(ctx: Any) -> Evidence:
    """The grouped facts of the submission, computed once per audit."""
    held = _VIEWS.get(id(ctx))
    if held is None or held[0] is not ctx.facts:
        _VIEWS.clear()
        held = _VIEWS[id(ctx)] = (ctx.facts, view(ctx.facts))
    return held[1]


#: the context in hand -> its facts (to notice another context at the same address) and their view
_VIEWS: dict[int, tuple[Any, Evidence]] = {}


def paper_finding(
    rule: Rule,
    fact: Fact,
    message: str,
    *,
    severity: Severity = "violation",
    confidence: Confidence = "high",
    authority: Authority | None = None,
    steps: tuple[Fact, ...] = (),
) -> Finding:
    """A finding at the place where a paper states ``fact``; ``steps`` are the other places."""
    return Finding(
        rule=rule.id, name=rule.name, severity=severity, authority=authority or rule.authority,
        confidence=confidence, message=message, path=fact.path, line=fact.line, end_line=fact.line,
        basis="log", trace=tuple(Step(path=s.path, line=s.line, message=f"{s.label or s.name}: {s.raw}") for s in steps),
    )  # fmt: skip


def distinct(items: Iterable[Finding | Obligation]) -> Iterator[Finding | Obligation]:
    """Drops findings that say the same again: logs are copied, and read in several parts."""
    seen: set[tuple[str, str]] = set()
    for item in items:
        if isinstance(item, Finding):
            key = (item.severity, item.message)
            if key in seen:
                continue
            seen.add(key)
        yield item


def non_record(ctx: Any) -> bool:
    """Is the submission outside the ten-minute track, by its folder or its metadata."""
    track = ctx.facts.first("track")
    return bool(_NON_RECORD.search(ctx.primary) or (track and _NON_RECORD.search(str(track.value))))


def full_machine(run: Run, found: Evidence | None = None) -> bool | None:
    """Did the run use eight GPUs; None where it does not say, nor the README (in ``found``) of a run that printed the stated score."""
    size = run.last("world_size")
    if size is not None:
        return int(size.value) == 8
    told = {int(f.value) for f in found.paper("gpus")} if found is not None and run.link == "score" else set()
    return True if told == {8} else None


def confidence_of(found: Evidence, run: Run | None = None) -> Confidence:
    """High where the run (or any) was found by the reported score, medium by a named seed, else low.

    A submission that states no score at all has nothing else to show than its logs: medium.
    """
    link = run.link if run is not None else found.linked
    if link == "score":
        return "high"
    return "medium" if link == "seed" or not found.stated else "low"
