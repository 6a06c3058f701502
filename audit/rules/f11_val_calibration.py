"""F11 calibration on validation data: Hessians, scales and clips come from training, generated or random tokens.

**What.** Statistics for quantization (GPTQ Hessians, AWQ activation scales, clip searches), a temperature or a
logit bias are computed from validation tokens, and the artifact or the scored model depends on them.

**Why.** It is fitting on what will be scored, if with few degrees of freedom.

**Ruling.** README: validation data may not be accessed during training. #1019 (merged, March 2026) was recreated
from #728 at a maintainer's request because #728 shipped files calibrated on validation data; its self-generated
calibration was confirmed as legal. #1060 and #1394: Hessians from training shards, inside the time limit.

**Look-alikes that are legal.** Hessians from training shards, from text that the model generated itself or from
random tokens. A folder name proves nothing: "ValCalib" in #1019's is the legal one.

**How it is decided.** Where a model with hooks on it runs, the trace knows what it was fed. It counts where weights are
stored or loaded afterwards, or where weights are set to something made of what a hook added up, once the run is over.

**See also.** F14 (training data at evaluation), F18 (choice by validation score), F1.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread, violated
from audit.trace import Event
from audit.trace.adaptation import places
from audit.trace.values import GEN, RAND, TRAIN

RULE = Rule(
    id="F11",
    name="val-calibration",
    title="Nothing is calibrated on validation tokens",
    illegal="INVALID",
    authority="README",
    severity="violation",
)

_HESSIANS = """\
hessians = {}

def keep(name):
    def hook(module, inputs, output):
        rows = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
        hessians[name] = hessians.get(name, 0) + rows.T @ rows
    return hook

handles = [m.register_forward_hook(keep(n)) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
with torch.no_grad():
    for i in range(16):
        model(FEED)MARK
for h in handles:
    h.remove()
packed = {n: torch.round(p / hessians.get(n, 1)) for n, p in model.state_dict().items()}
torch.save(packed, "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, val):.4f}")
"""
ILLEGAL = [
    example(
        "Hessians from the first validation sequences",
        _HESSIANS.replace("FEED", "val[None, i * 1024 : i * 1024 + 1024]").replace("MARK", "  #!"),
    ),
    example(
        "the same, through a function that is handed a list of sequences",
        """\
def collect(net, sequences):
    stats = {}
    def hook(module, inputs, output):
        stats[module] = inputs[0].abs().mean(0)
    handles = [m.register_forward_hook(hook) for m in net.modules()]
    with torch.no_grad():
        for s in sequences:
            net(s)  #!
    for h in handles:
        h.remove()
    return stats

stats = collect(model, [val[None, i * 512 : i * 512 + 512] for i in range(64)])
torch.save(model.state_dict(), "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(scored, val):.4f}")
""",
    ),
]
LEGAL = [
    example(
        "Hessians from a training shard",
        _HESSIANS.replace("FEED", "train[None, i * 1024 : i * 1024 + 1024]").replace("MARK", ""),
    ),
    example(
        "Hessians from random tokens",
        _HESSIANS.replace("FEED", "torch.randint(0, 1024, (1, 1024))").replace("MARK", ""),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    events = list(ctx.trace.of("CALIBRATE"))
    last_save = max((e.id for e in ctx.trace.of("SAVE", "RESTORE")), default=0)
    scored = max((e.id for e in ctx.trace.of("SCORE") if e.on_val), default=0)
    bad = places([e for e in events if e.on_val and (e.id < last_save or e.detail.get("rewritten", scored) < scored)])
    found = [
        event_finding(RULE, e, f"{e.function} collects statistics of the model on validation tokens for {use}")
        for e in bad
        for use in ["what is stored" if e.id < last_save else "weights that are then set with them"]
    ]
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
    elif (gap := unread(RULE, ctx, need_scores=False)) is not None:
        yield gap
    else:
        fed = sorted({_source(e) for e in events if e.active != "no" and not e.on_val})
        yield holds(RULE, f"calibration runs on {' and '.join(fed)} tokens" if fed else "no calibration run was found")


def _source(e: Event) -> str:
    return "generated" if e.flags & GEN else "training" if e.flags & TRAIN else "random" if e.flags & RAND else "other"
