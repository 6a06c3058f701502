'''F9 one distribution: what is mixed must sum to one over the official alphabet, fixed before the token is read.

**What.** A score is -log p(x) of one distribution p. Seven shapes break this: only the true token's probability is raised
by a cache (F8's hashed counts); a row of counts over all candidates is divided by a count from another table, or by its
largest count; a row is mixed in only where it has seen the true token, and the model's probability stands where it has
not; a row gives the tokens that it has seen all that there is to give, and the others get something from a shorter
context on top of it; a hint's probability is raised where the hint is right, and no other is lowered; an expert of a mixture is no
distribution (the model's entropy, taken as if it were the token's loss, gives every token exp(-H)); a
token's probability is spread over its bytes (F10).

**Why.** A number that is not the probability of a distribution cannot be turned into a code of that length. The sums
over the vocabulary of such "probabilities" were measured at 277 to 410 (#886, #978), and forcing them to one took a
claimed 0.39 bits per byte back to 1.51 (#972 and its correction #978).

**Ruling.** Maintainer on #1185 (March 2026): renormalise over the full vocabulary; a causal normalised cache "would be
more inclined to be treated as legal". "Sums to one by construction" in a README decides nothing (#702, #962 claimed it).

**Look-alikes that are legal.** An exponential tilt of one hint with its normaliser (#1145, #1514); a mixture with a
point mass on a hint (#1518); counts divided by their own row's sum; backing off to shorter contexts where the longer is unknown, and handing on to
them what a row keeps for tokens that it has not seen; soft caps, temperatures and logit scales, which act
before the softmax.

**How it is decided.** Known shapes, by dataflow: which table reads meet in a division, and whose sum the divisor is.
In a log-sum-exp over stacked losses, an entry that is computed from the model's
output without the token is no expert. Other mixtures are not shown to be normalised from source; a run with every candidate as target shows it.

**See also.** F8, F10, F7.
'''

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import example, holds, unread, violated
from audit.rules.steps import Steps, address, named, spread
from audit.trace import Event
from audit.trace.caches import CacheRead, byte_mixtures, cache_reads, foreign_divisors, splits

RULE = Rule(
    id="F9",
    name="not-a-distribution",
    title="What is scored is one normalised distribution over the alphabet",
    breach="Score that is not one normalised distribution",
    illegal="INVALID",
    authority="MAINT",
    ruling="#1185",
    severity="violation",
    since="2026-03-27",
)

_ROWS = """\
pairs, contexts = torch.zeros(1 << 20), torch.zeros(1 << 20)
candidates = torch.arange(1024)
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = torch.exp(-nll(model, x, y))[0]
    key = x[0] * 5743 % (1 << 20)
    cells = (key[:, None] * 1009 + candidates[None]) % (1 << 20)
    row = pairs[cells]
    true = row.gather(1, y[0][:, None])[:, 0]
@@
    total += -torch.log(0.5 * p + 0.5 * q).sum()
    pairs.scatter_add_(0, (key * 1009 + y[0]) % (1 << 20), torch.ones(1024))
    contexts.scatter_add_(0, key, torch.ones(1024))
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""

_EXPERTS = """\
weights = torch.zeros(3)
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logp = torch.log_softmax(model(x).float(), -1)
    own = -logp.gather(2, y[..., None])[..., 0]
    flat = torch.full_like(own, 6.93)
    entropy = -(logp.exp() * logp).sum(-1)
@@
    total -= mixed.sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""

