"""M1 from the log: a wrong number of bytes is the table's fault only where every line of the run has it."""

from __future__ import annotations

from audit.context import Options
from audit.engine import audit_files, text_files

SCRIPT = "import torch\nprint(torch.__version__)\n"
HEAD = "val_loader:shards pattern=fineweb_val_*.bin tokens:62021632\n"
STEP = "step:87/87 val_loss:5.5614 val_bpb:3.2938 train_time:600000ms step_avg:6900.00ms\n"  # 2.4359 bytes a token
FINAL = "final_eval_exact val_loss:2.78720000 val_bpb:1.50120000\n"  # 2.6786 bytes a token


def m1(log: str) -> list[str]:
    files = {"train_gpt.py": SCRIPT, "train_seed1.log": log, "submission.json": '{"val_bpb": 1.5012}'}
    found = audit_files(text_files(files, "train_gpt.py"), Options())
    return [f.severity for f in found.findings if f.rule == "M1"]


def test_a_run_in_which_no_line_is_right_has_a_wrong_table():
    assert m1(HEAD + FINAL) == ["violation"]


def test_a_right_line_beside_it_shows_that_the_table_is_not_at_fault():
    assert "violation" not in m1(HEAD + STEP + FINAL)
