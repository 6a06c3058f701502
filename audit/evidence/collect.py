"""Reads all papers of one submission: logs, ``submission.json``, README and its companions."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from audit.evidence.digits import Interval, interval
from audit.evidence.logs import read_log
from audit.evidence.metadata import read_metadata
from audit.evidence.readme import read_readme
from audit.model import Fact

if TYPE_CHECKING:
    from audit.source import SubmissionFiles

#: papers beyond these are not read: nobody's record consists of hundreds of logs
MAX_LOGS, MAX_TEXTS = 120, 8
#: a README is cut here; whatever follows a megabyte of prose is no claim
MAX_TEXT = 1 << 20
_ABOUT = re.compile(r"review|summary|description|commit|pull|^pr|submission|body|release", re.I)


def read_facts(files: SubmissionFiles) -> list[Fact]:
    """Every stated quantity in the submission's papers: metadata, README files, then logs.

    Logs are read in blocks, so that their size costs time and no memory. Never raises for what a
    paper says; a paper that cannot be read states nothing.
    """
    facts: list[Fact] = []
    for path in metadata_paths(files):
        data = files.read(path)
        if data is not None:
            facts += read_metadata(path, data[:MAX_TEXT])
    for path in _documents(files):
        data = files.read(path)
        if data is not None:
            facts += read_readme(path, data[:MAX_TEXT].decode("utf-8", "replace"))
    for path in log_paths(files):
        stream = _open(files, path)
        if stream is None:
            continue
        with stream if not isinstance(stream, bytes) else nullcontext():
            facts += read_log(path, stream)
    return facts


def metadata_paths(files: SubmissionFiles) -> list[str]:
    """``submission.json`` beside the primary, or below it."""
    found = [p for p in files.near() if PurePosixPath(p).name.lower() == "submission.json"]
    beside = [p for p in found if p.rpartition("/")[0] == files.folder]
    return beside or found[:1]


def _documents(files: SubmissionFiles) -> list[str]:
    """README files in the primary's folder first, then what else describes the submission there.

    Plans, ideas and research logs speak of other runs and are left out.
    """
    here = [p for p in files.readmes() if p.rpartition("/")[0] == files.folder]
    other = [
        p
        for p in files.ending(".md")
        if p.rpartition("/")[0] == files.folder and p not in here and _ABOUT.search(PurePosixPath(p).name)
    ]
    return (here + other if here or other else files.readmes())[:MAX_TEXTS]


def log_paths(files: SubmissionFiles) -> list[str]:
    """Logs of this primary. In a folder of several submissions only those at or below its own."""
    return files.logs()[:MAX_LOGS]


def _open(files: SubmissionFiles, path: str) -> bytes | IO[bytes] | None:
    """The log as a stream where it lies on disk, else its bytes."""
    opener = getattr(files.tree, "open", None)
    stream: IO[bytes] | None = opener(path) if opener is not None else None
    return stream if stream is not None else files.read(path)


#: numbers that tell one figure from another: of three decimals or of six digits
_FINE = re.compile(rb"(?<![\w.])(?:\d{1,2}\.\d{3,12}|\d{6,10}|\d{1,3}(?:[,_]\d{3}){1,3})(?!\d|\.\d)")


def prints(files: SubmissionFiles, wanted: Interval, path: str = "") -> bool:
    """Does a file, or any log, hold a number that may be the wanted one, in whatever line."""
    for at in [path] if path else log_paths(files):
        stream = _open(files, at)
        if stream is None:
            continue
        with stream if not isinstance(stream, bytes) else nullcontext():
            lines = stream.splitlines() if isinstance(stream, bytes) else stream
            for line in lines:
                if any(interval(raw.decode()).meets(wanted) for raw in _FINE.findall(line)):
                    return True
    return False
