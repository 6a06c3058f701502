"""Subscripts: parts of the stream, reads and writes of tables, masks."""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.bests import best_of
from audit.trace.chosen_weights import chosen_weights, decides_weights, learned_from
from audit.trace.documents import kept, marked
from audit.trace.even import OF_ENTRY
from audit.trace.floors import OF_TABLE
from audit.trace.gates import NORM, PROPOSALS, RECKONED, found_by_read, holds_tokens, picks_tokens
from audit.trace.left_out import LAID, MARKS, ending, gathered
from audit.trace.positions import (
    EVENTS,
    copied,
    ending_at,
    one_of,
    place_of,
    reach_origin,
    read_tokens,
    shifted,
    tokens_in,
    whole,
    written_at,
)
from audit.trace.runs import cut_out, one_element, suffix
from audit.trace.shaping import BETWEEN, BY_PLACE, found_at, is_loss, shape_origin
from audit.trace.shares import documents, shortened
from audit.trace.spans import WINDOWS, beyond, cut, note_last, note_rows
from audit.trace.strides import filled, note_held
from audit.trace.values import (
    ART,
    BYTES,
    COUNT,
    EMPTY,
    FILE,
    FULL,
    LOGITS,
    LOSS,
    MASK,
    MATCH,
    META,
    ONES,
    ORDER,
    PARAM,
    PROB,
    RAND,
    TGT,
    TRAIN,
    VAL,
    ClassV,
    V,
    clone,
    const,
    derive,
    fields_of,
    join,
    kinds,
    rest_of,
    restrict,
    seq,
    summary,
    with_deps,
)
from audit.trace.walks import PART, SHARE
from audit.trace.weights import picked_row, same_places, unowned
from audit.trace.words import ROW, WHOLE


def found_in_stream(low: V | None, high: V | None) -> bool:
    """``tokens[a:b]`` where ``a`` and ``b`` are places at which something was found."""
    return all(v is not None and v.kind == "val" and v.flags & META and v.flags & MASK for v in (low, high))


