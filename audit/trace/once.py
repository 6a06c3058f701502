"""Branches that each piece of the stream takes once: ``if i not in seen: seen.add(i); total += ...``.

In a second epoch over the stream such a branch is closed for what it took before, so nothing is scored a second time.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.subscripts import text_of

_ADDS = ("add", "append", "setdefault")


def first_time(s: ir.If) -> bool:
    """Does the test ask for a mark that the branch itself sets."""
    test = s.test
    if isinstance(test, ir.Compare) and test.ops == ["not in"]:
        key, kept = text_of(test.left), text_of(test.comparators[0])
    elif isinstance(test, ir.UnaryOp) and test.op == "not" and isinstance(test.operand, ir.Sub):
        key, kept = text_of(test.operand.index), text_of(test.operand.value)
    elif isinstance(test, ir.UnaryOp) and test.op == "not" and isinstance(test.operand, ir.Compare) and test.operand.ops == ["in"]:
        key, kept = text_of(test.operand.left), text_of(test.operand.comparators[0])
    else:
        return False
    return any(_marks(x, key, kept) for x in s.body)


def _marks(s: ir.Stmt, key: str, kept: str) -> bool:
    if isinstance(s, ir.ExprStmt) and isinstance(call := s.value, ir.Call) and isinstance(call.func, ir.Attr) and call.args:
        return call.func.attr in _ADDS and text_of(call.func.value) == kept and text_of(call.args[0]) == key
    if isinstance(s, ir.Assign):
        return any(isinstance(t, ir.Sub) and text_of(t.value) == kept and text_of(t.index) == key for t in s.targets) and not (
            isinstance(s.value, ir.Const) and not s.value.value
        )
    return False


class Once:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_once(self: Any, s: ir.If, begun: int) -> None:
        """Marks what the branch scored, where nothing else decides whether it is taken."""
        if first_time(s) and not s.orelse:
            for e in self.trace.events[begun:]:
                if e.kind == "SCORE":
                    e.detail["once"] = id(s)


__all__ = ["Once", "first_time"]
