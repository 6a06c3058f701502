"""Methods of a model that no validation token is ever given to: those that write text, one token after another.

No rule lives here. What such a method sees decides no score. That it is one is only said where every place that names the
method, or a method that names it, calls it there and then, and the trace met that call and saw no validation token go in.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.rules.code import Code, Place

#: what Python or the library calls without its name being written
_UNNAMED = frozenset({"forward", "step", "update"})


def writes_only(code: Code, place: Place) -> bool:
    """Is a method of a model called with other tokens than those of the validation set, and only so."""
    trace = code.ctx.trace
    if trace is None or trace.exhausted or place.function is None or place.owner is None:
        return False
    todo, seen, met = [place.function.name], {place.function.name}, False
    while todo:
        name = todo.pop()
        if name in _UNNAMED or name.startswith("__"):
            return False
        for p in code.places:
            if name not in p.names:
                continue
            if p.owner is not None and p.function is not None:
                if p.function.name not in seen:
                    seen.add(p.function.name)
                    todo.append(p.function.name)
                continue
            if _never_run(code, p):
                continue
            called = [n for n in p.nodes(ir.Call) if isinstance(n.func, ir.Attr) and n.func.attr == name]
            if len(_mentions(p, name)) != len(called) or any(trace.given.get(id(n), True) for n in called):
                return False
            met = met or bool(called)
    return met


def _never_run(code: Code, place: Place) -> bool:
    """Is a function named only where neither run got to: in code that the trace went through, in branches that it never took."""
    function, trace = place.function, code.ctx.trace
    assert trace is not None
    if function is None or function.decorators or id(function) in trace.entered or id(function) in trace.dormant_entered:
        return False
    for p in code.places:
        if function.name not in p.names:
            continue
        passed = p.function is None or id(p.function) in trace.entered
        calls = {id(n.func) for n in p.nodes(ir.Call) if passed and id(n) not in trace.reach.met}
        if not all(id(n) in calls or id(n) in code.shut for n in _mentions(p, function.name)):
            return False
    return True


def _mentions(place: Place, name: str) -> list[Any]:
    """Where a place names something: as a name, as an attribute, or in a text."""
    return [
        *(n for n in place.nodes(ir.Attr) if n.attr == name),
        *(n for n in place.nodes(ir.Name) if n.id == name),
        *(n for n in place.nodes(ir.Const) if n.value == name),
    ]


__all__ = ["writes_only"]
