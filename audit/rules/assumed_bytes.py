"""The source side of rule M1: a score that is divided by a written number of bytes per token.

No rule lives here. ``loss / (ln 2 * 3.5)`` counts no bytes: every token is taken for three and a half. Where a figure
with counted bytes is reported, such an estimate beside it is a diagnostic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.context import Context
from audit.evidence.identities import TOKENIZERS
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.code import Code, Place, code_of, finding, is_ln2
from audit.trace.values import BYTES

#: bytes per token of any tokenizer of words and their parts
LEAST, MOST = 1.5, 8.0


def assumed_bytes(rule: Rule, ctx: Context) -> Iterator[Finding | Obligation]:
    """A finding or an obligation where the reported score rests on assumed bytes; nothing elsewhere."""
    trace = ctx.trace
    if trace is None:
        return
    chosen = [e for e in trace.reports() if e.on_val and (trace.chosen is None or e.id in trace.chosen)]
    if not chosen or any(e.flags & BYTES for e in chosen):
        return
    code = code_of(ctx)
    for place in code.places:
        if id(place) not in code.reached:
            continue
        for node in place.nodes():
            if (
                not isinstance(node, ir.BinOp)
                or node.op != "/"
                or (assumed := _per_token(code, place, node)) is None
            ):
                continue
            ratio = _known_ratio(ctx)
            said = f"no bytes are counted: every token is taken for {assumed:g} bytes"
            if ratio is not None and assumed > 1.001 * ratio:
                yield finding(rule, code, place, node, f"{said}, and has {ratio:.4f} with this vocabulary")
                yield Obligation(rule=rule.id, status="violated", reason=f"{place.path}:{node.line}: {said}")
            else:
                yield Obligation(
                    rule=rule.id, status="undetermined", reason=f"{place.path}:{node.line}: {said}"
                )
            return


def _known_ratio(ctx: Context) -> float | None:
    """Bytes per token of the contest's tokenizer with the configured size of vocabulary."""
    value = ctx.knobs.lookup("VOCAB_SIZE")
    size = value.value if value is not None else ctx.knobs.default("VOCAB_SIZE")
    return next((t.ratio for t in TOKENIZERS if t.name == f"SP{size}"), None)


def _per_token(code: Code, place: Place, node: ir.BinOp) -> float | None:
    """The number that a quotient is divided by beside ln 2, where nothing else divides it."""
    below: list[Any] = []
    top: Any = node
    while isinstance(top, ir.BinOp) and top.op == "/":
        below += _factors(top.right)
        top = top.left
    if any(isinstance(x, ir.BinOp) and x.op == "/" for x in _factors(top)):
        return None  # times a ratio of its own
    logs = [x for x in below if is_ln2(code, place, _value(code, place, x))]
    rest = [x for x in below if x not in logs]
    numbers = [n for x in rest if (n := _number(code, place, x)) is not None]
    if len(logs) != 1 or len(numbers) != 1:
        return None
    return numbers[0] if LEAST < numbers[0] < MOST and numbers[0] != int(numbers[0]) else None


def _factors(node: Any) -> list[Any]:
    if isinstance(node, ir.BinOp) and node.op == "*":
        return [*_factors(node.left), *_factors(node.right)]
    return [node]


def _number(code: Code, place: Place, node: Any) -> float | None:
    """A literal, or a name that is assigned one and nothing else."""
    value = _value(code, place, node)
    number = value.value if isinstance(value, ir.Const) else None
    return float(number) if isinstance(number, (int, float)) and not isinstance(number, bool) else None


def _value(code: Code, place: Place, node: Any) -> Any:
    """What a name is assigned if that is one constant, else the expression itself."""
    if not isinstance(node, ir.Name):
        return node
    values = [
        n.value for p in code.places if p.path == place.path for n in p.nodes()
        if isinstance(n, ir.Assign) and any(isinstance(t, ir.Name) and t.id == node.id for t in n.targets)
    ]  # fmt: skip
    return values[0] if len(values) == 1 and isinstance(values[0], ir.Const) else node


__all__ = ["assumed_bytes"]
