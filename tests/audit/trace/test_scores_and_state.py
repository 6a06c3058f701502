"""What counts as a score, and what state a score rests on."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.lower import lower
from audit.rules.flow import PRELUDE
from audit.trace import trace
from audit.trace.adaptation import conflicts, shape_of
from audit.trace.caches import cache_reads, splits

REPORT = 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'


def run(body: str):
    return trace({"t.py": lower(PRELUDE + body, "t.py")}, "t.py", None, 60.0)


def shapes(body: str) -> set[tuple[str, str]]:
    return {(shape_of(c), c.active) for c in conflicts(run(body))}


SLOT = """\
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 64):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        hidden = model.emb(x)
    delta = torch.zeros(1, 1, 64, requires_grad=True)
    opt = torch.optim.AdamW([delta], lr=5e-3)
    for _ in range(8):
        F.cross_entropy(model.head(hidden + delta).transpose(1, 2), y).backward()
        opt.step()
    lp = F.log_softmax(model.head(hidden + delta), dim=-1)
    t = y[0, 960:]
    total += SCORE.sum()
"""


@pytest.mark.parametrize(
    "score",
    ["-lp[0, 960:].gather(1, t[:, None])", "-lp[0, 960:][torch.arange(t.size(0)), t]", "-lp[0, torch.arange(64), t]"],
)
def test_log_probabilities_taken_at_the_tokens_are_a_score_however_they_are_taken(score):
    assert ("slot", "yes") in shapes(SLOT.replace("SCORE", score) + REPORT)


def test_an_edited_row_of_predictions_is_no_score():
    body = """\
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    logits = model(x)
    logits[0, 3] = torch.log_softmax(logits[0, 3], -1) + torch.log_softmax(logits, -1).gather(2, y[..., None])[0, 3]
    total += F.cross_entropy(logits.transpose(1, 2), y, reduction="none").sum()
"""
    lines = {e.line for e in run(body + REPORT).of("SCORE") if e.on_val}
    start = PRELUDE.count("\n")
    assert start + 6 in lines and start + 5 not in lines


TUNE = """\
def tune(net):
    opt = torch.optim.SGD(net.parameters(), lr=1e-3)
    for i in range(0, val.numel() - 1, 1024):
        opt.zero_grad()
        nll(net, val[None, i : i + 1024], val[None, i + 1 : i + 1025]).mean().backward()
        opt.step()

"""
RESTORES = {
    "copied back": "for n, p in model.named_parameters():\n    p.data.copy_(kept[n])\n",
    "assigned back": "for n, p in model.named_parameters():\n    p.data = kept[n]\n",
    "through a dictionary of the parameters": (
        "own = dict(model.named_parameters())\nfor n, saved in kept.items():\n    own[n].copy_(saved)\n"
    ),
}
SCORED = 'print(f"val_bpb:{evaluate(model, val):.4f}")\n'


@pytest.mark.parametrize("how", RESTORES)
def test_weights_that_were_put_back_have_forgotten(how):
    keep = "kept = {n: p.detach().clone() for n, p in model.named_parameters()}\n"
    assert not shapes(TUNE + keep + "tune(model)\n" + RESTORES[how] + SCORED)
    # Kept after the tuning, the same lines bring back nothing clean.
    assert ("train-then-score", "yes") in shapes(TUNE + "tune(model)\n" + keep + RESTORES[how] + SCORED)


def test_one_weight_put_back_leaves_the_others_as_they_are():
    keep = "kept = {n: p.detach().clone() for n, p in model.named_parameters()}\n"
    back = "model.emb.weight.data.copy_(kept['emb.weight'])\n"
    assert ("train-then-score", "yes") in shapes(TUNE + keep + "tune(model)\n" + back + SCORED)


def test_windows_sorted_into_the_chunk_that_scores_them_stay_apart():
    body = """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
chunks = [[] for _ in range(n_chunks)]
for w in range(0, val.numel() - 1025, 64):
    chunks[min(w // 32768, n_chunks - 1)].append(w)
for c, windows in enumerate(chunks):
    mine = windows[rank::8]
    for w in mine:
        with torch.no_grad():
            total += nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025])[0, -64:].sum()
    opt.zero_grad()
    nll(model, val[None, c * 32768 : c * 32768 + 32768], val[None, c * 32768 + 1 : c * 32768 + 32769]).mean().backward()
    opt.step()
