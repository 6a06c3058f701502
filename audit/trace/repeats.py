"""Calls that say what they said before: a loader of training data, asked for the next batch turn after turn.

The batches of a loop come out of the same few functions, whose execution takes a quarter of all steps and ends each time
with the same answer: training data of this turn. Such a call is executed once per place and per state of what it was
given; the next one that finds everything as it was gets that answer again, as of the turns that are open now.

What counts as such: only numbers, texts and training data go in (by the arguments, and by the objects that they are),
and only training data comes out; nothing that may change was read from outside, and no event was noted but reading
training data. Whatever has to do with validation data, models or losses is always executed.
"""

from __future__ import annotations

from typing import Any, ClassVar

from audit import ir
from audit.trace.values import LOGITS, LOSS, PROB, TRAIN, VAL, ClassV, Instance, V, clone, members

#: what reads files
READERS = frozenset(("fromfile", "memmap", "frombuffer", "load", "readinto", "from_file"))
#: what is as it was defined, from wherever it is read
FIXED = frozenset(("func", "class", "lib", "const", "module"))
#: more attributes or elements than these are not compared
MAX_HELD = 24
_NOT_OURS = VAL | LOSS | LOGITS | PROB


class _Other(Exception):
    """Something that is not compared: a model, validation data, an iterator."""


class Outside:
    """What was read from elsewhere while a call is watched.

    ``reads`` counts what may change in itself: names of other scopes, and what classes and modules hold. ``numbers``: numbers
    and texts under names of other scopes, which may be given another value later.
    """

    reads = 0
    watching = 0
    numbers: ClassVar[list[tuple[Any, str, V]]] = []


def seen(v: V) -> V:
    """What is read from elsewhere, and may change in itself unless it is as it was defined."""
    if v.kind not in FIXED:
        Outside.reads += 1
    return v


def held(v: V) -> V:
    """What a class or a module holds, as it is read: a number may be replaced by another."""
    if v.kind == "const":
        Outside.reads += 1
    return seen(v)


class Known:
    """What a call did: its answer, what it put into the objects that it was given, and the numbers that it read elsewhere."""

    __slots__ = ("answer", "loops", "numbers", "put")

    def __init__(self, answer: V, put: list[tuple[Instance, str, V]], loops: frozenset[int], numbers: list[tuple[Any, str, V]]) -> None:
        self.answer = answer
        self.put = put
        self.loops = loops
        self.numbers = numbers

    def stands(self) -> bool:
        return all(scope.names.get(name) is v for scope, name, v in self.numbers)


