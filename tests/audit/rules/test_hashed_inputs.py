"""Embeddings of hashed inputs, and whether the configuration builds them."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.lower import lower
from audit.rules.flow import PRELUDE
from audit.trace.hashed_inputs import hashed_inputs

CLASS = """\
import torch, torch.nn as nn
class Part(nn.Module):
    def __init__(self, n, d):
        super().__init__()
        self.table = nn.Embedding(n, d)
    def address(self, x):
{body}
    def forward(self, x):
        return self.table(self.address(x))
"""
HASHES = {
    "exclusive-or of two shifted views": "        h = torch.zeros_like(x)\n        h[:, 1:] = torch.bitwise_xor(36313 * x[:, 1:], 27191 * x[:, :-1]) % 4095\n        return h",
    "a padded copy": "        prev = torch.nn.functional.pad(x[:, :-1], (1, 0))\n        return (prev * 1009 + x) % 8192",
    "a rolled copy and a mask": "        return (torch.roll(x, 1, 1) * 31 + x) & 4095",
    "built up in a loop": "        h = x\n        for k in range(1, 3):\n            h = h * 131 + torch.roll(x, k, 1)\n        return h % 65521",
}
PLAIN = {
    "tokens as they are": "        return x",
    "one view, reduced": "        return (x * 7919) % 4096",
    "positions": "        return (torch.arange(x.size(1)) * 3 + 1) % 64",
    "two views, added and not reduced": "        return x[:, 1:] * 2 + x[:, :-1]",
}


@pytest.mark.parametrize("body", HASHES.values(), ids=HASHES.keys())
def test_hashes_of_inputs(body):
    found = hashed_inputs([lower(CLASS.format(body=body), "m.py")])
    assert [(h.owner, h.path) for h in found] == [("Part", "m.py")]


@pytest.mark.parametrize("made", [True, False])
def test_hashes_that_a_function_of_the_module_makes(made):
    code = CLASS.format(body=f"        return {'addresses' if made else 'unknown'}(x, 4096)")
    code += "def addresses(x, n):\n    return (torch.nn.functional.pad(x[:, :-1], (1, 0)) * 1009 + x) % n\n"
    assert [h.owner for h in hashed_inputs([lower(code, "m.py")])] == ["Part"] * made


@pytest.mark.parametrize("body", PLAIN.values(), ids=PLAIN.keys())
def test_no_hashes(body):
    assert hashed_inputs([lower(CLASS.format(body=body), "m.py")]) == []


@pytest.mark.parametrize(("size", "kind"), [("4096", "input-embedding"), ("0", "none")])
def test_a_part_that_is_not_built_is_not_there(size, kind):
    body = HASHES["a padded copy"]
    code = PRELUDE + CLASS.format(body=body).split("\n", 1)[1] + (
        "class Whole(nn.Module):\n"
        "    def __init__(self, size):\n"
        "        super().__init__()\n"
        "        self.part = Part(size, 64) if size > 0 else None\n"
        "        self.head = nn.Linear(64, 1024)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.part(x))\n"
        'print(f"val_bpb:{evaluate(Whole(int(os.environ.get("SIZE", "0"))), val):.4f}")\n'
    )  # fmt: skip
    found = audit_files(text_files({"train_gpt.py": code}, "train_gpt.py"), Options(env={"SIZE": size}))
    assert found.cache["kind"] == kind
