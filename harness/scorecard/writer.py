"""Writes a scorecard so that a kill at any instant leaves a readable, continuable one.

Every event is one appended, flushed line; scores go to their place in ``nll.npy`` before the event that
commits them. What is missing at the end (the footer) is what makes a scorecard incomplete.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from audit.contracts import InputError
from harness.scorecard.chain import EVENTS, GENESIS, SCHEMA, SCORES, seal, unseal


class ScorecardWriter:
    """Appends to a scorecard folder. Use `create` for a new one, `resume` for an incomplete one."""

    def __init__(self, folder: Path, handle: Any, nll: np.ndarray, prev: str, seq: int) -> None:
        self.folder, self.nll, self.prev, self.seq = folder, nll, prev, seq
        self._handle = handle

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], header: dict[str, Any], targets: int, *, again: bool = False
    ) -> ScorecardWriter:
        """Starts a scorecard of ``targets`` scores. Refuses a folder that holds one, unless ``again``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / EVENTS).exists() and not again:
            raise InputError(f"{folder}: already holds a scorecard; use --resume, or another --out")
        nll = np.lib.format.open_memmap(folder / SCORES, mode="w+", dtype="<f4", shape=(targets,))
        nll[:] = np.nan
        writer = cls(folder, (folder / EVENTS).open("wb"), nll, GENESIS, 0)
        writer.event("header", schema=SCHEMA, **header)
        return writer

    @classmethod
    def resume(cls, folder: str | os.PathLike[str], keep: int, prev: str) -> ScorecardWriter:
        """Continues after the first ``keep`` events, whose last hash is ``prev``; drops what follows."""
        folder = Path(folder)
        lines = (folder / EVENTS).read_bytes().splitlines(keepends=True)[:keep]
        handle = (folder / EVENTS).open("r+b")
        handle.truncate(sum(map(len, lines)))
        handle.seek(0, os.SEEK_END)
        return cls(folder, handle, np.lib.format.open_memmap(folder / SCORES, mode="r+"), prev, keep)

    def event(self, kind: str, /, **body: Any) -> str:
        """Appends one event and returns its hash."""
        line, self.prev = seal({"kind": kind, **body}, self.prev, self.seq)
        self._handle.write(line)
        self._handle.flush()
        self.seq += 1
        return self.prev

    def scores(self, lo: int, values: np.ndarray) -> str:
        """Stores first scores for targets from ``lo`` on; returns the SHA-256 of their bytes."""
        stored = np.ascontiguousarray(values, dtype="<f4")
        self.nll[lo : lo + len(stored)] = stored
        return hashlib.sha256(stored.tobytes()).hexdigest()

    def close(self, footer: dict[str, Any] | None = None) -> None:
        """Ends the scorecard; with a footer it is complete, without one it stays incomplete."""
        if isinstance(self.nll, np.memmap):
            self.nll.flush()
        if footer is not None:
            digest = file_sha256(self.folder / SCORES)
            self.event("footer", **footer, nll={"file": SCORES, "sha256": digest})
        self._handle.close()


def file_sha256(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_events(folder: str | os.PathLike[str], *, torn: bool = False) -> list[dict[str, Any]]:
    """All events of a scorecard, each checked against the chain.

    With ``torn`` a last line without its newline (the run was killed while writing it) is dropped instead
    of raising; a line that was written to its end and altered afterwards is damage all the same. Raises `InputError` when there is no scorecard, ValueError("line n: …") when it is damaged.
    """
    path = Path(folder) / EVENTS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: no scorecard here: {error.strerror}") from None
    events: list[dict[str, Any]] = []
    prev = GENESIS
    for number, line in enumerate(lines):
        try:
            event = unseal(line, prev, number)
        except ValueError as error:
            if torn and number == len(lines) - 1 and _is_torn(line, prev, number):
                break
            raise ValueError(f"line {number + 1}: {error}") from None
        events.append(event)
        prev = event["hash"]
    return events


def _is_torn(line: bytes, prev: str, seq: int) -> bool:
    """Whether ``line`` can be what a kill left of an event: its beginning, without the newline."""
    begin = b'{"adaptation":' if seq == 0 else b'{"'  # keys are sorted, and only a header comes first
    if line.endswith(b"\n") or line[: len(begin)] != begin[: len(line)]:
        return False
    try:
        unseal(line[:-1] + b"\n", prev, seq)
    except ValueError:
        return True
    return False  # a whole event in which only the final newline was replaced by something else
