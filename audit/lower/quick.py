"""Short pieces of plain text by `ast`: a fifth of the time of libcst for the same nodes.

Scripts are parsed in pieces (`audit.lower.pieces`). Most hold nothing in which the two front ends, or two
versions of Python, differ. `plain` lowers those, and hands on whatever might come out otherwise, or might be rejected by
libcst (then the module is not its work, and says so).
"""

from __future__ import annotations

import ast
import sys
import unicodedata
from functools import cache

from audit import ir
from audit.lower.from_ast import Lowerer

#: The oldest grammar that this program runs on: what is newer, libcst decides.
GRAMMAR = (3, 11)
#: what stands in several literals that make one f-string, each on a line of its own; 3.12 places everything right
_PLACED = (3, 12)
_SAMPLE = 'x = (f"a {b}"\n   "c"\n      f"{d:{e}} {g!r}")'
_AT = {"b": (1, 10), "d": (3, 9), "e": (3, 12), "g": (3, 17)}


class _Differs(Exception):
    """libcst builds other nodes, or none."""


class _Plain(Lowerer):
    def on_JoinedStr(self, n: ast.JoinedStr) -> ir.Expr:
        if n.end_lineno != n.lineno and sys.version_info < _PLACED:
            rows = self.lines[n.lineno - 1 : n.end_lineno]
            if not _places_literals() or any(mark in row for row in rows for mark in ('"""', "'''")):
                raise _Differs  # one literal of several lines
        return super().on_JoinedStr(n)

    def on_AnnAssign(self, n: ast.AnnAssign) -> ir.Stmt:
        if isinstance(n.target, ast.Name) and not n.simple:
            raise _Differs  # ``(a): int``
        return super().on_AnnAssign(n)

    def on_Match(self, n: ast.Match) -> ir.Stmt:
        raise _Differs

    def params(self, args: ast.arguments) -> list[ir.Param]:
        if args.vararg is not None and isinstance(args.vararg.annotation, ast.Starred):
            raise _Differs
        return super().params(args)


@cache
def _places_literals() -> bool:
    """Does this interpreter's `ast` place names in f-strings of one line each, joined over several lines."""
    found = {n.id: (n.lineno, n.col_offset) for n in ast.walk(ast.parse(_SAMPLE)) if isinstance(n, ast.Name)}
    return all(found.get(name) == at for name, at in _AT.items())


def plain(text: str) -> list[ir.Stmt] | None:
    """The statements of ``text``; None where libcst has to be asked."""
    # A backslash may stand where libcst takes none; names are spelled as they are there, in one form here.
    if "\\\n" in text or not unicodedata.is_normalized("NFKC", text):
        return None
    try:
        tree = ast.parse(text, feature_version=GRAMMAR)
        return _Plain(text.split("\n")).all(tree.body)
    except (_Differs, SyntaxError, ValueError, KeyError, RecursionError, MemoryError):
        return None


__all__ = ["plain"]
