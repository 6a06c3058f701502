"""The sweep itself: refs to tasks, tasks to lines, lines in order."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from audit.context import Options
from audit.contracts import InputError
from audit.model import Submission
from audit.sweep import pool
from audit.sweep.cache import Cache, code_digest, options_digest
from audit.sweep.work import Task, audit_ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to sweep. ``jobs``: processes; ``limit_s``: seconds for one submission."""

    repo: str
    globs: tuple[str, ...]
    options: Options = field(default_factory=Options)
    jobs: int = 2
    limit_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Ref:
    """A name for the output and the commit that is read."""

    name: str
    commit: str


Audit = Callable[[Task], Iterator[dict[str, Any]]]


def matching(repo: str, globs: tuple[str, ...]) -> list[Ref]:
    """The refs of a repository that match one of the globs, in natural order (pull 9 before 10).

    Raises InputError if the repository cannot be opened or nothing matches.
    """
    import pygit2

    from audit.source import git

    repository = git.open_repository(repo)
    found = []
    for name in repository.references:
        if any(fnmatchcase(name, glob) or fnmatchcase(name, f"refs/{glob}") for glob in globs):
            try:
                commit = repository.references[name].peel(pygit2.Commit)
                found.append(Ref(name, str(commit.id)))
            except (pygit2.GitError, KeyError, ValueError):
                continue  # a tag of a blob, or a ref to an object that the mirror lacks
    if not found:
        shown = " or ".join(globs)
        hint = git.fetch_heads(repo) if "pull/" in shown else f"see: git -C {repo} for-each-ref"
        raise InputError(f"no ref of {repo} matches {shown}; {hint}")
    return sorted(found, key=lambda r: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", r.name)])


def sweep(
    plan: Plan, cache: Cache | None = None, audit: Audit = audit_ref
) -> Iterator[tuple[str, list[dict[str, Any]], bool]]:
    """Yields (ref, its lines, whether they came from the cache), in the order of `matching`."""
    yield from sweep_refs(matching(plan.repo, plan.globs), plan, cache, audit)


def sweep_refs(
    refs: list[Ref], plan: Plan, cache: Cache | None = None, audit: Audit = audit_ref
) -> Iterator[tuple[str, list[dict[str, Any]], bool]]:
    """`sweep` over an explicit list; the globs of ``plan`` are not read."""
    from audit.source import git

    cache = cache or Cache(None)
    base = git.base_of(git.open_repository(plan.repo), plan.options.base)
    stamp = "|".join((code_digest(), options_digest(plan.options), str(base.id) if base else "-"))
    # The same commit under two refs is audited once.
    keys = {ref.name: f"{ref.commit}|{stamp}" for ref in refs}
    ready: dict[str, tuple[list[dict[str, Any]], bool]] = {}
    tasks: dict[str, Task] = {}
    for ref in refs:
        key = keys[ref.name]
        if key in ready or key in tasks:
            continue
        if (kept := cache.get(key)) is not None:
            ready[key] = (kept, True)
        else:
            tasks[key] = Task(repo=plan.repo, rev=ref.commit, ref=ref.name, options=plan.options, key=key)
    at = 0

    def flush() -> Iterator[tuple[str, list[dict[str, Any]], bool]]:
        nonlocal at
        while at < len(refs) and keys[refs[at].name] in ready:
            ref = refs[at]
            lines, kept = ready[keys[ref.name]]
            at += 1
            yield ref.name, [_labelled(line, ref, plan.options.ruleset) for line in lines], kept

    yield from flush()
    with tempfile.TemporaryDirectory(prefix="referee-") as modules:
        todo = [replace(task, modules=modules) for task in tasks.values()]
        for key, lines, lost in _audited(todo, plan, audit):
            if not lost:
                # What a hang or a lost process left behind depends on the machine: not kept.
                cache.put(key, lines)
            ready[key] = (lines, False)
            yield from flush()


def _labelled(line: dict[str, Any], ref: Ref, ruleset: str) -> dict[str, Any]:
    return {"ref": ref.name, **line, "target": ref.name, "commit": ref.commit, "ruleset": ruleset}


def _audited(tasks: list[Task], plan: Plan, audit: Audit) -> Iterator[tuple[str, list[dict[str, Any]], bool]]:
    """(key, lines, whether a process was lost on the way) of each task, as they finish."""
    lines: dict[str, list[dict[str, Any]]] = {}
    begun: dict[str, dict[str, Any]] = {}
    lost: set[str] = set()
    round_ = tasks
    while round_:
        again: list[Task] = []
        for event in pool.run(audit, round_, plan.jobs, plan.limit_s):
            task: Task = event.task
            if isinstance(event, pool.Said):
                if event.message["event"] == "begin":
                    begun[task.key] = event.message["line"]
                else:
                    lines.setdefault(task.key, []).append(event.message["line"])
                    begun.pop(task.key, None)
            elif isinstance(event, pool.Lost):
                lost.add(task.key)
                done = lines.setdefault(task.key, [])
                started = begun.pop(task.key, None)
                done.append(_undetermined(started, event.reason))
                if started is not None:
                    again.append(replace(task, skip=len(done)))
                else:
                    yield task.key, lines.pop(task.key), True
            else:
                yield task.key, lines.pop(task.key, []), task.key in lost
        round_ = again


def _undetermined(started: dict[str, Any] | None, reason: str) -> dict[str, Any]:
    if started is None:
        where = Submission(target="", reason=f"its files could not be listed: {reason}")
        return where.as_json()
    obligations = [{"rule": "S3", "status": "undetermined", "reason": f"the audit did not end: {reason}"}]
    return {
        **started,
        "verdict": "undetermined",
        "reason": f"the audit did not end: {reason}",
        "obligations": obligations,
    }
