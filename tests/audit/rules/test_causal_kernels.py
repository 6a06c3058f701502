"""F17: kernels that run along time, given the window turned around or read at its end; order, scale and size of the window."""

from __future__ import annotations

import pytest

from tests.audit.rules.causal_models import audited
from tests.audit.rules.test_causal_shapes import HEADS, PLAIN, ROWS, model

FLA = "from fla.ops.gated_delta_rule import chunk_gated_delta_rule as _rule\nfrom fla.modules.convolution import causal_conv1d\n\n"
SCAN = "self.scan = selective_scan_fn"
MAMBA = "from mamba_ssm.ops.selective_scan_interface import selective_scan_fn\nfrom mamba_ssm import Mamba\n\n"
OUT = "\nx = o.reshape(B, T, C)"
BACKWARDS = "q, k, v = q.flip(1), k.flip(1), v.flip(1)\n"
CONV = "def filtered(x, conv):\n    out = causal_conv1d(x=x, weight=conv.weight.squeeze(1), bias=conv.bias)\n    return out[0] if isinstance(out, tuple) else out\n\n"
ILLEGAL = {
    "turned around and back": model(ROWS + BACKWARDS + "o, _ = _rule(q=q, k=k, v=v)\no = o.flip(1)" + OUT, before=FLA),
    "half of the heads": model(
        ROWS + "o, _ = _rule(q, k, v)\nr, _ = _rule(q.flip(1), k.flip(1), v.flip(1))\no = torch.cat([o[:, :, :2], r.flip(1)[:, :, 2:]], dim=2)" + OUT, before=FLA
    ),
    "keys alone": model(ROWS + "o, _ = _rule(q, k.flip(1), v)" + OUT, before=FLA),
    "in a helper that takes the first of several": model(
        "u = filtered(self.q(x).flip(1), self.conv).flip(1)\nx = x + u", "self.conv = nn.Conv1d(dim, dim, 4, groups=dim)", before=FLA + CONV
    ),
    "the last state is read back": model(
        ROWS + 'o, s = _rule(q=q, k=k, v=v, output_final_state=True)\no = o + torch.einsum("bthd,bhde->bthe", q, s)' + OUT, before=FLA
    ),
    "the last state starts the same window": model(
        ROWS + "o, s = _rule(q, k, v, output_final_state=True)\no, _ = _rule(q, k, v, initial_state=s)" + OUT, before=FLA
    ),
    "a scan that the object holds": model(
        "u = self.q(x).transpose(1, 2).flip(-1)\no = self.scan(u, u, self.a, u, u)\nx = x + o.flip(-1).transpose(1, 2)", SCAN, before=MAMBA
    ),
    "a library's layer": model("x = x + self.m(x.flip(1)).flip(1)", "self.m = Mamba(d_model=dim)", before=MAMBA),
    "a recurrent layer": model("u, _ = self.g(x.flip(1))\nx = x + u.flip(1)", "self.g = nn.GRU(dim, dim, batch_first=True)"),
    "causal attention from the end": model(
        HEADS + "q, k, v = q.flip(2), k.flip(2), v.flip(2)\ny = F.scaled_dot_product_attention(q, k, v, is_causal=True).flip(2)\nx = y.transpose(1, 2).reshape(B, T, C)"
    ),
    "values in their order": model("x = x + x.sort(dim=1).values"),
    "one scale for the window": model("s = x.abs().max()\nx = self.q(x / s)"),
    "one scale for the window, as a norm": model("x = self.q(x / (x.norm() + 1e-5))"),
    "largest values over time": model("x = self.q(x / x.abs().max(dim=1, keepdim=True)[0])"),
    "fewer positions and back": model(
        "d = F.interpolate(x.transpose(1, 2), scale_factor=0.25, mode='linear')\nx = x + F.interpolate(d, size=T, mode='linear').transpose(1, 2)"
    ),
    "a filter cut in the middle": model(
        "u = self.conv(x.transpose(1, 2))[..., self.conv.padding[0] // 2:][..., :T]\nx = x + u.transpose(1, 2)", "self.conv = nn.Conv1d(dim, dim, 4, padding=3)"
    ),
}  # fmt: skip
LEGAL = {
    "forwards": model(ROWS + "o, _ = _rule(q=q, k=k, v=v)" + OUT, before=FLA),
    "turned around twice": model(ROWS + BACKWARDS + BACKWARDS + "o, _ = _rule(q=q, k=k, v=v)" + OUT, before=FLA),
    "heads in another order": model(ROWS + "o, _ = _rule(q.flip(2), k.flip(2), v.flip(2))\no = o.flip(2)" + OUT, before=FLA),
    "a norm over what was turned around": model("x = x + F.rms_norm(x.flip(1), (C,)).flip(1)", before=FLA),
    "a state for the next window": model(
        ROWS + "o, s = _rule(q=q, k=k, v=v, initial_state=self.state, output_final_state=True)\nself.state = s.detach()" + OUT,
        "self.state = None", before=FLA,
    ),
    "a state for the second half": model(
        ROWS + "h = T // 2\na, s = _rule(q[:, :h], k[:, :h], v[:, :h], output_final_state=True)\n"
        "b, _ = _rule(q[:, h:], k[:, h:], v[:, h:], initial_state=s)\no = torch.cat([a, b], dim=1)" + OUT, before=FLA,
    ),
    "a state for the next chunk": model(
        ROWS + "s, parts = None, []\nfor i in range(0, T, 64):\n    o, s = _rule(q[:, i:i + 64], k[:, i:i + 64], v[:, i:i + 64], initial_state=s, output_final_state=True)\n"
        "    parts.append(o)\no = torch.cat(parts, 1)" + OUT, before=FLA,
    ),
    "the script's own function of that name": model(
        ROWS + "o = _rule(q.flip(1), k, v).flip(1)\nx = self.q(x)", before=FLA + "def _rule(q, k, v):\n    return q\n\n"
    ),
    "a scan forwards": model("u = self.q(x).transpose(1, 2)\no = self.scan(u, u, self.a, u, u)\nx = x + o.transpose(1, 2)", SCAN, before=MAMBA),
    "a recurrent layer forwards": model("u, _ = self.g(x)\nx = x + u", "self.g = nn.GRU(dim, dim, batch_first=True)"),
    "values in their order, over channels": model("x = x + x.sort(dim=-1).values"),
    "each position's scale": model("s = x.abs().max(dim=-1, keepdim=True)[0]\nx = self.q(x / s)"),
    "a scale of the weights": model("s = self.q.weight.abs().max()\nx = self.q(x / s)"),
    "a figure that is kept": model("self.note = x.abs().max().item()\nx = self.q(x)"),
    "no overflow": model(PLAIN + "w = (k - k.max()).exp()\nx = (w * v).cumsum(1) / w.cumsum(1)"),
    "what only keeps a parameter in use": model("x = self.q(x + 0.0 * self.k(x).sum())"),
    "shares of a loss": model(
        "w = self.share(x)\nself.aux = (w * x).mean()\nx = self.q(x)\nreturn x\ndef share(self, x):\n    w = self.k(x).sigmoid()\n    return w / w.mean()"
    ).replace("        def share", "    def share"),
    "the first of several": model(
        "d = F.interpolate(x.transpose(1, 2), scale_factor=0.25)\nx = x + F.interpolate(d, size=T).transpose(1, 2)"
    ),
    "channels made fewer": model("d = F.interpolate(x, scale_factor=0.25, mode='linear')\nx = x + F.interpolate(d, size=C, mode='linear')"),
    "a filter cut at its end": model(
        "u = self.conv(x.transpose(1, 2))[..., :-self.conv.padding[0]]\nx = x + u.transpose(1, 2)", "self.conv = nn.Conv1d(dim, dim, 4, padding=3)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_later_positions_are_seen(name):
    found, whole = audited(ILLEGAL[name])
    assert [f for f in found if f.severity == "violation" and f.active == "yes"], whole.obligations
    assert whole.verdict == "violation"


@pytest.mark.parametrize("name", LEGAL)
def test_a_look_alike_is_not_accused(name):
    found, whole = audited(LEGAL[name])
    assert not found
    assert whole.verdict != "violation"
