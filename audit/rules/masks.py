"""Which pairs of positions an attention mask leaves in sight, where it is made of constants and positions alone.

No rule lives here. A mask is worked out on a small window: ones, minus infinities, the half of a square on one side of
a diagonal, comparisons of positions, and what is combined of these. Documents are told by a certain token among the
ids: the small window is one in which it does not occur. What is made of anything else (documents that are handed in, padding,
a width that is not known) is not known, nor is what it is combined with. A pair that the small window shows is there in
every longer one, since nothing that depends on the length is worked out.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from audit import ir
from audit.rules.axes import Grid, Known, Size, Value, argument, number

#: positions of the small window
POSITIONS = 12
#: what is added to a score hides it below the first, and leaves it in sight above the second
_HIDES, _SHOWS = -1000.0, -30.0

COMPARES: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
}  # fmt: skip
LOGIC: dict[str, Callable[[Any, Any], Any]] = {
    "&": lambda a, b: bool(a) and bool(b), "|": lambda a, b: bool(a) or bool(b), "^": lambda a, b: bool(a) != bool(b),
    "logical_and": lambda a, b: bool(a) and bool(b), "logical_or": lambda a, b: bool(a) or bool(b),
}  # fmt: skip
COMBINES: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "//": operator.floordiv, "/": operator.truediv, "div": operator.truediv, "%": operator.mod, "remainder": operator.mod,
}  # fmt: skip
_MADE = {"ones": 1, "zeros": 0}
_SAME = frozenset({"contiguous", "clone", "detach", "cuda", "cpu"})
_TYPES = {"bool": True, "float": False, "int": False, "long": False, "half": False, "bfloat16": False, "double": False}
#: a mask's methods that write into it; the name then holds the result
IN_PLACE = frozenset({"masked_fill_", "triu_", "tril_"})


class Masks:
    """Works out masks among the expressions of one method.

    ``known`` reads an expression, ``constant`` says whether it is a constant and which, ``dotted`` gives its full name.
    """

    def __init__(self, known: Callable[[Any], Known], constant: Callable[[Any], tuple[bool, Any]], dotted: Callable[[Any], str]) -> None:
        self.known, self.constant, self.dotted = known, constant, dotted

    def scalar(self, node: Any) -> float | None:
        """A number that is written out, infinities and the least number of a type among them."""
        if isinstance(node, ir.UnaryOp) and node.op in "+-":
            inner = self.scalar(node.operand)
            return None if inner is None else -inner if node.op == "-" else inner
        if isinstance(node, ir.Call) and isinstance(node.func, ir.Name) and node.func.id == "float" and len(node.args) == 1:
            text = node.args[0].value if isinstance(node.args[0], ir.Const) else None
            return {"-inf": -math.inf, "inf": math.inf}.get(text) if isinstance(text, str) else self.scalar(node.args[0])
        if isinstance(node, ir.Attr):
            if self.dotted(node) in ("math.inf", "torch.inf", "numpy.inf", "mlx.core.inf"):
                return math.inf
            if node.attr in ("min", "max") and isinstance(node.value, ir.Call) and self.dotted(node.value.func).endswith(".finfo"):
                return -math.inf if node.attr == "min" else math.inf
        found, value = self.constant(node)
        return value if found and isinstance(value, (int, float)) else None

    def of(self, node: Any) -> Grid | None:
        """What an expression is as a mask; a number fits every mask."""
        held = self.known(node)
        if isinstance(held, Grid):
            return held
        value = None if held is not None and isinstance(held, (Value, Size, tuple)) else self.scalar(node)
        return None if value is None else Grid((), (value,), isinstance(value, bool))

    def built(self, node: ir.Call, name: str) -> Grid | None:
        """What one of the library's functions makes: ``torch.ones(T, T)``, ``torch.arange(T)``, ``torch.tril(mask)``."""
        if any(isinstance(a, ir.Starred) for a in node.args) or any(k is None for k, _ in node.keywords):
            return None
        if name in _MADE or name == "full":
            sizes = node.args[:1] if name == "full" else node.args
            if len(sizes) == 1 and isinstance(sizes[0], ir.Collection):
                sizes = sizes[0].elts
            fill = argument(node.args, 1, node.keywords, "fill_value") if name == "full" else None
            value = _MADE.get(name) if fill is None else self.scalar(fill)
            labels = [self._label(s) for s in sizes]
            asked = [v for k, v in node.keywords if k == "dtype"]
            boolean = self._type(asked[0]) if asked else isinstance(value, bool)
            if value is None or not labels or None in labels or (asked and boolean is None):
                return None
            axes = tuple(x for x in labels if x is not None)
            return Grid(axes, (value,) * POSITIONS ** sum(map(bool, axes)), bool(boolean))
        if name == "arange":
            if not node.args or len(node.args) > 2 or any(k in ("start", "end", "step") for k, _ in node.keywords):
                return None
            start, end = (number(node.args[0]) if len(node.args) == 2 else 0), node.args[-1]
            if start and isinstance(end, ir.BinOp) and end.op == "+" and number(end.right) == start:
                end = end.left  # ``torch.arange(1, T + 1)``
            elif start != 0:
                return None
            label = self._label(end)
            return Grid((label,), tuple(range(start, start + POSITIONS)), False) if label else None
        if name == "where" and len(node.args) == 3:
            return chosen(*(self.of(a) for a in node.args))
        if name in ("from_numpy", "tensor", "asarray", "array") and len(node.args) == 1 and not node.keywords:
            held = self.known(node.args[0])
            return held if isinstance(held, Grid) else None
        first = self.of(node.args[0]) if node.args else None
        return self.after(first, node, name, node.args[1:]) if first is not None and first.axes else None

    def after(self, g: Grid, node: ir.Call, name: str, rest: list[Any]) -> Grid | None:
        """After a method of the mask, or a function of the library that is given it first."""
        words = dict(node.keywords)
        name = name.removesuffix("_")
        if name in _SAME:
            return g
        if name in _TYPES and not rest:
            return _typed(g, _TYPES[name])
        if name in ("to", "type", "astype"):
            return self._moved(g, [*rest, *(v for k, v in node.keywords if k in ("dtype", "device"))])
        if name in ("triu", "tril"):
            return half(g, name, self.diagonal(node, rest))
        if name == "logical_not":
            return inverted(_typed(g, True))
        if name in ("transpose", "swapaxes", "t"):
            pair = {number(a) for a in rest[:2]}
            plain = {n % len(g.axes) for n in pair if n is not None} == {len(g.axes) - 2, len(g.axes) - 1}
            return turned(g) if (name == "t" or (plain and None not in pair)) and len(g.axes) > 1 else None
        if name == "unsqueeze":
            at = number(argument(rest, 0, node.keywords, "dim", "axis"))
            if at is None or not -len(g.axes) - 1 <= at <= len(g.axes):
                return None
            at %= len(g.axes) + 1
            return replace(g, axes=(*g.axes[:at], "", *g.axes[at:]))
        if name in ("view", "reshape", "expand"):
            sizes = rest[0].elts if len(rest) == 1 and isinstance(rest[0], ir.Collection) else rest
            if name == "expand":
                return replace(g, axes=("",) * (len(sizes) - len(g.axes)) + g.axes)
            labels = [a for a in g.axes if a]
            wide = [number(s) != 1 for s in sizes]
            if sum(wide) != len(labels):
                return None
            left = iter(labels)
            return replace(g, axes=tuple(next(left) if w else "" for w in wide))
        if name == "masked_fill" and len(rest) == 2:
            return chosen(self.of(rest[0]), self.of(rest[1]), g)
        if name == "sum" and number(argument(rest, 0, node.keywords, "dim", "axis")) == -1 and g.axes and g.axes[-1]:
            held = any(k in ("keepdim", "keepdims") and isinstance(v, ir.Const) and v.value is True for k, v in node.keywords)
            rows = [sum(g.cells[n : n + POSITIONS]) for n in range(0, len(g.cells), POSITIONS)]
            return Grid((*g.axes[:-1], *([""] if held else [])), tuple(rows), False)
        if name in ("clamp", "clip", "clamp_max", "clamp_min") and g.boolean is False:
            low = None if name == "clamp_max" else argument(rest, 0, node.keywords, "min")
            high = argument(rest, int(name != "clamp_max"), node.keywords, "max")
            ends = [None if x is None else self.place(x, g) for x in (low, high)]
            if any(x is not None and e is None for x, e in zip((low, high), ends, strict=True)):
                return None
            cells = tuple(max(c, ends[0]) if ends[0] is not None else c for c in g.cells)
            return replace(g, cells=tuple(min(c, ends[1]) if ends[1] is not None else c for c in cells))
        if name in ("abs", "absolute") and not rest:
            return replace(g, cells=tuple(abs(c) for c in g.cells))
        if name == "cumsum":
            over = number(argument(rest, 0, node.keywords, "dim", "axis"))
            last = over is not None and over in (-1, len(g.axes) - 1) and bool(g.axes[-1]) and not any(g.axes[:-1])
            return Grid(g.axes, tuple(itertools.accumulate(c + 0 for c in g.cells)), False) if last else None
        if name in COMPARES or name in LOGIC or name in COMBINES:
            other = self.of(rest[0]) if len(rest) == 1 and not words else None
            return combined(g, other, name)
        return None

    def place(self, node: Any, g: Grid) -> int | None:
        """A place of the small window: a number, the window's length, or that length less a number."""
        if isinstance(node, ir.BinOp) and node.op == "-":
            whole, less = self.place(node.left, g), number(node.right)
            return None if whole is None or less is None else whole - less
        known = number(node)
        if known is not None:
            return known
        labels = {a for a in g.axes if a}
        return POSITIONS if self._label(node) in labels and isinstance(self.known(node), (Size, type(None))) else None

    def diagonal(self, node: ir.Call, rest: list[Any]) -> int | None:
        by = argument(rest, 0, node.keywords, "diagonal", "k")
        value = 0 if by is None else self.scalar(by)
        return value if isinstance(value, int) else None

    def indexed(self, g: Grid, node: ir.Sub) -> Grid | None:
        """After ``mask[None, :, :T]``: new axes, and a beginning that both axes are cut to alike."""
        parts = node.index.elts if isinstance(node.index, ir.Collection) else [node.index]
        if sum(isinstance(p, ir.Const) and p.value is Ellipsis for p in parts) > 1:
            return None
        axes: list[str] = []
        old = list(g.axes)
        for n, p in enumerate(parts):
            if isinstance(p, ir.Const) and p.value is None:
                axes.append("")
                continue
            if isinstance(p, ir.Const) and p.value is Ellipsis:
                behind = sum(not (isinstance(q, ir.Const) and q.value is None) for q in parts[n + 1 :])
                while len(old) > behind:
                    axes.append(old.pop(0))
                continue
            if not old:
                return None
            label = old.pop(0)
            if isinstance(p, ir.Slice) and p.lower is None and p.step is None:
                upper = None if p.upper is None else self._label(p.upper)
                if p.upper is not None and (not upper or isinstance(p.upper, ir.UnaryOp)):
                    return None
                axes.append(upper or label)
            elif not label and number(p) == 0:
                continue
            else:
                return None
        return replace(g, axes=(*axes, *old))

    def _label(self, node: Any) -> str | None:
        """What a length is called, "" where it is one, None where that is not known."""
        held = self.known(node)
        if isinstance(held, Size):
            return held.axis
        value = self.scalar(node)
        if value is not None:
            return "" if value == 1 else str(value)
        return _text(node)

    def _type(self, node: Any) -> bool | None:
        """Is a type that is written out one of truth values."""
        last = self.dotted(node).rpartition(".")[2]
        if last in ("bool", "bool_"):
            return True
        numbers = last.startswith(("float", "int", "long", "half", "bfloat", "double", "uint"))
        return False if numbers or (isinstance(node, ir.Attr) and node.attr == "dtype") else None

    def _moved(self, g: Grid, to: list[Any]) -> Grid | None:
        for node in to:
            if isinstance(node, ir.Attr) and node.attr == "device":
                continue
            kind = self._type(node)
            g = _typed(g, kind) if kind is not None else replace(g, boolean=None)
        return g


