"""Operators: constants are folded with the knobs they came from; of everything else the provenance moves on."""

from __future__ import annotations

import operator
from typing import Any

from audit import ir
from audit.trace.events import Limit
from audit.trace.folded import of_whole_run
from audit.trace.gates import AGREE, HIT, HIT_SHARE, NORM, ONE_HOT
from audit.trace.left_out import MARKS, TESTS, of_both, turned
from audit.trace.lengths import LENGTH
from audit.trace.positions import TOTAL, add_places, place_of
from audit.trace.queues import CLAIMED
from audit.trace.runs import joined
from audit.trace.scaled import LESS_THAN_ONE
from audit.trace.shaping import BY_GAP, BY_LOSS, GAP, PICKED, added_up, is_loss, number, same_target
from audit.trace.shares import begins_share, beside_another, reckoned
from audit.trace.spans import HEAD
from audit.trace.started import named
from audit.trace.strides import moved
from audit.trace.values import (
    ART,
    BPB,
    BYTES,
    COUNT,
    EMPTY,
    FILE,
    LOGITS,
    LOSS,
    MASK,
    MATCH,
    META,
    PARAM,
    PROB,
    RATIO,
    TIME,
    VAL,
    V,
    clone,
    const,
    derive,
    embedded,
    join,
    kinds,
    mapping,
    rest_of,
    seq,
    summary,
    without,
)  # fmt: skip
from audit.trace.weights import unowned
from audit.trace.words import WHOLE

FOLD = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod, "<<": operator.lshift, ">>": operator.rshift, "&": operator.and_, "|": operator.or_,
    "^": operator.xor, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
LN2 = 0.6931471805599453
#: ln 2 times another number, as one number
LN2_IN = ("ln2",)
#: bytes per token of any tokenizer of words and their parts
LEAST, MOST = 1.5, 8.0


