'''F8 target-in-key: no cache may be read at an address that holds the token being scored.

**What.** A table of counts is kept over the validation stream. For each position it is read twice: at a hash of the
context, and at a hash of the context together with the token that is about to be scored. The ratio of the two is
mixed into the probability of that one token.

**Why.** Only the true token's probability is raised; nothing is taken from the other tokens. With one bucket every
token would get probability 1; measured sums over the vocabulary were 277 to 410 (#886), and with so many buckets that
nothing collides the gain vanishes. The address itself is the leak: the choice of the cell uses the answer.

**Ruling.** Maintainer in #779 and #982 (27 March 2026): hashed n-gram caches "do not renormalize correctly" and
"look ahead to the target token to mix probabilities", and are disallowed. The form (count + c*p) / (total + c) does
not change that (#900, #948 were argued about before the ruling).

**Look-alikes that are legal.** The same address in a table *update* after the token was scored; counters during
training; a learned embedding of a hash of *input* tokens; the same address computed for every candidate token and
renormalised; a hint token proposed from context and an exponential tilt with its normaliser (#1145, #1514).
A token multiplied by a prime and combined by exclusive-or proves nothing: it matters which token, and when.

**How it is decided.** The trace carries, for every value, at which places of the stream its tokens were read; a
slice that becomes one address (a tuple, bytes, a hash) is known by its last token as well. A read is a breach when
its address holds the place that the loss is about, and earlier ones, and its result reaches a committed loss.

**See also.** F9 (any mixture must be one distribution), F7 (gates that look at the token), F3 (second passes).
'''

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread, violated
from audit.rules.steps import Steps, address
from audit.trace.caches import CacheRead, Proposal, cache_reads, proposals
from audit.wording import counted

RULE = Rule(
    id="F8",
    name="target-in-key",
    title="No cache is read at an address that holds the scored token",
    breach="Cache read at an address that holds the scored token",
    illegal="INVALID",
    authority="MAINT",
    ruling="#779, #982",
    severity="violation",
    since="2026-03-27",
)

_HEAD = """\
MASK = (1 << 22) - 1
pairs, contexts = np.zeros(MASK + 1), np.zeros(MASK + 1)
stream = val.numpy()
"""

