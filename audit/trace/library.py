"""What library calls do to provenance: reading, losses, tables, files, containers, reports."""

from __future__ import annotations

import ast
import json
from typing import Any

from audit.trace.builtin import Builtins
from audit.trace.chosen_weights import chosen_weights, decides_weights
from audit.trace.containers import Containers
from audit.trace.entries import APPS, RUNNERS
from audit.trace.files import Files
from audit.trace.gates import (
    AGREE,
    HIT,
    NORM,
    ONE_HOT,
    PROPOSALS,
    found_by_read,
    holds_tokens,
    mixed,
    picks_tokens,
    plain,
    stands_ahead,
)
from audit.trace.left_out import ADDED, COMPARES, MARKS, heads_found, laid_beside
from audit.trace.methods import Methods
from audit.trace.positions import loop_place, place_of
from audit.trace.queues import LIBRARIES
from audit.trace.reach import TYPED
from audit.trace.scaled import counted_but
from audit.trace.selection import listed
from audit.trace.shaping import (
    BY_GAP,
    BY_LOSS,
    BY_PLACE,
    GAP,
    NUMBERS,
    OF_ALL,
    OF_LOSS,
    OF_STACK,
    STACKED,
    found_at,
    is_loss,
    number,
    same_target,
)
from audit.trace.shares import OF_WORLD, beside_another
from audit.trace.spans import HEAD, LAYOUT, WINDOWS, laid_out
from audit.trace.started import STARTS
from audit.trace.strides import held_by_target
from audit.trace.tallies import SOLVERS, summed_over
from audit.trace.totals import ADDS, PUT_TOGETHER
from audit.trace.values import (
    BPB,
    BYTES,
    COUNT,
    EMPTY,
    FULL,
    GEN,
    GRAD,
    LOGITS,
    LOSS,
    MATCH,
    META,
    ONES,
    ORDER,
    PARAM,
    PROB,
    RAND,
    SOURCES,
    TGT,
    TIME,
    TRAIN,
    UNREAD,
    VAL,
    V,
    changed,
    clone,
    const,
    derive,
    kinds,
    linked,
    mapping,
    members,
    seq,
    summary,
    without,
)  # fmt: skip
from audit.trace.weights import rows_of
from audit.trace.words import (
    DERIVED,
    DRAWS,
    FRESH,
    IDENTITY,
    LOGGERS,
    NUMBER_TYPES,
    OPTIMIZERS,
    PLACES,
    POINTERS,
    PRODUCTS,
    RANDOMS,
    READERS,
    REORDERS,
    TRANSPARENT,
    WHOLE,
    canonical,
    found_places,
)

#: losses as modules
LOSSES = frozenset(("CrossEntropyLoss", "NLLLoss"))
#: what starts a generator of random numbers, in torch, numpy, mlx and the standard library
SEEDS = frozenset(("manual_seed", "manual_seed_all", "seed", "default_rng", "RandomState", "Random", "PRNGKey"))


