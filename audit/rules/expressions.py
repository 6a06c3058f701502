"""What an expression of a module's method holds along time, given what its local names hold.

No rule lives here; `audit.rules.reading` follows the statements. An operation that is not known here leaves nothing
known, so that a mask in any spelling ends what could be said about scores, except where `audit.rules.masks` knows which
positions it leaves in sight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from audit import ir
from audit.rules import attention as spelled
from audit.rules import axes as ax
from audit.rules import kernels, slots
from audit.rules import masks as hide
from audit.rules import mixing as mix
from audit.rules.axes import Env, Fixed, Grid, Known, Size, Value
from audit.rules.code import Code, Place
from audit.rules.filters import OVERHANG, PADDED, Taps, reaches, same_text
from audit.rules.groups import (
    REPEATED,
    every,
    grouped,
    pooled,
    put_back,
    rearranged,
    repeated,
    thinned,
    unfolded,
)
from audit.rules.layers import Layers
from audit.rules.places import Places, called
from audit.rules.sequence import Sequences
from audit.rules.settings import decided
from audit.rules.wrapped_ids import WRAPPED, wrapped

RANKED = "positions are picked by their rank among all positions of the window, the later ones included"
BRANCH = "that a branch before it is taken"
BATCH = "attention over the batch: each window sees the others"
UNMASKED = "attention has no causal mask: every position sees the whole window"
TURNED = "the attention's mask leaves later positions in sight"

#: into how many pieces activations are cut at most, for what is done to each of them
_PIECES = 9
_NORMED = frozenset({"normalize", "instance_norm", "batch_norm", "group_norm"})


@dataclass(frozen=True, slots=True)
class Seen:
    """Where in which place each position comes to hold later ones; ``lacks``: what was not shown, if anything."""

    place: Place
    node: Any
    message: str
    lacks: str = ""


class Expressions(Places):
    """Reads expressions of one method; ``doubt`` counts the branches around them that nothing decides."""

    def __init__(
        self, code: Code, along: Sequences, layers: Layers, place: Place, given: Env, depth: int = 0, doubt: int = 0
    ) -> None:
        self.code, self.along, self.layers, self.place = code, along, layers, place
        self.depth, self.doubt = depth, doubt
        self.settings: Mapping[str, Any] = layers.settings(place)
        self.env: Env = dict(given)
        self.returned: list[Known] = []
        self.seen: list[Seen] = []
        self.rounding = layers.rounding(place)
        self.masks = hide.Masks(self.known, self._constant, lambda node: code.dotted(place, node))

    def known(self, node: Any) -> Known:
        if isinstance(node, ir.Name):
            return self.env.get(node.id)
        if isinstance(node, ir.Const):
            return Fixed(node.value)
        if isinstance(node, ir.BinOp):
            left, right = self.known(node.left), self.known(node.right)
            if node.op == "@":
                return self._product(left, right, node)
            if id(node) in self.rounding.sides:
                return self._stepped(node, left, right)
            if (masked := self._under_mask(node, node.op, left, right)) is not None:
                return masked
            if node.op == "*" and isinstance(left, Size) and isinstance(right, Size) and {left.axis, right.axis} == {"b", "t"}:
                return Size("f")
            plain = any(isinstance(x, Fixed) for x in (left, right))
            if not plain and isinstance(held := left if isinstance(left, Value) else right, Value) and held.state == "wrap":
                plain = self._scales(node.right if held is left else node.left)
            return mix.both(node, left, right, plain)
        if isinstance(node, ir.UnaryOp):
            inner = self.known(node.operand)
            if isinstance(inner, Grid):
                return hide.inverted(inner) if node.op == "~" else hide.combined(Grid((), (0,), False), inner, "-") if node.op == "-" else None
            return inner if isinstance(inner, Value) and node.op in "+-~" else None
        if isinstance(node, ir.IfExp):
            return self._either(node)
        if isinstance(node, ir.Collection):
            return tuple(self.known(e) for e in node.elts)
        if isinstance(node, ir.Comp):
            return self._each(node)
        if isinstance(node, ir.NamedExpr):
            self.env[node.target.id] = self.known(node.value)
            return self.env[node.target.id]
        if isinstance(node, ir.Attr):
            return self._attribute(node)
        if isinstance(node, ir.Compare):
            return self._compared(node)
        if isinstance(node, ir.Sub):
            base = self.known(node.value)
            if isinstance(base, Grid):
                return self.masks.indexed(base, node)
            if isinstance(base, tuple):
                n = ax.number(node.index)
                if n is not None and -len(base) <= n < len(base):
                    return base[n]
                lower, upper = (node.index.lower, node.index.upper) if isinstance(node.index, ir.Slice) else (None, None)
                whole = isinstance(node.index, ir.Slice) and (lower is None or ax.number(lower) is not None)
                return base[slice(ax.number(lower), ax.number(upper))] if whole and (upper is None or ax.number(upper) is not None) else None
            if isinstance(base, Value) and base.state == "rank":
                last = node.index.elts[-1] if isinstance(node.index, ir.Collection) and node.index.elts else node.index
                if isinstance(last, ir.Slice) and (last.lower is not None or last.upper is not None):
                    self._report(node, RANKED)
                return None
            if isinstance(base, Value) and base.state == "sorted":  # the value at a certain rank
                return Value(("b", "."), base.origin, "window", (node, mix.WHOLE.format("order")))
            return self._taken(base, node) if isinstance(base, Value) else None
        if isinstance(node, ir.Call):
            return self._call(node)
        return None

    def _taken(self, base: Value, node: ir.Sub) -> Value | None:
        parts = node.index.elts if isinstance(node.index, ir.Collection) else [node.index]
        if len(parts) == 2 and base.axes == ("b", "t", "c") and isinstance(parts[1], ir.Slice) and parts[1].step is not None:
            return every(base, parts[1])
        if base.state == "long" and (cut := [p for p in parts if isinstance(p, ir.Slice) and p.lower is not None]):
            at = parts.index(cut[0]) - len(parts)
            behind = len(cut) == 1 and base.axis(at) == "t" and not any(isinstance(p, ir.Const) and p.value is None for p in parts)
            return self._last(base, cut[0], node) if behind else None
        if (far := self._moved(base, parts, node)) is not None:
            return far
        return ax.taken(base, node, self.known)

    def _last(self, v: Value, time: ir.Slice, node: ir.Sub) -> Value | None:
        """Of a filter's result with its overhang on both sides, all but the first ones: those reach later positions."""
        first, end = time.lower, time.upper
        if v.late or v.ahead or time.step is not None:
            return None
        if isinstance(first, ir.UnaryOp) and first.op == "-" and self.known(first.operand) == Size("t"):
            return replace(v, state="", ahead=(node, OVERHANG)) if end is None else None
        as_long = isinstance(end, ir.BinOp) and end.op == "+" and any(
            same_text(a, first) and self.known(b) == Size("t") for a, b in _either_way(end.left, end.right)
        )  # fmt: skip
        positive = Taps(self.layers, self.place).positive(first)
        return replace(v, state="", ahead=(node, OVERHANG)) if positive and (end is None or as_long) else None

    def _attribute(self, node: ir.Attr) -> Known:
        if node.attr == "shape":
            return ax.length(node, self.known)
        if isinstance(node.value, ir.Name) and node.value.id == "self":
            return self._held(node.attr)
        base = self.known(node.value)
        if isinstance(base, tuple) and len(base) == 2 and node.attr in ("values", "indices"):
            return base[int(node.attr == "indices")]
        if isinstance(base, Grid):
            return hide.turned(base) if node.attr in ("mT", "T") and len(base.axes) > 1 else None
        if not isinstance(base, Value):
            return None
        if node.attr in ("mT", "T") and len(base.axes) > 1:
            return replace(base, axes=(*base.axes[:-2], base.axes[-1], base.axes[-2]))
        if node.attr == "real":
            made = (node, "a spectrum over the whole window is put back on its positions")
            return replace(base, state="", ahead=made) if base.state == "freq" else base
        return base if node.attr == "data" else None

    def _either(self, node: ir.IfExp) -> Known:
        test = self._decided(node.test)
        if test is not None:
            return self.known(node.body if test else node.orelse)
        self.doubt += 1
        a, b = self.known(node.body), self.known(node.orelse)
        self.doubt -= 1
        return a if a == b else None

    def _each(self, node: ir.Comp) -> Known:
        """``(t.view(B, T, H, D).transpose(1, 2) for t in (q, k, v))``"""
        if len(node.generators) != 1 or node.generators[0].ifs or not isinstance(node.generators[0].target, ir.Name):
            return None
        walked = node.generators[0].iter
        over = self.known(walked)
        if isinstance(over, Value) and isinstance(walked, ir.Call) and called(walked) == "chunk":
            library = self.code.dotted(self.place, walked.func) == "torch.chunk"
            pieces = ax.number(ax.argument(walked.args[library:], 0, walked.keywords, "chunks"))
            over = (over,) * pieces if pieces is not None and 0 < pieces < _PIECES else None
        if not isinstance(over, tuple):
            one = self.known(node.elt) if isinstance(node.generators[0].iter, ir.Attr) else None
            return (one,) if isinstance(one, Value) and one.axes == ("b", "g", "c") else None
        outer, found = dict(self.env), []
        for v in over:
            self.env[node.generators[0].target.id] = v
            found.append(self.known(node.elt))
        self.env = outer
        return tuple(found)

    def _product(self, left: Known, right: Known, node: Any) -> Known:
        made = mix.product(left, right, node)
        first = node.left if isinstance(node, ir.BinOp) else node.args[0] if node.args and len(node.args) == 2 else None
        if isinstance(right, Value) and not isinstance(left, Value) and right.axis(-2) == "t" and not right.state and first is not None:
            if (isinstance(left, Grid) and hide.mixed(left, right)) or (left is None and self._between_positions(first)):
                return replace(right, ahead=right.ahead or (node, mix.OVER))
        if left is None and isinstance(right, Value) and isinstance(node, ir.BinOp):
            made = slots.learned(spelled.made_of(self.place, node.left), right)
        if made is not None and isinstance(left, Value) and left.state in mix.WEIGHTS:
            self._report(node, UNMASKED if left.sees is None else TURNED)
        return made

    def _compared(self, node: ir.Compare) -> Grid | Value | None:
        """A mask made by comparing, positions for example, or activations with a threshold; what is compared goes nowhere else."""
        before = len(self.seen)
        if len(node.comparators) == 1 and node.ops[0] == "==" and any(self._one_token(*p) for p in _either_way(node.left, node.comparators[0])):
            return hide.one_text()
        sides = [self.known(x) for x in (node.left, *node.comparators)]
        del self.seen[before:]
        if any(isinstance(x, Value) for x in sides):
            return mix.compared(sides[0], sides[1], node) if len(sides) == 2 else None
        parts = [self.masks.of(x) for x in (node.left, *node.comparators)]
        del self.seen[before:]
        made = hide.combined(parts[0], parts[1], node.ops[0]) if len(parts) == 2 else None
        return made if made is not None and made.axes else None

    def _one_token(self, ids: Any, token: Any) -> bool:
        """``ids == 1``: token ids, and a token that is written out or set."""
        if not isinstance(ids, ir.Name) or (id(self.place), ids.id) not in self.layers.ids or self.place.assigned(ids.id):
            return False
        named = isinstance(token, ir.Attr) or (isinstance(token, ir.Name) and token.id not in self.place.params and not self.place.assigned(token.id))
        return ax.number(token) is not None or (named and self.known(token) is None)

    def _under_mask(self, node: ir.BinOp | ir.AugAssign, op: str, left: Known, right: Known) -> Known:
        """Arithmetic with a mask that is known; None where there is none, or nothing is known of the result."""
        if not isinstance(left, Grid) and not isinstance(right, Grid):
            return None
        if isinstance(left, Value) and isinstance(right, Grid):
            return hide.added(left, right, op) if op in ("+", "-", "*") else None
        if isinstance(right, Value) and isinstance(left, Grid):
            return hide.added(right, left, op) if op in ("+", "*") else None
        first, second = (node.left, node.right) if isinstance(node, ir.BinOp) else (node.target, node.value)
        if op == "%" and isinstance(left, Grid) and (length := self.masks.place(second, left)) is not None:
            return hide.combined(left, Grid((), (length,), False), "%")
        return hide.combined(self.masks.of(first), self.masks.of(second), op)

    def _call(self, node: ir.Call) -> Known:
        func, name = node.func, called(node)
        own = isinstance(func, ir.Attr) and isinstance(func.value, ir.Name) and func.value.id == "self"
        full = self.code.dotted(self.place, func)
        library = not own and full.startswith(("torch.", "einops.", "mlx.", "flash_attn"))
        name = full.rpartition(".")[2] if library else name
        if isinstance(func, ir.Attr) and not own and not library:
            base = self.known(func.value)
            if isinstance(base, Value):
                return self._operation(node, name, base, node.args)
            if isinstance(base, Grid):
                return self.masks.after(base, node, name, node.args)
        args = [self.known(a) for a in node.args]
        words = {k: self.known(v) for k, v in node.keywords}
        if full == "float" and len(args) == 1 and isinstance(args[0], Value) and args[0].state == "window" and not args[0].axes:
            return args[0]
        if full == "abs" and len(args) == 1 and isinstance(args[0], Grid):
            return self.masks.after(args[0], node, name, [])
        if name == "size":
            return ax.length(node, self.known)
        if library or full.startswith("numpy."):
            built = self.masks.built(node, full.rpartition(".")[2])
            if built is not None:
                return built
        if name in self.along.embeddings.tables and node.args:
            return self._embedded(node)
        if name in spelled.FLASH or name == "scaled_dot_product_attention" or self._flexible(node):
            return self._attention(node, name, args)
        if (kernel := self._kernel(func, full)) != "":
            return kernels.run(node, kernel, args, words)
        if own or not library:
            return self._layer(node, name, args)
        if name in ("cat", "concat", "concatenate") and args and isinstance(args[0], tuple):
            over = ax.argument(node.args, 1, node.keywords, "dim", "axis")
            return ax.joined(list(args[0]), 0 if over is None else ax.number(over), node)
        if name == "stack" and args and isinstance(args[0], tuple) and args[0]:
            first = args[0][0]
            over = ax.number(ax.argument(node.args, 1, node.keywords, "dim"))
            alike = isinstance(first, Value) and first.axes == ("b", "g", "c") and over in (2, -2) and all(a == first for a in args[0])
            return replace(first, axes=REPEATED) if alike and isinstance(first, Value) else None
        if name == "einsum":
            turn = len(args) == 3 and args[1] is None and isinstance(args[2], Value) and not spelled.made_of(self.place, node.args[1])
            if len(args) == 3 and (over := self._over_time(node, args)) is not None:
                return over
            made, attends = mix.einsum(node, args[:0:-1] if turn else args[1:], turn) if args else (None, False)
            if attends:
                self._report(node, UNMASKED if not isinstance(args[1], Value) or args[1].sees is None else TURNED)
            return made
        if name in ("matmul", "bmm") and len(args) == 2:
            return self._product(args[0], args[1], node)
        if name == "linear" and args and isinstance(args[0], Value):
            if args[0].state == mix.LEVEL:
                self._handed_on(replace(args[0], state=""))
            return projected(args[0])
        if name == "where" and len(args) == 3 and isinstance(args[0], Value):
            return self._passed(args[1], args[0]) or self._passed(args[2], args[0])
        if name == "where" and len(args) == 3 and isinstance(args[0], Grid):
            kept, other = (1, 2) if isinstance(args[1], Value) else (2, 1)
            scores = args[kept]
            return hide.filled(scores, args[0], self.masks.scalar(node.args[other]), kept == 2) if isinstance(scores, Value) else None
        return self._operation(node, name, args[0], node.args[1:]) if args and isinstance(args[0], Value) else None

    def _passed(self, v: Known, which: Known) -> Value | None:
        """Activations of which some are replaced, where a threshold over the whole window says which."""
        limited = isinstance(which, Value) and not which.state and which.ahead is not None and which.ahead[1] == mix.LIMIT
        return replace(v, ahead=which.ahead) if limited and isinstance(v, Value) and isinstance(which, Value) and not v.state else None

    def _operation(self, node: ir.Call, name: str, v: Value, rest: list[Any]) -> Known:
        """A method of the value, or a library's function that is given it first."""
        if id(node) in self.rounding.calls:
            return v if not v.state else None
        words = dict(node.keywords)
        over = ax.argument(rest, 0, node.keywords, "dim", "axis")
        if name in ("masked_fill", "masked_fill_", "where") and len(rest) == 2:
            if (passed := self._passed(v, self.known(rest[0]))) is not None:
                return passed
            return hide.filled(v, self.known(rest[0]), self.masks.scalar(rest[1]), name != "where")
        if name in ("triu", "tril", "triu_", "tril_"):
            return hide.halved(v, name.rstrip("_"), self.masks.diagonal(node, rest))
        if name in ("add", "mul", "sub") and len(rest) == 1 and isinstance(mask := self.known(rest[0]), Grid):
            return hide.added(v, mask, {"add": "+", "sub": "-", "mul": "*"}[name])
        if name in ("view", "reshape"):
            folded = unfolded(v, rest, self.known) or grouped(v, rest, self.place, self.known)
            if folded is not None:
                return put_back(v, node, ("b", "t", "c"), self.place) if folded is v else folded
            return ax.viewed(v, rest, self.known) if v.state != "fill" and not {"g", "p", "r"} & set(v.axes) else None
        if name == "repeat_interleave":
            over = ax.number(ax.argument(rest, 1, node.keywords, "dim"))
            return v if v.axis(over) in (".", "c") and not v.state else repeated(v, node, rest, self.place)
        if name == "interpolate":
            if v.axes == ("b", "c", "g"):
                return put_back(v, node, ("b", "c", "t"), self.place)
            return thinned(v, *(ax.argument(rest, n, node.keywords, k) for n, k in ((1, "scale_factor"), (2, "mode"))))
        if name in ("avg_pool1d", "max_pool1d"):
            step, pad = (ax.argument(rest, n, node.keywords, k) for n, k in ((1, "stride"), (2, "padding")))
            return pooled(v, over if over is not None else words.get("kernel_size"), step if step is not None else over, pad)
        if name in ("expand", "repeat") and v.axes == ("b", "g", ".", "c"):
            return replace(v, axes=REPEATED)
        if name in ("expand", "repeat"):
            return _spread(v, rest, name)
        if name == "unsqueeze" and v.axes == ("b", "g", "c"):
            return replace(v, axes=("b", "g", ".", "c")) if ax.number(over) in (2, -2) else None
        if name == "unsqueeze" and v.state in ("", "window") and (at := ax.number(over)) is not None and abs(at) <= len(v.axes):
            at %= len(v.axes) + 1
            return replace(v, axes=(*v.axes[:at], ".", *v.axes[at:]))
        if name == "item":
            return v if v.state == "window" and not v.axes else None
        if name == "size":
            return ax.length(node, self.known)
        if name in ("transpose", "swapaxes", "permute"):
            return ax.turned(v, node, name, rest)
        if name == "rearrange":
            return (rearranged(v, rest[0]) or ax.rearranged(v, rest[0])) if rest else None
        if name in ("unbind", "chunk", "split", "tensor_split"):
            return ax.parts_of(v, name, rest, words)
        if name in ("matmul", "bmm"):
            return self._product(v, self.known(rest[0]), node) if len(rest) == 1 else None
        if name == "softmax":
            return mix.softmaxed(v, node, over)
        if name == "roll":
            return mix.rolled(v, node, rest)
        if name == "pad":
            return mix.padded(v, node, over if over is not None else words.get("pad"), lambda n: Taps(self.layers, self.place).positive(n, even=False))
        if name == "flip":
            return mix.flipped(v, rest or [words.get("dims")])
        if name in ("cumsum", "logcumsumexp"):
            return mix.summed_up(v, node, over)
        if name in mix.QUANTILES:
            return mix.quantile(v, name, node, rest)
        if name == "sort":
            return mix.arranged(v, node, rest)
        if name in _NORMED:
            return mix.normed(v, name, node, rest)
        if name in mix.STATISTICS or name in ("norm", "max", "min"):
            return mix.statistic(v, name, node, over, rest)
        if name in ("fft", "rfft", "ifft", "irfft"):
            return mix.spectrum(v, name, node, rest)
        if name == "index_select" and len(rest) == 2:
            return self._picked(v, rest[1], node) if v.axis(ax.number(rest[0])) == "t" else None
        if name == "unfold" and v.state == "pad":
            dim, size = (ax.argument(rest, n, node.keywords, k) for n, k in enumerate(("dimension", "size")))
            reach = reaches(v.front, size, None, Taps(self.layers, self.place)) if v.front is not None else True
            return replace(v, axes=(*v.axes, "."), state="", ahead=(node, PADDED), late=0) if reach and v.axis(ax.number(dim)) == "t" else None
        if name == "layer_norm":
            return self._normed(v, node, over)
        if name == "unsqueeze":
            return None
        if name == "sum" and v.state:
            return None
        if name == "squeeze":
            return ax.squeezed(v, ax.number(over))
        if name == "topk":
            by = ax.argument(rest, 1, node.keywords, "dim", "axis")
            if not v.state and v.axis(-1 if by is None else ax.number(by)) in ("t", "f"):
                self._report(node, RANKED)
            return None
        if name in ("argsort", "argpartition"):
            by = over if name == "argsort" else ax.argument(rest, 1, node.keywords, "axis")
            timed = not v.state and v.axis(-1 if by is None else ax.number(by)) in ("t", "f")
            return replace(v, state="rank") if timed else None
        return mix.kept(v, name, rest)

    def _normed(self, v: Value, node: ir.Call, over: Any) -> Value | None:
        """``F.layer_norm(x, x.shape[1:])``: over all positions where time is among what is normed."""
        sizes = self.known(over)
        if v.state or not isinstance(sizes, tuple):
            return v if not v.state and v.axis(-1) != "t" else None
        timed = any(isinstance(s, Size) and s.axis == "t" for s in sizes)
        return replace(v, ahead=(node, mix.WHOLE.format("norm"))) if timed else v

    def _embedded(self, node: ir.Call) -> Value | None:
        """Token ids looked up; those of the next token where the ids were moved back by one."""
        names = frozenset(
            n.id for n in ir.walk(node.args[0])
            if isinstance(n, ir.Name) and n.id not in ("self", "torch") and not isinstance(self.env.get(n.id), Size)  # nor of places
        )  # fmt: skip
        if not self.along.along(self.place, node):
            return None
        for n in ir.walk(node.args[0]):
            if isinstance(n, ir.Call) and called(n) == "roll":
                library = self.code.dotted(self.place, n.func) == "torch.roll"
                moved = mix.rolled(Value(("b", "t"), names), n, n.args[1:] if library else n.args)
                if moved is not None and moved.ahead is not None:
                    return Value(("b", "t", "c"), names, "", moved.ahead)
        if (roll := wrapped(self.code, self.place, node.args[0])) is not None:
            return Value(("b", "t", "c"), names, "wrap", (roll, WRAPPED))
        return Value(("b", "t", "c"), names)

    def _attention(self, node: ir.Call, name: str, args: list[Known]) -> Known:
        flash = name in spelled.FLASH
        if flash and self.layers.redefined(name):
            return self._layer(node, name, args)
        if flash:
            bare = spelled.flash_unmasked(node, name, self._constant)
        else:
            bare = spelled.unmasked(node, self._constant, self._opened)
        turned = not bare and not flash and self._sees_ahead(node, args)
        ends = [a for a in args[:3] if isinstance(a, Value)]
        timed = bool(ends) and len(ends) == min(len(args), 3) and all("t" in v.axes for v in ends)
        own = len(ends) > 1 and ends[0].origin == ends[1].origin and len(ends[0].origin) == 1
        packed = flash and "qkv" in name and len(ends) == 1
        if (bare or turned) and self.place.owner is not None and timed and (own or packed):
            self._report(node, TURNED if turned else UNMASKED)
        if bare and self.place.owner is not None:
            made, read = slots.attended(node, args, 1 if flash else -2)
            if read:
                self._report(node, slots.READ)
            if made is not None:
                return made
        first = args[0] if args else None
        causal = [v for k, v in node.keywords if k in ("is_causal", "causal")]
        if causal and self._constant(causal[0]) == (True, True) and (back := kernels.turned_back(first, node)) is not None:
            return back
        return replace(first, state="", ahead=None) if isinstance(first, Value) else None

    def _sees_ahead(self, node: ir.Call, args: list[Known]) -> bool:
        """Does the mask that ``scaled_dot_product_attention`` is given show later positions, and nothing else hides them."""
        if spelled.spread(node) or self.layers.redefined("scaled_dot_product_attention"):
            return False
        if any(k != "attn_mask" and k != "mask" and ("mask" in str(k) or "bias" in str(k)) for k, _ in node.keywords):
            return False
        causal = ax.argument(node.args, 5, node.keywords, "is_causal")
        mask = ax.argument(node.args, 3, node.keywords, "attn_mask", "mask")
        plain = all(isinstance(a, Value) and not a.state and a.axis(-2) == "t" for a in args[:3])
        if mask is None or not plain or not (causal is None or self._constant(causal) == (True, False)):
            return False
        return hide.ahead(hide.attended(self.known(mask)))

    def _held(self, attribute: str) -> Known:
        """What the object is known to hold under a name."""
        return None

    def _constant(self, node: Any) -> tuple[bool, Any]:
        k = self.known(node)
        if isinstance(k, Fixed):
            return True, k.value
        if isinstance(node, ir.Attr) and isinstance(node.value, ir.Name) and node.value.id == "self" and node.attr in self.settings:
            return True, self.settings[node.attr]
        return False, None

    def _opened(self, mask: Any) -> bool:
        if isinstance(mask, ir.Name):
            made = [n for n in self.place.nodes(ir.Assign) if any(binds(t, mask.id) for t in n.targets)]
            written = any(binds(n.target, mask.id) for n in self.place.nodes(ir.AugAssign))
            return len(made) == 1 and not written and spelled.hides_nothing(made[0].value)
        return spelled.hides_nothing(mask)

    def _layer(self, node: ir.Call, name: str, args: list[Known]) -> Known:
        """A layer, or a method or function of the script, with what it is given; see `Reading`."""
        raise NotImplementedError

    def _decided(self, test: Any) -> bool | None:
        if isinstance(test, ir.Call) and isinstance(test.func, ir.Name) and test.func.id == "isinstance" and len(test.args) == 2:
            of = self.known(test.args[0]) if isinstance(test.args[1], ir.Name) and test.args[1].id == "tuple" else None
            return None if of is None else isinstance(of, tuple)
        local = {k: v.value for k, v in self.env.items() if isinstance(v, Fixed)}
        return decided(test, self.settings, local)

    def _handed_on(self, value: Known) -> None:
        """A value that goes on through the model."""
        if isinstance(value, Value) and value.ahead is not None and value.state == "" and {"t", "f"} & set(value.axes):
            self._report(*value.ahead)

    def _report(self, node: Any, message: str, lacks: str = "") -> None:
        self.seen.append(Seen(self.place, node, message, lacks or (BRANCH if self.doubt else "")))


def _spread(v: Value, sizes: list[Any], name: str) -> Value | None:
    """After ``expand`` or ``repeat`` of other axes than time."""
    if len(sizes) == 1 and isinstance(sizes[0], ir.Collection):
        sizes = sizes[0].elts
    if v.state not in ("", "window") or len(sizes) != len(v.axes) or any(isinstance(s, ir.Starred) for s in sizes):
        return None
    kept = all(ax.number(s) == 1 for s, a in zip(sizes, v.axes, strict=True) if a not in (".", "c"))
    return v if name == "expand" or kept else None


def _either_way(a: Any, b: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (a, b), (b, a)


def projected(v: Value) -> Value | None:
    return replace(v, axes=(*v.axes[:-1], "c")) if v.axis(-1) != "t" and v.state in ("", "fill", "flip", "wrap", slots.SLOTS) else None


def binds(target: Any, name: str) -> bool:
    return any(isinstance(n, ir.Name) and n.id == name for n in ir.walk(target))


__all__ = ["BATCH", "BRANCH", "TURNED", "UNMASKED", "Expressions", "Seen", "called", "projected"]