ILLEGAL = [
    example(
        "the hint's odds raised, and nothing taken off the others",
        """\
follow = np.zeros((1 << 16, 1024))
stream = val.numpy()
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    at = np.arange(w + 1, w + 1025)
    key = ((stream[at - 1] * 36313) ^ (stream[at - 2] * 27191)) & 0xFFFF
    hint = torch.from_numpy(follow[key].argmax(1))[None]
    with torch.no_grad():
        own = nll(model, x, y)
    raised = own - 2.0 * (hint == y)  #!
    total += raised.sum().item()
    np.add.at(follow, (key, stream[at]), 1)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "the model's entropy mixed in as if it were a loss",
        _EXPERTS.replace(
            "@@",
            """\
    losses = torch.stack([own, flat, entropy], dim=-1)  #!
    mixed = (torch.log_softmax(weights, 0) - losses).logsumexp(-1)""",
        ),
    ),
    example(
        "a row over all candidates, divided by the count of its context in another table",
        _ROWS.replace("@@", "    q = (true + 2.0 * p) / (contexts[key] + 2.0)  #!"),
    ),
    example(
        "mixed in only where the token is among those that followed",
        """\
from collections import Counter, defaultdict
followed, total = defaultdict(Counter), 0.0
for w in range(0, val.numel() - 1025, 1024):
    with torch.no_grad():
        probs = torch.softmax(model(val[None, w : w + 1024])[0], -1).double().numpy()
    ids = val[w : w + 1025].tolist()
    for j in range(1024):
        after, token = followed[ids[j]], ids[j + 1]
        p = probs[j, token]
        if token in after:  #!
            p = 0.7 * p + 0.3 * after[token] / sum(after.values())
        total -= np.log(p)
        after[token] += 1
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "only the true token is looked up and raised",
        """\
pairs, contexts = np.zeros(1 << 20), np.zeros(1 << 20)
stream = val.numpy()
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p = np.exp(-nll(model, x, y)[0].numpy())
    at = np.arange(w + 1, w + 1025)
    key = stream[at - 1] * 5743 % (1 << 20)
    cell = (key * 1009 + stream[at]) % (1 << 20)
    q = pairs[cell] / np.maximum(contexts[key], 1)  #!
    total -= np.log(0.8 * p + 0.2 * q).sum()
    np.add.at(pairs, cell, 1)
    np.add.at(contexts, key, 1)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]
LEGAL = [
    example(
        "experts mixed with weights made of the entropy",
        _EXPERTS.replace(
            "@@",
            """\
    trust = torch.sigmoid(2.0 - entropy)
    mixed = torch.stack([trust.log() - own, (1 - trust).log() - flat], dim=-1).logsumexp(-1)""",
        ),
    ),
    example(
        "the row divided by its own sum",
        _ROWS.replace("@@", "    q = (true + 2.0 * p) / (row.sum(1) + 2.0)"),
    ),
    example(
        "the hint's odds raised, with the normaliser from a figure that the model's own method returns",
        """\
class Hinted(Model):
    def both(self, x, y, hint):
        logp = torch.log_softmax(self.head(self.emb(x)).float(), -1)
        return -logp.gather(2, y[..., None])[..., 0], logp.gather(2, hint[..., None])[..., 0]

follow = np.zeros((1 << 16, 1024))
stream, hinted = val.numpy(), Hinted()
total = 0.0
for w in range(0, len(stream) - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    at = np.arange(w + 1, w + 1025)
    key = ((stream[at - 1] * 36313) ^ (stream[at - 2] * 27191)) & 0xFFFF
    hint = torch.from_numpy(follow[key].argmax(1))[None]
    with torch.no_grad():
        own, at_hint = hinted.both(x, y, hint)
    z = torch.log1p(at_hint.exp() * np.expm1(2.0))
    total += (own - 2.0 * (hint == y) + z).sum().item()
    np.add.at(follow, (key, stream[at]), 1)
print(f"val_bpb:{total / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "a temperature and a soft cap before the softmax",
        """\
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logits = 30.0 * torch.tanh(model(x) / 30.0) / 1.02
        total += F.cross_entropy(logits.transpose(1, 2), y, reduction="none").sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    found: list[Finding] = []
    for r in cache_reads(ctx.trace):
        if r.target and r.context and r.reported:
            message = (
                "the row that is mixed in is that of a context with the scored token in it; no distribution was fixed before it was read"
                if r.row
                else "only the true token's probability is mixed with a cached count; the rest of the distribution stays"
            )
            found.append(_finding(r.read, r.scores[-1], message, r.active, r))
    for x in byte_mixtures(ctx.trace):
        if x.reported:
            message = "shares of one token's probability are mixed byte by byte; no distribution was fixed before it was read"
            found.append(replace(_finding(x.spread, x.score, message, x.active), trace=spread(ctx.trace, x).done()))
    for e, s, reported in foreign_divisors(ctx.trace):
        if reported:
            message = (
                "counts over all candidates are divided by another table's count, so they do not sum to one"
                if e.kind == "DIVISOR"
                else "an expert of the mixture gives every token the same probability, computed without the token"
                if e.detail.get("flat")
                else "the token's probability is raised where a hint is right, and nothing is taken off the other tokens"
                if e.detail.get("hit")
                else "a row of counts with a prior is divided by its largest or mean count, and not by its sum"
                if e.detail.get("scale")
                else "the row is raised at a proposed token after its softmax and not normalised again"
            )
            found.append(_finding(e, s, message, max(e.active, s.active, key=("yes", "unknown", "no").index)))
    already = {f.path for f in found if f.active == "yes"}
    for e, s, reported in splits(ctx.trace):
        if reported and e.path not in already:
            message = "the cache is mixed in only where it has seen the scored token, so what it adds is taken from nothing"
            found.append(_finding(e, s, message, max(e.active, s.active, key=("yes", "unknown", "no").index)))
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
    else:
        yield unread(RULE, ctx, found=found) or holds(RULE, "none of the known unnormalised shapes reaches a score")


def _finding(e: Event, s: Event | None, message: str, active: str, read: CacheRead | None = None) -> Finding:
    helper = e.detail.get("helper")
    path, line, column = e.path, e.line, e.column
    if helper is not None and helper.spreads:
        path, line, column = helper.path, helper.spreads[0], helper.columns.get(helper.spreads[0], 0)
    steps = Steps()
    if read is not None:
        address(steps, e, read.sibling, read.scores)
    elif e.detail.get("flat") and (link := named(e)) is not None:
        steps.to(link, "it is computed here, without the token")
    steps.to(e, "this is mixed in")
    if read is not None and read.sibling is not None:
        steps.to(read.sibling, "the count that it is divided by")
    if s is not None:
        steps.to(s, "the mixture is scored here")
    return Finding(
        rule=RULE.id, name=RULE.name, severity=RULE.severity, authority=RULE.authority, confidence="high",
        message=message, path=path, line=line, end_line=line, column=column, active=active,  # type: ignore[arg-type]
        gate=e.gate or (s.gate if s is not None else None), trace=steps.done(),
    )  # fmt: skip
