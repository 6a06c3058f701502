"""Text, Markdown and HTML: what a person must see, and what a stranger's source must not do."""

from __future__ import annotations

import copy
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from audit.render import render_document, report, sweep_html
from audit.render.markdown import LIMIT, code, words
from audit.rules.base import rule_modules
from tests.audit.fixture_cases import audited

CASES = ["nano/prequant_ttt", "nano/prequant_ttt_off", "dense/body_not_submitted", "ngram/plain"]
HOSTILE = (
    "<script>alert(1)</script> `x` | @maintainer \x1b[31mred\x1b[0m \x00 ``` [a](javascript:b) \u202eabc"
)


def document(*cases: str) -> dict[str, Any]:
    return report([audited(c) for c in cases or CASES])


def hostile() -> dict[str, Any]:
    """A result whose every text a stranger chose."""
    rendered = copy.deepcopy(document("nano/prequant_ttt"))
    s = rendered["submissions"][0]
    s["target"] = s["reason"] = HOSTILE
    for f in s["findings"]:
        f["message"] = f["gate"] = HOSTILE
        f["settings"] = [HOSTILE]
        for step in f["trace"]:
            step["message"] = HOSTILE
    s["excerpts"] = {p: dict.fromkeys(lines, HOSTILE) for p, lines in s["excerpts"].items()}
    s["facts"] = [{"name": HOSTILE, "value": HOSTILE, "path": HOSTILE, "line": 1, "label": HOSTILE}]
    s["record_ready"] = {"ready": False, "missing": [HOSTILE]}
    s["obligations"].append({"rule": "F2", "status": "undetermined", "reason": HOSTILE})
    return rendered


def test_text_shows_verdict_frame_and_path_of_the_value() -> None:
    out = render_document(document("nano/prequant_ttt"), "text")
    f = next(f for f in audited("nano/prequant_ttt").findings if f.severity == "violation")
    assert "VIOLATION" in out and f.message.split(";")[0] in " ".join(out.split())
    assert re.search(rf"> +{f.line} \|", out), "the line is marked in its frame"
    assert "how the value gets there" in out
    assert all(f"{s.path}:{s.line}" in out for s in f.trace)


def test_text_shows_notes_only_when_asked() -> None:
    short = render_document(document("nano/prequant_ttt_off"), "text")
    full = render_document(document("nano/prequant_ttt_off"), "text", verbose=True)
    assert "note F1" not in short and "not shown (-v" in short
    assert "note F1" in full and "ADAPT_ENABLED" in full


def test_text_says_what_was_not_shown() -> None:
    assert "not shown:" in render_document(document("dense/body_not_submitted"), "text")


@pytest.mark.parametrize("format", ["text", "markdown", "html"])
def test_no_control_character_of_a_stranger_gets_through(format: str) -> None:
    out = render_document(hostile(), format)
    assert "\x1b" not in out and "\x00" not in out and "\u202e" not in out


def test_markdown_has_verdict_evidence_and_what_was_not_shown() -> None:
    out = render_document(document(), "markdown")
    assert out.startswith("### ") and "VIOLATION" in out and "UNDETERMINED" in out and "CLEAN" in out
    assert "| rule | what | where |" in out and "**Not shown**" in out and "Shown to hold:" in out
    rows = [line for line in out.splitlines() if line.startswith("| **F1**")]
    assert rows and all(len(re.split(r"(?<!\\)\|", row)) == 7 for row in rows)


def test_markdown_lets_no_stranger_format_mention_or_break_a_table() -> None:
    out = render_document(hostile(), "markdown")
    outside = re.sub(r"```python.*?```|(`+).*?\1", "", out, flags=re.S)
    assert "<script>" not in outside and "@maintainer" not in outside and "[a](" not in outside
    assert out.count("```") % 2 == 0
    rows = [line for line in out.splitlines() if line.startswith("| **F1**")]
    assert rows and all(len(re.split(r"(?<!\\)\|", row)) == 7 for row in rows)


