"""A review comment: the verdict first, then the evidence as a table, then what was not shown.

The text is safe to post: a stranger's words sit in code spans, so that they neither format the
comment nor notify anybody, and the whole stays below the length that a forge accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit.render.groups import for_people
from audit.render.places import clip, repository_path, safe, standing, unpacked_hint, with_warnings

#: forges cut a comment at 65,536 characters
LIMIT = 60_000
SIGN = {"violation": "\N{CROSS MARK}", "undetermined": "\N{WHITE QUESTION MARK ORNAMENT}",
        "clean": "\N{WHITE HEAVY CHECK MARK}"}  # fmt: skip


def render_markdown(document: dict[str, Any]) -> str:
    """The document as one Markdown comment."""
    submissions = document["submissions"]
    if document.get("sweep"):
        return "\n".join(_table(submissions)) + "\n"
    blocks = ["\n".join(_submission(s)) for s in for_people(submissions)]
    end = (
        f"\n---\n*referee {document.get('version', '')}, ruleset {document.get('ruleset', 'unknown')}. "
        "A verdict speaks of the submitted files alone; `referee explain RULE` gives each rule with its ruling.*\n"
    )
    text = "\n\n".join(blocks)
    if len(text) + len(end) > LIMIT:
        text = text[: LIMIT - len(end) - 80].rsplit("\n", 1)[0]
        if text.count("```") % 2:
            text += "\n```"
        text += "\n\n*The rest is cut; the JSON result holds everything.*\n"
    return text + "\n" + end


def code(text: str) -> str:
    """A code span that nothing inside can close, fit for a table's cell."""
    clean = safe(text).replace("|", "\\|").strip() or " "
    fence = "`" * (max((len(run) for run in _runs(clean)), default=0) + 1)
    pad = " " if clean.startswith("`") or clean.endswith("`") else ""
    return f"{fence}{pad}{clean}{pad}{fence}"


def _runs(text: str) -> list[str]:
    return ["`" * len(part) for part in "".join(c if c == "`" else " " for c in text).split()]


def words(text: str) -> str:
    """Prose that may quote a stranger: no markup, no mention, no table break."""
    out = safe(text)
    for c in "\\`*_[]<>|#~":
        out = out.replace(c, "\\" + c)
    return out.replace("@", "@\u200b")


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| ref | verdict | rules | script |"
    yield "|---|---|---|---|"
    for s in rows:
        rules = " ".join(dict.fromkeys(f["rule"] for f in s["findings"] if f["severity"] == "violation"))
        yield f"| {code(s.get('ref') or s.get('target') or '')} | {s['verdict']} | {rules} | {code(s.get('primary') or '-')} |"


def _submission(s: dict[str, Any]) -> Iterator[str]:
    yield f"### {SIGN[s['verdict']]} {s['verdict'].upper()}: {code(s.get('primary') or s.get('target') or '')}"
    yield ""
    yield words(s.get("reason") or "") + (f" ({code(s['commit'][:10])})" if s.get("commit") else "")
    counted = [f for f in s["findings"] if f["severity"] != "note" and not f.get("suppressed")]
    if counted:
        yield ""
        yield "| rule | what | where | standing | runs |"
        yield "|---|---|---|---|---|"
        for f in counted:
            where = code(f"{repository_path(s, f['path'])}:{f['line']}")
            if f["also"]:
                where += " and, with other figures, " + ", ".join(map(code, f["also"]))
            gate = f.get("settings") or ([f["gate"]] if f.get("gate") else [])
            runs = ", ".join([f["active"], *map(code, gate)])
            yield (
                f"| **{f['rule']}** {f['name']} ({f['severity']}) | {words(f['message'])} | {where} | "
                f"{words(standing(f))}, {f['confidence']} confidence | {runs} |"
            )
        if hint := unpacked_hint(s):
            prose, _, command = hint.partition(": ")
            yield ""
            yield f"*{prose.capitalize()}: {code(command)}*"
        for f in counted:
            yield from _evidence(s, f)
    quiet = [f for f in s["findings"] if f not in counted]
    if quiet:
        yield ""
        yield "<details><summary>Does not count</summary>"
        yield ""
        for f in quiet:
            why = (
                f"suppressed ({words(f['suppressed'])})" if f.get("suppressed") else f"active: {f['active']}"
            )
            yield f"- {f['rule']} {f['name']}, {why}: {words(f['message'])} ({code(f['path'] + ':' + str(f['line']))})"
        yield ""
        yield "</details>"
    yield from _obligations(s)
    kinds = [f"{k} {code(s[k]['kind'])} (active: {s[k]['active']})" for k in ("ttt", "cache")
             if s.get(k, {}).get("kind", "none") != "none"]  # fmt: skip
    if s.get("peeled"):
        kinds.append("unpacked from " + code(" > ".join(s["peeled"])))
    if kinds:
        yield ""
        yield "Contains: " + "; ".join(kinds) + "."


def _evidence(s: dict[str, Any], f: dict[str, Any]) -> Iterator[str]:
    lines = s.get("excerpts", {}).get(f["path"], {})
    last = min(max(f.get("end_line") or 0, f["line"]), f["line"] + 8)
    numbers = [n for n in range(f["line"] - 2, last + 3) if str(n) in lines]
    if not numbers and not f["trace"]:
        return
    yield ""
    yield f"<details><summary>{f['rule']} at line {f['line']}</summary>"
    yield ""
    if numbers:
        yield "```python"
        for n in numbers:
            mark = ">" if f["line"] <= n <= last else " "
            column = int(f.get("column") or 0) if n == f["line"] else 0
            yield f"{mark}{n:>5} {clip(lines[str(n)], 160, column)}".replace("```", "'''")
        yield "```"
    for n, step in enumerate(f["trace"], 1):
        yield f"{n}. {code(step['path'] + ':' + str(step['line']))} {words(step['message'])}"
    yield ""
    yield "</details>"


def _obligations(s: dict[str, Any]) -> Iterator[str]:
    groups: dict[str, list[dict[str, str]]] = {}
    for o in with_warnings(s):
        groups.setdefault(o["status"], []).append(o)
    open_ = groups.get("undetermined", [])
    if open_:
        yield ""
        yield "**Not shown**"
        yield ""
        for o in open_:
            yield f"- {o['rule']}: {words(o['reason'])}" + (f" ({o['advice']})" if o.get("advice") else "")
    shown = [o["rule"] for o in groups.get("holds", [])]
    absent = [o["rule"] for o in groups.get("not-applicable", [])]
    warned = [o["rule"] for o in groups.get("warned", [])]
    if shown or absent or warned:
        yield ""
        parts = ["warned about: " + ", ".join(warned)] if warned else []
        if shown:
            parts.append("shown to hold: " + ", ".join(shown))
        if absent:
            parts.append("not applicable: " + ", ".join(absent))
        said = "; ".join(parts)
        yield f"{said[0].upper()}{said[1:]}."
    missing = s.get("record_ready", {}).get("missing", [])
    if missing:
        yield ""
        yield "<details><summary>Not ready to be recorded</summary>"
        yield ""
        for line in missing:
            yield f"- {words(line)}"
        yield ""
        yield "</details>"
