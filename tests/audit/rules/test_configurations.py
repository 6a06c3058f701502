"""Which configuration is judged when the papers do not settle one, and what may be said of all of them."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

TUNE = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for i in range(0, val.numel() - 1, 1024):
    opt.zero_grad()
    nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025]).mean().backward()
    opt.step()
"""
SCORE = 'print(f"val_bpb:{evaluate(model, val):.4f}")\n'


def under(condition: str, body: str) -> str:
    return f"if {condition}:\n" + "".join(f"    {line}\n" for line in body.splitlines())


def judged(code: str, readme: str = "", **env: str):
    files = {"train_gpt.py": PRELUDE + code} | ({"README.md": readme} if readme else {})
    return audit_files(text_files(files, "train_gpt.py"), Options(env=env))


MODE = "mode = os.environ.get('MODE', 'nothing')\nloud = os.environ.get('LOUD', '0')\n"
TWO_COMMANDS = "```bash\nMODE=train LOUD=1 python train_gpt.py\nMODE=eval LOUD=0 python train_gpt.py\n```\n"


def test_of_two_commands_the_one_that_scores_is_judged():
    # Settled together, LOUD and MODE would be doubtful; the command that evaluates is the run that was scored.
    code = MODE + under("mode == 'eval'", TUNE + SCORE)
    assert judged(code, TWO_COMMANDS).verdict == "violation"


def test_what_no_branch_does_is_shown_though_no_known_setting_scores():
    assert judged(MODE + under("mode == 'eval'", SCORE)).verdict == "clean"


def test_what_some_branch_does_is_not_shown_when_no_known_setting_scores():
    found = judged(MODE + under("mode == 'eval'", TUNE + SCORE))
    assert found.verdict == "undetermined" and "some others breach this rule" in found.reason


def test_settings_that_the_script_refuses_are_not_those_of_the_run():
    check = "chunk, window = 1000, 64\nif chunk % window != 0:\n    raise ValueError('chunk')\n"
    assert judged(check + TUNE + SCORE).verdict == "violation"
    stop = check.replace("raise ValueError('chunk')", "raise SystemExit(0)")
    assert judged(stop + TUNE + SCORE).verdict != "violation"


@pytest.mark.parametrize(
    ("present", "set_", "verdict"),
    [("not in", {}, "violation"), ("not in", {"TUNE": "0"}, "clean"), ("in", {}, "clean"), ("in", {"TUNE": "0"}, "violation")],
)
def test_a_variable_that_nobody_set_is_not_in_the_environment(present, set_, verdict):
    code = f"tune = os.environ.get('TUNE', '0') == '1'\nif 'TUNE' {present} os.environ:\n    tune = True\n"
    assert judged(code + under("tune", TUNE) + SCORE, **set_).verdict == verdict
