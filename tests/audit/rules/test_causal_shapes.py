"""F17: the shapes that let a position see later ones, each beside the causal layer that looks like it."""

from __future__ import annotations

import pytest

from audit.rules.flow import PRELUDE
from tests.audit.rules.causal_models import audited, indent

MODEL = """\
from flash_attn import flash_attn_func, flash_attn_varlen_func

class Mix(nn.Module):
    def __init__(self, dim=64, heads=4, flag=None):
        super().__init__()
        self.heads, self.flag = heads, flag
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.keep = torch.tril(torch.ones(1024, 1024))
        INIT
    def forward(self, x, memory=None):
        B, T, C = x.shape
        BODY
        return self.out(x)

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.blocks = nn.ModuleList([Mix() for _ in range(2)])
    def forward(self, ids):
        x = self.emb(IDS)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)

print(f"val_bpb:{evaluate(Wide(), val):.4f}")
"""
HEADS = "q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)\n"
ROWS = "q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).unbind(2)\n"
PLAIN = "q, k, v = self.q(x), self.k(x), self.v(x)\n"
LOOP = "q, k, v = (p(x).view(B, T, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))\n"
BACK = "\nx = y.transpose(1, 2).reshape(B, T, C)"
CONV = "self.conv = nn.Conv1d(dim, dim, {})"
FILTER = "u = self.v(x).transpose(1, 2)\nu = {}\nx = x + F.silu(u.transpose(1, 2))"


def model(body: str, init: str = "pass", ids: str = "ids", before: str = "") -> str:
    return PRELUDE + before + MODEL.replace("INIT", indent(init)).replace("BODY", indent(body)).replace("IDS", ids)


