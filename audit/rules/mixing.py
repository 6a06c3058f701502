"""What operations along the time axis do to a `Value`: products, weights, filters, shifts, statistics, spectra.

No rule lives here. Each function returns the value after the operation, or None where it does not know; a value in
which positions came to hold later ones says so in ``ahead``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from audit import ir
from audit.rules.axes import Known, Value, argument, number, numbers
from audit.rules.filters import PADDED, moved_on, same_text
from audit.rules.groups import BLOCK, BLOCKED, GROUPED, multiplied
from audit.rules.groups import contracted as over_blocks
from audit.rules.masks import ahead
from audit.rules.rounding import ROUNDED
from audit.rules.slots import POOL, READ, SLOTS, contracted, pooled, reduced, weighed
from audit.rules.window import STATISTICS
from audit.rules.wrapped_ids import WRAPPED

#: element by element: the axes stay
KEEPS = frozenset(
    """float bfloat16 half to type_as type contiguous clone detach dropout cuda relu gelu silu tanh sigmoid elu
    leaky_relu square pow sqrt rsqrt clamp clamp_min clamp_max abs exp mul div softplus mish normalize rms_norm neg
    dropout2d requires_grad_ add sub cos sin double log_sigmoid logsigmoid hardtanh""".split()
)
#: states that weigh values as they are, and those of scores altogether
WEIGHTS = frozenset({"score", "share", "zeroed"})
_SCORES = WEIGHTS | {"scaled"}
_POSITIVE = frozenset({"sigmoid", "relu", "exp", "square"})
_SAME_SCORE = frozenset("float bfloat16 half to type_as type contiguous clone detach dropout tanh clamp double".split())
_MULTIPLIES = frozenset({"mul", "div", "mul_", "div_"})
NEXT = "each position is given the next one's state"
WHOLE = "the {} over all positions is put back on every position of the window"
#: the same of every window and channel: weights of a loss are taken in such shares as well
SINGLE = "one number that all positions of the window have a part in (their {}) is put back on each of them"
#: what is only subtracted before ``exp`` cancels out where shares are made
LEVEL = "level"
_LEVELS = frozenset(text.format(name) for text in (WHOLE, SINGLE) for name in ("amax", "max", "logsumexp"))
SHARES = frozenset(SINGLE.format(name) for name in [*STATISTICS, "norm", "max", "min"])
LIMIT = "a threshold over all positions of the window, the later ones included, decides which of them pass"
#: what stands at a certain rank, and at which argument the axis is given
SUMMED = "what all positions of the window add up to, the later ones included, is read back by every position"
OVER = "a layer over time gives every position a share of all of them"
BACK = "what was run from the window's end is put back on its positions"
QUANTILES = {"quantile": 1, "nanquantile": 1, "kthvalue": 1, "median": 0, "nanmedian": 0}
NORMS = frozenset({"InstanceNorm1d", "GroupNorm", "BatchNorm1d"})


def both(node: ir.BinOp | ir.AugAssign, left: Known, right: Known, plain: bool) -> Value | None:
    """Arithmetic; ``plain``: the side that is no value is a number that is written out."""
    a, b = (x if isinstance(x, Value) else None for x in (left, right))
    if a is None and b is None:
        return None
    if a is None or b is None:
        if node.op == "*" and isinstance(node, ir.BinOp) and any(isinstance(x, ir.Const) and x.value == 0 for x in (node.left, node.right)):
            return None  # what only keeps a parameter in use
        return _alone(a or b, node.op, plain)  # type: ignore[arg-type]
    if node.op not in "+-*/" or (node.op == "-" and any(v.ahead is not None and v.ahead[1] == BLOCKED for v in (a, b))):
        return None  # a block's own share may be what is taken away
    ahead = b.ahead if a.ahead is None or (b.ahead is not None and a.ahead[1] == ROUNDED) else a.ahead
    states = {a.state, b.state}
    late = min((v.late for v in (a, b) if "t" in v.axes), default=0)
    made = replace(a if len(a.axes) >= len(b.axes) else b, origin=a.origin | b.origin, ahead=ahead, late=late)
    if states == {""}:
        timed = [v for v in (a, b) if "t" in v.axes]
        if len(timed) == 2 and len(a.axes) == len(b.axes):  # one of a length of one is spread
            axes = tuple(y if x == "." else x for x, y in zip(a.axes, b.axes, strict=True))
            alike = all(v in (x, ".") for x, *both in zip(axes, a.axes, b.axes, strict=True) for v in both)
            return replace(made, axes=axes) if alike and axes.count("t") == 1 else None
        if not timed:
            return made if "f" in made.axes else None
        return replace(made, axes=timed[0].axes) if len({v.axes for v in timed}) == 1 or len(a.axes) != len(b.axes) else None
    if states == {"", "sorted"} and a.axes == b.axes and _same(a, b):
        return replace(a if not a.state else b, ahead=(node, WHOLE.format("order")))
    if "" in states and "window" in states:
        other, own = (a, b) if a.state == "window" else (b, a)
        assert other.ahead is not None
        if node.op == "-" and other.ahead[1] in _LEVELS:
            taken_off = own is a and {"t", "f"} & set(own.axes)
            return replace(own, state=LEVEL, ahead=(node, other.ahead[1])) if taken_off else None
        return replace(own, ahead=(node, other.ahead[1])) if {"t", "f"} & set(own.axes) else None
    if LEVEL in states and states <= {"", LEVEL}:
        return replace(made, state=LEVEL) if node.op in "+-" and states == {"", LEVEL} else None
    if states == {"", "flip"}:
        own = a if not a.state else b
        return replace(own, ahead=(node, BACK)) if "t" in a.axes and a.axes == b.axes and _same(a, b) else None
    if states == {"", "wrap"} or states == {"wrap"}:  # nobody mends the first position in the sum
        return replace(made, state="" if node.op in "+-" and "" in states else "wrap")
    if "" in states and SLOTS in states:
        own, other = (b, a) if a.state == SLOTS else (a, b)
        met = "t" in own.axes and own.origin == other.origin and len(own.origin) == 1
        return replace(own, ahead=(node, READ)) if met else None
    if states in ({"window"}, {"freq"}, {SLOTS}):
        return made
    if states == {"", "freq"}:
        return replace(made, state="freq")
    return None


def _alone(v: Value, op: str, plain: bool) -> Value | None:
    if v.state == "score":
        return v if plain else replace(v, state="scaled") if op in "*/" else None
    if v.state == "scaled":
        return v if op in "*/" or plain else None
    if v.state in ("share", "zeroed"):
        return v if plain and op in "*/" else None
    if v.ahead is not None and v.ahead[1] == BLOCKED and (op == "-" or v.state == BLOCK):
        return v if plain or op == "/" else None
    if v.state == SLOTS:
        return v if op in "+-*/" else None
    if v.state == "wrap":  # perhaps times a mask of the first position
        return v if plain or op in "+-" else None
    return v if v.state in ("", "window", "freq", "flip", "tail", LEVEL) and op in ("+", "-", "*", "/", "**") else None


def product(left: Known, right: Known, node: Any) -> Value | None:
    """``left @ right``; attention to later positions is told by `attended`."""
    a, b = (x if isinstance(x, Value) else None for x in (left, right))
    if a is None:
        return None
    if (made := weighed(a, b, node)) is not None:
        return made
    if b is not None and (made := multiplied(a, b, node) or _state_of(a, b, node)) is not None:
        return made
    if a.state in _SCORES:
        return replace(a, axes=(*a.axes[:-1], "c"), state="", ahead=None, sees=None) if attended(a, b) else None
    if a.state not in ("", "window"):
        return None
    if b is None:
        return replace(a, axes=(*a.axes[:-1], "c")) if a.axes[-1] != "t" else None
    if a.state or b.state or "t" not in (a.axis(-2), b.axis(-1)) or len(a.axes) != len(b.axes):
        return None
    if a.axis(-2) == "t" and b.axis(-1) == "t" and a.axes[:-2] == b.axes[:-2] and _same(a, b):
        return Value((*a.axes[:-1], "s"), a.origin, "score", a.ahead or b.ahead)
    return None


def _state_of(a: Value, b: Value, node: Any) -> Value | None:
    """``keys^T @ values`` adds the window up; ``queries @ state`` reads it back."""
    if not _same(a, b) or len(a.axes) != len(b.axes) or a.axes[:-2] != b.axes[:-2]:
        return None
    if a.state == b.state == "" and a.axis(-1) == b.axis(-2) == "t":
        return Value((*a.axes[:-1], *b.axes[-1:]), a.origin, "window", (node, SUMMED))
    if a.state == "" and b.state == "window" and a.axis(-2) == "t" and b.ahead is not None and b.ahead[1] == SUMMED:
        return replace(a, axes=(*a.axes[:-1], "c"), ahead=b.ahead)
    return None


def _same(a: Value, b: Value) -> bool:
    return a.origin == b.origin and len(a.origin) == 1


def attended(weights: Value, values: Value | None) -> bool:
    """Do these weights, which no mask keeps from later positions, sum up values at all positions of the window."""
    summed = weights.state in WEIGHTS and weights.axes[-1] == "s" and (values is None or values.axis(-2) == "t")
    return summed and (weights.sees is None or ahead(weights.sees))


def _three(letters: list[str], output: str, operands: list[Known]) -> bool:
    """``einsum("bti,bsi,bsj->btj", q, k, v)``: attention in one step."""
    given = [v for v in operands if isinstance(v, Value) and not v.state and v.axes.count("t") == 1]
    if len(given) != 3 or len({v.origin for v in given}) != 1 or len(given[0].origin) != 1:
        return False
    if any(len(w) != len(v.axes) for w, v in zip(letters, given, strict=True)):
        return False
    times = [w[v.axes.index("t")] for w, v in zip(letters, given, strict=True)]
    several = [x for x in set(times) if times.count(x) == 2]
    one = [x for x in times if times.count(x) == 1]
    return len(several) == 1 and several[0] not in output and one[0] in output and sum(one[0] in w for w in letters) == 1


def _reads(letters: list[str], output: str, operands: list[Known]) -> Value | None:
    """What all positions add up to, read back, whatever else it is multiplied with."""
    held = [v for v in operands if isinstance(v, Value) and v.state == "window" and v.ahead is not None and v.ahead[1] == SUMMED]
    for word, v in zip(letters, operands, strict=True) if held else ():
        if isinstance(v, Value) and not v.state and v.axes.count("t") == 1 and len(word) == len(v.axes) and _same(v, held[0]):
            own = dict(zip(word, v.axes, strict=True))
            axes = tuple(own.get(x, ".") for x in output)
            if axes.count("t") == 1:
                return Value(axes, v.origin, "", held[0].ahead)
    return None


def _summed(letters: list[str], output: str, a: Known, b: Known, call: ir.Call) -> Value | None:
    """By ``einsum``: what both hold at each position, added up over all of them; or such a sum, read back."""
    if not (isinstance(a, Value) and isinstance(b, Value)) or not _same(a, b) or [len(x) for x in letters] != [len(a.axes), len(b.axes)]:
        return None
    first, second = (dict(zip(x, v.axes, strict=True)) for x, v in zip(letters, (a, b), strict=True))
    gone = [x for x in first if x in second and x not in output]
    axes = tuple(x if (x := first.get(y, ".")) != "." else second.get(y, ".") for y in output)
    if a.state == b.state == "" and a.axes.count("t") == b.axes.count("t") == 1:
        if any(first[x] == "t" == second.get(x) and output.count(x) == 1 for x in first) and axes.count("t") == 1:
            return Value(axes, a.origin, "", a.ahead or b.ahead, late=min(a.late, b.late))  # position by position
        over = any(first[x] == second[x] == "t" for x in gone)
        return Value(axes, a.origin, "window", (call, SUMMED)) if over else None
    read = {a.state: a, b.state: b}
    held = read.get("window")
    if set(read) == {"", "window"} and held is not None and held.ahead is not None and held.ahead[1] == SUMMED and axes.count("t") == 1:
        return Value(axes, a.origin, "", held.ahead)
    return None


def einsum(call: ir.Call, operands: list[Known], turned: bool = False) -> tuple[Value | None, bool]:
    """The result, and whether it is attention to all positions; ``turned``: the operands come in the other order."""
    spec = call.args[0]
    if not (isinstance(spec, ir.Const) and isinstance(spec.value, str)):
        return None, False
    inputs, arrow, output = spec.value.replace(" ", "").partition("->")
    letters = inputs.split(",")[:: -1 if turned else 1]
    if len(operands) == len(letters) == 3 and arrow and "." not in spec.value:
        return _reads(letters, output, operands), _three(letters, output, operands)
    if len(operands) != 2:
        return None, False
    a, b = operands
    if arrow and len(letters) == 2 and "." not in spec.value and (made := contracted(letters, output, a, b, call)) is not None:
        return made, False
    if arrow and len(letters) == 2 and "." not in spec.value and isinstance(a, Value) and isinstance(b, Value):
        if (made := over_blocks(letters, output, a, b, call) or _summed(letters, output, a, b, call)) is not None:
            return made, False
    if not arrow or len(letters) != 2 or "." in spec.value or not isinstance(a, Value) or len(letters[0]) != len(a.axes):
        return None, False
    kinds = dict(zip(letters[0], a.axes, strict=True))
    if not isinstance(b, Value) or len(letters[1]) != len(b.axes):
        if a.state or any(kinds.get(x) == "t" and x in letters[1] for x in kinds):
            return None, False
        axes = tuple(kinds.get(x, ".") for x in output)
        return (replace(a, axes=axes), False) if axes.count("t") == 1 else (None, False)
    if a.state in WEIGHTS:
        summed = next((x for x, kind in kinds.items() if kind == "s"), "")
        at = letters[1].find(summed)
        if at < 0 or summed in output or b.axes[at] != "t" or not (a.sees is None or ahead(a.sees)):
            return None, False
        return replace(a, axes=tuple(kinds.get(x, "c") for x in output), state="", ahead=None, sees=None), True
    first, second = (next((x for x, k in zip(w, v.axes, strict=True) if k == "t"), "") for w, v in zip(letters, (a, b), strict=True))
    if a.state or b.state or not first or not second or first == second or not {first, second} <= set(output) or not _same(a, b):
        return None, False
    names = {**kinds, first: "t", second: "s"}
    return Value(tuple(names.get(x, ".") for x in output), a.origin, "score", a.ahead or b.ahead), False


def softmaxed(v: Value, call: ir.Call, over: Any) -> Value | None:
    dim = number(over)
    if dim is None or not v.axis(dim):
        return None
    if not v.state and v.axis(dim) == "t":
        return pooled(v, call, dim)
    if v.state in ("score", "scaled", "zeroed") and v.axis(dim) in ("t", "s"):
        sees = v.sees if v.state != "zeroed" else None
        if sees is not None and v.axis(dim) == "t":  # what is summed up to one are the keys
            sees = frozenset((key, query) for query, key in sees)
        axes = ["t" if a == "s" else a for a in v.axes]
        axes[dim] = "s"
        return replace(v, axes=tuple(axes), state="share", sees=sees)
    return v if not v.state and v.axis(dim) not in ("t", "s") else None


def kept(v: Value, name: str, rest: list[Any]) -> Value | None:
    """After an operation on each element by itself."""
    if v.state in _SCORES:
        if name in _MULTIPLIES and rest:
            return _alone(v, "*", isinstance(rest[0], ir.Const))
        if v.state == "score" and name in _POSITIVE:
            return replace(v, state="share")
        return v if name in _SAME_SCORE else None
    if v.state == "wrap" and name in _MULTIPLIES:
        return None
    if v.state == LEVEL and name not in _SAME_SCORE - {"tanh", "clamp"}:
        return replace(v, state="") if name in KEEPS - {"exp"} else None
    if v.state == POOL:  # a mask may come in by anything else
        return v if name in _SAME_SCORE else None
    return v if name in KEEPS else None


def rolled(v: Value, call: ir.Call, rest: list[Any]) -> Value | None:
    """After ``roll``; back by one along time, each position holds the next one."""
    moves, dims = argument(rest, 0, call.keywords, "shifts"), argument(rest, 1, call.keywords, "dims", "dim", "axis")
    by, over = (numbers([x]) if x is not None else None for x in (moves, dims))
    if by is None or over is None or len(by) != len(over) or v.state or any(v.axis(d) in ("g", "p") for d in over):
        return None
    moved = sum(m for m, d in zip(by, over, strict=True) if v.axis(d) == "t")
    if moved < 0:
        return replace(v, ahead=(call, NEXT))
    if moved and _near(v):
        return None
    if moved and not v.ahead and not v.late:
        return replace(v, state="wrap", ahead=(call, WRAPPED), late=moved)
    return replace(v, late=v.late + moved)


def _near(v: Value) -> bool:
    """Do its positions hold those next to them, which a shift may put right."""
    return v.ahead is not None and v.ahead[1] in (NEXT, PADDED, GROUPED)


def padded(v: Value, call: ir.Call, by: Any, positive: Callable[[Any], bool] = lambda _: False) -> Value | None:
    """After ``F.pad``, whose pairs begin with the last axis; ``positive``: is a number above zero for any number of taps."""
    if v.state not in ("", "tail"):
        return None
    pairs = by.elts if isinstance(by, ir.Collection) else []
    state, ahead, late, front = v.state, v.ahead, v.late, None
    for n in range(0, len(pairs) - 1, 2):
        if v.axis(-1 - n // 2) in ("g", "p"):
            return None
        if v.axis(-1 - n // 2) != "t":
            continue
        left, right = number(pairs[n]), number(pairs[n + 1])
        behind = (right or 0) > 0 or (right is None and left is None and same_text(pairs[n], pairs[n + 1]))
        behind = behind or (right is None and positive(pairs[n + 1]))
        late = moved_on(pairs[n], pairs[n + 1], late)
        if behind and (v.state == "tail" or (left is not None and left < 0)):
            state, ahead = "", (call, NEXT)
        elif behind:
            state, front = "pad", None if v.late else pairs[n]
        elif right is None and left == 0 and isinstance(pairs[n + 1], ir.Name) and not v.state:
            state = "fill"
        elif v.state == "tail" or right is None:
            return None
    if late > v.late and _near(v):
        return None
    return replace(v, state=state, ahead=ahead, late=late, front=front) if pairs else None


def flipped(v: Value, dims: list[Any]) -> Value | None:
    over = numbers(dims)
    if over is None or v.state not in ("", "flip") or any(v.axis(d) in ("g", "p") for d in over):
        return None
    if not any(v.axis(d) == "t" for d in over):
        return v
    return replace(v, state="" if v.state else "flip")


def summed_up(v: Value, call: ir.Call, over: Any) -> Value | None:
    """``cumsum`` and its like; from the end where time runs backwards."""
    dim = number(over)
    if dim is not None and v.state == BLOCK and v.axis(dim) == "g":
        return v  # with its own and all blocks before it
    if dim is None or v.state not in ("", "flip"):
        return None
    back = v.state == "flip" and v.axis(dim) == "t"
    return replace(v, ahead=(call, "the running sum goes from the window's end to its beginning")) if back else v


def statistic(v: Value, name: str, call: ir.Call, over: Any, rest: list[Any]) -> Known:
    """A statistic over time, with other axes or on turned activations (`Window` follows the plain ones)."""
    dims = numbers([over]) if over is not None else None
    if not rest and not call.keywords and not v.state and {"t", "f"} & set(v.axes) and v.axis(0) in ("b", "f"):
        return Value((), v.origin, "window", (call, SINGLE.format(name)))  # one number for all windows
    held = any(k == "keepdim" and isinstance(x, ir.Const) and x.value is True for k, x in call.keywords)
    if v.state == SLOTS:
        return reduced(v, dims, held)
    if dims is None or not all(v.axis(d) for d in dims) or v.state:
        return None
    gone = {d % len(v.axes) for d in dims}
    axes = tuple("." if n in gone else a for n, a in enumerate(v.axes) if held or n not in gone)
    pair = name in ("max", "min")
    if not any(v.axis(d) in ("t", "f") for d in dims):
        return (replace(v, axes=axes), None) if pair else replace(v, axes=axes)
    made = Value(axes, v.origin, "window", (call, WHOLE.format(name)))
    return (made, None) if pair else made


def normed(v: Value, name: str, call: ir.Call, rest: list[Any]) -> Value | None:
    """``F.normalize(x, dim=1)``, ``F.instance_norm`` and their like, where what they norm over is time."""
    if v.state:
        return v if name == "normalize" and v.state not in _SCORES else None
    words = dict(call.keywords)
    if name == "normalize":
        dim = argument(rest, 1, call.keywords, "dim")
        timed = v.axis(1 if dim is None else number(dim)) in ("t", "f")
    else:  # channels stand behind the batch
        whole = name != "batch_norm" or any(isinstance(x, ir.Const) and x.value is True for x in (words.get("training"), *rest[4:5]))
        timed = whole and ("t" in v.axes[2:] or (name == "batch_norm" and v.axis(0) == "f"))
        if not timed and name == "instance_norm":
            return None
    return replace(v, ahead=(call, WHOLE.format("norm"))) if timed else v


def quantile(v: Value, name: str, call: ir.Call, rest: list[Any]) -> Known:
    """A value at a certain rank among all positions; with their places where the library returns both."""
    over = argument(rest, QUANTILES[name], call.keywords, "dim", "axis")
    pair = name == "kthvalue" or (over is not None and name in ("median", "nanmedian"))
    axis = v.axis(-1 if over is None else number(over)) if over is not None or name == "kthvalue" else "t" if "t" in v.axes else ""
    if v.state or axis not in ("t", "f"):
        return None
    made = Value(tuple("." if a == axis else a for a in v.axes), v.origin, "window", (call, WHOLE.format(name)))
    return (made, None) if pair else made


def arranged(v: Value, call: ir.Call, rest: list[Any]) -> Known:
    """After ``sort`` along time: the values in the order of their ranks, and the positions."""
    over = argument(rest, 0, call.keywords, "dim", "axis")
    if v.state or v.axis(-1 if over is None else number(over)) not in ("t", "f"):
        return None
    return replace(v, state="sorted"), replace(v, state="rank")


def compared(a: Known, b: Known, node: Any) -> Value | None:
    """Which positions lie above a threshold that all of them have a part in."""
    sides = [v for v in (a, b) if isinstance(v, Value)]
    own = [v for v in sides if not v.state and {"t", "f"} & set(v.axes)]
    if len(own) != 1 or len(sides) > 2:
        return None
    made = replace(own[0], ahead=(node, LIMIT))
    other = [v for v in sides if v is not own[0]]
    if other:
        return made if other[0].state == "window" and other[0].origin == own[0].origin else None
    return made if own[0].ahead is not None and not _near(own[0]) else None


def spectrum(v: Value, name: str, call: ir.Call, rest: list[Any]) -> Value | None:
    """``fft`` along time without zeros behind it: a product of spectra is a filter that runs around the window."""
    n, dim = argument(rest, 0, call.keywords, "n", "s"), argument(rest, 1, call.keywords, "dim", "axis")
    axis = v.axis(-1 if dim is None else number(dim))
    if name in ("ifft", "irfft"):
        if v.state == "freq" and axis == "t":
            return replace(v, state="", ahead=(call, "the filter runs around the window's end: it reaches later positions"))
        return None
    if v.state or not axis or n is not None:
        return v if axis not in ("", "t") and not v.state else None
    return replace(v, state="freq") if axis == "t" else v


def alike(a: Any, b: Any) -> bool:
    """The same name, attribute or constant."""
    if isinstance(a, ir.Name) and isinstance(b, ir.Name):
        return bool(a.id == b.id)
    if isinstance(a, ir.Attr) and isinstance(b, ir.Attr):
        return a.attr == b.attr and alike(a.value, b.value)
    return isinstance(a, ir.Const) and isinstance(b, ir.Const) and bool(a.value == b.value)


__all__ = [
    "KEEPS", "LEVEL", "NORMS", "QUANTILES", "SHARES", "STATISTICS", "WEIGHTS", "alike", "arranged", "attended", "both", "compared", "einsum", "flipped", "kept",
    "normed", "padded", "product", "quantile", "rolled", "softmaxed", "spectrum", "statistic", "summed_up",
]  # fmt: skip
