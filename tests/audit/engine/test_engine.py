"""The pipeline as a whole: what a failing part may do, what is suppressed, what is written out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import audit.engine as engine
from audit.baseline import of_submission
from audit.context import Options
from audit.contracts import FIRST_RULESET, Exit, InputError
from audit.dump import dump_sources
from audit.engine import Timings, audit_files, audit_target, audit_text, text_files
from audit.model import Finding, Obligation, Step
from audit.rules.base import Rule, rule_modules
from audit.verdict import exit_code

SCRIPT = "import os\nlr = float(os.environ.get('LR', '0.1'))\nprint(lr)\n"


def rule(check, **kw) -> ModuleType:
    """A rule module that is not on the disk."""
    module = ModuleType("rule")
    fields = {"id": "F99", "name": "made-up", "title": "made up", "illegal": "INVALID", "authority": "README",
              "severity": "violation", "needs": ("source",)} | kw  # fmt: skip
    module.RULE, module.check = Rule(**fields), check  # type: ignore[attr-defined]
    module.ILLEGAL = module.LEGAL = []  # type: ignore[attr-defined]
    return module


def finding(**kw) -> Finding:
    fields = {"rule": "F99", "name": "made-up", "severity": "violation", "authority": "README",
              "confidence": "high", "message": "breach", "path": "train_gpt.py", "line": 2, "end_line": 2}  # fmt: skip
    return Finding(**(fields | kw))


def only(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    monkeypatch.setattr(engine, "rule_modules", lambda: {m.RULE.id: m for m in modules})


def fires(**kw):
    def check(_ctx) -> Iterator[Finding | Obligation]:
        yield finding(**kw)
        yield Obligation(rule="F99", status="violated", reason="breach")

    return check


def holds(_ctx) -> Iterator[Finding | Obligation]:
    yield Obligation(rule="F99", status="holds", reason="shown")


def breaks(_ctx) -> Iterator[Finding | Obligation]:
    yield finding(severity="note")
    raise KeyError("a bug")


def test_a_rule_that_breaks_is_undetermined_and_the_others_are_still_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, rule(breaks), rule(fires(rule="F98"), id="F98"))
    result = audit_text(SCRIPT)
    assert result.verdict == "violation"
    status = {o.rule: o.status for o in result.obligations}
    assert status == {"F99": "undetermined", "F98": "violated"}
    only(monkeypatch, rule(breaks))
    result = audit_text(SCRIPT)
    assert (
        result.verdict == "undetermined" and "KeyError" in result.reason and "test_engine.py" in result.reason
    )
    assert exit_code([result]) == Exit.UNDETERMINED


@pytest.mark.parametrize("stage", ["audit.evidence.read_facts", "audit.knobs.resolve", "audit.trace.trace"])
def test_a_stage_that_breaks_is_never_clean(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    def broken(*_a, **_k):
        raise RecursionError("too deep")

    monkeypatch.setattr(stage, broken)
    only(monkeypatch, rule(holds))
    result = audit_text(SCRIPT)
    assert result.verdict == "undetermined"
    assert "RecursionError: too deep" in result.reason


def test_a_classifier_that_breaks_leaves_the_kind_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_trace):
        raise ValueError("bug")

    monkeypatch.setattr("audit.classify.ttt", broken)
    only(monkeypatch, rule(holds))
    assert audit_text(SCRIPT).verdict == "undetermined"


def test_what_cannot_be_read_is_never_clean() -> None:
    assert audit_text("def (:\n").verdict == "undetermined"
    assert audit_text("exec(open('elsewhere.py').read())\n").verdict == "undetermined"


@pytest.mark.parametrize(
    ("kw", "policy", "verdict", "severity"),
    [
        ({}, "precedent", "violation", "violation"),
        ({"active": "no"}, "precedent", "clean", "note"),
        ({"active": "no"}, "strict", "clean", "note"),
        ({"active": "unknown"}, "precedent", "undetermined", "violation"),
        ({"confidence": "low"}, "precedent", "clean", "warning"),
        ({"authority": "DISPUTED"}, "precedent", "clean", "warning"),
        ({"authority": "DISPUTED"}, "strict", "violation", "violation"),
        ({"authority": "UNRULED"}, "precedent", "clean", "warning"),
        ({"authority": "UNRULED"}, "strict", "violation", "violation"),
        ({"authority": "COMM"}, "precedent", "violation", "violation"),
        ({"authority": "MERGED"}, "precedent", "violation", "violation"),
    ],
)
def test_what_a_finding_weighs(monkeypatch: pytest.MonkeyPatch, kw, policy, verdict, severity) -> None:
    only(monkeypatch, rule(fires(**kw)))
    result = audit_text(SCRIPT, Options(policy=policy))
    assert (result.verdict, result.findings[0].severity) == (verdict, severity)


@pytest.mark.parametrize(
    ("illegal", "policy", "verdict"),
    [("GREY", "precedent", "clean"), ("GREY", "strict", "violation"), ("BLOCKED", "precedent", "clean"),
     ("INELIGIBLE", "precedent", "violation"), ("NOT-READY", "strict", "clean")],
)  # fmt: skip
def test_only_invalid_and_ineligible_break_under_precedent(monkeypatch, illegal, policy, verdict) -> None:
    only(monkeypatch, rule(fires(), illegal=illegal))
    assert audit_text(SCRIPT, Options(policy=policy)).verdict == verdict


def test_what_is_missing_for_the_record_never_touches_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, rule(fires(rule="E1", message="1 of 3 seeds"), id="E1", illegal="NOT-READY"))
    result = audit_text(SCRIPT)
    assert result.verdict == "clean"
    assert result.record_ready == {"ready": False, "missing": ["E1: 1 of 3 seeds"]}


def test_a_rule_without_its_input_is_not_applicable_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, rule(breaks, needs=("log",)))
    result = audit_text(SCRIPT)
    assert result.verdict == "clean"
    assert [(o.status, o.reason) for o in result.obligations] == [
        ("not-applicable", "no log among the submitted files")
    ]


def test_an_older_ruleset_leaves_out_what_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, rule(fires(), since="2026-04-01"))
    assert audit_text(SCRIPT, Options(ruleset="2026-04-01")).verdict == "violation"
    assert audit_text(SCRIPT, Options(ruleset="2026-03-31")).verdict == "clean"
    with pytest.raises(InputError, match="YYYY-MM-DD"):
        audit_text(SCRIPT, Options(ruleset="spring"))


def test_a_date_before_the_first_rule_is_no_ruleset() -> None:
    first = min(module.RULE.since for module in rule_modules().values())
    assert first == FIRST_RULESET
    assert audit_text(SCRIPT, Options(ruleset=first)).obligations
    with pytest.raises(InputError, match="before the first rule"):
        audit_text(SCRIPT, Options(ruleset="2020-01-01"))


@pytest.mark.parametrize("text", ["\x00\x01\xff(((\x00", "| NVIDIA-SMI 550.54 |\nseed = 0xSEED\n"])
def test_of_what_no_parser_read_nothing_is_shown(text: str) -> None:
    result = audit_text(text)
    assert result.verdict == "undetermined" and "S2" in result.reason
    assert [o.rule for o in result.obligations if o.status == "holds"] == []


def test_of_code_that_was_read_its_reading_is_shown() -> None:
    shown = {o.rule for o in audit_text("# nothing yet\n").obligations if o.status == "holds"}
    assert {"S1", "S2", "S3", "B2", "M2"} <= shown


def test_a_comment_suppresses_a_finding_unless_the_auditor_ignores_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, rule(fires()))
    text = SCRIPT.replace("'0.1'))", "'0.1'))  # referee: ignore[F99] agreed with the judges")
    result = audit_text(text)
    assert result.verdict == "clean" and "suppressed" in result.reason
    assert result.findings[0].suppressed == "in the source: agreed with the judges"
    assert audit_text(text, Options(ignore_suppressions=True)).verdict == "violation"
    assert audit_text(text.replace("F99", "F98")).verdict == "violation"


def test_a_baseline_survives_lines_inserted_above_and_not_a_change_of_the_line(monkeypatch) -> None:
    only(monkeypatch, rule(fires()))
    known = frozenset(of_submission(audit_text(SCRIPT)))
    assert audit_text(SCRIPT, Options(baseline=known)).verdict == "clean"
    only(monkeypatch, rule(fires(line=4, end_line=4)))
    assert audit_text("# a\n# b\n" + SCRIPT, Options(baseline=known)).verdict == "clean"
    assert (
        audit_text("# a\n# b\n" + SCRIPT.replace("0.1", "0.2"), Options(baseline=known)).verdict
        == "violation"
    )


def test_excerpts_hold_the_lines_of_findings_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(path="train_gpt.py", line=40, message="from here")
    only(monkeypatch, rule(fires(line=20, end_line=20, trace=(step,))))
    text = "".join(f"x{n} = {n}\n" for n in range(1, 50))
    lines = audit_text(text).excerpts["train_gpt.py"]
    assert lines["20"] == "x20 = 20" and lines["40"] == "x40 = 40" and "30" not in lines


def test_unpacked_sources_are_written_below_the_folder_and_nowhere_else(tmp_path: Path) -> None:
    files = text_files({"train_gpt.py": SCRIPT + "import helper\n", "helper.py": "y = 1\n"}, "train_gpt.py")
    audit_files(files, Options(dump_source=str(tmp_path / "out")))
    assert (tmp_path / "out" / "train_gpt.py").read_text() == SCRIPT + "import helper\n"
    assert (tmp_path / "out" / "helper.py").read_text() == "y = 1\n"
    ctx = engine.build_context(files, Options(), Timings())
    ctx.sources = {"../../escape.py": "z = 1\n"}
    with pytest.raises(InputError, match="outside"):
        dump_sources(ctx, str(tmp_path / "out"))


def test_the_clock_names_every_stage(tmp_path: Path) -> None:
    (tmp_path / "train_gpt.py").write_text(SCRIPT)
    timings = Timings()
    audit_target(str(tmp_path), Options(), timings)
    assert {"open", "source", "evidence", "knobs", "trace", "classify", "verdict"} <= set(timings.stages)
    assert timings.rules


def test_a_folder_without_a_script_says_so(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing here\n")
    with pytest.raises(InputError, match=r"no \.py file"):
        audit_target(str(tmp_path))
    (tmp_path / "plot.py").write_text("print(1)\n")
    (result,) = audit_target(str(tmp_path))
    assert result.primary is None and result.verdict == "undetermined" and result.reason


def test_a_missing_target_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        audit_target(str(tmp_path / "nowhere"))


def test_a_rule_file_that_does_not_load_is_one_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from audit.rules import base

    real = importlib.import_module

    def load(name: str, *a):
        if name.endswith("f02_score_first"):
            raise SyntaxError("half written")
        return real(name, *a)

    monkeypatch.setattr(base.importlib, "import_module", load)
    base.rule_modules.cache_clear()
    try:
        result = audit_text(SCRIPT)
    finally:
        monkeypatch.undo()
        base.rule_modules.cache_clear()
    status = {o.rule: o for o in result.obligations}
    assert status["F2"].status == "undetermined" and "half written" in status["F2"].reason
    assert "half written" not in status["F1"].reason