"""
    assert not shapes("n_chunks, rank = val.numel() // 32768, int(os.environ['RANK'])\n" + body + REPORT)


HELPER = """\
class Counts:
    def __init__(self):
        self.short, self.long = np.zeros(1 << 20), np.zeros(1 << 20)
    def learn(self, tokens, spots):
        ctx = (tokens[spots - 1] * 36313) & 0xFFFFF
        np.add.at(self.short, ctx, 1)
        np.add.at(self.long, (ctx ^ (tokens[spots] * 27191)) & 0xFFFFF, 1)
    def ask(self, tokens, spots):
        PADDING
        ctx = (tokens[spots - 1] * 36313) & 0xFFFFF
        return self.long[(ctx ^ (tokens[spots] * 27191)) & 0xFFFFF] / np.maximum(self.short[ctx], 1)

counts, stream, total = Counts(), val.numpy(), torch.zeros(())
for w in range(0, len(stream) - 1025, 1024):
    spots = np.arange(w + 1, w + 1025)
    p = torch.exp(-nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025]))[0].numpy()
    total += -np.log(0.6 * p + 0.4 * counts.ask(stream, spots)).sum()
    counts.learn(stream, spots)
"""


def test_a_helper_that_reads_a_table_of_tokens_is_followed_however_long_it_is():
    padding = "\n        ".join(f"a{i} = b{i} = len(spots) * {i} + len(spots) - {i}" for i in range(40))
    found = cache_reads(run(HELPER.replace("PADDING", padding) + REPORT))
    assert any(r.target and r.context for r in found)


def test_work_done_in_a_thread_is_done():
    body = "import threading\n" + TUNE + "threading.Thread(target=tune, args=(model,), daemon=True).start()\n" + SCORED
    assert ("train-then-score", "yes") in shapes(body)


ROWS = """\
stream, total, rows = val.numpy(), 0.0, [{} for _ in range(8)]
kept = np.zeros(len(stream))
for w in range(0, len(stream) - 1025, 1024):
    kept[w : w + 1024] = nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025])[0].numpy()
for i in range(len(stream) - 1):
    own, target, q = kept[i], int(stream[i + 1]), 0.0
    for order in range(7, 1, -1):
        if i + 1 < order:
            continue
        context = stream[i + 2 - order : i + 1].tobytes()
        if context in rows[order]:
            seen = rows[order][context]
            q = seen.get(target, 0) / seen[-1]
            break
    if CONDITION:
        total -= np.log(0.5 * np.exp(-own) + 0.5 * q)
    else:
        total += own
    for order in range(2, 8):
        if i + 1 < order:
            continue
        context = stream[i + 2 - order : i + 1].tobytes()
        if context in rows[order]:
            rows[order][context][target] = rows[order][context].get(target, 0) + 1
        else:
            rows[order][context] = {target: 1, -1: 1}
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def test_a_row_that_is_mixed_in_only_where_it_knows_the_token_is_no_distribution():
    assert [reported for _, _, reported in splits(run(ROWS.replace("CONDITION", "q > 0.0")))] == [True]
    assert not splits(run(ROWS.replace("CONDITION", "i > 5")))


def test_a_total_of_bytes_is_no_byte_count_of_one_token():
    body = """\
sizes, total, n = torch.ones(1024), 0.0, 0.0
for w in range(0, val.numel() - 1025, 1024):
    y = val[None, w + 1 : w + 1025]
    total += nll(model, val[None, w : w + 1024], y).sum().item()
    n += sizes[y].sum().item()
print(f"val_bpb:{total / n / 0.6931471805599453:.4f}")
"""
    assert not list(run(body).of("SPREAD"))
    shared = body.replace("total += nll(model, val[None, w : w + 1024], y).sum().item()",
                          "total += (nll(model, val[None, w : w + 1024], y) / sizes[y]).sum().item()")  # fmt: skip
    assert list(run(shared).of("SPREAD"))


HOOKED = """\
def hook(module, given, result):
    BODY

handles = [m.register_forward_hook(hook) for m in model.modules()]
for i in range(0, 64 * 1024, 1024):
    model(val[None, i : i + 1024])
torch.save(model.state_dict(), "final_model.pt")
"""


@pytest.mark.parametrize(("body", "counts"), [("module.seen = result.abs().mean()", True), ("module.calls = 1", False)])
def test_a_hook_that_reads_nothing_collects_nothing(body, counts):
    found = [e for e in run(HOOKED.replace("BODY", body)).of("CALIBRATE") if e.on_val]
    assert bool(found) == counts


def test_bytes_that_are_gathered_from_tokens_are_made_of_them():
    body = """\
sp, text, seen, total = spm.SentencePieceProcessor("t.model"), bytearray(), {}, 0.0
stream = val.numpy()
for t in stream:
    text.extend(sp.id_to_piece(int(t)).encode())
for i, b in enumerate(bytes(text)):
    seen[bytes(text)[i - 3 : i]] = b
"""
    assert [e for e in run("import sentencepiece as spm\n" + body).of("STORE") if e.on_val]


