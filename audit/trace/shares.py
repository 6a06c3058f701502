"""Shares: which part of all tokens a number of tokens is, or a stream that was cut to such a number.

``(tokens.numel() - 1) // 2`` is half of them; divided by 1024 and counted through in steps of one it is all of them where
each turn goes on by 1024 tokens. So a loop's bound, its step and the tokens that a turn goes on by say together how much
of the stream the loop walks (`audit.trace.gaps`). A part of a whole that is not divided by a number from the script is
nothing that is known here, but for what ranks have to do: ``n * (rank + 1) // world`` ends at ``n``, whatever the number of
ranks, and a share that was multiplied and divided by unknown numbers equally often is that of all ranks together.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from audit.trace.spans import MAX_START, NUMBER_OF, OF_ROWS, ROWS, given
from audit.trace.strides import STRIDE
from audit.trace.values import CUT, LOGITS, LOSS, MASK, META, ORDER, VAL, WHOLE_ATOMS, V, summary
from audit.trace.walks import SHARE


class Share(NamedTuple):
    """``part`` of all; ``chosen``: a setting decides that."""

    part: Fraction
    chosen: bool = False
    #: how much of it numbers that stand in the script make, no setting being asked
    fixed: Fraction = Fraction(1)
    #: by so many unknown numbers it was multiplied more often than divided
    open: int = 0


WHOLE = Share(Fraction(1))
#: ``(WINDOW_STARTS, step)``: one of the places that a walk through all of the stream goes by
WINDOW_STARTS = "window starts"
#: numbers of tokens are smaller
_LARGEST = 1e15
#: the number of ranks
OF_WORLD = ("of ranks",)
#: what is added to a number of tokens for rounding up
_ROUNDING = 1 << 20


def documents(v: V) -> bool:
    """Is it a list, or an array, of places that were found in the stream."""
    if v.kind == "seq" and v.rest is None:
        return False
    inner = summary(v)
    return inner.kind == "val" and bool(inner.flags & META and inner.flags & MASK) and not inner.flags & (LOSS | LOGITS)


def starts(v: V) -> int | None:
    """Is it a list of places that a walk through all of the stream goes by: its step, 0 where that is not known."""
    if v.kind == "seq" and v.rest is None:
        return None
    keys = summary(v).keys if v.kind == "seq" else v.keys
    return next((k[1] for k in keys if k[0] == WINDOW_STARTS), None)


def begun(start: V, stop: V, step: V, turn: V) -> None:
    """``turn`` of ``range(0, number of tokens, stride)`` is where a window begins."""
    share = known(stop.share)
    if share is None or NUMBER_OF in stop.keys or stop.deps or not given(start) or start.const > MAX_START or type(step.const) is not int or step.const <= 0:
        return
    if 0 < share.part <= 1 and 1 < (tokens := int(step.const / share.part)) <= _ROUNDING:
        turn.keys = turn.keys | {(WINDOW_STARTS, tokens), (STRIDE, tokens, 0)}


def counted(stream: V, out: V) -> None:
    """``out`` is the number of tokens of ``stream``, or of documents, or of windows."""
    if documents(stream) or (stream.kind == "seq" and starts(stream) is not None):
        out.share, out.keys = WHOLE, out.keys | {NUMBER_OF}
        out.flags |= summary(stream).flags & CUT
        return
    whole = stream.kind == "val" and stream.flags & VAL and not stream.flags & (META | LOSS | LOGITS | CUT | ORDER)
    if whole and (stream.share is not None or stream.atoms == WHOLE_ATOMS) and not stream.deps and not stream.keys & {ROWS, OF_ROWS}:
        out.share = stream.share or WHOLE


def reckoned(op: str, a: V, b: V, out: V) -> None:
    """A number of tokens and a number from the script, or the numbers of a rank and of all ranks."""
    share, number = a.share, b
    if share is None and op in "*+":
        share, number = b.share, a
    if share is None or not out.flags & META:
        return
    if op == "+" and number.share is not None and {share.open, number.share.open} == {0, -1} and OF_WORLD in out.keys:
        # ``start + n // world // 2``: where a rank begins, and how much it has to do; what all of them have to do together
        own = share if share.open else number.share
        out.share = own._replace(open=0)
        return
    by = number.const if number.kind == "const" else None
    unknown = by is None and number.kind == "val" and not number.flags and number.share is None
    if (unknown or (by is not None and OF_WORLD in number.keys)) and op in ("*", "//", "/", "+", "-"):
        # ``* (rank + 1)``, ``// world``; ``+ world - 1`` rounds up
        out.share = share._replace(open=share.open + {"*": 1, "/": -1, "//": -1}.get(op, 0))
        return
    if isinstance(by, bool) or not isinstance(by, (int, float)) or not abs(by) < _LARGEST:
        return
    if op in "+-":
        out.share = share if abs(by) <= _ROUNDING else None
    elif op == ">>" and type(by) is int and 0 <= by < 40:
        out.share = _times(share, Fraction(1, 1 << by), number)
    elif op in ("*", "/", "//") and (by > 0 or (by == 0 and op == "*")):
        out.share = _times(share, Fraction(by) if op == "*" else 1 / Fraction(by), number)


def _times(share: Share, by: Fraction, number: V) -> Share:
    knobs = bool(number.knobs)
    return share._replace(part=share.part * by, chosen=share.chosen or knobs, fixed=share.fixed if knobs else share.fixed * by)


def known(share: Share | None) -> Share | None:
    """The share of all ranks together; None where that is not known."""
    return share if share is not None and share.open == 0 else None


def begins_share(v: V) -> bool:
    """``rank * (n // world)``: where a rank begins, or ends, with its share of the whole."""
    share = known(v.share)
    return v.kind == "val" and v.pos is None and share is not None and share.part == 1 and {OF_WORLD, SHARE} <= v.keys and not v.deps


def least(args: list[V], out: V) -> None:
    """``min((rank + 1) * per_rank, n)``: no more than the smallest of those that are known."""
    shares = [s for a in args if (s := known(a.share)) is not None]
    if shares:
        out.share = min(shares, key=lambda s: s.part)


def shortened(base: V, elements: int, part: Any, out: V) -> None:
    """``stream[:n]``"""
    if elements != 1 or not isinstance(part, tuple) or not base.flags & VAL or base.flags & (META | LOSS | LOGITS):
        return
    low, high = part
    if high is not None and known(high.share) is not None and NUMBER_OF not in high.keys and (low is None or (low.kind == "const" and low.const == 0)):
        out.share = min(high.share, base.share or WHOLE)


def beside_another(parts: list[V], out: V) -> None:
    """The first tokens, or what was made of them, and other tokens of the stream: together no known number of them."""
    if out.flags & CUT and any(p.kind == "val" and p.flags & VAL and not p.flags & (CUT | META) for p in parts):
        out.flags &= ~CUT


__all__ = ["OF_WORLD", "WINDOW_STARTS", "Share", "begins_share", "begun", "beside_another", "counted", "documents", "known", "least", "reckoned", "shortened", "starts"]
