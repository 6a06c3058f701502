"""When a loss becomes part of a score: added to a total, put into a list or an array, printed.

From then on its tokens count as scored, whatever is trained next. ``total += loss`` and ``losses.append(loss)`` say so
themselves; ``total = total + loss``, ``losses = [*losses, loss]`` and ``torch.cat([losses, new])`` do where what the loss joins
is a running total: nothing yet, or losses that were scored before.
"""

from __future__ import annotations

from typing import Any

from audit.trace.left_out import LATER_TURNS
from audit.trace.positions import EVENTS
from audit.trace.values import EMPTY, LOSS, MATCH, ORDER, VAL, V, clone, kinds, untouched

#: functions and methods that give the sum or the difference of two tensors
ADDS = {"add": "+", "sub": "-", "subtract": "-"}
#: functions and methods that give the product or the quotient
SCALES = {"mul": "*", "multiply": "*", "div": "/", "divide": "/", "true_divide": "/"}
#: functions that put tensors behind one another
PUT_TOGETHER = frozenset(["cat", "concat", "concatenate", "hstack"])
#: a sum that turns of a loop add losses to
RUNNING = "running"


class Totals:
    """Mixed into the machine; see `audit.trace.machine`."""

    def from_nothing(self: Any, v: V) -> bool:
        """A zero, a tensor of zeros that nothing was put into, an empty list."""
        if v.kind == "const":
            return type(v.const) in (int, float) and v.const == 0
        if v.kind == "seq":
            return not v.data and v.rest is None
        return id(v) in self.born and untouched(v) and v.data is None

    def uncommitted(self: Any, v: V) -> bool:
        return v.kind == "val" and bool(v.flags & LOSS and v.flags & VAL and v.atoms) and not v.scores

    def added_to(self: Any, total: V, v: V, node: Any) -> V:
        """``v`` as ``total + v`` adds it up, turn by turn.

        Its tokens are scored here; the sum itself is a score once it is told as it may be a weight as well: how well
        an expert has done.
        """
        if not self.loops or not self.uncommitted(v) or not (RUNNING in kinds(total) or self.from_nothing(total)):
            return v
        out = clone(v)
        out.keys = v.keys | {(RUNNING, number) for number in self.commit_score(v, node, "accumulated").scores}
        return out

    def put_beside(self: Any, parts: list[V], node: Any) -> list[V]:
        """The parts of a list that a turn makes of the list so far and of new losses."""
        if not self.loops or not any(v.scores or self.from_nothing(v) for v in parts):
            return parts
        return [self.commit_score(v, node, "stored") if self.uncommitted(v) else v for v in parts]

    def lists_beside(self: Any, a: V, b: V, node: Any) -> tuple[V, V]:
        """``losses + [new]``"""
        if not any(self.uncommitted(x) for v in (a, b) for x in v.data or ()):
            return a, b
        n = len(a.data or ())
        parts = self.put_beside([*(a.data or ()), *(b.data or ()), *(x for x in (a.rest, b.rest) if x is not None), *(v for v in (a, b) if not v.data)], node)
        one, other = clone(a), clone(b)
        one.data, other.data = parts[:n], parts[n : n + len(b.data or ())]
        return one, other

    def commit_score(self: Any, v: V, node: Any, how: str) -> V:
        """A loss on validation targets becomes part of a total: from now on the tokens count as scored."""
        if not v.flags & VAL or not v.atoms:
            return v
        if not v.scores and RUNNING in kinds(v) and how != "accumulated":
            v = clone(v)
            v.scores = frozenset(k[1] for k in v.keys if k[0] == RUNNING)  # a sum whose parts were scored as they were added
        if self.loss_tests:
            v = clone(v)
            self.note_passed(v, node)
        mixed = frozenset(k for k in v.keys if k[0] in EVENTS)
        for number in v.scores:
            mixed = mixed - self.score_keys.get(number, EMPTY)
        if v.scores and how != "accumulated" and not mixed:
            return v
        fresh = v.taint
        for number in v.scores:
            # What was committed element by element was judged there; a sum over stored scores adds nothing
            # but what came after (a mixture with a table).
            fresh = fresh - self.score_taint.get(number, EMPTY)
        if v.scores and not fresh and not mixed:
            return v
        owners = [self.serials[m].data for m in v.models if m in self.serials]
        e = self.event(
            "SCORE", node, v, how=how, models=v.models, keys=v.keys, span=v.span, targets=v.flags & ORDER,
            in_memory=any(o.trained and not o.stored for o in owners),
        )  # fmt: skip
        e.taint = fresh
        e.detail["made"] = self.made_at(v)
        if fresh and (terms := self.terms_of(v)):
            e.detail["terms"] = terms
        if any(how == LATER_TURNS for _, _, how in self.loss_tests):
            e.detail["later"] = True
        if self.loss_tests and (passed := self.lengths_passed()) is not None:
            e.detail["length"] = passed
        self.score_taint[e.id] = v.taint
        self.score_keys[e.id] = v.keys
        if v.flags & MATCH:
            self.event("WAIVE", node, v)
        out = clone(v)
        out.scores = v.scores | {e.id}
        return out


__all__ = ["ADDS", "PUT_TOGETHER", "SCALES", "Totals"]
