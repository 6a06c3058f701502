"""Contradictions: one quantity stated differently in two places, and claims that arithmetic refutes.

Figures are compared as intervals of their printed digits, within one scope (a seed, or the whole
submission). Every contradiction names both places; none is resolved here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from audit.evidence.comparable import Subject, by_paper, own, plain, subject, tells_of
from audit.evidence.digits import Interval, decimals, interval, mean, sample_std, unit, value
from audit.evidence.runs import Evidence, Run
from audit.evidence.sizes import CAP, MIB_PER_MB, Size, _as_bytes, mebibytes, run_total, stated_sizes
from audit.evidence.words import seed_of
from audit.model import Fact

BUDGET_S = 600.0
#: bytes; two totals of one artifact may be with and without the code
CODE = 100_000
#: bits per byte; a mean that is off by less was taken from rounded scores
ROUNDING = 1e-5
#: how much of the budget a claim of "the full ten minutes" may leave unexplained
UNEXPLAINED = 0.05


Prints = Callable[[Interval, str], bool]


def _unread(wanted: Interval, path: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Contradiction:
    """``places`` are two or more; the first is where a finding points."""

    kind: str
    message: str
    places: tuple[Fact, ...]


def contradictions(
    found: Evidence, knobs: Any = None, folder: str | None = None, prints: Prints = _unread
) -> list[Contradiction]:
    """All contradictions of one submission, each kind and pair of places once.

    ``folder``: of its primary script. ``prints``: does a file, or any log where none is named, hold such a
    number anywhere, also in a line that is not understood.
    """
    out: dict[tuple[str, tuple[tuple[str, int], ...]], Contradiction] = {}
    whole, found = found, own(found, folder)
    for item in (
        *_scores(found, whole, prints), *_spread(found), *_sizes(found, prints), *_counts(found), *_settings(found, knobs),
        *_arithmetic(found), *_attestations(found),
    ):  # fmt: skip
        out.setdefault((item.kind, tuple((f.path, f.line) for f in item.places[:2])), item)
    return list(out.values())


def _at(fact: Fact) -> str:
    return f"{fact.path.rpartition('/')[2]}:{fact.line}"


def _span(fact: Fact) -> Interval:
    """What the figure can stand for; an approximate one gets five per cent more on either side."""
    if fact.name.startswith("bytes"):
        span = _as_bytes(fact)
    else:
        number = fact.raw.lstrip("~").split(" ")[0]
        scale = fact.value / value(number) if value(number) else 1.0
        span = interval(number, scale, truncated=True)
    return span.widened(0.05 * span.high) if fact.raw.startswith("~") else span


def _is_json(fact: Fact) -> bool:
    return fact.path.endswith(".json")


def _by_scope(facts: Iterable[Fact]) -> dict[str, list[Fact]]:
    out: dict[str, list[Fact]] = {}
    for fact in facts:
        out.setdefault(fact.scope, []).append(fact)
    return out


_SIDE = re.compile(r"pre|quant|sliding|round|ema|swa|neural|diagnostic|raw|int\d|best|single|no[_ ]ttt", re.I)


def _finals(facts: list[Fact]) -> list[Fact]:
    return [f for f in facts if not _SIDE.search(f.label)] or facts


def _meet(some: Iterable[Fact], others: Iterable[Fact]) -> bool:
    """Is there one figure of each side that may be the same number."""
    spans = [_span(f) for f in others]
    return any(_span(f).meets(s) for f in some for s in spans)


def _scores(found: Evidence, whole: Evidence, prints: Prints) -> Iterator[Contradiction]:
    """Per seed: metadata against README, metadata against the seed's log. Headline against headline.

    Only the scores that carry no qualification are held against each other, and only where neither paper
    states the other's figure anywhere: under another name, or of one of the seeds.
    """
    fine = [f for f in found.stated if decimals(f.raw) >= 3 and not f.raw.startswith("~")]
    for scope, facts in _by_scope(fine).items():
        meta = [f for f in facts if _is_json(f) and plain(f)]
        prose = [f for f in facts if not _is_json(f) and plain(f)]
        if not scope:
            prose = [f for f in prose if f.label == "sentence" or f.name == "val_bpb_mean"]
        if meta and prose:
            near = fine if not scope else facts
            told = _meet(meta, (f for f in near if not _is_json(f))) or _meet(prose, (f for f in near if _is_json(f)))
            if not told and not prints(_span(meta[0]), prose[0].path) and not prints(_span(prose[0]), meta[0].path):
                where = f" for {scope.replace(':', ' ')}" if scope else ""
                yield Contradiction(
                    "score", f"the score{where} is {meta[0].raw} in {_at(meta[0])} and {prose[0].raw} in {_at(prose[0])}",
                    (prose[0], meta[0]),
                )  # fmt: skip
        if scope:
            stated = meta or prose
            for item in _score_against_log(found, whole, scope, stated):
                if not any(prints(_span(f).widened(ROUNDING), "") for f in stated):
                    yield item


def _score_against_log(found: Evidence, whole: Evidence, scope: str, stated: list[Fact]) -> Iterator[Contradiction]:
    """A seed's score that no log prints, beside the log of that seed, which ends in another one."""
    runs = [r for r in found.runs if f"seed:{r.seed}" == scope and r.final is not None]
    if not stated or not runs:
        return
    printed = [f for r in whole.runs for f in r.facts if f.name.endswith("bpb") and decimals(f.raw) >= 3]
    if any(_span(s).widened(ROUNDING).meets(interval(p.raw)) for s in stated for p in printed):
        return
    final = runs[-1].final
    assert final is not None
    yield Contradiction(
        "score", f"{_at(stated[0])} states {stated[0].raw} for {scope.replace(':', ' ')}; its log prints "
        f"{final.bpb.raw} ({final.label}) and no such score", (stated[0], final.bpb),
    )  # fmt: skip


