"""Loops: two turns stand for all; what an iteration changes; bounds that names stand for."""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.documents import kept
from audit.trace.folded import after_walk
from audit.trace.positions import loop_place, one_of, walk_stream
from audit.trace.runs import abreast, moved
from audit.trace.shares import begun, starts
from audit.trace.spans import MAX_START, ROWS, given
from audit.trace.threads import takes_one
from audit.trace.values import (
    CUT,
    EMPTY,
    META,
    PARAM,
    VAL,
    WHOLE_ATOMS,
    ClassV,
    V,
    clone,
    const,
    derive,
    filed,
    join,
    kinds,
    mapping,
    restrict,
    seq,
    with_deps,
)

LEARNS = frozenset(["STORE", "UPDATE"])  # events that change what later scores depend on
MAX_KNOWN = 6  # elements of a known container that a loop visits one by one

#: how a block of statements ended
NORMAL, RETURN, BREAK, CONTINUE, RAISE = 0, 1, 2, 3, 4


class Loops:
    """Mixed into the machine; see `audit.trace.machine`."""

    # ------------------------------------------------------------------ loops
    def s_for(self: Any, s: ir.For) -> int:
        it = self.ev(s.iter)
        self.loop_meaning(s.target, s.iter)
        loop = self.next_loop
        self.next_loop += 1
        listed = it.data[1] if it.kind == "iter" and it.data[0] == "enumerate" else it
        if listed.kind == "seq":
            self.trace.lists[loop] = listed
        if listed.kind == "iter" and listed.data[0] == "range":
            self.note_turns(listed.data[1:], loop, s)
        turns = self.turns(it, loop)
        if not turns:
            return self.block(s.orelse) if s.orelse else NORMAL
        more = None if it.kind == "seq" and it.rest is None else lambda n: later_turn(self.turns(it, loop), loop, n)
        status = self.repeat(s.body, loop, turns, s, s.target, more=more)
        if "e" in kinds(it) or it.kind == "iter":
            plain, augmented = self.interest.assigned(s.body)
            after_walk(it, self.scope.names, plain | augmented)
        if s.orelse and status == NORMAL:
            return self.both(s.orelse, [], ("", ()), ("", ()))
        return status

    def loop_meaning(self: Any, target: Any, source: Any) -> None:
        """`for i, w in enumerate(x)`: w is x[i]. Other loop names mean themselves."""
        names: list[Any] = target.elts if isinstance(target, ir.Collection) else [target]
        for t in names:
            if isinstance(t, ir.Name):
                self.scope.meaning.pop(t.id, None)
        if (
            len(names) == 2 and isinstance(source, ir.Call) and isinstance(source.func, ir.Name) and len(source.args) == 1
            and source.func.id == "enumerate" and all(isinstance(n, ir.Name) for n in names)
            and isinstance(source.args[0], ir.Name)
        ):  # fmt: skip
            at = ir.Sub(source.args[0], names[0], line=source.line, col=source.col, end_line=source.end_line)
            self.scope.meaning[names[1].id] = at

    def s_while(self: Any, s: ir.While) -> int:
        if self.nothing_to_take(s.test):
            return NORMAL
        loop = self.next_loop
        self.next_loop += 1
        plain, augmented = self.interest.assigned(s.body)
        self.enter_iteration(plain | augmented, (loop, 1), None)
        # A test that takes the next step itself is asked once a turn.
        test = self.ev(s.test) if not self.counts_up(s.test) else V("val")
        known = self.truth(test)
        if known is False and not (self.dormant and test.knobs):
            if not test.knobs:
                self.note_closed(s.body, s.line)
            return NORMAL
        self.note_opened(s.body)
        self.note_stop(s.test, loop, ("<", "<="), "and")
        self.note_counters(s.body, loop)
        turns = [None] if self.handed and takes_one(s) else [None, None]
        return self.repeat(s.body, loop, turns, s, None, s.test, more=lambda n: None)

    def enter_iteration(self: Any, names: set[str], at: tuple[int, int], before: dict | None) -> None:
        """Names that the body changes: numbers among them now depend on the iteration."""
        scope = self.scope
        for name in names:
            v = scope.names.get(name)
            if v is None or v.kind not in ("const", "val"):
                continue
            if v.kind == "const":
                if isinstance(v.const, bool) or not isinstance(v.const, (int, float)):
                    if before is not None and before.get(name) is not v and (isinstance(v.const, bool) or v.const is None):
                        fresh = V("val")
                        scope.names[name] = fresh
                    continue
                if before is not None and before.get(name) is not v:
                    fresh = V("val")
                    fresh.deps = frozenset(d for d in v.deps if d[0] != at[0]) | {at}  # of an outer turn's place as well
                    fresh.flags = v.flags
                    scope.names[name] = fresh
                else:
                    fresh = clone(v)
                    fresh.deps = v.deps | {at}
                    scope.names[name] = fresh
            elif not v.atoms and not v.flags & ~(META | VAL | CUT) and not v.models and not v.taint:
                # A tensor that a caller handed in stays the tensor that the caller reads afterwards.
                fresh = v if id(v) in self.born else clone(v)
                fresh.deps = frozenset(d for d in v.deps if d[0] != at[0]) | {at}
                scope.names[name] = fresh

    def repeat(
        self: Any, body: list, loop: int, turns: list, s: Any, target: Any, test: Any = None, more: Any = None
    ) -> int:
        """Runs the body once per turn. Where only the last turn learned something (the first was cut short by a guard
        such as ``if pos < order: continue``), ``more(n)`` gives one further turn, in which that shows."""
        turns = list(turns)
        if len(turns) > 1:
            self.several.add(loop)
        learned: list[set] = []
        plain, augmented = self.interest.assigned(body)
        # Only counters matter: names assigned without looking at their old value get a new one anyway.
        counters = augmented if target is not None else plain | augmented
        result = NORMAL
        before: dict | None = None
        began: dict[str, int] = {}
        self.early.append([])
        self.bodies.append(body)
        if counted := self.counts_up(body) | self.counts_up(test):
            self.moving[loop] = counted
        for number, value in enumerate(turns, 1):
            at = (loop, number)
            if number > 1 or target is not None:
                self.enter_iteration(counters, at, before)
            if plain:
                self.carry_over(body, plain, at)
            before = dict(self.scope.names)
            self.turn_starts.append(before)
            if number == 1:
                began = {n: v.const for n in counters if (v := before.get(n)) is not None and given(v, loop)}
            begun = len(self.trace.events)
            tests, passed, places = len(self.loss_tests), len(self.passed), len(self.place_tests)
            self.loops.append(at)
            try:
                if target is not None:
                    self.turn_of[at] = value
                    self.bind(target, value, s)
                elif test is not None:
                    self.place_tests.append(self.tests_places(self.ev(test)))
                    if number > 1 and len(self.loops) == 1:
                        self.note_begun(test, {n for n, first in began.items() if 0 <= first <= MAX_START})
                begins = {n: v for n in counters if (v := self.scope.names.get(n)) is not None and v.kind == "val"} if number > 1 else {}
                status = self.block(body)
            finally:
                self.loops.pop()
                self.turn_starts.pop()
                del self.loss_tests[tests:]
                del self.place_tests[places:]
                over = self.passed[passed:]
                del self.passed[passed:]
            self.note_passed_over(over)
            if status == BREAK:
                self.note_unseen_skipped(over, loop)
            if status in (RETURN, RAISE):
                result = status
                break
            if status == BREAK:
                break
            for n, v in begins.items():
                self.trace.advances.counter(loop, v, self.scope.names[n], began.get(n))
            learned.append({(e.kind, e.path, e.line) for e in self.trace.events[begun:] if e.kind in LEARNS})
            if more is not None and len(learned) == len(turns) == 2 and learned[1] - learned[0]:
                turns.append(more(3))
        self.bodies.pop()
        self.moving.pop(loop, None)
        names = self.scope.names
        for changed in self.early.pop():
            # What a `break` or `continue` under an undecided branch left behind is one way to go on.
            for k, v in changed.items():
                other = names.get(k)
                if other is None:
                    names[k] = v
                elif other is not v:
                    names[k] = join(other, v)
        return result

    def turns(self: Any, it: V, loop: int) -> list[V]:
        """The loop variable in each executed iteration; [] when the loop certainly does not run."""
        self.note_kept(it, loop)
        if it.kind == "iter":
            recipe = it.data
            what = recipe[0]
            if what == "range":
                return self.range_turns(recipe, loop)
            if what == "enumerate":
                inner = self.turns(recipe[1], loop)
                out = []
                for n, v in enumerate(inner, 1):
                    if n == 1 and recipe[2] == 0:
                        index = const(0)
                    else:
                        index = V("val")
                    index.deps = frozenset([(loop, n)])
                    index.lv = (loop, n)
                    if n > 1:
                        self.trace.advances.number(loop, index, recipe[2])
                        self.one_by_one.add(loop)
                    if v.pos is not None and v.flags & VAL:
                        index.pos, v.pos = v.pos, None
                    out.append(seq([index, v]))
                return out
            if what == "zip":
                columns = [self.turns(x, loop) for x in recipe[1]]
                if any(starts(x) is not None and not kept(x) for x in recipe[1]):
                    self.trace.stops.pop(loop, None)  # ``zip(windows, windows[:1] + windows[:-1])``: what is scored may be all of them
                if not columns or any(not c for c in columns):
                    return []
                columns = abreast(recipe[1], columns, loop)
                rows = min(len(c) for c in columns)
                return [seq([c[i] for c in columns]) for i in range(rows)]
            if what == "groups":
                return self.group_turns(recipe[1], loop)
            if what == "calls":  # ``iter(take, [])``
                return [with_deps(self.call_value(recipe[1], [], {}, recipe[2]), frozenset([(loop, n)])) for n in (1, 2)]
            if what == "loader":
                return [batched(v) for v in self.turns(recipe[1], loop)]
        if it.kind == "const" and isinstance(it.const, (tuple, list, set, frozenset, str, bytes)):
            items = list(it.const)[:2]
            return [with_deps(const(x), frozenset([(loop, n)])) for n, x in enumerate(items, 1)]
        if it.kind == "dict":
            keys = [k if isinstance(k, V) else const(k) for k in list(it.data)[:MAX_KNOWN]]
            if not keys and it.rest is not None:
                keys = [filed(it), filed(it)]
            return [with_deps(k, frozenset([(loop, n)])) for n, k in enumerate(keys, 1)]
        if it.kind == "seq":
            items = list(it.data or [])
            if len(items) > MAX_KNOWN:
                items = [items[0], items[-1]]
            if it.rest is not None:
                items = [*items[:1], it.rest, it.rest] if not items else [*items[:2], it.rest]
            return [with_deps(one_of(x), frozenset([(loop, n)])) for n, x in enumerate(items, 1)]
        if it.kind == "alt":
            return self.turns(it.data[0], loop)
        if it.kind == "obj":
            cls = it.data.cls
            if isinstance(cls, ClassV) and cls.find("__iter__") is not None:
                inner_it = self.call_value(V("bound", data=(it, "__iter__")), [], {}, None)
                if inner_it.kind != "obj" or inner_it.data is not it.data:
                    return self.turns(inner_it, loop)
            if isinstance(cls, ClassV) and cls.find("__next__") is not None:
                return [with_deps(self.call_value(V("bound", data=(it, "__next__")), [], {}, None), frozenset([(loop, n)])) for n in (1, 2)]
            if isinstance(cls, ClassV) and not cls.is_model and cls.find("__getitem__") is not None:
                return [self.call_value(V("bound", data=(it, "__getitem__")), [numbered(loop, n)], {}, None) for n in (1, 2)]
        base = it if it.kind == "val" else derive([it])
        out = []
        for n in (1, 2):
            v = clone(base)
            v.lv = None
            deps = frozenset([(loop, n)])
            v.deps = base.deps | deps
            v.atoms = restrict(base.atoms, deps)
            if it.flags & PARAM:
                v.models = base.models
            if base.atoms == WHOLE_ATOMS and not base.deps:
                self.whole_walks.add(loop)
            walk_stream(v)
            out.append(v)
        return out

    def range_turns(self: Any, recipe: tuple, loop: int) -> list[V]:
        start, stop, step = recipe[1:]
        bounds = [x.const if x.kind == "const" and isinstance(x.const, (int, float)) else None for x in (start, stop, step)]
        extra = self.between(start, stop)
        if given(start) and start.const >= 0 and stop.lv is not None and (at := stop.lv[-2:]) in self.loops and (bounds[2] or 0) > 0:
            extra = (extra - {at}) | {(at[0], at[1] - 1)}  # ``range(chunk)``, ``range(chunk * size)``: those of the turns before
        knobs = start.knobs | stop.knobs
        self.note_range(stop, loop)
        self.note_first_tokens(start, stop, loop)
        self.note_walk(start, stop, step, loop)
        self.trace.deciding.update(name for name, _value in knobs)
        values: list[Any]
        if None not in bounds:
            try:
                r = range(*(int(b or 0) for b in bounds))
            except (ValueError, OverflowError):
                return []
            if len(r) == 0:
                if self.dormant and knobs:
                    values = [None, None]
                else:
                    return []
            else:
                values = [r[0]] if len(r) == 1 else [r[0], r[-1]]
        else:
            values = [bounds[0], None]
        out = []
        for n, x in enumerate(values, 1):
            v = V("val") if x is None else const(x)
            v.deps = frozenset([(loop, n)]) | extra
            v.lv = (loop, n)
            if x is None:
                v.pos = loop_place(start)
                self.trace.advances.walk(loop, v, start, stop, step)
                if not self.loops:
                    begun(start, stop, step, v)
            v.flags = (start.flags | stop.flags) & META
            out.append(v)
        return out

    def first_of(self: Any, it: V) -> V:
        loop = self.next_loop
        self.next_loop += 1
        turns = self.turns(it, loop)
        if not turns:
            return V("val")
        out = turns[-1]
        return strip_loop(out, loop)


