"""F9: a shorter context is asked where the longer one has not seen the *token*; and where it has not been seen itself."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

ORDERS = """\
import math
from collections import Counter, defaultdict
D, V = 0.75, 1024
tables = {o: defaultdict(Counter) for o in (1, 2, 3)}
known, n_known, past = Counter(), 0, []
def ngram(past, t):
    p = (known[t] + 1.0) / (n_known + 1024.0)
    for o in (1, 2, 3):
        if len(past) < o:
            break
        row = tables[o].get(tuple(past[-o:]))
        if not row:
            continue
        m = sum(row.values())
@@
    return p
total, B = 0.0, 1024
for c in range(0, val.numel() - 1, B):
    w = val[c : c + B + 1]
    with torch.no_grad():
        P = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        past.append(ids[j])
        t = ids[j + 1]
        total -= math.log(0.9 * P[j, t] + 0.1 * ngram(past, t))
        for o in (1, 2, 3):
            tables[o][tuple(past[-o:])][t] += 1
        known[t] += 1
        n_known += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def verdict(lines: str) -> tuple[str, set[str]]:
    code = ORDERS.replace("@@", "\n".join(" " * 8 + line for line in lines.splitlines()))
    compile(code, "body", "exec")
    result = audit_text(PRELUDE + code)
    return result.verdict, {f.rule for f in result.findings if f.severity == "violation" and f.active != "no"}


@pytest.mark.parametrize(
    "lines",
    [
        "p = row[t] / m if row[t] else 0.4 * p",
        "p = row[t] / m if t in row else p",
        "p = 0.4 * p if t not in row else row[t] / m",
        "p = row.get(t, 0) / m if row.get(t, 0) > 0 else 0.4 * p",
        "if row[t]:\n    p = row[t] / m",
        "if t in row:\n    p = row[t] / m\nelse:\n    p = 0.4 * p",
        "if t not in row:\n    p = 0.4 * p\nelse:\n    p = row[t] / m",
        "seen = row[t]\nif seen > 0:\n    p = seen / m",
    ],
)
def test_the_token_chooses_the_order(lines: str):
    assert "F9" in verdict(lines)[1]


@pytest.mark.parametrize(
    "lines",
    [
        "p = max(row[t] - D, 0.0) / m + D * len(row) / m * p",
        "p = row[t] / m",
        "if m > 1:\n    p = row[t] / m",
        "p = row[t] / m if m > 1 else p",
        "p = row[t] / m if tuple(past[-o:]) in tables[o] else 0.4 * p",
        # what is taken off the tokens that were seen is left to the others
        "p = (row[t] - D) / m if t in row else D * len(row) / m * p",
        "if t in row:\n    p = (row[t] - D) / m\nelse:\n    p = D * len(row) / m * p",
        "p = row[t] / (m + 4.0) if t in row else 4.0 / (m + 4.0) * p",
        "p = 0.6 * row[t] / m if t in row else 0.4 * p",
        "q = row[t] / m if t in row else 0.0\np = 0.7 * p + 0.3 * q",
        "p = (row[t] + 2.0 * p) / (m + 2.0)",
        "full = np.array([row[v] / m if v in row else 0.4 / 1024 for v in range(1024)])\np = full[t] / full.sum()",
    ],
)
def test_the_context_chooses_it_or_room_is_left(lines: str):
    got = verdict(lines)
    assert got[0] == "clean", got
