"""Methods of values: tensors, arrays, optimizers, modules of the library."""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.gates import PROPOSALS, holds_tokens, picks_tokens
from audit.trace.left_out import ADDED, ASKED, COMPARES, MARKS, heads_found
from audit.trace.queues import CLAIMED
from audit.trace.scaled import counted_but
from audit.trace.selection import listed
from audit.trace.shaping import (
    BY_PLACE,
    NUMBERS,
    OF_ALL,
    OF_STACK,
    STACKED,
    is_loss,
    number,
)
from audit.trace.spans import HEAD, laid_out, note_one
from audit.trace.totals import ADDS, SCALES
from audit.trace.values import (
    ART,
    BPB,
    BYTES,
    COUNT,
    EMPTY,
    FILE,
    GEN,
    GRAD,
    LOGITS,
    LOSS,
    META,
    PARAM,
    PROB,
    RAND,
    RATIO,
    TRAIN,
    VAL,
    WHOLE_ATOMS,
    V,
    clone,
    const,
    derive,
    kinds,
    rest_of,
    restrict,
    seq,
    summary,
    with_deps,
    without,
)  # fmt: skip
from audit.trace.words import (
    DERIVED,
    DRAWS,
    IDENTITY,
    LEAVES_WHOLE,
    LOGGERS,
    PIECES,
    PLACES,
    RANDOMS,
    RANGES,
    SAME_TOKENS,
    SHAPE_CALLS,
    VIEWS,
    WHOLE,
    found_places,
)


