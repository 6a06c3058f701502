"""Text and Markdown say once what holds for several rules, seeds or places; the document stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from audit.render import render_document
from audit.render.groups import findings, for_people, obligations, ranges, steps

NOWHERE = "no place was found where validation tokens are scored"


def finding(rule: str = "D2", message: str = "1 of 3", line: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "rule": rule, "name": "x", "severity": "warning", "authority": "README", "confidence": "high", "active": "yes",
        "message": message, "path": "a.log", "line": line, "end_line": line, "basis": "log", "trace": [], **more,
    }  # fmt: skip


def submission(verdict: str = "clean", primary: str = "a/train_gpt.py", **more: Any) -> dict[str, Any]:
    return {"target": "repo@pr", "commit": None, "primary": primary, "verdict": verdict, "reason": "", "findings": [],
            "obligations": [], "ttt": {"kind": "none"}, "cache": {"kind": "none"}, **more}  # fmt: skip


def rendered(format: str, *submissions: dict[str, Any]) -> str:
    document = {"schema": "referee.audit/1", "ruleset": "2026-05-02", "submissions": list(submissions)}
    before = copy.deepcopy(document)
    out = render_document(document, format)
    assert document == before, "only the rendering is condensed"
    return out


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("F1 F2 F3 F4 F10 D3", "F1\N{EN DASH}F4, F10, D3"),
        ("F1 F2 D2 D3", "F1, F2, D2, D3"),
        ("F9 F10 F11", "F9\N{EN DASH}F11"),
        ("F1", "F1"),
    ],
)
def test_rules_with_one_reason_are_one_line(rules: str, said: str) -> None:
    assert ranges(rules.split()) == said


@pytest.mark.parametrize("format", ["text", "markdown"])
def test_what_is_not_shown_for_one_reason_is_said_once_with_what_to_do(format: str) -> None:
    open_ = [{"rule": f"F{n}", "status": "undetermined", "reason": NOWHERE} for n in range(1, 11)]
    other = [{"rule": "E1", "status": "undetermined", "reason": "0 of 3 seeds"}, {"rule": "S1", "status": "holds", "reason": ""}]
    out = rendered(format, submission("undetermined", obligations=[*open_, *other]))
    assert out.count(NOWHERE) == 1 and "F1\N{EN DASH}F10" in out and "audit the script that evaluates" in out
    assert "E1: 0 of 3 seeds" in out
    assert len(obligations([*open_, *other])) == 3


def test_findings_that_differ_by_figures_alone_are_one_with_all_places() -> None:
    found = [
        finding(message="62,021 tokens x 1.71 / (ln 2 x 1.01) = 151.19 to 151.21 million bytes", line=6),
        finding(message="62,021 tokens x 1.712 / (ln 2 x 1.012) = 151.20 million bytes", line=7),
        finding(message="62,022 tokens x 1.713 / (ln 2 x 1.013) = 151.30 million bytes", line=9, path="b.log"),
        finding(message="62,022 tokens were left out", line=9, path="b.log"),
        finding(message="62,023 tokens were left out", line=4, path="b.log", confidence="low"),
    ]
    shown = findings(found)
    assert [f["also"] for f in shown] == [["a.log:7", "b.log:9"], [], []]
    for format in ("text", "markdown"):
        out = rendered(format, submission(findings=found))
        assert "a.log:7" in out and "b.log:9" in out and out.count("million bytes") == 1


def test_findings_of_the_source_keep_their_lines() -> None:
    assert len(findings([finding("F12", "m", n, basis="source") for n in (1, 2)])) == 2
    assert len(findings([finding(severity="note", line=n) for n in (1, 2)])) == 2


def step(line: int, message: str, path: str = "a.log") -> dict[str, Any]:
    return {"path": path, "line": line, "message": message}


@pytest.mark.parametrize(
    ("basis", "trace", "left"),
    [
        ("source", [step(1, "m")], 0),  # repeats the message
        ("source", [step(4, "m")], 0),
        ("source", [step(4, "the weights change here")], 1),
        ("source", [step(4, "calls main"), step(1, "m")], 2),
        ("source", [step(4, "calls main"), step(4, "calls main"), step(1, "m")], 2),
        ("source", [step(4, "calls f"), step(5, "one"), step(4, "calls f"), step(6, "two")], 4),
        ("log", [step(1, "Steps: 6,461")], 0),  # the finding's own line
        ("log", [step(8, "steps: 1"), step(8, "loss: 2"), step(9, "x: 1")], 2),  # one printed line twice
    ],
)
def test_steps_that_say_nothing_new_are_left_out(basis: str, trace: list[dict[str, Any]], left: int) -> None:
    found = finding("F12", "m", 1, basis=basis, trace=trace)
    assert len(steps(found)) == left
    assert ("how the value gets there" in rendered("text", submission(findings=[found]))) == (basis == "source" and left > 0)


@pytest.mark.parametrize("format", ["text", "markdown"])
def test_of_several_scripts_the_worst_comes_first_under_its_own_name(format: str) -> None:
    out = rendered(format, submission("clean", "a/train.py"), submission("violation", "b/train.py"), submission("undetermined", "c/train.py"))
    heads = [line for line in out.splitlines() if "/train.py" in line]
    assert len(heads) == 3 and [h for name in ("b/", "c/", "a/") for h in heads if f"{name}train.py" in h] == heads
    verdicts = ("VIOLATION", "UNDETERMINED", "CLEAN")
    assert all(v in h for v, h in zip(verdicts, heads, strict=True))


def test_one_script_is_named_as_before() -> None:
    (shown,) = for_people([submission()])
    assert shown["heading"] == "repo@pr"
