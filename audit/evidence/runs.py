"""Groups the facts of the logs by training run and finds the runs behind the reported score.

A folder may hold smoke tests, ablations, superseded logs and evaluations that were only diagnostic.
A rule may accuse on a figure only if it belongs to a run that printed the reported score: an
evaluation whose printed score meets one that ``submission.json`` or the README states.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from audit.evidence.digits import Interval, decimals, interval, mean
from audit.model import Fact

#: evaluations that never are the reported one if another is there
_DIAGNOSTIC = re.compile(
    r"diagnostic|pre[-_ ]?quant|post[-_ ]?ema|pre[-_ ]?ttt|raw model|post_swa|post_average|\bema\b|swa|before|rank_sweep",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One printed score: bits per byte, with loss and seconds where the same line has them."""

    bpb: Fact
    loss: Fact | None = None
    time: Fact | None = None

    @property
    def label(self) -> str:
        return self.bpb.label


@dataclass(slots=True)
class Run:
    """One training or evaluation run: the facts of one log, or of one part of it."""

    scope: str
    facts: list[Fact] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    #: the evaluations whose score the papers report; empty if none is
    reported: list[Evaluation] = field(default_factory=list)

    def named(self, name: str) -> list[Fact]:
        return [f for f in self.facts if f.name == name]

    def last(self, name: str) -> Fact | None:
        return next((f for f in reversed(self.facts) if f.name == name), None)

    @property
    def path(self) -> str:
        return self.facts[0].path

    @property
    def seed(self) -> int | None:
        found = self.last("seed")
        return int(found.value) if found else None

    @property
    def final(self) -> Evaluation | None:
        """The reported evaluation, else the last that is no diagnostic, else the last."""
        if self.reported:
            return self.reported[-1]
        plain = [e for e in self.evaluations if not _DIAGNOSTIC.search(e.label)]
        return (plain or self.evaluations or [None])[-1]  # type: ignore[list-item]

    def knob(self, name: str) -> str | None:
        found = self.last(f"knob.{name}")
        return str(found.value) if found else None


@dataclass(slots=True)
class Evidence:
    """The papers' figures and the logs' runs.

    ``stated``: scores that papers state for this submission. ``behind``: the runs that printed one of
    them; ``linked`` says whether they were found by their score (otherwise ``behind`` holds every
    run with a final score, and nothing ties them to the headline).
    """

    runs: list[Run]
    papers: list[Fact]
    stated: list[Fact]
    behind: list[Run]
    linked: bool

    def paper(self, name: str, scope: str | None = None) -> list[Fact]:
        return [f for f in self.papers if f.name == name and (scope is None or f.scope == scope)]


def view(facts: Iterable[Fact]) -> Evidence:
    """Sorts facts into runs (scope is a log's path) and papers, and links them by the score."""
    runs: dict[str, Run] = {}
    papers: list[Fact] = []
    for fact in facts:
        if fact.scope.startswith(fact.path) and fact.path:
            runs.setdefault(fact.scope, Run(fact.scope)).facts.append(fact)
        else:
            papers.append(fact)
    for run in runs.values():
        run.evaluations = list(_evaluations(run.facts))
    stated = [f for f in papers if f.name in {"val_bpb", "val_bpb_mean"}]
    found = list(runs.values())
    _link(found, stated)
    behind = [run for run in found if run.reported]
    if behind:
        return Evidence(found, papers, stated, behind, True)
    scored = [run for run in found if run.final is not None]
    return Evidence(found, papers, stated, scored, False)


def _evaluations(facts: list[Fact]) -> Iterator[Evaluation]:
    lines: dict[tuple[str, int], dict[str, Fact]] = {}
    for fact in facts:
        if fact.name in {"val_bpb", "val_loss", "eval_time_s"}:
            lines.setdefault((fact.path, fact.line), {})[fact.name] = fact
    for parts in lines.values():
        if "val_bpb" in parts:
            yield Evaluation(parts["val_bpb"], parts.get("val_loss"), parts.get("eval_time_s"))


def _link(runs: list[Run], stated: list[Fact]) -> None:
    """Fills ``reported``. The headline comes from metadata where it has one, else from the README."""
    headline = [f for f in stated if f.path.endswith(".json")] or stated
    usable = [f for f in headline if decimals(f.raw) >= 3 and not f.raw.startswith("~")]
    # Where the metadata gives one final score per seed, their other scores (sliding, pre-quant) are no headline.
    final = [
        f
        for f in usable
        if not _DIAGNOSTIC.search(f.label) and not re.search(r"sliding|round|quant", f.label)
    ]
    targets = [interval(f.raw, truncated=True) for f in final or usable]
    for run in runs:
        run.reported = [e for e in run.evaluations if any(_prints(e.bpb, t) for t in targets)]
    if any(run.reported for run in runs) or not targets:
        return
    # Only a mean is stated: which label's scores, averaged over the runs, give it?
    for label in dict.fromkeys(e.label for run in reversed(runs) for e in reversed(run.evaluations)):
        parts = [(run, e) for run in runs for e in run.evaluations if e.label == label]
        if 2 <= len(parts) <= 12:
            for size in range(min(len(parts), 6), 1, -1):
                for chosen in itertools.combinations(parts, size):
                    average = mean(interval(e.bpb.raw) for _, e in chosen)
                    if any(average.meets(t) for t in targets):
                        for run, e in chosen:
                            run.reported.append(e)
                        return


def _prints(bpb: Fact, target: Interval) -> bool:
    """Does the log's score round (or cut) to the stated one. Coarse log figures link nothing."""
    return decimals(bpb.raw) >= 3 and interval(bpb.raw).meets(target)
