"""Bits per byte: one global quotient, refused where it has no meaning."""

from __future__ import annotations

import math

import pytest

from audit.contracts import InputError
from harness.metric import bits_per_byte, implied_bytes, mean_nats


def test_uniform_distribution_over_bytes_costs_eight_bits():
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8.0, rel=1e-15)


def test_it_is_not_the_mean_of_the_parts():
    parts = [(10.0, 4), (1.0, 40)]
    whole = bits_per_byte(11.0, 44)
    mean = sum(bits_per_byte(n, b) for n, b in parts) / 2
    assert whole == pytest.approx(11 / math.log(2) / 44)
    assert abs(whole - mean) > 0.5


@pytest.mark.parametrize("nll", [math.inf, math.nan, -math.inf])
def test_no_finite_sum_is_refused(nll):
    with pytest.raises(InputError, match="not finite"):
        bits_per_byte(nll, 10)


@pytest.mark.parametrize("count", [0, -3])
def test_no_bytes_is_refused(count):
    with pytest.raises(InputError, match="no target"):
        bits_per_byte(1.0, count)


def test_implied_bytes_inverts_the_metric():
    loss = mean_nats(2.0e8, 62_021_632)
    assert implied_bytes(loss, bits_per_byte(2.0e8, 151_080_000), 62_021_632) == pytest.approx(151_080_000)
    with pytest.raises(InputError):
        implied_bytes(1.0, 0.0, 5)
    with pytest.raises(InputError):
        mean_nats(1.0, 0)
