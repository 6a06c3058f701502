"""Black-box probes on any evaluator: change the stream, the batch or the ranks, and see what should not move.

Each probe is one mechanism with one name. It fires with a sentence, or stays silent; silence is evidence of the
strength that `excluded` states, never proof. Suffix scrambling and flipping show dependence on the future;
the sum over the vocabulary shows a score that is no probability, which includes every use of a target for its
own score; recounting shows a wrong sum, count or byte table.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from harness.evaluate.causality import CONFIDENCE, excluded
from harness.evaluate.plan import plan
from harness.evaluate.reference import reference_scores
from harness.metric import bits_per_byte
from harness.probe.protocol import Evaluator, Report, Setting

#: Another order of summation moves float64 scores by less than this; float32 ones need more.
TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A probe that found something: its name and what it saw."""

    mechanism: str
    what: str


@dataclass(slots=True, kw_only=True)
class Subject:
    """The evaluator on trial with what a prober has: model builder, stream, byte counts from the tokenizer."""

    evaluator: Evaluator
    model: Callable[[], torch.nn.Module]
    tokens: np.ndarray  # (T + 1,)
    target_bytes: np.ndarray  # (T,), recounted by the prober
    setting: Setting
    probes: int = 6  # positions per probe
    sums: int = 3  # positions at which every value of the target is tried
    ranks: bool = True  # whether several ranks are tried at all
    tolerance: float = TOLERANCE
    seed: int = 0
    trials: dict[str, int] = field(default_factory=dict)

    def run(self, tokens: np.ndarray | None = None, **changed: Any) -> Report:
        used = self.tokens if tokens is None else tokens
        sizes = self.target_bytes[: len(used) - 1]
        return self.evaluator(self.model, used, sizes, replace(self.setting, **changed))

    def count(self, mechanism: str, trials: int = 1) -> None:
        self.trials[mechanism] = self.trials.get(mechanism, 0) + trials


def probe(subject: Subject) -> list[Fired]:
    """All probes, in the order of their cost. An evaluator that raises is reported as such."""
    begun = time.perf_counter()
    base = subject.run()
    elapsed = time.perf_counter() - begun
    found = list(_accounting(subject, base, elapsed))
    if len(base.nll) != len(subject.tokens) - 1 or not np.isfinite(base.nll).all():
        return found
    for check in (_frozen_reference, _suffix, _flip, _normalisation, _batch_size, _world_size):
        found += check(subject, base)
    return found


def _accounting(s: Subject, base: Report, elapsed: float) -> Iterator[Fired]:
    """Every target once, sums that are sums, bytes as the tokenizer counts them, the prober's clock."""
    s.count("exactly-once")
    targets = len(s.tokens) - 1
    if base.targets != targets or len(base.nll) != targets or not np.isfinite(base.nll).all():
        missing = int((~np.isfinite(base.nll)).sum())
        yield Fired(mechanism="exactly-once", what=f"{base.targets} scores for {targets} targets, {missing} of them missing")
    s.count("sum")
    total = float(np.nansum(base.nll, dtype=np.float64))
    if not math.isclose(total, base.nats, rel_tol=1e-9):
        yield Fired(mechanism="sum", what=f"reports {base.nats:.6f} nats, its scores sum to {total:.6f}")
    elif base.bytes and not math.isclose(base.bits_per_byte, bits_per_byte(base.nats, base.bytes), rel_tol=1e-9):
        yield Fired(mechanism="sum", what="its bits per byte do not follow from its nats and bytes")
    s.count("bytes")
    true = int(s.target_bytes.sum(dtype=np.int64))
    if base.bytes != true:
        yield Fired(mechanism="bytes", what=f"counts {base.bytes} bytes, the tokenizer's table gives {true}")
    s.count("clock")
    if base.seconds < 0.5 * elapsed and elapsed - base.seconds > 1e-4:
        yield Fired(mechanism="clock", what=f"reports {base.seconds:.4f} s, the prober measured {elapsed:.4f} s")


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max()) if len(a) else 0.0


def _frozen_reference(s: Subject, base: Report) -> Iterator[Fired]:
    """Before the first update the state is the artifact's: the first chunk must be the reference's, every time."""
    first = min(s.setting.chunk, len(base.nll))
    windows = plan(len(base.nll), context=s.setting.context, stride=s.setting.stride, chunk=s.setting.chunk)
    truth = reference_scores(
        s.model(), s.tokens, context=s.setting.context, stride=s.setting.stride, windows=windows, until=first
    )
    for which, report in (("", base), (" when run a second time", s.run())):
        s.count("frozen-reference")
        if (gap := _gap(report.nll[:first], truth)) > s.tolerance:
            yield Fired(mechanism="frozen-reference",
                        what=f"the first chunk differs by {gap:.3g} nats from the artifact's own scores{which}")  # fmt: skip
            return


