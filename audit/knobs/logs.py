"""What a run's log shows about its knobs: dumps of hyper-parameters, and lines that only one branch prints.

Many logs print no dump. But a log line that only the body of ``if args.slot_enabled:`` can print shows
that the knob was on; this is read off the program and needs no convention about names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from audit import ir
from audit.knobs.declared import spelled
from audit.knobs.model import Claim, Declaration
from audit.source.files import SubmissionFiles

DUMP, BRANCH = 80, 70
MAX_LOGS, MAX_LOG, MAX_HEAD = 8, 8 * 2**20, 120_000

_PAIR = re.compile(
    r"""(?<![\w.])["']?(?P<name>[A-Za-z_]\w*)["']?(?P<sep>\s*[:=]\s*)(?P<value>"[^"\n]*"|'[^'\n]*'|[^\s,;})\]]+)"""
)
_LITERAL = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|True|False|true|false")
_WORD = re.compile(r"[\w./+-]{1,80}")
_BPB = re.compile(r"bpb\w*\s*[:=]?\s*(\d\.\d{3,})", re.I)
_RULE = re.compile(r"\n[=\-*#]{20,}")


@dataclass(frozen=True, slots=True)
class Log:
    """A log without the program text that many scripts print first; ``line`` is where ``text`` starts."""

    path: str
    text: str
    line: int


def read_logs(files: SubmissionFiles) -> list[Log]:
    """The logs of the reported runs: those with a score that ``submission.json`` states, else all."""
    stated = _stated(files)
    every, reported = [], []
    for path in files.logs()[: 4 * MAX_LOGS]:
        data = files.read(path)
        if data is None or len(data) > MAX_LOG:
            continue
        log = _without_program(path, data.decode("utf-8", "replace"))
        every.append(log)
        if stated and any(_close(float(m), stated) for m in _BPB.findall(log.text)):
            reported.append(log)
    return (reported or every)[:MAX_LOGS]


def _stated(files: SubmissionFiles) -> list[tuple[float, float]]:
    """Scores in submission.json with at least four decimals, each with its rounding."""
    found: list[tuple[float, float]] = []
    for path in files.ending("submission.json"):
        for number in re.findall(r"[:\[\s](\d\.\d{4,})", files.text(path) or ""):
            found.append((float(number), 0.51 * 10.0 ** -(len(number) - 2)))
    return [(v, r) for v, r in found if 0.05 < v < 4]


def _close(value: float, stated: list[tuple[float, float]]) -> bool:
    return any(abs(value - number) <= radius for number, radius in stated)


def _without_program(path: str, text: str) -> Log:
    last = max(text.rfind("\ndef "), text.rfind("\nif __name__"), text.rfind("\n    def "))
    if last < 0:
        return Log(path, text, 1)
    rule = _RULE.search(text, last)
    start = rule.start() + 1 if rule else text.find("\n\n", last)
    start = max(start, 0)
    return Log(path, text[start:], text.count("\n", 0, start) + 1)


def claims(
    files: SubmissionFiles, declared: Mapping[str, Declaration], modules: Mapping[str, ir.Module]
) -> Iterator[Claim]:
    """Statements of the reported runs' logs. A log contributes each knob once."""
    logs = read_logs(files)
    if not logs:
        return
    names = _names(declared)
    shown = list(_branches(declared, modules))
    for log in logs:
        seen: set[str] = set()
        for claim in _dumped(log, declared, names):
            if claim.name not in seen:
                seen.add(claim.name)
                yield claim
        for branch in shown:
            if (match := branch.line.search(log.text)) is not None:
                number = log.line + log.text.count("\n", 0, match.start())
                yield Claim(
                    name=branch.name,
                    value=branch.value,
                    source="log",
                    path=log.path,
                    line=number,
                    rank=BRANCH,
                )


def _names(declared: Mapping[str, Declaration]) -> dict[str, str]:
    """Printed name -> knob. A name that two knobs share tells nothing."""
    found: dict[str, str] = {}
    shared: set[str] = set()
    for item in declared.values():
        for name in {item.name.lstrip("-").replace("-", "_"), item.attr} - {""}:
            for spelling in {name, name.lower()}:
                if found.setdefault(spelling, item.name) != item.name:
                    shared.add(spelling)
    exact = {d.name: d.name for d in declared.values()}
    return {k: v for k, v in found.items() if k not in shared} | exact