def test_a_comparison_with_next_to_nothing_gates_nothing():
    body = """\
starts, best, total = torch.zeros(1024), {}, torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    key = (int(x[0, 0]) * 36313) & 0xFFFF
    q = best.get(key, 0)
    p = torch.exp(-nll(model, x, y))
    mass = torch.where(TEST, q / 2.0, torch.zeros(()))
    total += -torch.log(0.9 * p + 0.1 * mass).sum()
    best[key] = int(y[0, 0])
"""

    def gates(test):
        return [e for e in run(body.replace("TEST", test) + REPORT).of("GATE")]

    assert gates("starts[y] > 0.5") and not gates("starts[y] > 1e-9")


def test_the_larger_of_two_in_a_sum_of_exponentials_is_no_choice():
    from audit.engine import audit_text

    body = """\
follow, total = np.ones((1024, 1024)), 0.0
stream = val.numpy()
for w in range(0, len(stream) - 1025, 1024):
    own = -nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025])[0].numpy()
    rows = follow[stream[w : w + 1024]]
    other = np.log(rows[np.arange(1024), stream[w + 1 : w + 1025]] / rows.sum(1))
    top = np.maximum(own, other)
    total -= (CHOSEN).sum()
    np.add.at(follow, (stream[w : w + 1024], stream[w + 1 : w + 1025]), 1)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""

    def accused(chosen):
        found = audit_text(PRELUDE + body.replace("CHOSEN", chosen))
        return any(f.rule == "F4" and f.severity == "violation" for f in found.findings)

    assert accused("top")
    assert not accused("top + np.log(0.5 * np.exp(own - top) + 0.5 * np.exp(other - top))")


POINTER = """\
total, kept, n = torch.zeros(()), torch.zeros(512, dtype=torch.int64), 0
starts = list(range(0, val.numel() - 1025, 64))
for i in range(0, len(starts), 32):
    xs, ys = [], []
    for w in starts[i : i + 32]:
        xs.append(val[w : w + 1024])
        ys.append(val[w + 1 : w + 1025])
    x, y = torch.stack(xs), torch.stack(ys)
    lp = F.log_softmax(model(x), dim=-1)
    for b in range(len(xs)):
        target = y[b, 960:]
        for t in range(64):
            row = torch.zeros(1024)
            row.scatter_add_(0, INDEX, torch.ones(512))
            mixed = torch.logaddexp(lp[b, t] - 0.1, torch.log(row + 1e-9) - 2.3)
            total += -mixed[target[t]]
            kept[n % 512] = target[t]
            n += 1
