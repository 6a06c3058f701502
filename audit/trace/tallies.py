"""Tables of tokens that a product makes: ``features.t() @ one_hot(targets)`` sums over the positions, like a count does.

What is left of the tokens in it has no place any more. A readout that is fitted in closed form (ridge regression, least
squares) on features and the tokens that followed them has taken those tokens in, as a table of counts does.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.gates import ONE_HOT
from audit.trace.values import COUNT, LOSS, VAL, V, const

_TURNS = frozenset(["t", "T", "mT", "H", "transpose", "swapaxes", "adjoint"])
#: what fits a matrix to two others
SOLVERS = frozenset(["lstsq"])


def turned(e: Any) -> bool:
    """``h.t()``, ``h.T``, ``h.transpose(0, 1)``, whatever is done to it besides."""
    while isinstance(e, (ir.Call, ir.Attr)):
        if isinstance(e, ir.Attr) and e.attr in _TURNS:
            return True
        e = e.func if isinstance(e, ir.Call) else e.value
    return False


def summed_over(spec: V, operand: int) -> bool:
    """Does ``einsum("td,tv->dv", ...)`` leave the positions of an operand (all its axes but the last) out of the result."""
    if spec.kind != "const" or not isinstance(spec.const, str):
        return False
    given, _, result = spec.const.replace(" ", "").partition("->")
    parts = given.split(",")
    places = set(parts[operand][:-1]) if result and operand < len(parts) else set()
    return bool(places) and places.isdisjoint(result)


def rows_of_tokens(v: V) -> bool:
    """Tokens of the stream as rows of zeros with a one in each."""
    return ONE_HOT in v.keys and bool(v.flags & VAL) and not v.flags & (LOSS | COUNT)


class Tallies:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_tally(self: Any, name: str, args: list[V], out: V, node: Any) -> None:
        """A product of matrices, or a fit, one side of which is tokens: is it summed over them."""
        if name == "einsum":
            tokens = next((v for i, v in enumerate(args[1:]) if rows_of_tokens(v) and summed_over(args[0], i)), None)
        else:
            left = node.left if isinstance(node, ir.BinOp) else node.args[0] if isinstance(node, ir.Call) and len(node.args) == len(args) else None
            tokens = args[1] if len(args) == 2 and rows_of_tokens(args[1]) and (name in SOLVERS or turned(left)) else None
        if tokens is not None:
            e = self.event("STORE", node, tokens, keys=tokens.keys, whole=self.fills_whole(tokens, const(1)))
            out.taint = out.taint | {e.id}


__all__ = ["SOLVERS", "Tallies"]
