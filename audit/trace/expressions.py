"""Expressions: constants are folded with the knobs they came from; everything else moves provenance."""

from __future__ import annotations

import operator
from typing import Any

from audit import ir
from audit.trace.positions import EVENTS, add_places, reach_origin, read_tokens, written_at
from audit.trace.values import (
    ART,
    BPB,
    BYTES,
    COUNT,
    EMPTY,
    FILE,
    GRAD,
    LOGITS,
    LOSS,
    MASK,
    MATCH,
    META,
    ORDER,
    PARAM,
    RAND,
    RATIO,
    TGT,
    TIME,
    TRAIN,
    VAL,
    ClassV,
    V,
    clone,
    const,
    derive,
    join,
    mapping,
    restrict,
    seq,
    summary,
    with_deps,
)  # fmt: skip

FOLD = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod, "<<": operator.lshift, ">>": operator.rshift, "&": operator.and_, "|": operator.or_,
    "^": operator.xor, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
LN2 = 0.6931471805599453
SHAPE_ATTRS = frozenset(["shape", "size", "ndim", "dtype", "device", "itemsize", "nbytes"])
TRANSPARENT_ATTRS = frozenset(["data", "T", "module", "real", "_orig_mod", "mT", "detach"])


class Expressions:
    """Mixed into the machine; see `audit.trace.machine`."""

    def ev(self: Any, e: ir.Expr) -> V:
        self.tick()
        return self.on_expr[type(e)](e)

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
        if self.yields:
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
        return out

    def x_collection(self: Any, e: ir.Collection) -> V:
        items: list[V] = []
        rest: V | None = None
        for x in e.elts:
            if isinstance(x, ir.Starred):
                inner = self.ev(x.value)
                if inner.kind == "seq" and inner.rest is None and inner.data is not None and rest is None:
                    items.extend(inner.data)
                else:
                    part = self.element(inner)
                    rest = part if rest is None else join(rest, part)
            else:
                items.append(self.ev(x))
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
            return out
        exact = all(x for _, _, x in collected)
        if exact:
            return seq([v for _, v, _ in collected])
        rest: V | None = None
        for _, v, _ in collected:
            rest = v if rest is None else join(rest, v)
        out = seq([], rest)
        return out

    def comp_turns(self: Any, e: ir.Comp, depth: int, opened: list[int]) -> list[tuple[V | None, V, bool]]:
        from audit.trace.statements import MAX_KNOWN, strip_loop

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
            for cond in g.ifs:
                v = self.ev(cond)
                t = self.truth(v)
                if t is False and not (self.dormant and v.knobs):
                    skip = True
                elif t is None:
                    exact = False
            if skip:
                continue
            out.extend((k, v, x_ and exact) for k, v, x_ in self.comp_turns(e, depth + 1, opened))
        return out

    # ------------------------------------------------------------------ operators
    def x_binop(self: Any, e: ir.BinOp) -> V:
        return self.binary(e.op, self.ev(e.left), self.ev(e.right), e)

    def binary(self: Any, op: str, a: V, b: V, node: Any) -> V:
        if a.kind == "const" and b.kind == "const":
            out = self.fold(op, a, b)
            if out is not None:
                if op in "+-" and (a.pos is not None or b.pos is not None):
                    add_places(op, a, b, out)
                return out
        if a.kind == "lib" and b.kind == "lib":
            return V("val")
        if op == "/" and a.data is not None and a.kind in ("bound", "obj", "lib"):
            return derive([b])
        if op == "+" and a.kind == "seq" and b.kind == "seq":
            if a.rest is None and b.rest is None:
                return seq([*(a.data or []), *(b.data or [])])
            return seq(list(a.data or []), join(self.element(a), self.element(b)))
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
            return derive([a, summary(b)])
        out = derive([a, b])
        out.flags &= ~RATIO
        if (op == "-" and ("lse",) in b.keys) or (op == "/" and any(k[0] == "unnorm" for k in b.keys)):
            out.keys = frozenset(k for k in out.keys if k[0] not in ("unnorm", "lse"))
        if op == "/" and a.flags & LOSS and b.flags & COUNT:
            self.check_divisor(a, b, out, node)
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
        flags = out.flags
        if op in "+-":
            add_places(op, a, b, out)
        if flags & LOSS:
            if a.mask is not None or b.mask is not None:
                lo, hi = a.mask if a.mask is not None else b.mask  # type: ignore[misc]
                out.atoms = frozenset((d, lo, hi) for d, _, _ in out.atoms)
                out.mask = None
            if op in "/*" and self.is_ln2(a, b, op):
                out = self.to_bits(out, node)
            elif op == "/" and a.flags & LOSS and (b.flags & BYTES or (b.flags & VAL and not b.flags & META)) and not b.flags & (LOSS | COUNT) and b.keys:
                # A token's loss over a number that belongs to the token: its share per byte.
                e = self.event("SPREAD", node, out, keys=b.keys)
                out.keys = out.keys | {("spread", e.id)}
        elif op == "*" and self.is_ln2(a, b, op):
            out.const = "ln2"  # a divisor that converts to bits together with what it multiplies
        if op in ("==", "!=", "<", ">"):
            out.flags &= ~LOSS
        return out

    def is_ln2(self: Any, a: V, b: V, op: str) -> bool:
        for v in (a, b):
            if v.kind == "const" and isinstance(v.const, (int, float)) and not isinstance(v.const, bool):
                x = abs(float(v.const))
                if abs(x - LN2) < 2e-3 or abs(x - 1 / LN2) < 2e-3:
                    return True
            if v.const == "ln2":
                return True
        return False

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
            return derive([v])
        if v.kind == "const" and isinstance(v.const, (int, float)):
            out = clone(v)
            try:
                out.const = -v.const if e.op == "-" else ~v.const if e.op == "~" else v.const  # type: ignore[operator]
            except TypeError:
                return derive([v])
            return out
        out = derive([v])
        out.mask = v.mask
        return out

    def x_boolop(self: Any, e: ir.BoolOp) -> V:
        stop = e.op == "or"
        seen: list[V] = []
        unknown = False
        for x in e.values:
            v = self.ev(x)
            t = self.truth(v)
            if t is None:
                unknown = True
            elif t == stop:
                if not unknown:
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
            return out
        return derive(seen)

    def x_compare(self: Any, e: ir.Compare) -> V:
        left = self.ev(e.left)
        values = [left]
        result: bool | None = True
        for op, right_e in zip(e.ops, e.comparators, strict=True):
            right = self.ev(right_e)
            values.append(right)
            one = self.compare(op, left, right)
            if one is False:
                result = False
                break
            if one is None:
                result = None
            left = right
        if result is None:
            out = derive([summary(v) if v.kind in ("seq", "dict") else v for v in values])
            if len(values) == 2 and all(v.flags & (LOSS | COUNT) for v in values) and any(v.flags & LOSS for v in values):
                out.keys = out.keys | {("by loss",)}
            out.flags = out.flags & ~(LOSS | BPB | META | MATCH) | MASK
            if len(values) == 2:
                self.note_comparison(e, values[0], values[1], out)
                out.rest = seq([values[0], values[1]])
            return out
        out = const(result)
        for v in values:
            out.knobs |= v.knobs
            if v.deps:
                out.deps |= v.deps
        return out

    def note_comparison(self: Any, e: ir.Compare, a: V, b: V, out: V) -> None:
        """A clock against the contest's limit; the stream's tokens against a file's content."""
        if e.ops[0] in ("==", "!="):
            x, y = (a, b) if a.flags & (FILE | ART) else (b, a)
            if x.flags & (FILE | ART) and y.flags & VAL and not y.flags & (FILE | ART) and not (x.flags | y.flags) & META:
                out.flags |= MATCH
        elif (a.flags | b.flags) & TIME and e.ops[0] in ("<", "<=", ">", ">="):
            clock, limit = (a, b) if a.flags & TIME else (b, a)
            if limit.kind == "const" and isinstance(limit.const, (int, float)) and not isinstance(limit.const, bool):
                seconds = float(limit.const) / (1000.0 if limit.const > 10_000 else 1.0)
                if 200.0 <= seconds <= 605.0:
                    self.trace.time_limits.append((self.next_id, seconds < 599.95 or bool(clock.knobs)))

    def compare(self: Any, op: str, a: V, b: V) -> bool | None:
        if op in ("is", "is not", "==", "!=") and b.kind == "const" and b.const is None and a.kind != "const":
            if a.kind in ("func", "class", "obj", "opt", "seq", "dict", "bound", "partial", "lib", "alt") or a.flags:
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
            elif b.kind == "lib" and b.data == "os.environ" and a.kind == "const":
                inside = a.const in ("RANK", "WORLD_SIZE", "LOCAL_RANK") or self.env_present(a.const)
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

    def x_ifexp(self: Any, e: ir.IfExp) -> V:
        test = self.ev(e.test)
        t = self.truth(test)
        if t is None:
            a, b = self.ev(e.body), self.ev(e.orelse)
            if a.kind == "const" and b.kind == "const" and a.const != b.const:
                out = derive([a, b, test])
                out.flags &= ~(VAL | TGT | MASK) | (a.flags | b.flags)
                return out
            return join(a, b)
        if self.dormant and test.knobs:
            a, b = self.ev(e.body), self.ev(e.orelse)
            chosen = a if t else b
            other = b if t else a
            if chosen.kind == "const":
                out = clone(chosen)
                out.knobs = chosen.knobs | test.knobs
                if other.kind != "const":
                    return join(other, chosen) if chosen.const is None else chosen
                return out
            return join(chosen, other)
        v = self.ev(e.body if t else e.orelse)
        if test.knobs and v.kind in ("const", "val"):
            out = clone(v) if v.kind == "const" else v
            out.knobs = v.knobs | test.knobs
            return out
        return v

    # ------------------------------------------------------------------ attributes
    def x_attr(self: Any, e: ir.Attr) -> V:
        return self.get_attr(self.ev(e.value), e.attr, e)

    def get_attr(self: Any, v: V, name: str, node: Any) -> V:
        k = v.kind
        if k == "lib":
            return self.lib_attr(v, name)
        if k == "obj":
            inst = v.data
            found = inst.attrs.get(name)
            if found is not None:
                return found
            cls = inst.cls
            if isinstance(cls, ClassV):
                if name == "__class__":
                    return V("class", data=cls)
                found = cls.find(name)
                if found is not None:
                    if found.kind == "func" and found.data.owner is not None:
                        if found.const == "property":
                            return self.call_closure(found, [v], {}, node)
                        return V("bound", data=(v, name))
                    return found
                if cls.is_model or cls.is_optimizer:
                    if name in ("module", "_orig_mod", "data"):
                        return v
                    if cls.is_model and name not in MODEL_METHODS:
                        part = V("bound", data=(v, name))
                        part.models = frozenset([inst.serial])
                        part.taint = inst.state.taint
                        part.flags = PARAM
                        return part
            return V("bound", data=(v, name))
        if k == "class":
            found = v.data.find(name)
            if found is not None:
                if found.kind == "func" and found.const == "classmethod":
                    return V("bound", data=(v, name))
                return found
            return V("bound", data=(v, name))
        if k == "alt":
            parts = [self.get_attr(x, name, node) for x in v.data]
            out = parts[0]
            for p in parts[1:]:
                out = join(out, p)
            return out
        if k == "opt":
            if name in ("param_groups", "state", "defaults"):
                return V("val")
            return V("bound", data=(v, name))
        if k == "val" or k == "const" or k == "bound":
            if name in SHAPE_ATTRS and k != "const" and not (k == "bound" and name == "size"):
                if name == "size":
                    # numpy's attribute or torch's method
                    out = V("bound", data=(v, name))
                    out.deps, out.flags, out.knobs = v.deps, META, v.knobs
                    return out
                out = V("val")
                out.deps, out.flags, out.knobs = v.deps, META, v.knobs
                out.shape0 = v.shape0
                return out
            if name == "grad":
                out = derive([v, *self.pending])
                out.flags = (out.flags | GRAD) & ~(LOSS | LOGITS)
                return out
            if name in TRANSPARENT_ATTRS and name != "detach":
                return v
            out = V("bound", data=(v, name))
            if k != "const":
                out.flags, out.atoms, out.deps, out.taint = v.flags, v.atoms, v.deps, v.taint
                out.scores, out.models, out.knobs, out.keys = v.scores, v.models, v.knobs, v.keys
            return out
        return V("bound", data=(v, name))

    def set_attr(self: Any, v: V, name: str, value: V, node: Any) -> None:
        if v.kind == "obj":
            v.data.attrs[name] = value
            if isinstance(v.data.cls, ClassV) and v.data.cls.is_model and value.flags & (VAL | GRAD) and value.kind == "val":
                self.write_model(v, value, node)
        elif v.kind == "class":
            v.data.attrs[name] = value
        elif v.kind == "alt":
            for x in v.data:
                self.set_attr(x, name, value, node)
        elif v.kind in ("val", "bound") and name == "data":
            self.write_param(v, value, node)
            v.absorb(value)
        elif v.kind == "lib" and v.data in self.loaded:
            scope = self.loaded[v.data]
            scope.data.names[name] = value
        elif v.kind == "val" and name != "requires_grad" and name != "grad":
            v.absorb(value)

    # ------------------------------------------------------------------ subscripts
    def x_slice(self: Any, e: ir.Slice) -> V:
        parts = [self.ev(x) for x in (e.lower, e.upper, e.step) if x is not None]
        return derive(parts)

    def x_sub(self: Any, e: ir.Sub) -> V:
        base = self.ev(e.value)
        index = e.index
        k = base.kind
        if k == "lib":
            if base.data == "os.environ":
                return self.environ([self.ev(index)], e, required=True)
            return V("lib", data=base.data)
        if k == "alt":
            base = base.data[0]
            k = base.kind
        if k in ("seq", "dict") or (k == "const" and not isinstance(index, ir.Slice)):
            if isinstance(index, ir.Slice):
                return self.slice_seq(base, index)
            i = self.ev(index)
            if k == "dict":
                if i.kind == "const":
                    try:
                        found = base.data.get(i.const)
                    except TypeError:
                        found = None
                    if found is not None:
                        return found
                    return base.rest if base.rest is not None else self.missing(base, i)
                out = self.element(base)
                if out.kind == "dict":
                    out.origin = base  # itself, so that what is stored in it stays
                else:
                    out = with_deps(out, i.deps)
                    if out.kind == "val" and out.origin is None:
                        out = clone(out)
                        out.origin = base
                return self.lookup(base, i, out, e)
            if k == "seq":
                if i.kind == "const" and isinstance(i.const, int) and base.data and base.rest is None:
                    if -len(base.data) <= i.const < len(base.data):
                        return base.data[i.const]
                part = with_deps(self.element(base), i.deps)
                if part is not base and part.kind == "val":
                    part.origin = base
                return self.lookup(base, i, part, e)
            try:
                out = const(base.const[i.const])
                out.knobs = base.knobs | i.knobs
                return out
            except Exception:
                return derive([base, i])
        if k == "obj":
            cls = base.data.cls
            if isinstance(cls, ClassV):
                if cls.find("__getitem__") is not None:
                    return self.call_value(V("bound", data=(base, "__getitem__")), [self.ev(index)], {}, e)
                if cls.is_model:
                    return base
            return derive([V("val"), self.ev(index)])
        return self.index_array(base, index, e)

    def missing(self: Any, base: V, i: V) -> V:
        if self.dormant or not base.data:
            return self.element(base) if base.data else V("val")
        return V("val")

    def slice_seq(self: Any, base: V, s: ir.Slice) -> V:
        bounds = [self.ev(x) if x is not None else const(None) for x in (s.lower, s.upper, s.step)]
        exact = all(b.kind == "const" for b in bounds)
        if base.kind == "const" and exact:
            try:
                out = const(base.const[slice(*(b.const for b in bounds))])
                out.knobs = base.knobs
                return out
            except Exception:
                return derive([base, *bounds])
        if base.kind == "seq" and base.rest is None and exact:
            try:
                return seq((base.data or [])[slice(*(b.const for b in bounds))])
            except Exception:
                pass
        deps = EMPTY
        for b in bounds:
            deps |= b.deps
        part = self.element(base)
        return seq([], with_deps(part, deps))

    def bound_text(self: Any, e: Any) -> Any:
        """Identity of a slice bound: equal texts in one function are taken to be equal numbers."""
        if e is None or (isinstance(e, ir.UnaryOp)):
            return None
        if isinstance(e, ir.Const):
            return None if e.value in (0, 1, None) else e.value
        return self.bound_form(e, 0)

    def bound_form(self: Any, e: Any, depth: int) -> str:
        """Normal form of a bound: names replaced by what they stand for, guards against the edges left out."""
        t = type(e)
        if t is ir.Name:
            meant = self.scope.meaning.get(e.id) if depth < 10 else None
            return self.bound_form(meant, depth + 1) if meant is not None else e.id
        if t is ir.BinOp:
            return f"({self.bound_form(e.left, depth + 1)}{e.op}{self.bound_form(e.right, depth + 1)})"
        if t is ir.IfExp and (isinstance(e.body, ir.Const) or isinstance(e.orelse, ir.Const)):
            return self.bound_form(e.orelse if isinstance(e.body, ir.Const) else e.body, depth + 1)
        if t is ir.Call and isinstance(e.func, ir.Name) and e.func.id in ("max", "int") and not e.keywords:
            moving = [a for a in e.args if not isinstance(a, ir.Const)]
            if len(moving) == 1:
                return self.bound_form(moving[0], depth + 1)
        return text_of(e)

    def index_array(self: Any, base: V, index: Any, e: Any) -> V:
        elements = index.elts if isinstance(index, ir.Collection) else [index]
        out = derive([base])
        out.flags |= base.flags & ORDER
        if base.kind != "val":
            out.kind = "val"
        out.models = base.models if not base.flags & ART or base.flags & PARAM else EMPTY
        out.shape0 = None
        deps = EMPTY
        content: list[V] = []
        lo = hi = None
        shifted = False
        parts: list[Any] = []
        for x in elements:
            if isinstance(x, ir.Slice):
                low = self.ev(x.lower) if x.lower is not None else None
                high = self.ev(x.upper) if x.upper is not None else None
                parts.append((low, high))
                if x.step is not None:
                    self.ev(x.step)
                if low is not None and low.lv is not None and len(low.lv) == 3 and {d[0] for d in low.deps} == {low.lv[1]}:
                    deps |= {low.lv[1:]}
                elif low is not None and low.deps:
                    deps |= low.deps
                    if high is not None:
                        loops = {d[0] for d in low.deps}
                        deps |= frozenset(d for d in high.deps if d[0] not in loops)
                elif high is not None:
                    # A prefix that ends where the loop stands.
                    deps |= high.deps
                lo = self.bound_text(x.lower) or lo
                hi = self.bound_text(x.upper) or hi
                if low is not None and low.kind == "const" and low.const == 1:
                    shifted = True
                    if hi is not None and base.flags & LOSS == 0:
                        hi = None
                if low is not None and low.flags & META:
                    pass
            else:
                i = self.ev(x)
                deps |= i.deps
                content.append(i)
                if i.mask is not None and i.mask != (None, None):
                    lo, hi = i.mask
                if base.flags & VAL:
                    if i.flags & RAND:
                        out.flags |= ORDER  # gathered at random positions
                        self.event("REORDER", e, out)
                parts.append(i)
                if i.knobs:
                    out.knobs |= i.knobs
        if deps:
            out.deps = out.deps | deps
        if out.atoms:
            out.atoms = restrict(out.atoms, deps, lo, hi)
        if shifted and base.flags & (VAL | out.flags) and not base.flags & (LOSS | LOGITS):
            out.flags |= TGT
        read_tokens(self, base, elements, parts, out)
        if base.pos is not None and not base.flags & VAL:
            out.pos = base.pos  # a selection of places
        for i in content:
            if i.flags & VAL and i.kind != "const":
                out = self.lookup(base, i, out, e)
            elif i.kind == "const" or not i.flags:
                continue
        if base.mask is not None:
            out.mask = base.mask
        return out

    def lookup(self: Any, base: V, index: V, out: V, node: Any) -> V:
        """A table read at an address made of stream content."""
        index = summary(index) if index.kind == "seq" else index
        if not index.flags & VAL or index.flags & META:
            return out
        if index.flags & MASK or base.flags & (LOSS | LOGITS):
            return out  # a selection, not an address
        if base.flags & (VAL | TRAIN | ART | FILE) or base.taint or (base.kind == "dict" and (base.taint or base.flags)):
            got = derive([out, index]) if out.kind in ("val", "const") else out
            if got is not out:
                got.flags = out.flags | COUNT
                got.atoms = out.atoms if out.atoms else index.atoms
            if base.taint or got is out:
                got = clone(got) if got.kind != "dict" else got
                got.taint |= base.taint
                got.flags |= COUNT
            e = self.event("LOOKUP", node, index, keys=index.keys, table=self.table_id(base), table_taint=base.taint,
                           table_flags=base.flags, made=out.keys)  # fmt: skip
            # What was found is no longer a token: only the reads that led to it are remembered.
            got.keys = frozenset(k for k in index.keys if k[0] in EVENTS) | {("lookup", e.id)}
            return got
        if out.kind not in ("val", "const") or (out.kind == "const" and base.kind not in ("seq", "dict")):
            return out
        if base.kind == "dict" and not base.data and base.rest is None:
            return out  # nothing is in it yet
        # A constant table (bytes per token, word boundaries) read at a token: made of the token.
        got = clone(out)
        got.kind, got.const = "val", None
        got.flags |= index.flags & (VAL | TGT) | BYTES
        got.atoms = index.atoms if not out.atoms else out.atoms
        got.keys = frozenset(("l", *k[1:]) if k[0] == "t" else k for k in index.keys) | {("lut", self.table_id(base))}
        got.taint = out.taint
        return got

    def table_id(self: Any, base: V) -> int:
        """One number per table; elements of one container count as one table. Kept alive, so that it stays one."""
        home = base.origin if base.origin is not None else base
        thing = home.data if home.data is not None else home
        self.tables.append(thing)
        return id(thing)

    def store(self: Any, base: V, index: V, value: V, node: Any) -> None:
        """A table takes in stream content: counts, continuations, hints."""
        index = summary(index) if index.kind == "seq" else index
        e = self.event("STORE", node, derive([index, value]) if index.kind != "const" else value, keys=index.keys,
                       table=self.table_id(base), value_keys=value.keys)  # fmt: skip
        e.atoms = index.atoms or value.atoms
        base.taint = base.taint | {e.id}
        reach_origin(base)
        if base.kind == "dict":
            base.rest = V("val") if base.rest is None else base.rest
            base.taint = base.taint | {e.id}
            base.rest.taint = base.rest.taint | {e.id}
            base.rest.flags |= value.flags & VAL
        else:
            base.taint = base.taint | {e.id}
            if base.kind == "seq":
                if base.rest is None:
                    base.rest = V("val")
                base.rest.taint = base.rest.taint | {e.id}
                for x in base.data or []:
                    x.taint = x.taint | {e.id}

    def set_item(self: Any, base: V, target: ir.Sub, value: V, node: Any) -> None:
        k = base.kind
        if k == "alt":
            base = base.data[0]
            k = base.kind
        if k == "lib":
            if base.data == "os.environ" and (name := self.ev(target.index)).kind == "const":
                self.env_set(name.const, value)
            return
        if isinstance(target.index, ir.Slice) and k == "seq":
            self.scope_extend(base, value)
            return
        if k == "dict":
            i = self.ev(target.index)
            if i.kind == "const" and getattr(i.const, "__hash__", None):
                if value.flags & LOSS and value.flags & VAL:
                    value = self.commit_score(value, node, "stored")
                base.data[i.const] = value
                return
            if i.flags & VAL and not i.flags & META and (i.flags or value.flags & VAL):
                self.store(base, i, value, node)
            part = with_deps(value, i.deps)
            base.rest = part if base.rest is None else join(base.rest, part)
            return
        if k == "seq":
            i = self.ev(target.index)
            if i.kind == "const" and isinstance(i.const, int) and base.data and base.rest is None:
                if -len(base.data) <= i.const < len(base.data):
                    base.data[i.const] = value
                    return
            if i.flags & VAL and not i.flags & META:
                self.store(base, i, value, node)
            part = with_deps(value, i.deps)
            base.rest = part if base.rest is None else join(base.rest, part)
            return
        if k == "obj":
            cls = base.data.cls
            if isinstance(cls, ClassV) and cls.find("__setitem__") is not None:
                self.call_value(V("bound", data=(base, "__setitem__")), [self.ev(target.index), value], {}, node)
            return
        if k not in ("val", "bound"):
            return
        # An array: the written part joins its content; a mask remembers where it was set.
        value = summary(value) if value.kind == "seq" and (value.data or value.rest is not None) else value
        value = self.gated(value, target, node)
        lo = hi = None
        elements = target.index.elts if isinstance(target.index, ir.Collection) else [target.index]
        deps = EMPTY
        store_index: V | None = None
        for x in elements:
            if isinstance(x, ir.Slice):
                if x.lower is not None:
                    value = written_at(value, self.ev(x.lower))
                for b in (x.lower, x.upper):
                    if b is not None:
                        deps |= self.ev(b).deps
                lo, hi = self.bound_text(x.lower), self.bound_text(x.upper)
                if x.lower is None and hi is not None:
                    lo = "start"
            else:
                i = self.ev(x)
                deps |= i.deps
                if i.flags & VAL and not i.flags & META:
                    store_index = i
        if store_index is not None and store_index.flags & MATCH and base.flags & LOSS:
            base.flags |= MATCH
        if value.kind == "const" or (not value.flags & ~META and not value.atoms):
            if (lo is not None or hi is not None) and value.const not in (0, 0.0, False):
                base.mask = (lo, hi)
            if deps and base.kind == "val":
                base.deps = base.deps | deps
            if store_index is not None and value.kind == "const" and not base.flags & (LOSS | COUNT):
                pass
            return
        if value.flags & LOSS and value.flags & VAL:
            value = self.commit_score(value, node, "stored")
        if base.flags & PARAM:
            self.write_param(base, value, node)
        base.absorb(value)
        base.deps = base.deps | value.deps


