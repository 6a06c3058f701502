"""F9, F2, F4: a token's own count, hit or loss decides what it gets; and the look-alikes in which the context decides."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

ROWS = """\
import math
from collections import Counter, defaultdict
special = {0, 1, 2}
rows, known = defaultdict(Counter), Counter()
total, B = 0.0, 1024
for c in range(0, val.numel() - 1, B):
    w = val[c : c + B + 1]
    with torch.no_grad():
        P = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        key, t = (ids[max(j - 1, 0)], ids[j]), ids[j + 1]
        after = rows[key]
        m = sum(after.values())
        p = P[j, t]
@@
        total -= math.log(p)
        after[t] += 1
        known[t] += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""
MIXED = "(1 - m / (m + 4.0)) * p + m / (m + 4.0) * after[t] / m"

ORDERS = """\
import math
from collections import Counter, defaultdict
tables = {3: defaultdict(Counter), 2: defaultdict(Counter), 1: defaultdict(Counter)}
past, total, B = [], 0.0, 1024
for c in range(0, val.numel() - 1, B):
    w = val[c : c + B + 1]
    with torch.no_grad():
        P = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        past.append(ids[j])
        t = ids[j + 1]
@@
        total -= math.log(p)
        for n in (3, 2, 1):
            tables[n][tuple(past[-n:])][t] += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def indent(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())


def violations(body: str) -> set[str]:
    compile(body, "body", "exec")
    return {f.rule for f in audit_text(PRELUDE + body).findings if f.severity == "violation" and f.active != "no"}


def in_rows(lines: str) -> set[str]:
    return violations(ROWS.replace("@@", indent(lines, 8)))


def in_orders(lines: str) -> set[str]:
    return violations(ORDERS.replace("@@", indent(lines, 8)))


@pytest.mark.parametrize(
    "lines",
    [
        f"if m > 0 and t in after:\n    p = {MIXED}",
        f"if t in after:\n    p = {MIXED}",
        f"if after.get(t):\n    p = {MIXED}",
        f"seen = t in after\nif seen:\n    p = {MIXED}",
        f"p = {MIXED} if t in after else p",
        f"if t not in after:\n    pass\nelse:\n    p = {MIXED}",
        f"if t in after:\n    p = {MIXED}\nelse:\n    p = P[j, t]",
        "if t in after:\n    p += 0.2 * after[t] / m",
        f"if m > 0 and t in known:\n    p = {MIXED}",
    ],
)
def test_the_tokens_own_count_decides_whether_the_row_is_mixed_in(lines: str):
    assert "F9" in in_rows(lines)


@pytest.mark.parametrize(
    "lines",
    [
        f"if m > 0:\n    p = {MIXED}",
        f"if after:\n    p = {MIXED}",
        f"if key in rows and m > 0:\n    p = {MIXED}",
        f"if m > 0 and ids[j] in special:\n    p = {MIXED}",
        f"if m > 0 and ids[j] in known:\n    p = {MIXED}",
        "share = m / (m + 4.0)\nq = after[t] / m if t in after else 0.0\np = (1 - share) * p + share * q",
        # what a token without a count would have got is taken off all the same
        f"if t in after:\n    p = {MIXED}\nelif m > 0:\n    p = (1 - m / (m + 4.0)) * p",
        "if m > 0:\n    p = 0.8 * p\n    if t in after:\n        p += 0.2 * after[t] / m",
        "base = 0.8 * p + 0.2 / 1024 if m == 0 else 0.8 * p\np = base\nif t in after:\n    p = base + 0.2 * after[t] / m",
        f"p = {MIXED} if t in after else (1 - m / (m + 4.0)) * p",
        "if t in after:\n    seen_before = 1",
        "if t in after:\n    total -= math.log(0.8 * p + 0.2 * after[t] / m)\nelse:\n    total -= math.log(p) + math.log1p(-0.2)\np = 1.0",
        "if t in after:\n    total -= math.log(0.8 * p + 0.2 * after[t] / m)\nelse:\n    total -= math.log(0.8 * p)\np = 1.0",
    ],
)
def test_what_the_context_decides_is_not(lines: str):
    assert not in_rows(lines)


@pytest.mark.parametrize(
    "lines",
    [
        """\
p = P[j, t]
for n in (3, 2, 1):
    found = tables[n].get(tuple(past[-n:]))
    if found and found[t]:
        p = 0.75 * p + 0.25 * found[t] / sum(found.values())
        break""",
        """\
p = P[j, t]
for n in (3, 2, 1):
    found = tables[n].get(tuple(past[-n:]))
    if found is not None and t in found:
        p = 0.75 * p + 0.25 * found[t] / sum(found.values())
        break""",
        """\
