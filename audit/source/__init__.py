"""The file set of a submission: from a script, a folder, or a git revision to readable files.

`open_path` and `open_git` find the submissions at a target; `load_program` unpacks and parses one.
"""

from __future__ import annotations

from audit.source.files import SubmissionFiles
from audit.source.program import Program, load_program
from audit.source.targets import open_git, open_path, open_pull_request
from audit.source.tree import FileTree, FolderTree, GitTree, MemoryTree
from audit.text import decode

__all__ = [
    "FileTree", "FolderTree", "GitTree", "MemoryTree", "Program", "SubmissionFiles",
    "decode", "load_program", "open_git", "open_path", "open_pull_request",
]  # fmt: skip
