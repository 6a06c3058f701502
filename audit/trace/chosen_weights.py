"""Weights that a test chooses: rounded ones of several scales, row by row, those that give the smaller error.

Each candidate is made of the weights alone. Where the error is measured with what the model makes of validation tokens (a
Hessian, activations), the choice is learned from these tokens all the same: what was chosen is made of them. A number
that was chosen in this way (a scale, a share of weights to clip) teaches whatever weights are made with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from audit.trace.values import BPB, GRAD, LOGITS, LOSS, MASK, META, PARAM, PROB, VAL, V, clone, derive, kinds

#: of a number, with the number of what picked it
PICKED = "picked"


def learned_of_val(test: V) -> bool:
    """Is it made of what a model makes of validation tokens, and no figure of how it does there."""
    if test.kind != "val" or test.flags & (META | GRAD | BPB | LOSS):
        return False
    return bool(test.flags & VAL and test.flags & LOGITS) or "calibrated" in kinds(test)


def decides_weights(test: V, *weights: V) -> bool:
    """Is ``test`` made of what a model makes of validation tokens, and are the weights that it chooses not."""
    if not any(w.flags & PARAM for w in weights) or not learned_of_val(test):
        return False
    return not any(w.kind not in ("val", "bound") or w.flags & (VAL | LOSS | LOGITS | PROB | GRAD) for w in weights)


def learned_from(test: V) -> V:
    """What weights get from the test that chose them."""
    out = clone(test)
    out.flags &= ~MASK
    out.mask = out.pos = out.span = None
    return out


def chosen_weights(test: V, *weights: V) -> V:
    return derive([*weights, learned_from(test)])


def plain_number(v: V) -> bool:
    """A number that the program writes itself, or one of several."""
    return (v.kind == "const" and type(v.const) in (int, float)) or (
        v.kind == "val" and not v.flags and not v.atoms and not v.taint and not v.models and all(k[0] == PICKED for k in v.keys)
    )


class ChosenWeights:
    """Mixed into the machine; see `audit.trace.machine`."""

    def picked_by(self: Any, test: V, number: V) -> V:
        """``(0.7, 0.8, 0.9)[errors.argmin()]``: marks a number with what it was picked by."""
        if not plain_number(number) or not learned_of_val(test):
            return number
        out = derive([number])
        known = next((n for n, v in enumerate(self.picks) if v is test), None)
        if known is None:
            known = len(self.picks)
            self.picks.append(test)
        out.keys = out.keys | {(PICKED, known)}
        return out

    def taught(self: Any, weights: V) -> V:
        """Weights that were made with a picked number have learned from what picked it."""
        by = sorted(k[1] for k in weights.keys if k[0] == PICKED)
        return derive([weights, *(learned_from(self.picks[n]) for n in by)]) if by else weights

    def note_branch(self: Any, test: V, assigned: Iterable[str]) -> None:
        """``if error < least: best = rounded``, ``if error < least: best = scale``"""
        names = self.scope.names
        for name in assigned:
            if (now := names.get(name)) is None:
                continue
            names[name] = chosen_weights(test, now) if decides_weights(test, now) else self.picked_by(test, now)


__all__ = ["ChosenWeights", "chosen_weights", "decides_weights", "learned_from", "learned_of_val"]
