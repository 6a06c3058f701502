"""Standard output that is closed, full, or read by somebody who has gone: one line, and the verdict's exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit.fixture_cases import ROOT, SUBMISSIONS

ILLEGAL = str(SUBMISSIONS / "dense" / "slot")
LEGAL = str(SUBMISSIONS / "ngram" / "plain")
OPAQUE = str(SUBMISSIONS / "dense" / "body_not_submitted")


def shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which ``referee`` is this program; its exit code follows ``code=`` on standard error."""
    program = f'referee() {{ "{sys.executable}" -m audit "$@"; echo "code=$?" >&9; }}; exec 9>&2; '
    return subprocess.run(
        ["bash", "-c", program + line], capture_output=True, text=True, cwd=ROOT.parent, env=os.environ | env
    )


def code_of(done: subprocess.CompletedProcess[str]) -> tuple[int, list[str]]:
    """The exit code that was said, and the other lines."""
    lines = done.stderr.splitlines()
    (said,) = [line for line in lines if line.startswith("code=")]
    return int(said.removeprefix("code=")), [line for line in lines if line != said]


@pytest.mark.parametrize(("target", "code"), [(LEGAL, 0), (ILLEGAL, 1), (OPAQUE, 3)])
@pytest.mark.parametrize("format", ["text", "json"])
def test_a_reader_who_leaves_takes_no_verdict_with_him(target: str, code: int, format: str) -> None:
    assert code_of(shell(f"referee audit {target} --format {format} | true")) == (code, [])


def test_a_reader_who_leaves_in_the_middle_of_a_long_answer_does_not_either() -> None:
    many = " ".join([ILLEGAL] * 8)
    assert code_of(shell(f"referee audit {many} --format html | head -c 10")) == (1, [])


@pytest.mark.parametrize("command", ["rules --format markdown --full", "explain F8"])
def test_a_page_that_nobody_reads_to_its_end_is_no_failure(command: str) -> None:
    assert code_of(shell(f"referee {command} | true")) == (0, [])


@pytest.mark.parametrize("command", [f"audit {ILLEGAL}", "explain F8", "rules", "sweep . --refs refs/heads/none --no-cache"])
def test_a_closed_standard_output_is_one_line(command: str) -> None:
    code, lines = code_of(shell(f"referee {command} >&-"))
    assert code == 2 and len(lines) == 1 and "standard output is closed" in lines[0]


def test_a_closed_standard_output_is_no_matter_where_a_file_is_written(tmp_path: Path) -> None:
    code, lines = code_of(shell(f"referee audit {ILLEGAL} -o {tmp_path / 'out.txt'} >&-"))
    assert (code, lines) == (1, []) and "VIOLATION" in (tmp_path / "out.txt").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("command", [f"audit {ILLEGAL}", "explain F8"])
def test_a_full_disk_is_one_line(command: str) -> None:
    code, lines = code_of(shell(f"referee {command} > /dev/full"))
    assert code == 2 and len(lines) == 1 and "cannot write to standard output" in lines[0]


def test_a_closed_standard_error_leaves_the_answer_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m audit audit {ILLEGAL} --dump-source {tmp_path} --format json 2>&-'],
        capture_output=True, text=True, cwd=ROOT.parent,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout.startswith("{") and done.stdout.rstrip().endswith("}")
