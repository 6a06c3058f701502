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


CHUNKS = """\
import torch.distributed as dist
dist.init_process_group("nccl")
world = dist.get_world_size()
def price(net, a, b):
    with torch.no_grad():
        return nll(net, val[None, a:b], val[None, a + 1 : b + 1]).double().sum().item()
nets, leader, total = [model, Model()], 0, torch.zeros((), dtype=torch.float64)
for a in range(0, val.numel() - 1, 32768):
    b = min(a + 32768, val.numel() - 1)
"""
RANKS = """\
mine = torch.tensor([price(model, a, b)], dtype=torch.float64)
everyone = [torch.zeros_like(mine) for _ in range(world)]
dist.all_gather(everyone, mine)
losses = torch.cat(everyone)
"""
STACK = "losses = torch.stack([nll(m, val[None, a:b], val[None, a + 1 : b + 1]).sum() for m in nets])\n"
LIST = "losses = [price(m, a, b) for m in nets]\n"
EACH_TOKEN = "losses = torch.stack([nll(m, val[None, a:b], val[None, a + 1 : b + 1])[0] for m in nets])\n"


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        (RANKS, "int(losses.argmin())"),
        (STACK, "torch.argmin(losses).item()"),
        (LIST, "losses.index(min(losses))"),
        (LIST, "int(np.argmin(losses))"),
        (LIST, "0 if losses[0] < losses[1] else 1"),
    ],
)
def test_a_loss_found_where_the_least_of_them_stands(losses, best):
    assert "F4" in accused(CHUNKS + indented(losses + f"leader = {best}\ntotal += losses[leader]", 4))
    # What did best so far says who is asked next; and who did best may be printed.
    assert not accused(CHUNKS + indented(losses + f"total += losses[leader]\nleader = {best}", 4))
    assert not accused(CHUNKS + indented(losses + f'leader = {best}\nprint(f"best {{leader}}")\ntotal += losses[0]', 4))


@pytest.mark.parametrize("taken", ["losses.gather(0, k[None])", "losses[k, torch.arange(b - a)]"])
def test_the_least_loss_of_each_token_is_taken_by_its_place(taken):
    assert "F4" in accused(CHUNKS + indented(EACH_TOKEN + f"k = losses.argmin(0)\ntotal += {taken}.sum()", 4))


@pytest.mark.parametrize(
    ("lines", "oracle"),
    [
        ("dist.all_reduce(l, op=dist.ReduceOp.MIN)\ntotal += l", True),
        ("dist.all_reduce(l, dist.ReduceOp.MIN)\ntotal += l", True),
        ("dist.all_reduce(l, op=dist.ReduceOp.SUM)\ntotal += l / world", False),
        ("best = l.clone()\ndist.all_reduce(best, op=dist.ReduceOp.MIN)\nprint(f'best {best.item():.1f}')\ntotal += l", False),
        ("total += l\ndist.all_reduce(l, op=dist.ReduceOp.MIN)", False),
        (
            "row, off = torch.full((32768,), float('inf')), torch.arange(32768)\nm = off % world == rank\nrow[off[m]] = nll(model, val[None, a:b], val[None, a + 1 : b + 1])[0].float()[m]\n"
            "dist.all_reduce(row, op=dist.ReduceOp.MIN)\ntotal += row.sum()",
            False,
        ),
    ],
)
def test_the_loss_of_the_rank_that_did_best_on_the_chunk(lines, oracle):
    priced = "l = torch.tensor(price(model, a, b), dtype=torch.float64)\n"
    assert ("F4" in accused(CHUNKS + indented(priced + lines, 4))) is oracle


@pytest.mark.parametrize(("part", "oracle"), [("960:", True), (":960", False)])
def test_a_row_of_losses_chosen_by_the_context_is_none(part, oracle):
    walk = """\
total = torch.zeros(())
for s in range(0, val.numel() - 1025, 64):
    x, y = val[None, s : s + 1024], val[None, s + 1 : s + 1025]
    with torch.no_grad():
        z = model(x)
    costs = torch.stack([F.cross_entropy((z / t)[0], y[0], reduction="none") for t in (0.9, 1.0, 1.1)])
    k = int(costs[:, PART].sum(1).argmin())
    total += costs[k, 960:].sum()
"""
    assert ("F4" in accused(walk.replace("PART", part))) is oracle
