"""What stands under an imported module's main guard does not run."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files

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
