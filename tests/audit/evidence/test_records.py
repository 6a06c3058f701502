"""Every records folder under fixtures/records gets the verdict, findings and readiness beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from audit.context import Options
from audit.engine import audit_target

ROOT = Path(__file__).resolve().parents[3] / "fixtures" / "records"
FOLDERS = sorted(p.parent for p in ROOT.glob("*/expected.json"))
RANK = {"note": 0, "warning": 1, "violation": 2}
PAPER_RULES = {"D1", "D2", "M1", "B1", "B3", "B4", "E1", "E2", "E4", "F1", "F7"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_folder_gets_its_verdict(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    (found,) = audit_target(str(folder))
    worst: dict[str, str] = {}
    for f in found.findings:
        if f.rule in PAPER_RULES and RANK[f.severity] > RANK.get(worst.get(f.rule, "note"), 0):
            worst[f.rule] = f.severity
    readiness = {"E1", "E2", "E4"}
    said = {r: s for r, s in worst.items() if r not in readiness or r in expected["says"]}
    assert said == expected["says"], [(f.rule, f.severity, f.message) for f in found.findings]
    assert found.verdict == expected["verdict"], found.reason
    missing = found.record_ready["missing"]
    for words in expected["missing"]:
        assert any(words in line for line in missing), missing
    if expected["missing"] == ["E3"]:
        assert [line[:2] for line in missing] == ["E3"], missing


def test_committed_folders_are_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "build.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_paper_rule_has_an_illegal_folder() -> None:
    said = set()
    for folder in FOLDERS:
        said |= set(json.loads((folder / "expected.json").read_text())["says"])
    assert said >= PAPER_RULES


@pytest.mark.parametrize(
    ("record", "ready", "words"),
    [
        ("1.1300,1.1310,1.1305", True, ""),
        (str(ROOT / "e1_one_seed"), False, "E3"),
        ("1.1146,1.1144,1.1147", False, "E3"),
    ],
)
def test_significance_against_a_named_record(record: str, ready: bool, words: str) -> None:
    (found,) = audit_target(str(ROOT / "legal_tight"), Options(against=record))
    (stated,) = [o for o in found.obligations if o.rule == "E3"]
    assert found.record_ready["ready"] is ready, found.record_ready
    assert found.verdict == "clean"
    assert "H0 gain <= 0.005" in stated.reason and "p = " in stated.reason
    assert not words or any(line.startswith(words) for line in found.record_ready["missing"])


def test_a_record_that_is_none_is_one_clear_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "audit", "audit", str(ROOT / "legal_tight"), "--against", "no/such/record"],
        capture_output=True, text=True, check=False, cwd=ROOT.parents[1],
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
