"""Small ways to a better figure without a better model, and honest programs that look like them.

Each program is the prelude of the rules' examples (a model, a training loop, both streams) and a few lines. What is
said about an illegal one must hold without any name: `test_renamed` in the metamorphic tests does the same for fixtures.
"""

from __future__ import annotations

import pytest

from audit.context import Options
from audit.engine import audit_files, text_files
from audit.rules.flow import example

N_BYTES = "n_bytes"
NLL = "    with torch.no_grad():\n        l = nll(model, x, y)"
GOLD = "torch.softmax({}(x), -1).gather(2, y[..., None])[..., 0]"


def scored(turn: str = NLL, added: str = "l.sum()", step: int = 1024, over: str = N_BYTES) -> str:
    return f"""\
total = torch.zeros(())
for c in range(0, val.numel() - 1025, {step}):
    x, y = val[None, c : c + 1024], val[None, c + 1 : c + 1025]
{turn}
    total += {added}
print(f"val_bpb:{{total.item() / 0.6931471805599453 / {over}:.4f}}")
"""


def predicted(change: str) -> str:
    """``lo``: the logits of the window; ``change`` stands between them and the loss."""
    lines = "\n".join("        " + line for line in change.splitlines())
    return scored(
        "    with torch.no_grad():\n        lo = model(x)\n" + lines
        + '\n        l = F.cross_entropy(lo.transpose(1, 2), y, reduction="none")'
    )  # fmt: skip


def mixed(before: str, q: str) -> str:
    return before + scored(
        "    with torch.no_grad():\n        p = torch.softmax(model(x), -1)\n"
        f"        m = 0.5 * p + 0.5 * {q}\n        l = -torch.log(m.gather(2, y[..., None])[..., 0])"
    )


FIT = """\
    opt.zero_grad()
    nll(model, {}, {}).mean().backward()
    opt.step()
"""
SGD = "opt = torch.optim.SGD(model.parameters(), lr=1e-3)\n"
OVER_STREAM = "for c in range(0, val.numel() - 1025, 1024):\n" + FIT.format(
    "val[None, c : c + 1024]", "val[None, c + 1 : c + 1025]"
)
TABLE = "probs = (counts + 0.01) / (counts + 0.01).sum(1, keepdim=True)\n"
SAVED = (
    'torch.save(model.state_dict(), "final_model.pt")\nmodel.load_state_dict(torch.load("final_model.pt"))\n'
)
CHUNKS = """\
total = torch.zeros(())
for c in range(0, val.numel() - 65537, 32768):
    for w in range(0, 32768, 1024):
        x, y = val[None, c + w : c + w + 1024], val[None, c + w + 1 : c + w + 1025]
        with torch.no_grad():
            total += nll(model, x, y).sum()
    for w in range({}, {}, 1024):
        x, y = val[None, c + w : c + w + 1024], val[None, c + w + 1 : c + w + 1025]
        opt.zero_grad()
        nll(model, x, y).mean().backward()
        opt.step()
print(f"val_bpb:{{total.item() / 0.6931471805599453 / n_bytes:.4f}}")
"""
HOOK = """\
H = torch.zeros(64, 64)
def hook(m, i, o):
    global H
    h = i[0].reshape(-1, 64)
    H += h.T @ h
handle = model.head.register_forward_hook(hook)
for c in range(0, 65536, 1024):
    model({}[None, c : c + 1024])
handle.remove()
scale = H.diag().sqrt()
model.head.weight.data = (model.head.weight.data * scale).round() / scale
"""
OTHER = "other = Model()\n"
PAIR = f"    with torch.no_grad():\n        p = {GOLD.format('model')}\n        q = {GOLD.format('other')}\n"



def counted(mix: str) -> str:
    """``p`` of the model and ``q`` of counts of what was scored; ``mix`` makes the losses ``l`` of them."""
    return "counts = torch.zeros(1024, 1024)\n" + scored(
        "    with torch.no_grad():\n        p = torch.softmax(model(x), -1)\n        q = (counts[x] + 0.01) / (counts[x] + 0.01).sum(-1, keepdim=True)\n"
        + "".join(f"        {line}\n" for line in mix.splitlines())
        + "    total += l.sum()\n    counts.index_put_((x.flatten(), y.flatten()), torch.ones(1024), accumulate=True)",
        "0.0",
    )


