"""Gates: is what a cache proposes for a position decided by the token at that position.

A branch or a selection whose condition is made of tokens (a table of word starts read at the token, say) gates what
is written under it. When the written element's place is that of the token, the token decided its own proposal.
Comparing the token *with* a proposal is how a proposal is scored and no gate. A quotient of counts is at most 1, so
a threshold above 1 shuts what it guards.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.positions import TOKENS, moved_back, place_of, tokens_in
from audit.trace.values import (
    BPB,
    BYTES,
    COUNT,
    EMPTY,
    LOGITS,
    LOSS,
    MASK,
    META,
    PARAM,
    PROB,
    RAND,
    RATIO,
    TGT,
    TRAIN,
    VAL,
    V,
    clone,
    derive,
    join,
    kinds,
    without,
)
from audit.trace.words import WHOLE, normalised

PROPOSALS = frozenset(("lookup", "leak", "hint"))
#: a proposal was compared with the token; the model's probability was read at a proposal
AGREE, NORM = ("agree",), ("norm",)
#: ``const`` of a value that is zero wherever the proposal is not the token
HIT = "hit"
#: a weight that is there only where the proposal is the token, and neither the hit itself nor a mass that goes to it
HIT_SHARE = ("share at a hit",)
#: one less a share that some token decided, this one or another
REST = ("rest",)
#: counts to or from which something was added or taken
RECKONED = ("reckoned",)
#: what is said of predictions that were made of what they are for
TOLD = "the model is given the very tokens that it is asked for; that it shifts them itself was not shown"
#: tokens as rows of zeros with a one in each
ONE_HOT = ("one-hot",)


def gate_tokens(test: V) -> frozenset:
    """The token places in a condition; none when it compares with what a table proposed."""
    if not test.keys or not PROPOSALS.isdisjoint(kinds(test)):
        return frozenset()
    return frozenset(("t", *k[1:]) for k in test.keys if k[0] in TOKENS)


def found_by_read(v: V) -> bool:
    """Tokens that a table gave for a context: laid out in a row, they are what it says, and taken in by nothing."""
    return bool(v.flags & COUNT) and not v.flags & MASK and not PROPOSALS.isdisjoint(kinds(v))


def picks_tokens(rows: V, index: V) -> bool:
    """Are entries of predictions taken at tokens."""
    return rows.kind == "val" and bool(rows.flags & LOGITS) and not rows.flags & LOSS and holds_tokens(index)


def stands_ahead(tokens: V, rows: V) -> bool:
    """Does a token stand behind all that the predictions were made of."""
    context = tokens_in(rows.keys)
    return any(at in context and max(offsets) > max(context[at]) for at, offsets in tokens_in(tokens.keys).items())


def guards_division(test: V) -> bool:
    """``mass > 1e-9``: a comparison with next to nothing, which keeps a quotient finite and chooses nothing."""
    sides = (test.rest.data or []) if test.rest is not None and test.rest.kind == "seq" else []
    return any(
        x.kind == "const" and isinstance(x.const, float) and 0.0 < abs(x.const) <= 1e-4 for x in sides
    )


def holds_tokens(v: V) -> bool:
    """Are these token numbers: no places, counts or figures made from them."""
    return v.kind == "val" and bool(v.flags & (VAL | TRAIN)) and not v.flags & (
        META | MASK | LOSS | LOGITS | PROB | COUNT | BYTES | RAND | PARAM
    )


def within(line: int, body: list[ir.Stmt]) -> bool:
    return bool(body) and body[0].line <= line <= max(body[-1].end_line, body[-1].line)


def plain(v: V) -> bool:
    """Is it the token's own part of a distribution, from which no room was taken yet."""
    return v.kind == "val" and WHOLE in v.keys and bool(v.flags & LOSS) and ("logp",) not in v.keys


def takes_room(way: list[ir.Stmt]) -> bool:
    """``else: p = (1 - share) * p``: where the table is not mixed in, what it would have got is taken off all the same."""
    return any(
        n.op in ("*", "/") if isinstance(n, (ir.BinOp, ir.AugAssign)) else isinstance(n, ir.Attr) and n.attr == "log1p"
        for n in ir.walk(way)
    )  # fmt: skip


