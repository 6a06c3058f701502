"""``referee audit`` from outside: exit codes, formats, options, and errors of one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from audit.contracts import RULESET
from audit.program import main
from tests.audit.fixture_cases import SUBMISSIONS

LEGAL = str(SUBMISSIONS / "ngram" / "plain")
ILLEGAL = str(SUBMISSIONS / "dense" / "slot_packed")
OPAQUE = str(SUBMISSIONS / "dense" / "body_not_submitted")
OFF = str(SUBMISSIONS / "nano" / "prequant_ttt_off")


def run(*args: str, capsys) -> tuple[int, str, str]:
    try:
        code = main(["audit", *args])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("targets", "code"),
    [([LEGAL], 0), ([ILLEGAL], 1), ([OPAQUE], 3), ([LEGAL, OPAQUE], 3), ([OPAQUE, ILLEGAL, LEGAL], 1)],
)
def test_the_exit_code_is_the_worst_verdict(targets: list[str], code: int, capsys) -> None:
    assert run(*targets, capsys=capsys)[0] == code


@pytest.mark.parametrize(
    "args",
    [
        [], ["no/such/folder"], ["--repo", "/nowhere", "--pr", "1"], ["--pr", "3"], ["--rev", "main"],
        ["--repo", ".", "--pr", "1", "--rev", "main"], [LEGAL, "--env", "novalue"], [LEGAL, "--ruleset", "yesterday"],
        [LEGAL, "--baseline", "/nowhere.json"], [LEGAL, "-o", "/no/such/dir/file"], [LEGAL, "--format", "pdf"],
        [LEGAL, "--policy", "lax"], ["--repo", ".", "--pr", "abc"], [LEGAL, "--nope"], [LEGAL, "--color", "blue"],
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_two(args: list[str], capsys) -> None:
    code, out, err = run(*args, capsys=capsys)
    assert code == 2 and out == ""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words", [[], ["nosuch"], ["sweep", ".", "--limit", "abc"], ["rules", "--format", "sarif"], ["explain"], ["data"], ["data", "x"]]
)
def test_a_mistake_in_any_command_is_one_line_that_names_the_help(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and len(err.strip().splitlines()) == 1 and "--help" in err


def test_the_json_holds_the_contract(capsys) -> None:
    code, out, _ = run(ILLEGAL, "--format", "json", capsys=capsys)
    document = json.loads(out)
    assert code == 1
    assert document["schema"] == "referee.audit/1" and document["ruleset"] == RULESET and document["version"]
    (s,) = document["submissions"]
    assert s["target"] == ILLEGAL and s["commit"] is None and s["primary"] == "train_gpt.py"
    assert (
        len(s["sha256"]) == 64 and s["peeled"] == ["lzma+b85"] and s["verdict"] == "violation" and s["reason"]
    )
    assert s["ttt"] == {"kind": "slot", "active": "yes"} and set(s["cache"]) == {"kind", "active"}
    assert isinstance(s["facts"], list) and set(s["record_ready"]) == {"ready", "missing"}
    f = s["findings"][0]
    assert {"rule", "name", "severity", "authority", "confidence", "active", "gate", "basis", "message", "path",
            "line", "end_line", "trace"} <= set(f)  # fmt: skip
    assert (
        f["rule"] == "F5"
        and f["path"] == "train_gpt.py"
        and f["trace"][0].keys() == {"path", "line", "message"}
    )
    assert {o["status"] for o in s["obligations"]} <= {"holds", "violated", "undetermined", "not-applicable"}
    assert all(o["reason"] for o in s["obligations"])


def test_knobs_from_the_command_line_decide_what_is_active(capsys) -> None:
    assert run(OFF, capsys=capsys)[0] == 0
    code, out, _ = run(OFF, "--env", "ADAPT_ENABLED=1", "--format", "json", capsys=capsys)
    assert code == 1
    assert json.loads(out)["submissions"][0]["findings"][0]["gate"]


def test_a_baseline_written_and_read_again_silences_what_it_holds(tmp_path: Path, capsys) -> None:
    place = str(tmp_path / "known.json")
    code, _, err = run(ILLEGAL, "--write-baseline", place, capsys=capsys)
    assert code == 1 and "finding" in err
    assert run(ILLEGAL, "--baseline", place, capsys=capsys)[0] == 0
    assert run(str(SUBMISSIONS / "nano" / "prequant_ttt"), "--baseline", place, capsys=capsys)[0] == 1


def test_timings_go_to_standard_error(capsys) -> None:
    _, out, err = run(LEGAL, "--timings", "--format", "json", capsys=capsys)
    json.loads(out)
    assert "trace" in err and "rule F1" in err


def test_sources_are_dumped_unpacked(tmp_path: Path, capsys) -> None:
    run(ILLEGAL, "--dump-source", str(tmp_path), capsys=capsys)
    assert "def eval_delta" in (tmp_path / "train_gpt.py").read_text()


def test_sources_of_several_targets_do_not_overwrite_each_other(tmp_path: Path, capsys) -> None:
    run(ILLEGAL, LEGAL, "--dump-source", str(tmp_path), capsys=capsys)
    texts = [p.read_text() for p in sorted(tmp_path.rglob("train_gpt.py"))]
    assert len(texts) == 2 and len(set(texts)) == 2


def test_colour_appears_when_asked_for_and_not_in_a_pipe(capsys) -> None:
    assert "\x1b[" not in run(ILLEGAL, capsys=capsys)[1]
    assert "\x1b[" in run(ILLEGAL, "--color", "always", capsys=capsys)[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two pull requests on a main branch: one legal script, one illegal."""
    place = tmp_path / "contest"

    def git(*args: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(place), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    place.mkdir()
    git("init", "-q", "-b", "main")
    (place / "README.md").write_text("the contest\n")
    git("add", "."), git("commit", "-qm", "start")
    for number, folder in ((1, LEGAL), (2, ILLEGAL)):
        git("checkout", "-q", "-B", "work", "main")
        records = place / "records" / f"entry{number}"
        records.mkdir(parents=True)
        (records / "train_gpt.py").write_text((Path(folder) / "train_gpt.py").read_text())
        git("add", "."), git("commit", "-qm", f"entry {number}")
        git("update-ref", f"refs/pull/{number}/head", "HEAD")
    git("checkout", "-q", "main")
    return place


def test_a_pull_request_is_read_without_a_checkout(repository: Path, capsys) -> None:
    code, out, _ = run("--repo", str(repository), "--pr", "2", "--format", "json", capsys=capsys)
    (s,) = json.loads(out)["submissions"]
    assert code == 1 and len(s["commit"]) == 40 and s["primary"] == "records/entry2/train_gpt.py"
    assert not (repository / "records").exists()
    code, out, _ = run(
        "--repo", str(repository), "--rev", "refs/pull/1/head", "--format", "json", capsys=capsys
    )
    assert code == 0 and json.loads(out)["submissions"][0]["primary"] == "records/entry1/train_gpt.py"


def test_an_unknown_revision_is_one_line(repository: Path, capsys) -> None:
    code, _, err = run("--repo", str(repository), "--pr", "77", capsys=capsys)
    assert code == 2 and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [["audit", "--repo", "{}", "--pr", "77"], ["audit", "--repo", "{}", "--rev", "refs/pull/77/head"],
     ["sweep", "{}", "--refs", "refs/pull/77/*", "--no-cache"]],
)  # fmt: skip
def test_a_clone_without_heads_of_pull_requests_is_told_how_to_fetch_them(command: list[str], repository: Path, capsys) -> None:
    assert main([word.format(repository) for word in command]) == 2
    err = capsys.readouterr().err
    assert "fetch origin '+refs/pull/*/head:refs/pull/*/head'" in err and len(err.strip().splitlines()) == 1


def test_an_internal_failure_is_code_seventy(monkeypatch, capsys) -> None:
    def broken(*_a, **_k):
        raise RuntimeError("bug")

    monkeypatch.setattr("audit.engine.audit_target", broken)
    code, _, err = run(LEGAL, capsys=capsys)
    assert code == 70 and "internal error" in err


def test_the_wing_answers_on_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "audit", "audit", LEGAL], capture_output=True, text=True)
    assert done.returncode == 0 and "CLEAN" in done.stdout
