"""SARIF: valid, with relative paths, code flows, and fingerprints that survive edits."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest

from audit.baseline import of_submission
from audit.render import report
from audit.render.sarif import render_sarif
from audit.rules.base import rule_modules
from tests.audit.fixture_cases import SUBMISSIONS, audited
from tests.audit.render.sarif_shape import SARIF

CASES = [
    "dense/slot",
    "nano/prequant_ttt",
    "nano/prequant_ttt_off",
    "dense/body_not_submitted",
    "ngram/plain",
]


def document() -> dict[str, Any]:
    return report([audited(c) for c in CASES])


def test_the_result_has_the_shape_of_the_standard() -> None:
    log = render_sarif(document())
    jsonschema.Draft202012Validator(SARIF).validate(log)
    assert log["runs"][0]["results"]


@pytest.mark.parametrize("break_", ["level", "uri", "version", "extra", "line"])
def test_the_shape_refuses_what_the_standard_does(break_: str) -> None:
    log = render_sarif(document())
    result = log["runs"][0]["results"][0]
    place = result["locations"][0]["physicalLocation"]
    if break_ == "level":
        result["level"] = "violation"
    elif break_ == "uri":
        place["artifactLocation"]["uri"] = "/home/somebody/train_gpt.py"
    elif break_ == "version":
        log["version"] = "2.0.0"
    elif break_ == "extra":
        result["severity"] = 3
    else:
        place["region"]["startLine"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SARIF).validate(log)


def test_rule_indices_point_at_their_rules_and_levels_follow_severities() -> None:
    run = render_sarif(document())["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    levels = {"violation": "error", "warning": "warning", "note": "note"}
    flat = [f for c in CASES for f in audited(c).findings]
    found = [r for r in run["results"] if not r["ruleId"].endswith("-undetermined")]
    assert len(flat) == len(found)
    for f, r in zip(flat, found, strict=True):
        assert rules[r["ruleIndex"]]["id"] == r["ruleId"] == f.rule
        assert r["level"] == levels[f.severity]


def test_paths_are_relative_to_where_the_audit_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SUBMISSIONS.parent)
    run = render_sarif(report([audited("dense/slot")]))["runs"][0]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "submissions/dense/slot/train_gpt.py"
    monkeypatch.chdir("/")
    run = render_sarif(report([audited("dense/slot")]))["runs"][0]
    assert not run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].startswith(
        "/"
    )


@pytest.mark.parametrize("id_", list(rule_modules()))
def test_every_rule_names_its_breach_in_a_few_words(id_: str) -> None:
    rule = rule_modules()[id_].RULE
    assert rule.breach and rule.breach != rule.title and len(rule.breach) <= 70
    assert rule.breach[0].isupper() and not rule.breach.endswith(".")
    assert not rule.breach.startswith(("No ", "Nothing ", "Every ", "All ")), "what is wrong, not what must hold"


def test_an_alert_is_headed_by_the_breach_and_explained_by_the_rules_page() -> None:
    rendered = report([audited("dense/slot")])
    finding = rendered["submissions"][0]["findings"][0]
    rendered["submissions"][0]["findings"] = [finding | {"rule": id_, "name": m.RULE.name} for id_, m in rule_modules().items()]
    log = render_sarif(rendered)
    jsonschema.Draft202012Validator(SARIF).validate(log)
    described = log["runs"][0]["tool"]["driver"]["rules"]
    assert {r["id"]: r["shortDescription"]["text"] for r in described} == {i: m.RULE.breach for i, m in rule_modules().items()}
    assert all("**What.**" in r["help"]["markdown"] for r in described)
    assert not any("helpUri" in r for r in described), "there is no page to point to"


def test_the_values_path_is_a_code_flow_step_by_step() -> None:
    finding = next(f for f in audited("nano/prequant_ttt").findings if f.trace)
    run = render_sarif(report([audited("nano/prequant_ttt")]))["runs"][0]
    result = next(r for r in run["results"] if "codeFlows" in r)
    steps = result["codeFlows"][0]["threadFlows"][0]["locations"]
    assert [s["location"]["physicalLocation"]["region"]["startLine"] for s in steps] == [
        s.line for s in finding.trace
    ]
    assert [s["executionOrder"] for s in steps] == list(range(1, len(steps) + 1))


def test_fingerprints_are_those_of_baselines_and_survive_lines_above() -> None:
    submission = audited("dense/slot")
    rendered = report([submission])
    prints = [
        r["partialFingerprints"]["refereeFinding/v1"] for r in render_sarif(rendered)["runs"][0]["results"]
    ]
    assert prints == of_submission(submission)
    moved = copy.deepcopy(rendered)
    for s in moved["submissions"]:
        for f in s["findings"]:
            f["line"] += 7
            for step in f["trace"]:
                step["line"] += 7
        s["excerpts"] = {
            p: {str(int(n) + 7): t for n, t in lines.items()} for p, lines in s["excerpts"].items()
        }
    again = [r["partialFingerprints"]["refereeFinding/v1"] for r in render_sarif(moved)["runs"][0]["results"]]
    assert again == prints
    other = copy.deepcopy(rendered)
    finding = other["submissions"][0]["findings"][0]
    other["submissions"][0]["excerpts"][finding["path"]][str(finding["line"])] = "changed = True"
    assert (
        render_sarif(other)["runs"][0]["results"][0]["partialFingerprints"]["refereeFinding/v1"] != prints[0]
    )


def test_a_suppressed_finding_is_there_and_marked() -> None:
    rendered = report([audited("dense/slot")])
    rendered["submissions"][0]["findings"][0]["suppressed"] = "in the source: agreed"
    result = render_sarif(rendered)["runs"][0]["results"][0]
    assert result["suppressions"] == [{"kind": "inSource", "justification": "in the source: agreed"}]


def test_what_was_not_shown_is_a_notification() -> None:
    run = render_sarif(report([audited("dense/body_not_submitted")]))["runs"][0]
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note["level"] == "warning" and "undetermined" in note["message"]["text"]


def test_a_rule_that_no_longer_exists_is_still_rendered() -> None:
    rendered = report([audited("dense/slot")])
    rendered["submissions"][0]["findings"][0] |= {"rule": "F77", "name": "old-rule"}
    log = render_sarif(rendered)
    jsonschema.Draft202012Validator(SARIF).validate(log)
