"""Values of the evaluator that are not plain Python constants."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, ClassVar


class _Unknown:
    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        raise TypeError("an unknown value has no truth")


UNKNOWN = _Unknown()
Known = (str, bytes, bytearray, int, float, bool, type(None), tuple, list, dict)


def is_known(value: Any) -> bool:
    """A plain constant or container, whose truth value means something."""
    return isinstance(value, Known)


@dataclass(frozen=True, slots=True)
class Ref:
    """A module, or something in one, by canonical dotted name."""

    name: str


@dataclass(frozen=True, slots=True)
class VPath:
    """A path. The submission's tree lies at ``ROOT``; ``TEMP`` is a temporary folder."""

    path: str
    ROOT: ClassVar[str] = "/submission"
    TEMP: ClassVar[str] = "/tmp/unpacked"


@dataclass(slots=True)
class VFile:
    """An open file."""

    path: str
    mode: str


@dataclass(frozen=True, slots=True)
class Code:
    """What ``compile`` returns."""

    source: Any


@dataclass(slots=True)
class Function:
    """A function of the wrapper itself."""

    name: str
    args: ast.arguments
    body: list[ast.stmt]
    scope: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """A bound method, not called yet."""

    owner: Any
    name: str


@dataclass(slots=True)
class Instance:
    """An object of a known class: ``kind`` ("loader", "spec", "decompressor", …) and its state."""

    kind: str
    state: Any
