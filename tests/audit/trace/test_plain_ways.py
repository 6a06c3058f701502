"""One honest score-first adaptation, written in the many ways in which people write it: none is accused, each is once it learns first."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

HEAD = """\
import math, operator
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple
LN2 = math.log(2.0)
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def xy(w, n=1024):
    return val[None, w : w + n], val[None, w + 1 : w + n + 1]
def learn(x, y):
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()
"""
END = 'print(f"val_bpb:{total / LN2 / n_bytes:.4f}")\n'


def found(body: str) -> tuple[str, set[str]]:
    result = audit_text(PRELUDE + HEAD + body + END)
    return result.verdict, {f.rule for f in result.findings if f.severity == "violation"}


# (before the loop, what a turn does with its losses, after the loop)
TOTALS = [
    ("many = []", "many.append((w, losses.sum().item()))", "total = sum(n for _, n in many)"),
    ("many = []", 'many.append({"at": w, "nats": losses.sum().item()})', 'total = sum(r["nats"] for r in many)'),
    ("class Row(NamedTuple):\n    at: int\n    nats: float\nmany = []", "many.append(Row(w, losses.sum().item()))", "total = sum(r.nats for r in many)"),
    ("many = []", "many.extend(losses.flatten().tolist())", "total = math.fsum(many)"),
    ("many = []", "many += [losses.sum()]", "total = torch.stack(many).sum().item()"),
    ("mean, n = 0.0, 0", "n += y.numel()\nmean += (losses.sum().item() - mean * y.numel()) / n", "total = mean * n"),
    ("mean, n = torch.zeros(()), 0", "n += 1\nmean = torch.lerp(mean, losses.mean(), 1.0 / n)", "total = mean.item() * (val.numel() - 1)"),
    ("total, c = 0.0, 0.0", "t = losses.sum().item() - c\nnew = total + t\nc = (new - total) - t\ntotal = new", ""),
    ("total = torch.zeros(())", "total = operator.iadd(total, losses.sum())", ""),
    ("total = None", "total = losses.sum() if total is None else total + losses.sum()", ""),
    ("acc = torch.zeros(4)\nslot = torch.zeros(1, dtype=torch.long)", "acc.index_add_(0, slot, losses.sum().reshape(1))", "total = acc.sum().item()"),
    ("held = torch.zeros(val.numel() - 1)", "held.index_copy_(0, torch.arange(w, w + y.numel()), losses[0])", "total = held.sum().item()"),
]


@pytest.mark.parametrize(("before", "add", "after"), TOTALS)
def test_however_losses_are_added_up(before: str, add: str, after: str) -> None:
    score = "with torch.no_grad():\n    losses = nll(model, x, y)\n" + add + "\n"
    turns = (score, "learn(x, y)\n"), ("learn(x, y)\n", score)
    ok, bad = (
        before + "\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = xy(w)\n" + "".join("    " + x + "\n" for x in "".join(t).splitlines()) + after + "\n"
        for t in turns
    )
    assert found(ok) == ("clean", set())
    assert found(bad)[0] == "violation"


# how a turn comes by its window
WALKS = {
    "records of tokens": "@dataclass\nclass Win:\n    x: torch.Tensor\n    y: torch.Tensor\nwins = [Win(*xy(w)) for w in range(0, val.numel() - 1, 1024)]\nfor win in wins:\n    x, y = win.x, win.y\n",
    "records of places": "@dataclass\nclass Win:\n    start: int\n    stop: int\nwins = [Win(w, min(w + 1024, val.numel() - 1)) for w in range(0, val.numel() - 1, 1024)]\nfor win in wins:\n    x, y = val[None, win.start : win.stop], val[None, win.start + 1 : win.stop + 1]\n",
    "dictionaries": 'wins = [dict(a=w, b=min(w + 1024, val.numel() - 1)) for w in range(0, val.numel() - 1, 1024)]\nfor win in wins:\n    x, y = val[None, win["a"] : win["b"]], val[None, win["a"] + 1 : win["b"] + 1]\n',
    "an iterator": "class Reader:\n    def __init__(self, tokens):\n        self.tokens, self.pos = tokens, 0\n    def __iter__(self):\n        return self\n    def __next__(self):\n        if self.pos >= self.tokens.numel() - 1:\n            raise StopIteration\n        c = self.tokens[self.pos : self.pos + 1025]\n        self.pos += 1024\n        return c[None, :-1], c[None, 1:]\nfor x, y in Reader(val):\n",
    "a reader": "class Reader:\n    def __init__(self, tokens):\n        self.tokens, self.pos = tokens, 0\n    def read(self, n):\n        c = self.tokens[self.pos : self.pos + n + 1]\n        self.pos += n\n        return c[None, :-1], c[None, 1:]\n    def done(self):\n        return self.pos >= self.tokens.numel() - 1\nr = Reader(val)\nwhile not r.done():\n    x, y = r.read(1024)\n",
    "a reader whose end is computed": "class Reader:\n    def __init__(self, tokens):\n        self.tokens, self.pos = tokens, 0\n    def read(self, n):\n        end = min(self.pos + n, self.tokens.numel() - 1)\n        c = self.tokens[self.pos : end + 1]\n        self.pos = end\n        return c[None, :-1], c[None, 1:]\nr = Reader(val)\nwhile r.pos < val.numel() - 1:\n    x, y = r.read(1024)\n",
}
SCORE = "    with torch.no_grad():\n        total += nll(model, x, y).sum().item()\n"


@pytest.mark.parametrize("walk", WALKS)
def test_however_windows_are_walked(walk: str) -> None:
    assert found("total = 0.0\n" + WALKS[walk] + SCORE + "    learn(x, y)\n") == ("clean", set())
    assert found("total = 0.0\n" + WALKS[walk] + "    learn(x, y)\n" + SCORE)[0] == "violation"


STEP = """\
class Evaluator:
    def __init__(self, tokens):
        self.tokens, self.pos, self.nats = tokens, 0, 0.0
    def step(self):
        c = self.tokens[self.pos : self.pos + 1025]
        x, y = c[None, :-1], c[None, 1:]
{turn}        self.pos += 1024
        return self.pos < self.tokens.numel() - 1
