"""Tables that take in, at the beginning of a turn, what the turn before has scored: by places, not by the order of statements."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")\n'


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + "import math\nfrom collections import Counter, defaultdict\n" + body + END).findings if f.severity == "violation"}


PAIRS = """\
ids = val.numpy()
n, T = (val.numel() - 1) // 1024, 1024
logp = np.zeros(n * T)
for b in range(0, n, 32):
    s, e = b * T, min(b + 32, n) * T
    x, y = val[s:e].reshape(-1, T), val[s + 1 : e + 1].reshape(-1, T)
    with torch.no_grad():
        logp[s:e] = -nll(model, x, y).reshape(-1).numpy()
table, total = defaultdict(Counter), 0.0
for pos in range(n * T):
    target, previous = int(ids[pos + 1]), int(ids[pos])
    {}
    row = table[tuple(ids[pos - 1 : pos + 1])]
    seen = sum(row.values())
    q = (row[target] + 1 / 1024) / (seen + 1)
    total -= math.log(0.9 * math.exp(logp[pos]) + 0.1 * q)
"""


@pytest.mark.parametrize(
    ("count", "found"),
    [
        ("table[tuple(ids[pos - 2 : pos])][previous] += 1", False),
        ("table[tuple(ids[pos - 2 : pos])][int(ids[pos])] += 1", False),
        ("if pos > 0:\n        table[tuple(ids[pos - 2 : pos])][previous] += 1", False),
        ("if pos > 1:\n        table[tuple(ids[pos - 3 : pos - 1])][int(ids[pos - 1])] += 1", False),
        ("table[tuple(ids[pos - 1 : pos + 1])][target] += 1", True),
        ("table[tuple(ids[pos - 1 : pos + 1])][int(ids[pos + 1])] += 1", True),
        ("for later in ids[pos : pos + 8]:\n        table[tuple(ids[pos - 1 : pos + 1])][int(later)] += 1", True),
    ],
)
def test_the_pair_that_ended_in_the_turn_before(count, found):
    assert ("F2" in accused(PAIRS.format(count))) is found


ROWS = """\
class Tree:
    def __init__(self):
        self.counts, self.seen = dict(), 0
    def update(self, symbol):
        self.counts[symbol] = self.counts.get(symbol, 0) + 1
        self.seen += 1
    def mix(self, logits):
        p = torch.softmax(logits, -1)
        q = torch.full((1024,), 0.5)
        for symbol, count in self.counts.items():
            q[symbol] += count
        return torch.log(0.9 * p + 0.1 * q / (self.seen + 512))

tree, total, T, S = Tree(), 0.0, 1024, 64
for i in range((val.numel() - 1 - T) // S):
    start = i * S
    local = val[start : start + T + 1].long()
    x, y = local[:-1].unsqueeze(0), local[1:].unsqueeze(0)
    first = 0 if i == 0 else T - S
    with torch.no_grad():
        logits, targets = model(x)[:, first:, :], y[:, first:]
        mixed = logits.clone()
        for t in range(logits.shape[1]):
            {}
            mixed[0, t, :] = tree.mix(logits[0, t, :].float())
            {}
        total += F.cross_entropy(mixed.reshape(-1, 1024), targets.reshape(-1), reduction="sum").item()
"""


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("pass", "tree.update(targets[0, t].item())", False),
        ("tree.update(x[0, first + t].item())", "pass", False),
        ("if t > 0:\n                tree.update(targets[0, t - 1].item())", "pass", False),
        ("if t:\n                tree.update(int(targets[0, t - 1]))", "pass", False),
        ("tree.update(targets[0, t].item())", "pass", True),
        ("tree.update(y[0, first + t].item())", "pass", True),
        ("tree.update(x[0, first + t + 1].item())", "pass", True),
    ],
)
def test_the_token_before_the_one_that_a_row_predicts(before, after, found):
    assert ("F2" in accused(ROWS.format(before, after))) is found


CHUNKS = """\
class Cache:
    def __init__(self):
        self.counts = [{{}} for _ in range(5)]
    def update(self, tokens):
        for i in range(len(tokens)):
            target = tokens[i]
            for order in range(2, 5):
                if i < order - 1:
                    continue
                key = tuple(tokens[i - order + 1 : i]) if order > 2 else tokens[i - 1]
                row = self.counts[order].setdefault(key, {{}})
                row[target] = row.get(target, 0) + 1
    def prob(self, key, target):
        row = self.counts[2].get(key, {{}})
        return (row.get(target, 0) + 0.5) / (sum(row.values()) + 512.0)

cache, total, C, known = Cache(), 0.0, 32768, 0
for k in range((val.numel() - 1) // C):
    c = k * C
    e = min(c + C, val.numel() - 1)
    {}
    for s in range(c, e, 1024):
        with torch.no_grad():
            loss = nll(model, val[None, s : s + 1024], val[None, s + 1 : s + 1025])[0]
        for j in range(1024):
            q = cache.prob(val[s + j].item(), val[s + j + 1].item())
            total -= math.log(0.9 * math.exp(-loss[j].item()) + 0.1 * q)
"""


@pytest.mark.parametrize(
    ("update", "found"),
    [
        ("if k > 0:\n        cache.update(val[c - C : c].tolist())", False),
        ("if k > 0:\n        cache.update(val[c - C : c + 1].tolist())", False),  # the last target of the chunk before
        ("cache.update(val[known:c].tolist())\n    known = c", False),
        ("cache.update(val[known : c + 1].tolist())\n    known = c", False),
        ("cache.update(val[c:e].tolist())", True),
        ("cache.update(val[c : e + 1].tolist())", True),
        ("if k > 0:\n        cache.update(val[c - C : c + 2].tolist())", True),
        ("cache.update(val[known:e].tolist())\n    known = c", True),
    ],
)
def test_the_chunk_before(update, found):
    assert ("F2" in accused(CHUNKS.format(update))) is found


BEFORE_IT_SCORES = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def learn(a, b):
    opt.zero_grad()
    nll(model, val[None, a:b], val[None, a + 1 : b + 1]).mean().backward()
    opt.step()
total, C, n, known = torch.zeros(()), 32768, val.numel() - 1, 0
for k in range(n // C):
    c = k * C
    {}
    with torch.no_grad():
        total += nll(model, val[None, c : c + C], val[None, c + 1 : c + C + 1]).sum()
"""


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("if k > 0:\n        learn(c - C, c)", False),
        ("if k > 0:\n        learn(0, c)", False),
        ("learn(0, c)", False),
        ("learn(max(c - 4 * C, 0), c)", False),
        ("learn(known, c)\n    known = c", False),
        ("for s in range(0, c, 1024):\n        learn(s, s + 1024)", False),
        ("if k > 0:\n        for s in range(c - C, c, 1024):\n            learn(s, s + 1024)", False),
        ("for j in range(k):\n        learn(j * C, j * C + C)", False),
        ("for j in range(0, k, 2):\n        learn(j * C, j * C + C)", False),
        ("if k > 0:\n        learn(c - C, c + 1)", True),
        ("if k > 0:\n        learn(c - C, c + C)", True),
        ("learn(0, c + 64)", True),
        ("learn(max(c - 4 * C, 0), c + 64)", True),
        ("learn(known, c + C)\n    known = c", True),
        ("for s in range(0, c, 1024):\n        learn(s, s + 2048)", True),
        ("if k > 0:\n        for s in range(c - C, c, 1024):\n            learn(s, s + 2048)", True),
        ("for j in range(k + 1):\n        learn(j * C, j * C + C)", True),
        ("for j in range(k):\n        learn(j * C, j * C + 2 * C)", True),
    ],
)
def test_a_turn_that_learns_before_it_scores(lines, found):
    assert ("F2" in accused(BEFORE_IT_SCORES.format(lines))) is found