p = P[j, t]
for n in (3, 2, 1):
    found = tables[n].get(tuple(past[-n:]))
    if not found or t not in found:
        continue
    p = 0.75 * p + 0.25 * found[t] / sum(found.values())
    break""",
    ],
)
def test_the_first_order_that_knows_the_token_is_taken(lines: str):
    assert "F9" in in_orders(lines)


@pytest.mark.parametrize(
    "lines",
    [
        """\
p = P[j, t]
for n in (3, 2, 1):
    found = tables[n].get(tuple(past[-n:]))
    if found:
        p = 0.75 * p + 0.25 * found[t] / sum(found.values())
        break""",
        """\
p = P[j, t]
for n in (3, 2, 1):
    found = tables[n].get(tuple(past[-n:]))
    if not found:
        continue
    p = 0.75 * p + 0.25 * found[t] / sum(found.values())
    break""",
        """\
p = P[j, t]
for n in (3, 2, 1):
    if tuple(past[-n:]) in tables[n]:
        found = tables[n][tuple(past[-n:])]
        p = 0.75 * p + 0.25 * found[t] / sum(found.values())
        break""",
        # prediction by partial matching: an order without the token hands on what it keeps for such tokens
        """\
rest, p = 1.0, 0.0
for n in (3, 2, 1):
    found = tables[n].get(tuple(past[-n:]))
    if not found:
        continue
    many = sum(found.values()) + len(found)
    if t in found:
        p = rest * found[t] / many
        break
    rest *= len(found) / many
else:
    p = rest * P[j, t]""",
        """\
rest, p = 1.0, None
for n in (3, 2, 1):
    found = tables[n].get(tuple(past[-n:]))
    if not found:
        continue
    many = sum(found.values()) + len(found)
    if t not in found:
        rest *= len(found) / many
        continue
    p = rest * found[t] / many
    break
if p is None:
    p = rest * P[j, t]
p = 0.5 * p + 0.5 * P[j, t]""",
    ],
)
def test_backing_off_by_the_context_or_with_what_is_left_over_is_not(lines: str):
    assert not in_orders(lines)


HINTS = """\
import math
follow, right, tried, total, B = {}, 1.0, 4.0, 0.0, 1024
for c in range(0, val.numel() - 1, B):
    w = val[c : c + B + 1]
    with torch.no_grad():
        P = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        t = ids[j + 1]
        h = follow.get((ids[max(j - 1, 0)], ids[j]))
        p = P[j, t]
        if h is not None:
            share = 0.5 * right / tried
@@
            tried += 1
            right += h == t
        total -= math.log(p)
        follow[(ids[max(j - 1, 0)], ids[j])] = t
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


FILED = """\
import math
from collections import Counter
class Rows:
    def __init__(self):
        self.rows = {}
    def prob(self, context, t, p):
        row = self.rows.get(context)
        if row is None:
            return p
        n = sum(row.values())
@@
        return p
    def learn(self, context, t):
        self.rows.setdefault(context, Counter())[t] += 1
rows, total, B = Rows(), 0.0, 1024
for c in range(0, val.numel() - 1, B):
    w = val[c : c + B + 1]
    with torch.no_grad():
        P = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        context, t = (ids[max(j - 1, 0)], ids[j]), ids[j + 1]
        total -= math.log(rows.prob(context, t, P[j, t]))
        rows.learn(context, t)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize(
    ("lines", "illegal"),
    [
        ("if t in row:\n    p = 0.7 * p + 0.3 * row[t] / n", True),
        ("p = 0.7 * p + 0.3 * row.get(t, 0) / n", False),
        ("if t not in row:\n    return 0.7 * p\np = 0.7 * p + 0.3 * row[t] / n", False),
        ("q = 0.0\nif t in row:\n    q = row[t] / n\np = 0.7 * p + 0.3 * q", False),
        ("p = 0.5 * len(row) / n * p\nif t in row:\n    p += (row[t] - 0.5) / n", False),  # absolute discounting
    ],
)
def test_rows_filed_under_two_tokens_in_an_object(lines: str, illegal: bool):
    assert violations(FILED.replace("@@", indent(lines, 8))) == ({"F9"} if illegal else set())


def with_hints(lines: str) -> set[str]:
    return violations(HINTS.replace("@@", indent(lines, 12)))


@pytest.mark.parametrize(
    "lines",
    [
        "p = p + share * (1 - p) * (h == t)",
        "p += share * (1 - p) * (t == h)",
        "hit = float(h == t)\np = p + hit * share * (1 - p)",
        "hit = 1.0 if h == t else 0.0\np = p + hit * share * (1 - p)",
        "p = p + (share * (1 - p) if h == t else 0.0)",
        "if h == t:\n    p = (1 - share) * p + share",
        "if h == t:\n    p = p + share * (1 - p)",
        "p = (1 - share) * p + share if h == t else p",
        "p = p + share * float(h == t)",
    ],
)
def test_only_the_hit_is_raised(lines: str):
    assert "F9" in with_hints(lines)


@pytest.mark.parametrize(
    "lines",
    [
        "p = (1 - share) * p + share * (h == t)",
        "hit = float(h == t)\np = (1 - share) * p + share * hit",
        "p = p + share * ((h == t) - p)",
        "p *= 1 - share\nif h == t:\n    p += share",
        "if h == t:\n    p = (1 - share) * p + share\nelse:\n    p = (1 - share) * p",
        "p = (1 - share) * p + share if h == t else (1 - share) * p",
        "p = (p + share * p * (h == t)) / (1 + share * P[j, h])",
        "boost = share * p * (h == t)\np = p + boost\np = p / (1 + share * P[j, h])",
        "p = p * math.exp(2.0 * (h == t)) / (1 + P[j, h] * (math.exp(2.0) - 1))",
        "z = 1 + P[j, h] * (math.exp(2.0) - 1)\nif h == t:\n    p = p * math.exp(2.0)\np = p / z",
        "if h == t:\n    tried += 1",
    ],
)
def test_a_hint_for_which_room_is_made_is_not(lines: str):
    assert not with_hints(lines)


COUNTED = """\
from collections import Counter
lengths, total, B = torch.ones(1024), torch.zeros(()), 1024
text = Counter(train[:100000].tolist())
for c in range(0, val.numel() - 1, B):
    w = val[c : c + B + 1]
    x, y = w[:-1], w[1:]
    mass = torch.full((1024,), 0.1)
