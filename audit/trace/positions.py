"""Where in a stream a token stands: offsets of index values, and which tokens went into an address.

A *place* is ``(symbols, offset)``: the sum of some unknown numbers and a constant. ``ws + s + 1`` has the
symbols of ``ws`` and ``s`` and the offset 1, whatever the names. A value made of tokens carries in ``keys`` the
places it was read at, as ``("t", symbols, offset)``; so the target of a window that starts at ``ws`` and its
context differ by their offsets alone, and an address made of both can be told from one made of context.
Subtracting an unknown number moves a place back by `FAR`: earlier, by how much is not known.

A run of tokens is known by the place of its first, under ``"t"``, because arrays are combined element by element.
Where a whole run becomes one address (a tuple as a dictionary's key) its last token counts as well: ``"e"`` keeps
that place until then. The variable of a loop that begins at a place stands at that place plus a *step*; two arrays
that begin at one place, the one filled by such a loop and the other cut out, correspond element by element.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from audit import ir
from audit.trace.values import LOGITS, LOSS, MASK, META, PARAM, PROB, VAL, V, clone

FAR = 1_000_000
#: keys of tokens: read from the stream, and read through a table of constants
TOKENS = ("t", "l")
#: the value counts bytes up over the stream: no number that belongs to one token
TOTAL = ("total bytes",)
#: keys that name an event
EVENTS = ("lookup", "leak", "hint", "gate", "spread", "divisor", "select", "unnorm", "raised", "split", "flat", "shaped")
MAX_SYMBOLS = 6
Place = tuple[tuple[int, ...], int]
_fresh = count(1)
#: symbols of steps: how far a loop is from where it began
FIRST_STEP = 1 << 40
_steps = count(FIRST_STEP)


def place_of(v: V) -> Place:
    """The place that a number or an array of numbers denotes; an unknown number becomes a symbol of its own."""
    if v.pos is None:
        if v.kind == "const" and isinstance(v.const, int) and not isinstance(v.const, bool):
            return (), v.const
        v.pos = ((next(_fresh),), 0)
    return v.pos


def loop_place(start: V) -> Place:
    """The place of the variable of a loop over ``range(start, ...)``."""
    if start.kind != "val" or (start.flags & (VAL | LOSS | LOGITS | PARAM) and not start.flags & META):
        return (next(_fresh),), 0
    symbols, offset = place_of(start)
    return (tuple(sorted((*symbols, next(_steps)))), offset) if len(symbols) < MAX_SYMBOLS else ((next(_fresh),), 0)


def without_steps(symbols: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s for s in symbols if s < FIRST_STEP)


def whole(keys: frozenset) -> frozenset:
    """The keys of a run of tokens that is used as one thing: its last token is in it as well."""
    return frozenset(("t", *k[1:]) if k[0] == "e" else k for k in keys)


def ends(v: V) -> frozenset:
    """Where a list that is a run of tokens ends, as its elements say."""
    parts = [*(v.data or []), v.rest] if v.kind == "seq" else [v]
    return frozenset(k for x in parts if x is not None and x.kind == "val" for k in x.keys if k[0] == "e")


def at_each(v: V, end: frozenset) -> V:
    """What was made of each token of a run in turn, as one list."""
    if not end or v.kind != "val" or not any(k[0] == "t" for k in v.keys):
        return v
    out = clone(v)
    out.keys = v.keys | end
    return out


def apart(keys: frozenset) -> frozenset:
    """The keys of a part of a run, whose end is not known any more."""
    return frozenset(k for k in keys if k[0] != "e") if any(k[0] == "e" for k in keys) else keys


def one_of(v: V) -> V:
    """An element of a list that was made of a run: none of the others is in it."""
    if v.kind != "val" or not any(k[0] == "e" for k in v.keys):
        return v
    out = clone(v)
    out.keys, out.origin = apart(v.keys), v.origin
    return out


def add_places(op: str, a: V, b: V, out: V) -> None:
    """Sets the place of a sum or a difference of numbers that may serve as indices."""
    content = (a.flags | b.flags) & (VAL | LOSS | LOGITS | PARAM)
    if (content and not (a.flags | b.flags) & META) or out.kind not in ("val", "const"):
        return
    if a.kind not in ("val", "const") or b.kind not in ("val", "const"):
        return
    if any(x.kind == "const" and not isinstance(x.const, int) for x in (a, b)):
        return
    if a.kind == "const" and b.kind == "const" and a.pos is None and b.pos is None:
        return
    symbols, offset = place_of(a)
    if b.kind == "const" and b.pos is None:
        out.pos = (symbols, offset + b.const if op == "+" else offset - b.const)
    elif op == "+" and offset < -FAR // 2:
        out.pos = (symbols, offset)  # an unknown step after an unknown step back
    elif op == "+":
        more, step = place_of(b)
        if len(symbols) + len(more) <= MAX_SYMBOLS:
            out.pos = (tuple(sorted(symbols + more)), offset + step)
    else:
        out.pos = (symbols, offset - FAR)


def shifted(keys: frozenset, symbols: tuple[int, ...], offset: int) -> frozenset:
    """The keys of an array after its first ``symbols + offset`` elements were cut off."""
    if not symbols and not offset:
        return keys
    moved = set()
    for k in keys:
        if k[0] in TOKENS:
            joined = tuple(sorted(k[1] + symbols)) if len(k[1]) + len(symbols) <= MAX_SYMBOLS else k[1]
            moved.add((k[0], joined, k[2] + offset))
        else:
            moved.add(k)
    return frozenset(moved)


def read_tokens(machine: Any, base: V, elements: list[Any], parts: list[tuple[V | None, V | None] | V], out: V) -> None:
    """``out = base[elements]``: notes which tokens of the stream ``out`` consists of.

    ``parts`` holds what the elements evaluated to: (lower, upper) for a slice, else the index.
    """
    if not base.flags & VAL or base.flags & META:
        return
    has = any(k[0] in TOKENS for k in base.keys)
    if has:
        # The sequence runs along the last sliced axis; a lone index into a window picks a token or a row.
        axes = list(zip(elements, parts, strict=True))
        if base.flags & LOGITS and not base.flags & LOSS and len(axes) > 2 and whole_axis(elements[-1]):
            axes.pop()  # ``logits[:, first:, :]``: the last axis is the alphabet's
        for element, part in reversed(axes):
            if isinstance(element, ir.Slice):
                lower = part[0] if isinstance(part, tuple) else None
                if lower is not None and lower.flags & (VAL | LOSS) == 0:
                    symbols, offset = place_of(lower)
                    if not symbols and offset < 0:
                        symbols, offset = (offset,), 0  # counted from the end: the same cut for every array
                    out.keys = shifted(base.keys, symbols, offset)
                out.keys = ending_at(base, part[1] if isinstance(part, tuple) else None, out.keys)
                return
        out.keys = apart(out.keys)
        last = parts[-1]  # not the row of such predictions
        if isinstance(last, V) and last.kind == "const" and type(last.const) is int and last.const < 0 and not base.flags & (LOSS | LOGITS):
            out.keys = apart(shifted(base.keys, (last.const,), 0))  # counted from the end
            if len(parts) == 1:
                out.keys |= {("t", k[1], k[2] + 1 + last.const) for k in base.keys if k[0] == "e"}
        elif (isinstance(last, V) and not last.flags & (VAL | LOSS | MASK) and picks_one(last, bool(base.flags & (LOSS | LOGITS)))) or (isinstance(last, V) and reckoned_places(last) and of_stream(base)):
            out.keys = apart(shifted(base.keys, *place_of(last)))
        return
    if base.flags & (LOSS | LOGITS):
        return
    for element, part in zip(reversed(elements), reversed(parts), strict=True):
        if isinstance(element, ir.Slice):
            lower = part[0] if isinstance(part, tuple) else None
            if lower is None or (lower.kind == "const" and lower.const == 0 and lower.lv is None and not lower.deps):
                return  # a prefix of the stream counts from the same start
            place: Place = place_of(lower)
            out.keys = base.keys | {("t", *place)}
            upper = part[1] if isinstance(part, tuple) else None
            if upper is not None and upper.pos is not None:
                out.keys |= {("e", upper.pos[0], upper.pos[1] - 1)}
            machine.note_read(place)
            return
        if isinstance(part, V) and part.kind in ("val", "const") and not part.flags & VAL:
            if part.kind == "const" and not isinstance(part.const, int):
                continue
            place = place_of(part)
            out.keys = base.keys | {("t", *place)}
            machine.note_read(place)
            return


def whole_axis(x: Any) -> bool:
    return isinstance(x, ir.Slice) and x.lower is None and x.upper is None and x.step is None


def ending_at(base: V, upper: V | None, keys: frozenset) -> frozenset:
    """``keys``, of a slice of a run up to ``upper``, with the place of its last token where that is known."""
    if base.flags & (LOSS | LOGITS | PARAM):
        return apart(keys)
    if upper is None or (upper.kind == "const" and upper.const is None):
        return keys
    if upper.kind == "const" and type(upper.const) is int and upper.const < 0:
        return frozenset((k[0], k[1], k[2] + upper.const) if k[0] == "e" else k for k in keys)
    if (upper.flags & VAL and not upper.flags & META) or (upper.pos is None and upper.lv is None) or len(place_of(upper)[0]) > MAX_SYMBOLS:
        return apart(keys)
    symbols, offset = place_of(upper)
    ends = {
        ("e", tuple(sorted(k[1] + symbols)), k[2] + offset - 1)
        for k in base.keys if k[0] == "t" and len(k[1]) + len(symbols) <= MAX_SYMBOLS and all(s >= 0 for s in k[1])
    }  # fmt: skip
    return apart(keys) | ends


def reckoned_places(index: V) -> bool:
    """``(starts[:, None] + columns).clamp(max=last)``: places that were reckoned from where something was found."""
    return index.kind == "val" and bool(index.flags & META and index.flags & MASK) and not index.flags & (VAL | LOSS | LOGITS | PARAM)


def of_stream(base: V) -> bool:
    """Is it the stream, and no window in which a selection could be made."""
    return not base.flags & (LOSS | LOGITS | PROB | MASK) and all(not k[1] for k in base.keys if k[0] in TOKENS)


def picks_one(index: V, losses: bool) -> bool:
    """Is the index a number or an array of places, and not a selection within the array.

    A plain number picks a token from a window, but rather an expert than a position from ``losses``.
    """
    if index.pos is not None or index.lv is not None:
        return True
    return not losses and index.kind == "const" and type(index.const) is int and index.const >= 0


def written_at(value: V, lower: V | None) -> V:
    """``array[lower:] = value``: the value as it looks from the start of the array."""
    if lower is None or not value.keys or lower.kind != "const" or not isinstance(lower.const, int) or lower.const <= 0:
        return value
    moved = clone(value)
    moved.keys = shifted(value.keys, (), -lower.const)
    return moved


def moved_back(tokens: frozenset, place: Place) -> frozenset:
    """The token keys as they look from ``place``; those that do not lie at a known distance from it are left out."""
    symbols, step = place
    found = set()
    for k in tokens:
        if k[0] not in TOKENS:
            continue
        at = list(k[1])
        if all(at.count(x) >= symbols.count(x) for x in symbols):
            for x in symbols:
                at.remove(x)
            found.add((k[0], tuple(at), k[2] - step))
    return frozenset(found)


def copied(value: V, index: V) -> V:
    """``table[i] = stream[i + 1]``: the value as it looks from the table's start, so that ``table[j]`` is known again."""
    if index.pos is None or not index.pos[0] or not value.flags & VAL or value.flags & (META | LOSS | LOGITS):
        return value
    tokens = frozenset(k for k in value.keys if k[0] in TOKENS)
    from_start = moved_back(tokens, index.pos)
    if not tokens or len(from_start) != len(tokens):
        return value
    moved = clone(value)
    moved.keys = (value.keys - tokens) | from_start
    return moved


