"""Queues and iterators: what is taken out of them is taken once, and as long as nothing was put in there is nothing to take.

A queue that is filled at the end of a turn is empty in the first one: ``while pending: learn(*pending.pop(0))`` learns there
of nothing. An iterator hands out each of its elements once, in whatever groups (``islice``, ``batched``).

What stands further on in a list than what a turn has is what a later turn has: the next group by the length of this one, by
a step of the loop that is not known in numbers, by the counter of an open loop, by a number that a queue in a file gave.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.positions import FAR, one_of
from audit.trace.spans import beyond, exact_place
from audit.trace.subscripts import text_of
from audit.trace.values import VAL, V, clone, const, derive, seq, with_deps

#: a number that a queue which is kept in a file, or a counter, gave in this turn: a later turn gets a later one
CLAIMED = ("claimed",)
#: an iterator: what was taken out of it is gone
FEED = ("feed",)
LIBRARIES = ("itertools.", "heapq.", "bisect.", "more_itertools.")


class Queues:
    """Mixed into the machine; see `audit.trace.machine`."""

    def empty(self: Any) -> V:
        """``[]``, ``deque()``"""
        out = seq([])
        self.made_empty[id(out)] = (out, frozenset(self.loops))
        return out

    def still_empty(self: Any, v: V) -> bool:
        """Was nothing put in a list so far, in the first turn of the loops around it: a later one may have filled it unseen."""
        if v.kind != "seq" or v.data or v.rest is not None or id(v) not in self.made_empty:
            return False
        before = self.made_empty[id(v)][1]
        since = next(((loop, turn) for loop, turn in self.loops if (loop, turn) not in before and loop in self.several), None)
        return since is not None and since[1] == 1

    def nothing_to_take(self: Any, test: Any, body: list[Any] | None = None) -> bool:
        """Does a test ask whether a list has something that has nothing yet: ``pending``, ``len(pending) > 1``, ``ready and pending``.

        ``body``: the branch that then takes from it; what else a script concludes from an empty list stays open.
        """
        if isinstance(test, ir.BoolOp) and test.op == "and":
            return any(self.nothing_to_take(x, body) for x in test.values)
        if isinstance(test, ir.Compare) and len(test.ops) == 1 and isinstance(test.left, ir.Call):
            least = test.comparators[0].value if isinstance(test.comparators[0], ir.Const) else None
            if type(least) is not int or not {">": least >= 0, ">=": least >= 1, "!=": least == 0}.get(test.ops[0], False):
                return False
            test = test.left
        if isinstance(test, ir.Call):
            if not isinstance(test.func, ir.Name) or test.func.id != "len" or len(test.args) != 1:
                return False
            test = test.args[0]
        if not isinstance(test, (ir.Name, ir.Attr)) or not self.made_empty or not self.loops or not self.still_empty(self.ev(test)):
            return False
        return body is None or any(isinstance(x, type(test)) and text_of(x) == text_of(test) for x in ir.walk(body))

    def iterator(self: Any, v: V) -> V:
        """``iter(windows)``, and what a generator hands out."""
        if v.kind not in ("seq", "iter", "val") or FEED in v.keys:
            return v
        out = clone(v)
        if v.kind == "seq":
            out.data = list(v.data or [])  # another one over the same list begins anew
        out.keys = v.keys | {FEED}
        return out

    def queue_call(self: Any, last: str, args: list[V], node: Any) -> V | None:
        """Functions of the standard library that take from queues and iterators, or put into them; None: none of these."""
        first = args[0] if args else None
        if first is None:
            return None
        if last == "islice" and len(args) > 1:
            return self.sliced(first, args[1:])
        if last in ("batched", "chunked", "ichunked", "grouper") and len(args) > 1:
            return V("iter", data=("groups", first))
        if first.kind != "seq":
            return None
        if last in ("heappush", "insort", "insort_left", "insort_right") and len(args) > 1:
            return self.container(first, "append", args[1:2], {}, node)
        if last in ("heappushpop", "heapreplace") and len(args) > 1:
            self.container(first, "append", args[1:2], {}, node)
            return self.taken(first)
        if last == "heappop":
            return self.taken(first)
        return const(None) if last == "heapify" else None

    def sliced(self: Any, source: V, bounds: list[V]) -> V:
        """``islice(feed, n)``: the next ones. ``islice(windows, a, b)`` is ``windows[a:b]``."""
        if source.kind not in ("seq", "iter", "val"):
            return derive([source, *bounds])
        if FEED in source.keys:
            part = self.taken(source)
        else:
            low, high = (None, bounds[0]) if len(bounds) == 1 else (bounds[0], bounds[1])
            part = with_deps(one_of(self.element(source)), source.deps | self.between(low, high) | self.elements_ahead(low, high))
        return part if source.kind == "val" else seq([], part)

    def numbered_cut(self: Any, bounds: list[V], out: V) -> V:
        """``out`` is ``items[i : i + n]``: as many elements as the bounds are apart."""
        low, high = bounds[0], bounds[1]
        numbers = all(x.kind == "val" or type(x.const) is int for x in (low, high)) and not (low.flags | high.flags) & VAL
        if numbers and low.deps & frozenset(self.loops):
            start, end = exact_place(low), exact_place(high)
            more = beyond(end, start[0])
            if more is not None and all(s > 0 for s in more[0]) and (more[0] or more[1] > start[1]):
                out.many = more[0], more[1] - start[1]
        return out

    def further_on(self: Any, index: V) -> frozenset:
        """The turns that chose an element, where its number lies a known way behind what this turn has: by a number that a
        queue gave, or by a step of the loop that is not known in numbers."""
        deps: frozenset = index.deps
        if index.kind not in ("val", "const") or (index.kind == "val" and index.pos is None) or not deps:
            return deps
        if CLAIMED in index.keys and index.pos is not None and len(index.pos[0]) == 1 and index.pos[0][0] > 0 and 0 < index.pos[1] < FAR // 2:
            mine = [at for at in self.loops if at in deps]
            return deps - {mine[-1]} | {(mine[-1][0], mine[-1][1] + 1)} if mine else deps
        for at, names in zip(self.loops, self.turn_starts, strict=False):
            if at in deps and self.counted_on(at, names, index):
                return deps - {at} | {(at[0], at[1] + 1)}
            if at in deps and (step := self.steps_of.get(at[0])) is not None and (here := self.turn_of.get(at)) is not None and here.kind in ("val", "const"):
                start, end = exact_place(here), exact_place(index)
                more = beyond(end, start[0])
                if more is not None and (more := beyond((more[0], more[1] - start[1]), step[0])) is not None and more[1] >= step[1] and all(s > 0 for s in more[0]):
                    return deps - {at} | {(at[0], at[1] + 1)}
        return deps

    def note_counters(self: Any, body: list[Any], loop: int) -> None:
        """``k += 32``, ``k += len(group)`` in the body of a ``while``, where nothing else changes ``k``."""
        for s in body:
            if not isinstance(s, ir.AugAssign) or s.op != "+" or not isinstance(s.target, ir.Name):
                continue
            name, by = s.target.id, s.value
            of = by.args[0].id if isinstance(by, ir.Call) and isinstance(by.func, ir.Name) and by.func.id == "len" and len(by.args) == 1 and isinstance(by.args[0], ir.Name) else None
            size = by.value if isinstance(by, ir.Const) else self.scope.get(by.id) if isinstance(by, ir.Name) else None
            size = size.const if isinstance(size, V) and size.kind == "const" and not size.deps else size
            if (of is not None or (type(size) is int and size > 0)) and self.assignments(body, name) == 1:
                self.counters.setdefault(loop, {})[name] = of if of is not None else size

    def assignments(self: Any, body: list[Any], name: str) -> int:
        found = 0
        for n in ir.walk(body):
            if isinstance(n, (ir.Assign, ir.AugAssign, ir.AnnAssign, ir.NamedExpr, ir.For)):
                targets = n.targets if isinstance(n, ir.Assign) else [n.target]
                found += sum(isinstance(x, ir.Name) and x.id == name for t in targets for x in ir.walk(t))
        return found

    def counted_on(self: Any, at: tuple[int, int], names: dict[str, V], index: V) -> bool:
        """Is a number a whole step of a counter of the loop's, or more, behind what that was as the turn began."""
        for name, by in self.counters.get(at[0], {}).items():
            here = names.get(name)
            if here is None or here.kind not in ("val", "const") or at not in here.deps:
                continue
            many = ((), by) if type(by) is int else getattr(self.scope.names.get(by), "many", None)
            start = exact_place(here)
            more = beyond(exact_place(index), start[0])
            if more is None or many is None:
                continue
            left = beyond((more[0], more[1] - start[1]), many[0])
            if left is not None and left[1] >= many[1] and not left[0]:
                return True
        return False

    def group_turns(self: Any, source: V, loop: int) -> list[V]:
        """``for group in batched(windows, 32)``: each of them holds other elements."""
        turns = [with_deps(one_of(self.element(source)), frozenset([(loop, n)])) for n in (1, 2)]
        return turns if source.kind == "val" else [seq([], x) for x in turns]


__all__ = ["CLAIMED", "FEED", "LIBRARIES", "Queues"]
