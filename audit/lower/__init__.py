"""Text to intermediate representation: one call, whatever it takes to parse the text.

libcst comes first: its grammar is the newest one on every Python, so that verdicts do not depend on
the interpreter. It is slow: a text is cut into pieces (`audit.lower.pieces`), and those for which `ast` is known to give the same
nodes are left to that (`audit.lower.quick`). Where it rejects what Python runs (minified spacing, a backslash before an indent), the
text is repaired without moving a line, then `ast` is asked. Only what none of them accepts is
`Unparsable`.

Conventions that both front ends keep (positions as ``ast`` counts them, columns in characters):

- a function or class starts at ``def``/``class``, not at its decorators; parentheses around an
  expression do not belong to it, except those of a tuple or a generator;
- an f-string holds its text pieces as Const and its expressions in order; of a format spec only the
  nested expressions are kept; a spec's text and a conversion (``!r``) are dropped;
- a list, tuple or set of more than `strings.MAX_TABLE` constants keeps the first so many;
- ``x[a, b]`` has a tuple as index; ``elif`` is an If alone in ``orelse``;
- a ``while`` that only counts is a ``for`` over a range (`audit.lower.counted`).
"""

from __future__ import annotations

import ast
import hashlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from audit import ir
from audit.lower import repair
from audit.lower.counted import counted
from audit.lower.errors import TooDeep, Unparsable
from audit.lower.from_ast import lower_ast

__all__ = ["TooDeep", "Unparsable", "lower"]

T = TypeVar("T")
#: Stack of the thread that libcst's recursive parser runs in; the default 8 MB end at depth 1,000.
STACK = 256 * 2**20
RECURSION = 12_000


def lower(text: str, path: str) -> ir.Module:
    """Parses ``text`` and lowers it.

    Raises `Unparsable` with position and reason, `TooDeep` where only the nesting is at fault, nothing else.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\f", " ")
    lines = text.split("\n")
    module = _best(text, path, lines)
    counted(module.body)
    module.sha256, module.lines = digest, lines
    return module


def _best(text: str, path: str, lines: list[str]) -> ir.Module:
    """The first front end's result that accepts the text."""
    safe = not repair.risky(text)
    reason: Exception | None = None
    if safe:
        found = _libcst(text, path)
        if isinstance(found, ir.Module):
            return found
        reason = found
    try:
        return _ast(text, path, lines)
    except Unparsable as error:
        rejected = error
    if safe and reason is not None:
        spaced, inserted = repair.spaced(text)
        if inserted and isinstance(found := _libcst(spaced, path, inserted), ir.Module):
            found.frontend = "repaired"
            return found
    if (plain := repair.without_magics(text)) is not None:
        parsed = _libcst(plain, path) if safe else None
        module = parsed if isinstance(parsed, ir.Module) else _ast(plain, path, plain.split("\n"))
        module.frontend = "repaired"
        return module
    raise rejected


def _libcst(text: str, path: str, inserted: list[int] | None = None) -> ir.Module | Exception:
    """libcst's result, or why there is none; statements that `audit.lower.quick` lowers to the same nodes are not parsed by it."""
    from audit.lower.pieces import lower_pieces
    from audit.lower.quick import plain

    def parse(text: str) -> ir.Module:
        import libcst  # a fifth of a second

        from audit.lower.cursor import Cursor
        from audit.lower.from_libcst import lower_libcst

        with _unvalidated():
            tree = libcst.parse_module(text)
        return lower_libcst(tree, path, Cursor(text, inserted))

    def piece_of(text: str) -> list[ir.Stmt]:
        found = plain(text)
        return parse(text).body if found is None else found

    def work() -> ir.Module:
        if not inserted:
            with suppress(Exception):  # then the module is parsed whole, which says what is wrong
                return lower_pieces(text, path, piece_of)
        return parse(text)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer interpreters print one for "\\d"
            return _with_stack(work)
    except Exception as error:  # its parser raises several kinds; any means "ask the next front end"
        return error


@contextmanager
def _unvalidated() -> Iterator[None]:
    """Lets libcst build its nodes without checking each: they come from its own parser, and a sixth of the time goes there.

    The checks are for nodes made by hand; on parsed ones they only reject ``a if b else.5``, which Python runs. Where
    a release no longer has the hook, such texts are repaired instead.
    """
    from libcst._nodes.base import CSTNode

    check = CSTNode.__dict__.get("__post_init__")
    if check is None:
        yield
        return
    CSTNode.__post_init__ = lambda _self: None  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        CSTNode.__post_init__ = check  # type: ignore[method-assign]


def _with_stack(work: Callable[[], T]) -> T:
    """Runs ``work`` where deep recursion has room. Re-raises what it raises."""
    done: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    limit = sys.getrecursionlimit()
    before = threading.stack_size(STACK)
    sys.setrecursionlimit(max(limit, RECURSION))
    try:
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
        sys.setrecursionlimit(limit)
    if failed:
        raise failed[0]
    return done[0]


def _ast(text: str, path: str, lines: list[str]) -> ir.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = _with_stack(lambda: lower_ast(ast.parse(text), path, lines))
    except SyntaxError as error:
        kind = TooDeep if "too many" in error.msg else Unparsable
        raise kind(error.lineno or 1, (error.offset or 1) - 1, error.msg) from None
    except (RecursionError, MemoryError):
        raise TooDeep(1, 0, "expressions nest too deeply") from None
    except ValueError as error:
        raise Unparsable(1, 0, str(error)) from None
    module.frontend = "ast"
    return module
