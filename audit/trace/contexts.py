"""``with``: what a context manager does before and after the body.

A class does it in ``__enter__`` and ``__exit__``; a generator under ``contextlib.contextmanager`` around its ``yield``,
where the body runs. Managers of the library that switch gradients off are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audit import ir
from audit.trace.loops import NORMAL
from audit.trace.values import ClassV, V, const


@dataclass(slots=True)
class Around:
    """A body that waits for its generator to get to its ``yield``."""

    function: int
    scope: Any
    name: ir.Expr | None
    rest: ir.With
    status: int | None = None


class Contexts:
    """Mixed into the machine; see `audit.trace.machine`."""

    def s_with(self: Any, s: ir.With) -> int:
        return int(self.within_items(s, s.items))

    def within_items(self: Any, s: ir.With, items: list[tuple[ir.Expr, ir.Expr | None]]) -> int:
        if not items:
            return int(self.block(s.body))
        (ctx, name), rest = items[0], items[1:]
        if (made := self.generator_of(ctx)) is not None:
            around = Around(made, self.scope, name, ir.With(rest, s.body, line=s.line, col=s.col, end_line=s.end_line))
            self.around.append(around)
            try:
                self.ev(ctx)
            finally:
                self.around.remove(around)
            return around.status if around.status is not None else int(self.within_items(s, rest))
        v = self.ev(ctx)
        off = v.kind == "val" and v.const == "no_grad"
        cls = v.data.cls if v.kind == "obj" else None
        leave = None
        if isinstance(cls, ClassV) and not cls.is_model:
            entered = self.call_value(V("bound", data=(v, "__enter__")), [], {}, ctx) if cls.find("__enter__") is not None else v
            leave = v if cls.find("__exit__") is not None else None
            v = entered
        if name is not None:
            self.bind(name, v, s)
        self.no_grad += off
        try:
            status = int(self.within_items(s, rest))
        finally:
            self.no_grad -= off
        if leave is not None:
            self.call_value(V("bound", data=(leave, "__exit__")), [const(None)] * 3, {}, ctx)
        return status

    def generator_of(self: Any, ctx: ir.Expr) -> int | None:
        """The id of the function whose call makes a context manager of a generator."""
        if not isinstance(ctx, ir.Call):
            return None
        f = self.ev(ctx.func)
        if f.kind == "bound" and f.data[0].kind == "obj" and isinstance(f.data[0].data.cls, ClassV):
            f = f.data[0].data.cls.find(f.data[1]) or f
        if f.kind != "func" or not isinstance(f.data.node, ir.FunctionDef):
            return None
        names = {d.attr if isinstance(d, ir.Attr) else d.id for d in f.data.node.decorators if isinstance(d, (ir.Attr, ir.Name))}
        return id(f.data.node) if names & {"contextmanager", "asynccontextmanager"} else None

    def body_at_yield(self: Any, value: V) -> bool:
        """Runs the body that waits for the function being executed; True where there is one."""
        function = self.frames[-1] if self.frames else None
        around = next((a for a in reversed(self.around) if a.function == function), None)
        if around is None or around.status is not None:
            return False
        inner, returns, yields = self.scope, self.returns.pop(), self.yields.pop()
        call, frame = self.stack.pop(), self.frames.pop()
        self.scope = around.scope
        try:
            if around.name is not None:
                self.bind(around.name, value, around.rest)
            around.status = NORMAL
            around.status = int(self.within_items(around.rest, around.rest.items))
        finally:
            self.scope = inner
            self.returns.append(returns)
            self.yields.append(yields)
            self.stack.append(call)
            self.frames.append(frame)
        return True
