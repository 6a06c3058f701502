"""What a score in a loop rests on: earlier turns, this turn, or a way that excludes it."""

from __future__ import annotations

import pytest

from audit.engine import audit_text
from audit.rules.flow import PRELUDE

END = 'print(f"val_bpb:{float(total) / 0.6931471805599453 / n_bytes:.4f}")\n'


def accused(body: str) -> set[str]:
    return {f.rule for f in audit_text(PRELUDE + body + END).findings if f.severity == "violation" and f.active == "yes"}


TREE = """\
counts, context, total = {}, [], 0.0
def predict():
    row = torch.full((1024,), 1.0)
    for token, n in counts.get(context[-1] if context else 0, {}).items():
        row[token] += n
    return row / row.sum()
def learn(token):
    here = counts.setdefault(context[-1] if context else 0, {})
    here[token] = here.get(token, 0) + 1
    context.append(token)
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    logits = model(x)
    mixed = logits.clone()
    for t in range(1024):
        mixed[0, t] = torch.log(0.9 * torch.softmax(logits[0, t], -1) + 0.1 * predict())
        learn(y[0, t].item())
    total += F.cross_entropy(mixed[0], y[0], reduction="sum").item()
"""


def test_rows_mixed_before_their_token_came_in_may_be_scored_together():
    assert not accused(TREE) & {"F2", "F3"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("learn(y[0, t].item())", "learn(y[0, t + 1].item())"),
        (
            "    for t in range(1024):\n        mixed",
            "    for t in range(1024):\n        learn(y[0, t].item())\n    for t in range(1024):\n        mixed",
        ),
    ],
)
def test_rows_that_know_their_token_may_not(old, new):
    assert accused(TREE.replace(old, new)) & {"F2", "F3", "F8"}


CHUNKS = """\
table, total, seen = np.zeros((1024, 1024)), 0.0, np.ones(8)
tokens = val.numpy()
n_chunks = (len(tokens) - 1) // 4096
windows = [[] for _ in range(n_chunks)]
for w in range(0, n_chunks * 4096, 1024):
    windows[w // 4096].append(w)
for c in range(n_chunks):
    if not windows[c]:
        np.add.at(table, (tokens[c * 4096 : (c + 1) * 4096], tokens[c * 4096 + 1 : (c + 1) * 4096 + 1]), 1)
        continue
    for w in windows[c]:
        x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
        p = torch.softmax(model(x), -1)[0].numpy()
        rows = table[tokens[w : w + 1024]]
        known = np.nonzero(rows.sum(1) * seen[0] > 0)[0]
        q = (rows + 1) / (rows.sum(1, keepdims=True) + 1024)
        p[known] = 0.9 * p[known] + 0.1 * q[known]
        total -= np.log(p[np.arange(1024), tokens[w + 1 : w + 1025]]).sum()
    np.add.at(table, (tokens[c * 4096 : (c + 1) * 4096], tokens[c * 4096 + 1 : (c + 1) * 4096 + 1]), 1)
"""


def test_a_turn_that_only_learns_and_goes_on_comes_before_no_score_of_that_turn():
    assert not accused(CHUNKS) & {"F2", "F3"}
    assert "F2" in accused(CHUNKS.replace("        continue\n", ""))


def test_what_a_function_returns_after_learning_is_another_way_in_that_call_only():
    call = """\
counts, total = np.zeros(1024), 0.0
def visit(c):
    global total
    if int(os.environ.get("PHASE_OF", str(c))) == PHASE[c]:
        np.add.at(counts, val[c * 1024 : (c + 1) * 1024].numpy(), 1)
        return
    x, y = val[None, c * 1024 : (c + 1) * 1024], val[None, c * 1024 + 1 : (c + 1) * 1024 + 1]
    p = torch.softmax(model(x), -1)[0].numpy() * 0.9 + 0.1 * counts / counts.sum()
    total -= np.log(p[np.arange(1024), y[0].numpy()]).sum()
PHASE = val[:2].tolist()
"""
    assert not accused(call + "for c in range(1, 100):\n    visit(c)\n") & {"F2", "F3"}
    assert "F2" in accused(call + "for c in range(1, 100):\n    visit(c)\n    visit(c)\n")


