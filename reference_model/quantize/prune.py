"""Pruning for size: the smallest weights before quantization, or codes of +-1 after it until the file fits.

Selective pruning (PR 1072): a code of +-1 that becomes 0 changes its weight by one step, so what it costs is the
step's square; the cheapest go first. How many must go is found on the true compressed size, not on an estimate.
Where all of them are not enough, codes of +-2 join in at four times the price, and so on: that file fits, but fewer
bits would have served it better, and the report says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from audit.contracts import InputError
from harness.artifact.grids import Record

#: How near below its target a pruned file must land.
TOLERANCE = 0.001


def zero_smallest(tensor: torch.Tensor, share: float) -> torch.Tensor:
    """A copy of the tensor with this share of smallest magnitudes at zero."""
    if not 0.0 <= share < 1.0:
        raise InputError(f"pruning a share of {share}: expected one from 0 up to, not including, 1")
    flat = tensor.clone().reshape(-1)
    flat[flat.abs().argsort(stable=True)[: int(share * flat.numel())]] = 0.0
    return flat.reshape(tensor.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What pruning to size did. ``squared_error``: sum of the squared steps of the zeroed codes."""

    before: int
    after: int
    target: int
    zeroed: int
    candidates: int
    squared_error: float
    trials: int
    largest: int = 1

    def line(self) -> str:
        if not self.zeroed:
            return f"pruning: {self.before:,} bytes already fit {self.target:,}; nothing was touched"
        return (
            f"pruning: {self.before:,} -> {self.after:,} bytes of {self.target:,} by zeroing {self.zeroed:,} of "
            f"{self.candidates:,} codes of {'+-1' if self.largest == 1 else f'up to +-{self.largest}'} "
            f"(squared error {self.squared_error:.4g}), {self.trials} trials"
            + ("" if self.largest == 1 else "; +-1 alone were not enough, fewer bits would cost less")
        )


def codes_by_cost(records: Sequence[Record], largest: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Places of all codes of magnitude 1 to ``largest`` and what zeroing each costs (its squared value).

    Places count through the concatenated codes of the quantized records; cheapest first.
    """
    places, costs, start = [np.zeros(0, np.int64)], [np.zeros(0, np.float64)], 0
    for record in records:
        if not record.quantized:
            continue
        magnitude = np.abs(record.values.reshape(-1).astype(np.int16))
        flat = np.flatnonzero((magnitude > 0) & (magnitude <= largest))
        rows, columns = np.divmod(flat, max(1, record.values.shape[1]))
        scales = record.scales.astype(np.float64)
        value = (
            (scales[rows] if scales.size > 1 else scales[0]) * magnitude[flat] if flat.size else np.zeros(0)
        )
        if record.columns.size:
            value = value * record.columns.astype(np.float64)[columns]
        places.append(flat + start)
        costs.append(value**2)
        start += record.values.size
    cost = np.concatenate(costs)
    order = np.argsort(cost, kind="stable")
    return np.concatenate(places)[order], cost[order]


def with_zeros(records: Sequence[Record], places: np.ndarray) -> list[Record]:
    """The records with the codes at these places (see ``codes_by_cost``) at zero."""
    places = np.sort(places)
    found, start = [], 0
    for record in records:
        if record.quantized:
            stop = start + record.values.size
            low, high = np.searchsorted(places, [start, stop])
            values = record.values.reshape(-1).copy()
            values[places[low:high] - start] = 0
            record = dataclasses.replace(record, values=values.reshape(record.values.shape))
            start = stop
        found.append(record)
    return found


def prune_to_size(
    records: Sequence[Record], target: int, size_of: Callable[[Sequence[Record]], int]
) -> tuple[list[Record], Pruned]:
    """Zeroes the cheapest codes of +-1, and larger ones only if need be, until ``size_of`` (bytes of the finished file) is at most ``target``.

    Lands within ``TOLERANCE`` below the target wherever one more code does not step over it; a file that fits is
    left alone. Raises ``InputError`` when even a model of zeros does not fit.
    """
    before = size_of(records)
    largest = 1
    places, costs = codes_by_cost(records, largest)
    if before <= target:
        whole = Pruned(
            before=before, after=before, target=target, zeroed=0, candidates=places.size, squared_error=0.0, trials=1
        )  # fmt: skip
        return list(records), whole
    low, low_size = 0, before
    high, best = places.size, with_zeros(records, places)
    high_size = size_of(best)
    trials = 2
    while high_size > target and largest < 127:
        largest *= 2
        places, costs = codes_by_cost(records, largest)
        high, best = places.size, with_zeros(records, places)
        high_size = size_of(best)
        trials += 1
    if high_size > target:
        raise InputError(
            f"the artifact has {before:,} bytes and still {high_size:,} with every code at zero; "
            f"{target:,} are allowed: use fewer bits, or a smaller model"
        )
    while high - low > 1 and high_size < target * (1 - TOLERANCE):
        # Between two sizes the curve is nearly straight; aim half a tolerance below the target.
        aim = target * (1 - TOLERANCE / 2)
        guess = low + (high - low) * (low_size - aim) / max(1, low_size - high_size)
        if trials > 8:
            guess = (low + high) / 2  # plain bisection where the straight line keeps missing
        middle = min(high - 1, max(low + 1, round(guess)))
        candidate = with_zeros(records, places[:middle])
        size = size_of(candidate)
        trials += 1
        if size > target:
            low, low_size = middle, size
        else:
            high, high_size, best = middle, size, candidate
    report = Pruned(
        before=before, after=high_size, target=target, zeroed=high, candidates=places.size,
        squared_error=float(costs[:high].sum()), trials=trials, largest=largest,
    )  # fmt: skip
    return best, report