@pytest.mark.parametrize("text", ["a`b", "``", "`", "a``b`c", "|", "", " x "])
def test_a_code_span_cannot_be_closed_from_inside(text: str) -> None:
    span = code(text)
    fence = re.match(r"`+", span)[0]
    assert span.endswith(fence) and fence not in span[len(fence) : -len(fence)].replace(fence + "`", "")
    assert "`" * (len(fence) + 1) not in span


def test_what_is_warned_of_is_not_among_what_is_shown() -> None:
    rendered = document("ngram/plain")
    s = rendered["submissions"][0]
    assert any(o["rule"] == "B3" or o["rule"] == "B2" for o in s["obligations"])
    first = dict(s["findings"][0]) if s["findings"] else {
        "name": "code-counts", "authority": "README", "confidence": "high", "active": "yes", "gate": None,
        "basis": "source", "path": "train_gpt.py", "line": 1, "end_line": 1, "trace": [],
    }  # fmt: skip
    before = copy.deepcopy(s["obligations"])
    s["findings"] = [first | {"rule": "B2", "severity": "warning", "message": "it executes another file"}]
    text = render_document(rendered, "text")
    assert re.search(r"^  warned: B2$", text, re.M) and not re.search(r"^  shown:.*\bB2\b", text, re.M)
    assert "B2: train_gpt.py:1: it executes another file" in render_document(rendered, "text", verbose=True)
    assert re.search(r"^Warned about: B2; shown to hold: (?!.*\bB2\b)", render_document(rendered, "markdown"), re.M)
    assert "<span class='badge warned'>warned</span>" in render_document(rendered, "html")
    assert json.loads(render_document(rendered, "json"))["submissions"][0]["obligations"] == before
    for quiet in ({"suppressed": "baseline"}, {"severity": "note"}):
        s["findings"] = [first | {"rule": "B2", "severity": "warning", "message": "m"} | quiet]
        assert "warned" not in render_document(rendered, "text")


def test_every_ruling_is_on_the_rules_page() -> None:
    for rule, module in rule_modules().items():
        page = (module.__doc__ or "").split("**Ruling.**")[1].split("**See also")[0]
        for thread in filter(None, module.RULE.ruling.split(", ")):
            assert re.fullmatch(r"#\d+", thread) and re.search(rf"{thread}\b", page), (rule, thread)
        if module.RULE.authority in ("DISPUTED", "UNRULED"):
            assert not module.RULE.ruling or module.RULE.illegal == "BLOCKED"


def test_the_ruling_stands_beside_the_accusation() -> None:
    rendered = document("nano/prequant_ttt")
    f = next(f for f in rendered["submissions"][0]["findings"] if f["rule"] == "F1")
    assert "[README (#402, #1972), high confidence" in render_document(rendered, "text")
    assert "| README (\\#402, \\#1972), high confidence |" in render_document(rendered, "markdown")
    f["authority"] = "COMM"  # the ruling is the rule's, not this finding's
    assert "[COMM, high confidence" in render_document(rendered, "text")
    f |= {"rule": "F77", "authority": "MAINT"}
    assert "[MAINT, high confidence" in render_document(rendered, "text")


@pytest.mark.parametrize("word", ["README", "MAINT", "MERGED", "COMM", "DISPUTED", "UNRULED", "*standing*", "*runs*"])
def test_what_stands_in_accusations_is_explained(word: str) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
    legend = page.split("## How an accusation reads")[1].split("\n## ")[0]
    assert (word if word.startswith("*") else f"| `{word}` |") in legend


def test_words_escape_markup() -> None:
    assert words("a*b_c") == "a\\*b\\_c" and "@x" not in words("@x")


def test_a_comment_stays_below_what_a_forge_accepts() -> None:
    rendered = document("nano/prequant_ttt")
    rendered["submissions"] *= 300
    out = render_document(rendered, "markdown")
    assert len(out) <= LIMIT + 2000 and "The rest is cut" in out and out.count("```") % 2 == 0


