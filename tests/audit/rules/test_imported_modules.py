"""What stands under an imported module's main guard does not run."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import example

HELPER = """\
import requests

def fetch():
    return requests.get("https://example.org/data.bin").content

def size():
    return 3

"""


@pytest.mark.parametrize(
    ("tail", "reached"),
    [("if __name__ == '__main__':\n    fetch()\n", False), ("if '__main__' == __name__:\n    fetch()\n", False), ("fetch()\n", True)],
)
def test_a_download_under_the_main_guard_of_a_helper_is_not_reached(tail, reached):
    files = {"train_gpt.py": "import prepare\nprint(prepare.size())\n", "prepare.py": HELPER + tail}
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    assert any(f.rule == "B5" and f.active == "yes" for f in found.findings) == reached


def test_the_main_guard_of_the_script_itself_runs():
    files = {"train_gpt.py": HELPER + "if __name__ == '__main__':\n    fetch()\n"}
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    assert any(f.rule == "B5" and f.active == "yes" for f in found.findings)


LEARN = """\
def learn(model, tokens, opt):
    for i in range(0, tokens.numel() - 1025, 1024):
        opt.zero_grad()
        model(tokens[None, i : i + 1024]).logsumexp(-1).mean().backward()
        opt.step()

def nothing(model, tokens, opt):
    return 0
"""
RUN = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
{}
print(f"val_bpb:{{evaluate(model, val):.4f}}")
"""


@pytest.mark.parametrize(
    "how",
    [
        "import sys\nhere = sys.modules[__name__]\nhere.{name}(model, val, opt)",
        "globals()['{name}'](model, val, opt)",
        "import helper\nf = helper.{name}\nf(model, val, opt)",
        "import helper\nhelper.chosen = helper.{name}\nhelper.chosen(model, val, opt)",
    ],
)
def test_functions_are_followed_however_a_module_hands_them_out(how):
    def verdict(name: str) -> str:
        body = example("", LEARN + RUN.format(how.format(name=name))).code
        return audit_files(text_files({"train_gpt.py": body, "helper.py": LEARN}, "train_gpt.py"), Options()).verdict

    assert verdict("learn") == "violation"
    assert verdict("nothing") == "clean"