ILLEGAL = {
    "weights without a mask, one head": model(PLAIN + "x = F.softmax(q @ k.transpose(1, 2) / 8.0, dim=-1) @ v"),
    "weights without a mask": model(HEADS + "y = torch.softmax(q @ k.mT / 8.0, -1) @ v" + BACK),
    "the same in steps": model(
        HEADS + "a = torch.matmul(q, k.transpose(-2, -1)) * 0.125\na = F.softmax(a.float(), dim=-1).to(x.dtype)\ny = torch.matmul(a, v)" + BACK
    ),
    "by einsum": model(
        ROWS + 'a = torch.einsum("bqhd,bkhd->bhqk", q, k) * self.heads ** -0.5\ny = torch.einsum("bhqk,bkhd->bqhd", a.softmax(-1), v)\n'
        "x = y.reshape(B, T, C)"
    ),
    "in a helper": model(
        HEADS + "y = weighed(q, k, v)" + BACK,
        before="def weighed(q, k, v, mask=None):\n    a = q @ k.transpose(-2, -1)\n    if mask is not None:\n"
        "        a = a.masked_fill(mask, -1e9)\n    return a.softmax(dim=-1) @ v\n\n",
    ),
    "flash attention says it is not causal": model(ROWS + "x = flash_attn_func(q, k, v, causal=False).reshape(B, T, C)"),
    "flash attention by default": model(ROWS + "x = flash_attn_func(q, k, v).reshape(B, T, C)"),
    "flash attention over a window around": model(ROWS + "x = flash_attn_func(q, k, v, window_size=(64, 64)).reshape(B, T, C)"),
    "flash attention over packed rows": model(
        ROWS + "x = flash_attn_varlen_func(q, k, v, memory, memory, T, T, causal=False).reshape(B, T, C)"
    ),
    "a setting turns causality off": model(
        HEADS + "y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)" + BACK, "self.causal = False"
    ),
    "a mask of ones": model(
        HEADS + "m = torch.ones(T, T, dtype=torch.bool)\ny = F.scaled_dot_product_attention(q, k, v, attn_mask=m)" + BACK
    ),
    "a mask with a diagonal too many": model(
        HEADS + "y = F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(T, T).bool().tril(8))" + BACK
    ),
    "the library's layer without a mask": model(
        "x = self.mha(x, x, x, need_weights=False)[0]", "self.mha = nn.MultiheadAttention(dim, heads, batch_first=True)"
    ),
    "a filter padded by half": model(FILTER.format("self.conv(u)"), CONV.format("3, padding=1")),
    "a filter of the same length": model(FILTER.format("self.conv(u)"), CONV.format("3, padding='same'")),
    "half of a setting": model(FILTER.format("self.conv(u)"), CONV.format("heads, padding=heads // 2")),
    "zeros behind the window": model(FILTER.format("self.conv(F.pad(u, (2, 2)))"), CONV.format("5")),
    "the overhang is cut off in front": model(FILTER.format("self.conv(u)[..., 3:]"), CONV.format("4, padding=3")),
    "taps over later positions": model(FILTER.format("(F.pad(u, (0, 3)).unfold(-1, 4, 1) * 0.25).sum(-1)")),
    "the next state": model("x = x + 0.1 * torch.roll(x, -1, dims=1)"),
    "the next state, as a method": model("x = x + 0.1 * x.roll(-1, 1)"),
    "the next token": model("x = self.q(x)", ids="torch.roll(ids, -1, 1)"),
    "all but the first": model("x = torch.cat([x[:, 1:], x[:, -1:]], dim=1)"),
    "all but the first, padded": model("x = F.pad(x, (0, 0, -1, 1))"),
    "all but the first, written": model("y = self.q(x)\ny[:, :-1] = x[:, 1:]\nx = y"),
    "a sum from the end": model("x = x.flip(1).cumsum(1).flip(1)"),
    "a norm over channels and time": model("x = F.layer_norm(x, x.shape[1:])"),
    "groups of channels over time": model("x = self.n(x.transpose(1, 2)).transpose(1, 2)", "self.n = nn.GroupNorm(8, dim)"),
    "a layer over time": model("x = x + self.t(x.transpose(1, 2)).transpose(1, 2)", "self.t = nn.Linear(1024, 1024)"),
    "a pool padded by position": model("x = F.avg_pool1d(x.transpose(1, 2), 3, 1, 1).transpose(1, 2)"),
    "one scale for the window": model("x = x / x.std(dim=(1, 2), keepdim=True)"),
    "the best positions of the batch in a row": model(
        "flat = x.view(-1, C)\nat = self.rank(flat).squeeze(-1).topk(64).indices\ny = torch.zeros_like(flat)\ny[at] = self.q(flat[at])\nx = x + y.view(B, T, C)",
        "self.rank = nn.Linear(dim, 1)",
    ),
    "the same by sorting": model(
        "flat = x.reshape(-1, x.shape[-1])\nat = torch.argsort(flat.abs().mean(-1))[-64:]\ny = torch.zeros_like(flat)\ny[at] = self.q(flat[at])\nx = x + y.view(B, T, C)",
    ),
    "experts that choose their positions": model(
        "flat = x.view(-1, C)\nw, at = self.q(flat).softmax(-1).topk(16, dim=0)\nx = x + 0.1 * flat[at[:, 0]].mean() * x",
    ),
    "each expert chooses its positions": model(
        "flat = x.reshape(B * T, C)\nw, at = self.q(flat).softmax(-1).T.topk(16, dim=1)\nx = x + 0.1 * flat[at[0]].mean() * x",
    ),
    "one expert after the other chooses": model(
        "N = B * T\nw = self.q(x.view(N, C)).softmax(-1)\nfor e in range(self.heads):\n    s, at = w[:, e].topk(N // self.heads)\n    x = x + s.sum()",
    ),
    "a filter around the window": model(
        "u = self.v(x).transpose(1, 2)\nu = torch.fft.irfft(torch.fft.rfft(u) * self.heads, n=T)\nx = x + u.transpose(1, 2)"
    ),
}
LEGAL = {
    "a mask of the layer": model(
        HEADS + "a = q @ k.mT / 8.0\na = a.masked_fill(self.keep[:T, :T] == 0, -1e9)\ny = a.softmax(-1) @ v" + BACK
    ),
    "a mask in place": model(HEADS + "a = q @ k.mT\na.masked_fill_(self.keep[:T, :T] == 0, -1e9)\ny = a.softmax(-1) @ v" + BACK),
    "a mask that is added": model(
        HEADS + "a = q @ k.mT / 8.0 + torch.full((T, T), -1e9).triu(1)\ny = torch.softmax(a, -1) @ v" + BACK
    ),
    "a mask by multiplication": model(HEADS + "y = ((q @ k.mT) * self.keep[:T, :T]) @ v" + BACK),
    "a mask in a helper": model(
        HEADS + "y = weighed(q, k, v, self.keep)" + BACK,
        before="def weighed(q, k, v, mask=None):\n    a = q @ k.transpose(-2, -1)\n    if mask is not None:\n"
        "        a = a.masked_fill(mask, -1e9)\n    return a.softmax(dim=-1) @ v\n\n",
    ),
    "experts that each position chooses": model(
        "flat = x.view(-1, C)\nw, at = self.q(flat).softmax(-1).topk(2, dim=-1)\nx = x + (w.sum(-1, keepdim=True) * self.k(flat)).view(B, T, C)",
    ),
    "experts that each position chooses, in rows": model(
        "N = B * T\nw, at = self.q(x.view(N, C)).softmax(-1).topk(2, dim=1)\nfor e in range(self.heads):\n    w = w + self.q(x.view(N, C))[:, e].sigmoid()[:, None]\n"
        "x = x + (w.sum(-1, keepdim=True) * self.k(x.view(N, C))).view(B, T, C)",
    ),
    "positions in the order of their experts": model(
        "flat = x.view(-1, C)\norder = self.q(flat).argmax(-1).argsort()\nback = order.argsort()\nx = x + self.k(flat[order])[back].view(B, T, C)",
    ),
    "all positions sorted and put back": model(
        "flat = x.view(-1, C)\norder = torch.argsort(flat.mean(-1))\nx = x + self.k(flat[order])[order.argsort()].view(B, T, C)",
    ),
    "heads of one position": model(ROWS + "x = (torch.softmax(q @ k.transpose(-2, -1), -1) @ v).reshape(B, T, C)"),
    "positions as a batch": model(
        "q, k, v = self.qkv(x).view(B * T, 3, self.heads, -1).unbind(1)\nx = (torch.softmax(q @ k.mT, -1) @ v).reshape(B, T, C)"
    ),
    "a memory": model("q, k, v = self.q(x), self.k(memory), self.v(memory)\nx = F.softmax(q @ k.mT, -1) @ v"),
    "slots that read the window": model(
        "s = F.scaled_dot_product_attention(self.slots, self.k(x), self.v(x))\nself.note = s", "self.slots = nn.Parameter(torch.zeros(8, dim))"
    ),
    "slots of the layer": model(
        "a = torch.softmax(self.q(x) @ self.slots.t(), -1)\nx = a @ self.slots", "self.slots = nn.Parameter(torch.zeros(8, dim))"
    ),
    "causal flash attention": model(ROWS + "x = flash_attn_func(q, k, v, causal=True).reshape(B, T, C)"),
    "flash attention over a window behind": model(ROWS + "x = flash_attn_func(q, k, v, window_size=(64, 0)).reshape(B, T, C)"),
    "a function of that name": model(
        ROWS + "x = flash_attn_func(q, k, v).reshape(B, T, C)",
        before="def flash_attn_func(q, k, v, causal=True):\n    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)\n\n",
    ),
    "a setting turns causality on": model(
        HEADS + "y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)" + BACK, "self.causal = True"
    ),
    "a setting that is not known": model(HEADS + "y = F.scaled_dot_product_attention(q, k, v, is_causal=self.flag)" + BACK),
    "half of the ones": model(
        HEADS + "m = torch.ones(T, T, dtype=torch.bool).tril()\ny = F.scaled_dot_product_attention(q, k, v, attn_mask=m)" + BACK
    ),
    "the library's layer with a mask": model(
        "m = nn.Transformer.generate_square_subsequent_mask(T)\nx = self.mha(x, x, x, attn_mask=m)[0]",
        "self.mha = nn.MultiheadAttention(dim, heads, batch_first=True)",
    ),
    "the library's layer over a memory": model(
        "x = self.mha(x, memory, memory)[0]", "self.mha = nn.MultiheadAttention(dim, heads, batch_first=True)"
    ),
    "the overhang is cut off": model(FILTER.format("self.conv(u)[..., :T]"), CONV.format("4, padding=3")),
    "the overhang is cut off by a negative end": model(FILTER.format("self.conv(u)[:, :, :-3]"), CONV.format("4, padding=3")),
    "the overhang is cut off later": model(
        "u = self.conv(self.v(x).transpose(1, 2))\nu = u[..., :T]\nx = x + u.transpose(1, 2)", CONV.format("heads, padding=heads - 1")
    ),
    "zeros before the window": model(FILTER.format("self.conv(F.pad(u, (4, 0)))"), CONV.format("5")),
    "one tap": model(FILTER.format("self.conv(u)"), CONV.format("1")),
    "taps over earlier positions": model(FILTER.format("(F.pad(u, (3, 0)).unfold(-1, 4, 1) * 0.25).sum(-1)")),
    "the state before": model("p = torch.roll(x, 1, dims=1)\np = torch.cat([torch.zeros_like(p[:, :1]), p[:, 1:]], dim=1)\nx = x + 0.1 * p"),
    "channels are turned around": model("x = x + 0.1 * torch.roll(x, -1, dims=2)"),
    "the state before, padded": model("x = F.pad(x, (0, 0, 1, -1))"),
    "a loss on the next state": model("self.extra = (torch.roll(x, -1, 1) - self.q(x)).square().mean()\nx = self.k(x)"),
    "a running sum": model("x = x.cumsum(1)"),
    "a norm over channels": model("x = F.layer_norm(x, x.shape[2:])"),
    "groups of channels": model("x = self.n(x.reshape(B * T, C)).view(B, T, C)", "self.n = nn.GroupNorm(8, dim)"),
    "a layer over time below the diagonal": model(
        "x = x + F.linear(x.transpose(1, 2), self.t.weight.tril()).transpose(1, 2)", "self.t = nn.Linear(1024, 1024)"
    ),
    "a pool of the past": model("x = F.avg_pool1d(F.pad(x.transpose(1, 2), (2, 0)), 3, 1).transpose(1, 2)"),
    "a filter with zeros behind": model(
        "u = self.v(x).transpose(1, 2)\nu = torch.fft.irfft(torch.fft.rfft(u, n=2 * T) * self.heads, n=2 * T)[..., :T]\nx = x + u.transpose(1, 2)"
    ),
}

