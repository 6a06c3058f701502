"""Settings that the papers contradict: a breach under one reading only is neither shown nor excluded."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

SCRIPT = (
    PRELUDE
    + """\
if bool(int(os.environ.get("TTT_ENABLED", "0"))):
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    for i in range(0, val.numel() - 1025, 1024):
        opt.zero_grad()
        nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025]).mean().backward()
        opt.step()
print(f"val_bpb:{evaluate(model, val):.4f}")
"""
)
RUNS = "```\nTTT_ENABLED=1 python train_gpt.py\n```\n\n```\nTTT_ENABLED=0 python train_gpt.py\n```\n"


def audit(papers: dict[str, str], script: str = SCRIPT, **env: str):
    files = text_files({"r/train_gpt.py": script} | {f"r/{k}": v for k, v in papers.items()}, "r/train_gpt.py")
    return audit_files(files, Options(env=env))


@pytest.mark.parametrize(
    ("papers", "said"),
    [
        ({"README.md": RUNS}, ("TTT_ENABLED=1 by r/README.md:2", "0 by r/README.md:6")),
        ({"README.md": "# 9 layers + standard TTT\n"}, ("TTT_ENABLED=1 only by r/README.md:1", "default is 0")),
    ],
)
def test_a_breach_under_one_reading_is_undetermined_and_says_what_is_in_doubt(papers, said):
    found = audit(papers)
    assert found.verdict == "undetermined"
    (f,) = [f for f in found.findings if f.rule == "F1" and f.severity == "violation"]
    assert f.active == "unknown" and f.line > PRELUDE.count("\n")
    assert all(words in (f.gate or "") for words in said)
    assert found.ttt == {"kind": "train-then-score", "active": "unknown"}


def test_the_other_order_of_statements_is_as_doubtful():
    lines = RUNS.split("\n\n")
    found = audit({"README.md": "\n\n".join(reversed(lines))})
    assert found.verdict == "undetermined"
    assert [f.active for f in found.findings if f.rule == "F1"] == ["unknown"]


def test_who_says_which_run_is_meant_gets_an_answer():
    assert audit({"README.md": RUNS}, TTT_ENABLED="1").verdict == "violation"
    assert audit({"README.md": RUNS}, TTT_ENABLED="0").verdict == "clean"


def test_what_is_illegal_either_way_is_a_violation():
    always = SCRIPT.replace("print(f", "    pass\nfor i in range(0, val.numel() - 1025, 1024):\n    nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025]).mean().backward()\n    torch.optim.SGD(model.parameters(), lr=1e-3).step()\nprint(f")
    found = audit({"README.md": RUNS}, script=always)
    assert found.verdict == "violation" and "F1" in {f.rule for f in found.findings if f.active == "yes"}


def test_beside_a_certain_breach_a_doubtful_one_is_a_warning():
    certain = SCRIPT.replace('print(f"val_bpb', "model.load_state_dict(torch.load('a.pt'))\nfor i in range(0, train.numel() - 1025, 1024):\n    nll(model, train[None, i : i + 1024], train[None, i + 1 : i + 1025]).mean().backward()\n    torch.optim.SGD(model.parameters(), lr=1e-3).step()\nprint(f\"val_bpb")
    certain = certain.replace("if bool(int", "torch.save(model.state_dict(), 'a.pt')\nif bool(int")
    found = audit({"README.md": RUNS}, script=certain)
    assert found.verdict == "violation"
    assert {(f.rule, f.severity) for f in found.findings if f.active == "unknown"} <= {("F1", "warning"), ("F3", "warning")}
    assert "F14" in {f.rule for f in found.findings if f.severity == "violation"}


def test_a_doubt_that_decides_nothing_changes_nothing():
    runs = RUNS.replace("TTT_ENABLED", "SEED")
    assert audit({"README.md": runs}, script=SCRIPT.replace("TTT_ENABLED", "OTHER") + 'if int(os.environ.get("SEED", "7")):\n    print("seeded")\n').verdict == "clean"


NAMED = """\
name = os.environ.get("RUN_NAME", "plain-run")
log = f"logs/{name}.txt"
if log is not None:
    print(log)
"""
SEEDED = """\
seed = int(os.environ.get("SEED", "7"))
torch.manual_seed(seed)
if seed > 20:
    print("high")
"""


@pytest.mark.parametrize(
    ("more", "runs", "read"),
    [
        (NAMED, ("RUN_NAME=first-run", "RUN_NAME=second-run"), []),
        (SEEDED, ("SEED=42", "SEED=1337"), []),
        (SEEDED.replace("torch.manual_seed(seed)\n", ""), ("SEED=42", "SEED=1337"), ["SEED"]),
        (NAMED.replace('f"logs/{name}.txt"', "name").replace("log is not None", "log"), ("RUN_NAME=first-run", "RUN_NAME=second-run"), ["RUN_NAME"]),
    ],
)  # fmt: skip
def test_names_of_files_and_seeds_are_no_contradiction(more, runs, read, monkeypatch):
    from audit import doubt

    asked: list[list[str]] = []
    real = doubt.doubtful
    monkeypatch.setattr(doubt, "doubtful", lambda *a: asked.append(real(*a)) or asked[-1])
    papers = {"README.md": "".join(f"```\n{run} python train_gpt.py\n```\n\n" for run in runs)}
    assert audit(papers, script=PRELUDE + more + SCRIPT[len(PRELUDE) :]).verdict == "clean"
    assert asked == [read]
