"""Short pieces of plain text by `ast`: a fifth of the time of libcst for the same nodes.

Scripts are parsed in pieces (`audit.lower.pieces`). Most hold nothing in which the two front ends, or two
versions of Python, differ. `plain` lowers those, and hands on whatever might come out otherwise, or might be rejected by
libcst (then the module is not its work, and says so).
"""

from __future__ import annotations

import ast
import sys
import unicodedata

from audit import ir
from audit.lower.from_ast import Lowerer

#: The oldest grammar that this program runs on: what is newer, libcst decides.
GRAMMAR = (3, 11)
#: before this version `ast` misplaces what stands in an f-string of several lines
_PLACED = (3, 12)


class _Differs(Exception):
    """libcst builds other nodes, or none."""


class _Plain(Lowerer):
    def on_JoinedStr(self, n: ast.JoinedStr) -> ir.Expr:
        if n.end_lineno != n.lineno and sys.version_info < _PLACED:
            raise _Differs
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
