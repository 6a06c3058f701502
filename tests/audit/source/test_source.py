"""Which files a submission consists of, and which of them are judged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from audit.contracts import InputError
from audit.source import MemoryTree, SubmissionFiles, load_program, open_path
from audit.source.imports import local_files
from audit.source.select import MAX_PRIMARIES, primary_scripts
from audit.source.tree import FolderTree, normal
from audit.text import decode


def write(at: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (at / path).parent.mkdir(parents=True, exist_ok=True)
        (at / path).write_text(text)


LEARNS = "import torch\nloss.backward()\nmain()\n"
R = "records/track/x/"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({R + "train_gpt.py": LEARNS, "train_gpt.py": LEARNS}, [R + "train_gpt.py"]),
        ({"train_gpt.py": LEARNS, "data/prepare.py": LEARNS}, ["train_gpt.py"]),
        ({R + "train_gpt.py": "import helper\n" + LEARNS, R + "helper.py": LEARNS}, [R + "train_gpt.py"]),
        ({R + "train_gpt.py": LEARNS, R + "ablation.py": LEARNS}, [R + "train_gpt.py", R + "ablation.py"]),
        ({R + "train_gpt.py": LEARNS, R + "plot_curves.py": LEARNS}, [R + "train_gpt.py"]),
        ({"scripts/parse_logs.py": "print('val_bpb')\nmain()\n"}, []),
        ({"scripts/metrics.py": "if __name__ == '__main__':\n  print('val_bpb')\n"}, []),
        ({"tests/test_data.py": "exec_module(x)\n"}, []),
        ({R + "run.py": "exec(zlib.decompress(b85decode('')))"}, []),
        ({R + "golf.py": "exec(zlib.decompress(b85decode('')))"}, [R + "golf.py"]),
        ({"README.md": "x"}, []),
    ],
)
def test_primary_scripts(files: dict[str, str], expected: list[str]) -> None:
    assert primary_scripts(files, files.get) == expected


SECOND_STEP = {
    R + "train_gpt.py": "import torch\nloss.backward()\nmain()\n",
    R + "score.py": "from train_gpt import GPT\nfrom mixing import evaluate\nprint(evaluate(GPT()))\n",
    R + "mixing.py": "import torch.nn.functional as F\ndef evaluate(m):\n    return F.cross_entropy(m(x), y)\n",
}


@pytest.mark.parametrize(
    ("papers", "judged"),
    [
        ({R + "README.md": "```\nCHECKPOINT=model.ptz \\\ntorchrun --nproc_per_node=8 score.py\n```\n"}, True),
        ({R + "run.sh": "python3 score.py --stride 64\n"}, True),
        ({R + "README.md": "`score.py` is how I looked at it once.\n"}, False),
        ({R + "README.md": "```\npython underscore.py\npython make_score.py\n```\n"}, False),
        ({"README.md": "```\npython score.py\n```\n"}, False),
        ({}, False),
    ],
)
def test_a_second_step_that_the_papers_run_is_judged(papers: dict[str, str], judged: bool) -> None:
    files = {**SECOND_STEP, **papers}
    assert (R + "score.py" in primary_scripts(files, files.get)) == judged
    assert R + "mixing.py" not in primary_scripts(files, files.get)


def test_a_stub_that_starts_its_sibling_is_not_judged_twice() -> None:
    files = {
        R + "train_gpt.py": "import subprocess\nsubprocess.run(['python', 'golf.py'])\n",
        R + "golf.py": LEARNS,
    }
    assert primary_scripts(files, files.get) == [R + "golf.py"]


def test_a_workshop_of_scripts_is_bounded() -> None:
    files = {f"{R}train_gpt_{i}.py": LEARNS for i in range(40)}
    assert len(primary_scripts(files, files.get)) == 40


def test_scripts_beyond_the_bound_are_named_as_unread(tmp_path: Path) -> None:
    for i in range(MAX_PRIMARIES + 3):
        (tmp_path / f"train_gpt_{i:02}.py").write_text(LEARNS)
    found = open_path(tmp_path)
    assert [files.primary is None for files in found] == [False] * MAX_PRIMARIES + [True]
    assert "3 more scripts" in found[-1].reason and f"train_gpt_{MAX_PRIMARIES}.py" in found[-1].reason


def test_a_script_reached_by_a_link_is_read_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "model.py").write_text(LEARNS)
    (tmp_path / "train_gpt.py").symlink_to(tmp_path / "real" / "model.py")
    [files] = open_path(tmp_path / "train_gpt.py")
    assert files.primary == "model.py" and files.tree.read("model.py") == LEARNS.encode()


def test_local_imports_are_found_beside_the_script_first() -> None:
    text = "import a, b.c\nfrom .d import e\nfrom f import g\nimport torch\nx = importlib.import_module('h')\nopen('i.py')\n"
    files = {"r/a.py", "r/b/c.py", "r/d.py", "f.py", "r/h.py", "r/i.py", "a.py"}
    found = local_files(text, "r/train.py", lambda p: p in files)
    assert sorted(found) == ["f.py", "r/a.py", "r/b/c.py", "r/d.py", "r/h.py", "r/i.py"]


def program(files: dict[str, str | bytes], primary: str = "r/train_gpt.py"):
    tree = MemoryTree(files)
    return load_program(
        SubmissionFiles(target="t", tree=tree, primary=primary, paths=list(files), changed=list(files))
    )


def test_cyclic_imports_are_read_once() -> None:
    found = program(
        {"r/train_gpt.py": "import a\n", "r/a.py": "import b\n", "r/b.py": "import a, train_gpt\n"}
    )
    assert sorted(found.modules) == ["r/a.py", "r/b.py", "r/train_gpt.py"]
    assert not found.problems


def test_an_unreadable_helper_is_a_problem_not_an_end() -> None:
    found = program({"r/train_gpt.py": "import a\nx = 1\n", "r/a.py": "def (:\n"})
    assert "r/train_gpt.py" in found.modules
    assert [(p.kind, p.path, p.line) for p in found.problems] == [("unparsable", "r/a.py", 1)]


def test_a_script_that_is_listed_but_absent() -> None:
    found = program({"r/other.py": ""})
    assert [p.kind for p in found.problems] == ["missing"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfx", "x"), ("é".encode("latin-1"), "é"), (b"# -*- coding: latin-1 -*-\n\xe9", "# -*- coding: latin-1 -*-\né"),
        ("x".encode("utf-16"), "x"), (b"# coding: nonsense\n\xc3\xa9", "# coding: nonsense\né"), (b"", ""),
    ],
)  # fmt: skip
def test_decoding_does_not_give_up(data: bytes, text: str) -> None:
    assert decode(data) == text


def test_paths_do_not_leave_the_tree(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.py").write_text("x")
    (tmp_path / "in" / "link.py").symlink_to(tmp_path / "secret.py")
    tree = FolderTree(tmp_path / "in")
    assert tree.read("../secret.py") is None
    assert tree.read("link.py") is None
    assert not tree.has("/etc/passwd")
    assert normal("a/../../b") is None
    assert normal("./a//b/../c") == "a/c"


def test_targets_that_do_not_exist_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_path(tmp_path / "nothing")


@pytest.mark.parametrize("files", [{}, {"notes.txt": "x"}, {"__pycache__/a.py": "x"}])
def test_a_folder_without_a_script_is_an_input_error(files: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, files)
    with pytest.raises(InputError, match=f"{tmp_path}: no .py file in this folder"):
        open_path(tmp_path)


def test_a_folder_of_scripts_that_neither_train_nor_score_is_a_result(tmp_path: Path) -> None:
    write(tmp_path, {"plot.py": "print(1)\n"})
    (only,) = open_path(tmp_path)
    assert only.primary is None and only.reason == "the Python file plot.py neither trains nor scores"


@pytest.mark.parametrize("which", ["the folder", "one in it"])
def test_a_folder_that_cannot_be_read_says_so(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"in/train_gpt.py": "x"})
    if which == "the folder":
        monkeypatch.setattr("os.access", lambda path, mode: False)
    else:  # a superuser may read everything: the refusal is made up
        scan = os.scandir

        def refuse(path: str) -> object:
            if str(path).endswith("in"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(InputError, match=r"(not readable|/in is not); check its permissions"):
        open_path(tmp_path)


def test_an_unpacked_module_with_the_wrappers_own_name_is_kept_apart() -> None:
    module = "a = 1\nprint(a)\n"
    runner = "import train_gpt\nimport sys, os, torch\n"
    wrapper = (
        f"import runpy\nopen('/tmp/u/train_gpt.py', 'w').write({module!r})\n"
        f"open('/tmp/u/run.py', 'w').write({runner!r})\nrunpy.run_path('/tmp/u/run.py')\n"
    )
    found = program({"r/train_gpt.py": wrapper, "train_gpt.py": "stock = 1\n"})
    assert found.sources["r/train_gpt.py"] == runner
    assert found.sources["r/unpacked/train_gpt.py"] == module
    # The trace takes the first module of a name: the unpacked one must stand before the root's.
    assert list(found.modules)[:2] == ["r/train_gpt.py", "r/unpacked/train_gpt.py"]


def test_a_folder_elsewhere_with_a_records_metadata_is_judged_too() -> None:
    files = {
        f"{R}train_gpt.py": LEARNS, "FINAL/train_gpt.py": LEARNS, "FINAL/submission.json": "{}", "scratch/train_gpt.py": LEARNS,
    }  # fmt: skip
    assert primary_scripts(files, files.get) == [f"{R}train_gpt.py", "FINAL/train_gpt.py"]


def test_what_a_tool_is_tested_on_is_not_judged() -> None:
    files = {f"{R}train_gpt.py": LEARNS, f"{R}tests/fixtures/train_gpt_bad.py": LEARNS}
    assert primary_scripts(files, files.get) == [f"{R}train_gpt.py"]


def test_the_papers_of_the_one_record_speak_of_a_script_at_the_root() -> None:
    record = "records/track_10min_16mb/2026-03-20_Table/"
    paths = ["evaluate.py", record + "README.md", record + "train.log"]
    files = SubmissionFiles(target="x", tree=MemoryTree(dict.fromkeys(paths, "")), primary="evaluate.py", paths=paths, changed=paths)
    assert files.readmes() == [record + "README.md"] and files.logs() == [record + "train.log"]
    # With a script of its own in the record, or with two records, they are another's.
    for more in (record + "train_gpt.py", "records/track_10min_16mb/2026-03-21_Other/README.md"):
        files = SubmissionFiles(
            target="x", tree=MemoryTree({}), primary="evaluate.py", paths=[*paths, more], changed=[*paths, more]
        )
        assert files.readmes() == [] and files.logs() == []


def test_texts_in_a_folder_of_logs_are_logs_where_nothing_else_is() -> None:
    paths = ["r/train_gpt.py", "r/notes.txt", "r/logs/eight_gpus.txt"]
    files = SubmissionFiles(target="x", tree=MemoryTree({}), primary="r/train_gpt.py", paths=paths, changed=paths)
    assert files.logs() == ["r/logs/eight_gpus.txt"]
    files = SubmissionFiles(target="x", tree=MemoryTree({}), primary="r/train_gpt.py", paths=[*paths, "r/train.log"], changed=paths)
    assert files.logs() == ["r/train.log"]
