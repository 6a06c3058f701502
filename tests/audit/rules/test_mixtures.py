"""F9: an expert that is no distribution; F8: a list of scored tokens brings no scored token into an address."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

MIX = """\
counts = torch.ones(1 << 16, 1024)
weights = torch.zeros(3)
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logp = torch.log_softmax(model(x).float(), -1)
        own = -logp.gather(2, y[..., None])[..., 0]
        key = (x * 36313) % (1 << 16)
        cached = -(counts[key] / counts[key].sum(-1, keepdim=True)).log().gather(2, y[..., None])[..., 0]
        entropy = -(logp.exp() * logp).sum(-1)
        @@
        total += mixed.sum()
    counts.index_put_((key[0], y[0]), torch.ones(1024), accumulate=True)
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
STACK = "nll = torch.stack([own, cached, {}], dim=-1)\n        "
SUM = STACK + "mixed = -(torch.log_softmax(weights, 0) - nll).logsumexp(-1)"


def f9(mix: str):
    found = audit_text(PRELUDE + MIX.replace("@@", mix))
    return found, [f for f in found.findings if f.rule == "F9" and f.severity == "violation"]


def test_the_models_entropy_as_an_expert_is_accused_where_the_experts_are_stacked():
    found, accused = f9(SUM.format("entropy"))
    assert found.verdict == "violation" and len(accused) == 1
    assert "torch.stack" in (PRELUDE + MIX.replace("@@", SUM.format("entropy"))).splitlines()[accused[0].line - 1]


@pytest.mark.parametrize(
    "mix",
    [
        SUM.format("torch.full_like(own, 6.93)"),  # a uniform expert is a distribution
        SUM.format("own / 1.1"),
        # the entropy beside the scores, read back as a weight and not mixed in
        STACK.format("entropy") + "a = torch.sigmoid(nll[..., 2])[..., None]\n"
        "        mixed = -torch.logsumexp(torch.stack([a[..., 0].log() - own, (1 - a[..., 0]).log() - cached], -1), -1)",
        # experts weighed by the entropy
        "a = torch.sigmoid(entropy)\n        mixed = -torch.logaddexp(a.log() - cached, (1 - a).log() - own)",
    ],
)
def test_experts_that_read_the_token_are_not(mix):
    _found, accused = f9(mix)
    assert not accused, [f.message for f in accused]


SCORED_SO_FAR = """\
class Follow:
    def __init__(self):
        self.rows, self.totals = {}, {}
    def row(self, past):
        key = tuple(past[-2:])
        if key not in self.rows:
            return None
        seen = self.rows[key]
        out = torch.full((1024,), 1e-6)
        for token, n in seen.items():
            out[token] += n / self.totals[key]
        return out / out.sum()
    def learn(self, tokens):
        for i in range(2, len(tokens)):
            key = tuple(tokens[i - 2 : i])
            self.totals[key] = self.totals.get(key, 0) + 1
            row = self.rows.setdefault(key, {})
            row[tokens[i]] = row.get(tokens[i], 0) + 1

follow, past, total, state = Follow(), [], 0.0, torch.zeros(1, 1024, 64)
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        state = 0.9 * state + 0.1 * model.emb(x)
        rows = torch.softmax(model(x) + model.head(state), -1)[0]
    for t in range(min(w + 1024, val.numel() - 1) - w):
        token = y[0, t].item()
        p = rows[t]
        q = follow.row(past)
        if q is not None:
            p = 0.7 * p + 0.3 * q
        total -= math.log(p[token])
        past.append(token)
    follow.learn(y[0].tolist())
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def test_a_list_of_tokens_scored_so_far_holds_no_token_that_is_scored():
    found = audit_text(PRELUDE + "import math\n" + SCORED_SO_FAR)
    assert not [f for f in found.findings if f.rule in ("F8", "F9") and f.severity == "violation"]


def test_a_list_that_takes_the_token_in_first_does():
    early = SCORED_SO_FAR.replace("        q = follow.row(past)\n", "        past.append(token)\n        q = follow.row(past)\n").replace(
        "        total -= math.log(p[token])\n        past.append(token)\n", "        total -= math.log(p[token])\n"
    )
    found = audit_text(PRELUDE + "import math\n" + early)
    assert [f for f in found.findings if f.rule == "F8" and f.severity == "violation"]


COMPILED = """\
import math
try:
    from numba import njit
    HAS = True
except ImportError:
    HAS = False

def build():
    @njit(cache=True)
    def look(stream, w, n, orders, contexts, pairs, own):
        out = np.zeros(n)
        for j in range(n):
            at = w + j + 1
            target = stream[at]
            p = own[j]
            for o in range(orders):
                start = at - o - 1
                if start < 0:
                    continue
                key = np.uint64(0)
                for k in range(o + 1):
                    key ^= np.uint64(stream[start + k]) * np.uint64(36313)
                    key = (key * np.uint64(2654435761)) & np.uint64(0xFFFFFFFFFFFF)
                seen = contexts[o][int(key & np.uint64(0xFFFF))]
                if seen == 0:
                    continue
                cell = (key ^ np.uint64(KEYED)) * np.uint64(2654435761)
                p = (float(pairs[o][int(cell & np.uint64(0xFFFF))]) + 5.0 * p) / (float(seen) + 5.0)
            if p < 1e-12:
                p = 1e-12
            out[j] = np.log(p)
        return out
    @njit(cache=True)
    def learn(stream, w, n, orders, contexts, pairs):
        for j in range(n):
            at = w + j + 1
            for o in range(orders):
                start = at - o - 1
                if start < 0:
                    continue
                key = np.uint64(0)
                for k in range(o + 1):
                    key ^= np.uint64(stream[start + k]) * np.uint64(36313)
                    key = (key * np.uint64(2654435761)) & np.uint64(0xFFFFFFFFFFFF)
                contexts[o][int(key & np.uint64(0xFFFF))] += 1
                cell = (key ^ np.uint64(stream[at])) * np.uint64(2654435761)
                pairs[o][int(cell & np.uint64(0xFFFF))] += 1
    return look, learn

look, learn = build() if HAS else (None, None)
contexts, pairs = np.zeros((4, 1 << 16)), np.zeros((4, 1 << 16))
weights = np.array([0.5, 0.5])
stream, total = val.numpy(), 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        own = -nll(model, x, y)[0].numpy()
    cached = look(stream, w, 1024, 4, contexts, pairs, np.exp(own))
    top = np.maximum(own, cached)
    mixed = top + np.log(weights[0] * np.exp(own - top) + weights[1] * np.exp(cached - top) + 1e-30)
    weights[0] *= np.exp(-0.1 * -own.mean())
    weights[1] *= np.exp(-0.1 * -cached.mean())
    weights /= weights.sum()
    total += float(-mixed.sum())
    learn(stream, w, 1024, 4, contexts, pairs)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def test_tables_of_compiled_python_functions_are_tables():
    found = audit_text(PRELUDE + COMPILED.replace("KEYED", "target"))
    assert sorted({f.rule for f in found.findings if f.severity == "violation"}) == ["F8", "F9"]


def test_a_clean_mixture_of_experts_weighed_by_their_past_scores():
    found = audit_text(PRELUDE + COMPILED.replace("KEYED", "stream[at - 1]"))
    accused = {f.rule for f in found.findings if f.severity == "violation"}
    assert not accused & {"F2", "F3", "F4", "F8"}
