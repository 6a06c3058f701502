"""E4 contradictions: the papers state one quantity differently, or a claim that arithmetic refutes.

**What.** Scores, sizes, times, steps, parameters and settings in README, metadata, logs and code
defaults are compared within their seed, as intervals of their printed digits. A mean or deviation is
recomputed from the seeds' scores of the same name in the same object; "33 % more steps" from its two
step times; steps times milliseconds from the budget; ``artifact_under_16mb: true`` from the size beside it.

**What is compared.** Only what is stated of the submission itself, without further qualification: the
metadata's own ``val_bpb`` and not ``sliding_bpb`` or ``rerun_mean_bpb``, the README's head and not its
experiments, the log that prints the stated score and not one of a variant. Where a paper states a
figure twice, or the other figure anywhere, nothing is said.

**Why.** One of the two places is wrong, and a reader cannot know which.

**Ruling.** None; headlines that logs do not bear out kept submissions from being listed (#2071, #2076,
#2118).

**Look-alikes.** Rounded figures; the mean of a rerun, a control or another backend; a time held back for the quantization; other evaluations of the same model (sliding, before adaptation);
tables of other people's runs; totals with the packed or the plain script.

**See also.** E1 (seeds), B1 (sizes), M1 (loss against score).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from audit.context import Context
from audit.evidence.claims import contradictions
from audit.evidence.collect import prints
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
        name="more steps than the budget holds",
        code=_SCRIPT,
        files=(("README.md", "# X\n\n| Seed | Steps | ms/step |\n|---|---|---|\n| 1337 | 9,912 | 67.0 |\n"),),
        lines=(5,),
    ),
    Example(
        name="a mean that its seeds do not have",
        code=_SCRIPT,
        files=(
            (
                "submission.json",
                '{"val_bpb": 1.0607,\n "seed_results": {"1": {"val_bpb": 1.0661}, "2": {"val_bpb": 1.0649}}}',
            ),
        ),
        lines=(1,),
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
        name="steps that fill it, but for the time held back for the quantization",
        code=_SCRIPT,
        files=(("README.md", "# X\n\n| Seed | Steps | ms/step |\n|---|---|---|\n| 1337 | 7,904 | 70.0 |\n"),),
    ),
    Example(
        name="the mean of a second run beside the seeds of the first",
        code=_SCRIPT,
        files=(
            (
                "submission.json",
                '{"val_bpb": 1.0655, "seed_results": {"1": {"val_bpb": 1.0661}, "2": {"val_bpb": 1.0649}},\n'
                ' "rerun": {"mean_bpb": 1.0710, "sdpa_mean_bpb": 1.0902}}',
            ),
        ),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    count = 0
    files = ctx.files
    known = {"prints": partial(prints, files)} if files is not None else {}
    for item in contradictions(evidence(ctx), ctx.knobs, ctx.primary.rpartition("/")[0], **known):
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
