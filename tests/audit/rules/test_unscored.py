"""Why nothing was found that scores validation tokens."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, audit_text, text_files
from audit.rules.flow import PRELUDE
from audit.rules.unscored import NOWHERE

TRAINS = """\
import torch, torch.nn as nn, torch.nn.functional as F
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
    def forward(self, x):
        return self.head(self.emb(x))
def main():
    model = Model()
    opt = torch.optim.Adam(model.parameters())
    for _ in range(10):
        x, y = @@
        F.cross_entropy(model(x).transpose(1, 2), y).backward()
        opt.step()
    torch.save(model.state_dict(), open("model.pt", "wb"))
%%
"""
DRAWN = "torch.randint(0, 1024, (8, 32)), torch.randint(0, 1024, (8, 32))"
CALLED = "if __name__ == '__main__':\n    main()"


def why(source: str) -> str:
    reason = next(o.reason for o in audit_text(source).obligations if o.rule == "F1")
    return reason.removeprefix(NOWHERE).removeprefix(": ")


@pytest.mark.parametrize("source", ["", "'''What this was meant to be.'''\n"])
def test_nothing_in_it(source):
    assert why(source) == "the script is empty"


def test_definitions_alone():
    assert why(TRAINS.replace("@@", DRAWN).replace("%%", "")) == "the script defines functions and classes and calls none of them"
    assert "calls none" not in why(TRAINS.replace("@@", DRAWN).replace("%%", "register(main)"))
    assert "calls none" not in why(TRAINS.replace("@@", DRAWN).replace("%%", "RUNS = [main]\nfor f in RUNS:\n    f()"))


def test_random_numbers():
    assert why(TRAINS.replace("@@", DRAWN).replace("%%", CALLED)) == "the script reads no data and trains on random numbers (train_gpt.py:14)"
    assert why("print('to be done')\n") == "the script reads no data"


@pytest.mark.parametrize("drawn", ['torch.load("batch.pt")', "next(iter(load_dataset('text')))", "fetch()"])
def test_data_from_somewhere(drawn):
    source = TRAINS.replace("@@", drawn).replace("%%", CALLED)
    if drawn == "fetch()":
        source = "from somewhere import fetch\n" + source
    assert "no data" not in why(source)


def test_a_module_that_was_not_submitted():
    source = PRELUDE.partition("val, train =")[0].replace("import glob", "from prepare import evaluate_bpb\nimport glob") + "print(evaluate_bpb(Model()))\n"
    assert why(source) == "`prepare`, which the script imports, is not among the submitted files"
    beside = audit_files(text_files({"a/train_gpt.py": source, "a/prepare.py": "def evaluate_bpb(model):\n    return 1.0\n"}, "a/train_gpt.py"), Options())
    elsewhere = audit_files(text_files({"a/train_gpt.py": source, "b/prepare.py": "def evaluate_bpb(model):\n    return 1.0\n"}, "a/train_gpt.py"), Options())
    for s in (beside, elsewhere):
        assert not any("not among" in o.reason for o in s.obligations)
    optional = source.replace("from prepare import evaluate_bpb", "try:\n    import prepare\nexcept ImportError:\n    prepare = None")
    assert "not among" not in why(optional)


def test_a_score_that_no_printed_figure_rests_on():
    """What is reported may be another score than the one that was found: a mixture in a file, say."""
    written = PRELUDE + "import json\njson.dump({'result': mixed(evaluate(model, val))}, open('out.json', 'w'))\n"
    assert audit_text(written).verdict == "undetermined"
    assert audit_text(PRELUDE + 'print(f"val_bpb:{evaluate(model, val):.4f}")\n').verdict == "clean"
