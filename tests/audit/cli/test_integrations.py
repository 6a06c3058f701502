"""The action and the hook name what exists, and run with the base install alone."""

from __future__ import annotations

import json
import os
import re
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
    env = os.environ | {
        "TARGET": str(SUBMISSIONS / case), "POLICY": "precedent", "RULESET": "", "BASELINE": "",
        "FAIL_ON": fail_on, "SARIF": "out.sarif", "GITHUB_OUTPUT": str(tmp_path / "o"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "s"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(["bash", "-e", "-c", script()], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "o").read_text() == f"verdict={verdict}\n"
    assert verdict.upper() in (tmp_path / "s").read_text()
    assert json.loads((tmp_path / "out.sarif").read_text())["version"] == "2.1.0"


def test_every_input_of_the_action_is_used_and_none_reaches_the_shell_as_text() -> None:
    inputs = re.findall(r"^  ([\w-]+):\n    description", ACTION.split("outputs:")[0], re.M)
    assert len(inputs) == 7
    assert all("inputs." + name in ACTION for name in inputs)
    assert "${{" not in script()


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
