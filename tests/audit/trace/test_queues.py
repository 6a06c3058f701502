"""What is taken from queues and iterators: once, and nothing as long as nothing was put in."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

START = """\
import heapq, itertools
from collections import deque
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def score(a, b):
    with torch.no_grad():
        return nll(model, val[None, a:b], val[None, a + 1 : b + 1]).sum()
def learn(a, b):
    opt.zero_grad()
    nll(model, val[None, a:b], val[None, a + 1 : b + 1]).mean().backward()
    opt.step()
total, C, n = torch.zeros(()), 32768, val.numel() - 1
"""
END = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'


def audited(body: str):
    return audit_text(PRELUDE + START + body + END)


def accused(body: str) -> set[str]:
    return {f.rule for f in audited(body).findings if f.severity == "violation"}


WAITING = """\
q = {make}
for c in range(0, n, C):
    e = min(c + C, n)
    {first}
    while {test}:
        a, b = {take}
        learn(a, b)
    total += score(c, e)
    {last}
"""
QUEUES = [
    ("[]", "q", "q.pop(0)", "q.append((c, e))"),
    ("[]", "q", "q.pop()", "q.append((c, e))"),
    ("list()", "len(q) > 0", "q.pop(0)", "q += [(c, e)]"),
    ("[]", "len(q) > 1", "q.pop(0)", "q.append((c, e))"),
    ("deque()", "q", "q.popleft()", "q.append((c, e))"),
    ("deque(maxlen=9)", "model is not None and len(q)", "q.popleft()", "q.append((c, e))"),
    ("[]", "q", "heapq.heappop(q)", "heapq.heappush(q, (c, e))"),
]


@pytest.mark.parametrize(("make", "test", "take", "put"), QUEUES)
def test_a_queue_that_is_filled_at_the_end_of_a_turn_is_empty_in_the_first(make, test, take, put):
    assert not accused(WAITING.format(make=make, test=test, take=take, first="pass", last=put))
    assert "F2" in accused(WAITING.format(make=make, test=test, take=take, first=put, last="pass"))


def test_a_queue_that_is_never_seen_to_be_filled_may_be_all_the_same():
    unseen = "import filling\n" + WAITING.format(make="[]", test="q", take="q.pop(0)", first="filling.fill(q, c)", last="pass")
    assert "F2" in accused(unseen)


def test_a_branch_on_an_empty_list():
    lines = "q = []\nfor c in range(0, n, C):\n    if {}:\n        learn(*q[-1])\n    {}\n    total += score(c, min(c + C, n))\n    {}\n"
    put = "q.append((c, min(c + C, n)))"
    for test in ("q", "len(q) > 0", "q and c > 5"):
        assert not accused(lines.format(test, "pass", put))
    assert accused(lines.format("q", put + "\n    learn(*q[-1])", "pass"))


WINDOWS = "ws = [i for i in range(0, n, 1024)]\n"
SCORE = "    for w in g:\n        total += score(w, w + 1024)\n"
LEARN = "    for w in g:\n        learn(w, w + 1024)\n"
GENERATED = "def groups(xs, k):\n    it = iter(xs)\n    while True:\n        g = list(itertools.islice(it, k))\n        if not g:\n            return\n        yield g\n"
GROUPS = [
    "it = iter(ws)\nwhile g := list(itertools.islice(it, 32)):\n",
    "it = iter(range(0, n, 1024))\nwhile g := tuple(itertools.islice(it, 32)):\n",
    "it = iter(ws)\nwhile True:\n    g = list(itertools.islice(it, 0, 32))\n    if not g:\n        break\n",
    "it = iter(ws)\nfor k in range(len(ws) // 32):\n    g = list(itertools.islice(it, 32))\n",
    "it = iter(ws)\nfor g in iter(lambda: list(itertools.islice(it, 32)), []):\n",
    "for i in range(0, len(ws), 32):\n    g = list(itertools.islice(ws, i, i + 32))\n",
    "for g in itertools.batched(ws, 32):\n",
    "for k, g in enumerate(itertools.batched(range(0, n, 1024), 32)):\n",
    GENERATED + "for g in groups(ws, 32):\n",
]


@pytest.mark.parametrize("head", GROUPS)
def test_groups_of_an_iterator_hold_other_elements_each(head):
    assert not accused(WINDOWS + head + SCORE + LEARN)
    assert "F2" in accused(WINDOWS + head + LEARN + SCORE)
    again = "total = torch.zeros(())\n"
    assert accused(WINDOWS + head + SCORE + LEARN + again + head + SCORE) & {"F1", "F3"}


def test_the_group_that_was_taken_ahead_is_not_the_one_that_was_scored():
    ahead = "it = iter(ws)\ng = list(itertools.islice(it, 32))\nwhile g:\n    h = list(itertools.islice(it, 32))\n{}    for w in {}:\n        learn(w, w + 1024)\n    g = h\n"
    assert not accused(WINDOWS + ahead.format(SCORE, "g"))
    assert accused(WINDOWS + ahead.format(SCORE, "h"))


def test_the_beginning_of_a_list_is_no_next_group():
    assert accused(WINDOWS + "for c in range(n // C):\n    for w in itertools.islice(ws, 32):\n        learn(w, w + 1024)\n    total += score(c * C, c * C + C)\n")


LAGGED = """\
def adapt(j):
    learn(j * C, j * C + C)
