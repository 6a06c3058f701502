"""S1 opaque: code that cannot be unpacked, or a target that cannot be resolved.

**What.** A script that hides its program in a payload which no known decoder opens, runs a file or
a module that was not submitted, or computes at run time what it executes.

**Why.** What was not read was not judged. Such a submission is never *clean*: the verdict is
*undetermined*, with the place where reading stopped. Packing as such is fine and common: base64 or
base85 over lzma, zlib, brotli, zstandard, bz2 or gzip, nested or not, is unpacked without being run.

**Ruling.** None needed; it is the auditor's own limit, and it says so.

**See also.** S2 (cannot be parsed), S3 (decompression bombs), B2 (code that does not count).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule

RULE = Rule(
    id="S1",
    name="opaque",
    title="All code that runs can be read",
    breach="Code that cannot be read",
    illegal="-",
    authority="UNRULED",
    severity="warning",
    needs=(),
)

ILLEGAL = [
    Example(
        name="the payload is decrypted with a key from the environment",
        code=(
            "import base64, os\n"
            "key = os.environ['KEY'].encode()\n"
            "data = base64.b64decode('c2VjcmV0IHNlY3JldCBzZWNyZXQ=')\n"
            "exec(bytes(a ^ key[i % len(key)] for i, a in enumerate(data)))\n"
        ),
        lines=(4,),
    ),
    Example(
        name="the program is fetched from a file that was not submitted",
        code="exec(open('train_body.py').read())\n",
        lines=(1,),
    ),
]
LEGAL = [
    Example(
        name="a payload that a known decoder opens",
        code=(
            "import base64, zlib\n"
            "exec(zlib.decompress(base64.b64decode('eNorKMrMK9FQL0hMzk5NUdfkAgAySQU/')))\n"
        ),
    ),
    Example(
        name="base85 that only measures the packed size",
        code=(
            "import base64, lzma\n"
            "size = len(base64.b85encode(lzma.compress(open(__file__, 'rb').read())))\n"
            "print(f'code bytes {size}')\n"
        ),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    problems = [p for p in ctx.problems if p.kind in ("opaque", "missing")]
    for p in problems:
        yield Finding(
            rule=RULE.id, name=RULE.name, severity="warning", authority=RULE.authority, confidence="high",
            message=f"not readable: {p.reason}", path=p.path, line=max(p.line, 1), end_line=max(p.line, 1),
        )  # fmt: skip
    if problems:
        first = problems[0]
        yield Obligation(rule=RULE.id, status="undetermined", reason=f"{first.path}: {first.reason}")
    elif not ctx.modules:
        yield Obligation(rule=RULE.id, status="not-applicable", reason="no code could be parsed")
    else:
        layers = list(getattr(ctx.peeled, "layers", ()))
        how = f"unpacked {' > '.join(layers)}" if layers else "nothing is packed"
        yield Obligation(rule=RULE.id, status="holds", reason=f"all code was read; {how}")
