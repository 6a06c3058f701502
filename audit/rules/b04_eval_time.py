"""B4 evaluation time: at most 600 s on eight GPUs, adaptation and precomputation included.

**What.** The seconds that the log prints for the reported evaluation, plus what was timed apart from
it (hints for an n-gram tilt that are computed on validation tokens before the timer starts).

**Why.** The limit bounds what a submission may do with the validation set; work outside the timer is
work all the same.

**Ruling.** README; cocohearts on 688 s: "over the 600s eval cap" (#1972). The claim that evaluation
time is unbounded (#1722) is wrong.

**How it is decided.** By the printed clocks. A precomputation outside the timer whose sum stays
within the limit is a warning. Timers that start after compile warm-up are accepted practice.

**See also.** B3 (training), F7 (what those hints may read).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.papers import distinct
from audit.rules.papers_checks import eval_time
from audit.rules.timers import untimed_work

RULE = Rule(
    id="B4",
    name="eval-time",
    title="Evaluation fits into 600 s on eight GPUs",
    breach="Evaluation beyond 600 s",
    illegal="INVALID",
    authority="MAINT",
    ruling="#1972",
    severity="violation",
    needs=("source", "log"),
)

_SCRIPT = "print('see the log')\n"


def _log(seconds: float, extra: str = "") -> str:
    return (
        f"model_params:1000000\nworld_size:8 grad_accum_steps:1\n{extra}"
        f"quantized_ttt val_loss:1.88000000 val_bpb:1.11344758 eval_time:{seconds * 1000:.0f}ms\n"
    )


_SAID = ("submission.json", '{"val_bpb": 1.1134}')
_OUTSIDE = "ngram_tilt:precompute_outside_timer_done elapsed={}s excluded from eval\n"
ILLEGAL = [
    Example(name="688 s", code=_SCRIPT, files=(("train_seed1.log", _log(688)), _SAID), lines=(3,)),
    Example(
        name="450 s, and 160 s of hints before the timer",
        code=_SCRIPT,
        files=(("train_seed1.log", _log(450, _OUTSIDE.format("160.0"))), _SAID),
        lines=(4,),
    ),
]
LEGAL = [
    Example(name="450 s", code=_SCRIPT, files=(("train_seed1.log", _log(450)), _SAID)),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    stated = False
    if "source" in ctx.available:
        yield from untimed_work(RULE, ctx)
    for item in distinct(eval_time(RULE, ctx)):
        stated = stated or isinstance(item, Obligation)
        yield item
    if not stated:
        yield Obligation(
            rule=RULE.id, status="not-applicable",
            reason="no run behind the score prints its evaluation time, or the track has no time limit",
        )  # fmt: skip
