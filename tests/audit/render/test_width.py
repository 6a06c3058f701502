"""Text at a terminal: prose wrapped to its columns, code cut around the place that matters, colour only where it is wanted."""

from __future__ import annotations

import copy
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

from audit.context import Options
from audit.engine import audit_text
from audit.excerpts import CUT, WIDEST
from audit.render import render_document, report
from audit.render.places import clip
from audit.render.text import render_text
from tests.audit.fixture_cases import ROOT, SUBMISSIONS, audited

CASES = ["dense/slot_packed", "nano/prequant_ttt", "dense/body_not_submitted"]
PLACE = re.compile(r"^ +(?:-->|\d+\.) \S+:\d+$|^\S+(?: \S+\.py)?: [A-Z]+$")


def document() -> dict[str, Any]:
    rendered = copy.deepcopy(report([audited(c) for c in CASES]))
    for s in rendered["submissions"]:
        s["target"] = "records/a/rather/long/path/to/the/submission"
        for f in s["findings"]:
            f["gate"] = "TTT_ENABLED=1, SLIDING_WINDOW_ENABLED=1, ADAPT_BEFORE_QUANTIZATION=1"
            f["message"] += "; and so on in words that go on for quite a while" * 3
    return rendered


@pytest.mark.parametrize("width", [60, 80, 110, 150])
def test_no_line_is_wider_than_the_terminal_but_a_place(width: int) -> None:
    lines = render_text(document(), verbose=True, width=width).split("\n")
    assert not [line for line in lines if len(line) > width and not PLACE.match(line)]
    assert max(len(line) for line in lines) > width - 12, "the room is used"


def test_the_words_are_the_same_at_every_width() -> None:
    def prose(width: int) -> str:
        lines = render_text(document(), width=width).split("\n")
        return " ".join(" ".join(line for line in lines if CUT not in line and " | " not in line).split())

    said = "and so on in words that go on for quite a while"
    assert prose(60).count(said) == prose(150).count(said) > 0


def test_columns_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (60, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert render_document(document(), "text") == render_text(document(), width=columns)
    monkeypatch.setenv("COLUMNS", "7")
    assert render_document(document(), "text") == render_text(document(), width=40)


@pytest.mark.parametrize(
    ("text", "width", "column", "shown"),
    [
        ("short", 40, 3, "short"), ("x" * 40, 40, 40, "x" * 40), ("x" * 41, 40, 0, "x" * 39 + CUT),
        ("a" * 30 + "b" * 70, 40, 5, "a" * 30 + "b" * 9 + CUT),
        ("." * 100 + "HERE" + "." * 100, 40, 101, CUT + "." * 10 + "HERE" + "." * 24 + CUT),
        ("." * 96 + "HERE", 40, 97, CUT + "." * 35 + "HERE"), ("x" * 100, 40, 5000, CUT + "x" * 39),
        ("x\ty" + "z" * 50, 20, 0, "x    y" + "z" * 13 + CUT),
    ],
)  # fmt: skip
def test_code_is_cut_around_its_column_and_the_cut_is_marked(text: str, width: int, column: int, shown: str) -> None:
    assert clip(text, width, column) == shown and len(shown) <= max(width, 20)


LEAK = (SUBMISSIONS / "ngram" / "target_in_the_address" / "train_gpt.py").read_text()
#: the statement at the end of a line that begins with many others
MINIFIED = re.sub(
    r"^( +)(nats [-+]= .*)$", lambda m: m[1] + "".join(f"unused_{n}=0;" for n in range(60)) + m[2], LEAK, count=1, flags=re.M
)


def test_a_minified_line_is_shown_where_it_matters() -> None:
    assert MINIFIED != LEAK
    submission = audit_text(MINIFIED, Options(env={"NGRAM_CACHE": "1"}))
    rendered = report([submission])
    steps = [s for f in rendered["submissions"][0]["findings"] for s in f["trace"] if s.get("column", 0) > WIDEST]
    assert steps, "the statement's column is known"
    for format in ("text", "html"):
        out = render_document(rendered, format, width=80)
        assert re.search(CUT + r"[^\n]*nats [-+]= ", out), format
    line = rendered["submissions"][0]["excerpts"]["train_gpt.py"][str(steps[0]["line"])]
    assert len(line) > WIDEST and "nats" in line


def test_a_place_is_compared_by_its_line_alone() -> None:
    submission = audited("dense/slot")
    f = submission.findings[0]
    assert f.column and f == type(f)(**{k: getattr(f, k) for k in f.__slots__ if k != "column"})


def test_a_column_that_is_not_known_is_not_written() -> None:
    f = audited("dense/slot").as_json()["findings"][0]
    assert f["column"] >= 1 and all(step.get("column", 1) >= 1 for step in f["trace"])


def at_terminal(*options: str, **env: str) -> str:
    """What an audit writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    settings = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "COLUMNS")} | {"COLUMNS": "100"} | env
    command = [sys.executable, "-m", "audit", "audit", str(SUBMISSIONS / "ngram" / "plain"), *options]
    done = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, cwd=ROOT.parent, env=settings)
    os.close(theirs)
    out = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        out += piece
    os.close(ours)
    assert done.wait() == 0
    return out.decode()


def test_a_terminal_has_colour_unless_it_or_its_user_says_no() -> None:
    assert "\x1b[" in at_terminal(TERM="xterm")
    assert "\x1b[" not in at_terminal(TERM="dumb")
    assert "\x1b[" not in at_terminal("--no-color", TERM="xterm")
    assert "\x1b[" not in at_terminal(TERM="xterm", NO_COLOR="1")
    assert "\x1b[" in at_terminal("--color", "always", TERM="dumb")
