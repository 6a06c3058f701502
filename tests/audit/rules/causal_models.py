"""What the tests of F17 share: a model's text, and what the rule says of it."""

from __future__ import annotations

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.model import Finding, Submission


def indent(lines: str) -> str:
    """Statements as they stand in a method."""
    return lines.strip().replace("\n", "\n        ")


def audited(text: str) -> tuple[list[Finding], Submission]:
    """F17's findings, and the whole result of that rule alone."""
    found = audit_files(text_files({"train_gpt.py": text}, "train_gpt.py"), Options(rules=frozenset({"F17"})))
    return [f for f in found.findings if f.rule == "F17"], found
