"""Follows what a module's methods do along time, statement by statement, with a `Value` per local name.

No rule lives here. What is known about an instance's settings decides branches; inside a branch that nothing decides,
what is found is in doubt. Helpers and layers of the script are read with what they are given. A shift or a filter
counts where its result is returned or goes into a layer: in a loss beside the model it says nothing about the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from audit import ir
from audit.rules import axes as ax
from audit.rules import encoders, slots
from audit.rules import masks as hide
from audit.rules import mixing as mix
from audit.rules.axes import Env, Fixed, Grid, Known, Size, Value
from audit.rules.code import Code, Place
from audit.rules.expressions import BATCH, BRANCH, TURNED, UNMASKED, Expressions, Seen, called, projected
from audit.rules.filters import Taps, filtered
from audit.rules.final_states import RECURRENT
from audit.rules.groups import moves, pooled, put_back
from audit.rules.kernels import turned_back
from audit.rules.layers import Layers
from audit.rules.sequence import Sequences
from audit.rules.settings import decided

#: how many calls deep helpers and layers are read
DEPTH = 3
#: and how many calls of one method's reading are entered at all
CALLS = 500
_NONE: Mapping[str, Any] = {}


class Reading(Expressions):
    """One method with what its parameters hold, and what is found in it and below it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        #: what the method makes the object hold
        self.kept: Env = {}

    def read(self) -> Known:
        """What the method returns, where every way of it returns the same."""
        if self.place.function is not None:
            self._body(self.place.function.body)
        first = self.returned[0] if self.returned else None
        return first if all(r == first for r in self.returned) else None

    def _body(self, body: list[Any]) -> bool:
        """Runs statements; True where they always leave the method."""
        for s in body:
            if isinstance(s, ir.If):
                if self._branch(s):
                    return True
            elif isinstance(s, ir.Return):
                value = self.known(s.value) if s.value is not None else None
                self.returned.append(value)
                first = value[0] if isinstance(value, tuple) and value else value
                share = isinstance(first, Value) and first.ahead is not None and first.ahead[1] in mix.SHARES
                if not share or (self.place.function is not None and self.place.function.name == "forward"):
                    self._handed_on(first)
                return True
            elif isinstance(s, ir.Raise) or (isinstance(s, ir.Jump) and s.kind != "pass"):
                return True
            else:
                self._statement(s)
        return False

    def _statement(self, s: Any) -> None:
        if isinstance(s, ir.Assign):
            if len(s.targets) == 1 and isinstance(s.targets[0], ir.Collection):
                self._unpack(s.targets[0].elts, s.value)
                return
            value = self.known(s.value)
            for t in s.targets:
                self._bind(t, value, s)
        elif isinstance(s, ir.AnnAssign) and s.value is not None:
            self._bind(s.target, self.known(s.value), s)
        elif isinstance(s, ir.AugAssign):
            value = self.known(s.value)
            if isinstance(s.target, ir.Name):
                plain = isinstance(s.value, ir.Const)
                held = self.env.get(s.target.id)
                masked = self._under_mask(s, s.op, held, value)
                self.env[s.target.id] = masked if masked is not None else mix.both(s, held, value, plain)
            else:
                self._bind(s.target, None, s)
        elif isinstance(s, ir.ExprStmt):
            value = self.known(s.value)
            self._registered(s.value)
            # An operation in place, or a helper that writes into what it is given.
            for n in ir.walk(s.value):
                if not isinstance(n, ir.Name):
                    continue
                v = self.env.get(n.id)
                if isinstance(v, Grid) or (isinstance(v, Value) and (v.state or v.ahead)):
                    self.env[n.id] = None
            if isinstance(s.value, ir.Call) and isinstance(s.value.func, ir.Attr) and s.value.func.attr in hide.IN_PLACE:
                written = s.value.func.value
                if isinstance(written, ir.Name) and (isinstance(value, Grid) or (isinstance(value, Value) and value.state)):
                    self.env[written.id] = value
        elif isinstance(s, (ir.For, ir.While)):
            if isinstance(s, ir.For):
                self.known(s.iter)
                walks = s.iter.func.id if isinstance(s.iter, ir.Call) and isinstance(s.iter.func, ir.Name) else ""
                self._bind(s.target, Size(".") if walks == "range" else (Size("."), None) if walks == "enumerate" else None, s)
            self._body(s.body)
        elif isinstance(s, ir.With):
            self._body(s.body)
        elif isinstance(s, ir.Try):
            self._body(s.body)
            self.doubt += 1
            for h in s.handlers:
                self._body(h.body)
            self.doubt -= 1

    def _branch(self, s: ir.If) -> bool:
        test = self._decided(s.test)
        if test is not None:
            return self._body(s.body if test else s.orelse)
        before = dict(self.env)
        if (test := decided(s.test, _NONE, self.layers.constants(self.place))) is not None:
            # As knobs are set: the other way is looked at, and nothing of it stays.
            taken, other = (s.body, s.orelse) if test else (s.orelse, s.body)
            self.doubt, returned = self.doubt + 1, len(self.returned)
            self._body(other)
            self.doubt, self.env = self.doubt - 1, before
            del self.returned[returned:]
            return self._body(taken)
        self.doubt += 1
        begun = len(self.seen)
        left = self._body(s.body)
        first, self.env = self.env, before
        turn = len(self.seen)
        right = self._body(s.orelse)
        if self.doubt == 1:
            self._either_is_taken(begun, turn)
        if not (left or right):
            self.doubt -= 1
            self.env = ax.merged(first, self.env)
        elif right:
            self.env = first
        # What comes after a branch that left stays in doubt: it may be the way that is not taken.
        return left and right

    def _either_is_taken(self, begun: int, turn: int) -> None:
        """Where both ways of a branch show later positions, one of them does so for certain."""
        ways = [[n for n in of if self.seen[n].lacks == BRANCH] for of in (range(begun, turn), range(turn, len(self.seen)))]
        if all(ways):
            for n in (ways[0][0], ways[1][0]):
                self.seen[n] = replace(self.seen[n], lacks="")

    def _bind(self, target: Any, value: Known, s: Any) -> None:
        if isinstance(target, ir.Name):
            self.env[target.id] = value
        elif isinstance(target, ir.Collection):
            parts = value if isinstance(value, tuple) and len(value) == len(target.elts) else [None] * len(target.elts)
            for t, v in zip(target.elts, parts, strict=True):
                self._bind(t, v, s)
        elif isinstance(target, ir.Attr) and isinstance(target.value, ir.Name) and target.value.id == "self":
            self._keep(target.attr, value)
        elif isinstance(target, ir.Sub) and (root := _root(target)) is not None and isinstance(self.env.get(root), Grid):
            self.env[root] = None
        elif isinstance(target, ir.Sub) and isinstance(target.value, ir.Name):
            held = self.env.get(target.value.id)
            which = self.known(target.index) if isinstance(target.index, (ir.Name, ir.Compare, ir.UnaryOp)) else None
            if isinstance(which, Value) and not which.state and which.ahead is not None and which.ahead[1] == mix.LIMIT:
                self.env[target.value.id] = Value((*which.axes, "c"), which.origin, "", which.ahead)
            elif isinstance(held, Value):
                self.env[target.value.id] = self._written(held, target, value, s)

    def _written(self, held: Value, target: ir.Sub, value: Known, s: Any) -> Value | None:
        """``y[:, :-1] = x[:, 1:]`` moves every position's state to the one before."""
        parts = target.index.elts if isinstance(target.index, ir.Collection) else [target.index]
        at = held.axes.index("t") if "t" in held.axes else len(parts)
        if isinstance(value, Value) and value.state == "tail" and at < len(parts):
            time = parts[at]
            if isinstance(time, ir.Slice) and time.lower is None and (ax.number(time.upper) or 0) < 0:
                return replace(held, state="", ahead=(s, mix.NEXT))
        return held if not held.state and not held.ahead else None

    def _registered(self, call: Any) -> None:
        """``self.register_buffer("mask", mask)``"""
        if isinstance(call, ir.Call) and called(call) == "register_buffer":
            name, value = (ax.argument(call.args, n, call.keywords, k) for n, k in ((0, "name"), (1, "tensor")))
            if isinstance(name, ir.Const) and isinstance(name.value, str):
                self._keep(name.value, self.known(value) if value is not None else None)

    def _keep(self, attribute: str, value: Known) -> None:
        once = attribute not in self.kept and not self.doubt
        self.kept[attribute] = value if once and isinstance(value, Grid) else None

    def _held(self, attribute: str) -> Known:
        """A mask that the object was given when it was built, and that nothing writes to later."""
        owner = self.place.owner
        if owner is None:
            return None
        if id(owner) not in self.layers.masks:
            self.layers.masks[id(owner)] = {}
            made = self.layers.methods.get(id(owner), {}).get("__init__")
            if made is not None and ("triu" in made.names or "tril" in made.names or "arange" in made.names):
                building = Reading(self.code, self.along, self.layers, made, {}, DEPTH)
                building.read()
                self.layers.masks[id(owner)] = {k: v for k, v in building.kept.items() if not self.layers.rewritten(made, k)}
        return self.layers.masks[id(owner)].get(attribute)

    def _unpack(self, targets: list[Any], node: Any) -> None:
        value = self.known(node)
        if isinstance(value, Value):
            if isinstance(node, ir.Call) and called(node) in ("unbind", "chunk", "split", "tensor_split"):
                self._all(targets, value)
            elif value.axis(0) not in ("t", "s", "b") and not value.state:
                self._all(targets, replace(value, axes=value.axes[1:]))
            else:
                self._all(targets, None)
        elif isinstance(value, tuple) and len(value) == len(targets):
            for t, v in zip(targets, value, strict=True):
                self._bind(t, v, node)
        elif isinstance(node, ir.Attr) and node.attr == "shape" and len(targets) == 2:
            # Token ids, before anything is known about them.
            self._bind(targets[0], Size("b"), node)
            self._bind(targets[1], Size("t"), node)
        else:
            self._all(targets, None)

    def _all(self, targets: list[Any], value: Known) -> None:
        for t in targets:
            self._bind(t, value, t)

    def _layer(self, node: ir.Call, name: str, args: list[Known]) -> Known:
        """A layer, or a method or function of the script, with what it is given."""
        first = args[0] if args else None
        made = self.layers.made(self.place, node.func)
        if made is not None and (kind := self.layers.kind(self.place, made)) and encoders.is_encoder(kind):
            return self._encoded(node, made, kind)
        if made is not None and isinstance(first, Value):
            return self._library_layer(node, made, first)
        target = self.layers.target(self.place, node.func)
        for a in args:
            if target is None or target.function is None or target.function.name == "forward":
                self._handed_on(a)
        result: Known = None
        if target is not None and self.depth < DEPTH and self.layers.left and any(isinstance(a, Value) for a in args):
            self.layers.left -= 1
            result = self._enter(target, node, args)
        elif target is not None and self.depth < DEPTH and self.layers.left and any(isinstance(a, (Size, Grid)) for a in args):
            self.layers.left -= 1
            before = len(self.seen)
            made_of_lengths = self._enter(target, node, args)
            del self.seen[before:]
            return made_of_lengths if isinstance(made_of_lengths, Grid) else None
        plain = isinstance(first, Value) and first.axes == ("b", "t", "c") and not first.state
        coarse = isinstance(first, Value) and first.axes == ("b", "g", "c") and target is not None
        if result is None and coarse and target is not None and not any(moves(p) for p in self._within(target)):
            return first
        if result is None and plain and isinstance(first, Value) and self.along.along(self.place, node):
            return replace(first, ahead=None)
        return result

    def _within(self, target: Place, depth: int = DEPTH) -> list[Place]:
        """A function, the methods beside it, and what these call."""
        found = [target, *(self.layers.methods.get(id(target.owner), {}).values() if target.owner is not None else ())]
        if depth:
            called = [self.layers.target(p, n.func) for p in found for n in p.nodes(ir.Call)]
            inner = {id(t): t for t in called if t is not None and all(t is not p for p in found)}
            found += [p for t in inner.values() for p in self._within(t, depth - 1)]
        return found

    def _enter(self, target: Place, node: ir.Call, args: list[Known]) -> Known:
        assert target.function is not None
        params = [p for p in target.function.params if p.kind in ("pos", "posonly", "kwonly")]
        if target.owner is not None:
            params = params[1:]
        if any(isinstance(a, ir.Starred) for a in node.args) or any(k is None for k, _ in node.keywords):
            return None
        env: Env = {p.name: Fixed(p.default.value) for p in params if isinstance(p.default, ir.Const)}
        env |= {p.name: a for p, a in zip(params, args, strict=False)}
        env |= {k: self.known(v) for k, v in node.keywords if k is not None}
        inner = Reading(self.code, self.along, self.layers, target, env, self.depth + 1, self.doubt)
        result = inner.read()
        self.seen += inner.seen
        return result

    def _encoded(self, node: ir.Call, made: ir.Call, kind: str) -> Known:
        """One of the library's attention layers; (B, T, C) activations, turned where it wants time first."""
        axis = encoders.sequence_axis(self.layers, self.place, made, kind)
        for queries, keys, masked in encoders.attends(node, kind, self._constant, self._blocks) if axis is not None else ():
            q, k = self.known(queries), self.known(keys)
            if not (isinstance(q, Value) and isinstance(k, Value)) or len(q.axes) != 3 or q.state or k.state:
                continue
            alike = queries is keys or mix.alike(queries, keys) or (q.origin == k.origin and len(q.origin) == 1)
            if alike and q.axis(axis) == k.axis(axis) == "t":
                several = encoders.other_inputs(self.along, self.place)
                self._report(node, TURNED if masked else UNMASKED, "that it reads the tokens that are scored" if several else "")
            elif alike and q.axis(axis) == k.axis(axis) == "b" and not masked:
                self._report(node, BATCH, "that these hold nothing later")
        if kind == "MultiheadAttention" and axis is not None and (found := self._slots(node, axis)) is not None:
            return found
        first = self.known(ax.argument(node.args, 0, node.keywords, "src", "tgt", "query"))
        whole = replace(first, ahead=None) if isinstance(first, Value) and not first.state else None
        return (whole, None) if kind == "MultiheadAttention" else whole

    def _slots(self, node: ir.Call, axis: int) -> tuple[Known, ...] | None:
        """``nn.MultiheadAttention`` of slots to the window, or of the window's positions to slots."""
        names = ("query", "key", "value")
        given = [self.known(ax.argument(node.args, n, node.keywords, name)) for n, name in enumerate(names)]
        bare = any(not masked for _, _, masked in encoders.attends(node, "MultiheadAttention", self._constant, self._blocks))
        made, read = slots.attended(node, given, axis) if bare else (None, False)
        if read:
            self._report(node, slots.READ, "that it reads the tokens that are scored" if encoders.other_inputs(self.along, self.place) else "")
        return (made, None) if made is not None else None

    def _blocks(self, mask: Any) -> bool:
        """Does a mask that one of these layers is given leave later positions in sight."""
        return hide.ahead(hide.blocked(self.known(mask)))

    def _library_layer(self, node: ir.Call, made: ir.Call, v: Value) -> Known:
        kind = made.func.attr if isinstance(made.func, ir.Attr) else made.func.id if isinstance(made.func, ir.Name) else ""
        if kind in ("AvgPool1d", "MaxPool1d"):
            size, step, pad = (ax.argument(made.args, n, made.keywords, k) for n, k in enumerate(("kernel_size", "stride", "padding")))
            return pooled(v, size, step if step is not None else size, pad)
        if kind == "Conv1d" and (step := ax.argument(made.args, 3, made.keywords, "stride")) is not None and ax.number(step) != 1:
            size, pad = (ax.argument(made.args, n, made.keywords, k) for n, k in ((2, "kernel_size"), (4, "padding")))
            return pooled(v, size, step, pad)
        if kind in RECURRENT and v.axes == ("b", "g", "c"):  # from group to group, in their order
            words = {k: x.value for k, x in made.keywords if isinstance(x, ir.Const)}
            return (v, None) if not v.state and words.get("batch_first") is True and not words.get("bidirectional") else None
        if kind in RECURRENT and (back := turned_back(v, node)) is not None and v.axes == ("b", "t", "c"):
            first = any(k == "batch_first" and isinstance(x, ir.Const) and x.value is True for k, x in made.keywords)
            return (back, None) if first else None
        if kind in ("ConvTranspose1d", "Upsample"):
            return put_back(v, node, ("b", "c", "t"), self.place) if v.axes == ("b", "c", "g") else None
        if kind == "Conv1d":
            return filtered(v, node, made, Taps(self.layers, self.place))
        if kind in ("ZeroPad1d", "ZeroPad2d", "ConstantPad1d"):
            return mix.padded(v, node, made.args[0] if made.args else None)
        if kind in mix.NORMS and v.axis(-1) == "t" and len(v.axes) == 3 and not v.state:
            tracked = [x for k, x in made.keywords if k == "track_running_stats"]
            learned = kind == "BatchNorm1d" and not self.layers.always_trains
            fixed = learned and not any(isinstance(x, ir.Const) and x.value is False for x in tracked)
            fixed = fixed or (kind == "InstanceNorm1d" and bool(tracked))
            return v if fixed else replace(v, ahead=(node, mix.WHOLE.format("norm")))
        if kind in ("Dropout", "Identity"):
            return v
        self._handed_on(replace(v, state="") if v.state == mix.LEVEL else v)
        if kind == "Linear" and v.axis(-1) == "t" and not v.state and not self.layers.touched(self.place, node.func):
            return replace(v, ahead=(node, mix.OVER))
        if kind == "Linear":
            return projected(v if v.state == "wrap" else replace(v, ahead=None))
        if v.state == "wrap":
            return v if kind in self.layers.pointwise else None
        return replace(v, ahead=None) if kind in self.layers.pointwise and v.axis(-1) != "t" and v.state in ("", slots.SLOTS) else None


def _root(node: Any) -> str | None:
    """The name that ``mask[i][:, j]`` is part of."""
    while isinstance(node, (ir.Sub, ir.Attr)):
        node = node.value
    return node.id if isinstance(node, ir.Name) else None


def readings(code: Code, along: Sequences, layers: Layers, place: Place) -> Iterator[Seen]:
    """What is seen in a module's method that is given activations or token ids."""
    if place.owner is None or place.function is None:
        return
    env: Env = {
        p.name: Value(("b", "t", "c"), frozenset({p.name}))
        for p in place.function.params
        if (id(place), p.name) in along.params
    }
    calls = (n for n in place.nodes(ir.Call) if isinstance(n.func, ir.Attr))
    if not env and not any(c.func.attr in along.embeddings.tables for c in calls):  # type: ignore[attr-defined]
        return
    layers.left = CALLS
    reading = Reading(code, along, layers, place, env)
    reading.read()
    yield from reading.seen


__all__ = ["BRANCH", "Reading", "Seen", "readings"]