def per_seed(found: Evidence) -> dict[str, Fact]:
    """Each seed's final score: from metadata where that has it, else from the README's last score column."""
    out: dict[str, Fact] = {}
    for scope, facts in _by_scope(f for f in found.stated if f.scope and decimals(f.raw) >= 3).items():
        meta = _finals([f for f in facts if _is_json(f)])
        prose = [f for f in facts if not _is_json(f)]
        if meta:
            out[scope] = meta[0]
        elif prose:
            out[scope] = _finals(prose)[-1]
    return out


def _spread(found: Evidence) -> Iterator[Contradiction]:
    """Mean and standard deviation recomputed from the seeds that have the same subject in the same paper.

    Where no seed has it nothing is said: the seeds that are stated are of another evaluation then.
    """
    groups: dict[tuple[str, Subject], dict[str, list[Fact]]] = {}
    for fact in found.stated:
        about = subject(fact)
        if fact.scope and about is not None and decimals(fact.raw) >= 3 and not fact.raw.startswith("~"):
            groups.setdefault((fact.path, about), {}).setdefault(fact.scope, []).append(fact)
    every: dict[str, list[Interval]] = {}
    for fact in found.stated:
        every.setdefault(fact.path, []).extend([interval(fact.raw, truncated=True)] if fact.scope else [])
    for fact in found.papers:
        about = subject(fact)
        if fact.scope or about is None or decimals(fact.raw) < 3:
            continue
        by_seed = groups.get((fact.path, about), {})
        if len(by_seed) < 2 or any(len(fs) > 1 for fs in by_seed.values()):
            continue  # no seeds to recompute it from, or two figures of one seed
        seeds = [fs[0] for fs in by_seed.values()]
        if _is_json(fact) and _more_runs(seeds[0], found.stated):
            continue
        if not _is_json(fact) and fact.label != "sentence":
            continue  # a table's own row
        if fact.name in {"val_bpb", "val_bpb_mean"} and (_is_json(fact) or fact.name == "val_bpb_mean"):
            others = [[fs[0] for fs in g.values()] for (path, s), g in groups.items() if path == fact.path and s != about]
            yield from _mean_of(fact, seeds, every[fact.path], others)
        elif fact.name == "val_bpb_std":
            yield from _deviation_of(fact, seeds)


def _more_runs(seed: Fact, stated: list[Fact]) -> bool:
    """Does the object of the seeds hold runs whose keys are no seeds ("2024_5pct"): the mean may be of those as well."""
    keys = seed.label.split(".")
    at = next((i for i in range(len(keys) - 1, 0, -1) if f"seed:{seed_of(keys[i])}" == seed.scope), 0)
    around = ".".join(keys[:at]) + "."
    return at > 0 and any(not f.scope and f.path == seed.path and f.label.startswith(around) and f.label.count(".") > at for f in stated)


