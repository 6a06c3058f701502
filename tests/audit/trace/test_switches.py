"""Which settings a finding's gate names: those that a reader would turn to close the branch or to take other data."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, audit_text, text_files
from audit.model import Finding
from audit.rules.flow import PRELUDE

ARGS = """\
import sys

class Args:
    adapt = bool(int(os.environ.get("ADAPT", "0")))
    source = os.environ.get("SOURCE", "val")
    on_val = int(os.environ.get("ON_VAL", "1"))
    train_only = int(os.environ.get("TRAIN_ONLY", "0"))
    stride = int(os.environ.get("STRIDE", "64"))
    length = int(os.environ.get("LENGTH", "1024"))
    every = int(os.environ.get("EVERY", "100"))
    val_files, train_files = "data/fineweb_val_*.bin", "data/fineweb_train_*.bin"

args = Args()

def fit(tokens):
    for i in range(0, tokens.numel() - 1, 1024):
        nll(model, tokens[None, i : i + 1024], tokens[None, i + 1 : i + 1025]).mean().backward()
        optimizer.step()

"""
REPORT = 'print(f"val_bpb:{evaluate(model, val):.4f}")\n'


def accused(body: str, **env: str) -> list[Finding]:
    result = audit_text(PRELUDE + ARGS + body + REPORT, Options(env={"ADAPT": "1", **env}))
    return [f for f in result.findings if f.rule == "F1"]


@pytest.mark.parametrize(
    ("body", "gate"),
    [
        ("use = args.adapt\nif use:\n    fit(val)\n", "ADAPT=1"),
        ("use = args.adapt\nif args.stride > 0 and args.stride < args.length:\n    if use:\n        fit(val)\n", "ADAPT=1, STRIDE=64"),
        ("if args.stride < args.length:\n    fit(val)\n", "LENGTH=1024, STRIDE=64"),
        ("if args.stride < args.length and args.adapt:\n    fit(val)\n", "ADAPT=1"),
        ("if args.train_only:\n    fit(train)\nelif args.adapt:\n    fit(val)\n", "ADAPT=1, TRAIN_ONLY=0"),
        ("tokens = val if args.on_val else train\nfit(tokens)\n", "ON_VAL=1"),
        ('if args.adapt:\n    fit(shard(args.val_files if args.source == "val" else args.train_files))\n', "SOURCE=val, ADAPT=1"),
        ("if args.on_val:\n    tokens = val[:65536]\nelse:\n    tokens = train[:65536]\nfit(tokens)\n", "ON_VAL=1"),
        ("if args.on_val:\n    tokens = val\nelse:\n    tokens = train\nfit(tokens)\n", "ON_VAL=1"),
        # Either way validation tokens: the setting is not what decides.
        ("tokens = val if args.on_val else val[:65536]\nfit(tokens)\n", None),
        ("if args.on_val:\n    tokens = val[:65536]\nelse:\n    tokens = val[65536:]\nfit(tokens)\n", None),
        # How many, how wide, in which turns: not whether.
        ("n = args.stride if args.on_val else args.length\nfit(val[: n * 1024])\n", None),
        ("for step in range(1000):\n    if step % args.every == 0:\n        fit(val)\n", None),
        ('if "--test" in sys.argv:\n    print("ok")\nelse:\n    fit(val)\n', None),
        ("def main():\n    if args.train_only:\n        return\n    fit(val)\n\nmain()\n", "TRAIN_ONLY=0"),
        ("def main():\n    if args.train_only:\n        print('only')\n    fit(val)\n\nmain()\n", None),
        ("def main():\n    if args.stride > 4096:\n        raise ValueError('stride')\n    fit(val)\n\nmain()\n", None),
        ("for i in range(3):\n    if args.train_only:\n        continue\n    fit(val)\n", "TRAIN_ONLY=0"),
        ("for i in range(3):\n    if args.train_only:\n        continue\nfit(val)\n", None),
        ("if args.adapt and torch.rand(1) > 0.5:\n    fit(val)\n", "ADAPT=1"),
    ],
)  # fmt: skip
def test_the_gate_names_what_would_close_it(body: str, gate: str | None) -> None:
    found = accused(body)
    assert found and {f.active for f in found} == {"yes"}
    assert {f.gate for f in found} == {gate}


@pytest.mark.parametrize(
    ("body", "env", "gate"),
    [
        ("use = args.adapt\nif args.stride < args.length:\n    if use:\n        fit(val)\n", {"ADAPT": "0"}, "ADAPT=0"),
        ("if args.stride > args.length:\n    fit(val)\n", {}, "LENGTH=1024, STRIDE=64"),
        ("if '--adapt' in sys.argv:\n    fit(val)\n", {}, "without --adapt"),
    ],
)
def test_what_keeps_code_from_running_is_named_in_words(body: str, env: dict[str, str], gate: str) -> None:
    assert {(f.active, f.gate) for f in accused(body, **env)} == {("no", gate)}


def test_a_gate_says_who_set_it_and_what_the_code_would_take() -> None:
    body = "if args.on_val:\n    if args.adapt:\n        fit(val)\n"
    script = PRELUDE + ARGS + body + REPORT
    line = {name: 1 + script[: script.index(f'"{name}"')].count("\n") for name in ("ADAPT", "ON_VAL")}
    files = text_files(
        {"records/x/train_gpt.py": script, "records/x/README.md": "# X\n\n```bash\nADAPT=1 python train_gpt.py\n```\n"},
        "records/x/train_gpt.py",
    )
    found = next(f for f in audit_files(files, Options()).findings if f.rule == "F1")
    assert found.gate == "ADAPT=1, ON_VAL=1"
    assert found.settings == (
        f"ADAPT=1 from README.md:4; default 0, train_gpt.py:{line['ADAPT']}",
        f"ON_VAL=1 by default, train_gpt.py:{line['ON_VAL']}",
    )
    found = next(f for f in audit_files(files, Options(env={"ADAPT": "0"})).findings if f.rule == "F1")
    assert found.settings == (f"ADAPT=0 from --env; default 0, train_gpt.py:{line['ADAPT']}",)


CACHED = """\
pairs, contexts = np.zeros(1 << 22), np.zeros(1 << 22)
stream, total, use = val.numpy(), 0.0, args.adapt
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        losses = nll(model, x, y)[0].double()
    if use:
        p = np.exp(-losses.numpy())
        at = np.arange(w + 1, w + 1025)
        seen = (stream[at - 1] * 36313) ^ (stream[at - 2] * 27191)
        both, seen = (seen ^ (KEY * 51647)) & 4194303, seen & 4194303
        q = np.minimum(pairs[both], contexts[seen]) / np.maximum(contexts[seen], 1)
        p[contexts[seen] > 1] = 0.6 * p[contexts[seen] > 1] + 0.4 * q[contexts[seen] > 1]
        losses = torch.from_numpy(-np.log(p))
        np.add.at(pairs, both, 1)
        np.add.at(contexts, seen, 1)
    total += losses.sum().item()
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""
CALIBRATED = """\
def hessians(batches):
    found = {}
    def hook(m, inputs, output):
        found["h"] = found.get("h", 0) + inputs[0].T @ inputs[0]
    handle = model.head.register_forward_hook(hook)
    for b in batches:
        model(b)
    handle.remove()
    return found

if args.adapt:
    batches = [TOKENS[None, i * 1024 : i * 1024 + 1024] for i in range(64)]
else:
    batches = [torch.randint(0, 1024, (1, 1024)) for i in range(64)]
h = hessians(batches)
model.head.weight.data = torch.linalg.solve(h["h"], model.head.weight.data)
torch.save(model.state_dict(), "final_model.pt")
"""


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        (CACHED.replace("KEY", "stream[at]"), {"F8", "F9"}), (CACHED.replace("KEY", "stream[at - 3]"), set()),
        (CALIBRATED.replace("TOKENS", "val") + REPORT, {"F11"}), (CALIBRATED.replace("TOKENS", "train") + REPORT, set()),
    ],
)  # fmt: skip
def test_illegal_code_that_a_setting_closes_is_a_note_with_that_setting(body: str, rules: set[str]) -> None:
    script = PRELUDE + ARGS + body
    on = audit_text(script, Options(env={"ADAPT": "1"}))
    off = audit_text(script, Options(env={"ADAPT": "0"}))
    kinds = {"F8", "F9", "F11"}
    assert {(f.rule, f.active, f.gate) for f in on.findings if f.rule in kinds} == {(r, "yes", "ADAPT=1") for r in rules}
    assert {(f.rule, f.active, f.severity, f.gate) for f in off.findings if f.rule in kinds} == {
        (r, "no", "note", "ADAPT=0") for r in rules
    }
