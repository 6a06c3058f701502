"""F6 context slot: a delta fitted on context must not see what its batch still has to score.

**What.** A bias or an offset is optimised on the positions *before* the scored ones ("causal" SLOT, ETLB, online
logit bias) and used for the scored ones. When one such tensor (first dimension 1) is shared by a batch of
overlapping windows, the context of each window contains the scored positions of the windows before it in
the batch: all but the first window's targets are trained on before they are scored.

**Why.** Legal in principle: the state depends on earlier targets only. The batched form is not what it says.

**Ruling.** None. #1336 asked and was not answered; #1350, #1306 and #1217 have the batched form, which the
threads overlooked (a flip test shows it: with a batch of 8 windows, 100 earlier positions change).

**Look-alikes that are legal.** One window at a time, prefix only (#1399's ETLB loop); an offset per row when rows
do not exchange anything; windows that do not overlap.

**How it is decided.** A warning where the fitted tensor is shared by the rows of a batch of windows; whether the
windows overlap is read from the run's stride, so the confidence is medium. Disputed, hence never a violation under
the default policy.

**See also.** F5 (fitted on scored positions), F2.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread
from audit.rules.steps import Steps
from audit.trace.adaptation import context_fits, in_batch

RULE = Rule(
    id="F6",
    name="context-slot",
    title="A delta fitted on context sees nothing that its batch still has to score",
    breach="Delta fitted on tokens that its batch still has to score",
    illegal="DISPUTED",
    authority="DISPUTED",
    severity="warning",
    since="2026-04-04",
)

_BATCHED = """\
total = torch.zeros(())
starts = list(range(0, val.numel() - 1025, 64))
for b in range(0, len(starts), 32):
    x = torch.zeros(32, 1024, dtype=torch.int64)
    y = torch.zeros(32, 1024, dtype=torch.int64)
    for i, w in enumerate(starts[b : b + 32]):
        x[i] = val[w : w + 1024]
        y[i] = val[w + 1 : w + 1025]
    s = 960
    with torch.no_grad():
        logits = model(x)
    bias = torch.zeros(ROWS, 1, 1024, requires_grad=True)
    opt = torch.optim.AdamW([bias], lr=5e-3)
    for _ in range(8):
        opt.zero_grad()
        per = F.cross_entropy((logits + bias).transpose(1, 2), y, reduction="none")
        per[:, :s].mean().backward()
        opt.step()MARK
    with torch.no_grad():
        per = F.cross_entropy((logits + bias).transpose(1, 2), y, reduction="none")
    total += per[:, s:1024].sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
ILLEGAL = [
    example(
        "one bias for a batch of overlapping windows",
        _BATCHED.replace("ROWS", "1").replace("MARK", "  #!"),
    ),
]
LEGAL = [
    example("a bias per row: rows do not exchange anything", _BATCHED.replace("ROWS", "32").replace("MARK", "")),
    example(
        "one window at a time",
        """\
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 64):
    s = 960
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logits = model(x)
    bias = torch.zeros(1, 1, 1024, requires_grad=True)
    opt = torch.optim.AdamW([bias], lr=5e-3)
    for _ in range(8):
        opt.zero_grad()
        per = F.cross_entropy((logits + bias).transpose(1, 2), y, reduction="none")
        per[0, :s].mean().backward()
        opt.step()
    with torch.no_grad():
        per = F.cross_entropy((logits + bias).transpose(1, 2), y, reduction="none")
    total += per[0, s:1024].sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    seen: set[tuple[str, int]] = set()
    fits = context_fits(ctx.trace)
    for u, s in fits:
        if (u.path, u.line) in seen or not u.detail.get("shared") or not in_batch(u):
            continue
        seen.add((u.path, u.line))
        said = f"one tensor is fitted on the contexts of a whole batch of windows; line {s.line} scores them with it"
        steps = Steps()
        steps.reading(u)
        steps.taking(u, "the windows of the batch are taken here")
        steps.backward(u)
        steps.to(u, "fitted on the context of every window of the batch")
        steps.to(s, "scores positions that other windows' contexts contain")
        yield event_finding(RULE, u, said, confidence="medium", steps=steps.done())
    if (gap := unread(RULE, ctx)) is not None:
        yield gap
    elif fits and not seen:
        yield holds(RULE, "what is fitted on context is used for its own row or window only")
    else:
        yield holds(RULE, "nothing is fitted on a window's context" if not fits else "see the warning")
