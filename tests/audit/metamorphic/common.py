"""Verdicts of rewritten fixtures: the whole folder, with another primary script."""

from __future__ import annotations

from audit.context import Options
from audit.engine import audit_files
from audit.model import Submission
from audit.source import MemoryTree, SubmissionFiles
from tests.audit.fixture_cases import SUBMISSIONS, expected


def rewritten(case: str, text: str) -> Submission:
    """The audit of a fixture's folder whose ``train_gpt.py`` is ``text``."""
    folder = SUBMISSIONS / case
    texts = {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "expected.json"
    }  # fmt: skip
    texts["train_gpt.py"] = text.encode("utf-8", "surrogateescape")
    files = SubmissionFiles(
        target=case, tree=MemoryTree(texts), primary="train_gpt.py", paths=list(texts), changed=list(texts)
    )
    return audit_files(files, Options(env=expected(case)["env"]))


def script(case: str) -> str:
    return (SUBMISSIONS / case / "train_gpt.py").read_text(encoding="utf-8")


def rules_that_count(submission: Submission) -> set[str]:
    return {f.rule for f in submission.findings if f.severity == "violation"}
