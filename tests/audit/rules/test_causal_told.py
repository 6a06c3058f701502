"""F17 and F7: a model that is given the tokens that it is asked for has to move them, by a position or by a patch."""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files

TEXT = """\
import glob, numpy as np, torch
import torch.nn as nn, torch.nn.functional as F

class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
    def forward(self, x):
        B, T, D = x.shape
        qkv = self.qkv(x).reshape(B, T, 3, self.heads, self.head_dim)
        q, k, v = qkv[:, :, 0].transpose(1, 2), qkv[:, :, 1].transpose(1, 2), qkv[:, :, 2].transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().reshape(B, T, D))

MODELS

val = torch.from_numpy(np.fromfile(sorted(glob.glob("data/fineweb_val_*.bin"))[0], dtype="<u2").astype(np.int64))
n_bytes = 151_080_000

def evaluate(model, val, L=1024):
    model.eval()
    total = torch.zeros(())
    for i in range(0, val.numel() - 1, L):
        with torch.no_grad():
            SCORE
        total += nll.sum()
    return total.item() / 0.6931471805599453 / n_bytes

print(f"val_bpb:{evaluate(MODEL(), val):.4f}")
"""
_PATCHES = """\
class Cross(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
    def forward(self, x, memory):
        return F.scaled_dot_product_attention(self.q(x), self.k(memory), self.v(memory), is_causal=False)

class Patches(nn.Module):
    def __init__(self, patch=4, dim=64):
        super().__init__()
        self.patch, self.vocab = patch, 256
        self.emb, self.own = nn.Embedding(256, dim), nn.Embedding(256, dim)
        self.start = nn.Parameter(torch.zeros(dim))
        self.bos = nn.Parameter(torch.zeros(dim))
        self.conv = nn.Conv1d(dim, dim, kernel_size=3)
        self.merge = nn.Conv1d(dim, dim, kernel_size=patch, stride=patch)
        self.blocks = nn.ModuleList([Attention(dim, 4) for _ in range(2)])
        self.inner, self.cross, self.head = Attention(dim, 4), Cross(dim), nn.Linear(dim, 256)
    def encode(self, ids):
        x = self.emb(ids).transpose(1, 2)
        x = self.conv(F.pad(x, (2, 0)))
        patches = self.merge(x).transpose(1, 2)
        for block in self.blocks:
            patches = patches + block(patches)
        return patches
    def moved(self, x):
        bos = self.bos[None, None, :].expand(x.size(0), 1, -1)
        return torch.cat((bos, x[:, :-1]), dim=1)
    def forward_logits(self, ids):
        B, T = ids.shape
        memory = self.moved(self.encode(ids))
        P = memory.size(1)
        own = ids.view(B, P, self.patch)
        start = self.start[None, None, None, :].expand(B, P, 1, -1)
        x = torch.cat((start, self.own(own[:, :, :-1])), dim=2)
        x = x.view(B * P, self.patch, -1)
        x = x + self.inner(x)
        x = x + self.cross(x, memory.view(B * P, 1, -1))
        return self.head(x).view(B, T, self.vocab)
"""
_BESIDE = """\
class Beside(nn.Module):
    def __init__(self, patch=4, dim=64):
        super().__init__()
        self.patch = patch
        self.emb, self.own = nn.Embedding(256, dim), nn.Embedding(256, dim)
        self.into, self.head = nn.Linear(patch * dim, dim), nn.Linear(dim, 256)
        self.start, self.block = nn.Parameter(torch.zeros(dim)), Attention(dim, 4)
    def forward_logits(self, x, y):
        full = torch.cat((x[:, :1], y), dim=1)
        B, T = full.shape
        patches = full.view(B, T // self.patch, self.patch)
        seen = self.emb(patches)
        seen = self.block(self.into(seen.reshape(B, seen.size(1), -1)))
        first = self.start[None, None, :].expand(B, 1, -1)
        seen = torch.cat((first, seen[:, :-1]), dim=1)
        before = torch.cat([full.new_full((B, 1), 1), full[:, :-1]], dim=1)
        out = self.own(before) + seen.repeat_interleave(self.patch, dim=1)
        return self.head(out)
"""
ALONE = "x = val[None, i : i + L]\n            logits = model.forward_logits(x)\n            nll = F.cross_entropy(logits.reshape(-1, 256), x.reshape(-1), reduction='none')"
BOTH = (
    "local = val[i : i + L + 1]\n            x = local[:-1].reshape(1, L)\n            y = local[1:].reshape(1, L)\n"
    "            logits = model.forward_logits(x, y)\n            nll = F.cross_entropy(logits[:, 1:].reshape(-1, 256), y.reshape(-1), reduction='none')"
)
PATCHES = TEXT.replace("MODELS", _PATCHES).replace("SCORE", ALONE).replace("MODEL", "Patches")
BESIDE = TEXT.replace("MODELS", _BESIDE).replace("SCORE", BOTH).replace("MODEL", "Beside")
SHIFT = "torch.cat((bos, x[:, :-1]), dim=1)"
NEXT = "torch.cat((first, seen[:, :-1]), dim=1)"
PREVIOUS = "torch.cat([full.new_full((B, 1), 1), full[:, :-1]], dim=1)"
ILLEGAL = {
    "patches that are not moved": (PATCHES, SHIFT, "x"),
    "patches moved around the end": (PATCHES, SHIFT, "x.roll(1, dims=1)"),
    "the patch's own bytes, unmoved": (PATCHES, "torch.cat((start, self.own(own[:, :, :-1])), dim=2)", "self.own(own)"),
    "moved back instead of on": (PATCHES, "x = torch.cat((start, self.own(own[:, :, :-1])), dim=2)", "x = torch.cat((self.own(own[:, :, :-1])[:, :, :1], self.own(own[:, :, 1:])), dim=2)\n        x = self.own(own) + start"),
    "bytes moved on by less than a patch": (
        PATCHES, "memory = self.moved(self.encode(ids))", "memory = self.encode(F.pad(ids[:, :-3], (3, 0)))"
    ),
    "beside: patches that are not moved": (BESIDE, NEXT, "seen"),
    "beside: patches moved around the end": (BESIDE, NEXT, "seen.roll(1, dims=1)"),
    "beside: bytes that are not moved": (BESIDE, PREVIOUS, "torch.cat([full[:, :1], full[:, 1:]], dim=1)"),
}  # fmt: skip
LEGAL = {
    "patches moved on": (PATCHES, "", ""),
    "moved on by padding": (PATCHES, SHIFT, "F.pad(x[:, :-1], (0, 0, 1, 0))"),
    "moved around the end, and mended": (PATCHES, "return " + SHIFT, "x = x.roll(1, dims=1)\n        x[:, 0] = self.bos\n        return x"),
    "moved on by two": (PATCHES, SHIFT, "torch.cat((bos, torch.cat((bos, x[:, :-1]), dim=1)[:, :-1]), dim=1)"),
    "bytes moved on by a patch": (
        PATCHES, "memory = self.moved(self.encode(ids))", "memory = self.encode(F.pad(ids[:, :-4], (4, 0)))"
    ),
    "kept by the object and not read": (PATCHES, "patches = self.merge(x).transpose(1, 2)", "patches = self.merge(x).transpose(1, 2)\n        self.kept = patches"),
    "beside": (BESIDE, "", ""),
    "beside, moved on by padding": (BESIDE, NEXT, "F.pad(seen[:, :-1], (0, 0, 1, 0)) + first"),
}
#: neither shown to see their targets nor shown not to: whatever else is done to them on the way
UNSHOWN = {
    "a filter that is moved": (PATCHES, "F.pad(x, (2, 0))", "F.pad(x, (1, 1))"),
    "read from the object": (PATCHES, "memory = self.moved(self.encode(ids))", "self.kept = self.encode(ids)\n        memory = self.moved(self.kept) + self.kept"),
    "written into what the object keeps": (PATCHES, "memory = self.moved(self.encode(ids))", "memory = self.moved(self.encode(ids))\n        self.bos.copy_(self.encode(ids)[0, 0])"),
    "a look at all patches": (PATCHES, "memory.view(B * P, 1, -1)", "memory.repeat_interleave(P, dim=0)"),
    "windows in another order": (PATCHES, "memory = self.moved(self.encode(ids))", "memory = self.moved(self.encode(ids.flip(0)))"),
    "a token decides": (PATCHES, "P = memory.size(1)", "P = memory.size(1)\n        if ids[0, -1] == 3:\n            memory = memory + 1"),
    "something is added": (PATCHES, "return self.head(x).view(B, T, self.vocab)", "return self.head(x).view(B, T, self.vocab) + F.one_hot(ids, 256)"),
    "another step": (PATCHES, "kernel_size=patch, stride=patch)", "kernel_size=2 * patch, stride=patch, padding=patch // 2)"),
    "a mean": (PATCHES, "return patches\n", "return patches - patches.mean(dim=1, keepdim=True)\n"),
    "a norm over time": (PATCHES, "return patches\n", "return F.normalize(patches, dim=1)\n"),
}  # fmt: skip


