"""The trace follows values through the language: what a name is called, or where code stands, decides nothing."""

from __future__ import annotations

import re

import pytest

from audit.lower import lower
from audit.rules.flow import PRELUDE
from audit.trace import trace
from audit.trace.adaptation import conflicts, shape_of

REPORT = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'


class Knobs:
    def __init__(self, **values: str) -> None:
        self.values = values

    def value(self, name: str, default: object) -> object:
        return self.values.get(name, default), "test"


def run(body: str, knobs: Knobs | None = None, max_steps: int = 400_000):
    return trace({"t.py": lower(PRELUDE + body, "t.py")}, "t.py", knobs, 60.0, max_steps)


def shapes(body: str, **knobs: str) -> set[tuple[str, str]]:
    return {(shape_of(c), c.active) for c in conflicts(run(body, Knobs(**knobs)))}


TUNE = """\
def tune(net, tokens, rate=1e-3):
    opt = torch.optim.SGD(net.parameters(), lr=rate)
    for i in range(0, tokens.numel() - 1, 1024):
        opt.zero_grad()
        nll(net, tokens[None, i : i + 1024], tokens[None, i + 1 : i + 1025]).mean().backward()
        opt.step()

"""
SCORE = 'print(f"val_bpb:{evaluate(model, val):.4f}")\n'
CALLS = {
    "plainly": "tune(model, val)\n",
    "under another name": "again = tune\nother = val\nagain(model, other)\n",
    "by keyword": "tune(tokens=val, net=model)\n",
    "through partial": "import functools\nfunctools.partial(tune, model)(val)\n",
    "with a starred tuple": "pair = (model, val)\ntune(*pair)\n",
    "with a starred mapping": "given = dict(net=model, tokens=val)\ntune(**given)\n",
    "from a closure": "def outer(t):\n    def inner():\n        tune(model, t)\n    return inner\nouter(val)()\n",
    "through an attribute": "class Box:\n    pass\nbox = Box()\nbox.held = val\ntune(model, box.held)\n",
    "from a method": (
        "class Runner:\n    def __init__(self, t):\n        self.t = t\n    def go(self):\n        tune(model, self.t)\n"
        "Runner(val).go()\n"
    ),
    "from a table of functions": "table = {'a': tune}\ntable['a'](model, val)\n",
    "in a comprehension": "[tune(model, t) for t in [val]]\n",
    "as a default argument": "def late(t=val):\n    tune(model, t)\nlate()\n",
    "compiled": "torch.compile(tune)(model, val)\n",
    "by a lambda": "(lambda t: tune(model, t))(val)\n",
    "behind try": "try:\n    tune(model, val)\nfinally:\n    pass\n",
    "after a tuple return": "def two():\n    return train, val\n_, t = two()\ntune(model, t)\n",
}


@pytest.mark.parametrize("how", CALLS)
def test_adaptation_is_found_however_it_is_called(how):
    assert ("train-then-score", "yes") in shapes(TUNE + CALLS[how] + SCORE)


@pytest.mark.parametrize("how", CALLS)
def test_the_same_call_on_training_tokens_is_quiet(how):
    call = CALLS[how].replace("train, val", "val, train") if "two()" in CALLS[how] else CALLS[how]
    if "two()" not in call:
        call = re.sub(r"\bval\b", "train", call)
    assert shapes(TUNE + call + SCORE) == set()


def test_a_gate_decides_and_is_named():
    body = TUNE + 'if int(os.environ.get("ADAPT", "0")):\n    tune(model, val)\n' + SCORE
    assert {active for _, active in shapes(body)} == {"no"}
    found = conflicts(run(body, Knobs(ADAPT="1")))
    assert [(c.active, c.gate) for c in found] == [("yes", "ADAPT=1")]


CHUNKS = """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
C = 32768
for c in range(0, 1000):
    FIRST
    SECOND
"""
SCORE_C = "total += nll(model, val[None, c * C : c * C + C], val[None, c * C + 1 : c * C + C + 1]).detach().sum()"


def learn(k: str) -> str:
    return (
        f"opt.zero_grad(); nll(model, val[None, ({k}) * C : ({k}) * C + C], "
        f"val[None, ({k}) * C + 1 : ({k}) * C + C + 1]).mean().backward(); opt.step()"
    )


@pytest.mark.parametrize(
    ("first", "second", "illegal"),
    [
        (SCORE_C, learn("c"), False),
        (learn("c"), SCORE_C, True),
        (learn("c - 1"), SCORE_C, False),
        (SCORE_C, learn("c + 1"), True),
    ],
    ids=["score, learn", "learn, score", "learn the chunk before, score", "score, learn the chunk to come"],
)
def test_order_within_and_across_chunks(first, second, illegal):
    found = shapes(CHUNKS.replace("FIRST", first).replace("SECOND", second) + REPORT)
    assert bool(found) is illegal, found


def test_a_sum_over_stored_scores_adds_nothing():
    body = CHUNKS.replace(
        "FIRST", SCORE_C.replace("total +=", "kept[c] =").replace(".sum()", "")
    ).replace("SECOND", learn("c"))
    found = shapes("kept = torch.zeros(1000, 32768)\n" + body + "total = kept.sum()\n" + REPORT)
    assert found == set()


def test_manual_gradient_steps_are_updates():
    manual = (
        "for g, p in zip(torch.autograd.grad(nll(model, val[None, :-1], val[None, 1:]).mean(), list(model.parameters())), "
        "model.parameters()):\n    p.data.sub_(1e-3 * g)\n"
    )
    assert any(e.on_val for e in run(manual + SCORE).of("UPDATE"))


def test_a_result_file_is_no_artifact():
    body = TUNE + (
        "torch.save(model.state_dict(), 'a.pt')\nback = Model()\nback.load_state_dict(torch.load('a.pt'))\ntune(back, val)\n"
        "import json\njson.dump({'loss': evaluate(back, val)}, open('r.json', 'w'))\n"
        'print(f"val_bpb:{evaluate(back, val):.4f}")\n'
    )
    assert {s for s, _ in shapes(body)} == {"train-then-score"}


def test_the_step_budget_is_counted_not_timed():
    body = TUNE + "tune(model, val)\n" + SCORE
    whole = run(body)
    assert whole.exhausted is None
    assert run(body).steps == whole.steps
    cut = run(body, max_steps=50)
    assert cut.exhausted is not None
    assert "50" in cut.exhausted


def test_hooks_end_with_the_function_that_set_them():
    body = (
        "def collect():\n    hs = [m.register_forward_hook(lambda *a: None) for m in model.modules()]\n    model(train[None, :64])\n"
        "collect()\n" + SCORE
    )
    assert not any(e.on_val for e in run(body).of("CALIBRATE"))
