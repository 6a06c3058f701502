"""F1 pre-eval TTT: nothing that is scored may have been fitted on validation tokens beforehand.

**What.** Weights, adapters, scales or biases are trained on the validation stream, and the tokens they were
trained on are scored afterwards: before quantization ("pre-quant TTT": the adapted weights go into the
artifact) or after it ("train then score": adapt for some epochs, evaluate then).

**Why.** The score no longer measures compression: the model has seen what it is asked to predict. It is
worth about 0.04 bits per byte and more (#1550 measured it).

**Ruling.** README: test-time training is only allowed on validation tokens that were already evaluated.
#402 (0hq, March 2026): preceding tokens that you have already been tested on. #1972 (cocohearts,
2026-05-02): adapting on the validation stream before the final score violates score-first, also when
the result is baked into the artifact. The argument "it is part of the artifact, so it is training" is rejected.

**Look-alikes that are legal.** The same routine fed a slice of a *training* shard (#1554); score-first chunk
adaptation (#549, #1413), several epochs included; reading validation tokens without a gradient, for a
log line. Names say nothing: what decides is where the tokens come from and whether they are scored later.

**How it is decided.** The trace follows the tokens from the shard to the loss behind every update. A breach is
an update of a model whose tokens are not shown to be other tokens than those of a later, reported score.

**See also.** F2 (update before score within a chunk), F3 (second pass), F5 (deltas), F13 (warm-up).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import conflict_finding, example, holds, unread, violated
from audit.rules.papers_checks import pre_eval_jump
from audit.trace.adaptation import conflicts, places, val_updates
from audit.wording import counted

RULE = Rule(
    id="F1",
    name="pre-eval-ttt",
    title="Nothing is fitted on validation tokens before they are scored",
    breach="Fitted on validation tokens before they are scored",
    illegal="INVALID",
    authority="README",
    ruling="#402, #1972",
    severity="violation",
)

ILLEGAL = [
    example(
        "the averaged weights are fine-tuned on the validation stream before they are saved",
        """\
tune = torch.optim.AdamW(model.parameters(), lr=1e-4)
for epoch in range(6):
    for i in range(0, val.numel() - 1, 1024):
        tune.zero_grad()
        nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025]).mean().backward()
        tune.step()  #!
torch.save(model.state_dict(), "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, val):.4f}")
""",
    ),
    example(
        "the reloaded artifact is adapted on all of the stream, then scored",
        """\
def refine(net, tokens):
    opt = torch.optim.SGD(net.parameters(), lr=1e-3)
    for i in range(0, tokens.numel() - 1, 1024):
        opt.zero_grad()
        nll(net, tokens[None, i : i + 1024], tokens[None, i + 1 : i + 1025]).mean().backward()
        opt.step()  #!

torch.save(model.state_dict(), "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
refine(scored, val)
print(f"val_bpb:{evaluate(scored, val):.4f}")
""",
    ),
]
LEGAL = [
    example(
        "the same routine, fed a training shard",
        """\
def ttt_adapt(net, tokens):
    opt = torch.optim.SGD(net.parameters(), lr=1e-3)
    for i in range(0, tokens.numel() - 1, 1024):
        opt.zero_grad()
        nll(net, tokens[None, i : i + 1024], tokens[None, i + 1 : i + 1025]).mean().backward()
        opt.step()

ttt_adapt(model, train[-100_000:])
torch.save(model.state_dict(), "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, val):.4f}")
""",
    ),
    example(
        "validation loss is only watched while training",
        """\
print(f"step:1000 val_bpb:{evaluate(model, val):.4f}")
torch.save(model.state_dict(), "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, val):.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    found = []
    for c in conflicts(ctx.trace, "prefilled", printed=True):
        how = f"a table takes in the whole validation stream before {c.score.function} (line {c.score.line}) scores it"
        found.append(conflict_finding(RULE, c, how))
    for c in conflicts(ctx.trace, "pre-eval", "train-then-score", printed=True):
        when = (
            "before the artifact was written" if c.saved_after else "before the same tokens are scored"
        )
        how = f"{c.update.function} trains on validation tokens {when}; {c.score.function} (line {c.score.line}) scores them afterwards"
        found.append(conflict_finding(RULE, c, how))
    yield from found
    yield from pre_eval_jump(RULE, ctx)
    if any(f.active == "yes" and f.severity != "note" for f in found):
        yield violated(RULE, found)
    elif (gap := unread(RULE, ctx, found=found)) is not None:
        yield gap
    else:
        updates = places(list(val_updates(ctx.trace, active=True)))
        yield holds(
            RULE,
            f"{counted(len(updates), 'kind')} of update on validation tokens; none on tokens that are scored later"
            if updates
            else "no update uses validation tokens",
        )