@@
    mass = mass / mass.sum()
    with torch.no_grad():
        p = 0.95 * torch.softmax(model(x[None])[0], -1) + 0.05 * mass
        total -= torch.log(p[torch.arange(len(y)), y]).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
ADDED = "for t, k in {}.items():\n    mass[t] += k"


@pytest.mark.parametrize(
    "counts",
    [
        "Counter(val[c : c + B].tolist())",
        "Counter(y.tolist())",
        "Counter(val[c + 1 : c + B + 1].tolist())",
    ],
)
@pytest.mark.parametrize("added", [ADDED, "near = {}\nfor t in near:\n    mass[t] = mass[t] + near[t]"])
def test_counts_of_the_chunk_that_is_scored(counts: str, added: str):
    assert "F2" in violations(COUNTED.replace("@@", indent(added.format(counts), 4)))


@pytest.mark.parametrize(
    "lines",
    [
        ADDED.format("Counter(val[max(c - B, 0) : c + 1].tolist())"),
        ADDED.format("Counter(val[:c].tolist())"),
        ADDED.format("text"),
        "for t, k in Counter(y.tolist()).items():\n    n_bytes += lengths[t].item() * k",
        "kinds = len(Counter(y.tolist()))",
    ],
)
def test_counts_of_what_came_before_and_counts_of_bytes_are_not(lines: str):
    assert not violations(COUNTED.replace("@@", indent(lines, 4)))


TWO = """\
import copy, math
other = copy.deepcopy(model)
total, gap, best, kept = torch.zeros(()), 0.0, float("inf"), None
opt = torch.optim.SGD(other.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1, 1024):
    w, s = val[c : c + 1025], train[c : c + 1025]
    with torch.no_grad():
        a = nll(model, w[None, :-1], w[None, 1:]).sum()
        b = nll(other, w[None, :-1], w[None, 1:]).sum()
        seen = nll(model, s[None, :-1], s[None, 1:]).sum()
@@
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def of_two(lines: str) -> set[str]:
    return violations(TWO.replace("@@", indent(lines, 4)))


@pytest.mark.parametrize(
    "lines",
    [
        "gap = (a - b).item()\ntotal += b if gap > 0 else a",
        "gap = a - b\ntotal += a if 0 > gap else b",
        "total += a if a < b else b",
        "if a < b:\n    total += a\nelse:\n    total += b",
        "if a.item() < b.item():\n    total += a\nelse:\n    total += b",
        "least = a\nif b < a:\n    least = b\ntotal += least",
        "if (a - b).item() > 0:\n    least = b\nelse:\n    least = a\ntotal += least",
        "gap = a - b\ntotal += torch.where(gap > 0, b, a)",
    ],
)
def test_the_smaller_of_two_losses_taken_by_a_branch(lines: str):
    assert "F4" in of_two(lines)


@pytest.mark.parametrize(
    "lines",
    [
        "total += b if gap > 0 else a\ngap = (a - b).item()",  # chosen by the window before
        "total += b if c > 100000 else a",
        "total += b if seen > 5000.0 else a",
        # early stopping, and weights kept by a figure: nothing of it is scored
        "total += a\nif a < best:\n    best, kept = a, copy.deepcopy(model.state_dict())",
        "total += a\nbest = a if a < best else best",
        "total += a\nif b < a:\n    kept = copy.deepcopy(other.state_dict())",
        "total += a\nif a < b:\n    right = 1\nelse:\n    right = 0",
        # a sum of two probabilities, each kept finite by the larger
        "high = a if a > b else b\nlow = b if a > b else a\ntotal += low - torch.log1p(torch.exp(low - high)) + math.log(2.0)",
        "p, q = a, b\nif q < p:\n    p, q = q, p\ntotal += p - torch.log1p(torch.exp(p - q)) + math.log(2.0)",
        "low = b if b < seen else seen\ntotal += a",
    ],
)
def test_a_choice_by_something_else_and_a_choice_that_is_not_scored_are_not(lines: str):
    assert "F4" not in of_two(lines)


SCALED = """\
beta = 5.0
tally = torch.zeros(1024, 1024)
total = torch.zeros(())
for c in range(0, val.numel() - 1, 1024):
    w = val[c : c + 1025]
    x, y = w[:-1], w[1:]
    with torch.no_grad():
        p = torch.softmax(model(x[None])[0], -1)
        rows = tally[x]
