"""Places in the stream: which offset a value was read at, whatever the spelling."""

from __future__ import annotations

import pytest

from audit import ir
from audit.engine import audit_text
from audit.lower import lower
from audit.rules.flow import PRELUDE
from audit.trace import trace
from audit.trace.caches import cache_reads
from audit.trace.positions import place_of, read_tokens
from audit.trace.values import MASK, PROB, VAL, V
from audit.trace.words import found_places

BODY = """\
table = np.zeros(1 << 20)
stream = val.numpy()
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = np.exp(-nll(model, x, y)[0].numpy())
{address}
    q = table[key] / 100
    total -= np.log(0.9 * p + 0.1 * q).sum()
    np.add.at(table, key, 1)
print(f"val_bpb:{{total / 0.6931471805599453 / n_bytes:.4f}}")
"""
TARGET = {
    "an array of places": "    at = np.arange(w + 1, w + 1025)\n    key = (stream[at - 1] * 31 + stream[at]) % 1048576",
    "slices": "    key = (stream[w : w + 1024] * 31 + stream[w + 1 : w + 1025]) % 1048576",
    "one chunk cut twice": "    c = stream[w : w + 1025]\n    key = (c[:-1] * 31 + c[1:]) % 1048576",
    "a copied array": "    c = np.zeros(1024, dtype=np.int64)\n    c[:] = stream[w + 1 : w + 1025]\n    key = (stream[w : w + 1024] * 31 + c) % 1048576",
    "an offset in a variable": "    one = w + 1\n    key = (stream[w : w + 1024] * 31 + stream[one : one + 1024]) % 1048576",
}
CONTEXT = {
    "an array of places": "    at = np.arange(w + 1, w + 1025)\n    key = (stream[at - 1] * 31 + stream[at - 2]) % 1048576",
    "slices": "    key = (stream[w : w + 1024] * 31 + stream[w - 1 : w + 1023]) % 1048576",
    "a loop over the context": "    at = np.arange(w + 1, w + 1025)\n    key = np.zeros(1024, dtype=np.int64)\n    for k in range(1, 5):\n        key = (key * 31 + stream[at - k]) % 1048576",
    "an unknown step back": "    at = np.arange(w + 1, w + 1025)\n    back = int(os.environ.get('BACK', '2')) if w else len(stream) % 7 + 1\n    key = (stream[at - 1] * 31 + stream[at - back]) % 1048576",
}


def _reads(address: str):
    result = trace({"t.py": lower(PRELUDE + BODY.format(address=address), "t.py")}, "t.py", budget=20.0)
    assert result.exhausted is None
    return [r for r in cache_reads(result) if r.reported]


@pytest.mark.parametrize("address", TARGET.values(), ids=TARGET.keys())
def test_the_scored_token_in_an_address(address):
    assert any(r.target and r.context for r in _reads(address))


@pytest.mark.parametrize("address", CONTEXT.values(), ids=CONTEXT.keys())
def test_earlier_tokens_alone(address):
    reads = _reads(address)
    assert reads and not any(r.target for r in reads)


CHOSEN = """\
table, seen = np.zeros(1 << 20), np.zeros(1 << 20)
stream = val.numpy()
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    p = np.exp(-nll(model, x, y)[0].numpy())
    start = len(stream) // 2 + w // 2
    at = np.arange(start, start + 1024)
    context = (stream[at - 1] * 31 + stream[at - 2]) % 1048576
    key = {key} % 1048576
    n, q = seen[context], np.zeros(1024)
    q[n > 2] = table[key[n > 2]]
    m = {chosen}
    first_tokens = stream[m]  # the same choice, used on something else
    share = n[m] / (n[m] + 4)
    mixed = (1 - share) * p[m] + share * np.minimum(q[m], n[m]) / np.maximum(n[m], 1)
    total -= np.log(p[n <= 2]).sum() + np.log(mixed).sum()
    np.add.at(seen, context, 1)
    np.add.at(table, key, 1)
print(f"val_bpb:{{total / 0.6931471805599453 / n_bytes:.4f}}")
"""


@pytest.mark.parametrize("chosen", ["np.where(n > 2)[0]", "np.nonzero(n > 2)[0]", "np.flatnonzero(n > 2)", "n > 2"])
def test_a_choice_of_positions_keeps_each_at_its_token(chosen):
    def targets(key: str) -> set[bool]:
        code = PRELUDE + CHOSEN.format(key=key, chosen=chosen)
        found = trace({"t.py": lower(code, "t.py")}, "t.py", budget=20.0)
        return {r.target for r in cache_reads(found) if r.reported}

    assert targets("(context * 31 + y[0].numpy())") == {True, False}
    assert targets("(context * 31 + stream[at - 3])") == {False}


def test_a_choice_that_was_also_used_as_places_moves_no_token():
    chosen = found_places([V("val", flags=VAL | MASK)])
    place_of(chosen)  # as if the stream had been read there
    window, out = V("val", flags=VAL | PROB), V("val", flags=VAL | PROB)
    window.keys = out.keys = frozenset([("t", (3,), 1)])
    read_tokens(None, window, [ir.Name("m")], [chosen], out)
    assert {k[:2] for k in out.keys} == {("t", (3,))}