class Subscripts:
    """Mixed into the machine; see `audit.trace.machine`."""

    # ------------------------------------------------------------------ subscripts
    def x_slice(self: Any, e: ir.Slice) -> V:
        parts = [self.ev(x) for x in (e.lower, e.upper, e.step) if x is not None]
        return derive(parts)

    def x_sub(self: Any, e: ir.Sub) -> V:
        base = self.ev(e.value)
        out: V = self.part_of(base, e)
        return self.first_of_sorted(e, base, out) if base.kind == "seq" else out

    def part_of(self: Any, base: Any, e: ir.Sub) -> V:
        index = e.index
        k = base.kind
        if k == "lib":
            if base.data == "os.environ":
                return self.environ([self.ev(index)], e, required=True)
            if base.data == "sys.modules":
                return self.running_module(self.ev(index)) or V("lib", data=base.data)
            return V("lib", data=base.data)
        if k == "alt":
            base = base.data[0]
            k = base.kind
        if k == "obj" and (held := fields_of(base)) is not None:
            base, k = seq(held), "seq"
        if k == "bound" and base.data[1] == "parents" and not base.flags:
            return V("bound", data=(base.data[0], "parent"))  # a folder, as ``.parent`` is
        if k == "module":  # globals()["name"]
            i = self.ev(index)
            return (base.data.names.get(i.const) if i.kind == "const" else None) or V("val")
        if k in ("seq", "dict") or (k == "const" and not isinstance(index, ir.Slice)):
            if isinstance(index, ir.Slice):
                return self.slice_seq(base, index)
            i = self.ev(index)
            if k == "dict":
                if i.kind == "const":
                    try:
                        found = base.data.get(i.const)
                    except TypeError:
                        found = None
                    if found is not None:
                        return self.of_record(found, base.deps) if base.deps else found
                    return base.rest if base.rest is not None else self.missing(base, i)
                if names_shard(i) and VAL_SHARD in base.data:
                    return base.data[VAL_SHARD]
                if best := best_of(i.keys):
                    picked = clone(summary(base))
                    picked.keys = picked.keys | best
                    return picked
                by_place = base.by_place and base.rest is not None and i.pos is not None and not i.flags & VAL
                out = base.rest if by_place else self.element(without_shard(base) if i.flags & TRAIN and not i.flags & VAL else base)
                if out.kind == "dict":
                    out.origin = base  # itself, so that what is stored in it stays
                else:
                    out = with_deps(out, i.deps)
                    if out.origin is None and (out.kind == "val" or (out.kind == "seq" and filed_by_tokens(i))):
                        out = clone(out)
                        out.origin = base
                        if by_place:
                            out.keys = shifted(out.keys, *i.pos)
                return self.lookup(base, i, out, e)
            if k == "seq":
                if i.kind == "const" and isinstance(i.const, int) and base.data and base.rest is None:
                    if -len(base.data) <= i.const < len(base.data):
                        found = base.data[i.const]
                        return chosen(found, i.deps) if found.kind == "seq" and i.deps else found
                if i.kind == "const" and i.const == 0 and not base.data and base.first is not None and summary(base.first).flags & LOSS:
                    return base.first
                part = one_of(self.element(base))
                if picks_tokens(part, i):
                    return self.gather(part, i, e)  # a row that a comprehension made
                if (picked := self.picked_by(i, part)) is not part:
                    return picked
                if (best := best_of(i.keys)) and part.kind in ("val", "const"):
                    part = derive([part])
                    part.keys = part.keys | best
                    return part
                if part.kind == "dict":
                    part.origin = base  # itself, so that what is stored in it stays
                    return self.lookup(base, i, part, e)
                deps = self.walked(i, 1)
                deps |= self.turn_before(base, deps)
                self.note_bucket_of_turn(base, i)
                part = chosen(part, deps) if part.kind == "seq" and deps else with_deps(part, deps)
                if kept(i) and documents(base):
                    part = marked(part)
                if part is not base and part.kind == "val":
                    part.origin = base
                return self.lookup(base, i, found_at(i, part), e)
            try:
                out = const(base.const[i.const])
                out.knobs = base.knobs | i.knobs
                return out
            except Exception:
                return derive([base, i])
        if k == "obj":
            cls = base.data.cls
            if isinstance(cls, ClassV):
                if cls.find("__getitem__") is not None:
                    return self.call_value(V("bound", data=(base, "__getitem__")), [self.ev(index)], {}, e)
                if cls.is_model:
                    return base
            return derive([V("val"), self.ev(index)])
        return self.index_array(base, index, e)

    def missing(self: Any, base: V, i: V) -> V:
        if self.dormant or not base.data:
            return self.element(base) if base.data else V("val")
        return V("val")

    def slice_seq(self: Any, base: V, s: ir.Slice) -> V:
        bounds = [self.ev(x) if x is not None else const(None) for x in (s.lower, s.upper, s.step)]
        exact = all(b.kind == "const" for b in bounds)
        if base.kind == "const" and exact:
            try:
                out = const(base.const[slice(*(b.const for b in bounds))])
                out.knobs = base.knobs
                return out
            except Exception:
                return derive([base, *bounds])
        if base.kind == "seq" and base.rest is None and exact:
            try:
                return cut_out(base, bounds, seq((base.data or [])[slice(*(b.const for b in bounds))]))
            except Exception:
                pass
        # A part of what an iteration chose is chosen by it.
        deps = base.deps | self.between(bounds[0], bounds[1]) | bounds[2].deps
        deps |= self.elements_ahead(*suffix(base, bounds))
        part = self.note_first_documents(base, self.element(base), bounds, s)
        part = with_deps(part, deps)
        if part.kind == "val" and "e" in kinds(part):
            part = clone(part)
            part.keys = ending_at(part, bounds[1], part.keys)
        return self.numbered_cut(bounds, cut_out(base, bounds, seq([part]) if one_element(bounds) else seq([], part)))

    def bound_text(self: Any, e: Any) -> Any:
        """Identity of a slice bound: equal texts in one function are taken to be equal numbers."""
        if e is None or (isinstance(e, ir.UnaryOp)):
            return None
        if isinstance(e, ir.Const):
            return None if e.value in (0, 1, None) else e.value
        text = self.bound_form(e, 0)
        return int(text) if text.isdecimal() and int(text) > 1 else text

    def bound_form(self: Any, e: Any, depth: int) -> str:
        """Normal form of a bound: names replaced by what they stand for, guards against the edges left out."""
        t = type(e)
        if t is ir.Name:
            meant = self.scope.meaning.get(e.id) if depth < 10 else None
            return self.bound_form(meant, depth + 1) if meant is not None else e.id
        if t is ir.BinOp:
            return f"({self.bound_form(e.left, depth + 1)}{e.op}{self.bound_form(e.right, depth + 1)})"
        if t is ir.IfExp and (isinstance(e.body, ir.Const) or isinstance(e.orelse, ir.Const)):
            return self.bound_form(e.orelse if isinstance(e.body, ir.Const) else e.body, depth + 1)
        if t is ir.Call and isinstance(e.func, ir.Name) and e.func.id in ("max", "int") and not e.keywords:
            moving = [a for a in e.args if not isinstance(a, ir.Const)]
            if len(moving) == 1:
                return self.bound_form(moving[0], depth + 1)
        return text_of(e)

    def index_tuple(self: Any, index: Any) -> list[V] | None:
        """``rows = arange(n), y; log_probs[rows]``: a tuple with tokens in it, one for each axis."""
        if not isinstance(index, ir.Name):
            return None
        v = self.ev(index)
        known = v.kind == "seq" and v.rest is None and v.data is not None and 1 < len(v.data) < 5
        return list(v.data) if known and all(x.kind in ("val", "const") for x in v.data) and any(holds_tokens(x) for x in v.data) else None

    def index_array(self: Any, base: V, index: Any, e: Any) -> V:
        elements = index.elts if isinstance(index, ir.Collection) else [index]
        given = self.index_tuple(index)
        elements = elements * len(given) if given else elements
        out = derive([base])
        out.flags |= base.flags & ORDER
        if base.kind != "val":
            out.kind = "val"
        out.models = base.models if not base.flags & ART or base.flags & PARAM else EMPTY
        out.shape0 = None
        deps = EMPTY
        content: list[V] = []
        lo = hi = None
        shifted = False
        parts: list[Any] = []
        for at, x in enumerate(elements):
            if isinstance(x, ir.Slice):
                low = self.ev(x.lower) if x.lower is not None else None
                high = self.ev(x.upper) if x.upper is not None else None
                parts.append((low, high))
                if base.flags & VAL and not base.flags & (META | LOSS | LOGITS) and base.kind == "val":
                    self.note_span(low, high)
                    if high is not None and (high.deps or SHARE in high.keys or not (high.flags & META or high.kind == "const")):
                        out.keys = out.keys | {PART}
                if x.step is not None:
                    self.ev(x.step)
                deps |= self.between(low, high)
                lo = self.bound_text(x.lower) or lo
                hi = self.bound_text(x.upper) or hi
                if low is not None and low.kind == "const" and low.const and "lookup" in kinds(base):
                    out.keys = out.keys | {("cut", k[1]) for k in base.keys if k[0] == "lookup"}
                if low is not None and low.kind == "const" and low.const == 1:
                    shifted = True
                    if hi is not None and base.flags & LOSS == 0:
                        hi = None
                if low is not None and low.flags & META:
                    pass
            else:
                i = given[at] if given else self.ev(x)
                deps |= i.deps
                content.append(i)
                if i.mask is not None and i.mask != (None, None):
                    lo, hi = i.mask
                if base.flags & VAL:
                    if i.flags & RAND and not i.flags & MASK:
                        out.flags |= ORDER  # gathered at random positions
                        self.event("REORDER", e, out)
                parts.append(i)
                if i.knobs:
                    out.knobs |= i.knobs
        if isinstance(elements[-1], (ir.Const, ir.UnaryOp)) and "flat" in kinds(out):
            out.keys = frozenset(k for k in out.keys if k[0] != "flat")  # one column of a stack is no mixture
        if BY_PLACE in out.keys and all(isinstance(i, V) and (i.kind == "const" or i.lv is not None) for i in parts):
            out.keys = out.keys - {BY_PLACE}  # one of them is a number, whatever its place was
        if deps:
            out.deps = out.deps | deps
        if out.atoms:
            out.atoms = restrict(out.atoms, deps, lo, hi)
        if shifted and base.flags & (VAL | out.flags) and not base.flags & (LOSS | LOGITS):
            out.flags |= TGT
        if not same_places(elements):
            out = unowned(out)
        if ROW in out.keys and picks_entry(parts):
            out = unowned(out, row=True)
        self.note_prefix(base, elements, parts, out, e)
        if self.turns_of and base.flags & VAL:
            self.note_read_in_turns(base, parts[-1])
        if base.flags & META and len(parts) == 1 and isinstance(parts[0], tuple) and getattr(elements[0], "step", None) is None:
            out = self.note_first_documents(base, out, [*parts[0], None], e)
        self.note_thinned(base, elements, out, e)
        if base.flags & LOSS and len(content) == 1 and content[0].keys & MARKS:
            self.leave_out(base, content[0], out, e)
        read_tokens(self, base, elements, parts, out)
        if row := picked_row(base, elements, parts):
            out.keys = out.keys | row
        out.span = cut(base, elements, parts)
        note_last(base, elements, parts, out, self.trace.advances)
        note_held(base, elements, parts, out)
        note_rows(base, elements, parts, out)
        if WINDOWS in out.keys and isinstance(parts[0], V) and not parts[0].flags & MASK:
            out.keys = out.keys - {WINDOWS}  # one of them
        if base.flags & VAL and not base.flags & (META | LOSS | LOGITS) and isinstance(parts[-1], tuple) and found_in_stream(*parts[-1]):
            out.keys = out.keys | {BETWEEN}
        if isinstance(parts[-1], tuple) and base.flags & VAL:
            out.keys = out.keys | ending(parts[-1][1])
            self.note_document(base, *parts[-1], out)
        elif base.flags & VAL and isinstance(parts[-1], V):
            out.keys = out.keys | gathered(parts[-1])
        shortened(base, len(elements), parts[-1], out)
        if base.flags & META and len(parts) == 1 and isinstance(parts[0], V) and parts[0].kind == "const" and parts[0].const in (0, -1):
            out.share = base.share  # ``tokens.shape[0]``
        if base.pos is not None and not base.flags & VAL:
            out.pos = base.pos  # a selection of places
        for i in content:
            out = found_at(i, out)
            if base.flags & LOGITS and not base.flags & LOSS and holds_tokens(i):
                # `log_probs[arange(n), targets]`: the entry of each token, like a gather.
                return self.gather(out, i, e)
            if decides_weights(i, out) and not i.flags & MASK:
                out = chosen_weights(i, out)
            elif not i.deps and (picked := self.picked_by(i, out)) is not out:
                out = picked
            elif i.flags & VAL and i.kind != "const":
                out = self.lookup(base, i, out, e)
            if base.flags & (LOGITS | LOSS) and not PROPOSALS.isdisjoint(kinds(i)) and not i.flags & MASK:
                out.keys = out.keys | {NORM}
        if base.mask is not None:
            out.mask = base.mask
        if base.kind == "val" and out.kind == "val" and not base.flags & (VAL | LOSS | LOGITS | PARAM):
            if all(isinstance(i, V) and not i.flags & MASK for i in parts):
                out.origin = base  # a row of a table of tables: what is stored in it is stored there
        if base.kind == out.kind == "val" and is_loss(base) and out is not base and not any(isinstance(i, V) and i.flags & MASK for i in parts):
            out.origin = base  # losses of some places: what is done to them in place is done there
        return out

    def lookup(self: Any, base: V, index: V, out: V, node: Any) -> V:
        """A table read at an address made of stream content."""
        index = summary(index) if index.kind == "seq" else index
        if not index.flags & VAL or index.flags & META:
            return out
        if index.flags & MASK or base.flags & (LOSS | LOGITS):
            return out  # a selection, not an address
        if base.kind == "seq" and index.flags & out.flags & LOSS:
            return out  # one loss of several, by their sizes
        if base.flags & (VAL | TRAIN | ART | FILE) or base.taint or (base.kind == "dict" and (base.taint or base.flags)):
            got = derive([out, index]) if out.kind in ("val", "const") else out
            if got is not out:
                got.flags = out.flags | COUNT
                got.atoms = out.atoms if out.atoms else index.atoms
            if base.taint or got is out:
                got = clone(got) if got.kind != "dict" else got
                got.taint |= base.taint
                got.flags |= COUNT
            if got is not out:
                got.origin = out.origin  # a row: what is put into it is in the table
            address = index.keys
            if base.kind == "dict" and any(k[0] == "e" for k in address):
                address = whole(address)
                for k in address - index.keys:
                    self.note_read(k[1:])
            e = self.event("LOOKUP", node, index, keys=address, table=self.table_id(base), table_taint=base.taint,
                           table_flags=base.flags, address=address, row=got.kind in ("dict", "seq"),
                           made=out.keys | base.keys if base.kind == "dict" else out.keys)  # fmt: skip
            # What was found is no longer a token: only the reads that led to it are remembered.
            got.keys = frozenset(k for k in index.keys if k[0] in EVENTS) | {("lookup", e.id)} | self.owned(index)
            if got.kind == "seq":
                got.rest = answer(got.rest, got)
            return got
        if out.kind not in ("val", "const") or (out.kind == "const" and base.kind not in ("seq", "dict")):
            return out
        if base.kind == "dict" and not base.data and base.rest is None:
            return out  # nothing is in it yet
        if found_by_read(index):
            return out
        # A constant table (bytes per token, word boundaries) read at a token: made of the token.
        got = clone(out)
        got.origin = out.origin
        got.kind, got.const = "val", None
        got.flags |= index.flags & (VAL | TGT) | BYTES
        got.atoms = index.atoms if not out.atoms else out.atoms
        got.keys = frozenset(("l", *k[1:]) if k[0] == "t" else k for k in index.keys if k[0] not in OF_TABLE | OF_ENTRY) | {("lut", self.table_id(base))}
        got.keys |= {k for k in base.keys if k[0] in OF_TABLE} | self.even_keys(base)
        got.taint = out.taint
        return got

    def born_in(self: Any, v: V) -> Any:
        """Where an array, or the one that it is a view of, was made."""
        return self.born.get(id(v)) or (self.born.get(id(v.origin)) if v.origin is not None else None)

    def store(self: Any, base: V, index: V, value: V, node: Any) -> None:
        """A table takes in stream content: counts, continuations, hints."""
        index = summary(index) if index.kind == "seq" else index
        born = self.born_in(base)
        e = self.event("STORE", node, derive([index, value]) if index.kind != "const" else value, keys=index.keys,
                       table=self.table_id(base), value_keys=value.keys,
                       passing=bool(self.loops) and born is not None and born[1] == tuple(self.loops),
                       whole=self.fills_whole(index, value))  # fmt: skip
        e.atoms = index.atoms or value.atoms
        if held := [v for v in (index, value) if holds_tokens(v)]:
            e.detail["upto"] = derive(held).upto  # a count is no token
        base.taint = base.taint | {e.id}
        reach_origin(base)
        if base.kind == "dict":
            base.rest = V("val") if base.rest is None else base.rest
            base.taint = base.taint | {e.id}
            base.rest.taint = base.rest.taint | {e.id}
            base.rest.flags |= value.flags & VAL
        else:
            base.taint = base.taint | {e.id}
            if base.kind == "seq":
                if base.rest is None:
                    base.rest = V("val")
                base.rest.taint = base.rest.taint | {e.id}
                for x in base.data or []:
                    x.taint = x.taint | {e.id}

    def fill(self: Any, base: V, index: V, value: V, node: Any) -> None:
        """A table takes in training tokens."""
        flags = index.flags | value.flags
        if flags & TRAIN and not flags & (VAL | LOSS | PARAM) and not index.flags & META and base.kind in ("dict", "val"):
            e = self.event("FILL", node, derive([index, value]), table=self.table_id(base))
            base.flags |= TRAIN
            base.taint = base.taint | {e.id}
            reach_origin(base)

    def set_item(self: Any, base: V, target: ir.Sub, value: V, node: Any) -> None:
        k = base.kind
        if k == "alt":
            base = base.data[0]
            k = base.kind
        if base.even is not None:
            base.even.written = True
        if k == "lib":
            if base.data == "os.environ" and (name := self.ev(target.index)).kind == "const":
                self.env_set(name.const, value)
            return
        if k == "module":
            if (name := self.ev(target.index)).kind == "const":
                base.data.names[name.const] = value
            return
        if isinstance(target.index, ir.Slice) and k == "seq":
            self.scope_extend(base, value)
            return
        if k == "dict":
            i = self.ev(target.index)
            if self.not_given(value):
                return
            if i.kind == "const" and getattr(i.const, "__hash__", None):
                if value.flags & LOSS and value.flags & VAL:
                    value = self.commit_score(value, node, "stored")
                base.data[i.const] = value
                return
            if names_shard(i):
                base.data[VAL_SHARD] = value
                return
            if i.flags & VAL and not i.flags & META and not found_by_read(i):
                self.store(base, i, value, node)
            elif i.kind == "seq" and summary(i).flags & VAL:
                base.flags |= VAL  # filed under several tokens: a read there is a read of the stream's content
            else:
                self.fill(base, i, value, node)
            part = with_deps(copied(value, i), i.deps)
            if RECKONED in part.keys and part.kind == "val":
                part = clone(part)  # a count that was counted up is what it says
                part.keys = part.keys - {RECKONED}
            base.by_place |= part.keys != value.keys
            if part.kind == "dict" and base.rest is not None and base.rest.kind == "val":
                part.taint = part.taint | base.rest.taint  # a table of rows: what was noted of it stays
                base.rest = None
            base.rest = part if base.rest is None else join(base.rest, part)
            return
        if k == "seq":
            i = self.ev(target.index)
            if value.flags & LOSS and value.flags & VAL and not value.scores:
                value = self.commit_score(value, node, "stored")
            if i.kind == "const" and isinstance(i.const, int) and base.data and base.rest is None:
                if -len(base.data) <= i.const < len(base.data):
                    base.data[i.const] = value
                    return
            if i.flags & VAL and not i.flags & META:
                self.store(base, i, value, node)
            part = with_deps(value, i.deps)
            base.rest = part if base.rest is None else join(base.rest, part)
            return
        if k == "obj":
            cls = base.data.cls
            if isinstance(cls, ClassV) and cls.find("__setitem__") is not None:
                self.call_value(V("bound", data=(base, "__setitem__")), [self.ev(target.index), value], {}, node)
            return
        if k not in ("val", "bound"):
            return
        if value.kind in ("obj", "alt") and base.flags & PARAM:
            self.put_into(base, node, value)  # ``model.blocks[i] = …``
            return
        # An array: the written part joins its content; a mask remembers where it was set.
        if base.atoms:
            base.span = None
        value = summary(value) if value.kind == "seq" and (value.data or value.rest is not None) else value
        value = self.gated(value, target, node)
        lo = hi = None
        elements = target.index.elts if isinstance(target.index, ir.Collection) else [target.index]
        deps = EMPTY
        store_index: V | None = None
        places: list[V] = []
        indices: list[V] = []
        for x in elements:
            if isinstance(x, ir.Slice):
                if x.lower is not None:
                    value = written_at(value, low := self.ev(x.lower))
                    self.note_moved(base, value, low)
                for b in (x.lower, x.upper):
                    if b is not None:
                        deps |= self.ev(b).deps
                lo, hi = self.bound_text(x.lower), self.bound_text(x.upper)
                if x.lower is None and hi is not None:
                    lo = "start"
            else:
                i = self.ev(x)
                deps |= i.deps
                if x is elements[-1]:
                    value = copied(value, i)
                indices.append(i)
                if isinstance(x, ir.Name):
                    places.append(i)
                if i.flags & VAL and not i.flags & META:
                    store_index = i
                if i.flags & RAND and i.flags & MASK and base.flags & VAL:
                    base.flags |= RAND  # hidden at random
        if base.flags & (LOGITS | PROB) and indices and holds_tokens(indices[-1]):
            self.edited(base, indices[-1], base, node, indices[0] if len(indices) > 1 else None)
            if value.flags & LOSS and not base.flags & LOSS:
                value = clone(value)
                value.flags &= ~LOSS  # the row stays a row, though one entry of it was read at the token
        if store_index is not None and store_index.flags & MATCH and base.flags & LOSS:
            base.flags |= MATCH
        if indices and found_by_read(indices[-1]) and not base.flags & LOSS:
            base.absorb(indices[-1])  # the row of a table is laid out, a hint is raised: what was read is in it
        if value.kind == "const" or (not value.flags & ~META and not value.atoms):
            if value.const in (0, 0.0) and lo is hi is None and not indices and base.kind == "val":
                self.may_be_kept(base, node)  # ``counts[:] = 0``
            if (lo is not None or hi is not None) and value.const not in (0, 0.0, False):
                base.mask = (lo, hi)
            elif value.kind == "const" and base.data == ONES and value.const in (0, 0.0, False) and (lo is not None or hi is not None):
                base.mask = rest_of((lo, hi)) or base.mask
            if deps and base.kind == "val":
                base.deps = base.deps | deps
            if store_index is not None and value.kind == "const" and value.const == 0 and base.flags & LOSS:
                self.leave_out(base, store_index, base, node, negated=True)  # ``losses[y == BOS] = 0``
            if store_index is not None and not store_index.flags & MASK and holds_tokens(store_index) and not base.flags & (LOSS | LOGITS | PROB):
                if value.const not in (0, 0.0, False) or base.data in (ONES, FULL):  # else a table is emptied
                    self.store(base, store_index, value, node)  # which tokens there are
            return
        if value.flags & LOSS and value.flags & VAL and not (base.flags & LOGITS and not base.flags & LOSS):
            value = self.commit_score(self.put_over(base, value, node), node, "stored")  # an edited row of predictions is no score yet
        chose = [i for i in indices if i.flags & MASK and decides_weights(i, base, value)]
        if base.flags & PARAM:
            in_model = chose and isinstance(target.value, ir.Attr)  # ``p.data[better] = …``, and no copy of it
            self.write_param(base, chosen_weights(chose[0], value) if in_model else value, node)
        for i in chose:
            base.absorb(learned_from(i))
        if holds_tokens(value):
            base.keys = base.keys | {LAID}
        if WHOLE in base.keys and value.flags & PROB and WHOLE not in value.keys:
            base.keys = base.keys - {WHOLE}  # ``probs[i] *= 0.7``: there is room for something else
        self.fill_anew(base, elements, value)
        base.absorb(filled(self.own_row(value, places), elements))
        self.note_link(base, node)
        base.deps = base.deps | value.deps
        shape_origin(base)

    def note_moved(self: Any, base: V, value: V, low: V) -> None:
        """``probs[:, low:] = found``: from the array's start, the tokens that led to what was found lie ``low`` back.

        Not so for ``probs[low:] = found[low:]``.
        """
        if low.kind != "const" or type(low.const) is not int or low.const <= 0 or value.flags & MASK:
            return
        made = {k[1] for k in value.keys - base.keys if k[0] == "lookup" and ("cut", k[1]) not in value.keys}
        for e in reversed(self.trace.events) if made else ():
            if e.id in made:
                made.discard(e.id)
                if not e.detail.get("moved"):
                    e.detail["moved"], e.detail["keys"] = True, shifted(e.detail["keys"], (), -low.const)
                if not made:
                    break

    def own_row(self: Any, value: V, places: list[V]) -> V:
        """``mixed[t] = mix(logits[t], tree); tree.update(target[t])``: the row of a position, made before its token came in.

        What earlier turns of the loop over positions stored is that row's past, whenever the rows are scored.
        """
        if not value.taint or not value.flags & (LOGITS | PROB) or value.flags & LOSS:
            return value
        turns = {i.lv[0]: i.lv[1] for i in places if i.lv is not None and i.lv in self.loops}
        past = frozenset(e.id for e in self.trace.events if turns and e.id in value.taint and e.kind == "STORE" and self.is_past(e, turns, value))
        if past:
            value = clone(value)
            value.taint = value.taint - past
        return value

    def is_past(self: Any, store: Any, turns: dict[int, int], row: V) -> bool:
        """Did an earlier turn of one of these loops store it, and no token beyond the one that its own row predicts; or this
        turn, none beyond the one that the row was made from."""
        read = tokens_in(row.keys)
        for loop, at in store.loops:
            if loop in turns and at < turns[loop]:
                if all(k[2] <= place_of(self.turn_of[loop, at])[1] + 1 for k in store.detail["keys"] if k[0] == "t"):
                    return True
            elif loop in turns:
                turn, begin = place_of(self.turn_of[loop, at])
                more = [(beyond(upto, (*x, *turn)), max(o)) for upto in store.detail.get("upto", ()) if turn for x, o in read.items()]
                if any(rest is not None and all(s > 0 for s in rest[0]) and rest[1] <= begin + last for rest, last in more):
                    return True
        return False


