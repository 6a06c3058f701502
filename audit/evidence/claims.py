"""Contradictions: one quantity stated differently in two places, and claims that arithmetic refutes.

Figures are compared as intervals of their printed digits, within one scope (a seed, or the whole
submission). Every contradiction names both places; none is resolved here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from audit.evidence.digits import Interval, decimals, interval, mean, sample_std, unit, value
from audit.evidence.runs import Evidence, Run
from audit.evidence.sizes import CAP, MIB_PER_MB, Size, run_total, stated_sizes
from audit.model import Fact

BUDGET_S = 600.0
#: bytes; two totals of one metadata file may be with and without the code
CODE = 200_000
#: how much of the budget a claim of "the full ten minutes" may leave unexplained
UNEXPLAINED = 0.05


@dataclass(frozen=True, slots=True)
class Contradiction:
    """``places`` are two or more; the first is where a finding points."""

    kind: str
    message: str
    places: tuple[Fact, ...]


def contradictions(found: Evidence, knobs: Any = None) -> list[Contradiction]:
    """All contradictions of one submission, each kind and pair of places once."""
    out: dict[tuple[str, tuple[tuple[str, int], ...]], Contradiction] = {}
    for item in (
        *_scores(found), *_spread(found), *_sizes(found), *_counts(found), *_settings(found, knobs),
        *_arithmetic(found), *_attestations(found),
    ):  # fmt: skip
        out.setdefault((item.kind, tuple((f.path, f.line) for f in item.places[:2])), item)
    return list(out.values())


def _at(fact: Fact) -> str:
    return f"{fact.path.rpartition('/')[2]}:{fact.line}"


def _span(fact: Fact) -> Interval:
    """What the figure can stand for; an approximate one gets two per cent more on either side."""
    if fact.name.startswith("bytes"):
        from audit.evidence.sizes import _as_bytes

        span = _as_bytes(fact)
    else:
        number = fact.raw.lstrip("~").split(" ")[0]
        scale = fact.value / value(number) if value(number) else 1.0
        span = interval(number, scale, truncated=True)
    return span.widened(0.02 * span.high) if fact.raw.startswith("~") else span


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


def _scores(found: Evidence) -> Iterator[Contradiction]:
    """Per seed: metadata against README, metadata against the seed's log. Headline against headline."""
    fine = [f for f in found.stated if decimals(f.raw) >= 3 and not f.raw.startswith("~")]
    for scope, facts in _by_scope(fine).items():
        meta = [f for f in _finals([f for f in facts if _is_json(f)])]
        prose = [f for f in facts if not _is_json(f)]
        if not scope:
            meta = [f for f in meta if f.label.count(".") == 0]
            prose = [f for f in prose if f.label == "sentence" or f.name == "val_bpb_mean"]
        if meta and prose and not any(_span(a).meets(_span(b)) for a in meta for b in prose):
            where = f" for {scope.replace(':', ' ')}" if scope else ""
            yield Contradiction(
                "score", f"the score{where} is {meta[0].raw} in {_at(meta[0])} and {prose[0].raw} in {_at(prose[0])}",
                (prose[0], meta[0]),
            )  # fmt: skip
        if scope:
            yield from _score_against_log(found, scope, meta or _finals(prose))


