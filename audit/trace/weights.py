"""Weights of a mixture that are made of the token to be scored.

``(1 - w) * p + w * q`` over whole rows is a distribution only if ``w`` was there before the token was read. What a model
or a table gave the token itself (its probability, its rank, whether it was the likeliest, whether it was seen) carries the
token's place as ``("own", symbols, offset, loops)`` for as long as it goes through operations on each position by itself; where it
then weighs or chooses rows of predictions whose own context ends before that place, the row was made for the token.

What is moved along the window (a slice, a pad, a running sum) may belong to an earlier token and loses the mark: the place
of a part put behind others (``cat([zeros, hit[:-1]])``) is moved back instead.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.gates import AGREE, HIT, HIT_SHARE, NORM, PROPOSALS, REST, holds_tokens
from audit.trace.positions import MAX_SYMBOLS, place_of, shifted, tokens_in
from audit.trace.totals import PUT_TOGETHER
from audit.trace.values import COUNT, LOGITS, LOSS, PROB, VAL, V, clone, kinds, seq, summary
from audit.trace.words import ROW, WEIGHT

OWN_PLACE = "own"
#: of a row of predictions: its place among those of its window
AT = "at"
#: what is said of such a weight
OWN_TOKEN = "how much each prediction counts for a token is decided by that token itself"
#: functions of each position by itself, or of all that a position has
_STAYS = frozenset(
    """float double half bfloat16 to type long int bool cpu cuda numpy item tolist detach clone contiguous astype copy
    view reshape unsqueeze squeeze expand expand_as flatten ravel clamp clip clamp_ clamp_min clamp_max clamp_min_ clamp_max_
    sigmoid exp expm1 exp2 log log1p log2 log10 pow sqrt rsqrt tanh relu abs neg square round floor ceil nan_to_num
    mul add sub div mul_ add_ sub_ div_ multiply divide true_divide lerp minimum maximum where sum mean max min amax amin any all
    logical_and logical_or logical_not eq ne gt lt ge le greater less isin gather take_along_dim take_along_axis
    tensor as_tensor asarray array from_numpy float32 float64 str get softmax log_softmax broadcast_to argmax topk""".split()
)  # fmt: skip
#: of these, what leaves no row of predictions
_REDUCES = frozenset("item tolist sum mean max min amax amin any all argmax topk gather take_along_dim take_along_axis get isin".split())
_MAKES_ROWS = frozenset(["softmax", "log_softmax"])
_PAIRS = frozenset(["max", "min", "topk", "sort", "median", "kthvalue"])
_WEIGHS = frozenset(["mul", "mul_", "multiply", "lerp", "lerp_"])


def rows_of(v: V) -> bool:
    """Predictions for all tokens of the alphabet, and no figure that was made of them."""
    return v.kind == "val" and ROW in v.keys and bool(v.flags & LOGITS) and not v.flags & LOSS


def scores_tokens(v: V) -> bool:
    """Something of the model's output that may still say something of each token: no figure such as the entropy."""
    return bool(v.flags & LOGITS) and (not v.flags & PROB or ROW in v.keys)


