"""F17: a layer is entered however its instance comes to stand in the model."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
class Mean(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.proj = nn.Linear(dim, dim)
    def forward(self, x):
        CHANGE
        return self.proj(x)

class Plain(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.proj = nn.Linear(dim, dim)
    def forward(self, x):
        return F.gelu(self.proj(x))

class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, x):
        return x + self.inner(x)

class Derived(Mean):
    def extra(self):
        return 1

KINDS = {"mean": Mean, "plain": Plain}

def build(kind):
    if kind == "mean":
        return Mean(64)
    return Plain(64)

def ran(layer, x):
    return layer(x)

class Wide(nn.Module):
    def __init__(self, fast=len(sys.argv) > 2, kind=os.environ.get("KIND", "mean")):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        INIT
    def build(self, fast):
        layer = Mean(64) if fast else Plain(64)
        return layer
    def run(self, layer, x):
        return layer(x)
    def forward(self, ids):
        x = self.emb(ids)
        RUN
        return self.head(x)

print(f"val_bpb:{evaluate(Wide(), val):.4f}")
"""
MEAN, RUNNING = "x = x - x.mean(dim=1, keepdim=True)", "x = x - x.cumsum(dim=1) / torch.arange(1, x.size(1) + 1)[None, :, None]"
ONE = "x = x + self.mix(x)"
ALL = "for block in self.blocks:\n    x = x + block(x)"
BUILT = {
    "two ways of a branch": ("if fast:\n    self.mix = Mean(64)\nelse:\n    self.mix = Plain(64)", ONE),
    "two ways, annotated": ("if fast:\n    self.mix: nn.Module = Mean(64)\nelse:\n    self.mix = Plain(64)", ONE),
    "a conditional expression": ("self.mix = Plain(64) if fast else Mean(64)", ONE),
    "a local name": ("layer = Mean(64)\nself.mix = layer", ONE),
    "appended by name": ("self.blocks = nn.ModuleList()\nfor n in range(4):\n    block = Mean(64)\n    self.blocks.append(block)", ALL),
    "appended in a branch": (
        "self.blocks = nn.ModuleList()\nfor n in range(4):\n    if n % 2:\n        self.blocks.append(Mean(64))\n    else:\n        self.blocks.append(Plain(64))", ALL,
    ),
    "a list by name": ("several = []\nfor n in range(4):\n    several.append(Plain(64) if fast else Mean(64))\nself.blocks = nn.ModuleList(several)", ALL),
    "a list that is added to": ("several = [Plain(64)]\nseveral += [Mean(64)]\nself.blocks = nn.ModuleList(several)", ALL),
    "a dict of modules": ('self.parts = nn.ModuleDict({"a": Plain(64), "b": Mean(64)})', 'x = x + self.parts["b"](x)'),
    "a dict that is filled": ('self.parts = nn.ModuleDict()\nself.parts["b"] = Mean(64)', 'x = x + self.parts["b"](x)'),
    "a registry of classes": ("self.mix = KINDS[kind](64)", ONE),
    "a registry's get": ("made = KINDS.get(kind, Plain)\nself.mix = made(64)", ONE),
    "a class by name": ("made = Mean if fast else Plain\nself.mix = made(64)", ONE),
    "a partial": ("made = functools.partial(Mean, 64)\nself.blocks = nn.ModuleList([made() for _ in range(2)])", ALL),
    "a function": ("self.mix = build(kind)", ONE),
    "a function in a list": ("self.blocks = nn.ModuleList([build(kind) for _ in range(2)])", ALL),
    "a method": ("self.mix = self.build(fast)", ONE),
    "setattr": ('setattr(self, "mix", Mean(64))', ONE),
    "numbered attributes": (
        'for n in range(2):\n    setattr(self, f"mix{n}", Mean(64))', 'for n in range(2):\n    x = x + getattr(self, f"mix{n}")(x)',
    ),
    "add_module": ('self.add_module("mix", Mean(64))', ONE),
    "given to a constructor": ("layer = Mean(64)\nself.mix = Around(layer)", ONE),
    "given to a constructor, in a list": ("self.blocks = nn.ModuleList([Around(inner=Mean(64)) for _ in range(2)])", ALL),
    "an inherited forward": ("self.mix = Derived(64)", ONE),
    "two lists side by side": (
        "self.norms = nn.ModuleList([Plain(64) for _ in range(2)])\nself.blocks = nn.ModuleList([Mean(64) for _ in range(2)])",
        "for norm, block in zip(self.norms, self.blocks):\n    x = x + block(norm(x))",
    ),
    "handed to a method": ("self.blocks = nn.ModuleList([Mean(64) for _ in range(2)])", "for n in range(2):\n    x = x + self.run(self.blocks[n], x)"),
    "handed to a function": ("self.mix = Mean(64)", "x = x + ran(self.mix, x)"),
    "by its number": ("self.blocks = nn.ModuleList([Plain(64), Mean(64)])", "for n in range(2):\n    block = self.blocks[n]\n    x = x + block(x)"),
}  # fmt: skip


def text(change: str, init: str, run: str) -> str:
    return "import functools, os, sys\n" + PRELUDE + MODEL.replace("CHANGE", change).replace("INIT", indent(init)).replace("RUN", indent(run))


@pytest.mark.parametrize("name", BUILT)
def test_a_layer_is_entered(name):
    found, whole = audited(text(MEAN, *BUILT[name]))
    assert [f for f in found if f.severity == "violation"] and whole.verdict == "violation"


@pytest.mark.parametrize("name", BUILT)
def test_a_causal_layer_in_the_same_place_is_not_accused(name):
    found, _ = audited(text(RUNNING, *BUILT[name]))
    assert not found


def test_a_layer_of_another_class_under_the_same_name_is_not_given_activations():
    """``Table.mix`` works on weights; only ``Wide.mix`` is given the window."""
    other = "class Rows(nn.Module):\n    def forward(self, w):\n        return w - w.mean(dim=1, keepdim=True)\n\n"
    other += "class Table(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.mix, self.w = Rows(), nn.Parameter(torch.ones(4, 4, 4))\n"
    other += "    def forward(self, ids):\n        return self.mix(self.w)\n\n"
    body = text(RUNNING, "self.mix, self.table = Mean(64), Table()", ONE + "\nself.note = self.table(ids)")
    found, whole = audited(body.replace("class Mean(", other + "class Mean("))
    assert not found and whole.verdict == "clean"