class Arithmetic:
    """Mixed into the machine; see `audit.trace.machine`."""

    # ------------------------------------------------------------------ operators
    def x_binop(self: Any, e: ir.BinOp) -> V:
        a, b = self.ev(e.left), self.ev(e.right)
        out = self.binary(e.op, a, b, e)
        return self.as_terms(out, product=e.op not in "+-" and bool(a.flags & b.flags & LOSS)) if out.flags & LOSS else out

    def binary(self: Any, op: str, a: V, b: V, node: Any) -> V:
        if a.kind == "const" and b.kind == "const":
            out = self.fold(op, a, b)
            if out is not None:
                if op in "+-" and (a.pos is not None or b.pos is not None):
                    add_places(op, a, b, out)
                return out
        if a.kind == "lib" and b.kind == "lib":
            return V("val")
        if (a.kind == "obj" or b.kind == "obj") and (made := self.own_operator(op, a, b, node)) is not None:
            return made
        if op in "+-" and (a.flags | b.flags) & LOSS:
            a, b = a if op == "-" else self.added_to(b, a, node), self.added_to(a, b, node)
        if op == "/" and a.data is not None and a.kind in ("bound", "obj", "lib") and not a.flags & PARAM:
            return clone(b) if b.kind == "const" and isinstance(b.const, str) else derive([b])  # a path
        if op == "+" and a.kind == "seq" and b.kind == "seq":
            a, b = self.lists_beside(a, b, node)
            if a.rest is None and b.rest is None:
                return joined(a, b, seq([*(a.data or []), *(b.data or [])]))
            return joined(a, b, seq(list(a.data or []), join(self.element(a), self.element(b))))
        if op == "*" and a.kind == "seq" and b.kind in ("const", "val"):
            if b.kind == "const" and isinstance(b.const, int) and b.const <= 8:
                return seq(list(a.data or []) * max(b.const, 0), a.rest)
            part = self.element(a)
            return seq([], part)
        if op == "*" and b.kind == "seq" and a.kind in ("const", "val"):
            return self.binary(op, b, a, node)
        if op == "|" and a.kind == "dict" and b.kind == "dict":
            return mapping({**(a.data or {}), **(b.data or {})}, a.rest or b.rest)
        if op == "&" and not self.dormant:
            for x in (a, b):
                if x.kind == "const" and x.const is False:
                    return x  # nothing passes a gate that is shut
        if op == "%" and a.kind == "const" and isinstance(a.const, str):
            out = derive([a, summary(b)])
            out.const = ("text", a.const.partition("%")[0])
            return out
        if (op in ("*", "@") and (a.flags | b.flags) & LOSS) or (op in "+-" and (a.flags ^ b.flags) & LOSS):
            a, b = self.as_weight(a, b), self.as_weight(b, a)
        out = derive([a, b]) if op != "/" else named(derive([a, b]), b, a)
        if op == "-" and b.mask is not None and a.kind == "const" and a.const == 1:
            out.mask = rest_of(b.mask)
        if out.kind == "const":
            return out  # the path of a script
        out.flags &= ~RATIO
        if op == "+" and a.flags & b.flags & LOSS:
            beside_another([a, b], out)
        if op == "-" and is_loss(a) and is_loss(b) and not (a.scores or b.scores) and same_target(a, b):
            out.const = GAP
        if HIT in (a.const, b.const) and (op in "*&" or (op == "/" and a.const == HIT)):
            out.const = HIT
            if op in "*/" and number(a if b.const == HIT else b) is not None:
                out.keys = out.keys | {HIT_SHARE}
        if WHOLE in out.keys:
            self.note_added(op, a, b, out, node)
        if "raised" in kinds(out):
            self.note_made_up(op, a, b, out)
        if op == "*" and (a.flags | b.flags) & LOSS:
            self.note_own_weight(a, b, out, node)
        if op in "+-*" and "own" in kinds(out):
            self.note_rest(op, a, b, out, node)
        if op == "*" and (a.flags | b.flags) & LOGITS:
            self.note_product(a, b, out, node)
        elif op == "@":
            out = of_whole_run(unowned(unowned(out), row=True))
        if (op == "-" and ("lse",) in b.keys) or (op == "/" and "unnorm" in kinds(b)):
            out.keys = frozenset(k for k in out.keys if k[0] not in ("unnorm", "lse"))
        elif op == "/" and "unnorm" in kinds(a):
            out.keys = without(out.keys, self.note_divided_again(a))
        if op == "-" and NORM in b.keys and b.flags & (LOSS | LOGITS | PROB):
            out.keys = frozenset(k for k in out.keys if k[0] != "unnorm")
        model = LOSS | LOGITS | PROB
        if op in "+-" and out.flags & LOSS and a.flags & model and b.flags & model:
            out.keys = out.keys | {NORM}  # two figures of the model: one may be what the other is divided by
        if op in "+-" and AGREE in out.keys and out.flags & LOSS:
            self.check_tilt(a, b, out, node)
        if out.flags & META:
            self.note_share(op, a, b, out)
            reckoned(op, a, b, out)
            if begins_share(out):
                self.trace.advances.of_ranks.update(place_of(out)[0])
        if op == "%" and a.flags & VAL and not a.flags & META:
            out.flags &= ~META  # tokens modulo a table's length are an address, and no length
        if op in "*/":
            if out.flags & (BYTES | BPB) or number(a) is not None or number(b) is not None:
                self.note_sized(op, a, b, out, node)
            note_assumed(op, a, b, out, self.scope.path, node)
        if op == "-" and a.flags & b.flags & BYTES:
            self.note_bytes_taken(out)
        if out.flags & LOSS and op == "-":
            self.note_stabiliser(a, b)
        if op in "*/-" and (out.flags & LOSS or op == "-" or LESS_THAN_ONE in out.keys):
            self.note_less(op, a, b, out, node)
        if out.flags & LOSS and op in "*+":
            self.note_scaled(op, a, b, out, node)
            if op == "+":
                self.note_figures_added(a, b, out)
        elif op == "/" and is_loss(a) and added_up(a):
            self.note_sum_scaled(op, beside_ln2(b), out, node)
        if out.flags & LOSS:
            self.note_arithmetic(op, a, b, out, node)
            if op == "*" and (a.flags ^ b.flags) & LOSS:
                self.leave_out(*((a, b) if a.flags & LOSS else (b, a)), out, node)
            else:
                out.keys = without(out.keys, MARKS)
            self.note_divided(a, b, out)
        else:
            if op == "+":
                self.note_made_one(a, b, out, node)
            self.note_marks(op, a, b, out)
        if ONE_HOT in out.keys:
            if op == "@":
                self.note_tally("matmul", [a, b], out, node)
                out.keys = out.keys - {ONE_HOT}
        if op in "+-*/" and out.flags & VAL and (a.flags ^ b.flags) & LOGITS:
            self.note_combined(op, *((a, b) if a.flags & LOGITS else (b, a)), out, node)
        if op == "-" and b.keys is not a.keys:
            larger = frozenset(("less", k[1]) for k in b.keys if k[0] == "select") - a.keys
            if larger and ((a.flags & b.flags & LOSS and PICKED in a.keys & b.keys) or "select" not in kinds(a)):
                out.keys = out.keys | larger | frozenset(("less", k[1]) for k in a.keys if k[0] == "select")
            elif a.flags & b.flags & LOSS and "select" not in kinds(b):
                out.keys = out.keys | frozenset(("less", k[1]) for k in a.keys if k[0] == "select")  # `exp(least - losses)`
        if op == "**" and b.flags & LOSS:
            out.keys = (out.keys - {("logp",)}) | {("exp",)}
        if op == "/" and a.flags & LOSS and b.flags & COUNT:
            self.check_divisor(a, b, out, node)
        if out.flags & COUNT:
            self.note_counts(op, a, b, out, node)
        if op == "*" and out.flags & COUNT:
            out.keys = frozenset(k for k in out.keys if k[0] != "mean")  # a mean times the number of entries is a sum
        elif op == "/" and a.flags & COUNT and a.flags & PROB and b.flags & COUNT and not (a.flags | b.flags) & LOSS and not b.flags & PROB:
            self.check_scale(a, b, out, node)
        if op == "/" and a.flags & COUNT and b.flags & COUNT and not (a.flags | b.flags) & (LOSS | LOGITS):
            out.flags |= RATIO
        if a.lv is not None and a.lv[0] != "x" and op == "-" and b.kind == "const" and isinstance(b.const, int) and b.const > 0:
            # The previous iteration's part of the stream.
            out.deps = frozenset((d[0], d[1] - 1) if d == a.lv else d for d in out.deps)
            out.lv = (a.lv[0], a.lv[1] - 1)
        elif a.lv is not None and op == "+" and b.kind == "const" and b.const == 0:
            out.lv = a.lv
        else:
            out.lv = later_iteration(op, a, b)
        if CLAIMED in out.keys and op not in "+-":
            out.keys = out.keys - {CLAIMED}
        flags = out.flags
        if op in "+-":
            add_places(op, a, b, out)
        if HEAD in a.keys or a.const == LENGTH:
            self.note_length(op, a, b, out)
        moved(op, a, b, out)
        if op in "+-*":
            self.trace.advances.combine(op, a, b, out)
        elif HEAD in out.keys:
            out.keys = out.keys - {HEAD}  # the number of a block
        if flags & LOSS:
            if a.mask is not None or b.mask is not None:
                lo, hi = a.mask if a.mask is not None else b.mask  # type: ignore[misc]
                out.atoms = frozenset((d, lo, hi) for d, _, _ in out.atoms)
                out.mask = None
            if op in "/*" and self.is_ln2(a, b, op):
                out = self.to_bits(out, node)
            elif op in ("/", "**") and a.flags & LOSS and (b.flags & BYTES or (op == "/" and b.flags & VAL and not b.flags & META)) and not b.flags & (LOSS | COUNT | LOGITS | PROB) and b.keys and TOTAL not in b.keys:
                # A token's loss over a number that belongs to the token, or its probability's root: the share per byte.
                e = self.event("SPREAD", node, out, keys=b.keys)
                out.keys = out.keys | {("spread", e.id)}
        elif op == "*" and self.is_ln2(a, b, op):
            out.const = "ln2"  # a divisor that converts to bits together with what it multiplies
        elif op == "/" and self.over_ln2(a, b):
            out.const = "ln2"  # a factor that does
        if op in ("==", "!=", "<", ">"):
            out.flags &= ~LOSS
        return out

    def as_weight(self: Any, v: V, other: V) -> V:
        """``g * q`` where ``g`` learned from the losses of earlier turns: a weight of the mixture, and no score."""
        if other.scores or not other.atoms or not other.flags & (LOGITS | PROB | COUNT | LOSS) or not self.of_earlier_turns(v):
            return v
        out = clone(v)
        out.flags &= ~(LOSS | BPB)
        out.atoms, out.scores = EMPTY, EMPTY
        return out

    def of_earlier_turns(self: Any, v: V) -> bool:
        """Are these losses of what earlier turns of the open loops were about, and nothing of the present one's."""
        return bool(v.flags & LOSS and v.atoms) and all(self.chosen_earlier(chosen) for chosen, _, _ in v.atoms)

    def chosen_earlier(self: Any, chosen: frozenset) -> bool:
        """Did an earlier turn choose it: of the open loops, outermost first, the first that says so has gone on since.

        The next token of a window is in the same turn of the loop over windows.
        """
        at: dict[int, set[int]] = {}
        for loop, turn in chosen:
            at.setdefault(loop, set()).add(turn)
        for loop, now in self.loops:
            if (turns := at.get(loop)) is not None and turns != {now}:
                return max(turns) < now
        return False

    def is_ln2(self: Any, a: V, b: V, op: str) -> bool:
        for v in (a, b):
            if v.kind == "const" and isinstance(v.const, (int, float)) and not isinstance(v.const, bool):
                x = abs(float(v.const))
                if abs(x - LN2) < 2e-3 or abs(x - 1 / LN2) < 2e-3:
                    return True
            if v.const == "ln2" or LN2_IN in v.keys:
                return True
        return False

    def over_ln2(self: Any, a: V, b: V) -> bool:
        """``1 / math.log(2) / n_bytes``, ``1 / (math.log(2) * n_bytes)``: a factor that converts to bits, computed before it is used."""
        if a.kind == "const" and a.const == 1 and not isinstance(a.const, bool):
            return bool(self.is_ln2(b, b, "/"))
        factor = a.kind == "const" and isinstance(a.const, float) and abs(a.const - 1 / LN2) < 2e-3
        return (factor or LN2_IN in a.keys or a.const == "ln2") and not self.is_ln2(b, b, "/") and not a.flags & (LOSS | LOGITS)

    def to_bits(self: Any, v: V, node: Any) -> V:
        if not v.scores:
            v = self.commit_score(v, node, "converted")
        else:
            # What was mixed with a cache after it was stored is another score.
            v = self.commit_score(v, node, "converted")
        v.flags |= BPB
        return v

    def fold(self: Any, op: str, a: V, b: V) -> V | None:
        x, y = a.const, b.const
        try:
            if op == "**":
                if isinstance(x, (int, float)) and isinstance(y, (int, float)) and abs(y) < 64 and abs(x) < 1e9:
                    value = x**y
                else:
                    return None
            elif op in ("*", "<<") and (
                isinstance(x, (str, bytes, list, tuple)) or isinstance(y, (str, bytes, list, tuple)) or (op == "<<" and y > 128)
            ):
                return None
            else:
                f = FOLD.get(op)
                if f is None:
                    return None
                value = f(x, y)
        except Exception:
            return None
        out = const(value)
        if a.knobs or b.knobs:
            out.knobs = a.knobs | b.knobs
        if a.deps or b.deps:
            out.deps = a.deps | b.deps
        out.flags = a.flags | b.flags
        by_ln2 = op == "*" and (self.is_ln2(a, b, op) or LN2_IN in a.keys | b.keys)
        if isinstance(value, float) and (by_ln2 or (op == "/" and self.over_ln2(a, b))):
            out.keys = frozenset([LN2_IN])
        if op == "*":
            out.keys = out.keys | times(a) | times(b)
        if type(value) is str and not out.flags:
            out.flags = self.text_flags(value)
        if a.lv is not None and a.lv[0] != "x" and op == "-" and isinstance(y, int) and y > 0:
            out.lv = (a.lv[0], a.lv[1] - 1)
            out.deps = frozenset((d[0], d[1] - 1) if d == a.lv else d for d in out.deps)
        else:
            out.lv = later_iteration(op, a, b)
        return out

    def x_unary(self: Any, e: ir.UnaryOp) -> V:
        v = self.ev(e.operand)
        if e.op == "not":
            t = self.truth(v)
            if t is not None:
                out = const(not t)
                out.knobs, out.deps = v.knobs, v.deps
                return out
            out = derive([v])
            out.keys = turned(out.keys)
            return out
        if v.kind == "const" and isinstance(v.const, (int, float)):
            out = clone(v)
            try:
                out.const = -v.const if e.op == "-" else ~v.const if e.op == "~" else v.const  # type: ignore[operator]
            except TypeError:
                return derive([v])
            return out
        out = derive([v])
        out.mask = rest_of(v.mask) if e.op == "~" else v.mask
        out.keys = turned(out.keys) if e.op == "~" else out.keys - MARKS
        return out

    def x_boolop(self: Any, e: ir.BoolOp) -> V:
        stop = e.op == "or"
        seen: list[V] = []
        unknown = False
        for x in e.values:
            v = self.ev(x) if not stop else self.known_nothing(e.values[-1], self.ev(x))
            t = self.truth(v)
            if t is None:
                unknown = True
            elif t == stop:
                if not unknown:
                    if not v.knobs:
                        self.note_closed(e.values[len(seen) + 1 :], e.line)
                    out = clone(v) if v.kind in ("const", "val") else v
                    if out is not v:
                        for s in seen:
                            out.knobs |= s.knobs
                        if self.dormant and stop is False and seen:
                            out.knobs |= v.knobs
                    return out
                # An unknown operand before it: `x and False` is still False.
                out = const(stop)
                for s in [*seen, v]:
                    if self.truth(s) == stop or not stop:
                        out.knobs |= s.knobs
                return out if stop is False else derive([*seen, v])
            seen.append(v)
        if not unknown and seen:
            last = seen[-1]
            out = clone(last) if last.kind in ("const", "val") else last
            if out is not last:
                for s in seen:
                    out.knobs |= s.knobs
            return out
        if stop and seen:
            # `a or default`: either one.
            out = seen[0]
            for s in seen[1:]:
                out = join(out, s)
            if out.keys & TESTS:
                out = clone(out)
                out.keys = without(out.keys, TESTS)
            return out
        out = derive(seen)
        out.keys = of_both(out.keys)
        if not stop and any(s.const == HIT for s in seen):
            out.const = HIT
        return out

    def x_compare(self: Any, e: ir.Compare) -> V:
        left = self.ev(e.left)
        values = [left]
        result: bool | None = True
        for op, right_e in zip(e.ops, e.comparators, strict=True):
            right = self.ev(right_e)
            values.append(right)
            if op in ("in", "not in") and (given := self.given_by_hand(left, right)) is not None:
                given.const = given.const == (op == "in")
                return given
            one = self.compare(op, left, right)
            if one is None and op in ("in", "not in") and right.kind == "dict" and (right.taint or right.flags):
                values[-1] = self.lookup(right, left, V("val"), e)  # whether something is filed there is what a read says
            if one is False:
                result = False
                break
            if one is None:
                result = None
            left = right
        if result is None:
            out = derive([summary(v) if v.kind in ("seq", "dict") else v for v in values])
            if len(values) == 2 and all(v.flags & (LOSS | COUNT) for v in values) and any(v.flags & LOSS for v in values):
                out.keys = out.keys | {BY_LOSS}
            elif len(values) == 2 and any(v.const == GAP for v in values) and any(number(v) is not None for v in values):
                out.keys = out.keys | {BY_GAP}
            out.flags = out.flags & ~(LOSS | BPB | META | MATCH) | MASK
            if len(values) == 2:
                self.note_region(e, values[0], values[1], out)
                self.note_comparison(e, values[0], values[1], out)
                self.note_tested(values[0], values[1], out)
                self.note_kind(e.ops[0], values[0], values[1], out)
                self.trace.advances.test(e.ops[0], values[0], values[1], out)
                self.note_compared(values[0], values[1], out)
                out.rest = seq([values[0], values[1]])
            return out
        out = const(result)
        for v in values:
            out.knobs |= v.knobs - embedded(v) if e.ops[0] in ("is", "is not") else v.knobs
            if v.deps:
                out.deps |= v.deps
        return out

    def note_region(self: Any, e: ir.Compare, a: V, b: V, out: V) -> None:
        """``arange(n) < first``: the positions up to there; ``fresh == 0``: those that a mask leaves over."""
        op, bound = e.ops[0], e.comparators[0]
        places = ["candidates" in kinds(v) for v in (a, b)]
        if places == [False, True]:
            op, bound = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(op, ""), e.left
        elif places != [True, False]:
            if a.mask is not None and b.kind == "const" and b.const == 0:
                out.mask = rest_of(a.mask) if op == "==" else a.mask if op in (">", "!=") else None
            return
        at = self.bound_text(bound)
        if at is not None:
            after = at if op in ("<", ">=") else f"({at}+1)"
            out.mask = ("start", after) if op in ("<", "<=") else (after, None) if op in (">", ">=") else None

    def note_comparison(self: Any, e: ir.Compare, a: V, b: V, out: V) -> None:
        """A clock against the contest's limit; the stream's tokens against a file's content."""
        if e.ops[0] in ("==", "!="):
            if e.ops[0] == "==":
                self.note_agreement(a, b, out)
            x, y = (a, b) if a.flags & (FILE | ART) else (b, a)
            stored = x.flags & (FILE | ART) and not any(k[0] in ("leak", "hint") for k in x.keys)  # proposals are no tokens
            if stored and y.flags & VAL and not y.flags & (FILE | ART) and not (x.flags | y.flags) & META:
                out.flags |= MATCH
        elif (a.flags | b.flags) & TIME and e.ops[0] in ("<", "<=", ">", ">="):
            clock, limit = (a, b) if a.flags & TIME else (b, a)
            if limit.kind == "const" and isinstance(limit.const, (int, float)) and not isinstance(limit.const, bool):
                seconds = float(limit.const) / (1000.0 if limit.const > 10_000 else 1.0)
                if 200.0 <= seconds <= 605.0:
                    self.trace.time_limits.append((self.next_id, seconds < 599.95 or bool(clock.knobs)))
                    written = e.comparators[0] if limit is b else e.left
                    place = Limit(self.scope.path, e.line, tuple(self.stack), seconds, written, limit.knobs)
                    self.trace.limits.append(place)

    def compare(self: Any, op: str, a: V, b: V) -> bool | None:
        if op in ("is", "is not", "==", "!=") and b.kind == "const" and b.const is None and a.kind != "const":
            if a.kind in ("func", "class", "obj", "opt", "seq", "dict", "bound", "partial", "lib", "alt") or a.flags:
                if a.maybe and op in ("is", "=="):
                    return None
                return op in ("is not", "!=")
            return None
        if op in ("is", "is not") and a.kind == "const" and b.kind == "const":
            same = a.const is b.const or (a.const == b.const and type(a.const) is type(b.const))
            return same if op == "is" else not same
        if op in ("in", "not in"):
            inside: bool | None = None
            if b.kind == "dict" and b.rest is None and a.kind == "const":
                try:
                    inside = a.const in b.data
                except TypeError:
                    inside = None
            elif b.kind == "seq" and b.rest is None and a.kind == "const" and all(x.kind == "const" for x in b.data):
                inside = any(x.const == a.const for x in b.data)
            elif b.kind == "const" and a.kind == "const":
                try:
                    inside = a.const in b.const
                except TypeError:
                    inside = None
            if inside is None:
                return None
            return inside if op == "in" else not inside
        if (a.flags | b.flags) & RATIO and op in (">", ">=", "<", "<="):
            return self.threshold(op, a, b)
        if a.kind == "const" and b.kind == "const":
            try:
                return bool(FOLD[op](a.const, b.const))
            except Exception:
                return None
        return None


