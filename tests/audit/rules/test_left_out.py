"""M3: kinds of targets, and places of documents, whose losses a program leaves out of the sum."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

TABLES = """
import math
import sentencepiece as spm
sp = spm.SentencePieceProcessor(model_file="data/tokenizers/fineweb_1024_bpe.model")
lengths, lead, edge = np.zeros(1024, dtype=np.int16), np.zeros(1024, dtype=bool), np.ones(1024, dtype=bool)
for t in range(sp.vocab_size()):
    if sp.is_control(t) or sp.is_unknown(t) or sp.is_unused(t):
        continue
    edge[t] = False
    if sp.is_byte(t):
        lengths[t] = 1
        continue
    piece = sp.id_to_piece(t)
    if piece.startswith("\\u2581"):
        lead[t], piece = True, piece[1:]
    lengths[t] = len(piece.encode("utf-8"))
lengths, lead, edge = torch.from_numpy(lengths), torch.from_numpy(lead), torch.from_numpy(edge)
def bytes_of(x, y):
    tb = lengths[y].double()
    return tb + (lead[y] & ~edge[x]).double()
BOS = 1
def documents(tokens):
    at = (tokens == BOS).nonzero(as_tuple=True)[0].tolist()
    return [(a, b) for a, b in zip(at, at[1:] + [tokens.numel() - 1]) if b > a]
total, n, rest = torch.zeros(()), torch.zeros(()), torch.zeros(())
"""
END = 'print(f"val_bpb:{(total / math.log(2.0) / n).item():.4f}")\n'
STREAM = """\
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    x, y = w[:-1], w[1:]
    with torch.no_grad():
        l = nll(model, x[None], y[None])[0].double()
    n += bytes_of(x, y).sum()
"""
DOCUMENTS = """\
for a, b in documents(val):
    for s in range(a, b, {}):
        e = min(s + 1024, b)
        x, y = val[s:e], val[s + 1 : e + 1]
        with torch.no_grad():
            l = nll(model, x[None], y[None])[0].double()
        n += bytes_of(x, y).sum()
"""
ROWS = """\
for s in range(0, val.numel() - 1, 4096):
    rows = torch.full((4, 1025), 1)
    for i in range(4):
        part = val[s + i * 1024 : s + i * 1024 + 1025]
        rows[i, : part.numel()] = part
    x, y = rows[:, :-1], rows[:, 1:]
    with torch.no_grad():
        l = nll(model, x, y).double()
    n += bytes_of(x, y).sum()
"""


def audit(body: str) -> tuple[str, list[str]]:
    report = audit_text(PRELUDE + TABLES + body + END)
    return report.verdict, [f.message for f in report.findings if f.severity == "violation" and f.active == "yes" and f.rule == "M3"]


def stream(added: str) -> str:
    return STREAM + "".join(f"    {line}\n" for line in added.splitlines())


def documents(added: str, step: int = 1024) -> str:
    return DOCUMENTS.format(step) + "".join(f"        {line}\n" for line in added.splitlines())


SCALAR = """\
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    with torch.no_grad():
        lp = torch.log_softmax(model(w[None, :-1])[0], -1).double().numpy()
    for t in range(1024):
        token = int(w[t + 1])
        n += float(lengths[token])
