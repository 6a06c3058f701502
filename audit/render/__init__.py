"""Renderers: one document (schema ``referee.audit/1``, as plain JSON data) to text in a format.

They work on the saved form and never on live objects, so that a result rendered today and one
rendered from its file next year are the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from audit.contracts import RULESET, InputError
from audit.model import SCHEMA, Submission
from audit.program import version


def report(submissions: Iterable[Submission], ruleset: str = RULESET) -> dict[str, Any]:
    """The document of a finished audit."""
    return {
        "schema": SCHEMA,
        "ruleset": ruleset,
        "version": version(),
        "submissions": [s.as_json() for s in submissions],
    }


def render_document(
    document: dict[str, Any], format: str, *, color: bool = False, verbose: bool = False, width: int | None = None
) -> str:
    """The document in a format: text, json, markdown, sarif or html. ``width``: columns of text, None for the terminal's."""
    if format == "json":
        return json.dumps(document, indent=2, ensure_ascii=False)
    if format == "text":
        from audit.render.text import render_text, terminal_width

        return render_text(document, color=color, verbose=verbose, width=width or terminal_width())
    if format == "markdown":
        from audit.render.markdown import render_markdown

        return render_markdown(document)
    if format == "sarif":
        from audit.render.sarif import render_sarif

        return json.dumps(render_sarif(document), indent=2, ensure_ascii=False)
    if format == "html" and document.get("sweep"):
        return sweep_html(document["submissions"])
    if format == "html":
        from audit.render.html import render_html

        return render_html(document)
    raise InputError(f"unknown format {format!r}")


def write(
    document: dict[str, Any], format: str, output: str | None, *, color: str = "auto", verbose: bool = False
) -> None:
    """Renders to a file or to standard output; colour only where a person reads it."""
    from audit.render.output import emit
    from audit.render.text import WIDTH

    tinted = color == "always" or (color == "auto" and output is None and _in_colour())
    width = WIDTH if output is not None else None
    emit(render_document(document, format, color=tinted, verbose=verbose, width=width), output)


def _in_colour() -> bool:
    """Does a person read this at a terminal that knows colours and was not told to leave them."""
    if sys.stdout is None or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return False
    return os.environ.get("TERM") != "dumb"


def sweep_html(rows: Iterable[dict[str, Any]], title: str = "Sweep") -> str:
    """The sortable, filterable overview of a sweep's lines as one self-contained page."""
    from audit.render.overview import render_overview

    return render_overview(list(rows), title)