def tokens_in(keys: frozenset, through_tables: bool = False) -> dict[tuple[int, ...], set[int]]:
    """The offsets read, per group of symbols; with ``through_tables`` also tokens that a table was read at."""
    found: dict[tuple[int, ...], set[int]] = {}
    for k in keys:
        if k[0] == "t" or (through_tables and k[0] == "l"):
            found.setdefault(k[1], set()).add(k[2])
    return found


def moved_reads(keys: frozenset, shift: int) -> frozenset:
    """The keys with event numbers raised by ``shift`` (for the events of a second run)."""
    return frozenset((k[0], k[1] + shift) if k[0] in EVENTS else k for k in keys)


def walk_stream(v: V) -> None:
    """``v`` is one turn of a walk over ``v``'s elements: a token at a place of its own; ``pos`` becomes that place."""
    if not v.flags & VAL or v.flags & (META | LOSS | LOGITS) or not v.atoms:
        return  # a list of file names holds no tokens
    symbol = next(_fresh)
    v.keys = apart(v.keys)
    tokens = [k for k in v.keys if k[0] in TOKENS]
    v.keys = shifted(v.keys, (symbol,), 0) if tokens else v.keys | {("t", (symbol,), 0)}
    v.pos = ((symbol,), 0)


def reach_origin(v: V) -> None:
    """``v`` was changed in place; when it was taken from a container by a run-time index, any element may be it."""
    home = v.origin
    if home is None or not v.taint:
        return
    members = list(home.data.values()) if isinstance(home.data, dict) else list(home.data or [])
    for x in [home, *members, *([home.rest] if home.rest is not None else [])]:
        if isinstance(x, V) and x.kind in ("val", "seq", "dict"):
            x.taint = x.taint | v.taint
