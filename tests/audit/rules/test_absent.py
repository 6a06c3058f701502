"""Modules that a submission imports and lacks: what they compute on the way to the score cannot be read."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

MODEL = """\
{imports}
class Net(nn.Module):
    def __init__(self, dim=64, smear={smear}):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, dim), nn.Linear(dim, 1024)
        {init}
    def forward(self, ids):
        x = self.emb(ids)
        {forward}
        return self.head(x)
{more}
net = Net()
print(f"val_bpb:{{evaluate(net, val):.4f}}")
"""
PLAIN = {"imports": "", "smear": "True", "init": "pass", "forward": "pass", "more": ""}
FROM = "from context_features import SmearGate"
PART = {"imports": FROM, "init": "self.smear = SmearGate(dim) if smear else None", "forward": "x = self.smear(x) if self.smear is not None else x"}
GUARDED = "try:\n    from fused_gate import SmearGate\nexcept ImportError:\n    {}"
OWN = "class SmearGate(nn.Module):\n        def __init__(self, dim):\n            super().__init__()\n        def forward(self, x):\n            return x"


def audited(more_files: dict[str, str] | None = None, **fill: str):
    files = {"train_gpt.py": PRELUDE + MODEL.format(**{**PLAIN, **fill}), **(more_files or {})}
    return audit_files(text_files(files, "train_gpt.py"), Options())


def reason(rule: str, **fill) -> str | None:
    """Why the rule is undetermined; None where it is not."""
    return next((o.reason for o in audited(**fill).obligations if o.rule == rule and o.status == "undetermined"), None)


ABSENT = [
    PART,
    {**PART, "imports": "import context_features as cf", "init": "self.smear = cf.SmearGate(dim)"},
    {**PART, "imports": "try:\n    from context_features import SmearGate\nexcept ImportError as e:\n    raise SystemExit('needed') from e"},
    {"imports": "from context_features import mixed", "forward": "x = mixed(x)"},
    {"imports": "from context_features import mixed", "forward": "x = gate(x)", "more": "def gate(x):\n    return 0.5 * mixed(x)"},
    {**PART, "init": "self.blocks = nn.ModuleList([SmearGate(dim) for _ in range(2)])", "forward": "x = self.blocks[0](x)"},
]


@pytest.mark.parametrize("fill", ABSENT)
def test_a_part_of_the_model_from_an_absent_module(fill):
    assert "`context_features`" in (reason("F17", **fill) or "")


HONEST = [
    {},
    {**PART, "smear": "False"},  # that part is not built
    {**PART, "imports": GUARDED.format(OWN)},  # the script has one of its own
    {"imports": GUARDED.format("SmearGate = None"), "forward": "x = x if SmearGate is None else x * 1.0"},
    {**PART, "imports": "from mamba_ssm import Mamba as SmearGate"},
    {**PART, "imports": "from transformer_engine.pytorch import Linear as SmearGate"},
    {"imports": "from helpers import summarize, Tracker", "more": "tracker = Tracker(out='runs')\nsummarize(Net().state_dict())"},
    {"imports": "from helpers import Watched", "forward": "x = x + 0.0 if isinstance(self.head, Watched) else x"},
    {"imports": "from newton import schulz", "more": "class Muon(torch.optim.Optimizer):\n    def step(self):\n        return schulz(None)"},
    {**PART, "more_files": {"context_features.py": "import torch.nn as nn\n" + OWN.replace("\n        ", "\n    ").replace("\n            ", "\n        ")}},
    {**PART, "more_files": {"src/features.cpp": "PYBIND11_MODULE(context_features, m) { m.def(\"gate\", &gate); }"}},
    {**PART, "more_files": {"requirements.txt": "torch>=2.5\ncontext-features @ git+https://github.com/some/context-features.git\n"}},
    {**PART, "more_files": {"README.md": "```\npip install --no-deps context_features==1.2\n```"}},
]


@pytest.mark.parametrize("fill", HONEST)
def test_what_is_no_part_of_the_model_or_can_be_read_elsewhere(fill):
    assert reason("F17", **fill) is None


def test_a_module_that_is_installed_for_something_else():
    assert reason("F17", **PART, more_files={"requirements.txt": "torch\nnumpy\n", "README.md": "pip install torch\n\ncontext_features gives the gate"})


SCORER = """\
import torch
from {module} import eval_val, load_tokens
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = torch.nn.Embedding(1024, 64), torch.nn.Linear(64, 1024)
    def forward(self, x, y):
        return torch.nn.functional.cross_entropy(self.head(self.emb(x)).transpose(1, 2), y)
import glob, numpy as np
train = torch.from_numpy(np.fromfile(sorted(glob.glob("data/fineweb_train_*.bin"))[0], dtype="<u2").astype(np.int64))
model = Net()
opt = torch.optim.AdamW(model.parameters())
for step in range(100):
    opt.zero_grad()
    loss = model(train[None, step * 64 : step * 64 + 64], train[None, step * 64 + 1 : step * 64 + 65])
    loss.backward()
    opt.step()
{end}
"""


def test_a_score_that_an_absent_module_made():
    def why(end: str, module: str = "prepare_golf") -> str | None:
        found = audit_files(text_files({"train_gpt.py": SCORER.format(end=end, module=module)}, "train_gpt.py"), Options())
        return next((o.reason for o in found.obligations if o.rule == "F1" and o.status == "undetermined"), None)

    told = 'loss, bpb = eval_val(model, load_tokens())\nprint(f"val_bpb: {bpb:.4f} val_loss: {loss:.4f}")'
    assert "`prepare_golf`" in (why(told) or "")
    assert why("print(f'train_loss: {loss:.4f}')") is None
    assert why("eval_val(model, None)\nprint(f'bits and pieces {loss:.4f}')") is None


def test_validation_tokens_in_the_hands_of_an_absent_module():
    body = {"imports": "from tilted import tilt", "more": "def nll(model, x, y):\n    return tilt(F.cross_entropy(model(x).transpose(1, 2), y, reduction='none'), x, y)"}
    assert "`tilted`" in (reason("F7", **body) or "")
    assert reason("F7", **{**body, "imports": "def tilt(loss, x, y):\n    return loss"}) is None
