"""Which values of a model's code run along the sequence: (batch, time, channels) activations.

No rule lives here. A seed is what a token embedding returns; from there the analysis follows
assignments, arithmetic, calls and the script's own methods. It is about axes, so that ``x.mean(dim=1)``
of activations (a mean over time) is told from that of a weight (a mean over a row).
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.rules.code import Code, Place
from audit.rules.members import Members, handed

_KEEPS = frozenset(
    """rms_norm layer_norm dropout relu gelu silu tanh sigmoid softmax leaky_relu square float bfloat16 half to
    type_as contiguous clone detach mul add sub div clamp pow exp log norm linear checkpoint type cuda mT""".split()
)
#: layers of the library that act on each position by itself
POINTWISE = frozenset(
    ["Linear", "Dropout", "LayerNorm", "RMSNorm", "Identity", "GELU", "SiLU", "ReLU", "Tanh", "Sigmoid"]
)
#: of token ids: the same ones
_SAME = frozenset({"long", "to", "int", "contiguous", "clamp"})
#: calls whose result has another layout
_ENDS = frozenset(
    [
        "view",
        "reshape",
        "transpose",
        "permute",
        "unbind",
        "chunk",
        "split",
        "flatten",
        "size",
        "numel",
        "item",
        "sum",
        "mean",
        "amax",
        "amin",
        "max",
        "min",
        "cross_entropy",
        "argmax",
        "topk",
        "gather",
        "bmm",
        "einsum",
    ]
)


class Sequences:
    """For every place: the names that hold (B, T, C) activations, found to a fixed point."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.members = Members(code)
        self.embeddings = _embedding_attributes(code)
        self.methods: set[str] = set()
        self.params: set[tuple[int, str]] = set()
        self.names: dict[int, set[str]] = {id(p): set() for p in code.places}
        #: how much was known of a place when it was last looked at
        self.known: dict[int, tuple[int, ...]] = {}
        self.by_name: dict[str, list[Place]] = {}
        for p in self.code.places:
            if p.function is not None:
                self.by_name.setdefault(p.function.name, []).append(p)
                if p.function.name == "forward" and p.owner is not None:
                    self.by_name.setdefault("()" + p.owner.name, []).append(p)
        #: parameters that are given rows of pieces, (batch * time, pieces of one token)
        self.pieces = self._pieces()
        #: the script's models whose ``forward`` returns one row of activations per position
        self.models: set[str] = set()
        #: attributes of wrappers that hold such a model, by the wrapper's class
        self.held = _held(code, self.embeddings)
        for _ in range(6):
            if not self._round():
                break

    def _pieces(self) -> set[tuple[int, str]]:
        calls = [(p, n) for p in self.code.places if p.function is not None for n in p.nodes(ir.Call)]
        found: set[tuple[int, str]] = set()
        for _ in range(3):
            before = len(found)
            for place, call in calls:
                for n, a in enumerate(call.args):
                    if not isinstance(a, ir.Const) and (rows_of_pieces(place, a) or self._piece(place, a, found)):
                        found |= {(id(t), name) for t, name in self.parameters(place, call, [n])}
            if len(found) == before:
                break
        return found

    def _piece(self, place: Place, node: Any, pieces: set[tuple[int, str]]) -> bool:
        while isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _SAME:
            node = node.func.value
        return isinstance(node, ir.Name) and (id(place), node.id) in pieces

    def _state(self) -> tuple[int, ...]:
        return len(self.methods), len(self.models), len(self.params), sum(map(len, self.names.values()))

    def _returns(self, place: Place) -> bool:
        """Does a model's ``forward`` return activations in every way, under names that never hold anything else."""
        returned = [n.value for n in place.nodes(ir.Return)]
        if not returned or not all(r is not None and self.along(place, r) for r in returned):
            return False
        return all(self.along(place, first_of(value)) for name in self.names[id(place)] for value in place.assigned(name))

    def _round(self) -> bool:
        before = self._state()
        for place in self.code.places:
            if place.function is None:
                continue
            names = self.names[id(place)]
            given = {a.name for a in place.function.params if (id(place), a.name) in self.params}
            known = len(names), len(given), len(self.methods & place.names), len(self.models)
            if known == self.known.get(id(place)) or not (given or self.touches(place)):
                continue  # nothing to follow, or nothing new
            self.known[id(place)] = known
            names |= given
            for node in place.steps:
                if isinstance(node, ir.Assign) and self.along(place, node.value):
                    # A layer that also returns a state hands its activations back first.
                    names |= {t.id for t in map(first_of, node.targets) if isinstance(t, ir.Name)}
                elif isinstance(node, ir.Return) and node.value is not None:
                    if place.function.name not in ("forward", "__call__") and self.along(place, first_of(node.value)):
                        self.methods.add(place.function.name)
                elif isinstance(node, ir.Call):
                    self._pass_on(place, node)
            if place.function.name == "forward" and place.owner is not None and self._returns(place):
                self.models.add(place.owner.name)
        return before != self._state()

    def _pass_on(self, place: Place, call: ir.Call) -> None:
        """A module that is called with activations has them in its own ``forward``."""
        given = [n for n, a in enumerate(call.args) if self.along(place, a) and not folded(place, a)]
        if given:
            self.params |= {(id(t), name) for t, name in self.parameters(place, call, given)}

    def parameters(self, place: Place, call: ir.Call, given: list[int]) -> list[tuple[Place, str]]:
        """Which parameters of the script's functions a call's arguments at some positions are."""
        func = call.func.value if isinstance(call.func, ir.Sub) else call.func  # ``self.blocks[i](x)``
        name = func.attr if isinstance(func, ir.Attr) else func.id if isinstance(func, ir.Name) else ""
        targets = list(self.by_name.get(name, ())) or self.layers_of(place, call.func)
        found: list[tuple[Place, str]] = []
        for t in targets:
            assert t.function is not None
            own = [p.name for p in t.function.params]
            if t.owner is not None and own:
                own = own[1:]
            found += [(t, own[n]) for n in given if n < len(own)]
        return found

    def layers_of(self, place: Place, func: Any) -> list[Place]:
        """The ``forward`` of each of the script's modules that what is called may be."""
        if not self.members.forwards:
            return []
        trace = self.code.ctx.trace
        several = sorted(self.members.of(place, func))
        if len(several) > 1 and trace is not None:
            several = [c for c in several if not trace.leaves_out(c)] or several
        return [self.members.forwards[c] for c in several]

    def touches(self, place: Place) -> bool:
        """Can any expression of the place be activations: by a name that holds them, or by what it calls."""
        if self.names[id(place)]:
            return True
        if not (place.names.isdisjoint(self.methods) and place.names.isdisjoint(self.embeddings.tables)):
            return True
        return place.owner is not None and any(c in self.models for c in self.held.get(place.owner.name, {}).values())

    def wrapped(self, place: Place, func: Any) -> bool:
        """``self.net`` of a wrapper, given token ids: a model of the script's that the wrapper was built around."""
        if place.owner is None or not (isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "self"):
            return False
        return self.held.get(place.owner.name, {}).get(func.attr) in self.models

    def along(self, place: Place, node: Any) -> bool:
        """Is the expression's value (B, T, C) activations."""
        names = self.names[id(place)]
        if isinstance(node, ir.Name):
            return node.id in names
        if isinstance(node, ir.BinOp):
            return node.op in "+-*/" and (self.along(place, node.left) or self.along(place, node.right))
        if isinstance(node, ir.IfExp):
            return self.along(place, node.body) or self.along(place, node.orelse)
        if isinstance(node, ir.Attr):
            return node.attr == "data" and self.along(place, node.value)
        if not isinstance(node, ir.Call):
            return False
        func = node.func
        if isinstance(func, ir.Attr):
            if func.attr in self.embeddings.tables:
                return not node.args or not (folded(place, node.args[0]) or self._piece(place, node.args[0], self.pieces))
            if func.attr in self.methods or (node.args and self.wrapped(place, func)):
                return True
            if func.attr in _ENDS:
                return False
            if func.attr in _KEEPS and self.along(place, func.value):
                return True
            if func.attr == "cat" and node.args and isinstance(node.args[0], ir.Collection):
                parts = node.args[0].elts
                return bool(parts) and all(self.along(place, _base(p)) for p in parts)
            # A module or function of the script or of the library that is given activations first.
            made = self.embeddings
            known = func.attr in _KEEPS or func.attr in made.layers or func.attr in self.members.names
            return known and bool(node.args) and self.along(place, node.args[0])
        if isinstance(func, ir.Name):
            known = func.id in self.methods or bool(self.members.of(place, func))
            return known and bool(node.args) and self.along(place, node.args[0])
        if isinstance(func, ir.Sub) or (isinstance(func, ir.Call) and self.members.of(place, func)):
            return bool(node.args) and self.along(place, node.args[0])
        return False