def numbered(loop: int, n: int) -> V:
    """The number under which a turn asks for its item, in whatever order."""
    index = V("val")
    index.deps = frozenset([(loop, n)])
    return index


def batched(item: V) -> V:
    """Several items of a data set, put together in rows."""
    if item.kind == "seq":
        return seq([batched(x) for x in item.data or []], batched(item.rest) if item.rest is not None else None)
    if item.kind == "dict":
        return mapping({k: batched(x) for k, x in (item.data or {}).items()}, item.rest)
    if item.kind != "val":
        return item
    out = clone(item)
    out.span = out.pos = None
    out.keys = out.keys | ({ROWS} if out.flags & VAL and not out.flags & META else EMPTY)
    return out


def later_turn(turns: list[V], loop: int, n: int) -> V:
    """The loop variable in iteration ``n``: made like the last of ``turns``."""
    last = turns[-1] if turns else V("val")
    return moved(last, loop, lambda turn: turn + n - len(turns))


def strip_loop(v: V, loop: int) -> V:
    """A representative element that belongs to no iteration in particular."""
    if v.kind == "seq":
        out = clone(v)
        out.data = [strip_loop(x, loop) for x in v.data or []]
        return out
    if v.kind in ("val", "const"):
        out = clone(v)
        out.deps = frozenset(d for d in v.deps if d[0] != loop)
        out.atoms = frozenset((frozenset(d for d in a[0] if d[0] != loop), a[1], a[2]) for a in v.atoms)
        if out.kind == "const":
            fresh = V("val")
            fresh.deps, fresh.flags, fresh.knobs = out.deps, out.flags, EMPTY
            return fresh
        out.lv = None
        return out
    return v
