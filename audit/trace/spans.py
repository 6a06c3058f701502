"""Which run of the stream a value holds: the places of its first and last token.

A *span* is ``(first, last)``, two places (`audit.trace.positions`); ``last`` is None where it is not known. A window cut
out of the stream has one; a loss has that of its targets. What is not certain to be one run has none: masks, selections, weights that differ from token to
token. With it the question behind score-first can be put in numbers: does the slice that a turn trains on end before the
first token that the next turn scores.

A loop moves its counters by a fixed number of tokens per turn; `Advances` remembers by how many, also for products
(``chunk * 32768``), and how far an inner loop goes.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from audit import ir
from audit.trace.positions import FAR, FIRST_STEP, MAX_SYMBOLS, Place, place_of
from audit.trace.strides import ONE_AXIS
from audit.trace.values import LOGITS, LOSS, MASK, META, TGT, VAL, V, kinds, without
from audit.trace.words import SAME_TOKENS

Span = tuple[Place, Place | None]
#: tokens in one row (``tokens[None]``), in several, and a part that was cut out of rows, of each of them perhaps
ONE_ROW, ROWS, OF_ROWS = ("one row",), ("rows",), ("of rows",)
LAYOUT = frozenset([ONE_ROW, ROWS])
#: several windows of the stream, one in each row, put together out of a list
WINDOWS = ("windows",)
#: a number of documents, and the numbers that they have
NUMBER_OF = ("documents",)
#: places at which separators were found: where documents begin
HEAD = ("head",)
#: at the latest so many places after where the next document begins
UNTIL = "until"
#: a test that all turns of a walk through a document pass but the first
LATER = ("later turns",)
#: one that only the first passes
FIRST = ("first turn",)
#: symbols of products, apart from those of places and of steps
FIRST_PRODUCT = 1 << 50
#: an order of n-grams: so many tokens at the beginning may be left out
MAX_START = 64
_products = count(FIRST_PRODUCT)


def but_first(span: Span | None) -> Span | None:
    """The run without its first token."""
    return ((span[0][0], span[0][1] + 1), span[1]) if span is not None else None


class Advances:
    """By how much the numbers behind symbols grow from one turn of a loop to the next."""

    def __init__(self) -> None:
        #: symbol -> (loop, tokens per turn)
        self.per_turn: dict[int, tuple[int, int]] = {}
        #: loop -> its bound as a share of all tokens (`audit.trace.shares`), and its step
        self.bounds: dict[int, tuple[Any, int]] = {}
        #: symbols of where ranks begin with their shares
        self.of_ranks: set[int] = set()
        #: symbol -> what its loop begins at (apart from the other symbols of the place), where the script says it
        self.begins: dict[int, int] = {}
        #: symbol of an inner loop's step -> the most that it adds
        self.most: dict[int, int] = {}
        #: symbol of an ``arange`` -> its last element
        self.arrays: dict[int, int] = {}
        #: symbol of an inner loop that ends at a place -> where its last turn stands
        self.ends: dict[int, Place] = {}
        #: symbol of a step through a document -> the symbols of where the document begins
        self.heads: dict[int, tuple[int, ...]] = {}
        #: symbols of where documents begin that were read from there on (`audit.trace.lengths`)
        self.documents: set[tuple[int, ...]] = set()
        #: loop through a document -> so many of its tokens it goes through at most
        self.first_tokens: dict[int, int] = {}
        self.products: dict[tuple[int, int], int] = {}

    def combine(self, op: str, a: V, b: V, out: V) -> None:
        """Sets the place of a product of a loop's number and a constant, and of a sum or a difference of places; a
        weighted loss has no span any more."""
        if not kinds(out).isdisjoint((HEAD[0], UNTIL)):
            out.keys = moved_head(op, a, b, out.keys)
        if op == "*" and (times := [x for x, n in ((a, b), (b, a)) if x.flags & LOSS and x.span is not None and counts(n)]):
            out.span = times[0].span
            return
        if out.flags & (VAL | LOSS) and not out.flags & META:
            if op == "*" and out.span is not None and out.flags & LOSS and weighted(a, b):
                out.span = None
            return
        if op != "*":
            if (b.pos is not None and b.pos[0]) or (a.span is not None or b.span is not None):
                self._sum(op, a, b, out)
            return
        for number, factor in ((a, b), (b, a)):
            if factor.kind == "const" and type(factor.const) is int and factor.const > 0 and number.kind == "val":
                if number.pos is not None or number.lv is not None:
                    out.pos = self.times(number, factor.const)
                return

    def test(self, op: str, a: V, b: V, out: V) -> None:
        """``start > first`` in a walk from a document's beginning: none but its first turn fails it. ``start == first``."""
        out.keys = without(out.keys, {HEAD, LATER, FIRST})
        for turn, begin, way in ((a, b, op), (b, a, {"<": ">"}.get(op, op if op in ("!=", "==") else ""))):
            if way in (">", "!=", "==") and turn.pos is not None and HEAD in begin.keys and begin.pos is not None:
                steps = [s for s in turn.pos[0] if self.heads.get(s) == begin.pos[0]]
                if steps and (tuple(sorted((*begin.pos[0], *steps))), begin.pos[1]) == turn.pos:
                    out.keys = out.keys | {FIRST if way == "==" else LATER}

    def _sum(self, op: str, a: V, b: V, out: V) -> None:
        """Exact where `add_places` only says "earlier": a number's span is the place that it denotes, twice."""
        if not all(x.kind == "val" or (x.kind == "const" and type(x.const) is int) for x in (a, b)):
            return
        one, two = exact_place(a), exact_place(b)
        if op == "-":
            two = tuple(sorted(-s for s in two[0])), -two[1]
        place = _plus(one, two)
        out.span = (place, place) if place is not None else None

    def times(self, v: V, factor: int) -> Place | None:
        """The place of ``v * factor``; equal factors of equal symbols are equal."""
        return self._multiplied(place_of(v), factor)

    def _multiplied(self, place: Place, factor: int) -> Place | None:
        symbols, offset = place
        found = []
        for s in symbols:
            made = self.products.get((s, factor))
            if made is None:
                made = self.products[s, factor] = next(_products)
                if s in self.per_turn:
                    loop, step = self.per_turn[s]
                    self.per_turn[made] = (loop, step * factor)
                if s in self.of_ranks:
                    self.of_ranks.add(made)
                if s in self.begins:
                    self.begins[made] = self.begins[s] * factor
                if s in self.most:
                    self.most[made] = self.most[s] * factor
                if s in self.ends and (end := self._multiplied(self.ends[s], factor)) is not None:
                    self.ends[made] = end
            found.append(made)
        return (tuple(sorted(found)), offset * factor) if len(found) <= MAX_SYMBOLS else None

    def walk(self, loop: int, turn: V, start: V, stop: V, step: V) -> None:
        """``turn`` is the variable of a loop over ``range(start, stop, step)``."""
        if turn.pos is None or not turn.pos[0] or step.kind != "const" or type(step.const) is not int or step.const <= 0:
            return
        before = list(start.pos[0]) if start.pos is not None else []
        own = [s for s in turn.pos[0] if s not in before]
        if len(own) != 1:
            return
        self.per_turn[own[0]] = (loop, step.const)
        if given(start):
            self.begins[own[0]] = start.const
        elif before and len(turn.pos[0]) == len(before) + 1:
            self.begins[own[0]] = 0
        if HEAD in start.keys and start.pos is not None:
            self.heads[own[0]] = start.pos[0]
        from_the_start = (given(start) and start.const <= MAX_START) or (start.share is not None and not start.deps)  # a rank's own
        if stop.share is not None and stop.share.open == 0 and NUMBER_OF not in stop.keys and from_the_start and not stop.deps:
            self.bounds[loop] = (stop.share, step.const)
            self.of_ranks.update(before)
        low, high = _place(start), _place(stop)
        if low is not None and high is not None and low[0] == high[0] and high[1] > low[1]:
            self.most[own[0]] = (high[1] - low[1] - 1) // step.const * step.const
        elif low is not None and high is not None and not low[0] and len(high[0]) == 1 and given(start):
            by, begin = self.per_turn.get(high[0][0], (0, 0))[1], self.begins.get(high[0][0])
            if begin is not None and by > 0 and by % step.const == 0 == (begin + high[1] - low[1]) % step.const:
                self.ends[own[0]] = high[0], high[1] - step.const

    def apart_from_ranks(self, symbols: tuple[int, ...]) -> tuple[int, ...]:
        """Each rank goes through its share like one process through all."""
        return tuple(s for s in symbols if s not in self.of_ranks)

    def number(self, loop: int, index: V, begin: Any) -> None:
        """``index`` counts the turns of a loop from ``begin`` on."""
        if len(symbols := place_of(index)[0]) == 1:
            self.per_turn[symbols[0]] = (loop, 1)
            if type(begin) is int:
                self.begins[symbols[0]] = begin

    def counter(self, loop: int, before: V, after: V, begin: int | None) -> None:
        """A number of an open-ended loop, at the beginning of a turn and at its end; ``begin``: what it began at, if known."""
        if before.pos is None or after.pos is None or len(before.pos[0]) != 1 or before.pos[0] != after.pos[0]:
            return
        if (by := after.pos[1] - before.pos[1]) > 0:
            self.per_turn[before.pos[0][0]] = (loop, by)
            if begin is not None:
                self.begins[before.pos[0][0]] = begin - before.pos[1]

    def past(self, learned: Span, scored: Span, loop: int) -> int | None:
        """How many tokens that the next turn of ``loop`` scores a turn has learned from; None: not known."""
        last = self._settled(learned[1], loop, most=True)
        first = self._settled(scored[0], loop, most=False)
        if last is None or first is None or last[0] != first[0]:
            return None
        step = 0
        for s in last[0]:
            of, tokens = self.per_turn.get(s, (None, 0))
            if of == loop:
                step += tokens
        return last[1] - (first[1] + step) + 1 if step else None

    def begins_past(self, learned: Span, first: Place, loop: int) -> bool:
        """Does a turn learn from nothing but tokens behind the first one (``first``, as that turn finds it) that the next turn
        of ``loop`` scores: a number that is not known (a rank's share, a batch) only leads further on."""
        mine = list(learned[0][0])
        for s in first[0]:
            if s not in mine:
                return False
            mine.remove(s)
        step = sum(tokens for s in first[0] for of, tokens in [self.per_turn.get(s, (None, 0))] if of == loop)
        unknown = any(s < 0 for s in mine) or learned[0][1] < -FAR // 2 or any(self.per_turn.get(s, (None, 0))[0] == loop for s in mine)
        return step > 0 and not unknown and learned[0][1] >= first[1] + step

    def last_of(self, span: Span, loop: int) -> Place | None:
        """The place of the last token that the inner loops of a turn get to."""
        return self._settled(span[1], loop, most=True)

    def first_of(self, span: Span, loop: int) -> Place | None:
        """The place of the first token that the inner loops of a turn begin with."""
        return self._settled(span[0], loop, most=False)

    def last_in(self, index: V) -> Place | None:
        """The last of the places in an array that was reckoned from one ``arange`` whose length is known."""
        far = [s for s in index.pos[0] if s in self.arrays] if index.kind == "val" and index.pos is not None else []
        if len(far) != 1 or index.flags & (VAL | LOSS):
            return None
        return tuple(s for s in index.pos[0] if s != far[0]), index.pos[1] + self.arrays[far[0]]

    def counted(self, place: Place, loops: list[int]) -> bool:
        """Do counters of these loops, which count up, say where a place is, and nothing else but where a rank's share begins."""
        of = [self.per_turn[s][0] if s in self.per_turn else None for s in place[0] if s not in self.of_ranks]
        return bool(of) and all(loop in loops for loop in of)

    def _settled(self, place: Place | None, loop: int, *, most: bool) -> Place | None:
        """The place with the steps of inner loops at their first or last turn."""
        if place is None:
            return None
        symbols, offset = place
        left: list[int] = []
        for s in symbols:
            of = self.per_turn.get(s, (None, 0))[0]
            if most and s in self.ends and of is not None and of > loop:
                left += self.ends[s][0]
                offset += self.ends[s][1]
            elif s >= FIRST_STEP and of is not None and of > loop:
                if most and s not in self.most:
                    return None
                offset += self.most[s] if most else 0
            else:
                left.append(s)
        return tuple(sorted(left)), offset


