"""Names of library functions, grouped by what they do to provenance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from audit.trace.values import (
    BPB,
    COUNT,
    EMPTY,
    GRAD,
    LOGITS,
    LOSS,
    MASK,
    META,
    PROB,
    V,
    derive,
    summary,
)

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
#: what draws some of several, each once
DRAWS = frozenset(["sample", "choice"])
RANDOMS = frozenset(["rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "uniform_", "random", "integers"])
#: of these, what keeps each token as it is and where it is
SAME_TOKENS = frozenset(["to", "cuda", "cpu", "long", "int", "contiguous", "clone", "detach", "numpy", "astype", "copy", "pin_memory"])
#: of an array that share its memory
VIEWS = frozenset(["view", "reshape", "flatten", "ravel", "numpy", "detach", "squeeze", "unsqueeze", "t", "transpose", "permute", "swapaxes"])
IDENTITY = frozenset(
    ["to", "cuda", "cpu", "float", "double", "half", "bfloat16", "long", "int", "contiguous", "clone", "detach", "numpy", "astype", "reshape", "view", "flatten", "ravel", "squeeze", "unsqueeze", "expand", "expand_as", "permute", "transpose", "t", "copy", "type", "requires_grad_", "pin_memory", "share_memory_", "tolist", "item", "bool", "byte", "short", "swapaxes", "repeat", "tile", "as_strided", "view_as", "type_as", "chunk", "split", "unbind", "resolve", "asarray", "array", "tensor", "from_numpy", "as_tensor", "ascontiguousarray", "stack", "cat", "concatenate", "concat", "hstack", "vstack", "pad", "as_subclass", "rearrange", "unflatten"]
)
TRANSPARENT = frozenset(
    ["torch.compile", "torch.jit.script", "torch.nn.DataParallel", "torch.nn.parallel.DistributedDataParallel", "builtins.sorted", "builtins.list", "builtins.tuple", "builtins.set", "builtins.reversed", "builtins.iter", "builtins.frozenset", "tqdm.tqdm", "torch.no_grad_fn"]
)
NUMBER_TYPES = frozenset(["float32", "float64", "float16", "int64", "int32", "uint64", "uint32", "uint16", "uint8"])
#: texts of a switch that is off
OFF = frozenset(["0", "False", "false"])
PRODUCTS = frozenset(["matmul", "mm", "bmm", "einsum", "dot", "tensordot"])
PIECES = frozenset(["id_to_piece", "IdToPiece", "decode_single_token_bytes", "decode_bytes", "DecodeIds", "decode_ids"])
POINTER_ATTRS = ("ctypes", "data", "__array_interface__")
PLACES = frozenset(["nonzero", "argwhere", "flatnonzero", "searchsorted", "argsort", "bisect_left", "bisect_right"])
POINTERS = frozenset("c_void_p byref pointer POINTER addressof cast from_buffer c_char_p".split())
LOGGERS = frozenset(["info", "warning", "debug", "error", "write", "log", "log_metrics", "writelines"])
CASTS: dict[str, Callable[..., Any]] = {"int": int, "float": float, "bool": bool, "str": str, "abs": abs, "round": round, "len": len}
#: of probabilities that sum to one as they are: nothing was taken off them to make room for something else
WHOLE = ("whole",)
#: of probabilities, or their logarithms, of all tokens side by side
ROW = ("row",)
#: of a figure made of losses that may be a weight
WEIGHT = ("weight",)
#: methods that leave them so
LEAVES_WHOLE = frozenset(
    ["float", "double", "to", "cpu", "cuda", "numpy", "item", "gather", "squeeze", "unsqueeze", "view", "reshape", "detach", "clone", "contiguous", "flatten", "transpose", "astype", "copy", "expand"]
)


def normalised(name: str, out: V) -> V:
    """The result of a softmax sums to one again; a log-sum-exp is what makes it so when subtracted."""
    if name in ("sigmoid", "softmax", "exp") and out.flags & LOSS:
        out.keys = out.keys | {WEIGHT}
    if name.endswith("softmax"):
        out.flags |= PROB
        out.keys = frozenset(k for k in out.keys if k[0] not in ("unnorm", "raised", "flat"))
        out.keys = out.keys | {("logp",) if name == "log_softmax" else WHOLE, ROW}
    elif name in ("exp", "exp2", "exp_"):
        out.keys = (out.keys - {("logp",)}) | {("exp",)}
    elif name in ("log", "log2", "log_"):
        out.keys = (out.keys - {("exp",)}) | {("logp",)}
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
    out.flags, out.keys, out.atoms = META | MASK, EMPTY, EMPTY
    return out


STRING_METHODS = frozenset(
    ["lower", "upper", "strip", "split", "startswith", "endswith", "replace", "lstrip", "rstrip", "encode", "decode", "title", "removeprefix", "removesuffix", "isdigit", "splitlines", "partition", "rpartition", "casefold", "zfill"]
)
OPTIMIZERS = frozenset(["SGD", "Adam", "AdamW", "Muon", "LBFGS", "Lion", "RMSprop", "Adagrad", "Adafactor"])


def canonical(name: str) -> str:
    return "os.environ" if name == "environ" else name
