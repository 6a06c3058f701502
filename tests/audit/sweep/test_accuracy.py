"""The accuracy benchmark counts what the labels mean."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[3] / "benchmarks" / "audit_accuracy.py"
spec = importlib.util.spec_from_file_location("audit_accuracy", PATH)
assert spec is not None and spec.loader is not None
accuracy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(accuracy)


def label(verdict: str, rules: str = "", sha: str = "a", **more: str) -> dict[str, str]:
    row = {
        "pr": "1",
        "head_sha": sha,
        "path": "t.py",
        "verdict": verdict,
        "rules": rules,
        "authority": "merged",
    }
    return row | {"ttt_kind": "none", "cache_kind": "none"} | more


def line(verdict: str, *rules: str, primary: str = "t.py", active: str = "yes") -> dict[str, Any]:
    found = [{"rule": r, "severity": "violation", "active": active} for r in rules]
    kinds = {"ttt": {"kind": "none"}, "cache": {"kind": "none"}}
    return {"primary": primary, "verdict": verdict, "reason": "", "findings": found, **kinds}


def figures(row: dict[str, str], *lines: dict[str, Any], source_only: bool = True) -> dict[str, Any]:
    return accuracy.score([row], {"a": list(lines)}, source_only)[0]


def test_hits_families_and_exact_rules() -> None:
    found = figures(label("illegal", "F1;F8"), line("violation", "F2", "F7"))
    assert (found["illegal_found"], found["family_right"], found["rule_right"]) == (1.0, 1.0, 0.0)
    assert found["families_per_accusation"] == 2.0


def test_legal_ones_that_are_accused() -> None:
    found = figures(label("legal"), line("violation", "F1"))
    assert (found["legal_accused"], found["legal_clean"], found["merged_accused"]) == (1.0, 0.0, 1)


def test_grey_labels_are_not_counted() -> None:
    found = figures(label("grey", "F6"), line("violation", "F6"))
    assert (found["illegal"], found["legal"], found["grey"], found["grey_violation"]) == (0, 0, 1, 1)


def test_what_only_the_papers_show_is_left_out_unless_asked_for() -> None:
    assert figures(label("illegal", "B1;D2"), line("clean"))["illegal"] == 0
    assert figures(label("illegal", "B1;D2"), line("clean"), source_only=False)["illegal_called_clean"] == 1.0
    assert figures(label("legal"), line("violation", "B1"))["legal_clean"] == 1.0
    assert figures(label("legal"), line("violation", "B1"), source_only=False)["legal_accused"] == 1.0


def test_the_labelled_path_counts_and_else_the_worst() -> None:
    assert (
        figures(label("legal"), line("clean"), line("violation", "F1", primary="u.py"))["legal_clean"] == 1.0
    )
    two = figures(label("legal"), line("clean", primary="u.py"), line("violation", "F1", primary="v.py"))
    assert two["legal_accused"] == 1.0
    assert figures(label("illegal", "F1"))["absent"] == 1


def test_kinds() -> None:
    found = figures(label("legal", ttt_kind="slot"), line("clean"))
    assert (found["ttt_kind_right"], found["cache_kind_right"]) == (0.0, 1.0)


def test_the_split_depends_on_the_number_alone() -> None:
    assert accuracy.split_of("1413") == accuracy.split_of("1413")
    share = sum(accuracy.split_of(str(n)) == "dev" for n in range(2000)) / 2000
    assert 0.65 < share < 0.75
