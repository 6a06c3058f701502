"""States that a run over all positions leaves behind at the window's end, as one summary of the whole window.

No rule lives here. A loop over time (or the library's recurrent layer) whose last state is kept per position, for the
next window or for the last position says nothing; `audit.rules.window` tells whether it comes back on the positions.
A name counts where it starts without a time axis, every step makes it of itself and of the next position, and the loop
runs as far as a length says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.rules.axes import argument, number
from audit.rules.carried import along_time
from audit.rules.code import Place
from audit.rules.sequence import Sequences

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_FILLED = frozenset("zeros ones full empty randn new_zeros new_ones new_full new_empty".split())
_JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack", "scatter", "index_copy", "pad"})


def final_states(along: Sequences, place: Place) -> list[tuple[ir.For, set[str]]]:
    """Of every loop over time among a method's own statements: names that afterwards hold its last state."""
    assert place.function is not None
    found: list[tuple[ir.For, set[str]]] = []
    for n, s in enumerate(place.function.body):
        if isinstance(s, ir.For) and _over_time(along, place, s):
            before = place.function.body[:n]
            times = _lengths_of_time(before)
            names = {name for name in _carried(s) if _without_time(name, before, times)}
            if names:
                found.append((s, names))
    return found


def _over_time(along: Sequences, place: Place, loop: ir.For) -> bool:
    """``for t in range(T)`` that reads activations at ``[:, t]`` and is not left early."""
    over = loop.iter
    if not (isinstance(over, ir.Call) and isinstance(over.func, ir.Name) and over.func.id == "range" and over.args):
        return False
    end = over.args[1] if len(over.args) > 1 else over.args[0]
    if number(end) not in (None, -1) or not along_time(loop) or not isinstance(loop.target, ir.Name):
        return False
    inside = list(ir.walk(loop.body, into_functions=False))
    left = any((isinstance(n, ir.Jump) and n.kind != "pass") or isinstance(n, (ir.Return, ir.If, ir.While, ir.For)) for n in inside)
    return not left and any(_at(along, place, n, loop.target.id) for n in inside)


def _at(along: Sequences, place: Place, node: Any, step: str) -> bool:
    """``x[:, t]`` or ``x[:, t, :]`` of activations."""
    if not (isinstance(node, ir.Sub) and isinstance(node.index, ir.Collection) and len(node.index.elts) > 1):
        return False
    time = node.index.elts[1]
    return isinstance(time, ir.Name) and time.id == step and along.along(place, node.value)


def _carried(loop: ir.For) -> Iterator[str]:
    """Names that each step makes of what they were and of what the step reads; what is joined to them makes them longer."""
    assert isinstance(loop.target, ir.Name)
    steps: list[tuple[list[str], list[Any]]] = []
    for n in loop.body:
        if isinstance(n, ir.Assign):
            bound = [x.id for t in n.targets for x in (t.elts if isinstance(t, ir.Collection) else [t]) if isinstance(x, ir.Name)]
            steps.append((bound, [n.value]))
        elif isinstance(n, ir.AugAssign) and isinstance(n.target, ir.Name):
            steps.append(([n.target.id], [n.target, n.value]))
    for name in sorted({b for bound, _ in steps for b in bound}):
        made = {name: {name}}  # of which names from before the step, and of its position, each name is made
        longer = False
        for bound, values in steps:
            read = {x.id for x in ir.walk(values) if isinstance(x, ir.Name)}
            of = set().union(*(made.get(r, {loop.target.id} if r == loop.target.id else set()) for r in read))
            longer = longer or any(_lengthens(x, made, name) for x in ir.walk(values))
            made.update({b: of for b in bound})
        if made[name] == {name, loop.target.id} and not longer:
            yield name


def _lengthens(node: Any, made: dict[str, set[str]], name: str) -> bool:
    called = node.func.attr if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) else ""
    if called not in _JOINS or not any(isinstance(x, ir.Name) and name in made.get(x.id, ()) for x in ir.walk(node)):
        return False
    return number(argument(node.args, 1, node.keywords, "dim", "axis")) != -1


def _lengths_of_time(before: list[Any]) -> set[str]:
    found: set[str] = set()
    for s in before:
        if isinstance(s, ir.Assign) and isinstance(s.targets[0], ir.Collection) and len(s.targets[0].elts) > 1:
            second = s.targets[0].elts[1]
            found |= {second.id} if isinstance(second, ir.Name) else set()
        elif isinstance(s, ir.Assign) and _asks_for_time(s.value):
            found |= {t.id for t in s.targets if isinstance(t, ir.Name)}
    return found


def _asks_for_time(node: Any) -> bool:
    """``x.shape[1]``, ``x.size(1)``, or something made of all lengths."""
    for n in ir.walk(node):
        if isinstance(n, ir.Sub) and isinstance(n.value, ir.Attr) and n.value.attr == "shape" and number(n.index) not in (0, 2, -1):
            return True
        if isinstance(n, ir.Call) and isinstance(n.func, ir.Attr) and n.func.attr == "size":
            if not n.args or number(n.args[0]) not in (0, 2, -1):
                return True
    return False


def _without_time(name: str, before: list[Any], times: set[str]) -> bool:
    """Is the name started as one state per window: zeros of other lengths, or the first position's."""
    made = [s.value for s in before if isinstance(s, ir.Assign) and any(isinstance(t, ir.Name) and t.id == name for t in s.targets)]
    if len(made) != 1:
        return False
    start = made[0]
    if isinstance(start, ir.Sub) and isinstance(start.index, ir.Collection) and len(start.index.elts) > 1:
        return number(start.index.elts[1]) == 0
    if not (isinstance(start, ir.Call) and isinstance(start.func, ir.Attr)):
        return False
    if start.func.attr in ("zeros_like", "ones_like"):
        inner = start.args[0] if start.args else None
        return isinstance(inner, ir.Sub) and isinstance(inner.index, ir.Collection) and number(inner.index.elts[1]) == 0
    sizes = start.args[0].elts if len(start.args) == 1 and isinstance(start.args[0], ir.Collection) else start.args
    timed = any(isinstance(x, ir.Name) and x.id in times for a in sizes for x in ir.walk(a)) or any(_asks_for_time(a) for a in sizes)
    spread = any(isinstance(a, ir.Starred) or (isinstance(a, ir.Attr) and a.attr == "shape") for a in sizes)
    return start.func.attr in _FILLED and len(sizes) > 1 and not timed and not spread


__all__ = ["RECURRENT", "final_states"]