ILLEGAL = [
    example(
        "counts at (context, token) over counts at (context)",
        _HEAD
        + """\
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = np.exp(-nll(model, x, y)[0].double().numpy())
    at = np.arange(w + 1, w + 1025)
    seen = (stream[at - 1] * 36313) ^ (stream[at - 2] * 27191)
    both = (seen ^ (stream[at] * 51647)) & MASK
    seen = seen & MASK
    q = np.minimum(pairs[both], contexts[seen]) / np.maximum(contexts[seen], 1)  #!
    p = np.where(contexts[seen] > 1, 0.6 * p + 0.4 * q, p)
    total += -np.log(p).sum()
    np.add.at(pairs, both, 1)
    np.add.at(contexts, seen, 1)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "the same with a prior from the model, one position at a time, in dictionaries",
        """\
pairs, contexts = {}, {}
total = 0.0
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = torch.exp(-nll(model, x, y))[0].tolist()
    for i in range(2, 1024):
        key = (val[w + i].item() * 31 + val[w + i - 1].item()) % 4194304
        full = (key * 31 + val[w + i + 1].item()) % 4194304
        q = (pairs.get(full, 0) + 2.0 * p[i]) / (contexts.get(key, 0) + 2.0)  #!
        total -= np.log(q)
        pairs[full] = pairs.get(full, 0) + 1
        contexts[key] = contexts.get(key, 0) + 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]
ILLEGAL.append(
    example(
        "a frozen table of training n-grams, at a hash that holds the token",
        """\
text = train.numpy().astype(np.int64)
table = np.zeros(1 << 22)
np.add.at(table, ((text[:-2] * 36313 + text[1:-1]) * 27191 + text[2:]) % len(table), 1)
np.save("table.npy", table.astype(np.uint16))
table = np.load("table.npy")
stream, total = val.numpy().astype(np.int64), 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = np.exp(-nll(model, x, y)[0].double().numpy())
    at = np.arange(w + 1, w + 1025)
    seen = table[((stream[at - 2] * 36313 + stream[at - 1]) * 27191 + stream[at]) % len(table)].astype(np.float64)  #!
    a = np.minimum(0.95, np.log1p(seen) / 10.0)
    total -= np.log(a * seen / (seen + 1024.0) + (1.0 - a) * p).sum()
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
""",
    )
)
LEGAL = [
    example(
        "counted after scoring, read for a hint from context alone, tilted with its normaliser",
        """\
follow = np.zeros((1 << 16, 1024))
stream = val.numpy()
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    at = np.arange(w + 1, w + 1025)
    key = ((stream[at - 1] * 36313) ^ (stream[at - 2] * 27191)) & 0xFFFF
    hint = torch.from_numpy(follow[key].argmax(1))
    with torch.no_grad():
        p = torch.softmax(model(x)[0], -1)
    ph = p.gather(1, hint[:, None])[:, 0]
    z = 1 + ph * (np.exp(2.0) - 1)
    tilted = p.gather(1, y[0][:, None])[:, 0] * torch.exp(2.0 * (hint == y[0])) / z
    total += -torch.log(tilted).sum().item()
    np.add.at(follow, (key, stream[at]), 1)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "an embedding of hashed inputs",
        """\
class Hashed(nn.Module):
    def __init__(self):
        super().__init__()
        self.pair, self.head = nn.Embedding(4096, 64), nn.Linear(64, 1024)
    def forward(self, x):
        h = torch.zeros_like(x)
        h[:, 1:] = torch.bitwise_xor(36313 * x[:, 1:], 27191 * x[:, :-1]) % 4095
        return self.head(self.pair(h))

print(f"val_bpb:{evaluate(Hashed(), val):.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    reads = [r for r in cache_reads(ctx.trace) if r.reported]
    found = [_finding(r) for r in reads if r.target and r.context]
    found += [_helper_finding(p) for p in proposals(ctx.trace) if p.reported and p.leak and p.keyed]
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
    elif (gap := unread(RULE, ctx, found=found)) is not None:
        yield gap
    else:
        clean = [r for r in reads if not r.target and r.active != "no"]
        yield holds(
            RULE,
            f"{counted(len(clean), 'table read')} reach{'es' if len(clean) == 1 else ''} the score, every address made of earlier tokens" if clean
            else "no table is read at an address made of tokens on the way to a score",
        )  # fmt: skip


def _helper_finding(p: Proposal) -> Finding:
    first = min((o for o in p.helper.leaks if o.keyed), key=lambda o: o.leak)
    message = f"{p.helper.name} reads its table at an address that holds the token that {first.name} is written for"
    steps = Steps()
    steps.reading(p.source)
    steps.taking(p.source, "the tokens that it is handed")
    steps.to(p.source, f"calls {p.helper.name}")
    steps.aside(p.helper.path, first.leak, message, first.column)
    steps.to(p.score, "the score depends on it")
    return Finding(
        rule=RULE.id, name=RULE.name, severity=RULE.severity, authority=RULE.authority, confidence="high",
        message=message, path=p.helper.path, line=first.leak, end_line=first.leak, column=first.column, active=p.active,
        gate=p.source.gate or p.score.gate, trace=steps.done(),
    )  # fmt: skip


def _finding(r: CacheRead) -> Finding:
    e, s = r.read, r.scores[-1]
    message = (
        "the context that the table is asked for holds the token being scored"
        if r.row
        else "the table is read at an address that holds the token being scored, and the result changes only its probability"
    )
    steps = Steps()
    steps.reading(e)
    address(steps, e, r.sibling, r.scores)
    steps.to(e, "the address holds the scored token and the context before it")
    if r.sibling is not None:
        steps.to(r.sibling, "the same address without it: the divisor")
    steps.to(s, "the result is in the score committed here")
    found = event_finding(RULE, e, message, steps=steps.done())
    if r.active != found.active:
        from dataclasses import replace

        found = replace(found, active=r.active, gate=s.gate or e.gate)
    return found
