"""F17: a mask that leaves later positions in sight, beside the masks that look like it and do not."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
import math

def later(n):
    return torch.triu(torch.ones(n, n), diagonal=1).bool()

class Mix(nn.Module):
    def __init__(self, dim=64, heads=4, longest=1024):
        super().__init__()
        self.heads = heads
        self.width = 128
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.att = nn.MultiheadAttention(dim, heads, batch_first=True)
        INIT
    def forward(self, x, docs=None, given=None):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        i = torch.arange(T)
        BODY
        return self.out(x)

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.blocks = nn.ModuleList([Mix() for _ in range(2)])
    def forward(self, ids):
        x = self.emb(ids)
        n = ids.shape[1]
        GIVEN
        for block in self.blocks:
            x = x + block(x, given=given)
        return self.head(x)

print(f"val_bpb:{evaluate(Wide(), val):.4f}")
"""
BACK = "\nx = y.transpose(1, 2).reshape(B, T, C)"
TWO = "m = torch.tril(torch.ones(T, T)).bool()\n"
BUFFER = 'self.register_buffer("m", {})'


def model(body: str, init: str = "pass", given: str = "given = None") -> str:
    text = MODEL.replace("INIT", indent(init)).replace("BODY", indent(body)).replace("GIVEN", indent(given))
    return PRELUDE + text


def hidden(mask: str, hide: str = "s.masked_fill(m == 0, float('-inf'))", init: str = "pass", given: str = "given = None") -> str:
    """Attention written out, with a mask and how it is applied."""
    return model(f"{mask}\ns = q @ k.transpose(-2, -1) / 8.0\ns = {hide}\ny = torch.softmax(s, dim=-1) @ v" + BACK, init, given)


def library(mask: str, init: str = "pass", given: str = "given = None") -> str:
    return model(f"y = F.scaled_dot_product_attention(q, k, v, attn_mask={mask})" + BACK, init, given)


def encoder(mask: str) -> str:
    return model(f"x = self.att(x, x, x, attn_mask={mask})[0]")