def audited(text: str, old: str, new: str):
    assert not old or old in text
    return audit_files(text_files({"train_gpt.py": text.replace(old, new) if old else text}, "train_gpt.py"), Options(rules=frozenset({"F7", "F17"})))


@pytest.mark.parametrize("name", ILLEGAL)
def test_a_model_that_sees_its_targets(name):
    found = audited(*ILLEGAL[name])
    assert found.verdict == "violation", found.reason
    assert [f for f in found.findings if f.rule == "F17" and f.severity == "violation" and f.active == "yes"]


@pytest.mark.parametrize("name", LEGAL)
def test_a_model_that_moves_them_is_clean(name):
    found = audited(*LEGAL[name])
    assert found.verdict == "clean", found.reason


@pytest.mark.parametrize("name", UNSHOWN)
def test_what_is_not_shown_stays_open(name):
    found = audited(*UNSHOWN[name])
    assert found.verdict != "clean"


def test_rebuilding_its_input_is_no_score():
    """An auxiliary loss that asks a model for its own input says nothing about what is scored."""
    aux = "\ndef rebuilt(model, x):\n    logits = model.rebuild(x)\n    return F.cross_entropy(logits.reshape(-1, 256), x.reshape(-1))\n"
    text = PATCHES.replace("\ndef evaluate", aux + "\ndef evaluate").replace("    def encode(self", "    def rebuild(self, ids):\n        return self.head(self.emb(ids))\n    def encode(self")
    assert audited(text, "", "").verdict == "clean"
