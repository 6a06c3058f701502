"""What a module's attributes were made of, which function a call means, and what instances are known to hold.

No rule lives here. Attributes are looked up per class: two classes may call different things ``conv``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from audit import ir
from audit.rules.code import Code, Place
from audit.rules.rounding import Rounding, rounding_of
from audit.rules.sequence import POINTWISE, Sequences
from audit.rules.settings import settings_of

#: how many times token ids are handed on from method to method
_HANDS = 4


class Layers:
    """Of the script's classes: constructor calls by attribute, methods by name, and settings."""

    pointwise = POINTWISE

    def __init__(self, code: Code, along: Sequences) -> None:
        self.code, self.along = code, along
        #: calls that a reading may still enter
        self.left = 0
        self.methods: dict[int, dict[str, Place]] = {}
        self.functions: dict[str, list[Place]] = {}
        self.calls: dict[tuple[int, str], list[Any]] = {}
        self._settings: dict[int, dict[str, Any]] = {}
        self._rounding: dict[int, Rounding] = {}
        #: per class: masks that its objects are built with, by attribute
        self.masks: dict[int, dict[str, Any]] = {}
        self._stored = {
            n.attr for p in code.places for s in p.nodes(ir.Assign, ir.AugAssign)
            for t in (s.targets if isinstance(s, ir.Assign) else [s.target]) if not isinstance(t, ir.Name)
            for n in ir.walk(t) if isinstance(n, ir.Attr)
        }  # fmt: skip
        for p in code.places:
            if p.function is None:
                continue
            if p.owner is None:
                self.functions.setdefault(p.function.name, []).append(p)
                continue
            self.methods.setdefault(id(p.owner), {})[p.function.name] = p
            for n in p.nodes(ir.Assign):
                for t, value in (pair for target in n.targets for pair in _paired(target, n.value)):
                    if isinstance(t, ir.Attr) and isinstance(t.value, ir.Name) and t.value.id == "self":
                        self.calls.setdefault((id(p.owner), t.attr), []).append(value)

    def settings(self, place: Place) -> dict[str, Any]:
        """Attributes that every instance holds at one known value, constants of the class among them."""
        if place.owner is None:
            return {}
        key = id(place.owner)
        if key not in self._settings:
            trace = self.code.ctx.trace
            held = {
                t.id: s.value.value
                for s in place.owner.body
                if isinstance(s, ir.Assign) and isinstance(s.value, ir.Const)
                for t in s.targets
                if isinstance(t, ir.Name) and t.id not in self._stored
            }
            if "training" not in self._stored and not self._told_training:  # as it is where scores are made
                held["training"] = self.always_trains
            self._settings[key] = {**held, **settings_of(trace.parts if trace is not None else (), place.owner.name)}
        return self._settings[key]

    def constants(self, place: Place) -> dict[str, Any]:
        """Names of the program's own level that hold one known value, switches among them, which the place does not shadow."""
        trace = self.code.ctx.trace
        if trace is None or place.path != self.code.ctx.primary:
            return {}
        own = place.params | set(place.by_name)
        return {k: v for k, v in self._constants.items() if k not in own}

    @cached_property
    def _constants(self) -> dict[str, Any]:
        primary, trace = self.code.ctx.primary, self.code.ctx.trace
        tops = [p for p in self.code.places if p.function is None and p.path == primary]
        changed = {name for p in self.code.places for s in p.nodes(ir.Scope) for name in s.names}
        once = {name for p in tops for name, made in p.by_name.items() if len(made) == 1}
        return {k: v for k, v in trace.constants.items() if k in once - changed} if trace is not None else {}

    def rounding(self, place: Place) -> Rounding:
        """Where a place rounds values to steps of a scale."""
        if id(place) not in self._rounding:
            self._rounding[id(place)] = rounding_of(place)
        return self._rounding[id(place)]

    def made(self, place: Place, func: Any) -> ir.Call | None:
        """The constructor call of the library behind ``self.name``, ``self.name[i]``, or a loop's variable over these."""
        call = self._only(place, func)
        if call is None and isinstance(func, ir.Sub):
            call = self._element(place, self._only(place, func.value))
        elif call is None and isinstance(func, ir.Name):
            over = [n.iter for n in place.nodes(ir.For, ir.CompFor) if any(isinstance(x, ir.Name) and x.id == func.id for x in ir.walk(n.target))]
            lists = [self._only(place, x) for x in ir.walk(over) if isinstance(x, ir.Attr)] if len(over) == 1 else []
            call = self._element(place, lists[0]) if len(lists) == 1 else None
            kinds = {self.kind(place, x) if x is not None else "" for x in lists}
            if len(lists) > 1 and isinstance(over[0], ir.Collection) and len(over[0].elts) == len(lists) and kinds == {"Linear"}:
                call = lists[0]  # ``f(x) for f in (self.q, self.k, self.v)``
        elif call is not None and self.kind(place, call) == "Sequential":
            call = self._element(place, call) or call
        return call if call is not None and self.kind(place, call) else None

    def kind(self, place: Place, call: ir.Call) -> str:
        """The library's name of what a constructor call makes, "" where it is none of the library."""
        name = self.code.dotted(place, call.func)
        return name.rpartition(".")[2] if name.startswith(("torch.nn.", "nn.", "mlx.nn.")) else ""

    def built(self, place: Place, node: Any) -> ir.Call | None:
        """The one call that an expression of a class's methods stands for: itself, or what a name was assigned."""
        if not isinstance(node, ir.Name):
            return node if isinstance(node, ir.Call) else self._only(place, node)
        own = self.methods.get(id(place.owner), {}).values()
        values = [value for p in own for value in p.assigned(node.id)]
        return values[0] if len(values) == 1 and isinstance(values[0], ir.Call) else None

    def _only(self, place: Place, func: Any) -> ir.Call | None:
        if not (isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "self") or place.owner is None:
            return None
        values = self.calls.get((id(place.owner), func.attr), [])
        return values[0] if len(values) == 1 and isinstance(values[0], ir.Call) else None

    def _element(self, place: Place, stack: ir.Call | None) -> ir.Call | None:
        """What a list or a chain of layers that are all made alike is made of."""
        if stack is None or self.kind(place, stack) not in ("ModuleList", "Sequential") or len(stack.args) != 1:
            return None
        inner = stack.args[0].value if isinstance(stack.args[0], ir.Starred) else stack.args[0]
        if isinstance(inner, ir.Comp):
            return inner.elt if isinstance(inner.elt, ir.Call) else None
        several = inner.elts if isinstance(inner, ir.Collection) else []
        return several[0] if len(several) == 1 and isinstance(several[0], ir.Call) else None

    def target(self, place: Place, func: Any) -> Place | None:
        """The script's function that a call means: a method, a function of the module, a layer's ``forward``."""
        if isinstance(func, ir.Sub):
            func = func.value
        if isinstance(func, ir.Name):
            found = [f for f in self.functions.get(func.id, ()) if f.path == place.path]
            if len(found) == 1:
                return found[0]
            return self._one(place, func)
        if isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "self" and place.owner is not None:
            own = self.methods.get(id(place.owner), {}).get(func.attr)
            if own is not None:
                return own
            return self._one(place, func)
        return None

    def _one(self, place: Place, func: Any) -> Place | None:
        several = self.along.layers_of(place, func)
        return several[0] if len(several) == 1 else None

    def touched(self, place: Place, func: Any) -> bool:
        """Does its class read the weight behind ``self.name`` itself, perhaps to mask it."""
        name = func.attr if isinstance(func, ir.Attr) else ""
        own = self.methods.get(id(place.owner), {}).values()
        return any(
            n.attr in ("weight", "register_forward_pre_hook") and isinstance(n.value, ir.Attr) and n.value.attr == name
            for p in own for n in p.nodes(ir.Attr)
        )  # fmt: skip

    def rewritten(self, made: Place, attribute: str) -> bool:
        """Does anything but a class's constructor write to an attribute of that name."""
        for p in self.code.places:
            if attribute not in p.names:
                continue
            stored = [t for s in p.nodes(ir.Assign) for t in s.targets] + [s.target for s in p.nodes(ir.AugAssign, ir.AnnAssign)]
            inside = [n for t in stored for n in ir.walk(t) if isinstance(n, ir.Attr) and n.attr == attribute]
            plain = [t for t in stored if isinstance(t, ir.Attr) and t.attr == attribute]
            if inside and (p is not made or len(inside) > len(plain)):
                return True
            called = [n.func for n in p.nodes(ir.Call) if isinstance(n.func, ir.Attr) and n.func.attr.endswith("_")]
            if any(isinstance(n, ir.Attr) and n.attr == attribute for f in called for n in ir.walk(f.value)):
                return True
        return False

    @cached_property
    def ids(self) -> set[tuple[int, str]]:
        """Parameters that are token ids, by place: what a table is looked up with, also in the method that hands it on."""
        found: set[tuple[int, str]] = set()
        places = [p for p in self.code.places if p.owner is not None and p.function is not None]
        for p in places:
            for n in p.nodes(ir.Call):
                if isinstance(n.func, ir.Attr) and n.func.attr in self.along.embeddings.tables and self.along.along(p, n):
                    given = [x.id for a in n.args[:1] for x in ir.walk(a) if isinstance(x, ir.Name)]
                    found |= {(id(p), name) for name in given if p.function is not None and any(a.name == name for a in p.function.params[1:])}
        for _ in range(_HANDS):
            before = len(found)
            for p in places:
                own = {name for at, name in found if at == id(p)}
                for n in p.nodes(ir.Call) if own else ():
                    for at, a in enumerate(n.args):
                        if isinstance(a, ir.Name) and a.id in own:
                            found |= {(id(target), name) for target, name in self.along.parameters(p, n, [at])}
            if len(found) == before:
                break
        return found

    @cached_property
    def always_trains(self) -> bool:
        """Does nothing in the program put a model into evaluation mode: ``eval()``, ``train(False)``, ``training = …``."""
        for p in self.code.places:
            if "eval" in p.names:
                return False
            if "train" in p.names:
                calls = [n for n in p.nodes(ir.Call) if n.args or n.keywords]
                if any((isinstance(n.func, ir.Attr) and n.func.attr == "train") or _says(n, "train") for n in calls):
                    return False
        return "training" not in self._stored and not self._told_training

    @cached_property
    def _told_training(self) -> bool:
        """Is an attribute of that name written by ``setattr``."""
        return any(_says(n, "training") for p in self.code.places for n in p.nodes(ir.Call))

    def redefined(self, name: str) -> bool:
        """Does the script have a function of its own under a library's name."""
        return name in self.functions


def _says(call: ir.Call, word: str) -> bool:
    """Is a text handed in, as to ``setattr`` or ``getattr``."""
    return any(isinstance(a, ir.Const) and a.value == word for a in call.args)


def _paired(target: Any, value: Any) -> list[tuple[Any, Any]]:
    """``self.a, self.b = nn.Linear(…), nn.Linear(…)``: each with its own; or one expression for all of them."""
    if isinstance(target, ir.Collection) and isinstance(value, ir.Comp):
        return [(t, value.elt) for t in target.elts]
    return ir.paired(target, value)


__all__ = ["Layers"]
