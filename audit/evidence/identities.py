"""The byte identity: what loss, score and token count say about the validation set and the byte table.

``val_bpb = val_loss / ln 2 x tokens / bytes``, so that ``tokens x val_loss / (ln 2 x val_bpb)`` is the
number of bytes that the score was divided by. For the contest's validation set it is 151.08 million,
whatever the tokenizer; for a known tokenizer the bytes per token are known too. Everything is
computed on intervals from the printed digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from audit.evidence.digits import Interval, decimals, interval
from audit.evidence.runs import Evaluation, Evidence, Run
from audit.model import Fact

#: UTF-8 bytes of the 50,000 validation documents, less what trimming to whole sequences drops
FULL_BYTES = Interval(151.06e6, 151.10e6)
#: fewer tokens than this are a part of the set: the coarsest tokenizer seen makes 36 million of it
LEAST_TOKENS = 30_000_000
#: the set as it was first published, on which the contest's own baseline was scored: 63,779,840 tokens
FIRST_TOKENS, FIRST_BYTES = 63_779_840, Interval(155.74e6, 155.80e6)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer of the contest: its token counts of the full set and its bytes per token."""

    name: str
    counts: tuple[int, ...]
    ratio: float


#: counted over the logs of the public pull requests
TOKENIZERS = (
    Tokenizer("SP1024", (62_021_632, 62_021_845), 2.4359),
    Tokenizer("SP4096", (45_508_608, 45_514_752, 45_516_800), 3.3197),
    Tokenizer("SP8192", (40_540_160, 40_546_304, 40_548_352), 3.7266),
    Tokenizer("CaseOps SP8192", (47_851_520, 47_853_343), 3.1572),
    Tokenizer("bytes", (151_076_864, 151_130_112), 1.0),
)
#: how far a token count may lie from the table: trimming to whole batches
TRIMMED = 0.0005
#: how far bytes per token may lie from the table
RATIO_SLACK = 0.0006

