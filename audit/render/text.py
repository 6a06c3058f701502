"""The result for a person at a terminal: verdict, evidence with code frames, and what was not shown.

Colour is plain ANSI and carries nothing that the words do not say as well.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from audit.render.groups import for_people
from audit.render.places import clip, column_in, safe, standing, stripped, unpacked_hint, with_warnings

_COLOURS = {"violation": "31;1", "warning": "33", "note": "36", "clean": "32;1", "undetermined": "33;1",
            "dim": "2", "bold": "1"}  # fmt: skip
#: columns where no terminal says how many it has
WIDTH = 110
#: columns below which nothing is legible, and above which lines of prose are not
LEAST, MOST = 40, 160


def terminal_width(fallback: int = WIDTH) -> int:
    """The terminal's columns (or what COLUMNS says), within reason."""
    return max(LEAST, min(shutil.get_terminal_size((fallback, 24)).columns, MOST))


class _Paint:
    """Colour and width of one text."""

    def __init__(self, on: bool, width: int) -> None:
        self.on = on
        self.width = width

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if self.on and text else text

    def wrap(self, text: str, indent: str, style: str = "") -> list[str]:
        """Prose in lines of the text's width; a path longer than that stays in one piece."""
        lines = textwrap.wrap(
            safe(text), self.width, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        return [self(style, line) if style else line for line in lines] or [indent]


def render_text(document: dict[str, Any], *, color: bool = False, verbose: bool = False, width: int = WIDTH) -> str:
    """The whole document as text; ``verbose`` adds notes' frames and every obligation."""
    paint = _Paint(color, width)
    submissions = document["submissions"]
    blocks = []
    if document.get("sweep"):
        blocks.append("\n".join(_table(submissions, paint)))
    else:
        blocks += ["\n".join(_submission(s, paint, verbose)) for s in for_people(submissions)]
    if len(submissions) > 1:
        counts = {
            v: sum(s["verdict"] == v for s in submissions) for v in ("violation", "undetermined", "clean")
        }
        nouns = {"violation": "violation" if counts["violation"] == 1 else "violations"}
        blocks.append(", ".join(f"{n} {paint(v, nouns.get(v, v))}" for v, n in counts.items() if n))
    if document.get("ruleset"):
        blocks.append(paint("dim", safe(f"ruleset {document['ruleset']}")))
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
    where = s["heading"] + (f" ({s['commit'][:10]})" if s.get("commit") else "")
    yield f"{paint('bold', safe(where))}: {paint(s['verdict'], s['verdict'].upper())}"
    if s.get("reason"):
        yield from paint.wrap(s["reason"], "  ")
    about = []
    if s.get("primary") and s["primary"] != s["target"]:
        about += [f"script {s['primary']}"] if s["heading"] == s["target"] else []
    if s.get("peeled"):
        about.append("unpacked " + " > ".join(s["peeled"]))
    for name in ("ttt", "cache"):
        kind = s.get(name, {}).get("kind", "none")
        if kind != "none":
            about.append(f"{name} {kind} (active: {s[name].get('active', 'unknown')})")
    if about:
        yield from paint.wrap(" · ".join(about), "  ", style="dim")
    if hint := unpacked_hint(s):
        yield from paint.wrap(hint, "  ", style="dim")
    shown = [f for f in s["findings"] if verbose or f["severity"] != "note" or f.get("suppressed")]
    for finding in shown:
        yield ""
        yield from _finding(finding, s, paint)
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
            yield from paint.wrap(line, "    ")


def _finding(f: dict[str, Any], s: dict[str, Any], paint: _Paint) -> Iterator[str]:
    gate = f" by {f['gate']}" if f.get("gate") else ""
    basis = "" if f.get("basis", "source") == "source" else f", from the {f['basis']}"
    head = f"{f['severity']} {f['rule']} {f['name']}"
    stands = f"[{standing(f)}, {f['confidence']} confidence, active: {f['active']}{gate}{basis}]"
    if len(head) + len(stands) + 4 <= paint.width:
        yield f"  {paint(f['severity'], head)}  {paint('dim', safe(stands))}"
    else:
        yield f"  {paint(f['severity'], head)}"
        yield from paint.wrap(stands, "    ", style="dim")
    for setting in f.get("settings", ()):
        yield from paint.wrap(setting, "    ")
    if f.get("suppressed"):
        yield from paint.wrap(f"suppressed: {f['suppressed']}", "    ")
    yield from paint.wrap(f["message"], "    ")
    yield from _frame(f, s.get("excerpts", {}).get(f["path"], {}), paint)
    for place in f["also"]:
        yield from paint.wrap(f"and, with other figures, {place}", "    ")
    if f["trace"]:
        yield "    how the value gets there:" if f.get("basis") != "log" else "    the other places:"
        for number, step in enumerate(f["trace"], 1):
            place = safe(f"{step['path']}:{step['line']}")
            # The place stays in one piece, so that it can be clicked on and copied.
            if len(place) + len(step["message"]) + len(str(number)) + 10 <= paint.width:
                yield f"      {number}. {place}  {safe(step['message'])}"
            else:
                yield f"      {number}. {place}"
                yield from paint.wrap(step["message"], " " * 9)
            if text := stripped(s, step):
                yield paint("dim", " " * 11 + clip(text, paint.width - 11, column_in(s, step)))


def _frame(f: dict[str, Any], lines: dict[str, str], paint: _Paint) -> Iterator[str]:
    first, last = f["line"], min(max(f["end_line"], f["line"]), f["line"] + 12)
    numbers = [n for n in range(first - 2, last + 3) if str(n) in lines]
    yield paint("dim", f"    --> {safe(f['path'])}:{f['line']}")
    if not numbers:
        return
    width = len(str(numbers[-1]))
    for n in numbers:
        column = int(f.get("column") or 0) if n == first else 0
        body = f"{n:>{width}} | {clip(lines[str(n)], paint.width - width - 9, column)}"
        yield f"    {paint(f['severity'], '> ' + body) if first <= n <= last else '  ' + body}"


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
                yield from paint.wrap(f"{o['rule']}: {o['reason']}", "    ")
                if o.get("advice"):
                    yield from paint.wrap(f"-> {o['advice']}", "      ")
        else:
            yield from paint.wrap(f"{words}: {' '.join(o['rule'] for o in group)}", "  ")
