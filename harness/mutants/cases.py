"""The list of cheats and of benign look-alikes, each with the mechanism that must catch it.

A case never says of itself whether it cheats: ``expected`` is what the table demands, and what fired comes from
probes, claims and the verifier alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.mutants import accounts, controls, evaluators, records, runs
from harness.mutants.evaluators import Chunked
from harness.mutants.lab import Lab
from harness.probe.probes import Fired, Subject, probe

PROBES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """``expected``: the mechanism that must fire; None for a benign control, for which none may."""

    name: str
    where: str  # "evaluator", "adaptation", "model" or "scorecard"
    expected: str | None
    what: str
    run: Callable[[Lab, Path], tuple[list[Fired], float | None]]


#: Evaluators that are probed from outside, with the mechanism that speaks for each.
PROBED: dict[type[Chunked], str | None] = {
    evaluators.UpdateBeforeScore: "suffix-scramble",
    evaluators.LastEpochScore: "suffix-scramble",
    evaluators.SecondPass: "suffix-scramble",
    evaluators.MinOverPasses: "suffix-scramble",
    evaluators.SharedDelta: "batch-size",
    evaluators.TargetSlot: "normalisation",
    evaluators.StaleBatch: "suffix-scramble",
    evaluators.InPlaceWrite: "suffix-scramble",
    evaluators.BufferChannel: "suffix-scramble",
    evaluators.BatchNorm: "batch-size",
    evaluators.TargetKeyedCache: "normalisation",
    evaluators.Unnormalised: "normalisation",
    evaluators.OffByOne: "normalisation",
    accounts.DroppedTail: "exactly-once",
    accounts.DoubleCounted: "exactly-once",
    accounts.WrongBytes: "bytes",
    evaluators.PersistentWarmUp: "frozen-reference",
    evaluators.RankReadsAhead: "world-size",
    accounts.TamperedAccumulator: "sum",
    accounts.RoundedScores: "sum",
    accounts.StoppedClock: "clock",
    evaluators.ShuffledOrder: "suffix-scramble",
    evaluators.BestOfRates: "suffix-scramble",
    evaluators.FittedTemperature: "normalisation",
    evaluators.ShiftedInputs: "normalisation",
    evaluators.SeenVocabulary: "normalisation",
    accounts.ClippedScores: "normalisation",
    evaluators.CarriedState: "frozen-reference",
    evaluators.HardestFirst: "suffix-scramble",
    evaluators.Chunked: None,
    **{c: None for c in vars(controls).values()
       if inspect.isclass(c) and issubclass(c, Chunked) and c.__module__ == controls.__name__},
}  # fmt: skip

#: Cheats inside the strict evaluator, and tampering with its scorecard.
RUNS: dict[runs.Case, tuple[str, str | None]] = {
    runs.asks_too_much: ("adaptation", "refused"),
    runs.closure_over_stream: ("adaptation", "P1 not shown"),
    runs.raw_write: ("adaptation", "P1 not shown"),
    runs.stale_gradient: ("adaptation", "P1 not shown"),
    runs.module_swap: ("adaptation", "P1 not shown"),
    runs.counting_buffer: ("model", "P1 violated"),
    runs.batch_statistics: ("model", "P1 violated"),
    runs.learning_forward: ("model", "P1 violated"),
    runs.bidirectional: ("model", "P2 violated"),
    runs.partial_vocabulary: ("model", "P3 by construction"),
    records.edited_line: ("scorecard", "verify: chain"),
    records.edited_score: ("scorecard", "verify: scores"),
    records.inflated_bytes: ("scorecard", "verify: bytes"),
    records.hidden_order: ("scorecard", "verify: order"),
    records.hidden_use: ("scorecard", "verify: order"),
    records.missing_chunk: ("scorecard", "verify: coverage"),
    records.invented_scores: ("scorecard", "P4 replay"),
    records.other_artifact: ("scorecard", "verify: artifact"),
    records.unmarked_cap: ("scorecard", "verify: data"),
    runs.reads_scored_values: ("adaptation", None),
    runs.writes_scored_counts: ("adaptation", None),
    runs.returns_to_artifact: ("adaptation", None),
    runs.tracked_arithmetic: ("adaptation", None),
    runs.interrupted: ("scorecard", None),
}


def subject_of(evaluator: Chunked, lab: Lab) -> Subject:
    """An evaluator on trial in the laboratory."""
    return Subject(
        evaluator=evaluator, model=lambda: lab.model(small=True), tokens=lab.stream.tokens,
        target_bytes=lab.stream.target_bytes, setting=lab.setting, probes=PROBES,
    )  # fmt: skip


def _probed(kind: type[Chunked]) -> Callable[[Lab, Path], tuple[list[Fired], float | None]]:
    def run(lab: Lab, _folder: Path) -> tuple[list[Fired], float | None]:
        subject = subject_of(kind(), lab)
        subject.run()
        again = subject.run()  # what an evaluator keeps from one run to the next shows in the second
        return probe(subject), again.bits_per_byte

    return run


def _ran(case: runs.Case) -> Callable[[Lab, Path], tuple[list[Fired], float | None]]:
    return lambda lab, folder: (case(lab, folder), None)


def entries() -> Iterator[Entry]:
    """All cases: cheats first, then benign ones."""
    everything = [
        Entry(name=_words(c.__name__), where="evaluator", expected=e, what=_first_line(c), run=_probed(c))
        for c, e in PROBED.items()
    ] + [
        Entry(name=f.__name__.replace("_", " "), where=where, expected=e, what=_first_line(f), run=_ran(f))
        for f, (where, e) in RUNS.items()
    ]
    yield from (e for e in everything if e.expected is not None)
    yield from (e for e in everything if e.expected is None)


def _words(name: str) -> str:
    return "".join(" " + c.lower() if c.isupper() else c for c in name).strip()


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
