"""Figures of parts that stand for the whole: one rank's own share, and the best of several parts (rule M3).

No rule lives here. Where each rank scores a share and nothing in the program ever brings numbers of several ranks
together, the printed figure is that of one share. A program that may run without other ranks is left alone, and so is one
that has another way to pass numbers on: files that are named by rank, queues, stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.model import Finding, Step
from audit.rules.base import Rule
from audit.rules.code import Code, Place, finding
from audit.rules.rank_shares import Shares, identifiers, last
from audit.rules.timers import line_in
from audit.trace.bests import BEST
from audit.trace.events import Event, Trace

_JOINS = ("reduce", "gather", "scatter", "all_to_all", "broadcast", "send", "recv", "psum", "pmean", "pmap")
_CHANNELS = frozenset({"Queue", "Pipe", "Pool", "Manager", "Store", "TCPStore", "FileStore", "HashStore", "multiprocessing", "mp", "spawn", "jax"})
_SAYS = frozenset({"print", "log", "log0", "print0", "info", "write", "debug"})


def of_one_share(rule: Rule, code: Code, trace: Trace) -> Iterator[Finding]:
    """A figure that is printed from the losses of a rank's own share alone."""
    rank, world = frozenset(identifiers(code, "RANK", "get_rank")), identifiers(code, "WORLD_SIZE", "get_world_size")
    if not rank or not world or not _several_run(code) or _passed_on(code, rank, world):
        return
    reported = trace.reported_scores()
    scores = [e for e in trace.of("SCORE", active=True) if e.on_val and e.id in reported]
    for place in code.places:
        at_score = [(n, e) for e in scores if (n := line_in(e, place)) is not None] if id(place) in code.reached else []
        shares = Shares(place, rank)
        for loop in [*shares.loops(), *_in_turns(place, shares, world)] if at_score else ():
            own = {e.id for n, e in at_score if loop.line < n <= loop.end_line}
            report = next((r for r in reversed(trace.reports()) if own & r.scores), None)
            if report is None:
                continue
            yield _said(rule, code, place, loop, report)
            return


def _said(rule: Rule, code: Code, place: Place, loop: Any, report: Event) -> Finding:
    message = "the figure is that of one rank's share; nothing adds up the shares of all"
    steps = (Step(path=place.path, line=loop.line, message="each rank scores its own share"), *report.steps("its figure is printed"))
    for at in code.places:
        if at.path == report.path:
            node = next((n for n in at.nodes(ir.Call, ir.Return) if n.line == report.line), None)
            if node is not None:
                return finding(rule, code, at, node, message, confidence="medium", steps=steps)
    return finding(rule, code, place, loop, message, confidence="medium", steps=steps)


def _in_turns(place: Place, shares: Shares, world: set[str]) -> Iterator[Any]:
    """``for s in range(rank * 1024, n, world * 1024)``"""
    for loop in place.nodes(ir.For):
        it = loop.iter
        if not isinstance(it, ir.Call) or last(it.func) != "range" or len(it.args) != 3:
            continue
        first, step = ({last(n) for n in ir.walk(a)} for a in (it.args[0], it.args[2]))
        if first & shares.rank and step & world:
            yield loop


def _several_run(code: Code) -> bool:
    """Does the program join a group of processes, whatever the settings."""
    return any(
        last(call.func) == "init_process_group" and _always(code, place, call, 0)
        for place, call, _name in code.calls()
        if id(place) in code.reached
    )


def _always(code: Code, place: Place, call: ir.Call, depth: int) -> bool:
    """Is a call under no condition, nor the function that it stands in (but for the main guard)."""
    if code.state(place, call)[0] != "yes" or depth > 3:
        return False
    for n in place.nodes(ir.If, ir.Try, ir.IfExp):
        if n.line <= call.line <= n.end_line and not (place.function is None and isinstance(n, ir.If) and last(getattr(n.test, "left", None)) == "__name__"):
            return False
    if place.function is None:
        return True
    return any(
        last(c.func) == place.function.name and near is not place and _always(code, near, c, depth + 1)
        for near, c, _name in code.calls()
        if id(near) in code.reached
    )


