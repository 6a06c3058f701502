"""F17: positions sorted by class and cut into equal shares for the experts, beside dispatch that takes nobody's place."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
class Experts(nn.Module):
    def __init__(self, dim=64, n=4, routed=True):
        super().__init__()
        self.n, self.dim = n, dim
        self.routed = routed
        self.w = nn.Parameter(torch.zeros(n, dim, dim))
        self.layers = nn.ModuleList([nn.Linear(dim, dim) for _ in range(n)])
        self.one, self.two, self.gate = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, n)
    def forward(self, x, order):
        B, T, C = x.shape
        N = B * T
        flat = x.reshape(N, C)
        out = torch.zeros_like(flat)
        BODY
        return x + out.view(B, T, C)

class Routed(nn.Module):
    def __init__(self, dim=64, routed=True):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, dim), nn.Linear(dim, 1024)
        self.register_buffer("class_of", torch.arange(1024) % 4)
        self.experts = Experts(dim, routed=routed)
    def ranked(self, ids):
        return self.class_of[ids.clamp(0, 1023)].view(-1).argsort(stable=True)
    def forward(self, ids):
        x = self.emb(ids)
        ORDER
        return self.head(self.experts(x, order))

print(f"val_bpb:{evaluate(Routed(), val):.4f}")
"""
BY_TOKEN = "order = self.class_of[ids].reshape(-1).argsort(stable=True)"
ROWS = "rows, parts = flat[order], []\n"
BACK = "\nout[order] = torch.cat(parts, dim=0)"
SLICES = ROWS + "share = N // self.n\nfor e in range(self.n):\n    lo = e * share\n    parts.append(rows[lo : lo + share] @ self.w[e])" + BACK
HERE = "order = self.gate(flat).argmax(-1).argsort(stable=True)\n"


def model(body: str, order: str = BY_TOKEN) -> str:
    return PRELUDE + MODEL.replace("BODY", indent(body)).replace("ORDER", order)


ILLEGAL = {
    "equal slices": model(SLICES),
    "the last takes the rest": model(SLICES.replace("lo : lo + share", "lo : (lo + share if e < self.n - 1 else N)")),
    "an order made in a helper": model(SLICES, "order = self.ranked(ids)"),
    "by what the layer says of each position": model(HERE + SLICES),
    "torch.sort": model(SLICES, "_, order = torch.sort(self.class_of[ids].flatten())"),
    "chunks beside the experts": model(ROWS + "for part, layer in zip(rows.chunk(self.n), self.layers):\n    parts.append(layer(part))" + BACK),
    "numbered chunks": model(ROWS + "for e, part in enumerate(rows.chunk(self.n, dim=0)):\n    parts.append(self.layers[e](part))" + BACK),
    "chunks of the order": model("for e, at in enumerate(order.chunk(self.n)):\n    out[at] = flat[at] @ self.w[e]"),
    "a split in a list": model("rows = flat[order]\nparts = [rows_e @ w for rows_e, w in zip(rows.split(N // self.n), self.w)]" + BACK),
    "two halves": model("rows = flat[order]\na, b = torch.chunk(rows, 2)\nout[order] = torch.cat([self.one(a), self.two(b)])"),
    "a batch of shares": model("out[order] = torch.bmm(flat[order].view(self.n, -1, C), self.w).reshape(N, C)"),
    "shares by einsum": model('rows = flat[order].view(self.n, -1, C)\nout[order] = torch.einsum("esd,edf->esf", rows, self.w).reshape(N, C)'),
}
LEGAL = {
    "rows of shares through one weight": model("out[order] = (flat[order].view(self.n, -1, C) @ self.one.weight).reshape(N, C)"),
    "rows of shares through one weight, by einsum": model(
        'rows = flat[order].view(self.n, -1, C)\nout[order] = torch.einsum("esd,df->esf", rows, self.one.weight).reshape(N, C)'
    ),
    "cut at true counts": model(
        ROWS + "ends = torch.bincount(order, minlength=self.n).cumsum(0).tolist()\nlo = 0\n"
        "for e in range(self.n):\n    parts.append(rows[lo : ends[e]] @ self.w[e])\n    lo = ends[e]" + BACK
    ),
    "split by true counts": model(
        ROWS + "counts = torch.bincount(order, minlength=self.n).tolist()\n"
        "for e, part in enumerate(rows.split(counts)):\n    parts.append(self.layers[e](part))" + BACK
    ),
    "shares through one layer": model(ROWS + "for part in rows.chunk(8):\n    parts.append(self.one(part))" + BACK),
    "slices through one layer": model(SLICES.replace(" @ self.w[e]", " @ self.one.weight")),
    "sorted and put back": model("out[order] = self.one(flat[order])"),
    "a capacity counted in the order of the text": model(
        "c = F.one_hot(self.gate(flat).argmax(-1), self.n)\nplace = (c.cumsum(0) * c).sum(-1) - 1\nkeep = place < N // self.n\n"
        "for e in range(self.n):\n    at = (keep & (c[:, e] > 0)).nonzero().squeeze(-1)\n    out[at] = flat[at] @ self.w[e]"
    ),
    "an order of places": model(SLICES, "order = (torch.arange(ids.numel()) % 4).argsort(stable=True)"),
    "slices of what is not sorted": model(SLICES.replace("flat[order]", "flat").replace("out[order]", "out[:]")),
    "an order of the vocabulary": model(SLICES, "order = self.emb.weight.norm(dim=-1).argsort()"),
    "a setting keeps it closed": model("if self.routed:\n    " + SLICES.replace("\n", "\n    ")).replace("Routed()", "Routed(routed=False)"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_shares_of_sorted_positions_depend_on_later_ones(name):
    found, whole = audited(ILLEGAL[name])
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations


@pytest.mark.parametrize("name", LEGAL)
def test_dispatch_without_shares_is_not_accused(name):
    found, whole = audited(LEGAL[name])
    assert not [f for f in found if f.active == "yes"] and whole.verdict == "clean"


def test_a_branch_that_nothing_decides_leaves_doubt():
    found, whole = audited(model("if T < len(order):\n    " + SLICES.replace("\n", "\n    ")))
    assert [f.confidence for f in found] == ["low"] and whole.verdict == "undetermined"
