"""Tables that are emptied where a test says so: when a document begins, when they are full.

Where the test is not known, the table may as well be kept: it then holds what it held. Where the test asks for the very token
that is scored next from the table, that token has decided what is said of it (rule F7); a cache is emptied after
the score, or by a token that was scored before.
"""

from __future__ import annotations

from typing import Any

from audit.trace.values import TRAIN, VAL, V, join, members, untouched

TABLES = frozenset(["dict", "seq", "val"])
BY_OWN_TOKEN = "a table is emptied or kept by the very token that is scored next from it"


def taken_in(v: V) -> bool:
    """Has a table taken in validation tokens."""
    if v.kind == "seq":
        return bool(v.taint) or any(x.taint for x in members(v))
    return bool(v.taint or (v.kind == "dict" and (v.flags & VAL or (v.rest is not None and v.rest.taint))))


def fresh(v: V) -> bool:
    """``{}``, ``[]``, ``defaultdict(int)``, ``np.zeros(n)``."""
    if v.kind in ("dict", "seq"):
        return not v.data and v.rest is None and not taken_in(v)
    return untouched(v) and not v.taint and not v.models


class Emptied:
    """Mixed into the machine; see `audit.trace.machine`."""

    def may_be_kept(self: Any, table: V, node: Any) -> bool:
        """Notes that ``table`` is emptied here; True where it is under a test that could not be decided."""
        if not self.forks or table.flags & TRAIN or not taken_in(table):
            return False
        if tokens := frozenset(k for gate in self.gates for k in gate):
            e = self.event("EMPTIED", node, V("val", flags=VAL), keys=tokens, edit=BY_OWN_TOKEN)
            table.taint = table.taint | {e.id}
        return True

    def replaced(self: Any, old: V | None, new: V, node: Any, *, joined: bool) -> V:
        """``cache = {}``, ``self.rows = {}``; ``joined``: the two ways of a branch meet by themselves (local names)."""
        if not self.forks or old is None or old is new or old.kind not in TABLES or not fresh(new):
            return new
        return join(old, new) if self.may_be_kept(old, node) and not joined else new


__all__ = ["BY_OWN_TOKEN", "TABLES", "Emptied", "fresh", "taken_in"]
