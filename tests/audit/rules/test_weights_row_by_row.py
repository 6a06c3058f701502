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
