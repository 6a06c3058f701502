"""Calls that are another spelling of a subscript, of an operator or of a loop, and are read as what they stand for.

``tokens.narrow(0, a, n)`` is ``tokens[a : a + n]``, ``tokens.index_select(0, at)`` is ``tokens[at]``, ``tokens.roll(-1)`` is
``tokens[1:]`` for all but the last place, ``held[a:b].copy_(losses)`` is ``held[a:b] = losses``, ``reduce(step, windows, 0.0)``
is a loop.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import GRAD, LOGITS, LOSS, META, PARAM, VAL, ClassV, V, seq

CUTS = frozenset(["narrow", "index_select", "take", "roll"])
#: in-place methods of a part of an array: an assignment to that part
WRITES = {"copy_": "", "add_": "+", "sub_": "-"}
OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "truediv"}


class Spellings:
    """Mixed into the machine; see `audit.trace.machine`."""

    def spelled(self: Any, e: ir.Call) -> V | None:
        """The value of a call that is a subscript, or an assignment to one; None where it is a call like others."""
        f = e.func
        if type(f) is not ir.Attr:
            return None
        if f.attr in CUTS and e.args:
            cut = self.as_subscript(e)
            if cut is None:
                return None
            base = self.ev(cut.value)
            tokens = base.kind == "val" and bool(base.atoms) and base.flags & VAL and not base.flags & (LOSS | LOGITS | PARAM | GRAD | META)
            return self.part_of(base, cut) if tokens else None
        if f.attr in WRITES and len(e.args) == 1 and not e.keywords:
            part = f.value if type(f.value) is ir.Sub else self.as_subscript(f.value) if type(f.value) is ir.Call else None
            if part is None:
                return None
            base = self.ev(part.value)
            if base.kind != "val" or base.models or base.flags & (PARAM | GRAD | LOGITS):
                return None
            op = WRITES[f.attr]
            place = {"line": e.line, "col": e.col, "end_line": e.end_line}
            stmt = self.instead(e, lambda: ir.AugAssign(part, op, e.args[0], **place) if op else ir.Assign([part], e.args[0], **place))
            self.on_stmt[type(stmt)](stmt)
            return self.part_of(base, part)
        return None

    def instead(self: Any, e: Any, make: Any) -> Any:
        """The node that stands in place of ``e``, made once: what is known of nodes goes by their identity."""
        found = self.interest.spelled.get(id(e))
        if found is None:
            found = self.interest.spelled[id(e)] = make()
        return found

    def as_subscript(self: Any, e: ir.Call) -> ir.Sub | None:
        f = e.func
        if type(f) is not ir.Attr or f.attr not in CUTS or e.keywords or any(isinstance(a, ir.Starred) for a in e.args):
            return None
        owner = self.scope.get(f.value.id) if type(f.value) is ir.Name else None
        given = [*e.args] if owner is not None and owner.kind == "lib" else [f.value, *e.args]
        return self.instead(e, lambda: written_as(f.attr, given, e))  # type: ignore[no-any-return]

    def own_operator(self: Any, op: str, a: V, b: V, node: Any) -> V | None:
        """``sums + other`` where the program's own class says what that is."""
        name = OPERATORS.get(op)
        for me, other, method in ((a, b, f"__{name}__"), (b, a, f"__r{name}__")):
            if name is not None and me.kind == "obj" and isinstance(me.data.cls, ClassV) and me.data.cls.find(method) is not None:
                return self.call_value(V("bound", data=(me, method)), [other], {}, node)  # type: ignore[no-any-return]
        return None

    def reduced(self: Any, step: V, items: V, start: V | None, node: Any) -> V:
        """``functools.reduce``: a loop that hands on what its last turn gave."""
        loop = self.next_loop
        self.next_loop += 1
        out = start
        for n, x in enumerate(self.turns(items, loop), 1):
            self.loops.append((loop, n))
            try:
                out = x if out is None else self.call_value(step, [out, x], {}, node)
            finally:
                self.loops.pop()
        return out if out is not None else V("val")

    def by_rows(self: Any, step: V, rows: V, node: Any) -> V:
        """``itertools.starmap``"""
        row = self.element(rows)
        return seq([], self.call_value(step, list(row.data) if row.kind == "seq" and row.data and row.rest is None else [row], {}, node))


def written_as(name: str, given: list[Any], e: ir.Call) -> ir.Sub | None:
    """``given``: the array, then the arguments. Only along the first axis."""
    place = {"line": e.line, "col": e.col, "end_line": e.end_line}
    array, *rest = given
    if name in ("narrow", "index_select"):
        if not rest or type(rest[0]) is not ir.Const or rest[0].value != 0 or len(rest) != (3 if name == "narrow" else 2):
            return None
        rest = rest[1:]
    if name == "narrow":
        start, length = rest
        return ir.Sub(array, ir.Slice(start, ir.BinOp("+", start, length, **place), None, **place), **place)
    if len(rest) != 1:
        return None
    if name == "roll":
        one = rest[0]
        back = type(one) is ir.UnaryOp and one.op == "-" and type(one.operand) is ir.Const and one.operand.value == 1
        back = back or (type(one) is ir.Const and one.value == -1)
        return ir.Sub(array, ir.Slice(ir.Const(1, **place), None, None, **place), **place) if back else None
    return ir.Sub(array, rest[0], **place)


__all__ = ["Spellings"]