def _mean_of(fact: Fact, seeds: list[Fact], every: list[Interval], others: list[list[Fact]]) -> Iterator[Contradiction]:
    """``every``: all single scores of the paper. ``others``: the seeds' other scores, whose mean it may be under a plain name."""
    average = mean(interval(f.raw) for f in seeds)
    printed = _shorn(fact.raw)
    span = interval(printed, truncated=True).widened(max(unit(printed) / 2, ROUNDING))
    if span.meets(average) or any(span.meets(e) for e in every):
        return
    if any(span.meets(mean(interval(f.raw) for f in other)) for other in others):
        return
    centre = (average.low + average.high) / 2
    yield Contradiction(
        "mean", f"{_at(fact)} states {fact.raw}; the {len(seeds)} seeds' mean is {centre:.6f} and none of them has it",
        (fact, *seeds[:3]),
    )  # fmt: skip


def _shorn(raw: str) -> str:
    """Without the zeros at its end: "0.00060" was rounded to one digit, whatever they say."""
    return raw.rstrip("0") if "." in raw and "e" not in raw.lower() else raw


def _deviation_of(fact: Fact, seeds: list[Fact]) -> Iterator[Contradiction]:
    if any(unit(f.raw) > 1.1e-4 for f in seeds) or fact.value >= 0.5:
        return
    sample, population = sample_std(f.value for f in seeds)
    slack = max(unit(f.raw) for f in seeds)
    span = interval(_shorn(fact.raw), truncated=True).widened(slack + 0.05 * fact.value)
    if not any(span.low <= s <= span.high for s in (sample, population)):
        yield Contradiction(
            "std", f"{_at(fact)} states a deviation of {fact.raw}; the {len(seeds)} seeds give {sample:.6f} "
            f"(n - 1) or {population:.6f} (n)", (fact, *seeds[:3]),
        )  # fmt: skip


def _sizes(found: Evidence, prints: Prints) -> Iterator[Contradiction]:
    """Artifact sizes of one seed: in two papers, in MiB and MB within one, in a paper and the log behind the score.

    Totals may be with and without the code, so that what is no further apart than this is no contradiction.
    """
    codes = [float(f.value) for f in (*found.papers, *(f for r in found.runs for f in r.facts)) if f.name == "bytes_code"]
    code = max([CODE, *(c + 2000 for c in codes if c < 10 * CODE)])
    by_scope: dict[str, list[Size]] = {}
    for size in stated_sizes(found):
        if size.fact.scope and (not _is_json(size.fact) or plain(size.fact)):
            by_scope.setdefault(size.fact.scope, []).append(size)
    for scope, sizes in by_scope.items():
        word = scope.replace(":", " ")
        yield from _sizes_of_papers(word, sizes, code)
        for run in found.behind:
            if f"seed:{run.seed}" != scope or run.link != "score" or run_total(run, None) is None:
                continue
            sizes = [s for s in sizes if plain(s.fact) and tells_of(found, s.fact, run)]
            totals = [_total(f) for f in run.named("bytes_total")]
            known = [s for other, ss in by_scope.items() for s in ss if other != scope]
            if any(s.total.widened(1000).meets(t) for s in known for t in totals):
                continue  # another seed's, so that one of the two names the wrong seed
            if not sizes or any(_same_size(s.total, t, code) for s in sizes for t in totals):
                continue
            if not any(prints(s.total, "") for s in sizes if s.total.high - s.total.low < 2):
                first, printed = sizes[0], run_total(run, None)
                assert printed is not None
                yield Contradiction(
                    "size", f"the artifact of {word} has {first.fact.raw} in {_at(first.fact)}; its log prints "
                    f"{printed.fact.raw.removesuffix(' bytes')}{_unit_of(printed.fact)}", (first.fact, printed.fact),
                )  # fmt: skip


def _total(fact: Fact) -> Interval:
    return _as_bytes(fact) if " " in fact.raw else Interval(float(fact.value), float(fact.value))


