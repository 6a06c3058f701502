"""The source side of rule M1: a table of bytes that holds the same number for every token.

No rule lives here. ``torch.ones(vocab_size)`` in the place of bytes per token turns bits per byte into bits per token,
whatever the tokenizer; for a vocabulary of bytes it is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.code import Code, code_of
from audit.rules.flow import event_finding
from audit.rules.steps import Steps

#: the bytes and a few symbols of a vocabulary of bytes
_BYTES = 320
_BYTE_DATA = re.compile(r"byte_?2\d\d|bytes?[-_ ]?level|fineweb\w*_bytes?(?:_|/|$)", re.I)
_PIECES = re.compile(r"sentencepiece|tiktoken|tokenizers?\b|(?:^|[_/])sp\d{4,5}|_bpe", re.I)


def even_bytes(rule: Rule, ctx: Context) -> Iterator[Finding | Obligation]:
    """A finding or an obligation where the reported score is divided by such a table's sums; nothing elsewhere."""
    trace = ctx.trace
    reports = [e for e in trace.reports() if e.on_val and e.scores and (trace.chosen is None or e.id in trace.chosen)] if trace is not None else []
    tables = reports[-1].detail["even"] if reports else ()
    for path, line, number, size in tables[:1]:
        if 0 < size <= _BYTES:
            return
        code = code_of(ctx)
        texts = _texts(code)
        said = f"the table of bytes gives every token {number:g}: the score is divided by a number of tokens, not by the text's bytes"
        bytes_alone = any(_BYTE_DATA.search(t) for t in texts)
        if bytes_alone and not size:
            return
        if not bytes_alone and (size or any(_PIECES.search(t) for t in texts)):
            steps = Steps()
            steps.aside(path, line, f"each token has {number:g} here, whatever the tokenizer")
            steps.to(reports[-1], "the figure is printed here")
            made = event_finding(rule, reports[-1], said, steps=steps.done())
            yield replace(made, path=path, line=line, end_line=line, column=0)
            yield Obligation(rule=rule.id, status="violated", reason=f"{path}:{line}: {said}")
        else:
            yield Obligation(rule=rule.id, status="undetermined", reason=f"{path}:{line}: {said}")


def _texts(code: Code) -> list[str]:
    """Short texts and imports of the program."""
    written = [n.value for p in code.places for n in p.nodes(ir.Const) if isinstance(n.value, str) and len(n.value) < 300]
    return written + [name for names in code.imports.values() for name in names.values()]


__all__ = ["even_bytes"]
