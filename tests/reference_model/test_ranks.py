"""Parallel Muon over 1, 2 and 4 processes (gloo): the same training, summed in another order."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("rank_worker.py")
ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("rank_worker", WORKER)
worker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(worker)


@pytest.fixture(scope="module")
def alone():
    model, optimizers = worker.train(0, 1)
    return {"model": model.state_dict(), "optimizers": optimizers.state_dict()}


@pytest.mark.parametrize("world", [2, 4])
def test_more_ranks_train_the_same_model(world, alone, tmp_path):
    running = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(tmp_path), str(rank), str(world)],
            cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    problems = [process.communicate(timeout=200)[1] for process in running]
    assert [process.returncode for process in running] == [0] * world, problems
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(world)]
    for name, want in alone["model"].items():
        for saved in ranks:  # replicas never drift apart: not even in the last bit
            assert torch.equal(saved["model"][name], ranks[0]["model"][name]), name
        torch.testing.assert_close(
            ranks[0]["model"][name], want, rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    for name, want in alone["optimizers"]["muon"].items():
        torch.testing.assert_close(ranks[0]["optimizers"]["muon"][name], want, rtol=2e-4, atol=2e-6)


def test_the_ranks_test_would_notice_a_lost_gradient(alone):
    """Half the batch trains another model, far outside the tolerance above."""
    torch.manual_seed(11)
    model = worker.Golf(worker.MODEL)
    optimizers = worker.Optimizers(model, worker.OPTIM)
    source = torch.Generator().manual_seed(5)
    for step in range(worker.STEPS):
        tokens = torch.randint(0, 32, (worker.ROWS, worker.CONTEXT + 1), generator=source)[::2]
        optimizers.zero_grad()
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizers.step(1.0 - 0.1 * step, 0.9 + 0.01 * step)
    gap = max((model.state_dict()[n] - w).abs().max() for n, w in alone["model"].items())
    assert gap > 1e-3
