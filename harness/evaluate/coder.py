"""An arithmetic coder over integer frequencies (Witten, Neal, Cleary 1987), for showing that scores decode.

Frequencies come from a model's probabilities by `frequencies`; encoder and decoder must compute the same
ones, which they do when both run the same model on the same machine.
"""

from __future__ import annotations

import numpy as np

_BITS = 32
_TOP, _HALF, _QUARTER = (1 << _BITS) - 1, 1 << (_BITS - 1), 1 << (_BITS - 2)
_SCALE = 1 << 24


def frequencies(probabilities: np.ndarray) -> np.ndarray:
    """Cumulative integer frequencies (V + 1,) of a distribution (V,); every symbol keeps at least one."""
    counts = 1 + np.floor(probabilities.astype(np.float64) * (_SCALE - len(probabilities))).astype(np.int64)
    return np.concatenate([[0], np.cumsum(counts)])


class Encoder:
    """Collects bits; ``finish`` ends the stream."""

    def __init__(self) -> None:
        self.bits: list[int] = []
        self._low, self._high, self._pending = 0, _TOP, 0

    def encode(self, symbol: int, cumulative: np.ndarray) -> None:
        self._low, self._high = _narrow(self._low, self._high, symbol, cumulative)
        while True:
            if self._high < _HALF:
                self._emit(0)
            elif self._low >= _HALF:
                self._emit(1)
                self._low, self._high = self._low - _HALF, self._high - _HALF
            elif self._low >= _QUARTER and self._high < 3 * _QUARTER:
                self._pending += 1
                self._low, self._high = self._low - _QUARTER, self._high - _QUARTER
            else:
                return
            self._low, self._high = 2 * self._low, 2 * self._high + 1

    def _emit(self, bit: int) -> None:
        self.bits += [bit, *[1 - bit] * self._pending]
        self._pending = 0

    def finish(self) -> list[int]:
        self._pending += 1
        self._emit(int(self._low >= _QUARTER))
        return self.bits


class Decoder:
    """Reads what `Encoder` wrote; past its end it reads zeros."""

    def __init__(self, bits: list[int]) -> None:
        self._bits = iter(bits)
        self._low, self._high, self._value = 0, _TOP, 0
        for _ in range(_BITS):
            self._value = 2 * self._value + next(self._bits, 0)

    def decode(self, cumulative: np.ndarray) -> int:
        total = int(cumulative[-1])
        place = ((self._value - self._low + 1) * total - 1) // (self._high - self._low + 1)
        symbol = int(np.searchsorted(cumulative, place, side="right")) - 1
        self._low, self._high = _narrow(self._low, self._high, symbol, cumulative)
        while True:
            if self._high < _HALF:
                shift = 0
            elif self._low >= _HALF:
                shift = _HALF
            elif self._low >= _QUARTER and self._high < 3 * _QUARTER:
                shift = _QUARTER
            else:
                return symbol
            self._low, self._high = 2 * (self._low - shift), 2 * (self._high - shift) + 1
            self._value = 2 * (self._value - shift) + next(self._bits, 0)


def _narrow(low: int, high: int, symbol: int, cumulative: np.ndarray) -> tuple[int, int]:
    span, total = high - low + 1, int(cumulative[-1])
    return low + span * int(cumulative[symbol]) // total, low + span * int(cumulative[symbol + 1]) // total - 1
