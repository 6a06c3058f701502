"""Models that are given the very tokens that they are asked for: whether they are shown to move them, or to see them.

No rule lives here. ``cross_entropy(model.forward_logits(x), x)``, or a model that is given its targets beside the tokens
before them (``local[:-1]``, ``local[1:]``), is followed from the tokens to the predictions (`audit.rules.shifted`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audit import ir
from audit.rules.axes import number
from audit.rules.code import Code, Place
from audit.rules.layers import Layers
from audit.rules.places import called
from audit.rules.reach import Reach
from audit.rules.sequence import Sequences, sequences_of
from audit.rules.shifted import Follower, Held, stripped
from audit.trace.gates import TOLD

SEEN = "the model is given the token that it is asked for and does not move it away"


@dataclass(frozen=True, slots=True)
class Asked:
    """A loss over predictions of a model that is given its targets; ``sees``: does it see them, None where that is not known."""

    place: Place
    loss: ir.Call
    sees: bool | None
    followed: frozenset[tuple[str, int]]


def asked(code: Code) -> list[Asked]:
    """Every such loss in the program, found once."""
    if "told" not in code.ctx.shared:
        code.ctx.shared["told"] = list(_asked(code))
    return code.ctx.shared["told"]  # type: ignore[no-any-return]


def shown_apart(code: Code) -> frozenset[tuple[str, int]]:
    """Where attention was followed on the way to predictions that are shown not to see their tokens, and to no others."""
    several = asked(code)
    if any(a.sees is None for a in several):
        return frozenset()
    apart, seen = (frozenset().union(*(a.followed for a in several if a.sees is sees)) for sees in (False, True))
    return apart - seen


def sees_targets(code: Code) -> list[Asked]:
    """Those that are scored on validation data, and whose model is shown to see what it is asked for."""
    trace = code.ctx.trace
    seen = [a for a in asked(code) if a.sees]
    if trace is None or not seen:
        return []
    scored = {k[1] for s in trace.of("SCORE", active=True) if s.on_val for k in s.detail.get("keys", ()) if k[0] == "gate"}
    at = {(e.path, e.line) for e in trace.of("GATE") if e.id in scored and e.detail.get("edit") == TOLD}
    return [a for a in seen if (a.place.path, a.loss.line) in at]


def _asked(code: Code) -> Any:
    along = sequences_of(code)
    layers = Layers(code, along)
    for place in code.places:
        if place.function is None or "cross_entropy" not in place.names:
            continue
        for loss in place.nodes(ir.Call):
            if called(loss) == "cross_entropy" and len(loss.args) > 1:
                made = _Loss(code, along, layers, place, loss).judged()
                if made is not None:
                    yield made


class _Loss:
    def __init__(self, code: Code, along: Sequences, layers: Layers, place: Place, loss: ir.Call) -> None:
        self.code, self.along, self.layers, self.place, self.loss = code, along, layers, place, loss

    def judged(self) -> Asked | None:
        targets = stripped(self.loss.args[1])
        rows = stripped(self.loss.args[0])
        first = self._start(rows)
        call = self._made(rows)
        if call is None or first is None or not isinstance(targets, ir.Name) or not isinstance(call.func, ir.Attr):
            return None
        given = [a.id for a in call.args if isinstance(a, ir.Name)]
        if len(given) != len(call.args) or call.keywords or targets.id not in given:
            return None
        held: dict[str, Held] = {targets.id: Reach(("b", "t"), fine=0)}
        for name in given:
            if name != targets.id:
                if not self._before(name, targets.id):
                    return None
                held[name] = Reach(("b", "t"), fine=-1)
        methods = [m for m in self._methods(call.func) if m.function is not None]
        verdicts: list[bool | None] = []
        followed: set[tuple[str, int]] = set()
        for m in methods:
            assert m.function is not None
            params = [p for p in m.function.params if p.kind in ("pos", "posonly", "kwonly")][1:]
            follower = Follower(self.code, self.along, self.layers)
            env: dict[str, Held] = follower.defaults(m, params)
            env |= {p.name: held[name] for p, name in zip(params, given, strict=False)}
            verdicts.append(_sees(follower.run(m, env), first))
            followed |= follower.followed
        sees = verdicts[0] if len(set(verdicts)) == 1 else None
        return Asked(self.place, self.loss, sees, frozenset(followed))

    def _start(self, rows: Any) -> int | None:
        """How many predictions are left out in front."""
        if isinstance(rows, ir.Name):
            return 0
        parts = rows.index.elts if isinstance(rows, ir.Sub) and isinstance(rows.index, ir.Collection) and isinstance(rows.value, ir.Name) else []
        slices = [p for p in parts if isinstance(p, ir.Slice) and p.step is p.upper is None]
        return number(slices[1].lower) if len(parts) == len(slices) == 2 and slices[0].lower is None else None

    def _made(self, rows: Any) -> ir.Call | None:
        name = rows.value if isinstance(rows, ir.Sub) else rows
        made = [v for v in self.place.assigned(name.id) if v.line < self.loss.line] if isinstance(name, ir.Name) else []
        last = max(made, key=lambda v: v.line, default=None)
        return last if isinstance(last, ir.Call) else None

    def _methods(self, func: ir.Attr) -> list[Place]:
        """The methods of that name, of the models that the configuration builds, as far as that is known."""
        trace = self.code.ctx.trace
        several = [p for p in self.code.places if p.owner is not None and p.function is not None and p.function.name == func.attr]
        if trace is None:
            return several
        built = {getattr(x.cls, "name", None) for x in trace.parts}
        seen = [p for p in several if p.owner is not None and p.owner.name in built]
        return seen or [p for p in several if p.owner is not None and not trace.leaves_out(p.owner.name)]

    def _before(self, name: str, target: str) -> bool:
        """``x[i] = chunk[:-1]`` beside ``y[i] = chunk[1:]``: each token with the next one."""
        ends = [self._cut(n) for n in (name, target)]
        return ends[0] is not None and ends[1] is not None and ends[0][0] == ends[1][0] and (ends[0][1], ends[1][1]) == ((None, -1), (1, None))

    def _cut(self, name: str) -> tuple[str, tuple[int | None, int | None]] | None:
        found = []
        for s in self.place.nodes(ir.Assign):
            for t in s.targets:
                root = t.value if isinstance(t, ir.Sub) else t
                if isinstance(root, ir.Name) and root.id == name:
                    value = stripped(s.value)
                    if isinstance(value, ir.Sub) and isinstance(value.index, ir.Slice) and isinstance(value.value, ir.Name):
                        found.append((value.value.id, (number(value.index.lower), number(value.index.upper))))
                    elif not (isinstance(value, ir.Call) and called(value) in ("zeros", "empty", "full", "zeros_like")):
                        return None
        return found[0] if len(found) == 1 else None


def _sees(made: Held, first: int) -> bool | None:
    value = made[0] if isinstance(made, tuple) and made else made
    if not isinstance(value, Reach) or value.axes is None or value.lead != first or value.axes[0] not in ("b", "bn", "f"):
        return None
    return value.sees


__all__ = ["SEEN", "Asked", "asked", "sees_targets", "shown_apart"]