class Library(Methods, Builtins, Containers, Files):
    """Mixed into the machine; see `audit.trace.machine`."""

    def lib_attr(self: Any, v: V, name: str) -> V:
        dotted = f"{v.data}.{name}"
        if self.patched and (put := self.patched.get(canonical(dotted))) is not None:
            return put  # type: ignore[no-any-return]
        if dotted in ("math.log", "builtins.log"):
            return V("lib", data=dotted)
        if dotted in ("math.e", "numpy.e"):
            return const(2.718281828459045)
        if dotted == "math.pi":
            return const(3.141592653589793)
        if dotted == "sys.argv":
            typed = V("val")
            typed.keys = frozenset([TYPED])
            return seq([], typed)
        return V("lib", data=canonical(dotted))

    # ------------------------------------------------------------------ functions
    def call_lib(self: Any, name: str, args: list[V], kwargs: dict[str, V], node: Any, f: V) -> V:
        last = name.rsplit(".", 1)[-1]
        first = args[0] if args else None
        if name in ("os.environ.get", "os.getenv", "os.environ.pop", "os.environ.setdefault"):
            if last == "setdefault" and len(args) > 1 and args[0].kind == "const":
                got = self.environ(args, node)
                self.env_set(args[0].const, got)
                return got
            if len(args) == 1 and "default" in kwargs:
                args = [args[0], kwargs["default"]]
            return self.environ(args, node)
        if name in APPS:
            if name == "typer.Typer" and f.data == name and f.const == "made":
                self.begin(node)
            app = V("lib", const="made", data=name)
            return app
        if name in RUNNERS and first is not None and first.kind in ("func", "partial"):
            return self.call_value(first, [], {}, node)
        if name == "os.environ.copy":
            return mapping({}, V("val"))  # settings for a program that is started
        if name.startswith("builtins."):
            handled = self.builtin(last, args, kwargs, node)
            if handled is not None:
                return handled
        if first is not None and (name in TRANSPARENT or last in ("DDP", "DistributedDataParallel", "compile", "FSDP")):
            if last == "compile" and name.startswith("re."):
                return V("val")
            if name in ("builtins.sorted", "builtins.list", "builtins.tuple", "builtins.set", "builtins.reversed"):
                return self.as_seq(first, exact=last != "reversed" and last != "sorted")
            return first
        if last == "compile" or last == "jit" or last == "njit":
            # Used as a decorator factory: the decorated function stays itself.
            return V("lib", data="identity")
        if name == "identity" or last in ("wraps", "disable", "allow_in_graph", "custom_op", "inference_mode_fn"):
            return first if first is not None else V("lib", data="identity")
        if name in ("functools.partial",) and first is not None:
            return V("partial", data=(first, args[1:], dict(kwargs)))
        if name == "functools.reduce" and len(args) > 1 and args[0].kind in ("func", "bound", "partial"):
            return self.reduced(args[0], args[1], args[2] if len(args) > 2 else kwargs.get("initial"), node)
        if name == "itertools.starmap" and len(args) == 2:
            return self.by_rows(args[0], args[1], node)
        if name in ("functools.lru_cache", "functools.cache"):
            return first if first is not None else V("lib", data="identity")
        if name == "copy.deepcopy" or name == "copy.copy":
            return self.deepcopy(first) if first is not None else V("val")
        if last in ("no_grad", "inference_mode"):
            return V("val", const="no_grad")
        if name.startswith("time."):
            return V("val", flags=TIME)
        if name.startswith("math."):
            out = self.math_call(last, args)
            if args and out.flags & LOSS:
                self.note_bent(last, args[0], args[1:], kwargs, out, node)
            return out
        if last in SEEDS and first is not None:
            self.trace.seeds.update(name for name, _value in first.knobs)
        if last in DRAWS and (drawn := self.drawn(last, args, kwargs, node)) is not None:
            return drawn
        if last in RANDOMS and ("random" in name or "torch" in name or "mlx" in name or last.startswith("rand")):
            out = derive([*args, *kwargs.values()])
            out.flags = (out.flags & META) | RAND
            out.atoms = EMPTY
            out.line = getattr(node, "line", 0)
            return out
        if last == "multinomial" or last == "categorical":
            out = derive(args)
            out.flags = (out.flags & ~(LOGITS | PROB)) | GEN | RAND
            self.event("GENERATE", node, out)
            return out
        if last in FRESH:
            out = V("val", flags=0)
            out.line = getattr(node, "line", 0)
            self.born[id(out)] = (out, tuple(self.loops))
            if last in ("ones", "ones_like"):
                out.data = ONES
            elif last in ("full", "full_like"):
                out.data = FULL
            self.note_even(last, args, out, node)
            for a in args:
                out.deps |= a.deps
                if a.flags & META:
                    out.flags |= META & 0
            if last in ("full",) and len(args) > 1 and args[1].taint:
                out.taint = args[1].taint
            if args:
                dim = args[0]
                if dim.kind == "seq" and dim.data:
                    dim = dim.data[0]
                if dim.kind == "const" and isinstance(dim.const, int):
                    out.shape0 = dim.const
            if last == "arange":
                out = derive(args)
                out.flags = META if any(a.flags & META for a in args) else 0
                out.atoms, out.keys = EMPTY, EMPTY
                # Every element is a place of its own; they share the symbols of where the range starts.
                # A fixed start says nothing of where the array is laid against the stream: a symbol of its own.
                start = args[0] if len(args) > 1 else None
                out.pos = loop_place(start) if start is not None and start.kind == "const" else (
                    place_of(start) if start is not None and start.kind == "val" else None
                )
                if len(args) == 1 and args[0].kind == "const" and type(args[0].const) is int:
                    self.trace.advances.arrays[place_of(out)[0][0]] = args[0].const - 1
                out.keys = frozenset([BY_PLACE, ("candidates", getattr(node, "line", 0))] if len(args) == 1 else [BY_PLACE])
            return out
        if last in ("add_at",) or name.endswith("add.at") or name.endswith("maximum.at"):
            if len(args) >= 2:
                index = summary(args[1]) if args[1].kind == "seq" else args[1]
                taken = args[2] if len(args) > 2 else const(1)
                if index.flags & TRAIN and not index.flags & VAL:
                    self.fill(args[0], index, taken, node)
                elif found_by_read(index):
                    args[0].absorb(derive([index, taken]))
                elif taken.flags & LOSS and not index.flags & VAL and args[0].kind == "val":
                    args[0].absorb(self.commit_score(taken, node, "accumulated"))
                else:
                    self.store(args[0], args[1], taken, node)
            return const(None)
        if name.startswith(LIBRARIES) and (taken := self.queue_call(last, args, node)) is not None:
            return taken
        if last in ("cross_entropy", "nll_loss") or (last in LOSSES and len(args) >= 2):
            return self.cross_entropy(args, kwargs, node)
        if last == "kl_div" and len(args) >= 2 and ONE_HOT in args[1].keys:
            return self.cross_entropy(args, kwargs, node)  # to a point at each token
        if last == "DataLoader" and (held := first if first is not None else kwargs.get("dataset")) is not None and held.kind == "obj":
            return V("iter", data=("loader", held))
        if last == "DataLoader" and first is not None and first.kind == "iter":
            return first
        if last == "TensorDataset" and args:
            return V("iter", data=("zip", args))
        if last in LOSSES:
            loss = V("lib", data="torch.nn.functional.cross_entropy")
            ignored = {k: v for k, v in kwargs.items() if k == "ignore_index"}
            return V("partial", data=(loss, [], ignored)) if ignored else loss
        if name.endswith("autograd.grad") and first is not None:
            return self.autograd_grad(first, args, node)
        if last in ("value_and_grad", "grad_and_value") and first is not None:
            fn = args[1] if len(args) > 1 and args[1].kind in ("func", "bound", "partial", "lib") else first
            out = V("bound", data=(fn, "__value_and_grad__"))
            out.models = first.models if first.kind == "obj" else EMPTY
            return out
        if name.endswith("backward") and first is not None and "autograd" in name:
            self.backward(summary(first), node)
            return const(None)
        if last in ("log_softmax", "softmax", "logsumexp", "sigmoid", "exp", "exp2", "logaddexp"):
            return self.normalise(last, args)
        if last.startswith("_foreach_") and last.endswith("_") and len(args) >= 2:
            self.write_param(summary(args[0]), derive([summary(a) for a in args[1:]]), node)
            return const(None)
        if last == "vector_to_parameters" and len(args) >= 2:
            self.write_param(summary(args[1]), args[0], node)
            return const(None)
        if (written := kwargs.get("out")) is not None and written.flags & PARAM:
            self.write_param(written, derive([*args, *(v for k, v in kwargs.items() if k != "out")]), node)
            return written
        if name.endswith("func.grad") and first is not None:
            return V("bound", data=(first, "__grad__"))
        if last in ("minimum", "maximum", "fmin") and len(args) >= 2:
            return self.select(last, args, node)
        if last in ("where",) and len(args) >= 3:
            return self.where(args, node)
        if last in ("gather", "gather_object") and "distributed" in name and len(args) >= 2:
            source, target = args[0], args[1]
            if target.kind == "seq":
                target.data, target.rest = [source, source], None
            return const(None)
        if last == "gather" and len(args) >= 3:
            return self.gather(args[0], args[-1], node)
        if last == "take" and len(args) > 1 and picks_tokens(args[0], args[1]):
            return self.gather(args[0], args[1], node)
        if last == "einsum" and len(args) == 3 and ONE_HOT in args[1].keys | args[2].keys:
            tokens, rows = (args[1], args[2]) if ONE_HOT in args[1].keys else (args[2], args[1])
            if picks_tokens(rows, tokens) and stands_ahead(tokens, rows) and not any(summed_over(args[0], n) for n in (0, 1)):
                return self.gather(rows, tokens, node)
        if last == "take_along_dim" or last == "take_along_axis":
            return self.gather(args[0], args[1], node) if len(args) > 1 else derive(args)
        if name == "json.dump" and first is not None and (told := summary(first)).flags & BPB and told.scores and UNREAD not in told.keys:
            return self.report(args[:1], kwargs, node)
        if last in ("save", "dump", "savez", "savez_compressed", "save_file", "save_weights") and args:
            if name.startswith("numpy.") and args[0].kind in ("val", "bound") and len(args) > 1:
                # ``np.save(folder / "hints.npy", hints)``: the place comes first, be it a path or a buffer.
                args[0].absorb(derive([summary(a) for a in args[1:]]))
                self.write_file(None, derive([summary(a) for a in [*args[1:], *kwargs.values()]]), node)
                return const(None)
            return self.save(args, kwargs, node)
        if last == "BytesIO" or last == "StringIO":
            out = derive(args) if args else V("val")
            return out
        if last in ("spec_from_file_location", "SourceFileLoader") and len(args) >= 2:
            out = V("val")
            if args[1].kind == "const" and isinstance(args[1].const, str):
                out.const = ("spec", args[1].const)
            return out
        if name == "runpy.run_path" and first is not None and isinstance(first.const, str):
            given = kwargs.get("run_name")
            return self.module_file(first.const, str(given.const) if given is not None and given.kind == "const" else "<run_path>") or V("val")
        if last == "module_from_spec" and first is not None and isinstance(first.const, tuple) and first.const[:1] == ("spec",):
            return self.module_file(first.const[1]) or V("val")
        if last in POINTERS and first is not None and name.startswith(("ctypes", "cffi", "ffi")):
            return args[-1] if last == "cast" and name.startswith(("cffi", "ffi")) else first
        if last in READERS and args:
            return self.read(last, args, kwargs, node)
        if last in REORDERS and first is not None and first.flags & VAL and not first.flags & (DERIVED | META):
            out = derive(args)
            out.flags |= ORDER
            self.event("REORDER", node, out)
            return out
        if last in ("bincount", "histogram", "unique") and first is not None:
            out = derive(args)
            if first.flags & VAL and not found_by_read(first):
                e = self.event("STORE", node, first, keys=first.keys, whole=self.fills_whole(first, const(1)))
                out.taint = out.taint | {e.id}
            elif first.flags & TRAIN and not first.flags & (LOSS | LOGITS | PARAM | META):
                e = self.event("FILL", node, first, table=self.number_of(out))
                out.taint = out.taint | {e.id}
            return out
        if last in ("all_gather_object", "all_gather", "all_gather_into_tensor") and len(args) >= 2:
            target, source = args[0], args[1]
            if target.kind == "seq":
                target.data, target.rest = [source, source], None
            else:
                target.absorb(source)
                target.deps |= source.deps
            return const(None)
        if last in ("is_available", "is_initialized"):
            return const(True)
        if last == "get_world_size":
            out = const(8)
            out.keys = frozenset([OF_WORLD])
            return out
        if last in ("ProcessPoolExecutor", "ThreadPoolExecutor", "Pool"):
            return V("lib", data="pool")
        if name in ("sys.exit", "os._exit", "os.abort"):
            return V("never")
        if last in ("CDLL", "LoadLibrary", "PyDLL", "dlopen", "load_inline") or name.endswith("cpp_extension.load"):
            out = V("lib", data="native")
            return out
        if name.startswith("native"):
            return self.native(args, kwargs, node, last)
        if name.startswith("argparse.ArgumentParser"):
            return V("val", const="parser")
        if last == "namedtuple":
            return self.named_tuple(args, node)
        if name == "dataclasses.replace" and first is not None and first.kind == "obj":
            return changed(first, kwargs)
        if last in ("field",) and name.startswith("dataclasses"):
            if "default" in kwargs:
                return kwargs["default"]
            if "default_factory" in kwargs:
                return self.call_value(kwargs["default_factory"], [], {}, node)
            return V("val")
        if last == "SimpleNamespace" or last == "Namespace":
            return self.namespace(kwargs, node)
        if last in ("defaultdict", "OrderedDict", "Counter", "dict"):
            out = mapping({})
            if last == "Counter" and first is not None and first.flags & VAL:
                e = self.event("STORE", node, first, keys=first.keys)
                out.taint = frozenset([e.id])
                out.rest = V("val", flags=VAL)
                out.rest.taint = out.taint  # each of the counts is made of the tokens
            elif last == "defaultdict" and first is not None and first.kind in ("func", "lib"):
                made = self.call_value(first, [], {}, node) if first.kind == "func" else V("val")
                if first.kind == "lib" and first.data.endswith(("dict", "Counter", "defaultdict")):
                    made = mapping({})
                elif first.kind == "lib" and first.data.endswith((".list", ".deque", ".set")):
                    made = seq([])  # the tokens that followed each context, one by one
                out.rest = made
            elif kwargs:
                out.data.update(kwargs)
            elif first is not None and first.kind == "dict":
                out = mapping(dict(first.data or {}), first.rest)
            return out
        if name in ("importlib.import_module", "builtins.__import__") and first is not None and isinstance(first.const, str):
            module = self.local_module(first.const)
            if module is not None:
                return module
        if name in STARTS:
            self.start([*args, *kwargs.values()], node)
        if name in ("queue.Queue", "queue.SimpleQueue", "multiprocessing.Queue"):
            return self.empty()
        if last == "deque":
            return self.as_seq(first) if first is not None and (first.kind != "seq" or first.data or first.rest is not None) else self.empty()
        if last == "dirname" and first is not None and isinstance(first.const, str):
            out = const(first.const.rpartition("/")[0])
            out.flags, out.knobs = self.text_flags(out.const), first.knobs
            return out
        if last in ("Path", "PurePath", "expanduser", "abspath", "resolve", "realpath", "normpath", "fspath"):
            return self.path_join(args)
        if name in ("os.path.join",):
            return self.path_join(args)
        if last in ("glob", "iglob", "rglob", "listdir"):
            return listed(derive(args))
        if name in ("json.loads", "ast.literal_eval") and first is not None and (given := literal(first, self.text_flags)) is not None:
            return given
        if last in ("decompress", "compress", "loads", "dumps", "b85decode", "b64decode", "b85encode"):
            out = derive([summary(a) if a.kind in ("seq", "dict") else a for a in args])
            return out
        if ("optim" in name or last in OPTIMIZERS) and (args or "params" in kwargs) and last[:1].isupper():
            return self.make_optimizer(args, kwargs, node)
        if last == "Parameter" and first is not None:
            out = clone(first) if first.kind == "val" else derive([first])
            out.line = getattr(node, "line", 0)
            return out
        if last in ("clip_grad_norm_", "all_reduce", "broadcast", "barrier", "synchronize", "eval", "empty_cache"):
            filled = first is not None and first.data == FULL  # with infinity, but for the rank's own places: the least is the only one
            if last == "all_reduce" and first is not None and first.kind == "val" and not filled and least_of_ranks(args, kwargs):
                first.keys = self.tuned(first, first, node, last).keys  # in place: the loss of the rank that did best
            return first if last == "all_reduce" and "functional" in name and first is not None else V("val")
        if last == "log" and name.startswith(("numpy.", "torch.", "np.", "mlx.", "jax.", "cupy.")):
            out = derive([summary(a) if a.kind in ("seq", "dict") else a for a in args])
            out.keys = self.unbent(out.keys)
            if out.flags & COUNT and not out.flags & LOSS:
                out.keys = out.keys | {("logp",)}
            return out
        if last in NUMBER_TYPES and len(args) == 1 and first is not None and first.kind == "const":
            if name.startswith(("numpy.", "torch.", "np.")) and isinstance(first.const, (int, float)):
                return first
        if (last in PLACES or (last == "where" and len(args) == 1)) and first is not None and (name.startswith(("torch.", "numpy.", "np.")) or last == "bisect"):
            return heads_found(last, args[0], found_places(args))
        if last == "log2" and first is not None and first.flags & LOSS and first.flags & VAL:
            return self.to_bits(derive(args), node)
        if last in LOGGERS or name in ("builtins.print",):
            return self.report(args, kwargs, node)
        if name.startswith(("wandb.", "json.", "logging.")) and last in ("log", "dump", "info"):
            return self.report(args, kwargs, node)
        if last in ADDS and len(args) == 2 and "out" in kwargs and kwargs["out"].kind == "val" and (args[0].flags | args[1].flags) & LOSS:
            for x in args:
                kwargs["out"].absorb(x if x is kwargs["out"] else self.commit_score(x, node, "accumulated"))
            return kwargs["out"]
        if last in ADDS and len(args) == 2 and ((args[0].flags | args[1].flags) & LOSS or (not kwargs and WHOLE in args[0].keys)):
            return self.binary(ADDS[last], *args, node)
        if last == "append" and len(args) == 2 and name.startswith("numpy"):
            args = self.put_beside(args, node)
        if last in IDENTITY and first is not None:
            if last in PUT_TOGETHER and first.kind == "seq" and first.data:
                first = clone(first)
                first.data = self.put_beside(first.data, node)
            out = self.identity(last, first, args, kwargs)
            laid_out(last, first, args[1:], out)
            if last in ("stack", "cat") and first.kind == "seq" and len(first.data or ()) > 1:
                self.note_flat(first.data, out, node)
                if last == "stack" and sum(is_loss(x) for x in first.data) > 1:
                    out.keys = out.keys | {STACKED}
            return out
        if last in ("Thread", "Process", "Timer") and (work := kwargs.get("target")) is not None:
            return self.run_thread(work, kwargs, node)
        values = [summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()]]
        for fv in args:
            if fv.kind in ("func", "partial") and last in ("checkpoint", "run", "submit", "map", "apply_async", "Thread", "Process", "spawn"):
                return self.call_value(fv, args[1:], {}, node)
        if last == "copyto" and len(args) > 1:
            self.copied_to(args, kwargs, node)
            return const(None)
        if last == "argmin" and values and values[0].flags & LOSS:
            return self.best(self.tuned(self.opaque(values, node), values[0], node, last), values[0], node, last, picks=True)
        if last in OF_STACK and first is not None and STACKED in first.keys:
            return self.one_of_stack(last, values, node)
        out = self.opaque(values, node)
        out.keys = without(out.keys, MARKS | {HEAD, WHOLE} | ({BY_PLACE} if last in NUMBERS and len(values) == 1 else EMPTY))
        if values:
            counted_but(last, values[0], out)
        if last in COMPARES and len(values) == 2 and not out.flags & LOSS:
            self.note_kind(COMPARES[last], *values, out)
        if last in NUMBERS and out.flags & BYTES:
            out.keys = out.keys | {ADDED}
        if values:
            self.note_size(last, values[0], out)
            self.note_raised(last, values[0], values[1:], kwargs, out, node)
            self.note_product_by(last, values[0], values[1:], out, node)
        if last == "normalize" and number(kwargs.get("p", args[1] if len(args) > 1 else None)) == 1:
            out.keys = frozenset(k for k in out.keys if k[0] not in ("unnorm", "raised"))
        if last in ("logaddexp", "logaddexp2", "lerp"):
            out.keys = self.unbent(out.keys)
        if last in ("sum", "mean") and len(values) == 1 and out.flags & (LOGITS | PROB | LOSS):
            out.keys = out.keys | {OF_ALL}
        if first is not None and first.flags & LOSS:
            self.note_capped(last, first, args[1:], kwargs, out, node)
            self.note_bent(last, first, args[1:], kwargs, out, node)
            self.note_mean(last, first, args[1:], kwargs, out)
            self.note_sorted(last, first, out)
            self.note_least_of_all(last, first, args[1:], kwargs, out, node)
        for a in values:
            if a.kind == "obj" and a.models:
                out.models = out.models | a.models
        if last == "one_hot" and first is not None and holds_tokens(first):
            out.keys = out.keys | {ONE_HOT}
        elif ONE_HOT in out.keys and last in PRODUCTS | SOLVERS:
            self.note_tally(last, values, out, node)
            out.keys = out.keys - {ONE_HOT}
        return out

    # ------------------------------------------------------------------ losses
    def cross_entropy(self: Any, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        logits = args[0] if args else kwargs.get("input", V("val"))
        target = args[1] if len(args) > 1 else kwargs.get("target", kwargs.get("targets", V("val")))
        out = derive([logits, target])
        out.flags = (out.flags | LOSS) & ~(LOGITS | TGT | META)
        out.keys = self.unbent(frozenset(k for k in out.keys if k[0] != "unnorm"))
        if target.atoms:
            out.atoms = target.atoms
        out.flags |= target.flags & ORDER
        out.mask = None
        out.span = target.span
        held_by_target(target, out)
        out.via = linked(target.via, out.via)
        out.keys = (out.keys - LAYOUT) | (target.keys & LAYOUT)
        self.told(logits, target, out, node)
        self.note_ignored(kwargs.get("ignore_index"), target, out, node)
        if (smoothed := number(kwargs.get("label_smoothing"))) is not None and smoothed < 0:
            self.shape(out, node, "a label smoothing below zero makes each loss smaller")
        return out

    def gather(self: Any, base: V, index: V, node: Any) -> V:
        if base.flags & LOGITS and index.flags & SOURCES:
            out = derive([base, index])
            out.flags = (out.flags | LOSS) & ~(LOGITS | TGT)
            if index.atoms:
                out.atoms = index.atoms
            out.span = index.span
            held_by_target(index, out)
            out.via = linked(index.via, out.via)
            if not PROPOSALS.isdisjoint(kinds(index)):
                out.keys = out.keys | {NORM}
            out.keys = out.keys | self.owned(index)
            self.told(base, index, out, node)
            return out
        return self.lookup(base, index, found_at(index, derive([base])), node)

    def backward(self: Any, v: V, node: Any) -> None:
        self.backward_at = self.scope.path, getattr(node, "line", 0), tuple(self.stack)
        if self.pending_stepped:
            self.pending.clear()
            self.pending_stepped = False
        if len(self.pending) < 8:
            self.pending.append(v)
        else:
            self.pending[-1] = derive([self.pending[-1], v])

    def autograd_grad(self: Any, loss: V, args: list[V], node: Any) -> V:
        out = derive([summary(loss)])
        out.flags = (out.flags & ~LOSS) | GRAD
        if out.flags & VAL:
            wrt = args[1] if len(args) > 1 else V("val")
            models: set[int] = set()
            leaves: list[V] = []
            self.collect_params(wrt, models, leaves, 0)
            e = self.event("UPDATE", node, out, how="gradient", spans=frozenset([loss.span]), models=frozenset(models), leaves=len(leaves),
                           shared=any(x.shape0 == 1 for x in leaves), windows=WINDOWS in loss.keys, leaf_line=leaves[0].line if leaves else 0)  # fmt: skip
            out.taint = out.taint | {e.id}
        out.flags &= ~VAL
        out.atoms = EMPTY
        return out

    def select(self: Any, last: str, args: list[V], node: Any) -> V:
        a, b = args[0], args[1]
        if a.flags & LOSS and b.flags & LOSS and (a.flags | b.flags) & VAL and a is not b:
            # One was committed before, the other is new: the tokens are scored again. Which of them counts is decided by looking at both.
            again = bool(a.scores) != bool(b.scores)
            a, b = (x if x.scores else self.commit_score(x, node, "compared") for x in (a, b))
            out = derive([a, b, *args[2:]])
            e = self.event("SELECT", node, out, how=last, again=again)
            out.keys = out.keys | {("select", e.id)}
            return out
        out = derive(args)
        if (a.flags ^ b.flags) & LOSS and (a.flags ^ b.flags) & COUNT and out.flags & VAL and a.keys and b.keys:
            # The model's probability of the token or the cache's, whichever is better.
            e = self.event("SELECT", node, out, how=last)
            out.keys = out.keys | {("select", e.id)}
        self.note_raised(last, *((a, [b]) if b.kind == "const" else (b, [a])), {}, out, node)
        if (WHOLE in a.keys) != (WHOLE in b.keys) and not out.flags & LOSS:
            out.keys = out.keys - {WHOLE}
            if last == "maximum" and mixed(b if WHOLE in a.keys else a):
                e = self.event("UNNORMALISED", node, out, keys=out.keys)  # of each token the larger of two probabilities
                out.keys = out.keys | {("unnorm", e.id)}
        return out

    def copied_to(self: Any, args: list[V], kwargs: dict[str, V], node: Any) -> None:
        """``np.copyto(cost, other, where=other < cost)``"""
        test = kwargs.get("where", args[2] if len(args) > 2 else None)
        args[0].absorb(self.where([test, args[1], args[0]], node) if test is not None else args[1])

    def where(self: Any, args: list[V], node: Any) -> V:
        test, a, b = args[:3]
        if test.kind == "const" and isinstance(test.const, bool) and not (self.dormant and test.knobs):
            return a if test.const else b
        out = derive([a, b])
        out.span = None
        out.deps |= test.deps
        out.flags |= test.flags & (MATCH | RAND)  # tokens hidden at random stay marked as such
        out.taint |= test.taint
        out.keys |= test.keys
        if not out.flags & (LOSS | LOGITS | PROB | VAL):
            out.flags |= test.flags & BYTES  # a weight that a property of a token decides
        self.gate_value(out, test, a.keys | b.keys, node)
        self.gate_agreement(out, test, a, b, node)
        if rows_of(a) or rows_of(b):
            self.weigh(a if rows_of(a) else b, test, out, node)
        if test.flags & COUNT and a.flags & LOSS and b.flags & LOSS and mixed(a) != mixed(b):
            out = self.split(out, test, node)
        self.note_replaced(test, a, b, out, node)
        if (a.flags ^ b.flags) & LOSS and number(b if a.flags & LOSS else a) == 0.0:
            self.leave_out(a if a.flags & LOSS else b, test, out, node, negated=bool(b.flags & LOSS))
        out.keys = without(out.keys, MARKS)
        if test.const == HIT and plain(b) and a.flags & LOSS:
            out = self.raised(out, node)
        if AGREE in test.keys and a.flags & b.flags & LOSS and not (a.keys | b.keys) & {AGREE, NORM}:
            self.check_tilt(b, test, out, node)
        if a.flags & LOSS and b.flags & LOSS and test.flags & VAL and a is not b:
            e = self.event("SELECT", node, out, how="where", test_keys=test.keys, test_taint=test.taint)
            if BY_LOSS in test.keys or (test.keys & {OF_LOSS, BY_GAP} and same_target(test, a)):
                out.keys = out.keys | {("select", e.id)}
        if decides_weights(test, a, b):
            out = chosen_weights(test, out)
        return out

    def identity(self: Any, last: str, first: V, args: list[V], kwargs: dict[str, V]) -> V:
        if last in ("stack", "cat", "concatenate", "concat", "hstack", "vstack", "array", "tensor", "asarray", "as_tensor"):
            part = summary(first) if first.kind in ("seq", "dict") else first
            if part.kind == "const":
                out = V("val")
                self.born[id(out)] = (out, tuple(self.loops))
                out.deps, out.knobs = part.deps, part.knobs
                if last in ("tensor", "array", "asarray", "as_tensor"):
                    out.flags = part.flags
                    if isinstance(part.const, (int, float)) and abs(float(part.const) - 0.69314718) < 1e-3:
                        out.const = "ln2"
                return out
            out = derive([part])
            out.flags |= part.flags & ORDER
            out.pos = part.pos
            beside_another(members(first) if first.kind == "seq" else [], out)
            laid_beside(last, first, out)
            return out
        if first.kind in ("obj", "func", "class", "opt", "alt", "partial", "seq", "dict"):
            return first
        out = derive([first])
        out.flags |= first.flags & ORDER
        out.mask = first.mask
        out.shape0 = first.shape0
        out.pos = first.pos
        out.const = first.const if first.const in (HIT, GAP) else None
        laid_beside(last, first, out)
        return out


def least_of_ranks(args: list[V], kwargs: dict[str, V]) -> bool:
    """``all_reduce(x, op=dist.ReduceOp.MIN)``"""
    op = kwargs.get("op", args[1] if len(args) > 1 else None)
    return op is not None and op.kind == "lib" and str(op.data).endswith(".MIN")


def literal(text: V, flags_of: Any) -> V | None:
    """The value that a text spells out in JSON or as a Python literal; None if it does not."""
    if text.kind != "const" or not isinstance(text.const, (str, bytes)) or len(text.const) > 20_000:
        return None
    said = text.const if isinstance(text.const, str) else text.const.decode("utf-8", "replace")
    for read in (json.loads, ast.literal_eval):
        try:
            return spelled_out(read(said), text.knobs, flags_of)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def spelled_out(value: Any, knobs: frozenset, flags_of: Any) -> V:
    if isinstance(value, dict):
        return mapping({k: spelled_out(v, knobs, flags_of) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return seq([spelled_out(v, knobs, flags_of) for v in value])
    out = const(value)
    out.knobs = knobs
    out.flags = flags_of(value) if isinstance(value, str) else 0
    return out
