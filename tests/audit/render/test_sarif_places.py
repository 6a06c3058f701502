"""SARIF where the line of a finding is no line of the submitted file, and where there is no finding at all."""

from __future__ import annotations

import base64
import copy
import lzma
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from audit.context import Options
from audit.engine import audit_files, audit_target, text_files
from audit.packed import payload_lines
from audit.render import render_document, report
from audit.render.sarif import render_sarif
from audit.rules.base import rule_modules
from tests.audit.fixture_cases import SUBMISSIONS, audited
from tests.audit.render.sarif_shape import SARIF

SCRIPT = (SUBMISSIONS / "dense" / "slot" / "train_gpt.py").read_text()
PAYLOAD = base64.b85encode(lzma.compress(SCRIPT.encode())).decode()
FOLDED = "\n".join(PAYLOAD[n : n + 100] for n in range(0, len(PAYLOAD), 100))

#: packed script -> lines of the statement that holds the payload
PACKED = {
    "in the call that runs it": (f"import lzma, base64\nexec(lzma.decompress(base64.b85decode('{PAYLOAD}')))\n", (2, 2)),
    "above the call": (f"import lzma, base64\n\nP = '{PAYLOAD}'\nprint('go')\nexec(lzma.decompress(base64.b85decode(P)))\n", (3, 3)),
    "over many lines": (
        f"import lzma, base64\nP = '''{FOLDED}'''\nexec(lzma.decompress(base64.b85decode(P.replace(chr(10), ''))))\n",
        (2, 2 + FOLDED.count("\n")),
    ),
}  # fmt: skip


def logged(*submissions: Any) -> dict[str, Any]:
    log = render_sarif(report(submissions))
    jsonschema.Draft202012Validator(SARIF).validate(log)
    return log["runs"][0]


def region(result: dict[str, Any]) -> tuple[int, int]:
    found = result["locations"][0]["physicalLocation"]["region"]
    return found["startLine"], found["endLine"]


@pytest.mark.parametrize("name", PACKED)
def test_a_finding_in_a_packed_script_points_at_the_payload(name: str) -> None:
    text, lines = PACKED[name]
    submission = audit_files(text_files({"train_gpt.py": text}, "train_gpt.py"), Options())
    f = submission.findings[0]
    (result, *_) = logged(submission)["results"]
    assert f.rule == result["ruleId"] == "F5" and f.line > text.count("\n")
    assert region(result) == lines
    assert f"(line {f.line} of the unpacked source)" in result["message"]["text"]
    steps = result["codeFlows"][0]["threadFlows"][0]["locations"]
    for said, step in zip(steps, f.trace, strict=True):
        place = said["location"]["physicalLocation"]
        assert (place["region"]["startLine"], place["region"]["endLine"]) == lines and "snippet" not in place["region"]
        assert f"(line {step.line} of the unpacked source)" in said["location"]["message"]["text"]


@pytest.mark.parametrize(
    ("body", "lines"), [(SCRIPT, None), (PACKED["above the call"][0], (3, 3))], ids=["plain", "packed"]
)
def test_what_a_script_executes_from_a_file_beside_it_lies_in_that_file(body: str, lines: tuple[int, int] | None) -> None:
    files = {"train_gpt.py": "import os\nexec(open('body.py').read())\n", "body.py": body}
    submission = audit_files(text_files(files, "train_gpt.py"), Options())
    f = next(f for f in submission.findings if f.rule == "F5")
    results = {r["ruleId"]: r for r in logged(submission)["results"]}
    places = {rule: r["locations"][0]["physicalLocation"] for rule, r in results.items()}
    assert places["F5"]["artifactLocation"]["uri"] == "body.py"
    assert region(results["F5"]) == (lines or (f.line, max(f.line, f.end_line)))
    assert ("of the unpacked source" in results["F5"]["message"]["text"]) is (lines is not None)
    assert places["B2"]["artifactLocation"]["uri"] == "train_gpt.py", "the call that executes it"
    assert places["B2"]["region"]["startLine"] == 2 and "unpacked" not in results["B2"]["message"]["text"]
    said = "lines are of the unpacked source" if lines else "lines of train_gpt.py are those of body.py, which it runs"
    assert said in render_document(report([submission]), "text")


@pytest.mark.parametrize(
    ("text", "line", "lines"),
    [
        ("", 7, (1, 1)), ("x = 1\ny = 2\n", 99, (2, 2)), ("x = (\n1)\ny = 2\n", 2, (1, 2)), ("not python (\n", 0, (1, 1)),
        (f"a = 'short'\nb = '{'x' * 300}'\nc = b'{'y' * 900}'\n", 1, (3, 3)), ("x = 1\n", -4, (1, 1)),
    ],
)  # fmt: skip
def test_the_payloads_lines_lie_in_the_file(text: str, line: int, lines: tuple[int, int]) -> None:
    assert payload_lines(text, line) == lines


