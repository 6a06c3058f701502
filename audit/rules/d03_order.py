"""D3 order: documents may be reordered, tokens inside a document may not.

**What.** Evaluation may take documents from a queue sorted by length, and ranks may take turns; within a document the
tokens are scored left to right, each after those before it.

**Why.** Later documents may use what was learned from documents processed earlier; that is one declared order. Shuffled
tokens would be another text.

**Ruling.** #1530 and #1610 (merged, April 2026) evaluate a length-sorted global queue; nobody objected. Sorting by
length is side information about the stream to come, which was noted and let pass.

**Look-alikes that are legal.** Sorted or claimed work queues; ranks that take every n-th window.

**How it is decided.** A breach where the targets of a reported score are tokens that were sorted, shuffled or gathered at
random positions.

**See also.** F16 (state between ranks), D2 (all of the stream).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread, violated
from audit.trace.adaptation import places
from audit.trace.values import ORDER

RULE = Rule(
    id="D3",
    name="order",
    title="Tokens are scored in the order of their document",
    breach="Tokens scored out of their document's order",
    illegal="INVALID",
    authority="MERGED",
    ruling="#1530, #1610",
    severity="violation",
    since="2026-04-11",
)

ILLEGAL = [
    example(
        "the tokens of a window are permuted before they are scored",
        """\
total = torch.zeros(())
for i in range(0, val.numel() - 1, 1024):
    window = val[i : i + 1025]
    mixed = window[torch.randperm(1025)]  #!
    with torch.no_grad():
        total += nll(model, mixed[None, :-1], mixed[None, 1:]).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]
LEGAL = [
    example(
        "documents sorted by length",
        """\
ends = (val == 1).nonzero().flatten().tolist()
docs = sorted(zip(ends[:-1], ends[1:]), key=lambda d: d[1] - d[0])
total = torch.zeros(())
for start, end in docs:
    with torch.no_grad():
        total += nll(model, val[None, start : end - 1], val[None, start + 1 : end]).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    reported = ctx.trace.reported_scores()
    mixed = [
        e
        for e in ctx.trace.of("SCORE")
        if e.on_val and e.id in reported and e.detail.get("targets", 0) & ORDER
    ]
    found = []
    for s in mixed[:1]:
        at = [e for e in ctx.trace.of("REORDER") if e.on_val and e.id < s.id]
        steps = tuple(step for e in places(at)[:2] for step in e.steps("the order is changed here"))
        said = f"the targets that {s.function} scores are tokens of the stream in another order"
        f = event_finding(RULE, at[0] if at else s, said, confidence="medium", steps=(*steps, *s.steps("scored here")))
        found.append(replace(f, active=s.active, gate=s.gate))
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
        return
    yield unread(RULE, ctx) or holds(RULE, "tokens are taken in slices of the stream or along documents")
