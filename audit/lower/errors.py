"""The one exception of the front ends."""

from __future__ import annotations


class Unparsable(Exception):
    """No parser accepts the text. ``line`` is 1-based, ``col`` 0-based, in the given text."""

    def __init__(self, line: int, col: int, reason: str) -> None:
        super().__init__(f"line {line}, column {col + 1}: {reason}")
        self.line, self.col, self.reason = line, col, reason


class TooDeep(Unparsable):
    """The text nests beyond what any parser follows: no honest script does."""
