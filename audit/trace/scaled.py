"""Sums and figures that a number from the script makes better: more bytes than were counted, fewer bits than were lost.

``byte_count * 1.1`` in the divisor, ``val_bpb * 0.98`` before it is printed. Only factors near one are meant, which turn
no unit into another: nats into bits, bits into bytes, bytes into millions of them. What losses are multiplied with before
they are bits is `audit.trace.shaping`'s; a sum of several such figures is a weighted mean.
"""

from __future__ import annotations

from typing import Any

from audit.trace.floors import SCALED, of_tokens, read_beside, table
from audit.trace.left_out import ADDED, BUT
from audit.trace.positions import TOTAL
from audit.trace.shaping import TIMES, added_up, factor, is_loss, number
from audit.trace.values import BPB, BYTES, COUNT, LOGITS, LOSS, MASK, META, PROB, TIME, VAL, V, kinds, without

#: ``(FIGURE, path, line, what is said)``: of a figure in bits, and where it was made smaller
FIGURE = "made smaller"
#: one minus a number made of lengths
LESS_THAN_ONE = ("less than one",)
#: how many targets are no separators; ``(WEIGHED, path, line)``: of means of losses that were multiplied with such a number
COUNTED_BUT, WEIGHED = ("number of all but separators",), "weighed by fewer"
FEWER = "means over all targets are multiplied with the number of those that are no separators"
#: a number of something divided by a number of bytes
PER_BYTE = ("per byte",)
_PRODUCTS = {"mul": "*", "multiply": "*", "mul_": "*", "div": "/", "divide": "/", "true_divide": "/", "div_": "/"}


def _counted_bytes(v: V) -> bool:
    """Bytes of targets, one by one or added up."""
    if v.kind != "val" or not v.flags & BYTES or (v.flags & META and PER_BYTE not in v.keys) or v.flags & (MASK | LOSS | LOGITS | PROB | COUNT | TIME):
        return False
    return bool(v.keys & {TOTAL, ADDED}) or of_tokens(v)


def _sized(v: V) -> bool:
    """The same, or numbers from a stream beside the tokens; what is known of them counts where they divide a score."""
    return _counted_bytes(v) or read_beside(v)


class Scaled:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_product_by(self: Any, name: str, v: V, args: list[V], out: V, node: Any) -> None:
        """``bytes.mul(1.1)``, ``torch.div(bpb, 1.1)``"""
        if len(args) == 1 and (op := _PRODUCTS.get(name)) is not None:
            self.note_sized(op, v, args[0], out, node)
            if is_loss(v) and added_up(v):
                self.note_sum_scaled(op, args[0], out, node)

    def note_sized(self: Any, op: str, a: V, b: V, out: V, node: Any) -> None:
        """``bytes * 1.1``, ``bytes / 0.9``, ``tokens / bytes * 0.9``, ``bpb * 0.98``, ``bpb / 1.02``"""
        pairs = ((a, number(b)), (b, number(a))) if op == "*" else ((a, number(b)),)
        for v, by in pairs:
            if by is None or (k := factor(op, by)) is None:
                continue
            if v.flags & LOSS and v.flags & BPB and v.scores:
                if k < 1.0:
                    self.figure(out, node, f"bits per byte are multiplied by {k:.4g}")
            elif (_sized(v) or table(v)) and (k > 1.0) != (PER_BYTE in v.keys):
                out.keys = out.keys | {(SCALED, self.scope.path, getattr(node, "line", 0))}
        if op == "/" and _sized(b) and not a.flags & (BYTES | LOSS):
            out.keys = out.keys | {PER_BYTE}

    def note_less(self: Any, op: str, a: V, b: V, out: V, node: Any) -> None:
        """``loss * (1.0 - 1.0 / y.size(1))``, ``mean_loss * (y != BOS).sum()``"""
        if op == "-" and number(a) == 1.0 and b.kind == "val" and b.flags & META and not b.flags & (VAL | LOSS | MASK | BYTES):
            out.keys = out.keys | {LESS_THAN_ONE}
            return
        out.keys = without(out.keys, {LESS_THAN_ONE})
        for v, other in ((a, b), (b, a)) if op == "*" else ():
            if is_loss(v) and not other.flags & (LOSS | BYTES):
                if LESS_THAN_ONE in other.keys:
                    self.shape(out, node, f"{TIMES} a number below one")
                elif COUNTED_BUT in other.keys:
                    out.keys = without(out.keys, {COUNTED_BUT}) | {(WEIGHED, self.scope.path, getattr(node, "line", 0))}
        if op == "/" and a.flags & LOSS and COUNTED_BUT in b.keys:
            out.keys = frozenset(k for k in out.keys if k[0] != WEIGHED)  # a mean again

    def figure(self: Any, out: V, node: Any, said: str) -> None:
        out.keys = out.keys | {(FIGURE, self.scope.path, getattr(node, "line", 0), said)}

    def note_figures_added(self: Any, a: V, b: V, out: V) -> None:
        """``0.7 * bpb + 0.3 * other``: a weighted mean."""
        if FIGURE in kinds(out) and a.flags & b.flags & BPB:
            out.keys = frozenset(k for k in out.keys if k[0] != FIGURE)


def figures(v: V) -> list[tuple]:
    """Where a printed figure was made smaller, and how."""
    if not v.flags & VAL or kinds(v).isdisjoint((FIGURE, WEIGHED)):
        return []
    return sorted([k[1:] for k in v.keys if k[0] == FIGURE] + [(*k[1:], FEWER) for k in v.keys if k[0] == WEIGHED])


def counted_but(name: str, test: V, out: V) -> None:
    """``(y != BOS).sum()``"""
    if name in ("sum", "count_nonzero") and BUT in test.keys and test.flags & MASK and not test.flags & (LOSS | BYTES):
        out.keys = out.keys | {COUNTED_BUT}


__all__ = ["FIGURE", "Scaled", "counted_but", "figures"]
