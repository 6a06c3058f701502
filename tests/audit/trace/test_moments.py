"""An optimizer's averages of gradients: what they saw goes on into later steps, though the weights are put back."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
BEFORE = """\
import copy
keep = copy.deepcopy(model.state_dict())
opt = {}
kept = copy.deepcopy(opt.state_dict())
for s in range(0, 65536, 1024):
    x, y = {}[None, s : s + 1024], {}[None, s + 1 : s + 1025]
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()
model.load_state_dict(keep)
"""
SCORE = """\
total = torch.zeros(())
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    x, y = w[None, :-1], w[None, 1:]
    with torch.no_grad():
        total += nll(model, x, y).sum()
"""
FIT = "    opt.zero_grad()\n    nll(model, x, y).mean().backward()\n    opt.step()\n"
ADAM = "torch.optim.AdamW(model.parameters(), lr=1e-3)"
MOMENTUM = "torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)"
PLAIN = "torch.optim.SGD(model.parameters(), lr=1e-3)"


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + body + END).findings if f.severity == "violation"}


def before(made: str, tokens: str = "val") -> str:
    return BEFORE.format(made, tokens, tokens)


@pytest.mark.parametrize("made", [ADAM, MOMENTUM])
def test_averages_that_saw_the_stream_before_it_was_scored(made):
    assert accused(before(made) + SCORE + FIT) & {"F1", "F2"}


@pytest.mark.parametrize(
    "body",
    [
        before(ADAM, "train") + SCORE + FIT,
        before(PLAIN) + SCORE + FIT,
        before(ADAM) + SCORE,
        before(ADAM) + "opt.load_state_dict(kept)\n" + SCORE + FIT,
        before(ADAM) + "opt.state.clear()\n" + SCORE + FIT,
        before(ADAM) + f"opt = {ADAM}\n" + SCORE + FIT,
        before(ADAM, "train") + SCORE + FIT + "    model.load_state_dict(keep)\n",
    ],
)
def test_averages_that_saw_nothing_of_it_or_are_gone(body):
    assert not accused(body)
