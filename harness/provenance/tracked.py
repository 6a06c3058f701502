"""Tensors that know which stream positions they came from.

`Tracked` is a tensor subclass. While data merely moves (slice, index, reshape, cast, device copy, stack,
gather), every element keeps its own position: the same operation runs on a *shadow*, an int32 tensor on
the CPU (mostly a view, so it costs nothing). As soon as arithmetic mixes elements, what is left is the
union of the positions of all operands. In-place writes into other tensors, ``backward``, and everything by
which data can leave the watched path are reported to the `Ledger`.

This is bookkeeping by the tensors themselves, independent of what the evaluator believes about its ranges.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from harness.provenance.positions import Positions

T = torch.Tensor


class Listener(Protocol):
    """What a ledger hears from tracked tensors."""

    def escaped(self, how: str, positions: Positions, where: str) -> None: ...
    def written(self, target: torch.Tensor, positions: Positions) -> None: ...
    def backward(self, positions: Positions, run: Callable[[], Any]) -> Any: ...


def _getter(name: str) -> Any:
    """The getter of a tensor property, as ``__torch_function__`` receives it."""
    return getattr(T, name).__get__


def _names(owner: Any, *names: str) -> set[Any]:
    return {getattr(owner, n) for n in names if hasattr(owner, n)}


# Operations that only move elements; the shadow takes the same path.
MOVES = _names(
    T, "__getitem__", "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "transpose", "permute",
    "t", "expand", "expand_as", "contiguous", "clone", "narrow", "select", "split", "chunk", "unbind",
    "roll", "flip", "repeat", "repeat_interleave", "unfold", "as_strided", "index_select", "gather", "take",
    "take_along_dim", "movedim", "swapaxes", "diagonal", "tensor_split", "view_as", "reshape_as", "ravel", "adjoint",
) | _names(
    torch, "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "transpose", "permute", "t", "clone", "narrow",
    "select", "split", "chunk", "unbind", "roll", "flip", "repeat_interleave", "index_select", "gather", "take",
    "take_along_dim", "movedim", "stack", "cat", "concat", "hstack", "vstack", "as_strided", "tensor_split", "ravel",
    "broadcast_to", "swapaxes", "tile",
)  # fmt: skip
# Same elements, same shape, other type, device or gradient history; the shadow stays as it is.
CASTS = _names(
    T, "to", "long", "int", "short", "float", "double", "half", "bfloat16", "type", "type_as", "cpu", "cuda",
    "pin_memory", "detach", "requires_grad_", "alias", "detach_",
) | _names(torch, "detach")  # fmt: skip
# Ways out of the watched path.
_ESCAPES = {
    "item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "__complex__",
    "data_ptr", "untyped_storage", "storage", "__dlpack__", "__reduce_ex__", "__deepcopy__", "share_memory_",
    "as_subclass", "__cuda_array_interface__", "_typed_storage", "apply_", "map_",
}  # fmt: skip
ESCAPES: dict[Any, str] = {getattr(T, n): f".{n}()" for n in _ESCAPES if callable(getattr(T, n, None))}
ESCAPES[_getter("data")] = ".data"
# Facts about a tensor that reveal none of its values.
_QUIET = {
    getattr(T, n).__get__
    for n in ("shape", "dtype", "device", "grad_fn", "requires_grad", "is_cuda", "ndim", "layout", "_version", "is_leaf",
              "names", "itemsize", "nbytes", "is_sparse", "is_quantized", "is_meta", "is_nested")
    if hasattr(getattr(T, n, None), "__get__")
} | _names(T, "size", "dim", "numel", "stride", "is_contiguous", "__len__", "is_floating_point", "element_size",
           "storage_offset", "__hash__", "is_complex", "ndimension", "__repr__", "__format__", "register_hook",
           "get_device", "nelement", "is_set_to", "has_names", "is_shared", "is_pinned", "retain_grad")  # fmt: skip

_GRAD = _getter("grad")


class Tracked(torch.Tensor):
    """A tensor with stream positions: per element (``shadow``) or as one set (``source``)."""

    shadow: torch.Tensor | None
    source: Positions
    listener: Listener | None
    base: torch.Tensor | None = None

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in _QUIET:
                return func(*args, **kwargs)
            if func is T.backward or func is _GRAD:
                return _gradient(func, args, kwargs)
            if func in ESCAPES:
                return _escape(func, args, kwargs)
            out = func(*args, **kwargs)
            operands = [x for x in _flat((args, kwargs)) if isinstance(x, Tracked)]
            listener = next((x.listener for x in operands if x.listener is not None), None)
            if func in CASTS and args and isinstance(args[0], Tracked):
                return _wrap(out, args[0].shadow, args[0].source, listener)
            if func in MOVES and any(x.shadow is not None for x in operands):
                moved = _move(func, args, kwargs, out)
                if moved is not None:
                    return _attach(out, moved, _union(operands), listener)
            positions = _union(operands)
            target = _report_writes(func, args, kwargs, out, positions, listener)
            made = _attach(out, None, positions, listener)
            if out is target and isinstance(made, Tracked) and made is not out:
                made.base = target  # `x += tracked` gives a tracked alias of x: writes into it are writes into x
                if listener is not None:
                    listener.written(made, positions)
            return made


def track(data: torch.Tensor, shadow: torch.Tensor | None, source: Positions, listener: Listener | None) -> Tracked:
    """Wraps ``data``. ``shadow``: int tensor on the CPU of the same shape, or None for one set for all."""
    with torch._C.DisableTorchFunctionSubclass():
        return _wrap(data, shadow, source, listener)


def plain(value: Any) -> Any:
    """The same tensor without tracking. For the harness alone: an adapter's own call is an escape."""
    if isinstance(value, Tracked):
        with torch._C.DisableTorchFunctionSubclass():
            return value.as_subclass(torch.Tensor)
    return value


