"""Checks a scorecard from its files alone, without torch; and against shards and tokenizer when given.

What is recomputed: the chain over every byte, coverage (every target once, in order), each event's sum,
bytes and digest, the totals, bits per byte, the window plan, and claim P1 from the positions that each
update used. What cannot be known from the files (that the run took place at all) is claim P4, and is said.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audit.contracts import Exit, InputError
from harness.evaluate.plan import plan
from harness.metric import bits_per_byte
from harness.scorecard.chain import SCHEMA, SCORES
from harness.scorecard.writer import file_sha256, read_events

_SLAB = 1 << 22
# A sum of 1e6 float32 values accumulated in float64 in another order moves in the 13th digit.
SUM_TOLERANCE = 1e-11


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The outcome. ``problems``: what is wrong; empty and ``complete`` means verified."""

    complete: bool = False
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    header: dict[str, Any] = field(default_factory=dict)
    footer: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, dict[str, str]] = field(default_factory=dict)
    head: str = ""  # the last event's hash: publish it, and the scorecard cannot be rewritten afterwards
    scored: int = 0
    nats: float = 0.0
    bytes: int = 0

    @property
    def exit(self) -> Exit:
        statuses = {name: claim["status"] for name, claim in self.claims.items()}
        if self.problems or "violated" in statuses.values():
            return Exit.VIOLATION
        if not self.complete or statuses.get("P1") != "shown":
            return Exit.UNDETERMINED
        return Exit.OK

    def summary(self) -> dict[str, Any]:
        """Plain JSON for reports."""
        found = {name: getattr(self, name) for name in ("complete", "problems", "notes", "claims", "scored", "bytes")}
        bpb = bits_per_byte(self.nats, self.bytes) if self.bytes and math.isfinite(self.nats) else None
        return {"schema": "referee.verify/1", **found, "nats": self.nats, "bits_per_byte": bpb, "exit": int(self.exit),
                "head": self.head, "partial": self.header.get("stream", {}).get("partial")}  # fmt: skip


def verify(
    folder: str | os.PathLike[str],
    *,
    artifact: str | os.PathLike[str] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    sidecar: str | os.PathLike[str] | None = None,
) -> Verdict:
    """Checks the scorecard in ``folder``. Raises `InputError` only when there is nothing to read."""
    out = Verdict()
    try:
        events = read_events(folder)
    except ValueError as error:
        try:
            events = read_events(folder, torn=True)
        except ValueError:
            out.problems.append(f"chain: {error}")
            return out
        if events and events[-1]["kind"] == "footer":
            out.problems.append(f"chain: {error}")
        else:
            out.notes.append(f"the last event is torn ({error}); the run was killed while writing it")
    if not events and not out.problems:
        out.notes.append("no event survived: the run was killed before its header was written")
        return out
    if not events or events[0]["kind"] != "header" or events[0].get("schema") != SCHEMA:
        out.problems.append("chain: it does not begin with a header of " + SCHEMA)
        return out
    out.header, out.head = events[0], events[-1]["hash"]
    if any(e["kind"] in ("header", "footer") for e in events[1:-1]):
        out.problems.append("chain: a header or footer in the middle")
    if len(events) > 1 and events[-1]["kind"] == "footer":
        out.complete, out.footer = True, events[-1]
    try:
        _check(Path(folder), events, out)
        _against_inputs(events, out, artifact, tokenizer, data, sidecar)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
        out.problems.append(f"record: a field is missing or malformed ({type(error).__name__}: {error})")
    return out


def _check(folder: Path, events: list[dict[str, Any]], out: Verdict) -> None:
    targets = int(out.header["stream"]["targets"])
    try:
        nll = read_scores(folder / SCORES, targets)
    except (OSError, ValueError) as error:
        out.problems.append(f"scores: {SCORES} cannot be read: {error}")
        return
    _coverage(events, nll, out)
    if out.complete:
        _totals(folder, targets, out)
    _order(events, out)
    _plan_digest(out)
    _claims(events, out)


def read_scores(path: Path, targets: int) -> np.ndarray:
    """Maps ``nll.npy``, float32 (targets,), read-only. Raises ValueError unless it is exactly that.

    The header of an array file is Python syntax; instead of parsing a stranger's, the one that this array
    must have is compared with it.
    """
    with io.BytesIO() as made:
        header = {"descr": "<f4", "fortran_order": False, "shape": (targets,)}
        np.lib.format.write_array_header_1_0(made, header)
        want = made.getvalue()
    with path.open("rb") as handle:
        have = handle.read(len(want))
    size = path.stat().st_size
    if have != want or size != len(want) + 4 * targets:
        raise ValueError(f"it is no float32 array of {targets} scores ({size} bytes)")
    return np.memmap(path, dtype="<f4", mode="r", offset=len(want), shape=(targets,))


