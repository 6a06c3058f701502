"""Continues an interrupted evaluation from its last complete chunk.

Without adaptation nothing has to be remembered. With it, the state after the last complete chunk is rebuilt:
from the latest snapshot if there is one, else from the artifact, by adapting again on the recorded chunks
without scoring them; every rebuilt state must have the fingerprint on record. In deterministic mode the
continued run ends in the same bits as an uninterrupted one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from audit.contracts import InputError
from harness.scorecard.chain import EVENTS
from harness.scorecard.writer import ScorecardWriter, read_events

if TYPE_CHECKING:
    from harness.adapt.recipes import Adaptation

STATE = "continue.pt"
SAME = ("artifact", "inputs", "stream", "plan", "adaptation", "numerics", "code", "state", "proof")


class Snapshots:
    """Writes the adapted state to the scorecard's folder every ``seconds``, atomically."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds, self._last = folder, seconds, time.monotonic()

    def offer(self, chunk: int, model: torch.nn.Module, adaptation: Adaptation) -> None:
        if time.monotonic() - self._last < self.seconds:
            return
        partial = self.folder / (STATE + ".partial")
        torch.save(
            {"chunk": chunk, "model": model.state_dict(), "adaptation": adaptation.state()}, partial
        )
        os.replace(partial, self.folder / STATE)
        self._last = time.monotonic()

    @staticmethod
    def remove(folder: Path) -> None:
        (folder / STATE).unlink(missing_ok=True)


def nothing_yet(folder: Path) -> bool:
    """Whether a run was killed before its header was written: there is nothing to continue, only to start."""
    try:
        return (folder / EVENTS).read_bytes().count(b"\n") == 0
    except OSError:
        return False


def resume(run: Any, header: dict[str, Any]) -> int:
    """Prepares ``run`` to go on; returns the chunk to begin with.

    Raises `InputError` when the scorecard is complete, damaged, or of another run.
    """
    try:
        events = read_events(run.out, torn=True)
    except ValueError as error:
        raise InputError(f"{run.out}: damaged scorecard, {error}; start again with another --out") from None
    if not events:
        raise InputError(f"{run.out}: no event survives; start again with another --out")
    if events[-1]["kind"] == "footer":
        raise InputError(f"{run.out}: this scorecard is complete; there is nothing to continue")
    for key in SAME:
        if events[0].get(key) != header[key]:
            raise InputError(f"{run.out}: its {key} differs from this run's; only the same run can be continued")
    ends_with = "update" if run.adapts else "score"
    keep = max((i + 1 for i, e in enumerate(events) if e["kind"] == ends_with), default=1)
    while keep < len(events) and events[keep]["kind"] in ("probe", "digest"):
        keep += 1  # they belong to the chunk before
    events = events[:keep]
    run.writer = ScorecardWriter.resume(run.out, keep, events[-1]["hash"])
    run.writer_seed = events[0]["hash"]
    last = max((e["chunk"] for e in events if e["kind"] == ends_with), default=-1)
    _take_over(run, events)
    if run.adapts and last >= 0:
        _rebuild(run, events, last)
    return last + 1


def _take_over(run: Any, events: list[dict[str, Any]]) -> None:
    """Totals, times and findings of the events that stay."""
    assert run.writer is not None
    for event in events:
        if event["kind"] == "score":
            lo, hi = event["targets"]
            stored = np.asarray(run.writer.nll[lo:hi])
            if not np.isfinite(stored).all():
                raise InputError(f"{run.out}: scores {lo}:{hi} are on record but not in the file; start again")
            run.totals["nats"] += event["nats"]
            run.totals["bytes"] += event["bytes"]
            run.totals["scored"] = run.ledger.scored = hi
            run.seconds["score"] += event["seconds"]
            run.repeat["nats"] += event["repeat"][0]
            run.repeat["bytes"] += event["repeat"][1]
            run.faults += event["alarms"]
        elif event["kind"] == "probe":
            run.probe.add(event)
        elif event["kind"] == "update":
            run.seconds["adapt"] += event["seconds"]
            run.faults += event["harmful"]
            run.doubts += [f"chunk {event['chunk']}: {u}" for u in event["unexplained"]]


def _rebuild(run: Any, events: list[dict[str, Any]], last: int) -> None:
    """The model's state after chunk ``last``, checked against the recorded fingerprints."""
    after = {e["chunk"]: e["state_after"] for e in events if e["kind"] == "update"}
    ends = {e["chunk"]: e["targets"][1] for e in events if e["kind"] == "score"}
    done = -1
    path = run.out / STATE
    if path.exists():
        saved = torch.load(path, map_location=run.device, weights_only=True)
        if saved["chunk"] <= last:
            run.model.load_state_dict(saved["model"])
            run.adaptation.restore(saved["adaptation"])
            done = saved["chunk"]
            run.ledger.settle()
            if run.options.proof and run.ledger.fingerprint != after[done]:
                raise InputError(f"{path}: not the state on record after chunk {done}; delete it to rebuild the state")
    for chunk in range(done + 1, last + 1):
        run.ledger.scored = ends[chunk]
        run.adapt_once(chunk)
        if run.options.proof and run.ledger.fingerprint != after[chunk]:
            raise InputError(
                f"{run.out}: adapting again on chunk {chunk} gives another state than the one on record; "
                "was the run not deterministic, or on another machine? Start again with another --out"
            )