def sequences_of(code: Code) -> Sequences:
    """The program's `Sequences`, built once for all rules that ask for it."""
    shared = code.ctx.shared
    if "sequences" not in shared:
        shared["sequences"] = Sequences(code)
    return shared["sequences"]  # type: ignore[no-any-return]


def folded(place: Place, node: Any) -> bool:
    """Is axis 1 something inside one position: ``bytes_of[ids]`` looked up, or (batch * time) in front of it."""
    if isinstance(node, ir.Name):
        before = [
            s.value for s in place.steps
            if isinstance(s, ir.Assign) and s.line < node.line and any(isinstance(t, ir.Name) and t.id == node.id for t in s.targets)
        ]  # fmt: skip
        return bool(before) and not isinstance(before[-1], ir.Name) and folded(place, before[-1])
    if isinstance(node, ir.Sub):  # a row of a table per position
        return isinstance(node.value, ir.Attr) and isinstance(node.index, (ir.Name, ir.Call))
    if not (isinstance(node, ir.Call) and isinstance(node.func, ir.Attr)):
        return False
    if node.func.attr in _SAME:
        return folded(place, node.func.value)
    if node.func.attr not in ("view", "reshape") or len(node.args) < 2:
        return False
    front = node.args[0]
    if isinstance(front, ir.UnaryOp) and front.op == "-":
        return len(node.args) > 2 or folded(place, node.func.value)
    return isinstance(front, ir.BinOp) and front.op == "*"


