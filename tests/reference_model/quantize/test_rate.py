"""Rate against distortion: the same loss for fewer bytes, and each of its parts on problems where it must matter."""

import pytest
import torch

from audit.contracts import InputError
from harness.artifact.rowcoder import encode_plane
from reference_model.quantize import gptq, rate
from reference_model.quantize.compensate import compensate
from reference_model.quantize.export import coded_record, export_rate, record_of, scale_search
from reference_model.quantize.frontier import Point, bytes_at, dominating
from reference_model.quantize.hessian import Hessians
from reference_model.quantize.policy import Policy


def layer(rows=96, columns=64, seed=0):
    """Weights, a Hessian with inputs of very different power, and rows of very different weight."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(columns) + 0.7 * torch.randn(columns, columns, generator=generator) / columns**0.5
    power = torch.exp(1.2 * torch.randn(columns, generator=generator))
    x = torch.randn(600, columns, generator=generator) @ mix * power
    fisher = torch.exp(1.5 * torch.randn(rows, generator=generator))
    return torch.randn(rows, columns, generator=generator) * 0.1, x.T @ x / 600, fisher


def model(layers=3, **sizes):
    weights, found = {}, Hessians()
    for i in range(layers):
        weights[f"w{i}"], found.inputs[f"w{i}"], found.rows[f"w{i}"] = layer(seed=i, **sizes)
    return weights, found


def loss_of(weights, hessians, dense):
    """Half the Fisher-weighted error over all layers."""
    total = 0.0
    for name, weight in weights.items():
        error = gptq.layer_error(weight[None], dense[name][None], hessians.inputs[name][None])[0]
        total += 0.5 * float((error * hessians.rows[name]).sum())
    return total


def measured(weights, hessians, step, **options):
    """(bytes, loss) of the rate method."""
    coded = rate.quantize(weights, hessians, rate.RateOptions(step=step, fisher_floor=1e-6, **options))
    loss = loss_of(weights, hessians, {n: c.dense() for n, c in coded.items()})
    assert loss == pytest.approx(sum(c.loss for c in coded.values()), rel=1e-3)
    records = [coded_record(n, weights[n], c) for n, c in coded.items()]
    side = sum(2 * (r.scales.size + r.columns.size) for r in records)
    return len(encode_plane(records)) + side / 4, loss  # scales on the log grid take some four bits each


def curve(weights, hessians, **options):
    steps = [2.0**-e for e in (1, 2, 3, 4, 5)]
    points = [measured(weights, hessians, step, **options) for step in steps]
    return [Point(name="", kind="rate", bytes=int(b), bits_per_byte=x, loss=x) for b, x in points]


def test_bytes_rise_and_loss_falls_as_the_step_shrinks():
    points = curve(*model())
    assert [p.bytes for p in points] == sorted(p.bytes for p in points)
    assert [p.loss for p in points] == sorted((p.loss for p in points), reverse=True)


def test_far_fewer_bytes_than_gptq_at_equal_loss():
    weights, hessians = model()
    ours = curve(weights, hessians)
    for bits in (4, 5):
        clip = 2 ** (bits - 1) - 1
        solved = compensate(weights, hessians.inputs, lambda n, c=clip: c, scale_search("grid"))
        records = [record_of(n, weights[n], s.rounded, f"int{bits}") for n, s in solved.items()]
        size = len(encode_plane(records)) + sum(2 * r.scales.size for r in records)
        loss = loss_of(weights, hessians, {n: s.rounded.dense() for n, s in solved.items()})
        assert bytes_at(ours, loss) < 0.9 * size


@pytest.mark.parametrize("without", [{"lagrangian": 0.0}, {"column_steps": False}])
def test_each_part_saves_bytes_at_equal_loss(without):
    weights, hessians = model()
    whole, less = curve(weights, hessians), curve(weights, hessians, **without)
    target = less[1].loss
    assert bytes_at(whole, target) < bytes_at(less, target)


def test_row_weights_move_precision_to_the_rows_that_matter():
    weights, hessians = model(layers=1)
    equal = Hessians(
        inputs=hessians.inputs, rows={"w0": torch.full_like(hessians.rows["w0"], hessians.rows["w0"].mean())}
    )
    weighted = curve(weights, hessians)
    blind = []
    for step in [2.0**-e for e in (1, 2, 3, 4, 5)]:
        coded = rate.quantize(weights, equal, rate.RateOptions(step=step))
        records = [coded_record(n, weights[n], c) for n, c in coded.items()]
        size = len(encode_plane(records)) + sum((r.scales.size + r.columns.size) / 2 for r in records)
        loss = loss_of(weights, hessians, {n: c.dense() for n, c in coded.items()})
        blind.append(Point(name="", kind="rate", bytes=int(size), bits_per_byte=loss, loss=loss))
    assert bytes_at(weighted, blind[2].loss) < 0.97 * blind[2].bytes


def test_the_lagrangian_chooser_weighs_squared_error_against_bits():
    codes = torch.zeros(1, 4, 8)
    codes[0, 0, 0] = 5  # one rare code among many zeros
    table = rate.BitTable(codes, 7)
    wish = torch.full((1, 4), 0.6)
    assert (table.chooser(0.0)(wish, 3, None) == 1).all()
    assert (table.chooser(0.5)(wish, 3, None) == 0).all()
    # An error that counts a hundredfold is worth the bits again.
    assert (table.chooser(0.5)(wish, 3, torch.tensor([[100.0]])) == 1).all()
    assert (table.chooser(0.5)(-wish, 3, None) == 0).all()


def test_bit_estimates_agree_with_the_coder():
    weights, hessians = model(layers=1, rows=256, columns=256)
    coded = rate.quantize(weights, hessians, rate.RateOptions(step=2.0**-3))["w0"]
    estimate = rate.BitTable(coded.codes[None].float(), 127).total(coded.codes[None].float()) / 8
    assert estimate == pytest.approx(len(encode_plane([coded_record("w0", weights["w0"], coded)])), rel=0.06)


def test_scales_lie_on_the_logarithmic_grid_and_weights_within_the_widest_one():
    weights, hessians = model()
    weights["w1"][3, 5] = 40.0  # an outlier far beyond any fine grid
    coded = rate.quantize(weights, hessians, rate.RateOptions(step=2.0**-6))
    for name, c in coded.items():
        for values in (c.scales, c.columns):
            exponent = 4 * torch.log2(values.double())
            assert float((exponent - exponent.round()).abs().max()) < 0.01
        assert int(c.codes.abs().max()) <= 127
        relative = (weights[name] - c.dense()).abs() / (c.scales.float()[:, None] * c.columns.float())
        assert torch.isfinite(c.dense()).all()
        assert float(relative.median()) < 2
    assert abs(float(coded["w1"].dense()[3, 5]) - 40.0) < 1.0


def test_a_narrow_grid_is_respected():
    weights, hessians = model()
    coded = rate.quantize(weights, hessians, rate.RateOptions(step=2.0**-7, clip=31, column_steps=False))
    assert all(int(c.codes.abs().max()) <= 31 for c in coded.values())
    assert all((c.columns == 1).all() for c in coded.values())


def test_records_dequantize_to_exactly_the_solved_weights():
    weights, hessians = model()
    state = {**weights, "gain": torch.ones(5)}
    records, coded = export_rate(state, Policy(), hessians, rate.RateOptions(step=2.0**-3))
    assert [r.name for r in records] == list(state)
    for record in records[:-1]:
        torch.testing.assert_close(
            torch.from_numpy(record.dequantize()), coded[record.name].dense(), rtol=0, atol=0
        )
    assert records[-1].grid == "fp16"


def test_what_cannot_be_compared_is_refused():
    weights, hessians = model(layers=1)
    with pytest.raises(InputError, match="w0 has no Hessian with row weights"):
        rate.quantize(weights, Hessians(inputs=hessians.inputs), rate.RateOptions(step=0.1))
    for step in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="positive step"):
            rate.quantize(weights, hessians, rate.RateOptions(step=step))


def points(*pairs):
    return [Point(name="", kind="rate", bytes=b, bits_per_byte=x, loss=x) for b, x in pairs]


def test_bytes_at_interpolates_the_curve_without_its_dominated_points():
    line = points((100, 3.0), (150, 3.5), (200, 2.0), (300, 1.0))
    assert bytes_at(line, 2.5) == 150
    assert bytes_at(line, 3.2) == 100
    assert bytes_at(line, 0.5) is None
    assert bytes_at([], 1.0) is None
    assert len(dominating(line, points((250, 2.0))[0])) == 1