MASKED = """\
table, total, weight = np.zeros((1024, 1024)), 0.0, np.ones(8)
tokens = val.numpy()
for c in range((len(tokens) - 1) // 4096):
    hits = np.zeros(8)
    for w in range(c * 4096, (c + 1) * 4096, 1024):
        x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
        p = torch.softmax(model(x), -1)[0].numpy()
        counts = table[tokens[w : w + 1024]]
        known = np.nonzero(counts.sum(1) * weight[0] > 0)[0]
        q = (counts[known] + 1) / (counts[known].sum(1, keepdims=True) + 1024)
        own = p[np.arange(1024), tokens[w + 1 : w + 1025]]
        own[known] = 0.9 * own[known] + 0.1 * q[np.arange(len(known)), tokens[w + 1 : w + 1025][known]]
        hits[0] += (own > 0.5).sum()
        total -= np.log(own).sum()
    weight[0] = hits[0] / 4096
    np.add.at(table, (tokens[c * 4096 : (c + 1) * 4096], tokens[c * 4096 + 1 : (c + 1) * 4096 + 1]), 1)
"""


def test_a_mask_made_of_earlier_counts_chooses_no_earlier_tokens():
    assert not accused(MASKED) & {"F2", "F3"}
    ahead = MASKED.replace("np.add.at(table, (tokens[c * 4096 : (c + 1) * 4096], tokens[c * 4096 + 1 : (c + 1) * 4096 + 1]), 1)", "")
    ahead = ahead.replace("    hits = np", "    np.add.at(table, (tokens[c * 4096 : (c + 1) * 4096], tokens[c * 4096 + 1 : (c + 1) * 4096 + 1]), 1)\n    hits = np")
    assert "F2" in accused(ahead)


TWICE = """\
def adapted_bpb(lr):
    opt = torch.optim.SGD(model.parameters(), lr=lr)
    total = torch.zeros(())
    for i in range(0, val.numel() - 1025, 1024):
        x, y = val[None, i : i + 1024], val[None, i + 1 : i + 1025]
        with torch.no_grad():
            total += nll(model, x, y).sum()
        opt.zero_grad()
        nll(model, x, y).mean().backward()
        opt.step()
    return total
adapted_bpb(1e-3)
RESET
total = adapted_bpb(1e-2)
"""


@pytest.mark.parametrize(
    ("reset", "active"),
    [
        ("pass", "yes"),
        ("for name, p in model.named_parameters():\n    p.zero_() if 'down' in name else p.normal_()", "unknown"),
        ("for p in model.parameters():\n    p.grad.zero_()", "yes"),
    ],
)
def test_parameters_reset_between_two_runs_leave_the_second_undetermined(reset, active):
    found = audit_text(PRELUDE + TWICE.replace("RESET", reset) + END)
    assert {f.active for f in found.findings if f.rule in ("F1", "F2", "F3") and f.severity == "violation"} == {active}
    assert found.verdict == ("violation" if active == "yes" else "undetermined")


QUEUE = """\
run = os.environ.get("RUN_ID", "r") + str(os.getpid())
path = f"/tmp/claimed_{run}"
KEPT
with open(path, "wb") as f:
    f.write((0).to_bytes(4, "little"))
def claim():
    with open(path, "r+b") as f:
        at = int.from_bytes(f.read(4), "little")
        f.seek(0)
        f.write((at + 1).to_bytes(4, "little"))
    return at
pieces = [(i, min(1024, val.numel() - 1 - i)) for i in range(0, val.numel() - 1, 1024)]
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
while True:
    at = claim()
    if at >= len(pieces):
        break
    start, size = pieces[at]
    x, y = val[None, start : start + size], val[None, start + 1 : start + size + 1]
    with torch.no_grad():
        total += nll(model, x, y).sum()
    nll(model, x, y).mean().backward()
    opt.step()
"""


@pytest.mark.parametrize("kept", ["", 'torch.save({"w": train[1:1025].float()}, "kept.pt")', 'torch.save(train[1:1025], run + ".pt")'])
def test_a_queue_kept_in_a_file_gives_another_piece_in_every_turn(kept):
    assert not accused(QUEUE.replace("KEPT", kept)) & {"F1", "F2", "F3"}


def test_a_queue_that_is_asked_once_gives_the_same_piece():
    once = QUEUE.replace("KEPT", "").replace("while True:\n    at = claim()\n", "at = claim()\nwhile True:\n")
    assert accused(once) & {"F1", "F2", "F3"}


ONCE = """\
total, seen, done = 0.0, set(), {}
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for epoch in range(3):
    for i in range(0, val.numel() - 1025, 1024):
        loss = nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025])
        TEST
            MARK
            total += loss.detach().sum().item()
        opt.zero_grad()
        loss.mean().backward()
        opt.step()
"""