def _coverage(events: list[dict[str, Any]], nll: np.ndarray, out: Verdict) -> None:
    """Score events tile the targets in order, and each states what ``nll.npy`` holds."""
    sums = []
    for event in (e for e in events if e["kind"] == "score"):
        lo, hi = event["targets"]
        if lo != out.scored or hi < lo:
            out.problems.append(f"coverage: chunk {event['chunk']} scores {lo}:{hi} when {out.scored} were scored")
        part = np.ascontiguousarray(nll[lo:hi])
        if hashlib.sha256(part.data).hexdigest() != event["nll_sha256"]:
            out.problems.append(f"scores: targets {lo}:{hi} differ from what chunk {event['chunk']} committed")
        with np.errstate(invalid="ignore", over="ignore"):  # damaged scores may be anything
            total = float(part.sum(dtype=np.float64))
        if not math.isclose(total, event["nats"], rel_tol=SUM_TOLERANCE, abs_tol=1e-9):
            out.problems.append(f"sum: chunk {event['chunk']} states {event['nats']} nats, its scores sum to {total}")
        if len(part) and (not np.isfinite(total) or float(part.min()) < 0):
            out.problems.append(f"scores: chunk {event['chunk']} holds a negative or infinite score")
        sums.append(total)
        out.scored, out.bytes = hi, out.bytes + int(event["bytes"])
    out.nats = math.fsum(sums)


def _totals(folder: Path, targets: int, out: Verdict) -> None:
    foot = out.footer
    if out.scored != targets:
        out.problems.append(f"coverage: {out.scored} of {targets} targets were scored")
    if file_sha256(folder / SCORES) != foot["nll"]["sha256"]:
        out.problems.append(f"scores: {SCORES} is not the file that the footer names")
    if foot["targets"] != out.scored or foot["bytes"] != out.bytes:
        out.problems.append("totals: targets or bytes in the footer are not the sum of the events")
    if not math.isclose(foot["nats"], out.nats, rel_tol=SUM_TOLERANCE, abs_tol=1e-9):
        out.problems.append(f"totals: the footer states {foot['nats']} nats, the scores sum to {out.nats}")
    if not math.isfinite(out.nats):
        out.problems.append("totals: the scores do not sum to a finite number")
    elif out.bytes and not math.isclose(foot["bits_per_byte"], bits_per_byte(out.nats, out.bytes), rel_tol=1e-10):
        out.problems.append(f"totals: {foot['bits_per_byte']} bits per byte do not follow from the sums")
    if foot["partial"] != out.header["stream"]["partial"]:
        out.problems.append("totals: header and footer disagree on whether the run was partial")


def _order(events: list[dict[str, Any]], out: Verdict) -> None:
    """Claim P1 from the record: the token positions that each update used had all been scored.

    Token ``i`` is target ``i - 1``; token 0 is given. So an update may use tokens ``<= scored``.
    """
    scored, state, last_chunk = 0, out.header["state"]["fingerprint"], -1
    for event in events:
        kind = event["kind"]
        if kind == "score":
            if event["chunk"] <= last_chunk:
                out.problems.append(f"order: chunk {event['chunk']} is scored after chunk {last_chunk}")
            if event["state_before"] != state:
                out.problems.append(f"order: the state changed unrecorded before chunk {event['chunk']} was scored")
            if event["state_after"] != event["state_before"]:
                out.problems.append(f"order: the state changed while chunk {event['chunk']} was scored")
            last_chunk, scored, state = event["chunk"], event["targets"][1], event["state_after"]
        elif kind == "update":
            used = max((hi for _lo, hi in event["used"]), default=0)
            if used > scored + 1:
                out.problems.append(
                    f"order: update after chunk {event['chunk']} used tokens up to {used - 1}, scored were {scored}"
                )
            if event["state_before"] != state:
                out.problems.append(f"order: the state changed unrecorded before the update of chunk {event['chunk']}")
            state = event["state_after"]


