"""A baseline speaks of the code of one submission: not of its copy by somebody else, and however it is named."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from audit.baseline import home, of_submission, pull_request
from audit.context import Options
from audit.engine import audit_files, audit_text, text_files
from audit.program import main
from audit.rules.flow import PRELUDE

ADAPT = """\
def adapt(model, val):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(0, val.numel() - 1, 1024):
        nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025]).mean().backward()
        optimizer.step()

"""
SCRIPT = PRELUDE + ADAPT + 'adapt(model, val)\nprint(f"val_bpb:{evaluate(model, val):.4f}")\n'
ONE = "records/track_10min_16mb/2026-04-01_One/train_gpt.py"
OTHER = "records/track_10min_16mb/2026-04-01_Other/train_gpt.py"


def run(*args: str, capsys) -> int:
    code = main(["audit", *args])
    capsys.readouterr()
    return code


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Five pull requests with one script: in two records, twice in folders of one name, and at the root."""
    place = tmp_path_factory.mktemp("contest")

    def git(*args: str) -> str:
        call = ["git", "-C", str(place), "-c", "user.name=t", "-c", "user.email=t@t", *args]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "main")
    (place / "README.md").write_text("contest\n")
    git("add", "."), git("commit", "-qm", "start")
    for number, path in enumerate((ONE, OTHER, "code/train_gpt.py", "code/train_gpt.py", "train_gpt.py"), 1):
        git("checkout", "-q", "main")
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(f"# {number}\n" + SCRIPT)
        git("add", "."), git("commit", "-qm", str(number), "--no-verify")
        git("update-ref", f"refs/pull/{number}/head", "HEAD")
        git("reset", "-q", "--hard", "HEAD~1")
    return place


def test_the_copy_of_another_author_is_still_accused(repository: Path, tmp_path: Path, capsys) -> None:
    known, repo = str(tmp_path / "known.json"), ["--repo", str(repository)]
    assert run(*repo, "--pr", "1", "--write-baseline", known, capsys=capsys) == 1
    assert run(*repo, "--pr", "1", "--baseline", known, capsys=capsys) == 0
    assert run(*repo, "--pr", "2", "--baseline", known, capsys=capsys) == 1
    assert run(*repo, "--pr", "3", "--write-baseline", known, capsys=capsys) == 1
    assert run(*repo, "--pr", "3", "--baseline", known, capsys=capsys) == 0
    assert run(*repo, "--pr", "4", "--baseline", known, capsys=capsys) == 1  # a folder of the same name
    assert run(*repo, "--pr", "5", "--write-baseline", known, capsys=capsys) == 1
    assert run(*repo, "--pr", "5", "--baseline", known, capsys=capsys) == 0
    assert run(*repo, "--pr", "1", "--baseline", known, capsys=capsys) == 1


@pytest.mark.parametrize("named", ["root", "folder", "script", "here"])
def test_folders_scripts_and_revisions_agree(repository: Path, tmp_path: Path, capsys, monkeypatch, named: str) -> None:
    place = tmp_path / ONE
    place.parent.mkdir(parents=True)
    place.write_text("# moved\n" * 3 + SCRIPT)
    target = {"root": str(tmp_path), "folder": str(place.parent), "script": str(place), "here": "."}[named]
    if named == "here":
        monkeypatch.chdir(place.parent)
    known, revision = str(tmp_path / "known.json"), ["--repo", str(repository), "--pr", "1"]
    assert run(target, "--write-baseline", known, capsys=capsys) == 1
    assert run(*revision, "--baseline", known, capsys=capsys) == 0
    assert run("--repo", str(repository), "--pr", "2", "--baseline", known, capsys=capsys) == 1
    assert run(*revision, "--write-baseline", known, capsys=capsys) == 1
    assert run(target, "--baseline", known, capsys=capsys) == 0
    entry = json.loads(Path(known).read_text())["findings"][0]
    assert (entry["submission"], entry["pull_request"]) == ("2026-04-01_One", "1")


def test_lines_above_and_other_functions_change_nothing_and_a_second_function_is_new() -> None:
    known = frozenset(of_submission(audit_text(SCRIPT)))
    for text in ("# a\n# b\n# c\n" + SCRIPT, SCRIPT.replace("n_bytes = 151_080_000", "n_bytes = 151_080_001 - 1"),
                 SCRIPT.replace("    optimizer = torch", "    # one\n    # two\n    # three\n    optimizer = torch"),
                 SCRIPT.replace("self.head(self.emb(x))", "(self.head(self.emb(x)))")):  # fmt: skip
        assert audit_text(text, Options(baseline=known)).verdict == "clean"
    second = SCRIPT.replace("adapt(model, val)\nprint", "adapt(model, val)\nagain(model, val)\nprint")
    second = second.replace(ADAPT, ADAPT + ADAPT.replace("def adapt", "def again"))
    result = audit_text(second, Options(baseline=known))
    assert {f.function for f in result.findings if f.severity == "violation" and not f.suppressed} == {"again"}
    renamed = SCRIPT.replace("adapt(", "fit(")
    assert audit_text(renamed, Options(baseline=known)).verdict == "violation"


def test_an_edit_on_the_values_path_is_a_new_accusation() -> None:
    known = frozenset(of_submission(audit_text(SCRIPT)))
    text = SCRIPT.replace("adapt(model, val)\nprint", "adapt(model, val[:4096])\nprint")
    assert text != SCRIPT and audit_text(text, Options(baseline=known)).verdict == "violation"


def test_equal_lines_are_told_apart_by_their_place_and_not_by_what_is_said_of_them() -> None:
    text = SCRIPT.replace("        optimizer.step()\n\n", "        optimizer.step()\n        optimizer.step()\n\n")
    files = text_files({ONE: text}, ONE)
    result = audit_files(files, Options())
    prints = of_submission(result)
    result.findings.reverse()
    assert of_submission(result) == prints[::-1] and len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    ("target", "commit", "primary", "name"),
    [
        ("repo@refs/pull/7/head", "c", ONE, "2026-04-01_One"),
        ("repo@main", "c", "records/track/2026_X/src/deep/train.py", "2026_X"),
        ("repo@main", "c", "records/entry/train.py", "entry"),
        ("repo@main", "c", "code/train.py", "code"),
        ("repo@refs/pull/7/head", "c", "train_gpt.py", "pull/7"),
        ("repo@abc", "c", "train_gpt.py", "abc"),
        ("/nowhere/repo@HEAD", "c", "train_gpt.py", "repo"),
        ("/nowhere/repo", None, "train_gpt.py", "repo"),
        ("/nowhere/records/track/2026_X/src", None, "train_gpt.py", "2026_X"),
        ("refs/pull/7/head", "c", "train_gpt.py", "pull/7"),
    ],
)
def test_the_folder_that_a_submission_is_known_by(target: str, commit: str | None, primary: str, name: str) -> None:
    assert home(target, commit, primary) == name
    assert pull_request(target) == ("7" if "pull/7" in target else None)


def test_a_baseline_of_an_earlier_form_is_refused(tmp_path: Path, capsys) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"schema": "referee.baseline/1", "findings": [{"fingerprint": "0"}]}))
    assert main(["audit", str(tmp_path), "--baseline", str(old)]) == 2
    assert "write it again" in capsys.readouterr().err
