"""M3: windows in rows, of which less is scored than they lie apart."""

from __future__ import annotations

import textwrap

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

HEAD = """\
import torch.distributed as dist
rank, world, L, S = dist.get_rank(), dist.get_world_size(), int(os.environ.get("SEQ_LEN", "1024")), int(os.environ.get("STRIDE", "64"))
n, context = val.numel() - 1, L - S
total, count = torch.zeros((), dtype=torch.float64), torch.zeros(())
"""
LISTED = "starts = [w for w in range(0, n, STEP) if w + context < n]\n"
BY_HAND = "starts, p = [], 0\nwhile p + L <= n:\n    starts.append(p)\n    p += STEP\n"
MINE = "mine = starts[len(starts) * rank // world : len(starts) * (rank + 1) // world]\n"
TURNS = "mine = starts[rank::world]\n"
BATCHES = """\
for b in range(0, len(mine), 32):
    part = mine[b : b + 32]
    x, y = torch.zeros(len(part), L, dtype=torch.long), torch.zeros(len(part), L, dtype=torch.long)
    lengths = []
    for i, w in enumerate(part):
        e = min(w + L, n)
        lengths.append(e - w)
        run = val[w : e + 1].long()
        x[i, : e - w], y[i, : e - w] = run[:-1], run[1:]
    with torch.no_grad():
        each = F.cross_entropy(model(x).transpose(1, 2).float(), y, reduction="none")
    for i, w in enumerate(part):
        SCORED
dist.all_reduce(total)
"""
STACKED = """\
for b in range(0, len(mine), 32):
    part = mine[b : b + 32]
    x = torch.stack([val[w : w + L] for w in part])
    y = torch.stack([val[w + 1 : w + 1 + L] for w in part])
    lengths = [L] * len(part)
    with torch.no_grad():
        logits = model(x)
    for i, w in enumerate(part):
        s = 0 if w == 0 else FROM
        each, own = logits[i, s:].float(), y[i, s:]
        total += F.cross_entropy(each, own, reduction="sum").double()
dist.all_reduce(total)
"""
PAIRS = """\
pairs, p = [], 0
while p + L <= n:
    pairs.append((p, 0 if p == 0 else FROM))
    p += STEP
for b in range(0, len(pairs), 32):
    part = pairs[b : b + 32]
    y = torch.stack([val[w + 1 : w + 1 + L] for w, _ in part])
    with torch.no_grad():
        logits = model(torch.stack([val[w : w + L] for w, _ in part]))
    for i in range(len(part)):
        s = part[i][1]
        total += F.cross_entropy(logits[i, s:].float(), y[i, s:], reduction="sum").double()
"""
LAST = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
SCORED = "s = 0 if w == 0 else context\ntotal += each[i, s : lengths[i]].double().sum()"


def accused(body: str, step: str = "S", first: str = "context", scored: str = SCORED) -> list[str]:
    code = HEAD + body.replace("        SCORED\n", textwrap.indent(scored, "        ") + "\n").replace("STEP", step).replace("FROM", first) + LAST
    compile(code, "body", "exec")
    return [f"{f.rule}: {f.message}" for f in audit_text(PRELUDE + code).findings if f.severity == "violation" and f.active == "yes"]


def left_out(found: list[str]) -> bool:
    return any("are never scored" in m for m in found)


LISTS = [starts + mine for starts in (LISTED, BY_HAND) for mine in (MINE, TURNS)]


@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize(
    "scored",
    [
        SCORED.replace("else context", "else context + S // 2"), SCORED.replace("else context", "else context + 1"), SCORED.replace("each[i, s :", "each[i, s + 8 :"),
        SCORED.replace("0 if w == 0 else context", "context + 8 if w > 0 else 0"), "s = 0 if w == 0 else -S // 2\ntotal += each[i, s:].double().sum()",
        "s = context + 8 if w else 0\ntotal += each[i, s : lengths[i]].double().sum()", SCORED.replace("s : lengths[i]", "s : L - 8"),
        "total += each[i, context + 8 :].double().sum()",
    ],
)  # fmt: skip
def test_a_scored_part_that_is_shorter_than_the_stride(lists: str, scored: str) -> None:
    assert left_out(accused(lists + BATCHES, scored=scored))


@pytest.mark.parametrize("lists", LISTS)
def test_windows_that_lie_further_apart_than_their_scored_parts_are_long(lists: str) -> None:
    for body in (BATCHES, STACKED):
        assert left_out(accused(lists + body, step="2 * S"))
        assert left_out(accused(lists + body, step="L"))
    assert left_out(accused(PAIRS, step="L"))
    assert left_out(accused(PAIRS, first="context + 8"))


HONEST = [
    SCORED, SCORED.replace("else context", "else context - 8"), "s = 0 if w == 0 else max(lengths[i] - S, 0)\ntotal += each[i, s : lengths[i]].double().sum()",
    SCORED.replace("else context", "else L - S"), "if w == 0:\n    total += each[i, : lengths[i]].double().sum()\nelse:\n    total += each[i, context : lengths[i]].double().sum()",
    "if w == 0:\n    s = 0\nelse:\n    s = context\ntotal += each[i, s : lengths[i]].double().sum()", "s = 0 if w == 0 else -S\ntotal += each[i, s:].double().sum()",
    "s = 0 if w == 0 else context\ntotal += each[i, s : s + S // 2].double().sum()\ntotal += each[i, s + S // 2 : lengths[i]].double().sum()",
    "s = 0 if w == 0 else context\nfor t in range(s, lengths[i]):\n    total += each[i, t].double()",
    "s = 0 if w == 0 else context\nkept = torch.arange(L) >= s\ntotal += (each[i] * kept).double().sum()",
]  # fmt: skip


@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize("scored", HONEST)
def test_scored_parts_that_meet_are_none(lists: str, scored: str) -> None:
    assert accused(lists + BATCHES, scored=scored) == []


@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize("step", ["S", "S // 2"])
def test_strides_up_to_the_scored_part_are_none(lists: str, step: str) -> None:
    assert accused(lists + STACKED, step=step) == []
    assert accused(PAIRS, step=step) == []


@pytest.mark.parametrize("lists", LISTS)
def test_whole_windows_side_by_side_are_none(lists: str) -> None:
    assert accused(lists + BATCHES, step="L", scored="total += each[i, : lengths[i]].double().sum()") == []
    assert accused(lists + STACKED, step="L", first="0") == []


def test_rows_of_a_batch_are_no_tokens() -> None:
    halves = "half = each[:16]\ntotal += half[:, context:].double().sum()\nrest = each[16:]\ntotal += rest[:, context:].double().sum()"
    body = LISTED + MINE + BATCHES.replace("    for i, w in enumerate(part):\n        SCORED\n", textwrap.indent(halves, "    ") + "\n")
    assert accused(body) == []
    pieces = "for w in mine:\n    for k in range(0, L, 256):\n        with torch.no_grad():\n            total += nll(model, val[None, w + k : w + k + 256], val[None, w + k + 1 : w + k + 257]).double().sum()\n"
    assert accused(LISTED + MINE + pieces, step="L") == []
    assert accused(LISTED + MINE + pieces.replace("for k in range(0, L, 256):", "for k in (0, 256, 512, 768):"), step="L") == []
