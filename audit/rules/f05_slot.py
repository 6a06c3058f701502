"""F5 SLOT: a delta or bias may not be fitted on the loss of positions that it then scores.

**What.** At evaluation a small tensor (an offset of the hidden state or of the logits) is optimised for a
window, for some steps, on the loss of that window; then the window is scored with it.

**Why.** The offset carries information about the targets back into their own prediction. That most of the gradient
comes from context does not cure it (#1240 measured a violation in 240 of 240 cross-position probes).

**Ruling.** No maintainer sentence is known; #1336 asked and was not answered. Community consensus: the flip
test of #1240 (April 2026) and the decodability argument; no such submission was merged or listed.

**Look-alikes that are legal.** An offset fitted on chunks that were scored before and carried along; an offset
per row fitted on strictly earlier targets (F6 discusses when that holds); logit scales from the artifact.

**How it is decided.** The trace keeps, for each fitted tensor, which positions its loss covered, and compares
them with the positions that are accumulated with it.

**See also.** F6 (context only), F2 (the model itself).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import conflict_finding, example, holds, unread, violated
from audit.trace.adaptation import conflicts, is_leaf_update, places, val_updates
from audit.wording import counted

RULE = Rule(
    id="F5",
    name="slot",
    title="No delta is fitted on the positions it scores",
    breach="Delta fitted on the positions it scores",
    illegal="INVALID",
    authority="COMM",
    ruling="#1240",
    severity="violation",
    since="2026-04-02",
)

ILLEGAL = [
    example(
        "a hidden offset is fitted on the whole window and scores its last positions",
        """\
total = torch.zeros(())
for w in range(0, val.numel() - 1025, 64):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        hidden = model.emb(x)
    delta = torch.zeros(1, 1, 64, requires_grad=True)
    opt = torch.optim.AdamW([delta], lr=5e-3)
    for _ in range(8):
        opt.zero_grad()
        F.cross_entropy(model.head(hidden + delta).transpose(1, 2), y).backward()
        opt.step()  #!
    with torch.no_grad():
        loss = F.cross_entropy(model.head(hidden + delta).transpose(1, 2), y, reduction="none")
    total += loss[0, -64:].sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "a logit bias is fitted on exactly the positions that count",
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
        per[0, s:1024].mean().backward()
        opt.step()  #!
    with torch.no_grad():
        per = F.cross_entropy((logits + bias).transpose(1, 2), y, reduction="none")
    total += per[0, s:1024].sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]
LEGAL = [
    example(
        "the offset is fitted on chunks that were scored, and carried along",
        """\
total = torch.zeros(())
bias = torch.zeros(1, 1, 1024, requires_grad=True)
opt = torch.optim.AdamW([bias], lr=5e-3)
for w in range(0, val.numel() - 1025, 1024):
    x, y = val[None, w : w + 1024], val[None, w + 1 : w + 1025]
    with torch.no_grad():
        logits = model(x)
        total += F.cross_entropy((logits + bias).transpose(1, 2), y, reduction="none").sum()
    opt.zero_grad()
    F.cross_entropy((logits + bias).transpose(1, 2), y).backward()
    opt.step()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "one window at a time: the offset is fitted on the context before the scored positions",
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
    found = [
        conflict_finding(
            RULE, c, f"a tensor is fitted on the loss of positions that line {c.score.line} then scores with it"
        )
        for c in conflicts(ctx.trace, "slot", printed=True)
    ]
    yield from found
    if any(f.active == "yes" and f.severity != "note" for f in found):
        yield violated(RULE, found)
    elif (gap := unread(RULE, ctx, found=found)) is not None:
        yield gap
    else:
        fitted = places([u for u in val_updates(ctx.trace, active=True) if is_leaf_update(u)])
        yield holds(
            RULE,
            f"{counted(len(fitted), 'tensor')} fitted at evaluation, none on positions it scores" if fitted
            else "no tensor is fitted at evaluation",
        )  # fmt: skip
