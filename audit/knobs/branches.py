"""Lines that one branch alone prints: a log that has one shows how the branch's test came out.

A log line that only the body of ``if args.slot_steps > 0:`` can print shows that the knob was above zero, one that
only its ``else`` prints that it was not. This is read off the program and needs no convention about names. It
tells a condition; the value is what other papers state, or the code's default, whichever meets it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit import ir
from audit.knobs.declared import spelled
from audit.knobs.model import Declaration

_OPPOSITE = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "==", "on": "off", "off": "on"}
_MIRROR = {">": "<", ">=": "<=", "<": ">", "<=": ">="}


@dataclass(frozen=True, slots=True)
class Condition:
    """What a knob's value must meet: ``on``, ``off``, or a comparison with ``other``."""

    name: str
    op: str
    other: Any = None

    def met(self, value: str) -> bool:
        if self.op in ("on", "off"):
            return (value.strip().lower() not in ("", "0", "0.0", "false", "no", "off", "none")) == (self.op == "on")
        if self.op in ("==", "!="):
            same = value == str(self.other)
            if not same and isinstance(self.other, (bool, int, float)):
                same = _number(value) == float(self.other)
            return same == (self.op == "==")
        number, other = _number(value), float(self.other)
        if number is None:
            return False
        return {">": number > other, ">=": number >= other, "<": number < other, "<=": number <= other}[self.op]

    def least(self, default: str | None) -> str | None:
        """A value that meets it where no paper states one: the nearest."""
        if self.op in ("on", "off"):
            return spelled(str(self.op == "on"), default)
        if self.op in ("==", ">=", "<="):
            return str(int(self.other)) if isinstance(self.other, bool) else str(self.other)
        if self.op == ">" and self.other == int(self.other):
            return str(int(self.other) + 1)
        return None

    def negated(self) -> Condition:
        return Condition(self.name, _OPPOSITE[self.op], self.other)


def settled(conditions: Sequence[Condition], stated: Sequence[str], default: str | None) -> str | None:
    """The first of the ``stated`` values that meets all ``conditions``, else the default, else the nearest value."""
    candidates = [*stated, *([default] if default is not None else [])]
    for value in candidates:
        if all(c.met(value) for c in conditions):
            return value
    for nearest in (c.least(default) for c in conditions):
        if nearest is not None and all(c.met(nearest) for c in conditions):
            return nearest
    return None


@dataclass(frozen=True, slots=True)
class Branch:
    """A line's pattern, and what its presence in a log shows. ``word``: the longest text that every such line has."""

    conditions: tuple[Condition, ...]
    line: re.Pattern[str]
    word: str
    #: what the same call prints next before and next after the test, whichever way the test goes
    around: tuple[Branch, ...] = ()
    #: what holds where the line was not printed though its neighbours were
    otherwise: tuple[Condition, ...] = ()

    def missed(self, log: str) -> re.Match[str] | None:
        """The line that was printed next, in a log that passed the place and does not have this line."""
        if not self.around or not self.otherwise or self.found(log) is not None:
            return None
        seen = [near.found(log) for near in self.around]
        return seen[-1] if all(seen) else None

    def found(self, log: str) -> re.Match[str] | None:
        """The first such line; only lines with ``word`` are tried: on whole logs, gaps in a pattern cost seconds."""
        if "\n" in self.line.pattern:
            return self.line.search(log) if self.word in log else None
        at = log.find(self.word)
        while at >= 0:
            end = log.find("\n", at)
            end = len(log) if end < 0 else end
            if (match := self.line.search(log, log.rfind("\n", 0, at) + 1, end)) is not None:
                return match
            at = log.find(self.word, end)
        return None


