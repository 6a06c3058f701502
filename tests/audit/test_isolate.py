"""Work in a child process: its result, its error, its death and its hang all come back as such."""

from __future__ import annotations

import base64
import copy
import lzma
import os
import signal
import sys
import time

import pytest

import audit.engine as engine
import audit.source as engine_source
from audit.context import Options
from audit.contracts import InputError
from audit.engine import audit_target
from audit.isolate import Lost, Started, isolated
from audit.source import open_path


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


def test_a_child_ends_by_itself_where_nobody_waits_for_it() -> None:
    started = Started(lambda: sum(range(10**12)), 1.0)
    time.sleep(0.1)
    end = time.monotonic() + 30
    while time.monotonic() < end:  # 2 to 3 s of processor time
        pid, status = os.waitpid(started.child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.05)
    assert pid and os.WIFSIGNALED(status)


def test_the_caller_goes_on_while_the_child_works() -> None:
    started = Started(lambda: os.getpid(), 30)
    assert started.result() not in (os.getpid(), 0)


WRAPPED = """\
import lzma, base64
open("train_gpt_model.py", "wb").write(lzma.decompress(base64.b85decode({!r})))
import train_gpt_model
"""


@pytest.mark.parametrize("packed", [False, True])
def test_a_program_read_in_a_child_is_the_one_read_in_place(tmp_path, monkeypatch, packed) -> None:
    inner = "import torch\n\ndef main():\n    print('val_bpb:1.0')\n\nmain()\n"
    text = WRAPPED.format(base64.b85encode(lzma.compress(inner.encode()))) if packed else inner
    (tmp_path / "train_gpt.py").write_text(text)
    there = []

    def spied(work, limit_s):
        there.append(limit_s)
        return Started(work, limit_s)

    monkeypatch.setattr("audit.isolate.Started", spied)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (files,) = open_path(str(tmp_path))
    apart_files = copy.deepcopy(files)
    here = engine._load(files, Options())
    assert not there
    monkeypatch.delitem(sys.modules, "libcst", raising=False)  # as in a process that has parsed nothing yet
    apart = engine._load(apart_files, Options(limit_s=60.0))
    assert there == [60.0]
    assert apart.sources == here.sources and apart_files.paths == files.paths
    assert {k: m.sha256 for k, m in apart.modules.items()} == {k: m.sha256 for k, m in here.modules.items()}
    assert [apart_files.read(p) for p in apart_files.paths] == [files.read(p) for p in files.paths]


def test_a_child_that_dies_while_reading_is_replaced(tmp_path, monkeypatch) -> None:
    (tmp_path / "train_gpt.py").write_text("import torch\n")
    (files,) = open_path(str(tmp_path))
    parent, load = os.getpid(), engine_source.load_program
    monkeypatch.setattr(
        "audit.source.load_program", lambda f: load(f) if os.getpid() == parent else os.kill(os.getpid(), signal.SIGKILL)
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.delitem(sys.modules, "libcst", raising=False)
    assert list(engine._load(files, Options(limit_s=60.0)).modules) == ["train_gpt.py"]
