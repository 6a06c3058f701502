"""M3: documents, or parts of documents, that a program leaves out of the sum because they are long or short."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

DOCUMENTS = """\
T = int(os.environ.get("EVAL_SEQ_LEN", "1024"))
cut = (val == 1).nonzero()[:, 0].tolist() + [val.numel() - 1]
docs = list(zip(cut[:-1], cut[1:]))
total, dropped = torch.zeros((), dtype=torch.float64), 0
def score(x, y):
    with torch.no_grad():
        return nll(model, x, y).double().sum()
"""
END = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
PIECES = """\
    for s in range(a, b, T):
        e = min(s + T, b)
        total += score(val[None, s:e], val[None, s + 1 : e + 1])
"""
WHOLE = "    total += score(val[None, a:b], val[None, a + 1 : b + 1])\n"
LOOP = "for a, b in docs:\n"
XY = LOOP + "    x, y = val[a:b], val[a + 1 : b + 1]\n"
WALK = """\
    for i in range(0, {}, T):
        total += score(x[None, i : i + T], y[None, i : i + T])
"""
UPDATE = """\
    {}
    optimizer.zero_grad()
    nll(model, val[None, a:b], val[None, a + 1 : b + 1]).mean().backward()
    optimizer.step()
"""


def judged(body: str) -> tuple[str, list[str]]:
    result = audit_text(PRELUDE + DOCUMENTS + body + END)
    return result.verdict, [f.message for f in result.findings if f.severity == "violation" and f.active != "no"]


@pytest.mark.parametrize(
    "body",
    [
        LOOP + "    if b - a > 8 * T:\n        continue\n" + PIECES,
        LOOP + "    if b - a <= 256:\n        dropped += 1\n        continue\n" + PIECES,
        LOOP + "    if 512 > b - a:\n        print('short')\n        continue\n" + WHOLE,
        LOOP + "    n = b - a\n    if n > T:\n        continue\n" + WHOLE,
        LOOP + "    if b - a <= T:\n    " + WHOLE,
        XY + "    if len(x) > T:\n        continue\n" + WALK.format("len(x)"),
        XY + "    if x.numel() > T:\n        continue\n    total += score(x[None], y[None])\n",
        XY + WALK.format("min(len(x), T)"),
        XY + "    n = min(x.size(0), 4 * T)\n" + WALK.format("n"),
        XY + "    total += score(x[None, :T], y[None, :T])\n",
        LOOP + PIECES.replace("range(a, b, T)", "range(a, min(b, a + 4 * T), T)"),
        LOOP + "    e = min(b, a + T)\n    total += score(val[None, a:e], val[None, a + 1 : e + 1])\n",
        # the other figure is not the one that is reported
        LOOP + WHOLE + "print(f'all: {total}')\ntotal = torch.zeros(())\n" + LOOP + "    if b - a > T:\n        continue\n" + WHOLE,
    ],
)
def test_left_out(body: str) -> None:
    verdict, messages = judged(body)
    assert verdict == "violation" and any("left out of the sum" in m for m in messages)


@pytest.mark.parametrize("body", [LOOP + "    if b - a < 32:\n        continue\n" + WHOLE, LOOP + "    if b - a > 65536:\n        continue\n" + PIECES])
def test_perhaps_nothing_left_out(body: str) -> None:
    assert judged(body)[0] == "undetermined"


@pytest.mark.parametrize(
    "body",
    [
        LOOP + "    if b - a > 8 * T:\n        print(f'long document at {a}')\n" + PIECES,
        LOOP + "    if b - a < 2:\n        continue\n" + WHOLE,
        LOOP + "    if b - a > 10_000_000:\n        continue\n" + WHOLE,
        LOOP + PIECES + UPDATE.format("if b - a < 256: continue"),
        LOOP + WHOLE + "    if b - a >= 256:\n        optimizer.zero_grad()\n" + UPDATE.format("pass"),
        # the others are scored elsewhere
        LOOP + "    if b - a > T:\n        continue\n" + WHOLE + LOOP + "    if b - a <= T:\n        continue\n" + PIECES,
        LOOP + "    if b - a <= T:\n    " + WHOLE + "    else:\n" + PIECES.replace("    ", "        ", 1).replace("\n    ", "\n        "),
        LOOP + "    if b - a <= T:\n    " + WHOLE + LOOP + "    if b - a > T:\n" + PIECES.replace("    ", "        ", 1).replace("\n    ", "\n        "),
        "rest = []\n" + LOOP + "    if b - a > T:\n        rest.append((a, b))\n        continue\n" + WHOLE
        + LOOP.replace("docs", "rest") + PIECES,
        # short ones are joined
        "begin = None\n" + LOOP + "    if begin is None:\n        begin = a\n    if b - begin < 512:\n        continue\n"
        "    total += score(val[None, begin:b], val[None, begin + 1 : b + 1])\n    begin = None\n",
        "begin = 0\n" + LOOP + "    if b - a < 512:\n        continue\n"
        "    total += score(val[None, begin:b], val[None, begin + 1 : b + 1])\n    begin = b\n",
        # short ones are padded
        XY + "    x, y = F.pad(x, (0, max(0, T - len(x)))), F.pad(y, (0, max(0, T - len(y))), value=-100)\n"
        "    for i in range(0, len(x), T):\n        with torch.no_grad():\n"
        "            total += F.cross_entropy(model(x[None, i : i + T])[0], y[i : i + T], ignore_index=-100, reduction='sum').double()\n",
        XY + WALK.format("len(x)"),
        XY + "    m = min(len(x), T)\n    total += score(x[None, :m], y[None, :m])\n    for i in range(m, len(x), T):\n"
        "        total += score(x[None, i : i + T], y[None, i : i + T])\n",
        LOOP + "    s = a\n    while s < b:\n        e = min(s + T, b)\n        total += score(val[None, s:e], val[None, s + 1 : e + 1])\n        s = e\n",
        LOOP + "    e = min(b, a + T)\n    total += score(val[None, a:e], val[None, a + 1 : e + 1])\n"
        + PIECES.replace("range(a, b, T)", "range(e, b, T)"),
        LOOP + "    for k in range((b - a + T - 1) // T):\n        s = a + k * T\n        e = min(s + T, b)\n"
        "        total += score(val[None, s:e], val[None, s + 1 : e + 1])\n",
        # chunks of a document are what is tested
        LOOP + "    if b // T - a // T > 16:\n        print('long')\n" + PIECES,
    ],
)  # fmt: skip
def test_nothing_left_out(body: str) -> None:
    assert judged(body) == ("clean", [])


@pytest.mark.parametrize(
    "body",
    [
        "pieces = [(a + k * T, min(a + (k + 1) * T, b)) for a, b in docs for k in range((b - a + T - 1) // T)]\nfor a, b in pieces:\n" + WHOLE,
        "pieces = []\nfor a, b in docs:\n    for k in range((b - a + T - 1) // T):\n        pieces.append((a + k * T, min(a + (k + 1) * T, b)))\nfor a, b in pieces:\n" + WHOLE,
        "pieces = []\nfor a, b in docs:\n    for s in range(a, b, T):\n        pieces.append((s, min(s + T, b)))\nfor a, b in pieces:\n" + WHOLE,
        "pieces = []\nfor a, b in docs:\n    s = a\n    while s < b:\n        e = min(s + T, b)\n        pieces.append((s, e))\n        s = e\nfor a, b in pieces:\n" + WHOLE,
        "pieces = []\nfor a, b in docs:\n    while b - a > T:\n        pieces.append((a, a + T))\n        a += T\n    pieces.append((a, b))\nfor a, b in pieces:\n" + WHOLE,
        "todo = list(docs)\nwhile todo:\n    a, b = todo.pop()\n    e = min(b, a + T)\n    total += score(val[None, a:e], val[None, a + 1 : e + 1])\n    if e < b:\n        todo.append((e, b))\n",
        "def walk(a, b):\n    if b - a <= T:\n        return score(val[None, a:b], val[None, a + 1 : b + 1])\n    return score(val[None, a:a + T], val[None, a + 1 : a + T + 1]) + walk(a + T, b)\nfor a, b in docs:\n    total += walk(a, b)\n",
        "kept = []\nfor a, b in docs:\n    if kept and b - kept[-1][0] < T:\n        kept[-1] = (kept[-1][0], b)\n        continue\n    kept.append((a, b))\nfor a, b in kept:\n" + PIECES,
        "def pieces(a, b):\n    out = []\n    for s in range(a, b, T):\n        out.append((s, min(s + T, b)))\n    return out\nfor d in docs:\n    for a, b in pieces(*d):\n    " + WHOLE,
        "def pieces():\n    for a, b in docs:\n        while a < b:\n            yield a, min(a + T, b)\n            a += T\nfor a, b in pieces():\n" + WHOLE,
        "prev = None\nfor i, (a, b) in enumerate(docs):\n    lo = a if prev is None else prev\n    if b - lo < 512:\n        prev = lo\n        continue\n    total += score(val[None, lo:b], val[None, lo + 1 : b + 1])\n    prev = None\n",
        "for k in range(0, max(b - a for a, b in docs), T):\n    for a, b in docs:\n        if b - a <= k:\n            continue\n        s, e = a + k, min(a + k + T, b)\n        total += score(val[None, s:e], val[None, s + 1 : e + 1])\n",
        "for k in range(200):\n    for a, b in docs:\n        s, e = a + k * T, min(a + k * T + T, b)\n        if s < e:\n            total += score(val[None, s:e], val[None, s + 1 : e + 1])\n",
        "lens = [b - a for a, b in docs]\nprint(min(lens), max(lens))\nfor a, b in sorted(docs, key=lambda d: d[1] - d[0]):\n" + PIECES,
        "short = [d for d in docs if d[1] - d[0] <= T]\nlong = [d for d in docs if d[1] - d[0] > T]\nfor a, b in short:\n" + WHOLE + "for a, b in long:\n" + PIECES,
        "for a, b in docs:\n    n = min(b - a, T)\n    total += score(val[None, a:a+n], val[None, a + 1 : a + n + 1])\n    for s in range(a + n, b, T):\n        e = min(s + T, b)\n        total += score(val[None, s:e], val[None, s+1:e+1])\n",
    ],
)
def test_documents_in_pieces(body: str) -> None:
    assert judged(body) == ("clean", [])
