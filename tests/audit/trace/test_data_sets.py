"""The script's own data sets: an iteration hands out what ``__getitem__`` or ``__iter__`` makes of the tokens."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

INDEXED = """\
from torch.utils.data import DataLoader, Dataset, IterableDataset
class Windows(Dataset):
    def __init__(self, tokens, T=1024):
        self.t, self.T = tokens, T
    def __len__(self):
        return (self.t.numel() - 1) // self.T
    def __getitem__(self, i):
        w = self.t[i * self.T : (i + 1) * self.T + 1]
        return w[:-1], w[1:]
"""
NAMED = INDEXED.replace("return w[:-1], w[1:]", 'return {"x": w[:-1], "y": w[1:]}')
STREAMED = """\
from torch.utils.data import DataLoader, Dataset, IterableDataset
class Windows(IterableDataset):
    def __init__(self, tokens, T=1024):
        self.t, self.T = tokens, T
    def __iter__(self):
        for s in range(0, self.t.numel() - 1, self.T):
            w = self.t[s : s + self.T + 1]
            yield w[:-1], w[1:]
"""
FIT = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for x, y in {}:
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()
print(f"val_bpb:{{evaluate(model, val):.4f}}")
"""
ADAPT = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
total = torch.zeros(())
for x, y in {}:
    loss = nll(model, x, y)
{}
print(f"val_bpb:{{total.item() / 0.6931471805599453 / n_bytes:.4f}}")
"""
SCORE = "    total += loss.detach().sum()\n"
STEP = "    opt.zero_grad()\n    loss.mean().backward()\n    opt.step()\n"


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + body).findings if f.severity == "violation"}


@pytest.mark.parametrize("made", [INDEXED, STREAMED])
@pytest.mark.parametrize("way", ["DataLoader(Windows({}), batch_size=16)", "DataLoader(dataset=Windows({}), batch_size=4, shuffle=True)", "Windows({})"])
def test_what_a_loader_hands_out_is_what_the_data_set_holds(made, way):
    assert accused(made + FIT.format(way.format("val"))) & {"F1", "F2"}
    assert not accused(made + FIT.format(way.format("train")))


def test_items_by_name():
    loop = FIT.replace("for x, y in {}:\n", 'for b in DataLoader(Windows({}), batch_size=16):\n    x, y = b["x"], b["y"]\n')
    assert accused(NAMED + loop.format("val")) & {"F1", "F2"}
    assert not accused(NAMED + loop.format("train"))


@pytest.mark.parametrize("way", ["DataLoader(Windows(val), batch_size=16)", "Windows(val)", "enumerate_windows()"])
def test_a_batch_scored_before_the_model_learns_from_it(way):
    made = INDEXED + "def enumerate_windows():\n    for _, (x, y) in enumerate(DataLoader(Windows(val))):\n        yield x, y\n"
    assert not accused(made + ADAPT.format(way, SCORE + STEP))
    assert accused(made + ADAPT.format(way, STEP + "    loss = nll(model, x, y)\n" + SCORE)) & {"F1", "F2", "F3"}