WIDTHS = """\
class Near(nn.Module):
    def __init__(self, dim, kernel_size, dilation=1):
        super().__init__()
        INIT
    def forward(self, x):
        B, T, C = x.shape
        u = x.transpose(1, 2)
        BODY
        return u.transpose(1, 2)

class Node(nn.Module):
    def __init__(self, dim, kernel_size, dilation):
        super().__init__()
        self.near, self.out = Near(dim, kernel_size, dilation), nn.Linear(dim, dim)
    def forward(self, x):
        return x + self.out(self.near(x))

class Several(nn.Module):
    def __init__(self, nodes):
        super().__init__()
        self.nodes = nn.ModuleList(nodes)
    def forward(self, x):
        out = x
        for i, node in enumerate(self.nodes):
            out = out + node(x)
        return out

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        widths, gaps = WIDTHS, [1, 1, 2, 2]
        self.blocks = nn.ModuleList()
        for n in range(2):
            nodes = []
            for m in range(2):
                nodes.append(Node(64, kernel_size=widths[n + m], dilation=gaps[n + m]))
            self.blocks.append(Several(nodes))
    def forward(self, ids):
        x = self.emb(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

print(f"val_bpb:{evaluate(Wide(), val):.4f}")
"""
TAPS = "self.conv = nn.Conv1d(dim, dim, kernel_size, padding={}, dilation=dilation)"
NAMED = "padding = {}\nself.conv = nn.Conv1d(dim, dim, kernel_size=kernel_size, padding=padding, dilation=dilation)"
BOTH = "dilation * (kernel_size - 1) // 2"
FRONT = "self.pad = dilation * (kernel_size - 1)\nself.conv = nn.Conv1d(dim, dim, kernel_size, dilation=dilation)"


