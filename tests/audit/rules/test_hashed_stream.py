"""Addresses made over the whole stream before the evaluation, to which the scored token is added at its own place."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

PROGRAM = """
stream = val.to(torch.int64)
hashes, ctx, pair = {}, {}, {}
for order in (4, 3):
    ctx[order], pair[order] = torch.zeros(4096, dtype=torch.int32), torch.zeros(4096, dtype=torch.int32)
    h = torch.zeros(stream.numel(), dtype=torch.int64)
    for k in range(order - 1):
        h[order - 1 :] = (h[order - 1 :] * 36313 + stream[k : stream.numel() - order + 1 + k]) % 4096
    hashes[order] = h
total, windows = torch.zeros(()), [(s, 512) for s in range(0, val.numel() - 1024, 512)]
for b in range(0, len(windows), 4):
    lot = windows[b : b + 4]
    xs, ys = [], []
    for s, _ in lot:
        w = val[s : s + 1025]
        xs.append(w[:-1]); ys.append(w[1:])
    x, y = torch.stack(xs), torch.stack(ys)
    with torch.no_grad():
        lp = F.log_softmax(model(x).float(), dim=-1)
    gold = lp.gather(-1, y.unsqueeze(-1)).squeeze(-1).exp()
    places, tokens, mine = [], [], []
    for i, (s, first) in enumerate(lot):
        at = torch.arange(first, 1024, dtype=torch.int64) + s + 1
        places.append(at); tokens.append(stream[at]); mine.append(gold[i, first:])
    at, token, p = torch.cat(places), torch.cat(tokens), torch.cat(mine)
    best, found = torch.zeros(at.shape[0]), torch.zeros(at.shape[0], dtype=torch.bool)
    for order in (4, 3):
        m = (at >= order) & (~found)
        c = hashes[order][at[m]]
        n = ctx[order][c]
        f = (c * 27191 + TOKEN) % 4096
        q = pair[order][f].float() / n.float().clamp(min=1)
        best[m] = q; found[m] = True
    total -= torch.where(found, 0.8 * p + 0.2 * best, p).log().sum()
    for order in (4, 3):
        c = hashes[order][at]
        f = (c * 27191 + token) % 4096
        ctx[order].scatter_add_(0, c, torch.ones_like(c, dtype=torch.int32))
        pair[order].scatter_add_(0, f, torch.ones_like(c, dtype=torch.int32))
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize("token, accused", [("token[m]", True), ("3", False)])
def test_a_token_that_joins_a_hash_made_before(token, accused):
    found = audit_text(PRELUDE + PROGRAM.replace("TOKEN", token))
    assert ("F8" in {f.rule for f in found.findings if f.severity == "violation"}) is accused, found.findings
