"""Targets to submissions: a script, a folder, a pull request or revision of a local repository."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from audit.contracts import InputError
from audit.source import git
from audit.source.files import SubmissionFiles
from audit.source.select import MAX_PRIMARIES, primary_scripts
from audit.source.tree import FileTree, FolderTree, GitTree
from audit.wording import counted


def open_path(path: str | os.PathLike[str]) -> list[SubmissionFiles]:
    """The submissions at ``path``: a script (one), or a folder (one per primary script).

    Raises InputError if nothing is there, if it is neither a Python script nor a folder, or if the folder holds none.
    """
    at = Path(path)
    try:
        if at.is_dir():
            return _folder(path, at)
        exists = at.is_file()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a script or a folder") from None
    if not exists:
        raise InputError(f"{path}: no such file or folder; give a script, a folder, or --repo DIR --pr N")
    if not os.access(at, os.R_OK):
        raise InputError(f"{path}: not readable; check its permissions")
    tree = FolderTree(at.resolve().parent)
    # Beside a lone script only its own folder counts: the rest of the disk is not the submission.
    near = [entry.name for entry in sorted(at.resolve().parent.iterdir()) if entry.is_file()]
    return [SubmissionFiles(target=str(path), tree=tree, primary=at.resolve().name, paths=near, changed=near)]


def _folder(path: str | os.PathLike[str], at: Path) -> list[SubmissionFiles]:
    """The submissions in a folder. One without a script is a mistake in the call, unlike a revision without one."""
    if not os.access(at, os.R_OK | os.X_OK):
        raise InputError(f"{path}: not readable; check its permissions")
    tree = FolderTree(at)
    names = list(tree.walk())
    if not any(name.endswith(".py") for name in names):
        if tree.unreadable:
            raise InputError(f"{path}: no .py file in what is readable, and {tree.unreadable[0]} is not; check its permissions")
        raise InputError(f"{path}: no .py file in this folder; name the script, or the folder that holds it")
    return _submissions(str(path), tree, names, None)


def open_git(
    repo: Any, rev: str, base: str | None = None, target: str | None = None
) -> list[SubmissionFiles]:
    """The submissions of one revision; one entry with ``primary`` None if it has no script.

    ``repo``: a path or an opened repository. ``rev``: anything git resolves. ``base``: the branch
    to compare with. Raises InputError for what does not exist.
    """
    repository = git.open_repository(repo) if isinstance(repo, (str, os.PathLike)) else repo
    commit = git.commit_of(repository, rev)
    changed = git.changed_paths(repository, commit, git.base_of(repository, base))
    tree = GitTree(repository, commit.tree)
    return _submissions(target or rev, tree, changed, str(commit.id))


def open_pull_request(repo: Any, number: int, base: str | None = None) -> list[SubmissionFiles]:
    """The submissions of pull request ``number`` as fetched into the repository."""
    repository = git.open_repository(repo) if isinstance(repo, (str, os.PathLike)) else repo
    return open_git(repository, git.pull_request_ref(repository, number), base)


def _submissions(
    target: str, tree: FileTree, changed: list[str], commit: str | None
) -> list[SubmissionFiles]:
    def text(path: str) -> str | None:
        data = tree.read(path)
        return None if data is None else data.decode("utf-8", "replace")

    primaries = primary_scripts(changed, text)
    if not primaries:
        scripts = [p for p in changed if p.endswith(".py")]
        reason = (
            "nothing was added or changed" if not changed
            else "no Python script among the added or changed files" if not scripts
            else f"the Python file {scripts[0]} neither trains nor scores" if len(scripts) == 1
            else f"none of the {len(scripts)} Python files trains or scores"
        )  # fmt: skip
        return [
            SubmissionFiles(
                target=target, tree=tree, commit=commit, reason=reason, paths=changed, changed=changed
            )
        ]
    found = []
    for primary in primaries[:MAX_PRIMARIES]:
        folder = primary.rpartition("/")[0]
        listed = dict.fromkeys(changed)
        if folder:
            listed |= dict.fromkeys(tree.walk(folder))
        files = SubmissionFiles(
            target=target, tree=tree, commit=commit, primary=primary, paths=list(listed), changed=changed
        )
        found.append(files)
    if left := primaries[MAX_PRIMARIES:]:
        # Said, not dropped: a script that nobody read is no clean script.
        names = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
        reason = f"{counted(len(left), 'more script')} that train or score {'was' if len(left) == 1 else 'were'} not read ({names}); audit them one by one"
        found.append(
            SubmissionFiles(target=target, tree=tree, commit=commit, reason=reason, paths=changed, changed=changed)
        )
    return found
