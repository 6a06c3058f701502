"""Work in a child process: its result, its error, its death and its hang all come back as such."""

from __future__ import annotations

import os
import signal
import time

import pytest

from audit.context import Options
from audit.contracts import InputError
from audit.engine import audit_target
from audit.isolate import Lost, isolated


def test_results_and_errors_come_back() -> None:
    assert isolated(lambda: {"x": [1, 2]}, 30) == {"x": [1, 2]}
    assert len(isolated(lambda: "x" * 3_000_000, 30)) == 3_000_000

    def wrong() -> None:
        raise InputError("no such thing")

    with pytest.raises(InputError, match="no such thing"):
        isolated(wrong, 30)


def test_an_error_that_cannot_be_sent_still_has_its_words() -> None:
    class Local(Exception):
        pass

    def wrong() -> None:
        raise Local("gone")

    with pytest.raises(RuntimeError, match="Local: gone"):
        isolated(wrong, 30)


def test_a_killed_child_is_lost_and_the_parent_goes_on() -> None:
    with pytest.raises(Lost, match="SIGKILL"):
        isolated(lambda: os.kill(os.getpid(), signal.SIGKILL), 30)
    with pytest.raises(Lost, match="exit code 3"):
        isolated(lambda: os._exit(3), 30)


def test_a_hung_child_is_stopped() -> None:
    with pytest.raises(Lost, match=r"longer than 0\.2 s"):
        isolated(lambda: time.sleep(60), 0.2)


def test_an_audit_whose_process_dies_is_undetermined(tmp_path, monkeypatch) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text("import torch\nloss.backward()\n")
    monkeypatch.setattr("audit.engine.build_context", lambda *a: os.kill(os.getpid(), signal.SIGKILL))
    (found,) = audit_target(str(script), Options(limit_s=60.0))
    assert found.verdict == "undetermined"
    assert "SIGKILL" in found.reason
    assert found.primary == "train_gpt.py"


def test_two_thousand_brackets_end_in_a_verdict(tmp_path) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text("x = " + "(" * 2000 + "1" + ")" * 2000 + "\n")
    (found,) = audit_target(str(script), Options(limit_s=60.0))
    assert found.verdict == "undetermined"
