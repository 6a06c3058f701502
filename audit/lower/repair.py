"""Small changes that let a parser accept what Python runs, with every line kept in its place."""

from __future__ import annotations

import keyword
import re

_STRING = re.compile(r"(?i:(?P<prefix>[rbfu]{0,3}))(?P<quote>\"\"\"|'''|\"|')")
_NUMBER = re.compile(
    r"(?:0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?[jJ]?)"
)
_WORD = re.compile(r"[^\W\d]\w*")
_MAGIC = re.compile(r"^([ \t]*)[%!][%!\w][^\n]*$", re.M)
_WORDS = frozenset(keyword.kwlist)
#: Nesting that no honest script has, and at which recursive parsers begin to be in danger.
MAX_NESTING = 90
#: Characters above which libcst takes seconds; the largest honest texts are machine-made tables.
MAX_TEXT = 600_000
#: Operators in one logical line.
MAX_CHAIN = 2_000
_QUOTED = re.compile(r"'[^'\n\\]*'|\"[^\"\n\\]*\"")
_OPERATOR = re.compile(r"[-+*/%@&|^.~(]|\b(?:if|not|lambda|await)\b")


def end_of_string(text: str, pos: int) -> int | None:
    """The offset behind the string literal at ``pos``, None if there is none or it does not end.

    Knows that an f-string's replacement fields may hold strings with the same quotes (PEP 701).
    """
    match = _STRING.match(text, pos)
    if match is None:
        return None
    quote, at, formatted = match["quote"], match.end(), "f" in match["prefix"].lower()
    depth = 0
    while at < len(text):
        char = text[at]
        if formatted and char == "{" and (depth or text[at + 1 : at + 2] != "{"):
            depth += 1
            at += 1
        elif formatted and char == "{":
            at += 2
        elif depth and char == "}":
            depth -= 1
            at += 1
        elif depth and char in "\"'" and not text.startswith(quote, at):
            inner = end_of_string(text, at)
            at = at + 1 if inner is None else inner
        elif char == "\\" and not depth:
            at += 2
        elif text.startswith(quote, at):
            if (
                depth
                and (inner := end_of_string(text, at)) is not None
                and "}" in text[inner : text.find("\n", inner)]
            ):
                at = inner
                continue
            return at + len(quote)
        elif char == "\n" and len(quote) == 1 and not depth:
            return None
        else:
            at += 1
    return None


def spaced(text: str) -> tuple[str, list[int]]:
    """``else.5`` -> ``else .5``, ``)for`` -> ``) for``: spaces around keywords that touch something.

    Returns the text and the offsets in it at which a space was put.
    """
    out: list[str] = []
    inserted: list[int] = []
    size = pos = 0
    touching = False  # the last token was a keyword, number, string or closing bracket

    def put(piece: str) -> None:
        nonlocal size
        out.append(piece)
        size += len(piece)

    def space() -> None:
        inserted.append(size)
        put(" ")

    after_keyword = False
    while pos < len(text):
        char = text[pos]
        end = end_of_string(text, pos) if char in "\"'" or char in "rRbBfFuU" else None
        word = _WORD.match(text, pos) if end is None else None
        if end is not None:
            if after_keyword:
                space()
            put(text[pos:end])
            pos, touching, after_keyword = end, True, False
        elif word is not None:
            is_keyword = word[0] in _WORDS
            if is_keyword and touching:
                space()
            put(word[0])
            pos, touching, after_keyword = word.end(), False, is_keyword
        elif char.isdecimal() or (
            char == "."
            and text[pos + 1 : pos + 2].isdecimal()
            and not touching
            and (after_keyword or not _tail(out))
        ):
            number = _NUMBER.match(text, pos)
            assert number is not None
            if after_keyword:
                space()
            put(number[0])
            pos, touching, after_keyword = number.end(), True, False
        elif char == "#":
            stop = text.find("\n", pos)
            stop = len(text) if stop < 0 else stop
            put(text[pos:stop])
            pos, touching, after_keyword = stop, False, False
        else:
            put(char)
            pos += 1
            touching, after_keyword = char in ")]}", False
    return "".join(out), inserted


def _tail(out: list[str]) -> bool:
    """Whether the text so far ends in a name, after which a dot is an attribute's."""
    last = out[-1] if out else ""
    return bool(last) and (last[-1].isalnum() or last[-1] in "_)]}\"'")


def without_magics(text: str) -> str | None:
    """Notebook magics (``%%writefile``, ``!pip``) to ``pass``; None if there are none."""
    changed, count = _MAGIC.subn(r"\1pass", text)
    return changed if count else None


def risky(text: str) -> bool:
    """Whether libcst's parser might exhaust its stack or its time on ``text``.

    It recurses into brackets and into operator chains and is quadratic in both. Brackets in strings
    count too: an over-estimate only means that `ast` is asked first.
    """
    if len(text) > MAX_TEXT:
        return True
    depth = start = 0
    for match in re.finditer(r"[(\[{]|[)\]}]|\n", text):
        char = match[0]
        if char in "([{":
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif char != "\n":
            depth = max(0, depth - 1)
        elif depth == 0:
            if match.start() - start > 2 * MAX_CHAIN and _chained(text[start : match.start()]):
                return True
            start = match.end()
    return len(text) - start > 2 * MAX_CHAIN and _chained(text[start:])


def _chained(line: str) -> bool:
    """Whether one logical line, its strings aside, has more operators than `MAX_CHAIN`."""
    bare = _QUOTED.sub("", line)
    return (
        sum(1 for _ in _OPERATOR.finditer(bare)) > MAX_CHAIN
        or line.count('"') + line.count("'") > 2 * MAX_CHAIN
    )