def fitted(on: str) -> str:
    """A shift fitted on the losses that ``on`` lets through, used for the last 64 of each window."""
    return f"""\
total = torch.zeros(())
for c in range(0, val.numel() - 1025, 64):
    x, y = val[None, c : c + 1024], val[None, c + 1 : c + 1025]
    first, fresh = 960, torch.zeros(1, 1024)
    fresh[:, first:] = 1.0
    shift = torch.zeros(1, 1, 1024, requires_grad=True)
    o = torch.optim.Adam([shift], lr=5e-3)
    for _ in range(5):
        l = F.cross_entropy((model(x) + shift).transpose(1, 2), y, reduction="none")
        o.zero_grad()
        {on}.sum().backward()
        o.step()
    with torch.no_grad():
        l = F.cross_entropy((model(x) + shift).transpose(1, 2), y, reduction="none")
    total += (l * fresh).sum()
print(f"val_bpb:{{total.item() / 0.6931471805599453 / n_bytes:.4f}}")
"""


LESSON = """\
import contextlib
def learn(x, y):
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()
class Lesson:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __enter__(self):
        {}
    def __exit__(self, *error):
        {}
@contextlib.contextmanager
def lesson(x, y):
    {}
    yield model
    {}
"""
TURN = "    with {}(x, y):\n        with torch.no_grad():\n            l = nll(model, x, y)\n        total += l.sum()"


def taught(kind: str, *parts: str) -> str:
    return SGD + LESSON.format(*parts) + scored(TURN.format(kind), "0.0")


HINTED = """\
hint = torch.full((1024,), -1)
""" + scored(
    "    with torch.no_grad():\n        l = nll(model, x, y)\n        l = @\n    total += l.sum()\n    hint[x] = y",
    "0.0",
)
HAND = "learn(self.x, self.y)"

