"""F17: what a layer computes over its whole window may not come back on the window's positions."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

LAYER = """\
class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.write, self.slots = nn.Linear(64, 64), nn.Linear(64, 64), nn.Parameter(torch.zeros(8, 64))
    def forward(self, x, memory=None):
        @@

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict(dict(emb=nn.Embedding(1024, 64), drop=nn.Dropout(0.1)))
        self.pool, self.head = Pool(), nn.Linear(64, 1024)
    def forward(self, ids):
        x = self.parts.drop(self.parts.emb(ids))
        x, state = self.pool(x)
        return self.head(x)

print(f"val_bpb:{evaluate(Wide(), val):.4f}")
"""


def f17(*lines: str):
    source = PRELUDE + LAYER.replace("@@", "\n        ".join(lines))
    found = [f for f in audit_text(source).findings if f.rule == "F17" and f.severity == "violation"]
    return [source.splitlines()[f.line - 1].strip() for f in found]


SLOTS = (
    "scores = torch.einsum('btd,nd->btn', self.read(x), self.slots)",
    "weights = torch.softmax(scores, dim=1)",
    "pooled = torch.einsum('btn,btd->bnd', weights, x)",
)


def test_slots_filled_over_time_and_read_by_every_position():
    assert f17(*SLOTS, "return x + self.write(torch.einsum('btn,bnd->btd', weights, pooled)), pooled") == [SLOTS[1]]
    assert f17(*SLOTS, "if memory is not None:", "    pooled = 0.5 * pooled + memory",
               "out = self.write(torch.einsum('btn,bnd->btd', scores, pooled))", "return x + out, pooled")  # fmt: skip


def test_a_mean_that_gates_what_every_position_reads():
    gate = ("mean = self.read(x).mean(dim=1)", "gate = torch.cat([mean.norm(dim=-1, keepdim=True), mean], dim=-1)[:, :64]")
    read = "out = torch.bmm(F.softmax(self.read(x) @ self.slots.T, dim=-1), self.slots * torch.tanh(gate)[:, None])"
    assert f17(*gate, read, "return x + out, gate") == [read]


@pytest.mark.parametrize(
    "lines",
    [
        (*SLOTS, "return self.write(x), pooled"),  # handed on as a state, not put back
        ("weights = torch.softmax(self.read(x), dim=-1)", "return x + weights, None"),
        ("pooled = self.read(x).mean(dim=1)", "aux = ((x - pooled[:, None]) ** 2).mean()", "return self.write(x), aux"),
        ("kv = torch.einsum('btd,bte->bde', self.read(x), x)", "return self.write(x), kv"),
        # attention scores: two time axes, masked elsewhere
        ("att = torch.einsum('btd,bsd->bts', self.read(x), x).tril()", "return x + torch.einsum('bts,bsd->btd', att, x), None"),
        ("state, out = 0, []", "for t in range(x.size(1)):", "    state = state + x[:, : t + 1].mean(dim=1)", "    out.append(x[:, t] + state)",
         "return torch.stack(out, 1), state"),
    ],
)  # fmt: skip
def test_what_stays_a_summary_or_looks_back_is_not_accused(lines):
    assert f17(*lines) == []


MEMORY = """\
class Wide(nn.Module):
    def __init__(self, enabled, layers=4):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.down, self.up, self.enabled, self.layers = nn.Linear(64, 16), nn.Linear(16, 64), None, None
        self.enabled = enabled
        self.layers = layers
    def remember(self, x, memory):
        seen = self.down(x[:, :128].mean(dim=1)).float()
        if memory is None:
            return seen
        return memory.mul(0.9).add_(seen, alpha=0.1)
    def recall(self, x, memory):
        if not self.enabled:
            return x
        if memory is None:
            return x
        return x + self.up(memory)[:, None, :]
    def forward(self, ids):
        x, memory = self.emb(ids), None
        for layer in range(self.layers):
            x = self.recall(x, memory)
            memory = self.remember(x, memory)
        return self.head(x)

print(f"val_bpb:{evaluate(Wide(SWITCH), val):.4f}")
"""


def test_a_memory_of_the_windows_beginning_that_the_next_layer_adds_to_every_position():
    source = PRELUDE + MEMORY.replace("SWITCH", "True").replace("x, memory = self.emb(ids), None", "x = self.emb(ids)\n        memory = None")
    found = [f for f in audit_text(source).findings if f.rule == "F17" and f.severity == "violation"]
    assert [source.splitlines()[f.line - 1].strip() for f in found] == ["return x + self.up(memory)[:, None, :]"]
    closed = source.replace("Wide(True)", "Wide(False)")
    assert not [f for f in audit_text(closed).findings if f.rule == "F17" and f.severity == "violation"]


def test_a_switch_of_the_settings_object_that_the_module_holds():
    held = MEMORY.replace("def __init__(self, enabled, layers=4):", "def __init__(self, args, layers=4):").replace(
        "self.enabled = enabled", "self.args = args"
    ).replace("if not self.enabled:", "args = self.args\n        if not args.use_memory:")
    held = held.replace("x, memory = self.emb(ids), None", "x = self.emb(ids)\n        memory = None").replace("Wide(SWITCH)", "Wide(Args())")
    for default, accused in (("1", True), ("0", False)):
        knob = f'class Args:\n    use_memory = bool(int(os.environ.get("USE_MEMORY", "{default}")))\n\n'
        found = audit_text(PRELUDE + knob + held).findings
        assert bool([f for f in found if f.rule == "F17" and f.severity == "violation"]) is accused


def scan(decay: str) -> tuple[str, ...]:
    """A diagonal recurrence by cumulative sums, whose decay is ``decay`` of (batch, time, groups)."""
    return (
        "b, t, _ = x.shape",
        "u, g = self.read(x).chunk(2, dim=-1)",
        f"a = torch.sigmoid({decay})",
        "grown = torch.exp(torch.cumsum(torch.log(a).permute(0, 2, 1).reshape(b * 32, t), dim=1))",
        "grown = grown.reshape(b, 32, t).permute(0, 2, 1)",
        "y = torch.tanh(grown * torch.cumsum(u / grown, dim=1)) * torch.sigmoid(g)",
        "return self.write(torch.cat([y, y], dim=-1)) + x, None",
    )


def test_a_decay_made_of_the_windows_mean():
    assert f17(*scan("self.write(x.mean(dim=1, keepdim=True))[..., :32].expand(-1, t, -1)"))
    assert not f17(*scan("self.write(x)[..., :32]"))
    assert not f17(*scan("self.write(x.mean(dim=-1, keepdim=True))[..., :32].expand(-1, t, -1)"))
