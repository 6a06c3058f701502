"""The log sides of rules whose other half reads source: M1, B3, B4, F1, F7.

Each takes the rule it speaks for and yields findings (basis ``log``) and at most one obligation,
and yields nothing but findings where the papers are silent, so that the source side can state it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from audit.evidence.identities import bytes_per_token, readings, tokenizer_of_ratio
from audit.evidence.runs import Evaluation, Evidence, Run
from audit.model import Fact, Finding, Obligation, Severity
from audit.rules.base import Rule
from audit.rules.papers import confidence_of, evidence, full_machine, non_record, paper_finding

#: seconds; both budgets
BUDGET = 600.0
#: accepted records stop up to this much late: the step in flight when the clock ran out
LATE = 0.5
#: and none of those whose Hessians ended after the clock did so by more than half of this
FAR = 15.0


def byte_accounting(rule: Rule, ctx: Any) -> Iterator[Finding | Obligation]:
    """M1 by arithmetic: the score was divided by more or fewer bytes than the full set has."""
    found = evidence(ctx)
    full = None
    for reading in readings(found):
        others = tuple(f for f in (reading.tokens, reading.evaluation.loss) if f is not None)
        if reading.kind == "bytes":
            yield paper_finding(
                rule,
                reading.evaluation.bpb,
                reading.message,
                confidence=confidence_of(found, reading.run),
                steps=others,
            )
        elif reading.kind == "full":
            full = full or reading
    if full is not None:
        yield Obligation(rule=rule.id, status="holds", reason=f"{full.run.path}: {full.message}")


def right_bytes(ctx: Any) -> str:
    """Where the papers give a loss and a score that have a known tokenizer's bytes per token between them; "" where none does."""
    found = evidence(ctx)
    stated = {(f.path, f.name, f.scope): f for f in reversed(found.papers) if f.name in {"val_bpb", "val_loss"} and f.path.endswith(".json")}
    pairs = [e for run in found.runs for e in run.evaluations]
    pairs += [Evaluation(f, stated.get((f.path, "val_loss", f.scope))) for (_, name, _), f in stated.items() if name == "val_bpb"]
    for e in pairs:
        ratio = bytes_per_token(e)
        if ratio is not None and (known := tokenizer_of_ratio(ratio)) is not None and known.ratio > 1:
            return f"{e.bpb.path}:{e.bpb.line} has the {known.ratio} bytes a token of {known.name}"
    return ""


def train_time(rule: Rule, ctx: Any) -> Iterator[Finding | Obligation]:
    """B3 by the clock that the logs print, for runs on eight GPUs behind the score."""
    found = evidence(ctx)
    if non_record(ctx):
        return
    shown: Fact | None = None
    slowest: tuple[Fact, Fact, Run] | None = None
    other: Run | None = None
    late_runs = False
    for run in found.behind:
        clock = run.last("train_time_s") or run.last("last_train_time_s")
        if clock is None:
            continue
        if full_machine(run) is False:
            other = other or run
            continue
        late = LATE + _step_seconds(run)
        hessian = run.last("hessian_s")
        if clock.value > BUDGET + late:
            yield paper_finding(
                rule, clock, f"training took {clock.value:.3f} s of {BUDGET:.0f} s",
                confidence=confidence_of(found, run), severity=_gravity(found, run),
            )  # fmt: skip
            late_runs = True
            continue
        over = hessian is not None and clock.value + hessian.value > BUDGET + late
        if hessian is not None and over and (slowest is None or hessian.value > slowest[0].value):
            slowest = (hessian, clock, run)
        shown = shown or clock
    if slowest is not None:
        hessian, clock, run = slowest
        total = clock.value + hessian.value
        far = total > BUDGET + FAR
        yield paper_finding(
            rule, hessian,
            f"Hessians took {hessian.value:.1f} s after {clock.value:.1f} s of training: "
            f"{total:.1f} s that read training data, of {BUDGET:.0f} s"
            + ("" if far else " (records with a reserve shorter than this were accepted)"),
            confidence=confidence_of(found, run), severity=_gravity(found, run) if far else "warning", steps=(clock,),
        )  # fmt: skip
    if shown is None and other is None and not late_runs:
        yield from _stated_time(rule, found, "train_time_s", "training")
    if shown is not None:
        yield Obligation(
            rule=rule.id,
            status="holds",
            reason=f"{shown.path}:{shown.line}: training stopped at {shown.value:.3f} s",
        )
    elif other is not None:
        yield Obligation(
            rule=rule.id, status="not-applicable",
            reason=f"{other.path}: not comparable, the run did not use eight GPUs",
        )  # fmt: skip


def _gravity(found: Evidence, run: Run) -> Severity:
    """A budget binds on eight GPUs; a run that does not say how many it used, or is not the stated one, is only pointed at."""
    return "violation" if full_machine(run, found) and found.rests_on(run) else "warning"


def _stated_time(rule: Rule, found: Evidence, name: str, what: str) -> Iterator[Finding]:
    """What the metadata say of a clock that no log behind the score prints; they rarely say what is in it, so that it is a doubt."""
    over = [f for f in found.paper(name) if f.path.endswith(".json") and f.value > BUDGET + LATE]
    if over:
        worst = max(over, key=lambda f: f.value)
        message = f"{worst.label} is {worst.raw}: {what} has {BUDGET:.0f} s, and no log behind the score prints its clock"
        yield paper_finding(rule, worst, message, severity="warning", confidence="medium")


