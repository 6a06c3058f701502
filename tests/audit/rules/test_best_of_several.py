"""F4: of several predictions of a token the one that gives it most is kept; and choices made by what came before."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{float(total) / 0.6931471805599453 / n_bytes:.4f}")\n'


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + body + END).findings if f.severity == "violation" and f.active == "yes"}


def indented(lines: str, by: int) -> str:
    return "".join(" " * by + line + "\n" for line in lines.splitlines())


PAIR = """\
import math
counts, total = np.full((1024, 1024), 0.01), 0.0
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    with torch.no_grad():
        P = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        a, t = ids[j], ids[j + 1]
        q, p = counts[a] / counts[a].sum(), P[j]
@@
        counts[a, t] += 1
"""


@pytest.mark.parametrize(
    ("lines", "oracle"),
    [
        ("pick = q if q[t] > p[t] else p\ntotal -= math.log(pick[t])", True),
        ("total -= math.log(max(q[t], p[t]))", True),
        ("pick = q if q.max() > p.max() else p\ntotal -= math.log(pick[t])", False),
        ("pick = q if q[a] > p[a] else p\ntotal -= math.log(pick[t])", False),  # what the context says
        ("total -= math.log(max(0.5 * q[t] + 0.5 * p[t], 1e-9))", False),
    ],
)
def test_the_row_that_gives_the_token_more(lines, oracle):
    assert ("F4" in accused(PAIR.replace("@@\n", indented(lines, 8)))) is oracle


GRID = """\
grid, t, total = (0.9, 1.0, 1.1), 1.0, torch.zeros(())
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    x, y = w[None, :-1], w[None, 1:]
    with torch.no_grad():
        z = model(x)[0]
"""
SCORE = 'total += F.cross_entropy(z / t, y[0], reduction="sum")\n'
COSTS = 'costs = [F.cross_entropy(z / g, y[0], reduction="sum") for g in grid]\n'
EACH = 'costs = torch.stack([F.cross_entropy(z / g, y[0], reduction="none") for g in grid])\n'


@pytest.mark.parametrize(
    "choice",
    [
        "t = min(grid, key=lambda g: F.cross_entropy(z / g, y[0]).item())\n",
        "t = grid[int(torch.stack([F.cross_entropy(z / g, y[0]) for g in grid]).argmin())]\n",
        "t = grid[int(np.argmin([F.cross_entropy(z / g, y[0]).item() for g in grid]))]\n",
        """\
best = float("inf")
for g in grid:
    c = F.cross_entropy(z / g, y[0]).item()
    if c < best:
        best, t = c, g
""",
    ],
)
def test_a_temperature_chosen_by_the_tokens_that_it_scores(choice):
    assert "F4" in accused(GRID + indented(choice + SCORE, 4))
    assert not accused(GRID + indented(SCORE + choice, 4))  # the next turn's tokens are others


def test_a_temperature_chosen_by_the_context_is_none():
    part = "h = max(s // 2 % 512, 64)\nt = min(grid, key=lambda g: F.cross_entropy(z[:h] / g, y[0, :h]).item())\n"
    assert not accused(GRID + indented(part + 'total += F.cross_entropy(z[h:] / t, y[0, h:], reduction="sum")\n', 4))


@pytest.mark.parametrize(
    ("lines", "oracle"),
    [
        (COSTS + "total += min(costs)", True),
        (COSTS + "total += torch.stack(costs).amin(0)", True),
        (COSTS + "total += sum(costs) / len(costs)", False),
        (EACH + "total += costs.min(0).values.sum()", True),
        (EACH + "m = costs.min(0).values\ntotal += (m - torch.log(torch.exp(m - costs).mean(0))).sum()", False),
        ("best = float('inf')\nfor g in grid:\n    c = F.cross_entropy(z / g, y[0], reduction='sum').item()\n    best = min(best, c)\ntotal += best", True),
        ("best = float('inf')\nfor g in grid:\n    c = F.cross_entropy(z / g, y[0], reduction='sum').item()\n    if c < best:\n        best = c\ntotal += best", True),
    ],
)
def test_the_least_of_several_costs(lines, oracle):
    assert ("F4" in accused(GRID + indented(lines, 4))) is oracle


PASSES = """\
drop, total = nn.Dropout(0.05), torch.zeros(())
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    with torch.no_grad():
        lp = torch.stack([torch.log_softmax(model.head(drop(model.emb(w[None, :-1])))[0], -1) for _ in range(4)])
        g = lp.gather(2, w[1:][None, :, None].expand(4, -1, 1))[..., 0]
        total -= @@.sum()
"""


@pytest.mark.parametrize(
    ("kept", "oracle"),
    [
        ("g.max(0).values", True),
        ("g.amax(0)", True),
        ("g.amax(dim=0).double()", True),
        ("torch.logsumexp(g, 0)", False),
        ("(g.amax(0) + torch.log(torch.exp(g - g.amax(0)).mean(0)))", False),
        ("g.mean(0)", False),
    ],
)
def test_the_best_of_several_passes(kept, oracle):
    assert ("F4" in accused(PASSES.replace("@@", kept))) is oracle