def widths(init: str, body: str = "u = self.conv(u)", built: str = "[3, 5, 7, 9]") -> str:
    text = WIDTHS.replace("INIT", indent(init)).replace("BODY", indent(body))
    return PRELUDE + text.replace("widths[n + m]", built if built.isdecimal() else "widths[n + m]").replace("WIDTHS", "[3, 5, 7, 9]")


HALF = "self.pad = kernel_size - 1\nself.conv = nn.Conv1d(dim, dim, kernel_size=kernel_size, groups=dim)"
UNFOLD = "u = (F.pad(u, {}).unfold(dimension=-1, size=self.kernel_size, step=1) * 0.25).sum(dim=-1)"
ILLEGAL |= {
    "an attribute's zeros, on both sides": widths(HALF, "u = self.conv(F.pad(u, (self.pad // 2, self.pad - self.pad // 2)))"),
    "an attribute's zeros, behind": widths(HALF, "u = F.pad(u, (0, self.pad))\nu = self.conv(u)"),
    "half of the taps, unfolded": widths("self.kernel_size = kernel_size", UNFOLD.format("(self.kernel_size // 2, (self.kernel_size - 1) // 2)")),
    "all of the taps behind, unfolded": widths("self.kernel_size = kernel_size", UNFOLD.format("(0, self.kernel_size - 1)")),
    "half of what the taps span, by name": widths(NAMED.format(BOTH)),
    "the same in other words": widths(TAPS.format("(kernel_size - 1) * dilation // 2")),
    "half of the taps, then the gaps": widths(TAPS.format("((kernel_size - 1) // 2) * dilation")),
    "half of the taps and no gaps": widths("self.conv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2)"),
    "half of a width that is known": widths(NAMED.format(BOTH), built="5"),
    "half of an attribute": widths(
        "self.kernel_size = kernel_size\nself.conv = nn.Conv1d(dim, dim, self.kernel_size, padding=(self.kernel_size - 1) // 2)"
    ),
    "the span by halves": widths("self.conv = nn.Conv1d(dim, dim, 2 * kernel_size + 1, padding=kernel_size)"),
    "a list of filters": widths(
        "self.convs = nn.ModuleList([nn.Conv1d(dim, dim, k, padding=k // 2) for k in (3, 5)])",
        "for conv in self.convs:\n    u = u + conv(u)",
    ),
    "cut at its own length": widths(TAPS.format(BOTH), "u = self.conv(u)[..., :T]"),
    "zeros on both sides by a setting": widths(
        "self.pad = kernel_size // 2\nself.conv = nn.Conv1d(dim, dim, kernel_size)", "u = self.conv(F.pad(u, (self.pad, self.pad)))"
    ),
    "one step late and three ahead": widths("self.conv = nn.Conv1d(dim, dim, 7, padding=3)", "u = self.conv(torch.roll(u, 1, -1))"),
}
LEGAL |= {
    "an attribute's zeros, before": widths(HALF, "u = self.conv(F.pad(u, (self.pad, 0)))"),
    "more than that, before and behind": widths(HALF, "u = self.conv(F.pad(u, (self.pad, self.pad)))[..., :T]"),
    "all of the taps before, unfolded": widths("self.kernel_size = kernel_size", UNFOLD.format("(self.kernel_size - 1, 0)")),
    "some of them unknown": widths("self.kernel_size = kernel_size", UNFOLD.format("(self.other, self.kernel_size - 1)")),
    "the overhang of taps by name is cut off": widths(NAMED.format("dilation * (kernel_size - 1)"), "u = self.conv(u)[..., :T]"),
    "the overhang of taps by name is cut off later": widths(TAPS.format("(kernel_size - 1) * dilation"), "u = self.conv(u)\nu = u[:, :, :T]"),
    "zeros before the window by name": widths(FRONT, "u = self.conv(F.pad(u, (self.pad, 0)))"),
    "one tap by name": widths(TAPS.format(BOTH), built="1"),
    "a padding that is given": widths(TAPS.format("dim - 63")),
    "half of two taps, cut": widths("self.conv = nn.Conv1d(dim, dim, 2, padding=1)", "u = self.conv(u)[..., :T]"),
    "moved on before": widths("self.conv = nn.Conv1d(dim, dim, 3, padding=1)", "u = self.conv(torch.roll(u, 1, -1))"),
    "moved on before by zeros": widths(
        "self.conv = nn.Conv1d(dim, dim, 3, padding=1)", "u = self.conv(F.pad(u, (1, -1)))"
    ),
    "moved on after": widths("self.conv = nn.Conv1d(dim, dim, 3, padding=1)", "u = F.pad(self.conv(u), (1, 0))[..., :T]"),
    "rolled on after": widths("self.conv = nn.Conv1d(dim, dim, 3, padding=1)", "u = torch.roll(self.conv(u), 1, -1)"),
    "over channels": widths(TAPS.format(BOTH).replace("dim, dim", "1, 1"), "u = self.conv(x.reshape(B * T, 1, C)).view(B, T, C).transpose(1, 2)"),
    "moved on by as much as it spans": widths(
        "self.conv = nn.Conv1d(dim, dim, 5, padding=2)", "u = self.conv(F.pad(u, (4, 0)))[..., :T]"
    ),
}

