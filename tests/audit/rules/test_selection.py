"""F18: the best of several evaluations, told or used."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

SWEEP = """\
import copy
def at(T, tokens):
    total = torch.zeros(())
    for i in range(0, tokens.numel() - 1, 1024):
        with torch.no_grad():
            z = model(tokens[None, i : i + 1024]) / T
            total += F.cross_entropy(z.transpose(1, 2), tokens[None, i + 1 : i + 1025], reduction="sum")
    return total.item() / 0.6931471805599453 / n_bytes
def learned(rate, tokens):
    net = copy.deepcopy(model)
    opt = torch.optim.SGD(net.parameters(), lr=rate)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(0, tokens.numel() - 1, 1024):
        per = nll(net, tokens[None, i : i + 1024], tokens[None, i + 1 : i + 1025])
        total += per.detach().double().sum()
        opt.zero_grad()
        per.mean().backward()
        opt.step()
    return total.item() / 0.6931471805599453 / n_bytes
pilot = val[:500_000]
tried = (0.9, 1.0, 1.1)
PICK
"""
END = 'print(f"val_bpb:{at(best, val):.4f}")\n'
RATE = 'print(f"val_bpb:{learned(best, val):.4f}")\n'
PICKS = [
    "best = min([(at(t, pilot), t) for t in tried])[1]\n",
    "score, best = min((at(t, pilot), t) for t in tried)\n",
    "best = sorted([(at(t, pilot), t) for t in tried])[0][1]\n",
    "ranked = sorted([(at(t, pilot), t) for t in tried])\nbest = ranked[0][1]\n",
    "best = min(tried, key=lambda t: at(t, pilot))\n",
    "scores = {t: at(t, pilot) for t in tried}\nbest = min(scores, key=scores.get)\n",
    "scores = {t: at(t, pilot) for t in tried}\nbest = min(scores, key=lambda t: scores[t])\n",
    "scores = [at(t, pilot) for t in tried]\nbest = tried[int(np.argmin(scores))]\n",
    "scores = [at(t, pilot) for t in tried]\nbest = tried[scores.index(min(scores))]\n",
    "scores = {t: at(t, pilot) for t in tried}\nbest = sorted(scores.items(), key=lambda kv: kv[1])[0][0]\n",
]
TABLE = 'table = {t: at(t, val) for t in tried}\nfor t, s in table.items():\n    print(f"T {t}: {s:.4f}")\n'


def warned(code: str) -> list[str]:
    found = audit_text(PRELUDE + SWEEP.replace("PICK", code))
    assert found.verdict == "clean", found.reason
    return [f.rule for f in found.findings if f.severity == "warning"]


@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("end", [END, RATE])
def test_what_validation_scores_picked_is_used(pick, end):
    assert warned(pick + end) == ["F18"]
    assert warned(pick.replace("pilot", "train[:500_000]") + end) == []
    assert warned(pick + "print(best)\n" + end.replace("best", "1.0")) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (TABLE + 'print(f"final val_bpb:{min(table.values()):.4f}")\n', ["F18"]),
        (TABLE + 'print(f"final val_bpb:{sorted(table.values())[0]:.4f}")\n', ["F18"]),
        (TABLE + 'best = min(table, key=table.get)\nprint(f"final {best} val_bpb:{table[best]:.4f}")\n', ["F18"]),
        ('print(f"final val_bpb:{min(at(1.0, val), learned(0.1, val)):.4f}")\n', ["F18"]),
        (TABLE + 'print(f"best of it:{min(table.values()):.4f}")\nprint(f"final val_bpb:{at(1.0, val):.4f}")\n', []),
        (TABLE + 'print(f"final val_bpb:{table[1.0]:.4f} (best {min(table.values()):.4f})")\n', []),
        (TABLE + 'best = min(table, key=table.get)\nprint(f"best {best}")\nprint(f"final val_bpb:{table[1.0]:.4f}")\n', []),
        ('states = [copy.deepcopy(model.state_dict()) for _ in range(3)]\nlosses = [float(nll(model, train[None, :64], train[None, 1:65]).mean()) for _ in states]\n'
         'model.load_state_dict(states[int(np.argmin(losses))])\n' + END.replace("best", "1.0"), []),
        ('low = 99.0\nfor k in range(3):\n    now = at(1.0, val)\n    low = min(low, now)\n    print(f"val_bpb:{now:.4f}")\nprint(f"best val_bpb:{low:.4f}")\n', []),
        ('now = at(1.0, val)\nprint(f"final val_bpb:{max(now, 1e-9):.4f}")\n', []),
        ('now, other = at(1.0, val), at(1.1, val)\nprint(f"val_bpb:{now:.4f}")\nprint(f"final val_bpb:{min(now, 99.0):.4f}")\n', []),
        ('seen = []\nfor k in range(3):\n    seen.append(at(1.0, val))\n    print(f"best so far {min(seen):.4f}")\n' + END.replace("best", "1.0"), []),
    ],
)  # fmt: skip
def test_the_smaller_figure_is_reported_or_told(code, found):
    assert warned(code) == found


def test_chunks_that_were_scored_choose_for_later_ones():
    code = """\
rates, losses = (1e-3, 2e-3), {}
rate, total = 1e-3, torch.zeros((), dtype=torch.float64)
for i in range(0, val.numel() - 1, 1024):
    opt = torch.optim.SGD(model.parameters(), lr=rate)
    per = nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025])
    total += per.detach().double().sum()
    losses[rate] = per.detach().mean().item()
    rate = min(losses, key=losses.get)
    opt.zero_grad()
    per.mean().backward()
    opt.step()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
    assert warned(code) == []


KEPT = """\
def told(tokens, collect):
    parts, kept, best = [], [], None
    for i in range(0, tokens.numel() - 1, 1024):
        with torch.no_grad():
            per = nll(model, tokens[None, i : i + 1024], tokens[None, i + 1 : i + 1025])
        parts.append(per)
    if TEST:
        kept = torch.cat([tokens[:1024]])
    print(f"val_bpb:{torch.cat([p.reshape(-1) for p in parts]).sum().item() / 0.6931471805599453 / n_bytes:.4f}")
    return kept
told(val, torch.cuda.device_count() > 3)
"""


@pytest.mark.parametrize(
    ("test", "asks"),
    [
        ("parts", False),
        ("collect and parts", False),
        ("not parts", False),
        ("len(parts) > 3", False),
        ("best is None", False),
        ("collect or not (parts and kept)", False),
        ("parts[-1] is not None", False),
        ("parts[-1].sum() > 0", False),
        ("7 in dict(enumerate(parts))", False),
        ("parts[-1].sum() < 7000", True),
        ("collect and parts[-1].mean() < parts[0].mean()", True),
        ("parts and parts[0].max().item() > 3.5", True),
    ],
)
def test_whether_there_are_scores_is_not_how_large_they_are(test, asks):
    found = audit_text(PRELUDE + KEPT.replace("TEST", test))
    assert [f.rule for f in found.findings if f.rule == "F18"] == (["F18"] if asks else [])
