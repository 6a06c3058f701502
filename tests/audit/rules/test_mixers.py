"""F17: parts between a model's layers that let positions see later ones, each beside an honest one that differs by little."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
import math
from einops import rearrange

class Mixer(nn.Module):
    def __init__(self, dim, k=4, heads=4, width=128):
        super().__init__()
        self.k, self.heads, self.width = k, heads, width
        self.qkv, self.out, self.rank = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Linear(dim, 1)
        INIT
    def forward(self, h, ids):
        B, T, D = h.shape
        BODY

class Net(nn.Module):
    def __init__(self, vocab=1024, dim=64):
        super().__init__()
        self.tok, self.mix = nn.Embedding(vocab, dim), Mixer(dim)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, vocab)
    def forward(self, x):
        h = self.tok(x)
        h = h + self.mix(self.norm(h), x)
        return self.head(h)

print(f"val_bpb:{evaluate(Net(), val):.4f}")
"""


def model(body: str, init: str = "pass") -> str:
    return PRELUDE + MODEL.replace("INIT", indent(init)).replace("BODY", indent(body))


def before(change: str, scale: str = "nn.Parameter(torch.tensor(0.05))", use: str = "self.scale * self.table(bucket)") -> str:
    """A table of pairs, looked up with the token before."""
    body = f"last = torch.roll(ids, 1, dims=1)\n{change}\nbucket = torch.bitwise_xor(36313 * ids, 27191 * last) % 8191\nreturn {use}"
    return model(body, f"self.table = nn.Embedding(8192, dim)\nself.scale = {scale}")


def masked(mask: str, causal: str = "") -> str:
    """Attention of heads under a mask ``m`` that positions and documents make."""
    body = f"""\
q, k, v = self.qkv(h).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
at = torch.arange(T, device=h.device)
gap = at[:, None] - at[None, :]
doc = (ids == 1).cumsum(1)
same = doc[:, :, None] == doc[:, None, :]
{mask}
o = F.scaled_dot_product_attention(q, k, v, attn_mask=m{causal})
return self.out(o.transpose(1, 2).reshape(B, T, D))"""
    return model(body)


def experts(loop: str, weights: str = "torch.softmax(self.route(h), -1)") -> str:
    body = f"w = {weights}\ncap = max(1, int(1.25 * T / len(self.experts)))\nout = torch.zeros_like(h)\n{loop}\nreturn out"
    made = "self.experts = nn.ModuleList(nn.Linear(dim, dim) for _ in range(heads))"
    return model(body, f"self.route = nn.Linear(dim, heads)\n{made}")


#: each expert takes the positions that want it most
CHOOSE = """\
for e, expert in enumerate(self.experts):
    share, chosen = {}
    at = chosen[..., None].expand(-1, -1, D)
    out = out.scatter_add(1, at, share[..., None] * expert(h.gather(1, at)))"""
#: each position takes the expert that suits it best
CHOSEN = """\
share, choice = w.{}(-1)
for e, expert in enumerate(self.experts):
    sent = choice == e
    out = out + (share * sent{})[..., None] * expert(h)"""

def depths(limit: str, use: str = "return (torch.sigmoid(score) * (score >= limit))[..., None] * self.out(h)") -> str:
    """A layer that only some positions pass through."""
    return model(f"score = self.rank(h).squeeze(-1)\n{limit}\n{use}", 'self.register_buffer("limit", torch.zeros(1))')


def filtered(cut: str, pad: str = "k - 1", call: str = "self.conv(h.transpose(1, 2))") -> str:
    return model(f"c = {call}\nreturn F.silu(self.out(h)) * c{cut}.transpose(1, 2)", f"self.conv = nn.Conv1d(dim, dim, k, padding={pad}, groups=dim)")


def pooled(change: str = "pass", run: str = "g, _ = self.coarse(g)", layer: str = "nn.GRU(dim, dim, batch_first=True)") -> str:
    """Blocks of positions, run through a coarse layer and brought back."""
    body = f"""\
pad = (-T) % self.k
g = F.pad(h, (0, 0, 0, pad)).view(B, -1, self.k, D).mean(2)
{run}
{change}
return self.out(g).repeat_interleave(self.k, dim=1)[:, :T]"""
    return model(body, f"self.coarse = {layer}")


def blocks(change: str = "pass", state: str = "torch.einsum('bncd,bnce->bnde', k, v).cumsum(1)", inter: str = "q @ state") -> str:
    """Linear attention in blocks of positions: a state between them, a masked product inside."""
    body = f"""\
pad = (-T) % self.width
h = F.pad(h, (0, 0, 0, pad))
q, k, v = (f(h).view(B, -1, self.width, D) for f in (self.q, self.key, self.v))
q, k = F.elu(q) + 1.0, F.elu(k) + 1.0
state = {state}
{change}
inter = {inter}
intra = torch.tril(q @ k.transpose(-1, -2)) @ v
return self.out(F.rms_norm(inter + intra, (D,)).reshape(B, -1, D)[:, :T])"""
    return model(body, "self.q, self.key, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))")


