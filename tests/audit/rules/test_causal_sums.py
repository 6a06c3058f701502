"""F17: sums over the window that positions read back, states moved around its end, and places that are looked up."""

from __future__ import annotations

import pytest

from tests.audit.rules.causal_models import audited
from tests.audit.rules.test_causal_shapes import BACK, HEADS, PLAIN, ROWS, model

FLASH = "x = flash_attn_func(q, k, v, {}).reshape(B, T, C)"
ILLEGAL = {
    "linear attention without a mask": model(PLAIN + "x = q @ (k.transpose(1, 2) @ v)"),
    "the same with heads": model(HEADS + "kv = k.transpose(-2, -1) @ v\ny = q @ kv" + BACK),
    "the same with a feature map": model(HEADS + "q, k = F.elu(q) + 1, F.elu(k) + 1\ny = torch.matmul(q, torch.matmul(k.mT, v))" + BACK),
    "the same by einsum": model(PLAIN + 'm = torch.einsum("bti,btj->bij", k, v)\nx = torch.einsum("bti,bij->btj", q, m)'),
    "the same, given to every position": model(
        PLAIN + 'm = torch.einsum("bti,btj->bij", k, v).unsqueeze(1).expand(-1, T, -1, -1)\nx = torch.einsum("bti,btij->btj", q, m)'
    ),
    "attention in one step": model(PLAIN + 'x = torch.einsum("bti,bsi,bsj->btj", q, k, v)'),
    "keys of several heads": model(
        HEADS + "k = k.repeat_interleave(2, dim=1)\nv = v.repeat_interleave(2, dim=1)\nq = q.repeat_interleave(2, dim=1)\n"
        "y = torch.softmax(q @ k.mT, dim=-1) @ v\nx = x + y.mean(1).repeat(1, 1, self.heads)"
    ),
    "what comes after it": model("c = x.cumsum(1)\nx = x + (c[:, -1:] - c)"),
    "what comes after it, with heads": model(HEADS + "c = v.cumsum(2)\ny = v + (c[:, :, -1:] - c)" + BACK),
    "and its mirror image": model("x = x + x.flip(1)"),
    "each window's largest value": model(PLAIN + 'y = torch.einsum("bti,btj->btij", q, k).sum(-1)\nx = x + y / y.norm(dim=-1, keepdim=True).amax(dim=1, keepdim=True)'),
    "a norm over time": model("x = F.normalize(x, dim=1)"),
    "a norm over time by default": model("x = x + F.normalize(x)"),
    "an instance's norm": model("x = F.instance_norm(x.transpose(1, 2)).transpose(1, 2)"),
    "the batch's own statistics": model("u = F.batch_norm(x.reshape(-1, C), None, None, training=True)\nx = x + u.view(B, T, C)"),
    "all positions of the batch in a row": model("u = x.reshape(-1, C)\nu = u - u.mean(dim=0, keepdim=True)\nx = x + u.view(B, T, C)"),
    "places that are looked up": model("at = (torch.arange(T, device=x.device) + 1).clamp(max=T - 1)\nx = x + 0.5 * x[:, at]"),
    "places around the end": model("at = (torch.arange(T) + 1) % T\nx = x + 0.5 * x.index_select(1, at)"),
    "the first place looks at the last": model("at = (torch.arange(T) - 1) % T\nx = x + 0.5 * x[:, at]"),
    "around the end": model("p = torch.roll(x, 1, dims=1)\nx = x + self.w * (p - x)", "self.w = nn.Parameter(torch.zeros(dim))"),
    "around the end, with a squeezed scale": model(
        "w = torch.sigmoid(self.w.to(x.dtype))[None, None, :]\nx = w * x + (1 - w) * x.roll(1, dims=1)", "self.w = nn.Parameter(torch.zeros(dim))"
    ),
    "flash attention that looks on by one at least": model(ROWS + FLASH.format("causal=False, window_size=(64, max(self.heads, 1))")),
    "causal in training alone": model(ROWS + FLASH.format("causal=self.training")).replace("evaluate(Wide()", "evaluate(Wide().eval()"),
    "a learned square over positions": model("x = x + torch.matmul(self.w[:T, :T].to(x.dtype), x)", "self.w = nn.Parameter(torch.zeros(1024, 1024))"),
    "a learned square by einsum": model(
        'x = x + torch.einsum("ts,bsd->btd", self.w[:T, :T].softmax(dim=-1), x)', "self.w = nn.Parameter(torch.zeros(1024, 1024))"
    ),
    "a square of ones on the wrong side": model("w = torch.triu(torch.ones(T, T))\nw = w / w.sum(-1, keepdim=True)\nx = x + w @ x"),
    "linear attention that is normalised": model(
        HEADS + 'kv = torch.einsum("bhnd,bhne->bhde", k, v)\nz = 1 / torch.einsum("bhnd,bhd->bhn", q, k.sum(dim=2))\n'
        'y = torch.einsum("bhnd,bhde,bhn->bhne", q, kv, z)' + BACK
    ),
    "the next places": model("at = torch.arange(1, T + 1).clamp(max=T - 1)\nx = x + x[:, at]"),
    "either way of a branch": model(
        HEADS + "if T > 64 * self.heads:\n    y = F.scaled_dot_product_attention(q, k, v)\nelse:\n    y = torch.softmax(q @ k.mT, -1) @ v" + BACK
    ),
}  # fmt: skip
LEGAL = {
    "a learned square with a mask": model("x = x + torch.matmul(self.w[:T, :T].tril(), x)", "self.w = nn.Parameter(torch.zeros(1024, 1024))"),
    "a learned square that is masked before": model(
        "w = self.w[:T, :T]\nw = w.masked_fill(self.keep[:T, :T] == 0, 0.0)\nx = x + w @ x", "self.w = nn.Parameter(torch.zeros(1024, 1024))"
    ),
    "a learned square times a mask": model("w = self.w * self.keep\nx = x + w[:T, :T] @ x", "self.w = nn.Parameter(torch.zeros(1024, 1024))"),
    "a learned square whose half is set to zero": model(
        "self.w.data.tril_()\nx = x + self.w[:T, :T] @ x", "self.w = nn.Parameter(torch.zeros(1024, 1024))"
    ),
    "a learned square over channels": model("x = x + x @ self.w", "self.w = nn.Parameter(torch.zeros(dim, dim))"),
    "a square of ones": model("w = torch.tril(torch.ones(T, T))\nw = w / w.sum(-1, keepdim=True)\nx = x + w @ x"),
    "linear attention with a mask": model(PLAIN + "x = (q @ k.transpose(1, 2)).tril() @ v"),
    "running sums of keys and values": model(PLAIN + 'm = torch.einsum("bti,btj->btij", k, v).cumsum(1)\nx = torch.einsum("bti,btij->btj", q, m)'),
    "chunks that read the state before them": model(
        PLAIN + "state, out = 0, []\nfor i in range(0, T, 64):\n    a, b, c = q[:, i:i + 64], k[:, i:i + 64], v[:, i:i + 64]\n"
        "    out.append(a @ state + (a @ b.mT).tril() @ c)\n    state = state + b.mT @ c\nx = torch.cat(out, 1)"
    ),
    "a state for the next window": model(PLAIN + "x = x + q @ self.state\nself.state = (k.mT @ v).detach()", "self.state = torch.zeros(1, dim, dim)"),
    "a state that is handed back": model(PLAIN + "x = self.out(x + (q @ k.mT).tril() @ v)\nreturn x, k.mT @ v"),
    "a loss over a correlation": model(PLAIN + "c = k.mT @ v / T\nself.extra = (c - torch.eye(C)).square().mean()"),
    "heads of a position": model(ROWS + "x = (q @ (k.mT @ v)).reshape(B, T, C)"),
    "what came before it": model("c = x.cumsum(1)\nx = x + (c - x)"),
    "what a chunk adds up to": model(
        "out = []\nfor i in range(0, T, 64):\n    c = x[:, i:i + 64].cumsum(1)\n    self.total = c[:, -1:] - c\n    out.append(c)\nx = torch.cat(out, 1)"
    ),
    "the last state alone": model("self.last = x[:, -1:].detach()\nx = self.q(x)"),
    "channels mirrored": model("x = x + x.flip(-1)"),
    "mirrored and back": model("x = self.q(x.flip(1)).flip(1)"),
    "a running largest value": model("x = x / x.norm(dim=-1, keepdim=True).cummax(dim=1).values"),
    "shares without overflow": model(
        "s = self.q(x)\nw = (s - s.view(B, T, -1).amax(dim=(1, 2), keepdim=True)).exp()\nx = (w * x).cumsum(1) / w.cumsum(1)"
    ),
    "a norm over channels": model("x = F.normalize(x, dim=-1)"),
    "a norm over channels with heads": model(HEADS + "q, k = F.normalize(q, dim=-1), F.normalize(k, dim=3)\ny = F.scaled_dot_product_attention(q, k, v, is_causal=True)" + BACK),
    "running statistics": model("u = F.batch_norm(x.transpose(1, 2), self.m, self.s, training=False)\nx = x + u.transpose(1, 2)"),
    "rows by themselves": model("u = x.reshape(-1, C)\nu = u - u.mean(dim=1, keepdim=True)\nx = x + u.view(B, T, C)"),
    "a figure that is logged": model("u = x.reshape(-1, C)\nself.note = (u - 1).mean(dim=0)\nx = self.q(u).view(B, T, C)"),
    "a loss over shares": model("p = self.q(x.reshape(-1, C)).softmax(-1)\nself.aux = (p.mean(0) * p.mean(0)).sum()\nx = self.k(x)"),
    "places before": model("at = (torch.arange(T, device=x.device) - 1).clamp(min=0)\nx = x + 0.5 * x[:, at]"),
    "each place itself": model("x = x + x[:, torch.arange(T)]"),
    "moved on and mended": model("p = torch.roll(x, 1, dims=1)\np[:, 0] = 0\nx = x + 0.1 * p"),
    "moved on and masked": model("p = x.roll(1, dims=1)\nfirst = torch.arange(T)[None, :, None] > 0\nx = x + 0.1 * p * first"),
    "moved on and filled": model("p = x.roll(1, dims=1)\nfirst = torch.arange(T)[None, :, None] == 0\nx = x + 0.1 * p.masked_fill(first, 0.0)"),
    "moved on and joined": model("p = x.roll(1, dims=1)\np = torch.cat([torch.zeros_like(x[:, :1]), p[:, 1:]], dim=1)\nx = x + p"),
    "flash attention over a window that ends at the position": model(ROWS + FLASH.format("causal=False, window_size=(64, max(0, 0))")),
    "free in training alone": model(ROWS + FLASH.format("causal=not self.training")).replace("evaluate(Wide()", "evaluate(Wide().eval()"),
    "a part for training": model("if self.training:\n    x = x - x.mean(dim=1, keepdim=True)\nx = self.q(x)").replace("evaluate(Wide()", "evaluate(Wide().eval()"),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_later_positions_are_seen(name):
    found, whole = audited(ILLEGAL[name])
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations
    assert whole.verdict == "violation"


@pytest.mark.parametrize("name", LEGAL)
def test_a_look_alike_is_not_accused(name):
    found, _ = audited(LEGAL[name])
    assert not found