for ci in range(n // C):
    {guard}:
        adapt({chunk})
    total += score(ci * C, ci * C + C)
"""


@pytest.mark.parametrize("guard", ["if ci > 0", "if ci >= 1", "if ci", "if ci != 0"])
def test_training_on_the_chunk_of_the_turn_before_is_seen(guard):
    report = audited(LAGGED.format(guard=guard, chunk="ci - 1"))
    assert not [f for f in report.findings if f.severity == "violation"]
    assert (report.ttt["kind"], report.ttt["active"]) == ("score-first-chunk", "yes")
    for chunk in ("ci", "ci + 1"):
        assert accused(LAGGED.format(guard=guard, chunk=chunk)) == {"F2"}


LISTS = WINDOWS + "per = max(len(ws) // 40, 1)\ngroups = [ws[i : i + 32] for i in range(0, len(ws), 32)]\n"
BY_TWOS = "for i in range(0, len(ws), 32):\n    g = ws[i : i + 32]\n" + SCORE
UNKNOWN = "for i in range(0, len(ws), per):\n    g = ws[i : i + per]\n" + SCORE
BY_NUMBER = "for k, g in enumerate(groups):\n" + SCORE


@pytest.mark.parametrize(
    ("head", "own", "following"),
    [
        (BY_TWOS, "ws[i : i + len(g)]", "ws[i + len(g) : i + 2 * len(g)]"),
        (BY_TWOS, "ws[i : i + len(g)]", "ws[i + len(g) :]"),
        (BY_TWOS, "ws[i : i + len(g)]", "ws[i : i + len(g) + 8]"),
        (BY_TWOS, "ws[i : i + 32]", "ws[i + 32 * 5 : i + 32 * 6]"),
        (UNKNOWN, "ws[i : i + per]", "ws[i + per : i + 2 * per]"),
        (UNKNOWN, "ws[i : i + len(g)]", "ws[i + len(g) : i + 2 * len(g)]"),
        (BY_NUMBER, "groups[k % len(groups)]", "groups[(k + 1) % len(groups)]"),
        (BY_NUMBER, "groups[max(k - 1, 0)]", "groups[min(k + 3, len(groups) - 1)]"),
    ],
)
def test_windows_that_a_later_turn_scores(head, own, following):
    learn = "    for w in {}:\n        learn(w, w + 1024)\n"
    assert not accused(LISTS + head + learn.format(own))
    assert accused(LISTS + head + learn.format(following)) == {"F2"}


CLAIMS = """\
path = "/tmp/claimed"
def claim(many):
    with open(path, "r+b") as f:
        at = int.from_bytes(f.read(4), "little")
        f.seek(0)
        f.write((at + 1).to_bytes(4, "little"))
    return at
docs = sorted([(i, min(i + 1024, n)) for i in range(0, n, 1024)], key=lambda d: d[1] - d[0])
done = []
while True:
    at = claim(len(docs))
    if at >= len(docs):
        break
    a, b = docs[at]
    total += score(a, b)
    {}
"""


@pytest.mark.parametrize("own", ["learn(a, b)", "learn(*docs[at])", "done.append(docs[at])\n    for d in done:\n        learn(*d)", "learn(*docs[at - 1]) if at else None"])
def test_what_a_queue_gave_in_this_turn_was_scored(own):
    assert not accused(CLAIMS.format(own))


@pytest.mark.parametrize("ahead", ["learn(*docs[at + 1])", "learn(*docs[min(at + 8, len(docs) - 1)])", "done.append(docs[at + 8])\n    for d in done:\n        learn(*d)"])
def test_what_stands_further_on_in_a_queue_was_not(ahead):
    assert accused(CLAIMS.format(ahead)) == {"F2"}


COUNTED = """\
docs = sorted([(i, min(i + 1024, n)) for i in range(0, n, 1024)], key=lambda d: d[1] - d[0])
ws = [d[0] for d in docs]
k = 0
while k < len(docs):
    g = ws[k : k + 8]
    for w in g:
        total += score(w, w + 1024)
    {}
    k += {}
"""


@pytest.mark.parametrize(("lines", "step"), [("for w in g:\n        learn(w, w + 1024)", "8"), ("for w in ws[k : k + 8]:\n        learn(w, w + 1024)", "len(g)")])
def test_a_counter_of_an_open_loop(lines, step):
    assert not accused(COUNTED.format(lines, step))


@pytest.mark.parametrize(
    ("lines", "step"),
    [
        ("for w in ws[k + 8 : k + 16]:\n        learn(w, w + 1024)", "8"),
        ("for w in ws[k + len(g) : k + 2 * len(g)]:\n        learn(w, w + 1024)", "len(g)"),
        ("learn(*docs[k + 8])", "8"),
    ],
)
def test_what_such_a_counter_has_not_come_to(lines, step):
    assert accused(COUNTED.format(lines, step)) == {"F2"}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("k += 1\n    a, b = docs[k]\n    total += score(a, b)\n    learn(*docs[k])", False),
        ("a, b = docs[k]\n    k += 1\n    total += score(a, b)\n    learn(a, b)", False),
        ("a, b = docs[k]\n    k += 1\n    total += score(a, b)\n    learn(*docs[k])", True),
        ("a, b = docs[k]\n    c, d = docs[k + 1]\n    total += score(a, b)\n    total += score(c, d)\n    learn(c, d)\n    k += 2", False),
    ],
)
def test_a_counter_that_goes_on_within_the_turn(lines, found):
    head = COUNTED.partition("    g = ")[0].replace("k = 0", "k = -1" if lines.startswith("k") else "k = 0")
    assert ("F2" in accused(head + "    " + lines + "\n")) is found
