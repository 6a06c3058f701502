"""One honest n-gram cache in many plain spellings, and what makes each illegal: F7, F8, F9, F2 and scores that are seen at all."""

from __future__ import annotations

import textwrap

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

BY_TOKEN = """\
import math
from collections import Counter, defaultdict, deque
@setup@
total = 0.0
for w in range(0, val.numel() - 1, 1024):
    chunk = val[w : w + 1025]
    with torch.no_grad():
        probs = torch.softmax(model(chunk[None, :-1])[0].float(), -1).double().numpy()
    ids = chunk.tolist()
    for j in range(3, len(ids) - 1):
        t = ids[j + 1]
        @key@
        @early@
        @row@
        @mix@
        @score@
        @update@
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""
PLAIN = {
    "setup": "table = defaultdict(Counter)",
    "key": "key = (ids[j - 1], ids[j])",
    "early": "pass",
    "row": "row = table[key]\nn = sum(row.values())\nq = np.zeros(1024)\nfor token, k in row.items():\n    q[token] = k / n",
    "mix": "lam = n / (n + 4.0)\nmixed = (1 - lam) * probs[j] + lam * q",
    "score": "total -= math.log(mixed[t])",
    "update": "table[key][t] += 1",
}
TARGET = "key = (ids[j], ids[j + 1])"

BY_WINDOW = """\
table = torch.zeros(1 << 16, 1024)
total = torch.zeros((), dtype=torch.float64)
for w in range(0, val.numel() - 1, 1024):
    chunk = val[w : w + 1025]
    x, y = chunk[:-1], chunk[1:]
    with torch.no_grad():
        logits = model(x[None])[0].float()
    p = torch.softmax(logits, -1)
    @key@
    @early@
    rows = table[key]
    n = rows.sum(-1, keepdim=True)
    q = rows / n.clamp(min=1)
    @mix@
    @score@
    @update@
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
WINDOW = {
    "key": "key = (x * 36313) & 0xFFFF",
    "early": "pass",
    "mix": "lam = n / (n + 4.0)\nmixed = (1 - lam) * p + lam * q",
    "score": "total -= mixed.gather(-1, y[:, None]).log().sum()",
    "update": "table.index_put_((key, y), torch.ones(len(y)), accumulate=True)",
}
TARGETS = "key = (x * 31 + y * 36313) & 0xFFFF"


def filled(template: str, slots: dict[str, str]) -> str:
    out = []
    for line in template.splitlines():
        name = line.strip().strip("@")
        given = slots.get(name) if line.strip() == f"@{name}@" else None
        out.append(line if given is None else textwrap.indent(given, line[: len(line) - len(line.lstrip())]))
    return "\n".join(out) + "\n"


def audited(template: str, slots: dict[str, str]):
    body = filled(template, slots)
    compile(body, "body", "exec")
    return audit_text(PRELUDE + body)


def judged(template: str, slots: dict[str, str]) -> str:
    return audited(template, slots).verdict


def by_token(**slots: str) -> str:
    return judged(BY_TOKEN, PLAIN | slots)


def by_window(**slots: str) -> str:
    return judged(BY_WINDOW, WINDOW | slots)


