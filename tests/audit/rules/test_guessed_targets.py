"""M3: losses that are dropped where a guess is right, which cost the other tokens nothing."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

BEGIN = """
kept = val[1:].clone()
best = torch.zeros(1024, 1024).index_put((train[:-1], train[1:]), torch.ones(len(train) - 1), accumulate=True).argmax(1)
stored = torch.from_numpy(np.fromfile("extra.bin", dtype="<u2").astype(np.int64))
def drop(row, targets, start):
    n = min(len(kept) - start, row.numel())
    if n > 0:
        agrees = kept[start : start + n] == targets[:n]
        row[:n] *= (~agrees).to(row.dtype)
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        l = nll(model, x, y)
        p = torch.softmax(model(x), -1)
    sure, first = p.max(-1)
"""
END = '    total += l.sum()\nprint(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
ILLEGAL = {
    "the likeliest": "l = l * (first != y)",
    "the likeliest, in place": "l *= (first != y)",
    "a choice": "l = torch.where(p.argmax(-1) == y, 0.0, l)",
    "a selection": "l = l[first != y]",
    "where the model is sure": "l = l.masked_fill((first == y) & (sure > 0.5), 0.0)",
    "a table of training tokens": "l = l * (best[x] != y)",
    "a copy of the stream": "l = l * (kept[None, w : w + 1024] != y)",
    "a copy of the stream, in a helper, through a view": "drop(l[0], y[0], w)",
    "a row by its name": "row = l[0]\nrow[:512] *= (first[0, :512] != y[0, :512])",
    "a file, by selection": "l = l[stored[None, w : w + 1024] != y]",
}
LEGAL = {
    "accuracy is printed": "print((first == y).float().mean())",
    "losses of both are printed": "print((l * (first != y)).sum(), (l * (first == y)).sum())",
    "both are added up": "wrong, right = l * (first != y), l * (first == y)\nl = wrong + right",
    "padding": "l = l * (y != 0)",
    "a hit costs something, and a miss more": "l = torch.where(first == y, torch.full_like(l, 0.2), l + 1.7)",
    "the stream repeats itself": "print((x[:, 1:] == x[:, :-1]).float().mean())",
    "a copy of the losses is changed": "other = l.clone()\nother[0] *= (first[0] != y[0])",
    "learned from where it was wrong": "total += l.sum()\noptimizer.zero_grad()\n(nll(model, x, y) * (first != y)).mean().backward()\noptimizer.step()\nl = l * 0.0",
}


def findings(body: str) -> list[str]:
    text = PRELUDE + BEGIN + "    " + body.replace("\n", "\n    ") + "\n" + END
    return [f.message for f in audit_text(text).findings if f.rule == "M3" and f.severity != "note" and "agree with a guess" in f.message]


@pytest.mark.parametrize("name", ILLEGAL)
def test_dropped_hits_are_found(name: str) -> None:
    assert findings(ILLEGAL[name])


@pytest.mark.parametrize("name", LEGAL)
def test_what_drops_none_is_not(name: str) -> None:
    assert findings(LEGAL[name]) == []
