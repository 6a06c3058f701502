"""Expressions: names, texts, containers, comprehensions, choices; operators and attributes have modules of their own."""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.arithmetic import Arithmetic
from audit.trace.attributes import Attributes
from audit.trace.bests import alone, best_of
from audit.trace.choices import picks
from audit.trace.gates import HIT, HIT_SHARE
from audit.trace.headline import scores_beside
from audit.trace.positions import at_each, ends
from audit.trace.strides import note_later_start
from audit.trace.subscripts import Subscripts
from audit.trace.values import (
    BPB,
    EMPTY,
    LOGITS,
    LOSS,
    MASK,
    PROB,
    TGT,
    VAL,
    V,
    clone,
    const,
    derive,
    join,
    mapping,
    seq,
    untouched,
)  # fmt: skip
from audit.trace.walks import marked
from audit.trace.weights import rows_of


class Expressions(Attributes, Arithmetic, Subscripts):
    """Mixed into the machine; see `audit.trace.machine`."""

    def ev(self: Any, e: ir.Expr) -> V:
        self.steps += 1
        if self.steps >= self.look_at:
            self.look()
        kind = type(e)
        if kind is ir.Name:
            # The way of nearly half of all expressions: a name of this scope.
            scope = self.scope
            if not scope.redirect and (v := scope.names.get(e.id)) is not None:  # type: ignore[attr-defined]
                return v
        return self.on_expr[kind](e)

    def x_const(self: Any, e: ir.Const) -> V:
        v = V("const", e.value)
        if type(e.value) is str:
            v.flags = self.text_flags(e.value)
        return v

    def x_name(self: Any, e: ir.Name) -> V:
        v = self.scope.get(e.id)
        if v is not None:
            return v
        return V("lib", data="builtins." + e.id)

    def x_starred(self: Any, e: ir.Starred) -> V:
        return self.ev(e.value)

    def x_await(self: Any, e: ir.Await) -> V:
        return self.ev(e.value)

    def x_yield(self: Any, e: ir.Yield) -> V:
        v = self.ev(e.value) if e.value is not None else const(None)
        if self.around and self.body_at_yield(v):
            return const(None)
        if self.yields:
            self.yielded[self.frames[-1]] = tuple(self.loops), tuple(self.stack), e.line
            if v.flags & LOSS and not v.scores:
                v = self.commit_score(v, e, "yielded")  # who asked for it has it before the body goes on
            if e.is_from:
                self.yields[-1].extend(self.turns(v, self.loops[-1][0] if self.loops else 0)[:2])
            else:
                self.yields[-1].append(v)
        return V("val")

    def x_named(self: Any, e: ir.NamedExpr) -> V:
        v = self.ev(e.value)
        self.scope.set(e.target.id, v)
        return v

    def x_lambda(self: Any, e: ir.Lambda) -> V:
        return self.make_function(e, None)

    def x_fstring(self: Any, e: ir.FString) -> V:
        parts = [self.ev(x) for x in e.values]
        if all(p.kind == "const" for p in parts):
            out = const("".join(str(p.const) for p in parts))
            for p in parts:
                out.knobs |= p.knobs
                out.flags |= p.flags
                out.deps |= p.deps
            if not out.flags:
                out.flags = self.text_flags(out.const)
            return out
        out = derive(parts)
        if best := best_of(out.keys):
            out.keys = out.keys - best | alone(parts)
        if self.absent and not out.scores:
            self.note_foreign_figure(parts)
        out.const = ("text", leading_text(parts), words_in(e, parts), beside_the_figure(parts))
        return out

    def x_collection(self: Any, e: ir.Collection) -> V:
        items: list[V] = []
        rest: V | None = None
        if not e.elts:
            return self.empty()
        lists: list[V] = []
        for x in e.elts:
            if isinstance(x, ir.Starred):
                inner = self.ev(x.value)
                lists.append(inner)
                if inner.kind == "seq" and inner.rest is None and inner.data is not None and rest is None:
                    items.extend(inner.data)
                else:
                    part = self.element(inner)
                    rest = part if rest is None else join(rest, part)
            else:
                items.append(self.ev(x))
        if lists:
            items = self.put_beside([*items, *lists], e)[: len(items)]  # ``[*losses, new]``
        return seq(items, rest)

    def x_dict(self: Any, e: ir.Dict) -> V:
        items: dict = {}
        rest: V | None = None
        for k, x in e.items:
            v = self.ev(x)
            if k is None:
                if v.kind == "dict":
                    items.update(v.data or {})
                    rest = v.rest if rest is None else rest
                else:
                    rest = v if rest is None else join(rest, v)
                continue
            kv = self.ev(k)
            if kv.kind == "const" and kv.const.__hash__ is not None:
                items[kv.const] = v
            else:
                rest = v if rest is None else join(rest, v)
        return mapping(items, rest)

    def x_comp(self: Any, e: ir.Comp) -> V:
        outer = self.scope
        inner = type(outer)(outer, outer.globals_, outer.function, outer.path)
        self.scope = inner
        opened: list[int] = []
        try:
            collected = self.comp_turns(e, 0, opened)
        finally:
            self.scope = outer
        if e.kind == "dict":
            out = mapping({})
            for k, v, exact in collected:
                if exact and k is not None and k.kind == "const" and getattr(k.const, "__hash__", None):
                    out.data[k.const] = v
                else:
                    out.rest = v if out.rest is None else join(out.rest, v)
            return self.without_buffers(e, out)
        exact = all(x for _, _, x in collected)
        if exact:
            return seq([v for _, v, _ in collected])
        rest: V | None = None
        for _, v, _ in collected:
            rest = v if rest is None else join(rest, v)
        if rest is not None:
            rest = at_each(rest, self.run_end(e))
        # Tensors that nothing was put into yet stay themselves: an optimizer that gets the list changes each of them.
        fresh = [v for _, v, _ in collected if untouched(v)]
        return seq(fresh if 1 < len(fresh) == len(collected) else [], rest)

    def run_end(self: Any, e: ir.Comp) -> frozenset:
        """``[str(z) for z in tokens[a:b]]``: each token of a run, one after the other; where the last of them stands."""
        if len(e.generators) != 1 or e.generators[0].ifs or e.kind == "dict" or isinstance(e.elt, (ir.Collection, ir.Dict)):
            return EMPTY
        walked = e.generators[0].iter
        if isinstance(walked, ir.Call) and isinstance(walked.func, ir.Name) and walked.func.id in ("enumerate", "reversed") and walked.args:
            walked = walked.args[0]
        if not isinstance(walked, ir.Name) and not (isinstance(walked, ir.Sub) and isinstance(walked.index, ir.Slice)):
            return EMPTY
        return ends(self.ev(walked))

    def comp_turns(self: Any, e: ir.Comp, depth: int, opened: list[int]) -> list[tuple[V | None, V, bool]]:
        from audit.trace.loops import MAX_KNOWN, strip_loop

        if depth == len(e.generators):
            k = self.ev(e.key) if e.key is not None else None
            return [(k, self.ev(e.elt), True)]
        g = e.generators[depth]
        it = self.ev(g.iter)
        exact = False
        loop = self.next_loop
        self.next_loop += 1
        if it.kind == "seq" and it.rest is None and it.data is not None and len(it.data) <= MAX_KNOWN:
            items, exact = list(it.data), True
        elif it.kind == "dict" and it.rest is None and it.data is not None and len(it.data) <= MAX_KNOWN:
            items, exact = [const(k) for k in it.data], True
        else:
            turns = self.turns(it, loop)
            items = [strip_loop(turns[-1], loop)] if turns else []
            if not turns:
                return []
        out: list[tuple[V | None, V, bool]] = []
        for x in items:
            self.bind(g.target, x, e)
            skip = False
            tests: list[frozenset] = []
            for cond in g.ifs:
                v = self.ev(cond)
                tests.append(self.tests_places(v))
                t = self.truth(v)
                if t is False and not (self.dormant and v.knobs):
                    skip = True
                elif t is None:
                    exact = False
                    filtered = self.note_filtered(x, v, e)
                    if filtered is not x:
                        x = filtered
                        self.bind(g.target, x, e)
                    if (picked := self.selects(cond)) is not None:
                        self.scope.names[picked[0]] = picked[1]
            if skip:
                continue
            picked = self.picked_by_place(tests)
            for k, v, x_ in self.comp_turns(e, depth + 1, opened):
                out.append((k, marked(v, picked) if picked else v, x_ and exact))
        return out

    def x_ifexp(self: Any, e: ir.IfExp) -> V:
        test = self.ev(e.test)
        t = self.truth(test)
        if t is None:
            a, b = self.ev(e.body), self.ev(e.orelse)
            if a.kind == "const" and b.kind == "const" and a.const != b.const:
                out = derive([a, b, test])
                out.flags &= ~(VAL | TGT | MASK | LOGITS | PROB) | (a.flags | b.flags)
                out.const = HIT if test.const == HIT and not b.const else None
                if out.const == HIT and a.const not in (1, True):
                    out.keys = out.keys | {HIT_SHARE}
                return note_later_start(e, test, a, b, self.by_side(out, test, e))
            out = note_later_start(e, test, a, b, self.either(e, test, a, b))
            if rows_of(a) or rows_of(b):
                self.weigh(a if rows_of(a) else b, test, out, e)
            if a is not b and self.uncounted(a) and self.uncounted(b) and picks(test, a) and picks(test, b):
                out = self.picked(out, e)
            elif a is not b:
                out = self.by_side(out, test, e)
            return out
        if self.dormant and test.knobs:
            a, b = self.ev(e.body), self.ev(e.orelse)
            chosen = a if t else b
            other = b if t else a
            if chosen.kind == "const":
                out = clone(chosen)
                out.knobs = chosen.knobs | test.knobs
                if other.kind != "const":
                    return join(other, out) if chosen.const is None else out
                return out
            return join(chosen, other)
        live, dead = (e.body, e.orelse) if t else (e.orelse, e.body)
        if not test.knobs:
            self.note_closed([dead], e.line)
        self.note_opened([live])
        v = self.known_nothing(dead, self.ev(live))
        if test.knobs and v.kind in ("const", "val"):
            out = clone(v) if v.kind == "const" else v
            out.knobs = v.knobs | test.knobs
            return self.chosen_by(self.gate_of(e.test, test), out, self.data_in(dead, self.scope.names), fresh=False)
        return v


def leading_text(parts: list[V]) -> str:
    """What a text certainly begins with: its constant parts up to the first that is not known."""
    found = ""
    for p in parts:
        if p.kind == "const":
            found += str(p.const)
        elif isinstance(p.const, tuple) and p.const[:1] == ("text",):
            return found + p.const[1]
        else:
            break
    return found


def beside_the_figure(parts: list[V]) -> frozenset:
    """The scores of figures that a text tells beside the one that bears the contest's name (`scores_beside`)."""
    before = [parts[i - 1] if i else None for i in range(len(parts))]
    return scores_beside(
        (str(b.const) if b is not None and b.kind == "const" else "", p.scores) for b, p in zip(before, parts, strict=True) if p.scores
    )  # fmt: skip


def words_in(e: ir.FString, parts: list[V]) -> str | None:
    """All that is written in a text around the figures that are filled in; None where something else is filled in."""
    said = ""
    for x, p in zip(e.values, parts, strict=True):
        if p.kind == "const":
            said += f" {p.const}"
        elif not p.flags & (LOSS | BPB) or isinstance(x, ir.FString):
            return None
    return said
