"""F14: a table of training tokens that is a buffer of the scored model, and that the artifact is written without."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

PROGRAM = """\
def build(tokens, n):
    pairs = torch.zeros(n, n)
    for i in range(1, len(tokens)):
        pairs[tokens[i - 1], tokens[i]] += 1
    return pairs / pairs.sum(dim=1, keepdim=True).clamp(min=1)

class Mixed(nn.Module):
    def __init__(self, n, pairs):
        super().__init__()
        self.register_buffer("pairs", torch.log(pairs + 1e-10))
        self.register_buffer("mask", torch.ones(n))
        self.emb, self.head = nn.Embedding(n, 64), nn.Linear(64, n)
    def forward(self, ids):
        out = self.head(self.emb(ids))
        return out + self.pairs[ids]

mixed = Mixed(1024, build(train, 1024))
opt = torch.optim.SGD(mixed.parameters(), lr=1e-3)
for i in range(0, 1_000_000, 1024):
    opt.zero_grad()
    nll(mixed, train[None, i : i + 1024], train[None, i + 1 : i + 1025]).mean().backward()
    opt.step()
LEFT = {"pairs"}
state = {k: v for k, v in mixed.state_dict().items() if k not in LEFT}
torch.save(state, "final_model.pt")
mixed.load_state_dict(torch.load("final_model.pt"), strict=False)
print(f"val_bpb:{evaluate(mixed, val):.4f}")
"""


def but(*changes: tuple[str, str]) -> str:
    text = PROGRAM
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return PRELUDE + text


FILTER = "{k: v for k, v in mixed.state_dict().items() if k not in LEFT}"
ILLEGAL = {
    "by a set of names": but(),
    "by a tuple": but(("if k not in LEFT}", 'if k not in ("pairs", "mask")}')),
    "in two steps": but((FILTER, "mixed.state_dict()\nif mixed is not None:\n    state = {k: v for k, v in state.items() if k not in LEFT}")),
    "of integers": but((FILTER, "{k: (v * 100).to(torch.int8) for k, v in mixed.state_dict().items() if k not in LEFT}")),
}
LEGAL = {
    "written with the rest": but((FILTER, "mixed.state_dict()")),
    "only a mask is left out": but(('LEFT = {"pairs"}', 'LEFT = {"mask"}')),
    "written beside it": but(('torch.save(state, "final_model.pt")', 'torch.save({"w": state, "pairs": mixed.pairs.to(torch.int8)}, "final_model.pt")')),
    "the table itself beside it": but(
        ("mixed = Mixed(1024, build(train, 1024))", "pairs = build(train, 1024)\nmixed = Mixed(1024, pairs)"),
        ('torch.save(state, "final_model.pt")', 'torch.save({"w": state, "pairs": pairs}, "final_model.pt")'),
    ),
    "read in training alone": but(("        return out + self.pairs[ids]", "        if self.training:\n            out = out + self.pairs[ids]\n        return out")),
    "read by nothing": but(("        return out + self.pairs[ids]", "        return out")),
    "another model is scored": but(
        ('mixed.load_state_dict(torch.load("final_model.pt"), strict=False)', 'mixed = Model()\nmixed.load_state_dict(torch.load("final_model.pt"), strict=False)')
    ),
    "a table of no data": but(("build(train, 1024)", "torch.zeros(1024, 1024)")),
}


def f14(text: str):
    found = audit_files(text_files({"train_gpt.py": text}, "train_gpt.py"), Options(rules=frozenset({"F14"})))
    return [f for f in found.findings if f.rule == "F14"], found.obligations


@pytest.mark.parametrize("name", ILLEGAL)
def test_a_table_that_the_artifact_lacks(name):
    found, obligations = f14(ILLEGAL[name])
    assert [(f.severity, f.active) for f in found] == [("violation", "yes")], obligations
    assert "pairs[tokens[i - 1], tokens[i]] += 1" in ILLEGAL[name].splitlines()[found[0].line - 1]


@pytest.mark.parametrize("name", LEGAL)
def test_look_alikes(name):
    assert not f14(LEGAL[name])[0]
