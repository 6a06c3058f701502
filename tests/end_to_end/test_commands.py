"""Every command's help works, the auditor needs no torch, and the README's command lines are accepted as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from audit import program
from audit.contracts import Command

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("wing", ["audit", "harness", "reference_model", None])
def test_each_wing_has_a_front_door(wing):
    words = [sys.executable, "-m", wing] if wing else [sys.executable, "-c", "from harness.cli import main; main()"]
    done = subprocess.run([*words, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    assert "usage:" in done.stdout and "COMMAND" in done.stdout


@pytest.mark.parametrize("name", sorted(program.commands()))
def test_help_of_every_command(name, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"referee {name}" in text and len(text.splitlines()) > 4


def test_the_auditor_imports_no_torch():
    done = fresh(
        "import sys, audit, audit.engine, audit.cli\n"
        "from harness.cli import main\n"
        "try:\n    main(['audit', '--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'sentencepiece'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    assert done.stdout.endswith("HEAVY []\n"), done.stderr


def test_an_audit_runs_without_torch():
    script = ROOT / "fixtures" / "submissions" / "nano" / "plain" / "train_gpt.py"
    done = fresh(
        "import sys\n"
        "for name in ('torch', 'numpy', 'sentencepiece', 'triton'):\n    sys.modules[name] = None\n"
        f"from harness.cli import main\ncode = main(['audit', {str(script)!r}, '--format', 'json', '-o', {'/dev/null'!r}])\n"
        "print('CODE', code)"
    )
    assert "CODE 0" in done.stdout, done.stderr


def test_all_commands_are_listed_on_a_base_install():
    done = fresh(
        "import sys\n"
        "for name in ('torch', 'numpy', 'sentencepiece', 'triton', 'zstandard'):\n    sys.modules[name] = None\n"
        "from harness.cli import main\nmain(['--help'])"
    )
    assert done.returncode == 0, done.stderr
    for name in program.commands():
        assert f"    {name} " in done.stdout or f"    {name}\n" in done.stdout


def test_a_missing_extra_is_one_line():
    done = fresh(
        "import importlib.util as u, sys\nreal = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torch' else real(name, *a)\n"
        "from harness.cli import main\nsys.exit(main(['eval', 'a', '--data', 'b', '--out', 'c']))"
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "referee: eval needs torch, which is not installed; install it with: pip install 'parameter-golf-referee[eval]'"
    ]


def command_lines():
    """``referee …`` lines in the console and plain blocks of the README and the documentation."""
    found = []
    for page in PAGES:
        if not page.is_file():
            continue
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```(?:console|sh|bash|)\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.strip().removeprefix("$ ")
                if line.startswith("referee "):
                    found.append(pytest.param(line, id=f"{page.name}: {line[:60]}"))
    return found


@pytest.mark.parametrize("line", command_lines())
def test_documented_command_lines_are_accepted(line):
    line = re.split(r"\s[|>&]\s?|\s2>|\s#\s|…", line)[0]
    words = shlex.split(line)[1:]
    available: dict[str, Command] = program.commands()
    parser = program.build_parser("referee", available)
    if "--help" in words:
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(words)
        assert stop.value.code == 0
        return
    try:
        parser.parse_args(words)
    except SystemExit:
        pytest.fail(f"not accepted: {line}")


def test_usage_errors_exit_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(["audit", "--format", "nonsense"])
    assert stop.value.code == 2
    assert program.main(["audit", "/nowhere/at/all.py"]) == 2
    assert "Traceback" not in capsys.readouterr().err