def rows_of_pieces(place: Place, node: Any) -> bool:
    """`folded` by a ``view``: (batch * time) rows of what is inside one position."""
    if isinstance(node, ir.Name):
        made = place.assigned(node.id)
        return len(made) == 1 and not isinstance(made[0], ir.Name) and rows_of_pieces(place, made[0])
    while isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _SAME:
        node = node.func.value
    viewed = isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in ("view", "reshape")
    return viewed and folded(place, node)


def first_of(node: Any) -> Any:
    """The first of several values that are handed over together, or the only one."""
    return node.elts[0] if isinstance(node, ir.Collection) and node.elts else node


def _base(node: Any) -> Any:
    """What a slice or product is taken of."""
    if isinstance(node, ir.Sub):
        return _base(node.value)
    if isinstance(node, ir.BinOp):
        return _base(node.left) if not isinstance(_base(node.left), ir.Const) else _base(node.right)
    return node


class Attributes:
    """Attribute names that hold an embedding or a layer of the library, or are assigned a module of the script's own."""

    def __init__(self) -> None:
        self.tables: set[str] = set()
        self.layers: set[str] = set()
        self.built: set[str] = set()

    def note(self, attribute: str, made: list[str], own: set[str]) -> None:
        """``made``: the constructors called in what the attribute is assigned; ``own``: the script's modules."""
        if any(m.endswith("nn.Embedding") for m in made):
            self.tables.add(attribute)
        if made and made[0].rpartition("nn.")[2] in POINTWISE and "nn." in made[0]:
            self.layers.add(attribute)
        if not own.isdisjoint(made):
            self.built.add(attribute)