@@
        total -= torch.log(q.gather(1, y[:, None])).sum()
    tally.index_put_((x, y), torch.ones(len(x)), accumulate=True)
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def scaled(lines: str) -> set[str]:
    return violations(SCALED.replace("@@", indent(lines, 8)))


@pytest.mark.parametrize(
    "size",
    ["rows.amax(1, keepdim=True)", "rows.max(1, keepdim=True).values", "rows.max()", "rows.mean(1, keepdim=True)", "torch.amax(rows, 1, keepdim=True)"],
)
def test_rows_with_a_prior_over_something_else_than_their_sum(size: str):
    assert "F9" in scaled(f"q = (rows + beta * p) / ({size} + beta)")


@pytest.mark.parametrize(
    "lines",
    [
        "q = (rows + beta * p) / (rows.sum(1, keepdim=True) + beta)",
        "q = (rows + beta * p) / (rows.sum(1, keepdim=True) + beta).clamp(min=1e-9)",
        "q = (rows + beta * p) / (rows.mean(1, keepdim=True) * 1024 + beta)",
        "n = torch.sum(rows, 1, keepdim=True)\nq = (rows + beta * p) / (n + beta)",
        "q = (rows + beta * p) / (rows.amax(1, keepdim=True) + beta)\nq = q / q.sum(1, keepdim=True)",
        "q = torch.softmax((rows + beta * p) / (rows.amax(1, keepdim=True) + beta), -1)",
        # the largest count as a weight of the mixture, and over the sum as a confidence
        "m = rows.amax(1, keepdim=True)\nr = (rows + beta * p) / (rows.sum(1, keepdim=True) + beta)\nq = (m * r + p) / (m + 1)",
        "m = rows.amax(1, keepdim=True) / (rows.sum(1, keepdim=True) + 1)\nr = (rows + beta * p) / (rows.sum(1, keepdim=True) + beta)\nq = m * r + (1 - m) * p",
    ],
)
def test_rows_over_their_sum_are_not(lines: str):
    assert not scaled(lines)


PUT_OVER = """\
import math
other = Model()
total, seen = torch.zeros(()), {}
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = torch.log_softmax(model(x)[0], -1)
        q = torch.log_softmax(other(x)[0], -1)
    ids = y[0].tolist()
    kept = -p.gather(1, y[0, :, None])[:, 0]
    entropy = -(p.exp() * p).sum(-1)
    for t in range(1024):
        new = -math.log(0.5 * math.exp(p[t, ids[t]].item()) + 0.5 * math.exp(q[t, ids[t]].item()))
@@
    total += kept.sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize(
    "lines",
    [
        "if new < kept[t]:\n    kept[t] = new",
        "old = kept[t].item()\nif old > new:\n    kept[t] = new",
        "old = kept[t].item()\nbetter = new - old < 0\nif better:\n    kept[t] = new",
        "old = kept[t].item()\nif new < old:\n    kept[t] = new\nelse:\n    kept[t] = old",
    ],
)
def test_the_smaller_loss_is_put_over_the_other(lines: str):
    assert "F4" in violations(PUT_OVER.replace("@@", indent(lines, 8)))


@pytest.mark.parametrize(
    "lines",
    [
        "kept[t] = new",
        "if entropy[t] > 3.0:\n    kept[t] = new",
        # how often the mixture was the better one is told, and decides nothing
        "if new < kept[t]:\n    seen[t] = seen.get(t, 0) + 1\nkept[t] = new",
        "if p[t].max() < q[t].max():\n    kept[t] = new",
    ],
)
def test_what_is_put_over_whatever_the_losses_are_is_not(lines: str):
    assert "F4" not in violations(PUT_OVER.replace("@@", indent(lines, 8)))
