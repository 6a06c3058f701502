"""Sums that only some of which are brought together over the ranks (rule M3).

No rule lives here. ``all_reduce(byte_count)``, and ``token_count / byte_count`` where the tokens are still those of one
rank: the figure is divided by the number of ranks. Both have to be counted up side by side in one loop, so that what one of
them counts of the rank's own share the other counts as well. A sum that any other call is handed may be brought together there.
The other way round the figure is worse than it should be, and nobody gains by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.model import Finding, Step
from audit.rules.base import Rule
from audit.rules.code import Code, Place, finding
from audit.rules.rank_shares import last
from audit.rules.timers import line_in
from audit.trace.events import Trace

#: what leaves a number what it is
_SAME = frozenset({"item", "float", "double", "to", "cpu", "detach", "clamp", "clamp_min", "max"})


def of_some_sums(rule: Rule, code: Code, trace: Trace) -> Iterator[Finding]:
    """``nats_of_one_rank / tokens_of_all``"""
    if not any(last(call.func) == "init_process_group" for _, call, _ in code.calls()):
        return
    reported = trace.reported_scores()
    scores = [e for e in trace.of("SCORE", active=True) if e.on_val and e.id in reported]
    for place in code.places:
        at_score = {n for e in scores if (n := line_in(e, place)) is not None} if id(place) in code.reached and place.function is not None else set()
        summed = dict(_summed(code, place)) if at_score else {}
        if not summed:
            continue
        together = [mine for loop, mine in _counted_up(place) if any(loop.line < n <= loop.end_line for n in at_score)]
        for n in place.nodes(ir.BinOp):
            over, by = (_name(n.left), _name(n.right)) if n.op == "/" else ("", "")
            mine = next((m for m in together if over in m and by in m), None)
            if mine is None or by not in summed or over in summed or summed[by] > n.line or not _left_alone(place, over, mine[over]):
                continue
            steps = (Step(path=place.path, line=mine[over], message="counted up by each rank"), Step(path=place.path, line=summed[by], message="the other is brought together here"))
            yield finding(rule, code, place, n, f"{over} is that of one rank, and {by} that of all of them", confidence="medium", steps=steps)
            return


def _summed(code: Code, place: Place) -> Iterator[tuple[str, int]]:
    """The names that are added up over the ranks, one by one or in a loop over them."""
    for call in place.nodes(ir.Call):
        if not call.args or not code.dotted(place, call.func).endswith(".all_reduce") or not isinstance(call.args[0], ir.Name):
            continue
        if any(isinstance(n, ir.Attr) and n.attr in ("AVG", "MIN", "MAX") for n in ir.walk([*call.args[1:], *(v for _, v in call.keywords)])):
            continue
        name = call.args[0].id
        turns = [n for n in place.nodes(ir.For) if isinstance(n.target, ir.Name) and n.target.id == name and n.line <= call.line <= n.end_line]
        for loop in turns:
            if isinstance(loop.iter, ir.Collection):
                yield from ((x.id, call.line) for x in loop.iter.elts if isinstance(x, ir.Name))
        if not turns:
            yield name, call.line


def _counted_up(place: Place) -> Iterator[tuple[Any, dict[str, int]]]:
    """What a loop's body, or a block in it, adds up side by side."""
    for loop in place.nodes(ir.For, ir.While):
        for block in _blocks(loop):
            mine = {s.target.id: s.line for s in block if isinstance(s, ir.AugAssign) and s.op == "+" and isinstance(s.target, ir.Name)}
            if len(mine) > 1:
                yield loop, mine


def _blocks(loop: Any) -> Iterator[list[Any]]:
    yield loop.body
    for s in ir.walk(loop.body):
        if isinstance(s, (ir.If, ir.With)) and isinstance(s.body, list):
            yield s.body


def _name(e: Any) -> str:
    """``x.item()``, ``float(x)``, ``max(x, 1)``"""
    while isinstance(e, ir.Call) and last(e.func) in _SAME:
        e = e.func.value if isinstance(e.func, ir.Attr) else e.args[0] if e.args else None
    return e.id if isinstance(e, ir.Name) else ""


def _left_alone(place: Place, name: str, counted: int) -> bool:
    """Is a sum handed to nothing that may bring it together, and set to nothing else after it was counted up."""
    targets = {id(t) for n in place.nodes(ir.Assign) for t in n.targets}
    for n in place.nodes(ir.Call, ir.Collection, ir.Assign):
        if id(n) in targets:
            continue
        if isinstance(n, ir.Assign):
            if n.line > counted and any(isinstance(t, ir.Name) and t.id == name for x in n.targets for t in ir.walk(x)):
                return False
            continue
        given = n.elts if isinstance(n, ir.Collection) else [*n.args, *(v for _, v in n.keywords)]
        if isinstance(n, ir.Call) and isinstance(n.func, ir.Attr) and last(n.func.value) == name and n.func.attr not in _SAME:
            return False
        if any(isinstance(x, ir.Name) and x.id == name for x in given) and not (isinstance(n, ir.Call) and last(n.func) in _SAME):
            return False
    return True


__all__ = ["of_some_sums"]
