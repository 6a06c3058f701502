"""D1 overlap: training documents are disjoint from the 50,000 validation documents.

**What.** Case-transformed (CaseOps) data is prepared by a script whose default keeps only 10,000
documents out of training. With the full validation set, 40,000 of its documents are then trained on.
The number of training shards in the log tells.

**Why.** Four fifths of the validation set in the training data is memorisation.

**Ruling.** Reported in #2127; the maintainers excluded #2018, removed #2130 (#2146), and admitted
#2135 as a clean rerun. The published data set (80 shards) is disjoint.

**The dispute.** 1502 shards follow from leaving 10,000 documents out (#1854), 1499 from leaving out
all 50,000 (#1881): by that arithmetic #2130, removed with 1499, was clean. Such counts are reported
with the arithmetic both ways, as a warning. A leaky default in the preparation script proves nothing:
every copy ships it, the published data's users included.

**Look-alikes.** 80 shards (CaseOps, SP1024), 128 (SP8192), 143 (SP4096), or a part of them; 1502 shards
beside a validation set of 10,000 documents (disjoint, but D2).

**See also.** D2 (the set that is scored).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.context import Context
from audit.evidence.identities import tokenizer_of_count
from audit.evidence.overlap import SHORT_VAL_TOKENS, judge
from audit.evidence.runs import Run
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.papers import confidence_of, distinct, evidence, paper_finding

RULE = Rule(
    id="D1",
    name="train-validation-overlap",
    title="No validation document is trained on",
    breach="Validation documents in the training data",
    illegal="INVALID",
    authority="MAINT",
    ruling="#2127, #2146",
    severity="violation",
    needs=("log",),
    since="2026-04-30",
)

_SCRIPT = "print('see the log')\n"


def _log(shards: int, tokens: int) -> str:
    return (
        f"train_shards: {shards}\nval_tokens: {tokens}\nmodel_params:1000000\n"
        "quantized_ttt_phased val_loss:2.33000000 val_bpb:1.06470000\n"
    )


_SAID = ("submission.json", '{"val_bpb": 1.0647}')
ILLEGAL = [
    Example(
        name="prepared with 10,000 documents left out, scored on 50,000",
        code=_SCRIPT, files=(("train_seed1.log", _log(1502, 47_851_520)), _SAID), lines=(1,),
    ),
]  # fmt: skip
LEGAL = [
    Example(name="the published data", code=_SCRIPT, files=(("train_seed1.log", _log(80, 47_851_520)), _SAID)),
    Example(
        name="as many shards, and a validation set that ends where they begin",
        code=_SCRIPT, files=(("train_seed1.log", _log(1502, 9_662_464)), _SAID),
    ),
]  # fmt: skip
_CASEOPS = re.compile(r"caseops|lossless_caps", re.I)


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    yield from distinct(_check(ctx))


def _check(ctx: Context) -> Iterator[Finding | Obligation]:
    found = evidence(ctx)
    held = ""
    for run in found.behind:
        shards, tokens = run.last("train_shards"), _tokens(run)
        if shards is None or not _transformed(run, tokens):
            continue
        reading = judge(int(shards.value), tokens)
        places = tuple(f for f in run.named("val_tokens")[:1])
        if reading.kind == "overlap":
            yield paper_finding(
                RULE, shards, reading.message, confidence=confidence_of(found, run), steps=places
            )
        elif reading.kind == "disputed":
            yield paper_finding(
                RULE, shards, reading.message, severity="warning", authority="DISPUTED", steps=places
            )
        else:
            held = held or f"{shards.path}:{shards.line}: {reading.message}"
    if held:
        yield Obligation(rule=RULE.id, status="holds", reason=held)
    else:
        yield Obligation(
            rule=RULE.id,
            status="not-applicable",
            reason="no run behind the score prints shards of case-transformed data",
        )


def _tokens(run: Run) -> int | None:
    counts = [int(f.value) for f in run.named("val_tokens")]
    return max(counts) if counts else None


def _transformed(run: Run, tokens: int | None) -> bool:
    """Is the data case-transformed: by its path, its own knob, or its validation token count."""
    if (run.knob("CASEOPS_ENABLED") or "").lower() in {"true", "1"}:
        return True
    if any(_CASEOPS.search(str(f.value)) for f in run.named("dataset")):
        return True
    known = tokenizer_of_count(tokens) if tokens else None
    return (known is not None and known.name.startswith("CaseOps")) or (
        tokens is not None and abs(tokens - SHORT_VAL_TOKENS) < 3000
    )
