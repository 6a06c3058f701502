"""Reads all papers of one submission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.evidence.logs import read_log
from audit.model import Fact

if TYPE_CHECKING:
    from audit.source import SubmissionFiles


def read_facts(files: SubmissionFiles) -> list[Fact]:
    """Every stated quantity in the submission's papers, logs first, in path order."""
    facts: list[Fact] = []
    for path in files.logs():
        data = files.read(path)
        if data is not None:
            facts.extend(read_log(path, data))
    return facts
