"""What the library's operations do to what is reached: slices, joins, pads, views, attention, filters.

No rule lives here; `audit.rules.shifted` mixes these in. What is not known to keep each element at its place, or to move
it by a known number of places, leaves nothing known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from audit import ir
from audit.rules.axes import argument, number, without_dots
from audit.rules.filters import Taps, reaches
from audit.rules.mixing import KEEPS, STATISTICS
from audit.rules.reach import FREE, Reach, either, folded, joined, moved, pooled, spread, turned, viewed

_NORMS = frozenset({"rms_norm", "layer_norm"})
_FILLED = {"new_full": 0, "full": 0, "expand": None, "new_zeros": None, "new_ones": None, "zeros": None, "ones": None, "empty": None}
_EACH = KEEPS | frozenset("lerp where masked_fill maximum minimum pow long int bool log detach data clip remainder bitwise_xor logical_not".split())


@dataclass(frozen=True, slots=True)
class Amount:
    """A number that no token has a part in: a length of a known axis, or one that is set; ``unit``: which; ``fixed``: a
    constant in a tuple of its own."""

    name: str = "."
    unit: Any = None
    fixed: tuple[Any, ...] = ()


Held = Reach | Amount | tuple[Any, ...] | None


class Operations:
    """Mixed into `audit.rules.shifted.Frame`, which reads expressions."""

    def _both(self: Any, a: Held, b: Held) -> Held:
        if isinstance(a, Amount):
            return b
        if isinstance(b, Amount):
            return a
        return joined(a, b) if isinstance(a, Reach) and isinstance(b, Reach) else None

    def _length(self: Any, v: Reach, at: int) -> Amount:
        name = v.axis(at)
        return Amount("." if v.short and name != "b" else name or ".", v.unit if name in ("n", "j") else None)

    def _sliced(self: Any, v: Reach, parts: list[Any]) -> Held:
        assert v.axes is not None
        given = without_dots(parts, len(v.axes))
        if given is None:
            return None
        axes: list[str] = []
        at, made = 0, v
        for p in given:
            if isinstance(p, ir.Const) and p.value is None:
                axes.append("1")
                continue
            if at >= len(v.axes):
                return None
            kind, at = v.axes[at], at + 1
            if isinstance(p, ir.Slice):
                axes.append(kind)
                if p.lower is p.upper is p.step is None or kind in (".", "1"):
                    continue
                if p.step is not None:
                    return None
                first, last = 0 if p.lower is None else number(p.lower), None if p.upper is None else number(p.upper)
                if (first, last) == (0, 1):
                    axes[-1], made = "1", replace(made, unit=made.unit)
                    if not v.free:
                        return replace(v, axes=("first", *v.axes[:at - 1], *v.axes[at:])) if kind == "t" and at == 2 and v.coarse is None else None
                    continue
                if last is None and p.upper is not None:
                    end = self.value(p.upper)
                    if not (isinstance(end, Amount) and end.name == kind and first == 0):
                        return None
                elif last is not None and last > 0:
                    return None
                if first is None or first < 0:
                    return None
                ahead = max(first - made.lead, 0) if kind == "t" else first
                lead = made.lead - (first - ahead)
                shifted = moved(made, at - 1, ahead) if ahead else made
                if shifted is None:
                    return None
                made = replace(shifted, lead=lead, short=made.short + ahead - (last or 0), wraps=made.wraps and not first)
            elif kind in (".", "1") and (number(p) is not None or isinstance(self.value(p), Amount)):
                continue
            else:
                return None
        return replace(made, axes=(*axes, *v.axes[at:]))

    def _made(self: Any, node: ir.Call, name: str, sizes: list[Any]) -> Reach:
        """What is made without tokens; which of its axes are of length one, where that is written."""
        if name in _FILLED:
            given = sizes[:1] if _FILLED[name] == 0 else sizes
            given = given[0].elts if len(given) == 1 and isinstance(given[0], ir.Collection) else given
            return Reach(tuple("1" if number(x) == 1 else "." for x in given))
        return FREE

    def _operation(self: Any, node: ir.Call, name: str, v: Reach, rest: list[Any], args: list[Held], words: dict[Any, Held]) -> Held:
        over = number(argument(rest, 0, node.keywords, "dim", "axis"))
        if name == "size":
            return self._length(v, over) if over is not None else tuple(self._length(v, n) for n in range(len(v.axes))) if v.axes is not None else None
        if name in _FILLED and name != "expand":
            return self._made(node, name, rest)
        if name.endswith("_like"):
            return Reach(v.axes)
        if name == "numel" or name == "dim":
            return Amount()
        if name in ("view", "reshape"):
            given = rest[0].elts if len(rest) == 1 and isinstance(rest[0], ir.Collection) else rest
            return viewed(v, self._sizes(v, given))
        if name == "expand":
            if v.free:
                return self._made(node, name, rest)
            kept = v.axes is not None and len(rest) == len(v.axes) and all(a != "1" or number(r) in (1, -1) for a, r in zip(v.axes, rest, strict=True))
            return v if kept else None
        if name in ("transpose", "swapaxes", "permute"):
            if v.axes is None:
                return v
            if name == "permute":
                given = rest[0].elts if len(rest) == 1 and isinstance(rest[0], ir.Collection) else rest
                order = [number(x) for x in given]
            else:
                order = list(range(len(v.axes)))
                a, b = (number(x) for x in (*rest, None, None)[:2])
                if a is None or b is None or not (v.axis(a) and v.axis(b)):
                    return None
                order[a], order[b] = order[b], order[a]
            return turned(v, [n for n in order if n is not None])
        if name == "unsqueeze" and over is not None and v.axes is not None:
            at = over % (len(v.axes) + 1)
            return replace(v, axes=(*v.axes[:at], "1", *v.axes[at:]))
        if name == "squeeze" and over is not None:
            return pooled(v, over) if v.axis(over) in ("1", ".") else None
        if name == "pad":
            return self._padded(v, argument(rest, 0, node.keywords, "pad"))
        if name == "roll":
            by, dim = (number(argument(rest, n, node.keywords, k)) for n, k in ((0, "shifts"), (1, "dims")))
            if by is None or dim is None or by <= 0 or v.axis(dim) not in ("t", "n") or v.short:
                return v if by is not None and dim is not None and v.axis(dim) == "." else None
            back = moved(v, dim, -by)
            return replace(back, wraps=True) if back is not None else None
        if name == "repeat_interleave":
            by_unit = self.unit(self.place, rest[0]) if rest else None
            held = self.value(rest[0]) if rest else None
            dim = number(argument(rest, 1, node.keywords, "dim"))
            if v.axis(dim) == "." or (v.axis(dim) == "j" and v.fine is None):
                return v
            known = held.unit if isinstance(held, Amount) and held.unit is not None else by_unit
            return spread(v, known) if v.axis(dim) == "n" else None
        if name in ("chunk", "split", "unbind"):
            dim = number(argument(rest, int(name != "unbind"), node.keywords, "dim"))
            if v.axis(0 if dim is None else dim) != "." and not v.free:
                return None
            pieces = number(rest[0]) if name == "chunk" and rest else None
            one = pooled(v, dim) if name == "unbind" and dim is not None else v
            return (one,) * pieces if pieces is not None and pieces > 0 else None
        if name in _NORMS or name == "linear" or name == "normalize":
            shape = rest[0] if rest else None
            plain = name != "layer_norm" or (isinstance(shape, ir.Collection) and len(shape.elts) == 1)
            dim = number(argument(rest, 1, node.keywords, "dim")) if name == "normalize" else -1
            return v if (v.axis(1 if dim is None else dim) == "." or v.free) and plain and free(*args, *words.values()) else None
        if name in ("softmax", "log_softmax"):
            return v if v.axis(over) == "." or v.free else None
        if name in STATISTICS and over is not None:
            return pooled(v, over, any(k == "keepdim" for k, _ in node.keywords))
        if name == "embedding" and args:  # ``F.embedding(ids, table)``
            return replace(v, axes=(*v.axes, ".")) if v.axes is not None and free(*args) else None
        if name in _EACH:
            made: Held = v
            for other in (*args, *words.values()):
                made = self._both(made, other)
            return made
        return FREE if v.free and free(*args, *words.values()) else None

    def _sizes(self: Any, v: Reach, given: list[Any]) -> list[Any]:
        held = [self.value(g) for g in given]
        units = {v.unit, *(h.unit for h in held if isinstance(h, Amount) and h.name == "n")} - {None}
        splits = v.axes is not None and (v.fine is None or bool({"t", "j"} & set(v.axes)))
        found: list[Any] = []
        for h in held:
            if not isinstance(h, Amount):
                found.append("." if isinstance(h, Reach) and h.free else "?")
            elif h.name in ("n", "j", "t") and h.unit is not None:
                found.append((h.name, h.unit))
            elif h.name == "." and h.unit in units and splits and found and _name(found[-1]) in ("n", "bn"):
                found.append(("j", h.unit))
            else:
                found.append(h.name)
        return found

    def _joined(self: Any, parts: tuple[Any, ...], dim: int | None) -> Held:
        several = [p for p in parts if isinstance(p, Reach)]
        if dim is None or len(several) != len(parts) or not several:
            return None
        if all(p.free for p in several):
            return FREE
        last = several[-1]
        if last.axis(dim) in (".", "") and last.axes is not None and not last.free:
            made: Held = several[0]
            for p in several[1:]:
                made = self._both(made, p)
            return made if isinstance(made, Reach) and made.axes is not None and made.axis(dim) == "." else None
        front = several[0]
        if len(several) != 2 or last.axes is None or front.axes is None or last.front is not None or (last.coarse is not None and last.axis(dim) != "n"):
            return None
        if front.axes[:1] == ("first",):  # the first token of what lies one behind, before the targets
            beside = front.fine is not None and last.fine is not None and last.axes[:2] == ("b", "t") and dim in (1, 1 - len(last.axes))
            if not beside or front.fine is None or last.fine is None or front.fine - front.lead != last.fine - last.lead - 1:
                return None
            return replace(last, fine=last.fine - 1, short=last.short - 1) if last.short else replace(last, lead=last.lead + 1)
        if front.free and front.axis(dim) == "1" and last.short == 1:
            back = moved(last, dim, -1)
            return replace(back, short=0) if back is not None else None
        return None

    def _padded(self: Any, v: Reach, by: Any) -> Held:
        pairs = by.elts if isinstance(by, ir.Collection) else []
        if v.free or not pairs or v.axes is None or v.front is not None:
            return FREE if v.free else None
        made = v
        for n in range(0, len(pairs) - 1, 2):
            left, right = number(pairs[n]), number(pairs[n + 1])
            kind = v.axis(-1 - n // 2)
            pair = pairs[n]
            behind = self.place.assigned(pair.id) if isinstance(pair, ir.Name) and pair.id not in self.place.params else []
            front = behind[0] if len(behind) == 1 else pairs[n]
            if (left, right) == (0, 0) or kind == ".":
                continue
            if kind not in ("t", "n", "j"):
                return None
            if left == 0 and (right is None or right > 0) and not made.short and kind == "t":
                continue  # zeros behind the window
            if right == 0 and left is not None and 0 < left == made.short:
                back = moved(made, -1 - n // 2, -left)
                if back is None:
                    return None
                made = replace(back, short=0)
            elif right == 0 and kind == "t" and not made.short:
                made = replace(made, front=front)
            else:
                return None
        return made

    def _attention(self: Any, node: ir.Call, args: list[Held]) -> Held:
        q, k, v = (x if isinstance(x, Reach) else None for x in (*args, None, None, None)[:3])
        mask, causal = (argument(node.args, n, node.keywords, w) for n, w in ((3, "attn_mask"), (5, "is_causal")))
        if q is None or k is None or v is None or k.axes is None or v.axes is None or q.axes is None or len(args) > 3:
            return None
        if mask is not None and not (isinstance(mask, ir.Const) and mask.value is None):
            return None
        places = k.axis(-2)
        if places != v.axis(-2) or k.short or v.short or q.short or any(x.front is not None for x in (q, k, v)):
            return None
        self.by.followed.add((self.place.path, node.line))
        says = causal.value if isinstance(causal, ir.Const) else False if causal is None else None
        if says is True and places == q.axis(-2) and places in ("t", "n", "j"):
            return joined(joined(q, k), v)
        if says is not False:
            return None
        if places == "1":
            return joined(joined(q, k), v)
        if places == "j":
            a, b = pooled(k, -2, keep=True), pooled(v, -2, keep=True)
            return joined(joined(q, a), b) if a is not None and b is not None else None
        return None

    def _library(self: Any, node: ir.Call, made: ir.Call, v: Reach) -> Held:
        kind = self.layers.kind(self.place, made)
        if kind == "Embedding":
            return replace(v, axes=(*v.axes, ".")) if v.axes is not None else None
        if kind in ("Dropout", "Identity") or (kind in self.layers.pointwise and kind not in ("Linear", "LayerNorm", "RMSNorm")):
            return v
        if kind in ("Linear", "LayerNorm", "RMSNorm"):
            if kind != "Linear" and made.args and isinstance(made.args[0], ir.Collection) and len(made.args[0].elts) > 1:
                return None
            return v if v.axis(-1) == "." else None
        if kind != "Conv1d" or v.axis(-1) != "t":
            return None
        size, step, pad, gap = (argument(made.args, n, made.keywords, k) for n, k in ((2, "kernel_size"), (3, "stride"), (4, "padding"), (5, "dilation")))
        taps = Taps(self.layers, self.place)
        if pad is not None and taps.number(pad) != 0:
            return None
        if step is not None and taps.number(step) != 1:
            init = self.layers.methods.get(id(self.place.owner), {}).get("__init__")
            wide = [self.unit(init, x) for x in (size, step)] if init is not None else [None]
            return folded(v, wide[0]) if wide[0] is not None and wide[0] == wide[-1] and gap is None else None
        if taps.number(size) == 1:
            return v
        beyond = reaches(v.front, size, gap, taps) if v.front is not None else None
        return replace(v, front=None) if beyond is False else None


def reckoned(op: str, a: Amount, b: Amount) -> Amount:
    if op == "//" and a.name == "t" and b.unit is not None:
        return Amount("n", b.unit)
    if op == "*":
        for x, y in ((a, b), (b, a)):
            if x.name == "b" and y.name in ("n", "t"):
                return Amount("bn" if y.name == "n" else "f")
            if x.name == "n" and y.unit is not None and y.unit == x.unit:
                return Amount("t", x.unit)
    return Amount()


def _name(size: Any) -> str:
    return str(size[0]) if isinstance(size, tuple) else str(size)


def free(*several: Held) -> bool:
    """Is none of these made of tokens."""
    return all(isinstance(v, Amount) or (isinstance(v, Reach) and v.free) or (isinstance(v, tuple) and free(*v)) for v in several)


def one_of(a: Held, b: Held) -> Held:
    if a == b:
        return a
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(one_of(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Amount) and isinstance(b, Amount):
        return Amount()
    a, b = (FREE if isinstance(x, Amount) else x for x in (a, b))
    return either(a, b) if isinstance(a, Reach) and isinstance(b, Reach) else None


__all__ = ["Amount", "Held", "Operations", "free", "one_of", "reckoned"]
