"""Printed digits as intervals."""

import math

import pytest

from audit.evidence.digits import Interval, decimals, interval, mean, sample_std, unit, value


@pytest.mark.parametrize(
    ("raw", "low", "high"),
    [("1.117", 1.1165, 1.1175), ("1.11700", 1.116995, 1.117005), ("16,000,000", 15_999_999.5, 16_000_000.5)],
)
def test_a_figure_stands_for_what_rounds_to_it(raw: str, low: float, high: float) -> None:
    found = interval(raw)
    assert math.isclose(found.low, low) and math.isclose(found.high, high)


def test_a_cut_figure_may_be_larger_by_a_whole_unit() -> None:
    assert math.isclose(interval("1.11", truncated=True).high, 1.12)


def test_numbers_with_separators_and_lists() -> None:
    assert value("15,811,202 bytes") == 15_811_202
    assert value("42,1337") == 42
    assert value("42_ MB") == 42
    assert unit("15.38 MB") == pytest.approx(0.01)
    assert decimals("1.0810") == 4


def test_quotients_widen_and_refuse_zero() -> None:
    found = interval("2.0") / interval("1.0")
    assert found.low == pytest.approx(1.95 / 1.05) and found.high == pytest.approx(2.05 / 0.95)
    with pytest.raises(ZeroDivisionError):
        Interval(1, 2) / Interval(0, 1)


def test_mean_and_both_deviations() -> None:
    assert mean([Interval(1, 2), Interval(3, 4)]) == Interval(2, 3)
    sample, population = sample_std([1.0, 2.0, 3.0])
    assert sample == pytest.approx(1.0) and population == pytest.approx(math.sqrt(2 / 3))
