"""Threads: what one does is done where it is made, and what a queue hands over to it is dealt with where it is put in.

``Thread(target=work)`` whose ``work`` takes from a queue that holds nothing yet waits for what others put there. Each thing
that is put there later is what ``work`` does its turn with: the line that a logger's thread prints, the batch that another
scores. What a thread itself puts in a queue (batches read ahead) is taken out by whoever asks, as from any list.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import V

#: queues that threads wait for
MOST = 12
TAKES = frozenset({"get", "get_nowait"})


class Threads:
    """Mixed into the machine; see `audit.trace.machine`."""

    def run_thread(self: Any, work: V, kwargs: dict[str, V], node: Any) -> V:
        """What a thread does is done where it is made; daemons that feed data included."""
        given, named = kwargs.get("args"), kwargs.get("kwargs")
        args = list(given.data or []) if given is not None and given.kind == "seq" else []
        also = {k: v for k, v in (named.data or {}).items() if isinstance(k, str)} if named is not None and named.kind == "dict" else {}
        self.working.append(lambda: self.call_value(work, args, also, node))
        try:
            self.working[-1]()
        finally:
            self.working.pop()
        return V("val")

    def asked(self: Any, queue: V) -> V | None:
        """A thread asks a queue for something: what is being handed over there. It waits for that where nothing was put in yet."""
        if not self.working:
            return None
        if id(queue) in self.handed:
            return self.handed[id(queue)]  # type: ignore[no-any-return]
        if queue.data or queue.rest is not None or (id(queue) not in self.waiting and len(self.waiting) >= MOST):
            return None
        self.waiting.setdefault(id(queue), (queue, self.working[-1]))
        return V("never")  # what comes after it is done when there is something

    def handed_over(self: Any, queue: V, item: V) -> bool:
        """``queue.put(item)``: is it given to a thread that waits for it, which has then done with it what it does."""
        found = self.waiting.get(id(queue))
        if found is None or id(queue) in self.handed:
            return False
        self.working.append(found[1])
        self.handed[id(queue)] = item
        try:
            found[1]()
        finally:
            self.working.pop()
            del self.handed[id(queue)]
        return True


def takes_one(loop: ir.While) -> bool:
    """Does each turn of a thread's loop take one thing from a queue: what is handed over there is good for one turn."""
    return any(
        isinstance(n, ir.Call) and isinstance(n.func, ir.Attr) and n.func.attr in TAKES
        and (not n.args or (isinstance(n.args[0], ir.Const) and isinstance(n.args[0].value, bool)))  # no table's ``get(key)``
        for n in ir.walk(loop)
    )  # fmt: skip


__all__ = ["TAKES", "Threads", "takes_one"]
