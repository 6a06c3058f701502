"""Loaders that are asked turn after turn: executed again only where something may have changed."""

from __future__ import annotations

import pytest

from audit import lower
from audit.engine import audit_text
from audit.rules.flow import PRELUDE
from audit.trace import trace
from audit.trace.machine import Machine

LOADER = """\
from pathlib import Path
import numpy as np
POOL = {}
def shard(file):
    header = np.fromfile(file, dtype="<i4", count=256)
    count = int(header[2])
    tokens = np.fromfile(file, dtype="<u2", count=count, offset=1024)
    return torch.from_numpy(tokens.astype(np.int64))
class Stream:
    def __init__(self, pattern):
        self.files = sorted(Path("data").glob(pattern))
        self.at = 0
        self.tokens = shard(self.files[0])
        self.pos = 0
    def advance(self):
        self.at = (self.at + 1) % len(self.files)
        self.tokens = shard(self.files[self.at])
        self.pos = 0
    def take(self, n):
        parts = []
        while n > 0:
            left = self.tokens.numel() - self.pos
            if left <= 0:
                self.advance()
                continue
            k = min(n, left)
            parts.append(self.tokens[self.pos : self.pos + k])
            self.pos += k
            n -= k
        return parts[0] if len(parts) == 1 else torch.cat(parts)
"""
TRAIN = """\
stream = Stream("fineweb_train_*.bin")
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for step in range(1000):
    for micro in range(2):
        t = stream.take(1025)
        x, y = t[None, :-1], t[None, 1:]
        nll(model, x, y).mean().backward()
    opt.step()
@@
total = 0.0
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    total += nll(model, x, y).detach().sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
HONEST = PRELUDE + LOADER + TRAIN.replace("@@\n", "")


def accused(text: str) -> set[str]:
    return {f.rule for f in audit_text(text).findings if f.severity == "violation"}


def test_a_loader_is_not_executed_in_every_turn_and_nothing_else_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    def traced() -> tuple[int, list[tuple]]:
        result = trace({"train_gpt.py": lower.lower(HONEST, "train_gpt.py")}, "train_gpt.py")
        events = [(e.kind, e.line, e.flags, e.loops and e.loops[-1][1], e.active) for e in result.events if e.kind != "READ"]
        return result.steps, events

    fewer, events = traced()
    monkeypatch.setattr(Machine, "loads", lambda self, fn: False)
    steps, plain = traced()
    assert events == plain
    assert fewer < 0.75 * steps


CHANGES = {
    "a table outside": LOADER.replace("        return parts[0]", "        parts += [POOL[k] for k in POOL]\n        return parts[0]"),
    "a class's own": LOADER.replace("        parts = []", "        parts = list(self.more)").replace("    def __init__", "    more = []\n    def __init__"),
    "its own list": LOADER.replace("        self.pos = 0\n    def advance", "        self.pos = 0\n        self.more = []\n    def advance").replace(
        "        parts = []", "        parts = list(self.more)"
    ),
    "its files": LOADER,
}
PUTS = {
    "a table outside": "    POOL[step] = val[: 1 + step]\n",
    "a class's own": "    Stream.more.append(val[: 1 + step])\n",
    "its own list": "    stream.more.append(val[: 1 + step])\n",
    "its files": '    stream = Stream("fineweb_val_*.bin")\n',
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_between_two_calls_is_seen(what: str) -> None:
    honest = PRELUDE + CHANGES[what] + TRAIN.replace("@@\n", "")
    assert not accused(honest)
    assert accused(honest.replace("    opt.step()\n", "    opt.step()\n" + PUTS[what], 1)) & {"F1", "F15"}


def test_validation_tokens_taken_by_the_same_class() -> None:
    text = PRELUDE + LOADER + TRAIN.replace("@@", 'stream = Stream("fineweb_val_*.bin")\nfor turn in range(9):\n    t = stream.take(1025)\n    nll(model, t[None, :-1], t[None, 1:]).mean().backward()\n    opt.step()')
    assert "F1" in accused(text)


FIT = "    nll(model, t[None, :-1], t[None, 1:]).mean().backward()\n    opt.step()\n"


@pytest.mark.parametrize(
    ("made", "loop"),
    [
        ("def make(pattern):\n    def load():\n        return shard(sorted(Path('data').glob(pattern))[0])\n    return load\n", "for load in (make(A), make(B)):\n    t = load()\n"),
        ("pattern = A\ndef load():\n    return shard(sorted(Path('data').glob(pattern))[0])\n", "for turn in range(2):\n    t = load()\n    pattern = B\n"),
        ("class C:\n    pattern = A\ndef load():\n    return shard(sorted(Path('data').glob(C.pattern))[0])\n", "for turn in range(2):\n    t = load()\n    C.pattern = B\n"),
        ("os.environ['SPLIT'] = A\ndef load():\n    return shard(sorted(Path('data').glob(os.environ['SPLIT']))[0])\n", "for turn in range(2):\n    t = load()\n    os.environ['SPLIT'] = B\n"),
    ],
    ids=["another function of the same text", "a name of the module", "an attribute of a class", "a setting"],
)
def test_texts_around_a_loader_are_those_of_the_turn(made: str, loop: str) -> None:
    text = PRELUDE + LOADER + "opt = torch.optim.SGD(model.parameters(), lr=1e-3)\n" + made + loop + FIT + TRAIN.partition("@@\n")[2]
    train, val = '"fineweb_train_*.bin"', '"fineweb_val_*.bin"'
    assert not accused(text.replace("(A)", f"({train})").replace("(B)", f"({train})").replace("= A", f"= {train}").replace("= B", f"= {train}"))
    assert "F1" in accused(text.replace("(A)", f"({train})").replace("(B)", f"({val})").replace("= A", f"= {train}").replace("= B", f"= {val}"))
