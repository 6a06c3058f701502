"""Pruning: the smallest go first, and a file lands just under its target on its true compressed size."""

import numpy as np
import pytest
import torch

from audit.contracts import InputError
from harness.artifact.container import to_bytes
from harness.artifact.grids import float_record, quantized_record
from reference_model.quantize.methods import pruned
from reference_model.quantize.prune import codes_by_cost, prune_to_size, with_zeros, zero_smallest


def records(seed=0, rows=300, columns=200):
    rng = np.random.default_rng(seed)
    made = []
    for i, sigma in enumerate((1.2, 2.5)):
        codes = np.clip(np.rint(rng.normal(0, sigma, (rows, columns))), -31, 31).astype(np.int8)
        factors = np.exp(rng.normal(0, 0.2, columns)) if i else None
        made.append(
            quantized_record(
                f"w{i}",
                (rows, columns),
                "int6",
                codes,
                np.exp(rng.normal(-4, 0.5, rows)),
                column_factors=factors,
            )
        )
        made.append(float_record(f"g{i}", rng.normal(size=5)))
    return made


def size_of(compressor):
    return lambda found: len(to_bytes(family="golf", config={}, tensors=found, compressor=compressor)[0])


def test_ones_come_cheapest_step_first():
    codes = np.array([[1, 2, -1], [0, 1, 5]], np.int8)
    scaled = quantized_record(
        "a", (2, 3), "int6", codes, np.array([2.0, 0.5]), column_factors=np.array([1.0, 3.0, 4.0])
    )
    single = quantized_record("b", (1, 2), "int6", np.array([[-1, 3]], np.int8), np.array([1.0]))
    places, costs = codes_by_cost([scaled, float_record("f", np.ones(2)), single])
    assert places.tolist() == [6, 4, 0, 2]
    assert costs.tolist() == [1.0, 2.25, 4.0, 64.0]
    after = with_zeros([scaled, single], places[:2])
    assert after[0].values.tolist() == [[1, 2, -1], [0, 0, 5]]
    assert after[1].values.tolist() == [[0, 3]]
    assert scaled.values[1, 1] == 1  # the original is untouched


@pytest.mark.parametrize("compressor", ["rows", "zlib"])
def test_it_lands_within_a_thousandth_under_the_target(compressor):
    found, measure = records(), size_of(compressor)
    before = measure(found)
    for share in (0.995, 0.9):
        target = int(before * share)
        after, report = prune_to_size(found, target, measure)
        assert target * 0.999 <= measure(after) <= target
        assert report.after == measure(after)
        assert report.before == before
        assert 0 < report.zeroed < report.candidates
        assert report.squared_error > 0
        assert f"{report.zeroed:,}" in report.line()
        changed = sum(int((a.values != b.values).sum()) for a, b in zip(found, after, strict=True))
        assert changed == report.zeroed


def test_a_file_that_fits_is_left_alone():
    found, measure = records(), size_of("zlib")
    target = measure(found)
    after, report = prune_to_size(found, target, measure)
    assert all(a is b for a, b in zip(found, after, strict=True))
    assert report.zeroed == 0
    assert report.trials == 1
    assert "already fit" in report.line()


def test_larger_codes_join_in_only_where_ones_are_not_enough():
    found, measure = records(), size_of("rows")
    target = measure(found) // 2
    after, report = prune_to_size(found, target, measure)
    assert target * 0.999 <= measure(after) <= target
    assert report.largest > 1
    assert "fewer bits" in report.line()
    places, costs = codes_by_cost(found[:1], 2)
    codes = found[0].values.reshape(-1)[places].astype(float)
    rows = places // found[0].values.shape[1]
    np.testing.assert_allclose(costs, (codes * found[0].scales.astype(float)[rows]) ** 2)


def test_an_impossible_target_says_how_near_it_came():
    found, measure = records(), size_of("zlib")
    with pytest.raises(InputError, match="use fewer bits"):
        prune_to_size(found, 1000, measure)


def test_a_step_that_no_code_can_hit_ends_at_the_first_size_below():
    found = records(rows=4, columns=4)

    def jumps(tensors):
        return 1000 if (tensors[0].values == found[0].values).all() else 10

    after, report = prune_to_size(found, 900, jumps)
    assert jumps(after) == 10
    assert report.trials < 40


def test_magnitude_pruning_takes_the_smallest_of_each_matrix():
    weight = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
    assert torch.equal(zero_smallest(weight, 0.5), torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    assert torch.equal(zero_smallest(weight, 0.0), weight)
    assert weight[0, 1] == -1.0
    for bad in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="share"):
            zero_smallest(weight, bad)


def test_embeddings_and_control_tensors_are_not_pruned():
    state = {
        "embed.weight": torch.randn(128, 64), "blocks.0.mlp.up.weight": torch.randn(64, 64), "gain": torch.randn(64),
    }  # fmt: skip
    after = pruned(state, 0.25)
    assert [int((after[n] == 0).sum()) for n in state] == [0, 1024, 0]
