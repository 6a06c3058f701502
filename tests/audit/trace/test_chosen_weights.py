"""Weights that a test chooses among candidates: what the test was made of is what the choice was learned from."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

ROUND = """\
def rounded(W, diag, hi=31):
    best, least = W.clone(), torch.full((W.shape[0],), float("inf"))
    for c in (1.0, 0.95, 0.9):
        s = W.abs().amax(1, keepdim=True) * c / hi
        Q = (W / s).round().clamp(-hi - 1, hi) * s
        err = ((Q - W).pow(2) * diag).sum(1)
        CHOICE
    return best
"""
CHOICES = [
    "better = err < least\n        best[better], least[better] = Q[better], err[better]",
    "best = torch.where((err < least)[:, None], Q, best)\n        least = torch.minimum(err, least)",
    "if err.sum().item() < least.sum().item():\n            best, least = Q, err",
]
AMONG = """\
def rounded(W, diag, hi=31):
    s = W.abs().amax(1, keepdim=True) / hi
    candidates = torch.stack([(W / (s * c)).round() * s * c for c in (1.0, 0.95, 0.9)])
    errors = ((candidates - W).pow(2) * diag).sum((1, 2))
    return candidates[errors.argmin()]
"""
DIRECT = "h = model.emb(FEED[:65536])\nH = h.t() @ h\n"
SUMMED = """\
H = torch.zeros(64, 64)
for i in range(64):
    h = model.emb(FEED[i * 1024 : i * 1024 + 1024])
    H += h.t() @ h
"""
HOOKED = """\
H = torch.zeros(64, 64)
def hook(mod, inp, out):
    H.add_(inp[0][0].t() @ inp[0][0])
handle = model.head.register_forward_hook(hook)
for i in range(64):
    model(FEED[None, i * 1024 : i * 1024 + 1024])
handle.remove()
"""
WRITTEN = """
SEEN
with torch.no_grad():
    model.head.weight.copy_(rounded(model.head.weight, H.diagonal()))
print(f"val_bpb:{evaluate(model, val):.4f}")
"""
GENERATED = """\
def generate(net, x):
    for _ in range(256):
        x = torch.cat([x, torch.multinomial(torch.softmax(net(x)[:, -1], -1), 1)], 1)
    return x
H = torch.zeros(64, 64)
for row in generate(model, PROMPTS):
    h = model.emb(row)
    H += h.t() @ h
"""


def verdict(code: str) -> str:
    return audit_text(PRELUDE + "torch.set_grad_enabled(False)\n" + code).verdict


@pytest.mark.parametrize("rounding", [*(ROUND.replace("CHOICE", c) for c in CHOICES), AMONG])
@pytest.mark.parametrize("seen", [DIRECT, SUMMED, HOOKED])
def test_the_error_decides_and_is_measured_with_validation_tokens(rounding, seen):
    code = rounding + WRITTEN.replace("SEEN", seen)
    assert verdict(code.replace("FEED", "val")) == "violation"
    assert verdict(code.replace("FEED", "train")) == "clean"
    # The Hessian of the stream is only printed; the error counts every weight alike.
    printed = code.replace("FEED", "val").replace("H.diagonal()", "torch.ones(64)") + "print(H.trace())\n"
    assert verdict(printed) == "clean"


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("torch.stack([val[i * 4096 : i * 4096 + 32] for i in range(64)])", "violation"),
        ("val[None, :64]", "violation"),
        ("torch.stack([train[i * 4096 : i * 4096 + 32] for i in range(64)])", "clean"),
        ("torch.randint(0, 1024, (64, 32))", "clean"),
        ("torch.ones(64, 1, dtype=torch.long)", "clean"),
    ],
)
def test_text_generated_from_prompts_of_the_stream(choice, prompts, said):
    code = ROUND.replace("CHOICE", choice) + WRITTEN.replace("SEEN", GENERATED.replace("PROMPTS", prompts))
    assert verdict(code) == said


def test_a_copy_that_is_never_put_back():
    code = ROUND.replace("CHOICE", CHOICES[0]) + WRITTEN.replace("SEEN", DIRECT.replace("FEED", "val"))
    code = code.replace("model.head.weight.copy_(", "print(").replace("H.diagonal()))", "H.diagonal()).norm())")
    assert verdict(code) == "clean"
    assert verdict(code.replace("best[better]", "model.head.weight.data[better]")) == "violation"


CLIP = """\
def clipped(W, c, hi=15):
    s = W.abs().amax(1, keepdim=True) * c / hi
    return (W / s).round().clamp(-hi - 1, hi) * s
first = model.head.weight.detach().clone()
with torch.no_grad():
    X = model.emb(FEED[:32768])
    def error(c):
        return (MEASURED @ (clipped(first, c) - first).t()).pow(2).mean()
    SEARCH
    model.head.weight.copy_(clipped(first, best))
print(f"val_bpb:{evaluate(model, val):.4f}")
"""
SEARCHES = [
    "best = (0.7, 0.8, 0.9)[int(np.argmin([error(c).item() for c in (0.7, 0.8, 0.9)]))]",
    "best, least = 1.0, float('inf')\n    for c in (0.7, 0.8, 0.9):\n        if error(c) < least:\n            best, least = c, error(c)",
    "scales = torch.linspace(0.5, 1.0, 11)\n    best = scales[torch.stack([error(c) for c in scales]).argmin()]",
]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("feed", "measured", "learned"), [("val", "X", True), ("train", "X", False), ("val", "torch.eye(64)", False)]
)
def test_a_scale_that_validation_activations_pick_teaches_the_weights(search: str, feed: str, measured: str, learned: bool) -> None:
    code = CLIP.replace("SEARCH", search).replace("FEED", feed).replace("MEASURED", measured)
    found = {f.rule for f in audit_text(PRELUDE + code).findings if f.severity == "violation"}
    assert bool(found & {"F1", "F11"}) == learned, found