def beside_ln2(v: V) -> V:
    """``1.1`` of ``math.log(2) * 1.1``"""
    return const(v.const / LN2) if LN2_IN in v.keys and number(v) is not None else v


def later_iteration(op: str, a: V, b: V) -> tuple | None:
    """``lv`` of ``i + k`` (that later iteration) and of ``i * c`` (scaled: the offset where a part begins)."""
    if op == "+" and a.lv is not None and b.kind == "const" and type(b.const) is int and b.const > 0:
        # An offset into a part stays in that part.
        return (a.lv[0], a.lv[1] + b.const) if len(a.lv) == 2 else a.lv
    if op == "+" and a.lv is not None and len(a.lv) == 2 and b.kind == "val" and b.pos is not None and not b.pos[0] and b.pos[1] > 0:
        return a.lv[0], a.lv[1] + b.pos[1]  # as many as a list that was cut out has
    if op == "%" and a.lv is not None and len(a.lv) == 2 and a.lv not in a.deps and b.flags & META and not b.deps:
        return a.lv  # ``(chunk + 1) % chunks``
    if op == "*":
        x, y = (a, b) if a.lv is not None else (b, a)
        if x.lv is not None and not y.deps and y.kind in ("const", "val", "bound"):
            return x.lv if len(x.lv) == 3 else ("x", *x.lv)
    return None


def times(v: V) -> frozenset:
    """The key of a written number that may stand for bytes per token, and of what was multiplied by one."""
    known = frozenset(k for k in v.keys if k[0] == "times")
    if not known and v.kind == "const" and isinstance(v.const, float) and LEAST < v.const < MOST and not v.const.is_integer():
        return frozenset([("times", v.const)])
    return known


def note_assumed(op: str, a: V, b: V, out: V, path: str, node: Any) -> None:
    """``loss / (tokens * 3.5)``: every token is taken for three and a half bytes."""
    if op == "*":
        for number, other in ((a, b), (b, a)):
            if type(number.const) is float and other.kind == "val" and not other.flags & (LOSS | LOGITS | PROB | PARAM | BYTES):
                out.keys = out.keys | times(number)
    elif a.flags & LOSS and not b.flags & BYTES:
        out.keys = out.keys | {("assumed", k[1], path, getattr(node, "line", 0)) for k in times(b)}
