"""A training loop over validation shards is one breach (F15), also where it stops now and then to score."""

from __future__ import annotations

import pytest

from audit.engine import audit_text

SCRIPT = """\
import glob
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.out = nn.Embedding(1024, 64), nn.Linear(64, 1024)
    def forward(self, x, y):
        return F.cross_entropy(self.out(self.emb(x)).flatten(0, 1), y.flatten())

def load(pattern):
    return torch.cat([torch.from_numpy(np.fromfile(f, dtype="<u2").astype(np.int64)) for f in sorted(glob.glob(pattern))])

def score(net, tokens):
    total = torch.zeros(())
    for i in range(0, tokens.numel() - 1024, 1024):
        with torch.no_grad():
            total += net(tokens[None, i : i + 1024], tokens[None, i + 1 : i + 1025]) * 1024
    return total.item() / 0.6931471805599453 / 151_080_000

held, tokens, net = load("data/fineweb_val_*.bin"), load("data/fineweb_{split}_*.bin"), Net()
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
for step in range(5000):
{watch}    opt.zero_grad()
    net(tokens[None, step * 64 : step * 64 + 64], tokens[None, step * 64 + 1 : step * 64 + 65]).backward()
    opt.step()
torch.save(net.state_dict(), "final_model.pt")
net.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{{score(net, held):.4f}}")
"""
WATCH = "    if step % 1000 == 0:\n        print(f'step:{step} val_bpb:{score(net, held):.4f}')\n"


@pytest.mark.parametrize("watch", ["", WATCH])
def test_training_on_validation_shards_is_no_adaptation(watch):
    found = audit_text(SCRIPT.format(split="val", watch=watch))
    assert {f.rule for f in found.findings if f.severity == "violation"} == {"F15"}
    assert found.ttt["kind"] == "none"


@pytest.mark.parametrize("watch", ["", WATCH])
def test_training_on_training_shards_is_clean(watch):
    found = audit_text(SCRIPT.format(split="train", watch=watch))
    assert found.verdict == "clean" and found.ttt["kind"] == "none"
