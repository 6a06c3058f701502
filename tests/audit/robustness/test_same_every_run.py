"""Two runs say the same: sets of strings, whose order each process draws anew, decide nothing that is written out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from audit.rules.flow import PRELUDE

BEST_OF_FOUR = """
models = [Model() for _ in range(4)]
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        best = torch.minimum(nll(models[0], x, y), nll(models[1], x, y))
        best = torch.minimum(best, nll(models[2], x, y))
        best = torch.minimum(best, nll(models[3], x, y))
        total += best.sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def test_findings_come_in_one_order(tmp_path: Path) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text(PRELUDE + BEST_OF_FOUR)
    said = set()
    for seed in range(5):
        run = subprocess.run(
            [sys.executable, "-m", "audit", "audit", str(script), "--format", "json"],
            capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": str(seed)}, timeout=120,
        )  # fmt: skip
        assert run.returncode == 1, run.stderr
        said.add(run.stdout)
    assert len(said) == 1
    assert next(iter(said)).count('"rule": "F4"') >= 3
