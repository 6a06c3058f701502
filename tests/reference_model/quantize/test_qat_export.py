"""Quantization-aware training and export share one grid: what training has settled on survives export exactly."""

import pytest
import torch

from harness.artifact.container import from_bytes, to_bytes
from reference_model.qat import fake_quantize
from reference_model.quantize.export import export_rtn
from reference_model.quantize.policy import Policy


def weight(seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = (
        torch.randn(48, 64, generator=generator) * torch.exp(torch.randn(48, 1, generator=generator)) * 0.05
    )
    made[7] = 0.0
    return made


@pytest.mark.parametrize("bits", [5, 6, 8])
def test_the_weights_that_training_saw_are_the_weights_that_are_exported(bits):
    """Export with the clip at the largest magnitude is the fake quantizer, on any weight."""
    state = {"blocks.0.mlp.up.weight": weight()}
    exported = export_rtn(state, Policy(bits=bits), "max")[0].dequantize()
    assert torch.equal(torch.from_numpy(exported), fake_quantize(weight(), bits))


@pytest.mark.parametrize("bits", [5, 6])
@pytest.mark.parametrize("clip", ["max", "wide", "tight", "grid", "exact"])
def test_exporting_a_converged_weight_is_exact(bits, clip):
    converged = fake_quantize(weight(), bits)
    assert not torch.equal(converged, weight())
    records = export_rtn({"blocks.0.mlp.up.weight": converged}, Policy(bits=bits), clip)
    data, _ = to_bytes(family="golf", config={}, tensors=records, compressor="rows")
    assert torch.equal(torch.from_numpy(from_bytes(data)[1][0].dequantize()), converged)