PAIRS = "y = x.view(B, T // 2, 2, C).mean(dim=2)\n"
ADDED = "\nx = x + y[:, :T]"
GROUPS = {  # how groups are made, changed, and put back
    "by a mean": (PAIRS, "y = self.q(y)", "y = y.repeat_interleave(2, dim=1)"),
    "by a sum with weights": (
        "f = self.heads\ny = x.reshape(B, T // f, f, C)\ny = (y * self.w[None, None, :, None]).sum(dim=2)\n", "y = self.q(y)",
        "y = torch.stack([self.q(y), self.k(y)], dim=2).reshape(B, T, C)",
    ),
    "by a layer over all of the group": (
        "y = self.down(x.reshape(B, T // 2, 2 * C))\n", "y = F.silu(y)", "y = y.unsqueeze(2).expand(-1, -1, 2, -1).reshape(B, T, C)",
    ),
    "by the later one": ("y = x[:, 1::2]\n", "y = self.q(y)", "y = torch.repeat_interleave(y, 2, dim=1)"),
    "both neighbours": ("y = 0.5 * (x[:, 0::2] + x[:, 1::2])\n", "y = self.q(y)", "y = y[:, :, None, :].expand(B, T // 2, 2, C).reshape(B, -1, C)"),
    "by a pool": ("y = F.avg_pool1d(x.transpose(1, 2), 4).transpose(1, 2)\n", "y = self.q(y)", "y = y.repeat_interleave(4, 1)"),
    "by a filter": (
        "y = self.conv(x.transpose(1, 2)).transpose(1, 2)\n", "y = self.q(y)",
        'y = F.interpolate(y.transpose(1, 2), scale_factor=4, mode="nearest").transpose(1, 2)',
    ),
    "filled up": (
        "n = -T % 2\nz = x\nif n > 0:\n    z = F.pad(z, (0, 0, 0, n))\nt = z.shape[1]\ny = z.reshape(B, t // 2, 2, C).sum(dim=2)\n",
        "y = self.q(y)", "y = y.repeat_interleave(2, dim=1)",
    ),
}  # fmt: skip
GROUP_LAYERS = "self.down = nn.Linear(2 * dim, dim)\nself.w = nn.Parameter(torch.ones(heads))\nself.conv = nn.Conv1d(dim, dim, 4, stride=4)"
ILLEGAL |= {f"groups {name}": model(a + b + "\n" + c + ADDED, GROUP_LAYERS) for name, (a, b, c) in GROUPS.items()}
for _name, (_a, _b, _c) in GROUPS.items():
    for _how, _text in {
        "moved on by zeros": "y = F.pad(y, (0, 0, 1, 0))[:, :-1]\n",
        "moved on by a row in front": "y = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], dim=1)\n",
        "rolled on": "y = torch.roll(y, 1, dims=1)\ny[:, 0] = 0\n",
    }.items():
        LEGAL[f"groups {_name}, {_how}"] = model(_a + _b + "\n" + _text + _c + ADDED, GROUP_LAYERS)
    LEGAL[f"groups {_name}, moved on later"] = model(
        _a + _b + "\n" + _c + "\ny = F.pad(y, (0, 0, 4, 0))[:, :T]\nx = x + y", GROUP_LAYERS
    )
    LEGAL[f"groups {_name}, for a loss"] = model(_a + _b + "\nself.extra = self.k(y).square().mean()", GROUP_LAYERS)