class Weights:
    """Mixed into the machine; see `audit.trace.machine`."""

    def owned(self: Any, tokens: V) -> frozenset:
        """The marks of what was read for these tokens, in these turns of the open loops."""
        if not holds_tokens(tokens) or not tokens.flags & VAL or not PROPOSALS.isdisjoint(kinds(tokens)):
            return frozenset()
        last: dict[Any, Any] = {}  # of each walk through the stream, the place that was read last
        for k in tokens.keys:
            if k[0] == "t" and k[2] >= last.get(k[1], k)[2]:
                last[k[1]] = k
        return frozenset((OWN_PLACE, *k[1:], tuple(self.loops)) for k in last.values())

    def own_places(self: Any, v: V) -> frozenset:
        """The marks that other turns did not leave behind: a rate of hits so far, the token before."""
        if OWN_PLACE not in kinds(v):
            return frozenset()
        now = dict(self.loops)
        return frozenset(k for k in v.keys if k[0] == OWN_PLACE and all(now.get(loop, turn) == turn for loop, turn in k[3]))

    def note_compared(self: Any, a: V, b: V, out: V) -> None:
        """``rows.argmax(1) == y``, ``rank_of == y``: is the token what a model or a table proposes."""
        for guess, token in ((a, b), (b, a)):
            guess = summary(guess) if guess.kind == "seq" else guess
            if guess.flags & (LOGITS | PROB | COUNT) and not guess.flags & LOSS and all(k[0] != "candidates" for k in guess.keys):
                out.keys = out.keys | self.owned(token)

    def weigh(self: Any, rows: V, weight: V, out: V, node: Any) -> None:
        """``out`` are ``rows`` that were multiplied with ``weight``, or taken because of it."""
        mine = self.own_places(weight)
        if not mine or not rows_of(rows) or (("exp",) in weight.keys and AGREE in weight.keys):
            return  # the last is the tilt of a hint, whose normaliser is divided by
        context = of_row(rows)
        ahead = frozenset(("t", k[1], k[2]) for k in mine if k[1] in context and k[2] > max(context[k[1]]))
        if ahead:
            e = self.event("GATE", node, out, keys=ahead, anchored=False, edit=OWN_TOKEN)
            out.keys = out.keys | {("gate", e.id)}

    def note_product(self: Any, a: V, b: V, out: V, node: Any) -> None:
        self.weigh(a, b, out, node)
        self.weigh(b, a, out, node)

    def note_rest(self: Any, op: str, a: V, b: V, out: V, node: Any) -> None:
        """``(1 - share) * p(token)`` where the token itself decided ``share``: also as ``lp + log(1 - share)``."""
        if op == "-":
            if a.kind != "const" or a.const != 1:
                return
            if (b.const != HIT or HIT_SHARE in b.keys) and not b.flags & LOSS and not scores_tokens(b):
                out.keys = out.keys | {REST}
            elif b.flags & LOSS and b.flags & PROB and ("logp",) not in b.keys and NORM not in b.keys:
                out.keys = out.keys | {WEIGHT}  # ``1 - p(token)``: as a weight it is made of that token
            return
        for weight, p in ((a, b), (b, a)):
            if REST not in weight.keys or REST in p.keys or scores_tokens(weight) or not p.flags & LOSS or not p.flags & VAL or p.flags & LOGITS:
                continue
            if op == "*" or (op == "+" and ("logp",) in weight.keys and ("exp",) not in p.keys):
                own = tokens_in(p.keys)
                told = frozenset(("t", k[1], k[2]) for k in self.own_places(weight) if k[1] in own and k[2] >= max(own[k[1]]))
                out.keys = out.keys - {REST}
                if told:
                    e = self.event("GATE", node, out, keys=told, anchored=False, edit=OWN_TOKEN)
                    out.keys = out.keys | {("gate", e.id)}
                return

    def note_branch_weights(self: Any, s: ir.If, test: V, before: dict[str, V]) -> None:
        """``if row.argmax() == t: share = 0.0``: a number, or a row, that such a test chose."""
        mine = self.own_places(test)
        if not mine:
            return
        names = self.scope.names
        in_place = self.interest.assigned(s.body)[1] | self.interest.assigned(s.orelse)[1]  # ``share *= 2``
        for name, now in list(names.items()):
            if (now is before.get(name) and name not in in_place) or now.kind not in ("val", "const"):
                continue
            if rows_of(now):
                out = clone(now)
                old = before.get(name)
                self.weigh(old if old is not None and rows_of(old) else now, test, out, s)
                names[name] = out
            elif not now.flags & (LOSS | COUNT) and not scores_tokens(now) and name in before:
                out = clone(now)
                out.keys = now.keys | mine
                names[name] = out

    def after_call(self: Any, e: ir.Call, f: V, args: list[V], out: V) -> V:
        """A library function returned ``out``: does it still belong to the same token."""
        name = e.func.attr if isinstance(e.func, ir.Attr) else e.func.id if isinstance(e.func, ir.Name) else ""
        if out.kind == "seq":  # ``best, at = probs.max(1)``
            if name in _PAIRS and out.data and all(x.kind == "val" for x in out.data):
                return seq([self.after_call(e, f, args, x) for x in out.data], out.rest)
            return out
        if name in PUT_TOGETHER:
            return moved_on(e, out)
        if ROW in out.keys and name not in _STAYS - _REDUCES and name not in _MAKES_ROWS:
            out = unowned(out, row=True)
        if OWN_PLACE not in kinds(out):
            return out
        values = [f.data[0], *args] if f.kind == "bound" and isinstance(f.data, tuple) else args
        if name not in _STAYS:
            return out if any(out is v for v in values) else unowned(out)  # an array that was changed in place stays itself
        if name in _WEIGHS:
            for rows in values:
                for weight in values:
                    if weight is not rows:
                        self.weigh(rows, weight, out, e)
        return out


