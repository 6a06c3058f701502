"""A state that one pass over the sequence leaves behind and the next pass over the same sequence starts from.

No rule lives here. A layer that runs along time (a kernel asked for its final state, a loop over positions) returns
its last state; a model that repeats the layer in depth and hands that state to the next repetition lets position 0
see the end of the window. A value that is carried per position (value residuals) is no such state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.rules.code import Code, Place


def carried_states(code: Code) -> Iterator[tuple[Place, Any, str]]:
    """(place, assignment, class of the layer) for every final state handed to the next repetition in depth."""
    finals = {p.owner.name for p in code.places if p.owner is not None and p.function is not None and _runs(p) and _leaves_state(p.function)}
    if not finals:
        return
    for place in code.places:
        if place.owner is None or place.function is None:
            continue
        layers = _layers(place.owner, finals)
        for loop in place.nodes(ir.For):
            for n in ir.walk(loop.body, into_functions=False):
                layer = _repeats(n, loop, layers)
                if layer is not None:
                    yield place, n, layer


def _runs(place: Place) -> bool:
    """Has the method a loop, or a call that is given a state: without one it leaves none."""
    return bool(place.nodes(ir.For)) or any(k == "initial_state" for n in place.nodes(ir.Call) for k, _ in n.keywords)


def _leaves_state(fn: ir.FunctionDef) -> bool:
    """Does the function return the last state of a run along the sequence that started from a parameter."""
    params = {p.name for p in fn.params[2:]}
    if not params:
        return False
    for n in ir.walk(fn.body, into_functions=False):
        if isinstance(n, ir.Call):
            given = dict((k, v) for k, v in n.keywords if k)
            start, asked = given.get("initial_state"), given.get("output_final_state")
            if isinstance(start, ir.Name) and start.id in params and isinstance(asked, ir.Const) and asked.value is True:
                return True
        elif isinstance(n, ir.For) and along_time(n):
            changed = {t.id for a in ir.walk(n.body, into_functions=False) if isinstance(a, ir.Assign) for t in a.targets if isinstance(t, ir.Name)}
            changed |= {a.target.id for a in ir.walk(n.body, into_functions=False) if isinstance(a, ir.AugAssign) and isinstance(a.target, ir.Name)}
            returned = {
                e.id for r in ir.walk(fn.body, into_functions=False)
                if isinstance(r, ir.Return) and isinstance(r.value, ir.Collection) for e in r.value.elts[1:] if isinstance(e, ir.Name)
            }  # fmt: skip
            if changed & returned & params:
                return True
    return False


def along_time(loop: ir.For) -> bool:
    """``for t in range(…)`` whose body reads ``something[:, t]`` or ``something[:, t : t + n]``."""
    if not isinstance(loop.target, ir.Name):
        return False
    name = loop.target.id
    return any(
        isinstance(n, ir.Sub) and isinstance(n.index, ir.Collection) and len(n.index.elts) >= 2
        and isinstance(n.index.elts[0], ir.Slice) and any(isinstance(x, ir.Name) and x.id == name for x in ir.walk(n.index.elts[1]))
        for n in ir.walk(loop.body, into_functions=False)
    )  # fmt: skip


def _layers(owner: ir.ClassDef, finals: set[str]) -> dict[str, str]:
    """Attribute -> class, for the layers of ``owner`` that leave a state."""
    found = {}
    for n in ir.walk(owner.body):
        if not isinstance(n, ir.Assign):
            continue
        made = next((x.func.id for x in ir.walk(n.value) if isinstance(x, ir.Call) and isinstance(x.func, ir.Name) and x.func.id in finals), None)
        for t in n.targets:
            if made is not None and isinstance(t, ir.Attr):
                found[t.attr] = made
    return found


def _repeats(n: Any, loop: ir.For, layers: dict[str, str]) -> str | None:
    """``x, state = self.layer(x, state)`` in a loop that does not walk along ``x``."""
    if not (isinstance(n, ir.Assign) and isinstance(n.value, ir.Call) and isinstance(n.value.func, ir.Attr)):
        return None
    call = n.value
    target = n.targets[0]
    assert isinstance(call.func, ir.Attr)
    if call.func.attr not in layers or not isinstance(target, ir.Collection) or len(target.elts) != 2 or len(call.args) < 2:
        return None
    state = target.elts[1]
    if not isinstance(state, ir.Name) or not any(isinstance(a, ir.Name) and a.id == state.id for a in call.args[1:]):
        return None
    if isinstance(call.args[0], ir.Sub):
        return None  # one piece of the sequence after the other
    return layers[call.func.attr]