def test_a_turn_that_scores_in_two_parts_and_learns_in_between():
    def halves(end: str) -> set[str]:
        parts = BEFORE_IT_SCORES.format("h = C // 2\n    with torch.no_grad():\n        total += nll(model, val[None, c : c + h], val[None, c + 1 : c + h + 1]).sum()\n    learn(c, " + end + ")")
        return accused(parts.replace("val[None, c : c + C], val[None, c + 1 :", "val[None, c + h : c + C], val[None, c + h + 1 :"))

    assert not halves("c + h")
    assert "F2" in halves("c + h + 1")


def test_the_elements_of_a_list_have_no_place_in_their_turn():
    windows = BEFORE_IT_SCORES.partition("for k")[0] + "ws = [i for i in range(0, n, 1024)]\nfor i in range(0, len(ws), 32):\n    for w in ws[{}]:\n        learn(w, w + 1024)\n    for w in ws[i : i + 32]:\n        with torch.no_grad():\n            total += nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025]).sum()\n"
    assert not accused(windows.format("max(i - 32, 0) : i"))
    assert "F2" in accused(windows.format("i : i + 32"))


GATHERED = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
docs, size, total = [(i, 1024) for i in range(0, val.numel() - 1, 1024)], 32, torch.zeros(())
for lo in range(0, len(docs), 8):
    batch = docs[lo : lo + 8]
    for ci in range(max((d[1] + size - 1) // size for d in batch)):
        starts, lens = torch.zeros(len(batch), dtype=torch.int64), torch.zeros(len(batch), dtype=torch.int64)
        for b in range(len(batch)):
            start, length = batch[b]
            starts[b] = start + max(0, (ci + 1) * size - 2048)
            lens[b] = min(size, length - ci * size)
        width = (ci + 1) * size - max(0, (ci + 1) * size - 2048)
        columns = torch.arange(width + 1)
        idx = (starts.unsqueeze(1) + columns.unsqueeze(0)).clamp_(max=val.numel() - 1)
        window = val[idx]
        x, y = window[:, :width], window[:, 1 : width + 1]
        x = torch.where(columns[:width].unsqueeze(0) < lens.unsqueeze(1), x, 0)
        loss = nll(model, x, y)
        with torch.no_grad():
            total += (loss * (columns[:width] >= width - size)).sum()
        {}
        opt.zero_grad()
        loss[:, width - size : width].mean().backward()
        opt.step()
"""


@pytest.mark.parametrize(
    ("learned", "found"),
    [
        ("pass", False),
        ("loss = nll(model, x, y)", False),
        ("again = val[idx.clone()]\n        loss = nll(model, again[:, :width], again[:, 1 : width + 1])", False),
        ("before = val[(idx - size).clamp_(min=0)]\n        loss = nll(model, before[:, :width], before[:, 1 : width + 1])", False),
        ("ahead = val[(idx + size).clamp_(max=val.numel() - 1)]\n        loss = nll(model, ahead[:, :width], ahead[:, 1 : width + 1])", True),
        ("later = (idx + 32).clamp_(max=val.numel() - 1)\n        w = val[later].long()\n        loss = nll(model, w[:, :width], w[:, 1 : width + 1])", True),
    ],
)
def test_windows_gathered_behind_those_that_were_scored(learned, found):
    assert ("F2" in accused(GATHERED.format(learned))) is found