def _text(node: Any) -> str | None:
    """The same for the same expression."""
    if isinstance(node, ir.Name):
        return node.id
    if isinstance(node, ir.Const):
        return repr(node.value)
    inner: list[Any]
    if isinstance(node, ir.Attr):
        inner = [node.value]
    elif isinstance(node, ir.Sub):
        inner = [node.value, node.index]
    elif isinstance(node, ir.Call) and not node.keywords:
        inner = [node.func, *node.args]
    else:
        return None
    parts = [_text(n) for n in inner]
    return None if None in parts else f"{type(node).__name__}{parts}{node.attr if isinstance(node, ir.Attr) else ''}"


def _typed(g: Grid, boolean: bool) -> Grid:
    return replace(g, cells=tuple(bool(c) if boolean else c + 0 for c in g.cells), boolean=boolean)


def _at(g: Grid, where: tuple[int, ...]) -> Any:
    n = 0
    for label, i in zip(g.axes, where[len(where) - len(g.axes) :], strict=True):
        n = n * POSITIONS + i if label else n
    return g.cells[n]


def _spread(grids: list[Grid]) -> tuple[str, ...] | None:
    """The axes that all of them are spread over."""
    most = max(len(g.axes) for g in grids)
    axes: list[str] = []
    for several in zip(*(("",) * (most - len(g.axes)) + g.axes for g in grids), strict=True):
        labels = {x for x in several if x}
        if len(labels) > 1:
            return None
        axes.append(next(iter(labels), ""))
    return tuple(axes)


