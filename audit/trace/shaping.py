"""Losses that are changed on their way to the score: dropped, capped, scaled, thinned out.

The score is the sum of every target's loss. A test of the losses themselves that keeps the small ones, a cap, a factor,
every other position, the least or the middle one instead of the sum: each makes the figure smaller without a better
prediction. Masks made of anything but the losses (padding, the scored part of a window) are not meant.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.events import Event
from audit.trace.gates import NORM, within
from audit.trace.positions import tokens_in
from audit.trace.values import BPB, BYTES, COUNT, GRAD, LOGITS, LOSS, MASK, PROB, VAL, V, clone, derive
from audit.trace.words import WEIGHT

#: a comparison of losses with each other
BY_LOSS = ("by loss",)
#: ``const`` of a difference of two losses of the same tokens, and a comparison of one with a number
GAP, BY_GAP = "gap", ("by gap",)
#: of several losses, the one that a branch took
PICKED = ("picked",)
#: a comparison of a loss with a number, and the key of what was changed
OF_LOSS = ("of loss",)
#: places in a window, counted out (`arange`)
BY_PLACE = ("by place",)
SHAPED = "shaped"
#: a loss that a model's own method took, by the identity of the method
OWN_LOSS = "own loss"
#: several losses of the same tokens, one above the other
STACKED = ("stacked",)
SORTED = ("sorted",)
#: of several losses of a token, one that is picked by its size
OF_STACK = frozenset(["sort", "topk", "kthvalue", "cummin", "quantile", "nanquantile", "median"])
#: probabilities times their logarithms
ENTROPY = ("entropy",)
#: squares of losses: a root of them is a standard deviation
SQUARED = ("squared",)
#: what a loss has above a bound
EXCESS = ("excess",)
#: losses times something made of the model's own probabilities
BY_CERTAINTY = ("by certainty",)
#: a number made of all elements
OF_ALL = ("of all",)
#: a mean of losses that no number of them was multiplied with, and the losses of tokens between two places found in the
#: stream (documents): no two are of one length
MEAN, BETWEEN = ("mean of losses",), ("between places",)
#: functions that grow slower than their argument
_BENDS = frozenset(["tanh", "log1p", "sqrt", "atan", "arctan", "asinh", "arcsinh", "erf", "softsign", "cbrt"])
_ABOVE = frozenset(["relu", "relu_", "clamp_min", "softplus", "threshold"])
_SQUARES = frozenset(["square", "var", "std", "var_mean", "std_mean", "variance", "stdev", "pstdev", "pvariance"])
#: what is said of losses that went through such a function
BENT = "large losses count for less than they are"
#: what is said of such a weight
OWN = "the token's own loss decides how much of each prediction counts for it"
#: what is said of losses that a test of them let pass
BY_LOSSES = "which tokens are added up is decided by their losses"
#: what is said of losses that are multiplied by something made of their places
WEIGHTED = "each loss counts by its place in the window"
#: what is said of losses that are multiplied by a number below one
TIMES = "the losses are multiplied by"
_LN2 = 0.6931471805599453
#: no float is larger
_INFINITE = 1e300
#: a factor further from one than this may change the unit
_FAR = 1.5
#: a cap at or above this many nats (a probability below one in ten million) guards against infinities
GUARD = 16.0
_CAPS = frozenset(["clamp", "clip", "clamp_max", "clamp_max_", "clamp_"])
#: what makes one number of an array
NUMBERS = frozenset(["sum", "mean", "max", "min", "prod", "norm", "item", "numel"])
_ONE_OF_ALL = frozenset(
    ["min", "amin", "median", "nanmedian", "quantile", "nanquantile", "kthvalue", "mode", "percentile"]
)


def is_loss(v: V) -> bool:
    """A negative log-likelihood of validation targets, in nats or bits, and no probability."""
    if (
        v.kind not in ("val", "bound")
        or not v.flags & LOSS
        or not v.flags & VAL
        or v.flags & (BPB | GRAD)
        or ("exp",) in v.keys
    ):
        return False
    return not v.flags & PROB or ("logp",) in v.keys


def number(v: V | None) -> float | None:
    """The number that a constant is."""
    if v is None or v.kind != "const" or isinstance(v.const, bool) or not isinstance(v.const, (int, float)):
        return None
    return float(v.const) if abs(v.const) < _INFINITE else None


def factor(op: str, by: float | None) -> float | None:
    """What a value is multiplied with, where that is a number near one that converts nothing."""
    if by is None or op not in ("*", "/") or not 1.0 / _FAR < by < _FAR:
        return None
    k = by if op == "*" else 1.0 / by
    converts = any(abs(x - _LN2) < 2e-3 for x in (k, 1.0 / k))
    return k if not converts and k != 1.0 else None


def added_up(v: V) -> bool:
    """Is it a number made of the losses of many targets, such as the sum."""
    return bool(v.scores or OF_ALL in v.keys) and not v.flags & (LOGITS | PROB)


def own_certainty(v: V) -> bool:
    """Something made of the probabilities that the model gives to all tokens: no loss, and no mask, be it the model's."""
    return v.kind == "val" and bool(v.flags & VAL) and bool(v.flags & PROB) and not v.flags & (LOSS | MASK | BYTES | COUNT | GRAD)


