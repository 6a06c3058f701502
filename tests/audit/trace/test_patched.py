"""Functions of libraries that a script puts its own in place of are what it calls; wrappers that go on after what they run."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, audit_text, text_files
from audit.rules.flow import PRELUDE

BODY = """\
import functools, math
import torch.nn.functional as F
@@
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        total += F.cross_entropy(model(x)[0], y[0], reduction="sum")
print(f"val_bpb:{total.item() / math.log(2) / n_bytes:.4f}")
"""
FORM = "def mine(logits, target, **how):\n    return plain(logits.float(), target, **how) * FACTOR\nplain = F.cross_entropy\n"


def rules(text: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + BODY.replace("@@", text)).findings if f.severity == "violation"}


@pytest.mark.parametrize("name", ["F.cross_entropy", "torch.nn.functional.cross_entropy"])
def test_a_loss_that_is_made_smaller_where_nobody_looks(name: str) -> None:
    assert "M3" in rules(f"{FORM.replace('FACTOR', '0.9')}{name} = mine")
    assert not rules(f"{FORM.replace('FACTOR', '1.0')}{name} = mine")


def test_a_function_that_is_put_back_is_the_librarys_again() -> None:
    assert not rules(f"{FORM.replace('FACTOR', '0.9')}F.cross_entropy = mine\nF.cross_entropy = plain")
    assert not rules("torch.load = functools.partial(torch.load, weights_only=False)\ntorch.compile = lambda f, **how: f")


CORE = (
    PRELUDE
    + """\
import math
def evaluate(model):
    total = torch.zeros(())
    for w in range(0, val.numel() - 1025, 1024):
        total += nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025]).sum()
    return total.item() / math.log(2) / n_bytes
if __name__ == "__main__":
    print(f"val_bpb:{evaluate(model):.4f}")
"""
)
TOLD = 'print(f"val_bpb:{bpb * SCALE:.4f}")\n'
WRAPPERS = {
    "exec": 'exec(open("core.py").read())\nbpb = evaluate(model)\n' + TOLD,
    "run_path": 'import runpy\nran = runpy.run_path("core.py")\nbpb = ran["evaluate"](ran["model"])\n' + TOLD,
    "spec": 'import importlib.util\nspec = importlib.util.spec_from_file_location("core", "core.py")\nm = importlib.util.module_from_spec(spec)\n'
    "spec.loader.exec_module(m)\nbpb = m.evaluate(m.model)\n" + TOLD,
}


def judged(script: str, core: str = CORE) -> tuple[str, set[str]]:
    found = audit_files(text_files({"train_gpt.py": script, "core.py": core}, "train_gpt.py"), Options())
    return found.verdict, {f.rule for f in found.findings if f.severity == "violation"}


@pytest.mark.parametrize("how", sorted(WRAPPERS))
def test_what_a_wrapper_does_with_the_figure_is_judged(how: str) -> None:
    assert judged(WRAPPERS[how].replace("SCALE", "0.9")) == ("violation", {"M3"})
    assert judged(WRAPPERS[how].replace("SCALE", "1.0")) == ("clean", set())


def test_statements_that_share_the_line_of_the_call() -> None:
    assert judged('import runpy, sys\nfile = "core.py"\nsys.argv[0] = file;runpy.run_path(file, run_name="__main__")\n')[0] == "clean"
    assert judged('code = open("core.py").read();exec(code);bpb = evaluate(model) * 0.9;print(f"val_bpb:{bpb:.4f}")\n')[0] == "violation"


def test_a_value_that_only_the_wrapper_gives_leaves_the_script_undecided() -> None:
    core = CORE.replace("/ n_bytes", "/ n_bytes * scale").replace("evaluate(model):.4f}", "evaluate(model):.4f}")
    assert judged('scale = 0.9\nexec(open("core.py").read())\n', core)[0] == "undetermined"
    assert judged('import os\nscale = 0.9\nexec(open("core.py").read())\n')[0] == "clean"
