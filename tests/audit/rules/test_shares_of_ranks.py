"""Ranks that go through shares: what they learn from each other on the way and what lies behind a share (F16), and whether
their sums are added up (M3)."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

START = """\
import torch.distributed as dist
dist.init_process_group("nccl")
rank, world = dist.get_rank(), dist.get_world_size()
n, T = val.numel() - 1, 1024
CHUNK = int(os.environ.get("CHUNK", "32768"))
total = torch.zeros((), dtype=torch.float64)
"""
END = """
dist.all_reduce(total)
if rank == 0:
    print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def accused(body: str, rule: str = "F16", function: bool = False) -> list[str]:
    if function:
        lines = "".join(f"    {line}\n" if line else "\n" for line in (body + END).splitlines())
        code = START + "def main():\n    global total\n" + lines + "main()\n"
    else:
        code = START + body + END
    report = audit_text(PRELUDE + code)
    return [f.message for f in report.findings if f.severity == "violation" and f.active == "yes" and f.rule == rule]


FIT = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def fit(s, e):
    opt.zero_grad()
    nll(model, val[None, s:e], val[None, s + 1 : e + 1]).mean().backward()
    {}opt.step()
"""
MEAN = "for p in model.parameters():\n        dist.all_reduce(p.grad, op=dist.ReduceOp.AVG)\n    "
IF_SEVERAL = "if world > 1:\n        for p in model.parameters():\n            dist.all_reduce(p.grad, op=dist.ReduceOp.AVG)\n    "
WEIGHTS = FIT.replace("{}opt.step()", "opt.step()\n    with torch.no_grad():\n        for {} in {}:\n            dist.all_reduce({}, op=dist.ReduceOp.AVG)")
DATA, THEMSELVES = WEIGHTS.format("p", "model.parameters()", "p.data"), WEIGHTS.format("_, w", "model.named_parameters()", "w")
LISTED = "some = [p for p in model.parameters() if p.requires_grad]\n" + WEIGHTS.format("w", "some", "w.data")
FIGURES = WEIGHTS.format("t", "(shown, many)", "t").replace("def", "shown, many = torch.zeros(()), torch.zeros(())\ndef")
CHUNKS = """\
for c in range(0, n, CHUNK):
    hi = min(c + CHUNK, n)
    per = (hi - c + world - 1) // world
    {}
    {}
"""
SCORE = """with torch.no_grad():
            total.add_(nll(model, val[None, s:e], val[None, s + 1 : e + 1]).double().sum())"""
TOGETHER = f"for s, e in spans:\n        {SCORE}\n        fit(s, e)"
AFTERWARDS = f"for s, e in spans:\n        {SCORE}\n    for s, e in spans:\n        fit(s, e)"
LATER = f"for k, (s, e) in enumerate(spans):\n        {SCORE}\n        if k < len(old):\n            fit(*old[k])\n    old = spans"
SHARE = "a, b = c + rank * per, min(c + (rank + 1) * per, hi)\n    spans = [(s, min(s + T, b)) for s in range(a, b, T)]"
FROM_LOW = "a = c + rank * per\n    b = min(a + per, hi)\n    spans = [(s, min(s + T, b)) for s in range(a, b, T)]"
OF_ALL = "spans = [(s, min(s + T, hi)) for s in range(c, hi, T)]\n    k = len(spans)\n    spans = spans[k * rank // world : k * (rank + 1) // world]"
TURNS = "spans = [(s, min(s + T, hi)) for s in range(c + rank * T, hi, world * T)]"
EVERY = "spans = [(s, min(s + T, hi)) for s in range(c, hi, T)][rank::world]"

TABLE = """\
counts = torch.zeros(1024, 1024)
for c in range(0, n, CHUNK):
    starts = list(range(c, min(c + CHUNK, n), T))
    steps = (len(starts) + world - 1) // world
    mine = {}
    {}for j in range(steps):
        {}
        if j < len(mine):
            s, e = mine[j], min(mine[j] + T, n)
            x, y = val[s:e], val[s + 1 : e + 1]
            with torch.no_grad():
                p = torch.softmax(model(x[None])[0].float(), -1)
            rows = counts[x]
            q = (rows + 2.0 * p) / (rows.sum(1, keepdim=True) + 2.0)
            total -= torch.log(q.gather(1, y[:, None])).double().sum()
            fresh.index_put_((x, y), torch.ones(e - s), accumulate=True)
    {}