def adds_to(name: str, way: list[ir.Stmt], old: V) -> bool:
    """``p += share * q`` where room was made for it before: a token without a count gets nothing from the table."""
    return WHOLE not in old.keys and any(
        (isinstance(n, ir.AugAssign) and n.op == "+" and isinstance(n.target, ir.Name) and n.target.id == name)
        or (isinstance(n, ir.Assign) and any(isinstance(t, ir.Name) and t.id == name for t in n.targets)
            and isinstance(n.value, ir.BinOp) and n.value.op == "+" and any(isinstance(x, ir.Name) for x in (n.value.left, n.value.right)))
        for n in way
    )  # fmt: skip


def mixed(v: V) -> bool:
    """Is a table's answer in it."""
    return "lookup" in kinds(v)


def spent(way: Any, v: V) -> bool:
    """``row[token] / sum(row)``: the tokens that the row has seen get all that there is to give."""
    return isinstance(way, ir.BinOp) and any(k[0] == "all" and k[1:3] == (way.line, way.col) for k in v.keys)


def spends(name: str, body: list[ir.Stmt], orelse: list[ir.Stmt], old: V | None, now: V) -> bool:
    """``if row[token]: p = row[token] / n``, and else what a shorter context says: something on top of all."""
    if old is None or old.kind != "val" or not old.flags & (COUNT | LOSS) or old.scores:
        return False
    ways = [[n.value for n in way if isinstance(n, ir.Assign) and any(isinstance(t, ir.Name) and t.id == name for t in n.targets)]
            for way in (body, orelse)]  # fmt: skip
    for mine, others in (ways, ways[::-1]):
        if len(mine) == 1 and spent(mine[0], now) and all(isinstance(x, (ir.Name, ir.BinOp)) and not spent(x, now) for x in others):
            return True
    return False


