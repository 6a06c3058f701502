"""Parallel Muon over 1, 2 and 4 processes (gloo): the same training, summed in another order."""

from __future__ import annotations

import importlib.util
import socket
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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(folder, out, world):
    """``referee train`` as torchrun starts it: one process per rank, the meeting point in the environment."""
    port = free_port()
    command = [sys.executable, "-m", "reference_model", "train", "pr726", "--shrink", "--data", str(folder),
               "--out", str(out), "--steps", "6", "--threads", "1", "--device", "cpu", "--quiet"]  # fmt: skip
    common = {"PATH": "/usr/bin:/bin", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    running = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=common | {"RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(world)
    ]
    problems = [process.communicate(timeout=200)[1] for process in running]
    assert [process.returncode for process in running] == [0] * world, problems
    return torch.load(out / "checkpoint.pt", weights_only=True)["state"]


@pytest.mark.slow
def test_the_whole_trainer_on_two_ranks_equals_one(data_folder, tmp_path):
    """Loader, accumulation, averaging, export: the global batch is shared out, not changed."""
    one, two = (launch(data_folder, tmp_path / str(world), world) for world in (1, 2))
    for name in one:
        torch.testing.assert_close(
            one[name], two[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert (tmp_path / "2" / "train.log").read_text().count("world_size:2") == 1