ev = Evaluator(val)
while ev.step():
    pass
total = ev.nats
"""


def test_a_test_that_takes_the_next_step() -> None:
    score, fit = "        with torch.no_grad():\n            self.nats += nll(model, x, y).sum().item()\n", "        learn(x, y)\n"
    assert found(STEP.format(turn=score + fit)) == ("clean", set())
    assert found(STEP.format(turn=fit + score))[0] == "violation"


READER = WALKS["a reader"].partition("r = Reader")[0]
ADD = "    with torch.no_grad():\n        total += nll(model, x, y).sum().item()\n"
AGAIN = {
    "before and after, in one record": "many = []\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = xy(w)\n    a = nll(model, x, y).detach().sum()\n    learn(x, y)\n    b = nll(model, x, y).detach().sum()\n    many.append((a, b))\ntotal = sum(b.item() for _, b in many)\n",
    "before and after, mixed": "total = 0.0\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = xy(w)\n    a = nll(model, x, y).detach().sum()\n    learn(x, y)\n    total += (0.5 * a + 0.5 * nll(model, x, y).detach().sum()).item()\n",
    "the next window is learned": "losses = 0.0\nfor w in range(0, val.numel() - 1025, 1024):\n    losses = losses + nll(model, *xy(w)).detach().sum()\n    learn(*xy(w + 1024))\ntotal = losses.item()\n",
    "records that share the stream": "@dataclass\nclass Job:\n    tokens: torch.Tensor\n    lr: float\nfor job in [Job(val, lr) for lr in np.linspace(0.1, 1, 10)]:\n    total = 0.0\n    for w in range(0, val.numel() - 1, 1024):\n        x, y = job.tokens[None, w : w + 1024], job.tokens[None, w + 1 : w + 1025]\n        total += nll(model, x, y).detach().sum().item()\n        learn(x, y)\n",
    "rewound": READER + "for epoch in range(3):\n    r.pos, total = 0, 0.0\n    while not r.done():\n        x, y = r.read(1024)\n" + ADD.replace("    ", "        ", 1).replace("\n    ", "\n        ", 1) + "        learn(x, y)\n",
    "built anew": READER + "for epoch in range(3):\n    r, total = Reader(val), 0.0\n    while not r.done():\n        x, y = r.read(1024)\n" + ADD.replace("    ", "        ", 1).replace("\n    ", "\n        ", 1) + "        learn(x, y)\n",
    "epochs at one place": "class At:\n    pos = 0\nr, total = At(), 0.0\nwhile r.pos < val.numel() - 1:\n    for epoch in range(3):\n        losses = nll(model, *xy(r.pos))\n        if epoch == 2:\n            total += losses.detach().sum().item()\n        opt.zero_grad()\n        losses.mean().backward()\n        opt.step()\n    r.pos += 1024\n",
}


@pytest.mark.parametrize("again", AGAIN)
def test_what_is_scored_after_it_was_learned(again: str) -> None:
    body = AGAIN[again].replace(READER, READER + "r = Reader(val)\n") if again == "rewound" else AGAIN[again]
    assert found(body)[0] == "violation"


FITS = [
    "scaler.scale(nll(model, x, y).mean()).backward()\nscaler.step(opt)\nscaler.update()",
    "opt.zero_grad()\naccelerator.backward(nll(model, x, y).mean())\nopt.step()",
]


@pytest.mark.parametrize("fit", FITS)
def test_scaled_gradients(fit: str) -> None:
    walk = "scaler, accelerator, total = torch.amp.GradScaler(), Accelerator(), 0.0\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = xy(w)\n"
    lines = "".join("    " + x + "\n" for x in fit.splitlines())
    assert found(walk + SCORE + lines) == ("clean", set())
    assert found(walk + lines + SCORE)[0] == "violation"


# the same, where calls stand for subscripts, operators and loops
SPELLED = [
    ("held = torch.zeros(val.numel() - 1)", "held[w : w + 1024].copy_(losses[0])", "total = held.sum().item()"),
    ("held = torch.empty(val.numel() - 1)", "held.narrow(0, w, y.numel()).copy_(losses.flatten())", "total = held.sum().item()"),
    ("acc = np.zeros(1)", "np.add.at(acc, 0, losses.sum().item())", "total = acc[0]"),
    ("acc = np.zeros(1)", "np.add(acc, losses.sum().item(), out=acc)", "total = acc[0]"),
    ("class Sums:\n    nats = 0.0\n    def __iadd__(self, losses):\n        self.nats += losses.sum().item()\n        return self\nsums = Sums()", "sums += losses", "total = sums.nats"),
    ("@dataclass(frozen=True)\nclass Sums:\n    nats: float = 0.0\n    def __add__(self, other):\n        return Sums(self.nats + other.nats)\nsums = Sums()", "sums = sums + Sums(losses.sum().item())", "total = sums.nats"),
    ("bits = 0.0", "bits -= model(x).softmax(-1).gather(-1, y[..., None]).log2().sum().item()", "total = bits * LN2"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "add", "after"), SPELLED)
def test_calls_that_stand_for_assignments(before: str, add: str, after: str) -> None:
    test_however_losses_are_added_up(before, add, after)


CUTS = {
    "narrow": "for w in range(0, val.numel() - 1, 1024):\n    k = min(1024, val.numel() - 1 - w)\n    x, y = val.narrow(0, w, k)[None], val.narrow(0, w + 1, k)[None]\n",
    "index_select": "for w in range(0, val.numel() - 1, 1024):\n    at = torch.arange(w, min(w + 1024, val.numel() - 1))\n    x, y = val.index_select(0, at)[None], val.index_select(0, at + 1)[None]\n",
    "take": "for w in range(0, val.numel() - 1, 1024):\n    at = torch.arange(w, min(w + 1024, val.numel() - 1))\n    x, y = torch.take(val, at)[None], torch.take(val, at + 1)[None]\n",
    "roll": "after = val.roll(-1)\nfor w in range(0, val.numel() - 1, 1024):\n    b = min(w + 1024, val.numel() - 1)\n    x, y = val[None, w:b], after[None, w:b]\n",
    "starmap": "import itertools\nfor x, y in itertools.starmap(xy, [(w, 1024) for w in range(0, val.numel() - 1, 1024)]):\n",
    "a data set of tensors": "from torch.utils.data import DataLoader, TensorDataset\nn = (val.numel() - 1) // 1024\nds = TensorDataset(val[: n * 1024].view(n, 1024), val[1 : n * 1024 + 1].view(n, 1024))\nfor x, y in DataLoader(ds, batch_size=8):\n",
}


@pytest.mark.parametrize("walk", CUTS)
def test_calls_that_stand_for_subscripts(walk: str) -> None:
    assert found("total = 0.0\n" + CUTS[walk] + SCORE + "    learn(x, y)\n") == ("clean", set())
    assert found("total = 0.0\n" + CUTS[walk] + "    learn(x, y)\n" + SCORE)[0] == "violation"


FOLDED = """\
from functools import reduce
def step(total, w):
    x, y = xy(w)
{turn}    return total
total = reduce(step, range(0, val.numel() - 1, 1024), 0.0)
"""
ROWS = """\
def step(w):
    x, y = xy(w)
{turn}    return losses.sum().item(), y.numel()
total, n = map(sum, zip(*[step(w) for w in range(0, val.numel() - 1, 1024)]))
"""


@pytest.mark.parametrize(
    ("body", "score"),
    [
        (FOLDED, "    with torch.no_grad():\n        total = total + nll(model, x, y).sum().item()\n"),
        (ROWS, "    with torch.no_grad():\n        losses = nll(model, x, y)\n"),
    ],
)
def test_calls_that_stand_for_loops(body: str, score: str) -> None:
    assert found(body.format(turn=score + "    learn(x, y)\n")) == ("clean", set())
    assert found(body.format(turn="    learn(x, y)\n" + score))[0] == "violation"


LATE = {
    "added after the update": "total = 0.0\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = xy(w)\n    nats = nll(model, x, y).detach().sum().item()\n    learn(x, y)\n    total += nats\n",
    "returned after the update": "def step(w):\n    x, y = xy(w)\n    nats = nll(model, x, y).detach().sum().item()\n    learn(x, y)\n    return nats\ntotal = 0.0\nfor w in range(0, val.numel() - 1, 1024):\n    total += step(w)\n",
    "a list that is added up at the end": "many = []\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = xy(w)\n    many.append((w, nll(model, x, y).detach().sum().item()))\n    learn(x, y)\ntotal = sum(n for _, n in many)\n",
}


@pytest.mark.parametrize("body", LATE)
def test_what_was_computed_first_and_counted_later_is_scored_first(body: str) -> None:
    result = audit_text(PRELUDE + HEAD + LATE[body] + END)
    assert (result.verdict, result.ttt["kind"]) == ("clean", "score-first-chunk")


def test_a_counter_of_an_object_keeps_its_number() -> None:
    first = "class Seen:\n    n = 0\n    def score(self, x, y):\n        self.n += 1\n        if self.n < 1:\n            learn(x, y)\n        return nll(model, x, y).detach().sum().item()\nseen, total = Seen(), 0.0\nfor w in range(0, val.numel() - 1, 1024):\n    x, y = xy(w)\n    total += seen.score(x, y)\n"
    assert found(first) == ("clean", set())