KEYS = [
    "key = ','.join(str(z) for z in ids[j - 1 : j + 1])",
    "key = ' '.join(map(str, ids[j - 1 : j + 1]))",
    "context = ids[j - 1 : j + 1]\nkey = tuple(int(z) for z in context)",
    "key = sum(z * 1024**o for o, z in enumerate(ids[j - 1 : j + 1]))",
    "key = tuple(reversed(ids[j - 1 : j + 1]))",
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_made_of_a_run_token_by_token(key: str):
    assert by_token(key=key) == "clean"
    later = key.replace("ids[j - 1 : j + 1]", "ids[j : j + 2]")
    assert by_token(key=later) == "violation"
    assert by_token(key=key, early=PLAIN["update"], update="pass") == "violation"


TABLES = [
    # the tokens that followed, one by one
    ("table = defaultdict(list)", "after = table[key]\nn = len(after)\nq = np.bincount(after, minlength=1024) / max(n, 1)", "table[key].append(t)"),
    ("table = defaultdict(list)", "after = np.array(table[key])\nn = len(after)\nq = np.zeros(1024)\nnp.add.at(q, after, 1 / max(n, 1))", "table[key].append(t)"),
    ("table = defaultdict(lambda: deque(maxlen=64))", "after = table[key]\nn = len(after)\nq = np.zeros(1024)\nfor z in after:\n    q[z] += 1.0 / n", "table[key].append(t)"),
    # rows that are arrays
    ("table = defaultdict(lambda: np.zeros(1024))", "row = table[key]\nn = row.sum()\nq = row / max(n, 1.0)", "table[key][t] += 1.0"),
    ("table = {}", "row = table.get(key)\nrow = torch.zeros(1024) if row is None else row\nn = row.sum().item()\nq = (row / (n + 1e-9)).numpy()", "table.setdefault(key, torch.zeros(1024))[t] += 1"),
    # rows that are walked by their tokens
    ("table = {}", "row = table.setdefault(key, {})\nn = sum(row.values())\nq = np.zeros(1024)\nfor z in row:\n    q[z] = row[z] / n", "row[t] = row.get(t, 0) + 1"),
]  # fmt: skip


@pytest.mark.parametrize(("setup", "row", "update"), TABLES)
def test_tables_by_context(setup: str, row: str, update: str):
    assert by_token(setup=setup, row=row, update=update) == "clean"
    assert by_token(setup=setup, row=row, update=update, key=TARGET) == "violation"
    early = "row = table.setdefault(key, {})\n" + update if update.startswith("row[") else update
    assert by_token(setup=setup, row=row, update="pass", early=early) == "violation"


def test_documents_in_lists_by_their_length_are_no_table():
    body = """\
groups, total = {}, 0.0
groups = __import__("collections").defaultdict(list)
for d in range(0, val.numel() - 1025, 1024):
    groups[d % 7].append(val[d : d + 1025])
for g in groups:
    for doc in groups[g]:
        with torch.no_grad():
            total += nll(model, doc[None, :-1], doc[None, 1:]).sum().item()
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""
    assert not [f for f in audit_text(PRELUDE + body).findings if f.rule in ("F2", "F3", "F8") and f.severity == "violation"]


@pytest.mark.parametrize(
    "mix",
    [
        "mixed = 5.0 * probs[j]\nfor token in row:\n    mixed[token] = mixed[token] + row[token]\nmixed /= mixed.sum()",
        "hint = max(row, key=row.get) if row else None\nmixed = probs[j].copy()\nif hint is not None:\n    mixed *= 0.9\n    mixed[hint] += 0.1",
        "hint = max(row, key=row.get) if row else None\nmixed = probs[j].copy()\nif hint is not None:\n    mixed[hint] *= 4.0\n    mixed = mixed / mixed.sum()",
        "lam = n / (n + 4.0)\nmixed = [(1 - lam) * a + lam * b for a, b in zip(probs[j], q)]",
    ],
)
def test_what_a_row_puts_into_a_mixture_is_followed(mix: str):
    assert by_token(mix=mix) == "clean"
    assert by_token(mix=mix, key=TARGET) == "violation"
    assert by_token(mix=mix, early=PLAIN["update"], update="pass") == "violation"


@pytest.mark.parametrize(
    "score",
    [
        "total -= (mixed * F.one_hot(y, 1024)).sum(-1).log().sum()",
        "total -= (mixed.log() * F.one_hot(y, 1024).float()).sum()",
        'total -= torch.einsum("tv,tv->t", mixed, F.one_hot(y, 1024).float()).log().sum()',
        'total += nn.NLLLoss(reduction="sum")(mixed.log(), y)',
        "total -= torch.distributions.Categorical(probs=mixed).log_prob(y).sum()",
        'total += F.kl_div(mixed.log(), F.one_hot(y, 1024).float(), reduction="sum")',
    ],
)
def test_the_entry_of_the_token_however_it_is_read(score: str):
    assert by_window(score=score) == "clean"
    assert by_window(score=score, key=TARGETS) == "violation"
    assert by_window(score=score, early=WINDOW["update"], update="pass") == "violation"


@pytest.mark.parametrize("score", ["total -= math.log(np.take(mixed, t))", "total -= math.log(mixed.item(t))"])
def test_the_entry_of_one_token(score: str):
    assert by_token(score=score) == "clean"
    assert by_token(score=score, key=TARGET) == "violation"


@pytest.mark.parametrize(
    "update",
    [
        "table.view(-1).scatter_add_(0, key * 1024 + y, torch.ones(len(y)))",
        "table.view(-1).index_add_(0, key * 1024 + y, torch.ones(len(y)))",
        "np.add.at(table.numpy(), (key.numpy(), y.numpy()), 1)",
    ],
)
def test_what_is_stored_in_a_view_is_in_the_table(update: str):
    assert by_window(update=update) == "clean"
    assert by_window(update="pass", early=update) == "violation"


@pytest.mark.parametrize(
    "mix",
    [
        "mixed = (p + 0.3 * q) / 1.3",
        "s = 0.3 * (n > 0).float()\nmixed = (p + s * q) / (1 + s)",
        "mixed = (p + 0.3 * q).div(1 + 0.3 * (n > 0))",
        "mixed = F.normalize(p + 0.1 * q, p=1, dim=-1)",
        "mixed = p + 0.3 * q\nmixed.div_(mixed.sum(-1, keepdim=True))",
        "mixed = torch.add(p, 0.3 * q)\nmixed = mixed / mixed.sum(-1, keepdim=True)",
        "mixed = p.clone()\nmixed.add_(0.3 * q)\nmixed /= mixed.sum(-1, keepdim=True)",
        "mixed = torch.maximum(p, q)\nmixed = mixed / mixed.sum(-1, keepdim=True)",
        "lam = n / (n + 4.0)\nmixed = p.mul(1 - lam).add_(lam * q)",
        "lam = n / (n + 4.0)\nmixed = p.clone().mul_(1 - lam).add_(lam * q)",
    ],
)
def test_what_is_added_to_probabilities_and_divided_out_again(mix: str):
    assert by_window(mix=mix) == "clean"


@pytest.mark.parametrize(
    "mix",
    [
        "mixed = p + 0.3 * q",
        "mixed = p.add(0.3 * q)",
        "mixed = torch.add(p, 0.3 * q)",
        "mixed = p.clone()\nmixed.add_(0.3 * q)",
        "mixed = torch.maximum(p, q)",
    ],
)
def test_what_is_added_and_not_divided_out(mix: str):
    found = audited(BY_WINDOW, WINDOW | {"mix": mix})
    assert "F9" in {f.rule for f in found.findings if f.severity == "violation"}


def test_a_mixture_in_the_space_of_logarithms_at_the_token():
    mix = (
        "lam = n / (n + 4.0)\n"
        "lp, lq = math.log(probs[j, t]), math.log(row[t] / n) if n and row[t] else -math.inf\n"
        "p = math.exp(np.logaddexp(lp + math.log(1 - lam), lq + (math.log(lam) if lam else -math.inf)))"
    )
    assert by_token(mix=mix, score="total -= math.log(p)") == "clean"
    assert by_token(mix=mix, score="total -= math.log(p)", key=TARGET) == "violation"


@pytest.mark.parametrize(
    "share",
    [
        "hint = max(row, key=row.get) if row else -1\nlam = 0.5 if hint == t else 0.0",
        "lam = 0.3 * (1 - probs[j, t])",
        "rank = (probs[j] > probs[j][t]).sum()\nlam = 0.4 if rank > 5 else 0.0",
    ],
)
def test_shares_that_the_token_decides(share: str):
    mix = share + "\np = (1 - lam) * probs[j, t] + lam * q[t]"
    found = audited(BY_TOKEN, PLAIN | {"mix": mix, "score": "total -= math.log(p)"})
    assert {f.rule for f in found.findings if f.severity == "violation"} & {"F7", "F9"}


@pytest.mark.parametrize(
    "share",
    [
        "hint = max(row, key=row.get) if row else -1\nlam = 0.5 if hint == ids[j] else 0.0",
        "lam = 0.3 * (1 - probs[j].max())",
        "rank = (probs[j] > probs[j][ids[j]]).sum()\nlam = 0.4 if rank > 5 else 0.0",
        "lam = 0.3 * (1 - probs[j, int(q.argmax())])",
    ],
)
def test_shares_that_the_context_decides(share: str):
    mix = share + "\np = (1 - lam) * probs[j, t] + lam * q[t]"
    assert by_token(mix=mix, score="total -= math.log(p)") == "clean"


@pytest.mark.parametrize(
    "lines",
    [
        # room is made for the hint whether it is right or not
        "hit = 1.0 if hint == t else 0.0\np = hit * ((1 - 0.2) * p + 0.2) + (1 - hit) * (1 - 0.2) * p",
        "mass = 0.2 if hint == t else 0.0\np = (1 - 0.2) * p + mass",
        "p = p + 0.2 * ((hint == t) - p)",
    ],
)
def test_a_mass_that_goes_to_a_hint_is_no_share(lines: str):
    mix = "hint = max(row, key=row.get) if row else 0\np = probs[j, t]\n" + lines
    assert by_token(mix=mix, score="total -= math.log(p)") == "clean"


def test_a_share_by_the_hit_for_whole_windows():
    share = "hint = rows.argmax(-1)\nlam = (0.3 * (hint == {}))[:, None]\nmixed = (1 - lam) * p + lam * q"
    assert by_window(mix=share.format("x")) == "clean"
    assert by_window(mix=share.format("y")) == "violation"


def test_a_row_behind_an_entry_under_a_mask():
    mix = (
        "own, hit = p.gather(1, y[:, None]), q.gather(1, y[:, None])\n"
        "has, mixed = n > 0, own.clone()\nmixed[has] = 0.8 * own[has] + 0.2 * hit[has]"
    )
    assert by_window(mix=mix, score="total -= mixed.log().sum()") == "clean"
    assert by_window(mix=mix, score="total -= mixed.log().sum()", key=TARGETS) == "violation"


SORTED = """\
import math
stream, total, block = val.numpy(), 0.0, 4096
for w in range(0, len(stream) - 1, block):
    seen = stream[: UPTO]
    if w:
        keys = seen[:-2].astype(np.int64) * 1024 + seen[1:-1]
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
    with torch.no_grad():
        probs = torch.softmax(model(val[None, w : w + block])[0].float(), -1).double().numpy()
    for j in range(1, min(block, len(stream) - 1 - w)):
        dist = probs[j]
        if w:
            key = int(stream[w + j - 1]) * 1024 + int(stream[w + j])
            lo, hi = np.searchsorted(ranked, key, "left"), np.searchsorted(ranked, key, "right")
            if hi > lo:
                q = np.bincount(seen[order[lo:hi] + 2], minlength=1024) / (hi - lo)
                dist = 0.8 * dist + 0.2 * q
        total -= math.log(dist[stream[w + j + 1]])
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def test_what_followed_in_the_sorted_past():
    assert audit_text(PRELUDE + SORTED.replace("UPTO", "w + 1")).verdict == "clean"
    assert audit_text(PRELUDE + SORTED.replace("UPTO", "w + block + 1")).verdict == "violation"
