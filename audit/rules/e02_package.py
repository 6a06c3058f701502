"""E2 package: a records folder with README, submission.json, logs and a script that runs.

**What.** The folder is complete, and ``submission.json`` is valid JSON that states author, name and score,
under whichever key people use for them (``authors``, ``github_id``, ``title``). ``null``, ``"pending"`` and
zero are no score.

**Why.** Nobody can check what is not there.

**Ruling.** README; MAINT in #505, #545, #2013.

**See also.** E1 (seeds), S2 (the script is Python).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.evidence.readiness import package_gaps
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.papers import evidence, paper_finding

RULE = Rule(
    id="E2",
    name="complete-package",
    title="The records folder is complete",
    breach="Incomplete records folder",
    illegal="NOT-READY",
    authority="README",
    ruling="#505, #545, #2013",
    severity="warning",
    needs=("source", "log"),
)

_SCRIPT = "print('see the log')\n"
_LOG = ("train_seed1.log", "model_params:1000000\nfinal_int6_exact val_loss:1.88000000 val_bpb:1.11344758\n")
ILLEGAL = [
    Example(
        name="a comma too many",
        code=_SCRIPT,
        files=(
            _LOG,
            ("README.md", "# X\n"),
            ("submission.json", '{"author": "a", "name": "b", "val_bpb": 1.1134,}'),
        ),
        lines=(1,),
    ),
    Example(
        name="no score in the metadata",
        code=_SCRIPT,
        files=(_LOG, ("README.md", "# X\n"), ("submission.json", '{"author": "a", "name": "b"}')),
        lines=(1,),
    ),
    Example(
        name="a score that no model can have",
        code=_SCRIPT,
        files=(_LOG, ("README.md", "# X\n"), ("submission.json", '{"author": "a", "name": "b",\n "val_bpb": 40.4848}')),
        lines=(2,),
    ),
]
LEGAL = [
    Example(
        name="complete",
        code=_SCRIPT,
        files=(
            _LOG,
            ("README.md", "# X\n"),
            ("submission.json", '{"author": "a", "name": "b", "val_bpb": 1.1134}'),
        ),
    ),
    Example(
        name="other names for the fields",
        code=_SCRIPT,
        files=(
            _LOG,
            ("README.md", "# X\n"),
            ("submission.json", '{"authors": [{"name": "a", "github": "a"}], "submission_name": "b", "final_bpb": 1.1134}'),
        ),
    ),
    Example(
        name="a byte-order mark before the metadata",
        code=_SCRIPT,
        files=(
            _LOG,
            ("README.md", "# X\n"),
            ("submission.json", '\ufeff{"author": "a", "name": "b", "val_bpb": 1.1134}'),
        ),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    paths = ctx.files.near() if ctx.files is not None else []
    folder = ctx.files.folder if ctx.files is not None else ""
    gaps = list(package_gaps(paths, folder, list(ctx.facts), bool(evidence(ctx).runs)))
    for gap in gaps:
        if gap.fact is not None:
            yield paper_finding(RULE, gap.fact, gap.message, severity="warning")
    if gaps:
        yield Obligation(rule=RULE.id, status="undetermined", reason="; ".join(g.message for g in gaps))
    else:
        yield Obligation(rule=RULE.id, status="holds", reason="README, metadata and logs are there")
