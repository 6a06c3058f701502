"""The source side of rule M1: how a script measures the bytes of its tokenizer's pieces.

No rule lives here. These mistakes make the denominator too large: the table counts the leading space of a piece
and the evaluation counts it again; the mark that stands for it (U+2581) is measured as the three bytes that it is
itself; byte pieces (``<0xE2>``, one byte) are measured by the length of their printed name; the evaluation adds a
byte to every ordinary token. A mark that was damaged when the script was saved (``piece.startswith("?")``) is met by no
piece, so that nothing is taken off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from audit import ir
from audit.context import Context
from audit.ir import called
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.code import Code, Place, code_of, finding
from audit.rules.pieces import (
    BYTE_TESTS,
    MARK,
    PIECES,
    bound,
    encoded,
    encoded_length,
    flags_mark,
    has_mark,
    is_const,
    length_of_bytes,
    lengths,
    made_of_pieces,
    measures,
)
from audit.rules.spaces import added_twice, counted_space, long_bytes

_STRIPS = frozenset(["lstrip", "strip", "removeprefix", "replace", "translate", "sub", "split", "partition", "decode", "join"])
#: calls that leave a count or a flag what it is
_SAME = frozenset(["to", "int", "long", "float", "double", "half", "short", "type", "astype", "sum", "item", "cpu", "cuda", "numpy"])
_LOGICAL = {"logical_and": "&", "logical_or": "|", "logical_not": "~", "bitwise_and": "&", "bitwise_or": "|", "bitwise_not": "~"}
#: a table that is set where it holds not, of which an ordinary token's entry is unknown
_INVERSE = re.compile(r"(?:^|[._])(?:not|non?|in)_|ordinary|normal|inner", re.I)


def byte_table(rule: Rule, ctx: Context, right: Callable[[Context], str]) -> Iterator[Finding | Obligation]:
    """Findings at wrong tables, or one "holds" where a table was read and is right.

    ``right``: how the papers show that a run had the right bytes, if they do. A script that was damaged afterwards had another table.
    """
    code = code_of(ctx)
    builders = [p for p in code.places if id(p) in code.reached and measures(p)]
    if not builders:
        return
    again = _adds_space(code)
    own = any(p.function is not None and p.function.name in PIECES for p in code.places)
    wrong = False
    for place in builders:
        plus = _plus_one(place) or _spaced(place) or counted_space(place)
        if plus is not None and again:
            wrong = True
            yield finding(
                rule, code, place, plus,
                f"the table counts a piece's leading space, and line {again[0]} adds it again: the bytes are too many",
            )  # fmt: skip
        elif not _knows_bytes(place):
            wrong = True
            yield finding(
                rule, code, place, length_of_bytes(place) or place.function or place.module,
                "byte pieces are measured by their printed name (<0xE2> as six bytes): the bytes are too many",
            )  # fmt: skip
        elif (long := long_bytes(place)) is not None:
            wrong = True
            yield finding(rule, code, place, long[0], f"{long[1]}: the bytes are too many")
        elif (bare := _bare(place)) is not None:
            wrong = True
            yield finding(
                rule, code, place, bare,
                "a piece's space mark (U+2581) is measured as three bytes, a space is one: the bytes are too many",
            )  # fmt: skip
        elif not own and (damaged := _damaged(place)) is not None and (bare := _bare(place, _within(damaged))) is not None:
            test = damaged[0].test
            if logged := right(ctx):
                yield Obligation(rule=rule.id, status="holds", reason=f"line {test.line} looks for no space mark, but {logged}")
                return
            wrong = True
            yield finding(
                rule, code, place, bare,
                f"line {test.line} takes {_prefix(test)!r} for the space mark (U+2581), which stays on the pieces and is measured "
                "as three bytes: the bytes are too many",
            )  # fmt: skip
    for place, added, line in added_twice(code, _leads(code)):
        wrong = True
        yield finding(rule, code, place, added, f"line {line} adds a piece's leading space, and it is added again here: the bytes are too many")
    for place, added in _added_to_all(code):
        wrong = True
        yield finding(
            rule, code, place, added,
            "a byte is added to every token that is no boundary, not only for a leading space: the bytes are too many",
        )  # fmt: skip
    if not wrong:
        yield Obligation(
            rule=rule.id,
            status="holds",
            reason="the byte table counts each piece once, its space and byte pieces included",
        )


# ---------------------------------------------------------------- the table
def _knows_bytes(place: Place) -> bool:
    if BYTE_TESTS & place.names:
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
            if one and any(encoded_length(s) for s in sides):
                return node
    return None


def _spaced(place: Place) -> ir.Node | None:
    """A length that has the mark as a space, in a function that also tells which pieces have the mark.

    A function that only measures may serve another count, to which nothing is added.
    """
    if not flags_mark(place) or _strips(place):
        return None
    return next((n for n in lengths(place) if _text(place, encoded(n)) == "spaced"), None)


def _bare(place: Place, closed: frozenset[int] = frozenset()) -> ir.Node | None:
    """A length of pieces as the tokenizer writes them, in a function that takes nothing off any text.

    ``closed``: nodes of branches that no piece gets to.
    """
    if _strips(place, closed):
        return None
    return next((n for n in lengths(place) if id(n) not in closed and _text(place, encoded(n), closed=closed) == "bare"), None)


def _damaged(place: Place) -> list[ir.If] | None:
    """``if piece.startswith("?"):``, each of a function's tests on how pieces begin, where none of them knows the mark."""
    texts = [n.value for n in place.nodes(ir.Const)]
    if any((isinstance(t, str) and MARK in t) or t in (0x2581, b"\xe2\x96\x81") for t in texts):
        return None
    found = [n for n in place.nodes(ir.If) if (text := _prefix(n.test)) is not None and not text.startswith("<")]
    return found or None