def _over(axes: tuple[str, ...]) -> itertools.product[tuple[int, ...]]:
    return itertools.product(*(range(POSITIONS if a else 1) for a in axes))


def combined(a: Grid | None, b: Grid | None, op: str) -> Grid | None:
    """Arithmetic, logic and comparisons, entry by entry."""
    axes = _spread([a, b]) if a is not None and b is not None else None
    do = COMPARES.get(op) or LOGIC.get(op) or COMBINES.get(op)
    if a is None or b is None or axes is None or do is None or (op in ("//", "/", "div", "%", "remainder") and 0 in b.cells):
        return None
    if op in LOGIC and not all(c in (0, 1) for g in (a, b) for c in g.cells):
        return None  # bits of numbers
    boolean = op in COMPARES or op in LOGIC or (op in ("*", "+", "mul", "add") and a.boolean is True and b.boolean is True)
    cells = tuple(do(_at(a, w), _at(b, w)) for w in _over(axes))
    return _typed(Grid(axes, cells, boolean), True) if boolean else Grid(axes, cells, False)


def one_text() -> Grid:
    """Where a certain token stands in (B, T) ids, in a window without one: a text that no other begins in."""
    return Grid(("", "t"), (False,) * POSITIONS, True)


def inverted(g: Grid) -> Grid | None:
    """``~mask``, of truth values alone."""
    return replace(g, cells=tuple(not c for c in g.cells)) if g.boolean is True else None


