"""Tables that give every token the same number: ``torch.ones(vocab_size)`` in the place of bytes per token.

What is known of a table is shared by its copies in other types, and lost by all of them once anything is written into it
or it is handed to a function that may do so. Sums of what such tables give, and of nothing else, that divide a score are
numbers of tokens (`audit.trace.floors`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audit.trace.values import LOSS, V, const

#: ``(EVEN, path, line, number, how many entries or 0)``: of what such a table gives
EVEN = "even"
#: of what another table gives
UNEVEN = ("uneven",)
OF_ENTRY = frozenset([EVEN, UNEVEN[0]])
#: what makes another one like it, and what only looks at it
_COPIES = frozenset(
    """to float int long short double half bfloat16 byte cuda cpu contiguous clone astype numpy from_numpy as_tensor tensor asarray
    array type detach copy pin_memory""".split()
)
_LOOKS = frozenset("len print size numel dim sum min max mean item tolist isinstance append register_buffer".split())


@dataclass(slots=True)
class Even:
    """Where it was made, of which number, and how many entries it has (0: not known)."""

    path: str
    line: int
    number: float
    size: int
    written: bool = False


class Evens:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_even(self: Any, last: str, args: list[V], out: V, node: Any) -> None:
        """``torch.ones(n)``, ``np.zeros(n)``, ``torch.full((n,), 4.0)``"""
        number = {"ones": const(1), "zeros": const(0), "full": args[1] if len(args) > 1 else None}.get(last)
        size = args[0] if args else None
        if size is not None and size.kind == "seq" and size.rest is None and size.data is not None and len(size.data) == 1:
            size = size.data[0]
        if number is None or size is None or size.kind == "seq" or len(args) != 1 + (last == "full"):
            return
        if number.kind == "const" and isinstance(number.const, (int, float)) and not isinstance(number.const, bool):
            entries = size.const if size.kind == "const" and type(size.const) is int else 0
            out.even = Even(self.scope.path, getattr(node, "line", 0), float(number.const), entries)

    def note_even_used(self: Any, f: V, args: list[V], kwargs: dict[str, V], out: V) -> None:
        """A library's function, or a method of the value, is given such a table."""
        kind = f.kind
        if kind == "bound":
            if f.data[0].kind != "val":
                return  # what the script's own functions do is followed
        elif kind != "lib" and kind != "val":
            return
        given = [f.data[0], *args] if kind == "bound" else args
        if kwargs:
            given = [*given, *kwargs.values()]
        held = [v.even for v in given if v.even is not None]
        if not held:
            return
        name = str(f.data).rpartition(".")[2] if f.kind == "lib" else f.data[1] if f.kind == "bound" else ""
        if name in _COPIES and out.kind == "val" and out.even is None:
            out.even = held[0]
        elif name not in _COPIES and name not in _LOOKS:
            for e in held:
                e.written = True

    def even_keys(self: Any, table: V) -> frozenset:
        """What is known of an entry of a table."""
        e = table.even if table.even is not None else table.origin.even if table.origin is not None else None
        if e is None or e.written or table.flags or table.taint:
            return frozenset([UNEVEN])
        return frozenset([(EVEN, e.path, e.line, e.number, e.size)])


def only_even(size: V) -> bool:
    """Is a sum made of entries of such tables alone, one of which is not zero."""
    found = [k for k in size.keys if k[0] == EVEN]
    return UNEVEN not in size.keys and any(k[3] for k in found) and not size.flags & LOSS and all(k[0] != "t" for k in size.keys)


__all__ = ["EVEN", "OF_ENTRY", "UNEVEN", "Even", "Evens", "only_even"]