def _prefix(test: Any) -> str | None:
    """``"?"`` of ``piece.startswith("?")``."""
    if isinstance(test, ir.Call) and isinstance(test.func, ir.Attr) and test.func.attr == "startswith" and len(test.args) == 1:
        text = test.args[0].value if isinstance(test.args[0], ir.Const) else None
        return text if isinstance(text, str) and text else None
    return None


def _within(branches: list[ir.If]) -> frozenset[int]:
    return frozenset(id(n) for branch in branches for n in ir.walk(branch.body))


def _text(
    place: Place, e: Any, seen: dict[str, str | None] | None = None, closed: frozenset[int] = frozenset()
) -> str | None:
    """``bare``: a piece as it is; ``spaced``: with a space for the mark; None: something else was done to it."""
    seen = {} if seen is None else seen
    if isinstance(e, ir.Call):
        name = called(e)
        if name in PIECES:
            return "bare"
        if name == "replace" and isinstance(e.func, ir.Attr) and len(e.args) == 2 and is_const(e.args[1], " "):
            inner = _text(place, e.func.value, seen, closed)
            return "spaced" if inner is not None and (has_mark(e.args[0]) or isinstance(e.args[0], ir.Name)) else inner
        if name in ("enumerate", "list", "tuple", "zip", "map"):
            if any(isinstance(a, ir.Attr) and a.attr in PIECES for a in e.args):
                return "bare"
            told = [_text(place, a, seen, closed) for a in e.args]
            return next((t for t in told if t is not None), None)
        return None
    if isinstance(e, ir.Name):
        if e.id not in seen:
            seen[e.id] = "bare"  # made of what it was
            told = [_text(place, value, seen, closed) for value in bound(place, e.id, closed)]
            seen[e.id] = None if not told or None in told else "spaced" if "spaced" in told else "bare"
        return seen[e.id]
    if isinstance(e, ir.Sub) and not isinstance(e.index, ir.Slice):
        return _text(place, e.value, seen, closed)
    if isinstance(e, ir.Comp) and e.kind != "dict":
        return _text(place, e.elt, seen, closed)
    return None


def _strips(place: Place, closed: frozenset[int] = frozenset()) -> bool:
    """Is anything taken off a piece's text, or off its length, other than a space put for the mark."""
    names = made_of_pieces(place)

    def of_piece(e: Any) -> bool:
        return any(
            (isinstance(n, ir.Name) and n.id in names) or (isinstance(n, ir.Attr) and n.attr in PIECES)
            for n in ir.walk(e)
        )

    for node in place.nodes():
        if id(node) in closed:
            continue
        if isinstance(node, ir.Sub):
            if isinstance(node.index, ir.Slice) and node.index.lower is not None and of_piece(node.value):
                return True
        elif isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _STRIPS:
            spaces = node.func.attr == "replace" and len(node.args) == 2 and is_const(node.args[1], " ")
            if not spaces and of_piece(node):
                return True
        elif isinstance(node, (ir.BinOp, ir.AugAssign)) and node.op == "-" and of_piece(node):
            return True
    return False


# ---------------------------------------------------------------- the count
def _adds_space(code: Code) -> list[int]:
    """Lines at which ``leading[target] & ~boundary[previous]`` is added to a count."""
    lines = []
    for place in code.places:
        if id(place) not in code.reached:
            continue
        for node in place.nodes(ir.If, ir.AugAssign, ir.BinOp):
            if isinstance(node, ir.If) and _space_flag(node.test):
                counts = (s for s in node.body if isinstance(s, ir.AugAssign) and s.op == "+" and is_const(s.value, 1))
                lines += [s.line for s in counts]
                continue
            added = node.value if isinstance(node, ir.AugAssign) and node.op == "+" else None
            if isinstance(node, ir.BinOp) and node.op == "+":
                added = node
            if added is not None and any(_space_flag(n) for n in ir.walk(added)):
                lines.append(node.line)
    return sorted(lines)


def _leads(code: Code) -> dict[str, int]:
    """The tables of leading spaces that a count reads, with a line each."""
    found: dict[str, int] = {}
    for place in code.places:
        for node in place.nodes(ir.BinOp, ir.BoolOp, ir.Call) if id(place) in code.reached else ():
            if _space_flag(node):
                first, second = _tables(node)
                plain = first if _count(node, {first: 1, second: 0}) else second
                found.setdefault(plain.rpartition(".")[2], node.line)
    return found


