"""F18 selection: no checkpoint, average or temperature is picked by its validation score inside the run.

**What.** Several candidates (raw weights, EMA, SWA, blends, temperatures, epochs) are evaluated on the validation set and
the better one is exported or used for the reported figure.

**Why.** A few bits of validation information reach the artifact; with many candidates more than a few.

**Ruling.** None. #635, #838, #1171 and #1495 have the shape; nobody ruled on it. A warning, never a violation
under the default policy.

**Look-alikes that are legal.** Remembering the best score for a log line; early stopping by the clock; choosing by
training loss.

**How it is decided.** A branch whose condition compares validation scores, and which assigns something else than
scores.

**See also.** F11, B6 (what was tuned outside the run).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread
from audit.trace.adaptation import places

RULE = Rule(
    id="F18",
    name="selection",
    title="Nothing is picked by its validation score inside the run",
    illegal="GREY",
    authority="UNRULED",
    severity="warning",
)

ILLEGAL = [
    example(
        "the better of raw and averaged weights is exported",
        """\
averaged = {n: t.clone() for n, t in model.state_dict().items()}
raw = evaluate(model, val)
other = Model()
other.load_state_dict(averaged)
ema = evaluate(other, val)
best = model.state_dict()
if ema < raw:  #!
    best = averaged
torch.save(best, "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, val):.4f}")
""",
    ),
]
LEGAL = [
    example(
        "the best score is only remembered for the log",
        """\
best = 99.0
for _ in range(3):
    now = evaluate(model, val)
    if now < best:
        best = now
    print(f"best val_bpb so far:{best:.4f}")
print(f"val_bpb:{evaluate(model, val):.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    for e in places([e for e in ctx.trace.of("CHOOSE") if e.on_val]):
        yield event_finding(
            RULE, e, f"{e.function} decides by validation scores what is kept ({', '.join(e.detail['assigned'][:3])})",
            confidence="medium",
        )  # fmt: skip
    yield unread(RULE, ctx, need_scores=False) or holds(RULE, "no branch on a validation score decides what is kept")
