"""What is said about one compiled function."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Output:
    """One array that the function fills, one element per position.

    ``leak``: line of a write that depends on the token at the written position (0: none). ``ratio``: every written
    value is a quotient of counters (or 0), so at most 1. ``cached``: it depends on state that earlier tokens built up.
    """

    index: int
    name: str
    leak: int = 0
    #: where in that line, 1-based; 0 where it is not known
    column: int = 0
    why: str = ""
    ratio: bool = False
    cached: bool = False
    #: the token is in the address of the table that was read (and not only in a condition)
    keyed: bool = False
    #: it may be a part of the token's score
    doubt: bool = False


@dataclass(slots=True)
class NativeFunction:
    """``path`` and ``line`` lie in the file that holds the code, a Python file for embedded text.

    ``spreads`` are lines that divide a token's loss by a number that depends on the token (its bytes), ``columns``
    where in them.
    """

    name: str
    path: str
    line: int
    outputs: dict[int, Output] = field(default_factory=dict)
    spreads: list[int] = field(default_factory=list)
    columns: dict[int, int] = field(default_factory=dict)
    stores: bool = False

    @property
    def leaks(self) -> list[Output]:
        return [o for o in self.outputs.values() if o.leak]

    @property
    def hints(self) -> bool:
        """Does it give something per position that rests on what earlier tokens left behind."""
        return any(o.cached or o.leak for o in self.outputs.values()) and self.stores
