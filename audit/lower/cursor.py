"""Where libcst's nodes stand: a cursor that walks the text along with the tree.

libcst's nodes carry no positions, and its metadata provider costs three times the parse. But a visit in
source order meets every name, literal and bracket exactly once, so a cursor that is told what comes next
finds it by looking past punctuation, keywords and comments.
"""

from __future__ import annotations

import keyword
import re
from bisect import bisect_left, bisect_right

_TRIVIA = re.compile(r"(?:[ \t\f\n\\]|#[^\n]*)*")
_TOKEN = re.compile(r"[^\W\d]\w*|\.\.\.|\*\*=?|//=?|>>=?|<<=?|!=|->|:=|[-+*/%@&|^=<>]=|.", re.S)
_KEYWORDS = frozenset(keyword.kwlist) | {"match", "case", "type", "_"}


class Mismatch(Exception):
    """The text does not continue as the tree says; the tree's positions cannot be told."""


class Cursor:
    """A position in ``text`` that only moves forward.

    ``inserted``: offsets at which characters were put in that the original text lacks; columns are
    counted without them.
    """

    __slots__ = ("inserted", "pos", "starts", "text")

    def __init__(self, text: str, inserted: list[int] | None = None) -> None:
        self.text = text
        self.pos = 0
        self.starts = [0, *(m.end() for m in re.finditer("\n", text))]
        self.inserted = inserted or []

    def seek(self, token: str) -> int:
        """Moves behind the next ``token`` and returns its offset; only punctuation and keywords lie before."""
        text, pos = self.text, self.pos
        trivia, tokens = _TRIVIA.match, _TOKEN.match
        while True:
            pos = trivia(text, pos).end()  # type: ignore[union-attr]
            found = tokens(text, pos)
            if found is None:
                raise Mismatch(f"{token!r} not found")
            word = found[0]
            if word == token:
                self.pos = found.end()
                return pos
            if word.isidentifier() and word not in _KEYWORDS:
                raise Mismatch(f"{word!r} where {token!r} was expected at offset {pos}")
            pos = found.end()

    def literal(self, raw: str) -> int:
        """Moves behind the next number or string, spelled ``raw``, and returns its offset."""
        text, pos = self.text, self.pos
        while True:
            pos = _TRIVIA.match(text, pos).end()  # type: ignore[union-attr]
            if text.startswith(raw, pos):
                self.pos = pos + len(raw)
                return pos
            found = _TOKEN.match(text, pos)
            if found is None or (found[0].isidentifier() and found[0] not in _KEYWORDS):
                raise Mismatch(f"{raw[:30]!r} not found at offset {pos}")
            pos = found.end()

    def exactly(self, raw: str) -> None:
        """Moves over ``raw``, which must follow at once (the pieces of an f-string)."""
        if not self.text.startswith(raw, self.pos):
            raise Mismatch(f"{raw[:30]!r} does not follow at offset {self.pos}")
        self.pos += len(raw)

    def line(self, offset: int) -> int:
        return bisect_right(self.starts, offset)

    def at(self, start: int) -> dict[str, int]:
        """Line, column and last line of what reaches from ``start`` to the cursor."""
        line = bisect_right(self.starts, start)
        first = self.starts[line - 1]
        col = start - first
        if self.inserted:
            col -= bisect_left(self.inserted, start) - bisect_left(self.inserted, first)
        return {"line": line, "col": col, "end_line": bisect_right(self.starts, self.pos - 1)}
