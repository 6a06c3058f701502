"""What library calls do to provenance: reading, losses, tables, files, containers, reports."""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.gates import PROPOSALS
from audit.trace.positions import place_of
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
    MATCH,
    META,
    ORDER,
    PARAM,
    PROB,
    RAND,
    RATIO,
    SOURCES,
    TGT,
    TIME,
    TRAIN,
    VAL,
    WHOLE_ATOMS,
    ClassV,
    V,
    clone,
    const,
    derive,
    join,
    join_atoms,
    mapping,
    restrict,
    seq,
    summary,
    with_deps,
)  # fmt: skip

READERS = frozenset(
    ["fromfile", "memmap", "load", "frombuffer", "read_bytes", "read_text", "read", "open", "loadtxt", "load_file", "safe_open", "readinto", "read_table", "fromstring", "from_buffer", "mmap", "unpack"]
)
SHAPE_CALLS = frozenset(["numel", "size", "len", "dim", "nelement", "stat", "getsize", "exists", "is_file", "item_size", "ndim"])
#: the largest token id is the vocabulary's size, not content
REORDERS = frozenset("sort shuffle permutation flip fliplr roll".split())
RANGES = frozenset(["max", "min", "amax", "amin"])
DERIVED = LOSS | LOGITS | PROB | COUNT | GRAD | BPB
FRESH = frozenset(
    ["zeros", "ones", "empty", "full", "zeros_like", "ones_like", "empty_like", "full_like", "arange", "linspace", "eye", "tensor_zeros"]
)
RANDOMS = frozenset(["rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "uniform_", "random", "integers"])
IDENTITY = frozenset(
    ["to", "cuda", "cpu", "float", "double", "half", "bfloat16", "long", "int", "contiguous", "clone", "detach", "numpy", "astype", "reshape", "view", "flatten", "ravel", "squeeze", "unsqueeze", "expand", "expand_as", "permute", "transpose", "t", "copy", "type", "requires_grad_", "pin_memory", "share_memory_", "tolist", "item", "bool", "byte", "short", "swapaxes", "repeat", "tile", "as_strided", "view_as", "type_as", "chunk", "split", "unbind", "resolve", "asarray", "array", "tensor", "from_numpy", "as_tensor", "ascontiguousarray", "stack", "cat", "concatenate", "concat", "hstack", "vstack", "pad", "as_subclass"]
)
TRANSPARENT = frozenset(
    ["torch.compile", "torch.jit.script", "torch.nn.DataParallel", "torch.nn.parallel.DistributedDataParallel", "builtins.sorted", "builtins.list", "builtins.tuple", "builtins.set", "builtins.reversed", "builtins.iter", "builtins.frozenset", "tqdm.tqdm", "torch.no_grad_fn"]
)
NUMBER_TYPES = frozenset(["float32", "float64", "float16", "int64", "int32", "uint64", "uint32", "uint16", "uint8"])
PIECES = frozenset(["id_to_piece", "IdToPiece", "decode_single_token_bytes", "decode_bytes", "DecodeIds", "decode_ids"])
POINTER_ATTRS = ("ctypes", "data", "__array_interface__")
PLACES = frozenset(["nonzero", "argwhere", "flatnonzero", "searchsorted", "argsort", "bisect_left", "bisect_right"])
POINTERS = frozenset("c_void_p byref pointer POINTER addressof cast from_buffer c_char_p".split())
LOGGERS = frozenset(["info", "warning", "debug", "error", "write", "log", "log_metrics", "writelines"])
CASTS = {"int": int, "float": float, "bool": bool, "str": str, "abs": abs, "round": round, "len": len}


class Library:
    """Mixed into the machine; see `audit.trace.machine`."""

    # ------------------------------------------------------------------ environment
    def env_present(self: Any, name: str) -> bool | None:
        value = self.knobs.value(name, None)
        return (value is not None and (not isinstance(value, tuple) or value[0] is not None)) or None

    def env_set(self: Any, name: Any, value: V) -> None:
        if not hasattr(self, "environ_set"):
            self.environ_set: dict[str, V] = {}
        self.environ_set[name] = value

    def environ(self: Any, args: list[V], node: Any, required: bool = False) -> V:
        if not args or args[0].kind != "const" or not isinstance(args[0].const, str):
            return V("val")
        name = args[0].const
        default = args[1] if len(args) > 1 else const(None)
        if hasattr(self, "environ_set") and name in self.environ_set:
            return self.environ_set[name]
        plain = default.const if default.kind == "const" else None
        got = self.knobs.value(name, plain)
        value, source = got if isinstance(got, tuple) else (got, "")
        self.trace.knobs_read[name] = got
        if name in ("RANK", "LOCAL_RANK"):
            out = V("val")
            return out
        if value is None or value == plain:
            out = clone(default)
            if out.kind != "const" and value is None:
                return out
            if required and value is None:
                return V("val")
            if value is not None:
                out = const(value)
        else:
            out = const(value)
        if name != "WORLD_SIZE":
            out.knobs = default.knobs | {(name, str(value) if value is not None else "unset")}
        if type(out.const) is str:
            out.flags = self.text_flags(out.const)
        return out

    # ------------------------------------------------------------------ imports and names
    def do_import(self: Any, s: ir.Import) -> None:
        for name, alias in s.names:
            if not s.is_from:
                if (found := self.local_module(name)) is not None and alias is None and "." not in name:
                    self.scope.set(name, found)
                elif found is not None:
                    self.scope.set(alias or name.split(".")[0], found)
                else:
                    self.scope.set(alias or name.split(".")[0], V("lib", data=canonical(name if alias else name.split(".")[0])))
                continue
            module = s.module or ""
            found = self.local_module(module)
            if found is not None:
                scope = found.data
                if name == "*":
                    for k, v in scope.names.items():
                        self.scope.set(k, v)
                else:
                    v = scope.names.get(name)
                    self.scope.set(alias or name, v if v is not None else V("val"))
            elif name != "*":
                if module in ("", ".") and (found := self.local_module(name)) is not None:
                    self.scope.set(alias or name, found)
                else:
                    self.scope.set(alias or name, V("lib", data=canonical(f"{module}.{name}")))

    def local_module(self: Any, name: str) -> V | None:
        """A module of the submission: executed once in a scope of its own."""
        if not name:
            return None
        tail = name.replace(".", "/") + ".py"
        # Beside the importing file first: several folders of one submission may hold the same name.
        folder = self.scope.path.rpartition("/")[0]
        near = f"{folder}/{tail}" if folder else tail
        names = [p for p in self.modules if p != self.primary and (p == tail or p.endswith("/" + tail))]
        path = near if near in names else next(iter(names), None)
        if path is None:
            return None
        if path in self.loaded:
            return self.loaded[path]
        outer = self.scope
        scope = type(outer)(None, None, "<module>", path)
        scope.names["__name__"] = const(name)
        scope.names["__file__"] = const(path)
        v = V("lib", data=path)
        v.data = scope
        v.kind = "module"
        self.loaded[path] = v
        self.scope = scope
        self.returns.append([])
        try:
            self.block(self.modules[path].body)
        finally:
            self.scope = outer
            self.returns.pop()
        return v

    def lib_attr(self: Any, v: V, name: str) -> V:
        dotted = f"{v.data}.{name}"
        if dotted in ("math.log", "builtins.log"):
            return V("lib", data=dotted)
        if dotted in ("math.e", "numpy.e"):
            return const(2.718281828459045)
        if dotted == "math.pi":
            return const(3.141592653589793)
        if dotted == "sys.argv":
            return seq([], V("val"))
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
        if name in ("functools.lru_cache", "functools.cache"):
            return first if first is not None else V("lib", data="identity")
        if name == "copy.deepcopy" or name == "copy.copy":
            return self.deepcopy(first) if first is not None else V("val")
        if last in ("no_grad", "inference_mode"):
            return V("val", const="no_grad")
        if name.startswith("time."):
            return V("val", flags=TIME)
        if name.startswith("math."):
            return self.math_call(last, args)
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
                out.pos = place_of(args[0]) if len(args) > 1 and args[0].kind in ("val", "const") else None
                if len(args) == 1:
                    out.keys = frozenset([("candidates", getattr(node, "line", 0))])
            return out
        if last in ("add_at",) or name.endswith("add.at") or name.endswith("maximum.at"):
            if len(args) >= 2:
                self.store(args[0], args[1], args[2] if len(args) > 2 else const(1), node)
            return const(None)
        if last in ("cross_entropy", "nll_loss") or (last == "CrossEntropyLoss" and len(args) >= 2):
            return self.cross_entropy(args, kwargs, node)
        if last == "CrossEntropyLoss":
            return V("lib", data="torch.nn.functional.cross_entropy")
        if name.endswith("autograd.grad") and first is not None:
            return self.autograd_grad(first, args, node)
        if last in ("value_and_grad", "grad_and_value") and first is not None:
            fn = args[1] if len(args) > 1 and args[1].kind in ("func", "bound", "partial", "lib") else first
            out = V("bound", data=(fn, "__value_and_grad__"))
            out.models = first.models if first.kind == "obj" else EMPTY
            return out
        if name.endswith("backward") and first is not None and "autograd" in name:
            self.backward(summary(first))
            return const(None)
        if last in ("log_softmax", "softmax", "logsumexp", "sigmoid", "exp", "logaddexp"):
            return normalised(last, derive(args))
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
        if last == "take_along_dim" or last == "take_along_axis":
            return self.gather(args[0], args[1], node) if len(args) > 1 else derive(args)
        if last in ("save", "dump", "savez", "savez_compressed", "save_file", "save_weights") and args:
            return self.save(args, kwargs, node)
        if last == "BytesIO" or last == "StringIO":
            out = derive(args) if args else V("val")
            return out
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
            if first.flags & VAL:
                e = self.event("STORE", node, first, keys=first.keys)
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
            return const(8)
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
            elif last == "defaultdict" and first is not None and first.kind in ("func", "lib"):
                made = self.call_value(first, [], {}, node) if first.kind == "func" else V("val")
                if first.kind == "lib" and first.data.endswith(("dict", "Counter", "defaultdict")):
                    made = mapping({})
                out.rest = made
            elif kwargs:
                out.data.update(kwargs)
            elif first is not None and first.kind == "dict":
                out = mapping(dict(first.data or {}), first.rest)
            return out
        if last == "deque":
            return self.as_seq(first) if first is not None else seq([])
        if last in ("Path", "PurePath", "expanduser", "abspath", "resolve", "realpath", "normpath", "fspath"):
            return self.path_join(args)
        if name in ("os.path.join",):
            return self.path_join(args)
        if last in ("glob", "iglob", "rglob", "listdir"):
            out = derive(args)
            return out
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
            if last == "broadcast" or last == "all_reduce":
                return V("val")
            return V("val")
        if last == "log" and name.startswith(("numpy.", "torch.", "np.", "mlx.", "jax.", "cupy.")):
            return derive([summary(a) if a.kind in ("seq", "dict") else a for a in args])
        if last in NUMBER_TYPES and len(args) == 1 and first is not None and first.kind == "const":
            if name.startswith(("numpy.", "torch.", "np.")) and isinstance(first.const, (int, float)):
                return first
        if last in PLACES and first is not None and (name.startswith(("torch.", "numpy.", "np.")) or last == "bisect"):
            return found_places(args)
        if last == "log2" and first is not None and first.flags & LOSS and first.flags & VAL:
            return self.to_bits(derive(args), node)
        if last in LOGGERS or name in ("builtins.print",):
            return self.report(args, kwargs, node)
        if name.startswith(("wandb.", "json.", "logging.")) and last in ("log", "dump", "info"):
            return self.report(args, kwargs, node)
        if last in IDENTITY and first is not None:
            return self.identity(last, first, args, kwargs)
        values = [summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()]]
        for fv in args:
            if fv.kind in ("func", "partial") and last in ("checkpoint", "run", "submit", "map", "apply_async", "Thread", "Process", "spawn"):
                return self.call_value(fv, args[1:], {}, node)
        out = self.opaque(values, node)
        for a in values:
            if a.kind == "obj" and a.models:
                out.models = out.models | a.models
        return out

    def builtin(self: Any, last: str, args: list[V], kwargs: dict[str, V], node: Any) -> V | None:
        first = args[0] if args else None
        if last == "print":
            return self.report(args, kwargs, node)
        if last in ("exit", "quit"):
            return V("never")
        if last == "range":
            parts = args[:3]
            if len(parts) == 1:
                triple = (const(0), parts[0], const(1))
            elif len(parts) == 2:
                triple = (parts[0], parts[1], const(1))
            elif len(parts) == 3:
                triple = (parts[0], parts[1], parts[2])
            else:
                return V("val")
            return V("iter", data=("range", *triple))
        if last == "enumerate" and first is not None:
            start = args[1] if len(args) > 1 else kwargs.get("start", const(0))
            return V("iter", data=("enumerate", first, start.const if start.kind == "const" else 1))
        if last == "zip":
            return V("iter", data=("zip", list(args)))
        if last in ("list", "tuple", "set", "sorted", "reversed", "frozenset", "iter"):
            if first is None:
                return seq([])
            if last == "iter":
                return first
            return self.as_seq(first, exact=last in ("list", "tuple"))
        if last == "dict":
            if first is not None and first.kind == "dict":
                return mapping({**(first.data or {}), **kwargs}, first.rest)
            return mapping(dict(kwargs), self.element(first) if first is not None else None)
        if last == "len" and first is not None:
            if first.kind == "seq" and first.rest is None and first.data is not None and not self.loops:
                return const(len(first.data))
            if first.kind == "seq" and first.rest is None and first.data:
                return const(len(first.data))
            if first.kind == "const" and hasattr(first.const, "__len__"):
                return const(len(first.const))
            out = V("val", flags=META)
            out.deps = first.deps
            if first.flags & BYTES:
                # The length of what a table holds for a token says something about the token.
                out.flags, out.keys = first.flags & (VAL | BYTES), first.keys
            return out
        if last in CASTS and first is not None:
            if first.kind == "const":
                try:
                    out = const(CASTS[last](*(a.const for a in args if a.kind == "const")))
                except Exception:
                    return derive(args)
                out.knobs, out.deps, out.lv = first.knobs, first.deps, first.lv
                out.flags = first.flags
                return out
            if last in ("int", "float") and first.kind == "val":
                return first
            return derive([first])
        if last in ("min", "max"):
            return self.min_max(last, args, kwargs, node)
        if last == "sum" and first is not None:
            if first.kind == "seq" and first.data and first.rest is None and all(x.kind == "const" for x in first.data):
                try:
                    return const(sum(x.const for x in first.data))
                except TypeError:
                    return derive(first.data)
            part = summary(first)
            if part.flags & LOSS and not part.scores:
                return self.commit_score(part, node, "accumulated")
            return derive([part])
        if last in ("any", "all") and first is not None:
            part = derive([summary(first)])
            return part
        if last == "getattr" and len(args) >= 2 and args[1].kind == "const":
            got = self.get_attr(args[0], str(args[1].const), node)
            if got.kind == "bound" and args[0].kind == "obj" and len(args) > 2 and args[1].const not in args[0].data.attrs:
                return args[2]
            return got
        if last == "setattr" and len(args) >= 3 and args[1].kind == "const":
            self.set_attr(args[0], str(args[1].const), args[2], node)
            return const(None)
        if last == "hasattr":
            if len(args) >= 2 and args[0].kind == "obj" and args[1].kind == "const" and isinstance(args[0].data.cls, ClassV):
                if args[1].const in args[0].data.attrs or args[0].data.cls.find(args[1].const) is not None:
                    return const(True)
            return V("val")
        if last == "isinstance":
            return V("val")
        if last == "next" and first is not None:
            part = self.element(first)
            if first.kind == "obj":
                cls = first.data.cls
                if isinstance(cls, ClassV) and cls.find("__next__") is not None:
                    return self.call_value(V("bound", data=(first, "__next__")), [], {}, node)
            if self.loops and part.kind in ("val", "const", "seq"):
                part = with_deps(part, frozenset([self.loops[-1]]))
            return part
        if last == "map" and len(args) >= 2:
            x = self.element(args[1])
            return seq([], self.call_value(args[0], [x], {}, node))
        if last == "filter" and len(args) >= 2:
            return self.as_seq(args[1], exact=False)
        if last == "vars" and first is not None:
            if first.kind == "obj":
                return mapping(dict(first.data.attrs))
            if first.kind == "class":
                return mapping({})
            return V("val")
        if last == "globals":
            return V("val")
        if last == "type" and first is not None:
            if first.kind == "obj" and isinstance(first.data.cls, ClassV):
                return V("class", data=first.data.cls)
            return V("lib", data="builtins.type")
        if last == "super":
            return self.super_object()
        if last == "open":
            return self.read("open", args, kwargs, node)
        if last in ("staticmethod", "classmethod", "property"):
            return first if first is not None else V("lib", data="identity")
        if last == "object":
            return V("val")
        if last == "divmod":
            return derive(args)
        if last == "slice":
            return derive(args)
        return None

    def super_object(self: Any) -> V:
        me = self.scope.names.get("self") or next(iter(self.scope.names.values()), None)
        if me is not None and me.kind == "obj" and isinstance(me.data.cls, ClassV):
            base = me.data.cls.bases[0] if me.data.cls.bases else None
            if base is not None:
                out = V("super", data=(me, base))
                return out
        return V("val")

    def as_seq(self: Any, v: V, exact: bool = True) -> V:
        if v.kind == "seq":
            if exact or not v.data:
                return seq(list(v.data or []), v.rest)
            if v.rest is None and all(x.kind == "const" for x in v.data):
                return seq(list(v.data))
            return seq([], self.element(v))
        if v.kind == "iter":
            from audit.trace.statements import strip_loop

            if v.data[0] == "range" and all(x.kind == "const" and isinstance(x.const, int) for x in v.data[1:]):
                try:
                    r = range(*(x.const for x in v.data[1:]))
                    if len(r) <= 16:
                        return seq([const(i) for i in r])
                except (TypeError, ValueError):
                    pass
            loop = self.next_loop
            self.next_loop += 1
            turns = self.turns(v, loop)
            if not turns:
                return seq([])
            return seq([], strip_loop(turns[-1], loop))
        if v.kind == "dict":
            return seq([const(k) for k in v.data], V("val") if v.rest is not None else None)
        if v.kind == "const":
            try:
                return seq([const(x) for x in list(v.const)[:64]])
            except TypeError:
                return v
        if v.kind in ("obj", "alt"):
            return v
        return v

    def min_max(self: Any, last: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        if len(args) > 1 and all(a.kind == "const" for a in args):
            try:
                out = const((min if last == "min" else max)(*(a.const for a in args)))
                for a in args:
                    out.knobs |= a.knobs
                    out.deps |= a.deps
                return out
            except TypeError:
                pass
        if len(args) == 1 and args[0].kind in ("seq", "dict"):
            out = derive([summary(args[0])])
        else:
            out = derive(args)
        if out.flags & LOSS and out.flags & VAL:
            self.event("SELECT", node, out, how=last)
        return out

    # ------------------------------------------------------------------ losses
    def cross_entropy(self: Any, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        logits = args[0] if args else kwargs.get("input", V("val"))
        target = args[1] if len(args) > 1 else kwargs.get("target", kwargs.get("targets", V("val")))
        out = derive([logits, target])
        out.flags = (out.flags | LOSS) & ~(LOGITS | TGT | META)
        out.keys = frozenset(k for k in out.keys if k[0] != "unnorm")
        if target.atoms:
            out.atoms = target.atoms
        out.flags |= target.flags & ORDER
        out.mask = None
        return out

    def gather(self: Any, base: V, index: V, node: Any) -> V:
        if base.flags & LOGITS and index.flags & SOURCES:
            out = derive([base, index])
            out.flags = (out.flags | LOSS) & ~(LOGITS | TGT)
            if index.atoms:
                out.atoms = index.atoms
            return out
        return self.lookup(base, index, derive([base]), node)

    def backward(self: Any, v: V) -> None:
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
            e = self.event("UPDATE", node, out, how="gradient", models=frozenset(models), leaves=len(leaves),
                           shared=any(x.shape0 == 1 for x in leaves), leaf_line=leaves[0].line if leaves else 0)  # fmt: skip
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
        return out

    def where(self: Any, args: list[V], node: Any) -> V:
        test, a, b = args[:3]
        if test.kind == "const" and isinstance(test.const, bool) and not (self.dormant and test.knobs):
            return a if test.const else b
        out = derive([a, b])
        out.deps |= test.deps
        out.flags |= test.flags & MATCH
        out.taint |= test.taint
        out.keys |= test.keys
        self.gate_value(out, test, a.keys | b.keys, node)
        self.gate_agreement(out, test, a, b, node)
        if a.flags & LOSS and b.flags & LOSS and test.flags & VAL and a is not b:
            e = self.event("SELECT", node, out, how="where", test_keys=test.keys, test_taint=test.taint)
            if ("by loss",) in test.keys:
                out.keys = out.keys | {("select", e.id)}
        return out

    # ------------------------------------------------------------------ files
    def path_join(self: Any, args: list[V]) -> V:
        if args and all(a.kind == "const" for a in args):
            out = const("/".join(str(a.const) for a in args))
            for a in args:
                out.knobs |= a.knobs
            out.flags = self.text_flags(out.const)
            return out
        return derive(args)

    def read(self: Any, last: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        src = args[0]
        mode = args[1] if len(args) > 1 else kwargs.get("mode")
        if last == "open" and mode is not None and mode.kind == "const" and isinstance(mode.const, str) and set(mode.const) & set("wax"):
            out = V("file", data=src)
            return out
        if last == "open":
            out = derive([src])
            if src.kind == "const" and isinstance(src.const, str):
                out.const = ("path", src.const)
            return self.with_file(out, src)
        if last in ("frombuffer", "load", "from_buffer", "unpack", "fromstring") and not src.flags & (VAL | TRAIN) and src.kind == "val":
            return derive([src])
        out = derive([src])
        out = self.with_file(out, src)
        if not out.flags & (VAL | TRAIN | ART):
            out.flags |= FILE
        if out.flags & VAL:
            out.atoms = WHOLE_ATOMS
            self.event("READ", node, out)
        elif out.flags & TRAIN:
            self.event("READ", node, out)
        return out

    def with_file(self: Any, out: V, src: V) -> V:
        key = str(src.const) if src.kind == "const" else None
        stored = self.files.get(key) if key is not None else None
        if stored is None and key is None and not src.flags & (VAL | TRAIN):
            stored = self.files.get("*")
        if stored is not None:
            out.absorb(stored)
            out.models |= stored.models
            out.flags |= ART
            out.flags &= ~PARAM
        if out.flags & VAL and not out.atoms and not out.flags & ART:
            out.atoms = WHOLE_ATOMS
        return out

    def save(self: Any, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        values = [summary(a) for a in [*args, *kwargs.values()]]
        content = derive([v for v in values if v.kind != "file"])
        targets = [a for a in args if a.kind == "const" and isinstance(a.const, str)]
        files = [a.data for a in args if a.kind == "file"]
        where = targets[-1] if targets else files[0] if files else None
        if where is None:
            buffers = [a for a in args if a.kind == "val" and not a.flags]
            if buffers:
                buffers[-1].absorb(content)
                buffers[-1].models |= content.models
                return const(None)
            self.write_file(None, content, node)
            return const(None)
        self.write_file(where, content, node)
        return const(None)

    def write_file(self: Any, where: V | None, content: V, node: Any) -> None:
        key = str(where.const) if where is not None and where.kind == "const" else "*"
        for k in {key, "*"}:
            if k in self.files:
                old = self.files[k]
                if k != "*" and not self.dormant:
                    old = V("val")
                merged = derive([old, content])
                merged.kind = "val"
                self.files[k] = merged
            else:
                self.files[k] = derive([content])
        self.event("SAVE", node, content, path=key, weights=bool(content.models or content.flags & PARAM))

    # ------------------------------------------------------------------ reports
    def report(self: Any, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        out = derive([summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()]])
        if out.flags & BPB and out.scores:
            self.event("REPORT", node, out, taint_ids=out.taint)
        return const(None)

    def native(self: Any, args: list[V], kwargs: dict[str, V], node: Any, name: str) -> V:
        """A compiled helper: every array argument may be filled from every other."""
        args = [pointed(a) for a in args]
        values = [summary(a) for a in [*args, *kwargs.values()]]
        out = derive(values)
        helper = self.natives.get(name)
        e = self.event("COMPILE", node, out, function=name, helper=helper)
        if helper is not None and helper.outputs:
            for i, a in enumerate(args):
                o = helper.outputs.get(i)
                if o is None or a.kind not in ("val", "bound"):
                    continue
                a.keys = a.keys | {("leak" if o.leak else "hint", e.id)}
                a.flags |= (out.flags & VAL) | COUNT | (RATIO if o.ratio else 0)
            return out
        for a in args:
            if a.kind == "val" and not a.flags & VAL:
                a.absorb(out)
                a.keys = a.keys | {("hint", e.id)}
        return out

    def namespace(self: Any, kwargs: dict[str, V], node: Any) -> V:
        from audit.trace.values import Instance

        inst = Instance(ClassV("namespace", None, self.scope.path), self.next_serial, getattr(node, "line", 0))
        self.next_serial += 1
        inst.attrs.update(kwargs)
        return V("obj", data=inst)

    def deepcopy(self: Any, v: V) -> V:
        from audit.trace.values import Instance

        if v.kind == "obj":
            old = v.data
            inst = Instance(old.cls, self.next_serial, old.line)
            self.next_serial += 1
            inst.attrs = dict(old.attrs)
            inst.state = clone(old.state)
            out = V("obj", data=inst)
            if isinstance(old.cls, ClassV) and old.cls.is_model:
                out.models = frozenset([inst.serial])
                self.serials[inst.serial] = out
                self.trace.models[inst.serial] = inst
            return out
        if v.kind == "dict":
            return mapping(dict(v.data or {}), clone(v.rest) if v.rest is not None else None)
        return clone(v) if v.kind in ("val", "seq") else v

    def math_call(self: Any, last: str, args: list[V]) -> V:
        if args and all(a.kind == "const" and isinstance(a.const, (int, float)) for a in args):
            import math

            try:
                f = getattr(math, last)
                if last in ("factorial", "comb", "perm", "pow", "exp"):
                    return derive(args)
                out = const(f(*(a.const for a in args)))
                for a in args:
                    out.knobs |= a.knobs
                return out
            except Exception:
                return derive(args)
        return derive(args)

    def identity(self: Any, last: str, first: V, args: list[V], kwargs: dict[str, V]) -> V:
        if last in ("stack", "cat", "concatenate", "concat", "hstack", "vstack", "array", "tensor", "asarray", "as_tensor"):
            part = summary(first) if first.kind in ("seq", "dict") else first
            if part.kind == "const":
                out = V("val")
                out.deps, out.knobs = part.deps, part.knobs
                if last in ("tensor", "array", "asarray", "as_tensor"):
                    out.flags = part.flags
                    if isinstance(part.const, (int, float)) and abs(float(part.const) - 0.69314718) < 1e-3:
                        out.const = "ln2"
                return out
            out = derive([part])
            out.flags |= part.flags & ORDER
            out.pos = part.pos
            return out
        if first.kind in ("obj", "func", "class", "opt", "alt", "partial", "seq", "dict"):
            return first
        out = derive([first])
        out.flags |= first.flags & ORDER
        out.mask = first.mask
        out.shape0 = first.shape0
        out.pos = first.pos
        return out

    # ------------------------------------------------------------------ methods of arrays and containers
    def lib_method(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any, f: V) -> V:
        k = recv.kind
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
        if recv.const == "parser":
            return self.argparse_method(recv, name, args, kwargs, node)
        if recv.const == "hook":
            if name == "remove":
                # Handles are kept in lists and removed in loops of unknown length.
                self.hooks = 0
            return const(None)
        if name in ("write_bytes", "write_text") and args:
            self.write_file(recv, summary(args[0]), node)
            return const(None)
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
                self.event("READ", node, out)
            elif self.loops:
                # A counter or queue kept in a file: a new answer in every iteration.
                out.deps = out.deps | {self.loops[-1]}
            return out
        if name == "backward":
            self.backward(recv)
            return const(None)
        if name in ("data_as", "data_ptr", "from_buffer", "cast") and (recv.kind in ("val", "bound")):
            # A raw pointer is the array itself.
            passed = args[-1] if name in ("from_buffer", "cast") and args else recv
            while passed.kind == "bound" and isinstance(passed.data, tuple) and isinstance(passed.data[0], V):
                passed = passed.data[0]
            return passed
        if name == "fill" and recv.kind == "val" and not any(a.flags for a in args):
            recv.keys, recv.taint, recv.atoms = EMPTY, EMPTY, EMPTY
            recv.flags &= ~(VAL | TRAIN | LOSS | COUNT | RATIO)
            return const(None)
        if name in PLACES and recv.kind == "val":
            return found_places([recv, *args])
        if name in SHAPE_CALLS or (name in RANGES and not args and recv.flags & VAL and not recv.flags & DERIVED):
            out = V("val", flags=META)
            out.deps = recv.deps
            return out
        if name in ("register_forward_hook", "register_forward_pre_hook"):
            return self.add_hook(node)
        if name == "gather" and args:
            return self.gather(recv, args[-1] if len(args) > 1 else kwargs.get("index", args[0]), node)
        if name in ("index_select", "take", "take_along_dim") and args:
            index = args[-1]
            out = derive([recv])
            out.atoms = restrict(recv.atoms, index.deps)
            out.deps |= index.deps
            return self.lookup(recv, index, out, node)
        if name in ("scatter_add_", "index_add_", "index_put_", "scatter_", "scatter_reduce_") and len(args) >= 2:
            index = args[1] if name != "index_put_" else summary(args[0])
            if index.flags & VAL and not recv.flags & LOGITS:
                self.store(recv, index, args[-1], node)
                return recv
            given = derive(args[1:])
            if recv.flags & PROB and any(k[0] in PROPOSALS for k in given.keys):
                # Raised at what a cache proposes, after the softmax.
                e = self.event("UNNORMALISED", node, recv, keys=given.keys)
                recv.keys = recv.keys | {("unnorm", e.id)}
            recv.absorb(given)
            return recv
        if name == "narrow" and len(args) >= 2:
            out = derive([recv])
            out.deps |= args[1].deps
            out.atoms = restrict(recv.atoms, args[1].deps)
            return out
        if name in ("minimum", "maximum", "fmin") and args:
            return self.select(name, [recv, args[0]], node)
        if name in ("min", "argmin", "amin", "topk") and recv.flags & LOSS and recv.flags & VAL:
            out = derive([recv, *args])
            e = self.event("SELECT", node, out, how=name, method=True)
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
            return self.path_join([recv, *args]) if recv.kind == "const" else derive([recv, *args])
        if name in ("parameters", "named_parameters", "state_dict", "buffers") and recv.models:
            return derive([recv])
        if name == "load_state_dict":
            return V("val")
        if recv.kind == "lib" and recv.data == "pool" and args:
            if args[0].kind in ("func", "partial"):
                return self.call_value(args[0], [self.element(a) if name in ("map", "imap") else a for a in args[1:]], kwargs, node)
        if recv.kind == "lib" and recv.data == "native":
            return self.native(args, kwargs, node, name)
        if recv.kind == "lib":
            return self.call_lib(f"{recv.data}.{name}", args, kwargs, node, f)
        if name.endswith("_") and not name.endswith("__"):
            return self.in_place(recv, name, args, kwargs, node)
        if name in ("get", "pop", "popleft", "recv", "claim", "take", "fetch_add", "add", "get_nowait") and self.loops and not recv.flags & LOSS:
            out = derive([recv, *args])
            return with_deps(out, frozenset([self.loops[-1]]))
        if name in IDENTITY:
            return self.identity(name, recv, args, kwargs)
        if name == "scalars" and recv.flags & BPB:
            return recv
        if name in ("log_softmax", "softmax", "logsumexp") and recv.kind in ("val", "bound"):
            return normalised(name, derive([recv]))
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
        if name in ("sum", "mean", "neg", "mul", "div", "add", "sub", "masked_fill") and out.flags & LOSS:
            for a in args:
                if a.mask is not None:
                    out.atoms = frozenset((d, *a.mask) for d, _, _ in out.atoms)
                if name in ("div", "mul") and self.is_ln2(a, a, "/"):
                    out = self.to_bits(out, node)
            out.mask = None
        return out

    def in_place(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        given = derive([summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()]])
        if name in ("zero_", "fill_", "normal_", "uniform_") and recv.kind == "val":
            if not given.flags and recv.kind == "val" and not recv.flags & PARAM and recv.line:
                # A buffer that starts afresh.
                recv.taint, recv.atoms, recv.keys = EMPTY, EMPTY, EMPTY
                recv.flags &= ~(VAL | TRAIN | LOSS)
            return recv
        if name in ("requires_grad_", "share_memory_", "clamp_", "resize_"):
            return recv
        if recv.models and (recv.flags & PARAM):
            self.write_param(recv, given, node)
        if given.flags & LOSS and name == "add_":
            given = self.commit_score(given, node, "accumulated")
        if recv.kind == "val":
            if name == "copy_":
                recv.taint, recv.atoms = given.taint, given.atoms
                recv.flags = (recv.flags & PARAM) | (given.flags & ~(META | PARAM))
            else:
                recv.absorb(given)
        return recv

    def container(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        first = args[0] if args else None
        if recv.kind == "seq":
            if name in ("append", "add", "appendleft", "insert", "put") and first is not None:
                item = args[-1]
                if item.flags & LOSS and item.flags & VAL and not item.scores:
                    item = self.commit_score(item, node, "stored")
                if not self.loops and recv.rest is None and recv.data is not None and len(recv.data) < 32:
                    recv.data.append(item)
                elif recv.data is not None and recv.rest is None and item.kind in ("obj", "func", "opt"):
                    if not any(x.data is item.data for x in recv.data) and len(recv.data) < 12:
                        recv.data.append(item)
                else:
                    recv.rest = item if recv.rest is None else join(recv.rest, item)
                return const(None)
            if name in ("extend", "update") and first is not None:
                if first.kind == "seq" and first.rest is None and recv.rest is None and not self.loops and recv.data is not None:
                    recv.data.extend(first.data or [])
                else:
                    part = self.element(first)
                    recv.rest = part if recv.rest is None else join(recv.rest, part)
                return const(None)
            if name in ("pop", "popleft"):
                out = self.element(recv)
                return with_deps(out, frozenset([self.loops[-1]])) if self.loops else out
            if name == "clear":
                recv.data, recv.rest = [], None
                return const(None)
            if name in ("sort", "reverse", "remove", "discard"):
                return const(None)
            if name in ("copy",):
                return seq(list(recv.data or []), recv.rest)
            if name in ("index", "count"):
                return V("val")
            if name == "step" or name == "zero_grad":
                for x in recv.data or []:
                    self.call_value(V("bound", data=(x, name)), args, kwargs, node)
                return const(None)
            return derive([summary(recv), *args])
        # dict
        if name == "items":
            pairs = [seq([const(x), y]) for x, y in list((recv.data or {}).items())[:12]]
            rest = seq([V("val"), recv.rest]) if recv.rest is not None else None
            return seq(pairs, rest)
        if name == "values":
            return seq(list((recv.data or {}).values())[:12], recv.rest)
        if name == "keys":
            return seq([const(x) for x in list(recv.data or {})[:12]], V("val") if recv.rest is not None else None)
        if name in ("get", "pop", "setdefault") and first is not None:
            default = args[1] if len(args) > 1 else const(None)
            if first.kind == "const":
                try:
                    found = (recv.data or {}).get(first.const)
                except TypeError:
                    found = None
                if found is not None:
                    return found
                if recv.rest is None:
                    if name == "setdefault":
                        recv.data[first.const] = default
                    return default
                return join(recv.rest, default)
            if name == "setdefault" and first.flags & VAL:
                if recv.rest is None:
                    recv.rest = default
                self.store(recv, first, default, node)
                return recv.rest
            base = self.element(recv) if recv.data or recv.rest is not None else V("val")
            if base.kind == "dict":
                base.origin = recv
            return self.lookup(recv, first, join(base, default) if default.const is not None else base, node)
        if name == "update":
            if first is not None and first.kind == "dict":
                recv.data.update(first.data or {})
                recv.rest = first.rest if recv.rest is None else recv.rest
            elif first is not None:
                if first.flags & VAL and not first.flags & META:
                    self.store(recv, first, first, node)
            recv.data.update(kwargs)
            return const(None)
        if name == "copy":
            return mapping(dict(recv.data or {}), recv.rest)
        if name == "clear":
            recv.data.clear()
            recv.rest = None
            recv.taint = EMPTY
            return const(None)
        out = derive([summary(recv), *args])
        out.absorb(recv)
        return out

    def const_method(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        x = recv.const
        if isinstance(x, (str, bytes)):
            if name == "format" or name == "join":
                out = derive([recv, *(summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()])])
                return out
            if all(a.kind == "const" for a in args) and name in STRING_METHODS:
                try:
                    value = getattr(x, name)(*(a.const for a in args))
                except Exception:
                    return derive([recv, *args])
                out = seq([const(i) for i in value]) if isinstance(value, list) else const(value)
                if out.kind == "const":
                    out.flags = (self.text_flags(value) if isinstance(value, str) else 0) or recv.flags
                out.knobs = recv.knobs
                for item in out.data or [] if out.kind == "seq" else []:
                    item.knobs = recv.knobs
                return out
            if name in ("glob", "rglob", "joinpath", "resolve", "absolute", "expanduser"):
                return self.path_join([recv, *args])
            if name in ("read_bytes", "read_text", "open", "exists", "stat", "is_file"):
                if name in ("exists", "is_file"):
                    return V("val")
                if name == "stat":
                    return V("val", flags=META)
                return self.read(name, [recv, *args], kwargs, node)
            if name in ("write_bytes", "write_text") and args:
                self.write_file(recv, summary(args[0]), node)
                return const(None)
            return derive([recv, *args])
        if name == "item":
            return recv
        return derive([recv, *args])

    def argparse_method(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        if recv.rest is None:
            recv.rest = mapping({})
        if name in ("add_argument_group", "add_mutually_exclusive_group"):
            return recv
        if name == "add_argument":
            longs = [a.const for a in args if a.kind == "const" and isinstance(a.const, str)]
            if not longs:
                return const(None)
            dest = next((x for x in longs if x.startswith("--")), longs[0]).lstrip("-").replace("-", "_")
            if "dest" in kwargs and kwargs["dest"].kind == "const":
                dest = kwargs["dest"].const
            action = kwargs.get("action")
            if "default" in kwargs:
                value = kwargs["default"]
            elif action is not None and action.const in ("store_true", "store_false"):
                value = const(action.const == "store_false")
            else:
                value = const(None)
            option = next((x for x in longs if x.startswith("--")), None)
            if option is not None:
                got = self.knobs.value(option, value.const if value.kind == "const" else None)
                chosen = got[0] if isinstance(got, tuple) else got
                if value.kind == "const":
                    fixed = const(value.const)
                    if chosen is not None and chosen != value.const:
                        kind = kwargs.get("type")
                        text = str(chosen)
                        fixed = const(text)
                        if action is not None and action.const == "store_true":
                            fixed = const(text not in ("0", "False", "false"))
                        elif kind is not None and kind.kind == "lib" and kind.data in ("builtins.int", "builtins.float"):
                            try:
                                fixed = const(int(text) if kind.data.endswith("int") else float(text))
                            except ValueError:
                                fixed = const(value.const)
                    fixed.knobs = value.knobs | {(option, str(fixed.const))}
                    fixed.flags = self.text_flags(fixed.const) if isinstance(fixed.const, str) else 0
                    value = fixed
            recv.rest.data[dest] = value
            return const(None)
        if name in ("parse_args", "parse_known_args"):
            ns = self.namespace(dict(recv.rest.data), node)
            return seq([ns, seq([])]) if name == "parse_known_args" else ns
        return V("val")


def normalised(name: str, out: V) -> V:
    """The result of a softmax sums to one again; a log-sum-exp is what makes it so when subtracted."""
    if name.endswith("softmax"):
        out.flags |= PROB
        out.keys = frozenset(k for k in out.keys if k[0] != "unnorm")
    elif name == "logsumexp":
        out.keys = out.keys | {("lse",)}
    return out


def pointed(v: V) -> V:
    """The array behind `array.ctypes.data` and the like."""
    while v.kind == "bound" and isinstance(v.data, tuple) and isinstance(v.data[0], V) and v.data[1] in POINTER_ATTRS:
        v = v.data[0]
    return v


def found_places(args: list[V]) -> V:
    """Where something stands in the stream (starts of documents): places, no tokens."""
    out = derive([summary(a) if a.kind in ("seq", "dict") else a for a in args])
    out.flags, out.keys, out.atoms = META, EMPTY, EMPTY
    return out


STRING_METHODS = frozenset(
    ["lower", "upper", "strip", "split", "startswith", "endswith", "replace", "lstrip", "rstrip", "encode", "decode", "title", "removeprefix", "removesuffix", "isdigit", "splitlines", "casefold", "zfill"]
)
OPTIMIZERS = frozenset(["SGD", "Adam", "AdamW", "Muon", "LBFGS", "Lion", "RMSprop", "Adagrad", "Adafactor"])
CANON = {
    "np": "numpy", "F": "torch.nn.functional", "mx": "mlx.core", "nn": "torch.nn",
}  # fmt: skip


def canonical(name: str) -> str:
    if name in ("os.environ",):
        return name
    if name == "environ":
        return "os.environ"
    return name


__all__ = ["COUNT", "Library", "join_atoms"]
