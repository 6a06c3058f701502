"""F2 score-first: the score of a token is committed before the update that uses it.

**What.** Test-time training walks the validation stream in chunks or documents. For each: forward, add its
negative log-likelihood to the total, and only then backward and step. Turned around, the chunk is scored by
a model that was trained on it. A table of counts that takes a chunk in before the chunk is scored is the same breach.

**Why.** It is the only order under which the score could be reproduced by somebody who decodes the stream.

**Ruling.** README: only on tokens already evaluated. #568 (valerio-oai, 2026-03-24) and #677 (valerio-oai,
2026-03-27). #1413, #549 and #461 are merged examples of the legal order.

**Look-alikes that are legal.** Several epochs on a chunk that was scored (#473, #549). A forward *with*
gradients whose loss is accumulated first and back-propagated afterwards (#1530, #1610): order matters,
``no_grad`` does not. No guard for the last chunk: training after the last score changes nothing. Tables
updated with ``tokens[start : end + 1]`` after positions ``start .. end`` were scored: their targets are
exactly those tokens. Phased adaptation on fully scored documents (#1610, #1626).

**How it is decided.** The obligation is proved on the trace, not assumed: for each update on validation
tokens, the tokens behind its loss are shown to be others than those of every later score that depends on
it (they belong to an earlier iteration of the loop that walks the stream, or end where the scored part
begins). Places in the stream decide where they are known: a turn may not learn from what lies behind the last token that it
scored, and a model or a table may learn, before a turn scores, from what lies before the first token of that turn.

**See also.** F1 (a whole pass before scoring), F3 (second score), F16 (other ranks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import conflict_finding, example, holds, unread, violated
from audit.trace import Conflict
from audit.trace.adaptation import conflicts, is_leaf_update, places, scored_before, val_updates
from audit.trace.ahead import SOME, same_turn

RULE = Rule(
    id="F2",
    name="score-first",
    title="A token's score is committed before any update that uses it",
    breach="Update that uses a token before its score is committed",
    illegal="INVALID",
    authority="README",
    ruling="#568, #677",
    severity="violation",
)

ILLEGAL = [
    example(
        "each chunk is trained on, then scored",
        """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1, 32768):
    x, y = val[None, c : c + 32768], val[None, c + 1 : c + 32769]
    opt.zero_grad()
    nll(model, x, y).mean().backward()
    opt.step()  #!
    with torch.no_grad():
        total += nll(model, x, y).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "the first half of every chunk is trained on, then all of it is scored",
        """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1, 32768):
    chunk = val[c : c + 32769]
    half = chunk[:16384]
    opt.zero_grad()
    nll(model, half[None, :-1], half[None, 1:]).mean().backward()
    opt.step()  #!
    with torch.no_grad():
        total += nll(model, chunk[None, :-1], chunk[None, 1:]).sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
]
LEGAL = [
    example(
        "each chunk is scored, then trained on for three epochs",
        """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1, 32768):
    x, y = val[None, c : c + 32768], val[None, c + 1 : c + 32769]
    with torch.no_grad():
        total += nll(model, x, y).sum()
    for epoch in range(3):
        opt.zero_grad()
        nll(model, x, y).mean().backward()
        opt.step()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
""",
    ),
    example(
        "one forward with gradients: accumulated first, back-propagated afterwards",
        """\
total = torch.zeros(())
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for c in range(0, val.numel() - 1, 32768):
    loss = nll(model, val[None, c : c + 32768], val[None, c + 1 : c + 32769])
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
    found = [
        conflict_finding(RULE, c, _how(c))
        for c in conflicts(ctx.trace, "update-first", printed=True)
    ]
    for c in conflicts(ctx.trace, "table-first"):
        how = f"line {c.update.line} puts tokens into a table that line {c.score.line} scores only afterwards, with that table"
        f = conflict_finding(RULE, c, how)
        found.append(replace(f, path=c.score.path, line=c.score.line, end_line=max(c.score.end_line, c.score.line), column=c.score.column))
    yield from found
    if any(f.active == "yes" and f.severity != "note" for f in found):
        yield violated(RULE, found)
    elif (gap := unread(RULE, ctx, found=found)) is not None:
        yield gap
    else:
        yield holds(RULE, _proof(ctx))


def _how(c: Conflict) -> str:
    if c.past:
        many = "tokens" if c.past == SOME else "a token" if c.past == 1 else f"{c.past:,} tokens"
        when = "same" if same_turn(c.update, c.score) else "next"
        return f"{c.update.function} trains on {many} past where line {c.score.line} begins to score in the {when} turn"
    return f"{c.update.function} trains on tokens that line {c.score.line} scores only afterwards"


def _proof(ctx: Context) -> str:
    updates = [u for u in val_updates(ctx.trace, active=True) if not is_leaf_update(u)]
    if not updates:
        return "no model is updated from validation tokens"
    shown = []
    for u in places(updates):
        s = scored_before(ctx.trace, u)
        shown.append(
            f"line {u.line}: tokens scored before at line {s.line}"
            if s is not None
            else f"line {u.line}: no later score depends on it"
        )
    return "; ".join(shown[:4])
