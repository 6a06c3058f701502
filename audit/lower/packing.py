"""Nodes as bytes: each one a call with its fields, which is read back in half the time that Python's own form takes.

Beside the statements, a list of all their nodes is kept: whoever moves them to another line need not look for them.
"""

from __future__ import annotations

import io
import pickle
import zlib
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from audit import ir

#: statements, and every node in them
Packed = tuple[list[ir.Stmt], list[ir.Node]]


def with_nodes(statements: list[ir.Stmt]) -> Packed:
    return statements, list(ir.walk(statements))


def pack(nodes: Packed) -> bytes:
    """Raises ValueError for what nests too deeply."""
    out = io.BytesIO()
    try:
        _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(nodes)
    except (RecursionError, pickle.PicklingError) as error:
        raise ValueError(f"cannot be kept: {error}") from None
    return zlib.compress(out.getvalue(), 1)


def unpack(packed: bytes) -> Packed:
    """Raises ValueError for what is torn."""
    try:
        return pickle.loads(zlib.decompress(packed))  # type: ignore[no-any-return]
    except (zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"cannot be read: {error}") from None


def _maker(cls: type) -> Callable[..., Any]:
    """A function of this module that builds a node of the class from its fields in order.

    Its code is made of the names of `audit.ir`'s own fields alone.
    """
    names = [spec.name for spec in fields(cls)]
    lines = [f"def make({', '.join(names)}):", "node = new(cls)", *(f"node.{n} = {n}" for n in names), "return node"]
    scope: dict[str, Any] = {"new": object.__new__, "cls": cls}
    exec("\n    ".join(lines), scope)
    make: Callable[..., Any] = scope["make"]
    make.__module__, make.__qualname__ = __name__, f"make_{cls.__name__}"
    globals()[make.__qualname__] = make
    return make


def _reducer(cls: type) -> Callable[[Any], tuple[Callable[..., Any], Any]]:
    make, values = _maker(cls), attrgetter(*(spec.name for spec in fields(cls)))
    return lambda node: (make, values(node))


class _Pickler(pickle.Pickler):
    dispatch_table = {  # noqa: RUF012 - the name is that of `pickle`
        cls: _reducer(cls) for cls in vars(ir).values()
        if isinstance(cls, type) and issubclass(cls, ir.Node) and cls not in (ir.Node, ir.Expr, ir.Stmt)
    }  # fmt: skip


__all__ = ["Packed", "pack", "unpack", "with_nodes"]