def chosen(where: Grid | None, a: Grid | None, b: Grid | None) -> Grid | None:
    """``torch.where``."""
    if where is None or a is None or b is None or not where.axes:
        return None
    axes = _spread([where, a, b])
    if axes is None:
        return None
    boolean = a.boolean if a.boolean == b.boolean else False if b.axes == () or a.axes == () else None
    return Grid(axes, tuple(_at(a, w) if _at(where, w) else _at(b, w) for w in _over(axes)), boolean)


def half(g: Grid, name: str, by: int | None) -> Grid | None:
    """``triu`` or ``tril``: zeros on the other side of the diagonal."""
    if by is None or len(g.axes) < 2 or not g.axes[-1] or g.axes[-1] != g.axes[-2]:
        return None
    kept = _above if name == "triu" else _below
    cells = tuple(_at(g, w) if kept(w[-2], w[-1], by) else type(g.cells[0])(0) for w in _over(g.axes))
    return replace(g, cells=cells)


def _above(row: int, column: int, by: int) -> bool:
    return column - row >= by


def _below(row: int, column: int, by: int) -> bool:
    return column - row <= by


def turned(g: Grid) -> Grid:
    """Rows and columns the other way round."""
    axes = (*g.axes[:-2], g.axes[-1], g.axes[-2])
    return Grid(axes, tuple(_at(g, (*w[:-2], w[-1], w[-2])) for w in _over(axes)), g.boolean)


def _square(g: Known) -> bool:
    """Does it say something about every row and column, and the same for all windows and heads."""
    return isinstance(g, Grid) and len(g.axes) > 1 and bool(g.axes[-1]) and g.axes[-1] == g.axes[-2] and not any(g.axes[:-2])


