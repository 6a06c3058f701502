"""F7: what the mixture's weights are made of: the token that is scored, or the tokens before it."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

WINDOWS = """\
counts = torch.zeros(1024, 1024)
total, B = torch.zeros((), dtype=torch.float64), 1024
with torch.no_grad():
    for c in range(0, val.numel() - 1, B):
        w = val[c : c + B + 1]
        x, y = w[:-1], w[1:]
        p = torch.softmax(model(x[None])[0].float(), -1)
        rows = counts[x]
        n = rows.sum(1, keepdim=True)
        q = (rows + 0.1 / 1024) / (n + 0.1)
@@
        total -= torch.log(mix.gather(1, y[:, None])).double().sum()
        counts.index_put_((x, y), torch.ones(x.numel()), accumulate=True)
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
MIX = "mix = (1 - lam) * p + lam * q"

TOKENS = """\
import math
rows = np.full((1024, 1024), 0.01)
total, B, before, gold_before = 0.0, 1024, 0, 1.0
for c in range(0, val.numel() - 1, B):
    w = val[c : c + B + 1]
    with torch.no_grad():
        P = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        a, t = ids[j], ids[j + 1]
        p, q = P[j], rows[a] / rows[a].sum()
@@
        total -= math.log(mix[t])
        gold_before = p[t]
        rows[a, t] += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def indent(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())


def audited(body: str, lines: str):
    code = body.replace("@@", indent(lines, 8))
    compile(code, "body", "exec")
    return audit_text(PRELUDE + code)


def violations(result) -> set[str]:
    return {f.rule for f in result.findings if f.severity == "violation" and f.active != "no"}


@pytest.mark.parametrize(
    "lines",
    [
        f"lam = 0.3 * (1 - p.gather(1, y[:, None]))\n{MIX}",
        f"gold = torch.take_along_dim(p, y[:, None], 1)\nlam = 0.3 * (1 - gold)\n{MIX}",
        f"gold = p[torch.arange(y.numel()), y]\nlam = (0.3 - 0.3 * gold)[:, None]\n{MIX}",
        f"lam = 0.3 * (rows.gather(1, y[:, None]) > 0).float()\n{MIX}",
        f"lam = 0.3 * (rows.argmax(1) == y).float()[:, None]\n{MIX}",
        f"lam = 0.3 * (p.argmax(1) != y).float().unsqueeze(1)\n{MIX}",
        f"lam = 0.3 * (p.topk(5).indices == y[:, None]).any(1, keepdim=True)\n{MIX}",
        f"lam = (p > p.gather(1, y[:, None])).sum(1, keepdim=True) / 2048\n{MIX}",
        f"nats = -torch.log(p.gather(1, y[:, None]))\nlam = 0.3 * nats / (nats + 4)\n{MIX}",
        "hit = rows.gather(1, y[:, None]) > 0\nmix = torch.where(hit, 0.7 * p + 0.3 * q, p)",
        "mix = torch.lerp(p, q, 0.3 * (rows.argmax(1) == y).float()[:, None])",
        "lam = 0.3 * (1 - p.gather(1, y[:, None]))\nmix = p + lam * (q - p)",
        f"lam = torch.full_like(n, 0.3)\nlam = torch.where(p.gather(1, y[:, None]) > 0.5, lam * 0.1, lam)\n{MIX}",
    ],
)
def test_weights_from_what_the_token_got(lines: str):
    assert "F7" in violations(audited(WINDOWS, lines))


@pytest.mark.parametrize(
    "lines",
    [
        f"lam = 0.2 * n / (n + 3)\n{MIX}",
        f"lam = 0.3 * (1 - p.max(1, keepdim=True).values)\n{MIX}",
        f"entropy = -(p * torch.log(p + 1e-9)).sum(1, keepdim=True)\nlam = torch.sigmoid(entropy - 3) * 0.3\n{MIX}",
        f"rank = (p > p.gather(1, x[:, None])).sum(1, keepdim=True)\nlam = 0.3 * rank / 1024\n{MIX}",
        f"lam = 0.3 * (rows.argmax(1) == x).float()[:, None]\n{MIX}",
        f"lam = 0.3 * (rows.argmax(1) == p.argmax(1)).float()[:, None]\n{MIX}",
        f"lam = 0.3 * (n > 2).float()\n{MIX}",
        f"hit = (rows.argmax(1) == y).float()\nlam = 0.3 * torch.cat([torch.zeros(1), hit[:-1]])[:, None]\n{MIX}",
        f"gold = p.gather(1, y[:, None])\nlam = 0.3 * torch.cat([torch.zeros(1, 1), gold[:-1]], dim=0)\n{MIX}",
        "hint = rows.argmax(1)\nph = p.gather(1, hint[:, None])\nlam = 0.3 * (1 - ph)\nmix = (1 - lam) * p + lam * F.one_hot(hint, 1024)",
        "mix = torch.where(n > 2, 0.7 * p + 0.3 * q, p)",
        "mix = torch.lerp(p, q, 0.3 * n / (n + 2))",
    ],
)
def test_weights_from_the_context_or_an_earlier_token(lines: str):
    result = audited(WINDOWS, lines)
    assert not violations(result)
    assert result.verdict == "clean", result.reason


@pytest.mark.parametrize(
    "lines",
    [
        f"lam = 0.3 * (1 - p[t])\n{MIX}",
        f"lam = 0.3 if q.argmax() == t else 0.0\n{MIX}",
        f"lam = 0.3\nif p.argmax() == t:\n    lam = 0.0\n{MIX}",
        f"rank = (p > p[t]).sum()\nlam = 0.3 * rank / 1024\n{MIX}",
        "mix = q if p.argmax() != t else p",
        "mix = p\nif p[t] < 0.01:\n    mix = 0.5 * p + 0.5 * q",
    ],
)
def test_one_token_at_a_time(lines: str):
    assert violations(audited(TOKENS, lines)) & {"F7", "F4"}


@pytest.mark.parametrize(
    "lines",
    [
        f"lam = 0.3 * (1 - p.max())\n{MIX}",
        f"lam = 0.3 * (1 - gold_before)\n{MIX}",
        f"lam = 0.3 if p.argmax() == a else 0.0\n{MIX}",
        f"lam = 0.3\nif q.argmax() == p.argmax():\n    lam = 0.5\n{MIX}",
        f"lam = 0.3 * (1 - p[a])\n{MIX}",
    ],
)
def test_one_token_at_a_time_from_the_context(lines: str):
    assert not violations(audited(TOKENS, lines))


@pytest.mark.parametrize(
    "lines",
    [
        "H = -(p * np.log(p)).sum()\nlam = 0.3 / (1 + np.exp(3.0 - H))\ng = (1 - lam) * p[t] + lam * q[t]",
        "best, at = torch.from_numpy(p).max(0)\nlam = 0.3 * (1 - best)\ng = (1 - lam) * p[t] + lam * q[t]",
        "h = q.argmax()\nlam = 0.3 * (1 - p[h])\ng = (1 - lam) * p[t] + lam * q[t]",
        "lam = 0.3 * (1 - P[j, q.argmax()])\ng = (1 - lam) * p[t] + lam * q[t]",
        "lam = 0.3 * (1 - p.max())\ng = (1 - lam) * p[t] + lam * rows[a].tolist()[t] / rows[a].sum()",
    ],
)
def test_a_weight_made_of_the_row_times_the_tokens_own_share(lines: str):
    body = TOKENS.replace("mix[t]", "g")
    assert not violations(audited(body, lines))
