"""Weights that a test chooses: rounded ones of several scales, row by row, those that give the smaller error.

Each candidate is made of the weights alone. Where the error is measured with what the model makes of validation tokens (a
Hessian, activations), the choice is learned from these tokens all the same: what was chosen is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from audit.trace.values import BPB, GRAD, LOGITS, LOSS, MASK, META, PARAM, PROB, VAL, V, clone, derive, kinds


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


def note_branch(scope: Any, test: V, assigned: Iterable[str]) -> None:
    """``if error < least: best = rounded``"""
    for name in assigned:
        if (now := scope.names.get(name)) is not None and decides_weights(test, now):
            scope.names[name] = chosen_weights(test, now)


__all__ = ["chosen_weights", "decides_weights", "learned_from", "learned_of_val", "note_branch"]
