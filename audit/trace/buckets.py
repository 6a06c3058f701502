"""Windows sorted into chunks: ``chunks[first_scored // size].append((start, end))``.

The chunk of a turn is scored, then learned from up to its end. A window that goes by where it begins, or by the first token
that it scores, is scored before. One that goes by its end lands a chunk too late where its end is that of a chunk: its last
targets were learned in the turn before. So does one whose number is rounded up.

By what the windows were sorted also says where those of a turn begin to be scored: not before the chunk with that number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audit import ir
from audit.trace.positions import Place
from audit.trace.spans import beyond, exact_place
from audit.trace.values import BEFORE, EMPTY, META, VAL, V

#: of a list of lists: what stands in them is a turn late, in part at least
LATE = ("late",)
#: ``(SORTED, size, by, more, window)``: a window, whose places have ``window`` symbols, goes by what lies ``by`` tokens and
#: ``more`` numbers that are not known behind its beginning
SORTED = "sorted"


@dataclass(slots=True, frozen=True)
class Floor:
    """``begin``: where the chunk with the turn's number begins; the others as in `SORTED`."""

    begin: Place
    by: int
    more: int
    window: int

    def place(self, symbols: int, offset: int) -> Place | None:
        """The first target that the turn scores at the earliest; so many symbols, and that offset, it has within a window.

        What is left out at the beginning of a window is taken for the number that it was sorted with.
        """
        return (self.begin[0], self.begin[1] - self.by + offset) if symbols - self.window == self.more else None


class Buckets:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_bucket(self: Any, item: V, node: Any) -> None:
        """``buckets[p // size].append((start, end))``, ``.append(start)``"""
        where = node.func.value if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) else None
        numbers = (item.data or []) if item.kind == "seq" else [item]
        if not isinstance(where, ir.Sub) or not numbers or any(v.kind not in ("val", "const") or (v.flags & VAL and not v.flags & META) for v in numbers):
            return
        places = [exact_place(v) for v in numbers if v.kind == "val" or type(v.const) is int]
        division = self.division(where.index)
        if division is None or len(places) != len(numbers) or len({symbols for symbols, _ in places}) != 1 or not places[0][0]:
            return
        left, right, further, up = division
        p, size = self.ev(left), self.ev(right)
        more = beyond(exact_place(p), places[0][0])
        if more is None or size.kind != "const" or type(size.const) is not int or size.const <= 0:
            return
        begin, end = (f(offset for _, offset in places) for f in (min, max))
        by = more[1] - begin + further * size.const + up * (size.const - 1)
        if (buckets := self.ev(where.value)).kind != "seq":
            return
        buckets.keys = buckets.keys | {(SORTED, size.const, by, len(more[0]), len(places[0][0]))}
        if len(places) == 1 and by >= size.const - 1:
            end = max((v.pos[1] for v in self.scope.names.values() if v.kind == "val" and v.pos is not None and v.pos[0] == places[0][0]), default=begin)
        step = self.trace.advances.per_turn.get(places[0][0][0], (0, 0))[1] if len(places[0][0]) == 1 else 0
        if step > 0 and size.const % step == 0 and end > begin and (by + begin) // step * step >= end:
            buckets.keys = buckets.keys | {LATE}

    def division(self: Any, e: Any, depth: int = 0) -> tuple[Any, Any, int, bool] | None:
        """The quotient behind the number of a bucket, what is added to it, and whether it is rounded up.

        Names stand for what they were assigned, the last bucket takes the rest.
        """
        if depth > 8:
            return None
        if isinstance(e, ir.Name):
            meant = self.scope.meaning.get(e.id)
            return self.division(meant, depth + 1) if meant is not None else None
        if isinstance(e, ir.Call) and isinstance(e.func, ir.Name) and e.func.id in ("min", "int") and e.args:
            return self.division(e.args[0], depth + 1) or (self.division(e.args[1], depth + 1) if len(e.args) == 2 else None)
        if isinstance(e, ir.Call) and len(e.args) == 1 and isinstance(e.args[0], ir.BinOp) and e.args[0].op == "/":
            f = self.ev(e.func)
            return (e.args[0].left, e.args[0].right, 0, True) if f.kind == "lib" and str(f.data).rpartition(".")[2] == "ceil" else None
        if isinstance(e, ir.UnaryOp) and e.op == "-" and isinstance(e.operand, ir.BinOp) and e.operand.op == "//":
            left = e.operand.left
            return (left.operand, e.operand.right, 0, True) if isinstance(left, ir.UnaryOp) and left.op == "-" else None
        if isinstance(e, ir.BinOp) and e.op == "+" and isinstance(e.right, ir.Const) and type(e.right.value) is int and e.right.value >= 0:
            found = self.division(e.left, depth + 1)
            return (*found[:2], found[2] + e.right.value, found[3]) if found is not None else None
        return (e.left, e.right, 0, False) if isinstance(e, ir.BinOp) and e.op == "//" else None

    def turn_before(self: Any, base: V, deps: frozenset) -> frozenset:
        """A mark of the turns before those that choose a bucket, where windows of it end in what was learned in those."""
        if LATE not in base.keys:
            return EMPTY
        return frozenset((BEFORE - loop, turn - 1) for loop, turn in deps & frozenset(self.loops))

    def note_bucket_of_turn(self: Any, base: V, index: V) -> None:
        """``buckets[turn]``, where the number of the turn is what the windows were sorted by."""
        sorted_by = [k for k in base.keys if k[0] == SORTED]
        if len(sorted_by) != 1 or index.lv not in self.loops or index.pos is None or len(index.pos[0]) != 1:
            return
        _, size, by, more, window = sorted_by[0]
        if (begin := self.trace.advances.times(index, size)) is not None:
            self.trace.floors[index.lv] = Floor(begin, by, more, window)


__all__ = ["Buckets", "Floor"]