def _plan_digest(out: Verdict) -> None:
    """The plan's digest follows from its numbers (documents aside, which need the tokens)."""
    stated = out.header["plan"]
    if stated["documents"]:
        return
    try:
        again = plan(
            int(out.header["stream"]["targets"]), context=stated["context"], stride=stated["stride"],
            chunk=stated["chunk"], variant=stated["variant"],
        )  # fmt: skip
    except InputError as error:
        out.problems.append(f"plan: {error}")
        return
    if again.digest() != stated["sha256"]:
        out.problems.append("plan: the windows' digest does not follow from context, stride and chunk")


def _claims(events: list[dict[str, Any]], out: Verdict) -> None:
    """The run's own claims, made worse (never better) by what was found here."""
    out.claims = {k: dict(v) for k, v in out.footer.get("claims", {}).items()}
    if not out.complete:
        return
    for name in ("P1", "P2", "P3", "P4"):
        if out.claims.get(name, {}).get("status") not in ("shown", "not shown", "violated"):
            out.problems.append(f"claims: {name} has no status")
    # Whatever the footer says, the events must bear it out.
    stated = {name: claim.get("status") for name, claim in out.claims.items()}
    if stated.get("P1") == "shown" and any(e.get(k) for e in events for k in ("alarms", "harmful", "unexplained")):
        out.problems.append("claims: P1 is called shown, but events list alarms or unexplained writes")
    moved = sum(e["moved"] for e in events if e["kind"] == "probe")
    if stated.get("P2") == "shown" and (moved or not any(e["kind"] == "probe" for e in events)):
        out.problems.append(f"claims: P2 is called shown, but the probes on record saw {moved or 'nothing'}")
    wrong = [p for p in out.problems if p.startswith(("order", "coverage"))]
    if wrong:
        out.claims["P1"] = {"status": "violated", "reason": wrong[0]}
    if out.claims.get("P4", {}).get("status") == "shown":
        # A file cannot show that a run took place; only `--replay` can, and it runs now or not at all.
        out.problems.append("claims: P4 cannot be shown by a scorecard")


def _against_inputs(
    events: list[dict[str, Any]], out: Verdict, artifact: Any, tokenizer: Any, data: Any, sidecar: Any
) -> None:
    head = out.header
    if artifact is not None:
        try:
            digest = file_sha256(artifact)
        except OSError as error:
            raise InputError(f"{artifact}: cannot read the artifact: {error.strerror}") from None
        if digest != head["artifact"]["sha256"]:
            out.problems.append(f"artifact: {artifact} is not the artifact that was scored")
    if (data is None) != (tokenizer is None):
        raise InputError("bytes need both --data and --tokenizer; give both or neither")
    if data is None:
        out.notes.append("bytes are as recorded; give --data and --tokenizer to recount them")
        return
    from harness.evaluate.stream import open_stream  # numpy and sentencepiece only

    context, targets = head["plan"]["context"], head["stream"]["targets"]
    if head["inputs"]["bytes"]["kind"] == "sidecar" and sidecar is None:
        raise InputError("the run counted bytes with a sidecar; give it with --byte-sidecar")
    stream = open_stream(
        data, tokenizer, context=context, sidecar=sidecar,
        max_tokens=targets + 1 if head["stream"]["partial"] else None,
    )  # fmt: skip
    mine, theirs = stream.provenance, head["inputs"]
    if [s["sha256"] for s in mine["shards"]] != [s["sha256"] for s in theirs["shards"]]:
        out.problems.append("data: these are not the shards that were scored")
    if mine["tokenizer"]["sha256"] != (theirs["tokenizer"] or {}).get("sha256"):
        out.problems.append("tokenizer: not the one that the header names")
    if mine["bytes"] != theirs["bytes"]:
        out.problems.append("bytes: counted by another table or sidecar than the run's")
    if stream.targets != targets:
        out.problems.append(f"data: the shards hold {stream.targets} targets, the scorecard has {targets}")
        return
    if not head["stream"]["partial"] and stream.available != targets:
        out.problems.append("data: the run left targets out without being marked as partial")
    if head["plan"]["documents"]:
        again = plan(
            targets, context=context, stride=head["plan"]["stride"], chunk=head["plan"]["chunk"],
            documents=stream.documents().tolist(),
        )  # fmt: skip
        if again.digest() != head["plan"]["sha256"]:
            out.problems.append("plan: the windows do not follow from the documents of these shards")
    for event in (e for e in events if e["kind"] == "score"):
        lo, hi = event["targets"]
        if stream.bytes_in(lo, hi) != event["bytes"]:
            out.problems.append(
                f"bytes: chunk {event['chunk']} states {event['bytes']}, its targets stand for {stream.bytes_in(lo, hi)}"
            )