LEGAL |= {
    "the first of each group": model("y = x.view(B, T // 2, 2, C)[:, :, 0]\ny = y.repeat_interleave(2, dim=1)" + ADDED),
    "the earlier of each pair": model("y = x[:, ::2].repeat_interleave(2, dim=1)" + ADDED),
    "heads of a position are summed": model("y = x.view(B, T, self.heads, C // self.heads).sum(2)\nx = x + y.repeat(1, 1, self.heads)"),
    "groups that only the last position reads": model(
        PAIRS + "y = y.repeat_interleave(2, dim=1)\nlast = (torch.arange(T) % 2 == 1)[None, :, None]\nx = x + y * last"
    ),
    "groups that attend to earlier ones": model(
        PAIRS + "g = T // 2\nq, k, v = (p(y).view(B, g, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))\n"
        "y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, g, C)\nself.extra = self.out(y).mean()"
    ),
    "groups in another shape": model(PAIRS + "y = self.q(y.reshape(B, -1, C))\ny = y.view(B, T // 2, C)\nself.extra = self.out(y).mean()"),
    "groups that begin late": model("y = F.pad(x, (0, 0, 1, -1)).view(B, T // 2, 2, C).mean(dim=2)\nx = x + y.repeat_interleave(2, dim=1)"),
}

