"""The library's ways to spell attention, and whether a call leaves every later position in sight.

No rule lives here. A call is unmasked where constants, or what the instance was built with, say that there is neither a
mask nor causality; what is not known counts as a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from audit import ir
from audit.rules.axes import argument, number
from audit.rules.code import Code, Place
from audit.trace.values import RAND

#: library functions that hide nothing unless ``causal=True``: positional arguments before any that could
FLASH = {
    "flash_attn_func": 3,
    "flash_attn_qkvpacked_func": 1,
    "flash_attn_kvpacked_func": 2,
    "flash_attn_varlen_func": 7,
    "flash_attn_varlen_qkvpacked_func": 3,
}
_DRAWS = frozenset({"rand", "rand_like", "bernoulli", "uniform", "randint", "random"})
#: reads an expression's constant: (is it known, its value)
Reads = Callable[[Any], tuple[bool, Any]]


def unmasked(call: ir.Call, reads: Reads, opened: Callable[[Any], bool]) -> bool:
    """``scaled_dot_product_attention`` without mask and causality; ``opened``: is the mask one that hides nothing."""
    if len(call.args) > 3 or spread(call):
        return False
    # torch says ``attn_mask``, MLX ``mask`` (an array, or the word "causal"), others ``block_mask`` or ``bias``.
    masks = [v for k, v in call.keywords if k is not None and ("mask" in k or "bias" in k or k == "score_mod")]
    if any(reads(m) != (True, None) and not opened(m) for m in masks):
        return False
    causal = [v for k, v in call.keywords if k is not None and "causal" in k]
    return not causal or reads(causal[0]) == (True, False)


def flash_unmasked(call: ir.Call, name: str, reads: Reads) -> bool:
    """``flash_attn_func`` and its like without ``causal=True`` and without a window that ends at the position."""
    if len(call.args) > FLASH[name] or spread(call):
        return False
    words = dict(call.keywords)
    if any(k is not None and any(w in k for w in ("mask", "mod", "bias", "block")) for k in words):
        return False
    window = words.get("window_size")
    if window is not None:
        right = window.elts[-1] if isinstance(window, ir.Collection) and window.elts else None
        if not _some(right):
            return False
    causal = [v for k, v in call.keywords if k is not None and "causal" in k]
    return not causal or reads(causal[0]) == (True, False)


def _some(width: Any) -> bool:
    """Is a width another than none: written out (-1 is all of it), or at least one."""
    if isinstance(width, ir.Call) and isinstance(width.func, ir.Name) and width.func.id == "max":
        return any((number(a) or 0) > 0 for a in width.args)
    return number(width) not in (None, 0)


def hides_nothing(mask: Any) -> bool:
    """``torch.ones(T, T)``, also as the half below a diagonal that lies above the main one."""
    shifted = False
    while isinstance(mask, ir.Call) and isinstance(mask.func, ir.Attr):
        name = mask.func.attr
        base: Any = mask.func.value
        if name == "tril":
            own = not (isinstance(base, ir.Name) and base.id in ("torch", "mx", "jnp", "np"))
            rest = mask.args if own else mask.args[1:]
            by = argument(rest, 0, mask.keywords, "diagonal", "k")
            if shifted or (number(by) or 0) <= 0 or (not own and not mask.args):
                return False
            shifted, mask = True, base if own else mask.args[0]
        elif name in ("bool", "to") and not isinstance(base, ir.Name):
            mask = base
        else:
            return name in ("ones", "ones_like")
    return False


def hides_at_random(code: Code) -> bool:
    """Does the program draw which tokens it shows to the model (masked diffusion, unmasking in steps)."""
    trace = code.ctx.trace
    if trace is not None and any(s.flags & RAND for s in trace.of("SCORE", active=True) if s.on_val):
        return True
    for place in code.places:
        called = {
            n.func.attr if isinstance(n.func, ir.Attr) else n.func.id
            for n in place.nodes(ir.Call)
            if isinstance(n.func, (ir.Attr, ir.Name))
        }
        compares = bool(place.nodes(ir.Compare))
        if compares and called & _DRAWS and called & {"where", "masked_fill", "masked_fill_"}:
            return True
    return False


def made_of(place: Place, node: Any) -> frozenset[str]:
    """Which parameters of the method (its object aside) an expression is made of, through local names."""
    assert place.function is not None
    params = [p.name for p in place.function.params]
    rest = frozenset(params[1:] if place.owner is not None else params)
    made: dict[str, set[str]] = {}
    for n in place.nodes(ir.Assign):
        for t in n.targets:
            if isinstance(t, ir.Attr):
                continue  # what the object keeps is not what it is
            for bound in (x for x in _inside(t) if isinstance(x, ir.Name)):
                made.setdefault(bound.id, set()).update(x.id for x in _inside(n.value) if isinstance(x, ir.Name))
    found: set[str] = set()
    todo = [x.id for x in _inside(node) if isinstance(x, ir.Name)]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            if name in rest:
                found.add(name)
            todo += made.get(name, ())
    return frozenset(found)


def _inside(node: Any) -> Iterator[Any]:
    """The node and what is below it; lengths and devices (``x.size(1)``, ``x.device``) are no content."""
    todo = [node]
    while todo:
        n = todo.pop()
        if isinstance(n, ir.Attr) and n.attr in ("shape", "size", "device", "dtype", "numel", "dim"):
            continue
        yield n
        todo += ir.children(n)


def spread(call: ir.Call) -> bool:
    return any(isinstance(a, ir.Starred) for a in call.args) or any(k is None for k, _ in call.keywords)


__all__ = ["FLASH", "flash_unmasked", "hides_at_random", "hides_nothing", "made_of", "spread", "unmasked"]