def pairs(g: Known, shown: Callable[[Any], bool | None]) -> frozenset[tuple[int, int]] | None:
    """(row, column) that ``shown`` says of the entry that it stays in sight."""
    if not _square(g) or not isinstance(g, Grid):
        return None
    said = [shown(c) for c in g.cells]
    if None in said:
        return None
    return frozenset((w[-2], w[-1]) for w, s in zip(_over(("t", "t")), said, strict=True) if s)


def adds(c: Any) -> bool | None:
    """Is a score that this is added to still in sight."""
    if math.isnan(c) or c > -_HIDES:
        return None
    return True if c >= _SHOWS else False if c <= _HIDES else None


def attended(g: Known) -> frozenset[tuple[int, int]] | None:
    """(query, key) in sight under ``attn_mask``: truth values say so, numbers are added to the scores."""
    if not isinstance(g, Grid):
        return None
    both = (pairs(g, bool) if g.boolean is not False else None, pairs(g, adds) if g.boolean is not True else None)
    if g.boolean is None:
        return both[0] & both[1] if both[0] is not None and both[1] is not None else None
    return both[0] if g.boolean else both[1]


def mixed(g: Grid, v: Value) -> bool:
    """Does a square of weights that positions are multiplied with give some of them later ones."""
    return v.axis(-2) == "t" and not v.state and ahead(pairs(g, bool))


def blocked(g: Known) -> frozenset[tuple[int, int]] | None:
    """The same for ``nn.MultiheadAttention`` and its like, where a truth value says what is hidden."""
    if not isinstance(g, Grid) or g.boolean is None:
        return None
    return pairs(g, operator.not_ if g.boolean else adds)


def ahead(seen: frozenset[tuple[int, int]] | None) -> bool:
    """Does a query see a later key."""
    return seen is not None and any(key > query for query, key in seen)


def filled(v: Value, where: Known, by: float | None, hides: bool = True) -> Value | None:
    """Scores after ``masked_fill``; ``hides``: where the mask is true, else where it is false."""
    seen = pairs(where, (lambda c: not c) if hides else bool)
    return _hidden(v, seen, zero=by == 0) if seen is not None and by is not None and (by == 0 or by <= _HIDES) else None


def halved(v: Value, name: str, by: int | None) -> Value | None:
    """Scores after ``tril`` or ``triu``: zeros on the other side."""
    if by is None:
        return None
    kept = _above if name == "triu" else _below
    every = itertools.product(range(POSITIONS), repeat=2)
    return _hidden(v, frozenset((i, j) for i, j in every if kept(i, j, by)), zero=True)


def added(v: Value, g: Grid, op: str) -> Value | None:
    """Scores plus or minus a mask, or times one."""
    if op == "*":
        if any(math.isnan(c) or math.isinf(c) for c in g.cells):
            return None
        return _hidden(v, pairs(g, bool), zero=True)
    return _hidden(v, pairs(g, adds if op == "+" else lambda c: adds(-c)), zero=False)


def _hidden(v: Value, seen: frozenset[tuple[int, int]] | None, zero: bool) -> Value | None:
    """Scores of which some are hidden from the softmax, or ``zero`` where no softmax follows."""
    if seen is None or set(v.axes[-2:]) != {"t", "s"}:
        return None
    if v.axes[-1] == "t":
        seen = frozenset((j, i) for i, j in seen)
    both = seen if v.sees is None else v.sees & seen
    if zero:
        state = {"share": "share", "score": "zeroed", "zeroed": "zeroed"}.get(v.state)
        # What a softmax would not see is not hidden by a zero, nor the other way round.
        return None if state is None or (v.state == "score" and v.sees is not None) else replace(v, state=state, sees=both)
    if v.state == "zeroed":
        return replace(v, state="scaled", sees=seen)
    return replace(v, sees=both) if v.state in ("score", "scaled") else None


__all__ = ["COMBINES", "COMPARES", "IN_PLACE", "LOGIC", "Masks", "added", "ahead", "attended", "blocked", "combined", "filled", "halved", "inverted", "mixed", "one_text", "pairs", "turned"]
