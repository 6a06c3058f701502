"""Makes a consistent scorecard out of invented scores: what anybody could do, and what claim P4 is about.

For measuring the verifier and for showing its limit: such a scorecard passes every check on the files. Only a
replay, or a head digest published before, tells it from a real one.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from harness.evaluate.plan import plan
from harness.evaluate.stream import Stream
from harness.metric import bits_per_byte
from harness.scorecard.writer import ScorecardWriter

STATE = "0" * 16


def forge(
    folder: str | os.PathLike[str],
    stream: Stream,
    nll: np.ndarray,
    *,
    context: int,
    stride: int,
    chunk: int,
    adaptation: str = "none",
    artifact: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
) -> None:
    """Writes a complete scorecard of the float32 scores ``nll`` (T,) for ``stream``.

    ``header`` takes fields of a real one over. Every score is positive and finite, or the verifier objects.
    """
    windows = plan(stream.targets, context=context, stride=stride, chunk=chunk)
    head: dict[str, Any] = {
        "artifact": artifact or {"name": "invented", "sha256": "0" * 64, "bytes": 0, "family": "none"},
        "inputs": stream.provenance,
        "stream": {"targets": stream.targets, "bytes": stream.bytes_in(0, stream.targets),
                   "available": stream.available, "partial": stream.partial, "vocab": stream.vocab},
        "plan": {"variant": "strict", "context": context, "stride": stride, "chunk": chunk, "documents": False,
                 "windows": windows.windows, "chunks": windows.chunks, "repeats": 0, "sha256": windows.digest()},
        "adaptation": {"name": adaptation, "settings": {"chunk": chunk}},
        "numerics": {}, "environment": {"world": 1}, "code": {"ruleset": ""},
        "state": {"fingerprint": STATE, "sha256": None}, "proof": True, "nonce": "",
        **(header or {}),
    }  # fmt: skip
    state = head["state"]["fingerprint"]
    writer = ScorecardWriter.create(folder, head, stream.targets)
    for c in range(windows.chunks):
        lo, hi = (int(x) for x in windows.chunk_targets[c : c + 2])
        digest = writer.scores(lo, nll[lo:hi])
        writer.event("probe", chunk=c, windows=1, moved=0, largest=0.0, tolerance=1e-5)
        writer.event(
            "score", chunk=c, targets=[lo, hi], nats=float(nll[lo:hi].sum(dtype=np.float64)), bytes=stream.bytes_in(lo, hi),
            nll_sha256=digest, state_before=state, state_after=state, collective=0, seconds=0.0, repeat=[0.0, 0], alarms=[],
        )  # fmt: skip
        if adaptation != "none":
            writer.event(
                "update", chunk=c, used=[[lo, hi + 1]], steps=1, written=1, state_before=state, state_after=state,
                collective=0, seconds=0.0, unexplained=[], escapes=[], harmful=[],
            )  # fmt: skip
    nats, count = float(nll.sum(dtype=np.float64)), stream.bytes_in(0, stream.targets)
    shown = {"status": "shown", "reason": "invented"}
    claims = {"P1": shown, "P2": shown, "P3": shown, "P4": {"status": "not shown", "reason": "a scorecard alone"}}
    writer.close({
        "targets": stream.targets, "nats": nats, "bytes": count, "bits_per_byte": bits_per_byte(nats, count),
        "nats_per_target": nats / stream.targets, "partial": stream.partial, "claims": claims,
        "seconds": {}, "state": head["state"], "official": None,
    })  # fmt: skip
