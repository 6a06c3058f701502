"""F13 warm-up: compiling on validation tokens is tolerated only if nothing of it stays.

**What.** Before the timer starts, kernels are warmed up with real backward and step calls. If validation tokens
are used and the state is thrown away, nothing leaks; if it is kept, it is adaptation before scoring (F1).

**Why.** A throw-away state cannot be told from a kept one by the log, and random tokens do as well.

**Ruling.** No maintainer sentence. #1530 and #1610 (merged, April 2026) warmed up on the first validation tokens
with an adapter and an optimizer that are deleted; from #1626 on all merged scripts draw random tokens.

**Look-alikes that are legal.** ``torch.randint`` batches; training warm-up steps after which the initial
weights are loaded again; updates on chunks that were scored before.

**How it is decided.** A warning where an update on validation tokens comes before any score of them and no later
score depends on it; with such a score it is a breach of F1.

**See also.** F1, F2.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread
from audit.trace.adaptation import discarded_updates

RULE = Rule(
    id="F13",
    name="warm-up",
    title="Warm-up leaves nothing of the validation tokens behind",
    breach="Warm-up on validation tokens",
    illegal="GREY",
    authority="COMM",
    severity="warning",
    since="2026-04-10",
)

_WARM = """\
wl, wo = Model(), None
wo = torch.optim.SGD(wl.parameters(), lr=1e-3)
warm = FEED
nll(wl, warm[:, :-1], warm[:, 1:]).mean().backward()
wo.step()MARK
del wl, wo
print(f"val_bpb:{evaluate(model, val):.4f}")
"""
ILLEGAL = [
    example(
        "warm-up on the first validation tokens, with a model that is thrown away",
        _WARM.replace("FEED", "val[None, :1025]").replace("MARK", "  #!"),
    )
]
LEGAL = [
    example("warm-up on random tokens", _WARM.replace("FEED", "torch.randint(0, 1024, (1, 1025))").replace("MARK", "")),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    for u in discarded_updates(ctx.trace):
        yield event_finding(
            RULE, u, f"{u.function} runs an update on validation tokens that were not scored yet; no score depends on it",
            confidence="medium",
        )  # fmt: skip
    yield unread(RULE, ctx, need_scores=False) or holds(RULE, "no kept state comes from a warm-up on validation tokens")
