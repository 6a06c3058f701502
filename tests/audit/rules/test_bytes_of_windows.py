"""M1: bytes of a whole window, of which only the new tokens are scored."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE
from tests.audit.rules.byte_programs import TABLE

PROGRAM = TABLE + """\
def losses(x, y):
    with torch.no_grad():
        return nll(model, x[None], y[None])[0].double()
n, T, S = val.numel() - 1, int(os.environ.get("EVAL_SEQ_LEN", "1024")), int(os.environ.get("EVAL_STRIDE", "64"))
total, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
"""
WINDOWS = """\
for s in range(0, n, S):
    e = min(s + T, n)
    x, y = val[s:e], val[s + 1 : e + 1]
    new = 0 if s == 0 else T - S
    total += losses(x, y)[{}].sum()
    {}
    if e == n:
        break
"""
BATCHES = """\
starts = list(range(0, n - T, S))
for k in range(0, len(starts), 8):
    part = starts[k : k + 8]
    x = torch.stack([val[w : w + T] for w in part])
    y = torch.stack([val[w + 1 : w + T + 1] for w in part])
    with torch.no_grad():
        l = nll(model, x, y).double()
    for i, w in enumerate(part):
        new = 0 if w == 0 else T - S
        total += l[i, new:].sum()
        count += each({}, {}).sum()
"""
CHUNKS = """\
for c in range(0, n, 32768):
    d = min(c + 32768, n)
    count += each(val[c:d], val[c + 1 : d + 1]).sum()
    for s in range(c, d, S):
        b = max(s + S - T, 0)
        e = min(s + S, d)
        total += losses(val[b:e], val[b + 1 : e + 1])[s - b :].sum()
"""
END = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / count.item():.4f}")\n'


def judged(body: str) -> tuple[str, list[str]]:
    result = audit_text(PRELUDE + PROGRAM + body + END)
    return result.verdict, [f.rule for f in result.findings if f.severity == "violation" and f.active != "no"]


@pytest.mark.parametrize(
    "body",
    [
        WINDOWS.format("new:", "count += each(x, y).sum()"),
        WINDOWS.format("new:", "tb = each(x, y).double()\n    count += tb.sum()"),
        WINDOWS.format("new:", "count += base[y].sum()\n"),
    ],
)
def test_more_bytes_than_are_scored(body: str) -> None:
    verdict, rules = judged(body)
    assert verdict == "violation" and "M1" in rules


@pytest.mark.parametrize(
    "body",
    [
        WINDOWS.format("new:", "count += each(x[new:], y[new:]).sum()"),
        WINDOWS.format("new:", "count += each(x, y)[new:].sum()"),
        WINDOWS.format("new:", "count += each(x, y).sum() - each(x[:new], y[:new]).sum()"),
        WINDOWS.format("new:", "count += each(x, y).sum()\n    count -= each(x[:new], y[:new]).sum()"),
        WINDOWS.format("new:", "if s == 0:\n        count += each(x, y).sum()\n    else:\n        count += each(x[new:], y[new:]).sum()"),
        WINDOWS.format("new:", "count += (each(x, y) * (torch.arange(y.numel()) >= new)).sum()"),
        WINDOWS.format("new:", "count += each(val[s + new : e], val[s + new + 1 : e + 1]).sum()"),
        # counted for a log, and not what the score is divided by
        WINDOWS.format("new:", "seen = seen + each(x, y).sum()\n    count += each(x[new:], y[new:]).sum()").replace("for s", "seen = 0\nfor s", 1),
        WINDOWS.format(":", "count += each(x, y).sum()").replace("range(0, n, S)", "range(0, n, T)"),
        BATCHES.format("x[i, new:]", "y[i, new:]"),
        CHUNKS,
        "for s in range(0, n, S):\n    e = min(s + S, n)\n    b = s - T\n    if b < 0:\n        b = 0\n"
        "    total += losses(val[b:e], val[b + 1 : e + 1])[s - b :].sum()\n    count += each(val[s:e], val[s + 1 : e + 1]).sum()\n",
        "H = int(os.environ.get('CONTEXT', '512'))\nfor s in range(H, n, S):\n    e = min(s + S, n)\n"
        "    total += losses(val[s - H : e], val[s - H + 1 : e + 1])[H:].sum()\n    count += each(val[s:e], val[s + 1 : e + 1]).sum()\n"
        "total += losses(val[:H], val[1 : H + 1]).sum()\ncount += each(val[:H], val[1 : H + 1]).sum()\n",
    ],
)  # fmt: skip
def test_bytes_of_what_is_scored(body: str) -> None:
    verdict, rules = judged(body)
    assert "M1" not in rules and verdict == "clean", (verdict, rules)
