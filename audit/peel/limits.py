"""Bounds on what unpacking may cost; each is far above anything an honest wrapper needs."""

from __future__ import annotations

#: All decoded and built bytes of one script together. The largest honest script is 1.6 MB.
MAX_BYTES = 64 * 2**20
#: Wrappers inside wrappers. Honest ones nest twice.
MAX_DEPTH = 12
#: Evaluated expressions and statements of one layer.
MAX_STEPS = 300_000
#: Depth of the evaluator's own recursion (calls of the wrapper's helper functions, nested expressions).
MAX_RECURSION = 60
#: Calls of the wrapper's own functions inside one another.
MAX_CALLS = 10
#: Dictionary of a raw LZMA stream, allocated before any byte is decoded.
MAX_DICTIONARY = 256 * 2**20


class Bomb(Exception):
    """A limit was hit; the message says which."""


class Budget:
    """Counts bytes and steps across all layers of one script."""

    __slots__ = ("bytes", "steps")

    def __init__(self) -> None:
        self.bytes = self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Bomb(f"unpacking takes more than {MAX_STEPS:,} steps")

    @property
    def left(self) -> int:
        return MAX_BYTES - self.bytes

    def spend(self, size: int) -> None:
        """Charges ``size`` bytes before they are built."""
        self.bytes += size
        if self.bytes > MAX_BYTES:
            raise Bomb(f"unpacks to more than {MAX_BYTES // 2**20} MB")