"""


def scalar(added: str) -> str:
    return SCALAR + "".join(f"        {line}\n" for line in added.splitlines())


ILLEGAL = {
    "token by token": scalar("if token != BOS:\n    total -= lp[t, token]"),
    "token by token, going on": scalar("if token == BOS:\n    continue\ntotal -= lp[t, token]"),
    "token by token, by bytes": scalar("if lengths[token] == 0:\n    continue\ntotal -= lp[t, token]"),
    "a selection by a method": stream("total += l[y.ne(BOS)].sum()"),
    "a product with a function": stream("total += (l * torch.ne(y, BOS).double()).sum()"),
    "a separator that the tokenizer names": stream("total += l[y != sp.bos_id()].sum()"),
    "a mask of separators and more": stream("total += l[(y != BOS) & (torch.arange(1024) >= 0)].sum()"),
    "a mask of separators": stream("total += (l * (y != BOS).double()).sum()"),
    "a selection": stream("total += l[y != BOS].sum()"),
    "a selection by a name": stream("kept = y != BOS\ntotal += l[kept].sum()"),
    "the negation of what they are": stream("total += l[~(y == BOS)].sum()"),
    "one less what they are": stream("total += (l * (1.0 - (y == BOS).double())).sum()"),
    "a choice of zero": stream("total += torch.where(y == BOS, 0.0, l).sum()"),
    "zeros put in": stream("l[y == BOS] = 0.0\ntotal += l.sum()"),
    "zeros put in by a method": stream("total += l.masked_fill(y == BOS, 0.0).sum()"),
    "tokens after the special ones": stream("total += l[y > 2].sum()"),
    "tokens with bytes": stream("tb = bytes_of(x, y)\ntotal += l[tb > 0].sum()"),
    "tokens with bytes in the table": stream("total += (l * (lengths[y] > 0)).sum()"),
    "an index that is ignored": stream("total += l.sum()").replace(
        "nll(model, x[None], y[None])[0].double()", 'F.cross_entropy(model(x[None])[0], y, ignore_index=BOS, reduction="none").double()'
    ),
    "an index that a criterion ignores": 'loss = nn.CrossEntropyLoss(ignore_index=1, reduction="none")\n'
    + stream("total += l.sum()").replace("nll(model, x[None], y[None])[0].double()", "loss(model(x[None])[0], y).double()"),
    "separators printed apart": "total, n, rest = (torch.zeros(()) for _ in range(3))\n"
    + stream("text = (y != BOS).double()\nrest += (l * (1 - text)).sum()\ntotal += (l * text).sum()")
    + 'print(f"separators:{(rest / math.log(2.0) / n).item():.4f}")\n',
    "separators within documents": documents("total += l[y != BOS].sum()"),
    "tokens with bytes within documents": documents("total += l[bytes_of(x, y) > 0].sum()"),
    "a lead-in of each document": documents("total += l[960:].sum()", 64),
    "a lead-in of each window of a document": documents("total += l[64:].sum()"),
    "each document's first window": documents("if s > a:\n    total += l.sum()"),
    "each document's first window by a negation": documents("if not s == a:\n    total += l.sum()"),
    "each document's first window, going on": documents("if s == a:\n    continue\ntotal += l.sum()"),
    "a lead-in of documents in a function": "def score(net, tokens, docs, T=1024, S=64):\n    nats = torch.zeros(())\n    for a, b in docs:\n        for s in range(a, b, S):\n"
    "            e = min(s + T, b)\n            with torch.no_grad():\n                l = nll(net, tokens[None, s:e], tokens[None, s + 1 : e + 1])[0]\n"
    "            nats += l[T - S :].sum()\n            if e == b:\n                break\n    return nats\ntotal, n = score(model, val, documents(val)), 151_080_000\n",
}  # fmt: skip
LEGAL = {
    "everything": stream("total += l.sum()"),
    "separators counted apart": stream("rest += (l * (y == BOS)).sum()\ntotal += l.sum()") + 'print(f"separators:{(rest / math.log(2.0) / n).item():.4f}")\n',
    "both kinds added up": stream("total += (l * (y != BOS)).sum()\ntotal += (l * (y == BOS)).sum()"),
    "both kinds added up apart": stream("total += l[y != BOS].sum()\nrest += l[y == BOS].sum()") + "total = total + rest\n",
    "token by token": scalar("total -= lp[t, token]"),
    "token by token, separators apart": scalar("if token == BOS:\n    total -= lp[t, token]\nelse:\n    total -= lp[t, token]"),
    "token by token, a count of separators": scalar("if token == BOS:\n    rest += 1\ntotal -= lp[t, token]"),
    "token by token, padding": scalar("if token == 0:\n    continue\ntotal -= lp[t, token]"),
    "documents gathered in rows": "docs = documents(val)\nfor q in range(0, len(docs), 8):\n    batch = docs[q : q + 8]\n"
    "    starts, ends = torch.tensor([a for a, b in batch]), torch.tensor([b for a, b in batch])\n"
    "    at = (starts[:, None] + torch.arange(1024)[None]).clamp(max=val.numel() - 2)\n    x, y = val[at], val[at + 1]\n"
    "    with torch.no_grad():\n        l = nll(model, x, y).double()\n    n += (lengths[y] * (at < ends[:, None])).sum()\n"
    "    total += (l * (at + 1 < ends[:, None]) * (y != BOS)).sum()\n",
    "a window without separators": stream("if (y != BOS).all():\n    rest += 1\ntotal += l.sum()"),
    "a mask of padding by a method": stream("total += (l * y.ne(0)).sum()"),
    "padding that the tokenizer names": stream("total += l[y != sp.pad_id()].sum()"),
    "a separator after another": stream("total += l[~((y == BOS) & (x == BOS))].sum()"),
    "a mask of padding": stream("total += l[y != 0].sum()"),
    "numbers that no token has": stream("total += (l * (y < float('inf'))).sum()"),
    "a mark that is no token": stream("total += (l * (y >= 0)).sum()"),
    "an index that no token has": stream("total += l.sum()").replace(
        "nll(model, x[None], y[None])[0].double()", 'F.cross_entropy(model(x[None])[0], y, ignore_index=-100, reduction="none").double()'
    ),
    "rows that are filled up with separators": ROWS + "    total += l[y != BOS].sum()\n",
    "after a separator": stream("total += l[x != -1].sum()"),
    "a count of tokens with bytes": stream("tb = bytes_of(x, y)\nseen = (tb > 0).sum()\ntotal += l.sum() * (seen / seen.clamp(min=1))"),
    "a window that has bytes": stream("if bytes_of(x, y).sum() > 0:\n    total += l.sum()"),
    "documents without the next separator": documents("total += l[y != BOS].sum()").replace("val[s:e], val[s + 1 : e + 1]", "val[s : e - 1], val[s + 1 : e]"),
    "training on text": stream("total += l.sum()\noptimizer.zero_grad()\nz = nll(model, x[None], y[None])[0]\n(z * (y != BOS)).mean().backward()\noptimizer.step()"),
    "each document's first window in full": documents("new = 0 if s == a else 960\ntotal += l[new:].sum()", 64),
    "each document's first window apart, going on": documents("if s == a:\n    total += l.sum()\n    continue\ntotal += l[960:].sum()", 64),
    "each document's first window counted": documents("if s == a:\n    rest += 1\ntotal += l.sum()"),
    "each document's first window or all": documents("if s > a or s == a:\n    total += l.sum()"),
    "token by token, separators or not": scalar("if token != BOS or t > 0:\n    total -= lp[t, token]"),
    "token by token, some separators": scalar("if token == BOS and t < 0:\n    continue\ntotal -= lp[t, token]"),
    "each document's first window apart": documents("if s > a:\n    total += l[960:].sum()\nelse:\n    total += l.sum()", 64),
    "a document's first token": documents("total += l[1:].sum()", 1023),
    "context from before the document": documents("total += l[960:].sum()", 64).replace("range(a, b, 64)", "range(max(a - 960, 0), b, 64)"),
    "a fixed context from before the document": documents("total += l[960:].sum()", 64).replace("range(a, b, 64)", "range(a - 960, b, 64)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_targets_that_are_left_out_are_a_finding(name: str) -> None:
    assert audit(ILLEGAL[name])[1]


@pytest.mark.parametrize("name", LEGAL)
def test_what_leaves_no_target_out_is_none(name: str) -> None:
    assert audit(LEGAL[name])[1] == []


def test_separators_of_pieces_that_end_at_a_place_of_unknown_distance_are_a_doubt() -> None:
    body = documents("total += l[y != BOS].sum()").replace("min(s + 1024, b)", "min(s + 1024, b - int(lengths[0]))")
    assert audit(body)[1] == []


def of_rule(rule: str, body: str) -> list[str]:
    report = audit_text(PRELUDE + body)
    return [f.message for f in report.findings if f.severity == "violation" and f.active == "yes" and f.rule == rule]


ALL = TABLES + stream("total += l.sum()") + END
COUNTED = "n += bytes_of(x, y).sum()"
RAISED = {
    "a table of at least one": ALL.replace("BOS = 1", "lengths = lengths.clamp(min=1)\nBOS = 1"),
    "a table of at least one in place": ALL.replace("BOS = 1", "lengths.clamp_(min=1)\nBOS = 1"),
    "an array of at least one": ALL.replace("= torch.from_numpy(lengths)", "= torch.from_numpy(np.maximum(lengths, 1))"),
    "at least one for each target": ALL.replace(COUNTED, "n += bytes_of(x, y).clamp(min=1).sum()"),
    "at least one for each target by another name": ALL.replace(COUNTED, "tb = bytes_of(x, y)\n    n += torch.clamp_min(tb, 1.0).sum()"),
    "one for those that have none": ALL.replace(COUNTED, "tb = bytes_of(x, y)\n    n += (tb + (tb == 0).double()).sum()"),
    "a table that begins as ones": ALL.replace("np.zeros(1024, dtype=np.int16)", "np.ones(1024, dtype=np.int16)").replace("lengths, lead, edge = np.ones", "lengths = np.ones", 1).replace(
        "dtype=np.int16), np.zeros", "dtype=np.int16)\nlead, edge = np.zeros"
    ),
    "in a product": ALL.replace(COUNTED, "n += bytes_of(x, y).clamp(min=1).sum()").replace(
        "total / math.log(2.0) / n)", "total / val.numel() / math.log(2.0) * (val.numel() / n))"
    ),
}  # fmt: skip
AS_IT_IS = {
    "a table as it is": ALL,
    "a number of bytes that divides": ALL.replace("/ n)", "/ n.clamp(min=1))"),
    "a number of bytes that divides, by a built-in": ALL.replace("/ n)", "/ max(n, 1))"),
    "a window's bytes": ALL.replace(COUNTED, "n += bytes_of(x, y).sum().clamp(min=1)"),
    "bytes of none below zero": ALL.replace(COUNTED, "n += bytes_of(x, y).clamp(min=0).sum()"),
    "weights in training": ALL.replace(
        COUNTED, COUNTED + "\n    w8 = lengths.float().clamp(min=1.0)[y]\n    (nll(model, x[None], y[None])[0] * w8).mean().backward()\n    optimizer.step()"
    ),
    "a loss by bytes beside the score": ALL.replace(COUNTED, COUNTED + "\n    rest += (l / lengths[y].clamp(min=1)).sum()") + "print(rest)\n",
    "counts that divide": ALL.replace("total = ", "seen = np.zeros((4, 1 << 16))\ntotal = ", 1).replace(
        "total += l.sum()",
        "k = (x.numpy() * 31 % 65536).astype(np.int64)\n    c = seen[0][k].astype(np.float64)\n    q = c / np.maximum(c, 1.0)\n"
        "    p = 0.9 * np.exp(-l.numpy()) + 0.1 * q\n    total += -np.log(p).sum()\n    np.add.at(seen[0], k, 1)",
    ),
    "a table of ones that control tokens leave": ALL.replace("np.zeros(1024, dtype=np.int16)", "np.ones(1024, dtype=np.int16)").replace(
        "lengths, lead, edge = np.ones", "lengths = np.ones", 1).replace("dtype=np.int16), np.zeros", "dtype=np.int16)\nlead, edge = np.zeros").replace(
        "        continue\n    edge", "        lengths[t] = 0\n        continue\n    edge", 1),
    "flags that begin as ones": ALL.replace("np.ones(1024, dtype=bool)", "np.full(1024, 1)"),
}  # fmt: skip


@pytest.mark.parametrize("name", RAISED)
def test_a_byte_for_tokens_without_bytes_is_a_finding(name: str) -> None:
    assert any("counts as one byte" in m for m in of_rule("M1", RAISED[name])), of_rule("M1", RAISED[name])


@pytest.mark.parametrize("name", AS_IT_IS)
def test_a_divisor_that_is_kept_from_zero_is_none(name: str) -> None:
    assert of_rule("M1", AS_IT_IS[name]) == []
