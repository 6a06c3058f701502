"""What a record needs beside being legal: three seeds of one configuration, a complete package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from audit.evidence.runs import Evidence, Run
from audit.model import Fact
from audit.wording import counted

SEEDS = 3
#: settings that may differ between seeds of one configuration
_FREE = re.compile(
    r"SEED|RUN_ID|LOG|PATH|DIR|FILE|NAME|OUT|TOKENIZER_META|RANK|PORT|HOST|DEVICE|DISTRIBUTED|SAVE|CHECKPOINT|CKPT|WANDB|PREFIX",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that is missing or does not fit, with the fact that shows it (None: nothing to point at)."""

    message: str
    fact: Fact | None = None
    other: Fact | None = None


def seeds_of(evidence: Evidence) -> dict[int | str, Run]:
    """Seed -> the run behind the score; a run whose log names no seed counts under its own path."""
    found: dict[int | str, Run] = {}
    for run in evidence.behind:
        if run.link or not evidence.stated:
            found.setdefault(run.seed if run.seed is not None else run.path, run)
    return found


def seed_gaps(evidence: Evidence) -> Iterator[Gap]:
    """Too few seeds, seeds of different configurations, on other machines, or with unlogged scores."""
    runs = seeds_of(evidence)
    if len(runs) < SEEDS:
        names = ", ".join(str(s) for s in runs) or "none"
        fact = next(iter(runs.values())).facts[0] if runs else None
        yield Gap(f"{len(runs)} of {SEEDS} seeds have a log behind the reported score ({names})", fact)
    yield from _configurations(list(runs.values()))
    for run in runs.values():
        gpus = run.last("world_size")
        if gpus is not None and int(gpus.value) != 8:
            yield Gap(f"the run of seed {run.seed} used {counted(int(gpus.value), 'GPU')} and not 8", gpus)
            break
    if runs and all(run.link == "seed" for run in runs.values()):
        first = evidence.stated[0] if evidence.stated else None
        yield Gap("no log prints a score that the papers state", first)


def _configurations(runs: list[Run]) -> Iterator[Gap]:
    """Settings that differ between the seeds, from the dumps in their logs."""
    dumps = [
        {f.name: f for f in run.facts if f.name.startswith("knob.") and not _FREE.search(f.name)}
        for run in runs
    ]
    dumps = [d for d in dumps if d]
    if len(dumps) < 2:
        yield from _structure(runs)
        return
    first = dumps[0]
    for other in dumps[1:]:
        differing = sorted(k for k in first.keys() & other.keys() if first[k].value != other[k].value)
        if differing:
            key = differing[0]
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            yield Gap(
                f"the seeds are of different configurations: {key.removeprefix('knob.')} is {first[key].value} and "
                f"{other[key].value}{more}", other[key], first[key],
            )  # fmt: skip
            return
    yield from _structure(runs)


def _structure(runs: list[Run]) -> Iterator[Gap]:
    """Parameters and data must agree, with or without a dump."""
    for name, word in (
        ("model_params", "parameters"),
        ("val_tokens", "validation tokens"),
        ("train_shards", "training shards"),
    ):
        values = {run.last(name).value: run.last(name) for run in runs if run.last(name) is not None}  # type: ignore[union-attr]
        if len(values) > 1:
            (a, first), (b, second) = list(values.items())[:2]
            yield Gap(f"the seeds are of different configurations: {a:,} and {b:,} {word}", second, first)
            return


def package_gaps(paths: list[str], folder: str, facts: list[Fact], has_log: bool) -> Iterator[Gap]:
    """What the records folder lacks: README, metadata with its fields, logs, its place."""
    here = (
        [p for p in paths if p.rpartition("/")[0] == folder or p.startswith(folder + "/")]
        if folder
        else paths
    )
    names = {p.rpartition("/")[2].lower() for p in here}
    if not any(n.startswith("readme") for n in names):
        yield Gap("no README")
    if "submission.json" not in names:
        yield Gap("no submission.json")
    else:
        broken = next((f for f in facts if f.name == "json_error"), None)
        if broken is not None:
            yield Gap(f"submission.json is not valid JSON ({broken.value})", broken)
        if broken is None:
            yield from _fields([f for f in facts if f.path.lower().endswith("submission.json")])
    if not has_log:
        yield Gap("no log of a run")


def _fields(meta: list[Fact]) -> Iterator[Gap]:
    """Author, name and score, under whichever name people state them; a score that is none is told as such."""
    held = {n: [f for f in meta if f.name in {n, f"field.{n}"}] for n in ("author", "name", "val_bpb")}
    scored = any(f.name in {"val_bpb", "val_bpb_mean"} for f in meta)
    absent = [n for n, facts in held.items() if not any(map(_filled, facts)) and not (n == "val_bpb" and (scored or facts))]
    if absent:
        yield Gap(f"submission.json does not state {', '.join(absent)}", min(meta, key=lambda f: f.line, default=None))
    scores = held["val_bpb"]
    if scores and not scored and not any(map(_plausible, scores)):
        first = scores[0]
        number = re.fullmatch(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", str(first.value))
        what = "no plausible score" if number else "no score"
        yield Gap(f"{first.label} {first.raw} in submission.json is {what}", first)


def _filled(fact: Fact) -> bool:
    return str(fact.value).strip().lower() not in {"", "null", "none"}


def _plausible(fact: Fact) -> bool:
    """Is it a number of bits that a byte can take."""
    try:
        return 1e-4 <= float(str(fact.value)) <= 20
    except ValueError:
        return False