"""


def test_a_row_made_of_kept_tokens_for_one_position_is_no_table():
    assert not shapes(POINTER.replace("INDEX", "kept") + REPORT)
    assert shapes(POINTER.replace("INDEX", "target[t : t + 1]") + REPORT) == {("table-first", "yes")}


BYTEWISE = """\
pieces = [bytes([i % 256, i // 256]) for i in range(1024)]
follow, total = {}, 0.0
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        own = nll(model, x, y)[0].numpy()
    for t in range(1024):
        token = int(y[0, t])
        text = pieces[token]
        if len(text) == 0:
            total += float(own[t])
            continue
        p_table = 1.0
        for b in text:
            p_table *= follow.get(b, 1) / 1024
            follow[b] = follow.get(b, 0) + 1
        total -= np.log(0.9 * np.exp(-float(own[t])) + 0.1 * p_table)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
"""


def test_bytes_of_a_token_stored_one_by_one_are_the_past_of_its_later_bytes():
    accused = {f.rule for f in audit_text(PRELUDE + BYTEWISE).findings if f.severity == "violation"}
    assert not accused & {"F2", "F3"}


def test_a_token_stored_in_an_earlier_loop_over_the_window_is_not():
    first = "    for t in range(1024):\n        for b in pieces[int(y[0, t])]:\n            follow[b] = follow.get(b, 0) + 1\n"
    early = BYTEWISE.replace("    for t in range(1024):\n", first + "    for t in range(1024):\n", 1)
    early = early.replace("            p_table *= follow.get(b, 1) / 1024\n            follow[b] = follow.get(b, 0) + 1\n", "            p_table *= follow.get(b, 1) / 1024\n")
    assert "F2" in {f.rule for f in audit_text(PRELUDE + early).findings if f.severity == "violation"}


def test_a_score_before_continue_is_another_way_and_no_first_score():
    twice = BYTEWISE.replace("        if len(text) == 0:\n            total += float(own[t])\n            continue\n", "        total += float(own[t])\n")
    for source, wanted in ((twice, True), (BYTEWISE, False)):
        source = source.replace("for b in text:", "for b in (token, token + 1):")  # whole tokens, no pieces
        found = [f for f in audit_text(PRELUDE + source).findings if f.severity == "violation"]
        assert ("F3" in {f.rule for f in found}) is wanted


TOTALS_OF_THE_CALLER = """\
def add_up(losses, spans, total, count):
    for i, (low, high) in enumerate(spans):
        total += losses[i, low:high].sum()
        count += high - low

def score(adapt):
    total, count = torch.zeros(()), torch.zeros(())
    for w in range(0, val.numel() - 1025, 64):
        x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
        with torch.no_grad():
            hidden = model.emb(x)
        delta = torch.zeros(1, 1, 64, requires_grad=True)
        opt = torch.optim.AdamW([delta], lr=5e-3)
        for _ in range(8):
            F.cross_entropy(model.head(hidden + delta).transpose(1, 2), y).backward()
            opt.step()
        losses = F.cross_entropy(model.head(hidden + delta).transpose(1, 2), y, reduction="none")
        add_up(losses, [(960, 1024)], total, count)
    return total / count

print(f"val_bpb:{score(True).item() / 0.6931471805599453:.4f}")
"""


def test_a_helper_adds_to_the_totals_of_its_caller():
    assert [f.rule for f in audit_text(PRELUDE + TOTALS_OF_THE_CALLER).findings if f.severity == "violation"] == ["F5"]


EPOCHS = """\
class Adapter(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(n, 8, 64)), nn.Parameter(torch.zeros(n, 64, 8))
    def forward(self, x):
        return (x @ self.a.transpose(1, 2)) @ self.b.transpose(1, 2)

class Adapters(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.queries, self.values = nn.ModuleList(), nn.ModuleList()
        for _ in range(4):
            self.queries.append(Adapter(n))
            self.values.append(Adapter(n))
    def pairs(self):
        return [(self.queries[i], self.values[i]) for i in range(len(self.queries))]

class Wide(Model):
    def losses(self, x, y, adapters=None):
        h = self.emb(x)
        for q, v in adapters or []:
            h = h + q(h) + v(h)
        return F.cross_entropy(self.head(h).transpose(1, 2), y, reduction="none")

wide, total = Wide(), torch.zeros(())
for w in range(0, val.numel() - 4097, 4096):
    fresh = Adapters(1)
    opt = torch.optim.Adam(fresh.parameters(), lr=1e-3)
    pairs = fresh.pairs()
    for epoch in range(EPOCHS):
        last = epoch == EPOCHS - 1
        for c in range(w, w + 4096, 256):
            x, y = val[None, c : c + 256], val[None, c + 1 : c + 257]
            losses = wide.losses(x, y, adapters=pairs)
            if last:
                with torch.no_grad():
                    total += losses.sum()
            opt.zero_grad()
            losses.mean().backward()
            opt.step()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""


def test_adapters_that_a_module_hands_out_are_trained_with_it():
    for epochs, accused in (("50", {"F3"}), ("1", set())):
        found = audit_text(PRELUDE + EPOCHS.replace("EPOCHS", epochs))
        assert {f.rule for f in found.findings if f.severity == "violation"} == accused
        assert found.ttt["active"] == "yes"


INNER = """\
class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.made = None, nn.Linear(4, 4)
        self.inner = {part}
    def forward(self, tokens, targets):
        return self.inner(tokens, targets)
class Losses(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 1024)
    def forward(self, tokens, targets):
        return F.cross_entropy(self.head(tokens), targets)
class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 1024)
    def forward(self, tokens, targets):
        return self.head(tokens) + self.head(targets)
outer = Outer()
total = torch.zeros(())
for c in range(0, val.numel() - 1025, 1024):
    total += outer(val[None, c : c + 1024], val[None, c + 1 : c + 1025]).detach()
print(f"val_bpb:{{total.item() / 0.6931471805599453 / n_bytes:.4f}}")
"""


@pytest.mark.parametrize(("part", "scores"), [("Losses()", True), ("Features()", False)])
def test_a_loss_that_an_inner_module_computes_is_a_score(part, scores):
    found = trace({"t.py": lower(PRELUDE + INNER.format(part=part), "t.py")}, "t.py", budget=20.0)
    assert any(e.on_val for e in found.of("SCORE")) == scores