def moved_head(op: str, a: V, b: V, keys: frozenset) -> frozenset:
    """The keys of ``end + 1``, where ``end`` is a document's; by how much it was moved is known for a number from the script."""
    if op == "+" and "seq" in (a.kind, b.kind):
        return keys  # a list of them gets longer
    known = op in "+-" and b.kind == "const" and type(b.const) is int
    by = (b.const if op == "+" else -b.const) if known else 0
    kept = frozenset((UNTIL, k[1] + by) if k[0] == UNTIL else k for k in a.keys if k == HEAD or k[0] == UNTIL) if known else frozenset()
    return frozenset(k for k in keys if k != HEAD and k[0] != UNTIL) | kept


def until(v: V) -> int | None:
    """How many places after the next document's beginning a bound lies at the latest; None: not known."""
    if HEAD in v.keys:
        return v.pos[1] if v.pos is not None else 0
    return max((k[1] for k in v.keys if k[0] == UNTIL), default=None)


def given(start: V, loop: int | None = None) -> bool:
    """Is it a number that stands in the script: no rank, no setting and no loop (but ``loop``) has to do with it."""
    return start.kind == "const" and type(start.const) is int and not start.knobs and all(x == loop for x, _ in start.deps)


def exact_place(v: V) -> Place:
    return _place(v) or place_of(v)


