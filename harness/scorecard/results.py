"""Saved results of ``verify``, ``probe`` and an adaptation sweep, again in any format (``referee report``)."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from audit.contracts import InputError
from harness.evaluate.outcome import claims_table, sweep_text

_TITLES = {
    "referee.verify/1": "Scorecard verification",
    "referee.probe/1": "Black-box probes",
    "referee.eval-sweep/1": "Adaptation sweep",
}


def render(document: dict[str, Any], format: str) -> str:
    """Renderer of the three schemas. Raises `InputError` for a format that they do not have."""
    schema = str(document.get("schema"))
    if schema not in _TITLES:
        raise InputError(f"no result of schema {schema!r} is rendered here")
    if format == "json":
        return json.dumps(document, indent=1)
    try:
        text = _text(schema, document)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"damaged result of schema {schema}: {type(error).__name__}: {error}") from None
    if format == "text":
        return text
    if format == "markdown":
        return f"### {_TITLES[schema]}\n\n```\n{text}\n```"
    if format == "html":
        from audit.render.page import page

        return page(_TITLES[schema], f"<h1>{escape(_TITLES[schema])}</h1>\n<pre>{escape(text)}</pre>")
    raise InputError(f"this result has no {format} form; choose text, json, markdown or html")


def _text(schema: str, document: dict[str, Any]) -> str:
    if schema == "referee.verify/1":
        return verify_text(document)
    if schema == "referee.probe/1":
        return probe_text(document)
    return sweep_text(document["rows"])


def verify_text(found: dict[str, Any]) -> str:
    """The outcome for people: what is wrong first."""
    head = {0: "verified", 1: "REJECTED", 3: "not shown" if found["complete"] else "INCOMPLETE"}[found["exit"]]
    problems = found["problems"]
    lines = [f"scorecard {head}", *(f"  problem: {p}" for p in problems[:20])]
    if len(problems) > 20:
        lines.append(f"  … and {len(problems) - 20} more problems")
    if found["bits_per_byte"] is not None:
        partial = " (PARTIAL)" if found["partial"] else ""
        lines.append(f"  {found['scored']:,} targets, {found['bytes']:,} bytes, {found['bits_per_byte']:.6f} bits per byte{partial}")
    lines += [f"  {line}" for line in claims_table(found["claims"])]
    lines += [f"  note: {n}" for n in found["notes"]]
    if found["complete"]:
        lines.append(f"  head {found['head']}")
    return "\n".join(lines)


def probe_text(result: dict[str, Any]) -> str:
    """What fired, then what silence excludes."""
    fired = result["fired"]
    lines = [f"{result['evaluator']}: " + (f"{len(fired)} probes fired" if fired else "nothing fired")]
    lines += [f"  {f['mechanism']:<17} {f['what']}" for f in fired]
    lines.append("what the probes exclude:")
    lines += [f"  {line}" for line in result["statement"]]
    return "\n".join(lines)