def test_text_markdown_and_page_say_whose_lines_they_are() -> None:
    packed, plain = report([audited("dense/slot_packed")]), report([audited("dense/slot")])
    for format in ("text", "markdown", "html"):
        out = render_document(packed, format)
        assert "ines are of the unpacked source" in out and "--dump-source DIR" in out
        assert "--dump-source" not in render_document(plain, format)


def test_what_is_written_unpacked_is_said_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    audit_target(str(SUBMISSIONS / "dense" / "slot_packed"), Options(dump_source=str(tmp_path), limit_s=60.0))
    out, err = capfd.readouterr()
    assert out == "" and err == f"{tmp_path / 'train_gpt.py'}: written (unpacked: lzma+b85)\n"


def test_an_undetermined_submission_has_a_result_for_every_open_obligation() -> None:
    submission = audited("dense/body_not_submitted")
    run = logged(submission)
    open_ = {o.rule for o in submission.obligations if o.status == "undetermined"}
    modules = rule_modules()
    wanted = {r for r in open_ if modules[r].RULE.illegal != "NOT-READY"}
    results = [r for r in run["results"] if r["ruleId"].endswith("-undetermined")]
    said = {r["ruleId"].removesuffix("-undetermined") for r in results}
    assert said | {"S1"} == wanted, "the opaque call is a finding already"
    assert {r["level"] for r in results} == {"warning", "note"} and all(r["message"]["text"] for r in results)
    titles = {r["id"]: r["shortDescription"]["text"] for r in run["tool"]["driver"]["rules"]}
    assert all(titles[r["ruleId"]].startswith("Not shown: ") for r in results)
    assert len({r["partialFingerprints"]["refereeFinding/v1"] for r in results}) == len(results)


@pytest.mark.parametrize(
    ("reason", "place"),
    [
        ("nothing was found", ("train_gpt.py", 1)), ("train_gpt.py:41: perhaps", ("train_gpt.py", 41)),
        ("what line 7 runs could not be unpacked", ("train_gpt.py", 7)), ("see (run a.log:3)", ("run a.log", 3)),
        ("a stage failed (repair.py:108)", ("train_gpt.py", 1)),
    ],
)  # fmt: skip
def test_an_open_obligation_lies_where_its_reason_says(reason: str, place: tuple[str, int]) -> None:
    document = report([audited("ngram/plain")])
    s = copy.deepcopy(document["submissions"][0]) | {"target": "train_gpt.py"}
    s["obligations"] = [{"rule": "F8", "status": "undetermined", "reason": reason}]
    s["facts"] = [{"name": "x", "value": 1, "path": "run a.log", "line": 1, "raw": "", "scope": "", "label": ""}]
    (result,) = render_sarif(document | {"submissions": [s]})["runs"][0]["results"]
    at = result["locations"][0]["physicalLocation"]
    assert (at["artifactLocation"]["uri"].replace("%20", " "), at["region"]["startLine"]) == place


def test_an_obligation_in_doubt_because_of_a_finding_is_said_once() -> None:
    rendered = report([audited("dense/slot")])
    s = copy.deepcopy(rendered["submissions"][0])
    for f in s["findings"]:
        f["active"] = "unknown"
    s["obligations"] = [{"rule": "F5", "status": "undetermined", "reason": "whether it is reached is unknown"}]
    ids = [r["ruleId"] for r in render_sarif(rendered | {"submissions": [s]})["runs"][0]["results"]]
    assert ids and "F5-undetermined" not in ids


def test_a_finding_in_papers_that_two_scripts_share_is_one_alert(tmp_path: Path) -> None:
    folder = tmp_path / "records" / "entry"
    folder.mkdir(parents=True)
    plain = (SUBMISSIONS / "dense" / "plain" / "train_gpt.py").read_text()
    for name in ("train_gpt.py", "train_gpt_v2.py"):
        (folder / name).write_text(plain + f"# {name}\n")
    said = "Total submission size: 16400123 bytes\nfinal_int8_zlib_roundtrip_exact val_loss:1.88 val_bpb:1.11344758\n"
    (folder / "train_seed42.log").write_text(said)
    (folder / "submission.json").write_text('{"val_bpb": 1.1134}')
    submissions = audit_target(str(folder))
    assert [f.rule for s in submissions for f in s.findings].count("B1") == 2
    (alert,) = [r for r in logged(*submissions)["results"] if r["ruleId"] == "B1"]
    assert alert["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("train_seed42.log")


def test_files_that_a_script_unpacks_point_at_the_script() -> None:
    rendered = report([audited("dense/slot_packed")])
    s = copy.deepcopy(rendered["submissions"][0])
    s["packed"]["kernel.c"] = {"path": "train_gpt.py", "line": 2, "end_line": 2}
    s["findings"][0] |= {"path": "kernel.c", "line": 40, "end_line": 40}
    result = render_sarif(rendered | {"submissions": [s]})["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("train_gpt.py")
    assert "(line 40 of kernel.c, which this file unpacks)" in result["message"]["text"]
