"""Numbers that an object counts up turn by turn (``self.pos += n``), and what the records of a list hold.

A turn of a loop sees another value of such a number, as it does of a local name that the loop's body counts up; and
another record's fields, as it does of the elements of a list of tuples.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import GRAD, LOGITS, LOSS, META, PARAM, VAL, WHOLE, Instance, V, clone, with_deps

#: so many functions are looked into for what a loop's body counts up
MAX_FUNCTIONS = 40
NONE: frozenset[Any] = frozenset()


class Counters:
    """Mixed into the machine; see `audit.trace.machine`."""

    def counts_up(self: Any, code: Any) -> frozenset[str]:
        """Attributes that a body or a test, or a function that it may call, counts up."""
        known: dict[int, frozenset[str]] = self.interest.counted
        found = known.get(id(code))
        if found is None:
            names, calls = moved(code)
            seen: set[str] = set()
            todo = sorted(calls)
            while todo and len(seen) < MAX_FUNCTIONS:
                name = todo.pop()
                if name in seen or name not in self.interest.nodes:
                    continue
                seen.add(name)
                for fn in self.interest.nodes[name]:
                    more, further = self.moved_in(fn)
                    names |= more
                    todo += sorted(further - seen)
            found = known[id(code)] = frozenset(names)
        return found

    def moved_in(self: Any, fn: ir.FunctionDef) -> tuple[set[str], set[str]]:
        """`moved` of a function, which the bodies of many loops may call."""
        known: dict[int, tuple[set[str], set[str]]] = self.interest.moved
        if id(fn) not in known:
            known[id(fn)] = moved(fn.body)
        return known[id(fn)]

    def counted(self: Any, v: V, owner: Instance, name: str) -> V:
        """A number of an object as the turns see it of the loops that count it up, and in which it did not begin anew."""
        turns = frozenset(at for at in self.loops if name in self.moving.get(at[0], NONE)) - owner.begun.get(name, NONE)
        if not turns or v.keys or not self.is_number(v):
            return v
        out = clone(v)
        own = {loop for loop, _ in turns}
        out.deps = turns.union(d for d in v.deps if d[0] not in own)
        return out

    def is_number(self: Any, v: V) -> bool:
        if v.kind == "const":
            return type(v.const) is int
        return v.kind == "val" and not (v.flags & ~META or v.atoms or v.models or v.taint) and id(v) not in self.born

    def of_record(self: Any, v: V, deps: frozenset) -> V:
        """What the record holds that the turns ``deps`` picked from a list: tokens and places of its own."""
        if v.kind != "val":
            return v
        tokens = bool(v.atoms) and v.flags & VAL and not v.flags & (LOSS | LOGITS | PARAM | GRAD) and not v.taint and WHOLE not in v.atoms
        return with_deps(v, deps) if tokens or self.is_number(v) else v


def moved(code: Any) -> tuple[set[str], set[str]]:
    """The attributes that code counts up, and the names of the functions that it calls."""
    names: set[str] = set()
    calls: set[str] = set()
    given: list[tuple[str, ir.Expr]] = []
    reads: dict[str, set[str]] = {}
    for n in ir.walk(code):
        t = type(n)
        if t is ir.Call:
            calls.add(n.func.attr if type(n.func) is ir.Attr else getattr(n.func, "id", ""))
        elif t is ir.AugAssign and type(n.target) is ir.Attr and n.op in "+-":
            names.add(n.target.attr)
        elif t is ir.Assign:
            for target in n.targets:
                if type(target) is ir.Attr:
                    given.append((target.attr, n.value))
                elif type(target) is ir.Name:
                    reads.setdefault(target.id, set()).update(attributes(n.value))
    for name, value in given:
        if name in attributes(value) or (type(value) is ir.Name and name in reads.get(value.id, ())):
            names.add(name)
    return names, calls


def attributes(e: ir.Expr) -> set[str]:
    return {n.attr for n in ir.walk(e) if type(n) is ir.Attr}


__all__ = ["Counters"]
