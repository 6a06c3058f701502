"""Tokens that one turn leaves to the next: fetched ahead, what is left of the stream, buffers that are filled anew, weights that may come back."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

HEAD = """\
import copy
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
start = copy.deepcopy(model.state_dict())
def xy(w, n=1024):
    return val[None, w : w + n], val[None, w + 1 : w + n + 1]
def score(x, y):
    with torch.no_grad():
        return nll(model, x, y).sum().item()
def learn(x, y):
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()
total = 0.0
bx, by = torch.zeros(4, 1024, dtype=torch.long), torch.zeros(4, 1024, dtype=torch.long)
"""
END = 'print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")\n'


def verdict(body: str) -> str:
    return audit_text(PRELUDE + HEAD + body + END).verdict


WALKS = {
    "fetched ahead": "nxt = xy(0)\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = nxt\n    nxt = xy(w + 1024)\n",
    "what is left": "rest = val\nwhile rest.numel() > 1:\n    chunk, rest = rest[:1025], rest[1024:]\n    x, y = chunk[None, :-1], chunk[None, 1:]\n",
    "a buffer": "for w in range(0, val.numel() - 1, 1024):\n    k = min(1024, val.numel() - 1 - w)\n    bx[0, :k] = val[w : w + k]\n    by[0, :k] = val[w + 1 : w + k + 1]\n    x, y = bx[:1, :k], by[:1, :k]\n",
    "a buffer, copied to": "for w in range(0, val.numel() - 1, 1024):\n    k = min(1024, val.numel() - 1 - w)\n    bx[0, :k].copy_(val[w : w + k])\n    by[0, :k].copy_(val[w + 1 : w + k + 1])\n    x, y = bx[:1, :k], by[:1, :k]\n",
    "rows of a buffer": "for w in range(0, val.numel() - 1, 4096):\n    for r in range(4):\n        s = w + r * 1024\n        bx[r] = val[s : s + 1024]\n        by[r] = val[s + 1 : s + 1025]\n    x, y = bx, by\n",
}


@pytest.mark.parametrize("walk", WALKS)
def test_what_a_turn_leaves_to_the_next(walk: str) -> None:
    assert verdict(WALKS[walk] + "    total += score(x, y)\n    learn(x, y)\n") == "clean"
    assert verdict(WALKS[walk] + "    learn(x, y)\n    total += score(x, y)\n") == "violation"


BAD = [
    "nxt = xy(0)\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = nxt\n    nxt = xy(w + 1024)\n    learn(*nxt)\n    total += score(x, y)\n",
    "x, y = xy(0, val.numel() - 1)\nfor epoch in range(3):\n    total = score(x, y)\n    learn(x, y)\n    x, y = x.cuda(), y.cuda()\n",
    "for epoch in range(2):\n    rest, total = val, 0.0\n    while rest.numel() > 1:\n        total += score(rest[None, :1024], rest[None, 1:1025])\n        learn(rest[None, :1024], rest[None, 1:1025])\n        rest = rest[1024:]\n",
    "rest = val\nwhile rest.numel() > 2048:\n    total += score(rest[None, :1024], rest[None, 1:1025])\n    learn(rest[None, 1024:2048], rest[None, 1025:2049])\n    rest = rest[1024:]\n",
    "held = torch.zeros(val.numel(), dtype=torch.long)\nfor w in range(0, val.numel() - 1, 1024):\n    held[w : w + 1024] = val[w : w + 1024]\nfor w in range(0, val.numel() - 1, 1024):\n    learn(held[None, w : w + 1024], held[None, w + 1 : w + 1025])\nfor w in range(0, val.numel() - 1, 1024):\n    total += score(*xy(w))\n",
]


@pytest.mark.parametrize("body", BAD)
def test_what_was_learned_and_comes_again(body: str) -> None:
    assert verdict(body) == "violation"


BACK = "for w in range(0, val.numel() - 1, 1024):\n    x, y = xy(w)\n{before}    if w % 65536 == 0:\n        model.load_state_dict(start)\n    total += score(x, y)\n{after}"


PREFIX = """\
for w in range(0, val.numel() - 1024, 64):
    x, y = xy(w)
    s = 0 if w == 0 else 960
    if s > 0:
        learn(x[:, :s], y[:, :s])
    with torch.no_grad():
        losses = nll(model, x, y)
    total += losses[0, s:].sum().item()
    if s > 0:
        model.load_state_dict(start)
"""


def test_weights_that_come_back_now_and_then() -> None:
    assert verdict(BACK.format(before="", after="    learn(x, y)\n")) == "clean"
    assert verdict(BACK.format(before="    learn(x, y)\n", after="")) == "violation"
    # under the same test as the learning
    assert verdict(PREFIX) == "clean"
