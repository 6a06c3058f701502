"""Activations at other places of the window, and weights that are learned, or fixed, between places.

No rule lives here. `audit.rules.expressions` mixes these in; ``x[:, places]`` and ``weights @ x`` say which position is
given which one where the places, or what the weights hide, are known on a small window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from audit import ir
from audit.ir import called
from audit.rules import axes as ax
from audit.rules import kernels
from audit.rules import masks as hide
from audit.rules import mixing as mix
from audit.rules.axes import Grid, Known, Value
from audit.rules.rounding import ROUNDED
from audit.rules.wrapped_ids import WRAPPED

LAST = "the state at the window's last position is put back on every position of the window"
#: what is done to a learned scale before it is used
_ONE_BY_ONE = frozenset("to float type_as bfloat16 half sigmoid tanh exp softplus view reshape unsqueeze".split())


class Places:
    """Mixed into `Expressions`."""

    def _moved(self: Any, v: Value, parts: list[Any], node: Any) -> Value | None:
        """``c[:, -1:]``, which all positions may be given; ``x[:, places]``, where places are known on a small window."""
        at = v.axes.index("t") if v.axes.count("t") == 1 else len(parts)
        plain = all(isinstance(p, ir.Slice) and p.lower is p.upper is p.step is None for p in parts[:at])
        if at >= len(parts) or not plain or v.state or not all(isinstance(p, ir.Slice) or ax.number(p) is not None for p in parts[at + 1 :]):
            return None
        time = parts[at]
        last = isinstance(time, ir.Slice) and time.upper is time.step is None and ax.number(time.lower) == -1
        if last and len(parts) == at + 1:
            return replace(v, axes=tuple("." if a == "t" else a for a in v.axes), state="window", ahead=(node, LAST))
        if not isinstance(time, ir.Slice) and at == len(parts) - 1:
            return self._picked(v, time, node)
        return None

    def _stepped(self: Any, node: ir.BinOp, left: Known, right: Known) -> Value | None:
        """Arithmetic around a rounding: activations in steps of a scale, which many positions may have a part in."""
        first = self.rounding.sides[id(node)] is node.left
        v, other = (left, right) if first else (right, left)
        if not isinstance(v, Value) or v.state or not {"t", "f"} & set(v.axes):
            return None
        whole = id(node) in self.rounding.back and isinstance(other, Value) and other.state == "window"
        return replace(v, ahead=v.ahead or (node, ROUNDED)) if whole else v

    def _picked(self: Any, v: Value, places: Any, node: Any) -> Value | None:
        """Activations at other places of the window."""
        g = self.known(places)
        if not isinstance(g, Grid) or len(g.axes) != 1 or not g.axes[0] or g.boolean is not False or v.state:
            return None
        later = [n for n, place in enumerate(g.cells) if not 0 <= place <= n]
        if not later:
            return None
        first = later == list(range(len(later))) and len(later) < len(g.cells) - 1
        return replace(v, state="wrap", ahead=(node, WRAPPED)) if first else replace(v, ahead=(node, mix.NEXT))

    def _scales(self: Any, node: Any) -> bool:
        """A learned number, or one per channel, in any type: the same at every position, so no mask of any."""
        node = self._through(node)
        made = self.layers.built(self.place, node) if isinstance(node, ir.Attr) else None
        if made is None or self.layers.kind(self.place, made) != "Parameter" or not made.args:
            return False
        inner = made.args[0]
        while isinstance(inner, ir.BinOp):  # ``0.02 * torch.randn(dim)``
            inner = inner.right if isinstance(inner.left, ir.Const) else inner.left
        name = self.code.dotted(self.place, inner.func) if isinstance(inner, ir.Call) else ""
        if not isinstance(inner, ir.Call) or not inner.args or any(isinstance(a, ir.Starred) for a in inner.args):
            return False
        if name == "torch.tensor":
            return isinstance(inner.args[0], ir.Const)
        sizes = inner.args[:1] if name == "torch.full" else inner.args
        if len(sizes) == 1 and isinstance(sizes[0], ir.Collection):
            sizes = sizes[0].elts
        front = all(ax.number(s) == 1 for s in sizes[:-1])
        return name in ("torch.ones", "torch.zeros", "torch.full", "torch.empty", "torch.randn") and bool(sizes) and front

    def _through(self: Any, node: Any, depth: int = 8) -> Any:
        """What a scale was before it was moved, squeezed between numbers, taken from one, given axes or a name."""
        for _ in range(depth):
            if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in _ONE_BY_ONE:
                library = isinstance(node.func.value, ir.Name) and node.func.value.id in ("torch", "F")
                node = node.func.value if not library else node.args[0] if node.args else None
            elif isinstance(node, ir.Name) and len(made := self.place.assigned(node.id)) == 1 and node.id not in self.place.params:
                node = made[0]
            elif isinstance(node, ir.BinOp) and isinstance(node.left, ir.Const):
                node = node.right
            elif isinstance(node, ir.Sub):
                parts = node.index.elts if isinstance(node.index, ir.Collection) else [node.index]
                whole = all(isinstance(p, ir.Slice) and p.lower is p.upper is None for p in parts if not isinstance(p, ir.Const))
                new = all(p.value is None or p.value is Ellipsis for p in parts if isinstance(p, ir.Const))
                if not (whole and new):
                    return None
                node = node.value
            else:
                break
        return node

    def _over_time(self: Any, node: ir.Call, args: list[Known]) -> Value | None:
        """``einsum("ts,bsd->btd", self.weight, x)``"""
        text = node.args[0].value if isinstance(node.args[0], ir.Const) and isinstance(node.args[0].value, str) else ""
        inputs, _, output = text.replace(" ", "").partition("->")
        left, _, right = inputs.partition(",")
        v = args[2]
        if not isinstance(v, Value) or isinstance(args[1], Value) or len(right) != len(v.axes) or len(left) != 2 or v.state or "t" not in v.axes:
            return None
        time = right[v.axes.index("t")]
        if left[1] != time or output != right.replace(time, left[0]) or left[0] in right:
            return None
        shown = isinstance(args[1], Grid) and hide.ahead(hide.pairs(args[1], bool))
        return replace(v, ahead=(node, mix.OVER)) if shown or (args[1] is None and self._between_positions(node.args[1])) else None

    def _between_positions(self: Any, node: Any) -> bool:
        """A learned square, as long as the window or cut to it, that nothing masks."""
        for _ in range(8):
            cut = isinstance(node, ir.Sub) and isinstance(node.index, ir.Collection)
            if cut and all(isinstance(p, ir.Slice) and p.lower is p.step is None for p in node.index.elts):
                node = node.value
            elif isinstance(node, ir.Call) and called(node) in ("to", "float", "type_as", "bfloat16", "softmax") and isinstance(node.func, ir.Attr):
                library = isinstance(node.func.value, ir.Name) and node.func.value.id in ("torch", "F")
                node = node.func.value if not library else node.args[0] if node.args else None
            elif isinstance(node, ir.Name) and len(made := self.place.assigned(node.id)) == 1 and node.id not in self.place.params:
                node = made[0]
            else:
                break
        built = self.layers.built(self.place, node) if isinstance(node, ir.Attr) else None
        init = self.layers.methods.get(id(self.place.owner), {}).get("__init__")
        if built is None or init is None or self.layers.kind(self.place, built) != "Parameter" or self.layers.rewritten(init, node.attr):
            return False
        inner = built.args[0] if built.args else None
        names = [called(n) for n in ir.walk(inner) if isinstance(n, ir.Call)] if inner is not None else ["tril"]
        return bool(names) and all(n in ("zeros", "ones", "empty", "randn", "rand", "full") for n in names)

    def _flexible(self: Any, node: ir.Call) -> bool:
        """``flex_attention``, also compiled under a name of the module's or the object's.

        Not one whose mask is put into the object from outside (``layer.block_mask = …``): what that is does not stand here.
        """
        func = node.func
        if any(isinstance(v, ir.Attr) and self._put_in(v.attr) for k, v in node.keywords if k == "block_mask"):
            return False
        if self.code.dotted(self.place, func).endswith("torch.nn.attention.flex_attention.flex_attention"):
            return True
        made: list[Any] = []
        if isinstance(func, ir.Name) and func.id not in self.place.params:
            made = [v for p in self.code.places if p.function is None and p.path == self.place.path for v in p.assigned(func.id)]
        elif isinstance(func, ir.Attr):
            made = self.layers.calls.get((id(self.place.owner), func.attr), [])
        return len(made) == 1 and isinstance(made[0], ir.Call) and called(made[0]) == "compile" and any(
            self.code.dotted(self.place, a).endswith(".flex_attention") for a in made[0].args
        )  # fmt: skip

    def _kernel(self: Any, func: Any, full: str) -> str:
        """The full name of another library's kernel that a call means, also one that the object holds; "" for else."""
        if isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "self":
            made = self.layers.calls.get((id(self.place.owner), func.attr), [])
            named = [m.func if isinstance(m, ir.Call) else m for m in made]
            full = self.code.dotted(self.place, named[0]) if len(named) == 1 else ""
        alone = not (isinstance(func, ir.Name) and self.layers.target(self.place, func) is not None)
        return full if full and alone and kernels.runs(full) else ""

    def _put_in(self: Any, name: str) -> bool:
        return any(
            isinstance(t, ir.Attr) and t.attr == name and not (isinstance(t.value, ir.Name) and t.value.id == "self")
            for p in self.code.places for s in p.nodes(ir.Assign) for t in s.targets
        )  # fmt: skip


__all__ = ["Places", "called"]