def own_tokens(v: V | Event) -> frozenset:
    """The keys of the tokens that a value, or the value of an event, was made of."""
    keys = v.keys if isinstance(v, V) else v.detail.get("keys", ())
    return frozenset(k for k in keys if k[0] == "t")


def same_target(v: V, loss: V) -> bool:
    """Was the first made of the token that the second is the loss of; an entropy is not."""
    mine = tokens_in(v.keys)
    return any(at in mine and max(mine[at]) >= max(offsets) for at, offsets in tokens_in(loss.keys).items())


def shape_origin(part: V) -> None:
    """``losses[i, a:b]`` was changed in place: what was left out of it is left out of all."""
    if part.flags & LOSS and part.origin is not None and part.origin.kind == "val" and is_loss(part.origin):
        part.origin.keys = part.origin.keys | {k for k in part.keys if k[0] == SHAPED}


def found_at(index: V | None, out: V) -> V:
    """``losses[losses.argmin()]``: what stands at a place that losses chose was chosen by them."""
    by = frozenset(k for k in index.keys if k[0] == "select") - out.keys if index is not None else None
    if not by or out.kind != "val":
        return out
    made = clone(out)
    made.origin = out.origin
    made.keys = out.keys | by
    return made


def _goes_on(way: list[ir.Stmt]) -> bool:
    return bool(way) and isinstance(way[-1], ir.Jump) and way[-1].kind == "continue"


