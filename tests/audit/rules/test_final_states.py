"""F17: the state that a run over the window ends with, put back on its positions, beside states that are only kept."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
class Belief(nn.Module):
    def __init__(self, dim=64, width=32):
        super().__init__()
        self.width = width
        self.inner, self.gate = nn.Linear(dim, width), nn.Linear(2 * width, width)
        self.cell = nn.GRUCell(width, width)
    def forward(self, x, state=None):
        B, T, C = x.shape
        h = self.inner(x)
        outs = []
        RUN

class Pieces(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.of_bytes, self.cell = nn.Embedding(256, width), nn.GRUCell(width, width)
    def forward(self, pieces):
        e = self.of_bytes(pieces)
        h = torch.zeros(e.size(0), 32)
        for j in range(e.size(1)):
            h = self.cell(e[:, j], h)
        return h

class Deep(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.emb, self.head, self.pairs = nn.Embedding(1024, dim), nn.Linear(dim, 1024), nn.Embedding(4096, dim)
        self.gru, self.back, self.wide = nn.GRU(dim, 32, batch_first=True), nn.Linear(32, dim), nn.Linear(dim, dim)
        self.lstm, self.old = nn.LSTM(dim, dim, batch_first=True), nn.GRU(dim, dim)
        self.belief, self.pieces = Belief(dim), Pieces()
        self.bytes_of = torch.zeros(1024, 16, dtype=torch.long)
    def forward(self, ids, memory=None):
        B, T = ids.shape
        x = self.emb(ids)
        BODY
        return self.head(x)

print(f"val_bpb:{evaluate(Deep(), val):.4f}")
"""
RUN = """\
b = torch.zeros(B, self.width)
for t in range(T):
    g = torch.sigmoid(self.gate(torch.cat([b, h[:, t, :]], dim=-1)))
    b = (1 - g) * b + g * h[:, t, :]
return b"""
STACKED = RUN.replace("return b", "    outs.append(b)\nreturn torch.stack(outs, dim=1)")
PUT = "x = x + self.back(self.belief(x)).unsqueeze(1)"
HASH = "prev = torch.roll(ids, 1, dims=1)\npair = (ids * 31 + prev) % 4096\n"


def model(body: str, run: str = RUN) -> str:
    return PRELUDE + MODEL.replace("RUN", indent(run)).replace("BODY", indent(body))


