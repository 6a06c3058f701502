"""D2: lists of windows that are cut to some of them, and lists of which other ranks and turns hold the rest."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

BEFORE = """\
import random, torch.distributed as dist
rank, world, n, T = dist.get_rank(), dist.get_world_size(), val.numel() - 1, 1024
starts = [s for s in range(0, n, 64) if s + 960 < n]
total = torch.zeros(())
"""
WHILE = BEFORE.replace("starts = [s for s in range(0, n, 64) if s + 960 < n]\n", "starts, p = [], 0\nwhile p + T <= n:\n    starts.append(p)\n    p += 64\n")
SCORED = """\
for k in range(0, len(mine), 32):
    for s in mine[k : k + 32]:
        w = val[s : s + 1025]
        with torch.no_grad():
            l = nll(model, w[None, :-1], w[None, 1:])
        total += l[:, (0 if s == 0 else 960) :].sum()
"""
END = 'dist.all_reduce(total)\nprint(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
STATED = {"submission.json": '{"val_bpb": 1.2350}'}


def judged(body: str, papers: dict[str, str] | None = None) -> tuple[str, str]:
    code = PRELUDE + body + END
    report = audit_files(text_files({"train_gpt.py": code} | (papers or {}), "train_gpt.py"), Options(rules=frozenset(["D2", "M3"])))
    return report.verdict, next((o.reason for o in report.obligations if o.rule == "D2"), "")


CUT = {
    "one in two": BEFORE + "mine = starts[::2]\n" + SCORED,
    "one in two of a share": BEFORE + "mine = starts[len(starts) * rank // world : len(starts) * (rank + 1) // world : 2]\n" + SCORED,
    "the first thousand": BEFORE + "mine = starts[:1000]\n" + SCORED,
    "the first thousand of a share": BEFORE + "mine = starts[len(starts) * rank // world : len(starts) * (rank + 1) // world][:1000]\n" + SCORED,
    "the first half": BEFORE + "starts = starts[: len(starts) // 2]\nmine = starts[rank::world]\n" + SCORED,
    "a share of a half": BEFORE + "m = len(starts) // 2\nper = (m + world - 1) // world\nmine = starts[rank * per : min((rank + 1) * per, m)]\n" + SCORED,
    "half of them at random": BEFORE + "mine = random.sample(starts, len(starts) // 2)\n" + SCORED,
    "without the last hundred": BEFORE + "mine = starts[:-100]\n" + SCORED,
    "those without a separator": BEFORE + "mine = [s for s in starts if not (val[s : s + T] == 1).any()]\n" + SCORED,
    "counted up, one in two": WHILE + "mine = starts[::2]\n" + SCORED,
    "counted up, the first thousand": WHILE + "mine = starts[:1000]\n" + SCORED,
}  # fmt: skip
KEPT = {
    "all of them": BEFORE + "mine = starts\n" + SCORED,
    "ranks take turns": BEFORE + "mine = starts[rank::world]\n" + SCORED,
    "eight ranks take turns": BEFORE + "mine = starts[rank::8]\n" + SCORED,
    "a share": BEFORE + "mine = starts[len(starts) * rank // world : len(starts) * (rank + 1) // world]\n" + SCORED,
    "a share, rounded up": BEFORE + "m = len(starts)\nper = (m + world - 1) // world\nmine = starts[rank * per : min((rank + 1) * per, m)]\n" + SCORED,
    "counted up, a share": WHILE + "m = len(starts)\nper = (m + world - 1) // world\nmine = starts[rank * per : min((rank + 1) * per, m)]\n" + SCORED,
    "whole windows only": BEFORE + "mine = [s for s in starts if s + T <= n or s == 0]\n" + SCORED,
    "both halves": BEFORE + "mine = starts[: len(starts) // 2]\n" + SCORED + "mine = starts[len(starts) // 2 :]\n" + SCORED,
    "even and odd ones": BEFORE + "for half in (0, 1):\n    mine = starts[half::2]\n" + "".join(f"    {x}\n" for x in SCORED.splitlines()),
    "with and without a separator": BEFORE + "mine = [s for s in starts if (val[s : s + T] == 1).any()]\n" + SCORED
    + "mine = [s for s in starts if not (val[s : s + T] == 1).any()]\n" + SCORED,
    "in another order": BEFORE + "mine = random.sample(starts, len(starts))\n" + SCORED,
    "without the last one": BEFORE + "mine = starts[:-1]\n" + SCORED,
    "a look at the first ones": BEFORE + "mine = starts[:100]\n" + SCORED.replace("total +=", "seen =") + "mine = starts\n" + SCORED,
    "chunk by chunk": BEFORE + "for c in range(0, len(starts), 512):\n    mine = starts[c : c + 512]\n" + "".join(f"    {x}\n" for x in SCORED.splitlines()),
    "all of them, and the ones before": BEFORE + "n_bytes = 151_000_000\nmine = starts\nfor s, before in zip(starts, starts[:1] + starts[:-100]):\n    w = val[s : s + 1025]\n"
    "    with torch.no_grad():\n        total += nll(model, w[None, :-1], w[None, 1:])[:, (0 if s == 0 else 960) :].sum()\n",
    "a thousand at a time": BEFORE + "left = starts\nwhile left:\n    mine, left = left[:1000], left[1000:]\n" + "".join(f"    {x}\n" for x in SCORED.splitlines()),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_some_of_the_windows(name: str) -> None:
    verdict, reason = judged(CUT[name])
    assert verdict == "undetermined"
    assert any(said in reason for said in ("of its windows", "but the last", "that a test of their"))


@pytest.mark.parametrize("name", KEPT)
def test_all_of_the_windows(name: str) -> None:
    assert judged(KEPT[name])[0] == "clean"


def test_a_limit_in_the_script_under_a_stated_score() -> None:
    assert judged(CUT["one in two"], STATED)[0] == "violation"
    assert judged(CUT["those without a separator"], STATED)[0] == "undetermined"
    assert judged(KEPT["a share"], STATED)[0] == "clean"
