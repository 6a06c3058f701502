"""F17: a scale that the whole window has a part in, taken out and put back around a rounding; and the same in the values."""

from __future__ import annotations

import pytest

from audit.rules.rounding import ROUNDED
from tests.audit.rules.causal_models import audited
from tests.audit.rules.test_causal_shapes import BACK, HEADS, model

EVAL = ("evaluate(Wide()", "evaluate(Wide().eval()")
KNOB = "FQ = bool(int(os.environ.get('FQ', '{}')))\n"
SKIPS = "if SKIP and not torch.is_grad_enabled():\n    return self.out(x)\n"
STEPS = "s = x.detach().abs().max() / 31.0 + 1e-8\nq = (x / s).round().clamp(-31, 31)\nx = x + (q * s - x).detach()"
HELPER = "def fake(x):\n    " + STEPS.replace("\n", "\n    ") + "\n    return x\n\n"
ROUND = {
    "straight through": model(STEPS),
    "in a function": model("x = fake(x)", before=HELPER),
    "one line": model("s = x.abs().max() / 127\nx = (x / s).round().clamp(-127, 127) * s"),
    "one step a line": model("s = x.abs().amax() / 127\nx = x / s\nx = x.round()\nx = x * s"),
    "per channel of the window": model("s = x.abs().amax(dim=1, keepdim=True) / 127\nx = torch.round(x / s) * s"),
    "the same, one step a line": model("s = x.abs().amax(dim=1, keepdim=True) / 127\nx = x / s\nx = x.round()\nx = x * s"),
    "an inverse scale": model("m = x.abs().amax()\nq = (x * (127 / m)).round().to(torch.int8)\nx = q.to(x.dtype) * (m / 127)"),
    "eight-bit floats": model("m = 448.0 / x.abs().amax()\nx = (x * m).to(torch.float8_e4m3fn).to(x.dtype) / m"),
    "steps of one": model("m = x.abs().amax()\nx = torch.round(x / m * 127) / 127 * m"),
    "from the least value on": model("lo = x.amin()\ns = (x.amax() - lo) / 255\nx = torch.round((x - lo) / s) * s + lo"),
    "a zero point": model(
        "s = (x.amax() - x.amin()) / 255\nz = torch.round(-x.amin() / s)\nq = (torch.round(x / s) + z).clamp(0, 255)\nx = (q - z) * s"
    ),
    "with a switch that is off": model(SKIPS + STEPS, before="SKIP = bool(int(os.environ.get('SKIP', '0')))\n"),
    "with a switch that is on": model("if FQ:\n    " + STEPS.replace("\n", "\n    "), before=KNOB.format(1)),
}
#: nothing is said of these
HONEST = {
    "each position by itself": model("s = x.abs().amax(dim=-1, keepdim=True) / 127\nx = torch.round(x / s) * s"),
    "a weight": model("w = self.q.weight\ns = w.abs().max() / 31\nx = F.linear(x, (w / s).round() * s)"),
    "a fixed scale": model("x = (x * 31 / 8.0).round() * 8.0 / 31"),
    "in training alone": model("if self.training:\n    " + STEPS.replace("\n", "\n    ")).replace(*EVAL),
    "with a switch that is off": model("if FQ:\n    " + STEPS.replace("\n", "\n    "), before=KNOB.format(0)),
    "skipped without gradients": model(SKIPS + STEPS, before="SKIP = bool(int(os.environ.get('SKIP', '1')))\n"),
    "a figure that is logged": model("self.note = x.abs().max()\nx = self.q(x)"),
    "each position by its own largest value": model("x = x / x.abs().max(dim=-1, keepdim=True).values"),
    "a weight's largest value": model("w = self.q.weight\nx = F.linear(x, w / w.abs().max())"),
    "shares without overflow": model("s = self.q(x)\nw = (s - s.amax(dim=1, keepdim=True)).exp()\nx = (w * x).cumsum(1) / w.cumsum(1)"),
    "the same with max": model("s = self.q(x)\nw = torch.exp(s - s.max())\nx = (w * x).cumsum(1) / w.cumsum(1)"),
    "scores under a mask": model(
        HEADS + "s = (q @ k.mT).masked_fill(torch.ones(T, T).triu(1).bool(), float('-inf'))\ns = s - s.amax(dim=-1, keepdim=True)\n"
        "y = s.softmax(-1) @ v" + BACK
    ),
}
VALUES = {
    "divided by the largest value": model("x = x / x.abs().max()"),
    "as a number": model("x = x / float(x.abs().max())"),
    "as an item": model("x = x / x.abs().max().item()"),
    "a gate": model("x = x * torch.sigmoid(x.max())"),
    "less the largest value": model("x = x - x.amax(dim=1, keepdim=True)"),
    "less the largest value by name": model("m, _ = x.max(dim=1, keepdim=True)\nx = x - m"),
    "less one number": model("x = torch.sigmoid(x - x.max()) * x"),
    "rounded, and its mean": model("s = x.abs().amax(dim=1, keepdim=True) / 127\nx = torch.round(x / s) * s - x.mean(dim=1, keepdim=True)"),
    "only one of two is rounded": model("s = x.abs().amax()\nx = torch.round(x / s) * s + x / s"),
    "mirrored, by a switch": model("if FQ:\n    x = x + x.flip(1)", before=KNOB.format(1)),
}


@pytest.mark.parametrize("name", ROUND)
def test_what_goes_into_rounding_alone_is_a_warning(name):
    found, whole = audited(ROUND[name])
    assert [(f.severity, f.message, f.active) for f in found] == [("warning", ROUNDED, "yes")]
    assert whole.verdict == "clean"


@pytest.mark.parametrize("name", HONEST)
def test_other_scales_are_not_told_of(name):
    assert not audited(HONEST[name])[0]


@pytest.mark.parametrize("name", VALUES)
def test_what_goes_into_the_values_is_a_violation(name):
    found, whole = audited(VALUES[name])
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations
