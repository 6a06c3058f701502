"""One audit serves every submission that answers its questions alike, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.context import Options
from audit.lower import store
from audit.source import git, open_git
from audit.sweep.work import Task, audit_ref
from tests.audit.sweep.test_sweep import LEGAL, Repository

HOME = "records/t/one/"
SCRIPT = "import helper\n" + LEGAL
FILES = {
    HOME + "train_gpt.py": SCRIPT,
    HOME + "README.md": "```bash\ntorchrun train_gpt.py\n```\n",
    "helper.py": "x = 1\n",
    "train_gpt.py": LEGAL,
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    # A worker limits the memory of its process, which is that of the tests here.
    monkeypatch.setattr("audit.sweep.work._repository", git.open_repository)
    r = Repository(tmp_path / "contest.git")
    r.commit({"README.md": "x"}, [], "refs/heads/main")
    yield r
    store.keep_in(None)


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets that were really audited."""
    import audit.engine

    real, seen = audit.engine.audit_files, []

    def counted(files: Any, options: Options) -> Any:
        if files.primary.startswith(HOME):
            seen.append(files.target)
        return real(files, options)

    monkeypatch.setattr(audit.engine, "audit_files", counted)
    return seen


def swept(repository: Repository, folder: Path, number: int, files: dict[str, str]) -> dict[str, Any]:
    root = repository.repo.references["refs/heads/main"].peel().id
    ref = f"refs/pull/{number}/head"
    commit = repository.commit({"README.md": "x"} | files, [root], ref)
    task = Task(repo=repository.path, rev=str(commit), ref=ref, options=Options(), key=ref, modules=str(folder))
    lines = [m["line"] for m in audit_ref(task) if m["event"] == "line"]
    return next(line for line in lines if line["primary"] == HOME + "train_gpt.py")


def content(line: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in line.items() if k not in ("target", "commit")}


def test_what_nobody_asked_for_may_differ(repository: Repository, audited: list[str], tmp_path: Path) -> None:
    first = swept(repository, tmp_path, 1, FILES)
    again = swept(repository, tmp_path, 2, FILES | {"docs/other.md": "words", "train_gpt.py": LEGAL + "# changed\n"})
    assert audited == ["refs/pull/1/head"]
    assert content(first) == content(again)


@pytest.mark.parametrize(
    "change",
    [
        {HOME + "train_gpt.py": SCRIPT + "# other\n"},
        {HOME + "README.md": "```bash\nTTT=1 torchrun train_gpt.py\n```\n"},
        {HOME + "train.log": "step:1 val_bpb:1.1\n"},
        {HOME + "notes.md": "words"},
        {"helper.py": "x = 2\n"},
        {"run.sh": "torchrun train_gpt.py\n"},
        {"fast/table.c": "int f(void) { return 1; }\n"},
    ],
)
def test_what_was_asked_for_decides(
    repository: Repository, audited: list[str], tmp_path: Path, change: dict[str, str]
) -> None:
    swept(repository, tmp_path, 1, FILES)
    changed = swept(repository, tmp_path, 2, FILES | change)
    assert audited == ["refs/pull/1/head", "refs/pull/2/head"]
    (alone,) = (f for f in open_git(repository.path, "refs/pull/2/head") if f.primary == HOME + "train_gpt.py")
    from audit.engine import audit_files

    assert content(changed) == content(audit_files(alone, Options()).as_json())
    # Each of them is found again, among the other's questions.
    swept(repository, tmp_path, 3, FILES)
    swept(repository, tmp_path, 4, FILES | change)
    assert audited == ["refs/pull/1/head", "refs/pull/2/head", "refs/pull/2/head"]


def test_without_a_folder_nothing_is_kept(repository: Repository, audited: list[str], tmp_path: Path) -> None:
    for number in (1, 2):
        root = repository.repo.references["refs/heads/main"].peel().id
        commit = repository.commit({"README.md": "x"} | FILES, [root], f"refs/pull/{number}/head")
        list(audit_ref(Task(repo=repository.path, rev=str(commit), ref=str(number), options=Options(), key="k")))
    assert audited == ["1", "2"]
