"""String literals as both front ends see them: values of literals, pieces of f-strings."""

from __future__ import annotations

import ast
import re
from typing import Any

from audit import ir

#: A literal table of constants keeps so many of its elements: nobody reasons about the rest.
MAX_TABLE = 20_000
_PLAIN = re.compile(r"[uU]?('''|\"\"\"|'|\")(.*)\1", re.S)


def literal_value(raw: str) -> str | bytes:
    """The value of one string literal with prefix and quotes. Raises SyntaxError or ValueError."""
    if "\\" not in raw and (match := _PLAIN.fullmatch(raw)):
        return match.group(2)
    value = ast.literal_eval(raw)
    assert isinstance(value, (str, bytes))
    return value


def fstring_text(raw: str, is_raw: bool) -> str:
    """The text between an f-string's replacement fields: escapes and doubled braces resolved."""
    text = raw.replace("{{", "{").replace("}}", "}")
    if is_raw or "\\" not in text:
        return text
    for quote in ('"""', "'''"):
        # A piece may end in a quote or hold either kind; a trailing one is escaped to stay inside.
        if quote not in text and not text.endswith(quote[0]):
            return str(literal_value(quote + text + quote))
    return str(literal_value('"""' + re.sub(r'(?<!\\)((?:\\\\)*)"', r"\1\\\"", text) + '"""'))


def merge_pieces(values: list[Any], at: dict[str, int]) -> list[ir.Expr]:
    """Joins neighbouring str pieces into one Const each (as ``ast`` does); drops empty ones."""
    merged: list[ir.Expr] = []
    text = ""
    for value in values:
        if isinstance(value, str):
            text += value
            continue
        if text:
            merged.append(ir.Const(text, **at))
            text = ""
        merged.append(value)
    if text:
        merged.append(ir.Const(text, **at))
    return merged