def positions_of(*values: Any) -> Positions:
    """The union of the positions of all tracked tensors in ``values`` (nested lists and dicts too)."""
    return _union([x for x in _flat(values) if isinstance(x, Tracked)])


def _union(operands: list[Tracked]) -> Positions:
    return Positions.unite(Positions.of(x.shadow) if x.shadow is not None else x.source for x in operands)


def _wrap(data: torch.Tensor, shadow: torch.Tensor | None, source: Positions, listener: Listener | None) -> Tracked:
    out = data.as_subclass(Tracked)
    out.shadow, out.source, out.listener = shadow, source, listener
    return out


def _attach(out: Any, shadow: Any, source: Positions, listener: Listener | None) -> Any:
    """Wraps every tensor of a result; the shadow has the result's structure or is None."""
    if isinstance(out, torch.nn.Parameter):
        return out  # an in-place write into a parameter: the ledger has it, the parameter stays itself
    if isinstance(out, torch.Tensor):
        if isinstance(out, Tracked):
            # In-place into a tracked tensor: its elements are no longer what they were.
            out.shadow, out.source, out.listener = shadow, source, listener
            return out
        return _wrap(out, shadow, source, listener)
    if isinstance(out, tuple | list):
        parts = shadow if shadow is not None else [None] * len(out)
        made = [_attach(o, s, source, listener) for o, s in zip(out, parts, strict=True)]
        if isinstance(out, tuple):
            return type(out)(*made) if hasattr(out, "_fields") else tuple(made)
        return made
    return out


def _move(func: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """Runs a data movement on the shadows; None if it cannot be followed element by element."""
    if any(isinstance(x, torch.Tensor) and not isinstance(x, Tracked) and x.is_floating_point() for x in _flat(args)):
        return None

    def swap(x: Any) -> Any:
        if isinstance(x, Tracked) and x.shadow is not None:
            return x.shadow
        if isinstance(x, torch.Tensor):
            # An index, or an operand without positions.
            value = x.as_subclass(torch.Tensor)
            joined = func in (torch.stack, torch.cat, torch.concat, torch.hstack, torch.vstack)
            return torch.full(value.shape, -1, dtype=torch.int32) if joined else value.cpu()
        if isinstance(x, tuple | list):
            return type(x)(swap(y) for y in x)
        return x

    try:
        with torch.no_grad():
            return func(*swap(args), **{k: swap(v) for k, v in kwargs.items() if k != "out"})
    except (RuntimeError, TypeError, IndexError):
        return None


def _report_writes(
    func: Any, args: Any, kwargs: Any, out: Any, positions: Positions, listener: Listener | None
) -> torch.Tensor | None:
    """Tells the ledger of untracked tensors that this call wrote into; returns the first argument if it is one."""
    if listener is None:
        return None
    name = getattr(func, "__name__", "")
    target = args[0] if args else None
    into = name in ("__setitem__", "set_", "__set__") or (name.endswith("_") and not name.endswith("__"))
    into = into or (name.startswith("__i") and name.endswith("__") and name not in ("__index__", "__int__", "__invert__"))
    if isinstance(target, Tracked):
        target = target.base
    if isinstance(target, torch.Tensor) and (into or out is args[0]):
        listener.written(target, positions)
    for x in _flat(kwargs.get("out")):
        if isinstance(x, torch.Tensor):
            listener.written(x, positions)
    return target if isinstance(target, torch.Tensor) else None


def _gradient(func: Any, args: Any, kwargs: Any) -> Any:
    loss = args[0]
    if func is not T.backward or loss.listener is None:
        return func(*args, **kwargs)
    others = [x for x in _flat((args[1:], kwargs)) if isinstance(x, Tracked)]
    raw = (plain(loss), *args[1:])
    return loss.listener.backward(_union([loss, *others]), lambda: func(*raw, **kwargs))


def _escape(func: Any, args: Any, kwargs: Any) -> Any:
    value = args[0]
    if isinstance(value, Tracked) and value.listener is not None:
        value.listener.escaped(ESCAPES[func], _union([value]), call_site())
    return func(*args, **kwargs)


def call_site() -> str:
    """File and line of the nearest caller outside this package and torch."""
    for frame in reversed(traceback.extract_stack(limit=24)):
        if "/harness/provenance/" not in frame.filename and "/torch/" not in frame.filename:
            return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
    return "unknown"


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for x in value:
            yield from _flat(x)
    elif isinstance(value, dict):
        for x in value.values():
            yield from _flat(x)
    else:
        yield value
