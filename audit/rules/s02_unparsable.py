"""S2 unparsable: text that no Python grammar accepts.

**What.** The script, or a local module that it imports, is no valid Python under any grammar the
auditor knows (the parser of the running Python, libcst's, and a repair pass for minified spacing,
byte-order marks and notebook magics). Typical: terminal output pasted into the file, a placeholder
that was never replaced, prose on the first line.

**Why.** What cannot be parsed cannot have produced the reported score as submitted, and cannot be
judged. The verdict is *undetermined*, with line and reason.

**Ruling.** None needed; the contest asks for a script that runs.

**See also.** S1 (cannot be unpacked).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule

RULE = Rule(
    id="S2",
    name="unparsable",
    title="The script is Python",
    breach="Script that is no Python",
    illegal="-",
    authority="UNRULED",
    severity="warning",
    needs=(),
)

ILLEGAL = [
    Example(
        name="a table from the terminal at the end",
        code="import torch\nprint(torch.__version__)\n| NVIDIA-SMI 550.54   Driver Version: 550.54 |\n",
        lines=(3,),
    ),
    Example(name="a placeholder in a number", code="seed = 0xSEED_VALUE\nprint(seed)\n", lines=(1,)),
]
LEGAL = [
    Example(name="minified spacing", code="x=5\ny=1 if x>3else.5\nprint(y)\n"),
    Example(name="a byte-order mark", code="\ufeffprint('fine')\n"),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    problems = [p for p in ctx.problems if p.kind == "unparsable"]
    for p in problems:
        yield Finding(
            rule=RULE.id, name=RULE.name, severity="warning", authority=RULE.authority, confidence="high",
            message=f"no parser accepts this: {p.reason}", path=p.path, line=max(p.line, 1),
            end_line=max(p.line, 1),
        )  # fmt: skip
    if problems:
        first = problems[0]
        yield Obligation(
            rule=RULE.id, status="undetermined", reason=f"{first.path}:{first.line}: {first.reason}"
        )
    elif not ctx.modules:
        unread = any(p.kind in ("opaque", "missing", "bomb") for p in ctx.problems)
        yield Obligation(
            rule=RULE.id, status="not-applicable" if unread else "undetermined", reason="no code was read that could be parsed"
        )
    else:
        fronts = sorted({m.frontend for m in ctx.modules.values()})
        yield Obligation(rule=RULE.id, status="holds", reason=f"parsed by {', '.join(fronts)}")