def _space_flag(node: Any) -> bool:
    """``a[…] & ~b[…]`` in any spelling: true where the one table is set and the other is not."""
    if isinstance(node, (ir.BinOp, ir.BoolOp, ir.UnaryOp)):
        joins = node.op in ("&", "*", "and", "~", "not")
    else:
        joins = isinstance(node, ir.Call) and called(node) in _LOGICAL
    if not joins or len(tables := _tables(node)) != 2:
        return False
    ways = [_count(node, dict(zip(tables, bits, strict=True))) for bits in product((0, 1), repeat=2)]
    return ways in ([0, 1, 0, 0], [0, 0, 1, 0])


def _added_to_all(code: Code) -> Iterator[tuple[Place, ir.Node]]:
    """Sums over byte tables that an ordinary token, which neither leads nor bounds, adds a byte to."""
    for place in code.places:
        if id(place) not in code.reached:
            continue
        inner: set[int] = set()
        for node in place.nodes(ir.AugAssign, ir.BinOp):  # a sum stands before its parts
            sum_: Any = node
            least = 3
            if isinstance(node, ir.BinOp) and node.op == "+":
                if id(node) in inner:
                    continue
                inner |= {id(n) for n in ir.walk(node)}
            elif isinstance(node, ir.AugAssign) and node.op == "+":
                sum_, least = node.value, 2
                if not any(isinstance(n, ir.BinOp) and n.op == "|" for n in ir.walk(sum_)):
                    continue
            else:
                continue
            tables = _tables(sum_)
            if len(tables) < least or not _negates(sum_) or any(_INVERSE.search(t) for t in tables):
                continue
            if (_count(sum_, dict.fromkeys(tables, 0)) or 0) >= 1:
                yield place, node


def _negates(e: Any) -> bool:
    """Is a table's entry negated in it."""
    for n in ir.walk(e):
        inner = n.operand if isinstance(n, ir.UnaryOp) and n.op in ("~", "not") else None
        if isinstance(n, ir.Call) and _LOGICAL.get(called(n)) == "~" and n.args:
            inner = n.args[0]
        if inner is not None and _tables(inner):
            return True
    return False


def _tables(e: Any) -> list[str]:
    """The tables that an expression looks tokens up in; what the tokens are looked up with is no table."""
    found: set[str] = set()
    todo = [e]
    while todo:
        n = todo.pop()
        if isinstance(n, ir.Sub):
            found.add(_table(n))
        else:
            todo += ir.children(n)
    return sorted(found - {""})


def _table(n: ir.Sub) -> str:
    """``base[tokens]``, ``luts[0][tokens]``: the name of what is looked up in; "" for a part of an array."""
    parts = n.index.elts if isinstance(n.index, ir.Collection) else [n.index]
    if any(isinstance(p, (ir.Slice, ir.Const)) for p in parts):
        return ""
    if isinstance(n.value, ir.Sub) and isinstance(n.value.index, ir.Const):
        return f"{_dotted(n.value.value)}.{n.value.index.value}"
    return _dotted(n.value)


def _dotted(e: Any) -> str:
    parts = []
    while isinstance(e, ir.Attr):
        parts.append(e.attr)
        e = e.value
    return ".".join([e.id, *reversed(parts)]) if isinstance(e, ir.Name) else ""


def _count(e: Any, entries: dict[str, int]) -> int | None:
    """What an expression over tables comes to, given the tables' entries; None where it is more than flags and sums."""
    if isinstance(e, ir.Const):
        return int(e.value) if isinstance(e.value, (bool, int)) else None
    if isinstance(e, ir.Sub):
        return entries.get(_table(e))
    if isinstance(e, ir.UnaryOp) and e.op in ("~", "not"):
        return _flag(_count(e.operand, entries))
    if isinstance(e, (ir.BinOp, ir.BoolOp)):
        parts = [_count(x, entries) for x in ((e.left, e.right) if isinstance(e, ir.BinOp) else e.values)]
        return _together(e.op, parts)
    if not isinstance(e, ir.Call):
        return None
    name = called(e)
    if name in _LOGICAL:
        parts = [_count(a, entries) for a in e.args]
        if isinstance(e.func, ir.Attr) and len(parts) < (1 if _LOGICAL[name] == "~" else 2):
            parts.append(_count(e.func.value, entries))
        return _flag(parts[0]) if _LOGICAL[name] == "~" and parts else _together(_LOGICAL[name], parts)
    if name in _SAME and isinstance(e.func, ir.Attr):
        return _count(e.func.value, entries)
    if name in ("int", "float", "bool") and len(e.args) == 1:
        return _count(e.args[0], entries)
    return None


def _flag(value: int | None) -> int | None:
    return 1 - value if value in (0, 1) else None  # type: ignore[operator]


def _together(op: str, parts: list[int | None]) -> int | None:
    if not parts or None in parts:
        return None
    total, *rest = [p for p in parts if p is not None]
    for p in rest:
        if op in ("&", "and", "*"):
            total *= p
        elif op in ("|", "or"):
            total = max(total, p)
        elif op in ("+", "-"):
            total = total + p if op == "+" else total - p
        else:
            return None
    return total
