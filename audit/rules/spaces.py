"""Spaces and byte pieces that a byte table, or the evaluation, counts more than once (rule M1).

No rule lives here. A table that puts a space where it took the mark off (``" " + piece[1:]``), adds one to a length where
the mark was (``+ leading[t]``, ``size += 1``) counts the leading space like ``+ 1`` does. Byte pieces are one byte each,
whatever their name or their replacement character would measure; a text's bytes are those of UTF-8. An evaluation that adds
``leading & ~boundary`` and then ``leading`` counts the space twice itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.ir import called
from audit.rules.code import Code, Place
from audit.rules.pieces import (
    BYTE_TESTS,
    bound,
    encoded,
    encoded_length,
    is_const,
    lengths,
    made_of_pieces,
    mark_test,
)

_WIDE = ("utf-16", "utf_16", "utf16", "utf-32", "utf_32", "utf32")
_STRIPS = frozenset(["lstrip", "strip", "removeprefix"])


def counted_space(place: Place) -> ir.Node | None:
    """Where a table counts the space of a piece whose mark it took off."""
    texts = [(n, encoded(n)) for n in lengths(place)]
    put = [n for n, text in texts if _put_back(place, text)]
    if put and not any(_taken_off(place, text) for n, text in texts if n not in put):
        return put[0]
    flags = _flags(place)
    for node in place.nodes(ir.BinOp):
        if node.op == "+":
            for size, more in ((node.left, node.right), (node.right, node.left)):
                if encoded_length(size) and _says_mark(place, more, flags):
                    return node
    sized = _sized(place)
    for branch in place.nodes(ir.If):
        if _says_mark(place, branch.test, flags):
            for s in branch.body:
                if isinstance(s, ir.AugAssign) and s.op == "+" and is_const(s.value, 1) and _named(s.target) in sized:
                    return s
    return None


def _put_back(place: Place, e: Any, depth: int = 0) -> bool:
    """``" " + piece[1:]``, ``f" {piece[1:]}"``, or a name that may hold it."""
    if isinstance(e, ir.Name) and depth < 2:
        return any(_put_back(place, value, depth + 1) for value in bound(place, e.id))
    if isinstance(e, ir.IfExp):
        return _put_back(place, e.body, depth) or _put_back(place, e.orelse, depth)
    if isinstance(e, ir.BinOp) and e.op == "+":
        return is_const(e.left, " ") and _cut_off(place, e.right)
    if isinstance(e, ir.FString):
        parts = [x for x in e.values if not is_const(x, "")]
        return len(parts) == 2 and is_const(parts[0], " ") and any(_cut_off(place, n) for n in ir.walk(parts[1]))
    return False


def _cut_off(place: Place, e: Any) -> bool:
    """``piece[1:]``, ``piece.lstrip(mark)``"""
    names = made_of_pieces(place)
    if isinstance(e, ir.Sub) and isinstance(e.index, ir.Slice):
        return is_const(e.index.lower, 1) and e.index.upper is None and isinstance(e.value, ir.Name) and e.value.id in names
    if isinstance(e, ir.Call) and isinstance(e.func, ir.Attr) and e.func.attr in _STRIPS:
        return isinstance(e.func.value, ir.Name) and e.func.value.id in names
    return False


def _taken_off(place: Place, e: Any) -> bool:
    """A text without the mark, and without a space for it."""
    if _cut_off(place, e):
        return True
    return isinstance(e, ir.Name) and any(_cut_off(place, value) for value in bound(place, e.id))


def _flags(place: Place) -> set[str]:
    """Names and tables that tell whether a piece has the mark."""
    found = {_named(t) for n in place.nodes(ir.Assign) if mark_test(n.value) for t in n.targets}
    for branch in place.nodes(ir.If):
        if mark_test(branch.test):
            found |= {
                _named(t) for s in branch.body if isinstance(s, ir.Assign) and isinstance(s.value, ir.Const) and s.value.value in (True, 1) for t in s.targets
            }  # fmt: skip
    return found - {""}


def _says_mark(place: Place, e: Any, flags: set[str]) -> bool:
    """One where the piece has the mark, zero elsewhere: ``int(leading[t])``, ``(1 if leading else 0)``, ``leading``."""
    if isinstance(e, ir.Call) and called(e) in ("int", "bool", "float") and len(e.args) == 1:
        return _says_mark(place, e.args[0], flags)
    if isinstance(e, ir.IfExp):
        return is_const(e.body, 1) and is_const(e.orelse, 0) and _says_mark(place, e.test, flags)
    return mark_test(e) or _named(e) in flags


def _sized(place: Place) -> set[str]:
    """Tables and names that an encoded length was put into."""
    return {_named(t) for n in place.nodes(ir.Assign) if encoded_length(n.value) for t in n.targets} - {""}


def _named(e: Any) -> str:
    """``size`` of ``size`` and ``size[t]``"""
    e = e.value if isinstance(e, ir.Sub) else e
    return e.id if isinstance(e, ir.Name) else e.attr if isinstance(e, ir.Attr) else ""


def long_bytes(place: Place) -> tuple[ir.Node, str] | None:
    """Byte pieces with more than one byte each, or texts that are not measured in UTF-8."""
    sized = _sized(place) | {_named(t) for n in place.nodes(ir.Assign) if any(map(encoded_length, ir.walk(n.value))) for t in n.targets}
    for branch in place.nodes(ir.If):
        if _asks_byte(branch.test):
            for s in branch.body:
                if isinstance(s, ir.Assign) and _several(s.value) and any(isinstance(t, ir.Sub) and _named(t) in sized for t in s.targets):
                    return s, f"byte pieces are measured as {s.value.value} bytes each, and are one"  # type: ignore[attr-defined]
    for e in place.nodes(ir.IfExp):
        if _asks_byte(e.test) and _several(e.body) and any(map(encoded_length, ir.walk(e.orelse))):
            return e, f"byte pieces are measured as {e.body.value} bytes each, and are one"  # type: ignore[attr-defined]
    for n in lengths(place):
        for inner in ir.walk(n.args):
            if isinstance(inner, ir.Call) and isinstance(inner.func, ir.Attr) and inner.func.attr == "encode":
                given = [*inner.args[:1], *(v for k, v in inner.keywords if k == "encoding")]
                if any(isinstance(g, ir.Const) and isinstance(g.value, str) and g.value.lower().startswith(_WIDE) for g in given):
                    return n, "pieces are measured in another encoding than UTF-8, with two bytes or more for each letter"
    return None


def _asks_byte(test: Any) -> bool:
    return isinstance(test, ir.Call) and called(test) in BYTE_TESTS


def _several(value: Any) -> bool:
    return isinstance(value, ir.Const) and type(value.value) is int and 1 < value.value < 16


def added_twice(code: Code, lead: dict[str, int]) -> Iterator[tuple[Place, ir.Node, int]]:
    """``count += leading[y] & ~boundary[x]`` and, to the same sum, ``leading[y]`` once more.

    ``lead``: the names of tables of leading spaces, with a line at which each is counted.
    """
    for place in code.places:
        if id(place) not in code.reached:
            continue
        for block in _blocks(place):
            seen: dict[tuple[str, str], int] = {}
            for s in block:
                if isinstance(s, ir.Assign):
                    again = {n.id for t in s.targets for n in ir.walk(t) if isinstance(n, ir.Name)}
                    seen = {k: line for k, line in seen.items() if k[0] not in again and k[1] not in again}
                if not isinstance(s, ir.AugAssign) or s.op != "+" or not isinstance(s.target, ir.Name):
                    continue
                at = [n.index.id for n in ir.walk(s.value) if isinstance(n, ir.Sub) and _named(n) in lead and isinstance(n.index, ir.Name)]
                if len(at) != 1 or any(isinstance(n, ir.BinOp) and n.op in "+-/|" for n in ir.walk(s.value)):
                    continue
                if (s.target.id, at[0]) in seen:
                    yield place, s, seen[s.target.id, at[0]]
                    return
                seen[s.target.id, at[0]] = s.line


_WITH_BLOCKS = (ir.For, ir.Handler, ir.If, ir.MatchCase, ir.Try, ir.While, ir.With)


def _blocks(place: Place) -> Iterator[list[Any]]:
    if len(place.nodes(ir.AugAssign)) < 2:
        return
    for n in place.nodes(*_WITH_BLOCKS):
        for block in (n.body, getattr(n, "orelse", [])):
            if sum(isinstance(s, ir.AugAssign) for s in block) > 1:
                yield block
    body = place.function.body if place.function is not None else place.module.body
    if isinstance(body, list):
        yield body


__all__ = ["added_twice", "counted_space", "long_bytes"]
