"""Where a program begins, and which of its files it is made of."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, audit_text, text_files
from audit.model import Submission
from audit.rules.flow import PRELUDE

HEAD, TRAINED = PRELUDE.partition("val, train =")[0], PRELUDE.partition("val, train =")[2]
PREPARED = "val, train =" + TRAINED
#: what a run does: score, or learn from the tokens and then score them
SCORES = PREPARED + 'print(f"val_bpb:{evaluate(model, val):.4f}")\n'
LEARNS = PREPARED + """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1025, 1024):
    nll(model, val[None, c : c + 1024], val[None, c + 1 : c + 1025]).mean().backward()
    opt.step()
print(f"val_bpb:{evaluate(model, val):.4f}")
"""
BEGINS = {
    "a main guard": "def main():\n@@\nif __name__ == '__main__':\n    main()\n",
    "an exit code": "def main():\n@@\n    return 0\nif __name__ == '__main__':\n    raise SystemExit(main())\n",
    "a local entry point": """\
import modal
app = modal.App("golf")
@app.function(gpu="H100:8", timeout=900)
def work(seed: int = 1):
@@
@app.local_entrypoint()
def main(seed: int = 1):
    print(work.remote(seed=seed))
""",
    "the only function": "import modal\napp = modal.App('golf')\n@app.function(gpu='H100')\ndef work():\n@@\n",
    "a function for each": "import modal\napp = modal.App('g')\n@app.function()\ndef work(seed):\n@@\n@app.local_entrypoint()\ndef main():\n    list(work.map([1, 2]))\n",
    "a command line": "import fire\ndef main(seed=1):\n@@\nif __name__ == '__main__':\n    fire.Fire(main)\n",
    "a command": "import typer\napp = typer.Typer()\n@app.command()\ndef main(seed: int = 1):\n@@\nif __name__ == '__main__':\n    app()\n",
}


def begun(how: str, work: str) -> Submission:
    body = "\n".join("    " + line for line in work.splitlines())
    return audit_text(HEAD + BEGINS[how].replace("@@", body))


@pytest.mark.parametrize("how", BEGINS)
def test_what_a_framework_begins_is_followed(how):
    assert begun(how, SCORES).verdict == "clean"
    assert [f.rule for f in begun(how, LEARNS).findings if f.severity == "violation"][:1] == ["F1"]


@pytest.mark.parametrize(
    "end",
    [
        "def main():\n@@\n",
        "import modal\napp = modal.App('golf')\n@app.function()\ndef a():\n    return 1\n@app.function()\ndef b():\n@@\n",
        "def main():\n@@\nif not os.environ.get('GO'):\n    raise ValueError('not set')\n",
    ],
)
def test_what_nothing_begins_is_not_run(end):
    body = "\n".join("    " + line for line in LEARNS.splitlines())
    assert not [f for f in audit_text(HEAD + end.replace("@@", body)).findings if f.severity == "violation"]


BASE = "records/track/2026-03-17_Base/train_gpt.py"
MINE = "records/track/2026-04-28_Mine/train_gpt.py"
HELPERS = HEAD + 'def load():\n    return shard("data/fineweb_val_*.bin"), shard("data/fineweb_train_*.bin")\ndef main():\n    return load()\n'
LOADS = """\
import importlib.util, os, sys
from pathlib import Path
@@
spec = importlib.util.spec_from_file_location("base", BASE)
base = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = base
spec.loader.exec_module(base)
import torch
import torch.nn.functional as F
def measure(model, val):
    total = torch.zeros(())
    for i in range(0, val.numel() - 1, 1024):
        with torch.no_grad():
            total += F.cross_entropy(model(val[None, i : i + 1024]).transpose(1, 2), val[None, i + 1 : i + 1025], reduction="sum")
    return total.item() / 0.6931471805599453 / 151_080_000
def main():
    val, train = base.load()
    model = base.Model()
%%
    print(f"val_bpb:{measure(model, val):.4f}")
main()
"""
LEARNED = """\
    opt = base.torch.optim.SGD(model.parameters(), lr=1e-3)
    for c in range(0, val.numel() - 1025, 1024):
        base.nll(model, val[None, c : c + 1024], val[None, c + 1 : c + 1025]).mean().backward()
        opt.step()
"""


@pytest.mark.parametrize(
    "path",
    [
        'ROOT = Path(__file__).resolve().parents[3]\nBASE = ROOT / "records" / "track" / "2026-03-17_Base" / "train_gpt.py"\nif not BASE.exists():\n    raise FileNotFoundError(BASE)',
        'BASE = str(Path(__file__).resolve().parent.parent / "2026-03-17_Base" / "train_gpt.py")',
        'HERE = Path(__file__).resolve().parent\nBASE = HERE / "base_vendor.py"\nif not BASE.exists():\n    BASE = Path(__file__).resolve().parents[3] / "train_gpt.py"',
    ],
)
def test_a_module_that_is_read_from_a_path_is_followed(path):
    files = {BASE: HELPERS, "records/track/2026-04-28_Mine/base_vendor.py": HELPERS}
    for inner, verdict in (("", "clean"), (LEARNED, "violation")):
        mine = LOADS.replace("@@", path).replace("%%\n", inner)
        assert audit_files(text_files({**files, MINE: mine}, MINE), Options()).verdict == verdict


def test_functions_of_one_name_are_each_asked_about():
    """``main`` of the script and of a helper module: that the one reads data tells nothing about the other."""
    helper = HEAD + "def main():\n    return torch.load('x.pt')\n"
    own = """\
import train_helper as h
def report(model, val, note):
@@
    return note
def main():
    val, train = h.shard("data/fineweb_val_*.bin"), h.shard("data/fineweb_train_*.bin")
    model = h.Model()
    print(f"val_bpb:{h.evaluate(model, val):.4f}", report(model, val, 1))
main()
""".replace("@@", "\n".join(f"    a{i} = {i} + 1 * 2 - 3" for i in range(60)))
    own = own.replace("def main():\n", "def main():\n" + "\n".join(f"    b{i} = {i} + 1 * 2 - 3" for i in range(60)) + "\n")
    assert audit_files(text_files({"train_gpt.py": own, "train_helper.py": helper}, "train_gpt.py"), Options()).verdict == "clean"