MERGES = """\
class Cast(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))

class Merge(nn.Module):
    def __init__(self, dim, factor=2):
        super().__init__()
        self.factor, self.proj = factor, Cast(dim, dim, bias=False)
        self.gate = nn.Parameter(torch.ones(factor) / factor)
    def forward(self, x):
        B, T, D = x.shape
        f = self.factor
        pad = (f - T % f) % f
        if pad > 0:
            x = F.pad(x, (0, 0, 0, pad))
        filled = x.shape[1]
        x = x.reshape(B, filled // f, f, D)
        gate = F.softmax(self.gate.to(dtype=x.dtype), dim=0)
        return self.proj((x * gate[None, None, :, None]).sum(dim=2))

class Unmerge(nn.Module):
    def __init__(self, dim, factor=2):
        super().__init__()
        self.factor, self.projs = factor, nn.ModuleList([Cast(dim, dim, bias=False) for _ in range(factor)])
    def forward(self, x, length):
        B, G, D = x.shape
        SHIFT
        each = [proj(x) for proj in self.projs]
        return torch.stack(each, dim=2).reshape(B, G * self.factor, D)[:, :length, :]

class Layer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.mix = nn.Linear(dim, dim)
    def forward(self, x):
        INSIDE
        return x + F.gelu(self.mix(x))

"""


def merges(shift: str = "pass", inside: str = "pass") -> str:
    return model(
        "x = x + self.unmerge(self.layer(self.merge(x)), T)", "self.merge, self.unmerge, self.layer = Merge(dim), Unmerge(dim), Layer(dim)",
        before=MERGES.replace("SHIFT", shift).replace("INSIDE", inside),
    )  # fmt: skip


ILLEGAL["layers that merge and put back"] = merges()
LEGAL["the same, moved on before it is put back"] = merges("x = F.pad(x, (0, 0, 1, 0))[:, :-1]")
LEGAL["the same, moved on in a layer"] = merges(inside="x = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)")

WRAPPED = """\
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.mix, self.head = nn.Embedding(1024, 64), nn.Linear(64, 64), nn.Linear(64, 1024)
    def forward(self, ids):
        x = self.emb(ids)
        x = x + F.gelu(self.mix(x))
        SHAPE
        return self.head(x)

class Scaled(nn.Module):
    def __init__(self, net, by=1.0):
        super().__init__()
        self.net, self.by = net, by
    def forward(self, ids):
        z = self.net(ids)
        return CHANGE

net = Net()
net = MADE
print(f"val_bpb:{evaluate(Scaled(net), val):.4f}")
"""


def wrapped(change: str, shape: str = "pass", made: str = "torch.compile(net)") -> str:
    text = WRAPPED.replace("CHANGE", change).replace("SHAPE", shape).replace("MADE", made)
    return PRELUDE + text.replace("self.net, self.by = net, by", "self.net = net\n        self.by = by")