def _cuts(s: Subject) -> list[int]:
    """Positions drawn at random, and chunk edges, where off-by-one mistakes live."""
    rng = np.random.default_rng(s.seed)
    targets = len(s.tokens) - 1
    edges = [e for e in range(s.setting.chunk, targets, s.setting.chunk)][: s.probes // 2]
    drawn = rng.integers(1, targets, max(s.probes - len(edges), 1)).tolist()
    return sorted({*edges, *drawn})


def _suffix(s: Subject, base: Report) -> Iterator[Fired]:
    """Scores before a cut must not move when every later token is replaced by a random one."""
    rng = np.random.default_rng(s.seed + 1)
    for world in (1, 2) if s.ranks else (1,):
        for cut in _cuts(s):
            changed = s.tokens.copy()
            changed[cut + 1 :] = rng.integers(2, s.setting.vocab, len(changed) - cut - 1)
            s.count("suffix-scramble")
            one = base if world == 1 else s.run(world=world)
            gap = _gap(one.nll[:cut], s.run(changed, world=world).nll[:cut])
            if gap > s.tolerance:
                ranks = f" with {world} ranks" if world > 1 else ""
                yield Fired(mechanism="suffix-scramble",
                            what=f"scores before target {cut} moved by {gap:.3g} nats when only later tokens changed{ranks}")  # fmt: skip
                return


def _flip(s: Subject, base: Report) -> Iterator[Fired]:
    """Scores before a target must not move when that one token changes."""
    for t in _cuts(s):
        changed = s.tokens.copy()
        changed[t + 1] = 2 + (int(changed[t + 1]) - 1) % (s.setting.vocab - 2)
        s.count("target-flip")
        gap = _gap(base.nll[:t], s.run(changed).nll[:t])
        if gap > s.tolerance:
            yield Fired(mechanism="target-flip", what=f"scores before target {t} moved by {gap:.3g} nats when it was flipped")
            return


def _normalisation(s: Subject, base: Report) -> Iterator[Fired]:
    """exp(-score) summed over all values of one target is 1, with the same tokens and hence the same state before it."""
    targets = len(s.tokens) - 1
    rng = np.random.default_rng(s.seed + 2)
    # Chunk edges first: a token that was trained on too early is the next chunk's first target.
    edges = [e for e in (s.setting.chunk, 2 * s.setting.chunk) if e < targets]
    for t in [*edges, *rng.integers(s.setting.stride, targets, s.sums).tolist()][: s.sums]:
        total = 0.0
        for value in range(s.setting.vocab):
            total += math.exp(-float(s.run(np.append(s.tokens[: t + 1], np.uint16(value))).nll[t]))
        s.count("normalisation")
        if abs(total - 1.0) > max(1e-6, 10 * s.tolerance):
            yield Fired(mechanism="normalisation", what=f"the probabilities of all values of target {t} sum to {total:.6g}")
            return


def _batch_size(s: Subject, base: Report) -> Iterator[Fired]:
    """Windows are scored independently: one at a time gives the same scores."""
    s.count("batch-size")
    if (gap := _gap(base.nll, s.run(batch=1).nll)) > s.tolerance:
        yield Fired(mechanism="batch-size", what=f"scores differ by {gap:.3g} nats between batch {s.setting.batch} and 1")


def _world_size(s: Subject, base: Report) -> Iterator[Fired]:
    """Several ranks share the work, not the result."""
    if not s.ranks:
        return
    s.count("world-size")
    if (gap := _gap(base.nll, s.run(world=2).nll)) > 10 * s.tolerance:
        yield Fired(mechanism="world-size", what=f"scores differ by {gap:.3g} nats between 1 rank and 2")


def statement(subject: Subject) -> list[str]:
    """What the silent probes exclude: for each, the share of positions that could be affected unseen."""
    lines = []
    for name, n in subject.trials.items():
        if name in ("suffix-scramble", "target-flip", "normalisation"):
            lines.append(
                f"{name}: {n} positions; a fault at more than {100 * excluded(n):.0f} % of positions "
                f"would have shown with {100 * CONFIDENCE:.0f} % confidence"
            )
        else:
            lines.append(f"{name}: compared {n} time{'s' if n > 1 else ''}, over all targets")
    return lines
