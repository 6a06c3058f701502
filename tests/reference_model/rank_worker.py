"""One rank of a small training run: python rank_worker.py FOLDER RANK WORLD. Run by test_ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from reference_model.config import ModelConfig, OptimConfig
from reference_model.model import Golf
from reference_model.optim import Optimizers

# 5 layers: no bank's 5, 10 or 20 matrices divide over 4 ranks without padding except the last.
MODEL = ModelConfig(
    vocab=32, layers=5, dim=16, heads=4, kv_heads=2, mlp_hidden=24, smear=True, bigram_size=9, bigram_dim=4,
    value_dim=4, value_layers=(3,), unet=True, residual_mix=True, branch_scale=True, xsa_layers=2,
)  # fmt: skip
OPTIM = OptimConfig(clip=0.05, row_normalize=True)
STEPS, ROWS, CONTEXT = 4, 8, 12


def train(rank: int, world: int) -> tuple[Golf, Optimizers]:
    """Each rank takes every world-th sequence of the same global batches."""
    torch.manual_seed(11)
    model = Golf(MODEL)
    optimizers = Optimizers(model, OPTIM)
    source = torch.Generator().manual_seed(5)
    for step in range(STEPS):
        tokens = torch.randint(0, 32, (ROWS, CONTEXT + 1), generator=source)[rank::world]
        optimizers.zero_grad()
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizers.step(1.0 - 0.1 * step, 0.9 + 0.01 * step)
    return model, optimizers


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    model, optimizers = train(rank, world)
    saved = {"model": model.state_dict(), "optimizers": optimizers.state_dict()}
    torch.save(saved, folder / f"rank{rank}.pt")
    fresh = Golf(MODEL)
    restored = Optimizers(fresh, OPTIM)
    restored.load_state_dict(saved["optimizers"])
    for old, new in zip(optimizers.muon.banks, restored.muon.banks, strict=True):
        assert torch.equal(old.momentum, new.momentum), "a rank must get its own shard back"
    dist.destroy_process_group()