def _unit_of(fact: Fact) -> str:
    return "" if re.search(r"[MK]i?B$", fact.raw) else " bytes"


def _same_size(one: Interval, other: Interval, code: float) -> bool:
    """May two totals be the same artifact: with or without the code, in MB or in MiB that are called MB."""
    scaled = (
        other,
        Interval(other.low * MIB_PER_MB, other.high * MIB_PER_MB),
        Interval(other.low / MIB_PER_MB, other.high / MIB_PER_MB),
    )
    return any(one.widened(code).meets(s) for s in scaled)


def _sizes_of_papers(word: str, sizes: list[Size], code: float) -> Iterator[Contradiction]:
    for small, exact in mebibytes(sizes):
        over = next((f", {s.fact.raw} is over the cap" for s in (small, exact) if s.over), "")
        yield Contradiction(
            "size", f"the artifact of {word} has {small.fact.raw} in {_at(small.fact)} and {exact.fact.raw} in "
            f"{_at(exact.fact)}, the same bytes in MiB and MB{over}", (exact.fact, small.fact),
        )  # fmt: skip
        return
    meta = [s for s in sizes if _is_json(s.fact)]
    prose = [s for s in sizes if not _is_json(s.fact)]
    if meta and prose and not any(m.total.widened(code).meets(p.total) for m in meta for p in prose):
        over = next((f", {s.fact.raw} is over the cap" for s in (meta[0], prose[0]) if s.over), "")
        yield Contradiction(
            "size", f"the artifact of {word} has {meta[0].fact.raw} in {_at(meta[0].fact)} and {prose[0].fact.raw} in "
            f"{_at(prose[0].fact)}{over}", (prose[0].fact, meta[0].fact),
        )  # fmt: skip


#: quantity -> how far two figures of it may differ (relative)
_COUNTED = {"steps": 0.01, "train_time_s": 0.02, "val_tokens": 0.001}


def _counts(found: Evidence) -> Iterator[Contradiction]:
    """Steps and seconds of one seed: metadata against README and against the log behind the score; tokens also of all seeds.

    A count that is stated of no seed may be of any run, and a budget in round figures is no measurement.
    """
    for name, slack in _COUNTED.items():
        stated = (f for f in found.papers if f.name == name and plain_count(f))
        for scope, facts in _by_scope(stated).items():
            if not scope and name != "val_tokens":
                continue
            facts = [f for f in facts if name != "train_time_s" or (f.value > 100 and f.value % 60)]
            meta, prose = [f for f in facts if _is_json(f)], [f for f in facts if not _is_json(f)]
            apart = [
                (a, b) for a in meta for b in prose if not _span(a).widened(slack * a.value).meets(_span(b))
            ]
            if apart and len(apart) == len(meta) * len(prose):
                first, other = apart[0]
                yield Contradiction(
                    name, f"{_word(name)}{' of ' + scope.replace(':', ' ') if scope else ''}: {first.raw} in {_at(first)}, "
                    f"{other.raw} in {_at(other)}", (other, first),
                )  # fmt: skip
            runs = [r for r in found.behind if scope and f"seed:{r.seed}" == scope and r.link == "score"]
            facts = [f for f in facts if all(tells_of(found, f, r) for r in runs)]
            printed = [f for r in runs for n in _PRINTED.get(name, (name,)) for f in r.named(n) if f.value > 0]
            if facts and printed and not any(
                _span(f).widened(slack * f.value).meets(_span(p)) for f in facts for p in printed
            ):
                first = facts[0]
                yield Contradiction(
                    name, f"{_word(name)} of {scope.replace(':', ' ')}: {first.value:,g} in {_at(first)}, {printed[0].value:,g} in its "
                    f"log ({_at(printed[0])})", (first, printed[0]),
                )  # fmt: skip
    yield from _parameters(found)


#: under which names a log states a count
_PRINTED = {"steps": ("steps", "last_step"), "train_time_s": ("train_time_s", "last_train_time_s")}


def plain_count(fact: Fact) -> bool:
    """Is a count stated of the submission or its seed: in a table or the metadata, and not in passing."""
    about = subject(fact)
    return about is not None and fact.label != "sentence" and not about.place


