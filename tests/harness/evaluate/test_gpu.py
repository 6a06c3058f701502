"""The fast path on a CUDA device: compiled, bf16, cuDNN attention; same order, same scores within rounding."""

import dataclasses

import numpy as np
import pytest
import torch

from harness.evaluate.reference import reference_scores
from harness.evaluate.run import Evaluation, Options
from harness.evaluate.score import Numerics
from harness.evaluate.stream import Stream
from reference_model.config import ModelConfig
from reference_model.model.golf import Golf

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize(("precision", "mean", "each"), [("float32", 1e-5, 1e-2), ("bf16", 2e-2, 2.0)])
@pytest.mark.parametrize("ttt", ["none", "sgd"])
def test_scores_on_a_gpu_are_the_references(tmp_path, precision, mean, each, ttt):
    config = ModelConfig(vocab=64, layers=3, dim=128, heads=4, kv_heads=2, mlp_hidden=256, xsa_layers=1, smear=True)
    torch.manual_seed(0)
    model = Golf(dataclasses.replace(config)).eval().requires_grad_(False)
    for p in model.parameters():
        if p.ndim == 2:
            p.normal_(std=0.05)
    tokens = np.random.default_rng(0).integers(2, 64, 4097).astype(np.uint16)
    truth = reference_scores(model, tokens, context=128, stride=32)
    numerics = Numerics(device="cuda", precision=precision, compile=True, batch=16, attention="cudnn" if precision == "bf16" else "auto")
    chosen = {"chunk": 1024, "lr": 0.0, "freeze": 0} if ttt == "sgd" else {"chunk": 1024}
    options = Options(context=128, stride=32, ttt=ttt, ttt_set=chosen, numerics=numerics, probes=2)
    identity = {"name": "gpu", "sha256": "0" * 64, "bytes": 0, "family": "golf"}
    result = Evaluation(model, Stream.of(tokens, vocab=64), options, identity=identity).run(tmp_path / "card")
    gap = np.load(result.out / "nll.npy") - truth
    assert abs(gap.mean()) < mean and np.abs(gap).max() < each
    assert {n: c["status"] for n, c in result.claims.items()} == {"P1": "shown", "P2": "shown", "P3": "shown", "P4": "not shown"}
