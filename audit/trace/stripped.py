"""Buffers made of the stream's tokens that a state dict is written without, and that the live model keeps.

``{k: v for k, v in model.state_dict().items() if k not in names}`` leaves named buffers out of the artifact;
``load_state_dict(…, strict=False)`` into the same model leaves them as they were. What was counted into them then reaches
the score outside of what was written.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import V, clone


class Stripped:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_buffer(self: Any, inst: Any, stmt: Any, made: V) -> None:
        """``self.register_buffer("counts", counts)`` in a constructor."""
        call = stmt.value if isinstance(stmt, ir.ExprStmt) else None
        if isinstance(call, ir.Call) and call.args and isinstance(call.args[0], ir.Const) and isinstance(call.args[0].value, str) and made.taint:
            inst.buffers[call.args[0].value] = made.taint

    def keep_buffers(self: Any, inst: Any, strict: V | None) -> None:
        """What is loaded lacks them, and need not have them."""
        if inst.buffers and strict is not None and strict.kind == "const" and strict.const is False:
            inst.state.taint = inst.state.taint.union(*inst.buffers.values())

    def without_buffers(self: Any, e: ir.Comp, out: V) -> V:
        """A state dict without those entries whose names a written set holds."""
        held = out.rest
        if held is None or not held.models or len(e.generators) != 1 or len(e.generators[0].ifs) != 1:
            return out
        owners = [self.serials[m].data for m in held.models if m in self.serials and self.serials[m].data.buffers]
        test, target = e.generators[0].ifs[0], e.generators[0].target
        key = target.elts[0] if isinstance(target, ir.Collection) and target.elts else target
        if not owners or not isinstance(test, ir.Compare) or test.ops != ["not in"] or not isinstance(key, ir.Name):
            return out
        if not (isinstance(test.left, ir.Name) and test.left.id == key.id):
            return out
        named = self.ev(test.comparators[0])
        known = {x.const for x in named.data or [] if x.kind == "const"} if named.kind == "seq" else set(named.const) if isinstance(named.const, (tuple, list, set, frozenset)) else set()
        gone: frozenset = frozenset()
        for inst in owners:
            left = frozenset().union(*(taint for name, taint in inst.buffers.items() if name not in known))
            for name, taint in inst.buffers.items():
                if name in known and taint - left:
                    gone |= taint - left
                    self.trace.stripped.append((inst.cls, name, taint - left, self.scope.path, e.line))
        if gone:
            out.rest = clone(held)
            out.rest.taint = held.taint - gone
        return out


__all__ = ["Stripped"]