TRUE = "s.masked_fill(m, float('-inf'))"
ILLEGAL = {
    "the upper half is kept": hidden("m = torch.ones(T, T).triu()"),
    "the upper half is kept, least number": hidden("m = torch.triu(torch.ones(T, T))[None, None]", "s.masked_fill(m == 0, torch.finfo(s.dtype).min)"),
    "the upper half is kept, number": hidden("m = torch.ones((T, T)).triu(0)", "s.masked_fill(m.logical_not(), -1e9)"),
    "one diagonal too many": hidden("m = torch.ones(T, T).tril(1)"),
    "one diagonal too many, by name": hidden("m = torch.tril(torch.ones(T, T), diagonal=1)"),
    "the ones of the lower half are filled": hidden("m = torch.ones(T, T).tril()", "s.masked_fill(m == 1, float('-inf'))"),
    "the lower half is filled": hidden("m = torch.ones(T, T, dtype=torch.bool).tril(-1)", TRUE),
    "added on the wrong side": hidden("m = torch.full((T, T), float('-inf')).tril(-1)", "s + m"),
    "subtracted": hidden("m = (1 - torch.ones(T, T).triu()) * 1e9", "s - m"),
    "chosen": hidden("m = i[:, None] <= i[None, :]", "torch.where(m, s, -1e9)"),
    "positions compared": hidden("m = i[None, :] < i[:, None]", "s.masked_fill(m, -torch.inf)"),
    "a window around": hidden("m = (i[:, None] - i[None, :]) < 128", "s.masked_fill(~m, -torch.inf)"),
    "a window around, of the object": hidden("m = (i[:, None] - i[None, :]) > self.width", "s.masked_fill(m, -torch.inf)"),
    "in place": hidden("m = torch.ones(T, T).triu()", "s\ns.masked_fill_(m == 0, float('-inf'))"),
    "a buffer": hidden("", "s.masked_fill(self.m[:, :, :T, :T] == 0, -1e9)", BUFFER.format("torch.triu(torch.ones(longest, longest)).view(1, 1, longest, longest)")),
    "made in a helper": hidden("m = ~later(T)", "s.masked_fill(~m.transpose(0, 1), float('-inf'))"),
    "handed in": hidden("m = given", "s.masked_fill(m, float('-inf'))", given="given = torch.ones(n, n).tril(-1).bool()"),
    "no softmax": model("y = (q @ k.mT / 8.0).triu() @ v" + BACK),
    "no softmax, times a mask": model("m = torch.ones(T, T).triu()\ny = (q @ k.mT * m) @ v" + BACK),
    "times a mask after the softmax": model("m = torch.ones(T, T).triu()\ny = (torch.softmax(q @ k.mT / 8.0, -1) * m) @ v" + BACK),
    "by einsum": model(
        'm = torch.ones(T, T).triu()\ns = torch.einsum("bhqd,bhkd->bhqk", q, k).masked_fill(m == 0, -1e9)\n'
        'y = torch.einsum("bhqk,bhkd->bhqd", s.softmax(-1), v)' + BACK
    ),
    "keys against queries": model("m = torch.ones(T, T).tril()\ns = (k @ q.mT / 8.0).masked_fill(m == 0, -1e9)\ny = torch.softmax(s, dim=-2).mT @ v" + BACK),
    "the library's function": library("torch.ones(T, T).triu().bool()"),
    "the library's function, what is hidden": library("torch.ones(T, T, dtype=torch.bool).triu(1)"),
    "the library's function, added": library("torch.full((T, T), float('-inf')).tril(-1)"),
    "the library's function, ones that are added": library("torch.tril(torch.ones(T, T))"),
    "the library's function, a buffer": library("self.m[:T, :T]", BUFFER.format("torch.ones(longest, longest).tril(1) > 0")),
    "the library's function, in its place": model("y = F.scaled_dot_product_attention(q, k, v, i[None] >= i[:, None])" + BACK),
    "the library's layer, what is seen": encoder("torch.tril(torch.ones(T, T)).bool()"),
    "the library's layer, added": encoder("torch.full((T, T), float('-inf')).tril(-1)"),
}
LEGAL = {
    "the lower half is kept": hidden("m = torch.ones(T, T).tril()"),
    "the upper half is filled": hidden("m = torch.triu(torch.ones(T, T), diagonal=1)", "s.masked_fill(m == 1, float('-inf'))"),
    "the upper half is filled, truth values": hidden("m = torch.ones(T, T, dtype=torch.bool).triu(1)", TRUE),
    "the upper half is filled, the diagonal too": hidden("m = torch.ones(T, T, dtype=torch.bool).triu()", TRUE),
    "added": hidden("m = torch.full((T, T), float('-inf')).triu(1)", "s + m"),
    "added, of zeros": hidden("m = torch.zeros(T, T).masked_fill(torch.ones(T, T).tril() == 0, float('-inf'))", "s + m"),
    "chosen": hidden("m = torch.where(i[None] <= i[:, None], 0.0, float('-inf'))", "s + m[None, None]"),
    "subtracted": hidden("m = torch.ones(T, T).tril()", "s * m - 1e9 * (1 - m)"),
    "positions compared": hidden("m = i[None] <= i[:, None]", "s.masked_fill(~m, -torch.inf)"),
    "positions compared, what is hidden": hidden("m = i[:, None] < i", "s.masked_fill(m, -torch.inf)"),
    "a sliding window": hidden("m = torch.ones(T, T).bool()\nm = m.tril() & ~m.tril(-128)", "s.masked_fill(~m, -torch.inf)"),
    "a sliding window, compared": hidden("g = i[:, None] - i[None]\nm = (g >= 0) & (g < self.width)", "s.masked_fill(~m, -torch.inf)"),
    "a window of unknown width and a half": hidden("m = (i[:, None] - i[None] < given) & torch.ones(T, T).bool().tril()", "s.masked_fill(~m, -torch.inf)"),
    "of the same document": hidden("m = (i[:, None] >= i[None]) & (docs[:, :, None] == docs[:, None, :])", "s.masked_fill(~m[:, None], -torch.inf)"),
    "documents alone, then the causal half": hidden(
        "m = torch.ones(T, T).triu(1).bool()\ndifferent = docs[:, :, None] != docs[:, None, :]", "s.masked_fill(different[:, None], -1e9).masked_fill(m, -1e9)"
    ),
    "two masks, one of which hides what is later": hidden("m = torch.ones(T, T).tril(8)\nl = i[None] > i[:, None]", "s.masked_fill(m == 0, -1e9).masked_fill(l, -1e9)"),
    "handed in from elsewhere": hidden("m = given", TRUE),
    "handed in": hidden("m = given", TRUE, given="given = torch.ones(n, n).triu(1).bool()"),
    "written row by row": hidden("m = torch.ones(T, T).triu()\nfor r in range(T):\n    m[r] = 0\n    m[r, : r + 1] = 1"),
    "written in a helper": hidden("m = torch.ones(T, T).triu()\nself.out.mend(m)"),
    "in place": hidden("m = torch.ones(T, T).triu(1).bool()", "s\ns.masked_fill_(m, float('-inf'))"),
    "a buffer": hidden("", "s.masked_fill(self.m[:, :, :T, :T] == 0, -1e9)", BUFFER.format("torch.tril(torch.ones(longest, longest)).view(1, 1, longest, longest)")),
    "a buffer that is filled later": hidden("self.m.copy_(given)", "s.masked_fill(self.m[:T, :T] == 0, -1e9)", BUFFER.format("torch.ones(longest, longest).triu()")),
    "a buffer of either kind": hidden(
        "", "s.masked_fill(self.m[:T, :T] == 0, -1e9)",
        "if heads > dim:\n    self.m = torch.ones(longest, longest).triu()\nelse:\n    self.m = torch.ones(longest, longest).tril()",
    ),
    "made in a helper": hidden("m = later(T)", TRUE),
    "of a part that is moved on": hidden("m = torch.ones(T, T).triu()", "s.masked_fill(m[:, given:] == 0, -1e9)"),
    "no softmax": model("y = (q @ k.mT / 8.0).tril() @ v" + BACK),
    "no softmax, times a mask": model("m = torch.ones(T, T).tril()\ny = (q @ k.mT * m) @ v" + BACK),
    "by einsum": model(
        'm = torch.ones(T, T).tril()\ns = torch.einsum("bhqd,bhkd->bhqk", q, k).masked_fill(m == 0, -1e9)\n'
        'y = torch.einsum("bhqk,bhkd->bhqd", s.softmax(-1), v)' + BACK
    ),
    "keys against queries": model("m = torch.ones(T, T).triu()\ns = (k @ q.mT / 8.0).masked_fill(m == 0, -1e9)\ny = torch.softmax(s, dim=-2).mT @ v" + BACK),
    "the library's function": library("torch.ones(T, T).tril().bool()"),
    "the library's function, added": library("torch.full((T, T), float('-inf')).triu(1)"),
    "the library's function, a slope and a half": library("torch.full((T, T), float('-inf')).triu(1) - given * (i[:, None] - i)"),
    "the library's function, a buffer": library("self.m[:T, :T]", BUFFER.format("torch.ones(longest, longest).tril() > 0")),
    "the library's function, a mask from elsewhere": library("near(docs)"),
    "the library's function, over heads": model(
        "q, k, v = (u.transpose(1, 2) for u in (q, k, v))\ny = F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(4, 4).triu().bool())\nx = y.reshape(B, T, C)"
    ),
    "the library's layer, what is hidden": encoder("torch.triu(torch.ones(T, T), 1).bool()"),
    "the library's layer, added": encoder("torch.full((T, T), float('-inf')).triu(1)"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_a_mask_that_leaves_later_positions_in_sight_is_seen(name):
    found, whole = audited(ILLEGAL[name])
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations


@pytest.mark.parametrize("name", LEGAL)
def test_a_mask_that_hides_them_or_is_not_known_is_not_accused(name):
    found, _ = audited(LEGAL[name])
    assert not found
