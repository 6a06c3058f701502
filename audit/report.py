"""``referee report``: any saved result again, in any format.

The result's ``schema`` field names the renderer, found through the entry-point group
``referee.reports``; so each wing renders its own results and this front knows none of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from audit.contracts import Command, Exit, InputError
from audit.model import SCHEMA
from audit.program import load, registered

#: a renderer takes the document and a format, and returns the text
Renderer = Callable[[dict[str, Any], str], str]


def read_document(path: str) -> dict[str, Any]:
    """A saved result: a JSON object, JSON Lines of a sweep, or a scorecard's folder.

    Raises InputError where the file is none of them.
    """
    place = Path(path)
    if place.is_dir():
        return _folder(place)
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}") from None
    try:
        document = json.loads(text)
    except ValueError:
        return _lines(path, text)
    if isinstance(document, dict) and "schema" in document:
        return document
    if isinstance(document, dict) and "verdict" in document:
        return {"schema": SCHEMA, "submissions": [document]}
    raise InputError(f"{path} has no schema field; it is no saved result of this program")


def _folder(place: Path) -> dict[str, Any]:
    if (place / "scorecard.jsonl").is_file():
        return {"schema": "referee.scorecard/1", "folder": str(place)}
    results = sorted(place.glob("*.json"))
    if len(results) == 1:
        return read_document(str(results[0]))
    raise InputError(f"{place} holds no scorecard.jsonl and not exactly one .json file; name the file")


def _lines(path: str, text: str) -> dict[str, Any]:
    """A sweep's lines; one cut off by a kill at the very end is left out."""
    rows: list[dict[str, Any]] = []
    lines = [line for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines) and rows:
                break
            raise InputError(f"{path}:{number} is not JSON") from None
        if not isinstance(row, dict) or "verdict" not in row:
            raise InputError(f"{path}:{number} is not a line of a sweep")
        rows.append(row)
    if not rows:
        raise InputError(f"{path} is empty")
    rulesets = sorted({str(row["ruleset"]) for row in rows if row.get("ruleset")})
    return {"schema": SCHEMA, "sweep": True, "submissions": rows, **({"ruleset": ", ".join(rulesets)} if rulesets else {})}


def renderer(schema: str) -> Renderer:
    """The renderer registered for a schema; InputError when there is none."""
    for name, target in registered("referee.reports"):
        if name == schema:
            return cast(Renderer, load(target))
    raise InputError(f"no renderer for results of schema {schema!r}")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "result", metavar="RESULT", help="a saved JSON result, a sweep's JSON Lines, or a scorecard folder"
    )
    parser.add_argument("--format", choices=("text", "json", "markdown", "sarif", "html"), default="text",
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--output", "-o", metavar="FILE", help="write to FILE instead of standard output")


def run(args: argparse.Namespace) -> int:
    from audit.render.output import emit
    from audit.streams import standard_output

    document = read_document(args.result)
    if args.output is None:
        standard_output()
    emit(renderer(str(document["schema"]))(document, args.format), args.output)
    return int(Exit.OK)


REPORT = Command(
    name="report", help="render a saved result again, in any format", add_arguments=arguments, run=run
)
