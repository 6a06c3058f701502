"""Follows a model that is given its own targets, from the tokens to its predictions, and says whether it moved them.

No rule lives here; `audit.rules.reach` says what an operation does to a value, `audit.rules.told` where such models are
called. Both ways of a branch that nothing decides are taken. An operation that is not known here, or a token that
decides a branch, leaves nothing known: then it is neither shown that the model sees what it predicts, nor that it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from audit import ir
from audit.rules.axes import argument, number
from audit.rules.code import Code, Place
from audit.rules.filters import Taps, reaches
from audit.rules.layers import Layers
from audit.rules.mixing import KEEPS, STATISTICS
from audit.rules.places import called
from audit.rules.reach import FREE, Reach, either, folded, joined, moved, pooled, spread, turned, viewed
from audit.rules.sequence import Sequences
from audit.rules.settings import decided

_DEPTH, _CALLS, _TURNS = 10, 600, 4
_NORMS = frozenset({"rms_norm", "layer_norm"})
_STRIPS = frozenset({"reshape", "view", "flatten", "float", "to", "contiguous", "double"})
_FILLED = {"new_full": 0, "full": 0, "expand": None, "new_zeros": None, "new_ones": None, "zeros": None, "ones": None, "empty": None}
_EACH = KEEPS | frozenset("lerp where masked_fill maximum minimum pow long int bool log detach data clip remainder bitwise_xor logical_not".split())


@dataclass(frozen=True, slots=True)
class Amount:
    """A number that no token has a part in: a length of a known axis, or one that is set; ``unit``: which; ``fixed``: a
    constant in a tuple of its own."""

    name: str = "."
    unit: Any = None
    fixed: tuple[Any, ...] = ()


Held = Reach | Amount | tuple[Any, ...] | None


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
        frame = _Frame(self, place, {}, 1)
        return {p.name: frame.value(p.default) if isinstance(p.default, ir.Const) else None for p in params}

    def enter(self, place: Place, env: dict[str, Held], depth: int) -> Held:
        key = id(place), tuple(sorted((k, repr(v)) for k, v in env.items()))
        if key not in self.memo:
            self.left -= 1
            if not depth or self.left < 0 or place.function is None:
                return None
            self.memo[key] = None
            self.ran.add(id(place))
            frame = _Frame(self, place, env, depth)
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
                writes = any(
                    isinstance(t, ir.Attr) and t.attr == attribute
                    for s in p.nodes(ir.Assign, ir.AugAssign, ir.AnnAssign)
                    for t in (s.targets if isinstance(s, ir.Assign) else [s.target])
                )
                if writes and p.owner is not None and id(p.owner) == owner and id(p) not in self.ran:
                    return False
        return True


class _Frame:
    def __init__(self, follower: Follower, place: Place, env: dict[str, Held], depth: int) -> None:
        self.by, self.place, self.env, self.depth = follower, place, env, depth
        self.layers, self.code = follower.layers, follower.code
        self.settings = self.layers.settings(place)
        self.returned: list[Held] = []

    def result(self) -> Held:
        first = self.returned[0] if self.returned else None
        for r in self.returned[1:]:
            first = _one_of(first, r)
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
        self.env = {k: _one_of(first.get(k), self.env.get(k)) if k in first and k in self.env else first.get(k, self.env.get(k)) for k in {**first, **self.env}}
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
            self.env = {k: _one_of(before[k], after[k]) if k in before and k in after else after.get(k, before.get(k)) for k in {**before, **after}}
            if all(self.env.get(k) == before.get(k) for k in self.env):
                return
        raise _Lost

    def _told(self, node: Any) -> None:
        """A call whose result is not used: what it may write to is not known any more."""
        if isinstance(node, ir.Const) or (isinstance(node, ir.Call) and called(node) in ("print", "append", "extend") and isinstance(node.func, ir.Name)):
            return
        for n in ir.walk(node):
            if isinstance(n, ir.Name) and isinstance(self.env.get(n.id), (Reach, tuple)):
                self.env[n.id] = None

    def _bind(self, target: Any, value: Held) -> None:
        if isinstance(target, ir.Name):
            self.env[target.id] = value
        elif isinstance(target, ir.Collection):
            same = isinstance(value, tuple) and len(value) == len(target.elts)
            for n, t in enumerate(target.elts):
                self._bind(t, value[n] if same and isinstance(value, tuple) else FREE if isinstance(value, Reach) and value.free else None)
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
            return _reckoned(node.op, a, b) if isinstance(a, Amount) and isinstance(b, Amount) else None if node.op == "@" and not _free(a, b) else self._both(a, b)
        if isinstance(node, ir.UnaryOp):
            inner = self.value(node.operand)
            return Amount("*" if number(node) == -1 else ".") if isinstance(inner, Amount) else inner
        if isinstance(node, ir.Collection):
            return tuple(self.value(e) for e in node.elts)
        if isinstance(node, ir.IfExp):
            if (test := self._decided(node.test)) is not None:
                return self.value(node.body if test else node.orelse)
            self._plain_test(node.test)
            return _one_of(self.value(node.body), self.value(node.orelse))
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

    def _length(self, v: Reach, at: int) -> Amount:
        name = v.axis(at)
        return Amount("." if v.short and name != "b" else name or ".", v.unit if name in ("n", "j") else None)

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
            given = self.by.along.members.given.get((id(place), node.id), []) if not made else []
            several = {self.unit(p, v, depth - 1) for p, v in given}
            return several.pop() if len(several) == 1 else None
        return None

    def _both(self, a: Held, b: Held) -> Held:
        if isinstance(a, Amount):
            return b
        if isinstance(b, Amount):
            return a
        return joined(a, b) if isinstance(a, Reach) and isinstance(b, Reach) else None

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
            return FREE if all(isinstance(p, (ir.Slice, ir.Const)) or _free(self.value(p)) for p in parts) else None
        return self._sliced(base, parts)

    def _sliced(self, v: Reach, parts: list[Any]) -> Held:
        dots = [n for n, p in enumerate(parts) if isinstance(p, ir.Const) and p.value is Ellipsis]
        new = sum(isinstance(p, ir.Const) and p.value is None for p in parts)
        assert v.axes is not None
        if dots:
            fill = len(v.axes) - (len(parts) - 1 - new)
            parts = [*parts[: dots[0]], *[ir.Slice(None, None, None)] * max(fill, 0), *parts[dots[0] + 1 :]]
        axes: list[str] = []
        at, made = 0, v
        for p in parts:
            if isinstance(p, ir.Const) and p.value is None:
                axes.append("1")
                continue
            if at >= len(v.axes):
                return None
            kind, at = v.axes[at], at + 1
            if isinstance(p, ir.Slice):
                axes.append(kind)
                if p.lower is p.upper is p.step is None or kind in (".", "1", "b"):
                    continue
                if p.step is not None:
                    return None
                first, last = 0 if p.lower is None else number(p.lower), None if p.upper is None else number(p.upper)
                if (first, last) == (0, 1):
                    axes[-1], made = "1", replace(made, unit=made.unit)
                    if not v.free:
                        return replace(v, axes=("first", *v.axes[:at - 1], *v.axes[at:])) if kind == "t" and at == 2 and v.coarse is None else None
                    continue
                if last is None and p.upper is not None:
                    end = self.value(p.upper)
                    if not (isinstance(end, Amount) and end.name == kind and first == 0):
                        return None
                elif last is not None and last > 0:
                    return None
                if first is None or first < 0:
                    return None
                ahead = max(first - made.lead, 0) if kind == "t" else first
                lead = made.lead - (first - ahead)
                shifted = moved(made, at - 1, ahead) if ahead else made
                if shifted is None:
                    return None
                made = replace(shifted, lead=lead, short=made.short + ahead - (last or 0), wraps=made.wraps and not first)
            elif kind in (".", "1") and (number(p) is not None or isinstance(self.value(p), Amount)):
                continue
            else:
                return None
        return replace(made, axes=(*axes, *v.axes[at:]))

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
            if base is None or not _free(*args, *words.values()):
                return None
            return FREE
        if name in ("cat", "concat", "concatenate") and args and isinstance(args[0], tuple):
            return self._joined(args[0], number(argument(node.args, 1, node.keywords, "dim", "axis")))
        if name == "scaled_dot_product_attention":
            return self._attention(node, args)
        if _free(*args, *words.values()):
            return self._made(node, name, node.args)
        first = args[0] if args else None
        return self._operation(node, name, first, node.args[1:], args[1:], words) if isinstance(first, Reach) else None

    def _made(self, node: ir.Call, name: str, sizes: list[Any]) -> Reach:
        """What is made without tokens; which of its axes are of length one, where that is written."""
        if name in _FILLED:
            given = sizes[:1] if _FILLED[name] == 0 else sizes
            given = given[0].elts if len(given) == 1 and isinstance(given[0], ir.Collection) else given
            return Reach(tuple("1" if number(x) == 1 else "." for x in given))
        return FREE

    def _operation(self, node: ir.Call, name: str, v: Reach, rest: list[Any], args: list[Held], words: dict[Any, Held]) -> Held:
        over = number(argument(rest, 0, node.keywords, "dim", "axis"))
        if name == "size":
            return self._length(v, over) if over is not None else tuple(self._length(v, n) for n in range(len(v.axes))) if v.axes is not None else None
        if name in _FILLED and name != "expand":
            return self._made(node, name, rest)
        if name.endswith("_like"):
            return Reach(v.axes)
        if name == "numel" or name == "dim":
            return Amount()
        if name in ("view", "reshape"):
            given = rest[0].elts if len(rest) == 1 and isinstance(rest[0], ir.Collection) else rest
            return viewed(v, self._sizes(v, given))
        if name == "expand":
            if v.free:
                return self._made(node, name, rest)
            kept = v.axes is not None and len(rest) == len(v.axes) and all(a != "1" or number(r) in (1, -1) for a, r in zip(v.axes, rest, strict=True))
            return v if kept else None
        if name in ("transpose", "swapaxes", "permute"):
            if v.axes is None:
                return v
            if name == "permute":
                given = rest[0].elts if len(rest) == 1 and isinstance(rest[0], ir.Collection) else rest
                order = [number(x) for x in given]
            else:
                order = list(range(len(v.axes)))
                a, b = (number(x) for x in (*rest, None, None)[:2])
                if a is None or b is None or not (v.axis(a) and v.axis(b)):
                    return None
                order[a], order[b] = order[b], order[a]
            return turned(v, [n for n in order if n is not None])
        if name == "unsqueeze" and over is not None and v.axes is not None:
            at = over % (len(v.axes) + 1)
            return replace(v, axes=(*v.axes[:at], "1", *v.axes[at:]))
        if name == "squeeze" and over is not None:
            return pooled(v, over) if v.axis(over) in ("1", ".") else None
        if name == "pad":
            return self._padded(v, argument(rest, 0, node.keywords, "pad"))
        if name == "roll":
            by, dim = (number(argument(rest, n, node.keywords, k)) for n, k in ((0, "shifts"), (1, "dims")))
            if by is None or dim is None or by <= 0 or v.axis(dim) not in ("t", "n") or v.short:
                return v if by is not None and dim is not None and v.axis(dim) == "." else None
            back = moved(v, dim, -by)
            return replace(back, wraps=True) if back is not None else None
        if name == "repeat_interleave":
            by_unit = self.unit(self.place, rest[0]) if rest else None
            held = self.value(rest[0]) if rest else None
            dim = number(argument(rest, 1, node.keywords, "dim"))
            if v.axis(dim) == "." or (v.axis(dim) == "j" and v.fine is None):
                return v
            known = held.unit if isinstance(held, Amount) and held.unit is not None else by_unit
            return spread(v, known) if v.axis(dim) == "n" else None
        if name in ("chunk", "split", "unbind"):
            dim = number(argument(rest, int(name != "unbind"), node.keywords, "dim"))
            if v.axis(0 if dim is None else dim) != "." and not v.free:
                return None
            pieces = number(rest[0]) if name == "chunk" and rest else None
            one = pooled(v, dim) if name == "unbind" and dim is not None else v
            return (one,) * pieces if pieces is not None and pieces > 0 else None
        if name in _NORMS or name == "linear" or name == "normalize":
            shape = rest[0] if rest else None
            plain = name != "layer_norm" or (isinstance(shape, ir.Collection) and len(shape.elts) == 1)
            return v if (v.axis(-1) == "." or v.free) and plain and _free(*args, *words.values()) else None
        if name in ("softmax", "log_softmax"):
            return v if v.axis(over) == "." or v.free else None
        if name in STATISTICS and over is not None:
            return pooled(v, over, any(k == "keepdim" for k, _ in node.keywords))
        if name == "embedding" and args:  # ``F.embedding(ids, table)``
            return replace(v, axes=(*v.axes, ".")) if v.axes is not None and _free(*args) else None
        if name in _EACH:
            made: Held = v
            for other in (*args, *words.values()):
                made = self._both(made, other)
            return made
        return FREE if v.free and _free(*args, *words.values()) else None

    def _sizes(self, v: Reach, given: list[Any]) -> list[Any]:
        held = [self.value(g) for g in given]
        units = {v.unit, *(h.unit for h in held if isinstance(h, Amount) and h.name == "n")} - {None}
        splits = v.axes is not None and (v.fine is None or bool({"t", "j"} & set(v.axes)))
        found: list[Any] = []
        for h in held:
            if not isinstance(h, Amount):
                found.append("." if isinstance(h, Reach) and h.free else "?")
            elif h.name in ("n", "j", "t") and h.unit is not None:
                found.append((h.name, h.unit))
            elif h.name == "." and h.unit in units and splits and found and _name(found[-1]) in ("n", "bn"):
                found.append(("j", h.unit))
            else:
                found.append(h.name)
        return found

    def _joined(self, parts: tuple[Any, ...], dim: int | None) -> Held:
        several = [p for p in parts if isinstance(p, Reach)]
        if dim is None or len(several) != len(parts) or not several:
            return None
        if all(p.free for p in several):
            return FREE
        last = several[-1]
        if last.axis(dim) in (".", "") and last.axes is not None and not last.free:
            made: Held = several[0]
            for p in several[1:]:
                made = self._both(made, p)
            return made if isinstance(made, Reach) and made.axes is not None and made.axis(dim) == "." else None
        front = several[0]
        if len(several) != 2 or last.axes is None or front.axes is None or last.front is not None or (last.coarse is not None and last.axis(dim) != "n"):
            return None
        if front.axes[:1] == ("first",):  # the first token of what lies one behind, before the targets
            beside = front.fine is not None and last.fine is not None and last.axes[:2] == ("b", "t") and dim in (1, 1 - len(last.axes))
            if not beside or front.fine is None or last.fine is None or front.fine - front.lead != last.fine - last.lead - 1:
                return None
            return replace(last, fine=last.fine - 1, short=last.short - 1) if last.short else replace(last, lead=last.lead + 1)
        if front.free and front.axis(dim) == "1" and last.short == 1:
            back = moved(last, dim, -1)
            return replace(back, short=0) if back is not None else None
        return None

    def _padded(self, v: Reach, by: Any) -> Held:
        pairs = by.elts if isinstance(by, ir.Collection) else []
        if v.free or not pairs or v.axes is None or v.front is not None:
            return FREE if v.free else None
        made = v
        for n in range(0, len(pairs) - 1, 2):
            left, right = number(pairs[n]), number(pairs[n + 1])
            kind = v.axis(-1 - n // 2)
            pair = pairs[n]
            behind = self.place.assigned(pair.id) if isinstance(pair, ir.Name) and pair.id not in self.place.params else []
            front = behind[0] if len(behind) == 1 else pairs[n]
            if (left, right) == (0, 0) or kind == ".":
                continue
            if kind not in ("t", "n", "j"):
                return None
            if left == 0 and (right is None or right > 0) and not made.short and kind == "t":
                continue  # zeros behind the window
            if right == 0 and left is not None and 0 < left == made.short:
                back = moved(made, -1 - n // 2, -left)
                if back is None:
                    return None
                made = replace(back, short=0)
            elif right == 0 and kind == "t" and not made.short:
                made = replace(made, front=front)
            else:
                return None
        return made

    def _attention(self, node: ir.Call, args: list[Held]) -> Held:
        q, k, v = (x if isinstance(x, Reach) else None for x in (*args, None, None, None)[:3])
        mask, causal = (argument(node.args, n, node.keywords, w) for n, w in ((3, "attn_mask"), (5, "is_causal")))
        if q is None or k is None or v is None or k.axes is None or v.axes is None or q.axes is None or len(args) > 3:
            return None
        if mask is not None and not (isinstance(mask, ir.Const) and mask.value is None):
            return None
        places = k.axis(-2)
        if places != v.axis(-2) or k.short or v.short or q.short or any(x.front is not None for x in (q, k, v)):
            return None
        self.by.followed.add((self.place.path, node.line))
        says = causal.value if isinstance(causal, ir.Const) else False if causal is None else None
        if says is True and places == q.axis(-2) and places in ("t", "n", "j"):
            return joined(joined(q, k), v)
        if says is not False:
            return None
        if places == "1":
            return joined(joined(q, k), v)
        if places == "j":
            a, b = pooled(k, -2, keep=True), pooled(v, -2, keep=True)
            return joined(joined(q, a), b) if a is not None and b is not None else None
        return None

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
            plain = isinstance(node.func, ir.Name) and name in ("int", "float", "max", "min", "len", "range", "bool", "abs") and _free(*args)
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
            result = returned if not n else _one_of(result, returned)
        return result

    def _library(self, node: ir.Call, made: ir.Call, v: Reach) -> Held:
        kind = self.layers.kind(self.place, made)
        if kind == "Embedding":
            return replace(v, axes=(*v.axes, ".")) if v.axes is not None else None
        if kind in ("Dropout", "Identity") or (kind in self.layers.pointwise and kind not in ("Linear", "LayerNorm", "RMSNorm")):
            return v
        if kind in ("Linear", "LayerNorm", "RMSNorm"):
            return v if v.axis(-1) == "." else None
        if kind != "Conv1d" or v.axis(-1) != "t":
            return None
        size, step, pad, gap = (argument(made.args, n, made.keywords, k) for n, k in ((2, "kernel_size"), (3, "stride"), (4, "padding"), (5, "dilation")))
        taps = Taps(self.layers, self.place)
        if pad is not None and taps.number(pad) != 0:
            return None
        if step is not None and taps.number(step) != 1:
            init = self.layers.methods.get(id(self.place.owner), {}).get("__init__")
            wide = [self.unit(init, x) for x in (size, step)] if init is not None else [None]
            return folded(v, wide[0]) if wide[0] is not None and wide[0] == wide[-1] and gap is None else None
        if taps.number(size) == 1:
            return v
        beyond = reaches(v.front, size, gap, taps) if v.front is not None else None
        return replace(v, front=None) if beyond is False else None


def _reckoned(op: str, a: Amount, b: Amount) -> Amount:
    if op == "//" and a.name == "t" and b.unit is not None:
        return Amount("n", b.unit)
    if op == "*":
        for x, y in ((a, b), (b, a)):
            if x.name == "b" and y.name in ("n", "t"):
                return Amount("bn" if y.name == "n" else "f")
            if x.name == "n" and y.unit is not None and y.unit == x.unit:
                return Amount("t", x.unit)
    return Amount()


def _name(size: Any) -> str:
    return str(size[0]) if isinstance(size, tuple) else str(size)


def _free(*several: Held) -> bool:
    """Is none of these made of tokens."""
    return all(isinstance(v, Amount) or (isinstance(v, Reach) and v.free) or (isinstance(v, tuple) and _free(*v)) for v in several)


def _one_of(a: Held, b: Held) -> Held:
    if a == b:
        return a
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(_one_of(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Amount) and isinstance(b, Amount):
        return Amount()
    a, b = (FREE if isinstance(x, Amount) else x for x in (a, b))
    return either(a, b) if isinstance(a, Reach) and isinstance(b, Reach) else None


def stripped(node: Any) -> Any:
    """Predictions or targets before all their positions were put in a row."""
    while isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _STRIPS:
        node = node.func.value
    return node


__all__ = ["Amount", "Follower", "Held", "stripped"]
