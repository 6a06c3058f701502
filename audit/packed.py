"""Where in the submitted files a finding lies whose line is one of an unpacked source.

Findings speak of what runs, which a packed script holds in a literal. Whoever shows them beside the submitted file
(code scanning) needs the lines of that file: those of the statement that holds the payload.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from audit.peel.peeler import parse
from audit.source.program import UNPACKED
from audit.text import decode

if TYPE_CHECKING:
    from audit.context import Context

#: characters from which a literal is a payload rather than a message
PAYLOAD = 200


def packed_places(ctx: Context, texts: Mapping[str, str], paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """For every path whose text is not that of the submitted file: the submitted file and the payload's lines in it.

    ``texts``: the sources that were read, by the path that findings give. A path that the submission does not hold,
    or that its script unpacks, lies in the script itself. A ``line`` of 0: the lines are those of the file named.
    """
    assert ctx.files is not None
    prefix = ctx.files.folder + "/" if ctx.files.folder else ""
    carried = {prefix + name for name in ctx.peeled.extra_files} if ctx.peeled is not None else set()
    if ctx.primary in carried:  # unpacked under the script's own name
        carried = carried - {ctx.primary} | {f"{prefix}{UNPACKED}/{ctx.primary.removeprefix(prefix)}"}
    line = ctx.peeled.line if ctx.peeled is not None else 1
    out: dict[str, dict[str, Any]] = {}
    for path in dict.fromkeys(paths):
        # What a script executes from a file beside it is read under the script's name; its lines are that file's.
        file = ctx.module.path if path == ctx.primary and ctx.module is not None else path
        if file in carried:
            held = None
        elif file not in texts:
            continue  # a log, a README: as submitted
        elif (held := ctx.files.read(file)) is not None and decode(held) == texts[file]:
            if file != path:
                out[path] = {"path": file, "line": 0, "end_line": 0}
            continue
        holder = ctx.primary if held is None else file
        raw = ctx.files.read(holder) or b""
        first, last = payload_lines(decode(raw), line if holder == ctx.primary else 1)
        out[path] = {"path": holder, "line": first, "end_line": last}
    return out


def payload_lines(text: str, line: int) -> tuple[int, int]:
    """First and last line of the statement with the longest literal, else of the one at ``line``; within the text."""
    count = max(1, len(text.splitlines()))
    tree = parse(text)
    best: tuple[int, int, int] | None = None
    at: tuple[int, int] | None = None
    for statement in tree.body if tree is not None else ():
        first, last = statement.lineno, statement.end_lineno or statement.lineno
        if first <= line <= last:
            at = (first, last)
        size = max((len(n.value) for n in ast.walk(statement)
                    if isinstance(n, ast.Constant) and isinstance(n.value, str | bytes)), default=0)  # fmt: skip
        if size >= PAYLOAD and (best is None or size > best[0]):
            best = (size, first, last)
    first, last = best[1:] if best is not None else at or (line, line)
    first = min(max(first, 1), count)
    return first, min(max(last, first), count)
