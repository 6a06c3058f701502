"""E4 contradictions: the papers state one quantity differently, or a claim that arithmetic refutes.

**What.** Scores, sizes, times, steps, parameters and settings in README, metadata, logs and code
defaults are compared within their seed, as intervals of their printed digits. A mean or deviation is
recomputed from its seeds; "33 % more steps" from its two step times; steps times milliseconds from
the budget; ``artifact_under_16mb: true`` from the size beside it.

**Why.** One of the two places is wrong, and a reader cannot know which.

**Ruling.** None; headlines that logs do not bear out kept submissions from being listed (#2071, #2076,
#2118).

**Look-alikes.** Rounded figures; other evaluations of the same model (sliding, before adaptation);
tables of other people's runs; totals with the packed or the plain script.

**See also.** E1 (seeds), B1 (sizes), M1 (loss against score).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.context import Context
from audit.evidence.claims import contradictions
from audit.model import Fact, Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.papers import evidence, paper_finding
from audit.wording import counted

RULE = Rule(
    id="E4",
    name="contradiction",
    title="The papers agree with each other",
    breach="Papers that contradict each other",
    illegal="NOT-READY",
    authority="UNRULED",
    severity="warning",
    needs=("log",),
)

_SCRIPT = "print('see the papers')\n"
ILLEGAL = [
    Example(
        name="pruning of 3 % here and 2 % there",
        code=_SCRIPT,
        files=(
            (
                "README.md",
                "# X\n\n- Late QAT, 3% magnitude pruning\n\nINT5 GPTQ + 2% magnitude pruning + zstd-22\n",
            ),
        ),
        lines=(5,),
    ),
    Example(
        name="a speed-up that its own step times refute",
        code=_SCRIPT,
        files=(("README.md", "# X\n\n70ms/step (vs 87ms without) on 8xH100 -> 33% more training steps.\n"),),
        lines=(3,),
    ),
    Example(
        name="steps that do not fill the budget",
        code=_SCRIPT,
        files=(("README.md", "# X\n\n| Seed | Steps | ms/step |\n|---|---|---|\n| 1337 | 7,904 | 70.0 |\n"),),
        lines=(5,),
    ),
]
LEGAL = [
    Example(
        name="the same figures, rounded",
        code=_SCRIPT,
        files=(
            ("README.md", "# X\n\n| Seed | val_bpb | Artifact |\n|---|---|---|\n| 1 | 1.1134 | 15.98 MB |\n"),
            (
                "submission.json",
                '{"seed_results": {"1": {"val_bpb": 1.11344758, "artifact_bytes": 15978345}}}',
            ),
        ),
    ),
    Example(
        name="steps that do fill it",
        code=_SCRIPT,
        files=(("README.md", "# X\n\n| Seed | Steps | ms/step |\n|---|---|---|\n| 1337 | 8,571 | 70.0 |\n"),),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    count = 0
    for item in contradictions(evidence(ctx), ctx.knobs):
        count += 1
        first, *others = item.places
        yield paper_finding(RULE, first, item.message, severity="warning", steps=tuple(others))
    for fact, line, path in _random_calibration(ctx):
        count += 1
        place = Fact(name="calibration", value="random", path=path, line=line, raw="uniform random tokens")
        yield paper_finding(
            RULE, fact, f"calibration is called self-generated; the code draws uniform random tokens ({path}:{line})",
            severity="warning", confidence="medium", steps=(place,),
        )  # fmt: skip
    reason = counted(count, "contradiction") if count else "no two places state a quantity differently"
    yield Obligation(rule=RULE.id, status="undetermined" if count else "holds", reason=reason)


_FUNCTION = re.compile(r"^(?P<indent>[ \t]*)def (?P<name>\w*(?:calib|self_gen|generate|gen_seq)\w*)\(", re.M)
_RANDOM = re.compile(r"\brandint\(")
_SAMPLED = re.compile(r"multinomial|argmax|softmax|\.topk\(|categorical|gumbel", re.I)


def _random_calibration(ctx: Context) -> Iterator[tuple[Fact, int, str]]:
    """A function for calibration text that never asks the model."""
    claims = ctx.facts.named("setting.calibration")
    if not claims:
        return
    for path, text in ctx.sources.items():
        for match in _FUNCTION.finditer(text):
            indent = match["indent"]
            end = re.compile(rf"^(?!{indent}[ \t]|\s*$|\s*\))", re.M).search(
                text, text.find("\n", match.end()) + 1
            )
            body = text[match.start() : end.start() if end else len(text)]
            drawn = _RANDOM.search(body)
            if (
                drawn
                and not _SAMPLED.search(body)
                and re.search(r"calib|gptq|hessian|self", match["name"], re.I)
            ):
                yield claims[0], text.count("\n", 0, match.start() + drawn.start()) + 1, path
                return