class Methods:
    """Mixed into the machine; see `audit.trace.machine`."""

    # ------------------------------------------------------------------ methods of arrays and containers
    def lib_method(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any, f: V) -> V:
        k = recv.kind
        if name == "__grad__" and recv.kind in ("func", "bound", "partial"):
            loss = self.call_value(recv, args, kwargs, node)
            return self.autograd_grad(loss, [loss, *args[:1]], node)
        if name == "__value_and_grad__" or (k in ("func", "bound", "partial", "lib") and name == "__value_and_grad__"):
            out = self.call_value(recv, args, kwargs, node)
            loss = summary(out)
            g = derive([loss])
            g.flags |= GRAD
            return seq([out, g])
        if k == "super":
            me, base = recv.data
            method = base.find(name)
            if method is not None and method.kind == "func" and not base.is_model:
                return self.call_closure(method, [me, *args], kwargs, node)
            return const(None)
        if k == "module":
            found = recv.data.names.get(name)
            if found is not None:
                return self.call_value(found, args, kwargs, node)
            return V("val")
        if k == "seq" or k == "dict":
            return self.container(recv, name, args, kwargs, node)
        if k == "const":
            return self.const_method(recv, name, args, kwargs, node)
        if k == "file":
            if name in ("write", "writelines") and args:
                content = summary(args[0])
                if content.flags & BPB and content.scores:
                    self.report(args, kwargs, node)
                else:
                    self.write_file(recv.data, content, node)
            return const(None)
        if name == "item" and k == "val" and not args:
            note_one(recv)
        if recv.const == "parser":
            return self.argparse_method(recv, name, args, kwargs, node)
        if recv.const == "hook":
            if name == "remove":
                # Handles are kept in lists and removed in loops of unknown length.
                self.hooks = 0
            return const(None)
        if name in ("write_bytes", "write_text") and args:
            return self.written_to(recv, name, args, kwargs, node)
        if name in ("read", "read_bytes", "read_text", "readinto", "getvalue", "getbuffer"):
            out = derive([recv])
            if isinstance(recv.const, tuple) and recv.const[:1] == ("path",):
                out = self.with_file(out, const(recv.const[1]))
            else:
                out = self.with_file(out, recv) if name.startswith("read") else out
            if not out.flags & (VAL | TRAIN | ART):
                out.flags |= FILE
            if out.flags & (VAL | TRAIN) and not out.flags & ART:
                if out.flags & VAL:
                    out.atoms = WHOLE_ATOMS
                self.note_read_file(out, node)
            if name == "readinto" and isinstance(node, ir.Call) and node.args:
                self.ev(_array_behind(node.args[0])).absorb(out)
            elif self.loops and not out.flags & VAL and (not out.flags & TRAIN or out.flags & ART):
                # A counter or queue kept in a file: a new answer in every iteration.
                out.deps, out.keys = out.deps | {self.loops[-1]}, out.keys | {CLAIMED}
            return out
        if name == "backward":
            self.backward(args[0] if args and not recv.flags & LOSS and args[0].flags & LOSS else recv, node)  # ``accelerator.backward(loss)``
            return const(None)
        if name == "step" and args and args[0].kind == "opt":
            self.step(args[0].data, node)  # ``scaler.step(optimizer)``
            return const(None)
        if name in ("data_as", "data_ptr", "from_buffer", "cast") and (recv.kind in ("val", "bound")):
            # A raw pointer is the array itself.
            passed = args[-1] if name in ("from_buffer", "cast") and args else recv
            while passed.kind == "bound" and isinstance(passed.data, tuple) and isinstance(passed.data[0], V):
                passed = passed.data[0]
            return passed
        if name == "fill" and recv.kind == "val" and not any(a.flags for a in args):
            if self.may_be_kept(recv, node):
                return const(None)
            recv.keys, recv.taint, recv.atoms = EMPTY, EMPTY, EMPTY
            recv.flags &= ~(VAL | TRAIN | LOSS | COUNT | RATIO)
            return const(None)
        if name in ("extend", "append") and recv.kind == "val" and not recv.models and len(args) == 1:
            recv.absorb(summary(args[0]) if args[0].kind in ("seq", "dict") else args[0])  # a bytearray grows
            return const(None)
        if name in PLACES and recv.kind == "val":
            return heads_found(name, recv, found_places([recv, *args]))
        if name in SHAPE_CALLS or (name in RANGES and not args and recv.flags & VAL and not recv.flags & DERIVED):
            out = V("val", flags=META)
            out.deps = recv.deps
            if name in ("numel", "nelement", "size", "__len__") and all(a.kind == "const" and a.const in (0, -1) for a in args):
                self.note_counted(recv, out)
            return out
        if name in ("register_forward_hook", "register_forward_pre_hook"):
            return self.add_hook(args, kwargs, node)
        if name == "gather" and args:
            return self.gather(recv, args[-1] if len(args) > 1 else kwargs.get("index", args[0]), node)
        if name in ("take", "item", "log_prob") and len(args) == 1 and picks_tokens(recv, args[0]):
            out = self.gather(recv, args[0], node)
            if name == "log_prob":
                out.keys = out.keys | {("logp",)}
            return out
        if name in ("index_select", "take", "take_along_dim") and args:
            index = args[-1]
            out = derive([recv])
            out.atoms = restrict(recv.atoms, index.deps)
            out.deps |= index.deps
            return self.lookup(recv, index, out, node)
        if name in ("scatter_add_", "index_add_", "index_put_", "scatter_", "scatter_reduce_") and len(args) >= 2:
            index = args[1] if name != "index_put_" else summary(args[0])
            # What a table answered, or a fixed one that nothing is in yet, laid out in an array of this turn: no token is taken in.
            born = self.born_in(recv)
            fresh = bool(self.loops) and born is not None and born[1] == tuple(self.loops)
            found = any(k[0] in PROPOSALS or (fresh and k[0] in ("lookup", "lut")) for k in index.keys)
            if index.flags & VAL and not recv.flags & LOGITS and not found:
                self.store(recv, index, args[-1], node)
                return recv
            self.fill(recv, index, args[-1], node)
            given = derive(args[1:])
            if holds_tokens(index):
                self.edited(recv, index, recv, node)
            if recv.flags & PROB and not PROPOSALS.isdisjoint(kinds(given)):
                # Raised at what a cache proposes, after the softmax.
                e = self.event("UNNORMALISED", node, recv, keys=given.keys)
                recv.keys = recv.keys | {("unnorm", e.id)}
            recv.absorb(given)
            return recv
        if name in ("scatter", "scatter_add", "index_add", "index_put") and len(args) >= 2 and recv.flags & (LOGITS | PROB):
            index = args[1] if name != "index_put" else summary(args[0])
            out = derive([recv, index, args[-1]])
            if holds_tokens(index):
                self.edited(recv, index, out, node)
            return out
        if name == "narrow" and len(args) >= 2:
            out = derive([recv])
            out.deps |= args[1].deps
            out.atoms = restrict(recv.atoms, args[1].deps)
            return out
        if name in ("minimum", "maximum", "fmin") and args:
            return self.select(name, [recv, args[0]], node)
        if WHOLE in recv.keys and name == "add_" and len(args) == 1 and not kwargs and args[0].kind == "val":
            recv.keys = recv.keys | {k for k in self.binary("+", recv, args[0], node).keys if k[0] == "unnorm"}
        if WHOLE in recv.keys and name not in LEAVES_WHOLE and (name not in ADDS or kwargs):
            recv = recv if name.endswith("_") else clone(recv)
            recv.keys = recv.keys - {WHOLE}
        if BY_PLACE in recv.keys and name in NUMBERS and not args and not kwargs:
            recv = clone(recv)
            recv.keys = recv.keys - {BY_PLACE}
        if name in NUMBERS and name != "item" and (recv.flags & BYTES or recv.keys & MARKS) and not recv.flags & LOSS:
            test, recv = recv, clone(recv)
            recv.keys = recv.keys - MARKS | {ADDED}
            counted_but(name, test, recv)
        if name in OF_STACK and STACKED in recv.keys:
            return self.one_of_stack(name, [recv, *args], node)
        if name in ("median", "nanmedian", "quantile", "kthvalue", "mode") and is_loss(recv) and not args:
            out = derive([recv])
            self.note_least_of_all(name, recv, args, kwargs, out, node)
            return out
        if name in ("max", "amax") and (args or kwargs) and ("logp",) in recv.keys and is_loss(recv):
            return self.tuned(derive([recv, *args]), recv, node, name)  # of several passes the one that gives the token most
        if name in ("min", "argmin", "amin", "topk") and recv.flags & LOSS and recv.flags & VAL:
            out = derive([recv, *args])
            if name == "argmin":
                out = self.best(self.tuned(out, recv, node, name), recv, node, name, picks=True)
            e = self.event("SELECT", node, out, how=name, method=True)
            self.note_least_of_all(name, recv, args, kwargs, out, node)
            if (args or kwargs) and name in ("min", "amin") and not recv.flags & BPB:
                out.keys = out.keys | {("select", e.id)}
            return out
        if name == "where" and len(args) >= 2:
            return self.where([args[0], recv, args[1]], node)
        if name in ("cross_entropy", "nll_loss"):
            return self.cross_entropy(args, kwargs, node)
        if name == "multinomial":
            out = derive([recv])
            out.flags = (out.flags & ~LOGITS) | GEN | RAND
            self.event("GENERATE", node, out)
            return out
        if name in DRAWS and recv.kind == "val" and (drawn := self.drawn(name, args, kwargs, node)) is not None:
            return drawn
        if name in RANDOMS:
            out = derive(args)
            out.flags = (out.flags & META) | RAND
            out.atoms = EMPTY
            return out
        if name in LOGGERS and any(a.flags & BPB for a in args):
            return self.report(args, kwargs, node)
        if name in ("save", "tofile", "dump") and args and recv.kind != "lib":
            self.write_file(args[0], recv, node)
            return const(None)
        if name in ("glob", "rglob", "joinpath", "with_suffix", "with_name", "iterdir", "resolve"):
            joined = self.path_join([recv, *args]) if recv.kind == "const" else derive([recv, *args])
            return listed(joined) if name in ("glob", "rglob", "iterdir") else joined
        if name in ("parameters", "named_parameters", "state_dict", "buffers") and recv.models:
            return derive([recv])
        if name == "load_state_dict":
            return V("val")
        if name in ("hexdigest", "digest") and not recv.atoms:
            out = derive([recv, *args])
            out.flags &= ~(VAL | TRAIN)  # the digest of a path's text names no split
            return out
        if recv.kind == "lib" and recv.data == "pool" and args:
            if args[0].kind in ("func", "partial"):
                return self.call_value(args[0], [self.element(a) if name in ("map", "imap") else a for a in args[1:]], kwargs, node)
        if recv.kind == "lib" and recv.data == "native":
            return self.native(args, kwargs, node, name)
        if recv.kind == "val" and not recv.models and (helper := self.natives.get(name)) is not None and helper.hints:
            return self.native(args, kwargs, node, name)  # a method of a compiled class (nanobind, pybind11)
        if recv.kind == "lib":
            return self.call_lib(f"{recv.data}.{name}", args, kwargs, node, f)
        if name.endswith("_") and not name.endswith("__"):
            return self.in_place(recv, name, args, kwargs, node)
        if name in ADDS and len(args) == 1 and not kwargs and recv.kind == args[0].kind == "val" and ((recv.flags | args[0].flags) & LOSS or WHOLE in recv.keys):
            return self.binary(ADDS[name], recv, args[0], node)
        if name in SCALES and len(args) == 1 and not kwargs and recv.kind == args[0].kind == "val" and recv.flags & PROB and not (recv.flags | args[0].flags) & LOSS:
            return self.binary(SCALES[name], recv, args[0], node)
        if name in ("get", "pop", "popleft", "recv", "claim", "take", "fetch_add", "add", "get_nowait") and self.loops and not recv.flags & LOSS:
            out = with_deps(derive([recv, *args]), frozenset([self.loops[-1]]))
            if not out.flags & VAL:
                out.keys = out.keys | {CLAIMED}
            return out
        if name in IDENTITY:
            out = self.identity(name, recv, args, kwargs)
            if name in VIEWS and out is not recv and out.kind == recv.kind == "val" and not recv.flags & (VAL | LOSS | LOGITS | PARAM):
                out.origin = recv if recv.origin is None else recv.origin  # what is stored in it is stored there
            laid_out(name, recv, args, out)
            if recv.share is not None and out is not recv and out.kind == "val" and name in SAME_TOKENS:
                out.share = recv.share
            return out
        if name == "scalars" and recv.flags & BPB:
            return recv
        if name in ("log_softmax", "softmax", "logsumexp") and recv.kind in ("val", "bound"):
            return self.normalise(name, [recv])
        if name in ("exp", "exp2", "log", "log2") and recv.kind == "val" and recv.flags & LOSS and not args:
            out = self.normalise(name, [recv])
            return self.to_bits(out, node) if name == "log2" and out.flags & VAL else out
        if name in PIECES and recv.kind != "const" and args and args[0].keys:
            out = derive(args)  # the text of a token
            out.flags = (out.flags & VAL) | BYTES
            out.keys = frozenset(("l", *k[1:]) if k[0] == "t" else k for k in out.keys)
            return out
        values = [recv, *(summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()])]
        if recv.kind == "obj":
            values = values[1:]
        for a in args:
            if a.kind in ("func", "partial") and name in ("map", "submit", "apply_async", "apply"):
                return self.call_value(a, [self.element(x) for x in args if x is not a], {}, node)
        out = derive(values)
        self.note_size(name, recv, out)
        self.note_raised(name, recv, args, kwargs, out, node)
        self.note_product_by(name, recv, args, out, node)
        if name in ("sum", "mean") and len(values) == 1 and out.flags & (LOGITS | PROB | LOSS):
            out.keys = out.keys | {OF_ALL}
        if recv.flags & LOSS:
            self.note_capped(name, recv, args, kwargs, out, node)
            self.note_bent(name, recv, args, kwargs, out, node)
            self.note_mean(name, recv, args, kwargs, out)
            self.note_sorted(name, recv, out)
        if out.flags & LOSS and args and args[0].keys & MARKS and name in ("mul", "masked_fill", "masked_select"):
            if name != "masked_fill" or (len(args) > 1 and number(args[1]) == 0.0):
                self.leave_out(recv, args[0], out, node, negated=name == "masked_fill")
        out.keys = without(out.keys, MARKS | {HEAD})
        if name == "bos_id" and not args and not recv.flags:
            out.keys = frozenset([ASKED])
        if name in COMPARES and len(args) == 1 and not out.flags & LOSS:
            self.note_kind(COMPARES[name], recv, args[0], out)
        if name in ("sum", "mean", "neg", "mul", "div", "add", "sub", "masked_fill") and out.flags & LOSS:
            for a in args:
                mask = rest_of(a.mask) if name == "masked_fill" else a.mask
                if mask is not None:
                    out.atoms = frozenset((d, *mask) for d, _, _ in out.atoms)
                if name in ("div", "mul") and self.is_ln2(a, a, "/"):
                    out = self.to_bits(out, node)
            out.mask = None
        return out

    def drawn(self: Any, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V | None:
        """``random.sample(documents, n)``, ``rng.choice(len(documents), n, replace=False)``"""
        count = args[1] if len(args) > 1 else kwargs.get("size" if name == "choice" else "k")
        again = args[2] if len(args) > 2 else kwargs.get("replace")
        if not args or count is None or (name == "choice" and (again is None or again.const is not False)):
            return None
        drawn: V | None = self.note_drawn(args[0], count, node)
        return drawn

    def in_place(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        self.note_raised(name, recv, args, kwargs, recv, node)
        self.note_product_by(name, recv, args, recv, node)
        given = derive([summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()]])
        if name in ("zero_", "fill_", "normal_", "uniform_") and recv.kind == "val":
            if not given.flags and recv.kind == "val" and not recv.flags & PARAM and recv.line and not self.may_be_kept(recv, node):
                # A buffer that starts afresh.
                recv.taint, recv.atoms, recv.keys = EMPTY, EMPTY, EMPTY
                recv.flags &= ~(VAL | TRAIN | LOSS)
            self.note_reset(recv, given, node)
            return recv
        if name in ("requires_grad_", "share_memory_", "clamp_", "resize_"):
            return recv
        if recv.models and (recv.flags & PARAM):
            if name == "copy_" and self.restores(recv, given):
                return recv
            self.write_param(recv, given, node)
        if given.flags & LOSS and name == "add_":
            given = self.commit_score(given, node, "accumulated")
        made = self.binary("/", recv, given, node).keys if name in ("div_", "true_divide_") and "unnorm" in kinds(recv) else None
        if recv.kind == "val":
            if name == "copy_":
                recv.taint, recv.atoms = given.taint, given.atoms
                recv.flags = (recv.flags & PARAM) | (given.flags & ~(META | PARAM))
            else:
                recv.absorb(given)
                recv.keys = recv.keys if made is None else made
        return recv


def _array_behind(e: Any) -> Any:
    """``tokens`` of ``tokens.numpy()``, ``memoryview(tokens)`` and the like: what a read into such a view fills."""
    while isinstance(e, ir.Call):
        if isinstance(e.func, ir.Attr) and e.func.attr in IDENTITY | {"cast", "data"}:
            e = e.func.value
        elif isinstance(e.func, ir.Name) and e.func.id == "memoryview" and e.args:
            e = e.args[0]
        else:
            break
    return e
