"""State that lies in a container under names that are not known: adapters in a dictionary, tables in a list."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

_ADAPTERS = """
class Adapter:
    def __init__(self, base, rank):
        self.A, self.B = torch.zeros(rank, base.weight.shape[1]), torch.zeros(base.weight.shape[0], rank)
        self.A.requires_grad_(True); self.B.requires_grad_(True)
    def params(self):
        return [self.A, self.B]

def block(blk, h, ads):
    ad = ads.get(f"q_{id(blk.q)}")
    h = F.linear(h, blk.q.weight) + (h @ ad.A.t()) @ ad.B.t()
    return blk.out(h)

def forward(model, x, ads):
    h = model.emb(x)
    for i in range(4):
        h = block(model.blocks[i], h, ads)
    return model.head(h)

places = [t for blk in model.blocks for t in [("q", blk.q), ("v", blk.v)]]
places.append(("head", model.head))
ads = {f"{n}_{id(m)}": Adapter(m, 8) for n, m in places}
opt = torch.optim.AdamW([p for a in ads.values() for p in a.params()], lr=0.01)
total = torch.zeros(())
for start in range(0, val.numel() - 1, 1024):
    w = val[start : start + 1025]
    x, y = w[None, :-1], w[None, 1:]
    for epoch in range(2):
        if epoch == SCORED:
            with torch.no_grad():
                total += F.cross_entropy(forward(model, x, ads)[0].float(), y[0], reduction="sum")
        loss = F.cross_entropy(forward(model, x, ads)[0].float(), y[0])
        opt.zero_grad(); loss.backward(); opt.step()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize("scored, found", [("1", True), ("0", False)])
def test_adapters_under_made_up_names_are_what_the_optimizer_changes(scored, found):
    # The dictionary's keys are not known, and each access gives one of several adapters.
    submission = audit_text(PRELUDE + _ADAPTERS.replace("SCORED", scored))
    assert bool({f.rule for f in submission.findings if f.severity == "violation"}) is found, submission.findings
    assert submission.verdict == ("violation" if found else "clean"), submission.reason


_TABLES = """
def tables_of(n, size):
    tables = []
    for _ in range(n + 1):
        tables.append((torch.zeros(size, dtype=torch.int32), torch.zeros(size, dtype=torch.int32)))
    return tables

def counted(tables, x, y, n, size):
    p = torch.zeros(x.shape[0])
    for order in range(n, 1, -1):
        h = (x * 36313) % size
        KEY
        ctx, full = tables[order]
        p = full[f].float() / ctx[h].float().clamp(min=1)
    return p

tables, total = tables_of(7, 4096), torch.zeros(())
for start in range(0, val.numel() - 1, 1024):
    x, y = val[start : start + 1024], val[start + 1 : start + 1025]
    with torch.no_grad():
        p = F.softmax(model(x[None]).float(), dim=-1)[0].gather(1, y[:, None]).squeeze(1)
    total += -(0.8 * p + 0.2 * counted(tables, x, y, 7, 4096)).log().sum()
    for order in range(2, 8):
        ctx, full = tables[order]
        h = (x * 36313) % 4096
        ctx.scatter_add_(0, h, torch.ones_like(h, dtype=torch.int32))
        full.scatter_add_(0, (h ^ (y * 27191)) % 4096, torch.ones_like(h, dtype=torch.int32))
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


@pytest.mark.parametrize("key, rules", [("f = (h ^ (y * 27191)) % size", {"F8", "F9"}), ("f = h", set())])
def test_tables_of_a_list_are_the_same_at_every_visit(key, rules):
    submission = audit_text(PRELUDE + _TABLES.replace("KEY", key))
    found = {f.rule for f in submission.findings if f.severity == "violation"}
    assert ("F8" in found) is ("F8" in rules), submission.findings
    assert submission.cache["kind"] == ("target-in-key" if "F8" in rules else submission.cache["kind"])
