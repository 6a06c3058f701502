"""Token ids moved on by one position with ``roll``, whose first position is given the window's last token.

No rule lives here. Ids count where nothing but arithmetic stands between the roll and the table that is looked up, and
nothing overwrites the first position under any of the names on the way.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.rules.axes import argument, number
from audit.rules.code import Code, Place

WRAPPED = "the window's first position is given its last token"
_PLAIN = frozenset("long int to clamp abs remainder bitwise_xor".split())


def wrapped(code: Code, place: Place, node: Any) -> ir.Call | None:
    """The roll that ids, as a table is looked up with them, go back to."""
    names: set[str] = set()
    found = _chain(code, place, node, names)
    return None if found is None or _mended(place, names) else found


def _chain(code: Code, place: Place, node: Any, names: set[str]) -> ir.Call | None:
    if isinstance(node, ir.Name):
        made = place.assigned(node.id)
        if len(made) != 1 or node.id in names:
            return None
        names.add(node.id)
        return _chain(code, place, made[0], names)
    if isinstance(node, ir.BinOp):
        if node.op == "*" and not any(isinstance(x, ir.Const) for x in (node.left, node.right)):
            return None  # perhaps with a mask
        return _chain(code, place, node.left, names) or _chain(code, place, node.right, names)
    if not (isinstance(node, ir.Call) and isinstance(node.func, ir.Attr)):
        return None
    if node.func.attr == "roll":
        library = code.dotted(place, node.func) == "torch.roll"
        rest = node.args[1:] if library else node.args
        ids = node.args[0] if library and node.args else node.func.value
        by, over = argument(rest, 0, node.keywords, "shifts"), argument(rest, 1, node.keywords, "dims")
        plain = isinstance(ids, ir.Name) and place.function is not None and any(p.name == ids.id for p in place.function.params)
        return node if plain and (number(by) or 0) > 0 and number(over) in (1, -1) else None
    if node.func.attr not in _PLAIN:
        return None
    return _chain(code, place, node.func.value, names) or next(
        (c for c in (_chain(code, place, a, names) for a in node.args) if c is not None), None
    )


def _mended(place: Place, names: set[str]) -> bool:
    """Is anything written into one of the names."""
    for n in place.nodes(ir.Assign, ir.AugAssign):
        for t in n.targets if isinstance(n, ir.Assign) else [n.target]:
            if not isinstance(t, ir.Name) and any(isinstance(x, ir.Name) and x.id in names for x in ir.walk(t)):
                return True
    for n in place.nodes(ir.Call):
        into = isinstance(n.func, ir.Attr) and n.func.attr.endswith("_") and isinstance(n.func.value, ir.Name) and n.func.value.id in names
        if into or any(k == "out" and isinstance(v, ir.Name) and v.id in names for k, v in n.keywords):
            return True
    return False


__all__ = ["WRAPPED", "wrapped"]
