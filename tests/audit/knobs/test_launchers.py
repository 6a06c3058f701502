"""How many processes a launcher starts is a statement about WORLD_SIZE, with the standing of its command."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.knobs import Knobs, alternatives, resolve
from audit.lower import lower
from audit.source import MemoryTree, SubmissionFiles

SCRIPT = 'import os, sys\nworld_size = int(os.environ.get("WORLD_SIZE", "1"))\nlr = os.environ.get("LR", "1")\n'


def knobs(extra: dict[str, str], script: str = SCRIPT) -> Knobs:
    files = {f"r/{k}": v for k, v in extra.items()} | {"r/train_gpt.py": script}
    submission = SubmissionFiles(
        target="t", tree=MemoryTree(files), primary="r/train_gpt.py", paths=list(files), changed=list(files)
    )
    return resolve(submission, {"r/train_gpt.py": script}, {}, modules={"r/train_gpt.py": lower(script, "r/train_gpt.py")})


def block(text: str) -> dict[str, str]:
    return {"README.md": f"```bash\n{text}\n```\n"}


@pytest.mark.parametrize(
    ("papers", "value"),
    [
        (block("torchrun --standalone --nproc_per_node=8 train_gpt.py"), "8"),
        (block("LR=2 torchrun --nproc-per-node 4 train_gpt.py"), "4"),
        (block("python -m torch.distributed.run --nproc-per-node 8 train_gpt.py"), "8"),
        (block("torchrun --nnodes=2 --nproc_per_node=8 \\\n  train_gpt.py"), "16"),
        (block("NGPU=8\ntorchrun --nproc_per_node=$NGPU train_gpt.py"), "8"),
        ({"run.sh": 'NGPU="${NGPU:-8}"\nexec torchrun --nproc_per_node="${NGPU}" train_gpt.py\n'}, "8"),
        ({"run.sh": "torchrun --nproc_per_node=${NGPU:-8} train_gpt.py\n"}, "8"),
        ({"go.py": 'import subprocess\nsubprocess.run([\n    "torchrun",\n    "--nproc_per_node=8", "train_gpt.py"])\n'}, "8"),
        ({"go.py": 'import subprocess\nsubprocess.run(["torchrun", "--nproc_per_node", "8", "train_gpt.py"])\n'}, "8"),
        ({"submission.json": '{"command": "LR=1 torchrun --nproc_per_node=8 train_gpt.py"}'}, "8"),
        # What is set beside it wins; what a run printed stands above both.
        (block("WORLD_SIZE=2 torchrun --nproc_per_node=8 train_gpt.py"), "2"),
        ({"run.log": "world_size:8 grad_accum_steps:1\n"} | block("torchrun --nproc_per_node=1 train_gpt.py"), "8"),
        (block("torchrun --nproc_per_node=8 train_gpt.py") | {"run.sh": "torchrun --nproc_per_node=1 train_gpt.py\n"}, "8"),
        # Not a number, not a launcher, not this script.
        (block("torchrun --nproc_per_node=gpu train_gpt.py"), None),
        (block("torchrun --nproc_per_node=$UNKNOWN train_gpt.py"), None),
        (block("python train_gpt.py"), None),
        (block("torchrun --nproc_per_node=8 other.py") | {"other.py": "pass"}, None),
    ],
)  # fmt: skip
def test_the_number_of_processes(papers: dict[str, str], value: str | None) -> None:
    found = knobs(papers).lookup("WORLD_SIZE")
    assert (found and found.value) == value


def test_a_script_that_does_not_ask_is_told_nothing() -> None:
    assert knobs(block("torchrun --nproc_per_node=8 train_gpt.py"), "print(1)\n").lookup("WORLD_SIZE") is None


def test_a_launcher_alone_is_no_configuration_of_its_own() -> None:
    """Titles are asked where nothing else is said, and the number of processes says nothing of switches."""
    script = SCRIPT + 'ttt = int(os.environ.get("TTT_ENABLED", "0"))\n'
    papers = {"README.md": "# Baseline + TTT\n\n```bash\ntorchrun --nproc_per_node=8 train_gpt.py\n```\n"}
    switch = knobs(papers, script).lookup("TTT_ENABLED")
    assert switch is not None and switch.ambiguous
    assert list(alternatives(knobs(block("torchrun --nproc_per_node=8 train_gpt.py")))) == []
    (defaults,) = alternatives(knobs(block("LR=2 torchrun --nproc_per_node=8 train_gpt.py")))
    assert {k: v.value for k, v in defaults.values.items()} == {"WORLD_SIZE": "8"}


def test_words_that_are_looked_for_on_the_command_line_are_options() -> None:
    script = SCRIPT + "if '--prepare' in sys.argv:\n    print('now')\n"
    assert knobs({}, script).declared["--prepare"].default == "0"
    assert knobs({}, script).lookup("--prepare") is None
    found = knobs(block("python train_gpt.py --prepare"), script).lookup("--prepare")
    assert found is not None and found.value == "True"


def test_a_default_that_hangs_on_the_number_of_processes() -> None:
    code = (
        "import os\nimport urllib.request\nworld_size = int(os.environ.get('WORLD_SIZE', '1'))\n"
        "if world_size > 1:\n    urllib.request.urlopen('https://example.org')\n"
    )
    files = {"train_gpt.py": code} | block("torchrun --nproc_per_node=8 train_gpt.py")
    (one,) = audit_files(text_files(files, "train_gpt.py"), Options(rules=frozenset(["B5"]))).findings
    assert one.active == "yes"
