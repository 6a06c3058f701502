"""``referee rules``, ``explain`` and ``report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.program import main
from audit.rules.base import rule_modules
from tests.audit.fixture_cases import ROOT, SUBMISSIONS, audited


def run(*args: str, capsys) -> tuple[int, str, str]:
    code = main(list(args))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_rule_is_listed_with_its_standing(capsys) -> None:
    code, out, _ = run("rules", "--format", "json", capsys=capsys)
    rows = json.loads(out)["rules"]
    assert code == 0 and [r["id"] for r in rows] == list(rule_modules())
    _, text, _ = run("rules", capsys=capsys)
    assert all(f"\n{r['id']} " in text for r in rows)


def test_an_early_ruleset_is_smaller(capsys) -> None:
    _, out, _ = run("rules", "--ruleset", "2026-03-19", "--format", "json", capsys=capsys)
    assert len(json.loads(out)["rules"]) < len(rule_modules())


@pytest.mark.parametrize("rule", list(rule_modules()))
def test_every_rule_explains_itself_with_both_examples(rule: str, capsys) -> None:
    code, out, _ = run("explain", rule.lower(), capsys=capsys)
    module = rule_modules()[rule]
    assert code == 0 and out.startswith(f"{rule} {module.RULE.name}: {module.RULE.title}")
    assert "What" in out and "Why" in out
    if module.ILLEGAL:
        assert "Illegal: " in out and "Legal look-alike: " in out
    assert run("explain", module.RULE.name, capsys=capsys)[1] == out


def test_an_unknown_rule_names_a_near_one(capsys) -> None:
    code, _, err = run("explain", "score-frist", capsys=capsys)
    assert code == 2 and "score-first" in err and len(err.strip().splitlines()) == 1


def test_the_rules_page_is_what_the_command_writes(capsys) -> None:
    _, out, _ = run("rules", "--format", "markdown", "--full", capsys=capsys)
    page = ROOT.parent / "docs" / "rules.md"
    assert page.read_text(encoding="utf-8") == out, (
        "run: referee rules --format markdown --full --output docs/rules.md"
    )


@pytest.mark.parametrize("format", ["text", "json", "markdown", "sarif", "html"])
def test_a_saved_result_renders_to_the_same_in_every_format(format: str, tmp_path: Path, capsys) -> None:
    target = str(SUBMISSIONS / "dense" / "slot")
    saved = tmp_path / "result.json"
    main(["audit", target, "--format", "json", "-o", str(saved)])
    _, direct, _ = run("audit", target, "--format", format, capsys=capsys)
    _, again, _ = run("report", str(saved), "--format", format, capsys=capsys)
    assert again == direct


def test_a_sweep_renders_as_a_table_and_its_torn_last_line_is_left_out(tmp_path: Path, capsys) -> None:
    rows = [
        audited(c).as_json() | {"ref": f"refs/pull/{n}/head"}
        for n, c in enumerate(("dense/slot", "ngram/plain"))
    ]
    saved = tmp_path / "sweep.jsonl"
    saved.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"verdict": "cle')
    _, out, _ = run("report", str(saved), capsys=capsys)
    assert "refs/pull/0/head" in out and "1 violation" in out and "1 clean" in out
    _, page, _ = run("report", str(saved), "--format", "html", capsys=capsys)
    assert "refs/pull/1/head" in page and "<script>" in page


@pytest.mark.parametrize("text", ["", "not json", '{"a": 1}', "[1, 2]", '{"schema": "other/9"}'])
def test_what_is_no_result_is_one_line(text: str, tmp_path: Path, capsys) -> None:
    saved = tmp_path / "x.json"
    saved.write_text(text)
    code, _, err = run("report", str(saved), capsys=capsys)
    assert code == 2 and len(err.strip().splitlines()) == 1
