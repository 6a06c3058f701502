"""Choices between two losses of the same tokens by which of them is smaller, made by a branch.

``torch.minimum`` and ``where`` are seen where they are called (`audit.trace.library`). An ``if`` is one where it
compares losses of the very tokens that it decides about, made in the same turn of a loop and not added up yet: what
an earlier turn left (the best figure so far) and what was scored before are other matters.

What is chosen may as well be a row of predictions, a temperature or a weight. It is an oracle for the tokens whose losses
chose it, in the turn that did so; in later turns it is what was learned from the past.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.events import Event
from audit.trace.gates import within
from audit.trace.positions import tokens_in
from audit.trace.shaping import BY_GAP, BY_LOSS, PICKED, is_loss, own_tokens, same_target
from audit.trace.subscripts import text_of
from audit.trace.values import BPB, GRAD, LOGITS, LOSS, VAL, V, clone, disjoint


def compares(test: V) -> bool:
    return bool(test.keys & {BY_LOSS, BY_GAP})


def picks(test: V, loss: V) -> bool:
    """Does a comparison of losses say something about the token that this is a loss of."""
    return compares(test) and same_target(test, loss)


def _given(name: str, way: list[ir.Stmt]) -> list[str]:
    """What a name is assigned in a branch, in one normal form."""
    return [
        text_of(n.value) for n in ir.walk(way)
        if isinstance(n, ir.Assign) and any(isinstance(t, ir.Name) and t.id == name for t in n.targets)
    ]  # fmt: skip


def _added(way: list[ir.Stmt]) -> list[str]:
    """What a branch adds up."""
    return [text_of(n.value) for n in ir.walk(way) if isinstance(n, ir.AugAssign)]


def for_its_own(e: Event, s: Event) -> bool:
    """Is what the losses at ``e`` chose used at ``s`` for the very tokens of those losses (or for all that follow them)."""
    own = e.detail.get("own")
    if own is None:
        return True
    then, now = dict(e.loops), dict(s.loops)
    shared = then.keys() & now.keys()
    if not shared or any(then[loop] != now[loop] for loop in shared):
        return False
    mine, scored = tokens_in(own), tokens_in(s.detail.get("keys", frozenset()))
    return bool(scored) and all(at in mine and max(mine[at]) >= max(offsets) for at, offsets in scored.items()) and any(
        not disjoint(a, b) for a in e.atoms for b in s.atoms
    )


def plain_number(v: V) -> bool:
    """A number that is no loss, no figure of the model and no token."""
    if v.kind == "const":
        return isinstance(v.const, (int, float)) and not isinstance(v.const, bool)
    return v.kind == "val" and not v.flags and not v.models


class Choices:
    """Mixed into the machine; see `audit.trace.machine`."""

    def uncounted(self: Any, v: V | None) -> bool:
        """Is it a loss or a probability of what this turn of a loop is about, made in this turn and not scored yet."""
        if v is None or v.kind != "val" or v.flags & (BPB | GRAD | LOGITS) or not (v.flags & LOSS and v.flags & VAL):
            return False
        if v.scores and not self.only_stored(v):
            return False
        now = dict(self.loops)
        here = [now[loop] == turn for chosen, _, _ in v.atoms for loop, turn in chosen if loop in now]
        chosen_by = {loop for chosen, _, _ in v.atoms for loop, _ in chosen}  # turns of another loop are about the same tokens
        starts = [names for (loop, _), names in zip(self.loops, self.turn_starts, strict=False) if loop in chosen_by]
        return bool(here) and all(here) and not any(x is v for names in starts for x in names.values())

    def only_stored(self: Any, v: V) -> bool:
        """Did this turn do no more with these losses than to put them into a list: one of those may be what counts."""
        here = tuple(self.loops)
        stored = {e.id for e in self.trace.events if e.id in v.scores and e.detail["how"] == "stored" and e.loops[: len(here)] == here}
        return bool(here) and stored == v.scores

    def picked(self: Any, v: V, node: Any) -> V:
        e = self.event("SELECT", node, v, how="branch")
        out = clone(v)
        out.keys = v.keys | {("select", e.id), PICKED}
        return out

    def put_over(self: Any, base: V, value: V, node: Any) -> V:
        """``if new < old: losses[t] = new``: of two losses of one token the smaller stays in an array."""
        for test in self.comparing:
            if is_loss(base) and self.uncounted(value) and picks(test, value):
                return self.picked(value, node)
        return value

    def tuned(self: Any, out: V, losses: V, node: Any, how: str) -> V:
        """``out`` was chosen by these losses; where they are of what this turn is about, it may not score the same tokens."""
        if not self.uncounted(losses):
            return out
        known = self.chosen_from.get((id(losses), how))  # the same choice, written a second time
        if known is None:
            known = losses, self.event("SELECT", node, losses, how=how, own=own_tokens(losses))
            self.chosen_from[id(losses), how] = known
        e = known[1]
        made = clone(out)
        made.keys = out.keys | {("select", e.id)}
        return made

    def by_side(self: Any, out: V, test: V, node: Any) -> V:
        """``a_row if a < b else b_row``, ``0 if a < b else 1`` for two losses of what this turn is about."""
        if out.kind != "val" or BY_LOSS not in test.keys or test.rest is None:
            return out
        sides = [v for v in test.rest.data or () if self.uncounted(v)]
        made: V = self.tuned(out, sides[0], node, "branch") if sides else out
        return made

    def note_chosen(self: Any, s: ir.If, test: V, before: dict[str, V], begun: int) -> None:
        """``if b < a: best = b``, ``if a < b: total += a`` / ``else: total += b``: the smaller loss of the same tokens."""
        if not compares(test):
            return
        assigned = [self.interest.assigned(way)[0] for way in (s.body, s.orelse)]
        tested = test.rest.data or [] if test.rest is not None else []
        sides = [v for v in tested if self.uncounted(v)] if BY_LOSS in test.keys and len(assigned[0]) > 1 else []
        for name, now in list(self.scope.names.items()):
            old = before.get(name)
            if now is not old and sides and name in assigned[0] and plain_number(now):
                self.scope.names[name] = self.tuned(now, sides[0], s, "branch")  # what came with the smaller loss
            if now is old or not self.uncounted(now) or not picks(test, now):
                continue
            both = name in assigned[0] and name in assigned[1] and _given(name, s.body) != _given(name, s.orelse)
            if both or (any(name in names for names in assigned) and old is not None and self.uncounted(old) and picks(test, old)):
                self.scope.names[name] = self.picked(now, s)
        scores = [e for e in self.trace.events[begun:] if e.kind == "SCORE" and e.loops == tuple(self.loops) and own_tokens(e) & own_tokens(test)]
        ways = [[e for e in scores if within(e.line, way)] for way in (s.body, s.orelse)]
        if all(ways) and _added(s.body) != _added(s.orelse):
            e = self.event("SELECT", s, test, how="branch")
            for x in scores:
                x.detail["keys"] = x.detail["keys"] | {("select", e.id)}
