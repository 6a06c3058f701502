"""What hooks add up, and the weights that are set with it."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{evaluate(model, val):.4f}")\n'
RUN = """\
with torch.no_grad():
    for s in range(0, 16384, 1024):
        model({}[None, s : s + 1024])
handle.remove()
"""
ADD = """\
H = torch.zeros(64, 64)
def hook(mod, inp, out):
    H.add_(inp[0][0].t() @ inp[0][0])
handle = model.head.register_forward_hook(hook)
"""
BY_NAME = """\
H = {}
def watch(name):
    def hook(mod, inp, out):
        x = inp[0][0]
        H[name] = H.get(name, 0) + x.t() @ x
    return hook
handle = model.head.register_forward_hook(watch("head"))
"""
SET = """\
def rounded(W, H):
    U = torch.linalg.cholesky(H + torch.eye(64))
    Q = torch.zeros_like(W)
    for i in range(W.shape[1]):
        Q[:, i] = (W[:, i] * U[i, i]).round()
    return Q
with torch.no_grad():
    model.head.weight.copy_(rounded(model.head.weight, {}))
"""


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + body + END).findings if f.severity == "violation"}


@pytest.mark.parametrize(("made", "held"), [(ADD, "H"), (BY_NAME, 'H["head"]')])
def test_weights_set_with_what_a_hook_added_up(made, held):
    assert "F11" in accused(made + RUN.format("val") + SET.format(held))
    assert not accused(made + RUN.format("train") + SET.format(held))


def test_weights_set_without_it_or_before_it():
    assert not accused(ADD + RUN.format("val") + "print(H.trace())\n" + SET.format("torch.eye(64)"))
    assert not accused(ADD + RUN.format("train") + SET.format("H") + ADD + RUN.format("val") + "print(H.trace())\n")


def test_a_loop_that_scores_each_chunk_first_may_set_weights_with_what_it_saw():
    loop = """\
total = torch.zeros(())
for s in range(0, val.numel() - 1, 1024):
    with torch.no_grad():
        total += nll(model, val[None, s : s + 1024], val[None, s + 1 : s + 1025]).sum()
        model.head.weight.copy_(model.head.weight + 1e-6 * H.mean())
"""
    end = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
    found = audit_text(PRELUDE + ADD + loop + end).findings
    assert not [f for f in found if f.rule == "F11"]


PUT_AROUND = """\
def collect(net, tokens):
    sums, kept = {}, {}
    def watched(i, inner):
        def run(x):
            h = x.reshape(-1, x.shape[-1]).float()
            @@
            return inner(x)
        return run
    for i in range(len(net.blocks)):
        sums[i] = torch.zeros(64, 64)
        kept[i] = net.blocks[i].forward
        net.blocks[i].forward = watched(i, net.blocks[i].forward)
    for s in range(0, 8 * 1024, 1024):
        net(tokens[None, s : s + 1024])
    for i in kept:
        net.blocks[i].forward = kept[i]
    return sums
hessians = collect(model, FEED)
packed = {n: torch.round(p / hessians.get(n, 1)) for n, p in model.state_dict().items()}
torch.save(packed, "final_model.pt")
model.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(model, val):.4f}")
"""


@pytest.mark.parametrize(
    ("fill", "feed", "rules"),
    [
        ("sums[i].addmm_(h.T, h)", "val", {"F11"}),
        ("sums[i] += h.T @ h", "val", {"F11"}),
        ("sums[i].addmm_(h.T, h)", "train", set()),
        ("h = h * 2", "val", set()),
    ],
)
def test_a_forward_that_is_replaced_and_put_back_is_a_hook(fill: str, feed: str, rules: set[str]) -> None:
    text = PRELUDE + PUT_AROUND.replace("@@", fill).replace("FEED", feed)
    assert {f.rule for f in audit_text(text).findings if f.severity == "violation"} == rules
