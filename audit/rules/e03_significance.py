"""E3 significance: better than the record by more than chance.

**What.** Welch's one-sided test of the seeds against a given record's, both criteria with numbers:
H0 "the gain is at most 0.005 nats" at p < 0.01, and H0 "no gain" at p < 0.25.

**Why.** Seeds differ by about as much as records do.

**Ruling.** README: at least 0.005 nats at p < 0.01. From April on a chronological frontier with p < 0.25
was applied (cocohearts, #1902); fewer than 15 % of the merged rows meet 0.005 nats (#2148). Pure
systems work is exempt.

**How it is decided.** Only against a record that is named with ``--against`` (a records folder, its
``submission.json``, or scores separated by commas). Per-seed scores come from the logs behind the
headline, else from the papers. Nats are per token where both tokenizers give the same bytes per
token, per byte otherwise.

**See also.** E1 (seeds).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.contracts import InputError
from audit.evidence.significance import PROGRESS_P, STRICT_P, Welch, compare, read_record, scores_of
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.papers import evidence, paper_finding

RULE = Rule(
    id="E3",
    name="significance",
    title="Better than the record by more than chance",
    breach="Gain over the record not shown to be more than chance",
    illegal="NOT-READY",
    authority="README",
    severity="warning",
    needs=("log",),
)

ILLEGAL: list[Example] = []
LEGAL = [
    Example(
        name="no record was named",
        code="print('see the log')\n",
        files=(("submission.json", '{"val_bpb": 1.1, "seed_results": {"1": {"val_bpb": 1.1}}}'),),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    target = getattr(ctx.options, "against", None)
    if not target:
        yield Obligation(
            rule=RULE.id,
            status="not-applicable",
            reason="no record to compare with was named (--against RECORD)",
        )
        return
    found = evidence(ctx)
    new = scores_of(found)
    try:
        strict, progress = compare(new, read_record(target))
    except ValueError as error:
        yield Obligation(rule=RULE.id, status="undetermined", reason=str(error))
        return
    except InputError as error:
        yield Obligation(rule=RULE.id, status="undetermined", reason=str(error))
        return
    text = describe(strict, progress)
    if strict.p < STRICT_P:
        yield Obligation(rule=RULE.id, status="holds", reason=text)
        return
    place = found.stated[0] if found.stated else next(iter(ctx.facts), None)
    if place is not None:
        yield paper_finding(RULE, place, text, severity="warning" if progress.p >= PROGRESS_P else "note")
    if progress.p < PROGRESS_P:
        yield Obligation(rule=RULE.id, status="holds", reason=text)
    else:
        yield Obligation(rule=RULE.id, status="undetermined", reason=text)


def describe(strict: Welch, progress: Welch) -> str:
    """Both tests in one sentence."""
    return (
        f"gain {strict.gain:+.5f} {strict.unit} ({strict.n_new} against {strict.n_old} seeds): "
        f"H0 gain <= {strict.margin}: t = {strict.t:.3f}, df = {strict.df:.2f}, p = {strict.p:.4g} "
        f"({'met' if strict.p < STRICT_P else 'not met'} at {STRICT_P}); "
        f"H0 gain <= 0: t = {progress.t:.3f}, p = {progress.p:.4g} "
        f"({'met' if progress.p < PROGRESS_P else 'not met'} at {PROGRESS_P})"
    )
