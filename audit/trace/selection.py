"""Files told apart by their names: ``[p for p in shards if "val" in p.name]``.

A glob over a whole folder holds training and validation shards alike; a test on the name decides which of them a list
takes in. Under such a test the path counts as one that spells the split out.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import TRAIN, VAL, V, clone, derive

#: what is asked of a path, or of the text that it is turned into, before its name is looked at
_PARTS = frozenset(["name", "stem", "lower", "as_posix", "basename", "str", "fspath", "resolve"])
_ASKS = frozenset(["startswith", "endswith", "match", "search", "fullmatch", "fnmatch", "fnmatchcase"])
#: constant of a value that stands for the files of a folder
LISTED = ("listed",)


class Selection:
    """Mixed into the machine; see `audit.trace.machine`."""

    def selects(self: Any, test: ir.Expr) -> tuple[str, V] | None:
        """The name whose file a test picks by its spelling, with its value where the test holds."""
        if isinstance(test, ir.BoolOp) and test.op == "and":
            return next((found for part in test.values if (found := self.selects(part)) is not None), None)
        text = asked = None
        but = False
        if isinstance(test, ir.UnaryOp) and test.op == "not":
            test, but = test.operand, True
        if isinstance(test, ir.Compare) and test.ops in (["in"], ["not in"]):
            but ^= test.ops == ["not in"]
            text, asked = test.left, test.comparators[0]
        elif isinstance(test, ir.Call) and isinstance(test.func, ir.Attr) and test.func.attr in _ASKS and test.args:
            texts = [a for a in test.args if isinstance(a, (ir.Const, ir.Name))]
            others = [a for a in test.args if not isinstance(a, ir.Const)]
            text, asked = (texts[0] if texts else None), test.func.value
            if test.func.attr not in ("startswith", "endswith") and others:
                asked = others[-1]  # ``fnmatch(name, pattern)``, ``re.match(pattern, name)``
                text = next((a for a in test.args if a is not asked), None)
        name = _path_name(asked)
        if name is None or text is None:
            return None
        said = self.ev(text)
        if said.kind != "const" or not isinstance(said.const, str):
            return None
        flags = self.text_flags(said.const) or self.text_flags(f"/{said.const.strip('*_')}_0.bin")
        old = self.scope.names.get(name)
        if flags not in (VAL, TRAIN) or old is None or old.flags & (VAL | TRAIN) or not _is_path(old):
            return None
        refined = clone(old)
        refined.flags |= (VAL | TRAIN) ^ flags if but else flags  # of the two splits the other one
        return name, refined


def listed(pattern: V) -> V:
    """The files that a glob or a listing found: one value that stands for each of them."""
    found = derive([pattern])
    found.knobs = pattern.knobs
    found.const = LISTED
    return found


def _is_path(v: V) -> bool:
    if v.kind == "const":
        return isinstance(v.const, str) and any(part in v.const for part in ("/", "*", ".bin"))
    return v.kind == "val" and v.const == LISTED


def _path_name(e: Any) -> str | None:
    while not isinstance(e, ir.Name):
        if isinstance(e, ir.Attr) and e.attr in _PARTS:
            e = e.value
        elif isinstance(e, ir.Call):
            called = e.func.attr if isinstance(e.func, ir.Attr) else e.func.id if isinstance(e.func, ir.Name) else ""
            if called not in _PARTS:
                return None
            e = e.args[0] if e.args else e.func.value if isinstance(e.func, ir.Attr) else None
        else:
            return None
    return e.id


__all__ = ["Selection", "listed"]