def _step_seconds(run: Run) -> float:
    average = run.last("step_avg_ms")
    return float(average.value) / 1e3 if average else 0.15


def eval_time(rule: Rule, ctx: Any) -> Iterator[Finding | Obligation]:
    """B4 by the clocks that the logs print: adaptation, precomputation and scoring together."""
    found = evidence(ctx)
    if non_record(ctx):
        return
    shown: tuple[Fact, float] | None = None
    timed = False
    for run in found.behind:
        total = _evaluation_seconds(run)
        timed = timed or total is not None
        if total is None or full_machine(run) is False:
            continue
        place, seconds, parts, outside = total
        if seconds > BUDGET + LATE:
            yield paper_finding(
                rule, place, f"evaluation took {f'{parts} = ' if outside else ''}{seconds:.1f} s of {BUDGET:.0f} s",
                confidence=confidence_of(found, run), severity=_gravity(found, run), steps=outside,
            )  # fmt: skip
        elif outside:
            yield paper_finding(
                rule, outside[0],
                f"{outside[0].value:.1f} s of precomputation on validation tokens are left out of the printed time "
                f"(the sum, {seconds:.1f} s, is within {BUDGET:.0f} s)",
                severity="warning",
            )  # fmt: skip
            shown = shown or (place, seconds)
        else:
            shown = shown or (place, seconds)
    if not timed:
        yield from _stated_time(rule, found, "eval_time_s", "evaluation")
    if shown is not None:
        place, seconds = shown
        yield Obligation(
            rule=rule.id, status="holds", reason=f"{place.path}:{place.line}: evaluation took {seconds:.1f} s"
        )


def _evaluation_seconds(run: Run) -> tuple[Fact, float, str, tuple[Fact, ...]] | None:
    """(place, seconds, how they add up, what was timed outside)."""
    outside = tuple(f for f in run.named("precompute_s") if f.label == "outside")
    total = run.last("total_eval_time_s")
    timed = [e.time for e in run.reported if e.time is not None]
    place = total or (max(timed, key=lambda f: f.value) if timed else None)
    if place is None:
        return None
    parts = [f"{f.value:.1f}" for f in (place, *outside)]
    return place, float(place.value) + sum(float(f.value) for f in outside), " + ".join(parts), outside


def gate_counts(rule: Rule, ctx: Any) -> Iterator[Finding | Obligation]:
    """F7 by fingerprint: hints that the within-word and word experts gated by the target itself.

    A kernel that reads the target's own class lets those experts fire millions of times; the
    corrected one prints zero for both, or is switched off.
    """
    found = evidence(ctx)
    for run in found.behind:
        counts = {name: run.last(f"hint_{name}") for name in ("within_gate", "word_gate", "gated", "total")}
        leaky = [f for f in (counts["within_gate"], counts["word_gate"]) if f is not None and f.value > 0]
        if leaky and counts["gated"] is not None:
            total = counts["total"]
            of = f" of {total.value:,}" if total else ""
            text = " and ".join(f"{f.name.removeprefix('hint_')}={f.value:,}" for f in leaky)
            yield paper_finding(
                rule, leaky[0],
                f"the log counts {text}{of} hints: the fingerprint of gates that read the target's own word class",
                confidence="medium" if run.link else "low", steps=tuple(leaky[1:]),
            )  # fmt: skip
        elif counts["within_gate"] is not None and counts["word_gate"] is not None:
            place = counts["within_gate"]
            yield Obligation(
                rule=rule.id, status="holds",
                reason=f"{place.path}:{place.line}: only the token expert gave hints (within_gate=0, word_gate=0)",
            )  # fmt: skip


_PREQUANT_TTT = re.compile(r"post[-_ ]?pre[-_ ]?quant[-_ ]?ttt|after[-_ ]?pre[-_ ]?quant[-_ ]?ttt", re.I)
_BEFORE = re.compile(r"pre[-_ ]?quant\w*[-_ ]*post[-_ ]?ema|post[-_ ]?ema", re.I)
#: bits per byte; an adaptation that saw no validation token gained a tenth of this at most (#1550)
JUMP = 0.01


def pre_eval_jump(rule: Rule, ctx: Any) -> Iterator[Finding | Obligation]:
    """F1 by a jump: full-precision weights score far better after an adaptation that precedes scoring.

    Only where the log itself names the two scores, before and after, of one run behind the headline.
    """
    found = evidence(ctx)
    for run in found.behind:
        before = [
            e.bpb for e in run.evaluations if _BEFORE.search(e.label) and not _PREQUANT_TTT.search(e.label)
        ]
        after = [e.bpb for e in run.evaluations if _PREQUANT_TTT.search(e.label)]
        if before and after and before[0].value - after[-1].value > JUMP:
            yield paper_finding(
                rule, after[-1],
                f"the unquantized weights go from {before[0].raw} to {after[-1].raw} bits per byte in an adaptation "
                "before the evaluation: more than any data but the validation set gives",
                confidence="medium" if run.link else "low", steps=(before[0],),
            )  # fmt: skip
