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
        ("tuple(list(ids[p - n : p + 1])[:-1])", "tuple(list(ids[p - n : p + 2])[:-1])"),
        ("tuple(map(int, ids[p - n : p]))[:1]", "tuple(list(ids[p - n : p + 1]))"),
        ("(list(stream[p - n : p + 1])[0], n)", "(list(stream[p - n : p + 1])[-1], stream[p], n)"),
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


COUNTED = """\
import collections, math
class Tree:
    def __init__(self):
        self.rows, self.context = {}, []
    def update(self, token):
        for n in (1, 2):
            row = self.rows.setdefault(tuple(self.context[-n:]), {})
            row[token] = row.get(token, 0) + 1
        self.context.append(token)
        if len(self.context) > 4:
            self.context = self.context[-4:]
    def predict(self, token):
        row = self.rows.get(tuple(self.context[-2:]), {})
        return (row.get(token, 0) + 0.01) / (sum(row.values()) + 10.24)

tree, total = Tree(), 0.0
for w in range(8, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logp = torch.log_softmax(model(x).float(), -1).gather(2, y[..., None])[0, :, 0].tolist()
    for j, token in enumerate(y[0].tolist()):
        total -= math.log(0.7 * math.exp(logp[j]) + 0.3 * tree.predict(token))
    COUNT
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize(
    "count",
    [
        "collections.deque(map(tree.update, y.flatten().tolist()), maxlen=0)",
        "[tree.update(t) for t in y[0].tolist()]",
        "for t in list(y[0].tolist()):\n        tree.update(t)",
        "pending = y[0].tolist()\n    while pending:\n        tree.update(pending.pop(0))",
    ],
)
def test_a_context_that_is_carried_from_window_to_window(count):
    assert rules(COUNTED.replace("COUNT", count)) == set()


STREAMED = """\
import math
from collections import deque
rows, context, total = {}, [], 0.0
for w in range(8, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logp = deque(torch.log_softmax(model(x).float(), -1).gather(2, y[..., None])[0, :, 0].tolist())
    pending, at = TOKENS, 0
    while pending:
        token = pending.TAKE
        row = rows.setdefault(tuple(context[-2:]), {})
        total -= math.log(0.7 * math.exp(logp.popleft()) + 0.3 * (row.get(token, 0) + 0.01) / (sum(row.values()) + 10.24))
        row[token] = row.get(token, 0) + 1
        context.append(token)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize(
    ("tokens", "take"),
    [("y[0].tolist()", "pop(0)"), ("val[w + 1 : w + 1025].tolist()", "pop(0)"), ("deque(y[0].tolist())", "popleft()"), ("deque(val[w + 1 : w + 1025].tolist())", "popleft()")],
)
def test_tokens_that_are_taken_one_by_one(tokens, take):
    assert rules(STREAMED.replace("TOKENS", tokens).replace("TAKE", take)) <= {"F3"}  # that each is taken once is not followed


HASHED = """\
import math, zlib
M = 1 << 16
counts, sums = np.zeros((M, 1024)), np.zeros(M)
PRIMES = np.array([36313, 27191, 51647, 81929, 131071])
stream, ids = val.tolist(), val.numpy()
total = 0.0
def folded(tokens):
    h = 0
    for t in tokens:
        h = (h * 31 + t) % M
    return h
for w in range(8, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logp = torch.log_softmax(model(x).float(), -1).gather(2, y[..., None])[0, :, 0].tolist()
    for j in range(1024):
        p = w + j + 1
        token = stream[p]
        key = KEY
        q = (counts[key][token] + 0.01) / (sums[key] + 10.24)
        total -= math.log(0.7 * math.exp(logp[j]) + 0.3 * q)
        counts[key, token] += 1
        sums[key] += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize(
    ("context", "with_target"),
    [
        ("folded(stream[p - 3 : p])", "folded(stream[p - 3 : p + 1])"),
        ("hash(tuple(stream[p - 3 : p])) % M", "hash(tuple(stream[p - 3 : p + 1])) % M"),
        ("int((ids[p - 3 : p] * PRIMES[:3]).sum()) % M", "int((ids[p - 2 : p + 1] * PRIMES[:3]).sum()) % M"),
        ("zlib.crc32(ids[p - 3 : p].tobytes()) % M", "zlib.crc32(ids[p - 3 : p + 1].tobytes()) % M"),
        ("int(ids[p - 3 : p] @ PRIMES[:3]) % M", "int(ids[p - 2 : p + 1] @ PRIMES[:3]) % M"),
        ("(stream[p - 1] * 36313 ^ stream[p - 2] * 27191) % M", "(stream[p - 1] * 36313 ^ stream[p] * 27191) % M"),
    ],
)
def test_a_hash_of_a_slice_holds_its_last_token(context, with_target):
    assert rules(HASHED.replace("KEY", context)) == set()
    assert "F8" in rules(HASHED.replace("KEY", with_target))