class Shaping:
    """Mixed into the machine; see `audit.trace.machine`."""

    def shape(self: Any, out: V, node: Any, how: str) -> None:
        e = self.event("SHAPE", node, out, how=how)
        out.keys = out.keys | {(SHAPED, e.id)}

    def note_capped(
        self: Any, name: str, v: V, args: list[V], kwargs: dict[str, V], out: V, node: Any
    ) -> None:
        """``nll.clamp(max=4)``, ``torch.minimum(nll, 4)``."""
        if name in _CAPS and is_loss(v):
            top = kwargs.get("max", kwargs.get("a_max"))
            if top is None and name.startswith("clamp_max"):
                top = args[0] if args else None
            elif top is None and len(args) > 1:
                top = args[1]
            if (cap := number(top)) is not None and cap < GUARD:
                self.shape(out, node, f"losses are cut off at {cap:g}")

    def note_bent(self: Any, name: str, v: V, args: list[V], kwargs: dict[str, V], out: V, node: Any) -> None:
        """``8 * tanh(nll / 8)``, ``log1p(nll)``, ``nll.sqrt()``; and ``relu(nll - 8)``, which may be taken off again."""
        if not is_loss(v) or v.flags & LOGITS:
            return
        power = number(args[0]) if name in ("pow", "float_power") and args else None
        if name in _SQUARES or (power is not None and power >= 1.0):
            out.keys = out.keys | {SQUARED}
        elif name in _BENDS or (power is not None and 0.0 < power < 1.0):
            if SQUARED not in v.keys and (not v.scores or name not in ("sqrt", "pow")):
                self.shape(out, node, f"{BENT} ({name})")
        elif name in _ABOVE or (name in _CAPS and number(kwargs.get("min", args[0] if args else None)) is not None):
            out.keys = out.keys | {EXCESS}

    def note_arithmetic(self: Any, op: str, a: V, b: V, out: V, node: Any) -> None:
        """The same in operators, and what makes sure tokens count for more than others."""
        if op == "**":
            self.note_bent("pow", a, [b], {}, out, node)
        elif op == "*" and is_loss(a) and is_loss(b):
            out.keys = out.keys | {SQUARED}
        elif op == "-" and EXCESS in b.keys and is_loss(b) and (is_loss(a) or number(a) is not None) and not a.flags & LOGITS:
            out.keys = out.keys - {EXCESS}
            self.shape(out, node, f"{BENT} (what they have above a bound is taken off)")
        elif op == "/" and {BY_CERTAINTY, OF_ALL} <= a.keys and OF_ALL in b.keys and BY_CERTAINTY not in b.keys and own_certainty(b):
            self.shape(out, node, "the model's own certainty decides how much each loss counts")
        if op == "*":
            if MEAN in out.keys and not all(x.kind == "const" or MEAN in x.keys for x in (a, b)):
                out.keys = out.keys - {MEAN}
            for v, other in ((a, b), (b, a)):
                if is_loss(v) and own_certainty(other) and OF_ALL not in other.keys:
                    out.keys = out.keys | {BY_CERTAINTY}
                elif (other.flags & (PROB | LOGITS | COUNT) or ("exp",) in other.keys) and not is_loss(other):
                    out.keys = self.unbent(out.keys)  # it weighs predictions

    def note_mean(self: Any, name: str, v: V, args: list[V], kwargs: dict[str, V], out: V) -> None:
        """``nll.mean()``; a product with anything but a number from the script may be with how many there are."""
        if name == "mean" and is_loss(v) and not v.scores and not args and not kwargs:
            out.keys = out.keys | {MEAN}
        elif name in ("mul", "multiply", "sum", "dot") and MEAN in out.keys:
            out.keys = out.keys - {MEAN}

    def unbent(self: Any, keys: frozenset) -> frozenset:
        """The keys without such as say that a loss was bent: it became part of a prediction."""
        if not any(k == EXCESS or k[0] == SHAPED for k in keys):
            return keys
        bent = {e.id for e in self.trace.of("SHAPE") if e.detail["how"].startswith(BENT)}
        return frozenset(k for k in keys if k != EXCESS and not (k[0] == SHAPED and k[1] in bent))

    def note_least_of_all(
        self: Any, name: str, v: V, args: list[V], kwargs: dict[str, V], out: V, node: Any
    ) -> None:
        """``nll.min()``, ``nll.median()``: one of the losses stands for all of them."""
        if (
            name in _ONE_OF_ALL
            and is_loss(v)
            and not kwargs.get("dim")
            and (not args or name in ("quantile", "nanquantile", "percentile"))
        ):
            self.shape(out, node, f"the {name} of the losses stands for their sum")

    def note_thinned(self: Any, base: V, elements: list[Any], out: V, node: Any) -> None:
        """``nll[:, ::2]``, ``nll[nll < 5]``."""
        if not is_loss(base):
            return
        for x in elements:
            if isinstance(x, ir.Slice):
                if SORTED in base.keys and (x.lower is not None or x.upper is not None):
                    self.shape(out, node, "which losses are kept is decided by the losses")
                step = number(self.ev(x.step)) if x.step is not None else None
                if step is not None and step >= 2:
                    self.shape(out, node, f"of the losses only every {step:g}th is kept")
            elif not isinstance(x, ir.Const) and OF_LOSS in self.ev(x).keys:
                self.shape(out, node, "which losses are kept is decided by the losses")

    def note_replaced(self: Any, test: V, a: V, b: V, out: V, node: Any) -> None:
        """``where(nll < 5, nll, 0)``."""
        other = b if is_loss(a) else a
        if (
            OF_LOSS in test.keys
            and is_loss(a) != is_loss(b)
            and not other.flags & (LOSS | LOGITS | PROB | COUNT)
        ):
            self.shape(out, node, "losses are replaced where a test of the losses says so")

    def note_scaled(self: Any, op: str, a: V, b: V, out: V, node: Any) -> None:
        """``0.9 * nll``: a literal factor below one. A sum of several such is a weighted mean."""
        if op == "*":
            for v, test in ((a, b), (b, a)):
                if (
                    BY_LOSS in test.keys
                    and test.flags & MASK
                    and v.flags & LOSS
                    and v.flags & VAL
                    and same_target(test, v)
                ):
                    e = self.event("SELECT", node, out, how="product with a comparison of the losses")
                    out.keys = out.keys | {("select", e.id)}
                    return
            for v, other in ((a, b), (b, a)):
                if is_loss(v) and BY_PLACE in other.keys and not other.flags & (MASK | BYTES | LOSS | LOGITS | PROB):
                    self.shape(out, node, WEIGHTED)
                    return
            for v, other, written in (
                (a, b, getattr(node, "right", getattr(node, "value", None))),
                (b, a, getattr(node, "left", None)),
            ):
                if is_loss(v) and other.flags & MASK and OF_LOSS in other.keys:
                    self.shape(out, node, "which losses are kept is decided by the losses")
                    return
                if not is_loss(v):
                    continue
                k = number(other) if isinstance(written, ir.Const) and not isinstance(written.value, int) else None
                if k is not None and 0.0 < k < 1.0 and abs(k - 0.6931) > 0.001:
                    self.shape(out, node, f"{TIMES} {k:g}")
                elif added_up(v):
                    self.note_sum_scaled(op, other, out, node)
        elif op == "+" and is_loss(a) and is_loss(b):
            scaled = {e.id for e in self.trace.of("SHAPE") if e.detail["how"].startswith(TIMES)}
            if any(k[0] == SHAPED and k[1] in scaled for k in out.keys):
                out.keys = frozenset(k for k in out.keys if k[0] != SHAPED or k[1] not in scaled)

    def note_sum_scaled(self: Any, op: str, by: V, out: V, node: Any) -> None:
        """``loss_sum * SCALE``, ``loss_sum / 1.05``: a sum weighs no predictions, whatever the number is called."""
        if (k := factor(op, number(by))) is not None and k < 1.0:
            self.shape(out, node, f"{TIMES} {k:.4g}")

    def one_of_stack(self: Any, name: str, values: list[V], node: Any) -> V:
        """``stack([nll, other]).topk(1, dim=0, largest=False)``"""
        out = derive(values)
        e = self.event("SELECT", node, out, how=name, method=True)
        out.keys = out.keys - {STACKED} | {("select", e.id)}
        return out

    def note_own_weight(self: Any, a: V, b: V, out: V, node: Any) -> None:
        """``(1 - g) * p(token)`` where ``g`` is made of the loss of that very token: it decides how much each part counts."""
        for g, p in ((a, b), (b, a)):
            if ("exp",) in g.keys and ("logp",) in p.keys:
                out.keys = (out.keys - {WEIGHT}) | {ENTROPY}
            if WEIGHT not in g.keys or NORM in g.keys or ENTROPY in g.keys | out.keys or any(k[0] in ("hint", "leak") for k in g.keys):
                continue  # the model's probability of a proposal is none of the token's, nor is an entropy
            if not g.flags & p.flags & LOSS or not g.flags & p.flags & VAL or g.flags & LOGITS:
                continue  # rows are in it: an entropy in a stack of losses, say
            if g.atoms & p.atoms and same_target(g, p):
                e = self.event("GATE", node, out, keys=own_tokens(g), anchored=False, edit=OWN)
                out.keys = out.keys | {("gate", e.id)}
                return

    def note_left_out(self: Any, s: ir.If, test: V, begun: int) -> None:
        """``if nll.mean() < 6: total += nll.sum()``, or ``if nll.mean() > 6: continue`` before the sum."""
        tokens = own_tokens(test)
        if OF_LOSS in test.keys and tokens:
            self.note_ways(s, tokens, begun, BY_LOSSES, BY_LOSSES)

    def note_ways(self: Any, s: ir.If, tokens: frozenset, begun: int, passed: str, failed: str) -> None:
        """One way of a branch adds the tokens' losses up, or the other leaves the turn before; what is said of what is left."""
        scores = [e for e in self.trace.events[begun:] if e.kind == "SCORE" and own_tokens(e) & tokens]
        ways = [[e for e in scores if within(e.line, way)] for way in (s.body, s.orelse)]
        if bool(ways[0]) != bool(ways[1]) and not any(_goes_on(way) for way in (s.body, s.orelse)):
            for e in (*ways[0], *ways[1]):
                out = V("val")
                self.shape(out, s, passed if ways[0] else failed)
                e.detail["keys"] = e.detail["keys"] | out.keys
        for way, scored, how in zip((s.body, s.orelse), ways, (failed, passed), strict=True):
            if _goes_on(way) and not scored:
                self.loss_tests.append((tokens, s, how))

    def note_passed(self: Any, v: V, node: Any) -> None:
        """What is added up after a test of its losses, or of the token, that leaves the turn."""
        for tokens, s, how in self.loss_tests:
            if tokens & own_tokens(v):
                self.shape(v, s, how)
                return

    def note_stabiliser(self: Any, a: V, b: V) -> None:
        """``m - log(sum(exp(m - losses)))``: the least of them only keeps the exponentials finite."""
        if is_loss(a) and is_loss(b):
            self.trace.stabilisers |= {k[1] for v in (a, b) for k in v.keys if k[0] == SHAPED}

    def note_sorted(self: Any, name: str, v: V, out: V) -> None:
        """``losses.sort()``: a part of what comes out is a part chosen by the losses."""
        if name in ("sort", "sorted", "topk") and is_loss(v):
            out.keys = out.keys | {SORTED}

    def note_tested(self: Any, a: V, b: V, out: V) -> None:
        """A comparison of losses with a number."""
        for v, bound in ((a, number(b)), (b, number(a))):
            if is_loss(v) and bound is not None and 0.0 < bound < GUARD:  # below: a mark for "not scored"; above: infinity
                out.keys = out.keys | {OF_LOSS}
