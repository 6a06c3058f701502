"""M3: sums of one rank over sums of all ranks."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

BODY = """\
import math
import torch.distributed as dist
dist.init_process_group("nccl")
size = torch.load("bytes.pt")

def figures(model, val, rank, world):
    n = (val.numel() - 1) // 1024
    nats, count, octets = torch.zeros((), dtype=torch.float64), torch.zeros(()), torch.zeros(())
    for k in range(n * rank // world, n * (rank + 1) // world):
        x, y = val[None, k * 1024 : (k + 1) * 1024], val[None, k * 1024 + 1 : (k + 1) * 1024 + 1]
        with torch.no_grad():
            each = nll(model, x, y)
        COUNTED
    if dist.is_available() and dist.is_initialized():
        REDUCED
    FIGURE

loss, bpb = figures(model, val, dist.get_rank(), dist.get_world_size())
print(f"val_loss:{loss:.4f} val_bpb:{bpb:.4f}")
"""
COUNTED = "nats += each.double().sum()\ncount += y.numel()\noctets += size[y].sum()"
ALL = "dist.all_reduce(nats, op=dist.ReduceOp.SUM)\ndist.all_reduce(count)\ndist.all_reduce(octets)"
FIGURE = "loss = nats / count\nreturn loss.item(), loss.item() / math.log(2.0) * (count.item() / octets.item())"


def accused(reduced: str = ALL, counted: str = COUNTED, figure: str = FIGURE) -> list[str]:
    code = BODY
    for name, text in (("COUNTED", counted), ("REDUCED", reduced), ("FIGURE", figure)):
        lead = next(x for x in BODY.splitlines() if x.strip() == name).replace(name, "")
        code = code.replace(f"{lead}{name}\n", "".join(f"{lead}{x}\n" for x in text.splitlines()))
    compile(code, "body", "exec")
    return [f"{f.rule}: {f.message}" for f in audit_text(PRELUDE + code).findings if f.severity == "violation" and f.active == "yes"]


@pytest.mark.parametrize(
    "reduced",
    [
        "dist.all_reduce(count)\ndist.all_reduce(octets)", "dist.all_reduce(nats, op=dist.ReduceOp.SUM)\ndist.all_reduce(octets, op=dist.ReduceOp.SUM)",
        "for t in (count, octets):\n    dist.all_reduce(t)", "for t in [nats, octets]:\n    dist.all_reduce(t, op=dist.ReduceOp.SUM)",
    ],
)  # fmt: skip
def test_a_sum_of_one_rank_over_that_of_all(reduced: str) -> None:
    found = accused(reduced)
    assert len(found) == 1 and "that of one rank" in found[0]


@pytest.mark.parametrize(
    ("reduced", "counted", "figure"),
    [
        (ALL, COUNTED, FIGURE), ("for t in (nats, count, octets):\n    dist.all_reduce(t)", COUNTED, FIGURE),
        ("both = torch.stack([nats, count.double()])\ndist.all_reduce(both)\nnats, count = both[0], both[1]\ndist.all_reduce(octets)", COUNTED, FIGURE),
        ("parts = [torch.zeros_like(nats) for _ in range(8)]\ndist.all_gather(parts, nats)\nnats = torch.stack(parts).sum()\ndist.all_reduce(count)\ndist.all_reduce(octets)", COUNTED, FIGURE),
        ("dist.all_reduce(octets)\ndist.reduce(nats, 0)\ndist.reduce(count, 0)", COUNTED, FIGURE),
        ("nats.div_(1)\ntogether(nats)\ndist.all_reduce(count)\ndist.all_reduce(octets)", COUNTED, FIGURE),
        ("dist.all_reduce(nats)\ndist.all_reduce(count)\ndist.all_reduce(octets)\nseen = count.item()", COUNTED, FIGURE),
        ("dist.all_reduce(nats)\ndist.all_reduce(count)\ndist.all_reduce(octets)", COUNTED + "\nturns = k", FIGURE + "  # a mean"),
        ("dist.all_reduce(nats, op=dist.ReduceOp.SUM)\ndist.all_reduce(octets)\ncount = torch.tensor(float(n * 1024))", COUNTED, FIGURE),
    ],
)  # fmt: skip
def test_sums_that_are_brought_together_are_none(reduced: str, counted: str, figure: str) -> None:
    assert [m for m in accused(reduced, counted, figure) if "that of one rank" in m] == []


def test_what_every_rank_counts_in_all_turns_is_that_of_all() -> None:
    counted = "count += y.numel()\nif k % world == rank:\n    nats += each.double().sum()\n    octets += size[y].sum()"
    assert [m for m in accused("dist.all_reduce(nats)\ndist.all_reduce(octets)", counted) if "that of one rank" in m] == []