def picked_row(base: V, elements: list[Any], parts: list[Any]) -> frozenset:
    """``logits[0, t, :]``: where in its window the row stands."""
    if not base.flags & LOGITS or base.flags & LOSS or len(elements) < 3 or not isinstance(last := elements[-1], ir.Slice):
        return frozenset()
    at = parts[-2]
    if last.lower is not None or last.upper is not None or not isinstance(at, V) or at.flags & VAL or (at.pos is None and at.lv is None):
        return frozenset()
    return frozenset([(AT, *place_of(at))])


def of_row(rows: V) -> dict[tuple[int, ...], set[int]]:
    """The places of what predictions were made of; of one row of a window, as they look from it."""
    context = tokens_in(rows.keys)
    for k in [k for k in rows.keys if k[0] == AT] if AT in kinds(rows) else ():
        for symbols, offsets in list(context.items()):
            if len(symbols) + len(k[1]) <= MAX_SYMBOLS:
                context.setdefault(tuple(sorted(symbols + k[1])), set()).update(o + k[2] for o in offsets)
    return context


def unowned(v: V, row: bool = False) -> V:
    """Without the marks of tokens, or no row any more."""
    if (ROW not in v.keys) if row else (OWN_PLACE not in kinds(v)):
        return v
    out = clone(v)
    out.keys = frozenset(k for k in v.keys if k != ROW) if row else frozenset(k for k in v.keys if k[0] != OWN_PLACE)
    out.origin = v.origin
    return out


def same_places(elements: list[Any]) -> bool:
    """Does an index leave each position where it is."""
    return all(
        (isinstance(x, ir.Const) and (x.value is None or x.value is Ellipsis or isinstance(x.value, int)))
        or (isinstance(x, ir.Slice) and x.lower is None and x.upper is None and x.step is None)
        or (isinstance(x, ir.Attr) and x.attr == "newaxis")
        for x in elements
    )


def moved_on(e: ir.Call, out: V) -> V:
    """``cat([zeros, v[:, :-1]], 1)``: each position holds what stood one before."""
    parts = e.args[0].elts if e.args and isinstance(e.args[0], ir.Collection) else []
    given = next((x for k, x in e.keywords if k in ("dim", "axis")), e.args[1] if len(e.args) > 1 else None)
    dim = given.value if isinstance(given, ir.Const) else -1 if isinstance(given, ir.UnaryOp) else 0 if given is None else None
    if len(parts) == 2 and type(dim) is int and _blank(parts[0]) and isinstance(parts[1], ir.Sub):
        index = parts[1].index
        elements = index.elts if isinstance(index, ir.Collection) else [index]
        at = len(elements) - 1 if dim == -1 and len(elements) == 1 else dim
        by = _cut_off(elements[at]) if 0 <= at < len(elements) and same_places([x for n, x in enumerate(elements) if n != at]) else 0
        if by:
            out = unowned(out)
            out.keys = shifted(out.keys, (), -by)
            return out
    return unowned(out)


def _blank(e: Any) -> bool:
    """``torch.zeros_like(v[:, :1])``: made of no tokens."""
    name = e.func.attr if isinstance(e, ir.Call) and isinstance(e.func, ir.Attr) else ""
    return name in ("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones", "full", "full_like", "new_full")


def _cut_off(x: Any) -> int:
    """How many elements ``[:-n]`` leaves out at the end."""
    if isinstance(x, ir.Slice) and x.lower is None and x.step is None and isinstance(x.upper, ir.UnaryOp) and x.upper.op == "-":
        n = x.upper.operand
        return n.value if isinstance(n, ir.Const) and type(n.value) is int else 0
    if isinstance(x, ir.Slice) and x.lower is None and x.step is None and isinstance(x.upper, ir.Const) and type(x.upper.value) is int:
        return max(-x.upper.value, 0)
    return 0
