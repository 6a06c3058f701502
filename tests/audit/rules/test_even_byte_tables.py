"""M1: a table that gives every token the same number of bytes, and the tables of ones that are none."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

HEAD = """\
import math
import sentencepiece as spm
V = int(os.environ.get("VOCAB_SIZE", "1024"))
sp = spm.SentencePieceProcessor(model_file="tokenizer.model")
"""
COUNT = """
nats, nbytes, seen = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
for i in range(0, val.numel() - 1, 1024):
    x, y = val[i : i + 1024], val[i + 1 : i + 1025]
    with torch.no_grad():
        loss = F.cross_entropy(model(x[None])[0], y, reduction="none").double()
    nats = nats + loss.sum()
    nbytes = nbytes + EACH.double().sum()
print(f"val_bpb:{(nats / math.log(2) / nbytes).item():.4f}")
"""
FILL = "for t in range(V):\n    size[t] = len(sp.id_to_piece(t))\n"


def program(made: str, each: str = "size[y]") -> str:
    return PRELUDE + HEAD + made + COUNT.replace("EACH", each)


WITH_SPACES = "(size[y] + (lead[y] & ~edge[x]))"
EVEN = {
    "ones": program("size = torch.ones(V)"),
    "in another type": program("size = torch.ones(V, dtype=torch.int16).to('cuda')"),
    "of numpy": program("size = torch.from_numpy(np.ones(V)).float()"),
    "from a function": program(
        "def tables(n):\n    size = torch.ones(n, dtype=torch.int16)\n    return size, torch.zeros(n, dtype=torch.bool)\nsize, lead = tables(V)"
    ),
    "fours": program("size = torch.full((V,), 4.0)"),
    "with spaces that no token has": program(
        "size, lead = torch.ones(V), torch.zeros(V, dtype=torch.bool)\nedge = torch.ones(V, dtype=torch.bool)", WITH_SPACES
    ),
}
HONEST = {
    "filled piece by piece": program("size = torch.ones(V)\n" + FILL),
    "filled before it is a tensor": program("size = np.ones(V)\n" + FILL + "size = torch.from_numpy(size)"),
    "filled through another name": program("size = np.ones(V)\ntable = torch.from_numpy(size)\n" + FILL, "table[y]"),
    "filled by a function": program("def fill(t):\n    t[:] = torch.load('bytes.pt')\nsize = torch.ones(V)\nfill(size)"),
    "filled by the library": program("size = np.ones(V)\nnp.add.at(size, ids, lengths)\nsize = torch.from_numpy(size)"),
    "copied over": program("size = torch.ones(V)\nsize.copy_(torch.load('bytes.pt'))"),
    "multiplied": program("size = torch.ones(V) * torch.load('bytes.pt')"),
    "where no file is": program("size = torch.ones(V)\nif os.path.exists('bytes.pt'):\n    size = torch.load('bytes.pt')"),
    "a mask of ones": program("keep = torch.ones(V)\nsize = torch.load('bytes.pt')", "(size[y] * keep[y])"),
    "with spaces that are counted": program(
        "size, lead = torch.ones(V), torch.zeros(V, dtype=torch.bool)\nfor t in range(V):\n    lead[t] = sp.id_to_piece(t)[0] == ' '\n"
        "edge = torch.zeros(V, dtype=torch.bool)", WITH_SPACES
    ),
    "of bytes": program("size = torch.ones(256)"),
    "of bytes and four more": program("V = 260\nsize = torch.ones(V)"),
    "of as many bytes as the data have": program("DATA = './data/datasets/fineweb10B_byte260/'\nsize = torch.ones(V)"),
}


def m1(text: str):
    found = audit_files(text_files({"train_gpt.py": text}, "train_gpt.py"), Options(rules=frozenset({"M1"})))
    return [f for f in found.findings if f.rule == "M1"]


@pytest.mark.parametrize("name", EVEN)
def test_one_number_for_every_token(name):
    found = m1(EVEN[name])
    assert [(f.severity, f.active) for f in found] == [("violation", "yes")]
    line = EVEN[name].splitlines()[found[0].line - 1]
    assert "ones(" in line or "full(" in line


@pytest.mark.parametrize("name", HONEST)
def test_other_tables_of_ones(name):
    assert not [f for f in m1(HONEST[name]) if "every token" in f.message]
