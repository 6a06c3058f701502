"""M3 in numbers: which targets a loop never scores, and losses that are made smaller on their way to the sum."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
LOSS = "with torch.no_grad():\n    l = nll(model, w[None, :-1], w[None, 1:])"


def accused(body: str, rule: str = "M3") -> list[str]:
    report = audit_text(PRELUDE + "total = torch.zeros(())\n" + body + END)
    return [f.message for f in report.findings if f.severity == "violation" and f.active == "yes" and f.rule == rule]


def walk(loop: str, window: str, added: str = "l.sum()", loss: str = LOSS) -> str:
    lines = [f"w = {window}", *loss.splitlines(), *(f"total += {a}" for a in added.split(" ; "))]
    return loop + "\n" + "".join(f"    {line}\n" for line in lines)


BY_960 = "for i in range(0, val.numel() - 1, 960):"
BY_1024 = "for i in range(0, val.numel() - 1, 1024):"
RANKS = """\
for r in range(8):
    for c in range({}):
        w = val[{}]
        with torch.no_grad():
            total += nll(model, w[None, :-1], w[None, 1:]).sum()
"""
TWICE = """\
for c in range(0, val.numel() - 1, 2048):
    w = val[c : c + 1025]
    with torch.no_grad():
        total += nll(model, w[None, :-1], w[None, 1:]).sum()
for c in range({}, val.numel() - 1, 2048):
    w = val[c : c + 1025]
    with torch.no_grad():
        total += nll(model, w[None, :-1], w[None, 1:]).sum()
