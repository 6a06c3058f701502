"""What a sum of losses is made of: for each loss in it, which tokens it is about and which updates it depends on.

A value knows the tokens and the updates of all that went into it. For a sum over several turns that is not enough:
that the second turn's loss depends on an update from the first turn's tokens says nothing of the first turn's loss.
So every loss is given a number of its own, kept among the keys of whatever it goes into, and a score is held against
an update only for the tokens of losses that depend on it.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import LOSS, VAL, Atom, V, kinds

#: ``("term", number)``: the loss of this number is a term
TERM = "term"
#: functions of which the value for a sum is no sum of values, or that choose
BENT = frozenset(
    "softmax log_softmax logsumexp logaddexp exp exp2 expm1 sigmoid logsigmoid tanh log log2 log1p pow sqrt where minimum maximum fmin fmax min max".split()
)
#: of each loss: its tokens, the number of the event that came next, and the turns that it was computed in
Made = tuple[tuple[frozenset, int, tuple], ...]
Terms = tuple[tuple[frozenset, frozenset], ...]


class TermsOfSums:
    """Mixed into the machine; see `audit.trace.machine`."""

    def as_terms(self: Any, v: V, product: bool = False) -> V:
        """``v``, fresh from a call or an operator, with its terms.

        What it depends on beside them (a weight, a mixture with a table) every term depends on; the factors of a
        product are one term, and so is what a function makes of several that is no sum of them.
        """
        if v.kind != "val" or not v.atoms or not v.flags & LOSS or not v.flags & VAL:
            return v
        if TERM not in kinds(v):
            v.keys = v.keys | {self.term(v.atoms, v.taint)}
            return v
        held = [k for k in v.keys if k[0] == TERM]
        beside = v.taint.difference(*(self.terms[n][1] for _, n in held))
        if product and len(held) > 1:
            v.keys = v.keys.difference(held) | {self.term(v.atoms, v.taint)}
        elif beside:
            v.keys = v.keys.difference(held) | {self.term(self.terms[n][0], self.terms[n][1] | beside) for _, n in held}
        return v

    def term(self: Any, atoms: frozenset, taint: frozenset) -> tuple[str, int]:
        number = self.term_numbers.setdefault((atoms, taint), len(self.terms))
        if number == len(self.terms):
            self.terms.append((atoms, taint))
            self.made.append((atoms, self.next_id, tuple(self.loops)))
        return TERM, number

    def made_at(self: Any, v: V) -> Made:
        return tuple(self.made[k[1]] for k in v.keys if k[0] == TERM)

    def terms_of(self: Any, v: V) -> Terms:
        held = sorted(k[1] for k in v.keys if k[0] == TERM)
        return tuple(self.terms[n] for n in held) if len(held) > 1 else ()


def bent(function: ir.Expr) -> bool:
    return (function.attr if type(function) is ir.Attr else getattr(function, "id", "")) in BENT


def spared(terms: Terms, update: int, tokens: Atom) -> bool:
    """Do only losses of other tokens depend on this update."""
    if all(update not in taint for _, taint in terms):
        return False
    about = [taint for atoms, taint in terms if any(deps <= tokens[0] for deps, _, _ in atoms)]
    return bool(about) and all(update not in taint for taint in about)


__all__ = ["TermsOfSums", "bent", "spared"]