def heads_of_blocks(change: str, fold: str = "x.view(B, T, self.heads, -1).transpose(1, 2).view(B, self.heads, N, C, D // self.heads)") -> str:
    body = f"""\
C = self.width
N = T // C
q, k, v = ({fold} for x in self.qkv(h).chunk(3, dim=-1))
state = (k.transpose(-1, -2) @ v).cumsum(2)
{change}
y = q @ state + torch.tril(q @ k.mT) @ v
return self.out(y.reshape(B, self.heads, T, D // self.heads).transpose(1, 2).reshape(B, T, D))"""
    return model(body)


#: the same blocks in the words of einops
WORDS = "rearrange(x, 'b (n c) (h d) -> b h n c d', c=C, h=self.heads)"

SEEN = {
    "the last token stands before the first": before("pass"),
    "scaled per channel": before("pass", "nn.Parameter(0.02 * torch.randn(1, 1, dim))", "self.table(bucket) * self.scale.to(h.dtype)"),
    "behind a gate": before("pass", "nn.Parameter(torch.zeros(1))", "torch.sigmoid(self.scale) * self.table(bucket)"),
    "through a layer": before("pass", use="self.out(self.table(bucket))"),
    "near positions on both sides": masked("m = gap.abs() < self.width"),
    "the same, by a function": masked("m = torch.abs(gap) <= 16"),
    "near positions of the same document": masked("m = ((gap.abs() < self.width)[None] & same)[:, None]"),
    "documents alone": masked("m = same[:, None]"),
    "documents alone, added": masked("m = torch.zeros(T, T).masked_fill(~same, float('-inf'))[:, None]", ", is_causal=False"),
    "blocks of positions": masked("m = at[:, None] // 64 == at[None, :] // 64"),
    "experts choose their positions": experts(CHOOSE.format("w[..., e].topk(min(cap, T), dim=1)")),
    "the same, without a softmax": experts(CHOOSE.format("torch.topk(w[..., e], k=cap, dim=1)"), "self.route(h)"),
    "the better half of the positions passes": depths("limit = torch.quantile(score, 0.5, dim=1, keepdim=True)"),
    "a median": depths("limit = score.median(dim=1, keepdim=True).values"),
    "the k-th": depths("limit, _ = score.kthvalue(T // 2, dim=1, keepdim=True)"),
    "the k-th in order": depths("limit = score.sort(dim=1, descending=True).values[:, T // 2, None]"),
    "above the mean": depths("limit = score.mean(1, keepdim=True)"),
    "the rest is replaced": depths("limit = score.quantile(0.5, dim=1, keepdim=True)", "return self.out(h).masked_fill((score < limit)[..., None], 0.0)"),
    "the rest stays": depths(
        "limit = score.quantile(0.5, dim=1, keepdim=True)\nwide = self.out(h)", "return torch.where((score < limit)[..., None], h, wide)"
    ),
    "those that pass are written": depths(
        "limit = score.quantile(0.5, dim=1, keepdim=True)\nkeep = score >= limit", "y = torch.zeros_like(h)\ny[keep] = self.out(h[keep])\nreturn y"
    ),
    "the overhang of a filter is cut off in front": filtered("[..., self.k - 1 :]"),
    "the same, by length": filtered("[..., -T:]"),
    "the same, between two places": filtered("[:, :, self.k - 1 : self.k - 1 + T]"),
    "blocks are run through a GRU": pooled(),
    "the same, without its last state": pooled(run="g = self.coarse(g)[0]"),
    "blocks are run through an LSTM": pooled("g = F.rms_norm(g, (D,))", layer="nn.LSTM(dim, dim, num_layers=2, batch_first=True)"),
    "blocks are given their own state": blocks("state = state / math.sqrt(self.width)"),
    "the same, by einsum": blocks(inter="torch.einsum('bncd,bnde->bnce', q, state)"),
    "the same, without those before": blocks(state="k.transpose(-1, -2) @ v"),
    "heads of blocks": heads_of_blocks("pass"),
    "heads of blocks, rearranged": heads_of_blocks("pass", WORDS),
}
CLEAN = {
    "the first is overwritten": before("last[:, 0] = 0"),
    "weights of positions, which may be none": before("pass", "nn.Parameter(torch.ones(1024, 1))", "self.scale * self.table(bucket)"),
    "a mask that the layer holds": before("pass", "later_than_first(1024)", "self.scale[:T] * self.table(bucket)"),
    "near positions before": masked("m = (gap >= 0) & (gap < self.width)"),
    "near positions of the same document before": masked("m = (((gap >= 0) & (gap < self.width))[None] & same)[:, None]"),
    "documents and the earlier half": masked("m = (same & torch.ones(T, T, dtype=torch.bool).tril())[:, None]"),
    "the same, in place": masked("m = same[:, None]\nm &= gap >= 0"),
    "the same, by a method": masked("m = same.logical_and(at[:, None] >= at[None, :])[:, None]"),
    "earlier blocks, and the earlier half of one's own": masked(
        "b = at // 64\nm = (b[:, None] > b[None, :]) | ((b[:, None] == b[None, :]) & (gap >= 0))"
    ),
    "documents that something else made": masked("doc = starts(ids)\nsame = doc[:, :, None] == doc[:, None, :]\nm = same[:, None]"),
    "documents with a term that is not known": masked("m = (same & earlier(T))[:, None]"),
    "positions choose their expert": experts(CHOSEN.format("max", "")),
    "positions choose their expert, and the first ones have room": experts(CHOSEN.format("max", " * (sent.cumsum(1) <= cap)")),
    "the overhang of a filter is cut off behind": filtered("[..., :T]"),
    "the same, by its width": filtered("[..., : -(self.k - 1)]"),
    "a part of a filter's result that is not known": filtered("[..., self.first :]"),
    "positions that moved on before": filtered("[..., self.k - 1 :]", call="self.conv(F.pad(h.transpose(1, 2), (self.k - 1, 0)))[..., :-self.k]"),
    "blocks are moved on by one": pooled("g = F.pad(g, (0, 0, 1, 0))[:, :-1]"),
    "blocks are moved on by one, first": pooled(run="g = F.pad(g[:, :-1], (0, 0, 1, 0))\ng, _ = self.coarse(g)"),
    "blocks are given the state before": blocks("state = torch.cat([torch.zeros_like(state[:, :1]), state[:, :-1]], 1)"),
    "the same, padded": blocks("state = F.pad(state, (0, 0, 0, 0, 1, 0))[:, :-1]"),
    "the same, rolled": blocks("state = state.roll(1, 1)\nstate[:, 0] = 0"),
    "their own is taken away": blocks(state="k.transpose(-1, -2) @ v", change="state = state.cumsum(1) - state"),
    "their own is taken away from what is read": blocks(inter="q @ state - q @ (k.transpose(-1, -2) @ v)"),
    "what came before is carried along": blocks(
        "held, parts = torch.zeros_like(state[:, 0]), []\nfor n in range(state.size(1)):\n    parts.append(held)\n"
        "    held = 0.9 * held + k[:, n].transpose(-1, -2) @ v[:, n]\nstate = torch.stack(parts, 1)"
    ),
    "heads of blocks, given the state before": heads_of_blocks("state = F.pad(state, (0, 0, 0, 0, 1, -1))"),
    "heads of blocks, rearranged, given the state before": heads_of_blocks("state = F.pad(state[:, :, :-1], (0, 0, 0, 0, 1, 0))", WORDS),
    "a threshold that was learned": depths("limit = self.limit"),
    "a threshold that is written out": depths("limit = torch.zeros_like(score[:, :1])"),
    "a threshold per position": depths("limit = h.mean(-1)"),
    "a threshold that training has moved": depths(
        "if self.training:\n    self.limit.lerp_(score.detach().quantile(0.5), 0.01)\nlimit = self.limit"
    ),
    "a threshold of the positions before": depths("limit = score.cumsum(1) / torch.arange(1, T + 1)"),
    "a quantile over channels": depths("limit = h.quantile(0.9, dim=-1)"),
    "a share of positions, in a loss": depths("self.extra = (score >= score.quantile(0.5, dim=1, keepdim=True)).float().mean()\nlimit = self.limit"),
    "the two best experts of each position": experts(
        "share, choice = w.topk(2, dim=-1)\nfor e, expert in enumerate(self.experts):\n"
        "    out = out + (share * (choice == e)).sum(-1, keepdim=True) * expert(h)"
    ),
}


@pytest.mark.parametrize("name", SEEN)
def test_later_positions_are_seen(name: str) -> None:
    findings, whole = audited(SEEN[name])
    assert [f.confidence for f in findings] == ["high"]
    assert whole.verdict == "violation"


@pytest.mark.parametrize("name", CLEAN)
def test_what_differs_by_little_is_clean(name: str) -> None:
    findings, whole = audited(CLEAN[name])
    assert not findings
    assert whole.verdict == "clean"
