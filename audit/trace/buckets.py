"""Windows sorted into chunks: ``chunks[first_scored // size].append((start, end))``.

The chunk of a turn is scored, then learned from up to its end. A window that goes by where it begins, or by the first token
that it scores, is scored before. One that goes by its end lands a chunk too late where its end is that of a chunk: its last
targets were learned in the turn before.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.positions import place_of
from audit.trace.values import BEFORE, EMPTY, V

#: of a list of lists: what stands in them is a turn late, in part at least
LATE = ("late",)


class Buckets:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_bucket(self: Any, item: V, node: Any) -> None:
        """``buckets[p // size].append((start, end))`` where ``p`` is no less than ``end``."""
        where = node.func.value if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) else None
        places = [place_of(v) for v in item.data or ()] if item.kind == "seq" else []
        if not isinstance(where, ir.Sub) or len(places) < 2 or len({symbols for symbols, _ in places}) != 1:
            return
        [symbols] = {symbols for symbols, _ in places}
        step = self.trace.advances.per_turn.get(symbols[0], (0, 0))[1] if len(symbols) == 1 else 0
        division = self.division(where.index)
        if step <= 0 or division is None:
            return
        p, size = self.ev(division.left), self.ev(division.right)
        end = max(offset for _, offset in places)
        same, at = place_of(p)
        whole = size.kind == "const" and type(size.const) is int and size.const > 0 and size.const % step == 0
        if same == symbols and whole and end > min(offset for _, offset in places) and at >= end and at % step == 0:
            buckets = self.ev(where.value)
            if buckets.kind == "seq":
                buckets.keys = buckets.keys | {LATE}

    def division(self: Any, e: Any, depth: int = 0) -> Any:
        """The quotient behind the number of a bucket: names stand for what they were assigned, the last bucket takes the rest."""
        if isinstance(e, ir.Name):
            meant = self.scope.meaning.get(e.id) if depth < 6 else None
            return self.division(meant, depth + 1) if meant is not None else None
        if isinstance(e, ir.Call) and isinstance(e.func, ir.Name) and e.func.id in ("min", "int") and e.args:
            return self.division(e.args[0], depth + 1) or (self.division(e.args[1], depth + 1) if len(e.args) == 2 else None)
        if isinstance(e, ir.BinOp) and e.op == "+" and isinstance(e.right, ir.Const) and type(e.right.value) is int and e.right.value >= 0:
            return self.division(e.left, depth + 1)
        return e if isinstance(e, ir.BinOp) and e.op == "//" else None

    def turn_before(self: Any, base: V, deps: frozenset) -> frozenset:
        """A mark of the turns before those that choose a bucket, where windows of it end in what was learned in those."""
        if LATE not in base.keys:
            return EMPTY
        return frozenset((BEFORE - loop, turn - 1) for loop, turn in deps & frozenset(self.loops))


__all__ = ["Buckets"]
