"""E1 seeds: three seeds of the submitted configuration, with logs that agree with the claims.

**What.** At least three runs with different seeds stand behind the reported score; their settings,
parameters and data are the same; they ran on eight GPUs.

**Why.** A single lucky seed is worth more than most improvements.

**Ruling.** cocohearts, #2124: a third seed from another configuration is "not record-ready"; "3-seed
mean from the same submitted configuration, with consistent timing/artifact evidence". Results from
one GPU are no records (#2103).

**How it is decided.** Runs are tied to the headline by their printed score, else by a seed that a
paper names. Settings come from the hyper-parameter dumps; seeds, paths and run names may differ.

**See also.** E2 (package), E3 (significance), E4 (contradictions).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.evidence.readiness import seed_gaps, seeds_of
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.papers import evidence, paper_finding

RULE = Rule(
    id="E1",
    name="three-seeds",
    title="Three seeds of one configuration",
    breach="Fewer than three seeds of one configuration",
    illegal="NOT-READY",
    authority="MAINT",
    ruling="#2124, #2103",
    severity="warning",
    needs=("log",),
)

_SCRIPT = "print('see the logs')\n"


def _log(seed: int, bpb: float, layers: int = 11) -> str:
    return (
        f"Hyperparameters:\n  num_layers: {layers}\n  seed: {seed}\nworld_size:8 grad_accum_steps:1\n"
        f"model_params:1000000\nfinal_int6_exact val_loss:{bpb * 1.6885:.8f} val_bpb:{bpb:.8f}\n"
    )


_SAID = (
    "submission.json",
    '{"val_bpb": 1.1135,\n "seed_results": {"1": {"val_bpb": 1.1134}, "2": {"val_bpb": 1.1135}, "3": {"val_bpb": 1.1136}}}',
)
ILLEGAL = [
    Example(name="one seed", code=_SCRIPT, files=(("train_seed1.log", _log(1, 1.1134)), _SAID), lines=(2,)),
    Example(
        name="the third seed has a layer less",
        code=_SCRIPT,
        files=(
            ("train_seed1.log", _log(1, 1.1134)),
            ("train_seed2.log", _log(2, 1.1135)),
            ("train_seed3.log", _log(3, 1.1136, layers=10)),
            _SAID,
        ),
        lines=(2,),
    ),
]
LEGAL = [
    Example(
        name="three seeds",
        code=_SCRIPT,
        files=(
            ("train_seed1.log", _log(1, 1.1134)),
            ("train_seed2.log", _log(2, 1.1135)),
            ("train_seed3.log", _log(3, 1.1136)),
            _SAID,
        ),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    found = evidence(ctx)
    gaps = list(seed_gaps(found))
    for gap in gaps:
        if gap.fact is not None:
            steps = (gap.other,) if gap.other is not None else ()
            yield paper_finding(RULE, gap.fact, gap.message, severity="warning", steps=steps)
    if gaps:
        yield Obligation(rule=RULE.id, status="undetermined", reason=gaps[0].message)
    else:
        seeds = ", ".join(str(s) for s in seeds_of(found))
        yield Obligation(rule=RULE.id, status="holds", reason=f"seeds {seeds} have logs of one configuration")
