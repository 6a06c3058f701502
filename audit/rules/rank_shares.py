"""Shares of ranks: loops in which each rank goes through a run of its own, side by side with the others.

No rule lives here. A share is contiguous where it lies between ``rank * size`` and ``(rank + 1) * size`` (or ``n * rank //
world`` and ``n * (rank + 1) // world``): what others score at the same time then lies before and behind it. Ranks that take
turns (``starts[rank::world]``) are a step apart, and each step of a chunk that all ranks share is one round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from audit import ir
from audit.rules.code import Code, Place

#: what may be made of a share that still is one
_KEPT = frozenset({"len", "list", "tuple", "range", "enumerate", "zip", "min", "max", "sorted", "int", "ceil", "tqdm", "arange", "tolist", "reversed"})
_DEEP = 8


def last(node: Any) -> str:
    return node.attr if isinstance(node, ir.Attr) else node.id if isinstance(node, ir.Name) else ""


def identifiers(code: Code, variable: str, function: str) -> set[str]:
    """Names and attributes that are assigned from the number of ranks, and parameters called with them."""
    found: set[str] = set()
    for place in code.places:
        for node in place.nodes(ir.Assign):
            if not any(variable in row or function in row for row in place.module.lines[node.line - 1 : node.end_line]):
                continue
            pairs = [(t, node.value) for t in node.targets]
            if (
                len(node.targets) == 1
                and isinstance(node.targets[0], ir.Collection)
                and isinstance(node.value, ir.Collection)
            ):
                pairs = list(zip(node.targets[0].elts, node.value.elts, strict=False))
            for target, value in pairs:
                named = any(
                    (isinstance(n, ir.Const) and n.value == variable)
                    or (isinstance(n, (ir.Attr, ir.Name)) and last(n) == function)
                    for n in ir.walk(value)
                )
                if named and isinstance(target, (ir.Name, ir.Attr)):
                    found.add(last(target))
    return found


@dataclass(slots=True)
class Shares:
    """The shares of one place. ``rank``: the names of the rank's number."""

    place: Place
    rank: frozenset[str]

    def loops(self) -> Iterator[Any]:
        """Loops that go through the rank's own contiguous share."""
        for loop in self.place.nodes(ir.For):
            if self.holds(loop.iter, loop.line) or self._picks(loop):
                yield loop

    def value(self, name: str, line: int) -> tuple[Any, int] | None:
        """What was assigned to a name last above a line, in the order of the text."""
        found: tuple[Any, int] | None = None
        for s in self.place.nodes(ir.Assign):
            if s.line >= line:
                continue
            for t in s.targets:
                if isinstance(t, ir.Name) and t.id == name:
                    found = s.value, s.line
                elif isinstance(t, ir.Collection) and isinstance(s.value, ir.Collection) and len(t.elts) == len(s.value.elts):
                    for one, value in zip(t.elts, s.value.elts, strict=True):
                        if isinstance(one, ir.Name) and one.id == name:
                            found = value, s.line
        return found

    def holds(self, node: Any, line: int, depth: int = 0) -> bool:
        """Is an expression a contiguous share, or made of one and of nothing else that has places."""
        if depth > _DEEP:
            return False
        for n in ir.walk(node):
            if isinstance(n, ir.Call) and last(n.func) not in _KEPT:
                return False
        for n in ir.walk(node):
            ends: tuple[Any, Any] | None = None
            if isinstance(n, ir.Slice):
                ends = n.lower, n.upper
            elif isinstance(n, ir.Call) and last(n.func) in ("range", "arange") and len(n.args) in (2, 3):
                if len(n.args) == 3 and self._one_turn(n.args[0], n.args[2], line):
                    return False
                ends = n.args[0], n.args[1]
            if ends is not None and None not in ends and self.begins(ends[0], line) and self.ends(ends[1], line):
                return True
            if isinstance(n, ir.Name) and (made := self.value(n.id, line)) is not None and self.holds(*made, depth + 1):
                return True
        return False

    def begins(self, node: Any, line: int, depth: int = 0) -> bool:
        """``c + rank * size``"""
        return self._bound(node, line, self._is_rank, depth)

    def ends(self, node: Any, line: int, depth: int = 0) -> bool:
        """``min(c + (rank + 1) * size, n)``, or ``low + size`` of a share that begins at ``low``."""
        if self._bound(node, line, self._is_next, depth):
            return True
        if isinstance(node, ir.Name) and depth < _DEEP and (made := self.value(node.id, line)) is not None:
            return self.ends(*made, depth + 1)
        parts = node.args if isinstance(node, ir.Call) and last(node.func) == "min" else [node]
        return any(
            isinstance(p, ir.BinOp) and p.op == "+" and isinstance(p.left, ir.Name) and isinstance(p.right, ir.Name)
            and (size := self._size(p.left, line)) is not None and size == p.right.id
            for p in parts
        )  # fmt: skip

    def _size(self, low: ir.Name, line: int) -> str | None:
        """The name of ``size``, for a name that was assigned ``rank * size``."""
        made = self.value(low.id, line)
        for n in ir.walk(made[0]) if made is not None else ():
            if isinstance(n, ir.BinOp) and n.op == "*":
                for rank, size in ((n.left, n.right), (n.right, n.left)):
                    if self._is_rank(rank) and isinstance(size, ir.Name):
                        return size.id
        return None

    def _one_turn(self, low: Any, step: Any, line: int) -> bool:
        """``range(c + rank * 1024, c + (rank + 1) * 1024, 1024)``: one window of each round, and no run of them."""
        if isinstance(low, ir.Name) and (made := self.value(low.id, line)) is not None:
            low = made[0]
        sizes = [y for n in ir.walk(low) if isinstance(n, ir.BinOp) and n.op == "*" for x, y in ((n.left, n.right), (n.right, n.left)) if self._is_rank(x)]
        same = [y for y in sizes if (last(y) and last(y) == last(step)) or (isinstance(y, ir.Const) and isinstance(step, ir.Const) and y.value == step.value)]
        return bool(same)

    def _bound(self, node: Any, line: int, number: Any, depth: int) -> bool:
        if depth > _DEEP:
            return False
        for n in ir.walk(node):
            if isinstance(n, ir.BinOp) and n.op == "*" and (number(n.left) or number(n.right)):
                return True
        if isinstance(node, ir.Name) and (made := self.value(node.id, line)) is not None:
            return self._bound(*made, number, depth + 1)
        return False

    def _is_rank(self, node: Any) -> bool:
        return isinstance(node, (ir.Name, ir.Attr)) and last(node) in self.rank

    def _is_next(self, node: Any) -> bool:
        return (
            isinstance(node, ir.BinOp) and node.op == "+"
            and any(self._is_rank(x) and isinstance(y, ir.Const) and y.value == 1 for x, y in ((node.left, node.right), (node.right, node.left)))
        )  # fmt: skip

    def _picks(self, loop: ir.For) -> bool:
        """``for j in range(steps)`` of which each turn takes ``mine[j]``."""
        if not isinstance(loop.target, ir.Name):
            return False
        turn = loop.target.id
        for n in ir.walk(loop.body):
            if isinstance(n, ir.Sub) and isinstance(n.value, ir.Name) and not isinstance(n.index, ir.Slice):
                if any(isinstance(x, ir.Name) and x.id == turn for x in ir.walk(n.index)) and self.holds(n.value, loop.line):
                    return True
        return False


__all__ = ["Shares", "identifiers", "last"]
