"""Which of the script's own modules an expression may stand for: an attribute, a list's element, a local name.

No rule lives here. An instance is made by its constructor's call, also in one way of a branch, through local names and
class objects (``kind = A if fast else B; self.mix = kind(dim)``), registries of classes, functions and methods that
return instances, ``setattr`` and ``add_module``; lists grow by ``append`` and their like, and what a constructor is given
is looked up where it is called. Where several classes are possible, all of them are named; where none is known, none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.rules.code import Code, Place

_NONE: frozenset[str] = frozenset()
#: an expression in the place in which it stands
_At = tuple[Place, Any]
#: how far names, functions and constructors are followed
_DEPTH = 10
_GROWS = {"append": 0, "add": 0, "insert": 1, "extend": 0, "update": 0}
_NAMED = frozenset({"setattr", "add_module", "register_module"})
_LIBRARY = ("torch.", "nn.", "mlx.")
#: the library's containers, and what it puts around a model
_AROUND = frozenset(
    """ModuleList ModuleDict Sequential compile DistributedDataParallel DataParallel FullyShardedDataParallel checkpoint_wrapper
    script fully_shard""".split()
)
#: methods of a module, or of a list or dict of them, that return it or its elements
_ITSELF = frozenset("to cuda cpu eval train float double bfloat16 half requires_grad_ values items children modules get pop apply".split())


#: expressions that may hold an instance; a number, a comparison, a slice never does
_HOLDS = frozenset(
    (ir.Attr, ir.Await, ir.BinOp, ir.BoolOp, ir.Call, ir.Collection, ir.Comp, ir.Dict, ir.IfExp, ir.Name, ir.NamedExpr, ir.Starred, ir.Sub)
)


class Members:
    """Looks the classes up when they are asked for, and keeps what was found."""

    def __init__(self, code: Code) -> None:
        self.code = code
        #: the ``forward`` that runs an instance, inherited ones included, by class
        self.forwards: dict[str, Place] = {}
        self.bases: dict[str, list[str]] = {}
        #: what attributes are assigned, by class and name; under "" whatever object it is that holds them
        self.values: dict[tuple[str, str], list[_At]] = {}
        #: what is put into lists under local names, and what parameters are given
        self.grown: dict[tuple[int, str], list[_At]] = {}
        self.given: dict[tuple[int, str], list[_At]] = {}
        self.functions: dict[str, list[Place]] = {}
        self.methods: dict[tuple[str, str], Place] = {}
        self.tops: dict[str, list[Place]] = {}
        self._walked: dict[int, dict[str, list[Any]]] = {}
        self._bound: dict[int, dict[str, list[Any]]] = {}
        self._found: dict[tuple[int, int], frozenset[str]] = {}
        self._attributes: dict[tuple[str, str], frozenset[str]] = {}
        self._open: set[Any] = set()
        self._ran: dict[int, frozenset[str]] = {}
        #: how often a question was left out, for being asked already or for its depth
        self._cut = 0
        self._classes()
        self._collect()
        #: attributes that stand for such a module anywhere
        self.names = {a for _, a in self.values if self.attribute("", a)} if self.forwards else set()

    def _classes(self) -> None:
        for p in self.code.places:
            if p.function is None:
                self.tops.setdefault(p.path, []).append(p)
            elif p.owner is None:
                self.functions.setdefault(p.function.name, []).append(p)
            else:
                self.methods[p.owner.name, p.function.name] = p
                self.bases[p.owner.name] = [b.id for b in p.owner.bases if isinstance(b, ir.Name)]
                if p.function.name == "forward":
                    self.forwards[p.owner.name] = p
        for name in self.bases if self.forwards else ():
            if name not in self.forwards and (above := self._method(name, "forward")) is not None:
                self.forwards[name] = above

    def _method(self, owner: str, name: str, depth: int = 4) -> Place | None:
        own = self.methods.get((owner, name))
        if own is not None or not depth:
            return own
        above = (self._method(b, name, depth - 1) for b in self.bases.get(owner, ()))
        return next((p for p in above if p is not None), None)

    def _collect(self) -> None:
        inits = {name: init for name in self.forwards if (init := self._method(name, "__init__")) is not None}
        for place in self.code.places if self.forwards else ():
            for s in place.nodes(ir.Assign, ir.AnnAssign, ir.AugAssign):
                if s.value is None:
                    continue
                for target in s.targets if isinstance(s, ir.Assign) else [s.target]:
                    for t, value in ir.paired(target, s.value):
                        each = t.elts if isinstance(t, ir.Collection) else [t]  # ``self.q, self.k = (A() for _ in range(2))``
                        for x in each:
                            if not isinstance(x, ir.Name) or isinstance(s, ir.AugAssign):
                                self._store(place, x, value)
            for call in place.nodes(ir.Call):
                func = call.func
                name = func.attr if isinstance(func, ir.Attr) else func.id if isinstance(func, ir.Name) else ""
                if name in _GROWS and isinstance(func, ir.Attr) and len(call.args) > _GROWS[name]:
                    self._store(place, func.value, call.args[_GROWS[name]])
                elif name in _NAMED and len(call.args) > 1:
                    self._named(place, call)
                elif name in inits:
                    init = inits[name]
                    for parameter, value in handed(init, call):
                        self.given.setdefault((id(init), parameter), []).append((place, value))
                elif (callee := self._runs_layers(place, func)) is not None:
                    for parameter, value in handed(callee, call, callee.owner is not None):
                        if parameter in self._run_by(callee):
                            self.given.setdefault((id(callee), parameter), []).append((place, value))
                for word, value in call.keywords:  # ``nn.ModuleDict(dict(wte=nn.Embedding(…), h=nn.ModuleList([…])))``
                    if word is not None and isinstance(value, ir.Call):
                        self.values.setdefault(("", word), []).append((place, value))
            for d in place.nodes(ir.Dict):
                for key, value in d.items:
                    if isinstance(key, ir.Const) and isinstance(key.value, str) and isinstance(value, ir.Call):
                        self.values.setdefault(("", key.value), []).append((place, value))

    def _runs_layers(self, place: Place, func: Any) -> Place | None:
        """A function, or another method of the same object, that calls one of its own parameters: ``self._run(block, x)``."""
        if isinstance(func, ir.Name):
            if func.id not in self.functions or func.id in place.params:
                return None
        elif not (isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "self"):
            return None
        callee = self._function(place, func)
        return callee if callee is not None and self._run_by(callee) else None

    def _run_by(self, callee: Place) -> frozenset[str]:
        """The parameters that a function calls."""
        if id(callee) not in self._ran:
            called = {n.func.id for n in callee.nodes(ir.Call) if isinstance(n.func, ir.Name)}
            self._ran[id(callee)] = frozenset(called & callee.params)
        return self._ran[id(callee)]

    def _store(self, place: Place, target: Any, value: Any) -> None:
        while isinstance(target, (ir.Sub, ir.Starred)):
            target = target.value
        if isinstance(target, ir.Name):
            self.grown.setdefault((id(place), target.id), []).append((place, value))
        elif isinstance(target, ir.Attr):
            self._hold(place, target.value, target.attr, value)

    def _hold(self, place: Place, holder: Any, attribute: str, value: Any) -> None:
        self.values.setdefault(("", attribute), []).append((place, value))
        if place.owner is not None and isinstance(holder, ir.Name) and holder.id == "self":
            self.values.setdefault((place.owner.name, attribute), []).append((place, value))

    def _named(self, place: Place, call: ir.Call) -> None:
        """``setattr(self, "mix", …)``, ``self.add_module(f"block{n}", …)``; names that are put together as "*"."""
        plain = isinstance(call.func, ir.Name)
        if len(call.args) < 2 + plain:
            return
        holder = call.args[0] if plain else call.func.value if isinstance(call.func, ir.Attr) else None
        name, value = call.args[int(plain)], call.args[1 + plain]
        text = name.value if isinstance(name, ir.Const) and isinstance(name.value, str) else "*"
        self._hold(place, holder, text, value)

    def attribute(self, owner: str, name: str, depth: int = 4) -> frozenset[str]:
        """Classes of what is held under a name; ``owner``: by whom, "" for anyone."""
        key = owner, name
        if key in self._attributes:
            return self._attributes[key]
        if key in self._open:
            self._cut += 1
            return _NONE
        before = self._cut
        self._open.add(key)
        found = _NONE.union(*(self.of(p, v) for p, v in self.values.get(key, ())))
        if not found and owner and key not in self.values and depth:
            found = _NONE.union(*(self.attribute(b, name, depth - 1) for b in self.bases.get(owner, ())))
        self._open.discard(key)
        if not self._open or before == self._cut:
            self._attributes[key] = found
        return found

    def of(self, place: Place, node: Any, depth: int = _DEPTH) -> frozenset[str]:
        """The classes whose instance an expression may be, or hold."""
        if type(node) not in _HOLDS:
            return _NONE
        key = id(place), id(node)
        if key in self._found:
            return self._found[key]
        if not depth or key in self._open:
            self._cut += 1
            return _NONE
        before = self._cut
        self._open.add(key)
        found = self._read(place, node, depth - 1)
        self._open.discard(key)
        if not self._open or before == self._cut:
            self._found[key] = found
        return found

    def _read(self, place: Place, node: Any, depth: int) -> frozenset[str]:
        if isinstance(node, ir.Name):
            return _NONE.union(*(self.of(p, v, depth) for p, v in self._meant(place, node.id)))
        if isinstance(node, ir.Attr):
            return self._of_attribute(place, node, depth)
        if isinstance(node, ir.Call):
            return self._made(place, node, depth)
        several: list[Any] = []
        if isinstance(node, (ir.Sub, ir.Starred, ir.Await, ir.NamedExpr)):
            several = [node.value]
        elif isinstance(node, ir.IfExp):
            several = [node.body, node.orelse]
        elif isinstance(node, ir.Collection):
            several = node.elts
        elif isinstance(node, ir.Dict):
            several = [value for _, value in node.items]
        elif isinstance(node, ir.BoolOp):
            several = node.values
        elif isinstance(node, ir.BinOp) and node.op in "+*|":
            several = [node.left, node.right]
        elif isinstance(node, ir.Comp):
            several = [node.elt]
        return _NONE.union(*(self.of(place, n, depth) for n in several))

    def _of_attribute(self, place: Place, node: ir.Attr, depth: int) -> frozenset[str]:
        own = isinstance(node.value, ir.Name) and node.value.id == "self" and place.owner is not None
        holders = {place.owner.name} if own and place.owner is not None else self.of(place, node.value, depth)
        found = _NONE.union(*(self.attribute(h, node.attr) for h in holders))
        if found or any(self._library(*at) for h in holders for at in self.values.get((h, node.attr), ())):
            return found
        return self.attribute("", node.attr)

    def _library(self, place: Place, value: Any) -> bool:
        return isinstance(value, ir.Call) and self.code.dotted(place, value.func).startswith(_LIBRARY)

    def _meant(self, place: Place, name: str) -> Iterator[_At]:
        """What a local name, a parameter, or a name of the module's own level stands for."""
        made = [(place, v) for v in self._assigned(place, name)]
        made += self.grown.get((id(place), name), [])
        made += [(place, v) for v in self._looped(place).get(name, ())]
        made += self.given.get((id(place), name), [])
        if not made and name not in place.params:
            for top in self.tops.get(place.path, ()):
                if top is not place:
                    made += [(top, v) for v in self._assigned(top, name)] + self.grown.get((id(top), name), [])
        yield from made

    def _assigned(self, place: Place, name: str) -> list[Any]:
        if id(place) not in self._bound:
            bound: dict[str, list[Any]] = {}
            for s in place.nodes(ir.Assign, ir.AnnAssign):
                if s.value is None:
                    continue
                for target in s.targets if isinstance(s, ir.Assign) else [s.target]:
                    for t, value in ir.paired(target, s.value):
                        if isinstance(t, ir.Name):
                            bound.setdefault(t.id, []).append(value)
            self._bound[id(place)] = bound
        return self._bound[id(place)].get(name, [])

    def _looped(self, place: Place) -> dict[str, list[Any]]:
        """What loops of a place run over, by variable, where that may be modules."""
        if id(place) not in self._walked:
            self._walked[id(place)] = {}
            for n in place.nodes(ir.For, ir.CompFor):
                for target, over in _turns(n.target, n.iter):
                    if self.of(place, over):
                        for x in ir.walk(target):
                            if isinstance(x, ir.Name):
                                self._walked[id(place)].setdefault(x.id, []).append(over)
        return self._walked[id(place)]

    def _made(self, place: Place, node: ir.Call, depth: int) -> frozenset[str]:
        func = node.func
        kinds = self._kinds(place, func, depth)
        if kinds:
            return kinds
        if isinstance(func, ir.Name) and func.id == "getattr" and len(node.args) > 1:
            name = node.args[1].value if isinstance(node.args[1], ir.Const) else "*"
            return self._of_attribute(place, ir.Attr(node.args[0], name), depth) if isinstance(name, str) else _NONE
        full = self.code.dotted(place, func)
        target = self._function(place, func)
        if target is not None:
            returned = (n.value for n in target.nodes(ir.Return, ir.Yield) if n.value is not None)
            if found := _NONE.union(*(self.of(target, v, depth) for v in returned)):
                return found
        elif full.startswith(_LIBRARY):
            if full.rpartition(".")[2] not in _AROUND:
                return _NONE
        elif isinstance(func, ir.Attr):
            return self.of(place, func.value, depth) if func.attr in _ITSELF else _NONE
        given = [*node.args, *(v for _, v in node.keywords)]
        return _NONE.union(*(self.of(place, v, depth) for v in given if not isinstance(v, ir.Const)))

    def _function(self, place: Place, func: Any) -> Place | None:
        if isinstance(func, ir.Name):
            several = [f for f in self.functions.get(func.id, ()) if f.path == place.path]
            return several[0] if len(several) == 1 else None
        own = isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id in ("self", "cls")
        return self._method(place.owner.name, func.attr) if own and place.owner is not None else None

    def _kinds(self, place: Place, node: Any, depth: int) -> frozenset[str]:
        """The classes that an expression may be: not their instances."""
        if not depth:
            return _NONE
        if isinstance(node, ir.Name):
            if node.id in self.forwards and node.id not in place.params:
                return frozenset({node.id})
            key = id(place), "kind", node.id
            if key in self._open:
                return _NONE
            self._open.add(key)
            found = _NONE.union(*(self._kinds(p, v, depth - 1) for p, v in self._meant(place, node.id)))
            self._open.discard(key)
            return found
        several: list[Any] = []
        if isinstance(node, ir.IfExp):
            several = [node.body, node.orelse]
        elif isinstance(node, ir.Sub):
            several = [node.value]
        elif isinstance(node, ir.Collection):
            several = node.elts
        elif isinstance(node, ir.Dict):
            several = [value for _, value in node.items]
        elif isinstance(node, ir.Attr) and isinstance(node.value, ir.Name) and node.value.id in ("self", "cls") and place.owner is not None:
            held = self.values.get((place.owner.name, node.attr), [])
            return _NONE.union(*(self._kinds(p, v, depth - 1) for p, v in held))
        elif isinstance(node, ir.Call):  # ``functools.partial(A, dim)``, ``KINDS.get(name, A)``, ``dict(a=A)``
            name = node.func.attr if isinstance(node.func, ir.Attr) else node.func.id if isinstance(node.func, ir.Name) else ""
            if name == "partial":
                several = node.args[:1]
            elif name == "get" and isinstance(node.func, ir.Attr):
                several = [node.func.value, *node.args[1:]]
            elif name == "dict":
                several = [v for _, v in node.keywords]
        return _NONE.union(*(self._kinds(place, n, depth - 1) for n in several))


def _turns(target: Any, over: Any) -> Iterator[tuple[Any, Any]]:
    """Each variable of a loop with what it runs over."""
    name = over.func.id if isinstance(over, ir.Call) and isinstance(over.func, ir.Name) else ""
    several = target.elts if isinstance(target, ir.Collection) else []
    if name == "enumerate" and len(several) == 2 and over.args:
        yield from _turns(several[1], over.args[0])
    elif name == "zip" and len(several) == len(over.args):
        for t, o in zip(several, over.args, strict=True):
            yield from _turns(t, o)
    elif isinstance(over, ir.Call) and isinstance(over.func, ir.Attr) and over.func.attr in ("items", "named_children") and len(several) == 2:
        yield several[1], over.func.value
    elif name != "range":
        yield target, over


def handed(init: Place, call: ir.Call, method: bool = True) -> list[tuple[str, Any]]:
    """(parameter, argument) of a call that makes an object, or of another one; ``method``: is the first parameter the object."""
    names = [p.name for p in init.function.params][int(method) :] if init.function is not None else []
    return [(name, value) for name, value in [*zip(names, call.args, strict=False), *call.keywords] if name in names]


__all__ = ["Members", "handed"]
