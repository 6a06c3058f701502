"""Programs that a framework begins: ``@app.local_entrypoint()`` of modal, ``fire.Fire(main)``, ``train.remote()``.

Such a script defines its functions and calls none of them itself. The framework's command line calls the entry point when
the module has been read, or it hands a function to another machine, which runs it there.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import V, seq

#: the library's call that runs a function which it is given
RUNNERS = frozenset(["fire.Fire", "typer.run", "absl.app.run", "asyncio.run"])
#: an application whose decorators name the functions that its command line begins
APPS = frozenset(["modal.App", "modal.Stub", "typer.Typer"])
#: decorators of an application: the command line calls the function
_BEGINS = frozenset(["local_entrypoint", "command", "callback"])
#: what hands a function to another machine with its arguments; the result is the function's
_HANDED_ON = frozenset(["remote", "local", "remote_gen", "spawn", "call"])
_EACH = frozenset(["map", "starmap", "for_each"])


class Entries:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_entry(self: Any, decorator: ir.Expr, made: V) -> None:
        """Does an application's decorator make the function one that its command line begins."""
        called = decorator.func if isinstance(decorator, ir.Call) else decorator
        if not isinstance(called, ir.Attr):
            return
        app = self.ev(called.value)
        if app.kind == "lib" and app.data in APPS:
            if called.attr in _BEGINS:
                self.entries.append(made)
            elif called.attr == "function":
                self.functions.append(made)

    def begin(self: Any, node: Any) -> None:
        """Calls the entry points that decorators named; of functions for another machine the only one, as ``modal run`` does."""
        begun: list[V] = [*self.entries]
        if not begun and len(self.functions) == 1:
            begun = [*self.functions]
        self.entries.clear()
        self.functions.clear()
        for entry in begun:
            if id(entry.data.node) not in self.trace.entered:
                self.call_value(entry, [], {}, node)

    def handed_on(self: Any, f: V, how: str, args: list[V], kwargs: dict[str, V], node: Any) -> V | None:
        """``train.remote(seed=1)``, ``score.map(shards)``; None where that is something else."""
        if how in _HANDED_ON:
            out: V = self.call_value(f, args, kwargs, node)
            return out
        if how in _EACH and args:
            each = self.element(args[0])
            given = list(each.data or []) if how == "starmap" and each.kind == "seq" else [self.element(a) for a in args] if how == "map" else [each]
            return seq([], self.call_value(f, given, {}, node))
        return None


__all__ = ["APPS", "RUNNERS", "Entries"]