def _parameters(found: Evidence) -> Iterator[Contradiction]:
    """The model's size in parameters; a part's own count (less than half) is no statement about the whole."""
    stated = [f for f in found.papers if f.name == "model_params" and (s := subject(f)) is not None and not s.place]
    printed = [f for r in found.behind for f in r.named("model_params")]
    papers = list(by_paper(stated).values())
    pairs = [(mine, other) for i, mine in enumerate(papers) for other in (printed, *papers[:i]) if other]
    for mine, other in pairs:
        near = all(0.5 < a.value / b.value < 2 for a in mine for b in other)
        if near and not any(_parameter_span(a).meets(_parameter_span(b)) for a in mine for b in other):
            one, another = mine[0], other[0]
            yield Contradiction(
                "parameters", f"{one.raw} parameters in {_at(one)}, {another.raw} in {_at(another)}", (one, another)
            )
            return


def _parameter_span(fact: Fact) -> Interval:
    """What a count of parameters can stand for: with or without the small ones, and roughly where it says so."""
    rounded = interval(fact.raw.lstrip("~").split(" ")[0], 1e6 if fact.raw.endswith("M") else 1.0)
    if fact.raw.endswith(" K"):
        rounded = interval(fact.raw.lstrip("~").split(" ")[0], 1e3)
    return rounded.widened((0.05 if fact.raw.startswith("~") else 0.01) * float(fact.value))


def _word(name: str) -> str:
    return {
        "steps": "training steps",
        "train_time_s": "training time",
        "val_tokens": "validation tokens",
    }.get(name, name)


_WORDS = {
    "setting.prune_percent": "pruning", "setting.weight_bits": "weight width", "setting.num_layers": "layers",
    "setting.model_dim": "width", "setting.vocab_size": "vocabulary", "setting.mlp_mult": "MLP factor",
    "setting.num_heads": "heads", "setting.num_kv_heads": "key/value heads",
}  # fmt: skip


def _settings(found: Evidence, knobs: Any) -> Iterator[Contradiction]:
    """Settings: two papers, two places of one paper (pruning), papers against the log's dump or the code's default.

    A paper that states two values of a setting speaks of two models or of two parts of one.
    """
    for name, word in _WORDS.items():
        stated = [f for f in found.papers if f.name == name and (s := subject(f)) is not None and not s.place]
        papers = list(by_paper(stated).values())
        if name == "setting.prune_percent":
            papers = [[f] for f in stated]
        sure = [facts[0] for facts in papers if len({float(f.value) for f in facts}) == 1]
        if not sure or len(sure) < len(papers):
            continue
        first = sure[0]
        for other in sure[1:]:
            if float(other.value) != float(first.value):
                yield Contradiction(
                    word, f"{word}: {first.raw} in {_at(first)}, {other.raw} in {_at(other)}", (other, first)
                )
                break
        yield from _against_code(name, word, first, found.behind, knobs)


def _against_code(name: str, word: str, stated: Fact, runs: list[Run], knobs: Any) -> Iterator[Contradiction]:
    knob = name.removeprefix("setting.").upper()
    if knob not in {"NUM_LAYERS", "MODEL_DIM", "VOCAB_SIZE", "NUM_HEADS", "NUM_KV_HEADS"}:
        return
    dumped = [f for run in runs if (f := run.last(f"knob.{knob}")) is not None and _number(f.value) is not None]
    if dumped:
        if all(_number(f.value) != float(stated.value) for f in dumped):
            yield Contradiction(
                word, f"{word}: {stated.raw} in {_at(stated)}, {dumped[0].value} in the log's settings ({_at(dumped[0])})",
                (stated, dumped[0]),
            )  # fmt: skip
        return
    held = knobs.lookup(knob) if knobs is not None else None
    if held is None or getattr(held, "ambiguous", False):
        return
    number = _number(held.value)
    if (
        number is not None
        and number != float(stated.value)
        and held.source in {"command", "default", "wrapper"}
    ):
        place = Fact(
            name=f"knob.{knob}",
            value=held.value,
            path=held.path or stated.path,
            line=held.line or 1,
            raw=str(held.value),
        )
        yield Contradiction(
            word,
            f"{word}: {stated.raw} in {_at(stated)}, {held.value} by {held.source} ({_at(place)})",
            (stated, place),
        )


