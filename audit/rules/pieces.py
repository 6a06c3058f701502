"""How the syntax of a byte table is read: pieces of a tokenizer, their space marks, the lengths of their encoded text.

No rule lives here; `audit.rules.byte_table` and `audit.rules.spaces` ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.ir import called
from audit.rules.code import Place

PIECES = frozenset({"id_to_piece", "IdToPiece"})
BYTE_TESTS = frozenset({"is_byte", "IsByte"})
MARK = "\u2581"


def measures(place: Place) -> bool:
    """Does the function look pieces up and measure encoded text."""
    return bool(PIECES & place.names) and length(place) is not None


def lengths(place: Place) -> list[ir.Call]:
    """``len(….encode(…))`` in the order of the text."""
    found = [node for node in place.nodes(ir.Call) if encoded_length(node)]
    return sorted(found, key=lambda n: (n.line, n.col))


def length(place: Place) -> ir.Call | None:
    return next(iter(lengths(place)), None)


def length_of_bytes(place: Place) -> ir.Call | None:
    """The first length that byte pieces come to: their names (``<0xE2>``) do not begin with the mark."""
    inner = {id(n) for branch in place.nodes(ir.If) if mark_test(branch.test) for n in ir.walk(branch.body)}
    first = length(place)
    if first is None or id(first) not in inner:
        return first
    encoded = {
        t.id for n in place.nodes(ir.Assign) for t in n.targets
        if isinstance(t, ir.Name) and isinstance(n.value, ir.Call) and isinstance(n.value.func, ir.Attr) and n.value.func.attr == "encode"
    }  # fmt: skip
    found = [
        n for n in place.nodes(ir.Call)
        if id(n) not in inner and (encoded_length(n) or (
            isinstance(n.func, ir.Name) and n.func.id == "len" and len(n.args) == 1 and isinstance(n.args[0], ir.Name) and n.args[0].id in encoded
        ))
    ]  # fmt: skip
    return min(found, key=lambda n: (n.line, n.col), default=first)


def encoded_length(node: Any) -> bool:
    return (
        isinstance(node, ir.Call) and isinstance(node.func, ir.Name) and node.func.id == "len"
        and any((isinstance(n, ir.Attr) and n.attr == "encode") or _bytes_of(n) for n in ir.walk(node.args))
    )  # fmt: skip


def _bytes_of(e: Any) -> bool:
    """``bytes(text, "utf-8")``"""
    return isinstance(e, ir.Call) and isinstance(e.func, ir.Name) and e.func.id == "bytes" and len(e.args) == 2


def encoded(length: ir.Call) -> Any:
    """The text whose encoding is measured, where it stands right there."""
    inner = length.args[0]
    if _bytes_of(inner):
        return inner.args[0]  # type: ignore[attr-defined]
    direct = isinstance(inner, ir.Call) and isinstance(inner.func, ir.Attr) and inner.func.attr == "encode"
    return inner.func.value if direct else None  # type: ignore[attr-defined]


def mark_test(e: Any) -> bool:
    """``piece.startswith(mark)``, ``piece[:1] == mark`` or a condition with one."""
    if isinstance(e, ir.BoolOp):
        return any(mark_test(v) for v in e.values)
    if isinstance(e, ir.Compare):
        return e.ops[0] == "==" and any(has_mark(x) for x in (e.left, *e.comparators))
    if isinstance(e, ir.Call):
        if isinstance(e.func, ir.Attr) and e.func.attr == "startswith":
            return any(has_mark(a) for a in e.args)
        return isinstance(e.func, ir.Name) and e.func.id in ("bool", "int") and any(mark_test(a) for a in e.args)
    return False


def has_mark(e: Any) -> bool:
    return any(isinstance(n, ir.Const) and isinstance(n.value, str) and MARK in n.value for n in ir.walk(e))


def is_const(e: Any, value: Any) -> bool:
    return isinstance(e, ir.Const) and e.value == value


def flags_mark(place: Place) -> bool:
    """Is a table made that tells which pieces begin with the mark."""
    for node in place.nodes():
        if isinstance(node, ir.Comp) and mark_test(node.elt):
            return True
        if isinstance(node, ir.Assign) and any(isinstance(t, ir.Sub) for t in node.targets) and mark_test(node.value):
            return True
        kept = node.args[:1] if isinstance(node, ir.Call) and called(node) == "append" else [node.value] if isinstance(node, ir.Return) else []
        if any(mark_test(x) for e in kept for x in (e.elts if isinstance(e, ir.Collection) else [e])):
            return True  # ``leads.append(piece.startswith(mark))``, ``return size, piece.startswith(mark)``
        if isinstance(node, ir.If) and mark_test(node.test):
            inner = [s for s in node.body if isinstance(s, ir.Assign) and any(isinstance(t, ir.Sub) for t in s.targets)]
            if any(isinstance(s.value, ir.Const) and s.value.value in (True, 1) for s in inner):
                return True
    return False


def bound(place: Place, name: str, closed: frozenset[int] = frozenset()) -> Iterator[Any]:
    """What a name is assigned in the function, loops and comprehensions included."""
    for node in place.nodes():
        if id(node) in closed:
            continue
        if isinstance(node, ir.Assign):
            for target in node.targets:
                if any(isinstance(t, ir.Name) and t.id == name for t in ir.walk(target)) and not isinstance(target, (ir.Sub, ir.Attr)):
                    yield node.value
        elif isinstance(node, (ir.For, ir.CompFor)):
            if any(isinstance(t, ir.Name) and t.id == name for t in ir.walk(node.target)):
                yield node.iter
        elif isinstance(node, (ir.AugAssign, ir.AnnAssign, ir.NamedExpr)):
            if isinstance(node.target, ir.Name) and node.target.id == name:
                yield node.value if not isinstance(node, ir.AugAssign) else None


def made_of_pieces(place: Place) -> set[str]:
    """Names that hold pieces or what was made of them."""
    bound: list[tuple[set[str], set[str]]] = []
    for node in place.nodes():
        targets: list[Any] = []
        if isinstance(node, ir.Assign):
            targets, source = node.targets, node.value
        elif isinstance(node, (ir.For, ir.CompFor)):
            targets, source = [node.target], node.iter
        elif isinstance(node, (ir.AugAssign, ir.NamedExpr)):
            targets, source = [node.target], node.value
        if targets:
            used = {n.id if isinstance(n, ir.Name) else n.attr for n in ir.walk(source) if isinstance(n, (ir.Name, ir.Attr))}
            bound.append(({n.id for t in targets for n in ir.walk(t) if isinstance(n, ir.Name)}, used))
    names: set[str] = set()
    while more := {n for given, used in bound if used & (names | PIECES) for n in given} - names:
        names |= more
    return names
