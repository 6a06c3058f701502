"""What test-time training a script contains: also behind settings that helpers and overrides hand on, and in shared helpers."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

BODY = """\
import argparse, os
from types import SimpleNamespace
@setup@
def evaluate(model, val):
    total = torch.zeros(())
    for w in range(0, val.numel() - 1025, 1024):
        total = taken(total, nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025]))
    return total
def taken(total, losses):
    return total + losses.detach().sum()
def adapt(model, val):
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    total = torch.zeros(())
    for w in range(0, val.numel() - 1025, 1024):
        x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
@turn@
    return total
total = evaluate(model, val)
if args.ttt:
    total = adapt(model, val)
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
SCORE_FIRST = """\
        loss = nll(model, x, y).mean()
        total += loss.detach()
        loss.backward()
        opt.step()"""


def contained(setup: str, turn: str = SCORE_FIRST) -> tuple[str, str]:
    found = audit_text(PRELUDE + BODY.replace("@setup@", setup).replace("@turn@", turn)).ttt
    return found["kind"], found["active"]


def by_helper(body: str) -> str:
    lines = "\n".join("    " + line for line in body.splitlines())
    return f'def setting(name, default):\n{lines}\nargs = SimpleNamespace(ttt=setting("TTT", 0))'


@pytest.mark.parametrize(
    "setup",
    [
        'args = SimpleNamespace(ttt=int(os.environ.get("TTT", "0")))',
        by_helper("v = os.environ.get(name)\nreturn int(v) if v else default"),
        by_helper("v = os.environ.get(name)\nif v is None:\n    return default\nreturn int(v)"),
        by_helper("return int(os.environ[name]) if name in os.environ else default"),
        by_helper("return type(default)(os.environ.get(name, default))"),
        'args = SimpleNamespace(ttt=0)\nif os.environ.get("TTT"):\n    args.ttt = 1',
    ],
)
def test_training_that_a_setting_leaves_off_is_named_and_dormant(setup: str) -> None:
    assert contained(setup) == ("score-first-chunk", "no")


@pytest.mark.parametrize("given", ["args.files = given.files", 'args.lengths["files"] = given.files'])
def test_what_a_command_line_would_give_is_not_the_none_that_it_gives(given: str) -> None:
    """The run into closed branches keeps the shards' names, so that it reads validation tokens at all."""
    setup = f"""\
parser = argparse.ArgumentParser()
parser.add_argument("--files", default=None)
given = parser.parse_args()
args = SimpleNamespace(ttt=int(os.environ.get("TTT", "0")), files="fineweb_val_*.bin", lengths={{"files": "fineweb_val_*.bin"}})
if given.files is not None:
    {given}
import glob
val = torch.cat([torch.from_numpy(np.fromfile(f, dtype="<u2").astype(np.int64)) for f in sorted(glob.glob({given.partition(" =")[0]}))])"""
    assert contained(setup) == ("score-first-chunk", "no")


def test_a_score_in_a_helper_that_both_evaluations_share() -> None:
    turn = SCORE_FIRST.replace("total += loss.detach()", "total = taken(total, loss)")
    assert contained('args = SimpleNamespace(ttt=int(os.environ.get("TTT", "0")))', turn) == ("score-first-chunk", "no")


PREFIX = """\
        before = {k: v.clone() for k, v in model.state_dict().items()}
        nll(model, x[:, :512], y[:, :512]).mean().backward()
        opt.step()
        total += nll(model, x, y)[:, 512:].detach().sum()
        model.load_state_dict(before)"""


def test_a_window_that_is_adapted_to_its_own_beginning_is_another_kind() -> None:
    assert contained("args = SimpleNamespace(ttt=True)", PREFIX) == ("other", "yes")