def _place(v: V) -> Place | None:
    """The place of a bound; what was subtracted counts as symbols below zero."""
    if v.span is not None:
        return v.span[0]
    if v.pos is not None:
        return v.pos if v.pos[1] > -FAR // 2 else None
    return ((), v.const) if v.kind == "const" and type(v.const) is int else None


def note_rows(base: V, elements: list[Any], parts: list[Any], out: V) -> None:
    """``tokens[None]`` makes one row. In several rows one slice may take something from each of them."""
    if not base.flags & VAL or base.flags & META:
        return
    axes = sum(not (isinstance(part, V) and part.kind == "const" and part.const is None) for part in parts)
    sliced = any(isinstance(x, ir.Slice) for x in elements)
    if sliced and (ROWS in base.keys or (axes > 1 and ONE_ROW not in base.keys)):
        out.keys = out.keys | {OF_ROWS}
    elif axes < len(parts) and axes <= 1 and ROWS not in base.keys and not isinstance(elements[0], ir.Slice):
        out.keys = out.keys | {ONE_ROW}


def laid_out(name: str, v: V, shape: list[V], out: V) -> None:
    """``tokens.view(1, -1)``, ``tokens.reshape(rows, -1)``, ``tokens.unsqueeze(0)``, ``stack([tokens[w : w + n] for w in starts])``"""
    if name not in SAME_TOKENS:
        out.keys = without(out.keys, {ONE_AXIS})
    if name in ("stack", "vstack") and out.flags & VAL and not out.flags & META and v.kind == "seq" and (v.rest is not None or len(v.data) > 1):
        out.keys = out.keys | {WINDOWS}
    if not v.flags & VAL or v.flags & META:
        return
    first = shape[0] if shape else None
    if name in ("reshape", "view"):
        if len(shape) > 1:
            one = first is not None and first.kind == "const" and first.const == 1 and ROWS not in v.keys
            out.keys = out.keys | {ONE_ROW if one else ROWS}
        elif first is not None and first.kind != "const" and ONE_ROW not in v.keys:
            out.keys = out.keys | {ROWS}
    elif name == "unsqueeze" and first is not None and first.kind == "const" and first.const == 0 and ROWS not in v.keys:
        out.keys = out.keys | {ONE_ROW}
    elif name in ("stack", "vstack", "unfold", "as_strided", "sliding_window_view", "pad_sequence", "expand", "repeat", "tile", "chunk", "split", "tensor_split", "array_split", "unbind", "rearrange", "unflatten"):
        out.keys = out.keys | {ROWS}


