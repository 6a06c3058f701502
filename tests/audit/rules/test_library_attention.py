"""F17: the library's encoder and decoder layers, which hide nothing by themselves, beside calls that hand over a mask."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
from torch.nn import TransformerEncoder

class Deep(nn.Module):
    def __init__(self, dim=64, heads=4):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, dim), nn.Linear(dim, 1024)
        self.pos, self.norm = nn.Embedding(1024, dim), nn.LayerNorm(dim)
        INIT
    def forward(self, ids, memory=None):
        B, T = ids.shape
        x = self.emb(ids) + self.pos(torch.arange(T))
        mask = nn.Transformer.generate_square_subsequent_mask(T)
        BODY
        return self.head(x)

print(f"val_bpb:{evaluate(Deep(), val):.4f}")
"""
LAYER = "layer = nn.TransformerEncoderLayer(d_model=dim, nhead=heads, dropout=0.0, batch_first=True)\n"
STACK = LAYER + "self.stack = nn.TransformerEncoder(layer, num_layers=2)"
LIST = "self.layers = nn.ModuleList([nn.TransformerEncoderLayer(dim, heads, batch_first=True) for _ in range(4)])"
DECODER = "self.stack = nn.TransformerDecoder(nn.TransformerDecoderLayer(dim, heads, batch_first=True), 2)"
MHA = "self.mha = nn.MultiheadAttention(dim, heads, batch_first=True)"
TURNED = "self.mha = nn.MultiheadAttention(dim, heads)"


def model(init: str, body: str) -> str:
    return PRELUDE + MODEL.replace("INIT", indent(init)).replace("BODY", indent(body))


ILLEGAL = {
    "an encoder": model(STACK, "x = self.stack(x)"),
    "an encoder by its imported name": model(LAYER + "self.stack = TransformerEncoder(layer, 2)", "x = self.stack(src=x, mask=None)"),
    "an encoder with time in front": model(
        "self.stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, heads), 2)", "x = self.stack(x.transpose(0, 1)).transpose(0, 1)"
    ),
    "layers in a loop": model(LIST, "for layer in self.layers:\n    x = layer(x)"),
    "layers by number": model(LIST, "for i in range(4):\n    x = self.layers[i](self.norm(x), src_mask=None)"),
    "layers in a chain": model(
        "self.stack = nn.Sequential(*[nn.TransformerEncoderLayer(dim, heads, batch_first=True) for _ in range(4)])", "x = self.stack(x)"
    ),
    "a mask for padding alone": model(STACK, "x = self.stack(x, src_key_padding_mask=ids == 0)"),
    "a decoder without a mask": model(DECODER, "x = self.stack(x, torch.zeros(B, 1, 64))"),
    "a decoder whose memory is the window": model(DECODER, "x = self.stack(x, x, tgt_mask=mask)"),
    "attention to itself": model(MHA, "y = self.norm(x)\nx = x + self.mha(y, y, y, need_weights=False)[0]"),
    "attention by name": model(MHA, "a, _ = self.mha(query=x, key=x, value=x)\nx = x + a"),
    "attention with time in front": model(TURNED, "y = x.transpose(0, 1)\ny, _ = self.mha(y, y, y)\nx = x + y.transpose(0, 1)"),
}
LEGAL = {
    "a mask": model(STACK, "x = self.stack(x, mask=mask)"),
    "a mask in its place": model(STACK, "x = self.stack(x, mask, is_causal=True)"),
    "a mask of the upper half": model(STACK, "m = torch.triu(torch.ones(T, T), 1).bool()\nx = self.stack(x, m)"),
    "layers with a mask": model(LIST, "for layer in self.layers:\n    x = layer(x, src_mask=mask, is_causal=True)"),
    "an encoder with time in front and a mask": model(
        "self.stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, heads), 2)", "x = self.stack(x.transpose(0, 1), mask).transpose(0, 1)"
    ),
    "a decoder with a mask": model(DECODER, "x = self.stack(x, torch.zeros(B, 1, 64), tgt_mask=mask)"),
    "attention with a mask": model(MHA, "x = x + self.mha(x, x, x, attn_mask=mask, need_weights=False)[0]"),
    "attention with a mask in its place": model(MHA, "x = x + self.mha(x, x, x, None, False, mask)[0]"),
    "attention to a memory": model(MHA, "x = x + self.mha(x, memory, memory)[0]"),
    "an encoder of a memory": model(STACK, "x = x + self.stack(self.pos.weight[None, :8]).mean(1, keepdim=True)"),
    "a stack that is not built": model(STACK, "x = self.head(x) if False else x").replace(
        "print(f", "class Other(Deep):\n    def forward(self, ids):\n        return self.stack(self.emb(ids))\n\nprint(f"
    ),
}
PIECES = """\
class Pieces(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.of_bytes = nn.Embedding(256, dim)
        self.stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, 4, batch_first=True), 1)
    def forward(self, pieces):
        return self.stack(self.of_bytes(pieces)).mean(dim=1)

class Spelled(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.emb, self.head, self.pieces = nn.Embedding(1024, dim), nn.Linear(dim, 1024), Pieces(dim)
        self.bytes_of = torch.zeros(1024, 16, dtype=torch.long)
    def forward(self, ids):
        B, T = ids.shape
        spelled = self.pieces(self.bytes_of[ids].reshape(B * T, 16))
        return self.head(self.emb(ids) + spelled.view(B, T, -1))

print(f"val_bpb:{evaluate(Spelled(), val):.4f}")
"""


@pytest.mark.parametrize("name", ILLEGAL)
def test_a_layer_without_a_mask_sees_the_window(name):
    found, whole = audited(ILLEGAL[name])
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations


@pytest.mark.parametrize("name", LEGAL)
def test_a_masked_layer_is_not_accused(name):
    found, _ = audited(LEGAL[name])
    assert not found


def test_an_encoder_of_the_pieces_of_one_token_is_not_accused():
    assert not audited(PRELUDE + PIECES)[0]
    flat = PIECES.replace("self.pieces(self.bytes_of[ids].reshape(B * T, 16))", "self.pieces(ids)").replace(".mean(dim=1)", "")
    assert audited(PRELUDE + flat)[1].verdict == "violation"


def test_an_encoder_of_an_earlier_text_leaves_doubt():
    for text in ("memory", "ids[:, : T // 2]"):
        read = model(STACK, f"kept = self.stack(self.emb({text}))\nx = x + kept[:, -1:]")
        assert not [f for f in audited(read)[0] if f.confidence != "low" and "mask" in f.message]
    inner = PRELUDE + PIECES.replace("self.pieces(self.bytes_of[ids].reshape(B * T, 16))", "self.pieces(self.emb(ids), self.emb(memory))")
    inner = inner.replace("self.of_bytes(pieces)", "pieces").replace("ids):", "ids, memory=None):").replace("(self, pieces)", "(self, pieces, more)")
    found, whole = audited(inner.replace(").mean(dim=1)", ")"))
    assert [f.confidence for f in found] == ["low"] and whole.verdict == "undetermined"


def test_attention_over_the_batch_leaves_doubt():
    found, whole = audited(model("self.stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, heads), 2)", "x = self.stack(x)"))
    assert [f.confidence for f in found] == ["low"] and whole.verdict == "undetermined"
