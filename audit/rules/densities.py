"""One number per position, looked up with the token ids, that is divided by what the whole window holds.

No rule lives here. How rare a token is, or how much is open after it, may weigh what a model does at its position, or
at its block's. Taken in shares of the window's mean, each number holds all tokens of the window, the later ones
included. That counts where the shares are multiplied with, or added to, what the model's layers make of its positions;
weights in a loss, and figures that are logged, say nothing about the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.rules.axes import argument, number
from audit.rules.code import Place
from audit.rules.layers import Layers
from audit.rules.mixing import STATISTICS

SHARE = "one number per position is divided by what the whole window holds, and weighs the positions"
#: "row": all positions of all windows in a row; "each": (B, T) or (B, blocks); "more": with an axis behind these;
#: "share": of the whole window
_Kind = str
_ONE_BY_ONE = frozenset(
    """to float double half bfloat16 type_as contiguous clone detach clamp clamp_min clamp_max exp log log1p sqrt square pow sigmoid
    tanh nan_to_num neg reciprocal""".split()
)
_TURNS = 6


class Densities:
    """Kinds of names, parameters and of what methods return, found to a fixed point over the modules' methods."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.places = [p for p in layers.code.places if p.owner is not None and p.function is not None]
        #: what names hold, and what methods return under the name ""
        self.kinds: dict[tuple[int, str], _Kind] = {}
        #: where shares were made, by what holds them
        self.made: dict[tuple[int, str], tuple[Place, Any]] = {}
        if layers.ids and any(p.names & STATISTICS for p in self.places):
            self._follow()

    def _follow(self) -> None:
        for _ in range(_TURNS):
            before = dict(self.kinds)
            for place in self.places:
                for s in place.steps:
                    if isinstance(s, ir.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ir.Name):
                        self._note((id(place), s.targets[0].id), place, s.value)
                    elif isinstance(s, ir.Return) and s.value is not None:
                        self._note((id(place), ""), place, s.value)
                    elif isinstance(s, ir.Call):
                        self._hand(place, s)
            if self.kinds == before:
                break

    def _note(self, key: tuple[int, str], place: Place, node: Any) -> None:
        kind = self.kind(place, node)
        if kind is not None and self.kinds.get(key) != "share":
            if kind == "share" and (origin := self.origin(place, node)) is not None:
                self.made[key] = origin
            self.kinds[key] = kind

    def _hand(self, place: Place, call: ir.Call) -> None:
        target = self.layers.target(place, call.func)
        if target is None or target.function is None:
            return
        params = [p.name for p in target.function.params][int(target.owner is not None) :]
        for name, given in [*zip(params, call.args, strict=False), *((k, v) for k, v in call.keywords if k in params)]:
            if name is not None and isinstance(given, (ir.Name, ir.Call)):
                self._note((id(target), name), place, given)

    def kind(self, place: Place, node: Any) -> _Kind | None:
        if isinstance(node, ir.Name):
            return self.kinds.get((id(place), node.id))
        if isinstance(node, ir.BinOp):
            a, b = self.kind(place, node.left), self.kind(place, node.right)
            if node.op in "/-*" and a in ("each", "more") and self._whole(place, node.right, a):
                return "share"
            plain = isinstance(node.left, ir.Const) or isinstance(node.right, ir.Const)
            return (a or b) if plain else a if a == b else None
        if isinstance(node, ir.Sub):
            if isinstance(node.value, ir.Attr) and self._ids(place, node.index):  # ``self.rare[ids]``
                return "more"
            inner = self.kind(place, node.value)
            parts = node.index.elts if isinstance(node.index, ir.Collection) else [node.index]
            if any(isinstance(p, ir.Const) and p.value is None for p in parts):
                return "more" if inner == "each" else inner
            return inner if all(isinstance(p, ir.Slice) for p in parts) else None
        if isinstance(node, ir.Call):
            return self._called(place, node)
        return None

    def _called(self, place: Place, node: ir.Call) -> _Kind | None:
        name = node.func.attr if isinstance(node.func, ir.Attr) else ""
        if name == "index_select" and len(node.args) == 2 and number(node.args[0]) == 0 and self._in_a_row(place, node.args[1]):
            return "row"
        if name in ("cat", "concat") and node.args and isinstance(node.args[0], ir.Collection):
            kinds = {self.kind(place, e) for e in node.args[0].elts} - {None}
            return "share" if kinds == {"share"} else None
        target = self.layers.target(place, node.func)
        if target is not None and target.function is not None:
            return self.kinds.get((id(target), ""))
        inner = self.kind(place, node.func.value) if isinstance(node.func, ir.Attr) else None
        if inner is None:
            return None
        if name in _ONE_BY_ONE:
            return inner
        if name == "unsqueeze":
            return "more" if inner == "each" and number(argument(node.args, 0, node.keywords, "dim")) in (-1, 2) else inner if inner == "share" else None
        if name in ("reshape", "view"):
            if inner == "row":
                as_ids = len(node.args) == 1 and isinstance(node.args[0], ir.Attr) and node.args[0].attr == "shape"
                return "each" if as_ids and self._ids(place, getattr(node.args[0], "value", None)) else None
            return "more" if inner == "each" and len(node.args) == 3 else None
        over = number(argument(node.args, 0, node.keywords, "dim", "axis"))
        if name in STATISTICS and inner == "more" and over in (-1, 2):
            return "each"
        return None

    def _whole(self, place: Place, node: Any, kind: _Kind) -> bool:
        """A statistic over all of the window's numbers, perhaps kept from zero."""
        while isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _ONE_BY_ONE:
            node = node.func.value
        if isinstance(node, ir.BinOp) and node.op == "+":
            node = node.left if isinstance(node.right, ir.Const) else node.right
        if not (isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in STATISTICS):
            return False
        over = number(argument(node.args, 0, node.keywords, "dim", "axis"))
        return self.kind(place, node.func.value) == kind and (over == 1 or (over == -1 and kind == "each"))

    def _ids(self, place: Place, node: Any) -> bool:
        return isinstance(node, ir.Name) and (id(place), node.id) in self.layers.ids

    def _in_a_row(self, place: Place, node: Any) -> bool:
        rows = isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in ("reshape", "view", "flatten")
        return rows and self._ids(place, getattr(node.func, "value", None))

    def origin(self, place: Place, node: Any) -> tuple[Place, Any] | None:
        """The division that made shares of what an expression holds."""
        for n in ir.walk(node):
            if isinstance(n, ir.BinOp) and n.op in "/-*" and (kind := self.kind(place, n.left)) in ("each", "more"):
                if kind is not None and self._whole(place, n.right, kind):
                    return place, n
        for n in ir.walk(node):
            if isinstance(n, ir.Name) and (id(place), n.id) in self.made:
                return self.made[id(place), n.id]
            if isinstance(n, ir.Call) and (target := self.layers.target(place, n.func)) is not None and (id(target), "") in self.made:
                return self.made[id(target), ""]
        return None

    def weigh(self) -> Iterator[tuple[Place, Any]]:
        """Where shares were made that weigh activations."""
        seen: set[int] = set()
        for place in self.places if self.kinds else ():
            for n in place.nodes(ir.BinOp):
                for share, other in ((n.left, n.right), (n.right, n.left)):
                    if n.op in "+-*/" and self.kind(place, share) == "share" and self._activations(place, other):
                        origin = self.origin(place, share)
                        if origin is not None and id(origin[1]) not in seen:
                            seen.add(id(origin[1]))
                            yield origin

    def _activations(self, place: Place, node: Any) -> bool:
        """What a linear layer made, or what runs along the window."""
        if self.layers.along.along(place, node):
            return True
        while isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _ONE_BY_ONE:
            node = node.func.value
        made = place.assigned(node.id) if isinstance(node, ir.Name) else [node]
        return any(isinstance(m, ir.Call) and self._linear(place, m) for m in made)

    def _linear(self, place: Place, call: ir.Call) -> bool:
        if isinstance(call.func, ir.Attr) and call.func.attr == "linear":
            return True
        made = self.layers.made(place, call.func)
        return made is not None and self.layers.kind(place, made) == "Linear"


__all__ = ["SHARE", "Densities"]
