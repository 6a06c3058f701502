"""What test-time training and what cache a submission contains, in the words of ``referee.audit/1``.

Kinds name what is there, active or not; what is active wins over what is dormant.
"""

from __future__ import annotations

from audit.classify_cache import cache
from audit.model import Tristate, TttKind
from audit.trace import Event, Trace
from audit.trace.adaptation import (
    conflicts,
    context_fits,
    is_leaf_update,
    scored_before,
    trained_on_validation,
    val_updates,
)
from audit.trace.values import VAL

#: the same code can contain several; the first of these names it
ORDER: tuple[TttKind, ...] = (
    "pre-eval", "slot", "train-then-score", "context-slot", "phased", "score-first-document", "score-first-chunk", "other",
)  # fmt: skip
RANK = {"yes": 0, "unknown": 1, "no": 2}


def ttt(trace: Trace) -> tuple[TttKind, Tristate]:
    """The kind of test-time training and whether the submitted configuration reaches it."""
    found: dict[TttKind, Tristate] = {}

    def add(kind: TttKind, active: Tristate) -> None:
        if kind not in found or RANK[active] < RANK[found[kind]]:
            found[kind] = active

    for c in conflicts(trace, "pre-eval", printed=True):
        add("pre-eval", c.active)
    for c in conflicts(trace, "train-then-score", "update-first", printed=True):
        add("train-then-score", c.active)
    for c in conflicts(trace, "rescored", printed=True):
        if c.revisited or c.before is None:
            add("train-then-score", c.active)
    for c in conflicts(trace, "slot", printed=True):
        add("slot", c.active)
    for u, _ in context_fits(trace):
        add("context-slot", u.active)
    hit = {(c.update.path, c.update.line, c.active) for c in conflicts(trace, reported=False) if c.before is None or c.revisited}
    first: list[Event] = []
    beside: list[Event] = []
    base = {u.id for u in trained_on_validation(trace)}  # a training set made of validation shards (F15)
    for u in val_updates(trace):
        if u.id not in base and (u.path, u.line, u.active) not in hit and not is_leaf_update(u):
            (first if u.detail.get("scored") or scored_before(trace, u) is not None else beside).append(u)
    for u in first:
        add(_score_first(u, first), u.active)
    learned = {(u.path, u.line) for u in first}
    for u in beside:
        if (u.path, u.line) not in learned and _scored_beside(trace, u):
            add("other", u.active)
    for state in ("yes", "unknown", "no"):
        for kind in ORDER:
            if found.get(kind) == state:
                return kind, state  # type: ignore[return-value]
    return "none", "no"


def _scored_beside(trace: Trace, u: Event) -> bool:
    """Does the loop that an update stands in score validation tokens, others than it learns from: the prefix of a window."""
    around = {loop for loop, _ in u.loops}
    return any(s.flags & VAL and around & {loop for loop, _ in s.loops} for s in trace.of("SCORE"))


def _score_first(u: Event, others: list[Event]) -> TttKind:
    """Documents: an adapter of their own, built or reset for each. Phased: the model itself besides. Else chunks."""
    around = {loop for loop, _ in u.loops}
    kin = [o for o in others if around & {loop for loop, _ in o.loops} and o.active == u.active]
    fresh = {bool(o.detail.get("fresh")) for o in kin}
    if fresh == {True, False}:
        return "phased"
    return "score-first-document" if fresh == {True} else "score-first-chunk"


__all__ = ["cache", "ttt"]