def _dumped(log: Log, declared: Mapping[str, Declaration], names: Mapping[str, str]) -> Iterator[Claim]:
    for offset, line in enumerate(log.text[:MAX_HEAD].split("\n")):
        if len(line) > 20_000 or ("=" not in line and ":" not in line):
            continue
        for match in _PAIR.finditer(line):
            name = names.get(match["name"])
            if name is None:
                continue
            value = match["value"].strip("\"'").rstrip(".")
            alone = line.strip() == match[0].strip()
            known = declared[name].default
            if not _LITERAL.fullmatch(value):
                # Words: only where the whole line is the pair, or the knob holds words.
                if not (alone or (known and not _LITERAL.fullmatch(known))) or not _WORD.fullmatch(value):
                    continue
                if value in (
                    "None",
                    "enabled",
                    "disabled",
                    "on",
                    "off",
                    "loaded",
                    "done",
                    "starting",
                    "start",
                ):
                    continue
            elif not alone and "_" not in match["name"] and value.lower() not in ("true", "false"):
                continue  # `lr: 0.31` in a progress line is not the knob
            yield Claim(
                name=name, value=spelled(value, known) if not name.startswith("-") else value,
                source="log", path=log.path, line=log.line + offset, rank=DUMP,
            )  # fmt: skip


# ------------------------------------------------------------- lines that one branch alone prints


@dataclass(frozen=True, slots=True)
class _Branch:
    name: str
    value: str
    line: re.Pattern[str]


def _branches(declared: Mapping[str, Declaration], modules: Mapping[str, ir.Module]) -> Iterator[_Branch]:
    by_attr: dict[str, str] = {}
    for item in declared.values():
        by_attr[item.attr or item.name] = item.name
        by_attr.setdefault(item.name.lower().lstrip("-").replace("-", "_"), item.name)
    for module in modules.values():
        functions: dict[str, list[ir.FunctionDef]] = {}
        tests: list[tuple[ir.If | ir.IfExp, dict[str, ir.Expr]]] = []
        for body in _bodies(module.body, functions):
            local: dict[str, ir.Expr] = {}
            for statement in _statements(body):
                if isinstance(statement, ir.Assign) and len(statement.targets) == 1:
                    if isinstance(target := statement.targets[0], ir.Name):
                        local[target.id] = statement.value
                elif isinstance(statement, ir.If):
                    tests.append((statement, local))
                elif isinstance(statement, ir.ExprStmt) and isinstance(call := statement.value, ir.Call):
                    for argument in call.args[:1]:
                        pieces = argument.values if isinstance(argument, ir.FString) else []
                        tests += [(piece, local) for piece in pieces if isinstance(piece, ir.IfExp)]
        printed = _Printed(module, functions)
        for branch, local in tests:
            wanted = list(_needed(branch.test, local, by_attr, declared, 0))
            if not wanted:
                continue
            for pattern in printed.only_in(branch):
                for name, value in wanted:
                    yield _Branch(name, value, pattern)


def _bodies(body: list[ir.Stmt], functions: dict[str, list[ir.FunctionDef]]) -> Iterator[list[ir.Stmt]]:
    """The module's body and every function's, methods and nested ones included."""
    yield body
    for statement in _statements(body):
        if isinstance(statement, ir.FunctionDef):
            functions.setdefault(statement.name, []).append(statement)
            yield from _bodies(statement.body, functions)
        elif isinstance(statement, ir.ClassDef):
            yield from _bodies(statement.body, functions)


def _statements(body: list[ir.Stmt]) -> Iterator[ir.Stmt]:
    """All statements of one scope, nested blocks included, functions and classes not entered."""
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        yield statement
        inner: list[ir.Stmt] = []
        if isinstance(statement, (ir.If, ir.For, ir.While)):
            inner = [*statement.body, *statement.orelse]
        elif isinstance(statement, ir.With):
            inner = statement.body
        elif isinstance(statement, ir.Try):
            inner = [*statement.body, *statement.orelse, *statement.finalbody]
            for handler in statement.handlers:
                inner += handler.body
        stack += reversed(inner)