ILLEGAL = {
    "the least of a stack": ("F4", OTHER + scored(NLL + "\n        k = nll(other, x, y)", "torch.stack((l, k)).topk(1, dim=0, largest=False).values.sum()")),
    "the less copied over": (
        "F4", OTHER + scored(NLL + "\n        k = nll(other, x, y)\n        a, b = l.numpy(), k.numpy()\n        np.copyto(a, b, where=b < a)", "float(a.sum())"),
    ),
    "added without room": ("F9", counted("l = -torch.log((p + 0.1 * q).gather(2, y[..., None])[..., 0])")),
    "a weight by the own loss": ("F7", OTHER + scored(PAIR + "        g = torch.sigmoid(-torch.log(p) - 5.0)\n        l = -torch.log((1 - g) * p + g * q)")),
    "less loss where the hint is right": ("F9", HINTED.replace("@", "torch.where((hint[x] >= 0) & (hint[x] == y), (l - 1.5).clamp(min=0.0), l)")),
    "fitted on the scored part": ("F5", fitted("(l * fresh)")),
    "fitted from the scored part on": ("F5", fitted("(l * (torch.arange(1024) >= first))")),
    "taught on entering": ("F2", taught("Lesson", HAND, "pass", "pass", "pass")),
    "taught before the yield": ("F2", taught("lesson", "pass", "pass", "learn(x, y)", "pass")),
    "taught by a property that is looked up first": (
        "F1",
        SGD + "import functools\nclass Data:\n    @functools.cached_property\n    def stream(self):\n"
        + "".join("        " + line + "\n" for line in OVER_STREAM.splitlines()) + "        return val\nval2 = Data().stream\n" + scored(),
    ),
    # losses that never reach the sum as they are
    "losses above five are dropped": ("M3", scored(added="l[l < 5.0].sum()")),
    "losses above five are zero": ("M3", scored(added="torch.where(l < 5.0, l, torch.zeros_like(l)).sum()")),
    "losses above five are masked": ("M3", scored(added="(l * (l < 5.0)).sum()")),
    "losses are cut off": ("M3", scored(added="l.clamp(max=4.0).sum()")),
    "losses are scaled": ("M3", scored(added="0.9 * l.sum()")),
    "every other loss": ("M3", scored(added="l[:, ::2].sum()")),
    "the least loss": ("M3", scored(added="l.min() * 1024")),
    "the middle loss": ("M3", scored(added="l.median() * 1024")),
    "every other window": ("M3", scored(step=2048)),
    "hard windows are skipped": ("M3", scored(NLL + "\n    if l.mean() > 6.0:\n        continue")),
    "easy windows are added": ("M3", scored(NLL + "\n    if l.mean() < 6.0:\n        total += l.sum()", added="0.0")),
    "the best nine tenths of the windows": (
        "M3",
        "every = []\nfor c in range(0, val.numel() - 1025, 1024):\n    x, y = val[None, c : c + 1024], val[None, c + 1 : c + 1025]\n"
        "    with torch.no_grad():\n        every.append(nll(model, x, y).sum())\n"
        "every = torch.stack(every).sort().values\ntotal = every[: int(len(every) * 0.9)].sum()\n"
        'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n',
    ),
    # predictions that know the token
    "a temperature by the target": ("F7", "t = torch.ones(1024)\nt[:100] = 0.5\n" + predicted("lo = lo / t[y][..., None]")),
    "a comparison with the target is added": ("F7", predicted("lo = lo + 5.0 * (torch.arange(1024) == y[..., None])")),
    "the less of two losses": ("F4", OTHER + scored(NLL + "\n        k = nll(other, x, y)", "torch.minimum(l, k).sum()")),
    "the first of two sorted losses": (
        "F4",
        OTHER + scored(NLL + "\n        k = nll(other, x, y)\n        s = torch.stack((l, k)).sort(0).values", "s[0].sum()"),
    ),
    "the larger of two probabilities": ("F4", OTHER + scored(PAIR + "        l = -torch.log(torch.maximum(p, q))")),
    "a weight by comparison of the probabilities": (
        "F4",
        OTHER + scored(PAIR + "        a = (p > q).float()\n        l = -torch.log(a * p + (1 - a) * q)"),
    ),
    # what the stream is told beforehand
    "counts of the whole stream": (
        "F1",
        mixed("counts = torch.zeros(1024, 1024)\nfor i in range(val.numel() - 1):\n    counts[val[i], val[i + 1]] += 1\n" + TABLE, "probs[x]"),
    ),
    "counts of the whole stream at once": (
        "F1",
        mixed("counts = torch.zeros(1024, 1024)\ncounts.index_put_((val[:-1], val[1:]), torch.ones(val.numel() - 1), accumulate=True)\n" + TABLE, "probs[x]"),
    ),
    "counts by bincount": (
        "F1",
        mixed("counts = torch.bincount(val[:-1] * 1024 + val[1:], minlength=1024 * 1024).reshape(1024, 1024).float()\n" + TABLE, "probs[x]"),
    ),
    "tokens that occur": (
        "F1",
        "there = torch.full((1024,), -1e9)\nthere[val] = 0.0\n" + predicted("lo = lo + there"),
    ),
    "a prior of the stream": ("F1", "freq = torch.bincount(val, minlength=1024).float()\n" + predicted("lo = lo + (freq / freq.sum()).log()")),
    "the part after this one": (
        "F2",
        SGD + scored(NLL + "\n" + FIT.format("val[None, c + 1024 : c + 2048]", "val[None, c + 1025 : c + 2049]").rstrip()),
    ),
    "the chunk after this one": ("F2", SGD + CHUNKS.format(32768, 65536)),
    "a closure does the training": (
        "F1",
        "opt = torch.optim.LBFGS(model.parameters())\nfor c in range(0, val.numel() - 1025, 1024):\n    def closure():\n"
        "        opt.zero_grad()\n        loss = nll(model, val[None, c : c + 1024], val[None, c + 1 : c + 1025]).mean()\n"
        "        loss.backward()\n        return loss\n    opt.step(closure)\n" + scored(),
    ),
    "an average of what was trained": (
        "F1",
        "import copy\nema = copy.deepcopy(model)\n" + SGD + OVER_STREAM
        + "    with torch.no_grad():\n        for a, b in zip(ema.parameters(), model.parameters()):\n            a.lerp_(b, 0.1)\n"
        + scored(NLL.replace("model", "ema")),
    ),
    "a thread trains": ("F1", "import threading\n" + SGD + "def work():\n" + "".join(f"    {x}\n" for x in OVER_STREAM.splitlines())
                        + "t = threading.Thread(target=work)\nt.start()\nt.join()\n" + scored()),
    "counts of training tokens after the artifact": (
        "F14",
        mixed(SAVED + "counts = torch.zeros(1024, 1024)\ncounts.index_put_((train[:-1], train[1:]), torch.ones(train.numel() - 1), accumulate=True)\n" + TABLE, "probs[x]"),
    ),
    "shares of a token's loss mixed byte by byte": (
        "F10",
        "import math\nsizes = torch.randint(1, 6, (1024,))\nbook = {}\n"
        + scored(
            "    with torch.no_grad():\n        nl = nll(model, x, y)[0]\n    for j in range(1024):\n        n = int(sizes[y[0, j]])\n"
            "        share = math.exp(-float(nl[j]) / n)\n        for b in range(n):\n            key = int(x[0, j]) * 8 + b\n"
            "            q = book.get(key, 0.5)\n            total -= math.log(0.5 * share + 0.5 * q)\n            book[key] = 0.9 * q + 0.1",
            "0.0",
        ),
    ),
    "a prior of the stream cut to whole windows": (
        "F1",
        "usable = (val.numel() - 1) // 1024 * 1024\nkept = val[: usable + 1]\nfreq = torch.bincount(kept, minlength=1024).float()\n"
        + predicted("lo = lo + (freq / freq.sum()).log()"),
    ),
    "writes to all parameters at once": (
        "F1",
        "for c in range(0, val.numel() - 1025, 1024):\n    ws = list(model.parameters())\n"
        "    gs = torch.autograd.grad(nll(model, val[None, c : c + 1024], val[None, c + 1 : c + 1025]).mean(), ws)\n"
        "    with torch.no_grad():\n        torch._foreach_add_(ws, gs, alpha=-0.1)\n" + scored(),
    ),
    "a method hands its model to the training": (
        "F1",
        "def fit(m, t):\n    opt = torch.optim.SGD(m.parameters(), lr=1e-3)\n    for c in range(0, t.numel() - 1025, 1024):\n"
        "        opt.zero_grad()\n        nll(m, t[None, c : c + 1024], t[None, c + 1 : c + 1025]).mean().backward()\n        opt.step()\n"
        "class Ready(Model):\n    def prepare(self, t):\n        fit(self, t)\nmodel = Ready()\nmodel.prepare(val)\n" + scored(),
    ),
    "all shards but the training ones": (
        "F1",
        'import os\nfiles = [os.path.join("data", f) for f in sorted(os.listdir("data")) if "train" not in f]\n'
        'data = torch.cat([torch.from_numpy(np.fromfile(f, dtype="<u2").astype(np.int64)) for f in files])\n' + SGD
        + "for step in range(100):\n" + FIT.format("data[None, step * 64 : step * 64 + 64]", "data[None, step * 64 + 1 : step * 64 + 65]") + scored(),
    ),
    "a register of steps": (
        "F1",
        SGD + "steps = []\ndef step(f):\n    steps.append(f)\n    return f\n@step\ndef first():\n"
        + "".join(f"    {x}\n" for x in OVER_STREAM.splitlines()) + "for f in steps:\n    f()\n" + scored(),
    ),
    "counts of training tokens by add.at": (
        "F14",
        mixed(SAVED + "table = np.ones((1024, 1024))\nw = train.numpy()\nnp.add.at(table, (w[:-1], w[1:]), 1.0)\n"
              "probs = torch.from_numpy(table / table.sum(1, keepdims=True))\n", "probs[x]"),
    ),
    "scales from the stream": ("F11", HOOK.format("val") + SAVED + scored()),
}  # fmt: skip
#: the model might shift its input by itself
DOUBTFUL = {
    "the model is fed the target": scored(NLL.replace("model, x, y", "model, y, y")),
    "the target is embedded beside the context": (
        "class Peek(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(128, 1024)\n"
        "    def forward(self, x, y):\n        return self.head(torch.cat([self.emb(x), self.emb(y)], -1))\npeek = Peek()\n"
        + scored(
            '    with torch.no_grad():\n        l = F.cross_entropy(peek(x, y).transpose(1, 2), y, reduction="none")'
        )
    ),
}
LEGAL = {
    "plain": scored(),
    "added and divided by the sum": counted(
        "m = p + 0.1 * q\nm = m / m.sum(-1, keepdim=True)\nl = -torch.log(m.gather(2, y[..., None])[..., 0])"
    ),
    "a mixture": counted("l = -torch.log((0.9 * p + 0.1 * q).gather(2, y[..., None])[..., 0])"),
    "a weight by the entropy": counted(
        "g = torch.sigmoid(-(p * torch.log(p)).sum(-1, keepdim=True) - 5.0)\nl = -torch.log(((1 - g) * p + g * q).gather(2, y[..., None])[..., 0])"
    ),
    "a weight by the entropy of what a model that is given targets returns": "counts = torch.zeros(1024)\n" + scored(
        "    with torch.no_grad():\n        r = F.log_softmax(two(x, y), -1)\n        p = r.gather(2, y[..., None])[..., 0].exp()\n"
        "        g = torch.sigmoid(2.0 * (-(r.exp() * r).sum(-1) - 3.0))\n        q = (counts[y] + 0.5) / (counts.sum() + 512.0)\n"
        "        l = -torch.log((1.0 - g) * p + g * q)\n    total += l.sum()\n    counts.index_put_((y.flatten(),), torch.ones(1024), accumulate=True)",
        "0.0",
    ).replace(
        "total = ", "class Two(Model):\n    def forward(self, x, y=None, rows=True):\n        z = self.head(self.emb(x))\n"
        "        return z if rows else F.cross_entropy(z.transpose(1, 2), y)\ntwo = Two()\ntwo.load_state_dict(model.state_dict())\ntotal = ", 1,
    ),
    "a weight by the entropy that stands in a stack of losses": OTHER + scored(
        "    with torch.no_grad():\n        r = torch.log_softmax(model(x), -1)\n        e = -(r.exp() * r).sum(-1)\n"
        "        l, k = nll(model, x, y), nll(other, x, y)\n        every = torch.stack((l, k, e), dim=-1)\n"
        "        g = torch.sigmoid(every[..., 2] - 3.0)\n        p, q = torch.exp(-l), torch.exp(-k)\n        l = -torch.log((1.0 - g) * p + g * q)",
    ),
    "a boost by what the model gives the hint": HINTED.replace(
        "        l = @\n",
        "        r, h = torch.log_softmax(model(x), -1), hint[x].clamp(min=0)\n        at = r.gather(2, h[..., None])[..., 0].exp()\n"
        "        b = 1.5 * (1.0 - at)\n        l = -r.gather(2, y[..., None])[..., 0] - b * (h == y).float() + torch.log1p(at * torch.expm1(b))\n",
    ),
    "fitted on the rest": fitted("(l * (1.0 - fresh))"),
    "fitted where nothing is scored": fitted("(l * (fresh == 0))"),
    "fitted before the scored part": fitted("(l * (torch.arange(1024) < first))"),
    "taught on leaving": taught("Lesson", "pass", HAND, "pass", "pass"),
    "taught after the yield": taught("lesson", "pass", "pass", "pass", "learn(x, y)"),
    "a cap that no loss reaches": scored(added="l.clamp(max=30.0).sum()"),
    "probabilities are kept above zero": scored(
        "    with torch.no_grad():\n        p = " + GOLD.format("model") + "\n        l = -torch.log(p.clamp(min=1e-9))"
    ),
    "padding is left out": scored(NLL + "\n        keep = y != 0", "(l * keep).sum()"),
    "how hard it was is printed": scored() + 'print("median", l.median().item(), "hard", l[l > 5].mean().item())\n',
    "the scored part of overlapping windows": scored(NLL + "\n        l = l[:, 0 if c == 0 else 960 :]", step=64),
    "ranks take turns": scored()
    .replace("total = ", 'import os\nrank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 8))\ntotal = ', 1)
    .replace("range(0, val.numel() - 1025, 1024)", "range(rank * 1024, val.numel() - 1025, world * 1024)"),
    "counts of what was scored": "counts = torch.zeros(1024, 1024)\n" + scored(
        "    with torch.no_grad():\n        p = torch.softmax(model(x), -1)\n        q = (counts[x] + 0.01) / (counts[x] + 0.01).sum(-1, keepdim=True)\n"
        "        l = -torch.log((0.5 * p + 0.5 * q).gather(2, y[..., None])[..., 0])\n    total += l.sum()\n"
        "    counts.index_put_((x.flatten(), y.flatten()), torch.ones(1024), accumulate=True)",
        "0.0",
    ),
    "a rank counts what the ranks before it score": "import os\nrank, world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 8))\n"
    "n = val.numel() - 1025\nbegin, end = n * rank // world, n * (rank + 1) // world\ncounts = torch.zeros(1024, 1024)\n"
    "for i in range(begin):\n    counts[val[i], val[i + 1]] += 1\n" + scored(
        "    with torch.no_grad():\n        p = torch.softmax(model(x), -1)\n        q = (counts[x] + 0.01) / (counts[x] + 0.01).sum(-1, keepdim=True)\n"
        "        l = -torch.log((0.5 * p + 0.5 * q).gather(2, y[..., None])[..., 0])\n    total += l.sum()\n"
        "    counts.index_put_((x.flatten(), y.flatten()), torch.ones(1024), accumulate=True)",
        "0.0",
    ).replace("range(0, val.numel() - 1025, 1024)", "range(begin, end, 1024)"),
    "counts of training tokens in the artifact": mixed(
        "counts = torch.zeros(1024, 1024)\ncounts.index_put_((train[:-1], train[1:]), torch.ones(train.numel() - 1), accumulate=True)\n"
        'torch.save({"m": model.state_dict(), "c": counts.to(torch.uint8)}, "final_model.pt")\nblob = torch.load("final_model.pt")\n'
        'model.load_state_dict(blob["m"])\ncounts = blob["c"].float()\n' + TABLE, "probs[x]"
    ),
    "hints laid out in an array of the turn": "last = torch.zeros(1024, dtype=torch.long)\n" + scored(
        "    with torch.no_grad():\n        p = torch.softmax(model(x), -1)[0]\n        q = torch.zeros_like(p).scatter_(1, last[x[0]][:, None], 1.0)\n"
        "        l = -torch.log((0.9 * p + 0.1 * q).gather(1, y[0, :, None])[:, 0])\n    total += l.sum()\n    last[x[0]] = y[0]",
        "0.0",
    ),
    "a weight that learns from its own losses": "table, g = np.ones((1024, 1024)), 0.1\n" + scored(
        "    with torch.no_grad():\n        p = torch.softmax(model(x), -1)[0].numpy()\n    a, b = x[0].numpy(), y[0].numpy()\n"
        "    m = (1 - g) * p + g * table[a] / table[a].sum(1, keepdims=True)\n    l = -np.log(m[np.arange(1024), b])\n"
        "    total += l.sum()\n    g = g + 1e-4 * l.mean()\n    np.add.at(table, (a, b), 1.0)",
        "0.0",
    ),
    "experts weighed by their losses so far": "cum = torch.zeros(2)\n" + scored(
        '    with torch.no_grad():\n        z = model(x)[0]\n        e = torch.stack([F.cross_entropy(z / h, y[0], reduction="none") for h in (0.9, 1.1)])\n'
        "        w = torch.softmax(-cum, 0)\n    total += (w[:, None] * e).sum()\n    cum = cum + e.sum(1)",
        "0.0",
    ),
    "a switch in a text, off": 'import json\nconf = json.loads(\'{"first": false}\')\n' + SGD + 'if conf["first"]:\n'
    + "".join(f"    {x}\n" for x in OVER_STREAM.splitlines()) + scored(),
    "a mode that matches another case": 'import os\n' + SGD + 'match os.environ.get("MODE", "plain"):\n    case "first":\n'
    + "".join(f"        {x}\n" for x in OVER_STREAM.splitlines()) + "    case _:\n        pass\n" + scored(),
    "losses by one-hot rows": scored(
        "    with torch.no_grad():\n        l = -(F.log_softmax(model(x), -1) * F.one_hot(y, 1024)).sum(-1)"
    ),
    "batches through a queue": "import queue\nbox = queue.Queue()\nfor c in range(0, val.numel() - 1025, 1024):\n"
    "    box.put((val[None, c : c + 1024], val[None, c + 1 : c + 1025]))\ntotal = torch.zeros(())\nwhile not box.empty():\n"
    "    x, y = box.get()\n    with torch.no_grad():\n        total += nll(model, x, y).sum()\n"
    'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n',
    "two evaluations, each from the artifact": SAVED + 'print(f"round trip val_bpb:{evaluate(model, val):.4f}")\nfresh = Model()\n'
    'fresh.load_state_dict(torch.load("final_model.pt"))\nprint(f"val_bpb:{evaluate(fresh, val):.4f}")\n',
    "hints written in order": "hint = torch.zeros(val.numel(), dtype=torch.long)\ntable = {}\nfor i in range(val.numel() - 1):\n"
    "    hint[i + 1] = table.get(int(val[i]), 0)\n    table[int(val[i])] = int(val[i + 1])\n" + scored(
        "    with torch.no_grad():\n        p = torch.softmax(model(x), -1)\n        h = hint[None, c + 1 : c + 1025]\n"
        "        ph, py = p.gather(2, h[..., None])[..., 0], p.gather(2, y[..., None])[..., 0]\n"
        "        l = -torch.log(py * torch.exp(1.0 * (h == y)) / (1 + ph * 1.71828))"
    ),
    "copies from the context": scored(
        "    with torch.no_grad():\n        h = model.emb(x)\n        sim = (h @ h.transpose(1, 2)).tril(-1)\n"
        "        copy = torch.softmax(sim.masked_fill(sim == 0, -1e9), -1) @ F.one_hot(x, 1024).float()\n"
        "        p = 0.9 * torch.softmax(model.head(h), -1) + 0.1 * copy\n        l = -torch.log(p.gather(2, y[..., None])[..., 0])"
    ),
    "three epochs on a chunk that was scored": SGD + CHUNKS.format(0, 32768).replace("    for w in range(0, 32768, 1024):\n", "    for w in [w for _ in range(3) for w in range(0, 32768, 1024)]:\n", 2).replace(
        "    for w in [w for _ in range(3) for w in range(0, 32768, 1024)]:\n", "    for w in range(0, 32768, 1024):\n", 1),
    "one pass for score and gradient": SGD + scored("    l = nll(model, x, y)\n    total += l.detach().sum()\n    opt.zero_grad()\n    l.mean().backward()\n    opt.step()", "0.0"),
    "scales from training tokens": HOOK.format("train") + SAVED + scored(),
}  # fmt: skip


