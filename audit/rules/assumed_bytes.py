"""The source side of rule M1: a score that is divided by a written number of bytes per token.

No rule lives here. ``loss / (ln 2 * 3.5)`` counts no bytes: every token is taken for three and a half. Where a figure
with counted bytes is reported, such an estimate beside it is a diagnostic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from audit import ir
from audit.context import Context
from audit.evidence.identities import TOKENIZERS
from audit.model import Finding, Obligation, Step
from audit.rules.base import Rule
from audit.rules.code import code_of
from audit.rules.flow import event_finding
from audit.rules.steps import Steps
from audit.trace import Event, Trace
from audit.trace.values import BYTES

#: the contest's names of its data and tokenizers
_NAMED = re.compile(r"(?:^|[_/])sp(\d{4,5})(?![\da-z])|fineweb_(\d{4,5})_bpe", re.I)


def assumed_bytes(rule: Rule, ctx: Context) -> Iterator[Finding | Obligation]:
    """A finding or an obligation where the reported score rests on assumed bytes; nothing elsewhere."""
    trace = ctx.trace
    if trace is None:
        return
    chosen = [e for e in trace.reports() if e.on_val and (trace.chosen is None or e.id in trace.chosen)]
    if any(e.flags & BYTES for e in chosen):
        return
    for e in chosen:
        for assumed, path, line in e.detail["assumed"][:1]:
            ratio = _known_ratio(ctx)
            said = f"no bytes are counted: every token is taken for {assumed:g} bytes"
            if ratio is not None and assumed <= 1.001 * ratio:
                return  # what the contest's tokenizer comes to, or less, which hurts its author
            if ratio is not None:
                steps = _steps(trace, e, assumed, path, line)
                made = event_finding(rule, e, f"{said}, and has {ratio:.4f} with this vocabulary", steps=steps)
                yield replace(made, path=path, line=line, end_line=line, column=0)
                yield Obligation(rule=rule.id, status="violated", reason=f"{path}:{line}: {said}")
            else:
                yield Obligation(rule=rule.id, status="undetermined", reason=f"{path}:{line}: {said}")
            return


def _steps(trace: Trace, e: Event, assumed: float, path: str, line: int) -> tuple[Step, ...]:
    """Where the number is set, where the loss is divided by it, and where the figure is printed."""
    steps = Steps()
    named = [place for name, place in trace.knob_places.items() if _number(trace.knobs_read.get(name)) == assumed]
    if len(named) == 1:
        steps.aside(*named[0], f"every token is taken for {assumed:g} bytes")
    steps.aside(path, line, "the loss is divided by that number, and by no count of bytes")
    steps.to(e, "the figure is printed here")
    return steps.done()


def _number(got: Any) -> float | None:
    value = got[0] if isinstance(got, tuple) and got else got
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _known_ratio(ctx: Context) -> float | None:
    """Bytes per token of the contest's tokenizer with the configured size of vocabulary, else of the one size that the
    program's paths name."""
    value = ctx.knobs.lookup("VOCAB_SIZE")
    size = value.value if value is not None else ctx.knobs.default("VOCAB_SIZE")
    if size is None:
        texts = (n.value for p in code_of(ctx).places for n in p.nodes(ir.Const) if isinstance(n.value, str))
        named = {m[1] or m[2] for text in texts if len(text) < 300 for m in _NAMED.finditer(text)}
        size = named.pop() if len(named) == 1 else None
    return next((t.ratio for t in TOKENIZERS if t.name == f"SP{size}"), None)


__all__ = ["assumed_bytes"]
