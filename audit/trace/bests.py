"""The best of several evaluations: ``min(results, key=results.get)``, ``sorted(sweep)[0]``, ``temperatures[argmin(scores)]``.

What was picked by the figures of whole evaluations is marked with the event of the pick. The mark reaches the figures that
are made with it, and what is printed of them (rule F18 asks which of them is the reported one). Figures of parts of the stream that
the turns of an open loop choose are not meant: what comes after such a part may learn from its score.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import BPB, COUNT, LOSS, VAL, V, clone, derive, filed, kinds, picked, seq, summary

BEST = "best"


def best_of(keys: frozenset) -> frozenset:
    """The marks of picks among the keys of a value."""
    return frozenset(k for k in keys if k[0] == BEST)


def alone(parts: list[V]) -> frozenset:
    """The picks that every figure in a printed line comes from: beside another figure the best one is told and no more."""
    figures = [p for p in parts if p.flags & BPB and p.scores]
    return frozenset.intersection(*(best_of(p.keys) for p in figures)) if figures else frozenset()


def marked(v: V, pick: int) -> V:
    """A pick, or each part of one (``(score, rate)``)."""
    if v.kind == "seq":
        return seq([marked(x, pick) for x in v.data or []], marked(v.rest, pick) if v.rest is not None else None)
    made = clone(v) if v.kind == "val" else derive([summary(v)])
    made.keys = made.keys | {(BEST, pick)}
    return made


def one_of_row(several: V, one: V) -> V:
    """The token, or the pair of a token and its count, that the counts of a row (or of its items) put first."""
    if several.kind == "dict":
        out = picked(several)
        if one.taint:
            out.taint, out.atoms, out.flags = one.taint, one.atoms, out.flags | one.flags  # what the row's table took in
        return out
    if not several.flags & COUNT or "lookup" not in kinds(several):
        return one
    if one.kind == "seq" and len(one.data or []) == 2:
        return seq([picked(several), one.data[1]])
    return picked(several) if one.kind == "val" and not one.flags else one


def note_sorted_row(row: V, out: V) -> None:
    """``sorted(row, key=row.get)``: the list knows what it is made of, and so does what is taken from one of its ends."""
    if row.kind in ("dict", "seq") and row.flags & COUNT and out.kind == "seq":
        out.flags, out.keys = out.flags | COUNT, out.keys | {k for k in row.keys if k[0] == "lookup"}


class Bests:
    """Mixed into the machine; see `audit.trace.machine`."""

    def evaluations(self: Any, v: V) -> bool:
        """Are these figures of evaluations that no open loop goes through part by part."""
        if not v.scores or not v.flags & VAL or not v.flags & (LOSS | BPB):
            return False
        now = {loop for loop, _ in self.loops}
        return not any(loop in now for chosen, _, _ in v.atoms for loop, _ in chosen)

    def best(self: Any, out: V, figures: V, node: Any, how: str, *, picks: bool, running: bool = False) -> V:
        """``out`` is the best of several by ``figures``.

        ``picks``: it is, or comes with, something else than a figure; ``running``: the best that a loop has seen so far.
        """
        if not self.evaluations(figures):
            return out
        return marked(out, self.event("CHOOSE", node, figures, assigned=[], how=how, picks=picks, running=running).id)

    def first_of_sorted(self: Any, e: ir.Sub, base: V, out: V) -> V:
        """``sorted(sweep)[0]``, also where the sorted list has a name."""
        if not isinstance(e.index, (ir.Const, ir.UnaryOp)):
            return out
        made = e.value if not isinstance(e.value, ir.Name) else self.scope.meaning.get(e.value.id)
        if not isinstance(made, ir.Call) or not isinstance(made.func, ir.Name) or made.func.id != "sorted":
            return out
        by = next((self.ev(x) for name, x in made.keywords if name == "key"), None)
        return self.best_in(base, by, out, e, "sorted")

    def best_in(self: Any, several: V, by: V | None, out: V, node: Any, how: str) -> V:
        """The best of ``several``: by what ``by`` gives for each, or by their own order."""
        figures = summary(several)
        if by is not None and not self.evaluations(figures):
            figures = self.figures_of(several, by, node)
        one = one_of_row(several, filed(several) if several.kind == "dict" else self.element(several))
        made: V = self.best(one if one.kind == "seq" or several.kind == "dict" or several.flags & COUNT else out, figures, node, how, picks=by is not None or one.kind == "seq")
        return made

    def place_of_best(self: Any, figure: V) -> V:
        """``scores.index(min(scores))``"""
        found = V("val")
        found.keys = best_of(figure.keys)
        for e in self.trace.events if found.keys else ():
            if (BEST, e.id) in found.keys:
                e.detail["picks"] = True
        return found

    def figures_of(self: Any, several: V, by: V, node: Any) -> V:
        """What ``key=by`` gives for an element."""
        if by.kind not in ("func", "partial", "bound"):
            return V("val")
        one = filed(several) if several.kind == "dict" else self.element(several)
        return summary(self.call_value(by, [one], {}, node))



__all__ = ["BEST", "Bests", "alone", "best_of"]