def _number(text: Any) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None


def _arithmetic(found: Evidence) -> Iterator[Contradiction]:
    """Claims that their own figures refute: speed-ups, and steps x milliseconds against the budget."""
    for claim in found.paper("claim.more_steps"):
        fast, slow, percent = (part for part in re.findall(r"\d+(?:\.\d+)?", claim.raw))
        more = interval(slow) / interval(fast)
        low, high = 100 * (more.low - 1), 100 * (more.high - 1)
        if not interval(percent).widened(0.5).meets(Interval(low, high)):
            yield Contradiction(
                "arithmetic", f"{_at(claim)} claims {percent} % more steps; {slow} ms / {fast} ms - 1 = "
                f"{100 * (float(slow) / float(fast) - 1):.0f} %", (claim, claim),
            )  # fmt: skip
    for pace in (f for f in found.papers if f.name == "step_avg_ms"):
        steps = next((f for f in found.papers if f.name == "steps" and _beside(f, pace)), None)
        if steps is not None:
            times = [f for f in found.papers if f.name == "train_time_s" and _beside(f, pace) and f.value >= 60]
            yield from _budget_of(steps, pace, times[0] if times else None)


def _beside(one: Fact, other: Fact) -> bool:
    """Do two figures stand together: in one line, or in one object of the metadata."""
    if one.path != other.path or one.scope != other.scope:
        return False
    if _is_json(one):
        return one.label.rpartition(".")[0] == other.label.rpartition(".")[0]
    return one.line == other.line


def _budget_of(steps: Fact, pace: Fact, time: Fact | None) -> Iterator[Contradiction]:
    """Steps times milliseconds against the stated time, or against the ten minutes.

    Less contradicts nothing: runs hold time back for the quantization, and clocks run while nothing is trained.
    And a run that takes twice as long was not meant to keep to the ten minutes.
    """
    product = _span(steps) * _span(pace) * 1e-3
    budget = float(time.value) if time is not None and time.value != BUDGET_S else BUDGET_S
    plain = budget != BUDGET_S or (product.low < 1.3 * budget and int(steps.value) % 100)
    if plain and product.low > budget * (1 + UNEXPLAINED):
        yield Contradiction(
            "arithmetic",
            f"{steps.raw.lstrip('~')} steps x {pace.raw.lstrip('~')} = {steps.value * pace.value * 1e-3:.0f} s of "
            f"{'the stated' if time is not None else 'a budget of'} {budget:.0f} s ({_at(pace)})",
            (pace, steps),
        )


_ATTESTED = {
    "artifact_under_16mb": ("bytes_total", CAP, "bytes"),
    "train_under_600s": ("train_time_s", BUDGET_S + 0.5, "s"),
    "training_under_600s": ("train_time_s", BUDGET_S + 0.5, "s"),
    "eval_under_600s": ("total_eval_time_s", BUDGET_S + 0.5, "s"),
}


def _attestations(found: Evidence) -> Iterator[Contradiction]:
    """``compliance: {artifact_under_16mb: true}`` beside a figure that says otherwise."""
    for claim in (f for f in found.papers if f.name.startswith("claim.") and f.value is True):
        key = claim.name.removeprefix("claim.")
        if key in _ATTESTED:
            name, limit, word = _ATTESTED[key]
            figures = [
                f for f in found.papers if f.name == name and f.value > limit and not f.raw.startswith("~") and plain_count(f)
            ]
            figures += [
                f
                for r in found.behind
                if r.link
                for f in r.named(name)
                if f.value > limit and name != "bytes_total"
            ]
            if figures:
                yield Contradiction(
                    "attestation", f"{_at(claim)} attests {key}; {_at(figures[0])} states {figures[0].value:,.0f} {word}",
                    (claim, figures[0]),
                )  # fmt: skip
        if key in {"three_seeds", "three_seed"}:
            seeds = {f.scope for f in found.papers if f.scope.startswith("seed:")}
            seeds |= {f"seed:{r.seed}" for r in found.runs if r.seed is not None}
            if 0 < len(seeds) < 3:
                yield Contradiction(
                    "attestation",
                    f"{_at(claim)} attests {key}; the papers and logs show {len(seeds)} of 3 seeds",
                    (claim, claim),
                )