class Repeats:
    """Mixed into the machine; see `audit.trace.machine`."""

    def loads(self: Any, fn: ir.FunctionDef) -> bool:
        """May a function, or one that it calls, read a file; generators keep a place of their own."""
        known: dict[int, bool] = self.interest.loading
        found = known.get(id(fn))
        if found is None:
            names, seen, todo = self.interest.nodes, {id(fn)}, [fn]
            found = False
            while todo and not found and len(seen) < MAX_HELD:
                summary = self.interest.summary(todo.pop())
                if summary.has_yield or summary.scopes:
                    break
                found = not summary.calls.isdisjoint(READERS)
                for f in (f for name in summary.calls for f in names.get(name, ()) if id(f) not in seen):
                    seen.add(id(f))
                    todo.append(f)
            known[id(fn)] = found
        return found

    def call_again(self: Any, f: V, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        """A call of a function that loads: executed, or answered as before."""
        objects: dict[int, Instance] = {}
        line = getattr(node, "line", 0)
        try:
            given = _given(args, kwargs, objects)
            state = tuple([likenesses(o.attrs, objects) for o in list(objects.values())])
        except _Other:
            return self.run_closure(f, args, kwargs, node)
        # Functions that one text makes differ by what lies around them.
        key = f.data.scope, (id(f.data.node), line, self.scope.path, *self.stack), given, state, bool(self.forks), len(self.files)
        known: Known | None = self.known_calls.get(key)
        if known is not None and known.stands():
            if Outside.watching:
                Outside.numbers += known.numbers
            for owner, name, v in known.put:
                owner.attrs[name] = self.as_of_now(v, known.loops)
            return self.as_of_now(known.answer, known.loops)
        before = {number: dict(o.attrs) for number, o in objects.items()}
        begun, read, first = len(self.trace.events), Outside.reads, len(Outside.numbers)
        Outside.watching += 1
        try:
            out: V = self.run_closure(f, args, kwargs, node)
        finally:
            Outside.watching -= 1
            numbers = Outside.numbers[first:]
            if not Outside.watching:
                Outside.numbers.clear()
        if Outside.reads > read or any(e.kind != "READ" or e.flags & VAL for e in self.trace.events[begun:]):
            return out
        put = [(o, name, v) for number, o in objects.items() for name, v in o.attrs.items() if before[number].get(name) is not v]
        none = out.kind == "const" and out.const is None
        if not _trains(out) and not (none and any(_trains(v) for *_, v in put)):
            return out
        try:
            made = dict(objects)
            likeness(out, made)
            for _owner, _name, v in put:
                likeness(v, made)
            kept = [dict(likenesses(before[number], made)) for number in objects]
            if len(made) > len(objects) or kept != [dict(s) for s in state]:
                return out  # it made objects, or wrote into what others hold
            if _given(args, kwargs, made) != given:
                return out
        except _Other:
            return out
        loops = frozenset(loop for loop, _ in self.loops)
        self.known_calls[key] = Known(copied(out), [(o, name, copied(v)) for o, name, v in put], loops, numbers)
        return out

    def as_of_now(self: Any, v: V, loops: frozenset[int]) -> V:
        """A value of another turn as this turn would have it."""
        if v.kind == "obj":
            return v
        out = copied(v)
        now = frozenset(self.loops)
        for x in (out, *(members(out) if out.kind in ("seq", "dict") else ())):
            if any(d[0] in loops for d in x.deps):
                x.deps = now.union(d for d in x.deps if d[0] not in loops)
        return out


def copied(v: V) -> V:
    """A value that nobody else holds; an object stays itself."""
    if v.kind == "obj":
        return v
    out = clone(v)
    if v.kind == "seq":
        out.data = [copied(x) for x in v.data or []] if v.data is not None else None
    elif v.kind == "dict":
        out.data = {k: copied(x) for k, x in (v.data or {}).items()}
    return out


def likeness(v: V, objects: dict[int, Instance], depth: int = 0) -> tuple:
    """What a value is, whatever turn it belongs to. Raises `_Other` for what is not compared; ``objects`` takes in the objects met."""
    kind = v.kind
    if kind == "const":
        if not isinstance(v.const, (int, float, str, bool, bytes, type(None))):
            raise _Other
        return kind, type(v.const), v.const, v.flags, v.knobs
    if kind == "val":
        if v.flags & _NOT_OURS or v.models or v.taint or v.scores or v.atoms or v.mask is not None:
            raise _Other
        return kind, v.flags, v.keys, v.knobs, v.choice, v.shape0, str(v.const) if v.const is not None else None
    if kind in ("seq", "dict"):
        held = members(v)
        if depth > 2 or len(held) > MAX_HELD:
            raise _Other
        return kind, v.flags, v.rest is None, v.taint, tuple([likeness(x, objects, depth + 1) for x in held])
    if kind == "obj" and isinstance(v.data.cls, ClassV) and not v.models and not v.data.cls.is_model and depth < 3:
        if id(v.data) not in objects:
            objects[id(v.data)] = v.data
            if len(v.data.attrs) > MAX_HELD or len(objects) > 4:
                raise _Other
            for x in list(v.data.attrs.values()):
                if x.kind == "obj":
                    likeness(x, objects, depth + 1)
        return kind, id(v.data)
    if kind in ("func", "class"):
        return kind, id(v.data)
    if kind == "lib":
        return kind, v.data
    raise _Other


def likenesses(named: dict[str, V], objects: dict[int, Instance]) -> tuple:
    return tuple([(name, likeness(v, objects)) for name, v in named.items()])


def _given(args: list[V], kwargs: dict[str, V], objects: dict[int, Instance]) -> tuple:
    return tuple([likeness(a, objects) for a in args]), likenesses(kwargs, objects)


def _trains(v: V) -> bool:
    """Is it training data, or does it hold some."""
    if v.kind in ("seq", "dict"):
        return any(_trains(x) for x in members(v))
    return v.kind == "val" and bool(v.flags & TRAIN)
