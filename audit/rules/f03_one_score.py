"""F3 one score: every target is scored once, and the first score is the reported one.

**What.** The stream is scored again after the model or a table has taken it in, and the later figure is the
one that counts: a second pass, several epochs of which the last one is accumulated, a rescoring of the
first chunks with full caches.

**Why.** Score-first in every pass does not help: at the second visit the state has seen the token.

**Ruling.** #568 (valerio-oai, 2026-03-24): multi-epoch adaptation whose last epoch is scored is training on
evaluation data. #677 and #991 (valerio-oai, 2026-03-27 and 28): no rescoring with the adapted model.
Two-pass n-gram tables (#846, #868, #888 and others) were closed in the same sweep.

**Look-alikes that are legal.** Several evaluations of the same *frozen* artifact, each from freshly loaded
weights (#1413); overlapping windows in which each target is accumulated once; epoch loops that run once (#633);
several training epochs on a chunk whose score was already committed.

**How it is decided.** A breach is a reported score that depends on an update or a table entry made from the
same tokens, where those tokens had been scored before or where a loop that does not select tokens (epochs,
passes) comes between. What is reported is found in the log: the line whose figure meets the stated score. Figures
that the run behind it did not print, or that are worse, are diagnostics; a breach there is a note.

**See also.** F1, F2, F4 (minimum over passes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import conflict_finding, event_finding, example, holds, unread, violated
from audit.rules.steps import path_to
from audit.trace.adaptation import conflicts, places
from audit.wording import counted

RULE = Rule(
    id="F3",
    name="one-score",
    title="Every target is scored once; the first score is the score",
    breach="Target scored again after the model has learned from it",
    illegal="INVALID",
    authority="MAINT",
    ruling="#568, #677, #991",
    severity="violation",
    since="2026-03-24",
)

ILLEGAL = [
    example(
        "several epochs over the stream, of which the last is scored",
        """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for epoch in range(4):
    for c in range(0, val.numel() - 1, 32768):
        loss = nll(model, val[None, c : c + 32768], val[None, c + 1 : c + 32769])
        if epoch == 3:
            total += loss.detach().sum()
        opt.zero_grad()
        loss.mean().backward()
        opt.step()  #!
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "score-first first, then everything is scored again with the adapted model",
        """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1, 32768):
    x, y = val[None, c : c + 32768], val[None, c + 1 : c + 32769]
    with torch.no_grad():
        total += nll(model, x, y).sum()
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()  #!
print(f"first pass val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
print(f"val_bpb:{evaluate(model, val):.4f}")
""",
    ),
]
LEGAL = [
    example(
        "two evaluations, each of freshly loaded weights",
        """\
torch.save(model.state_dict(), "final_model.pt")
frozen = Model()
frozen.load_state_dict(torch.load("final_model.pt"))
print(f"round trip val_bpb:{evaluate(frozen, val):.4f}")
adapted = Model()
adapted.load_state_dict(torch.load("final_model.pt"))
total = torch.zeros(())
opt = torch.optim.SGD(adapted.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1, 32768):
    x, y = val[None, c : c + 32768], val[None, c + 1 : c + 32769]
    with torch.no_grad():
        total += nll(adapted, x, y).sum()
    opt.zero_grad()
    nll(adapted, x, y).mean().backward()
    opt.step()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "an epoch loop that runs once",
        """\
epochs = int(os.environ.get("EPOCHS", "1"))
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for epoch in range(epochs):
    for c in range(0, val.numel() - 1, 32768):
        loss = nll(model, val[None, c : c + 32768], val[None, c + 1 : c + 32769])
        if epoch == epochs - 1:
            total += loss.detach().sum()
        opt.zero_grad()
        loss.mean().backward()
        opt.step()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    found = []
    for c in conflicts(ctx.trace, "rescored", "table", printed=True):
        if c.update.kind == "STORE":
            how = f"line {c.score.line} scores tokens again after the table took them in at line {c.update.line}"
        elif c.before is not None:
            how = f"scored at line {c.before.line}, trained on at line {c.update.line}, scored again at line {c.score.line}"
        else:
            how = f"line {c.score.line} scores tokens that an earlier epoch trained on (line {c.update.line})"
        # A table filled from an unknown stretch may hold only what other ranks scored before (F16).
        f = conflict_finding(RULE, c, how)
        if c.update.kind == "STORE":
            f = replace(f, path=c.score.path, line=c.score.line, end_line=max(c.score.end_line, c.score.line), column=c.score.column)
        found.append(f if c.update.kind != "STORE" or c.before is not None else replace(f, severity="note"))
    twice = [e for e in ctx.trace.of("SELECT") if e.on_val and e.detail.get("again") and e.id not in ctx.trace.stabilisers]
    for e in places(twice):
        how = f"{e.function} scores tokens again and keeps the {e.detail['how']} of both scores"
        found.append(event_finding(RULE, e, how, steps=path_to(e, how)))
    yield from found
    if any(f.active == "yes" and f.severity != "note" for f in found):
        yield violated(RULE, found)
    elif (gap := unread(RULE, ctx, found=found)) is not None:
        yield gap
    else:
        scores = {(e.path, e.line) for e in ctx.trace.of("SCORE", active=True) if e.on_val}
        yield holds(RULE, f"no reported score at {counted(len(scores), 'place')} depends on state made from its own tokens")