def filed_by_tokens(key: V) -> bool:
    """Is it a context, and no length or name."""
    made = summary(key)
    return bool(made.flags & VAL) and not made.flags & META


def answer(part: V | None, row: V) -> V | None:
    """A token in a list that a table keeps for a context: found by that read."""
    if part is None or part.kind != "val":
        return part
    out = clone(part)
    out.keys, out.flags, out.taint = row.keys, part.flags | COUNT, part.taint | row.taint
    return out


def picks_entry(parts: list[Any]) -> bool:
    """``probs[row, hint]``, ``row[token]``: one probability of a row."""
    last = parts[-1]
    if not isinstance(last, V) or (last.kind == "const" and (last.const is None or last.const is Ellipsis)):
        return False
    return len(parts) > 1 or (bool(last.flags & (VAL | LOGITS | COUNT)) and not last.flags & (META | MASK))


#: the key under which a dictionary by file name keeps what belongs to validation shards
VAL_SHARD = ("file", VAL)


def names_shard(key: V) -> bool:
    """Is the key the name of a validation shard, and no token of one."""
    return key.kind == "val" and key.flags == VAL and not key.atoms and all(k[0] == "t" for k in key.keys)  # ``files[0]``


def without_shard(base: V) -> V:
    """A dictionary of opened files as the name of a training shard finds it."""
    if VAL_SHARD not in base.data:
        return base
    out = clone(base)
    out.data = {k: v for k, v in base.data.items() if k != VAL_SHARD}
    return out


def chosen(part: V, deps: frozenset) -> V:
    """An inner list as the iterations that chose it see it; what is put into it reaches the list itself."""
    out = with_deps(part, deps)
    out.origin = part
    for seen, own in zip(out.data or (), part.data or (), strict=True):
        if seen is not own and own.kind == "val":
            seen.origin = own if own.origin is None else own.origin  # one table, whichever turn looks at it
    return out


def text_of(e: Any) -> str:
    t = type(e)
    if t is ir.Name:
        return e.id
    if t is ir.Const:
        return repr(e.value)
    if t is ir.Attr:
        return f"{text_of(e.value)}.{e.attr}"
    if t is ir.BinOp:
        return f"({text_of(e.left)}{e.op}{text_of(e.right)})"
    if t is ir.Sub:
        return f"{text_of(e.value)}[{text_of(e.index)}]"
    if t is ir.Call:
        return f"{text_of(e.func)}({','.join(text_of(a) for a in e.args)})"
    if t is ir.UnaryOp:
        return f"{e.op}{text_of(e.operand)}"
    return f"?{e.line}:{e.col}"
