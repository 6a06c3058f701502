"""Branches of a module's methods that the values of its attributes keep closed.

No rule lives here. The trace knows which plain attributes the instances of a class were built with; a method that asks
for one of them (``if not self.style_enabled: return x``) goes one way only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from audit import ir

_NONE: Mapping[str, Any] = {}


def settings_of(models: Iterable[Any], name: str) -> dict[str, Any]:
    """Attributes that every instance of a class holds at one known value.

    What an object that it holds has (``self.args.use_memory``) is listed under its name with a dot before it, what its
    constructor is given under ``__init__.name``.
    """
    known: dict[str, Any] = {}
    doubtful: set[str] = set()

    def note(attribute: str, v: Any) -> None:
        if v.kind != "const" or (attribute in known and known[attribute] != v.const):
            doubtful.add(attribute)
        known.setdefault(attribute, v.const)

    for instance in models:
        if getattr(instance.cls, "name", None) != name:
            continue
        for attribute, v in instance.attrs.items():
            note(attribute, v)
            if v.kind == "obj" and not v.models:
                held = {**getattr(v.data.cls, "attrs", {}), **v.data.attrs}
            else:
                held = v.data.attrs if v.kind == "class" else {}
            for inner, value in held.items():
                note("." + inner, value)
    return {k: v for k, v in known.items() if k not in doubtful}


def closed_by(body: list[Any], settings: Mapping[str, Any]) -> Iterator[int]:
    """Statements that the settings keep closed, those after a return that they force included."""
    for n, s in enumerate(body):
        if isinstance(s, ir.If):
            test = decided(s.test, settings)
            for way, shut in ((s.body, test is False), (s.orelse, test is True)):
                if shut:
                    yield from (id(x) for x in ir.walk(way))
                else:
                    yield from closed_by(way, settings)
            live = s.body if test is True else s.orelse if test is False else []
            if live and isinstance(live[-1], (ir.Return, ir.Raise)):
                yield from (id(x) for x in ir.walk(body[n + 1 :]))
                return
        elif isinstance(s, (ir.For, ir.While, ir.With)):
            yield from closed_by(s.body, settings)


def decided(test: Any, settings: Mapping[str, Any], local: Mapping[str, Any] = _NONE) -> bool | None:
    """What a condition comes to, None where the settings, or ``local`` names of constants, do not say."""
    if isinstance(test, ir.UnaryOp) and test.op == "not":
        inner = decided(test.operand, settings, local)
        return None if inner is None else not inner
    if isinstance(test, ir.BoolOp):
        parts = [decided(v, settings, local) for v in test.values]
        decides = test.op == "or"
        if decides in parts:
            return decides
        return None if None in parts else not decides
    if isinstance(test, ir.Compare) and len(test.ops) == 1 and isinstance(test.comparators[0], ir.Const):
        found, value = _setting(test.left, settings, local)
        other, op = test.comparators[0].value, test.ops[0]
        if not found:
            return None
        if op in ("==", "is"):
            return bool(value == other)
        if op in ("!=", "is not"):
            return bool(value != other)
        if isinstance(value, (int, float)) and isinstance(other, (int, float)):
            return {"<": value < other, "<=": value <= other, ">": value > other, ">=": value >= other}.get(
                op
            )
        return None
    found, value = _setting(test, settings, local)
    return bool(value) if found else None


def _setting(node: Any, settings: Mapping[str, Any], local: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether ``self.name``, or ``args.name`` of an object that the instance holds, is known, and its value."""
    if isinstance(node, ir.Name) and node.id in local:
        return True, local[node.id]
    if isinstance(node, ir.Attr):
        own = isinstance(node.value, ir.Name) and node.value.id == "self"
        name = node.attr if own else "." + node.attr
        if name in settings:
            return True, settings[name]
    return False, None


__all__ = ["closed_by", "decided", "settings_of"]
