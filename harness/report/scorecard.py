"""A scorecard for people: figures, claims, time line and running bits per byte, as text, JSON, Markdown or HTML.

Reads the files of the record only (no torch, no numpy), so that anyone can render anyone's scorecard.
Rendering checks nothing: that is what ``referee verify`` is for, and every page says so.
"""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any

from audit.contracts import InputError
from audit.render.page import badge, page
from harness.report.charts import Block, Series, line_chart, time_line


def read_events(folder: str | Path) -> list[dict[str, Any]]:
    """The events of ``scorecard.jsonl``; a torn last line of a killed run is left out. Raises `InputError`."""
    path = Path(folder) / "scorecard.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}") from None
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except ValueError:
            if number == len(lines) and events:
                break
            raise InputError(f"{path}:{number} is not JSON") from None
        if not isinstance(event, dict) or "kind" not in event:
            raise InputError(f"{path}:{number} is no event of a scorecard")
        events.append(event)
    if not events or events[0]["kind"] != "header":
        raise InputError(f"{path} does not begin with a header")
    return events


def running(events: list[dict[str, Any]]) -> Series:
    """Bits per byte of all targets scored so far, after each chunk."""
    nats = count = 0.0
    xs, ys = [], []
    for event in events:
        if event["kind"] == "score":
            nats += event["nats"]
            count += event["bytes"]
            if count:
                xs.append(event["targets"][1])
                ys.append(nats / (math.log(2.0) * count))
    name = events[0].get("adaptation", {}).get("name", "none")
    return Series(name="no adaptation" if name == "none" else f"score-first {name}", x=xs, y=ys)


def blocks(events: list[dict[str, Any]]) -> list[Block]:
    """Score and update events in the order of the chain."""
    found = []
    for event in events:
        if event["kind"] not in ("score", "update"):
            continue
        if event["kind"] == "score":
            lo, hi = event["targets"]
            label = f"chunk {event['chunk']}: scored targets {lo:,} to {hi:,} in {event['seconds']:.2f} s"
        else:
            label = f"chunk {event['chunk']}: {event['steps']} update steps in {event['seconds']:.2f} s"
        found.append(Block(kind=event["kind"], chunk=event["chunk"], seconds=event["seconds"], label=label))
    return found


def claims_table(claims: dict[str, dict[str, Any]]) -> str:
    names = {"P1": "order", "P2": "causality", "P3": "normalisation", "P4": "replay"}
    rows = "".join(
        f"<tr><td>{escape(key)} {names.get(key, '')}</td><td>{badge(c['status'])}</td><td>{escape(c['reason'])}</td></tr>"
        for key, c in claims.items()
    )
    return f"<table><tr><th>claim</th><th>status</th><th>reason</th></tr>{rows}</table>"


def body(folder: str | Path) -> str:
    """The page's body for one scorecard."""
    events = read_events(folder)
    head, last = events[0], events[-1]
    done = last["kind"] == "footer"
    name = Path(folder).name
    parts = [f"<h1>Scorecard {escape(name)}</h1>"]
    if not done:
        parts.append(f"<p>{badge('incomplete')} the run was stopped before its end.</p>")
    else:
        partial = " (partial)" if last.get("partial") else ""
        parts.append(
            '<div class="figures">'
            f"<div><b>{last['bits_per_byte']:.4f}</b><span>bits per byte{partial}</span></div>"
            f"<div><b>{last['targets']:,}</b><span>targets</span></div>"
            f"<div><b>{last['bytes']:,}</b><span>bytes of text</span></div>"
            f"<div><b>{head['artifact'].get('bytes', 0):,}</b><span>artifact bytes</span></div></div>"
            + claims_table(last["claims"])
        )
    plan = head["plan"]
    parts.append(
        f'<p class="dim">context {plan["context"]}, stride {plan["stride"]}, {plan["windows"]:,} windows in {plan["chunks"]} '
        f"chunks, adaptation {escape(head['adaptation']['name'])}, artifact <code>{head['artifact']['sha256']}</code>. "
        "This page shows what the record says; <code>referee verify</code> checks it.</p>"
    )
    parts.append("<h2>Time line</h2>" + time_line(blocks(events), title="Score and update events"))
    parts.append(
        "<h2>Running bits per byte</h2>"
        + line_chart(
            [running(events)], title="Running bits per byte", x_label="targets scored", y_label="bits per byte"
        )
    )
    return "".join(parts)


def text(folder: str | Path) -> str:
    """A few lines for a terminal."""
    events = read_events(folder)
    head, last = events[0], events[-1]
    if last["kind"] != "footer":
        return f"scorecard {folder}: incomplete, {sum(e['kind'] == 'score' for e in events)} chunks scored"
    lines = [
        f"scorecard {folder}",
        f"  bits per byte {last['bits_per_byte']:.6f}{'  PARTIAL' if last.get('partial') else ''}",
        f"  targets {last['targets']:,}  bytes {last['bytes']:,}  adaptation {head['adaptation']['name']}",
    ]
    lines += [f"  {k} {c['status']:<10} {c['reason']}" for k, c in last["claims"].items()]
    return "\n".join([*lines, "  (as recorded; check it with: referee verify)"])


def render(document: dict[str, Any], format: str) -> str:
    """Renderer of schemas ``referee.scorecard/1`` ({folder}) and ``referee.eval/1`` ({out, …})."""
    folder = document.get("folder") or document.get("out")
    if not isinstance(folder, str):
        raise InputError("the result does not name its scorecard's folder")
    if format == "json":
        events = read_events(folder)
        return json.dumps({"schema": "referee.scorecard/1", "folder": folder, "events": events}, indent=1)
    if format == "text":
        return text(folder)
    if format == "markdown":
        return "```\n" + text(folder) + "\n```"
    if format == "html":
        return page(f"Scorecard {Path(folder).name}", body(folder))
    raise InputError(f"a scorecard has no {format} form; choose text, json, markdown or html")
