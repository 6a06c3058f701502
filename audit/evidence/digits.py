"""Printed numbers as intervals: what a figure with so many digits can stand for.

A log that prints ``1.117`` may mean anything in [1.1165, 1.1175]. An accusation holds only when the
whole interval lies outside the limit, so every identity is computed on intervals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

NUMBER = re.compile(r"[-+−]?\d+(?:[,_]\d+)*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"^\d{1,3}(?:[,_]\d{3})+$")


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """A closed range of values; arithmetic assumes positive operands, which all quantities here are."""

    low: float
    high: float

    def __mul__(self, other: Interval | float) -> Interval:
        o = other if isinstance(other, Interval) else Interval(other, other)
        return Interval(self.low * o.low, self.high * o.high)

    def __truediv__(self, other: Interval | float) -> Interval:
        """Raises ZeroDivisionError when the divisor reaches zero: the quotient is unbounded."""
        o = other if isinstance(other, Interval) else Interval(other, other)
        if o.low <= 0:
            raise ZeroDivisionError("the divisor's interval reaches zero")
        return Interval(self.low / o.high, self.high / o.low)

    def __add__(self, other: Interval | float) -> Interval:
        o = other if isinstance(other, Interval) else Interval(other, other)
        return Interval(self.low + o.low, self.high + o.high)

    def meets(self, other: Interval) -> bool:
        """True when at least one value fits both."""
        return self.low <= other.high and other.low <= self.high

    def above(self, limit: float) -> bool:
        """True when every value exceeds ``limit``."""
        return self.low > limit

    def below(self, limit: float) -> bool:
        """True when every value falls short of ``limit``."""
        return self.high < limit

    def widened(self, by: float) -> Interval:
        return Interval(self.low - by, self.high + by)


def exact(value: float) -> Interval:
    return Interval(value, value)


def unit(raw: str) -> float:
    """The worth of the last printed digit: 0.001 for ``1.117``, 1 for ``16,000,000``, 0 without digits.

    Trailing zeros before the decimal point count as printed (``600`` has unit 1).
    """
    match = NUMBER.search(raw)
    if match is None:
        return 0.0
    text = match.group().replace(",", "").replace("_", "")
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals)


def value(raw: str) -> float:
    """The number in ``raw``; thousands separators are dropped. Raises ValueError without a number."""
    match = NUMBER.search(raw)
    if match is None:
        raise ValueError(f"no number in {raw!r}")
    text = match.group().replace("−", "-")
    if "," in text and not _THOUSANDS.match(text.lstrip("+-").partition(".")[0]):
        text = text.partition(",")[0]  # "42,1337" is a list, not a number
    return float(text.replace(",", "").replace("_", ""))


def interval(raw: str, scale: float = 1.0, *, truncated: bool = False) -> Interval:
    """What the printed number can stand for, times ``scale``.

    ``truncated`` also allows a figure that was cut instead of rounded (people do both by hand).
    """
    centre, half = value(raw), unit(raw) / 2
    high = unit(raw) if truncated else half
    return Interval((centre - half) * scale, (centre + high) * scale)


def decimals(raw: str) -> int:
    """How many digits follow the decimal point."""
    match = NUMBER.search(raw)
    return len(match.group().partition(".")[2]) if match else 0


def mean(parts: Iterable[Interval]) -> Interval:
    found = list(parts)
    return Interval(sum(p.low for p in found) / len(found), sum(p.high for p in found) / len(found))


def sample_std(values: Iterable[float]) -> tuple[float, float]:
    """(with n - 1, with n): people print either. (0, 0) for fewer than two values."""
    found = list(values)
    n = len(found)
    if n < 2:
        return 0.0, 0.0
    centre = sum(found) / n
    square = sum((v - centre) ** 2 for v in found)
    return (square / (n - 1)) ** 0.5, (square / n) ** 0.5
