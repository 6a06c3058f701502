"""Tables that a branch empties: kept where the test is not known, and no business of the token that is scored next."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

_WALK = '''
import math
class Rows:
    def __init__(self):
        self.rows = {}
    def clear(self):
        self.rows = {}
memory = Rows()
cache = {}
counts = np.zeros((1024, 1024))
total = 0.0
for c in range(0, val.numel() - 1, 1024):
    w = val[c : c + 1025]
    with torch.no_grad():
        probs = torch.softmax(model(w[None, :-1])[0].float(), -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        a, t = ids[j], ids[j + 1]
@@
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
'''

_PAIRS = """\
p, n = probs[j, t], cache.get((a, t), 0)
if n:
    p = 0.8 * p + 0.2 * n / (n + 1)
total -= math.log(p)
cache[(a, t)] = n + 1
"""
_ROWS = """\
row = cache.get(a)
p = probs[j, t]
if row is not None:
    p = 0.8 * p + 0.2 * row.get(t, 0) / sum(row.values())
total -= math.log(p)
row = cache.setdefault(a, {})
row[t] = row.get(t, 0) + 1
"""
_COUNTS = """\
n = counts[a].sum()
p = (1 - 0.2 * (n > 0)) * probs[j, t] + 0.2 * counts[a, t] / max(n, 1)
total -= math.log(p)
counts[a, t] += 1
"""
#: a way to empty a table, and what the table serves for
_WAYS = {
    "cleared": ("cache.clear()", "", _ROWS),
    "made anew": ("cache = {}", "", _ROWS),
    "in an object": ("memory.clear()", "cache = memory.rows\n", _ROWS),
    "as an attribute": ("memory.rows = {}", "cache = memory.rows\n", _ROWS),
    "filled with zeros": ("counts.fill(0)", "", _COUNTS),
    "set to zero": ("counts[:] = 0", "", _COUNTS),
    "an array made anew": ("counts = np.zeros((1024, 1024))", "", _COUNTS),
}


def rules_of(turn: str) -> set[str]:
    code = PRELUDE + _WALK.replace("@@", "".join(f"        {line}\n" for line in turn.splitlines()))
    result = audit_files(text_files({"train_gpt.py": code}, "train_gpt.py"), Options())
    assert result.verdict != "undetermined", result.reason
    return {f.rule for f in result.findings if f.severity == "violation"}


@pytest.mark.parametrize("way", _WAYS)
def test_the_token_that_is_scored_may_not_empty_the_table(way):
    empties, before, use = _WAYS[way]
    assert rules_of(f"if t == 1:\n    {empties}\n{before}{use}") == {"F7"}
    assert rules_of(f"if a == 1:\n    {empties}\n{before}{use}") == set()
    assert rules_of(f"{before}{use}if t == 1:\n    {empties}\n") == set()


@pytest.mark.parametrize("empties", ["cache.clear()", "cache = {}", "memory.clear()", "memory.rows = {}"])
def test_a_table_that_may_have_been_emptied_may_be_full(empties):
    assert "F8" in rules_of(f"if a == 1:\n    {empties}\n" + ("cache = memory.rows\n" if "memory" in empties else "") + _PAIRS)
