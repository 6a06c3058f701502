"""B2 code counts: the code that runs is the code that is counted.

**What.** The program lies in a second file that the script reads and executes, or values that belong
into the artifact (tables, weights, prepared constants) are imported from a module.

**Why.** Code and compressed model together must fit into 16,000,000 bytes. What runs from elsewhere, or
what a module carries as data, is easily left out of the sum.

**Ruling.** README: all counted code should live in ``train_gpt.py``. Helper files appear in merged
folders and nobody ruled on them, so this is a warning: count them. #1412 is merged with a script of 74
bytes that executes another file; its log is 55 to 60 kB over the limit.

**Look-alikes that are legal.** Local modules with code alone (reported by nobody, and counted with the
rest); a self-extracting script, whose packed bytes count; tokenizers and byte tables of the metric.

**How it is decided.** The reader says which file was executed in place of the script; modules that the
script imports are measured by the bytes of their literal data.

**See also.** B1 (the size limit), S1 (code that was not submitted).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation, Step
from audit.rules.base import Example, Rule
from audit.rules.flow import holds

RULE = Rule(
    id="B2",
    name="code-counts",
    title="All code that runs is in the counted script",
    breach="Code outside the counted script",
    illegal="GREY",
    authority="README",
    severity="violation",
    needs=(),
)
#: numbers, or characters of text, that a module of code has no use for
NUMBERS, TEXT = 1000, 16_000

_BODY = "import torch\nprint(torch.__version__)\n"
_TABLE = "TABLE = [" + ", ".join(str(n % 7) for n in range(3000)) + "]\n"
ILLEGAL = [
    Example(
        name="the program is in another file",
        code="exec(open('body.py').read())\n",
        files=(("body.py", _BODY),),
        lines=(1,),
    ),
    Example(
        name="a module of numbers",
        code="import torch\nfrom prior import TABLE\nprint(torch.tensor(TABLE).sum())\n",
        files=(("prior.py", _TABLE),),
        lines=(2,),
    ),
]
LEGAL = [
    Example(
        name="a module of code",
        code="import torch\nfrom helper import half\nprint(half(torch.ones(3)))\n",
        files=(("helper.py", "def half(x):\n    return x / 2\n"),),
    ),
    Example(name="everything in one file", code=_BODY),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    found = [*_elsewhere(ctx), *_tables(ctx)]
    yield from found
    if ctx.module is None:
        yield Obligation(rule=RULE.id, status="not-applicable", reason="no readable source")
        return
    others = sorted(set(ctx.modules) - {ctx.primary})
    said = f"; count the modules too: {', '.join(others[:4])}" if others else ""
    yield holds(RULE, f"{'see the warning' if found else 'the code that runs is the submitted script'}{said}")


def _elsewhere(ctx: Context) -> Iterator[Finding]:
    module = ctx.module
    if module is None or module.path == ctx.primary or ctx.files is None:
        return
    size = len(ctx.files.read(module.path) or b"")
    line = max(int(getattr(ctx.peeled, "line", 0) or 0), _executing_line(ctx))
    message = f"the script executes {module.path} ({size} bytes), which has to be counted with it"
    yield Finding(
        rule=RULE.id, name=RULE.name, severity=RULE.severity, authority=RULE.authority, confidence="high",
        message=message, path=ctx.primary, line=line, end_line=line,
        trace=(
            Step(path=ctx.primary, line=line, message="executed here"),
            Step(path=module.path, line=_first_statement(module), message="what runs"),
        ),
    )  # fmt: skip


def _first_statement(module: ir.Module) -> int:
    """The line of the first statement that is no docstring."""
    code = (s for s in module.body if not (isinstance(s, ir.ExprStmt) and isinstance(s.value, ir.Const)))
    return next((s.line for s in code), 1)


def _executing_line(ctx: Context) -> int:
    text = ctx.files.text(ctx.primary) or ""
    for number, line in enumerate(text.splitlines(), 1):
        if any(word in line for word in ("exec(", "runpy", "exec_module", "run_path", "run_module")):
            return number
    return 1


def _tables(ctx: Context) -> Iterator[Finding]:
    for key, module in ctx.modules.items():
        if key == ctx.primary:
            continue
        numbers, text = _literals(module)
        if numbers < NUMBERS and text < TEXT:
            continue
        what = f"{numbers} numbers" if numbers >= NUMBERS else f"{text} characters of text"
        path, line = _import_of(ctx, key)
        message = f"{module.path} carries {what} as literals: data that has to be counted"
        yield Finding(
            rule=RULE.id, name=RULE.name, severity=RULE.severity, authority=RULE.authority, confidence="medium",
            message=message, path=path, line=line, end_line=line,
            trace=(Step(path=path, line=line, message="imported here"), Step(path=module.path, line=1, message="the data")),
        )  # fmt: skip


def _literals(module: ir.Module) -> tuple[int, int]:
    """Numbers in collections, and characters of strings other than docstrings."""
    numbers = text = 0
    documents = {id(s.value) for s in ir.walk(module) if isinstance(s, ir.ExprStmt)}
    for node in ir.walk(module):
        if isinstance(node, ir.Collection):
            numbers += sum(isinstance(_plain(e), ir.Const) and _number(_plain(e)) for e in node.elts)
        elif (
            isinstance(node, ir.Const) and isinstance(node.value, (str, bytes)) and id(node) not in documents
        ):
            text += len(node.value)
    return numbers, text


def _plain(node: Any) -> Any:
    return node.operand if isinstance(node, ir.UnaryOp) else node


def _number(node: ir.Const) -> bool:
    return isinstance(node.value, (int, float)) and not isinstance(node.value, bool)


def _import_of(ctx: Context, key: str) -> tuple[str, int]:
    name = key.rpartition("/")[2].removesuffix(".py")
    for module in ctx.modules.values():
        for node in ir.walk(module):
            if isinstance(node, ir.Import):
                origins = [node.module or ""] if node.is_from else [n for n, _ in node.names]
                if any(o.split(".")[-1] == name for o in origins):
                    return module.path, node.line
    return key, 1
