"""Hooks on modules: what they fill, and the weights that are rewritten with it.

The bodies of hooks are not executed. What one adds to (a Hessian, sums of activations) is marked with the run of the model
that fed it; a weight that is then set to something made of it has learned from the tokens of that run.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.events import Event
from audit.trace.values import V, members

#: methods that put something into a container
_PUTS = frozenset(["append", "extend", "update", "setdefault"])


class Hooks:
    """Mixed into the machine; see `audit.trace.machine`."""

    def add_hook(self: Any, args: list[V], kwargs: dict[str, V], node: Any = None) -> V:
        """A hook that never looks at what the module was given or gave (it swaps weights, say) collects nothing."""
        given = args[0] if args else kwargs.get("hook")
        if given is not None and given.kind == "func":
            params = [p.name for p in given.data.node.params]
            if given.data.owner is not None:
                params = params[1:]
            starred = any(p.kind in ("vararg", "kwarg") for p in given.data.node.params)
            if not starred and not any(isinstance(n, ir.Name) and n.id in params[1:] for n in ir.walk(given.data.node.body)):
                return V("val")
        self.set_hook(given, node)
        return V("val", const="hook")

    def set_hook(self: Any, given: V | None, node: Any) -> None:
        if not self.hooks:
            self.hooked.clear()
        if given is not None and given.kind == "func":
            self.hooked.append((given.data.scope, filled_by(given)))
        self.hooks += 1
        self.hook_at = self.scope.path, getattr(node, "line", 0), tuple(self.stack)

    def note_put_around(self: Any, module: V, given: V, node: Any) -> None:
        """``block.forward = watched`` until it is put back: a function that fills what lies around it is a hook like any other."""
        if not module.models or given.kind != "func":
            return
        again = [
            n for n in ir.walk(self.scope.body, into_functions=False)
            if isinstance(n, ir.Assign) and n.line > node.line and any(isinstance(t, ir.Attr) and t.attr == "forward" for t in n.targets)
        ]  # fmt: skip
        if again and filled_by(given):
            self.set_hook(given, node)

    def drop_hooks(self: Any, before: int, kept: list[V]) -> None:
        """Hooks set inside a call end with it, unless what it returns or was given keeps their handles."""
        if not any(holds_hook(v) for v in kept):
            self.hooks = before

    def calibrated(self: Any, run: Event) -> None:
        """A model with hooks ran on tokens of the stream: what the hooks add to is made of them."""
        mark = frozenset([("calibrated", run.id)])
        for scope, filled in self.hooked if run.on_val else ():
            for name in filled:
                if (v := scope.get(name)) is not None:
                    mark_filled(v, mark)

    def note_rewritten(self: Any, value: V) -> None:
        """Weights are set to ``value``; a loop that goes on feeding the model may have scored the tokens before."""
        runs = {k[1] for k in value.keys if k[0] == "calibrated"}
        going_on = {loop for loop, _ in self.loops}
        for e in self.trace.events if runs else ():
            if e.id in runs and not any(loop in going_on for loop, _ in e.loops):
                e.detail.setdefault("rewritten", self.next_id)


def holds_hook(v: V, depth: int = 0) -> bool:
    if v.const == "hook":
        return True
    if v.kind in ("seq", "dict") and depth < 3:
        return any(holds_hook(x, depth + 1) for x in members(v))
    return v.kind == "obj" and depth < 2 and any(holds_hook(x, depth + 1) for x in v.data.attrs.values())


def adds_up(hook: V) -> bool:
    """Does a hook count something up, and not only hand on what it saw."""
    if hook.kind != "func":
        return False
    body = hook.data.node.body
    return any(isinstance(n, ir.AugAssign) or (isinstance(n, ir.BinOp) and n.op in "+@") for n in ir.walk(body))


def filled_by(hook: V) -> set[str]:
    """Names from around a hook whose values it changes in place."""
    node = hook.data.node
    if isinstance(node, ir.Lambda):
        return set()
    found: set[str] = set()
    own = {p.name for p in node.params}
    for n in ir.walk(node.body):
        if isinstance(n, ir.Assign):
            own |= {t.id for t in n.targets if isinstance(t, ir.Name)}
            found |= {root(t) for t in n.targets if isinstance(t, ir.Sub)}
        elif isinstance(n, ir.AugAssign):
            found.add(root(n.target))
        elif isinstance(n, ir.Call) and isinstance(n.func, ir.Attr) and (n.func.attr.endswith("_") or n.func.attr in _PUTS):
            found.add(root(n.func.value))
    return found - own - {""}


def root(e: Any) -> str:
    while isinstance(e, ir.Sub):
        e = e.value
    return e.id if isinstance(e, ir.Name) else ""


def mark_filled(v: V, mark: frozenset) -> None:
    if v.kind in ("seq", "dict"):
        if v.rest is None and not v.data:
            v.rest = V("val")
        for x in members(v):
            mark_filled(x, mark)
    elif v.kind == "val" and not v.models:
        v.keys = v.keys | mark


__all__ = ["Hooks", "adds_up", "holds_hook"]