def branches(declared: Mapping[str, Declaration], modules: Mapping[str, ir.Module]) -> Iterator[Branch]:
    """Every line that only one side of a test on knobs prints."""
    by_attr: dict[str, str] = {}
    for item in declared.values():
        by_attr[item.attr or item.name] = item.name
        by_attr.setdefault(item.name.lower().lstrip("-").replace("-", "_"), item.name)
    for module in modules.values():
        tests: list[tuple[ir.If | ir.IfExp, dict[str, ir.Expr]]] = []
        printed = _Printed(module)
        homes: dict[int, tuple[list[ir.Stmt], int]] = {}
        for body in _bodies(module.body):
            local: dict[str, ir.Expr] = {}
            for statement in _statements(body):
                if isinstance(statement, ir.Assign) and len(statement.targets) == 1:
                    if isinstance(target := statement.targets[0], ir.Name):
                        # A name with two values tells nothing about which of them the test saw.
                        local[target.id] = ir.Const(None) if target.id in local else statement.value
                elif isinstance(statement, ir.If):
                    tests.append((statement, local))
                elif isinstance(statement, ir.ExprStmt) and isinstance(call := statement.value, ir.Call):
                    for argument in call.args[:1]:
                        pieces = argument.values if isinstance(argument, ir.FString) else []
                        tests += [(piece, local) for piece in pieces if isinstance(piece, ir.IfExp)]
            for block in _blocks(body):
                homes |= {id(s): (block, at) for at, s in enumerate(block) if isinstance(s, ir.If)}
        for branch, local in tests:
            read = _Read(local, by_attr, declared)
            for side, holds in ((branch.body, True), (branch.orelse, False)):
                if conditions := tuple(read.conditions(branch.test, holds)):
                    around = printed.around(*homes[id(branch)]) if holds and id(branch) in homes else ()
                    otherwise = tuple(read.conditions(branch.test, False)) if around else ()
                    for number, (pattern, word) in enumerate(printed.only_in(side)):
                        first = number == 0
                        yield Branch(conditions, pattern, word, around if first else (), otherwise if first else ())


def _bodies(body: list[ir.Stmt]) -> Iterator[list[ir.Stmt]]:
    """The module's body and every function's, methods and nested ones included."""
    yield body
    for statement in _statements(body):
        if isinstance(statement, (ir.FunctionDef, ir.ClassDef)):
            yield from _bodies(statement.body)


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


def _blocks(body: list[ir.Stmt]) -> Iterator[list[ir.Stmt]]:
    """The lists of statements of one scope that run through: ``body`` and the bodies of its tests and loops."""
    yield body
    for statement in _statements(body):
        if isinstance(statement, (ir.If, ir.For, ir.While)):
            yield from (statement.body, statement.orelse)
        elif isinstance(statement, (ir.With, ir.Try)):
            yield statement.body


@dataclass(frozen=True, slots=True)
class _Read:
    """Reads conditions off a test. ``local``: what the names of the function around it were assigned."""

    local: Mapping[str, ir.Expr]
    by_attr: Mapping[str, str]
    declared: Mapping[str, Declaration]

    def conditions(self, test: ir.Expr, holds: bool, depth: int = 0) -> Iterator[Condition]:
        """Conditions without which ``test`` cannot hold; with ``holds`` False, without which it cannot fail."""
        if depth > 4:
            return
        if isinstance(test, ir.BoolOp):
            if test.op == ("and" if holds else "or"):
                for part in test.values:
                    yield from self.conditions(part, holds, depth + 1)
        elif isinstance(test, ir.UnaryOp):
            if test.op == "not":
                yield from self.conditions(test.operand, not holds, depth + 1)
        elif (inner := self._inner(test)) is not None:
            yield from self.conditions(inner, holds, depth + 1)
        elif (one := self._one(test)) is not None:
            yield one if holds else one.negated()

    def _inner(self, test: ir.Expr) -> ir.Expr | None:
        if isinstance(test, ir.Name):
            return self.local.get(test.id)
        if isinstance(test, ir.Call) and isinstance(test.func, ir.Name) and test.func.id in ("bool", "int"):
            return test.args[0] if test.args else None
        return None

    def _one(self, test: ir.Expr) -> Condition | None:
        if (name := _knob(test, self.by_attr, self.declared)) is not None:
            # A word that is there or not ("", a path) and a number that is zero or not are switches alike.
            return Condition(name, "on")
        if isinstance(test, ir.Compare) and len(test.ops) == 1:
            op, left, right = test.ops[0], test.left, test.comparators[0]
            if isinstance(left, ir.Const):
                op, left, right = _MIRROR.get(op, op), right, left
            name = _knob(left, self.by_attr, self.declared)
            if name is None or not isinstance(right, ir.Const) or op not in _OPPOSITE:
                return None
            if op in ("==", "!=") and isinstance(right.value, (str, int)):
                return Condition(name, op, right.value)
            if isinstance(right.value, (int, float)) and _number(self.declared[name].default) is not None:
                return Condition(name, op, right.value)
        return None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _knob(e: ir.Expr, by_attr: Mapping[str, str], declared: Mapping[str, Declaration]) -> str | None:
    """The knob that an expression reads: ``args.x``, ``X``, ``os.environ.get("X", "0")``."""
    if isinstance(e, ir.Call):
        if e.args and isinstance(first := e.args[0], ir.Const) and first.value in declared:
            return str(first.value)
        return None
    word = e.attr if isinstance(e, ir.Attr) else e.id if isinstance(e, ir.Name) else None
    return by_attr.get(word) if word is not None else None


