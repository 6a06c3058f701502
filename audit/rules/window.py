"""What a layer computes over its whole window, and whether it comes back on the window's positions.

No rule lives here. A summary (a mean over time, a pooled state) may drive a loss or draw the next token; added to, or
read by, the activations of every position it lets each of them see the window's end. Layers hide this behind names and
einsum, so the kinds of values are followed through a layer's statements: per position, a summary of the window,
per position with the window in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from audit import ir
from audit.rules.axes import argument, number
from audit.rules.carried import along_time
from audit.rules.code import Place
from audit.rules.encoders import other_inputs
from audit.rules.final_states import RECURRENT, final_states
from audit.rules.layers import Layers
from audit.rules.sequence import Sequences, first_of
from audit.rules.settings import closed_by

#: "along": one value per position; "window": a summary without a time axis; "mixed": per position, window included
Kind = Literal["along", "window", "mixed"]

STATISTICS = frozenset({"mean", "sum", "amax", "amin", "std", "var", "logsumexp", "median"})
#: what becomes of a summary that is no summary any more
_SCALARS = frozenset(
    """item size numel cross_entropy mse_loss new_zeros new_ones zeros_like ones_like full_like empty_like rearrange
    unflatten""".split()
)
_ENDS = _SCALARS | frozenset(
    """view reshape permute unbind chunk split flatten argmax topk gather max min cumsum cumprod cummax logcumsumexp
    norm nonzero scaled_dot_product_attention flash_attn_func index_select scatter roll pad flip sort""".split()
)
_SPREADS = frozenset({"expand", "expand_as", "repeat", "broadcast_to"})
_PRODUCTS = frozenset({"bmm", "matmul", "mm"})
#: of several returns the one that says most counts
_WEIGHT: dict[Kind | None, int] = {None: 0, "along": 1, "window": 2, "mixed": 3}


def summarises(place: Place) -> bool:
    """May a method make a summary of activations, by itself: a statistic or shares over axis 1, or a loop along it.

    Without such a method in the program, and without a recurrent layer, no `Window` finds anything.
    """
    for n in place.nodes(ir.Call):
        name = ir.called(n)
        if name in STATISTICS or name in ("softmax", "log_softmax"):
            if any(number(a) == 1 for a in n.args[:3]) or any(number(v) == 1 for k, v in n.keywords if k in ("dim", "axis")):
                return True
    for loop in place.function.body if place.function is not None else ():
        if isinstance(loop, ir.For) and isinstance(loop.target, ir.Name):
            steps = (n.index.elts[1] for n in ir.walk(loop.body) if isinstance(n, ir.Sub) and isinstance(n.index, ir.Collection) and len(n.index.elts) > 1)
            if any(isinstance(at, ir.Name) and at.id == loop.target.id for at in steps):
                return True
    return False


class Window:
    """Kinds of the local names of one method of a module, found in the order of the statements.

    ``methods``: the places of the same class by name; ``settings``: what its instances' attributes are known to be;
    ``given``: kinds of parameters, as a caller hands them in.
    """

    def __init__(
        self,
        along: Sequences,
        place: Place,
        methods: Mapping[str, Place],
        settings: Mapping[str, Any],
        given: Mapping[str, Kind | None] | None = None,
        depth: int = 0,
        layers: Layers | None = None,
    ) -> None:
        self.along, self.place, self.methods, self.depth, self.layers = along, place, methods, depth, layers
        self.settings = settings
        self.kinds: dict[str, Kind | None] = dict(given or {})
        #: where a summary first came back on the positions, per name that holds the ("mixed") result
        self.origin: dict[str, Any] = {}
        self.called: dict[tuple, tuple[Kind | None, Any]] = {}
        #: names of what a recurrent layer returns, states and last state together, and of its states alone
        self.runs: dict[str, str] = {}
        self.outputs: set[str] = set()
        #: names of summaries that were repeated along time
        self.spread: set[str] = set()
        self.returned: list[Kind | None] = []

    def put_back(self) -> list[Any]:
        """Where a summary of the window comes back on positions that the method hands on or goes on with."""
        return list({(n.line, n.col): n for n in self._run()[2]}.values())

    def _run(self) -> tuple[Kind | None, Any, list[Any]]:
        function = self.place.function
        if function is None or self.place.owner is None:
            return None, None, []
        top = {id(s) for s in function.body}
        # A loop along time may sum up what lies before: nothing is said about what it assigns.
        loops = self.place.nodes(ir.For, ir.While)
        timed = [s for s in loops if isinstance(s, ir.While) or along_time(s)]
        looped = {id(n) for s in timed for n in ir.walk(s.body)}
        closed = set(closed_by(function.body, self.settings))
        found: list[Any] = []
        result: Kind | None = None
        where: Any = None
        steps = [
            n
            for n in self.place.nodes(ir.Assign, ir.AugAssign, ir.Return)
            if id(n) not in closed
        ]
        steps.sort(key=lambda n: (n.line, n.col))
        # Again where layers are run in a loop: what one leaves behind meets the next.
        layered = {id(n) for s in loops if s not in timed for n in ir.walk(s.body)}
        ends = final_states(self.along, self.place)
        if ends and self.several:
            ends = []
        for node in [*steps, *(n for n in steps if id(n) in layered)]:
            while ends and ends[0][0].end_line < node.line:
                self.kinds.update(dict.fromkeys(ends.pop(0)[1], "window"))
            if isinstance(node, ir.Assign):
                kind = None if id(node) in looped else self.kind(node.value)
                at = self.at(node.value) if kind == "mixed" else None
                for target in node.targets:
                    first = first_of(target)
                    self._named(target, node.value, id(node) in looped)
                    # What one way of a branch does not know, the other may.
                    if isinstance(first, ir.Name) and (kind is not None or id(node) in top | looped):
                        if kind == "mixed" and at is not None and self.kind(first) == "along":
                            found.append(at)  # the stream of activations goes on with the window in it
                        self.kinds[first.id], self.origin[first.id] = kind, at
                        (self.spread.add if kind == "window" and self._spreads(node.value) else self.spread.discard)(first.id)
                    if isinstance(target, ir.Collection) and id(node) not in looped and self._recurs(node.value):
                        self.kinds.update({x.id: "window" for x in ir.walk(target.elts[1:]) if isinstance(x, ir.Name)})
            elif isinstance(node, ir.AugAssign):
                if isinstance(node.target, ir.Name) and id(node) not in looped:
                    kind, at = self._both(node, node.target, node.value)
                    if kind == "mixed" and at is not None and self.kind(node.target) == "along":
                        found.append(at)
                    self.kinds[node.target.id], self.origin[node.target.id] = kind, at
            elif node.value is not None:
                value = first_of(node.value)
                kind = self.kind(value)
                at = self.at(value) if kind == "mixed" else None
                if at is not None:
                    found.append(at)
                self.returned.append(kind)
                if _WEIGHT[kind] > _WEIGHT[result]:
                    result, where = kind, at
        return result, where, found

    def _enter(self, node: ir.Call) -> tuple[Kind | None, Any] | None:
        """What a method of the same object returns for these arguments; None where it is no such call."""
        func = node.func
        if not (isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "self"):
            return None
        callee = self.methods.get(func.attr)
        if callee is None or callee.function is None or self.depth > 2:
            return None
        names = [p.name for p in callee.function.params][1:]
        given = {n: self.kind(a) for n, a in zip(names, node.args, strict=False)}
        given |= {n: self.kind(v) for n, v in node.keywords if n in names}
        key = (func.attr, *sorted((n, k or "") for n, k in given.items()))
        if key not in self.called:
            self.called[key] = None, None  # a method that calls itself
            kind, at, _ = Window(
                self.along, callee, self.methods, self.settings, given, self.depth + 1, self.layers
            )._run()
            self.called[key] = kind, at
        return self.called[key]

    @cached_property
    def several(self) -> bool:
        """What one text ends with may be put on every position of another."""
        return other_inputs(self.along, self.place)

    def _named(self, target: Any, value: Any, looped: bool) -> None:
        """``run = self.gru(x)``, ``out, last = self.gru(x)`` or ``out = self.gru(x)[0]``."""
        first = first_of(target)
        if not isinstance(first, ir.Name):
            return
        run = "" if looped else self._run_of(value)
        self.runs.pop(first.id, None)
        self.outputs.discard(first.id)
        if run and first is target:
            self.runs[first.id] = run
        elif run == "batch" or (first is target and not looped and self._output(value)):
            self.outputs.add(first.id)

    def _run_of(self, node: Any) -> str:
        """What a recurrent layer returns, states and last state together: which axis stands first in it, "" for else."""
        return self.runs.get(node.id, "") if isinstance(node, ir.Name) else self._recurs(node)

    def _output(self, node: Any) -> bool:
        """A recurrent layer's states, one per position."""
        if isinstance(node, ir.Name):
            return node.id in self.outputs
        return isinstance(node, ir.Sub) and number(node.index) == 0 and self._run_of(node.value) == "batch"

    def _part(self, node: ir.Sub) -> Kind | None:
        """A part of what a recurrent layer returns: its states, its last state, or its states at the last position."""
        if run := self._run_of(node.value):
            return "window" if number(node.index) in (1, -1) else "along" if number(node.index) == 0 and run == "batch" else None
        if self._output(node.value) and isinstance(node.index, ir.Collection) and len(node.index.elts) > 1:
            batch, time = node.index.elts[:2]
            whole = isinstance(batch, ir.Slice) and batch.lower is None and batch.upper is None and batch.step is None
            last = time.upper is None and number(time.lower) == -1 if isinstance(time, ir.Slice) else number(time) == -1
            return "window" if whole and last else None
        return None

    def _recurs(self, node: Any) -> str:
        """``out, last = self.gru(x)`` over activations, with the axis in front that the layer was built for."""
        if self.layers is None or not isinstance(node, ir.Call) or not node.args:
            return ""
        made = self.layers.made(self.place, node.func)
        if made is None or self.layers.kind(self.place, made) not in RECURRENT:
            return ""
        asked = [v.value if isinstance(v, ir.Const) else None for k, v in made.keywords if k == "batch_first"]
        given = node.args[0]
        if asked == [True]:
            return "batch" if self.kind(given) == "along" and not self.several else ""
        if asked not in ([], [False]) or not (isinstance(given, ir.Call) and isinstance(given.func, ir.Attr)):
            return ""
        swapped = given.func.attr in ("transpose", "swapaxes") and {number(a) for a in given.args} == {0, 1}
        return "time" if swapped and self.kind(given.func.value) == "along" and not self.several else ""

    def _summarised(self, node: ir.Call) -> bool:
        """Does another layer of the script's make one summary of the window out of the activations it is given."""
        if self.layers is None or self.depth > 2 or not node.args or self.kind(node.args[0]) != "along":
            return False
        callee = self.layers.target(self.place, node.func)
        if callee is None or callee.function is None or callee.owner is None or callee.owner is self.place.owner:
            return False
        names = [p.name for p in callee.function.params][1:]
        given = {n: self.kind(a) for n, a in zip(names, node.args, strict=False)}
        methods = self.layers.methods.get(id(callee.owner), {})
        inner = Window(self.along, callee, methods, self.layers.settings(callee), given, self.depth + 1, self.layers)
        inner._run()
        return bool(inner.returned) and all(kind == "window" for kind in inner.returned) and not self.several

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
            if self.layers is not None and (side := self.layers.rounding(self.place).sides.get(id(node))) is not None:
                return self.kind(side)  # the scale only says at what steps it is rounded
            return self._both(node, node.left, node.right)[0] if node.op in "+-*/" else None
        if isinstance(node, ir.UnaryOp):
            return self.kind(node.operand)
        if isinstance(node, ir.IfExp):
            return self.kind(node.body) or self.kind(node.orelse)
        if isinstance(node, ir.Sub):
            if (part := self._part(node)) is not None:
                return part
            inner = self.kind(node.value)
            return inner if inner != "along" else None
        if isinstance(node, ir.Collection):  # what is stacked or joined
            kinds = {self.kind(e) for e in node.elts}
            if "mixed" in kinds or {"along", "window"} <= kinds:
                return "mixed"
            return "window" if "window" in kinds else "along" if kinds == {"along"} else None
        if isinstance(node, ir.Call):
            return self._call(node) or ("along" if self.along.along(self.place, node) else None)
        return None

    def at(self, node: Any) -> Any:
        """The innermost expression at which a summary came back on the positions."""
        for n in ir.walk(node):
            if isinstance(n, ir.Name) and self.kinds.get(n.id) == "mixed":
                return self.origin.get(n.id)
            if isinstance(n, ir.Call) and (entered := self._enter(n)) is not None and entered[0] == "mixed":
                return entered[1]
        return next((n for n in ir.walk(node) if isinstance(n, (ir.BinOp, ir.Call, ir.Collection)) and self._meets(n)), None)

    def _meets(self, n: Any) -> bool:
        if isinstance(n, (ir.Call, ir.Collection)):
            parts = {self.kind(a) for a in (n.args if isinstance(n, ir.Call) else n.elts)}
        else:
            parts = {self.kind(n.left), self.kind(n.right)}
        return self.kind(n) == "mixed" and "mixed" not in parts

    def _both(self, node: Any, left: Any, right: Any) -> tuple[Kind | None, Any]:
        a, b = self.kind(left), self.kind(right)
        if node.op == "-" and a == "along" and b == "window" and is_level(self.place, right):
            b = None  # see `audit.rules.mixing`: it cancels out where shares are made
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
        if (entered := self._enter(node)) is not None:
            return entered[0]
        if self._summarised(node):
            return "window"
        if name in ("cat", "concat", "concatenate") and node.args and isinstance(node.args[0], ir.Collection):
            kinds = [self.kind(e) for e in node.args[0].elts]
            behind = "along" not in kinds[kinds.index("window") :] if "window" in kinds else False
            if behind and "mixed" not in kinds and number(argument(node.args, 1, node.keywords, "dim", "axis")) == 1:
                return None  # a position of its own behind all others
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
        if base is None and name in STATISTICS and isinstance(func, ir.Attr) and self._prefix(func.value):
            base, rest = "along", node.args
        if base is None or name in (_SCALARS if base == "window" else _ENDS):
            return None
        if name in ("view", "reshape") and len(rest) > 2 and not any(number(a) == 1 for a in rest) and not self._spreads(node):
            return None  # one per position, where the rows were positions
        over = argument(rest, 0, node.keywords, "dim", "axis")
        time = number(over) == 1
        if name in STATISTICS:
            return (
                "window" if time else None if over is None or (base == "along" and not _last(over)) else base
            )
        if name in ("softmax", "log_softmax"):
            return "mixed" if time and base in ("along", "mixed") else base
        if name in ("transpose", "swapaxes"):
            return base if base == "window" else None
        return base

    def _spreads(self, node: Any) -> bool:
        """Was a summary laid out along time already: whatever its layout then, all positions hold the same."""
        return any(
            (isinstance(n, ir.Name) and n.id in self.spread) or (isinstance(n, ir.Call) and isinstance(n.func, ir.Attr) and n.func.attr in _SPREADS)
            for n in ir.walk(node)
        )

    def _prefix(self, node: Any) -> bool:
        """``x[:, :n]``: the window's beginning, whose summary the positions inside it may not see either."""
        if not (
            isinstance(node, ir.Sub) and isinstance(node.index, ir.Collection) and len(node.index.elts) == 2
        ):
            return False
        batch, time = node.index.elts
        whole = isinstance(batch, ir.Slice) and batch.lower is None and batch.upper is None
        return (
            whole and isinstance(time, ir.Slice) and time.lower is None and self.kind(node.value) == "along"
        )

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


def is_level(place: Place, node: Any) -> bool:
    """The largest value, by whatever name: what may be subtracted before ``exp`` without changing any share."""
    if isinstance(node, ir.Name):
        made = place.assigned(node.id)
        return bool(made) and all(not isinstance(m, ir.Name) and is_level(place, m) for m in made)
    while isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in ("detach", "float", "to", "unsqueeze"):
        node = node.func.value
    return isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in ("amax", "logsumexp")


def _last(over: Any) -> bool:
    return number(over) in (-1, 2)


__all__ = ["STATISTICS", "Window", "is_level", "summarises"]
