"""GPTQ against a textbook version, brute force and plain rounding; damping, dead columns, logs."""

import itertools

import pytest
import torch

from audit.contracts import InputError
from reference_model.quantize import gptq
from reference_model.quantize.compensate import GptqOptions, batches_of, compensate
from reference_model.quantize.export import scale_search
from reference_model.quantize.rounding import round_to_nearest


def problem(rows, columns, samples=200, seed=0, correlation=1.0):
    """Weights (rows, columns) and the Hessian of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(columns) + correlation * torch.randn(columns, columns, generator=generator) / columns**0.5
    x = (
        torch.randn(samples, columns, generator=generator)
        @ mix
        * (0.2 + torch.rand(columns, generator=generator))
    )
    return torch.randn(rows, columns, generator=generator) * 0.1, x.T @ x / samples


def textbook(weight, hessian, scale, clip, damping, act_order):
    """The algorithm of the paper, one column at a time, on an explicit inverse that shrinks by elimination."""
    columns = weight.shape[1]
    h = hessian.double().clone()
    h += damping * h.diagonal().mean() * torch.eye(columns)
    order = h.diagonal().argsort(descending=True, stable=True) if act_order else torch.arange(columns)
    w = weight.double()[:, order].clone()
    inverse = torch.linalg.inv(h[order][:, order])
    codes = torch.zeros_like(w)
    for i in range(columns):
        codes[:, i] = torch.round(w[:, i] / scale.double()).clamp(-clip, clip)
        err = (w[:, i] - codes[:, i] * scale.double()) / inverse[i, i]
        w[:, i:] -= err[:, None] * inverse[i, i:]
        inverse = inverse - torch.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    out = torch.zeros_like(codes)
    out[:, order] = codes
    return out


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("block", [1, 5, 64])
def test_the_sweep_is_the_textbook_algorithm(act_order, block):
    for seed in range(3):
        weight, hessian = problem(9, 17, seed=seed)
        scale = weight.abs().amax(1) / 7
        factor = gptq.factorise(hessian[None], damping=0.01, act_order=act_order)
        codes = gptq.sweep(weight[None], factor, scale[None], gptq.nearest(7), block=block)[0]
        assert torch.equal(codes.double(), textbook(weight, hessian, scale, 7, 0.01, act_order))


def test_the_factor_is_the_upper_cholesky_factor_of_the_inverse():
    _, hessian = problem(1, 12)
    factor = gptq.factorise(hessian[None], damping=0.02)
    order = factor.order[0]
    damped = hessian.double() + 0.02 * hessian.double().diagonal().mean() * torch.eye(12)
    upper = factor.upper[0].double()
    torch.testing.assert_close(upper, upper.triu())
    torch.testing.assert_close(
        upper.T @ upper, torch.linalg.inv(damped[order][:, order]), rtol=1e-4, atol=1e-5
    )
    assert (hessian.diagonal()[order].diff() <= 0).all()


def brute_force(weight, hessian, scale, clip):
    """Least error of a row over all codes."""
    grid = torch.tensor(
        list(itertools.product(range(-clip, clip + 1), repeat=weight.numel())), dtype=torch.float32
    )
    delta = weight[None] - grid * scale
    return float(((delta @ hessian) * delta).sum(1).min())


def test_near_the_brute_force_optimum_on_tiny_problems():
    ratios, plain_ratios, optimal = [], [], 0
    for seed in range(40):
        weight, hessian = problem(1, 6, seed=seed, correlation=1.5)
        scale = scale_search("max")(weight, 2, None).float()
        best = brute_force(weight[0], hessian, scale[0], 2)
        factor = gptq.factorise(hessian[None], damping=1e-4)
        codes = gptq.sweep(weight[None], factor, scale[None], gptq.nearest(2))
        codes = gptq.refine(weight[None], codes, hessian[None], scale[None], gptq.nearest(2))
        found = float(gptq.layer_error(weight[None], codes * scale[None, :, None], hessian[None]))
        plain = round_to_nearest(weight, scale.half(), 2).dense()
        assert found >= best * (1 - 1e-4)  # nothing beats the optimum
        ratios.append(found / best)
        plain_ratios.append(float(gptq.layer_error(weight[None], plain[None], hessian[None])) / best)
        optimal += found <= best * 1.001
    assert sum(ratios) / 40 < 1.2
    assert sum(plain_ratios) / 40 > 1.5
    assert optimal >= 20


def test_with_independent_inputs_it_is_plain_rounding():
    weight, _ = problem(8, 20)
    hessian = torch.diag(torch.rand(20) + 0.5)
    scale = weight.abs().amax(1) / 7
    codes = gptq.sweep(weight[None], gptq.factorise(hessian[None]), scale[None], gptq.nearest(7))[0]
    assert torch.equal(codes, torch.round(weight / scale[:, None]).clamp(-7, 7))


def test_refinement_never_makes_the_error_larger():
    for seed in range(5):
        weight, hessian = problem(12, 24, seed=seed)
        scale = weight.abs().amax(1) / 3
        codes = torch.round(weight / scale[:, None])[None]
        before = gptq.layer_error(weight[None], codes * scale[None, :, None], hessian[None])
        after_codes = gptq.refine(weight[None], codes, hessian[None], scale[None], gptq.nearest(3))
        after = gptq.layer_error(weight[None], after_codes * scale[None, :, None], hessian[None])
        assert (after <= before * (1 + 1e-3)).all()
        assert after.sum() < 0.9 * before.sum()


def test_dead_columns_round_plainly_and_cost_nothing():
    weight, hessian = problem(6, 16)
    hessian[3], hessian[:, 3] = 0, 0
    hessian[9], hessian[:, 9] = 0, 0
    solved = compensate({"w": weight}, {"w": hessian}, lambda n: 15, scale_search("max"))["w"]
    assert solved.log.dead_columns == 2
    assert solved.log.escalations == 0
    assert torch.isfinite(solved.rounded.dense()).all()
    plain = round_to_nearest(weight, solved.rounded.scales, 15).codes
    assert torch.equal(solved.rounded.codes[:, [3, 9]], plain[:, [3, 9]])


def test_a_layer_that_never_saw_an_input_is_plain_rounding():
    weight, _ = problem(6, 16)
    solved = compensate({"w": weight}, {"w": torch.zeros(16, 16)}, lambda n: 15, scale_search("max"))["w"]
    assert solved.log.dead_columns == 16
    assert torch.equal(solved.rounded.codes, round_to_nearest(weight, solved.rounded.scales, 15).codes)


def test_damping_escalates_and_is_logged_per_tensor():
    good_weight, good = problem(4, 8, seed=1)
    bad_weight, bad = problem(4, 8, seed=2)
    values, vectors = torch.linalg.eigh(bad)
    values[0] = -0.05 * float(bad.diagonal().mean())  # as accumulation in low precision leaves them
    bad = vectors @ torch.diag(values) @ vectors.T
    seen = []
    solved = compensate(
        {"good": good_weight, "bad": bad_weight}, {"good": good, "bad": bad}, lambda n: 7, scale_search("max"),
        progress=seen.append,
    )  # fmt: skip
    assert solved["good"].log.escalations == 0
    assert solved["good"].log.damping == pytest.approx(0.01)
    assert solved["bad"].log.escalations == 1
    assert solved["bad"].log.damping == pytest.approx(0.1)
    assert {log.name for log in seen} == {"good", "bad"}


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_hessian_that_is_not_finite_is_an_error_not_a_fallback(poison):
    weight, hessian = problem(4, 8)
    hessian[2, 2] = poison
    with pytest.raises(InputError, match="not finite"):
        compensate({"w": weight}, {"w": hessian}, lambda n: 7, scale_search("max"))


@pytest.mark.parametrize("clip", [1, 3, 15, 31])
@pytest.mark.parametrize("search", ["max", "wide", "grid"])
def test_no_layer_and_no_row_is_worse_than_round_to_nearest(clip, search):
    weights = {f"w{i}": problem(16, 32, samples=20 + 10 * i, seed=i)[0] for i in range(4)}
    hessians = {f"w{i}": problem(16, 32, samples=20 + 10 * i, seed=i)[1] for i in range(4)}
    solved = compensate(weights, hessians, lambda n: clip, scale_search(search), GptqOptions(refine=0))
    for name, weight in weights.items():
        plain = round_to_nearest(weight, scale_search(search)(weight, clip, None), clip).dense()
        plain_error = gptq.layer_error(weight[None], plain[None], hessians[name][None])[0]
        ours = gptq.layer_error(weight[None], solved[name].rounded.dense()[None], hessians[name][None])[0]
        assert (ours <= plain_error * (1 + 1e-4) + 1e-9).all()
        assert solved[name].log.error <= solved[name].log.plain_error * (1 + 1e-4)
        assert solved[name].log.error == pytest.approx(float(ours.sum()), rel=1e-3)


def test_batching_over_equal_shapes_changes_nothing():
    shapes = [(8, 16), (4, 16), (8, 16), (8, 24), (4, 16)]
    made = {f"w{i}": problem(*shape, seed=i) for i, shape in enumerate(shapes)}
    weights, hessians = {n: w for n, (w, _) in made.items()}, {n: h for n, (_, h) in made.items()}
    together = compensate(weights, hessians, lambda n: 7, scale_search("grid"))
    groups = list(batches_of(weights, lambda n: 7))
    assert sorted(map(len, groups)) == [1, 2, 2]
    for name, weight in weights.items():
        alone = compensate({name: weight}, hessians, lambda n: 7, scale_search("grid"))[name]
        assert torch.equal(alone.rounded.codes, together[name].rounded.codes)
        assert torch.equal(alone.rounded.scales, together[name].rounded.scales)


def test_different_widths_are_never_solved_together():
    made = {n: problem(8, 16, seed=i) for i, n in enumerate("ab")}
    solved = compensate(
        {n: w for n, (w, _) in made.items()}, {n: h for n, (_, h) in made.items()},
        {"a": 3, "b": 15}.__getitem__, scale_search("max"),
    )  # fmt: skip
    assert int(solved["a"].rounded.codes.abs().max()) <= 3 < int(solved["b"].rounded.codes.abs().max())


def test_a_hessian_of_another_shape_names_its_tensor():
    with pytest.raises(InputError, match="w0"):
        compensate({"w0": torch.randn(4, 8)}, {"w0": torch.eye(9)}, lambda n: 7, scale_search("max"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_solves_as_well_as_a_cpu():
    made = {f"w{i}": problem(64, 128, seed=i) for i in range(4)}
    weights, hessians = {n: w for n, (w, _) in made.items()}, {n: h for n, (_, h) in made.items()}
    here = compensate(weights, hessians, lambda n: 15, scale_search("grid"))
    there = compensate(
        {n: w.cuda() for n, w in weights.items()}, hessians, lambda n: 15, scale_search("grid")
    )
    for name in weights:
        assert there[name].log.error == pytest.approx(here[name].log.error, rel=0.02)
