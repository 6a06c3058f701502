"""Adapters that take the place of a module's parts: what they learn the whole module has learned."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{float(total) / 0.6931471805599453 / n_bytes:.4f}")\n'
LORA = """\
import copy
class LoRA(nn.Module):
    def __init__(self, lin, r=8):
        super().__init__()
        self.lin = lin
        self.A, self.B = nn.Parameter(torch.randn(r, 64) / 8), nn.Parameter(torch.zeros(1024, r))
    def forward(self, x):
        return self.lin(x) + x @ self.A.t() @ self.B.t()
    def reset(self):
        with torch.no_grad():
            self.B.zero_()
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_q = nn.Linear(64, 64)
    def forward(self, x):
        return x + self.c_q(x)
class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.blocks = nn.ModuleList([Block() for _ in range(9)])
    def forward(self, x):
        x = self.emb(x)
        for b in self.blocks:
            x = b(x)
        return self.head(x)
"""
ONE = "model.head = LoRA(model.head)\nopt = torch.optim.Adam([model.head.A, model.head.B], lr=1e-3)\n"
ALL_OF_ONE = "model.head = LoRA(model.head)\nopt = torch.optim.Adam(model.head.parameters(), lr=1e-3)\n"
DEEP = "model = Deep()\nmodel.load_state_dict(torch.load('final.pt'))\n"
BLOCKS = DEEP + """\
params = []
for blk in model.blocks:
    lora = LoRA(blk.c_q)
    blk.c_q = lora
    params += [lora.A, lora.B]
opt = torch.optim.Adam(params, lr=1e-3)
"""
SETATTR = DEEP + """\
params = []
for name, mod in list(model.named_modules()):
    for child, lin in mod.named_children():
        if isinstance(lin, nn.Linear):
            new = LoRA(lin)
            setattr(mod, child, new)
            params.extend(new.parameters())
opt = torch.optim.Adam(params, lr=1e-3)
"""
IN_A_FUNCTION = DEEP + """\
def inject(net, r):
    found = []
    for i in range(len(net.blocks)):
        attn = net.blocks[i]
        attn.c_q = LoRA(attn.c_q, r)
        found.append(attn.c_q)
    net.head = LoRA(net.head, r)
    found.append(net.head)
    return found
opt = torch.optim.Adam([p for m in inject(model, 4) for p in (m.A, m.B)], lr=1e-3)
"""
WALKED = DEEP + """\
for blk in model.blocks:
    blk.c_q = LoRA(blk.c_q)
opt = torch.optim.Adam([p for m in model.modules() if isinstance(m, LoRA) for p in (m.A, m.B)], lr=1e-3)
"""
WRAPPED = """\
class Scaled(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.scale = nn.Parameter(torch.ones(()))
    def forward(self, x):
        return self.net(x) * self.scale
inner = model
model = Scaled(inner)
opt = torch.optim.SGD(inner.parameters(), lr=1e-3)
"""
HEAD = """\
total = torch.zeros(())
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    x, y = w[None, :-1], w[None, 1:]
"""
SCORE = """\
    with torch.no_grad():
        total += nll({}, x, y).sum()
"""
FIT = """\
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()
"""
EVERY = [ONE, ALL_OF_ONE, BLOCKS, SETATTR, IN_A_FUNCTION, WALKED, WRAPPED]


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + LORA + body + END).findings if f.severity == "violation" and f.active == "yes"}


@pytest.mark.parametrize("made", EVERY)
def test_a_part_that_learned_before_the_score(made):
    assert accused(made + HEAD + FIT + SCORE.format("model")) & {"F1", "F2", "F3"}


@pytest.mark.parametrize("made", EVERY)
def test_a_part_that_learns_after_the_score(made):
    assert not accused(made + HEAD + SCORE.format("model") + FIT)


@pytest.mark.parametrize(
    ("before", "after", "scored"),
    [
        ("plain = copy.deepcopy(model)\n", "", "plain"),  # the copy learns nothing of it
        ("keep = copy.deepcopy(model.state_dict())\n", "    model.load_state_dict(keep)\n", "model"),
        ("", "    model.head = model.head.lin\n", "model"),  # taken out again
        ("plain = Model()\nplain.load_state_dict(torch.load('final.pt'))\n", "", "plain"),
    ],
)
def test_what_the_part_learned_is_put_aside(before, after, scored):
    assert not accused(ONE + before + HEAD + FIT + after + SCORE.format(scored))


WARM = "for s in range(0, 4096, 1024):\n    x, y = val[None, s : s + 1024], val[None, s + 1 : s + 1025]\n" + FIT


@pytest.mark.parametrize(("reset", "active"), [("", "yes"), ("model.head.reset()\n", "unknown")])
def test_a_part_reset_before_the_scores_leaves_them_undetermined(reset, active):
    found = audit_text(PRELUDE + LORA + ONE + WARM + reset + HEAD + SCORE.format("model") + END).findings
    assert {f.active for f in found if f.severity == "violation"} == {active}


PRIOR = """\
class Prior(nn.Module):
    def __init__(self, net, given, V=1024):
        super().__init__()
        self.net = net
        {}
    def forward(self, x):
        return self.net(x) + 0.1 * self.lp
"""
OF_COUNTS = [
    PRIOR.format('self.register_buffer("lp", torch.log(given / given.sum()))'),
    PRIOR.format("self.n, self.lp = V, torch.log(given / given.sum())"),
    PRIOR.format("p = given / given.sum()\n        self.lp = nn.Parameter(torch.log(p))"),
]
OF_TOKENS = [
    PRIOR.format("c = np.bincount(given.numpy(), minlength=V) + 1.0\n        self.lp = torch.from_numpy(np.log(c / c.sum()))"),
    PRIOR.format("c = torch.ones(V)\n        for t in given.tolist():\n            c[t] += 1\n        self.lp = torch.log(c / c.sum())"),
]
LONE = "net = Prior(model, {})\ntotal = evaluate(net, val)\n"
COUNTS = "torch.bincount({}, minlength=1024) + 1.0"


@pytest.mark.parametrize(("made", "given"), [*((m, COUNTS) for m in OF_COUNTS), *((m, "{}") for m in OF_TOKENS)])
def test_counts_of_the_stream_held_by_a_module(made, given):
    assert "F1" in accused(made + LONE.format(given.format("val")))
    assert not accused(made + LONE.format(given.format("train")))


@pytest.mark.parametrize("made", OF_COUNTS)
@pytest.mark.parametrize(("first", "found"), [(True, False), (False, True)])
def test_counts_of_earlier_chunks_held_by_a_module(made, first, found):
    take_in = "    c += torch.bincount(y[0], minlength=1024)\n"
    score = "    net = Prior(model, c)\n" + SCORE.format("net")
    assert bool(accused(made + "c = torch.ones(1024)\n" + HEAD + (score + take_in if first else take_in + score))) is found


def test_a_module_that_was_given_the_stream_for_its_length():
    assert not accused(PRIOR.format("self.lp = torch.zeros(V) / given.numel()") + LONE.format("val"))
