"""Shares: which part of all tokens a number of tokens is, or a stream that was cut to such a number.

``(tokens.numel() - 1) // 2`` is half of them; divided by 1024 and counted through in steps of one it is all of them where
each turn goes on by 1024 tokens. So a loop's bound, its step and the tokens that a turn goes on by say together how much
of the stream the loop walks (`audit.trace.gaps`). A part of a whole that is not divided by a number from the script is
nothing that is known here.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from audit.trace.spans import NUMBER_OF, OF_ROWS, ROWS
from audit.trace.values import CUT, LOGITS, LOSS, MASK, META, ORDER, VAL, WHOLE_ATOMS, V, summary

#: the share, and whether a setting decides it
Share = tuple[Fraction, bool]
WHOLE: Share = (Fraction(1), False)
#: what is added to a number of tokens for rounding up
_ROUNDING = 1 << 20


def documents(v: V) -> bool:
    """Is it a list, or an array, of places that were found in the stream."""
    if v.kind == "seq" and v.rest is None:
        return False
    inner = summary(v)
    return inner.kind == "val" and bool(inner.flags & META and inner.flags & MASK) and not inner.flags & (LOSS | LOGITS)


def counted(stream: V, out: V) -> None:
    """``out`` is the number of tokens of ``stream``, or of documents."""
    if documents(stream):
        out.share, out.keys = WHOLE, out.keys | {NUMBER_OF}
        out.flags |= summary(stream).flags & CUT
        return
    whole = stream.kind == "val" and stream.flags & VAL and not stream.flags & (META | LOSS | LOGITS | CUT | ORDER)
    if whole and (stream.share is not None or stream.atoms == WHOLE_ATOMS) and not stream.deps and not stream.keys & {ROWS, OF_ROWS}:
        out.share = stream.share or WHOLE


def reckoned(op: str, a: V, b: V, out: V) -> None:
    """A number of tokens and a number from the script."""
    share, number = a.share, b
    if share is None and op in "*+":
        share, number = b.share, a
    by = number.const if number.kind == "const" else None
    if share is None or isinstance(by, bool) or not isinstance(by, (int, float)) or not out.flags & META:
        return
    part, chosen = share[0], share[1] or bool(number.knobs)
    if op in "+-":
        out.share = share if abs(by) <= _ROUNDING else None
    elif op == "*" and by > 0:
        out.share = part * Fraction(by), chosen
    elif op in ("/", "//") and by > 0:
        out.share = part / Fraction(by), chosen
    elif op == ">>" and type(by) is int and 0 <= by < 40:
        out.share = part / (1 << by), chosen


def shortened(base: V, elements: int, part: Any, out: V) -> None:
    """``stream[:n]``"""
    if elements != 1 or not isinstance(part, tuple) or not base.flags & VAL or base.flags & (META | LOSS | LOGITS):
        return
    low, high = part
    if high is not None and high.share is not None and NUMBER_OF not in high.keys and (low is None or (low.kind == "const" and low.const == 0)):
        out.share = min(high.share, base.share or WHOLE)


__all__ = ["counted", "documents", "reckoned", "shortened"]