class _Printed:
    """Format strings that calls print."""

    def __init__(self, module: ir.Module) -> None:
        self.text = "\n".join(module.lines)

    def only_in(self, side: list[ir.Stmt] | ir.Expr) -> list[tuple[re.Pattern[str], str]]:
        """Patterns of what one side of a test prints, each with its longest text."""
        if isinstance(side, ir.Expr):
            pattern = self._pattern(side)
            return [] if pattern is None else [pattern]
        found = []
        for statement in self._certain(side):
            value = statement.value if isinstance(statement, ir.ExprStmt) else None
            if not isinstance(value, ir.Call) or not value.args:
                continue
            if (pattern := self._pattern(value.args[0])) is not None:
                found.append(pattern)
        return found

    def around(self, block: list[ir.Stmt], at: int) -> tuple[Branch, ...]:
        """What is printed next before and next after the test ``block[at]``, by the call that its body begins with."""
        first = next((s for s in block[at].body if self._callee(s)), None)  # type: ignore[attr-defined]
        name = self._callee(first) if first is not None else ""
        if not name or self._pattern(first.value.args[0]) is None:  # type: ignore[union-attr]
            return ()
        found = []
        for siblings in (reversed(block[:at]), block[at + 1 :]):
            near = next((s for s in siblings if self._callee(s) == name), None)
            pattern = self._pattern(near.value.args[0]) if near is not None else None  # type: ignore[attr-defined]
            if pattern is None:
                return ()
            found.append(Branch((), *pattern))
        return tuple(found)

    @staticmethod
    def _callee(s: ir.Stmt) -> str:
        """``log0`` of a statement ``log0("…")``, else nothing."""
        call = s.value if isinstance(s, ir.ExprStmt) else None
        return call.func.id if isinstance(call, ir.Call) and call.args and isinstance(call.func, ir.Name) else ""

    def _certain(self, body: list[ir.Stmt]) -> Iterator[ir.Stmt]:
        for statement in body:
            if isinstance(statement, (ir.If, ir.With)):
                yield from self._certain(statement.body)
            else:
                yield statement

    def _pattern(self, e: ir.Expr) -> tuple[re.Pattern[str], str] | None:
        if isinstance(e, ir.Const) and isinstance(e.value, str):
            pieces: list[str | None] = [e.value]
        elif isinstance(e, ir.FString):
            pieces = ir.pieces(e)
        else:
            return None
        texts = [p for p in pieces if p]
        longest = max(texts, key=len, default="")
        if sum(map(len, texts)) < 8 or len(longest) < 5 or not re.search(r"[A-Za-z]{3}", longest):
            return None
        if self.text.count(json.dumps(longest, ensure_ascii=False)[1:-1]) != 1:
            return None  # printed elsewhere too
        line = "".join(r"[^\n]{0,120}?" if p is None else re.escape(p.strip("\n")) for p in pieces)
        return re.compile(line), longest.strip("\n")
