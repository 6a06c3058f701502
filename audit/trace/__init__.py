"""Abstract execution of a submission: what happens to the validation tokens, and in which order.

``trace(modules, primary, knobs, budget)`` runs the program from its entry point without executing it and
returns a `Trace`:

- ``trace.events``: ordered `Event` objects (kinds SCORE, UPDATE, STORE, LOOKUP, CALIBRATE, SELECT, SAVE, READ,
  RESTORE, RESET, FILL, REPORT, GENERATE, COMPILE); ``trace.of("UPDATE", active=True)`` selects. ``event.flags`` says what
  data was involved (``VAL``, ``TRAIN``, ``RAND``, ``GEN``, ``ART`` of `audit.trace.values`), ``event.atoms`` which
  part of the validation stream (a set of ``(loop iterations, lower bound, upper bound)``), ``event.taint`` the ids
  of validation-data UPDATE/STORE events that the value depends on, ``event.active`` and ``event.gate`` whether the
  submitted configuration gets there, ``event.steps(message)`` the call path for a finding.
- ``trace.conflicts``: `Conflict` objects, each a SCORE that depends on an UPDATE or STORE whose tokens are not
  shown to be others than those being scored. None among reported scores means that score-first is shown.
- ``trace.reports()``, ``trace.headline()``, ``trace.reported_scores()``: which scores reach a printed figure.
- ``trace.exhausted``: why the trace is incomplete (a budget), else None.

``knobs`` answers ``value(name, default) -> (value, source)`` (or just the value); see `audit.knobs`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from audit import ir
from audit.trace.adaptation import scored_before
from audit.trace.events import Conflict, Event, Trace, find_conflicts
from audit.trace.hashed_inputs import hashed_inputs
from audit.trace.interest import Interest
from audit.trace.machine import Machine
from audit.trace.positions import EVENTS, moved_reads
from audit.trace.values import VAL

__all__ = ["Conflict", "Event", "Trace", "scores_any", "trace"]


def trace(
    modules: dict[str, ir.Module],
    primary: str,
    knobs: Any = None,
    budget: float = 3.0,
    max_steps: int = 400_000,
    natives: Iterable[Any] = (),
    must_score: bool = False,
) -> Trace:
    """Traces ``primary`` under ``knobs``; ``budget`` is in seconds of processor time for both runs together, a safety net: ``max_steps`` decides.

    The first run follows the submitted configuration. The second also enters branches that a knob closes;
    events found only there carry ``active="no"`` and the gate. ``natives`` are the compiled helpers' functions
    (`audit.native`). ``must_score``: the first run alone, where it scores no validation token.
    """
    reader = _Reader(knobs)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 12_000))
    try:
        helpers = {n.name: n for n in natives}
        interest = Interest(list(modules.values()))
        live = Machine(
            modules, primary, reader, dormant=False, seconds=budget * 0.6, max_steps=max_steps, interest=interest, natives=helpers,
        )
        result = live.run()
        result.native = list(helpers.values())
        if must_score and not scores_any(result):
            return result
        seen = {(e.kind, e.path, e.line) for e in result.events}
        shadow = Machine(
            modules, primary, reader, dormant=True, seconds=budget * 0.4, max_steps=max_steps, interest=interest, natives=helpers,
        )
        extra = shadow.run()
    finally:
        sys.setrecursionlimit(limit)
    result.conflicts = find_conflicts(result)
    found = {(c.update.path, c.update.line, c.score.path, c.score.line) for c in result.conflicts}
    for c in find_conflicts(extra):
        if (c.update.path, c.update.line, c.score.path, c.score.line) in found:
            continue
        # Seen only when closed branches are entered: the submitted configuration does not get there.
        c.active = "no"
        result.conflicts.append(c)
    for e in extra.of("UPDATE"):
        # Asked of the run that has them all: of scores at one place only the first run's are kept.
        if (e.kind, e.path, e.line) not in seen and e.flags & VAL:
            e.detail["scored"] = scored_before(extra, e) is not None
    shift = 1_000_000
    fed = {(e.path, e.line) for e in result.events if e.kind == "CALIBRATE" and e.on_val}
    for e in extra.events:
        e.id += shift
        e.taint = frozenset(t + shift for t in e.taint)
        e.scores = frozenset(t + shift for t in e.scores)
        if "keys" in e.detail:
            e.detail["keys"] = moved_reads(e.detail["keys"], shift)
        if (e.kind, e.path, e.line) not in seen or (e.kind == "CALIBRATE" and e.on_val and (e.path, e.line) not in fed):
            e.active = "no"
            result.events.append(e)
        elif e.kind == "REPORT" and e.scores:
            result.dormant_reports.append(e)
    keep_dormant_mixtures(result, extra)
    result.stabilisers |= {n + shift for n in extra.stabilisers}
    for (kind, number), shut in extra.thresholds.items():
        result.thresholds[kind, number + shift] = shut
    result.hashed = hashed_inputs(modules.values())
    for symbols, offset in extra.newest.items():
        result.newest[symbols] = max(offset, result.newest.get(symbols, offset))
    result.dormant_entered = extra.entered - result.entered
    result.reach.take_in(extra.reach, complete=result.exhausted is None)
    for node, on_val in extra.given.items():
        result.given[node] = on_val or result.given.get(node, False)
    result.steps += extra.steps
    result.deciding |= extra.deciding
    result.seeds |= extra.seeds
    for k, v in extra.knobs_read.items():
        result.knobs_read.setdefault(k, v)
    return result


def scores_any(trace: Trace) -> bool:
    """Does a run reach a place that scores validation tokens."""
    return any(e.on_val for e in trace.of("SCORE", active=True))


def keep_dormant_mixtures(result: Trace, extra: Trace) -> None:
    """Scores that the first run has too, but that only the second saw mixed with a cache (or chosen, or gated)."""
    by_id = {e.id: e for e in result.events} | {e.id: e for e in extra.events}
    reported = result.reported_scores()
    met: dict[tuple, set] = {}
    stands: dict[tuple, bool] = {}
    for e in result.events:
        if e.kind == "SCORE" and e.active != "no":
            at = (e.path, e.line)
            met.setdefault(at, set()).update(
                (k[0], s.path, s.line) for k in e.detail.get("keys", ()) if k[0] in EVENTS and (s := by_id.get(k[1])) is not None
            )
            stands[at] = stands.get(at, False) or e.id in reported
    for e in extra.events:
        at = (e.path, e.line)
        if e.kind != "SCORE" or at not in met:
            continue
        own = {(k[0], s.path, s.line) for k in e.detail.get("keys", ()) if k[0] in EVENTS and (s := by_id.get(k[1])) is not None}
        if own - met[at]:
            met[at] |= own
            e.active = "no"
            e.detail["reported"] = stands[at]
            result.dormant_scores.append(e)
    result.shadow = {e.id: e for e in extra.events if e.kind not in ("SCORE", "REPORT")}


class _Reader:
    """One face for every way of answering for a knob."""

    def __init__(self, knobs: Any) -> None:
        self.lookup = getattr(knobs, "lookup", None)
        self.plain = getattr(knobs, "value", None)

    def value(self, name: str, default: Any) -> tuple[Any, str]:
        if self.lookup is not None:
            found = self.lookup(name)
            if found is None:
                return default, "code"
            return found.value, "ambiguous" if found.ambiguous else found.source
        if self.plain is not None:
            got = self.plain(name, default)
            return got if isinstance(got, tuple) else (got, "")
        return default, "code"
