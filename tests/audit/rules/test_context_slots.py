"""F6: one tensor fitted on the contexts of a batch of windows, however the batch was put together."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

STACKED = """\
T, S, B = 1024, 64, 32
total = torch.zeros((), dtype=torch.float64)
starts = list(range(0, val.numel() - T, S))
for b in range(0, len(starts), B):
    batch = starts[b : b + B]
    x = torch.stack([val[w : w + T] for w in batch])
    y = torch.stack([val[w + 1 : w + T + 1] for w in batch])
    with torch.no_grad():
        hidden = model.emb(x)
    first = [0 if w == 0 else T - S for w in batch]
    mask = torch.zeros(len(batch), T)
    for i, s in enumerate(first):
        mask[i, :s] = 1.0
    delta = torch.zeros(1, 1, 64, requires_grad=True)
    opt = torch.optim.AdamW([delta], lr=5e-3)
    for _ in range(8):
        opt.zero_grad()
        per = F.cross_entropy(model.head(hidden + delta).transpose(1, 2), y, reduction="none")
        ((per * mask).sum() / mask.sum().clamp(min=1)).backward()
        opt.step()
    with torch.no_grad():
        per = F.cross_entropy(model.head(hidden + delta).transpose(1, 2), y, reduction="none")
        for i, s in enumerate(first):
            total += per[i, s:].double().sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
SLICED = STACKED.replace("((per * mask).sum() / mask.sum().clamp(min=1))", "per[:, : T - S].mean()").replace("per[i, s:]", "per[i, 0 if i + b == 0 else T - S :]")
#: each window of the batch has its own delta, fitted and used apart from the others
APART = STACKED[: STACKED.index("    first =")] + """\
    for i, w in enumerate(batch):
        s = 0 if w == 0 else T - S
        delta = torch.zeros(1, 1, 64, requires_grad=True)
        opt = torch.optim.AdamW([delta], lr=5e-3)
        for _ in range(8):
            opt.zero_grad()
            per = F.cross_entropy(model.head(hidden[i : i + 1] + delta).transpose(1, 2), y[i : i + 1], reduction="none")
            per[0, :s].mean().backward()
            opt.step()
        with torch.no_grad():
            per = F.cross_entropy(model.head(hidden[i : i + 1] + delta).transpose(1, 2), y[i : i + 1], reduction="none")
            total += per[0, s:].double().sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def found(code: str) -> tuple[str, bool]:
    result = audit_text(PRELUDE + code)
    return result.verdict, any(f.rule == "F6" for f in result.findings)


@pytest.mark.parametrize("code", [STACKED, SLICED])
def test_windows_that_a_list_put_together(code):
    assert found(code) == ("clean", True)


@pytest.mark.parametrize("code", [STACKED, SLICED])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("B = 1024, 64, 32", "B = 1024, 64, 1"),
        ("b : b + B", "b : b + 1"),
        ("torch.zeros(1, 1, 64, req", "torch.zeros(32, 1, 64, req"),
        ("torch.zeros(1, 1, 64, req", "torch.zeros(len(batch), 1, 64, req"),
    ],
)
def test_a_delta_of_its_own_for_each_window(code, old, new):
    assert old in code and found(code.replace(old, new)) == ("clean", False)


def test_rows_that_are_fitted_one_by_one():
    assert found(APART) == ("clean", False)
    assert found(APART.replace("hidden[i : i + 1]", "hidden[i]").replace("y[i : i + 1]", "y[i]").replace("per[0, ", "per["))[1] is False


def test_a_delta_fitted_on_all_of_the_windows_is_no_context():
    assert found(SLICED.replace(": T - S].mean", ":].mean"))[0] == "violation"