class Page(html.parser.HTMLParser):
    """Tags and attributes of a page; fails on what is not balanced."""

    VOID = frozenset({"meta", "br", "input", "link", "img", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def external(page: Page) -> list[tuple[str, dict[str, str | None]]]:
    return [
        (tag, attrs) for tag, attrs in page.tags
        if tag in ("link", "img", "iframe") or "src" in attrs or not (attrs.get("href") or "#").startswith("#")
    ]  # fmt: skip


def test_the_page_is_whole_and_needs_nothing_from_outside() -> None:
    out = render_document(document(), "html")
    page = Page(out)
    assert external(page) == [] and "http" not in re.sub(r"\bhttps?\b(?=[^:])", "", out)
    assert "ADAPT_ENABLED" in out and "How the value gets there" in out


def test_a_stranger_puts_no_tag_and_no_attribute_into_the_page() -> None:
    clean, bad = (
        Page(render_document(document("nano/prequant_ttt"), "html")),
        render_document(hostile(), "html"),
    )
    page = Page(bad)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in clean.tags} | {
        "ul",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "div",
        "li",
    }
    assert "<script>alert" not in bad


def test_the_overview_has_a_row_per_line_of_the_sweep_and_its_filters() -> None:
    rows = [audited(c).as_json() | {"ref": f"refs/pull/{n}/head"} for n, c in enumerate(CASES)]
    out = sweep_html(rows, "A sweep")
    page = Page(out)
    body = [attrs for tag, attrs in page.tags if tag == "tr" and "data-verdict" in attrs]
    assert [a["data-verdict"] for a in body] == [audited(c).verdict for c in CASES]
    assert external(page) == []
    assert {"q", "v", "r", "t", "c", "rows", "shown"} <= {a.get("id") for _, a in page.tags}


def test_the_overview_calls_rules_by_their_names() -> None:
    rows = [audited(c).as_json() | {"ref": f"refs/pull/{n}/head"} for n, c in enumerate(CASES)]
    out = sweep_html(rows)
    f = next(f for f in rows[0]["findings"] if f["severity"] == "violation")
    assert f"<b title='{f['name']}'>{f['rule']}</b>" in out, "a rule says its name where it is pointed at"
    assert f"<td>{f['rule']}</td><td>{f['name']}</td>" in out, "and in the legend"
    data = json.loads(out.partition("id='data'>")[2].partition("</script>")[0])
    rule, mild, path, line, message, standing = data["rows"][0][0]
    assert (rule, mild, data["texts"][path], line) == (f"{f['rule']} {f['name']}", 0, f["path"], f["line"])
    assert data["texts"][message] == f["message"] and f["authority"] in data["texts"][standing]


def test_the_overview_shows_the_score_that_a_submission_states() -> None:
    def fact(label: str, value: object, path: str = "records/x/submission.json") -> dict[str, object]:
        return {"name": "val_bpb", "value": value, "path": path, "line": 1, "raw": "", "scope": "", "label": label}

    row = audited(CASES[0]).as_json() | {"ref": "refs/pull/1/head"}
    row["facts"] = [fact("seed_results.42.val_bpb", 1.5), fact("mean_val_bpb", 1.25), fact("val_bpb", 1.11925), fact("val_bpb", 1.75, "records/x/train.log")]
    out = sweep_html([row])
    assert "<td class='num'>1.1192</td>" in out or "<td class='num'>1.1193</td>" in out
    assert not any(x in out for x in ("1.5000", "1.2500", "1.7500"))
    assert "<td class='num'></td>" in sweep_html([row | {"facts": [fact("val_bpb", "none")]}])


def test_a_row_without_a_script_is_shown() -> None:
    row = {"target": "x", "ref": "refs/pull/9/head", "primary": None, "verdict": "undetermined", "reason": "no script",
           "findings": [], "obligations": []}  # fmt: skip
    assert "no script" in sweep_html([row])
    assert "no script" in render_document({"sweep": True, "submissions": [row]}, "text")
