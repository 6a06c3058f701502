"""The examples of the rules on plain source that stand beside them, and that every rule's examples are run somewhere."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.base import rule_modules
from tests.audit.evidence.test_rules import RULES as PAPERS
from tests.audit.rules.test_cache_examples import MINE as CACHES
from tests.audit.rules.test_flow_examples import MINE as FLOW

MINE = ("B2", "B5", "F12", "F16", "F17", "M2", "M3", "S1", "S2", "S3")


def _cases(kind: str):
    return [pytest.param(r, e, id=f"{r}: {e.name}") for r in MINE for e in getattr(rule_modules()[r], kind)]


def _found(rule: str, example):
    files = {"train_gpt.py": example.code, **dict(example.files)}
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    return [f for f in found.findings if f.rule == rule and f.active != "no" and f.severity != "note"]


def test_every_rule_has_its_examples_run():
    assert {*MINE, *PAPERS, *CACHES, *FLOW} == set(rule_modules())


@pytest.mark.parametrize(("rule", "example"), _cases("ILLEGAL"))
def test_illegal_examples_fire_on_their_lines(rule, example):
    lines = {f.line for f in _found(rule, example)}
    assert lines and lines <= set(example.lines), lines


@pytest.mark.parametrize(("rule", "example"), _cases("LEGAL"))
def test_legal_examples_are_quiet(rule, example):
    assert [(f.line, f.message) for f in _found(rule, example)] == []
