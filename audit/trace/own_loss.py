"""Model methods that take one batch of tokens and give back its loss: ``model.loss(batch)``, inputs and targets split inside.

With a label beside the tokens a loss is told by the call. With the tokens alone the code of the method has to tell it: every
way through it ends in a value that a cross-entropy, or something made of one, went into.
"""

from __future__ import annotations

from typing import Any

from audit import ir

_LOSSES = frozenset(["cross_entropy", "nll_loss"])


def returns_loss(fn: Any, method: Any, depth: int = 0) -> bool:
    """Does a method give back a loss and nothing else; ``method`` finds the class's other methods by name."""
    returned = [n.value for n in ir.walk(fn.body, into_functions=False) if isinstance(n, ir.Return)]
    if not returned:
        return False
    made: set[str] = set()
    assigned = [n for n in ir.walk(fn.body, into_functions=False) if isinstance(n, (ir.Assign, ir.AugAssign, ir.AnnAssign))]
    for _ in range(3):
        for n in assigned:
            if n.value is not None and _of_loss(n.value, made, method, depth):
                targets = n.targets if isinstance(n, ir.Assign) else [n.target]
                made.update(t.id for t in targets if isinstance(t, ir.Name))
    return all(_of_loss(v, made, method, depth) for v in returned)


def predicts_next(fn: Any) -> bool:
    """Does it cut the first token of each row off: ``batch[:, 1:]``, the targets."""
    return any(
        isinstance(n, ir.Slice) and isinstance(n.lower, ir.Const) and n.lower.value == 1 and n.upper is None and n.step is None
        for n in ir.walk(fn.body)
    )


def _of_loss(e: ir.Expr | None, made: set[str], method: Any, depth: int) -> bool:
    """Is it a loss, or arithmetic over one."""
    if isinstance(e, ir.Name):
        return e.id in made
    if isinstance(e, ir.BinOp):
        return any(_of_loss(x, made, method, depth) for x in (e.left, e.right))
    if isinstance(e, ir.UnaryOp):
        return _of_loss(e.operand, made, method, depth)
    if not isinstance(e, ir.Call):
        return False
    called = e.func
    name = called.attr if isinstance(called, ir.Attr) else called.id if isinstance(called, ir.Name) else ""
    if name in _LOSSES:
        return True
    if isinstance(called, ir.Attr) and isinstance(called.value, ir.Name) and called.value.id == "self":
        inner = method(name)
        return inner is not None and depth < 2 and returns_loss(inner, method, depth + 1)
    return isinstance(called, ir.Attr) and _of_loss(called.value, made, method, depth)  # ``loss.mean()``


__all__ = ["predicts_next", "returns_loss"]
