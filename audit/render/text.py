"""The result for a person at a terminal: verdict, evidence with code frames, and what was not shown.

Colour is plain ANSI and carries nothing that the words do not say as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from audit.render.places import safe, standing, with_warnings

_COLOURS = {"violation": "31;1", "warning": "33", "note": "36", "clean": "32;1", "undetermined": "33;1",
            "dim": "2", "bold": "1"}  # fmt: skip
WIDTH = 110


class _Paint:
    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if self.on and text else text


def render_text(document: dict[str, Any], *, color: bool = False, verbose: bool = False) -> str:
    """The whole document as text; ``verbose`` adds notes' frames and every obligation."""
    paint = _Paint(color)
    submissions = document["submissions"]
    blocks = []
    if document.get("sweep"):
        blocks.append("\n".join(_table(submissions, paint)))
    else:
        blocks += ["\n".join(_submission(s, paint, verbose)) for s in submissions]
    if len(submissions) > 1:
        counts = {
            v: sum(s["verdict"] == v for s in submissions) for v in ("violation", "undetermined", "clean")
        }
        blocks.append(", ".join(f"{n} {paint(v, v)}" for v, n in counts.items() if n))
    blocks.append(paint("dim", f"ruleset {document.get('ruleset', 'unknown')}"))
    return "\n\n".join(blocks)


def _table(submissions: list[dict[str, Any]], paint: _Paint) -> Iterator[str]:
    for s in submissions:
        where = safe(s.get("ref") or s.get("target") or "")[:34]
        rules = ",".join(dict.fromkeys(f["rule"] for f in s["findings"] if f["severity"] == "violation"))
        verdict = paint(s["verdict"], s["verdict"].ljust(12))
        about = s.get("primary") or "-"
        if s["verdict"] == "undetermined":
            about += f"  {s.get('reason', '')}"
        yield f"{verdict} {where:<34} {rules:<14} {safe(about)[:160]}"


def _submission(s: dict[str, Any], paint: _Paint, verbose: bool) -> Iterator[str]:
    where = s["target"] + (f" ({s['commit'][:10]})" if s.get("commit") else "")
    yield f"{paint('bold', safe(where))}: {paint(s['verdict'], s['verdict'].upper())}"
    if s.get("reason"):
        yield from _wrap(s["reason"], "  ")
    about = []
    if s.get("primary") and s["primary"] != s["target"]:
        about.append(f"script {s['primary']}")
    if s.get("peeled"):
        about.append("unpacked " + " > ".join(s["peeled"]))
    for name in ("ttt", "cache"):
        kind = s.get(name, {}).get("kind", "none")
        if kind != "none":
            about.append(f"{name} {kind} (active: {s[name].get('active', 'unknown')})")
    if about:
        yield paint("dim", "  " + safe(" · ".join(about)))
    shown = [f for f in s["findings"] if verbose or f["severity"] != "note" or f.get("suppressed")]
    for finding in shown:
        yield ""
        yield from _finding(finding, s.get("excerpts", {}), paint)
    hidden = len(s["findings"]) - len(shown)
    if hidden:
        yield ""
        yield paint("dim", f"  {hidden} note{'s' if hidden > 1 else ''} not shown (-v shows them)")
    yield from _obligations(with_warnings(s), paint, verbose)
    missing = s.get("record_ready", {}).get("missing", [])
    if missing and verbose:
        yield ""
        yield "  not ready to be recorded:"
        for line in missing:
            yield from _wrap(line, "    ")


def _finding(f: dict[str, Any], excerpts: dict[str, dict[str, str]], paint: _Paint) -> Iterator[str]:
    gate = f" by {f['gate']}" if f.get("gate") else ""
    head = paint(f["severity"], f"{f['severity']} {f['rule']} {f['name']}")
    basis = "" if f.get("basis", "source") == "source" else f", from the {f['basis']}"
    yield f"  {head}  " + paint(
        "dim", safe(f"[{standing(f)}, {f['confidence']} confidence, active: {f['active']}{gate}{basis}]")
    )
    for setting in f.get("settings", ()):
        yield from _wrap(setting, "    ")
    if f.get("suppressed"):
        yield f"    suppressed: {safe(f['suppressed'])}"
    yield from _wrap(f["message"], "    ")
    yield from _frame(f, excerpts.get(f["path"], {}), paint)
    if f["trace"]:
        yield "    how the value gets there:"
        for number, step in enumerate(f["trace"], 1):
            place = f"{step['path']}:{step['line']}"
            yield f"      {number}. {safe(place)}  {safe(step['message'])}"
            text = excerpts.get(step["path"], {}).get(str(step["line"]), "").strip()
            if text:
                yield paint("dim", f"           {safe(text)[: WIDTH - 11]}")


def _frame(f: dict[str, Any], lines: dict[str, str], paint: _Paint) -> Iterator[str]:
    first, last = f["line"], min(max(f["end_line"], f["line"]), f["line"] + 12)
    numbers = [n for n in range(first - 2, last + 3) if str(n) in lines]
    if not numbers:
        yield paint("dim", f"    --> {safe(f['path'])}:{f['line']}")
        return
    width = len(str(numbers[-1]))
    yield paint("dim", f"    --> {safe(f['path'])}:{f['line']}")
    for n in numbers:
        inside = first <= n <= last
        body = f"{n:>{width}} | {safe(lines[str(n)])}"[: WIDTH - 6]
        yield f"    {paint(f['severity'], '> ' + body) if inside else '  ' + body}"


def _obligations(obligations: list[dict[str, str]], paint: _Paint, verbose: bool) -> Iterator[str]:
    by_status: dict[str, list[dict[str, str]]] = {}
    for o in obligations:
        by_status.setdefault(o["status"], []).append(o)
    if not obligations:
        return
    yield ""
    for status, words in (("violated", "violated"), ("undetermined", "not shown"), ("warned", "warned"), ("holds", "shown"),
                          ("not-applicable", "not applicable")):  # fmt: skip
        group = by_status.get(status, [])
        if not group:
            continue
        if verbose or status == "undetermined":
            yield f"  {words}:"
            for o in group:
                yield from _wrap(f"{o['rule']}: {o['reason']}", "    ")
        else:
            yield from _wrap(f"{words}: {' '.join(o['rule'] for o in group)}", "  ")


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        safe(text), WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    ) or [indent]