def _score_against_log(found: Evidence, scope: str, stated: list[Fact]) -> Iterator[Contradiction]:
    runs = [r for r in found.runs if f"seed:{r.seed}" == scope and r.final is not None]
    if not stated or not runs:
        return
    printed = [e.bpb for r in runs for e in r.evaluations]
    if any(_span(s).meets(interval(p.raw)) for s in stated for p in printed):
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
    """Mean and standard deviation recomputed from the seeds."""
    seeds = list(per_seed(found).values())
    if len(seeds) < 2 or len({_is_json(f) for f in seeds}) > 1:
        return
    source = seeds[0].path
    average = mean(interval(f.raw) for f in seeds)
    every = [interval(f.raw, truncated=True) for f in found.stated if f.scope]
    for fact in found.stated:
        if fact.scope or fact.path != source or _SIDE.search(fact.label) or decimals(fact.raw) < 3:
            continue
        span = interval(fact.raw, truncated=True).widened(unit(fact.raw) / 2)
        if fact.name == "val_bpb_mean" and _is_json(fact) is False and fact.label != "sentence":
            continue  # which column's mean it is was judged by its own rows
        if not span.meets(average) and not any(span.meets(e) for e in every):
            centre = (average.low + average.high) / 2
            yield Contradiction(
                "mean", f"{_at(fact)} states {fact.raw}; the {len(seeds)} seeds' mean is {centre:.6f} and none of them has it",
                (fact, *seeds[:3]),
            )  # fmt: skip
    if any(unit(f.raw) > 1.1e-4 for f in seeds):
        return
    sample, population = sample_std(f.value for f in seeds)
    slack = max(unit(f.raw) for f in seeds)
    for fact in found.papers:
        if (
            fact.name == "val_bpb_std"
            and not fact.scope
            and fact.path == source
            and not _SIDE.search(fact.label)
        ):
            if fact.label not in {"sentence"} and not _is_json(fact):
                continue
            span = interval(fact.raw, truncated=True).widened(slack + 0.03 * fact.value)
            if not any(span.low <= s <= span.high for s in (sample, population)) and fact.value < 0.5:
                yield Contradiction(
                    "std", f"{_at(fact)} states a deviation of {fact.raw}; the {len(seeds)} seeds give {sample:.6f} "
                    f"(n - 1) or {population:.6f} (n)", (fact, *seeds[:3]),
                )  # fmt: skip


def _sizes(found: Evidence) -> Iterator[Contradiction]:
    """Artifact sizes of one seed in two places, also where both are in one README."""
    stated = stated_sizes(found)
    by_scope: dict[str, list[Size]] = {}
    for size in stated:
        if size.fact.scope:
            by_scope.setdefault(size.fact.scope, []).append(size)
    for scope, sizes in by_scope.items():
        first = sizes[0]
        for other in sizes[1:]:
            if first.fact.path == other.fact.path and first.fact.line == other.fact.line:
                continue  # two columns of one row: with and without the code
            slack = CODE if _is_json(first.fact) and first.fact.path == other.fact.path else 1000
            if not first.total.widened(slack).meets(other.total):
                as_mib = Interval(first.total.low * MIB_PER_MB, first.total.high * MIB_PER_MB)
                hint = ", the same bytes in MiB and MB" if as_mib.meets(other.total) else ""
                over = next((f", {s.fact.raw} is over the cap" for s in (first, other) if s.over), "")
                yield Contradiction(
                    "size", f"the artifact of {scope.replace(':', ' ')} has {first.fact.raw} in {_at(first.fact)} and "
                    f"{other.fact.raw} in {_at(other.fact)}{hint}{over}", (other.fact, first.fact),
                )  # fmt: skip
                break
        for run in found.behind:
            if f"seed:{run.seed}" != scope or (printed := run_total(run, None)) is None:
                continue
            code = max((float(f.value) for f in run.named("bytes_code")), default=0.0) + 2000
            if not any(s.total.widened(code).meets(printed.total) for s in sizes):
                yield Contradiction(
                    "size", f"the artifact of {scope.replace(':', ' ')} has {first.fact.raw} in {_at(first.fact)}; its log "
                    f"prints {printed.total.low:,.0f} bytes", (first.fact, printed.fact),
                )  # fmt: skip


#: quantity -> how far two figures of it may differ (relative)
_COUNTED = {"steps": 0.01, "train_time_s": 0.02, "val_tokens": 0.001}


def _counts(found: Evidence) -> Iterator[Contradiction]:
    """Steps, seconds and tokens per seed: papers against papers and against the seed's log."""
    for name, slack in _COUNTED.items():
        for scope, facts in _by_scope(f for f in found.papers if f.name == name).items():
            facts = [f for f in facts if " " in f.raw or name != "train_time_s" or f.value > 100]
            if name == "steps" and not scope:  # iterations that were configured, not taken
                facts = [f for f in facts if int(f.value) % 500]
            if not facts:
                continue
            first = facts[0]
            for other in facts[1:]:
                if other.path != first.path and not _span(first).widened(slack * first.value).meets(
                    _span(other)
                ):
                    yield Contradiction(
                        name, f"{_word(name)}{' of ' + scope.replace(':', ' ') if scope else ''}: {first.raw} in {_at(first)}, "
                        f"{other.raw} in {_at(other)}", (other, first),
                    )  # fmt: skip
                    break
            runs = [r for r in found.behind if scope and f"seed:{r.seed}" == scope and r.link == "score"]
            printed = [
                f for r in runs for f in (r.last(name), r.last("last_step") if name == "steps" else None) if f
            ]
            if printed and not any(
                _span(f).widened(slack * f.value).meets(_span(p)) for f in facts for p in printed
            ):
                yield Contradiction(
                    name, f"{_word(name)} of {scope.replace(':', ' ')}: {first.value:,g} in {_at(first)}, {printed[0].value:,g} in its "
                    f"log ({_at(printed[0])})", (first, printed[0]),
                )  # fmt: skip
    yield from _parameters(found)


