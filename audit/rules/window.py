"""What a layer computes over its whole window, and whether it comes back on the window's positions.

No rule lives here. A summary (a mean over time, a pooled state) may drive a loss or draw the next token; added to, or
read by, the activations of every position it lets each of them see the window's end. Layers hide this behind names and
einsum, so the kinds of values are followed through a layer's statements: per position, a summary of the window,
per position with the window in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from audit import ir
from audit.rules.code import Place
from audit.rules.sequence import Sequences

#: "along": one value per position; "window": a summary without a time axis; "mixed": per position, window included
Kind = Literal["along", "window", "mixed"]

_STATISTICS = frozenset({"mean", "sum", "amax", "amin", "std", "var", "logsumexp", "median"})
_ENDS = frozenset(
    """view reshape permute unbind chunk split flatten size numel item cross_entropy mse_loss argmax topk gather max min
    cumsum cumprod cummax logcumsumexp norm nonzero new_zeros new_ones zeros_like ones_like full_like empty_like
    scaled_dot_product_attention flash_attn_func index_select scatter roll pad flip sort""".split()
)
#: what becomes of a summary that is no summary any more
_SCALARS = frozenset(
    [
        "item",
        "size",
        "numel",
        "cross_entropy",
        "mse_loss",
        "new_zeros",
        "new_ones",
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
    ]
)
_PRODUCTS = frozenset({"bmm", "matmul", "mm"})


class Window:
    """Kinds of the local names of one layer's ``forward``, found in the order of the statements."""

    def __init__(self, along: Sequences, place: Place) -> None:
        self.along, self.place = along, place
        self.kinds: dict[str, Kind | None] = {}
        #: where a summary first came back on the positions, per name that holds the result
        self.origin: dict[str, Any] = {}

    def returned(self) -> Iterator[tuple[Any, Any]]:
        """(where the summary comes back, the return that hands it on): what a layer's result holds of its window."""
        function = self.place.function
        if function is None or self.place.owner is None:
            return
        top = {id(s) for s in function.body}
        # A loop of the layer's own may sum up what lies before: nothing is said about what it assigns.
        looped = {
            id(n) for s in self.place.nodes() if isinstance(s, (ir.For, ir.While)) for n in ir.walk(s.body)
        }
        for node in sorted(self.place.nodes(), key=lambda n: (n.line, n.col)):
            if isinstance(node, ir.Assign):
                kind, at = (
                    (None, None) if id(node) in looped else (self.kind(node.value), self.at(node.value))
                )
                for target in node.targets:
                    first = target.elts[0] if isinstance(target, ir.Collection) and target.elts else target
                    # What one way of a branch does not know, the other may.
                    if isinstance(first, ir.Name) and (kind is not None or id(node) in top | looped):
                        self.kinds[first.id], self.origin[first.id] = kind, at
            elif (
                isinstance(node, ir.AugAssign) and isinstance(node.target, ir.Name) and id(node) not in looped
            ):
                self.kinds[node.target.id], self.origin[node.target.id] = self._both(
                    node, node.target, node.value
                )
            elif isinstance(node, ir.Return) and node.value is not None:
                value = (
                    node.value.elts[0]
                    if isinstance(node.value, ir.Collection) and node.value.elts
                    else node.value
                )
                if self.kind(value) == "mixed" and (at := self.at(value)) is not None:
                    yield at, node

    def kind(self, node: Any) -> Kind | None:
        if isinstance(node, ir.Name):
            return (
                self.kinds[node.id]
                if node.id in self.kinds
                else "along"
                if self.along.along(self.place, node)
                else None
            )
        if isinstance(node, ir.BinOp):
            if node.op == "@":
                return self._product(node.left, node.right)
            return self._both(node, node.left, node.right)[0] if node.op in "+-*/" else None
        if isinstance(node, ir.UnaryOp):
            return self.kind(node.operand)
        if isinstance(node, ir.IfExp):
            return self.kind(node.body) or self.kind(node.orelse)
        if isinstance(node, ir.Sub):
            inner = self.kind(node.value)
            return inner if inner != "along" else None
        if isinstance(node, ir.Collection):  # what is stacked or joined
            kinds = {self.kind(e) for e in node.elts}
            if "mixed" in kinds or {"along", "window"} <= kinds:
                return "mixed"
            return "window" if "window" in kinds else "along" if kinds == {"along"} else None
        if isinstance(node, ir.Call):
            return self._call(node)
        return None

    def at(self, node: Any) -> Any:
        """The innermost expression at which a summary came back on the positions."""
        for n in ir.walk(node):
            if isinstance(n, ir.Name) and self.kinds.get(n.id) == "mixed":
                return self.origin.get(n.id)
        return next((n for n in ir.walk(node) if isinstance(n, (ir.BinOp, ir.Call)) and self._meets(n)), None)

    def _meets(self, n: Any) -> bool:
        if isinstance(n, ir.Call):
            parts = {self.kind(a) for a in n.args}
        else:
            parts = {self.kind(n.left), self.kind(n.right)}
        return self.kind(n) == "mixed" and "mixed" not in parts

    def _both(self, node: Any, left: Any, right: Any) -> tuple[Kind | None, Any]:
        a, b = self.kind(left), self.kind(right)
        kinds = {a, b}
        if "mixed" in kinds:
            return "mixed", self.at(left) or self.at(right)
        if kinds == {"along", "window"}:
            return "mixed", node
        return ("along" if "along" in kinds else "window" if "window" in kinds else None), None

    def _product(self, left: Any, right: Any) -> Kind | None:
        a, b = self.kind(left), self.kind(right)
        if a == "along":
            return "mixed" if b == "window" else None if b == "along" else "along"
        return a if a is not None else "mixed" if b == "window" and self._rows(left) else None

    def _rows(self, node: Any) -> bool:
        """Weights over something per position: ``softmax(q k^T)`` with ``q`` per position."""
        return any(
            isinstance(n, ir.Name) and self.kinds.get(n.id) in ("along", "mixed") for n in ir.walk(node)
        )

    def _call(self, node: ir.Call) -> Kind | None:
        func = node.func
        name = func.attr if isinstance(func, ir.Attr) else func.id if isinstance(func, ir.Name) else ""
        if name == "einsum":
            return self._einsum(node)
        # A method of the value itself, or a function or module that is given it first.
        own = self.kind(func.value) if isinstance(func, ir.Attr) and not _module(func.value) else None
        base, rest = (
            (own, node.args)
            if own is not None
            else (self.kind(node.args[0]) if node.args else None, node.args[1:])
        )
        if name in _PRODUCTS:
            pair = [func.value, *node.args] if own is not None and isinstance(func, ir.Attr) else node.args
            return self._product(pair[0], pair[1]) if len(pair) == 2 else None
        if base is None or name in (_SCALARS if base == "window" else _ENDS):
            return None
        over = rest[0] if rest else next((v for k, v in node.keywords if k in ("dim", "axis")), None)
        time = isinstance(over, ir.Const) and over.value == 1 and over.value is not True
        if name in _STATISTICS:
            return (
                "window" if time else None if over is None or (base == "along" and not _last(over)) else base
            )
        if name in ("softmax", "log_softmax"):
            return "mixed" if time and base in ("along", "mixed") else base
        if name in ("transpose", "swapaxes"):
            return None
        return base

    def _einsum(self, node: ir.Call) -> Kind | None:
        if len(node.args) < 2 or not (
            isinstance(node.args[0], ir.Const) and isinstance(node.args[0].value, str)
        ):
            return None
        inputs, arrow, output = node.args[0].value.replace(" ", "").partition("->")
        operands = list(zip(inputs.split(","), (self.kind(a) for a in node.args[1:]), strict=False))
        times = {spec[1] for spec, kind in operands if kind in ("along", "mixed") and len(spec) > 1}
        if not arrow or len(times) > 1:
            return None
        kinds = {kind for _spec, kind in operands}
        if not times:
            return "window" if "window" in kinds else None
        if times & set(output):
            return (
                ("mixed" if kinds & {"window", "mixed"} else "along")
                if output[1:2] == next(iter(times))
                else None
            )
        # Contracted over time: linear attention does this too, but with weights that do not look along time.
        return "window" if "mixed" in kinds else None


def _module(node: Any) -> bool:
    """``self`` or a library: what is called on it is no method of a value."""
    return isinstance(node, ir.Name) and node.id in ("self", "torch", "F", "nn", "np", "mx", "jnp")


def _last(over: Any) -> bool:
    if isinstance(over, ir.UnaryOp) and over.op == "-" and isinstance(over.operand, ir.Const):
        return bool(over.operand.value == 1)
    return isinstance(over, ir.Const) and over.value in (-1, 2)


__all__ = ["Window"]