ILLEGAL = {
    "a layer's last state": model(PUT),
    "from the first position on": model(PUT, RUN.replace("torch.zeros(B, self.width)", "torch.zeros_like(h[:, 0])")),
    "a cell of the library": model(PUT, "b = h.new_zeros((B, self.width))\nfor t in range(x.size(1)):\n    b = self.cell(h[:, t], b)\nreturn b"),
    "from the end": model(PUT, RUN.replace("range(T)", "range(T - 1, -1, -1)")),
    "a sum over all positions": model(PUT, RUN[: RUN.index("\nfor")] + "\nfor t in range(T):\n    b += h[:, t]\nreturn b"),
    "joined to every position": model(
        "s = self.belief(x)[:, None].expand(-1, T, -1)\nx = self.wide(torch.cat([x, s], dim=-1))",
    ),
    "in the same method": model(
        "b = torch.zeros(B, 64)\nfor t in range(T):\n    b = 0.9 * b + 0.1 * x[:, t]\nx = x * torch.sigmoid(self.wide(b))[:, None, :]"
    ),
    "a pool of another layer": model(PUT, "return h.mean(dim=1)"),
    "the library's last state": model("out, last = self.gru(x)\nx = x + self.back(last[-1]).unsqueeze(1)"),
    "the library's last state at once": model("x = x + self.back(self.gru(x)[1].transpose(0, 1))"),
    "the library's last state, of a pair": model("run = self.gru(x)\nx = x + self.back(run[1][-1])[:, None]"),
    "the library's last state, of the cell": model("out, (h, c) = self.lstm(x)\nx = x + torch.tanh(c).transpose(0, 1)"),
    "the library's last state, of the cell at once": model("x = x * torch.sigmoid(self.lstm(x)[1][0].transpose(0, 1))"),
    "the library's states at the last position": model("out, _ = self.gru(x)\nx = x + self.back(out[:, -1:])"),
    "the library's states at the last position at once": model("x = x + self.lstm(x)[0][:, -1, None]"),
    "the library's states at the last position, spread": model("out = self.lstm(x)[0]\nx = x + out[:, -1].unsqueeze(1).expand(-1, T, -1)"),
    "the library's last state, time first": model("x = x + self.old(x.transpose(0, 1))[1].transpose(0, 1)"),
    "the library's last state before the first position": model("x = torch.cat([self.lstm(x)[0][:, -1:], x], dim=1)[:, :-1]\nx = self.wide(x)"),
    "the last token before the first": model(HASH + "x = x + torch.sigmoid(self.wide(x)) * self.pairs(pair)"),
    "the last token before the first, looked up at once": model("x = self.wide(x + 0.5 * self.pairs(ids.roll(1, -1)))"),
}
LEGAL = {
    "a running state": model("x = x + self.back(self.belief(x))", STACKED),
    "a running state with the last one beside it": model(
        "out, last = self.belief(x)\nself.kept = last\nx = x + self.back(out)", STACKED.replace("dim=1)", "dim=1), b")
    ),
    "written position by position": model(
        "x = x + self.back(self.belief(x))",
        "out = torch.zeros(B, T, self.width)\nb = torch.zeros(B, self.width)\nfor t in range(T):\n    b = self.cell(h[:, t], b)\n    out[:, t] = b\nreturn out",
    ),
    "a sequence that grows": model(
        "x = x + self.back(self.belief(x))",
        "b = h.new_zeros(B, 0, self.width)\nfor t in range(T):\n    b = torch.cat([b, self.cell(h[:, t])[:, None]], dim=1)\nreturn b",
    ),
    "summed up where they stand": model(
        "x = x + self.back(self.belief(x))", "b = torch.zeros_like(h)\nfor t in range(T):\n    b = b + h[:, t, None] * (torch.arange(T) == t)[None, :, None]\nreturn b"
    ),
    "for the next window": model("if memory is not None:\n    x = x + memory[:, None]\nself.kept = self.back(self.belief(x)).detach()"),
    "of an earlier text": model("s = self.belief(self.emb(memory))\nx = x + self.back(s)[:, None]"),
    "of an earlier text, by the library": model("out, last = self.gru(self.emb(memory))\nx = x + self.back(last[-1])[:, None]"),
    "of an earlier text, summed here": model(
        "e = self.emb(memory)\nb = torch.zeros(B, 64)\nfor t in range(e.size(1)):\n    b = 0.9 * b + 0.1 * e[:, t]\nx = x + b[:, None]"
    ),
    "for the last position": model("x[:, -1] = x[:, -1] + self.back(self.belief(x))"),
    "for the last position, joined": model("s = self.back(self.belief(x))\nx = torch.cat([x[:, :-1], x[:, -1:] + s[:, None]], dim=1)"),
    "for a loss": model("self.extra = self.belief(x).square().mean()"),
    "over the bytes of each token": model("s = self.pieces(self.bytes_of[ids].reshape(B * T, 16))\nx = x + self.back(s.view(B, T, -1))"),
    "the means of earlier patches": model(
        "p = self.emb(ids.view(-1, 8)).mean(dim=1).view(B, T // 8, -1)\np = F.pad(p, (0, 0, 1, -1)).repeat_interleave(8, dim=1)\nx = x + p"
    ),
    "the library's running states": model("out, last = self.gru(x)\nself.kept = last\nx = x + self.back(out)"),
    "the library's running states at once": model("x = x + self.back(self.gru(x)[0])"),
    "the library's running states, of a pair": model("run = self.gru(x)\nx = x + self.back(run[0])"),
    "the library's running states, of the cell": model("out, (h, c) = self.lstm(x)\nself.kept = c\nx = x + out"),
    "the library's running states, time first": model("x = x + self.old(x.transpose(0, 1))[0].transpose(0, 1)"),
    "the library's state after the first position": model("x = x + self.lstm(x[:, :1])[1][0].transpose(0, 1)"),
    "the library's last state for the last position": model("x[:, -1] = x[:, -1] + self.lstm(x)[1][0][-1]"),
    "the library's last state behind the last position": model("x = torch.cat([x, self.lstm(x)[0][:, -1:]], dim=1)[:, :-1]"),
    "the library's last state over the batch": model("x = x + self.old(x)[0]"),
    "a name that held a pair": model("run = self.gru(x)\nrun = [x, x.cumsum(1)]\nx = x + run[1]"),
    "the states moved on": model("out = self.lstm(x)[0]\nx = x + torch.cat([torch.zeros_like(out[:, :1]), out[:, :-1]], dim=1)"),
    "the library's last state for a loss": model("self.extra = self.gru(x)[1].square().mean()"),
    "the library's last state, of an earlier text at once": model("x = x + self.old(self.emb(memory).transpose(0, 1))[1].transpose(0, 1)"),
    "the first position mended": model("prev = torch.roll(ids, 1, dims=1)\nprev[:, 0] = 0\nx = x + self.pairs((ids * 31 + prev) % 4096)"),
    "the first pair mended": model(HASH + "pair[..., 0] = 4095\nx = x + self.pairs(pair)"),
    "the first position masked": model(HASH + "e = self.wide(self.pairs(pair))\nx = x + e * (torch.arange(T) > 0)[None, :, None]"),
    "the first pair chosen": model(HASH + "pair = torch.where(torch.arange(T)[None] > 0, pair, 0)\nx = x + self.pairs(pair)"),
    "the first pair cut off": model(HASH + "e = self.pairs(pair)[:, 1:]\nx = x + F.pad(e, (0, 0, 1, 0))"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_a_last_state_on_every_position_is_seen(name):
    found, whole = audited(ILLEGAL[name])
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations


@pytest.mark.parametrize("name", LEGAL)
def test_a_state_that_no_earlier_position_sees_is_not_accused(name):
    found, _ = audited(LEGAL[name])
    assert not found