def _parameters(found: Evidence) -> Iterator[Contradiction]:
    """The model's size in parameters; a part's own count (less than half) is no statement about the whole."""
    stated = [f for f in found.papers if f.name == "model_params"]
    printed = [f for r in found.behind for f in r.named("model_params")][:1]
    for i, one in enumerate(stated):
        for other in (*printed, *stated[:i]):
            near = 0.5 < one.value / other.value < 2
            rounded = interval(one.raw.lstrip("~").split(" ")[0], 1e6 if one.raw.endswith("M") else 1.0)
            if near and not rounded.widened(0.01 * one.value).meets(_span(other)):
                yield Contradiction(
                    "parameters",
                    f"{one.raw} parameters in {_at(one)}, {other.raw} in {_at(other)}",
                    (one, other),
                )
                return


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
    """Settings: two papers, two places of one paper, papers against the log's dump or the code's default."""
    for name, word in _WORDS.items():
        stated = [f for f in found.papers if f.name == name]
        if not stated:
            continue
        first = stated[0]
        if name == "setting.weight_bits" and len({f.value for f in stated if f.path == first.path}) > 1:
            continue  # mixed widths
        for other in stated[1:]:
            if float(other.value) != float(first.value) and (
                name != "setting.num_layers" or other.path != first.path
            ):
                yield Contradiction(
                    word, f"{word}: {first.raw} in {_at(first)}, {other.raw} in {_at(other)}", (other, first)
                )
                break
        yield from _against_code(name, word, first, found.behind, knobs)


def _against_code(name: str, word: str, stated: Fact, runs: list[Run], knobs: Any) -> Iterator[Contradiction]:
    knob = name.removeprefix("setting.").upper()
    if knob not in {"NUM_LAYERS", "MODEL_DIM", "VOCAB_SIZE", "NUM_HEADS", "NUM_KV_HEADS"}:
        return
    for run in runs:
        dumped = run.last(f"knob.{knob}")
        if dumped is not None and _number(dumped.value) not in {None, float(stated.value)}:
            yield Contradiction(
                word, f"{word}: {stated.raw} in {_at(stated)}, {dumped.value} in the log's settings ({_at(dumped)})",
                (stated, dumped),
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
    times = [f for f in found.papers if f.name == "train_time_s"]
    for scope, steps in _by_scope(f for f in found.papers if f.name == "steps").items():
        for pace in (f for f in found.papers if f.name == "step_avg_ms" and f.scope == scope):
            same = [s for s in steps if s.path == pace.path]
            if not same:
                continue
            product = _span(same[0]) * _span(pace) * 1e-3
            stated = [t for t in times if t.path == pace.path and t.scope in {scope, ""} and t.value >= 60]
            budget = float(stated[0].value) if stated else BUDGET_S
            off = not product.meets(Interval(budget * (1 - UNEXPLAINED), budget * (1 + UNEXPLAINED)))
            # Without a stated time only a run that nearly fills the ten minutes can be meant to fill them.
            plain = 0.7 * BUDGET_S < product.low < 1.3 * BUDGET_S and int(same[0].value) % 100
            if off and (stated or plain):
                centre = same[0].value * pace.value * 1e-3
                yield Contradiction(
                    "arithmetic",
                    f"{same[0].raw.lstrip('~')} steps x {pace.raw.lstrip('~')} = {centre:.0f} s of "
                    f"{'the stated' if stated else 'a budget of'} {budget:.0f} s ({_at(pace)})",
                    (pace, same[0]),
                )
                break


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
                f for f in found.papers if f.name == name and f.value > limit and not f.raw.startswith("~")
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
