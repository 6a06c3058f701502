"""The action and the hook name what exists, and run with the base install alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from audit.program import main
from tests.audit.fixture_cases import ROOT, SUBMISSIONS

TOP = ROOT.parent
ACTION = (TOP / "action.yml").read_text(encoding="utf-8")
HOOK = (TOP / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")


def script() -> str:
    """The audit step's shell script."""
    block = ACTION.split("      run: |\n")[1]
    return "\n".join(line.removeprefix(" " * 8) for line in block.splitlines())


def act(at: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The audit step as a runner starts it, in the folder ``at``; outputs in ``o``, the summary in ``s``."""
    env = os.environ | {
        "TARGET": "", "REPO": ".", "REV": "", "BASE": "", "POLICY": "precedent", "RULESET": "", "BASELINE": "",
        "FAIL_ON": "violation", "SARIF": "out.sarif", "MARKDOWN": "out.md", "GITHUB_OUTPUT": str(at / "o"),
        "GITHUB_STEP_SUMMARY": str(at / "s"), "PATH": f"{at / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(TOP),
    }  # fmt: skip
    (at / "bin").mkdir(exist_ok=True)
    program = at / "bin" / "referee"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; from audit.program import main; sys.exit(main())" "$@"\n')
    program.chmod(0o755)
    return subprocess.run(["bash", "-e", "-c", script()], env=env | inputs, cwd=at, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("case", "fail_on", "code", "verdict"),
    [
        ("ngram/plain", "violation", 0, "clean"),
        ("dense/slot", "violation", 1, "violation"),
        ("dense/slot", "never", 0, "violation"),
        ("dense/body_not_submitted", "violation", 0, "undetermined"),
        ("dense/body_not_submitted", "undetermined", 3, "undetermined"),
    ],
)
def test_the_action_reports_and_fails_as_asked(case, fail_on, code, verdict, tmp_path: Path) -> None:
    done = act(tmp_path, TARGET=str(SUBMISSIONS / case), FAIL_ON=fail_on)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "o").read_text().split() == [f"verdict={verdict}", "sarif=out.sarif", "markdown=out.md"]
    assert verdict.upper() in (tmp_path / "s").read_text() == (tmp_path / "out.md").read_text()
    assert json.loads((tmp_path / "out.sarif").read_text())["version"] == "2.1.0"


def test_the_action_takes_one_target_per_line_and_names_with_spaces(tmp_path: Path) -> None:
    for name, case in (("my entry", "dense/slot"), ("other", "ngram/plain")):
        shutil.copytree(SUBMISSIONS / case, tmp_path / "records" / name)
    done = act(tmp_path, TARGET="records/my entry\r\n\n  \nrecords/other\n")
    assert done.returncode == 1, done.stderr
    log = json.loads((tmp_path / "out.sarif").read_text())["runs"][0]
    assert log["properties"]["verdicts"] == {"records/my entry": "violation", "records/other": "clean"}
    place = log["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place["uri"] == "records/my%20entry/train_gpt.py"


def test_the_action_audits_what_a_pull_request_changes(tmp_path: Path) -> None:
    def git(*args: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=tmp_path, check=True, capture_output=True)

    def entry(name: str, case: str) -> None:
        shutil.copytree(SUBMISSIONS / case, tmp_path / "records" / "track" / name)
        git("add", "records"), git("commit", "-qm", name)

    git("init", "-q", "-b", "main")
    entry("an old one", "dense/slot")
    git("update-ref", "refs/remotes/origin/main", "HEAD"), git("checkout", "-q", "-b", "work")
    entry("mine", "ngram/plain")
    done = act(tmp_path, REV="HEAD", BASE="origin/main")
    assert done.returncode == 0, done.stderr
    assert "mine" in (tmp_path / "s").read_text() and "an old one" not in (tmp_path / "s").read_text()
    entry("worse", "dense/slot")
    done = act(tmp_path, REV="HEAD", BASE="origin/main")
    assert done.returncode == 1, done.stderr
    results = json.loads((tmp_path / "out.sarif").read_text())["runs"][0]["results"]
    assert {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results} == {
        "records/track/worse/train_gpt.py"
    }


@pytest.mark.parametrize("inputs", [{}, {"TARGET": "no/such/folder"}, {"TARGET": "x.py", "POLICY": "lax"}, {"REV": "HEAD"}])
def test_an_action_that_could_not_audit_leaves_nothing_to_upload(inputs: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out.sarif").write_text("{}")
    (tmp_path / "out.md").write_text("old")
    done = act(tmp_path, **inputs)
    assert done.returncode == 2 and "::error" in done.stdout
    assert not (tmp_path / "out.sarif").exists() and not (tmp_path / "out.md").exists()


def test_every_input_of_the_action_is_used_and_none_reaches_the_shell_as_text() -> None:
    inputs = re.findall(r"^  ([\w-]+):\n    description", ACTION.split("outputs:")[0], re.M)
    assert {"target", "repo", "rev", "base", "sarif", "markdown"} <= set(inputs) and len(inputs) == 11
    assert all("inputs." + name in ACTION for name in inputs)
    assert "${{" not in script()


def test_the_documentation_shows_a_workflow_that_uses_what_the_action_has() -> None:
    page = (TOP / "docs" / "audit.md").read_text(encoding="utf-8").split("## In a workflow")[1].split("\n## ")[0]
    for needed in ("on:", "permissions:", "security-events: write", "hashFiles('referee.sarif')", "gh pr comment", "fetch-depth: 0"):
        assert needed in page
    names = re.findall(r"^  ([\w-]+):\n    (?:description|value)", ACTION, re.M)
    assert all(f"`{name}`" in page for name in names)


def test_the_hook_picks_training_scripts_and_blocks_an_illegal_one(capsys) -> None:
    pattern = re.search(r"files: (.+)", HOOK)[1]
    assert re.search(pattern, "records/a/train_gpt.py") and re.search(pattern, "train_gpt_v2.py")
    assert not re.search(pattern, "plot.py")
    entry = re.search(r"entry: referee (.+)", HOOK)[1].split()
    assert main([*entry, str(SUBMISSIONS / "dense" / "slot" / "train_gpt.py")]) == 1
    assert main([*entry, str(SUBMISSIONS / "dense" / "plain" / "train_gpt.py")]) == 0


def test_the_base_install_needs_no_torch() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not [d for d in project["dependencies"] if d.startswith(("torch", "numpy", "sentencepiece"))]
    code = (
        "import sys\nfor name in ('torch', 'numpy', 'sentencepiece'): sys.modules[name] = None\n"
        f"from audit.program import main\nsys.exit(main(['audit', {str(SUBMISSIONS / 'dense' / 'slot_packed')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP)
    assert done.returncode == 1, done.stderr