@pytest.mark.parametrize(
    ("test", "mark"),
    [("if i not in seen:", "seen.add(i)"), ("if not i in seen:", "seen.add(i)"), ("if i not in done:", "done[i] = True")],
)
def test_a_branch_that_each_piece_takes_once_scores_it_once(test, mark):
    assert not accused(ONCE.replace("TEST", test).replace("MARK", mark)) & {"F1", "F2", "F3"}


@pytest.mark.parametrize(
    ("test", "mark"),
    [
        ("if i not in seen:", "pass"),  # nothing is marked
        ("if i not in seen:", "seen.add(i + 1)"),
        ("if i in seen:", "seen.add(i)"),
        ("if epoch > 0 and i not in seen:", "seen.add(i)"),  # not before the second epoch
        ("if not done.get(i):", "done[i] = False"),
    ],
)
def test_a_branch_that_is_taken_later_or_again_is_no_first_time(test, mark):
    assert accused(ONCE.replace("TEST", test).replace("MARK", mark)) & {"F1", "F2", "F3"}


FIT = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def price(x, y):
    with torch.no_grad():
        return nll(model, x, y).sum()
def fit(x, y):
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()
"""
LINE = """\
from collections import deque
line, total = {make}, torch.zeros(())
for c in range(0, val.numel() - 1, 1024):
    w = val[c : c + 1025]
    line.append((w[None, :-1], w[None, 1:]))
    if len(line) > 3:
        old = line.{take}
        {order}
while line:
    total += price(*line.{take})
"""
SCORED, LEARNED = "total += price(*old)", "fit(*old)"


@pytest.mark.parametrize(("make", "take"), [("deque()", "popleft()"), ("[]", "pop(0)")])
def test_what_is_taken_from_a_queue_is_taken_once(make, take):
    def found(order: str) -> set[str]:
        return accused(FIT + LINE.format(make=make, take=take, order=order))

    assert not found(f"{SCORED}; {LEARNED}")
    assert found(f"{LEARNED}; {SCORED}") & {"F1", "F2"}
    assert found(f"{SCORED}; {LEARNED}; line.append(old)") & {"F1", "F2", "F3"}


YIELDS = """\
def walk(tokens, size):
    for c in range(0, tokens.numel() - 1, size):
        w = tokens[c : c + size + 1]
        loss = nll(model, w[None, :-1], w[None, 1:])
        {order}
