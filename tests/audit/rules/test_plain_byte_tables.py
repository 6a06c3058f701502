"""M1: tables of bytes as lists, tuples, rows of a file and buffers, each with a space that the count adds again."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

COUNT = """\
import json, math
import sentencepiece as spm
sp = spm.SentencePieceProcessor(model_file="tokenizer.model")
V = sp.vocab_size()
@@
nats, nbytes = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
for i in range(0, val.numel() - 1, 1024):
    x, y = val[i : i + 1024], val[i + 1 : i + 1025]
    x = x[: len(y)]
    with torch.no_grad():
        loss = F.cross_entropy(model(x[None])[0], y, reduction="none").double()
    nats = nats + loss.sum()
    nbytes = nbytes + (size[y] + (lead[y] & ~edge[x])).double().sum()
print(f"val_bpb:{(nats / math.log(2) / nbytes).item():.4f}")
"""
LISTS = """\
size, lead, edge = [], [], []
for t in range(V):
    piece = sp.id_to_piece(t)
    edge.append(sp.is_control(t) or sp.is_unknown(t))
    lead.append(piece.startswith("▁"))
    size.append(0 if edge[-1] else 1 if sp.is_byte(t) else len(piece.lstrip("▁").encode()))
size, lead, edge = torch.tensor(size), torch.tensor(lead), torch.tensor(edge)
"""
TUPLES = """\
def measure(t):
    piece = sp.id_to_piece(t)
    if sp.is_control(t) or sp.is_unknown(t):
        return 0, False, True
    if sp.is_byte(t):
        return 1, False, False
    return len(piece.lstrip("▁").encode()), piece.startswith("▁"), False
sizes, leads, edges = zip(*map(measure, range(V)))
size, lead, edge = torch.tensor(sizes), torch.tensor(leads), torch.tensor(edges)
"""
ROWS = """\
if not os.path.exists("bytes.json"):
    rows = []
    for t in range(V):
        piece = sp.id_to_piece(t)
        if sp.is_control(t) or sp.is_unknown(t):
            rows.append([0, 0, 1])
        elif sp.is_byte(t):
            rows.append([1, 0, 0])
        else:
            rows.append([len(piece.lstrip("▁").encode()), int(piece.startswith("▁")), 0])
    json.dump(rows, open("bytes.json", "w"))
rows = torch.tensor(json.load(open("bytes.json")))
size, lead, edge = rows[:, 0], rows[:, 1].bool(), rows[:, 2].bool()
"""
SLICED = """\
size, lead, edge = torch.zeros(V), torch.zeros(V, dtype=torch.bool), torch.zeros(V, dtype=torch.bool)
for t in range(V):
    piece = sp.id_to_piece(t)
    edge[t] = sp.is_control(t) or sp.is_unknown(t)
    lead[t] = piece[:1] == "▁"
    body = piece[1:] if lead[t] else piece
    size[t] = 0 if edge[t] else 1 if sp.is_byte(t) else len(bytes(body, "utf-8"))
"""


def m1(table: str) -> tuple[str, list[str]]:
    found = audit_text(PRELUDE + COUNT.replace("@@", table))
    return found.verdict, [f.message for f in found.findings if f.rule == "M1" and f.severity == "violation"]


@pytest.mark.parametrize("table", [LISTS, TUPLES, ROWS, SLICED])
def test_each_piece_once(table: str):
    assert m1(table) == ("clean", [])


@pytest.mark.parametrize("table", [LISTS, TUPLES, ROWS])
def test_the_space_in_the_table_and_in_the_count(table: str):
    assert m1(table.replace('.lstrip("▁")', '.replace("▁", " ")'))[1]


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [(LISTS, '.lstrip("▁")', ""), (TUPLES, '.lstrip("▁")', ""), (ROWS, '.lstrip("▁")', ""), (SLICED, "piece[1:] if lead[t] else piece", "piece")],
)
def test_the_mark_as_three_bytes(table: str, old: str, new: str):
    assert old in table
    assert m1(table.replace(old, new))[1]
