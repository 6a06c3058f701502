"""The result as a page: verdict, evidence with code frames and the value's path, what was not shown."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from audit.render.page import badge, page
from audit.render.places import clip, column_in, safe, stripped, unpacked_hint, with_warnings
from audit.wording import counted

STATUS = ("violated", "undetermined", "warned", "holds", "not-applicable")
WORDS = {
    "violated": "violated",
    "undetermined": "not shown",
    "warned": "warned",
    "holds": "holds",
    "not-applicable": "not applicable",
}


def text(value: object) -> str:
    """A stranger's text, escaped and without control characters."""
    return escape(safe(str(value)))


def render_html(document: dict[str, Any]) -> str:
    """The whole document as one self-contained page."""
    submissions = document["submissions"]
    title = "Audit" if len(submissions) != 1 else f"Audit of {safe(str(submissions[0].get('target', '')))}"
    about = f"referee {text(document.get('version', ''))}, ruleset {text(document.get('ruleset', 'unknown'))}"
    return page(title, f"<h1>{escape(title)}</h1><p class='dim'>{about}</p>{submissions_html(document)}")


def submissions_html(document: dict[str, Any]) -> str:
    """The submissions of a document as a body fragment, for this page and for larger reports."""
    submissions = document["submissions"]
    parts = []
    if len(submissions) > 1:
        parts.append(
            "<div class='scroll'><table><thead><tr><th>submission</th><th>verdict</th><th>why</th></tr></thead><tbody>"
        )
        for n, s in enumerate(submissions):
            name = text(s.get("target") or s.get("primary") or "")
            parts.append(
                f"<tr><td><a href='#submission-{n}'><code>{name}</code></a></td><td>{badge(s['verdict'])}</td>"
                f"<td>{text(s.get('reason', ''))}</td></tr>"
            )
        parts.append("</tbody></table></div>")
    for n, s in enumerate(submissions):
        parts += _submission(s, n)
    return "\n".join(parts)


def _submission(s: dict[str, Any], number: int) -> Iterator[str]:
    yield f"<section id='submission-{number}'><h2><code>{text(s.get('target') or '')}</code> {badge(s['verdict'])}</h2>"
    yield f"<p>{text(s.get('reason', ''))}</p>"
    yield f"<p class='dim'>{' &middot; '.join(_about(s))}</p>"
    telling = [f for f in s["findings"] if f["severity"] != "note" and not f.get("suppressed")]
    quiet = [f for f in s["findings"] if f not in telling]
    if hint := unpacked_hint(s):
        prose, _, command = hint.partition(": ")
        yield f"<p class='dim'>{text(prose.capitalize())}: <code>{text(command)}</code></p>"
    for f in telling:
        yield from _finding(s, f)
    if quiet:
        yield f"<details><summary>{len(quiet)} that do{'es' if len(quiet) == 1 else ''} not count</summary>"
        for f in quiet:
            yield from _finding(s, f)
        yield "</details>"
    yield from _obligations(s)
    missing = s.get("record_ready", {}).get("missing", [])
    if missing:
        yield f"<details><summary>Not ready to be recorded: {len(missing)} missing</summary><ul>"
        yield from (f"<li>{text(line)}</li>" for line in missing)
        yield "</ul></details>"
    facts = s.get("facts", [])
    if facts:
        yield f"<details><summary>{counted(len(facts), 'stated quantity', 'stated quantities')}</summary><div class='scroll'><table><thead>"
        yield "<tr><th>name</th><th class='num'>value</th><th>where</th><th>as</th></tr></thead><tbody>"
        for fact in facts[:400]:
            yield (
                f"<tr><td>{text(fact['name'])}</td><td class='num'>{text(fact['value'])[:80]}</td>"
                f"<td><code>{text(fact['path'])}:{fact['line']}</code></td><td>{text(fact.get('label', ''))}</td></tr>"
            )
        yield "</tbody></table></div></details>"
    yield "</section>"


def _about(s: dict[str, Any]) -> Iterator[str]:
    if s.get("primary"):
        yield f"script <code>{text(s['primary'])}</code>"
    if s.get("commit"):
        yield f"commit <code>{text(s['commit'][:10])}</code>"
    if s.get("peeled"):
        yield f"unpacked {text(' > '.join(s['peeled']))}"
    for name in ("ttt", "cache"):
        kind = s.get(name, {}).get("kind", "none")
        yield f"{name}: {text(kind)}" + (f" (active: {text(s[name]['active'])})" if kind != "none" else "")


def _finding(s: dict[str, Any], f: dict[str, Any]) -> Iterator[str]:
    gate = f" by <code>{text(f['gate'])}</code>" if f.get("gate") else ""
    basis = "" if f.get("basis", "source") == "source" else f", from the {text(f['basis'])}"
    yield "<div class='card'>"
    yield f"<h3>{badge(f['severity'])} {text(f['rule'])} {text(f['name'])}</h3><p>{text(f['message'])}</p>"
    yield (
        f"<p class='dim'><code>{text(f['path'])}:{f['line']}</code> &middot; {text(f['authority'])}, "
        f"{text(f['confidence'])} confidence{basis} &middot; active: {text(f['active'])}{gate}</p>"
    )
    if f.get("suppressed"):
        yield f"<p>suppressed: {text(f['suppressed'])}</p>"
    lines = s.get("excerpts", {}).get(f["path"], {})
    last = min(max(f.get("end_line") or 0, f["line"]), f["line"] + 12)
    frame = [(n, lines[str(n)]) for n in range(f["line"] - 3, last + 4) if str(n) in lines]
    if frame:
        yield (
            "<pre><code>"
            + "".join(_line(n, body, f["line"] <= n <= last) for n, body in frame)
            + "</code></pre>"
        )
    if f["trace"]:
        yield "<details open><summary>How the value gets there</summary><ol>"
        for step in f["trace"]:
            source = clip(stripped(s, step), 240, column_in(s, step))
            shown = f"<br><code>{escape(source)}</code>" if source else ""
            yield f"<li><code>{text(step['path'])}:{step['line']}</code> {text(step['message'])}{shown}</li>"
        yield "</ol></details>"
    yield "</div>"


def _line(number: int, body: str, hit: bool) -> str:
    shown = f"<span class='no'>{number:>5} </span>{text(body)}"
    return f"<span class='hit'>{shown}</span>" if hit else shown + "\n"


def _obligations(s: dict[str, Any]) -> Iterator[str]:
    obligations = sorted(with_warnings(s), key=lambda o: STATUS.index(o["status"]))
    if not obligations:
        return
    counts = {w: sum(o["status"] == k for o in obligations) for k, w in WORDS.items()}
    said = ", ".join(f"{n} {w}" for w, n in counts.items() if n)
    opened = " open" if s["verdict"] != "violation" else ""
    yield f"<details{opened}><summary>{counted(len(obligations), 'obligation')}: {said}</summary><div class='scroll'><table><tbody>"
    for o in obligations:
        yield (
            f"<tr><td>{text(o['rule'])}</td><td><span class='badge {o['status']}'>{WORDS[o['status']]}</span></td>"
            f"<td>{text(o['reason'])}</td></tr>"
        )
    yield "</tbody></table></div></details>"