def _embedding_attributes(code: Code) -> Attributes:
    own = {
        p.owner.name
        for p in code.places
        if p.owner is not None and p.function and p.function.name == "forward"
    }
    found = Attributes()
    for place in code.places:
        for node in place.nodes(ir.Call, ir.Assign, ir.AnnAssign):
            if isinstance(node, ir.Call):
                if _made(code, place, node).endswith("functional.embedding"):
                    found.tables.add("embedding")  # a table that is handed over
                # ``nn.ModuleDict(dict(wte=nn.Embedding(…), h=nn.ModuleList([…])))``
                for name, given in node.keywords:
                    if name is not None and isinstance(given, ir.Call):
                        found.note(
                            name,
                            [_made(code, place, c) for c in ir.walk(given) if isinstance(c, ir.Call)],
                            own,
                        )
            targets = list(node.targets) if isinstance(node, ir.Assign) else [node.target] if isinstance(node, ir.AnnAssign) else []
            if isinstance(node, ir.Call) or node.value is None or not any(isinstance(t, (ir.Attr, ir.Collection)) for t in targets):
                continue
            made = [_made(code, place, c) for c in ir.walk(node.value) if isinstance(c, ir.Call)]
            values: list[Any] = [node.value]
            if (
                len(targets) == 1
                and isinstance(targets[0], ir.Collection)
                and isinstance(node.value, ir.Collection)
            ):
                targets, values = targets[0].elts, node.value.elts
                if len(targets) != len(values):
                    continue
            for n, target in enumerate(targets):
                if not isinstance(target, ir.Attr):
                    continue
                value = values[min(n, len(values) - 1)]
                names = (
                    [_made(code, place, c) for c in ir.walk(value) if isinstance(c, ir.Call)]
                    if len(values) > 1
                    else made
                )
                found.note(target.attr, names, own)
    return found


def _constructors(code: Code) -> dict[str, Place]:
    """The ``__init__`` of every class of the script, by the class's name."""
    return {p.owner.name: p for p in code.places if p.owner is not None and p.function is not None and p.function.name == "__init__"}


def _held(code: Code, made: Attributes) -> dict[str, dict[str, str]]:
    """Of every class that is built around a model (``Scaled(model)``): which attribute holds which class."""
    inits = _constructors(code)
    own = set(inits) | {p.owner.name for p in code.places if p.owner is not None}
    tops = [p for p in code.places if p.function is None]
    held: dict[str, dict[str, set[str]]] = {}
    for place in code.places:
        for call in place.nodes(ir.Call) if not place.names.isdisjoint(inits) else ():
            init = inits.get(_made(code, place, call))
            if init is None or init.function is None or init.owner is None:
                continue
            for name, given in handed(init, call):
                for s in init.nodes(ir.Assign):
                    if isinstance(s.value, ir.Name) and s.value.id == name:
                        for t in s.targets:
                            if isinstance(t, ir.Attr) and t.attr not in made.built:
                                kinds = _kinds(code, place, tops, given, own)
                                held.setdefault(init.owner.name, {}).setdefault(t.attr, set()).update(kinds)
    for p in code.places if held else ():  # what is stored under such a name again
        for s in p.nodes(ir.Assign):
            again = isinstance(s.value, ir.Name) and p in inits.values() and s.value.id in p.params
            for t in s.targets if not again else ():
                for of in held.values() if isinstance(t, ir.Attr) else ():
                    of.get(t.attr, set()).add("")
    return {owner: {a: next(iter(k)) for a, k in of.items() if len(k) == 1} for owner, of in held.items()}


def _kinds(code: Code, place: Place, tops: list[Place], node: Any, own: set[str], seen: frozenset[str] = frozenset()) -> set[str]:
    """The script's classes that an object may be of, through names, ``torch.compile`` and moves to a device; "" for another."""
    if isinstance(node, ir.Name):
        if node.id in seen:
            return set()  # what it was before
        made = place.assigned(node.id)
        if not made and node.id not in place.params:
            made = [v for top in tops if top.path == place.path for v in top.assigned(node.id)]
        several = [_kinds(code, place, tops, value, own, seen | {node.id}) for value in made]
        return set().union(*several) if several else {""}
    if isinstance(node, ir.Call):
        name = _made(code, place, node)
        if name in own:
            return {name}
        if name.rpartition(".")[2] in ("compile", "DistributedDataParallel", "DDP") and node.args:
            return _kinds(code, place, tops, node.args[0], own, seen)
        if isinstance(node.func, ir.Attr) and node.func.attr in ("to", "cuda", "eval", "float", "bfloat16", "half", "train"):
            return _kinds(code, place, tops, node.func.value, own, seen)
    return {""}


def _made(code: Code, place: Place, call: ir.Call) -> str:
    return code.dotted(place, call.func)


__all__ = ["POINTWISE", "Sequences", "first_of", "sequences_of"]