def later_iteration(op: str, a: V, b: V) -> tuple | None:
    """``lv`` of ``i + k`` (that later iteration) and of ``i * c`` (scaled: the offset where a part begins)."""
    if op == "+" and a.lv is not None and b.kind == "const" and type(b.const) is int and b.const > 0:
        # An offset into a part stays in that part.
        return (a.lv[0], a.lv[1] + b.const) if len(a.lv) == 2 else a.lv
    if op == "*":
        x, y = (a, b) if a.lv is not None else (b, a)
        if x.lv is not None and not y.deps and y.kind in ("const", "val", "bound"):
            return x.lv if len(x.lv) == 3 else ("x", *x.lv)
    return None


def text_of(e: Any) -> str:
    t = type(e)
    if t is ir.Name:
        return e.id
    if t is ir.Const:
        return repr(e.value)
    if t is ir.Attr:
        return f"{text_of(e.value)}.{e.attr}"
    if t is ir.BinOp:
        return f"({text_of(e.left)}{e.op}{text_of(e.right)})"
    if t is ir.Sub:
        return f"{text_of(e.value)}[{text_of(e.index)}]"
    if t is ir.Call:
        return f"{text_of(e.func)}({','.join(text_of(a) for a in e.args)})"
    if t is ir.UnaryOp:
        return f"{e.op}{text_of(e.operand)}"
    return f"?{e.line}:{e.col}"


MODEL_METHODS = frozenset(
    ["parameters", "named_parameters", "state_dict", "load_state_dict", "to", "cuda", "cpu", "bfloat16", "float", "half", "eval", "train", "modules", "named_modules", "buffers", "named_buffers", "requires_grad_", "zero_grad", "apply", "compile", "forward", "register_forward_hook", "register_forward_pre_hook", "register_buffer", "update", "children", "named_children", "get_submodule", "trainable_parameters", "freeze", "unfreeze", "load_weights"]
)