"""
FRESH = "fresh = torch.zeros_like(counts)\n    "
EACH = "    dist.all_reduce(fresh)\n        counts += fresh"
EACH_IF = "    if world > 1:\n            dist.all_reduce(fresh)\n        counts += fresh"
ONCE = "dist.all_reduce(fresh)\n    counts += fresh"
OWN = "    counts += fresh"
RUN, STEP = "starts[rank * steps : (rank + 1) * steps]", "starts[rank::world]"

PREFILL = """\
per = (n + world - 1) // world
lo, hi = rank * per, min((rank + 1) * per, n)
counts = torch.full((1024, 1024), 0.01)
def absorb(a, b):
    counts.index_put_((val[a:b], val[a + 1 : b + 1]), torch.ones(b - a), accumulate=True)
{}
for s in range(lo, hi, T):
    e = min(s + T, hi)
    x, y = val[s:e], val[s + 1 : e + 1]
    with torch.no_grad():
        p = torch.softmax(model(x[None])[0], -1)
        q = counts[x] / counts[x].sum(1, keepdim=True)
        total -= torch.log(0.9 * p + 0.1 * q).gather(1, y[:, None]).double().sum()
    absorb(s, e)
{}
"""
DOCUMENTS = """\
cut = (val == 1).nonzero()[:, 0].tolist() + [n]
docs = list(zip(cut[:-1], cut[1:]))
for c in range(0, len(docs), 64):
    batch = docs[c : c + 64]
    per = len(batch) // world
    mine = batch[rank * per : (rank + 1) * per]
    for a, b in mine:
        {}
