"""Which calls a run gets to, and which code a constant keeps it from.

Rules on plain source ask this of a call that they found by its name: the function around it being entered says nothing
of the branch that it stands in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from audit import ir
from audit.model import Tristate
from audit.trace.values import V

#: a value that is typed when the program is started, which no paper need tell
TYPED = ("typed",)
#: the state of code under a test of such a value; `guard_state` passes over it
BY_HAND = "typed"


@dataclass(slots=True, frozen=True)
class Met:
    """A call that a run got to; ``first``: the text given first, or what a pair given first begins with."""

    active: Tristate
    gate: str | None
    first: str | None = None


@dataclass(slots=True)
class Reach:
    """``met``: calls by the id of their node. ``closed``: code that a constant closes, with its line; ``opened``: ids
    of blocks that were run all the same, in another call."""

    met: dict[int, Met] = field(default_factory=dict)
    closed: dict[int, tuple[list[Any], int]] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)

    def take_in(self, other: Reach, complete: bool) -> None:
        """What only the run into closed branches got to is not active; an incomplete first run does not tell."""
        self.opened |= other.opened
        if not complete:
            return
        for node, m in other.met.items():
            if node not in self.met:
                self.met[node] = Met("no", m.gate or "the configuration returns before it", m.first)

    def shut(self) -> dict[int, str]:
        """Ids of the nodes in code that constants close, and what closes it."""
        found: dict[int, str] = {}
        for first, (nodes, line) in self.closed.items():
            if first not in self.opened:
                for top in nodes:
                    found.update((id(n), f"the condition in line {line} never holds") for n in ir.walk(top))
        return found


class Reaching:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_met(self: Any, call: ir.Call, args: list[V]) -> None:
        """Called until the call was met where nothing closes it."""
        state, gate = self.guard_state()
        if state == "yes" and any(s == BY_HAND for s, _ in self.guards):
            state, gate = "unknown", "the command line"
        first = args[0] if args else None
        if first is not None and first.kind == "seq" and first.data:
            first = first.data[0]
        text = first.const if first is not None and first.kind == "const" and isinstance(first.const, str) else None
        if state != "no" or id(call) not in self.trace.reach.met:
            self.trace.reach.met[id(call)] = Met(state, gate, text)

    def note_closed(self: Any, nodes: list[Any], line: int) -> None:
        if nodes:
            self.trace.reach.closed.setdefault(id(nodes[0]), (nodes, line))

    def note_opened(self: Any, nodes: list[Any]) -> None:
        if nodes:
            self.trace.reach.opened.add(id(nodes[0]))


__all__ = ["BY_HAND", "TYPED", "Met", "Reach", "Reaching"]