class Gates:
    """Mixed into the machine; see `audit.trace.machine`."""

    def gated(self: Any, value: V, target: ir.Sub, node: Any) -> V:
        """``array[i] = value`` under a branch: notes when the token at ``i`` decided the branch."""
        open_gates = [g for g in self.gates if g]
        if not open_gates or not (value.flags & COUNT or not PROPOSALS.isdisjoint(kinds(value))):
            return value
        elements = target.index.elts if isinstance(target.index, ir.Collection) else [target.index]
        if not elements or isinstance(elements[-1], ir.Slice):
            return value
        index = self.ev(elements[-1])
        if index.kind not in ("val", "const") or (index.pos is None and index.lv is None and index.kind != "const"):
            return value
        symbols, offset = place_of(index)
        for tokens in open_gates:
            at = tokens_in(tokens).get(symbols, ())
            if any(o >= offset for o in at):
                return self.gate_event(value, tokens, node)
        return value

    def edited(self: Any, rows: V, tokens: V, out: V, node: Any, row: V | None = None) -> None:
        """``logits[row, token] += boost``: predictions changed at a token that stands after their context.

        The places of what the predictions were made of are compared with the token's own: a token of the context
        (a repetition penalty, a copy mechanism) is not above the highest of them, the token to be predicted is.
        """
        if not rows.flags & (LOGITS | PROB) or rows.flags & (LOSS | COUNT) or not tokens.flags & (VAL | BYTES):
            return
        context = tokens_in(rows.keys)
        place = place_of(row) if row is not None and row.pos is not None else ((), 0)
        near = moved_back(tokens.keys, place)
        ahead = frozenset(("t", *k[1:]) for k in near if k[1] in context and k[2] > max(context[k[1]]))
        if ahead:
            e = self.event("GATE", node, out, keys=ahead, anchored=False, edit="the prediction is changed at the very token that it is for")
            out.keys = out.keys | {("gate", e.id)}

    def note_combined(self: Any, op: str, rows: V, other: V, out: V, node: Any) -> None:
        """``logits + 5 * one_hot(token)``, ``logits / temperature[token]``; what a cache found for the token is no such thing."""
        if other.flags & (LOSS | PROB | COUNT | META) or "lookup" in kinds(other):
            return
        selects = ONE_HOT in other.keys or bool(other.flags & MASK)  # times such a row: the entry of the token
        if op == "*" and ONE_HOT in other.keys and (("logp",) in rows.keys or (rows.flags & PROB and stands_ahead(other, rows))):
            picked = self.gather(rows, other, node)
            out.flags, out.atoms, out.span = picked.flags, other.atoms or out.atoms, picked.span
            out.via, out.keys = picked.via, (out.keys | picked.keys) - {ONE_HOT}
            return
        if (selects and op in "+-") or (op == "/" and other.flags & BYTES and not selects and not rows.flags & PROB):
            self.edited(rows, other, out, node)

    def told(self: Any, rows: V, tokens: V, out: V, node: Any) -> None:
        """``cross_entropy(model(y), y)``: predictions made of the very tokens they are for, none of which is hidden.

        The model may shift them by itself, so that this is a doubt.
        """
        if not rows.flags & LOGITS or rows.flags & (LOSS | COUNT | RAND) or not holds_tokens(tokens) or not tokens.flags & VAL:
            return
        if "gate" in kinds(rows):
            return  # changed at tokens on the way, which is said there
        context = tokens_in(rows.keys)
        known = frozenset(
            ("t", at, o) for at, offsets in tokens_in(tokens.keys).items() for o in offsets if at in context and max(context[at]) >= o
        )
        if known:
            e = self.event("GATE", node, out, keys=known, anchored=False, edit=TOLD, doubt=True)
            out.keys = out.keys | {("gate", e.id)}

    def gate_value(self: Any, out: V, test: V, proposed: frozenset, node: Any) -> None:
        """``where(test, a, b)``: the same for whole arrays; places are compared when the score is known."""
        tokens = frozenset() if guards_division(test) else gate_tokens(test)
        if tokens and any(k[0] in PROPOSALS for k in proposed):
            e = self.event("GATE", node, out, keys=tokens, anchored=False)
            out.keys = frozenset(k for k in out.keys if k not in tokens and k[0] != "l") | {("gate", e.id)}

    def gate_agreement(self: Any, out: V, test: V, a: V, b: V, node: Any) -> None:
        """``where(hint == token, hint, nothing)``: the proposal stands only where it is right."""
        compared = test.rest.data if test.rest is not None and test.rest.kind == "seq" else None
        if not compared or len(compared) != 2:
            return
        for hint, token in (tuple(compared), tuple(reversed(compared))):
            proposed = not PROPOSALS.isdisjoint(kinds(hint))
            tokens = frozenset(k for k in token.keys if k[0] == "t")
            if proposed and tokens and any(x is hint for x in (a, b)):
                e = self.event("GATE", node, out, keys=tokens, anchored=False)
                out.keys = frozenset(k for k in out.keys if k not in tokens) | {("gate", e.id)}
                return

    def note_split(self: Any, s: ir.If, test: V, before: dict[str, V], begun: int) -> None:
        """``if count > 0: p = mix(p, q)``: what a table says decides whether it is mixed in.

        Seen in the values that the branch left behind, and in the scores that its two ways committed.
        """
        assigned = self.interest.assigned(s.body)[0] | self.interest.assigned(s.orelse)[0]
        for name, now in list(self.scope.names.items()):
            if name in assigned and spends(name, s.body, s.orelse, before.get(name), now) and self.asks_for(test, now):
                self.scope.names[name] = self.split(now, test, s)
                continue
            hit = test.const == HIT and plain(before.get(name, test)) and self.remade(before[name], now)
            if not hit and not self.mixed_in(before.get(name), now):
                continue
            ways = [way for way in (s.body, s.orelse) if name in self.interest.assigned(way)[0] | self.interest.assigned(way)[1]]
            others = [way for way in (s.body, s.orelse) if way not in ways] or ways
            if not all(takes_room(way) for way in others) and not any(adds_to(name, way, before[name]) for way in ways):
                self.scope.names[name] = self.raised(now, s) if hit else self.split(now, test, s)
        scores = [e for e in self.trace.events[begun:] if e.kind == "SCORE" and e.loops == tuple(self.loops)]
        with_table = [e for e in scores if any(k[0] == "lookup" for k in e.detail["keys"])]
        ways = [[e for e in with_table if within(e.line, way)] for way in (s.body, s.orelse)]
        if s.orelse and bool(ways[0]) != bool(ways[1]) and not takes_room(s.orelse if ways[0] else s.body):
            for e in with_table:
                e.detail["keys"] = self.split(V("val"), test, s).keys | e.detail["keys"]

    def note_split_off(self: Any, s: ir.If, test: V, before: dict[str, V], left: list[dict[str, V]]) -> None:
        """The same where one way leaves the turn of a loop over orders, with the mixture (``break``) or without it (``continue``)."""
        for changed in left:
            for name, now in changed.items():
                taken = self.mixed_in(before.get(name), now) and not adds_to(name, s.body, before[name])
                if taken or (spends(name, s.body, s.orelse, before.get(name), now) and self.asks_for(test, now)):
                    changed[name] = self.split(now, test, s)
        if len(s.body) == 1 and isinstance(s.body[0], ir.Jump) and not s.orelse and self.early:
            self.passed.append((test, s, before))

    def note_passed_over(self: Any, tests: list[tuple[V, ir.If, dict[str, V]]]) -> None:
        """At the end of a turn: what was mixed in after a test that left it (``if token not in row: continue``)."""
        names = self.scope.names
        for test, s, before in tests:
            for name, now in list(names.items()):
                if self.mixed_in(before.get(name), now):
                    names[name] = self.split(now, test, s)

    def mixed_in(self: Any, old: V | None, now: V) -> bool:
        """Is it a probability of this turn's token that had nothing of a table in it before."""
        return mixed(now) and old is not None and not mixed(old) and bool(self.remade(old, now))

    def remade(self: Any, old: V, now: V) -> bool:
        """Does a probability or loss of this turn's token have another value now."""
        if old is now or not now.kind == old.kind == "val" or not now.flags & old.flags & LOSS or old.scores:
            return False
        turns = dict(self.loops)
        return all(turns.get(loop, turn) == turn for chosen, _, _ in old.atoms for loop, turn in chosen)

    def either(self: Any, e: ir.IfExp, test: V, a: V, b: V) -> V:
        """``mix(p, q) if count > 0 else p``: an if statement in one expression."""
        out = join(a, b)
        if test.const == HIT and b.kind == "const" and not b.const and out.kind == "val":
            out = clone(out)
            out.const, out.keys = HIT, out.keys | test.keys
        if test.const == HIT and plain(b) and a.flags & LOSS and out.kind == "val" and isinstance(e.orelse, (ir.Name, ir.Sub)):
            return self.raised(out, e)
        if test.flags & COUNT and a.kind == b.kind == out.kind == "val" and any(
            spent(way, v) and self.asks_for(test, v) and not spent(x, other) and other.flags & (COUNT | LOSS) for way, v, x, other in ((e.body, a, e.orelse, b), (e.orelse, b, e.body, a))
        ):
            return self.split(out, test, e)
        if test.flags & COUNT and (a.flags & b.flags & LOSS) and a.kind == b.kind == out.kind == "val" and mixed(a) != mixed(b):
            if isinstance(e.orelse if mixed(a) else e.body, (ir.Name, ir.Sub)):
                out = self.split(out, test, e)
        return out

    def split(self: Any, value: V, test: V, node: Any) -> V:
        e = self.event("SPLIT", node, value, keys=test.keys)
        out = clone(value)
        out.keys = value.keys | {("split", e.id)}
        return out

    def raised(self: Any, value: V, node: Any) -> V:
        """``p + share * (1 - p) * (hint == token)``: where the hint is right, and lowered nowhere."""
        e = self.event("UNNORMALISED", node, value, keys=value.keys, hit=True)
        out = clone(value)
        out.keys = value.keys | {("raised", e.id)}
        return out

    def note_made_up(self: Any, op: str, a: V, b: V, out: V) -> None:
        """What was raised at a hint and then scaled or lowered may sum to one again."""
        v, other = (a, b) if "raised" in kinds(a) else (b, a)
        logs = ("logp",) in v.keys
        if (
            (op in ("*", "/") and not logs)
            or (op == "-" and not logs and v is a and other.flags & PROB)
            or (op in ("+", "-") and logs and (other.kind == "const" or (("logp",) in other.keys and not other.flags & LOSS)))
        ):
            out.keys = frozenset(k for k in out.keys if k[0] != "raised")

    def gate_event(self: Any, value: V, tokens: frozenset, node: Any) -> V:
        e = self.event("GATE", node, value, keys=tokens, anchored=True)
        out = clone(value)
        out.keys = value.keys | {("gate", e.id)}
        out.flags &= ~META
        return out

    def check_divisor(self: Any, a: V, b: V, out: V, node: Any) -> None:
        """A count of the true token, taken from a row over all candidates, divided by another table's count."""
        below = {k[1] for k in b.keys if k[0] == "lookup"}
        if not below:
            return
        reads = {e.id: e for e in self.trace.events if e.kind == "LOOKUP"}
        peaks = {k[1] for k in b.keys if k[0] == "peak"} - {k[1] for k in b.keys if k[0] == "total"}
        for k in a.keys:
            picked = reads.get(k[1]) if k[0] == "lookup" else None
            if picked is None:
                continue
            rows = {m[1] for m in picked.detail.get("made", ()) if m[0] == "lookup" and m[1] in reads}
            over_all = [r for r in rows if any(x[0] == "candidates" for x in reads[r].detail.get("keys", ()))]
            if (over_all and not below & rows) or peaks & rows:
                e = self.event("DIVISOR", node, out, keys=a.keys | b.keys)
                out.keys = out.keys | {("divisor", e.id)}
                return

    def note_counts(self: Any, op: str, a: V, b: V, out: V, node: Any) -> None:
        """Are counts divided as they were read."""
        if op in "+-*":
            out.keys = out.keys | {RECKONED}
        elif op == "/" and a.flags & b.flags & COUNT and RECKONED not in out.keys and not out.flags & (LOSS | LOGITS) and isinstance(node, ir.BinOp):
            out.keys = out.keys | {("all", node.line, node.col, k[1]) for k in a.keys - b.keys if k[0] == "lookup" and mixed(b)}

    def asks_for(self: Any, test: V, v: V) -> bool:
        """Does the test read what is divided: the entry of the token, and not the row of a context."""
        asked = {k[1] for k in test.keys if k[0] == "lookup"}
        given = {k[3] for k in v.keys if k[0] == "all"} if asked else set()
        if not given:
            return False
        at = {e.id: e.detail["keys"] for e in self.trace.events if e.id in asked | given and e.kind == "LOOKUP"}
        return any(at.get(x) == at[y] for x in asked for y in given if y in at)

    def note_size(self: Any, name: str, rows: V, out: V) -> None:
        """The largest or the mean count of a row, and its sum."""
        size = "peak" if name in ("max", "amax") else "mean" if name == "mean" else "total" if name == "sum" else None
        if size is not None and rows.flags & COUNT and not rows.flags & (LOSS | LOGITS | PROB):
            out.keys = out.keys | {(size, k[1]) for k in rows.keys if k[0] == "lookup"}

    def check_scale(self: Any, a: V, b: V, out: V, node: Any) -> None:
        """``(rows + beta * p) / (rows.amax(1) + beta)``: rows with a prior over their largest count, and not over their sum."""
        sizes = {size: {k[1] for k in b.keys if k[0] == size} for size in ("peak", "mean", "total")}
        weighed = {k[1] for k in a.keys if k[0] in ("peak", "mean", "total")}
        rows = {k[1] for k in a.keys if k[0] == "lookup"} - weighed  # else the size of the row is a weight of the mixture
        if (sizes["peak"] | sizes["mean"]) & rows - sizes["total"]:
            e = self.event("UNNORMALISED", node, out, keys=a.keys | b.keys, scale=True)
            out.keys = out.keys | {("unnorm", e.id)}

    def check_tilt(self: Any, a: V, b: V, out: V, node: Any) -> None:
        """``log p(token) + w [token = hint]``: a probability raised, and so far nothing taken off the others."""
        for own, raised in ((a, b), (b, a)):
            if AGREE not in raised.keys or raised.flags & LOSS or AGREE in own.keys or NORM in own.keys | raised.keys or REST in raised.keys:
                continue
            if own.flags & LOSS and ("exp",) not in own.keys and (("logp",) in own.keys or not own.flags & PROB):
                e = self.event("UNNORMALISED", node, out, keys=raised.keys, tilt=True)
                out.keys = out.keys | {("unnorm", e.id)}
                return

    def note_added(self: Any, op: str, a: V, b: V, out: V, node: Any) -> None:
        """``p + 0.1 * q``: what a cache says is added to probabilities from which no room was taken for it."""
        out.keys = without(out.keys, {WHOLE})
        if op != "+" or (WHOLE in a.keys) == (WHOLE in b.keys):
            return
        p, q = (a, b) if WHOLE in a.keys else (b, a)
        if ("logp",) in p.keys:
            return  # ``log p + log(1 - share)``
        if q.const == HIT and q.flags & PROB and plain(p):
            out.keys = self.raised(out, node).keys
            return
        if not p.flags & PROB or not q.flags & (VAL | COUNT) or q.flags & (PROB | LOSS | META | BYTES):
            return
        if q.flags & COUNT or mixed(q) or AGREE in q.keys or not q.flags & (LOGITS | MASK):
            e = self.event("UNNORMALISED", node, out, keys=q.keys)
            out.keys = out.keys | {("unnorm", e.id)}

    def note_divided_again(self: Any, a: V) -> frozenset:
        """Marks of ``(p + 0.3 * q) / 1.3``, ``/ (1 + share)``: what was added to probabilities is made room for by the division.

        Not so a raised logarithm, nor counts that were divided by the wrong number already.
        """
        if ("logp",) in a.keys or not a.flags & PROB:
            return EMPTY
        raised = {k for k in a.keys if k[0] == "unnorm"}
        asked = {k[1] for k in raised}
        other = {e.id for e in self.trace.events if e.id in asked and any(e.detail.get(way) for way in ("scale", "tilt", "flat", "hit"))}
        return frozenset(k for k in raised if k[1] not in other)

    def note_flat(self: Any, parts: list[V], out: V, node: Any) -> None:
        """``stack([nll(token), …, entropy])``: beside what each expert gives the token, a figure that knows no token."""
        scores = [p for p in parts if p.flags & LOSS and p.flags & VAL]
        if not scores or any(p.flags & LOGITS for p in scores):
            return  # weights made of the model's output are in the stack already: the entry may be one of those
        for p in parts:
            if p.flags & (LOGITS | PROB) and not p.flags & (LOSS | COUNT | TGT | MASK) and not mixed(p):
                e = self.event("UNNORMALISED", node, p, keys=p.keys, flat=True)
                out.keys = out.keys | {("flat", e.id)}
                return

    def normalise(self: Any, name: str, values: list[V]) -> V:
        """A softmax, log-sum-exp, exponential or logarithm of ``values``."""
        out = derive(values)
        if name in ("softmax", "log_softmax") and self.of_earlier_turns(out):
            out.flags &= ~(LOSS | BPB)  # how experts did so far is how much they count, and no score
            out.atoms, out.scores = EMPTY, EMPTY
        out = normalised(name, out)
        if name in ("log", "log2", "logsumexp"):
            out.keys = self.unbent(out.keys)
        if name in ("exp", "exp2"):
            # `m + log(exp(a - m) + exp(b - m))` with m the larger of the two: a sum, and no choice.
            self.trace.stabilisers |= {k[1] for v in values[:1] for k in v.keys if k[0] == "less"}
        elif name == "logsumexp" and out.flags & LOSS and "flat" in kinds(out):
            # Over a stack that `note_flat` found, it mixes the figure in as if it were the token's probability.
            out.keys = frozenset(("unnorm", k[1]) if k[0] == "flat" else k for k in out.keys)
        return out

    def note_agreement(self: Any, a: V, b: V, out: V) -> None:
        """``hint == token`` for a proposed and a real token."""
        for hint, token in ((a, b), (b, a)):
            if not PROPOSALS.isdisjoint(kinds(hint)) and token.flags & VAL and PROPOSALS.isdisjoint(kinds(token)):
                out.keys = out.keys | {AGREE}
                out.const = HIT
                return

    def threshold(self: Any, op: str, a: V, b: V) -> bool | None:
        """A quotient of counts against a number; remembers, per call or gate, whether it can pass."""
        ratio, bound, flipped = (a, b, False) if a.flags & RATIO else (b, a, True)
        known = bound.kind == "const" and isinstance(bound.const, (int, float)) and not isinstance(bound.const, bool)
        above = (op in (">", ">=") and not flipped) or (op in ("<", "<=") and flipped)
        shut = known and above and float(bound.const) > 1.0
        for k in ratio.keys:
            if k[0] in ("leak", "gate", "hint"):
                if not shut:
                    self.trace.thresholds[k] = None
                else:
                    self.trace.thresholds.setdefault(k, bound.knobs or frozenset([("threshold", str(bound.const))]))
        return False if shut else None
