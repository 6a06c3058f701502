"""The examples beside the flow rules: what is illegal fires on its lines, what is legal is quiet."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.base import rule_modules

MINE = ("F1", "F2", "F3", "F5", "F6", "F11", "F13", "F14", "F15", "F18", "B7", "D3")


def _cases(which: str) -> list:
    return [
        pytest.param(rule, e, id=f"{rule}-{e.name}")
        for rule in MINE
        if rule in rule_modules()
        for e in getattr(rule_modules()[rule], which)
    ]


def _audit(example):
    files = {"train_gpt.py": example.code, **dict(example.files)}
    return audit_files(text_files(files, "train_gpt.py"), Options())


@pytest.mark.parametrize(("rule", "example"), _cases("ILLEGAL"))
def test_illegal_examples_fire_on_their_lines(rule, example):
    found = _audit(example)
    lines = {f.line for f in found.findings if f.rule == rule and f.active == "yes"}
    assert lines, [(f.rule, f.line, f.message) for f in found.findings]
    assert lines <= set(example.lines)
    if rule_modules()[rule].RULE.illegal == "INVALID" and rule not in ("F6",):
        assert found.verdict == "violation"


@pytest.mark.parametrize(("rule", "example"), _cases("LEGAL"))
def test_legal_examples_are_quiet(rule, example):
    found = _audit(example)
    assert [(f.rule, f.line) for f in found.findings if f.severity != "note"] == []
    assert found.verdict == "clean", found.reason
