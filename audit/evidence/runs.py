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
from typing import Literal

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


#: logs that their names set apart from the submission's own runs
ASIDE = r"baseline|control|ablat|repro|proxy|smoke|debug|sweep|local|probe|h200|a100|dry"
_ASIDE = re.compile(ASIDE + "|1x", re.I)

#: how a run is tied to the papers: by the *score* that it printed, by a *seed* that a paper names
#: and of which no log prints the stated score, or not at all
Link = Literal["score", "seed", ""]


@dataclass(slots=True)
class Run:
    """One training or evaluation run: the facts of one log, or of one part of it."""

    scope: str
    facts: list[Fact] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    #: the evaluations whose score the papers report; empty if none is
    reported: list[Evaluation] = field(default_factory=list)
    link: Link = ""

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

    ``stated``: scores that papers state for this submission. ``behind``: the runs that stand behind
    them; every run with a final score where nothing ties any of them to the headline.
    """

    runs: list[Run]
    papers: list[Fact]
    stated: list[Fact]
    behind: list[Run]

    @property
    def linked(self) -> Link:
        """How the best-tied run was found."""
        links = {run.link for run in self.behind}
        return "score" if "score" in links else "seed" if "seed" in links else ""

    def counts(self, scope: str) -> bool:
        """Does the stated score rest on this seed (``seed:42``): not on others where one run's score is stated and no mean."""
        if not scope or self.linked != "score" or any(f.name == "val_bpb_mean" for f in self.stated):
            return True
        return any(run.link == "score" and (run.seed is None or scope == f"seed:{run.seed}") for run in self.behind)

    def rests_on(self, run: Run) -> bool:
        """The same of a run; one that is not tied by its seed is no other seed's."""
        return run.link != "seed" or self.counts(f"seed:{run.seed}")

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
    seeds = {f.scope for f in papers if f.name in {"val_bpb", "seed"} and f.scope}
    covered = {run.seed for run in found if run.reported}
    for run in found:
        if run.reported:
            run.link = "score"
        elif run.final is not None and run.seed not in covered and f"seed:{run.seed}" in seeds:
            run.link = "" if _ASIDE.search(run.path.rpartition("/")[2]) else "seed"
    behind = [run for run in found if run.link]
    return Evidence(found, papers, stated, behind or [run for run in found if run.final is not None])


def _evaluations(facts: list[Fact]) -> Iterator[Evaluation]:
    lines: dict[tuple[str, int], dict[str, Fact]] = {}
    for fact in facts:
        if fact.name in {"val_bpb", "val_loss", "eval_time_s"}:
            lines.setdefault((fact.path, fact.line), {})[fact.name] = fact
    if not any("val_bpb" in parts for parts in lines.values()):
        # Nothing but the training loop's own validation: its last score is all the run has.
        for fact in facts:
            if fact.name in {"step_val_bpb", "step_val_loss"}:
                lines.setdefault((fact.path, fact.line), {})[fact.name.removeprefix("step_")] = fact
    for parts in lines.values():
        if "val_bpb" in parts:
            yield Evaluation(parts["val_bpb"], parts.get("val_loss"), parts.get("eval_time_s"))


def _usable(stated: list[Fact]) -> list[Fact]:
    """The headline comes from metadata where it has one, else from the README."""
    headline = [f for f in stated if f.path.endswith(".json")] or stated
    return [f for f in headline if decimals(f.raw) >= 3 and not f.raw.startswith("~")]


def headline(stated: list[Fact]) -> list[Interval]:
    """What the score that the papers put forward may be exactly."""
    return [interval(f.raw, truncated=True) for f in _finals(_usable(stated))]


def _link(runs: list[Run], stated: list[Fact]) -> None:
    """Fills ``reported``."""
    usable = _usable(stated)
    plain = [f for f in usable if not _DIAGNOSTIC.search(f.label)]
    others = [
        f
        for f in stated
        if decimals(f.raw) >= 3 and not _DIAGNOSTIC.search(f.label) and not f.raw.startswith("~")
    ]
    targets = headline(stated)
    if _reported(runs, targets) or (targets and _averaged(runs, targets)):
        return
    for wider in (plain, others):
        if _reported(runs, [interval(f.raw, truncated=True) for f in wider]):
            return


def _reported(runs: list[Run], targets: list[Interval]) -> bool:
    for run in runs:
        run.reported = [e for e in run.evaluations if any(prints(e.bpb, t) for t in targets)]
    return any(run.reported for run in runs)


def _averaged(runs: list[Run], targets: list[Interval]) -> bool:
    """Only a mean is stated: which label's scores, averaged over the runs, give it?"""
    fine = all(t.high - t.low < 1.6e-5 for t in targets)
    for label in dict.fromkeys(_kind(e) for run in reversed(runs) for e in reversed(run.evaluations)):
        once = {e.bpb.raw: (run, e) for run in runs for e in run.evaluations if _kind(e) == label}
        parts = list(once.values())
        if 2 <= len(parts) <= 12:
            for size in range(min(len(parts), 6), 1, -1):
                if size < len(parts) and not fine:
                    break  # some pair always averages to a coarse figure
                for chosen in itertools.combinations(parts, size):
                    average = mean(interval(e.bpb.raw) for _, e in chosen)
                    if any(average.meets(t) for t in targets):
                        for run, e in chosen:
                            run.reported.append(e)
                        return True
    return False


_HEADLINE = re.compile(
    r"(?:^|\.)(?:(?:mean|avg|final|best)_)?(?:val_)?bpb(?:_(?:\w*mean|avg|exact|final|seeds?|per_seed))?(?:\.[\w#]+)?$"
)


def _finals(stated: list[Fact]) -> list[Fact]:
    """Of several scores in one file (sliding, pre-quant, final) the one that is called just the score."""
    headline = [f for f in stated if _HEADLINE.search(f.label.lower())]
    if headline:
        return headline
    rest = [
        f
        for f in stated
        if not _DIAGNOSTIC.search(f.label) and not re.search(r"sliding|round|quant", f.label, re.I)
    ]
    return rest or stated


def _kind(evaluation: Evaluation) -> str:
    """The label without its numbers (``ppm_mix bytes=10982035``)."""
    return re.sub(r"[=:]?\d[\d.,]*", "", evaluation.label)


def prints(bpb: Fact, target: Interval) -> bool:
    """Does the log's score round (or cut) to the stated one. Coarse log figures link nothing."""
    return decimals(bpb.raw) >= 3 and interval(bpb.raw).meets(target)
