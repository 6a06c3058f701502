"""F17: a layer's final state that starts its next run over the same window."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import PRELUDE

MODEL = """\
class Memory(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.put = nn.Linear(d, d)
    def forward(self, x, state):
{run}
class Deep(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.memory = Memory(64) if size > 0 else None
    def forward(self, ids):
        x = self.emb(ids)
        state = torch.zeros(ids.size(0), 64)
        for depth in range(3):
            if self.memory is not None:
                {step}
        return self.head(x)
print(f"val_bpb:{{evaluate(Deep(int(os.environ.get('SIZE', '1'))), val):.4f}}")
"""
STEPS = "        out = []\n        for t in range(x.size(1)):\n            state = 0.9 * state + self.put(x[:, t])\n            out.append(state)\n        return torch.stack(out, 1), state\n"
KERNEL = "        y, last = chunk_rule(self.put(x), initial_state=state, output_final_state=True)\n        return x + y, last\n"
PER_POSITION = "        return x + self.put(state), x\n"
CARRIED = "x, state = self.memory(x, state)"


def _findings(run: str, step: str = CARRIED, **env: str):
    code = PRELUDE + MODEL.format(run=run, step=step)
    found = audit_files(text_files({"train_gpt.py": code}, "train_gpt.py"), Options(env=env))
    return [f for f in found.findings if f.rule == "F17"]


@pytest.mark.parametrize("run", [STEPS, KERNEL], ids=["a loop over positions", "a kernel's final state"])
def test_the_end_of_the_window_reaches_its_beginning(run):
    assert [f.severity for f in _findings(run)] == ["violation"]
    assert [f.active for f in _findings(run, SIZE="0")] == ["no"]


@pytest.mark.parametrize(
    ("run", "step"),
    [
        (STEPS, "x, last = self.memory(x, state)"),
        (PER_POSITION, CARRIED),
        (STEPS, "x, state = self.memory(x[:, depth : depth + 1], state)"),
    ],
    ids=["every run starts afresh", "a value per position", "one piece after the other"],
)
def test_states_that_stay_in_their_run(run, step):
    assert _findings(run, step) == []
