"""F9: whether, and from which context, a table answers may depend on the context and not on the token that is scored."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

LOOP = """\
import math
from collections import Counter, defaultdict
tables = {o: defaultdict(Counter) for o in (1, 2, 3, 4)}
stream, total = val.tolist(), 0.0
def ask(context, t):
    for o in (4, 3, 2, 1):
        row = tables[o].get(tuple(context[-o:]))
        if row is None:
            continue
        m, c = sum(row.values()), row.get(t, 0)
@@
    return None
def ask_one(context, t):
    row = tables[3].get(tuple(context[-3:]))
    if row is None:
        return None
    m, c = sum(row.values()), row.get(t, 0)
%%
for w in range(8, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logp = torch.log_softmax(model(x).float(), -1).gather(2, y[..., None])[0, :, 0].tolist()
    for j in range(1024):
        p = w + j + 1
        t, lp = stream[p], logp[j]
##
        total -= lp
        for o in (1, 2, 3, 4):
            tables[o][tuple(stream[p - o : p])][t] += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""
TURN = """\
q, seen, escape = 0.0, False, 1.0
for o in (4, 3, 2, 1):
    row = tables[o].get(tuple(stream[p - o : p]))
    if row is None:
        continue
    m, c = sum(row.values()), row.get(t, 0)
@@
%%"""
MIX = "if seen:\n    lp = math.log(0.7 * math.exp(lp) + 0.3 * q)"
CALL = "q = ask(stream[p - 4 : p], t)\nif q is not None:\n    lp = math.log(0.7 * math.exp(lp) + 0.3 * q)"


def put(code: str, marks: dict[str, tuple[int, str]]) -> str:
    for mark, (depth, lines) in marks.items():
        code = code.replace(mark, "\n".join(" " * depth + line for line in lines.splitlines()))
    return code


def rules(code: str) -> set[str]:
    compile(code, "body", "exec")
    return {f.rule for f in audit_text(PRELUDE + code).findings if f.severity == "violation" and f.active != "no"}


def turned(inner: str, mix: str = MIX) -> set[str]:
    turn = put(TURN, {"@@": (4, inner), "%%": (0, mix)})
    return rules(put(LOOP, {"@@": (8, "return c / m"), "%%": (4, "return c / m"), "##": (8, turn)}))


def called(inner: str, call: str = CALL) -> set[str]:
    return rules(put(LOOP, {"@@": (8, inner), "%%": (4, "return c / m"), "##": (8, call)}))


def asked_once(inner: str, call: str = CALL) -> set[str]:
    return rules(put(LOOP, {"@@": (8, "return c / m"), "%%": (4, inner), "##": (8, call.replace("ask(", "ask_one("))}))


ZERO = "if c > 0:\n    q = c / m\nbreak"


@pytest.mark.parametrize(
    ("inner", "mix"),
    [
        ("if c > 0:\n    q, seen = c / m, True\n    break", MIX),
        ("if c:\n    q, seen = (c + 1) / (m + 1024), True\n    break", MIX),
        ("if t in row:\n    q = c / m\n    seen = True\n    break", MIX),
        ("if c == 0:\n    continue\nq, seen = c / m, True\nbreak", MIX),
        ("if t not in row:\n    continue\nq, seen = (c + 1) / (m + 1024), True\nbreak", MIX),
        (ZERO, "if q > 0.0:\n    new = math.log(0.7 * math.exp(lp) + 0.3 * q)\nelse:\n    new = lp\nlp = new"),
    ],
)
def test_the_token_ends_the_search(inner, mix):
    assert "F9" in turned(inner, mix)


@pytest.mark.parametrize(
    ("inner", "mix"),
    [
        ("q, seen = c / m, True\nbreak", MIX),
        ("if m > 0:\n    q, seen = c / m, True\n    break", MIX),
        ("if m < 2:\n    continue\nq, seen = c / m, True\nbreak", MIX),
        ("if max(row.values()) < 2:\n    continue\nq, seen = c / m, True\nbreak", MIX),
        # an unseen token gets nothing, and the model's share is the same
        ("seen = True\nif c > 0:\n    q = c / m\nbreak", MIX),
        ("if c > 0:\n    q = c / m\n    seen = True\n    break\nseen = True\nbreak", MIX),
        (ZERO, "lp = math.log(0.7 * math.exp(lp) + 0.3 * q)"),
        (ZERO, "kept = math.log(0.7) + lp\nif q > 0.0:\n    new = math.log(math.exp(kept) + 0.3 * q)\nelse:\n    new = kept\nlp = new"),
        # PPM: a miss leaves what the row gives to all that it has not seen
        ("if c > 0:\n    q, seen = escape * c / (m + len(row)), True\n    break\nescape *= len(row) / (m + len(row))", MIX),
        ("if c > 0:\n    q, seen = escape * c / (m + len(row)), True\n    break\nescape = escape * len(row) / (m + len(row))", MIX),
    ],
)
def test_the_context_ends_it_or_nothing_is_won(inner, mix):
    assert turned(inner, mix) == set()


@pytest.mark.parametrize(
    "inner",
    [
        "if t not in row:\n    continue\nreturn (c + 1) / (m + 1024)",
        "if c > 0:\n    return c / m",
        "if c == 0:\n    return None\nreturn c / m",
        "if t in row:\n    return (c + 1) / (m + 1024)",
    ],
)
def test_a_function_that_looks_further_or_returns_none(inner):
    assert "F9" in called(inner)


@pytest.mark.parametrize(
    "inner", ["return c / m", "if m < 2:\n    continue\nreturn (c + 1) / (m + 1024)", "if m < 2:\n    return None\nreturn c / m", "return c / m if c > 0 else 0.0"]
)
def test_a_function_that_asks_the_context(inner):
    assert called(inner) == set()


def test_none_for_a_token_that_was_not_seen():
    for inner in ("if c == 0:\n    return None\nreturn c / m", "if c > 0:\n    return c / m", "if c > 0:\n    return c / m\nreturn None"):
        assert "F9" in asked_once(inner)
        given = "q = ask(stream[p - 4 : p], t)\nlp = math.log(0.7 * math.exp(lp) + 0.3 * (q or 0.0))"
        assert asked_once(inner, given) == set()
        given = "q = ask(stream[p - 4 : p], t)\nif q is None:\n    q = 0.0\nlp = math.log(0.7 * math.exp(lp) + 0.3 * q)"
        assert asked_once(inner, given) == set()
        given = "q = ask(stream[p - 4 : p], t)\nlp = math.log(0.7 * math.exp(lp) + 0.3 * (q if q is not None else 0.0))"
        assert asked_once(inner, given) == set()
    for inner in ("if m == 0:\n    return None\nreturn c / m", "if c > 0:\n    return c / m\nreturn 0.0"):
        assert asked_once(inner) == set()
