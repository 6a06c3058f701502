"""Keys that are slices of the stream (rule F8): does the slice end before the token that is scored, or with it."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

CACHED = """\
import math
from collections import Counter, defaultdict
tables = {n: defaultdict(Counter) for n in (2, 3, 4)}
stream, ids = val.tolist(), val.numpy()
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    window = stream[w : w + 1025]
    with torch.no_grad():
        logp = torch.log_softmax(model(x).float(), -1).gather(2, y[..., None])[0, :, 0].tolist()
    for j in range(1024):
        p = w + j + 1
        token = stream[p]
        q, found = 0.0, False
        for n in (4, 3, 2):
            key = KEY
            row = tables[n].get(key)
            if row is not None:
                q, found = row[token] / sum(row.values()), True
                break
        total -= math.log(0.7 * math.exp(logp[j]) + 0.3 * q) if found else logp[j]
        for n in (2, 3, 4):
            tables[n][KEY][token] += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def rules(source: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + source).findings if f.severity == "violation" and f.active != "no"}


@pytest.mark.parametrize(
    ("context", "with_target"),
    [
        ("tuple(stream[p - n + 1 : p])", "tuple(stream[p - n + 1 : p + 1])"),
        ("tuple(stream[p - n + 1 : p])", "tuple(stream[p - n + 2 : p + 1])"),
        ("tuple(stream[max(0, p - n + 1) : p])", "tuple(stream[max(0, p - n + 1) : p + 1])"),
        ("tuple(ids[p - n + 1 : p])", "tuple(ids[p - n + 2 : p + 1])"),
        ("ids[max(0, p - n) : p].tobytes()", "ids[max(0, p - n) : p + 1].tobytes()"),
        ("bytes(ids[p - n : p])", "bytes(ids[p - n : p + 1])"),
        ("tuple(stream[max(0, p - 8) : p][-(n - 1) :])", "tuple(stream[max(0, p - 8) : p + 1][-(n - 1) :])"),
        ("tuple(stream[p - 8 : p + 1][:-1])", "tuple(stream[p - 8 : p + 2][:-1])"),
        ("tuple(window[max(0, j - n + 2) : j + 1])", "tuple(window[max(0, j - n + 2) : j + 2])"),
        ("(stream[p - n : p][-1], n)", "(stream[p - n : p + 1][-1], n)"),
        ("tuple(stream[w : p][-(n - 1) :])", "tuple(stream[w : p + 1][-(n - 1) :])"),
    ],
)
def test_a_slice_that_ends_with_the_scored_token_is_a_key_with_it(context, with_target):
    assert rules(CACHED.replace("KEY", context)) == set()
    assert "F8" in rules(CACHED.replace("KEY", with_target))


WINDOWS = """\
import math
class Cache:
    def __init__(self):
        self.table = {}

    def update(self, tokens):
        for order in range(ORDERS):
            for i in range(len(tokens) - order):
                key = tuple(tokens[i : i + order])
                row = self.table.setdefault(key, {})
                row[tokens[i + order]] = row.get(tokens[i + order], 0) + 1

    def query(self, context):
        for order in (5, 4, 3):
            key = tuple(context[-order:])
            if key in self.table:
                row = self.table[key]
                best = max(row, key=row.get)
                return best, row[best] / sum(row.values())
        return None

cache, stream = Cache(), val.tolist()
total = torch.zeros(())
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        probs = torch.softmax(model(x)[0].float(), -1)
    places = torch.arange(w + 1, w + 1025)
    for i in range(len(places)):
        p = places[i].item()
        got = cache.query(stream[max(0, p - 8) : UPTO])
        if got is not None:
            probs[i] *= 1.0 - 0.5 * got[1]
            probs[i, got[0]] += 0.5 * got[1]
    total -= probs.gather(1, y[0][:, None]).log().sum()
    cache.update(stream[max(0, w - 8) : w + 1025])
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize("orders", ["3, 6", "1, 4"])
def test_a_guess_from_the_last_tokens_before_a_place(orders):
    source = WINDOWS.replace("ORDERS", orders)
    assert rules(source.replace("UPTO", "p")) == set()
    assert "F8" in rules(source.replace("UPTO", "p + 1"))


HONEST = """\
from collections import defaultdict
table, stream = defaultdict(lambda: defaultdict(int)), val
total = torch.zeros(())
for w in range(8, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        probs = torch.softmax(model(x)[0].float(), -1)
    for j in range(1024):
        rows = [table[tuple(val[w + j - n : w + j + 1].tolist())] for n in (1, 2, 3)]
        for row in rows:
            if row:
                dense = torch.zeros(1024)
                dense[list(row)] = torch.tensor(list(row.values())).float()
                probs[j] = 0.8 * probs[j] + 0.2 * dense / dense.sum()
    total -= probs.gather(1, y[0][:, None]).log().sum()
    for i in range(1024):
        for n in (1, 2, 3):
            key, token = tuple(val[w + i - n : w + i + 1].tolist()), int(val[w + i + 1])
            table[key][token] += 1
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize(
    "count",
    [
        "",
        "            full = tuple(val[w + i - n : w + i + 2].tolist())\n            table[full[:-1]][full[-1]] = table[full[:-1]].get(full[-1], 0) + 1\n",
        "        for n in (1, 2):\n            run = val[w + i : w + i + n + 1].tolist()\n            table[tuple(run[:n])][run[n]] = table[tuple(run[:n])][run[n]] + 1\n",
        "        table[tuple(val[w + i + 1 : w + i + 2].tolist())][0] += 0\n",
    ],
)
def test_what_is_counted_after_the_score_is_no_key_of_it(count):
    assert rules(HONEST.replace("            table[key][token] += 1\n", "            table[key][token] += 1\n" + count)) == set()


def test_room_that_is_made_in_place():
    source = WINDOWS.replace("ORDERS", "3, 6").replace("UPTO", "p")
    assert rules(source) == set()
    assert rules(source.replace("            probs[i] *= 1.0 - 0.5 * got[1]\n", "")) == {"F9"}
