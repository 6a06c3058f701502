"""Learning-rate, momentum and sampling schedules; the training clock; weight averages; QAT; pruning."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from harness.artifact.grids import clip_range, integer_grid
from reference_model import qat, schedule
from reference_model.averaging import Averages
from reference_model.config import AverageConfig, DataConfig, OptimConfig, ScheduleConfig
from reference_model.model.layers import Linear
from reference_model.prune import prune_smallest
from reference_model.train.clock import Clock


def test_step_based_warm_down_is_linear():
    config = ScheduleConfig(seconds=0, steps=100, warmdown=40)
    scales = [schedule.lr_scale(config, step, 0.0) for step in range(101)]
    assert scales[:61] == [1.0] * 61
    assert scales[80] == pytest.approx(0.5) and scales[100] == 0.0
    assert all(a > b for a, b in pairwise(scales[60:]))


def test_square_root_warm_down():
    linear = ScheduleConfig(seconds=0, steps=100, warmdown=40)
    root = ScheduleConfig(seconds=0, steps=100, warmdown=40, shape="sqrt")
    for step in range(101):
        left = schedule.lr_scale(linear, step, 0.0)
        assert schedule.lr_scale(root, step, 0.0) == pytest.approx(1 - math.sqrt(1 - left))


def test_a_slower_machine_warms_down_earlier_in_steps_and_at_the_same_share_of_time():
    config = ScheduleConfig(seconds=100.0, steps=10**6, warmdown=200)

    def first_step_below_one(seconds_per_step):
        step = 1
        while schedule.lr_scale(config, step, step * seconds_per_step) == 1.0:
            step += 1
        return step

    assert first_step_below_one(0.1) == pytest.approx(800, abs=1)  # 1000 steps fit, the last 200 warm down
    assert first_step_below_one(0.2) == pytest.approx(300, abs=1)  # 500 fit
    for pace in (0.1, 0.2):
        end = int(100 / pace)
        assert schedule.lr_scale(config, end, 100.0) == 0.0
        assert schedule.lr_scale(config, end - 100, 100 - 100 * pace) == pytest.approx(0.5)


def test_warm_down_by_a_share_of_the_clock_does_not_depend_on_pace():
    config = ScheduleConfig(seconds=60, warmdown_fraction=0.5)
    assert schedule.lr_scale(config, 3, 45.0) == schedule.lr_scale(config, 3000, 45.0) == pytest.approx(0.5)


def test_warm_up_floor_and_progress():
    config = ScheduleConfig(seconds=0, steps=50, warmup=10, warmdown=10, floor=0.1)
    assert schedule.lr_scale(config, 0, 0.0) == pytest.approx(0.1)
    assert schedule.lr_scale(config, 4, 0.0) == pytest.approx(0.5)
    assert schedule.lr_scale(config, 50, 0.0) == pytest.approx(0.1)
    both = ScheduleConfig(seconds=10, steps=100)
    assert schedule.progress(both, 20, 5.0) == 0.5 and schedule.progress(both, 80, 5.0) == 0.8


def test_momentum_warms_up_linearly():
    config = OptimConfig(momentum_start=0.92, momentum=0.99, momentum_warmup=1500)
    assert schedule.momentum(config, 0) == pytest.approx(0.92)
    assert schedule.momentum(config, 750) == pytest.approx(0.955)
    assert schedule.momentum(config, 9999) == pytest.approx(0.99)


def test_shard_exponent_decays():
    assert [schedule.shard_alpha(DataConfig(), p) for p in (0, 0.5, 1)] == pytest.approx([0.9, 0.7, 0.5])


def test_the_clock_leaves_out_what_is_paused():
    now = iter([0.0, 5.0, 7.0, 10.0])
    clock = Clock(100.0, lambda: next(now))
    clock.start()  # 0
    with clock.paused():  # stops at 5, starts again at 7
        pass
    clock.stop()  # 10
    assert clock.elapsed == pytest.approx(108.0)


class One(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))


def averaged(config, values, scales=None):
    model = One()
    averages = Averages(config, model)
    for step, value in enumerate(values, 1):
        model.w.data.fill_(value)
        averages.update(step, 1.0 if scales is None else scales[step - 1])
    return averages.chosen()["w"].item()


def test_ema():
    want = 0.0
    for value in (1.0, 4.0, 2.0):
        want = 0.9 * want + 0.1 * value
    assert averaged(AverageConfig(ema=0.9, use="ema"), [1.0, 4.0, 2.0]) == pytest.approx(want)


def test_swa_is_the_mean_of_every_nth_step():
    assert averaged(AverageConfig(swa_every=2, use="swa"), [9, 1, 9, 3, 9, 8]) == pytest.approx(4.0)


def test_tight_swa_samples_only_late_in_the_warm_down():
    config = AverageConfig(swa_every=1, swa_below=0.2, use="swa")
    assert averaged(config, [100, 50, 4, 2], [1.0, 0.2, 0.19, 0.0]) == pytest.approx(3.0)


def test_blend_and_fallbacks():
    config = AverageConfig(ema=0.5, swa_every=1, use="blend", blend=0.25)
    ema, swa = 0.5 * (0.5 * 4.0) + 0.5 * 8.0, 6.0
    assert averaged(config, [4.0, 8.0]) == pytest.approx(0.75 * ema + 0.25 * swa)
    never = AverageConfig(ema=0.5, swa_every=100, use="blend")
    assert averaged(never, [4.0, 8.0]) == pytest.approx(ema)
    assert averaged(AverageConfig(), [4.0, 8.0]) == 8.0


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_fake_quantization_stays_on_the_export_grid_and_passes_the_gradient(bits):
    torch.manual_seed(0)
    w = torch.randn(7, 33, requires_grad=True)
    y = qat.fake_quantize(w, bits)
    clip = clip_range(integer_grid(bits))
    assert clip == 2 ** (bits - 1) - 1
    scale = w.detach().abs().amax(1, keepdim=True).div(clip).half().float()
    codes = y.detach() / scale
    assert (codes - codes.round()).abs().max() < 1e-3 and codes.abs().max() <= clip + 1e-3
    inside = (w.detach() / scale).abs() <= clip
    assert ((y.detach() - w.detach()).abs() <= 0.501 * scale)[inside].all()
    coefficient = torch.randn(7, 33)
    (y * coefficient).sum().backward()
    assert torch.equal(w.grad, coefficient)


def test_quantization_aware_linear_only_while_training_and_enabled():
    torch.manual_seed(1)
    layer = Linear(8, 4)
    x = torch.randn(3, 8)
    plain = layer(x)
    qat.enable(layer, 5)
    quantized = layer(x)
    assert not torch.equal(plain, quantized)
    torch.testing.assert_close(quantized, x @ qat.fake_quantize(layer.weight, 5).T)
    assert torch.equal(layer.eval()(x), plain)
    qat.enable(layer.train(), 0)
    assert torch.equal(layer(x), plain)


def test_pruning_zeroes_the_smallest_share_of_each_matrix():
    torch.manual_seed(2)
    layer = Linear(20, 10)
    before = layer.weight.detach().clone()
    assert prune_smallest(layer, 0.1) == 20
    zero = layer.weight == 0
    assert zero.sum() == 20
    assert before[zero].abs().max() <= before[~zero].abs().min()
    assert torch.equal(layer.weight[~zero], before[~zero])
