"""Claim P4: executes parts of a recorded evaluation again and compares.

`replay` rebuilds the state before each of K randomly chosen chunks from the artifact and the logged updates and
scores those chunks again. `decode` goes further: a decoder that holds the artifact, a bit stream and the
tokens it has decoded so far, and nothing else, must bring back the stream and the recorded scores.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit.contracts import InputError
from harness.adapt.catalog import NAMES
from harness.artifact.container import Artifact, read_artifact
from harness.artifact.models import build_model
from harness.evaluate.causality import excluded
from harness.evaluate.coder import Decoder, Encoder, frequencies
from harness.evaluate.run import Evaluation, Options
from harness.evaluate.score import Numerics
from harness.evaluate.stream import Stream, open_stream
from harness.scorecard.chain import SCORES
from harness.scorecard.verify import read_scores
from harness.scorecard.writer import read_events

#: Largest difference per target, and of a chunk's mean, that still counts as the same run, by precision.
#: Another machine or batch sums in another order; training on top of it lets differences grow.
TOLERANCE = {"float64": (2e-6, 1e-9), "float32": (5e-3, 1e-4), "bf16": (0.5, 5e-3)}
TRAINED = 10.0  # both, when the state was trained before


@dataclass(slots=True, kw_only=True)
class Again:
    """What a second execution found; ``status`` and ``reason`` as in a claim."""

    status: str
    reason: str
    largest: float = 0.0


Builder = Callable[[Artifact, str], torch.nn.Module]


def rebuild(
    header: dict[str, Any], artifact: str, data: str, tokenizer: str, sidecar: str | None, device: str,
    builder: Builder = build_model,
) -> Evaluation:  # fmt: skip
    """The evaluation that a header describes, on ``device``. Raises `InputError` when it cannot be rebuilt."""
    name = header["adaptation"]["name"]
    if name not in NAMES:
        raise InputError(f"adaptation {name!r} is no recipe of this program; it cannot be executed again")
    if header["environment"]["world"] > 1 and name != "none":
        raise InputError("an adapted run of several ranks cannot be executed again by one; start torchrun with as many")
    plan, stream_head = header["plan"], header["stream"]
    stream = open_stream(
        data, tokenizer, context=plan["context"], sidecar=sidecar,
        max_tokens=stream_head["targets"] + 1 if stream_head["partial"] else None,
    )  # fmt: skip
    numerics = Numerics(**{**header["numerics"], "device": device})
    options = Options(
        context=plan["context"], stride=plan["stride"], variant=plan["variant"], ttt=name,
        ttt_set=header["adaptation"]["settings"], numerics=numerics, probes=0, snapshot_seconds=math.inf,
    )  # fmt: skip
    opened = read_artifact(artifact)
    return Evaluation(builder(opened, device), stream, options, identity=header["artifact"])


def replay(
    folder: str, count: int, artifact: str, data: str, tokenizer: str, *, sidecar: str | None = None,
    device: str = "cpu", builder: Builder = build_model,
) -> Again:  # fmt: skip
    """Scores ``count`` randomly chosen chunks of a verified scorecard again."""
    events = read_events(folder)
    header = events[0]
    run = rebuild(header, artifact, data, tokenizer, sidecar, device, builder)
    stored = read_scores(Path(folder) / SCORES, header["stream"]["targets"])
    scored = {e["chunk"]: e["targets"] for e in events if e["kind"] == "score"}
    updated = {e["chunk"]: e["state_after"] for e in events if e["kind"] == "update"}
    chosen = sorted(random.SystemRandom().sample(sorted(scored), min(count, len(scored))))
    each, mean = TOLERANCE[header["numerics"]["precision"]]
    if run.adapts:
        each, mean = each * TRAINED, mean * TRAINED
    run.ledger.baseline()
    if not run.adapts and header["proof"] and run.ledger.fingerprint != header["state"]["fingerprint"]:
        return Again(status="violated", reason="the artifact does not give the state that the header names")
    largest, same_state, at = 0.0, True, 0
    for chunk in range(chosen[-1] + 1):
        lo, hi = scored[chunk]
        if chunk in chosen:
            run.scorer.on_batch(None)
            found = run.scorer.score_chunk(chunk)
            gap = found.nll.astype(np.float32).astype(np.float64) - stored[lo:hi]  # as the scorecard stores them
            if len(gap):
                largest = max(largest, float(np.abs(gap).max()))
                if largest > each or abs(float(gap.mean())) > mean:
                    return Again(
                        status="violated", largest=largest,
                        reason=f"chunk {chunk} scored again differs by up to {largest:.3g} nats (mean {gap.mean():.3g})",
                    )  # fmt: skip
        run.ledger.scored = hi
        if run.adapts and chunk < chosen[-1]:
            run.adapt_once(chunk)
            same_state = same_state and run.ledger.fingerprint == updated.get(chunk)
            at = chunk + 1
    states = f"; all {at} states before it are those on record" if run.adapts and same_state else ""
    share = 100 * excluded(len(chosen))
    return Again(
        status="shown", largest=largest,
        reason=f"statistical: {len(chosen)} of {len(scored)} chunks executed again, largest difference {largest:.2g} nats"
        f"{states}; more than {share:.2g} % invented chunks are excluded at 95 % confidence",
    )  # fmt: skip


class Sequential:
    """Distributions for one target after the other from the artifact and the tokens known so far.

    ``known`` grows by `push`. Each distribution comes from one window that ends at the last known token, so
    no later token exists that could be looked at.
    """

    def __init__(self, run: Evaluation, first: int) -> None:
        self.run, self.known = run, [first]
        self.probabilities: Callable[[torch.Tensor], torch.Tensor] = lambda x: torch.softmax(
            run.scorer.answer(x, 1)[0, -1].double(), 0
        )
        p = run.plan
        self._window = np.searchsorted(p.score_to, np.arange(p.total), side="right")
        self._chunk = 0

    @torch.no_grad()
    def next(self) -> np.ndarray:
        """(V,) probabilities of the token after ``known``; adapts first where a chunk has just ended."""
        target = len(self.known) - 1
        while target >= self.run.plan.chunk_targets[self._chunk + 1]:
            self._adapt()
        start = int(self.run.plan.starts[self._window[target]])
        inputs = torch.tensor([self.known[start:]], dtype=torch.int64, device=self.run.device)
        with self.run.scorer.autocast():
            return self.probabilities(inputs).cpu().numpy()

    def _adapt(self) -> None:
        if self.run.adapts:
            tokens = torch.zeros(self.run.plan.total + 1, dtype=torch.int32, device=self.run.device)
            tokens[: len(self.known)] = torch.tensor(self.known, dtype=torch.int32)
            self.run.scorer.tokens = tokens  # what a grant reads from: decoded tokens, zeros after them
            self.run.ledger.scored = int(self.run.plan.chunk_targets[self._chunk + 1])
            with torch.enable_grad():
                self.run.adapt_once(self._chunk)
        self._chunk += 1

    def push(self, token: int) -> None:
        self.known.append(token)


def decode(
    folder: str, count: int, artifact: str, data: str, tokenizer: str, *, sidecar: str | None = None,
    device: str = "cpu", builder: Builder = build_model,
) -> Again:  # fmt: skip
    """Codes and decodes the first ``count`` targets; the decoder sees artifact, bits and its own output only."""
    header = read_events(folder)[0]
    if header["plan"]["documents"]:
        raise InputError("decoding of runs whose chunks end at documents is not supported; use --replay")
    stored = read_scores(Path(folder) / SCORES, header["stream"]["targets"])

    def fresh() -> Evaluation:
        return rebuild(header, artifact, data, tokenizer, sidecar, device, builder)

    run = fresh()
    tokens = run.stream.tokens
    count = min(count, len(tokens) - 1)
    encoder, side = Encoder(), Sequential(run, int(tokens[0]))
    worst = nats = 0.0
    for t in range(count):
        p, symbol = side.next(), int(tokens[t + 1])
        nats -= math.log(float(p[symbol]))
        worst = max(worst, abs(-math.log(float(p[symbol])) - float(stored[t])))
        encoder.encode(symbol, frequencies(p))
        side.push(symbol)
    bits = encoder.finish()
    blind = fresh()
    # The decoder's evaluation keeps the plan (the stream's length is known to both) and loses the tokens.
    blind.stream = Stream.of(np.zeros(2, np.uint16), vocab=blind.stream.vocab)
    blind.scorer.stream = blind.stream
    blind.scorer.tokens = blind.scorer.tokens * 0
    other, decoder = Sequential(blind, int(tokens[0])), Decoder(bits)
    for _ in range(count):
        other.push(decoder.decode(frequencies(other.next())))
    if other.known != tokens[: count + 1].tolist():
        at = next(i for i, (a, b) in enumerate(zip(other.known, tokens.tolist(), strict=False)) if a != b)
        return Again(status="violated", reason=f"the decoder lost the stream at target {at - 1}")
    each = TOLERANCE[header["numerics"]["precision"]][0] * (TRAINED if run.adapts else 1.0)
    if worst > each:
        return Again(
            status="violated", largest=worst,
            reason=f"scores from the tokens decoded so far differ from the recorded ones by up to {worst:.3g} nats",
        )  # fmt: skip
    return Again(
        status="shown", largest=worst,
        reason=f"{count} targets were decoded from the artifact and {len(bits)} bits (their scores sum to "
        f"{nats / math.log(2):.1f} bits); largest difference to the recorded scores {worst:.2g} nats",
    )  # fmt: skip
