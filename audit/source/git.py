"""What a git revision submits: the files it adds or changes against its merge base.

Reads objects only, nothing is checked out. A revision that was already merged has an empty
difference to the base branch; it is compared with the base branch as it was before the merge.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from audit.contracts import InputError
from audit.source.tree import GitTree

HEADS = "+refs/pull/*/head:refs/pull/*/head"
BASES = ("refs/remotes/origin/main", "refs/heads/main", "refs/remotes/origin/master", "refs/heads/master")


def open_repository(path: str | os.PathLike[str]) -> Any:
    """The repository at ``path`` (bare, or a work tree). Raises InputError if there is none."""
    try:
        import pygit2
    except ImportError:
        raise InputError("reading a repository needs pygit2; install it with: pip install pygit2") from None
    try:
        return pygit2.Repository(str(path))
    except (pygit2.GitError, KeyError):
        raise InputError(
            f"{path} is not a git repository; give the folder that holds .git, or a bare one"
        ) from None


def commit_of(repo: Any, rev: str) -> Any:
    """The commit that ``rev`` names. Raises InputError if it names none."""
    import pygit2

    try:
        return repo.revparse_single(rev).peel(pygit2.Commit)
    except (KeyError, ValueError, pygit2.GitError):
        hint = f"see `git -C {repo.path} for-each-ref`"
        if "pull/" in rev:
            hint = fetch_heads(repo.path)
        elif rev.startswith(("origin/", "refs/remotes/")) or repo.is_shallow:
            hint += "; a shallow clone lacks it (in a workflow: actions/checkout with fetch-depth 0)"
        raise InputError(f"{rev} is not a commit of {repo.path}; {hint}") from None


def fetch_heads(path: str) -> str:
    """How to get what a plain clone leaves out: the heads of pull requests."""
    return f"a plain clone has no heads of pull requests, fetch them with: git -C {path} fetch origin '{HEADS}'"


def base_of(repo: Any, base: str | None) -> Any | None:
    """The commit of the base branch: the named one, else the remote's main, else the local one."""
    if base is not None:
        return commit_of(repo, base)
    for name in BASES:
        if name in repo.references:
            return commit_of(repo, name)
    return None


def pull_request_ref(repo: Any, number: int) -> str:
    """The ref under which the head of pull request ``number`` lies. Raises InputError if absent."""
    for name in (
        f"refs/pull/{number}/head",
        f"refs/remotes/origin/pr/{number}",
        f"refs/remotes/origin/pull/{number}/head",
    ):
        if name in repo.references:
            return name
    raise InputError(f"{repo.path} has no head of pull request {number}; {fetch_heads(repo.path)}")


def changed_paths(repo: Any, commit: Any, base: Any | None) -> list[str]:
    """Paths that ``commit`` adds or changes, sorted; everything in its tree if there is no base."""
    tree = GitTree(repo, commit.tree)
    if base is None:
        return sorted(tree.walk())
    fork = repo.merge_base(base.id, commit.id)
    if fork is None:
        # No common history (a re-created fork): what the base branch does not hold, by content.
        known = _blobs(repo, base.tree)
        return sorted(p for p in tree.walk() if str(tree._entry(p).id) not in known)
    before = repo[fork]
    if before.id == commit.id:
        # Already merged: compare with the base branch before the commit that brought it in.
        before = _before_merge(repo, commit, base)
        if before is None:
            return sorted(tree.walk())
    difference = before.tree.diff_to_tree(commit.tree)
    return sorted(d.new_file.path for d in difference.deltas if d.status_char() != "D")


def _blobs(repo: Any, tree: Any) -> set[str]:
    git_tree = GitTree(repo, tree)
    return {str(git_tree._entry(path).id) for path in git_tree.walk()}


@lru_cache(maxsize=4)
def _first_parents(repo_path: str, tip: str) -> list[Any]:
    """The base branch, newest first."""
    repo = open_repository(repo_path)
    chain, at = [], repo[tip]
    while True:
        chain.append(at.id)
        if not at.parents:
            return chain
        at = at.parents[0]


def _before_merge(repo: Any, commit: Any, base: Any) -> Any | None:
    """The state to compare a merged ``commit`` with, or None if it is the root."""
    chain = _first_parents(repo.path, str(base.id))
    # "contains the commit" is monotone along the chain: find its oldest member that does.
    low, high = 0, len(chain) - 1
    while low < high:
        middle = (low + high + 1) // 2
        at = chain[middle]
        if at == commit.id or repo.descendant_of(at, commit.id):
            low = middle
        else:
            high = middle - 1
    merge = repo[chain[low]]
    if not merge.parents:
        return None
    if merge.id == commit.id:
        return merge.parents[0]
    fork = repo.merge_base(merge.parents[0].id, commit.id)
    return repo[fork] if fork is not None else None
