"""The table at a sweep's end, and a sweep's lines as a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.program import main
from audit.sweep.summary import LONGEST, _kind


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            "undetermined, because D2 could not be shown: records/a/train_gpt.py:12: the evaluation keeps to the first 1,048,576 tokens, "
            "and no log shows the full set (and 2 more)",
            "D2: the evaluation keeps to the first N tokens, and no log shows the full set",
        ),
        (
            "undetermined, because D2 could not be shown: t.py:12: at most 3 turns of its loop (MAX_VAL_BATCHES=3), and no log",
            "D2: at most N turns of its loop, and no log",
        ),
        ("undetermined, because F10 could not be shown: 'x y' is 1.5e-3 in a/b.py:3 under A_B=7, at last", "F10: … is N in … under A_B=…, at last"),
        ("undetermined, because F1 could not be shown: the score's line is kept (b2b)", "F1: the score's line is kept (b2b)"),
        ("the audit did not end: 20 seconds", "the audit did not end: N seconds"),
    ],
)  # fmt: skip
def test_a_reason_without_its_particulars(reason: str, said: str) -> None:
    assert _kind(reason) == said


def test_a_long_reason_is_cut_between_words() -> None:
    kind = _kind("undetermined, because F1 could not be shown: " + "words of many letters " * 40)
    assert len(kind) <= LONGEST and kind.endswith(("words …", "of …", "many …", "letters …"))


@pytest.mark.parametrize("kept", [True, False])
def test_a_report_of_a_sweep_knows_its_ruleset_or_says_nothing(kept: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"ref": "refs/pull/1/head", "target": "refs/pull/1/head", "primary": "t.py", "verdict": "clean", "reason": "", "findings": []}
    more = {"ruleset": "2026-05-02"} if kept else {}
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line | more) + "\n" for _ in range(2)))
    assert main(["report", str(tmp_path / "s.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "unknown" not in out and ("ruleset 2026-05-02" in out) == kept
