"""Tokens that one turn of a loop leaves to the next: fetched ahead, what is left of the stream, a buffer that is filled anew.

Which turn chose them decides whether they were scored before: what was fetched before the loop began is none of what
its turns fetch, what is left of the stream is another part in each turn, and a buffer that a turn fills from its start
holds nothing of the turns before.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import GRAD, LOGITS, LOSS, META, PARAM, VAL, WHOLE, V, clone, members, with_deps


class Carried:
    """Mixed into the machine; see `audit.trace.machine`."""

    def carry_over(self: Any, body: list[ir.Stmt], names: set[str], at: tuple[int, int]) -> None:
        """Before a turn: ``names`` are those that the body assigns."""
        held = self.scope.names
        for name in names:
            v = held.get(name)
            if v is None or v.kind not in ("val", "seq") or not self.plain_tokens(v):
                continue
            if name in self.shrinking(body):
                held[name] = apart(v, at)
            elif at[1] == 1 and all(WHOLE not in x.atoms for x in (members(v) if v.kind == "seq" else (v,))):
                held[name] = with_deps(v, frozenset([(at[0], 0)]))

    def plain_tokens(self: Any, v: V) -> bool:
        """Tokens of the stream, or a pair of inputs and targets, from which nothing was computed yet."""
        parts = members(v) if v.kind == "seq" else [v]
        if not 0 < len(parts) <= 4 or (v.kind == "seq" and v.rest is not None):
            return False
        return all(
            x.kind == "val" and x.atoms and x.flags & VAL and not x.flags & (LOSS | LOGITS | PARAM | GRAD | META) and not x.taint and not x.models
            for x in parts
        )

    def shrinking(self: Any, body: list[ir.Stmt]) -> frozenset[str]:
        """Names of which each turn cuts off the beginning, ``rest = rest[n:]``, and reads no more than that: ``rest[: n + 1]``."""
        known: dict[int, frozenset[str]] = self.interest.shrinking
        found = known.get(id(body))
        if found is None:
            cuts: dict[str, ir.Expr] = {}
            for n in ir.walk(body, into_functions=False):
                if type(n) is ir.Assign:
                    for target in n.targets:
                        cuts.update((t.id, v.index.lower) for t, v in ir.paired(target, n.value) if type(t) is ir.Name and cuts_off(t.id, v))
            found = known[id(body)] = frozenset(name for name, at in cuts.items() if reads_to(body, name, at))
        return found

    def fill_anew(self: Any, base: V, elements: list[Any], value: V) -> None:
        """``buffer[:n] = tokens``, from a place that the turn does not choose: what earlier turns put there is gone."""
        if not self.loops or not base.atoms or not self.plain_tokens(value) or not self.plain_tokens(base):
            return
        chosen = set()
        for x in elements:
            low = x.lower if isinstance(x, ir.Slice) else x
            if low is not None and type(low) is not ir.Const:
                chosen |= {loop for loop, _ in self.ev(low).deps}
        open_turns = {loop: n for loop, n in self.loops if loop not in chosen}
        kept = frozenset(a for a in base.atoms if all(open_turns.get(loop, n) == n for loop, n in a[0]))
        if kept != base.atoms:
            base.atoms = kept


def cuts_off(name: str, e: ir.Expr) -> bool:
    return type(e) is ir.Sub and type(e.value) is ir.Name and e.value.id == name and type(e.index) is ir.Slice and e.index.lower is not None and e.index.upper is None


def reads_to(body: list[ir.Stmt], name: str, cut: ir.Expr) -> bool:
    """Does every other slice of ``name`` in the body end at ``cut``, but for the last target's place."""
    for n in ir.walk(body):
        if type(n) is ir.Sub and type(n.value) is ir.Name and n.value.id == name and not cuts_off(name, n):
            for x in n.index.elts if type(n.index) is ir.Collection else [n.index]:
                if type(x) is ir.Slice and not ends_at(x.upper, cut):
                    return False
    return True


def ends_at(end: ir.Expr | None, cut: ir.Expr) -> bool:
    if type(end) is ir.Const and type(cut) is ir.Const:
        return type(end.value) is type(cut.value) is int and 0 < end.value <= cut.value + 1
    if type(end) is ir.BinOp and end.op == "+" and type(end.right) is ir.Const and end.right.value == 1:
        end = end.left
    return type(end) is type(cut) is ir.Name and end.id == cut.id


def apart(v: V, at: tuple[int, int]) -> V:
    """Another part of the stream in each turn."""
    out = clone(v)
    if v.kind == "seq":
        out.data = [apart(x, at) for x in v.data]
        return out
    own = at[0]
    out.deps = frozenset(d for d in v.deps if d[0] != own) | {at}
    out.atoms = frozenset((frozenset(d for d in deps if d[0] != own) | {at}, None, None) for deps, _, _ in v.atoms)
    out.span = out.pos = None
    return out


__all__ = ["Carried"]
