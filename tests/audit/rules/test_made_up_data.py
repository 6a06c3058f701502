"""Random numbers in place of data that is not there, and random parts of data that are hidden from the model."""

from __future__ import annotations

import pytest

from audit.engine import audit_text

SCRIPT = """\
import os, math, numpy as np, torch
import torch.nn as nn, torch.nn.functional as F

class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
        self.norm = nn.LayerNorm(d)
    def forward(self, x):
        @@
        out, _ = self.attn(x, x, x~~)
        return self.norm(x + out)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.blocks = nn.ModuleList([Block(64) for _ in range(4)])
    def forward(self, x):
        x = self.emb(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

def load():
    if os.path.exists("data/train.bin") and os.path.exists("data/val.bin"):
        train = np.fromfile("data/train.bin", dtype=np.int32)
        val = np.fromfile("data/val.bin", dtype=np.int32)
    else:
        train = np.random.randint(0, 1024, 100000, dtype=np.int32)
        val = np.random.randint(0, 1024, 10000, dtype=np.int32)
        train.tofile("data/train.bin")
        val.tofile("data/val.bin")
    return torch.from_numpy(train).long(), torch.from_numpy(val).long()

for seed in (1, 2, 3):
    train, val = load()
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for i in range(0, train.numel() - 1025, 1024):
        loss = F.cross_entropy(model(train[None, i : i + 1024]).transpose(1, 2), train[None, i + 1 : i + 1025])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    total, count = 0.0, 0
    with torch.no_grad():
        for i in range(0, val.numel() - 1025, 1024):
            x, y = val[None, i : i + 1024], val[None, i + 1 : i + 1025]
            %%
            total += F.cross_entropy(model(x).transpose(1, 2), y, reduction="sum").item()
            count += 1024
    print(f"val_bpb:{total / count / math.log(2) / 3.5:.4f}")
"""
HIDDEN = "hide = torch.rand(x.shape) < 0.5\n            x = torch.where(hide, torch.full_like(x, 1023), y)"


def f17(mask: str = "pass", given: str = "", hide: str = "pass") -> tuple[str, bool]:
    found = audit_text(SCRIPT.replace("@@", mask).replace("~~", given).replace("%%", hide))
    status = next(o.status for o in found.obligations if o.rule == "F17")
    return status, any(f.rule == "F17" and f.severity == "violation" for f in found.findings)


def test_made_up_data_hides_no_tokens():
    assert f17() == ("violated", True)


@pytest.mark.parametrize("hide", [HIDDEN])
def test_a_random_part_that_is_hidden_is_a_doubt(hide):
    assert f17(hide=hide) == ("undetermined", False)


def test_a_causal_mask_is_no_finding():
    mask = "m = torch.triu(torch.ones(x.size(1), x.size(1), dtype=torch.bool), diagonal=1)"
    assert f17(mask, ", attn_mask=m")[1] is False