def cut(base: V, elements: list[Any], parts: list[Any]) -> Span | None:
    """The span of ``base[elements]``; ``parts`` holds what the elements evaluated to: (lower, upper) for a slice."""
    if base.flags & META or not base.flags & VAL:
        return None
    found = base.span
    sliced = False
    for element, part in zip(reversed(elements), reversed(parts), strict=True):
        if isinstance(element, ir.Slice):
            if sliced:
                continue  # another axis
            sliced = True
            if element.step is not None:
                return None
            found = _sliced(base, *part)
        elif isinstance(part, V) and part.kind == "const" and part.const in (None, ...):
            continue
        elif element is elements[0] and ONE_ROW in base.keys and isinstance(part, V) and part.kind == "const" and part.const == 0 and not part.deps:
            continue  # the row itself
        elif base.flags & (LOSS | LOGITS) and not (isinstance(part, V) and part.lv is not None):
            return None
        elif not sliced:
            return None  # one of them
    return found


def note_last(base: V, elements: list[Any], parts: list[Any], out: V, advances: Advances) -> None:
    """``stream[a:b]``, ``stream[i]``, where ``i`` numbers the turns of a loop: no token behind ``b - 1``, or ``i``.

    ``stream[starts[:, None] + arange(n)]``: none behind ``n - 1`` places from where its row starts.
    """
    if base.flags & (META | LOSS | LOGITS) or not base.flags & VAL:
        return
    if out.span is not None and out.span[1] is not None:
        no_later(out, out.span[1])
        return
    begin: Place | None = base.span[0] if base.span is not None else None
    if begin is None and not base.keys and not base.deps and not any(a[0] or a[1] is not None for a in base.atoms):
        begin = (), 0
    sliced = next((p for e, p in zip(reversed(elements), reversed(parts), strict=True) if isinstance(e, ir.Slice)), None)
    if sliced is not None and begin is not None and sliced[1] is not None and (end := _place(sliced[1])) is not None and (end[0] or end[1] > 0):
        if (last := _plus(begin, end)) is not None:
            no_later(out, (last[0], last[1] - 1))
    elif sliced is None and len(parts) == 1 and parts[0].lv is not None and len(parts[0].lv) == 2:
        note_one(out)
    elif sliced is None and len(parts) == 1 and (end := advances.last_in(parts[0])) is not None:
        no_later(out, end)