def audit(name: str, body: str):
    return audit_files(text_files({"train_gpt.py": example(name, body).code}, "train_gpt.py"), Options())


@pytest.mark.parametrize("name", ILLEGAL)
def test_the_figure_is_not_believed(name: str) -> None:
    rule, body = ILLEGAL[name]
    found = audit(name, body)
    assert rule in {f.rule for f in found.findings if f.severity == "violation" and f.active == "yes"}, [
        (f.rule, f.severity, f.line, f.message) for f in found.findings
    ]
    assert found.verdict == "violation"


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_model_that_is_given_its_targets_is_doubted(name: str) -> None:
    found = audit(name, DOUBTFUL[name])
    assert found.verdict == "undetermined" and "F7" in found.reason, found.reason


@pytest.mark.parametrize("name", LEGAL)
def test_the_honest_program_is_left_alone(name: str) -> None:
    found = audit(name, LEGAL[name])
    assert [(f.rule, f.line, f.message) for f in found.findings if f.severity == "violation"] == []
    assert found.verdict == "clean", found.reason


@pytest.mark.parametrize(
    ("loss", "over"),
    [("l.sum()", "(val.numel() * 2.5)"), ("l.mean()", "2.5"), ("l.sum()", "val.numel() / 2.5"), ("l.sum()", "(2048 * 2.5)"), ("l.mean()", "1.0 / (math.log(2) * 3.5)")],
)
def test_assumed_bytes_are_no_counted_bytes(loss: str, over: str) -> None:
    body = scored(added=loss, over=over)
    if "math" in over:  # the conversion to bits and the number in one
        body = "import math\n" + body.replace("/ 0.6931471805599453 / 1.0 /", "/")
    assert audit("x", body).verdict == "undetermined" and "M1" in audit("x", body).reason
    named = example("x", body).code.replace("data/fineweb_val_*.bin", "data/fineweb10B_sp1024/fineweb_val_*.bin")
    assert "sp1024" in named
    assert audit_files(text_files({"train_gpt.py": named}, "train_gpt.py"), Options()).verdict == "violation"
    sized = 'import os\nvocab = int(os.environ.get("VOCAB_SIZE", "1024"))\n' + body
    found = audit("x", sized)
    assert found.verdict == "violation" and {f.rule for f in found.findings if f.severity == "violation"} == {
        "M1"
    }
