"""Finds C and C++ text in a submission and hands its functions to the interpreter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from audit import ir
from audit.native.flow import Unit
from audit.native.model import NativeFunction

SUFFIXES = (".c", ".cc", ".cpp", ".cxx", ".h", ".hpp")
MAX_TEXT = 400_000
MAX_UNITS = 12
#: a definition: a type, a name, parentheses, an opening brace, and a loop or return somewhere
LIKE_C = re.compile(r"\b(?:void|int|float|double|static|extern|u?int\d+_t|size_t)\b[\w\s*]*\([^;{}]*\)\s*\{", re.S)
#: how any such definition looks in Python source, quotes and escapes included; without one the tree is not walked
_HEAD = re.compile(r"\)(?:\s|\\[nrt]|[\"'\\])*\{")


@cache
def _parser() -> Any:
    import tree_sitter
    import tree_sitter_cpp

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_cpp.language()))


def embedded(modules: Iterable[ir.Module]) -> list[tuple[str, int, str]]:
    """(path, first line, text) of C source that a module holds as a string constant."""
    found = []
    for module in modules:
        if _HEAD.search("\n".join(module.lines)) is None:
            continue
        for n in ir.walk(module.body):
            if isinstance(n, ir.Const) and isinstance(n.value, str) and len(n.value) > 200 and LIKE_C.search(n.value):
                # The position is that of the first quote; a triple-quoted text starts on that line.
                found.append((module.path, n.line, n.value))
    return found


def read_native(texts: Mapping[str, str], modules: Iterable[ir.Module]) -> list[NativeFunction]:
    """The functions of all C files in ``texts`` (path -> text) and of C text inside ``modules``.

    Text that is no C, or too long, gives nothing; never raises for what a submission contains.
    """
    sources = [(p, 1, t) for p, t in texts.items() if p.endswith(SUFFIXES)] + embedded(modules)
    found: list[NativeFunction] = []
    for path, line, text in sources[:MAX_UNITS]:
        if len(text) > MAX_TEXT or "__global__" in text:
            continue
        tree = _parser().parse(text.encode("utf-8", "replace"))
        try:
            found += Unit(tree.root_node, path, line).functions()
        except RecursionError:
            continue
    return found
