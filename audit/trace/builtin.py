"""Python's built-in functions and what they do to provenance."""

from __future__ import annotations

from typing import Any

from audit.trace.bests import note_sorted_row
from audit.trace.left_out import ADDED
from audit.trace.positions import at_each, ends, one_of
from audit.trace.shaping import same_target
from audit.trace.shares import OF_WORLD, least
from audit.trace.spans import HEAD, UNTIL, note_one, until
from audit.trace.values import (
    BYTES,
    COUNT,
    EMPTY,
    LOSS,
    META,
    PARAM,
    VAL,
    ClassV,
    V,
    const,
    derive,
    mapping,
    picked,
    seq,
    summary,
    with_deps,
)
from audit.trace.words import CASTS


class Builtins:
    """Mixed into the machine; see `audit.trace.machine`."""

    def builtin(self: Any, last: str, args: list[V], kwargs: dict[str, V], node: Any) -> V | None:
        first = args[0] if args else None
        if last == "print":
            return self.report(args, kwargs, node)
        if last in ("exit", "quit"):
            return V("never")
        if last == "range":
            parts = args[:3]
            if len(parts) == 1:
                triple = (const(0), parts[0], const(1))
            elif len(parts) == 2:
                triple = (parts[0], parts[1], const(1))
            elif len(parts) == 3:
                triple = (parts[0], parts[1], parts[2])
            else:
                return V("val")
            out = V("iter", data=("range", *triple))
            out.line = getattr(node, "line", 0)
            return out
        if last == "enumerate" and first is not None:
            start = args[1] if len(args) > 1 else kwargs.get("start", const(0))
            return V("iter", data=("enumerate", first, start.const if start.kind == "const" else 1))
        if last == "zip":
            return V("iter", data=("zip", list(args)))
        if last in ("list", "tuple", "set", "sorted", "reversed", "frozenset", "iter"):
            if first is None:
                return self.empty()
            if last == "iter":
                return self.iterator(first) if len(args) == 1 else V("iter", data=("calls", first, node))
            listed = self.as_seq(first, exact=last in ("list", "tuple"))
            if last == "sorted":
                note_sorted_row(first, listed)
            return listed
        if last == "dict":
            if first is not None and first.kind == "dict":
                return mapping({**(first.data or {}), **kwargs}, first.rest)
            pair = self.element(first) if first is not None else None
            if pair is not None and pair.kind == "seq" and len(pair.data or []) == 2:
                pair = pair.data[1]  # `dict(model.named_parameters())`
            return mapping(dict(kwargs), pair)
        if last == "len" and first is not None:
            if first.kind == "seq" and first.rest is None and first.data is not None and not self.loops:
                return const(len(first.data))
            if first.kind == "seq" and first.rest is None and first.data:
                return const(len(first.data))
            if first.kind == "const" and hasattr(first.const, "__len__"):
                return const(len(first.const))
            out = V("val", flags=META)
            out.deps = first.deps
            out.pos = first.many
            self.note_counted(first, out)
            if first.flags & BYTES:
                # The length of what a table holds for a token says something about the token.
                out.flags, out.keys = first.flags & (VAL | BYTES), first.keys
            return out
        if last in CASTS and first is not None:
            if first.kind == "const":
                try:
                    out = const(CASTS[last](*(a.const for a in args if a.kind == "const")))
                except Exception:
                    return derive(args)
                out.knobs, out.deps, out.lv = first.knobs, first.deps, first.lv
                out.flags, out.keys = first.flags, first.keys & {OF_WORLD}
                return out
            if first.kind == "val" and (last in ("int", "float") or (last == "round" and first.share is not None)):
                note_one(first)
                return first
            return derive([first])
        if last in ("min", "max"):
            return self.min_max(last, args, kwargs, node)
        if last == "sum" and first is not None:
            if first.kind == "seq" and first.data and first.rest is None and all(x.kind == "const" for x in first.data):
                try:
                    return const(sum(x.const for x in first.data))
                except TypeError:
                    return derive(first.data)
            part = summary(first)
            if part.flags & LOSS and not part.scores:
                return self.commit_score(part, node, "accumulated")
            out = derive([part])
            out.keys = out.keys | {("total", k[1]) for k in out.keys if k[0] == "lookup"} | ({ADDED} if part.flags & BYTES else EMPTY)
            return out
        if last in ("any", "all") and first is not None:
            part = derive([summary(first)])
            return part
        if last == "getattr" and len(args) >= 2 and args[1].kind == "const":
            got = self.get_attr(args[0], str(args[1].const), node)
            if got.kind == "bound" and args[0].kind == "obj" and len(args) > 2 and args[1].const not in args[0].data.attrs:
                return args[2]
            return got
        if last == "setattr" and len(args) >= 3 and args[1].kind == "const":
            self.set_attr(args[0], str(args[1].const), args[2], node)
            return const(None)
        if last == "setattr" and len(args) >= 3 and (args[0].flags & PARAM or args[0].kind == "obj"):
            self.put_into(args[0], node, args[2])
            return const(None)
        if last == "hasattr":
            if len(args) >= 2 and args[0].kind == "obj" and args[1].kind == "const" and isinstance(args[0].data.cls, ClassV):
                if args[1].const in args[0].data.attrs or args[0].data.cls.find(args[1].const) is not None:
                    return const(True)
            return V("val")
        if last == "isinstance":
            return V("val")
        if last == "next" and first is not None:
            part = self.element(first)
            if first.kind == "obj":
                cls = first.data.cls
                if isinstance(cls, ClassV) and cls.find("__next__") is not None:
                    return self.call_value(V("bound", data=(first, "__next__")), [], {}, node)
            if self.loops and part.kind in ("val", "const", "seq"):
                part = with_deps(part, frozenset([self.loops[-1]]))
            return part
        if last == "map" and len(args) == 2 and args[0].kind == "lib" and args[1].kind == "seq" and args[1].rest is None and len(args[1].data or ()) in range(1, 9):
            return seq([self.call_value(args[0], [x], {}, node) for x in args[1].data])
        if last == "map" and len(args) >= 2:
            made: V = self.call_value(args[0], [one_of(self.element(args[1]))], {}, node)
            return seq([], at_each(made, ends(args[1])))
        if last == "filter" and len(args) >= 2:
            return self.as_seq(args[1], exact=False)
        if last == "vars" and first is not None:
            if first.kind == "obj":
                return mapping(dict(first.data.attrs))
            if first.kind == "class":
                return mapping({})
            return V("val")
        if last == "globals":
            return V("module", data=self.scope.globals_)
        if last == "type" and first is not None:
            if first.kind == "obj" and isinstance(first.data.cls, ClassV):
                return V("class", data=first.data.cls)
            if first.kind == "const" and type(first.const).__name__ in CASTS:
                return V("lib", data=f"builtins.{type(first.const).__name__}")  # ``type(default)(text)``
            return V("lib", data="builtins.type")
        if last == "super":
            return self.super_object()
        if last == "open":
            return self.read("open", args, kwargs, node)
        if last in ("staticmethod", "classmethod", "property"):
            return first if first is not None else V("lib", data="identity")
        if last == "object":
            return V("val")
        if last == "divmod":
            return derive(args)
        if last == "slice":
            return derive(args)
        return None

    def super_object(self: Any) -> V:
        me = self.scope.names.get("self") or next(iter(self.scope.names.values()), None)
        if me is not None and me.kind == "obj" and isinstance(me.data.cls, ClassV):
            base = me.data.cls.bases[0] if me.data.cls.bases else None
            if base is not None:
                out = V("super", data=(me, base))
                return out
        return V("val")

    def as_seq(self: Any, v: V, exact: bool = True) -> V:
        if v.kind == "seq":
            if exact or not v.data:
                return seq(list(v.data or []), v.rest)
            if v.rest is None and all(x.kind == "const" for x in v.data):
                return seq(list(v.data))
            return seq([], self.element(v))
        if v.kind == "iter":
            from audit.trace.loops import strip_loop

            if v.data[0] == "range" and all(x.kind == "const" and isinstance(x.const, int) for x in v.data[1:]):
                try:
                    r = range(*(x.const for x in v.data[1:]))
                    if len(r) <= 16:
                        return seq([const(i) for i in r])
                except (TypeError, ValueError):
                    pass
            loop = self.next_loop
            self.next_loop += 1
            turns = self.turns(v, loop)
            if not turns:
                return seq([])
            return seq([], strip_loop(turns[-1], loop))
        if v.kind == "dict":
            return seq([const(k) for k in v.data], V("val") if v.rest is not None else None)
        if v.kind == "const":
            try:
                return seq([const(x) for x in list(v.const)[:64]])
            except TypeError:
                return v
        if v.kind in ("obj", "alt"):
            return v
        return v

    def min_max(self: Any, last: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        if len(args) > 1 and all(a.kind == "const" for a in args):
            try:
                out = const((min if last == "min" else max)(*(a.const for a in args)))
                for a in args:
                    out.knobs |= a.knobs
                    out.deps |= a.deps
                return out
            except TypeError:
                pass
        if len(args) == 1 and args[0].kind in ("seq", "dict"):
            out = derive([summary(args[0]), picked(args[0])])
        else:
            out = derive(args)
        end = min((n for a in args if (n := until(a)) is not None), default=None) if last == "min" else None
        out.keys = frozenset(k for k in out.keys if k != HEAD and k[0] != UNTIL) | (EMPTY if end is None else {(UNTIL, end)})
        if last == "max" and len(args) == 2 and len(shares := [a for a in args if a.share is not None]) == 1:
            out.share = shares[0].share  # ``max(1, share)``
        if last == "max" and len(args) == 2:
            self.note_raised(last, *((args[1], args[:1]) if args[0].kind == "const" else (args[0], args[1:])), {}, out, node)
        if last == "min":
            self.note_at_most(args, out)
            self.note_least(args, out, node)
            least(args, out)
            if len(moving := [a for a in args if a.deps]) == 1 and not out.flags & (VAL | LOSS):
                out.pos, out.lv, out.span = moving[0].pos, moving[0].lv, moving[0].span  # clipped at the end of the stream
        if last == "max" and len(args) == 1:
            out.keys = out.keys | {("peak", k[1]) for k in out.keys if k[0] == "lookup"}
        if out.flags & LOSS and out.flags & VAL:
            e = self.event("SELECT", node, out, how=last)
            if len(args) == 2 and all(a.flags & LOSS and a.flags & VAL for a in args) and same_target(args[0], args[1]):
                out.keys = out.keys | {("select", e.id)}
            elif better(last, args) and "key" not in kwargs:
                out = self.tuned(out, out, node, last)
        by = kwargs.get("key")
        if by is not None and by.kind in ("func", "partial") and args and self.loops:
            out = self.tuned(out, summary(self.call_value(by, [self.element(args[0]) if len(args) == 1 else out], {}, node)), node, last)
        if last == "max" and by is None:
            return out  # the worst, or a guard (``max(total, 1)``)
        if len(args) == 1:
            return self.best_in(args[0], by, out, node, last)
        if by is None and sum(self.evaluations(a) for a in args) > 1:
            return self.best(out, out, node, last, picks=False, running=bool(self.loops))
        return out

    def math_call(self: Any, last: str, args: list[V]) -> V:
        if args and all(a.kind == "const" and isinstance(a.const, (int, float)) for a in args):
            import math

            try:
                f = getattr(math, last)
                if last in ("factorial", "comb", "perm", "pow", "exp"):
                    return derive(args)
                out = const(f(*(a.const for a in args)))
                for a in args:
                    out.knobs |= a.knobs
                return out
            except Exception:
                return derive(args)
        return self.normalise(last, args)


def better(name: str, args: list[V]) -> bool:
    """The least of several losses, or the largest of several (log-)probabilities, of a token."""
    if len(args) == 1:
        return name == "min" or ("logp",) in summary(args[0]).keys
    return all(a.flags & (LOSS | COUNT) and a.flags & VAL for a in args)
