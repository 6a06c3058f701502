"""A verified scorecard as an in-toto statement, for whoever signs and publishes such things.

The statement names the scorecard's files and the scored artifact by their SHA-256 (the *subject*) and says what
the verifier found (the *predicate*). Signing it is left to the tools made for that; see
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from audit.contracts import InputError
from audit.program import version
from harness.scorecard.chain import EVENTS, SCORES
from harness.scorecard.verify import Verdict
from harness.scorecard.writer import file_sha256

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:parameter-golf-referee:scorecard:1"


def statement(folder: str | os.PathLike[str], verdict: Verdict) -> dict[str, Any]:
    """The statement of one scorecard folder and what `verify` found in it."""
    folder = Path(folder)
    artifact = verdict.header["artifact"]
    subject = [{"name": n, "digest": {"sha256": file_sha256(folder / n)}} for n in (EVENTS, SCORES)]
    subject.append({"name": artifact["name"], "digest": {"sha256": artifact["sha256"]}})
    summary = verdict.summary()
    return {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": {
            "verifier": {"name": "referee verify", "version": version()},
            "ruleset": verdict.header["code"]["ruleset"],
            "inputs": verdict.header["inputs"],
            "plan": verdict.header["plan"],
            "adaptation": verdict.header["adaptation"],
            "result": {k: summary[k] for k in
                       ("complete", "problems", "claims", "scored", "bytes", "nats", "bits_per_byte", "partial", "head")},
        },
    }  # fmt: skip


def write_statement(path: str | os.PathLike[str], folder: str | os.PathLike[str], verdict: Verdict) -> None:
    """Writes the statement. Raises `InputError` when there is nothing to state or the file cannot be written."""
    if not verdict.header:
        raise InputError(f"{folder}: no readable header; there is nothing to state")
    try:
        Path(path).write_text(json.dumps(statement(folder, verdict), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot write the statement: {error.strerror}") from None