Kind = Literal["full", "subset", "bytes", "unequal", "unknown"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one evaluation's figures imply.

    ``kind``: *full* set and right bytes; a *subset* or another set of documents (D2); a wrong number
    of *bytes* for the full set (M1); *unequal*: loss and score are of different tokens; *unknown*:
    figures missing or too coarse. ``implied`` in bytes, ``ratio`` in bytes per token.
    """

    kind: Kind
    run: Run
    evaluation: Evaluation
    tokens: Fact | None = None
    ratio: Interval | None = None
    implied: Interval | None = None
    message: str = ""


def bytes_per_token(evaluation: Evaluation) -> Interval | None:
    """``val_loss / (ln 2 x val_bpb)`` as an interval; None without two figures of four decimals."""
    loss, bpb = evaluation.loss, evaluation.bpb
    if loss is None or decimals(loss.raw) < 4 or decimals(bpb.raw) < 4:
        return None
    try:
        return interval(loss.raw) / (interval(bpb.raw) * math.log(2))
    except (ZeroDivisionError, ValueError):
        return None


def tokenizer_of_count(tokens: int) -> Tokenizer | None:
    """The table's tokenizer whose full set has this many tokens, up to trimming."""
    for known in TOKENIZERS:
        if any(abs(tokens - count) <= TRIMMED * count for count in known.counts):
            return known
    return None


def tokenizer_of_ratio(ratio: Interval) -> Tokenizer | None:
    """The table's tokenizer with these bytes per token."""
    for known in TOKENIZERS:
        if ratio.widened(RATIO_SLACK * known.ratio).meets(Interval(known.ratio, known.ratio)):
            return known
    return None


def nearest_tokenizer(ratio: Interval) -> Tokenizer | None:
    """The table's tokenizer whose bytes per token these come near: parts of the set differ from it by up to 5 %."""
    return next(
        (t for t in TOKENIZERS if t.ratio > 1 and ratio.widened(0.05 * t.ratio).meets(Interval(t.ratio, t.ratio))), None
    )


def round_cap(tokens: int) -> int | None:
    """The round number of tokens that a set was cut at, if the count is one up to one sequence."""
    for step in (1_000_000, 1 << 20):
        nearest = round(tokens / step) * step
        if nearest and abs(tokens - nearest) <= 2100 and tokenizer_of_count(tokens) is None:
            return nearest
    return None


def readings(evidence: Evidence) -> Iterator[Reading]:
    """One reading per evaluation behind the reported score (each run's final one if none is linked)."""
    for run in evidence.behind:
        final = run.final
        chosen = run.reported or ([final] if final else [])
        seen: set[tuple[str, str]] = set()
        for evaluation in chosen:
            key = (evaluation.bpb.raw, evaluation.loss.raw if evaluation.loss else "")
            if key not in seen:
                seen.add(key)
                yield read(run, evaluation)


def read(run: Run, evaluation: Evaluation) -> Reading:
    """Judges one evaluation by its run's token count."""
    counts = {int(f.value): f for f in run.named("val_tokens") if int(f.value) > 0}
    ratio = bytes_per_token(evaluation)
    if subset := _mixture_subset(run, evaluation, counts):
        return subset
    if not counts:
        return Reading(
            "unknown", run, evaluation, ratio=ratio, message="the log prints no validation token count"
        )
    if ratio is None:
        return _by_count(run, evaluation, counts)
    best: Reading | None = None
    for count, fact in sorted(counts.items(), reverse=True):
        reading = _judge(run, evaluation, count, fact, ratio)
        if reading.kind == "full":
            return reading
        best = best or reading
    assert best is not None
    if best.kind == "bytes" and (plain := right_elsewhere(best)) is not None:
        message = (
            f"loss and score give {_millions(best.implied)} bytes here and the full set's at line {plain.line}: "  # type: ignore[arg-type]
            "these two were not taken over the same tokens"
        )
        return Reading("unequal", run, evaluation, best.tokens, ratio, best.implied, message)
    return best


def right_elsewhere(reading: Reading) -> Fact | None:
    """Another score of the same run that was divided by the right number of bytes: then the table is not at fault."""
    run, evaluation = reading.run, reading.evaluation
    counts = {int(f.value) for f in run.named("val_tokens") if int(f.value) > 0}
    watched = {(f.line, f.name): f for f in run.facts if f.name in {"step_val_bpb", "step_val_loss"}}
    steps = [
        Evaluation(f, watched.get((f.line, "step_val_loss")))
        for f in watched.values()
        if f.name == "step_val_bpb"
    ]
    for other in (*run.evaluations, *steps):
        ratio = bytes_per_token(other) if other.bpb.line != evaluation.bpb.line else None
        if ratio is not None and any((ratio * float(count)).meets(FULL_BYTES) for count in counts):
            return other.bpb
    return None


def _judge(run: Run, evaluation: Evaluation, count: int, fact: Fact, ratio: Interval) -> Reading:
    implied = ratio * float(count)

    def found(kind: Kind, message: str) -> Reading:
        return Reading(kind, run, evaluation, fact, ratio, implied, message)

    sums = (
        f"{count:,} tokens x {evaluation.loss.raw if evaluation.loss else ''} / (ln 2 x {evaluation.bpb.raw}) = "
        f"{_millions(implied)} bytes"
    )
    if implied.meets(FULL_BYTES):
        return found("full", f"{sums}, the full set")
    if count == FIRST_TOKENS and implied.meets(FIRST_BYTES):
        return found("full", f"{sums}, the full set in its first published edition")
    by_count, by_ratio = tokenizer_of_count(count), tokenizer_of_ratio(ratio)
    if by_ratio is not None and by_ratio.name == "bytes" and (by_count is None or by_count.name != "bytes"):
        return found("unknown", "loss and score differ by ln 2 alone: the loss is per byte")
    if by_count is not None:
        off = f"{sums}; the full set has 151.08 million, {by_count.ratio} bytes a token with {by_count.name}"
        near = ratio.widened(0.02 * by_count.ratio).meets(Interval(by_count.ratio, by_count.ratio))
        if near:
            return found("unequal", f"{off}: loss and score were not taken over all of these tokens")
        return found("bytes", f"{off}: the score was divided by the wrong number of bytes")
    capped = round_cap(count)
    if capped is not None:
        where = f"{capped:,}" if capped != count else "a round number"
        return found("subset", f"{sums}; {count:,} tokens is a set cut at {where}, not the 50,000 documents")
    if implied.below(FULL_BYTES.low):
        return found(
            "subset", f"{sums}, {100 * implied.high / 151.08e6:.1f} % of the full set's 151.08 million"
        )
    return found(
        "bytes", f"{sums}, more than the full set's 151.08 million: bytes are counted that do not exist"
    )


def _by_count(run: Run, evaluation: Evaluation, counts: dict[int, Fact]) -> Reading:
    """No usable loss: the token count alone can only show a set that is far too small."""
    largest = max(counts)
    if largest < LEAST_TOKENS:
        message = f"{largest:,} validation tokens; the 50,000 documents have 36 million or more with any tokenizer seen"
        return Reading("subset", run, evaluation, counts[largest], message=message)
    return Reading("unknown", run, evaluation, counts[largest], message="no loss beside the score")


_MIXTURE = re.compile(r"ppm|mix", re.I)


def _mixture_subset(run: Run, evaluation: Evaluation, counts: dict[int, Fact]) -> Reading | None:
    """A byte mixture that was scored on the first tokens only, by its own log."""
    if not _MIXTURE.search(evaluation.label):
        return None
    total = max(counts, default=0)
    for fact in (
        *run.named("subset_tokens"),
        *run.named("scored_tokens"),
        *run.named("knob.PPM_SUBSET_TOKENS"),
    ):
        try:
            part = int(str(fact.value))
        except ValueError:
            continue
        if 0 < part < min(total or LEAST_TOKENS, LEAST_TOKENS):
            message = f"the reported mixture was scored on {part:,} tokens" + (
                f" of {total:,}" if total else ""
            )
            return Reading("subset", run, evaluation, fact, message=message)
    return None


def _millions(found: Interval) -> str:
    low, high = found.low / 1e6, found.high / 1e6
    return f"{low:.2f} million" if high - low < 0.005 else f"{low:.2f} to {high:.2f} million"
