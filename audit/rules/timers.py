"""The source side of rules B3 and B4: training after the clock's limit, and work on validation tokens before the
evaluation's clock starts.

No rule lives here. For B4: in the function from which both the work and the scoring are called, a clock that is
read between the two, and used after the scoring, times the scoring alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from audit import ir
from audit.context import Context
from audit.model import Finding, Step
from audit.rules.base import Rule
from audit.rules.code import Code, Place, code_of
from audit.trace.events import Event, Trace
from audit.trace.values import ART, PARAM, TRAIN, VAL

_CLOCKS = frozenset(
    {"time.perf_counter", "time.time", "time.monotonic", "time.perf_counter_ns", "time.time_ns"}
)


def untimed_work(rule: Rule, ctx: Context) -> Iterator[Finding]:
    """One finding per call site of such work."""
    trace: Trace | None = ctx.trace
    if trace is None:
        return
    code = code_of(ctx)
    stored = min((e.id for e in trace.of("SAVE", active=True) if e.detail.get("weights")), default=None)
    if stored is None:
        return
    # What a compressor counts are bytes of weights, though these may have learned from validation tokens.
    work = [
        e for e in trace.of("UPDATE", "STORE", "COMPILE", active=True)
        if e.flags & VAL and e.id > stored and not (e.kind == "STORE" and e.flags & (PARAM | ART))
    ]  # fmt: skip
    scores = [e for e in trace.of("SCORE", active=True) if e.on_val and e.id > stored]
    seen: set[tuple[str, int]] = set()
    for place in code.places:
        if place.function is None:
            continue
        clocks = _clocks(code, place, trace)
        if not clocks:
            continue
        for e in work:
            line = line_in(e, place)
            if line is None or (place.path, line) in seen or any(c.runs(e.id, line) for c in clocks):
                continue
            # A compile warm-up whose result is dropped may stand outside: no score rests on it.
            later = [s for s in scores if s.id > e.id and (e.kind == "COMPILE" or e.id in s.taint)]
            for s in later:
                at = line_in(s, place)
                if at is not None and any(c.line >= line and c.runs(s.id, at) and c.read(s.id) > e.id for c in clocks):
                    seen.add((place.path, line))
                    yield _finding(rule, e, s, place, line)
                    break


def late_updates(trace: Trace) -> list[Event]:
    """Updates on training tokens after the loop that the clock ends, where that loop is given the whole limit.

    The loop is told by the comparison itself: it stands between two updates of one loop.
    """
    limits = trace.time_limits
    if not limits or any(reserved for _, reserved in limits):
        return []
    updates = [e for e in trace.of("UPDATE", active=True) if e.flags & TRAIN and not e.flags & VAL and e.detail.get("models")]
    timed: set[int] = set()
    for number, _ in limits:
        before = next((e for e in reversed(updates) if e.id < number), None)
        after = next((e for e in updates if e.id >= number), None)
        if before is not None and after is not None:
            timed |= {loop for loop, _ in before.loops} & {loop for loop, _ in after.loops}
    last = max((e.id for e in updates if timed & {loop for loop, _ in e.loops}), default=None)
    return [] if last is None else [e for e in updates if e.id > last]


def line_in(e: Event, place: Place) -> int | None:
    """The line of ``place`` from which the event was reached, None where it was not."""
    if place.function is None:  # the module's own level: the outermost call
        path, line = e.stack[0][:2] if e.stack else (e.path, e.line)
        return int(line) if path == place.path else None
    first, last = place.function.line, place.function.end_line
    for path, line, _name in reversed(e.stack):
        if path == place.path and first <= line <= last:
            return int(line)
    return e.line if e.path == place.path and first <= e.line <= last else None


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that is read into a name at ``line`` and that is used until ``last``; ``readings``: before which events.

    Statements may share a line, so the order is that of execution, wherever the trace came past.
    """

    line: int
    last: int
    readings: tuple[int, ...]

    def read(self, event: int) -> int:
        """The first event after the latest reading before ``event``, -1 when it was not read before."""
        return max((r for r in self.readings if r <= event), default=-1)

    def runs(self, event: int, line: int) -> bool:
        """Does it run while ``event`` happens at ``line``."""
        return self.line <= line <= self.last and self.read(event) >= 0


def _clocks(code: Code, place: Place, trace: Trace) -> list[Clock]:
    """Clocks of a function, each up to the last use of its name before the name is assigned again."""
    starts: dict[str, list[ir.Assign]] = {}
    uses: dict[str, list[tuple[int, int]]] = {}
    for n in place.nodes(ir.Assign):
        if isinstance(n.value, ir.Call) and code.dotted(place, n.value.func) in _CLOCKS:
            for t in n.targets:
                if isinstance(t, ir.Name):
                    starts.setdefault(t.id, []).append(n)
    for n in place.nodes(ir.Name) if starts else ():
        uses.setdefault(n.id, []).append((n.line, n.col))
    out = []
    for name, nodes in starts.items():
        nodes.sort(key=lambda n: (n.line, n.col))
        bounds = [(n.line, n.col) for n in nodes[1:]] + [(1 << 60, 0)]
        for node, following in zip(nodes, bounds, strict=True):
            target = {(t.line, t.col) for t in node.targets}
            used = [u for u in uses.get(name, []) if (node.line, node.col) < u < following and u not in target]
            if used:
                out.append(Clock(node.line, max(used)[0], tuple(trace.clocks.get(id(node), ()))))
    return out


def _finding(rule: Rule, e: Event, score: Event, place: Place, line: int) -> Finding:
    message = "work on the validation tokens is done before the evaluation's clock starts"
    steps = (
        Step(path=place.path, line=line, message="this comes before the clock"),
        *e.steps("it reads the validation tokens"),
        score.step("what is timed is the scoring"),
    )
    return Finding(
        rule=rule.id, name=rule.name, severity=rule.severity, authority=rule.authority, confidence="medium",
        message=message, path=place.path, line=line, end_line=line, active=e.active, gate=e.gate, trace=steps,
    )  # fmt: skip
