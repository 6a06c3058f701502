"""Follows a model that is given its own targets, from the tokens to its predictions, and says whether it moved them.

No rule lives here; `audit.rules.reach` says what an operation does to a value, `audit.rules.told` where such models are
called. Both ways of a branch that nothing decides are taken. An operation that is not known here, or a token that
decides a branch, leaves nothing known: then it is neither shown that the model sees what it predicts, nor that it does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from audit import ir
from audit.rules.axes import argument, number
from audit.rules.code import Code, Place
from audit.rules.layers import Layers
from audit.rules.places import called
from audit.rules.reach import FREE, Reach
from audit.rules.reach_ops import Amount, Held, Operations, free, one_of, reckoned
from audit.rules.sequence import Sequences
from audit.rules.settings import decided

_DEPTH, _CALLS, _TURNS = 10, 600, 4
_STRIPS = frozenset({"reshape", "view", "flatten", "float", "to", "contiguous", "double"})


class _Lost(Exception):
    """A token decides which way the model goes."""


class Follower:
    """Runs methods on what their parameters reach."""

    def __init__(self, code: Code, along: Sequences, layers: Layers) -> None:
        self.code, self.along, self.layers = code, along, layers
        self.left = _CALLS
        self.memo: dict[Any, Held] = {}
        #: methods that were run, attributes that are written elsewhere than where objects are built, and what was stored
        self.ran: set[int] = set()
        self.asked: set[tuple[int, str]] = set()
        self.stored: dict[tuple[int, str], bool] = {}
        #: where attention was followed
        self.followed: set[tuple[str, int]] = set()

    def run(self, place: Place, env: dict[str, Held]) -> Held:
        """What a method returns; None where that is not known."""
        try:
            made = self.enter(place, env, _DEPTH)
        except _Lost:
            return None
        return made if self._kept() else None

    def defaults(self, place: Place, params: list[ir.Param]) -> dict[str, Held]:
        """What parameters are that a call leaves out."""
        frame = Frame(self, place, {}, 1)
        return {p.name: frame.value(p.default) if isinstance(p.default, ir.Const) else None for p in params}

    def enter(self, place: Place, env: dict[str, Held], depth: int) -> Held:
        key = id(place), tuple(sorted((k, repr(v)) for k, v in env.items()))
        if key not in self.memo:
            self.left -= 1
            if not depth or self.left < 0 or place.function is None:
                return None
            self.memo[key] = None
            self.ran.add(id(place))
            frame = Frame(self, place, env, depth)
            frame.body(place.function.body)
            self.memo[key] = frame.result()
        return self.memo[key]

    def _kept(self) -> bool:
        """Was nothing that an object keeps made of tokens: all that writes to what was read was run."""
        for owner, attribute in self.asked:
            if self.stored.get((owner, attribute), False):
                return False
            for p in self.code.places:
                if attribute not in p.names or (p.function is not None and p.function.name == "__init__"):
                    continue
                writes = [
                    t for s in p.nodes(ir.Assign, ir.AugAssign, ir.AnnAssign) if not isinstance(s.value, ir.Const)
                    for t in (s.targets if isinstance(s, ir.Assign) else [s.target]) if isinstance(t, ir.Attr) and t.attr == attribute
                ]  # fmt: skip
                own = p.owner is not None and id(p.owner) == owner
                if any(not _of_self(t) or (own and id(p) not in self.ran) for t in writes):
                    return False
        return True


class Frame(Operations):
    def __init__(self, follower: Follower, place: Place, env: dict[str, Held], depth: int) -> None:
        self.by, self.place, self.env, self.depth = follower, place, env, depth
        self.layers, self.code = follower.layers, follower.code
        self.settings = self.layers.settings(place)
        self.returned: list[Held] = []

    def result(self) -> Held:
        first = self.returned[0] if self.returned else None
        for r in self.returned[1:]:
            first = one_of(first, r)
        return first

    def body(self, body: list[Any]) -> bool:
        for s in body:
            if isinstance(s, ir.Return):
                self.returned.append(self.value(s.value) if s.value is not None else Amount())
                return True
            if isinstance(s, ir.Raise):
                return True
            if isinstance(s, ir.If):
                if self._branch(s):
                    return True
            elif isinstance(s, (ir.Assign, ir.AnnAssign)):
                value = self.value(s.value) if s.value is not None else Amount()
                for t in s.targets if isinstance(s, ir.Assign) else [s.target]:
                    self._bind(t, value)
            elif isinstance(s, ir.AugAssign):
                both = self._both(self.value(s.target), self.value(s.value))
                self._bind(s.target, both)
            elif isinstance(s, ir.For):
                self._loop(s)
            elif isinstance(s, ir.With):
                if self.body(s.body):
                    return True
            elif isinstance(s, ir.ExprStmt):
                self._told(s.value)
            elif not isinstance(s, (ir.Delete, ir.Assert, ir.Import)) and not (isinstance(s, ir.Jump) and s.kind == "pass"):
                raise _Lost
        return False

    def _branch(self, s: ir.If) -> bool:
        test = self._decided(s.test)
        if test is not None:
            return self.body(s.body if test else s.orelse)
        self._plain_test(s.test)
        before = dict(self.env)
        left = self.body(s.body)
        first, self.env = self.env, before
        right = self.body(s.orelse)
        if left and not right:
            return False
        if right and not left:
            self.env = first
            return False
        self.env = {k: one_of(first.get(k), self.env.get(k)) if k in first and k in self.env else first.get(k, self.env.get(k)) for k in {**first, **self.env}}
        return left and right

    def _decided(self, test: Any) -> bool | None:
        return decided(test, self.settings, {k: v.fixed[0] for k, v in self.env.items() if isinstance(v, Amount) and v.fixed})

    def _plain_test(self, node: Any) -> None:
        """A condition asks for lengths, settings and whether something is there, not for tokens."""
        if isinstance(node, ir.Compare) and node.ops[0] in ("is", "is not", "in", "not in") and isinstance(node.left, (ir.Name, ir.Attr)):
            return
        if isinstance(node, (ir.BoolOp, ir.UnaryOp)):
            for n in node.values if isinstance(node, ir.BoolOp) else [node.operand]:
                self._plain_test(n)
            return
        if isinstance(node, ir.Call) and called(node) == "isinstance":
            return
        parts = [node.left, *node.comparators] if isinstance(node, ir.Compare) else [node]
        for p in parts:
            if isinstance(v := self.value(p), Reach) and not v.free:
                raise _Lost
            if v is None and any(isinstance(n, ir.Name) and not isinstance(self.env.get(n.id, Amount()), Amount) for n in ir.walk(p)):
                raise _Lost

    def _loop(self, s: ir.For) -> None:
        for n in ir.walk(s.body):
            if isinstance(n, ir.Jump) and n.kind != "pass":
                raise _Lost
        self._bind(s.target, Amount())
        for _ in range(_TURNS):
            before = dict(self.env)
            if self.body(s.body):
                return
            after = self.env
            self.env = {k: one_of(before[k], after[k]) if k in before and k in after else after.get(k, before.get(k)) for k in {**before, **after}}
            if all(self.env.get(k) == before.get(k) for k in self.env):
                return
        raise _Lost

    def _told(self, node: Any) -> None:
        """A call whose result is not used: what it may write to is not known any more."""
        if isinstance(node, ir.Const) or (isinstance(node, ir.Call) and called(node) == "print"):
            return
        grows = isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and called(node) in ("append", "extend", "insert", "add")
        inside = [n.id for n in ir.walk(node) if isinstance(n, ir.Name)]
        if "self" in inside and not all(free(self.env[n]) for n in inside if n in self.env):
            raise _Lost  # perhaps kept
        for n in ir.walk(node.func.value if grows and isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) else node):
            if isinstance(n, ir.Name) and n.id in self.env and not isinstance(self.env[n.id], Amount):
                self.env[n.id] = None

    def _bind(self, target: Any, value: Held) -> None:
        if isinstance(target, ir.Name):
            self.env[target.id] = value
        elif isinstance(target, ir.Collection):
            same = isinstance(value, tuple) and len(value) == len(target.elts)
            for n, t in enumerate(target.elts):
                self._bind(t, value[n] if same and isinstance(value, tuple) else value if isinstance(value, Amount) or value == FREE else None)
        elif isinstance(target, ir.Attr) and isinstance(target.value, ir.Name) and target.value.id == "self" and self.place.owner is not None:
            key = id(self.place.owner), target.attr
            tokens = not (isinstance(value, Amount) or (isinstance(value, Reach) and value.free))
            self.by.stored[key] = self.by.stored.get(key, False) or tokens
        elif isinstance(target, ir.Sub) and isinstance(target.value, ir.Name):
            held = self.env.get(target.value.id)
            plain = isinstance(value, Amount) or (isinstance(value, Reach) and value.free)
            parts = target.index.elts if isinstance(target.index, ir.Collection) else [target.index]
            first = isinstance(held, Reach) and any(number(p) == 0 and held.axis(n) in ("t", "n") for n, p in enumerate(parts))
            if isinstance(held, Reach) and plain:
                self.env[target.value.id] = replace(held, wraps=held.wraps and not first)
            else:
                self.env[target.value.id] = None
        else:
            raise _Lost

    # ---------------------------------------------------------------- expressions

    def value(self, node: Any) -> Held:
        if isinstance(node, ir.Const):
            return Amount("1" if node.value == 1 and type(node.value) is int else "*" if node.value == -1 else ".", node.value if type(node.value) is int else None, (node.value,))
        if isinstance(node, ir.Name):
            return self.env[node.id] if node.id in self.env else self._elsewhere(node)
        if isinstance(node, ir.Attr):
            return self._attribute(node)
        if isinstance(node, ir.BinOp):
            a, b = self.value(node.left), self.value(node.right)
            return reckoned(node.op, a, b) if isinstance(a, Amount) and isinstance(b, Amount) else None if node.op == "@" and not free(a, b) else self._both(a, b)
        if isinstance(node, ir.UnaryOp):
            inner = self.value(node.operand)
            return Amount("*" if number(node) == -1 else ".") if isinstance(inner, Amount) else inner
        if isinstance(node, ir.Collection):
            return tuple(self.value(e) for e in node.elts)
        if isinstance(node, ir.IfExp):
            if (test := self._decided(node.test)) is not None:
                return self.value(node.body if test else node.orelse)
            self._plain_test(node.test)
            return one_of(self.value(node.body), self.value(node.orelse))
        if isinstance(node, ir.Compare):
            made: Held = Amount()
            for n in (node.left, *node.comparators):
                made = self._both(made, self.value(n))
            return made
        if isinstance(node, ir.Sub):
            return self._part(self.value(node.value), node)
        return self._call(node) if isinstance(node, ir.Call) else None

    def _elsewhere(self, node: ir.Name) -> Held:
        """A name of the module's own level: a constant, a library; not what may hold tokens."""
        tops = [v for p in self.code.places if p.function is None and p.path == self.place.path for v in p.assigned(node.id)]
        shared = any(node.id in s.names for p in self.code.places if node.id in p.names for s in p.nodes(ir.Scope))
        return Amount() if all(isinstance(v, ir.Const) for v in tops) and not shared else None

    def _attribute(self, node: ir.Attr) -> Held:
        if isinstance(node.value, ir.Name) and node.value.id == "self":
            init = self.layers.methods.get(id(self.place.owner), {}).get("__init__")
            if init is None or self.layers.rewritten(init, node.attr):
                self.by.asked.add((id(self.place.owner), node.attr))
            unit = self.unit(self.place, node)
            return Amount(".", unit) if unit is not None else FREE
        base = self.value(node.value)
        if isinstance(base, Reach):
            if node.attr == "shape":
                return tuple(self._length(base, n) for n in range(len(base.axes))) if base.axes is not None else None
            if node.attr in ("device", "dtype", "ndim"):
                return Amount()
            if node.attr in ("mT", "T") and base.axes is not None and len(base.axes) > 1:
                return replace(base, axes=(*base.axes[:-2], base.axes[-1], base.axes[-2]))
            return base if node.attr == "data" or base.free else None
        return Amount(".", self.unit(self.place, node)) if isinstance(base, Amount) else None

    def unit(self, place: Place, node: Any, depth: int = 6) -> Any:
        """A number as it is known, or as it is written where objects are built."""
        if isinstance(node, ir.Const):
            return node.value if type(node.value) is int else None
        if isinstance(node, ir.Attr):
            if isinstance(node.value, ir.Name) and node.value.id == "self":
                settings = self.layers.settings(place)
                if type(settings.get(node.attr)) is int:
                    return settings[node.attr]
                made = self.layers.calls.get((id(place.owner), node.attr), [])
                init = self.layers.methods.get(id(place.owner), {}).get("__init__")
                return self.unit(init, made[0], depth - 1) if depth and init is not None and len(made) == 1 else None
            known = self.layers.settings(place).get("." + node.attr)
            return known if type(known) is int else "." + node.attr
        if isinstance(node, ir.Name) and depth:
            made = place.assigned(node.id)
            if len(made) == 1 and node.id not in place.params:
                return self.unit(place, made[0], depth - 1)
            known = self.layers.settings(place).get("__init__." + node.id)
            if type(known) is int and not made:
                return known
            given = self.by.along.members.given.get((id(place), node.id), []) if not made else []
            several = {self.unit(p, v, depth - 1) for p, v in given}
            return several.pop() if len(several) == 1 else None
        return None

    def _part(self, base: Held, node: ir.Sub) -> Held:
        if isinstance(base, tuple):
            n = number(node.index)
            return base[n] if n is not None and -len(base) <= n < len(base) else None
        if isinstance(base, Amount):
            return base
        parts = node.index.elts if isinstance(node.index, ir.Collection) else [node.index]
        if base is None or base.front is not None:
            return None
        if base.axes is None:
            return FREE if all(isinstance(p, (ir.Slice, ir.Const)) or free(self.value(p)) for p in parts) else None
        return self._sliced(base, parts)

    # ---------------------------------------------------------------- calls

    def _call(self, node: ir.Call) -> Held:
        func, name = node.func, called(node)
        if any(isinstance(a, ir.Starred) for a in node.args) or any(k is None for k, _ in node.keywords):
            return None
        own = isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "self"
        full = self.code.dotted(self.place, func)
        library = not own and full.startswith(("torch.", "math.", "numpy.", "einops."))
        if own or (isinstance(func, (ir.Sub, ir.Name)) and not library):
            return self._layer(node, name)
        args = [self.value(a) for a in node.args]
        words = {k: self.value(v) for k, v in node.keywords}
        if not library and isinstance(func, ir.Attr):
            base = self.value(func.value)
            if isinstance(base, Reach):
                return self._operation(node, name, base, node.args, args, words)
            if base is None or not free(*args, *words.values()):
                return None
            return FREE
        if name in ("cat", "concat", "concatenate") and args and isinstance(args[0], tuple):
            return self._joined(args[0], number(argument(node.args, 1, node.keywords, "dim", "axis")))
        if name == "scaled_dot_product_attention":
            return self._attention(node, args)
        if free(*args, *words.values()):
            return self._made(node, name, node.args)
        first = args[0] if args else None
        return self._operation(node, name, first, node.args[1:], args[1:], words) if isinstance(first, Reach) else None

    def _layer(self, node: ir.Call, name: str) -> Held:
        args = [self.value(a) for a in node.args]
        words = {k: self.value(v) for k, v in node.keywords}
        first = args[0] if args else None
        made = self.layers.made(self.place, node.func)
        if made is not None:
            return self._library(node, made, first) if isinstance(first, Reach) and len(args) == 1 and not words else None
        own = isinstance(node.func, ir.Attr)
        target = self.layers.target(self.place, node.func)
        targets = [target] if target is not None else self.by.along.layers_of(self.place, node.func)
        if not targets:
            plain = isinstance(node.func, ir.Name) and name in ("int", "float", "max", "min", "len", "range", "bool", "abs") and free(*args)
            return Amount() if plain and not own else None
        result: Held = None
        for n, t in enumerate(targets):
            assert t.function is not None
            params = [p for p in t.function.params if p.kind in ("pos", "posonly", "kwonly")][int(t.owner is not None) :]
            if len(args) > len(params) or any(p.kind in ("vararg", "kwarg") for p in t.function.params):
                return None
            env: dict[str, Held] = {p.name: self.value(p.default) if isinstance(p.default, ir.Const) else None for p in params}
            env |= {p.name: a for p, a in zip(params, args, strict=False)}
            env |= {str(k): v for k, v in words.items()}
            returned = self.by.enter(t, env, self.depth - 1)
            result = returned if not n else one_of(result, returned)
        return result


def _of_self(target: ir.Attr) -> bool:
    return isinstance(target.value, ir.Name) and target.value.id == "self"


def stripped(node: Any) -> Any:
    """Predictions or targets before all their positions were put in a row."""
    while isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _STRIPS:
        node = node.func.value
    return node


__all__ = ["Amount", "Follower", "Held", "stripped"]
