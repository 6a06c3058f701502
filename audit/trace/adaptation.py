"""What kind of adaptation each conflict is: the trace's answer to the rules on test-time training.

A `Conflict` says that a score may rest on an update that saw the scored tokens. Which rule that breaks
depends on what was updated (the model, or a tensor made for the window) and on where the tokens had been
before: never scored, scored in an earlier pass, or scored with the same window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit.trace.events import Conflict, Event, Trace
from audit.trace.values import TRAIN, VAL, disjoint

#: breach kinds: pre-eval, train-then-score, prefilled, update-first, rescored, slot, context-slot, table, table-first
Shape = str


def shape_of(c: Conflict) -> Shape:
    """One word for what the conflict is; names of functions play no role."""
    if c.update.kind == "STORE":
        if c.prefilled:
            return "prefilled"
        # The table took the tokens in earlier in the very iteration that scores them.
        return "table-first" if c.shared_loop and not c.revisited and c.before is None else "table"
    if is_leaf_update(c.update):
        if (c.shared_loop and not c.revisited) or c.update.function == c.score.function:
            return "slot"
        return "train-then-score"
    if c.revisited or c.before is not None:
        return "rescored"
    if c.shared_loop:
        return "update-first"
    if c.saved_after:
        return "pre-eval"
    return "train-then-score"


def is_leaf_update(u: Event) -> bool:
    """Was only a tensor made for the purpose fitted (a delta, a bias), and no model's parameter."""
    return u.kind == "UPDATE" and not u.detail.get("models") and bool(u.detail.get("leaves"))


def context_fits(trace: Trace) -> list[tuple[Event, Event]]:
    """(update, score) pairs: a tensor fitted on a window's context, then used on its scored part."""
    by_id = {e.id: e for e in trace.events}
    found = []
    for s in trace.of("SCORE"):
        for uid in s.taint:
            u = by_id.get(uid)
            if u is None or not is_leaf_update(u) or not u.flags & VAL:
                continue
            if any(a[2] is not None and a[2] == b[1] for a in u.atoms for b in s.atoms):
                found.append((u, s))
    return found


def in_batch(u: Event) -> bool:
    """Does an update's loss cover several windows: rows of a batch, each put in by a turn of a loop that had ended, or stacked."""
    if u.detail.get("windows"):
        return True
    open_loops = {loop for loop, _ in u.loops}
    rows: dict[int, set[int]] = {}
    for deps, _, _ in u.atoms:
        for loop, iteration in deps:
            if loop not in open_loops:
                rows.setdefault(loop, set()).add(iteration)
    return any(len(iterations) > 1 for iterations in rows.values())


def discarded_updates(trace: Trace) -> list[Event]:
    """Updates on validation tokens that were not scored before and that no score depends on."""
    used: set[int] = set()
    for s in trace.of("SCORE"):
        used |= s.taint
    fine: set[tuple[str, int]] = set()
    left: list[Event] = []
    for u in val_updates(trace):
        if u.id in used or u.flags & TRAIN or scored_before(trace, u) is not None:
            fine.add((u.path, u.line))
        else:
            left.append(u)
    return places([u for u in left if (u.path, u.line) not in fine])


def trained_on_validation(trace: Trace) -> list[Event]:
    """Updates from validation shards of a model that is trained on nothing else and was not loaded from a file."""
    mixed = [u for u in val_updates(trace, active=True) if u.flags & TRAIN and u.detail.get("models")]
    if mixed or any(e.flags & TRAIN for e in trace.of("UPDATE", "READ", active=True)):
        used = {uid for s in trace.of("SCORE") for uid in s.taint}
        return [u for u in mixed if not u.detail.get("stored") and not u.detail.get("fresh") and u.id in used]
    # A loop that picks the tokens which it scores adapts to them; one that now and then scores everything does not.
    # The loss that a training loop prints is no score.
    told = trace.reported_scores()
    walked = {
        loop for s in trace.of("SCORE", active=True) if s.id in told for loop, _ in s.loops
        if any(loop == chosen for deps, _, _ in s.atoms for chosen, _ in deps)
    }  # fmt: skip
    return [
        u for u in val_updates(trace, active=True)
        if u.detail.get("models") and not u.detail.get("stored") and not u.detail.get("fresh")
        and not any(loop in walked for loop, _ in u.loops)
    ]  # fmt: skip


def conflicts(trace: Trace, *shapes: Shape, reported: bool = True, printed: bool = False) -> list[Conflict]:
    """Conflicts of these shapes (all without any) whose score reaches the reported figure, active ones first.

    ``printed``: any printed figure; ``reported=False``: no matter what is printed.
    """
    rank = {"yes": 0, "unknown": 1, "no": 2}
    found = [
        c for c in trace.conflicts
        if (not shapes or shape_of(c) in shapes) and (c.reported or not reported or (printed and c.printed))
    ]
    if base := {u.id for u in trained_on_validation(trace)}:
        # A training set made of validation shards is another matter than adaptation (F15).
        found = [c for c in found if c.update.id not in base]
    found.sort(key=lambda c: (not c.reported, rank[c.active]))
    first: dict[tuple[Any, ...], Conflict] = {}
    for c in found:
        # One per update is enough to show; a score in the last printed figure shows it best.
        first.setdefault((c.update.path, c.update.line, c.before is not None), c)
    return list(first.values())


def val_updates(trace: Trace, active: bool | None = None) -> Iterator[Event]:
    """Updates of a model or a tensor from losses on validation tokens."""
    for e in trace.of("UPDATE", active=active):
        if e.flags & VAL:
            yield e


def scored_before(trace: Trace, u: Event) -> Event | None:
    """A score that covers the update's tokens and was committed before it, in the same loop nest.

    In the same turn, or in the earlier one that the update took its tokens from (``if chunk > 0: adapt(chunk - 1)``). Or one whose
    losses were computed there before the update and that does not depend on it, wherever it adds them up.
    """
    open_loops = dict(u.loops)
    for s in trace.of("SCORE"):
        if s.id >= u.id:
            if s.flags & VAL and u.id not in s.taint and any(
                number <= u.id and any(not disjoint(a, b) for a in u.atoms for b in atoms) and _same_turns(open_loops, dict(loops))
                for atoms, number, loops in s.detail.get("made", ())
            ):
                return s
            continue
        same = [(a[0], b[0]) for a in u.atoms for b in s.atoms if not disjoint(a, b)] if s.flags & VAL else []
        if same:
            at = dict(s.loops)
            shared = open_loops.keys() & at.keys()
            others = {(x, at[x]) for x in shared if at[x] != open_loops[x]}
            if shared and (not others or any(others <= a & b for a, b in same)):
                return s
    return None


def _same_turns(here: dict[int, int], there: dict[int, int]) -> bool:
    shared = here.keys() & there.keys()
    return bool(shared) and all(there[x] == here[x] for x in shared)


def call_of(trace: Trace, e: Event) -> tuple[str, int]:
    """Where the program's own course called what led to ``e``: the call beside the one that wrote the artifact."""
    saved = next((s for s in trace.of("SAVE", active=True) if s.detail.get("weights")), None)
    shared = 0
    if saved is not None:
        for a, b in zip(saved.stack, e.stack, strict=False):
            if a != b:
                break
            shared += 1
    return e.stack[shared][:2] if shared < len(e.stack) else (e.path, e.line)


def places(events: list[Event]) -> list[Event]:
    """One event per source position, in order."""
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for e in events:
        key = (e.kind, e.path, e.line)
        if key not in seen:
            seen.add(key)
            kept.append(e)
    return kept
