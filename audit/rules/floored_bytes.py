"""The source side of rule M1: tokens without bytes that count as one byte, and bytes of tokens that a turn does not score.

No rule lives here. Separators and control tokens have no bytes; a table of at least one byte for each token makes the
divisor of the score too large. What the trace saw is a table, or what it gives for each target, raised to one, whose sum
divides the reported score (`audit.trace.floors`); what the text shows is a table that begins as ones and whose loop over
the pieces goes past those tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.code import Place, code_of, finding
from audit.rules.flow import event_finding
from audit.rules.pieces import measures

_NO_BYTES = frozenset({"is_control", "IsControl"})
_MADE = "a token without bytes (a separator, a control token) counts as one byte: the bytes are too many"

_SCALED = "the counted bytes are multiplied by a number from the script: the bytes are too many"
_MORE = "the bytes of whole windows are counted, of which only the new tokens are scored: the bytes are too many"


def floored_bytes(rule: Rule, ctx: Context) -> Iterator[Finding | Obligation]:
    """Findings where tokens without bytes count; nothing elsewhere. A tokenizer of bytes has no pieces to measure."""
    code = code_of(ctx)
    builders = [p for p in code.places if id(p) in code.reached and measures(p)]
    trace = ctx.trace
    reports = [e for e in trace.reports() if e.on_val and e.scores and (trace.chosen is None or e.id in trace.chosen)] if trace is not None else []
    for path, line in reports[-1].detail["scaled"][:1] if reports else ():
        yield replace(event_finding(rule, reports[-1], _SCALED), path=path, line=line, end_line=line)
    if not builders:
        return
    for place in builders:
        if (made := _ones(place)) is not None:
            yield finding(rule, code, place, made, _MADE)
    for kind, said in (("floored", _MADE), ("more", _MORE)):
        for path, line, *least in reports[-1].detail[kind][:1] if reports else ():
            what = said if not least or least[0] == 1 else f"each token counts as {least[0]} bytes at least: the bytes are too many"
            yield replace(event_finding(rule, reports[-1], what), path=path, line=line, end_line=line, column=0)


def _ones(place: Place) -> ir.Node | None:
    """``lengths = np.ones(size)``, filled with lengths of pieces in a loop that goes past control tokens."""
    for node in place.nodes(ir.Assign):
        if len(node.targets) == 1 and isinstance(node.targets[0], ir.Name) and _is_ones(node.value):
            name = node.targets[0].id
            stores = [n for n in place.nodes(ir.Assign) if any(_entry_of(name, t) for t in n.targets)]
            if any(_of_length(n.value) for n in stores) and not any(_zero(n.value) for n in stores) and _passes(place, name):
                return node
    return None


def _is_ones(value: Any) -> bool:
    if not isinstance(value, ir.Call) or not isinstance(value.func, ir.Attr):
        return False
    if value.func.attr == "full":
        return len(value.args) > 1 and isinstance(value.args[1], ir.Const) and value.args[1].value == 1
    return value.func.attr == "ones" and not any(isinstance(n, (ir.Attr, ir.Name)) and "bool" in (n.attr if isinstance(n, ir.Attr) else n.id) for _, n in value.keywords)


def _entry_of(name: str, target: Any) -> bool:
    return isinstance(target, ir.Sub) and isinstance(target.value, ir.Name) and target.value.id == name


def _of_length(value: Any) -> bool:
    return any(isinstance(n, ir.Call) and isinstance(n.func, ir.Name) and n.func.id == "len" for n in ir.walk(value))


def _zero(value: Any) -> bool:
    return any(isinstance(n, ir.Const) and n.value == 0 and not isinstance(n.value, bool) for n in ir.walk(value))


def _passes(place: Place, name: str) -> bool:
    """``if sp.is_control(t): continue``, and nothing is put into the table before."""
    for branch in place.nodes(ir.If):
        tested = any(isinstance(n, ir.Attr) and n.attr in _NO_BYTES for n in ir.walk(branch.test))
        negated = isinstance(branch.test, ir.UnaryOp)
        leaves = bool(branch.body) and isinstance(branch.body[-1], ir.Jump) and branch.body[-1].kind == "continue"
        if tested and leaves and not negated and not any(_entry_of(name, t) for s in branch.body if isinstance(s, ir.Assign) for t in s.targets):
            return True
    return False


__all__ = ["floored_bytes"]
