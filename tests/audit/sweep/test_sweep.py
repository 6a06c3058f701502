"""A sweep survives what it reads, forgets nothing it did, and says the same twice."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pygit2
import pytest

from audit.context import Options
from audit.contracts import InputError
from audit.model import Submission
from audit.program import main
from audit.sweep import Cache, Plan, sweep
from audit.sweep.cache import options_digest
from audit.sweep.drive import matching
from audit.sweep.work import Task

LEGAL = "import torch\nimport torch.nn.functional as F\nloss = F.cross_entropy(a, b)\nloss.backward()\nprint(loss)\n"


class Repository:
    """A bare repository written object by object."""

    def __init__(self, path: Path) -> None:
        self.repo = pygit2.init_repository(str(path), bare=True)
        self.path = str(path)
        self.clock = 0

    def tree(self, files: dict[str, str]) -> pygit2.Oid:
        builder = self.repo.TreeBuilder()
        folders: dict[str, dict[str, str]] = {}
        for name, text in files.items():
            first, _, rest = name.partition("/")
            if rest:
                folders.setdefault(first, {})[rest] = text
            else:
                builder.insert(first, self.repo.create_blob(text.encode()), pygit2.enums.FileMode.BLOB)
        for name, inner in folders.items():
            builder.insert(name, self.tree(inner), pygit2.enums.FileMode.TREE)
        return builder.write()

    def commit(self, files: dict[str, str], parents: list[pygit2.Oid], ref: str | None = None) -> pygit2.Oid:
        self.clock += 1
        who = pygit2.Signature("a", "a@b", self.clock, 0)
        commit = self.repo.create_commit(None, who, who, "c", self.tree(files), parents)
        if ref:
            self.repo.references.create(ref, commit, force=True)
        return commit


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    r = Repository(tmp_path / "contest.git")
    base = {"README.md": "x", "train_gpt.py": LEGAL}
    root = r.commit(base, [], "refs/heads/main")
    one = "records/t/one/"
    merged = r.commit(
        base | {one + "train_gpt.py": LEGAL + "# 1\n", one + "README.md": "r"}, [root], "refs/pull/1/head"
    )
    head = r.commit(
        base | {one + "train_gpt.py": LEGAL + "# 1\n", one + "README.md": "r", "z": "z"}, [root, merged]
    )
    r.repo.references.create("refs/heads/main", head, force=True)
    r.commit(base | {"docs/a.md": "words"}, [root], "refs/pull/2/head")
    r.commit(
        base | {"records/t/a/train_gpt.py": LEGAL + "# a\n", "records/t/b/train_gpt.py": LEGAL + "# b\n"},
        [root], "refs/pull/10/head",
    )  # fmt: skip
    return r


def lines_of(plan: Plan, cache: Cache | None = None, **more: Any) -> dict[str, list[dict[str, Any]]]:
    return {ref: lines for ref, lines, _cached in sweep(plan, cache, **more)}


def plan_for(repository: Repository, **more: Any) -> Plan:
    return Plan(repo=repository.path, globs=("refs/pull/*/head",), jobs=2, **more)


def test_every_ref_gives_its_submissions(repository: Repository) -> None:
    found = lines_of(plan_for(repository))
    assert list(found) == ["refs/pull/1/head", "refs/pull/2/head", "refs/pull/10/head"]
    (merged,) = found["refs/pull/1/head"]
    assert merged["primary"] == "records/t/one/train_gpt.py", "a merged ref is read from its own commits"
    (none,) = found["refs/pull/2/head"]
    assert none["primary"] is None
    assert "no Python script" in none["reason"]
    both = found["refs/pull/10/head"]
    assert sorted(x["primary"] for x in both) == ["records/t/a/train_gpt.py", "records/t/b/train_gpt.py"]
    for lines in found.values():
        for line in lines:
            assert line["ref"] == line["target"]
            assert len(line["commit"]) == 40
            assert line["ruleset"] == Options().ruleset
            assert line["verdict"] in ("violation", "clean", "undetermined")
            assert set(Submission(target="x").as_json()) <= set(line)


def test_the_base_decides_what_a_ref_adds(repository: Repository) -> None:
    root = str(repository.repo.references["refs/pull/1/head"].peel().parents[0].id)
    found = lines_of(plan_for(repository, options=Options(base=root)))
    assert [x["primary"] for x in found["refs/pull/1/head"]] == ["records/t/one/train_gpt.py"]
    with pytest.raises(InputError, match="not a commit"):
        lines_of(plan_for(repository, options=Options(base="nowhere")))


def test_nothing_matches_is_an_input_error(repository: Repository) -> None:
    with pytest.raises(InputError, match="no ref"):
        matching(repository.path, ("refs/tags/*",))
    with pytest.raises(InputError, match="not a git repository"):
        matching("/nonexistent", ("*",))


# ------------------------------------------------------------------ processes that die or hang


def fragile(task: Task) -> Iterator[dict[str, Any]]:
    """Stands in for the audit: dies over /a/, hangs over pull 1, is well otherwise."""
    scripts = {"refs/pull/10/head": ["x/a/s.py", "x/b/s.py"], "refs/pull/1/head": ["one.py"]}.get(
        task.ref, ["two.py"]
    )
    for script in scripts[task.skip :]:
        line = Submission(target=task.ref, primary=script, reason="").as_json()
        yield {"event": "begin", "line": line}
        if "/a/" in script:
            os._exit(7)
        if script == "one.py":
            time.sleep(600)
        yield {"event": "line", "line": {**line, "verdict": "clean"}}


def dead_on_arrival(task: Task) -> Iterator[dict[str, Any]]:
    os._exit(9)
    yield {}


def test_death_and_hang_cost_one_line_each(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.sweep.pool.PATIENCE", 1)
    found = lines_of(plan_for(repository, limit_s=3.0), audit=fragile)
    died, lived = found["refs/pull/10/head"]
    assert (died["primary"], died["verdict"]) == ("x/a/s.py", "undetermined")
    assert "exit code 7" in died["reason"]
    assert (lived["primary"], lived["verdict"]) == ("x/b/s.py", "clean")
    (hung,) = found["refs/pull/1/head"]
    assert "longer than 3 s" in hung["reason"]
    assert hung["obligations"][0]["status"] == "undetermined"
    assert found["refs/pull/2/head"][0]["verdict"] == "clean"


def test_a_process_that_dies_before_it_says_anything(repository: Repository) -> None:
    found = lines_of(plan_for(repository), audit=dead_on_arrival)
    assert all(x[0]["primary"] is None and "exit code 9" in x[0]["reason"] for x in found.values())


# ------------------------------------------------------------------ cache


def test_a_second_sweep_comes_from_the_cache_and_is_the_same(repository: Repository, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    first = list(sweep(plan_for(repository), cache))
    second = list(sweep(plan_for(repository), cache))
    assert [(r, x) for r, x, _ in first] == [(r, x) for r, x, _ in second]
    assert [c for *_, c in first] == [False] * 3
    assert [c for *_, c in second] == [True] * 3
    other = list(sweep(plan_for(repository, options=Options(policy="strict")), cache))
    assert [c for *_, c in other] == [False] * 3


def test_a_killed_sweep_keeps_what_it_had_done(repository: Repository, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    running = sweep(Plan(repo=repository.path, globs=("refs/pull/*/head",), jobs=1), cache)
    next(running)
    running.close()
    cache.close()
    again = list(sweep(plan_for(repository), Cache(tmp_path / "c.sqlite")))
    assert next(c for *_, c in again) is True
    assert len(again) == 3


def test_lost_audits_are_not_kept(repository: Repository, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    list(sweep(plan_for(repository), cache, audit=dead_on_arrival))
    assert not any(c for *_, c in sweep(plan_for(repository), cache))


def test_every_option_that_bears_on_a_verdict_is_in_the_key() -> None:
    base = Options()
    changed = [
        Options(ruleset="2026-03-01"), Options(policy="strict"), Options(env={"A": "1"}), Options(ignore_suppressions=True),
        Options(baseline=frozenset({"x"})), Options(budget_s=1.0), Options(rules=frozenset({"F1"})),
    ]  # fmt: skip
    digests = {options_digest(o) for o in changed} | {options_digest(base)}
    assert len(digests) == len(changed) + 1
    assert options_digest(base) == options_digest(Options())


def test_a_file_that_is_no_cache_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("not a database, but long enough to look like a header of one " * 20)
    with pytest.raises(InputError, match="not usable as a cache"):
        Cache(tmp_path / "c")


# ------------------------------------------------------------------ the command


def test_the_command_writes_lines_and_a_table(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep.jsonl"
    code = main(["sweep", repository.path, "--out", str(out), "--cache", str(tmp_path / "c"), "--jobs", "1"])
    assert code == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [x["ref"] for x in lines] == ["refs/pull/1/head", "refs/pull/2/head"] + ["refs/pull/10/head"] * 2
    table = capsys.readouterr().err
    assert "3 refs, 4 lines, 1 without a script" in table


def test_the_command_refuses_nonsense(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", repository.path, "--jobs", "0"]) == 2
    assert main(["sweep", "/nonexistent"]) == 2
    assert main(["sweep", repository.path, "--ruleset", "soon", "--no-cache"]) == 2
    assert main(["sweep", repository.path, "--no-cache", "--out", "/nonexistent/x"]) == 2
    assert "Traceback" not in capsys.readouterr().err