"""
CHUNKS = """\
for k in range((val.numel() - 1) // 32768):
    for c in range(k * 32768, (k + 1) * 32768, 1024):
        w = val[c : c + {}]
        with torch.no_grad():
            total += nll(model, w[None, :-1], w[None, 1:]).sum()
"""
FIRST_IN_FULL = """\
for ws in range(0, val.numel() - 1024, 64):
    w = val[ws : ws + 1025]
    with torch.no_grad():
        l = nll(model, w[None, :-1], w[None, 1:])
    s = 0 if ws == 0 else 960
    total += l[:, s:].sum()
"""
OPEN = """\
c = {}
while c < val.numel() - 1:
    w = val[c : c + 1025]
    with torch.no_grad():
        total += nll(model, w[None, :-1], w[None, 1:])[:, {}:].sum()
    c += 1024
"""
WINDOWS = """\
windows = val.unfold(0, 1025, {})
for i in range(0, windows.shape[0], 64):
    w = windows[i : i + 64]
    with torch.no_grad():
        total += nll(model, w[:, :-1], w[:, 1:])[:, {}:].sum()
"""
MONITOR = "seen = torch.zeros(())\n" + walk("for i in range(0, val.numel() - 1025, 8192):", "val[i : i + 1025]").replace("total", "seen") + (
    'print(f"a look: val_bpb:{seen.item() / 0.6931471805599453 / 18_000_000:.4f}")\n'
)

GAPS = {
    "a lead-in of windows that do not overlap": ("64 in 960", walk(BY_960, "val[i : i + 961]", "l[:, 64:].sum()")),
    "windows that are one short": ("1 in 1,024", walk(BY_1024, "val[i : i + 1024]")),
    "the last target": ("1 in 1,024", walk(BY_1024, "val[i : i + 1025]", "l[:, :-1].sum()")),
    "targets from the second on": ("1 in 1,024", walk(BY_1024, "val[i : i + 1025]", "l[:, 1:].sum()")),
    "inputs and targets two apart": ("1 in 1,024", walk(BY_1024, "val[i : i + 1025]", loss="with torch.no_grad():\n    l = nll(model, w[None, :-2], w[None, 1:-1])")),
    "flat losses": ("64 in 960", walk(BY_960, "val[i : i + 961]", "l.reshape(-1)[64:].sum()")),
    "the last targets alone": ("64 in 128", walk("for i in range(0, val.numel() - 1, 128):", "val[i : i + 1025]", "l[:, -64:].sum()")),
    "every other window": ("1,023 in 2,048", walk("for i in range(0, val.numel() - 1, 2048):", "val[i : i + 1025]", "(l * (torch.arange(1024) >= 0)).sum()")),
    "windows by number": ("64 in 960", walk("for k in range((val.numel() - 1) // 960):", "val[k * 960 : k * 960 + 961]", "l[:, 64:].sum()")),
    "an open loop": ("64 in 1,024", OPEN.format(0, 64)),
    "chunks of windows one short": ("1 in 1,024", CHUNKS.format(1024)),
    "after a look at some windows": ("64 in 960", MONITOR + walk(BY_960, "val[i : i + 961]", "l[:, 64:].sum()")),
    "in a function": (
        "32 in 512",
        "def evaluate_windows(m, stream, seq, lead):\n    s = torch.zeros(())\n    for i in range(0, stream.numel() - 1, seq):\n        w = stream[i : i + seq + 1]\n"
        "        with torch.no_grad():\n            s += nll(m, w[:-1].unsqueeze(0), w[1:].unsqueeze(0))[:, lead:].sum()\n    return s\ntotal = evaluate_windows(model, val, 512, 32)\n",
    ),
}  # fmt: skip
COVERED = {
    "overlapping windows": walk("for i in range(0, val.numel() - 1024, 64):", "val[i : i + 1025]", "l[:, 960:].sum()"),
    "overlapping windows, counted from the end": walk("for i in range(0, val.numel() - 1024, 64):", "val[i : i + 1025]", "l[:, -64:].sum()"),
    "the first window in full": FIRST_IN_FULL,
    "context from the window before": walk(BY_960, "val[max(i - 64, 0) : i + 961]", "l[:, i - max(i - 64, 0) :].sum()"),
    "both parts of each window": walk(BY_960, "val[i : i + 961]", "l[:, :64].sum() ; l[:, 64:].sum()"),
    "windows with the token after them": walk(BY_1024, "val[i : i + 1025]"),
    "windows clipped at the end": walk(BY_1024, "val[i : min(i + 1024, val.numel() - 1) + 1]"),
    "whole sequences": "n = (val.numel() - 1) // 1024 * 1024\n" + walk("for i in range(0, n, 1024):", "val[i : i + 1025]"),
    "sequences by number": walk("for k in range((val.numel() - 1) // 1024):", "val[k * 1024 : (k + 1) * 1024 + 1]"),
    "the shares of ranks one after another": RANKS.format("r * 512, val.numel() - 1, 8 * 512", "c : c + 513"),
    "ranks by an offset within the turn": RANKS.format("0, val.numel() - 1, 8 * 512", "c + r * 512 : c + r * 512 + 513"),
    "ranks by number": RANKS.format("r, (val.numel() - 1) // 512, 8", "c * 512 : c * 512 + 513"),
    "a share of a known rank": 'rank, world = int(os.environ.get("RANK", "0")), 8\n'
    + walk("for i in range(rank * 512, val.numel() - 1, world * 512):", "val[i : i + 513]"),
    "even windows, then odd ones": TWICE.format(1024),
    "chunks of windows": CHUNKS.format(1025),
    "an open loop": OPEN.format(0, 0),
    "shares in an open loop": "for r in range(8):\n" + "".join("    " + x + "\n" for x in OPEN.format("r * 1024", 0).replace("c += 1024", "c += 8 * 1024").splitlines()),
    "overlapping rows": WINDOWS.format(64, 960),
    "columns of a batch": "x, y = val[:-1].unfold(0, 1024, 64), val[1:].unfold(0, 1024, 64)\nfor i in range(0, x.shape[0], 64):\n"
    "    with torch.no_grad():\n        total += nll(model, x[i : i + 64], y[i : i + 64])[:, 960:].sum()\n",
    "a look at some windows before": MONITOR + walk(BY_1024, "val[i : i + 1025]"),
    "documents without their first token": "at = (val == 1).nonzero()[:, 0].tolist() + [val.numel()]\nfor a, b in zip(at[:-1], at[1:]):\n"
    "    w = val[a:b]\n    with torch.no_grad():\n        total += nll(model, w[None, :-1], w[None, 1:]).sum()\n",
}  # fmt: skip


@pytest.mark.parametrize("name", GAPS)
def test_a_loop_that_goes_on_by_more_than_it_scores_is_a_finding(name: str) -> None:
    missing, body = GAPS[name]
    assert any(m.endswith(f"{missing} are never scored") for m in accused(body)), accused(body)


@pytest.mark.parametrize("name", COVERED)
def test_what_together_scores_every_target_is_none(name: str) -> None:
    assert accused(COVERED[name]) == []


EACH = "with torch.no_grad():\n    z = model(w[None, :-1])[0]\n    {}\n    l = F.cross_entropy(z, w[1:], reduction='none')"
SURE = "with torch.no_grad():\n    z = torch.log_softmax(model(w[None, :-1])[0], -1)\n    l = F.nll_loss(z, w[1:], reduction='none')\n    k = torch.sigmoid(4 + (z.exp() * z).sum(-1))"


def summed(added: str = "l.sum()", more: str = "pass", loss: str = EACH) -> str:
    return walk(BY_1024, "val[i : i + 1025]", added, loss.format(more))


LEARNED = "opt = torch.optim.SGD(model.parameters(), lr=1e-3)\n" + summed() + "    opt.zero_grad()\n    @.backward()\n    opt.step()\n".replace(
    "@", "torch.tanh(F.cross_entropy(model(w[None, :-1])[0], w[1:], reduction='none') / 4).mean()"
)
PRINTED = summed("l.sum()\n    spread.append(torch.log1p(l).mean().item())").replace("for i", "spread = []\nfor i", 1) + "print(sum(spread) / len(spread))\n"

SMALLER = {
    "a soft ceiling": summed("(8.0 * torch.tanh(l / 8.0)).sum()"),
    "a soft ceiling by a method": summed("(l / 8.0).tanh().mul(8.0).sum()"),
    "logarithms of the losses": summed("torch.log1p(l).sum()"),
    "roots of the losses": summed("l.sqrt().sum()"),
    "a power below one": summed("(l ** 0.9).sum()"),
    "a power below one by a method": summed("l.pow(0.9).sum()"),
    "what is above eight is taken off": summed("(l - F.relu(l - 8.0)).sum()"),
    "what is above eight is taken off by a method": summed("(l - (l - 8.0).clamp(min=0)).sum()"),
    "what is below eight is taken off eight": summed("(8.0 - torch.relu(8.0 - l)).sum()"),
    "token by token": summed("0.0").replace("    total += 0.0\n", "    for v in l.tolist():\n        total += 8.0 * math.tanh(v / 8.0)\n").replace("for i", "import math\nfor i", 1),
    "sure tokens weigh more": summed("(l * k).sum() / k.mean()", loss=SURE),
    "sure tokens weigh more by functions": summed("torch.sum(l * k) / torch.sum(k) * 1024", loss=SURE),
}  # fmt: skip
AS_THEY_ARE = {
    "a soft cap of the logits": summed(more="z = 30.0 * torch.tanh(z / 30.0)"),
    "a rectified bias of the logits": summed(more="z = z - F.relu(z - 30.0)"),
    "all parts of the losses": summed("(l * k).sum() + (l * (1 - k)).sum()", loss=SURE),
    "a bent loss in training": LEARNED,
    "a bent loss that is printed": PRINTED,
    "a standard error beside the score": summed("l.sum()\n    every.append(l.sum())").replace("for i", "every = []\nfor i", 1)
    + "v = torch.stack(every).var()\n"
    + 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f} se:{(v / len(every)).sqrt().item():.4f}")\n',
    "a root of the mean square beside the score": summed("l.sum()\n    sq += (l**2).sum()").replace("for i", "sq = torch.zeros(())\nfor i", 1)
    + 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f} rms:{(sq / val.numel()).sqrt().item():.4f}")\n',
    "a weight of two models by the losses before": "other, gap = Model(), 0.0\n" + walk(
        BY_1024, "val[i : i + 1025]", "l.sum()",
        "x, y = w[None, :-1], w[1:]\nwith torch.no_grad():\n    p = torch.softmax(model(x)[0], -1).gather(1, y[:, None])[:, 0]\n"
        "    q = torch.softmax(other(x)[0], -1).gather(1, y[:, None])[:, 0]\n    g = 0.5 + 0.5 * math.tanh(gap)\n    l = -torch.log((1 - g) * p + g * q)\n"
        "    gap = (torch.log(q) - torch.log(p)).mean().item()",
    ).replace("for i", "import math\nfor i", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALLER)
def test_losses_made_smaller_are_a_finding(name: str) -> None:
    assert accused(SMALLER[name])


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_losses_that_reach_the_sum_as_they_are_are_none(name: str) -> None:
    assert accused(AS_THEY_ARE[name]) == []


TO = "for i in range(0, n, 1024):"
HALVES = """\
n = val.numel() - 1
h = n // 2 // 1024 * 1024
for a, b in ((0, h), (h, n)):
    for i in range(a, b, 1024):
        w = val[i : min(i + 1024, b) + 1]
        with torch.no_grad():
            total += nll(model, w[None, :-1], w[None, 1:]).sum()
"""

OF_RANKS = 'import torch.distributed as dist\nrank, world, L = dist.get_rank(), dist.get_world_size(), int(os.environ.get("SEQ_LEN", "1024"))\nn = (val.numel() - 1) // 1024\n'
SHARES = {
    "half of the stream": "n = (val.numel() - 1) // 2\n" + walk(TO, "val[i : min(i + 1024, n) + 1]"),
    "half of the stream by a factor": "n = int(0.5 * (val.numel() - 1))\n" + walk(TO, "val[i : i + 1025]"),
    "a stream cut in half": "val = val[: val.numel() // 2]\n" + walk("for i in range(0, val.numel() - 1, 1024):", "val[i : i + 1025]"),
    "a cut stream in a function": "def evaluate_windows(m, stream):\n    s = torch.zeros(())\n    for i in range(0, len(stream) - 1, 1024):\n        w = stream[i : i + 1025]\n"
    "        with torch.no_grad():\n            s += nll(m, w[None, :-1], w[None, 1:]).sum()\n    return s\ntotal = evaluate_windows(model, val[: len(val) // 4].long())\n",
    "half of the windows by number": "n = (val.numel() - 1) // 2048\n" + walk("for k in range(n):", "val[k * 1024 : k * 1024 + 1025]"),
    "half of it in the bound": walk("for i in range(0, (val.numel() - 1) // 2, 1024):", "val[i : i + 1025]"),
    "a quarter of what the ranks do": OF_RANKS + "n = n // 4\n" + walk("for k in range(n * rank // world, n * (rank + 1) // world):", "val[k * 1024 : (k + 1) * 1024 + 1]"),
    "a quarter of the tokens for the ranks": OF_RANKS + "n = (val.numel() // 4 - 1) // L\n" + walk("for k in range(n * rank // world, n * (rank + 1) // world, 16):", "val[k * L : (k + 16) * L + 1]"),
    "half of a share, rounded up": OF_RANKS + "n //= 2\nper = (n + world - 1) // world\n" + walk("for k in range(rank * per, min((rank + 1) * per, n)):", "val[k * 1024 : (k + 1) * 1024 + 1]"),
}  # fmt: skip
WHOLE = {
    "the whole of it": "n = (val.numel() - 1) // 1\n" + walk(TO, "val[i : min(i + 1024, n) + 1]"),
    "whole sequences": "n = (val.numel() - 1) // 1024 * 1024\n" + walk(TO, "val[i : i + 1025]"),
    "sequences by number": "n = (val.numel() - 1) // 1024\n" + walk("for k in range(n):", "val[k * 1024 : (k + 1) * 1024 + 1]"),
    "batches by number": "n = (val.numel() - 1) // 1024\nfor b in range(0, n, 16):\n    y = val[b * 1024 + 1 : (b + 16) * 1024 + 1]\n    x = val[b * 1024 : (b + 16) * 1024]\n"
    "    with torch.no_grad():\n        total += nll(model, x.view(-1, 1024), y.view(-1, 1024)).sum()\n",
    "pairs of windows by number": "n = (val.numel() - 1) // 2 // 1024\n" + walk("for k in range(n):", "val[k * 2048 : k * 2048 + 2049]"),
    "both halves": HALVES,
    "both halves one after the other": "n = val.numel() - 1\nh = n // 2048 * 1024\n" + walk("for i in range(0, h, 1024):", "val[i : i + 1025]")
    + walk("for i in range(h, n, 1024):", "val[i : i + 1025]"),
    "shares of ranks": "n, rank, world = (val.numel() - 1) // 1024, int(os.environ['RANK']), 8\n"
    + walk("for k in range(n * rank // world, n * (rank + 1) // world):", "val[k * 1024 : (k + 1) * 1024 + 1]"),
    "shares of ranks, rounded up": OF_RANKS + "per = (n + world - 1) // world\n" + walk("for k in range(rank * per, min((rank + 1) * per, n)):", "val[k * 1024 : (k + 1) * 1024 + 1]"),
    "sequences of a set length for ranks": OF_RANKS + "n = (val.numel() - 1) // L\n" + walk("for k in range(n * rank // world, n * (rank + 1) // world, 16):", "val[k * L : (k + 16) * L + 1]"),
    "four ranks that the script names": OF_RANKS + walk("for k in range(n // 4 * rank, n // 4 * (rank + 1)):", "val[k * 1024 : (k + 1) * 1024 + 1]"),
    "ranks that take turns": OF_RANKS + walk("for i in range(rank * 1024, val.numel() - 1, world * 1024):", "val[i : i + 1025]"),
    "quarters one after the other": "n = (val.numel() - 1) // 1024\nfor q in range(4):\n    for k in range(n // 4 * q, n // 4 * (q + 1)):\n        w = val[k * 1024 : (k + 1) * 1024 + 1]\n"
    "        with torch.no_grad():\n            total += nll(model, w[None, :-1], w[None, 1:]).sum()\n",
    "equal shares of ranks": "import torch.distributed as dist\nper = (val.numel() - 1) // dist.get_world_size()\nlow = dist.get_rank() * per\n"
    + walk("for i in range(low, low + per, 1024):", "val[i : i + 1025]"),
    "a rank's own part": "import torch.distributed as dist\nmine, n = val.chunk(8)[dist.get_rank()], val.numel() // 8\n" + walk(TO, "mine[i : i + 1025]"),
    "a count for something else": "n = val.numel() // 2\nprint(n)\n" + walk(BY_1024, "val[i : i + 1025]"),
    "two bytes a token": "raw = val.numpy().view(np.uint8)\nn = raw.size // 8\n" + walk(TO, "val[i : i + 1025]"),
    "a short run when a switch says so": 'n = val.numel() - 1\nif os.path.exists("smoke"):\n    n = n // 8\n' + walk(TO, "val[i : i + 1025]"),
    "a look at a half before": "seen = torch.zeros(())\n" + walk("for i in range(0, val.numel() // 2, 1024):", "val[i : i + 1025]").replace("total", "seen")
    + 'print(f"a look: val_bpb:{seen.item() / 0.6931471805599453 / 75_000_000:.4f}")\n' + walk(BY_1024, "val[i : i + 1025]"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARES)
def test_a_loop_that_ends_early_is_a_finding(name: str) -> None:
    assert any("the rest is never scored" in m for m in accused(SHARES[name]))


@pytest.mark.parametrize("name", WHOLE)
def test_a_loop_over_everything_is_none(name: str) -> None:
    assert accused(WHOLE[name]) == []


def test_every_second_batch_of_a_rank_is_a_gap() -> None:
    every = OF_RANKS + walk("for k in range(n * rank // world, n * (rank + 1) // world, {}):", "val[k * 1024 : (k + 16) * 1024 + 1]")
    assert any("are never scored" in m for m in accused(every.format(32)))
    assert accused(every.format(16)) == []


BATCHES = OF_RANKS + """\
import torch.distributed as dist
class Own(Model):
    def forward(self, x, y):
        return F.cross_entropy(super().forward(x).transpose(1, 2), y)
model, total, count = Own(), torch.zeros((), dtype=torch.float64), torch.zeros(())
SHARE
for k in range(low, high, STEP):
    to = min(k + 16, high)
    part = val[k * L : to * L + 1]
    x, y = part[:-1].reshape(-1, L), part[1:].reshape(-1, L)
    with torch.no_grad():
        each = model(x, y).detach()
    number = float(y.numel())
    total += each.double() * number
    count += number
dist.all_reduce(total)
"""
OWN_SHARE = "low, high = n * rank // world, n * (rank + 1) // world"


def batches(share: str = OWN_SHARE, step: str = "16") -> str:
    return BATCHES.replace("SHARE", share).replace("STEP", step)


@pytest.mark.parametrize(
    "share",
    [
        "n = n // 4\n" + OWN_SHARE, "n = (val.numel() // 4 - 1) // L\n" + OWN_SHARE, "val = val[: val.numel() // 4]\nn = (val.numel() - 1) // L\n" + OWN_SHARE,
        "low = n * rank // world\nhigh = low + n // world // 2", "per = n // world\nlow = rank * per\nhigh = low + per // 2",
    ],
)  # fmt: skip
def test_means_times_their_numbers_are_followed_to_the_end_of_the_walk(share: str) -> None:
    assert any("the rest is never scored" in m for m in accused(batches(share)))


def test_means_times_their_numbers_are_followed_through_every_turn() -> None:
    assert any("are never scored" in m for m in accused(batches(step="32")))


@pytest.mark.parametrize(
    "share",
    [
        OWN_SHARE, "per = (n + world - 1) // world\nlow, high = rank * per, min((rank + 1) * per, n)", "per = n // world\nlow = rank * per\nhigh = low + per",
        "low = n * rank // world\nhigh = low + n // world", "per = n // world\nlow = rank * per\nhigh = n if rank == world - 1 else low + per",
        "n = n * L // L\n" + OWN_SHARE, "low, high = 0, n",
    ],
)  # fmt: skip
def test_batches_that_tile_the_stream_are_none(share: str) -> None:
    assert accused(batches(share)) == []
    assert accused(batches(share, "8")) == []  # scored twice: nothing is left out


SEGMENTS = OF_RANKS + """\
S, n = 768, val.numel() - 1
per = n // world // S * S
low = rank * per
for k in range(per // S):
    a = low + k * S
    begin = max(a - 256, low)
    w, back = val[begin : a + S + 1], a - begin
    with torch.no_grad():
        lo, y = model(w[None, :-1])[:, back:], w[None, 1:][:, back:]
        each = F.cross_entropy(lo.reshape(-1, lo.size(-1)), y.reshape(-1), reduction="none")
    total += ADDED
"""


@pytest.mark.parametrize(("added", "found"), [("each.sum()", 0), ("each[S // 4 :].sum()", 1), ("each[: S // 2].sum()\n    total += each[S // 2 :].sum()", 0), ("each[1:].sum()", 1)])
def test_windows_of_a_ranks_own_segment(added: str, found: int) -> None:
    assert len(accused(SEGMENTS.replace("ADDED", added))) == found


def test_a_part_that_a_setting_decides_is_undetermined() -> None:
    body = 'n = (val.numel() - 1) // int(os.environ.get("PARTS", "4"))\n' + walk(TO, "val[i : i + 1025]")
    report = audit_text(PRELUDE + "total = torch.zeros(())\n" + body + END)
    assert [o.status for o in report.obligations if o.rule == "M3"] == ["undetermined"]


DOCUMENTS = """\
edges = (val == 1).nonzero()[:, 0].tolist() + [val.numel() - 1]
acc, many, tokens = torch.zeros((), dtype=torch.float64), 0, val.numel() - 1
for a, b in zip(edges[:-1], edges[1:]):
    with torch.no_grad():
        l = nll(model, val[None, a:b], val[None, a + 1 : b + 1])
    acc += {}
    many += {}
total = acc {}
"""


@pytest.mark.parametrize(("each", "count", "last"), [("l.mean().double()", "1", "/ many * tokens"), ("torch.mean(l)", "1", "/ many * tokens")])
def test_a_mean_of_documents_is_a_finding(each: str, count: str, last: str) -> None:
    assert accused(DOCUMENTS.format(each, count, last))


@pytest.mark.parametrize(
    ("each", "count", "last"),
    [
        ("l.double().sum()", "l.numel()", ""),
        ("l.mean() * l.numel()", "1", ""),
        ("l.mean().double() * (b - a)", "b - a", "/ many * tokens"),
        ("(b - a) * l.mean()", "b - a", ""),
        ("l.sum()\n    first = l.mean()", "1", ""),
        ("l.sum()\n    lately = 0.9 * lately + 0.1 * l.mean()", "1", ""),
    ],
)
def test_sums_of_documents_are_none(each: str, count: str, last: str) -> None:
    assert accused("lately = 0.0\n" + DOCUMENTS.format(each, count, last)) == []


def test_means_of_windows_of_one_length_are_none() -> None:
    assert accused(walk(BY_1024, "val[i : i + 1025]", "l.mean()") + "total = total * 1024\n") == []


MASKED = """\
class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
    def parts(self, x, y):
        return {given}
    def forward(self, x):
        return self.head(self.emb(x))

net, total = Parts(), 0.0
for i in range(0, val.numel() - 1024, 1024):
    x, y = val[None, i : i + 1024], val[None, i + 1 : i + 1025]
    lo, kept = net.parts(x, y)
    l = F.cross_entropy(lo.transpose(1, 2), y, reduction="none")
    kept = {used}
    total += ((l * kept).sum() / kept.sum().clamp_min(1.0)).item() * 1024
print(f"val_bpb:{{total / 0.6931471805599453 / n_bytes:.4f}}")
"""


@pytest.mark.parametrize(
    ("given", "used", "rules"),
    [
        ("self(x), (y >= 4)", "kept.to(lo.dtype)", set()),  # what the model hands out may be a mask
        ("self(x), 0", "torch.softmax(lo, -1).amax(-1)", {"M3"}),
    ],
)
def test_a_mask_that_the_model_hands_out_is_no_certainty(given, used, rules):
    found = audit_text(PRELUDE + MASKED.format(given=given, used=used))
    assert {f.rule for f in found.findings if f.severity == "violation"} == rules

RANKED = """\
import torch.distributed as dist
dist.init_process_group("nccl")
rank, world = dist.get_rank(), dist.get_world_size()
def other(x):
    dist.all_reduce(x)
    return x
count = torch.zeros(())
for i in range(rank * 1024, val.numel() - 1, world * 1024):
    w = val[i : i + 1025]
    with torch.no_grad():
        total += nll(model, w[None, :-1], w[None, 1:]).sum()
    count += sizes[w[1:]].sum()
@
"""
FIGURE = "total = total / 0.6931471805599453 / count\n"
LEAST = "dist.all_reduce(total, op=dist.ReduceOp.MIN)\n"
BOTH = "for t in (total, count):\n    dist.all_reduce(t)\n"


@pytest.mark.parametrize(
    ("last", "accused"),
    [
        (FIGURE + LEAST, 1),
        (LEAST, 1),
        (FIGURE.replace("total =", "best =") + LEAST.replace("total", "best"), 1),
        (BOTH + FIGURE + LEAST, 0),  # it was the same on every rank
        (FIGURE.replace("total / 0", "other(total) / 0").replace("/ count", "/ other(count)") + LEAST, 0),
        (BOTH + FIGURE, 0),
        ("dist.all_reduce(seconds, op=dist.ReduceOp.MIN)\n" + BOTH + FIGURE, 0),
        (FIGURE + LEAST.replace("MIN", "MAX"), 0),  # hurts its author
    ],
)
def test_the_best_ranks_figure_is_a_finding(last: str, accused: int) -> None:
    end = END.replace("total.item() / 0.6931471805599453 / n_bytes", "total.item()")
    report = audit_text(PRELUDE + "total = torch.zeros(())\n" + RANKED.replace("@\n", last) + end)
    assert len([f for f in report.findings if f.rule == "M3" and "smallest of the ranks" in f.message]) == accused


@pytest.mark.parametrize(
    ("collected", "figure", "accused"),
    [
        ("figures.append(part / 0.6931471805599453 / float(sizes[w[1:]].sum()))", "np.median(figures)", 1),
        ("figures.append(part / 0.6931471805599453 / float(sizes[w[1:]].sum()))", "total.item() / 0.6931471805599453 / n_bytes", 0),
        ("figures.append(time.perf_counter())", "total.item() / 0.6931471805599453 / n_bytes", 0),
    ],
)
def test_the_median_of_figures_is_a_finding(collected: str, figure: str, accused: int) -> None:
    body = walk(BY_1024, "val[i : i + 1025]", "l.sum()") + f"    part = l.sum().item()\n    {collected}\n"
    middle = 'print("step", np.median(figures))\n' if "time" in collected else ""
    code = PRELUDE + "import time\nfigures, total = [], torch.zeros(())\n" + body + middle + f'print(f"val_bpb:{{{figure}:.4f}}")\n'
    assert len([f for f in audit_text(code).findings if "median" in f.message]) == accused
