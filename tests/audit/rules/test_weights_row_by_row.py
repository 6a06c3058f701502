"""F7: the weight of a row of predictions that a loop over positions picks, decided by the token that the row is for."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

ROWS = """\
rows = torch.ones(1024, 1024)
total = torch.zeros(())
for w in range(0, val.numel() - 2049, 64):
    x, y = val[None, w : w + 2048], val[None, w + 1 : w + 2049]
    with torch.no_grad():
        logits = model(x)
    first = 0 if w == 0 else 2048 - 64
    scored, targets = logits[:, first:, :], y[:, first:]
    mixed = scored.clone()
    hit = 0.0
    for t in range(scored.size(1)):
        own = torch.softmax(scored[0, t, :].float(), -1)
        row = rows[x[0, first + t]] / rows[x[0, first + t]].sum()
        share = SHARE
        mixed[0, t, :] = ((1 - share) * own + share * row).log()
        LATER
    total += F.cross_entropy(mixed[0], targets[0], reduction="sum")
    for a, b in zip(x[0, first:].tolist(), targets[0].tolist()):
        rows[a, b] += 1
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def rules(share: str, later: str = "pass") -> set[str]:
    code = PRELUDE + ROWS.replace("SHARE", share).replace("LATER", later)
    return {f.rule for f in audit_text(code).findings if f.severity == "violation" and f.active != "no"}


@pytest.mark.parametrize(
    "share",
    [
        "0.6 if row.argmax() == targets[0, t] else 0.0",
        "0.6 * float(row.argmax() == targets[0, t])",
        "0.3 if own.argmax() == targets[0, t] else 0.5",
    ],
)
def test_the_token_of_the_row_decides_its_weight(share):
    assert "F7" in rules(share)


@pytest.mark.parametrize(
    ("share", "later"),
    [
        ("0.3", "pass"),
        ("0.6 if row.max() > 0.5 else 0.2", "pass"),
        ("0.3 if own.argmax() == row.argmax() else 0.2", "pass"),
        ("0.3 if own.argmax() == x[0, first + t] else 0.2", "pass"),
        ("hit", "hit = 0.6 if row.argmax() == targets[0, t] else 0.1"),
    ],
)
def test_what_was_known_before_decides_it(share, later):
    assert rules(share, later) == set()


SCALARS = """\
import math
from collections import Counter, defaultdict
table, total, last, rate = defaultdict(Counter), 0.0, 0.0, 0.5
stream = val.tolist()
for w in range(8, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logp = torch.log_softmax(model(x).float(), -1).gather(2, y[..., None])[0, :, 0].tolist()
    for j in range(1024):
        p = w + j + 1
        token, lp = stream[p], logp[j]
        row = table[stream[p - 1]]
        m, c = sum(row.values()) + 10.24, row.get(token, 0) + 0.01
        best = row.most_common(1)[0][0] if row else -1
        share = SHARE
        MIX
        total -= lp
        LATER
        row[token] += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""
MIX = "lp = math.log((1.0 - share) * math.exp(lp) + share * c / m)"
LOGS = "lp = np.logaddexp(lp + math.log(1.0 - share), math.log(share) + math.log(c / m))"


def scalar(share: str, mix: str, later: str = "pass") -> set[str]:
    code = PRELUDE + SCALARS.replace("SHARE", share).replace("MIX", mix).replace("LATER", later)
    return {f.rule for f in audit_text(code).findings if f.severity == "violation" and f.active != "no"}


@pytest.mark.parametrize("mix", [MIX, LOGS])
@pytest.mark.parametrize(
    "share",
    [
        "0.6 if best == token else 0.2",
        "min(0.9, 0.3 * row.get(token, 0) + 0.01)",
        "0.1\n        if best == token:\n            share = 0.6",
        "0.6 if token in row else 0.2",
    ],
)
def test_the_token_decides_the_share_of_its_own_probability(share, mix):
    assert "F7" in scalar(share, mix)


@pytest.mark.parametrize("mix", [MIX, LOGS])
@pytest.mark.parametrize(
    ("share", "later"),
    [
        ("0.3", "pass"),
        ("m / (m + 4.0)", "pass"),
        ("0.6 if row and row[best] / m > 0.5 else 0.2", "pass"),
        ("0.6 if len(row) > 3 else 0.2", "pass"),
        ("0.6 if stream[p - 1] == stream[p - 2] else 0.2", "pass"),
        ("0.6 if best == stream[p - 1] else 0.2", "pass"),
        ("0.1 + 0.5 * last", "last = 0.9 if best == token else 0.1"),
        ("rate", "rate = 0.99 * rate + 0.01 * (best == token)"),
    ],
)
def test_the_context_decides_the_share(share, later, mix):
    assert scalar(share, mix, later) == set()


@pytest.mark.parametrize("mix", [
    "lp = math.log(0.7 * math.exp(lp) + (0.3 if best == token else 0.0))",
    "lp = math.log(0.7 * math.exp(lp) + 0.3) if best == token else lp + math.log(0.7)",
])  # fmt: skip
def test_a_guess_that_gets_a_share_of_its_own(mix):
    assert scalar("0.3", mix) == set()
