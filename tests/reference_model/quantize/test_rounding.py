"""Clip searches against brute force, and the grids that codes and scales lie on."""

import pytest
import torch

from audit.contracts import InputError
from reference_model.quantize.export import narrowest_grid, scale_search
from reference_model.quantize.policy import Policy, parse_overrides, tensor_class
from reference_model.quantize.rounding import (
    PERCENTILES_TIGHT,
    PERCENTILES_WIDE,
    deviation_scales,
    exact_scales,
    grid_scales,
    half_scales,
    percentile_scales,
    round_to_nearest,
    row_quantiles,
)


def heavy(rows=6, columns=40, seed=0):
    """Weights with a few outliers, where the choice of a clip matters."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return weight * (1 + 5 * (torch.rand(rows, columns, generator=generator) > 0.97)) * 0.05


def error(weight, scales, clip, importance=None):
    delta = (weight - round_to_nearest(weight, scales, clip).dense()).double() ** 2
    return (delta if importance is None else delta * importance.double()).sum(dim=1)


def all_halves():
    bits = torch.arange(1, 0x7C00, dtype=torch.int32).to(torch.int16)
    return bits.view(torch.float16)


@pytest.mark.parametrize("clip", [1, 3, 15])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_exact_search_equals_trying_every_half_precision_scale(clip, weighted):
    weight = heavy(3, 24, seed=clip)
    importance = torch.rand(24, generator=torch.Generator().manual_seed(1)) + 0.1 if weighted else None
    found = error(weight, exact_scales(weight, clip, importance), clip, importance)
    candidates = all_halves()
    candidates = candidates[(candidates > 1e-4) & (candidates < 2)]
    best = torch.full((3,), float("inf"), dtype=torch.float64)
    for part in candidates.split(512):
        q = torch.round(weight[None] / part.float()[:, None, None]).clamp(-clip, clip)
        delta = (weight[None] - q * part.float()[:, None, None]).double() ** 2
        best = torch.minimum(
            best, (delta if importance is None else delta * importance.double()).sum(2).amin(0)
        )
    torch.testing.assert_close(found, best, rtol=1e-4, atol=1e-9)


def test_no_search_beats_the_exact_one():
    weight = heavy(32, 64)
    exact = error(weight, exact_scales(weight, 15), 15)
    for fractions in (PERCENTILES_WIDE, PERCENTILES_TIGHT):
        assert (exact <= error(weight, percentile_scales(weight, 15, fractions), 15) + 1e-9).all()
    assert (exact <= error(weight, grid_scales(weight, 15), 15) + 1e-9).all()
    assert (exact <= error(weight, half_scales(weight.abs().amax(1), 15), 15) + 1e-9).all()


def test_percentile_search_picks_the_best_of_its_five_clips():
    weight = heavy(8, 400)
    for fractions in (PERCENTILES_WIDE, PERCENTILES_TIGHT):
        each = torch.stack(
            [error(weight, half_scales(c, 31), 31) for c in row_quantiles(weight.abs(), fractions)]
        )
        torch.testing.assert_close(error(weight, percentile_scales(weight, 31, fractions), 31), each.amin(0))


def test_quantiles_are_those_of_torch():
    magnitude = heavy(5, 333).abs()
    expected = torch.quantile(magnitude, torch.tensor(PERCENTILES_WIDE), dim=1)
    torch.testing.assert_close(row_quantiles(magnitude, PERCENTILES_WIDE), expected)


def test_codes_stay_on_the_grid_and_a_row_of_zeros_stays_zero():
    weight = heavy()
    weight[2] = 0
    for search in ("max", "wide", "tight", "grid", "exact", "std:2.5"):
        rounded = round_to_nearest(weight, scale_search(search)(weight, 15, None), 15)
        assert int(rounded.codes.abs().max()) <= 15
        assert rounded.scales.dtype == torch.float16
        assert (rounded.dense()[2] == 0).all()
        assert torch.isfinite(rounded.dense()).all()


def test_deviation_scales_clip_at_so_many_standard_deviations():
    weight = torch.tensor([[3.0, -4.0, 0.0, 0.0]])
    assert float(deviation_scales(weight, 5, 2.0)) == pytest.approx(2 * 2.5 / 5, rel=1e-3)


@pytest.mark.parametrize("name", ["", "best", "std", "std:", "std:-1", "std:nan", "std:inf", "std:x"])
def test_an_unknown_search_is_an_input_error(name):
    with pytest.raises(InputError, match="clip search"):
        scale_search(name)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("embed.weight", (1024, 512), "embedding"),
        ("bigram.embed.weight", (2048, 128), "embedding"),
        ("bigram.proj.weight", (512, 128), "matrix"),
        ("head.weight", (1024, 512), "embedding"),
        ("blocks.3.attn.q.weight", (512, 512), "attention"),
        ("blocks.3.mlp.up.weight", (1536, 512), "mlp"),
        ("blocks.3.attn.q_gain", (8,), "control"),
        ("skip_scale", (5, 512), "control"),
        ("blocks.0.mix", (2, 512), "control"),
        ("tiny.weight", (16, 16), "control"),
    ],
)
def test_tensor_classes(name, shape, kind):
    assert tensor_class(name, shape) == kind


def test_mixed_precision_by_class():
    policy = Policy(bits=5, overrides=parse_overrides(["mlp=4", "attention=6"]))
    assert [policy.bits_of(k) for k in ("mlp", "attention", "matrix", "embedding")] == [4, 6, 5, 8]
    for bad in ("mlp", "mlp=9", "mlp=x", "control=6", "=5"):
        with pytest.raises(InputError, match="CLASS=BITS"):
            parse_overrides([bad])


def test_the_narrowest_grid_that_holds_a_code():
    assert [narrowest_grid(n) for n in (0, 1, 2, 15, 16, 31, 32, 127)] == [
        "int2", "int2", "int3", "int5", "int6", "int6", "int7", "int8",
    ]  # fmt: skip
