"""The source side of rule M1: how a script measures the bytes of its tokenizer's pieces.

No rule lives here. Two mistakes make the denominator too large: the table counts the leading space of
a piece and the evaluation counts it again, and byte pieces (``<0xE2>``, one byte) are measured by the
length of their printed name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.code import Code, Place, code_of, finding

_PIECES = frozenset({"id_to_piece", "IdToPiece"})
_BYTE_TESTS = frozenset({"is_byte", "IsByte"})


def byte_table(rule: Rule, ctx: Context) -> Iterator[Finding | Obligation]:
    """Findings at wrong tables, or one "holds" where a table was read and is right."""
    code = code_of(ctx)
    builders = [p for p in code.places if id(p) in code.reached and _measures(p)]
    if not builders:
        return
    again = _adds_space(code)
    wrong = False
    for place in builders:
        plus = _plus_one(place)
        if plus is not None and again:
            wrong = True
            yield finding(
                rule, code, place, plus,
                f"the table counts a piece's leading space, and line {again[0]} adds it again: the bytes are too many",
            )  # fmt: skip
        elif not _knows_bytes(place):
            wrong = True
            yield finding(
                rule, code, place, _length(place) or place.function or place.module,
                "byte pieces are measured by their printed name (<0xE2> as six bytes): the bytes are too many",
            )  # fmt: skip
    if not wrong:
        yield Obligation(
            rule=rule.id,
            status="holds",
            reason="the byte table counts each piece once, its space and byte pieces included",
        )


def _measures(place: Place) -> bool:
    """Does the function look pieces up and measure encoded text."""
    return bool(_PIECES & place.names) and _length(place) is not None


def _length(place: Place) -> ir.Call | None:
    """``len(….encode(…))``, or the length of a piece."""
    for node in sorted(place.nodes(), key=lambda n: (n.line, n.col)):
        if isinstance(node, ir.Call) and _encoded_length(node):
            return node
    return None


def _knows_bytes(place: Place) -> bool:
    if _BYTE_TESTS & place.names:
        return True
    return any(
        isinstance(n, ir.Const) and isinstance(n.value, str) and "0x" in n.value.lower()
        for n in place.nodes()
    )


def _plus_one(place: Place) -> ir.Node | None:
    """The addition of one to an encoded length, where it is stored into a table."""
    for node in place.nodes():
        if isinstance(node, ir.BinOp) and node.op == "+":
            sides = (node.left, node.right)
            one = any(isinstance(s, ir.Const) and s.value == 1 for s in sides)
            if one and any(_encoded_length(s) for s in sides):
                return node
    return None


def _encoded_length(node: Any) -> bool:
    return (
        isinstance(node, ir.Call) and isinstance(node.func, ir.Name) and node.func.id == "len"
        and any(isinstance(n, ir.Attr) and n.attr == "encode" for n in ir.walk(node.args))
    )  # fmt: skip


def _adds_space(code: Code) -> list[int]:
    """Lines at which ``leading[target] & ~boundary[previous]`` is added to a count."""
    lines = []
    for place in code.places:
        if id(place) not in code.reached:
            continue
        for node in place.nodes():
            added = node.value if isinstance(node, ir.AugAssign) and node.op == "+" else None
            if isinstance(node, ir.BinOp) and node.op == "+":
                added = node
            if added is not None and any(_space_flag(n) for n in ir.walk(added)):
                lines.append(node.line)
    return lines


def _space_flag(node: Any) -> bool:
    if not (isinstance(node, ir.BinOp) and node.op == "&"):
        return False
    sides = (node.left, node.right)
    negated = any(isinstance(s, ir.UnaryOp) and s.op == "~" for s in sides)
    return negated and all(any(isinstance(n, ir.Sub) for n in ir.walk(s)) for s in sides)