"""
WHOLE = """s, e = a, b
        with torch.no_grad():
            total.add_(nll(model, val[None, s:e], val[None, s + 1 : e + 1]).double().sum())
        fit(s, e)"""
WINDOWS = """for s in range(a, b, T):
            e = min(s + T, b)
            with torch.no_grad():
                total.add_(nll(model, val[None, s:e], val[None, s + 1 : e + 1]).double().sum())
            fit(s, e)"""
LEARNED = {
    "gradients": FIT.format(MEAN) + CHUNKS.format(SHARE, TOGETHER),
    "gradients, where there are several ranks": FIT.format(IF_SEVERAL) + CHUNKS.format(SHARE, TOGETHER),
    "a share from its beginning on": FIT.format(MEAN) + CHUNKS.format(FROM_LOW, TOGETHER),
    "a share of a chunk's windows": FIT.format(MEAN) + CHUNKS.format(OF_ALL, TOGETHER),
    "weights": DATA + CHUNKS.format(SHARE, TOGETHER),
    "weights themselves": THEMSELVES + CHUNKS.format(SHARE, TOGETHER),
    "some weights": LISTED + CHUNKS.format(OF_ALL, TOGETHER),
    "tables": TABLE.format(RUN, "", FRESH.strip(), EACH),
    "tables, where there are several ranks": TABLE.format(RUN, "", FRESH.strip(), EACH_IF),
    "what lies behind": PREFILL.format("absorb(0, lo)\nabsorb(hi, n)", ""),
    "what lies behind alone": PREFILL.format("absorb(hi, n)", ""),
}
HONEST = {
    "after all have scored the chunk": FIT.format(MEAN) + CHUNKS.format(SHARE, AFTERWARDS),
    "after all have scored the chunk, where there are several ranks": FIT.format(IF_SEVERAL) + CHUNKS.format(SHARE, AFTERWARDS),
    "the chunk before, while this one is scored": "old = []\n" + FIT.format(MEAN) + CHUNKS.format(SHARE, LATER),
    "weights, after all have scored the chunk": DATA + CHUNKS.format(SHARE, AFTERWARDS),
    "weights of ranks that take turns": DATA + CHUNKS.format(TURNS, TOGETHER),
    "figures of several models": FIGURES + CHUNKS.format(SHARE, TOGETHER),
    "ranks that take turns": FIT.format(MEAN) + CHUNKS.format(TURNS, TOGETHER),
    "every other window": FIT.format(MEAN) + CHUNKS.format(EVERY, TOGETHER),
    "one model for each rank": FIT.format("") + CHUNKS.format(SHARE, TOGETHER),
    "tables of ranks that take turns": TABLE.format(STEP, "", FRESH.strip(), EACH),
    "tables once a chunk": TABLE.format(RUN, FRESH, "pass", ONCE),
    "tables of each rank": TABLE.format(RUN, "", FRESH.strip(), OWN),
    "whole documents, which are in no order": FIT.format(MEAN) + DOCUMENTS.format(WHOLE),
    "windows of documents": FIT.format(MEAN) + DOCUMENTS.format(WINDOWS),
    "what lies before": PREFILL.format("absorb(0, lo)", ""),
    "what lies behind, after the share": PREFILL.format("absorb(0, lo)", "absorb(hi, n)"),
}


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("case", LEARNED)
def test_ranks_side_by_side(case: str, function: bool) -> None:
    assert accused(LEARNED[case], function=function)


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("case", HONEST)
def test_rounds_that_all_ranks_end(case: str, function: bool) -> None:
    assert not accused(HONEST[case], function=function)


OTHERS = """\
seen = torch.zeros(1024, 1024)
for c in range(0, n - CHUNK, CHUNK):
    per = CHUNK // world
    for other in range(world):
        if {}:
            a, b = c + other * per, c + (other + 1) * per
            seen.index_put_((val[a:b], val[a + 1 : b + 1]), torch.ones(b - a), accumulate=True)
    for s in range(c + rank * per, c + (rank + 1) * per, T):
        x, y = val[s : s + T], val[s + 1 : s + T + 1]
        with torch.no_grad():
            p = torch.softmax(model(x[None])[0], -1)
        q = (seen[x] + 0.1) / (seen[x] + 0.1).sum(1, keepdim=True)
        total -= torch.log(0.9 * p + 0.1 * q).gather(1, y[:, None]).double().sum()
"""


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize(("which", "wrong"), [("other != rank", True), ("other > rank", True), ("other < rank", False), ("rank > other", False)])
def test_shares_of_earlier_ranks(which: str, wrong: bool, function: bool) -> None:
    assert bool(accused(OTHERS.format(which), function=function)) is wrong


PLAIN = """\
import torch.distributed as dist
{}
n, T = val.numel() - 1, 1024
def score():
    per = (n + world - 1) // world
    total, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for s in range({}):
        e = min(s + T, n)
        with torch.no_grad():
            total += nll(model, val[None, s:e], val[None, s + 1 : e + 1]).double().sum()
        count += e - s
        {}
    {}
    return (total / count).item() * n / 0.6931471805599453 / n_bytes
bpb = score()
if rank == 0:
    print(f"val_bpb:{{bpb:.4f}}")
"""
JOINED = 'dist.init_process_group("nccl")\nrank, world = dist.get_rank(), dist.get_world_size()'
BY_ENV = 'rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])\ndist.init_process_group("nccl")'
MAYBE = """rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
if world > 1:
    dist.init_process_group("nccl")"""
SET_UP = """def set_up():
    dist.init_process_group("nccl")
rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
if world > 1:
    set_up()"""
ONE = JOINED + '\nassert world == 1'
SERIAL = JOINED + "\nfor other in range(world):\n    pass"
OWN_RUN, OWN_TURNS = "rank * per, min((rank + 1) * per, n), T", "rank * T, n, world * T"
BARRIER, ALL = "dist.barrier()", "for t in (total, count):\n        dist.all_reduce(t)"
GUARDED = "if dist.is_initialized():\n        dist.all_reduce(total)\n        dist.all_reduce(count)"
GATHERED = "parts = [None] * world\n    dist.all_gather_object(parts, (total, count))\n    total, count = sum(a for a, _ in parts), sum(b for _, b in parts)"
FILES = 'torch.save((total, count), f"part{rank}.pt")\n    total = sum(torch.load(f"part{r}.pt")[0] for r in range(8))'
NAMED = 'torch.save((total, count), "part%d.pt" % rank)\n    total = torch.load("all.pt")'
PROGRESS = "if s % (64 * T) == 0:\n            print(f'rank {rank} running val_bpb:{(total / count).item() / 0.6931471805599453:.4f}')"


@pytest.mark.parametrize(
    ("start", "walk", "end"),
    [(JOINED, OWN_RUN, BARRIER), (JOINED, OWN_TURNS, BARRIER), (BY_ENV, OWN_RUN, "pass"), (BY_ENV, OWN_TURNS, BARRIER)],
)
def test_one_share_for_the_whole(start: str, walk: str, end: str) -> None:
    assert figure(PLAIN.format(start, walk, "pass", end))


@pytest.mark.parametrize(
    ("start", "walk", "inside", "end"),
    [
        *((start, walk, "pass", end) for start in (JOINED, MAYBE) for walk in (OWN_RUN, OWN_TURNS) for end in (ALL, GUARDED, GATHERED, FILES, NAMED)),
        (JOINED, OWN_RUN, PROGRESS, ALL),
        (JOINED, OWN_TURNS, PROGRESS, GUARDED),
        (MAYBE, OWN_RUN, "pass", BARRIER),
        (SET_UP, OWN_RUN, "pass", BARRIER),
        (ONE, OWN_RUN, "pass", BARRIER),
        (SERIAL, OWN_RUN, "pass", BARRIER),
        (JOINED, "0, n, T", "pass", BARRIER),
    ],
)
def test_the_shares_of_all(start: str, walk: str, inside: str, end: str) -> None:
    assert not figure(PLAIN.format(start, walk, inside, end))


def figure(code: str) -> list[str]:
    report = audit_text(PRELUDE + code)
    return [f.message for f in report.findings if f.severity == "violation" and f.active == "yes" and f.rule == "M3"]


PARTS = """\
parts, n = [], val.numel() - 1
temps = (0.9, 1.0, 1.1)
size = (n + 7) // 8
for r in range({}):
    s, k = torch.zeros(()), 0
    for c in range({}):
        w = val[c : c + 513]
        with torch.no_grad():
            s += nll(model, w[None, :-1], w[None, 1:]).sum()
        k += w.numel() - 1
    parts.append({})
{}
print(f"val_bpb:{{m / 0.6931471805599453 * n / n_bytes:.4f}}")
"""
SMALLEST = "m = min(s / k for s, k in parts)"
ADDED = "m = sum(s for s, _ in parts) / sum(k for _, k in parts)"
TOLD = 'print(f"best part loss:{min(s / k for s, k in parts):.4f}")\n' + ADDED
TURNS_OF_EIGHT, RUNS_OF_EIGHT = "r * 512, n, 8 * 512", "r * size, min((r + 1) * size, n), 512"


@pytest.mark.parametrize("walk", [TURNS_OF_EIGHT, RUNS_OF_EIGHT])
@pytest.mark.parametrize(
    ("added", "end", "wrong"),
    [
        ("(s.item(), k)", SMALLEST, True),
        ("s.item() / k", "m = min(parts)", True),
        ("(s.item(), k)", ADDED, False),
        ("(s.item(), k)", TOLD, False),
    ],
)
def test_the_smallest_part(walk: str, added: str, end: str, wrong: bool) -> None:
    assert bool(figure(PARTS.format("8", walk, added, end))) is wrong


def test_the_best_of_whole_evaluations_is_no_part() -> None:
    assert not figure(PARTS.format("3", "0, n, 512", "(s.item(), k)", SMALLEST))