"""
GIVEN, TAUGHT = "yield loss.detach().sum()", "opt.zero_grad(); loss.mean().backward(); opt.step()"
AGAIN = "loss = nll(model, w[None, :-1], w[None, 1:])"


@pytest.mark.parametrize("consumer", ["sum(walk(val, 2048))", "torch.stack(list(walk(val, 2048))).sum()"])
def test_a_generator_hands_out_a_loss_before_it_goes_on(consumer):
    def found(order: str) -> set[str]:
        return accused(FIT + YIELDS.format(order=order) + f"total = {consumer}\n")

    assert not found(f"{GIVEN}; {TAUGHT}")
    assert found(f"{TAUGHT}; {AGAIN}; {GIVEN}") & {"F1", "F2"}


LISTED = """\
edges = (val == 1).nonzero()[:, 0].tolist() + [val.numel() - 1]
spans = list(zip(edges[:-1], edges[1:]))
total = torch.zeros(())
{walk}
"""
ONE_BY_ONE = """\
for i in range(len(spans)):
    a, b = spans[i]
    total += price(val[None, a:b], val[None, a + 1 : b + 1])
    a, b = spans[{at}]
    fit(val[None, a:b], val[None, a + 1 : b + 1])"""
IN_GROUPS = """\
for lo in range(0, len(spans), 50):
    hi = min(lo + 50, len(spans))
    for a, b in spans[lo:hi]:
        total += price(val[None, a:b], val[None, a + 1 : b + 1])
    for a, b in spans[{at}]:
        fit(val[None, a:b], val[None, a + 1 : b + 1])"""
NUMBERED = """\
size = 8192
for k in range((val.numel() - 1) // size):
    for a in range(k * size, (k + 1) * size, 1024):
        total += price(val[None, a : a + 1024], val[None, a + 1 : a + 1025])
    for a in range({at}, 1024):
        fit(val[None, a : a + 1024], val[None, a + 1 : a + 1025])"""


@pytest.mark.parametrize(
    ("walk", "own", "following"),
    [
        (ONE_BY_ONE, "i", "i + 1"),
        (ONE_BY_ONE, "i", "min(i + 1, len(spans) - 1)"),
        (IN_GROUPS, "lo:hi", "hi : hi + 50"),
        (NUMBERED, "k * size, (k + 1) * size", "(k + 1) * size, (k + 2) * size"),
    ],
)
def test_an_index_of_the_next_turn_is_the_next_turns(walk, own, following):
    assert not accused(FIT + LISTED.format(walk=walk.format(at=own)))
    assert accused(FIT + LISTED.format(walk=walk.format(at=following))) == {"F2"}


PAIR = """\
import math
counts, total = np.full((1024, 1024), 0.01), 0.0
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    with torch.no_grad():
        P = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        a, t = ids[j], ids[j + 1]
{before}        q, p = counts[a] / counts[a].sum(), P[j]
        if {test}:
            total -= {one}
        else:
            total -= {two}
{after}"""
COUNT = "        counts[a, t] += 1\n"


@pytest.mark.parametrize(
    ("test", "one", "two"),
    [
        ("q.max() > p.max()", "math.log(q[t])", "math.log(p[t])"),
        ("q.max() <= p.max()", "math.log(p[t])", "math.log(q[t])"),
        ("counts[a].sum() > 20", "np.log(q[t])", "np.log(p[t])"),
        ("-(p * np.log(p)).sum() > 4.0", "math.log(q[t])", "math.log(p[t])"),
        ("q.max() > p.max()", "math.log(counts[a, t] / counts[a].sum())", "math.log(p[t])"),
    ],
)
def test_what_a_table_alone_gives_a_token_is_scored_where_it_is_added(test, one, two):
    assert not accused(PAIR.format(test=test, one=one, two=two, before="", after=COUNT))
    assert accused(PAIR.format(test=test, one=one, two=two, before=COUNT, after=""))


EXPERTS = """\
uni, weights, total = torch.ones(1024), torch.zeros(2), torch.zeros(())
for s in range(0, val.numel() - 1, 1024):
    w = val[s : s + 1025]
    x, y = w[None, :-1], w[1:]
    with torch.no_grad():
        a = torch.log_softmax(model(x)[0], -1).gather(1, y[:, None])[:, 0]
    b = torch.log(uni / uni.sum())[y]
    gold = torch.stack([a, b])
{lines}
    uni += torch.bincount(y, minlength=1024)
"""
MIX = "    total -= torch.logsumexp(gold + torch.log_softmax(weights, 0)[:, None], 0).sum()"
LEARN = "    weights = weights + gold.mean(1)"


def test_weights_of_experts_that_earlier_turns_left_are_no_scores():
    assert not accused(EXPERTS.format(lines=f"{MIX}\n{LEARN}"))
    assert not accused(EXPERTS.format(lines=f"{MIX}\n    weights = torch.stack([weights[0] + a.mean(), weights[1] + b.mean()])"))
    assert accused(EXPERTS.format(lines=f"{LEARN}\n{MIX}"))
    # a sum of losses that has not been counted yet is no weight, whatever it was made of
    late = "    total = total - torch.log_softmax(model(x)[0], -1).gather(1, y[:, None]).sum()"
    assert not accused(EXPERTS.format(lines=late))
    fit = "    optimizer.zero_grad()\n    nll(model, x, w[None, 1:]).mean().backward()\n    optimizer.step()\n"
    assert accused(EXPERTS.format(lines=fit + late))


POOL = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
class Piece:
    def __init__(self, start, stop):
        self.start, self.stop = start, stop
def learn(a, b):
    opt.zero_grad()
    nll(model, val[None, a:b], val[None, a + 1 : b + 1]).mean().backward()
    opt.step()
n, total, k = val.numel() - 1, torch.zeros(()), 0
cut = (val == 1).nonzero()[:, 0].tolist() + [n]
docs = list(zip(cut[:-1], cut[1:]))
pieces = [Piece(a, b) for a, b in docs]
for {turns}:
    end = min(c + 1024, n)
    with torch.no_grad():
        total += nll(model, val[None, c:end], val[None, c + 1 : end + 1]).sum()
{lines}
"""
BY_CHUNK = "c in range(0, n, 1024)"


def pool(lines: str, turns: str = BY_CHUNK) -> set[str]:
    return accused(POOL.format(turns=turns, lines="\n".join(f"    {line}" for line in lines.splitlines())))


@pytest.mark.parametrize(
    "lines",
    [
        "for a, b in docs:\n    if c < b <= end:\n        learn(a, b)",
        "for a, b in docs:\n    if not c < b <= end:\n        continue\n    learn(a, b)",
        "while k < len(docs) and docs[k][1] <= end:\n    a, b = docs[k]\n    learn(a, b)\n    k += 1",
        "for a, b in [d for d in docs if c < d[1] <= end]:\n    learn(a, b)",
        "ready = [d for d in pieces if c < d.stop <= end]\nfor d in ready:\n    learn(d.start, d.stop)",
    ],
)
def test_pieces_that_a_test_of_places_picks_for_the_turn_are_not_shown_to_be_rescored(lines):
    assert not pool(lines)


@pytest.mark.parametrize(
    "lines",
    [
        "for a, b in docs:\n    learn(a, b)",
        "for a, b in docs:\n    if b - a > 64:\n        learn(a, b)",
        "if c + 1024 < n:\n    for a, b in docs:\n        learn(a, b)",
        "for a, b in [d for d in docs if d[1] - d[0] > 64]:\n    learn(a, b)",
    ],
)
def test_pieces_that_nothing_ties_to_the_turn_are(lines):
    assert pool(lines)


def test_a_test_of_places_in_an_epoch_ties_nothing_to_it():
    head, _, body = POOL.format(turns=BY_CHUNK, lines="    if epoch < 2 or c < n - 1024:\n        learn(c, end)").partition(f"for {BY_CHUNK}")
    nested = "\n".join(f"    {line}" for line in f"for {BY_CHUNK}{body}".splitlines())
    assert accused(f"{head}for epoch in range(3):\n{nested}\n")


HANDED = """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def adapting(tokens):
    for s in range(0, tokens.numel() - 1, 1024):
        w = tokens[s : s + 1025]
{first}
{second}
def priced(stream):
    for w in stream:
        with torch.no_grad():
            yield nll(model, w[None, :-1], w[None, 1:]).sum()
total = torch.zeros(())
{use}
"""
HAND = "        yield w"
TUNE = "        opt.zero_grad()\n        nll(model, w[None, :-1], w[None, 1:]).mean().backward()\n        opt.step()"
DIRECT = "for w in adapting(val):\n    with torch.no_grad():\n        total += nll(model, w[None, :-1], w[None, 1:]).sum()"
PIPED = "for l in priced(adapting(val)):\n    total += l"
APART = "for w in adapting(val):\n    pass\ntotal = evaluate(model, val) * 0.6931471805599453 * n_bytes"


@pytest.mark.parametrize("use", [DIRECT, PIPED])
def test_what_follows_a_yield_may_come_after_the_score(use):
    assert not accused(HANDED.format(first=HAND, second=TUNE, use=use))
    assert accused(HANDED.format(first=TUNE, second=HAND, use=use))


def test_what_is_scored_after_all_that_a_generator_learned_is_accused():
    assert accused(HANDED.format(first=HAND, second=TUNE, use=APART))


MIXED = """\
import math
counts, total = np.full((1024, 1024), 0.05), 0.0
weights = np.array([1.0, 0.0])
def log_softmax(z):
    return z - z.max() - np.log(np.exp(z - z.max()).sum())
for c in range(0, val.numel() - 1, 1024):
    w = val[c : c + 1025]
    with torch.no_grad():
        probs = torch.softmax(model(w[None, :-1])[0], -1).double().numpy()
    ids = w.tolist()
    for j in range(len(ids) - 1):
        a, t = ids[j], ids[j + 1]
@@
"""
LOGISTIC = """\
        ins = np.stack([np.log(probs[j]), np.log(counts[a] / counts[a].sum())])
        lp = log_softmax(weights @ ins)
        total -= lp[t]
        weights = weights + 0.02 * (ins[:, t] - ins @ np.exp(lp))
        counts[a, t] += 1.0
"""
BAYES = """\
        rows = np.stack([probs[j], counts[a] / counts[a].sum()])
        total -= math.log((weights / weights.sum()) @ rows[:, t])
        weights = weights * rows[:, t]
        counts[a, t] += 1.0
"""


@pytest.mark.parametrize("mix", [LOGISTIC, BAYES])
def test_weights_that_earlier_tokens_of_the_window_left_are_no_scores_of_theirs(mix):
    assert not accused(MIXED.replace("@@", mix))
    learned = "        counts[a, t] += 1.0\n"
    assert accused(MIXED.replace("@@", learned + mix.replace(learned, ""))) & {"F2", "F3", "F8"}