def _needed(
    test: ir.Expr, local: Mapping[str, ir.Expr], by_attr: Mapping[str, str],
    declared: Mapping[str, Declaration], depth: int,
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Knob values without which ``test`` cannot hold."""
    if depth > 4:
        return
    if isinstance(test, ir.BoolOp) and test.op == "and":
        for part in test.values:
            yield from _needed(part, local, by_attr, declared, depth + 1)
    elif isinstance(test, ir.Name) and test.id in local:
        yield from _needed(local[test.id], local, by_attr, declared, depth + 1)
    elif (
        isinstance(test, ir.Call)
        and isinstance(test.func, ir.Name)
        and test.func.id in ("bool", "int")
        and test.args
    ):
        yield from _needed(test.args[0], local, by_attr, declared, depth + 1)
    elif (name := _knob(test, by_attr, declared)) is not None:
        if declared[name].default in ("0", "False", "false", ""):
            yield name, spelled("True", declared[name].default or "0")
    elif isinstance(test, ir.Compare) and len(test.ops) == 1 and (other := test.comparators[0]) is not None:
        name = _knob(test.left, by_attr, declared)
        if name is None or not isinstance(other, ir.Const):
            return
        if test.ops[0] == "==" and isinstance(other.value, (str, int)):
            yield name, str(int(other.value)) if isinstance(other.value, bool) else str(other.value)
        elif test.ops[0] == ">" and other.value == 0 and _zero(declared[name].default):
            yield name, "1"


def _zero(default: str | None) -> bool:
    try:
        return default is not None and float(default) == 0
    except ValueError:
        return False


def _knob(e: ir.Expr, by_attr: Mapping[str, str], declared: Mapping[str, Declaration]) -> str | None:
    """The knob that an expression reads: ``args.x``, ``X``, ``os.environ.get("X", "0")``."""
    if isinstance(e, ir.Call):
        if e.args and isinstance(first := e.args[0], ir.Const) and first.value in declared:
            return str(first.value)
        return None
    word = e.attr if isinstance(e, ir.Attr) else e.id if isinstance(e, ir.Name) else None
    return by_attr.get(word) if word is not None else None


class _Printed:
    """Format strings that calls print, and where each stands."""

    def __init__(self, module: ir.Module, functions: Mapping[str, list[ir.FunctionDef]]) -> None:
        self.functions = functions
        self.text = "\n".join(module.lines)

    def only_in(self, branch: ir.If | ir.IfExp) -> list[re.Pattern[str]]:
        """Patterns of what the body of ``branch`` prints whenever it runs."""
        if isinstance(branch, ir.IfExp):
            pattern = self._pattern(branch.body)
            return [] if pattern is None else [pattern]
        found = []
        for statement in self._certain(branch.body):
            value = statement.value if isinstance(statement, ir.ExprStmt) else None
            if not isinstance(value, ir.Call) or not value.args:
                continue
            if (pattern := self._pattern(value.args[0])) is not None:
                found.append(pattern)
        return found

    def _certain(self, body: list[ir.Stmt]) -> Iterator[ir.Stmt]:
        for statement in body:
            if isinstance(statement, (ir.If, ir.With)):
                yield from self._certain(statement.body)
            else:
                yield statement

    def _pattern(self, e: ir.Expr) -> re.Pattern[str] | None:
        if isinstance(e, ir.Const) and isinstance(e.value, str):
            pieces: list[str | None] = [e.value]
        elif isinstance(e, ir.FString):
            pieces = [
                x.value if isinstance(x, ir.Const) and isinstance(x.value, str) else None for x in e.values
            ]
        else:
            return None
        texts = [p for p in pieces if p]
        longest = max(texts, key=len, default="")
        if sum(map(len, texts)) < 8 or len(longest) < 5 or not re.search(r"[A-Za-z]{3}", longest):
            return None
        if self.text.count(json.dumps(longest, ensure_ascii=False)[1:-1]) != 1:
            return None  # printed elsewhere too
        return re.compile(
            "".join(r"[^\n]{0,120}?" if p is None else re.escape(p.strip("\n")) for p in pieces)
        )