NORMED = model("x = self.n(x.transpose(1, 2)).transpose(1, 2)", "self.n = nn.BatchNorm1d(dim)")
ILLEGAL |= {
    "a wrapper takes the window's mean away": wrapped("z - z.mean(1, keepdim=True)"),
    "a wrapper scales by the window": wrapped("z / (z.std(dim=1, keepdim=True) + 1e-5)", made="net.to('cuda')"),
    "a wrapper adds the window's last": wrapped("z + self.by * z[:, -1:]"),
    "statistics of the batch while it is scored": NORMED,
}
LEGAL |= {
    "a wrapper takes the mean over tokens away": wrapped("z - z.mean(-1, keepdim=True)"),
    "a wrapper normalises": wrapped("z - z.logsumexp(-1, keepdim=True)"),
    "a wrapper scales by a setting": wrapped("z * self.by"),
    "a wrapper around rows": wrapped("z - z.mean(1, keepdim=True)", shape="x = x.reshape(-1, x.size(-1))"),
    "a wrapper around something else": wrapped("z - z.mean(1, keepdim=True)", made="load('net')"),
    "running statistics": NORMED.replace("evaluate(Wide(), val)", "evaluate(Wide().eval(), val)"),
    "running statistics, in evaluation mode": NORMED.replace("evaluate(Wide(), val)", "evaluate(Wide().train(False), val)"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_later_positions_are_seen(name):
    found, whole = audited(ILLEGAL[name])
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations
    assert whole.verdict == "violation"


@pytest.mark.parametrize("name", LEGAL)
def test_a_look_alike_is_not_accused(name):
    found, _ = audited(LEGAL[name])
    assert not [f for f in found if f.confidence != "low"]


BYTES = """\
class Spelled(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.emb, self.head = nn.Embedding(256, dim), nn.Linear(dim, 1024)
        self.bytes_of = torch.zeros(1024, 16, dtype=torch.long)
        self.mix = Inner(dim)
    def forward(self, ids):
        B, T = ids.shape
        e = self.emb(self.bytes_of[ids].view(-1, 16))
        return self.head(self.mix(e).mean(dim=1).view(B, T, -1))

class Inner(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
    def forward(self, x):
        return F.softmax(self.q(x) @ self.k(x).transpose(1, 2), dim=-1) @ self.v(x)

print(f"val_bpb:{evaluate(Spelled(), val):.4f}")
"""


def test_bytes_of_one_token_may_see_each_other():
    found, whole = audited(PRELUDE + BYTES)
    assert not found and whole.verdict == "clean"


def test_a_branch_that_nothing_decides_leaves_doubt():
    body = HEADS + "a = q @ k.mT\nif T < len(self.heads):\n    y = a.softmax(-1) @ v\nelse:\n    y = (a + self.keep.log()).softmax(-1) @ v" + BACK
    found, whole = audited(model(body))
    assert [f.confidence for f in found] == ["low"] and whole.verdict == "undetermined"


def test_a_parameter_that_a_caller_may_open_the_mask_with_leaves_doubt():
    sdpa = "y = F.scaled_dot_product_attention(q, k, v{})\n"
    body = HEADS + "if memory:\n    " + sdpa.format("") + "else:\n    " + sdpa.format(", is_causal=True") + BACK.strip()
    findings, found = audited(model(body))
    assert [(f.severity, f.confidence) for f in findings] == [("warning", "low")] and found.verdict == "undetermined"


def test_a_branch_that_the_settings_close_says_nothing():
    body = HEADS + "a = q @ k.mT\nif self.causal:\n    a = a + self.keep[:T, :T].log()\ny = a.softmax(-1) @ v" + BACK
    for causal, verdict in (("True", "clean"), ("False", "violation")):
        assert audited(model(body, f"self.causal = {causal}"))[1].verdict == verdict


def test_a_masked_diffusion_model_is_not_accused():
    hide = "def hide(ids, rate):\n    return torch.where(torch.rand(ids.shape) < rate, 1023, ids)\n\n"
    found, whole = audited(model(PLAIN + "x = F.softmax(q @ k.mT, -1) @ v", before=hide))
    assert [f.confidence for f in found] == ["low"] and whole.verdict == "undetermined"
