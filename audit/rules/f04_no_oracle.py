'''F4 no oracle: which distribution is scored may not be chosen by looking at the token.

**What.** Two losses of the same token are compared, and the smaller counts: the best of several passes, the model or the
cache, whichever was right.

**Why.** The choice is information about the token. A decoder that does not know the token yet cannot make it.

**Ruling.** Maintainer on #659 (24 March 2026): choosing by the lower loss is "effectively peeking at the correct token";
the cache as such was not objected to, and gating by the model's entropy was suggested.

**Look-alikes that are legal.** A weight that is a function of the model's own entropy (#702); weights of experts updated
after scoring; clamping one count by another; ``min`` over chunk ends, sizes or learning rates; keeping the best of several
validation figures (F18, a different matter).

**How it is decided.** Element-wise minima, maxima and selections between two values that each depend on the scored
token, one of them a loss, whose result is scored; and branches that compare two losses of the same tokens, neither of
them scored yet, and take one. The least of several losses, the largest of several passes' log-probabilities, and what such
a comparison picks (a row, a temperature) count where they are used for the very tokens that they were chosen by.

**See also.** F3 (second passes), F8 (addresses), F18 (choice by the whole score).
'''

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from audit.context import Context
from audit.model import Finding, Obligation, Step
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread, violated
from audit.rules.steps import Steps
from audit.trace import Event
from audit.trace.caches import all_scores, marks, reported_ids, sources
from audit.trace.choices import for_its_own
from audit.trace.values import LOSS, PROB

RULE = Rule(
    id="F4",
    name="oracle-choice",
    title="No distribution is chosen by how well it predicts the token",
    breach="Distribution chosen by how well it predicts the token",
    illegal="INVALID",
    authority="MAINT",
    ruling="#659",
    severity="violation",
    since="2026-03-24",
)

_TWO = """\
other = Model()
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        a, b = nll(model, x, y), nll(other, x, y)
@@
    total += best.sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""

ILLEGAL = [
    example("the smaller of two losses", _TWO.replace("@@", "    best = torch.minimum(a, b)  #!")),
    example("the same by a comparison", _TWO.replace("@@", "    best = torch.where(b < a, b, a)  #!")),
    example("the same for whole windows, by a branch", _TWO.replace("@@", "    gap = (a.sum() - b.sum()).item()\n    best = b if gap > 0 else a  #!")),
]
LEGAL = [
    example(
        "a weight from the model's entropy",
        """\
other = Model()
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        p, q = torch.softmax(model(x), -1), torch.softmax(other(x), -1)
        entropy = -(p * p.log()).sum(-1, keepdim=True)
        mixed = torch.where(entropy > 3.0, 0.5 * p + 0.5 * q, p)
        total += -torch.log(mixed.gather(2, y[..., None])).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "the smaller of two positions",
        """\
total = torch.zeros(())
for w in range(0, val.numel() - 1, 1024):
    end = min(w + 1024, val.numel() - 1)
    with torch.no_grad():
        total += nll(model, val[None, w:end], val[None, w + 1 : end + 1]).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]


def _steps(e: Event, s: Event) -> tuple[Step, ...]:
    steps = Steps()
    steps.reading(e)
    steps.taking(e, "the tokens that are scored")
    for link in e.via:
        if link.flags & (LOSS | PROB) and link.stack == e.stack and (link.path, link.line) != (e.path, e.line):
            steps.to(link, "one of the two values")
    steps.to(e, "of two values for the same token the better one is kept here")
    if (s.path, s.line) != (e.path, e.line):
        steps.to(s, "what was kept is in the score committed here")
    return steps.done()


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    choices = sources(ctx.trace, "SELECT")
    reported = reported_ids(ctx.trace)
    seen: dict[tuple, Finding] = {}
    for s in all_scores(ctx.trace):
        for k in marks(s, "select"):
            e = choices.get(k[1]) if k[1] not in ctx.trace.stabilisers else None
            if e is not None and s.id in reported and for_its_own(e, s):
                message = "of two values for the same token the better one is kept, and scored"
                made = event_finding(RULE, e, message, steps=_steps(e, s))
                made = made if s.active != "no" else replace(made, active="no")
                seen.setdefault((e.path, e.line, made.active), made)
    found = list(seen.values())
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
    else:
        yield unread(RULE, ctx, found=found) or holds(RULE, "no score is a choice between values that depend on the token")
