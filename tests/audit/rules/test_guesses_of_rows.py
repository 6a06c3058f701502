"""F7: the token that a dictionary's row has seen most, compared with the token to be scored, and what that decides."""

from __future__ import annotations

import textwrap

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

BODY = """\
import math
from collections import Counter, defaultdict
after, rate, last = {}, 0.5, -1
total = torch.zeros((), dtype=torch.float64)
for c in range(0, val.numel() - 1, 1024):
    w = val[c : c + 1025]
    with torch.no_grad():
        lp = torch.log_softmax(model(w[None, :-1])[0].float(), -1)
    ids = w.tolist()
    for j in range(len(ids) - 1):
        a, t = ids[j], ids[j + 1]
        H = -(lp[j].exp() * lp[j]).sum().item()
        p = lp[j, t].item()
        row = after.get(a)
        if row:
            n = sum(row.values())
            q = (row.get(t, 0) + 1) / (n + 1024)
            share = 0.05 + 0.5 / (1 + math.exp(4 - H))
            WEIGHT
            p = math.log(math.exp(p + math.log(1.0 - share)) + math.exp(math.log(q) + math.log(share)))
        AFTER
        total -= p
        after.setdefault(a, Counter())[t] += 1
        LAST
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
MOST = "max(row, key=row.get)"
GUESSES = [
    MOST, "row.most_common(1)[0][0]", "sorted(row, key=row.get)[-1]", "sorted(row, key=row.get, reverse=True)[0]", "max(row.items(), key=lambda kv: kv[1])[0]",
    "max(row, key=lambda k: row[k])", "(max(row, key=row.get) if row else -1)", "sorted(row.items(), key=lambda kv: -kv[1])[0][0]",
]  # fmt: skip
DECIDED = [
    "if GUESS == t:\n    share = 0.9", "share = 0.9 if GUESS == t else 0.05", "guess = GUESS\nif t != guess:\n    share = 0.01", "if GUESS == t:\n    share = min(0.9, 2 * share)",
    "if t in [GUESS]:\n    share *= 1.5",
]  # fmt: skip


def accused(weight: str = "pass", after: str = "pass", last: str = "pass") -> set[str]:
    code = BODY
    for name, text, by in (("WEIGHT", weight, 3), ("AFTER", after, 2), ("LAST", last, 2)):
        lead = "    " * by
        code = code.replace(f"{lead}{name}\n", textwrap.indent(text, lead) + "\n")
    compile(code, "body", "exec")
    return {f.rule for f in audit_text(PRELUDE + code).findings if f.severity == "violation" and f.active != "no"}


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("way", DECIDED)
def test_a_weight_by_whether_the_row_guesses_right(guess: str, way: str) -> None:
    assert accused(way.replace("GUESS", guess)) == {"F7"}


@pytest.mark.parametrize("way", ["share = min(0.9, share + q)", "share = min(0.9, share + math.exp(math.log(q)))"])
def test_a_weight_by_what_the_row_gives_the_token(way: str) -> None:
    assert accused(way) == {"F7"}


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize(
    "way",
    [
        "pass", "if GUESS == a:\n    share = 0.9", "if GUESS == lp[j].argmax().item():\n    share = 0.9", "share = min(0.9, share + 0.3 * row[GUESS] / n)",
        "hits = 1 if GUESS == t else 0", "share = min(0.9, share * rate)", "if last == GUESS:\n    share = 0.2",
    ],
)  # fmt: skip
def test_a_weight_made_before_the_token_is_read(guess: str, way: str) -> None:
    rate = f"rate = 0.99 * rate + 0.01 * (row is not None and {guess} == t)"
    assert accused(way.replace("GUESS", guess), last=rate) == set()


@pytest.mark.parametrize("guess", GUESSES[:5])
@pytest.mark.parametrize(
    "after",
    [
        "if row:\n    h = GUESS\n    z = math.log1p(math.exp(lp[j, h].item()) * (math.exp(1.5) - 1))\n    p = lp[j, t].item() + 1.5 * (h == t) - z",
        "if row:\n    h = GUESS\n    z = math.log1p(math.exp(lp[j, h].item()) * (math.exp(1.5) - 1))\n    p = lp[j, t].item() - z\n    if h == t:\n        p = p + 1.5",
        "if row:\n    h = GUESS\n    p = math.log(0.9 * math.exp(lp[j, t].item()) + 0.1 * (h == t))",
        "if row:\n    h = GUESS\n    p = math.log(0.9 * math.exp(lp[j, t].item()) + (0.1 if h == t else 0.0))",
        "if row:\n    h = GUESS\n    s = 0.5 * row[h] / (n + 1)\n    p = math.log((1 - s) * math.exp(lp[j, t].item()) + s * (h == t))",
    ],
)  # fmt: skip
def test_a_guess_is_one_with_what_it_takes_from_the_others(guess: str, after: str) -> None:
    assert accused(after=after.replace("GUESS", guess)) == set()


@pytest.mark.parametrize("rows", ["row.items()", "sorted(row.items(), key=lambda kv: -kv[1])", "[(k, row[k]) for k in row.keys()]", "[(k, row[k]) for k in sorted(row)]"])
def test_the_whole_row_is_no_guess(rows: str) -> None:
    after = f"if row:\n    mix = 0.5 * lp[j].exp()\n    for k, m in {rows}:\n        mix[k] += 0.5 * m / n\n    p = math.log(mix[t].item())"
    assert accused(after=after) == set()
