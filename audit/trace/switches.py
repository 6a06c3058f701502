"""Which settings decide that code runs, and which data it runs on.

A test of settings around the code is a *guard*. What it names first is what a reader would turn to close the branch: a
setting that is tested for truth or compared with a constant. One that only takes part in a comparison of two numbers
(``stride < length``) is named where there is nothing else. What is passed on the other side of a test, or after a branch
that leaves (``if args.only_train: return``), hangs on the setting as well and is named after them. In which turns something
happens (``step % every``) does not decide whether it does.

A value can hang on a setting without a guard around what happens to it: ``tokens = val if args.on_val else train``, or a
name that a branch assigned. Such a value carries the setting in ``choice``, as long as the other way holds no such data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from audit import ir
from audit.trace.values import COUNT, EMPTY, GRAD, LOGITS, LOSS, PARAM, PROB, TRAIN, VAL, V, clone, members

#: how near a setting of a guard is to what a reader would turn
INSIDE, PASSED, NUMBER, TURN = range(4)
#: (rank, name, value) of each setting of one test
Gate = tuple[tuple[int, str, Any], ...]
#: settings that one gate names
MOST = 4
_ORDER = frozenset(("<", "<=", ">", ">="))
_WRITTEN = PARAM | LOSS | LOGITS | GRAD | COUNT | PROB


def said(gates: Iterable[Gate], chosen: frozenset = EMPTY) -> str | None:
    """Settings as text, those of inner guards and those that chose the data first; None where there are none."""
    entries = [(INSIDE, name, value) for name, value in sorted(chosen, key=str)]
    entries += [entry for gate in reversed(list(gates)) for entry in gate]
    entries = [e for e in sorted(entries, key=lambda e: e[0]) if e[2] != "not given" and e[0] < TURN]
    least = min((rank for rank, _, _ in entries), default=NUMBER)
    named = {name: value for rank, name, value in reversed(entries) if rank < NUMBER or least == NUMBER}
    ordered = list(dict.fromkeys(name for _, name, _ in entries if name in named))
    return ", ".join(_one(name, named[name]) for name in ordered[:MOST]) or None


def closing(gate: Gate) -> str:
    """The settings of the guard that keeps code from running."""
    found = said([tuple((min(rank, NUMBER), name, value) for rank, name, value in gate)])
    absent = [name for _, name, value in gate if value == "not given"]
    return found or ", ".join(f"without {name}" for name in absent[:MOST])


def _one(name: str, value: Any) -> str:
    return f"with {name}" if value == "given" else f"{name}={value}" if value is not None else str(name)


def joined(one: str | None, other: str | None) -> str | None:
    """The settings of two places, each once."""
    if not one or not other or one == other:
        return one or other
    parts = one.split(", ")
    return ", ".join([*parts, *(p for p in other.split(", ") if p not in parts)][: max(MOST, len(parts))])


def leaves(body: list[ir.Stmt]) -> bool:
    """Does a branch end in ``return``, ``break`` or ``continue``."""
    return bool(body) and (isinstance(body[-1], ir.Return) or (isinstance(body[-1], ir.Jump) and body[-1].kind != "pass"))


def _parts(test: ir.Expr) -> Iterator[ir.Expr]:
    if isinstance(test, ir.BoolOp):
        for x in test.values:
            yield from _parts(x)
    elif isinstance(test, ir.UnaryOp) and test.op == "not":
        yield from _parts(test.operand)
    else:
        yield test


def _rank(part: ir.Expr) -> int:
    """``a < b`` where neither is written down compares numbers, ``step % every == 0`` tells turns apart."""
    if not isinstance(part, ir.Compare):
        return TURN if isinstance(part, ir.BinOp) and part.op == "%" else INSIDE
    sides = [x.operand if isinstance(x, ir.UnaryOp) else x for x in (part.left, *part.comparators)]
    if any(isinstance(x, ir.BinOp) and x.op == "%" for x in sides):
        return TURN
    return NUMBER if _ORDER.issuperset(part.ops) and not any(isinstance(x, ir.Const) for x in sides) else INSIDE


class Switches:
    """Mixed into the machine; see `audit.trace.machine`."""

    def read_knobs(self: Any, e: ir.Expr) -> frozenset:
        """The settings behind names and attributes of an expression; nothing that calls is evaluated again."""
        if isinstance(e, ir.Compare):
            return frozenset().union(*(self.read_knobs(x) for x in (e.left, *e.comparators)))
        seen = e
        while isinstance(seen, ir.Attr):
            seen = seen.value
        if not isinstance(seen, ir.Name):
            return EMPTY
        begun = len(self.trace.events)
        knobs = self.ev(e).knobs
        del self.trace.events[begun:]
        return knobs  # type: ignore[no-any-return]

    def gate_of(self: Any, test: ir.Expr, v: V, rank: int = INSIDE) -> Gate:
        """The settings that the outcome ``v`` of a test rests on."""
        if not v.knobs:
            return ()
        parts = list(_parts(test))
        least = max(map(_rank, parts))
        tested = v.knobs
        if least > INSIDE:
            tested = frozenset().union(*(self.read_knobs(x) for x in parts if _rank(x) == INSIDE))
        return tuple((rank if k in tested else least, *k) for k in sorted(v.knobs, key=str))

    def needed(self: Any, test: ir.Expr) -> Gate:
        """The settings without which an undecided test cannot hold: ``args.adapt and step > 0``."""
        if not isinstance(test, ir.BoolOp) or test.op != "and":
            return ()
        knobs: frozenset = EMPTY
        for part in test.values:
            if isinstance(part, (ir.Name, ir.Attr)):
                knobs |= self.read_knobs(part)
        return tuple((INSIDE, *k) for k in sorted(knobs, key=str))

    # ------------------------------------------------------------------ data
    def data_in(self: Any, nodes: Any, before: dict[str, V]) -> int:
        """Which shards the names in code that is not run stand for, as they were before the test."""
        found, begun, names = 0, len(self.trace.events), self.scope.names
        self.scope.names = dict(before)
        for n in ir.walk(nodes):
            if isinstance(n, ir.Const) and isinstance(n.value, str):
                found |= self.text_flags(n.value)
            elif isinstance(n, ir.Name) or (isinstance(n, ir.Attr) and isinstance(n.value, ir.Name)):
                found |= _held(self.ev(n))
        self.scope.names = names
        del self.trace.events[begun:]
        return found & (VAL | TRAIN)

    def chosen_by(self: Any, gate: Gate, v: V, other: int, fresh: bool) -> V:
        """``v`` with the settings of the branch that chose it over data which is not of its kind."""
        knobs = frozenset((name, value) for rank, name, value in gate if rank < NUMBER and value != "not given")
        if not knobs or not _held(v) & (VAL | TRAIN) & ~other:
            return v
        if v.kind == "const" or (v.kind == "val" and not fresh and not v.flags & _WRITTEN):
            out = clone(v)
            out.origin, out.either = v.origin, v.either
            out.choice = v.choice | knobs
            return out
        if fresh:
            _mark(v, knobs)
        return v

    def note_choice(self: Any, gate: Gate, before: dict[str, V], dead: list[ir.Stmt]) -> None:
        """Names that the branch just run gave data which the branch not taken has not."""
        names, other = self.scope.names, None
        old = {id(x) for x in before.values()}
        for name, v in list(names.items()):
            was = before.get(name)
            if was is v or v.kind not in ("val", "const", "seq", "dict") or not _held(v) & (VAL | TRAIN):
                continue
            if other is None:
                other = self.data_in(dead, before)
            names[name] = self.chosen_by(gate, v, other | (_held(was) if was is not None else 0), id(v) not in old)

    def note_closed_choice(self: Any, gate: Gate, before: dict[str, V], live: dict[str, V]) -> None:
        """Names that have a closed branch's data, in the run that enters it: the settings keep it from them."""
        knobs = frozenset((name, value) for rank, name, value in gate if rank < TURN)
        for name, v in self.scope.names.items():
            if v.kind in ("val", "seq", "dict") and v is not before.get(name) and v is not live.get(name):
                _mark(v, knobs)


def _held(v: V, depth: int = 0) -> int:
    if v.kind not in ("seq", "dict") or depth > 2:
        return v.flags
    found = v.flags
    for x in members(v)[:16]:
        found |= _held(x, depth + 1)
    return found


def _mark(v: V, knobs: frozenset, depth: int = 0) -> None:
    v.choice |= knobs
    if v.kind in ("seq", "dict") and depth < 3:
        for x in members(v)[:64]:
            if x.kind in ("val", "const", "seq", "dict"):
                _mark(x, knobs, depth + 1)


__all__ = ["INSIDE", "NUMBER", "PASSED", "Gate", "Switches", "closing", "joined", "leaves", "said"]