def note_one(v: V) -> None:
    """``int(tokens[i])``, ``tokens[i].item()``: one token."""
    places = [(k[1], k[2]) for k in v.keys if k[0] in ("t", "l", "e")]
    if v.flags & VAL and not v.flags & (META | LOSS | LOGITS) and len(places) == 1 and places[0][1] > -FAR // 2:
        no_later(v, places[0])


def no_later(v: V, place: Place) -> None:
    v.upto = (*[x for x in v.upto if x[0] != place[0]], place)


def _sliced(base: V, low: V | None, high: V | None) -> Span | None:
    """One axis cut: counted from the front where a bound is a place, from the back where it is a negative number."""
    if base.span is not None:
        begin, end = base.span
    elif base.flags & (LOSS | LOGITS | TGT) or base.deps or any(a[0] or a[1] is not None for a in base.atoms):
        return None
    else:
        begin, end = ((), 0), None  # the stream itself, or its beginning
    first = ((), 0) if low is None else _place(low)
    if first is not None and not first[0] and first[1] < 0 and high is None and end is not None and end[0] == begin[0]:
        return (end[0], max(begin[1], end[1] + 1 + first[1])), end
    if first is None or (not first[0] and first[1] < 0):
        return None
    moved = _plus(begin, first)
    if moved is None:
        return None
    to = None if high is None or (high.kind == "const" and high.const is None) else _place(high)
    if to is None:
        return moved, end if high is None else None
    if not to[0] and to[1] < 0:
        return moved, (end[0], end[1] + to[1]) if end is not None else None
    last = _plus(begin, to)
    return moved, (last[0], last[1] - 1) if last is not None else None


def _plus(a: Place, b: Place) -> Place | None:
    symbols = [*a[0], *b[0]]
    for s in [s for s in symbols if s < 0]:
        if -s in symbols:
            symbols.remove(s)
            symbols.remove(-s)
    return (tuple(sorted(symbols)), a[1] + b[1]) if len(symbols) <= MAX_SYMBOLS else None


def beyond(place: Place, symbols: tuple[int, ...]) -> Place | None:
    """What a place has besides some symbols."""
    more = list(place[0])
    for x in symbols:
        if x not in more:
            return None
        more.remove(x)
    return tuple(more), place[1]


def counts(v: V) -> bool:
    """A number made of lengths: times it, the mean of a run's losses is the sum of all of them."""
    return v.kind == "val" and bool(v.flags & META) and not v.flags & (VAL | LOSS | LOGITS | MASK)


def weighted(a: V, b: V) -> bool:
    """Does a product give tokens weights of their own (a mask, a ramp), rather than all of them the same one."""
    return any(
        x.flags & MASK or x.mask is not None or (x.kind == "val" and not x.flags & (META | LOSS) and x.lv is None)
        for x in (a, b)
    )
