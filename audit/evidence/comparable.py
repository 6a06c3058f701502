"""Which statements speak of the same thing, so that a difference between them is a contradiction.

Papers state a dozen scores of one model: before and after quantization, with and without adaptation, of a
control, of a second run, on a part of the set. Two figures are compared only if they have one *subject*: the
same object of the metadata and the same words beside those that every score has. What a paper says of other
runs, in a file of drafts or in a sentence about something else, is compared with nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from audit.evidence.digits import decimals, interval
from audit.evidence.runs import ASIDE, Evidence, Run
from audit.evidence.words import seed_of
from audit.model import Fact

#: label of a figure that a sentence mentions without stating it of the submission (`audit.evidence.readme`)
REMARK = "remark"
#: words that say no more than "the score", "the size", "one of the seeds"
_NEUTRAL = frozenset(
    "val validation bpb bpp bits per byte bytes score scores mean avg average std stdev sigma exact final official reported headline "
    "result results value values seed seeds run runs all each individual three n the our ours this submission overall total "
    "primary main metric metrics by of on 3 5 x artifact size mb mib max best".split()
)  # fmt: skip
#: lines; what a long README says further down is of earlier versions and other runs
HEAD = 120
_README = re.compile(r"readme(?:\.(?:md|markdown|rst|txt))?", re.I)
#: other texts that describe the submission's model, though their scores may be of any run
_DESCRIPTION = re.compile(r"(?:pr[_-]?)?(?:review|summary|description|body|submission|pr|pull[_-]request)\.md", re.I)
#: logs that their names, or their folders', set apart from the submission's own runs
_ASIDE = re.compile(
    ASIDE + r"|\b1x|reference|variant|prior|superseded|archive|explor|experiment|rerun|original|epochs?[_-]?\d|(?:^|[_/-])(?:old|exp|test|no)(?:$|[_/-])",
    re.I,
)

#: a folder of another record below this one
_RECORD = re.compile(r"(?:^|/)\d{4}-\d\d-\d\d[^/]*/")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a figure is of: ``place``, the keys of the object around it, and ``words`` that tell it from others there."""

    place: tuple[str, ...]
    words: frozenset[str]

    @property
    def plain(self) -> bool:
        """Is it the submission's own figure, without further qualification."""
        return not self.place and not self.words


def words_of(label: str) -> frozenset[str]:
    """The telling words of a label: ``Post-TTT val_bpb (mean)`` -> {post, ttt}; ``mean_of_seeds_42_314`` -> {42, 314}."""
    if seed_of(label) is not None:
        return frozenset()
    return frozenset(w for w in re.findall(r"[^\W\d_]+|\d+", label.lower()) if w not in _NEUTRAL)


def subject(fact: Fact) -> Subject | None:
    """The subject of one figure of a paper; None for one that the paper only mentions."""
    if fact.label == REMARK:
        return None
    if not fact.path.endswith(".json"):
        return Subject((), frozenset() if fact.label == "sentence" else words_of(fact.label))
    keys = fact.label.split(".")
    named = keys.pop()
    parts = [named]
    if keys and _of_one_seed(named):
        parts = [keys.pop()]  # {"val_bpb_seeds": {"1337": 1.02}}
    elif keys and _of_one_seed(keys[-1]):
        keys.pop()
        if keys:
            parts.append(keys.pop())  # {"ttt_results": {"1337": {"val_bpb": 1.02}}}
    while keys and not words_of(keys[-1]):
        keys.pop()
    words = frozenset().union(*map(words_of, parts))
    return Subject(tuple(keys), words - frozenset().union(*map(words_of, keys)))


def _of_one_seed(key: str) -> bool:
    return key.startswith("#") or seed_of(key) is not None


def plain(fact: Fact) -> bool:
    """Does a figure stand for the submission as such, or for one of its seeds."""
    found = subject(fact)
    return found is not None and found.plain


def own(found: Evidence, folder: str | None) -> Evidence:
    """What speaks of the submission itself: its metadata, its README and its own logs.

    ``folder``: the primary's; None leaves the README's place open.
    """
    papers = [f for f in found.papers if _own_paper(f, folder)]
    several = _of_several_runs(papers)
    papers = [f for f in papers if (f.path, f.scope) not in several]
    kept = {id(f) for f in papers}
    return replace(
        found,
        runs=[r for r in found.runs if _own_log(r, folder)],
        papers=papers,
        stated=[f for f in found.stated if id(f) in kept],
        behind=[r for r in found.behind if _own_log(r, folder)],
    )


def _of_several_runs(papers: list[Fact]) -> set[tuple[str, str]]:
    """README and seed of which it states one quantity twice, differently: it tells of several runs of that seed."""
    out: set[tuple[str, str]] = set()
    held: dict[tuple[str, str, str, Subject], Fact] = {}
    for fact in papers:
        about = subject(fact)
        if not fact.scope or fact.path.endswith(".json") or fact.name in {"seed", "bytes_total"} or about is None:
            continue
        first = held.setdefault((fact.path, fact.scope, fact.name, about), fact)
        if fact.line != first.line and abs(fact.value - first.value) > 2e-3 * abs(first.value):
            out.add((fact.path, fact.scope))
    return out


def tells_of(found: Evidence, fact: Fact, run: Run) -> bool:
    """Does the paper that states a seed's figure also state a score of that seed, or a mean, that this run printed."""
    spans = [interval(e.bpb.raw) for e in run.evaluations]
    own_scores = [f for f in found.stated if f.path == fact.path and f.scope == fact.scope and decimals(f.raw) >= 3]
    return not own_scores or any(interval(f.raw, truncated=True).meets(s) for f in own_scores for s in spans)


def _own_paper(fact: Fact, folder: str | None) -> bool:
    at, _, name = fact.path.rpartition("/")
    if fact.path.endswith(".json"):
        return True
    described = _README.fullmatch(name) or (fact.name.startswith("setting.") and _DESCRIPTION.fullmatch(name))
    return bool(described) and folder in (None, "", at) and fact.line <= HEAD


def _own_log(run: Run, folder: str | None) -> bool:
    path = run.path
    named = re.findall(r"seed[_-]?(\d+)", path.rpartition("/")[2], re.I)
    if named and run.seed is not None and str(run.seed) not in named:
        return False
    if folder and path.startswith(folder + "/"):
        path = path[len(folder) + 1 :]
    elif "/" in path:
        path = "/".join(PurePosixPath(path).parts[-2:])
    return not _ASIDE.search(path) and not _RECORD.search(path)


def by_paper(facts: Iterable[Fact]) -> dict[str, list[Fact]]:
    out: dict[str, list[Fact]] = {}
    for fact in facts:
        out.setdefault(fact.path, []).append(fact)
    return out
