"""Scripts of the submission that another script starts as programs of their own."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.model import Submission
from audit.rules.flow import PRELUDE

SAVED = PRELUDE + 'torch.save(model.state_dict(), "final.pt")\nprint(f"round trip val_bpb:{evaluate(model, val):.4f}")\n'
START = """\
import subprocess, sys
from pathlib import Path
def measure(folder, name):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "8", str(folder / name), "--model", "final.pt"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        print(line)
measure(Path(os.environ.get("WHERE", ".")).resolve(), "measure.py")
"""
ADAPTED = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1025, 1024):
    nll(model, val[None, c : c + 1024], val[None, c + 1 : c + 1025]).mean().backward()
    opt.step()
"""
MEASURE = PRELUDE.partition("optimizer =")[0] + """\
model.load_state_dict(torch.load("final.pt"))
@@if __name__ == "__main__":
    print(f"final val_bpb:{evaluate(model, val):.4f}")
"""


def audited(measure: str, start: str = START) -> Submission:
    files = {"train_gpt.py": SAVED + start, "measure.py": measure}
    return audit_files(text_files(files, "train_gpt.py"), Options())


@pytest.mark.parametrize(
    "start",
    [
        START,
        'import subprocess\nsubprocess.run("torchrun --nproc_per_node=8 measure.py --model final.pt", shell=True, check=True)\n',
        'os.system("python3 ./measure.py")\n',
        'import sys\nos.execv(sys.executable, [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "measure.py")])\n',
    ],
)
def test_what_a_started_script_does_is_part_of_the_run(start):
    assert audited(MEASURE.replace("@@", ""), start).verdict == "clean"
    found = audited(MEASURE.replace("@@", ADAPTED), start)
    assert found.verdict == "violation"
    assert {(f.rule, f.path) for f in found.findings if f.severity == "violation"} == {("F1", "measure.py")}


def test_a_script_that_is_not_started_is_not_run():
    quiet = START.replace('measure(Path', 'if os.environ.get("MEASURE") == "1":\n    measure(Path')
    assert audited(MEASURE.replace("@@", ADAPTED), quiet).verdict == "clean"


def test_a_started_score_that_cannot_be_followed_leaves_the_run_undetermined():
    unread = 'import measuring\nfor name, value in measuring.all_of("final.pt"):\n    print("final val_bpb:", value)\n'
    found = audited(unread)
    assert found.verdict == "undetermined"
    assert "starts measure.py, which prints a score that was not followed" in found.reason
    silent = audited('import shutil\nshutil.copy("final.pt", "kept.pt")\n')
    assert silent.verdict == "clean"


@pytest.mark.parametrize(
    "start",
    [
        'subprocess.run([sys.executable, "measure.py"], env={**os.environ, "ADAPT": "@"})\n',
        'env = os.environ.copy()\nenv["ADAPT"] = "@"\nsubprocess.run([sys.executable, "measure.py"], env=env)\n',
        'os.environ["ADAPT"] = "@"\nsubprocess.run([sys.executable, "measure.py"])\n',
        'os.system("ADAPT=@ python measure.py")\n',
        'subprocess.run(["env", "ADAPT=@ ", sys.executable, "measure.py"])\n',
    ],
)
def test_a_started_script_has_the_settings_that_it_is_given(start):
    adapts = 'if os.environ.get("ADAPT", "0") == "1":\n' + "".join(f"    {line}\n" for line in ADAPTED.splitlines())
    verdicts = [audited(MEASURE.replace("@@", adapts), "import subprocess, sys\n" + start.replace("@", n)).verdict for n in "01"]
    assert verdicts == ["clean", "violation"]
