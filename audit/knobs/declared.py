"""Which knobs a script reads, off its text: environment variables and command-line options.

A regular expression is enough here and works on what no parser accepts: the result only says under
which names a value may be stated elsewhere. The script's own names for reading the environment are found
first. What a knob *does* is the trace's business.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache

from audit.knobs.model import Declaration

#: ``os.environ.get("NAME", default``, ``os.environ["NAME"]``, ``getenv(...)``, ``_env_int("NAME", 3``: the bracket and
#: what follows, and what stands before it; ``@@`` stands for the names that the script gives to such readers
_ARGUMENTS = re.compile(
    r"""[(\[]\s*(?P<q>["'])(?P<name>[A-Za-z_]\w*)(?P=q)\s*(?:,\s*(?:default\s*=\s*)?(?:str\(|int\(|float\()?\s*"""
    r"""(?P<default>"[^"\n]*"|'[^'\n]*'|[-+]?[\d.][\d_.eE+-]*|True|False|None))?"""
)
_READER = (
    r"""(?:environ|getenv|[Ee]nv\w*|ENV\w*|_e|_b|_f|_i|_int|_bool|_float|_str|\bE|\bg@@)\s*(?:\.\s*(?:get|setdefault|pop)\s*)?$"""
)
#: characters before a bracket that hold the reader's name
BEFORE = 80
#: ``name = os.environ.get``, ``name = lambda k, d: int(os.environ.get(k, d))``, a short function that reads the environment
#: (taken whole and never given back, ``++``: a script has ten thousand words to try)
_ALIAS = re.compile(
    r"""\b(\w++)\s*+=\s*+(?:(?:os\s*\.\s*)?(?:environ(?:\s*\.\s*get)?|getenv)[ \t]*(?=[;,\n#]|$)"""
    r"""|lambda\b[^\n:]*:[^\n]*(?:environ|getenv)\b)"""
    r"""|\bdef\s++(\w++)\s*+\([^()]*+\)[^:\n]*+:(?:[^\n]*\n){0,4}?[^\n]*(?:environ|getenv)\b"""
)
#: lines of a reader's body until it reads, and of the whole function until then
ALIAS_BODY, ALIAS_LINES = 6, 24
_ATTR = re.compile(r"""["']?([A-Za-z_]\w*)["']?\s*(?::\s*[\w\[\], |."']+?)?\s*[=:]\s*[^=;#]{0,160}$""", re.S)
#: an option and what follows its names, up to the next option at the most
_OPTION = re.compile(
    r"""add_argument\(\s*(?P<names>(?:["']-{1,2}[\w-]+["']\s*,?\s*)+)"""
    r"""(?P<rest>(?:(?!add_argument\()[^\n])*(?:\n(?:(?!add_argument\()[^\n])*){0,4}?\))"""
)
#: ``"--name" in sys.argv``
_WORD = re.compile(r"""["'](--?[A-Za-z][\w-]*)["']\s+(?:not\s+)?in\s+(?:sys\s*\.\s*)?argv\b""")
_NAME = re.compile(r"""["'](-{1,2}[\w-]+)["']""")
_DEFAULT = re.compile(r"""default\s*=\s*("[^"\n]*"|'[^'\n]*'|[-+]?[\d.][\d_.eE+-]*|True|False|None)""")


def declarations(sources: Mapping[str, str]) -> dict[str, Declaration]:
    """Knob name -> its last declaration (what Python would keep), over all ``sources``."""
    found: dict[str, Declaration] = {}
    for path, text in sources.items():
        for item in _of(text, path):
            before = found.get(item.name)
            if before is not None and item.default is None and before.default is not None:
                continue  # a later plain read tells less than the declaration did
            if before is not None and not item.attr:
                item = Declaration(
                    name=item.name, default=item.default, attr=before.attr, path=path, line=item.line
                )
            found[item.name] = item
    return found


def _of(text: str, path: str) -> Iterator[Declaration]:
    starts = [0, *(m.end() for m in re.finditer("\n", text))]
    reader = _reader(text)
    for match in _ARGUMENTS.finditer(text):
        name = match["name"]
        read = reader.search(text[max(0, match.start() - BEFORE) : match.start()])
        if read is None or (not name.isupper() and "environ" not in read[0] and "getenv" not in read[0]):
            continue
        start = match.start() - len(read[0])
        line = bisect_right(starts, start)
        head = text[max(0, start - 200) : start]
        head = head[max(head.rfind(";"), _statement(head)) + 1 :]
        attr = _ATTR.search(head)
        yield Declaration(
            name=name, default=_plain(match["default"]), attr=attr[1] if attr else "", path=path, line=line
        )
    if "argv" in text:
        for match in _WORD.finditer(text):
            yield Declaration(name=match[1], default="0", attr="", path=path, line=bisect_right(starts, match.start()))
    for match in _OPTION.finditer(text):
        names = _NAME.findall(match["names"])
        long = next((n for n in names if n.startswith("--")), names[0])
        default = _DEFAULT.search(match["rest"])
        value = _plain(default[1]) if default else "0" if "store_true" in match["rest"] else None
        attr_name = long.lstrip("-").replace("-", "_")
        line = bisect_right(starts, match.start())
        yield Declaration(name=long, default=value, attr=attr_name, path=path, line=line)


def _reader(text: str) -> re.Pattern[str]:
    """What stands before the bracket of a read, with the script's own names for it."""
    return _compiled(frozenset(m[1] or m[2] for m in _ALIAS.finditer(_near_reads(text))))


def _near_reads(text: str) -> str:
    """The lines that read the environment, and those before each: an alias stands there, and a script has ten thousand other words."""
    lines = text.split("\n")
    near: list[str] = []
    done = 0
    for number, line in enumerate(lines, 1):
        if "environ" in line or "getenv" in line:
            first = max(done, number - ALIAS_LINES)
            if first > done:
                near += [""] * ALIAS_BODY  # the end of one stretch and the beginning of the next are no function
            near += lines[first:number]
            done = number
    return "\n".join(near) + "\n"


@lru_cache(maxsize=256)
def _compiled(names: frozenset[str]) -> re.Pattern[str]:
    own = "".join(rf"|\b{re.escape(name)}\b" for name in sorted(names))
    return re.compile(_READER.replace("@@", own))


def _statement(head: str) -> int:
    """The last line break in ``head`` that ends a statement: what stands before it asks for no more."""
    at = len(head)
    while (at := head.rfind("\n", 0, at)) >= 0:
        if head[:at].rstrip()[-1:] not in tuple("([{,=+-*/\\"):
            return at
    return -1


def _plain(literal: str | None) -> str | None:
    """Without quotes; a bare True is 1, which every way of reading a switch accepts."""
    if literal is None:
        return None
    return literal[1:-1] if literal[:1] in "\"'" else {"True": "1", "False": "0"}.get(literal, literal)


def spelled(value: str, default: str | None) -> str:
    """``value`` as the script can read it: a dump prints True where the environment held 1."""
    if value in ("True", "true", "False", "false"):
        on = value.lower() == "true"
        if default is not None and default.lower() in ("true", "false"):
            return str(on) if default[:1].isupper() else str(on).lower()
        return "1" if on else "0"
    return value
