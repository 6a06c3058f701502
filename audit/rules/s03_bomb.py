"""S3 bomb: a payload that unpacks without bound, or nesting that no reader survives.

**What.** Decompressed size, depth of wrappers or depth of brackets exceeds the auditor's limits.

**Why.** A verdict must come in bounded time and memory. A script that cannot be read within them is
*undetermined* and carries a warning, since no honest submission needs 64 MB of source.

**Ruling.** None needed; it protects whoever runs the auditor.

**See also.** S1 (opaque), S4 (code that leaves the sandbox).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule

RULE = Rule(
    id="S3",
    name="bomb",
    title="Unpacking and parsing end within bounds",
    breach="Unpacking or parsing without bounds",
    illegal="-",
    authority="UNRULED",
    severity="warning",
    needs=(),
)


#: 200 MB of hash signs, compressed twice
_INFLATING = (
    "eNrt3L1JQ1EcxuGrJo2FH4VYhEDGsBEMgrWF1sEB7IUUiQR3SJFOGwdwABHEDdRUGSCVhVgYruaOcd7nqU79L18Ov5"
    "v58vm2+jfuTVfdw8ftCgAAACjc+HOytbF+9Or3s/NLAAAAoHRXuzutZhT4HXT6zgEAAADFuzs+2mt+CHyNrlvOAQAA"
    "AMU7+F6cNFvAW/20f+EeAAAAULwPwQAAAACIIhgAAAAAWQQDAAAAIItgAAAAAIQRDAAAAIAsggEAAACQRTAAAAAAsg"
    "gGAAAAQBjBAAAAAMgiGAAAAABZBAMAAAAgi2AAAAAAhBEMAAAAgCyCAQAAAJBFMAAAAACyCAYAAABAGMEAAAAAyCIY"
    "AAAAAFkEAwAAACCLYAAAAACEEQwAAACALIIBAAAAkEUwAAAAALIIBgAAAEAYwQAAAADIIhgAAAAAWQQDAAAAIItgAA"
    "AAAIQRDAAAAIAsggEAAACQRTAAAAAAsggGAAAAQBjBAAAAAMgiGAAAAABZBAMAAAAgi2AAAAAAhBEMAAAAgCyCAQAA"
    "AJBFMAAAAACyCAYAAABAGMEAAAAAyCIYAAAAAFkEAwAAACCLYAAAAACEmU9ON9dbQL8eDF8qAAAKMWu/Ptz//AGlkL"
    "2U"
)
#: an expression whose brackets nest a hundred thousand deep
_DEEP = "x = " + "(" * 100_000 + ")" * 100_000 + "\n"

ILLEGAL = [
    Example(
        name="200 MB in a kilobyte",
        code=(
            f"import base64, zlib\nexec(zlib.decompress(zlib.decompress(base64.b64decode('{_INFLATING}'))))\n"
        ),
        lines=(2,),
    ),
    Example(name="a hundred thousand brackets", code=_DEEP, lines=(1,)),
]
_TWICE = "eJyrmKOtceqM9sUAfc3zPn6h10MCAsI8zngHeoR4nDt/1ves9kMmhrXeXLYAZlsQ5g=="
LEGAL = [
    Example(
        name="compressed twice, and small",
        code=f"import base64, zlib\nexec(zlib.decompress(zlib.decompress(base64.b64decode('{_TWICE}'))))\n",
    ),
    Example(name="a large table of numbers", code="table = [" + "0," * 20_000 + "]\nprint(len(table))\n"),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    problems = [p for p in ctx.problems if p.kind == "bomb"]
    for p in problems:
        yield Finding(
            rule=RULE.id, name=RULE.name, severity="warning", authority=RULE.authority, confidence="high",
            message=f"over the auditor's limits: {p.reason}", path=p.path, line=max(p.line, 1),
            end_line=max(p.line, 1),
        )  # fmt: skip
    if problems:
        yield Obligation(rule=RULE.id, status="undetermined", reason=problems[0].reason)
    elif not ctx.modules:
        yield Obligation(rule=RULE.id, status="not-applicable", reason="no code could be parsed")
    else:
        yield Obligation(rule=RULE.id, status="holds", reason="unpacking and parsing ended within bounds")