def _passed_on(code: Code, rank: frozenset[str], world: set[str]) -> bool:
    """Can numbers of one rank come to another, but for gradients; or is it one rank that the program is made for."""
    for place in code.places:
        if place.names & _CHANNELS:
            return True
        for call in place.nodes(ir.Call):
            name = last(call.func).lower()
            if any(j in name for j in _JOINS) and not name.endswith("scatter_") and not name.startswith(("scatter", "gather", "index_reduce")):
                if not any(isinstance(n, ir.Attr) and n.attr == "grad" for n in ir.walk(call.args)):
                    return True
            if name in ("gather", "scatter") and code.dotted(place, call.func).startswith(("torch.distributed", "dist.")):
                return True
        said = {id(n) for c in place.nodes(ir.Call) if last(c.func) in _SAYS for n in ir.walk(c.args)}
        for text in place.nodes(ir.FString):
            if id(text) not in said and any(last(n) in rank for n in ir.walk(text)):
                return True
        if any(id(n) not in said and _text_with(n, rank) for n in place.nodes(ir.Call, ir.BinOp)):
            return True
        for turns in place.nodes(ir.For, ir.CompFor):
            if isinstance(turns.iter, ir.Call) and last(turns.iter.func) == "range" and any(last(n) in world for n in turns.iter.args):
                return True  # one process goes through the shares of all
        for test in place.nodes(ir.Compare):
            sides = [test.left, *test.comparators]
            if any(last(s) in world for s in sides) and any(isinstance(s, ir.Const) and s.value == 1 for s in sides) and test.ops != [">"]:
                return True
    return False


def best_of_parts(rule: Rule, code: Code, trace: Trace) -> Iterator[Finding]:
    """``min(s / k for s, k in parts)``: the smallest of the figures of several parts of the stream, one for each turn."""
    figures = [r for r in trace.of("REPORT", active=True) if r.scores]
    counted = [r for r in figures if r.id in trace.chosen] if trace.chosen is not None else figures[-1:]
    picks = [e for e in trace.of("CHOOSE") if e.on_val and e.detail.get("how") == "min" and any((BEST, e.id) in r.detail["best"] for r in counted)]
    scores = [e for e in trace.of("SCORE", active=True) if e.on_val]
    for e in picks:
        for place in code.places:
            for call in place.nodes(ir.Call) if place.path == e.path else ():
                if call.line == e.line and last(call.func) == "min" and len(call.args) == 1 and _over_parts(place, call.args[0], scores):
                    yield finding(rule, code, place, call, "the smallest of the parts' figures stands for all of them")
                    return


def _over_parts(place: Place, several: Any, scores: list[Event]) -> bool:
    """A list of figures to which each turn of a loop adds that of the places between its own bounds alone."""
    if isinstance(several, ir.Comp):
        if len(several.generators) != 1 or not isinstance(several.elt, (ir.BinOp, ir.Name)):
            return False
        several = several.generators[0].iter
    if not isinstance(several, ir.Name):
        return False
    at_score = {n for e in scores if (n := line_in(e, place)) is not None}
    for loop in place.nodes(ir.For):
        added = [
            n.args[0] for n in ir.walk(loop.body)
            if isinstance(n, ir.Call) and last(n.func) == "append" and n.args and isinstance(n.func, ir.Attr) and last(n.func.value) == several.id
        ]  # fmt: skip
        if not added or not isinstance(loop.target, ir.Name):
            continue
        own = frozenset([loop.target.id])
        runs = {id(x) for x in Shares(place, own).loops()}
        names = {n.id for a in added for n in ir.walk(a) if isinstance(n, ir.Name)}
        for inner in loop.body:
            if isinstance(inner, ir.For) and (id(inner) in runs or _starts_by(inner, own)):
                summed = {n.target.id for n in ir.walk(inner.body) if isinstance(n, ir.AugAssign) and isinstance(n.target, ir.Name) and n.line in at_score}
                # set back in every turn: a part's sum, and no running one
                anew = {n.id for s in loop.body if isinstance(s, ir.Assign) and s.line < inner.line for t in s.targets for n in ir.walk(t) if isinstance(n, ir.Name)}
                if summed & names & anew:
                    return True
    return False


def _starts_by(loop: ir.For, turn: frozenset[str]) -> bool:
    """``for c in range(r * 512, n, 8 * 512)``"""
    it = loop.iter
    if not isinstance(it, ir.Call) or last(it.func) != "range" or len(it.args) < 2:
        return False
    return any(isinstance(n, ir.BinOp) and n.op == "*" and {last(n.left), last(n.right)} & turn for n in ir.walk(it.args[0]))


def _text_with(node: Any, rank: frozenset[str]) -> bool:
    """``str(rank)``, ``"part%d" % rank``, ``"part{}".format(rank)``"""
    if isinstance(node, ir.BinOp):
        return node.op == "%" and isinstance(node.left, ir.Const) and isinstance(node.left.value, str) and any(last(n) in rank for n in ir.walk(node.right))
    return last(node.func) in ("str", "format") and any(last(n) in rank for n in ir.walk(node.args))


__all__ = ["best_of_parts", "of_one_share"]