INSIDE = """\
table, seen = torch.zeros(1 << 20), torch.zeros(1 << 20)
total = 0.0
for w in range(0, val.numel() - 1025, 1024):
    chunk = val[w : w + 1025]
    x, y = chunk[None, :-1], chunk[None, 1:]
    p = torch.exp(-nll(model, x, y))
    q = torch.ones_like(p)
    for n in range(8, 1, -1):
        width = 1024 - (n - 1)
        context = torch.zeros(1, width, dtype=torch.int64)
        for k in range(n - 1):
            context = context ^ (x[:, 1 + k : 1 + k + width] * 31)
        key = {key} % 1048576
        q[:, n - 1 : n - 1 + width] = table[key] / seen[context % 1048576].clamp(min=1)
    total -= torch.log(0.9 * p + 0.1 * q).sum().item()
    table.scatter_add_(0, key.reshape(-1), torch.ones(key.numel()))
    seen.scatter_add_(0, context.reshape(-1) % 1048576, torch.ones(key.numel()))
print(f"val_bpb:{{total / 0.6931471805599453 / n_bytes:.4f}}")
"""


def test_an_address_that_begins_further_inside_the_window_holds_its_own_token():
    def read(key: str):
        found = trace({"t.py": lower(PRELUDE + INSIDE.format(key=key), "t.py")}, "t.py", budget=20.0)
        return [r for r in cache_reads(found) if r.reported]

    assert any(r.target and r.context for r in read("(context ^ (y[:, n - 1 : n - 1 + width] * 17))"))
    assert not any(r.target for r in read("(context ^ (x[:, n - 1 : n - 1 + width] * 17))"))


SAME = """\
table, total = torch.zeros(1 << 20), 0.0
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[w : w + 1024], val[w + 1 : w + 1025]
    p = torch.exp(-nll(model, x[None], y[None])[0])
    found = table[(x * 31 + {last}) % 1048576]
    q = torch.zeros_like(p)
    q[1:] = found[1:]
    total -= torch.log(0.9 * p + 0.1 * q).sum().item()
    table.scatter_add_(0, (x * 31 + y) % 1048576, torch.ones(1024))
print(f"val_bpb:{{total / 0.6931471805599453 / n_bytes:.4f}}")
"""


@pytest.mark.parametrize(("last", "target"), [("y", True), ("x", False)])
def test_what_is_cut_and_put_back_at_the_same_place_has_not_moved(last, target):
    found = trace({"t.py": lower(PRELUDE + SAME.format(last=last), "t.py")}, "t.py", budget=20.0)
    assert {r.target for r in cache_reads(found) if r.reported} == {target}


GATHERED = """\
at = (val == 1).nonzero(as_tuple=True)[0].tolist()
docs = [(a, b) for a, b in zip(at, at[1:] + [val.numel() - 1]) if b > a]
total = torch.zeros(())
for q in range(0, len(docs), 16):
    batch = docs[q : q + 16]
    starts = torch.tensor([a for a, b in batch])
    lengths = torch.tensor([b - a for a, b in batch])
    for c in range(int(lengths.max()) // 256 + 1):
        column = torch.arange(c * 256, (c + 1) * 256)
        scored = (column[None] < lengths[:, None]).float()
        index = (starts[:, None] + column[None]).clamp(max=val.numel() - 2)
        x, y = val[{}], val[{}]
        with torch.no_grad():
            total += (nll(model, x, y) * scored).sum()
print(f"val_bpb:{{total.item() / 0.6931471805599453 / n_bytes:.4f}}")
"""


def _verdict(body: str) -> tuple[str, set[str]]:
    report = audit_text(PRELUDE + body)
    return report.verdict, {f.rule for f in report.findings if f.severity in ("violation", "warning") and f.active == "yes"}


def test_windows_gathered_at_places_that_were_reckoned():
    assert _verdict(GATHERED.format("index", "index + 1")) == ("clean", set())


def test_windows_gathered_at_the_places_of_their_targets():
    assert _verdict(GATHERED.format("index + 1", "index + 1")) == ("undetermined", {"F7"})


TUPLE = """\
counts, total = np.full((1024, 1024), 0.05), 0.0
for s in range(0, val.numel() - 1, 256):
    w = val[s : s + 257]
    x, y = w[:-1].numpy(), w[1:].numpy()
    with torch.no_grad():
        lp = torch.log_softmax(model(w[None, :-1])[0], -1).double().numpy()
    {}
print(f"val_bpb:{{total / 0.6931471805599453 / n_bytes:.4f}}")
"""
AT_TARGETS = {
    "in place": "total -= lp[np.arange(len(y)), y].sum()",
    "in a variable": "gold = np.arange(len(y)), y\n    total -= lp[gold].sum()",
    "in a variable in brackets": "gold = (np.arange(len(y)), y)\n    l = -lp[gold]\n    total += l.sum()",
}


@pytest.mark.parametrize("name", AT_TARGETS)
def test_log_probabilities_read_at_a_tuple_with_the_targets(name):
    assert _verdict(TUPLE.format(AT_TARGETS[name])) == ("clean", set())


def test_what_is_learned_before_they_are_read_counts():
    early = "gold = np.arange(len(y)), y\n    np.add.at(counts, (x, y), 1.0)\n    p = np.log(counts[x] / counts[x].sum(1, keepdims=True))\n    total -= (0.5 * lp[gold] + 0.5 * p[gold]).sum()"
    assert "F2" in _verdict(TUPLE.format(early))[1]
