"""Products that sum over the positions of tokens are tables of them: score first, then take in."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

WALK = """\
A, B, W = 10.0 * torch.eye(64), torch.zeros(64, 1024), torch.zeros(64, 1024)
counts, total = torch.ones(1024, 1024), torch.zeros((), dtype=torch.float64)
with torch.no_grad():
    for s in range(0, val.numel() - 1, 1024):
        w = val[s : s + 1025]
        x, y = w[:-1], w[1:]
        h = model.emb(x)
@@
"""
END = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
SCORE = 'total += F.cross_entropy(model.head(h) + h @ W, y, reduction="sum")\n'
GRAM = "A += h.t() @ h\n"
FITS = {
    "in place": GRAM + "B += h.t() @ F.one_hot(y, 1024).float()\nW = torch.linalg.solve(A, B)\n",
    "forgetting": GRAM + "B = 0.99 * B + torch.matmul(h.T, F.one_hot(y, 1024).to(h.dtype))\nW = torch.linalg.inv(A) @ B\n",
    "einsum": GRAM + 'B += torch.einsum("td,tv->dv", h, F.one_hot(y, 1024).float())\nW = torch.linalg.solve(A, B)\n',
    "a method": GRAM + "Y = F.one_hot(y, 1024).float()\nB.add_(h.t() @ Y)\nW = torch.cholesky_solve(B, torch.linalg.cholesky(A))\n",
    "least squares": "W = torch.linalg.lstsq(h, F.one_hot(y, 1024).float()).solution\n",
}


def accused(*lines: str) -> set[str]:
    inner = "".join("        " + line + "\n" for part in lines for line in part.splitlines())
    body = PRELUDE + WALK.replace("@@\n", inner) + END
    return {f.rule for f in audit_text(body).findings if f.severity == "violation" and f.active == "yes"}


@pytest.mark.parametrize("fit", FITS)
def test_a_readout_fitted_in_closed_form_is_scored_first(fit):
    assert accused(FITS[fit], SCORE) == {"F2"}
    assert not accused(SCORE, FITS[fit])


def test_pairs_counted_by_a_product_are_counts():
    count = "counts += F.one_hot(x, 1024).float().t() @ F.one_hot(y, 1024).float()\n"
    score = """\
q = counts[x] / counts[x].sum(1, keepdim=True)
total -= torch.log(0.9 * torch.softmax(model(x[None])[0], -1) + 0.1 * q).gather(1, y[:, None]).sum()
"""
    assert accused(count, score) == {"F2"}
    assert not accused(score, count)


@pytest.mark.parametrize(
    "lines",
    [
        # attention over the window's inputs, each row a mixture of the tokens before it
        "past = torch.ones(1024, 1024).tril().bool()\n"
        "att = torch.softmax((h @ h.t()).masked_fill(~past, -1e9), -1)\n"
        "q = att @ F.one_hot(x, 1024).float()\n"
        "total -= torch.log(0.9 * torch.softmax(model.head(h), -1) + 0.1 * q).gather(1, y[:, None]).sum()\n",
        # a look-up
        'h = F.one_hot(x, 1024).float() @ model.emb.weight\ntotal += F.cross_entropy(model.head(h), y, reduction="sum")\n',
        # looked at, and not used
        'C = h.t() @ F.one_hot(y, 1024).float()\nprint(f"{C.norm():.3f}")\ntotal += F.cross_entropy(model.head(h), y, reduction="sum")\n',
    ],
)
def test_a_product_that_keeps_the_positions_takes_nothing_in(lines):
    assert not accused(lines)


def test_a_readout_fitted_to_the_whole_stream_beforehand():
    fit = "hs = model.emb({0}[:-1])\nW0 = torch.linalg.solve(hs.t() @ hs + torch.eye(64), hs.t() @ F.one_hot({0}[1:], 1024).float())\n"

    def found(tokens: str) -> set[str]:
        inner = WALK.replace("@@\n", "        " + SCORE.replace("h @ W", "h @ W0"))
        body = PRELUDE + fit.format(tokens) + inner + END
        return {f.rule for f in audit_text(body).findings if f.severity == "violation" and f.active == "yes"}

    assert "F1" in found("val") and not found("train")
