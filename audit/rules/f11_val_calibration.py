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
Statistics that only a log line gets (the function gives plain numbers, and its caller prints them) are no calibration.

**See also.** F14 (training data at evaluation), F18 (choice by validation score), F1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation, Step
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread, violated
from audit.rules.steps import Steps
from audit.trace import Event
from audit.trace.adaptation import places
from audit.trace.values import GEN, RAND, TRAIN

RULE = Rule(
    id="F11",
    name="val-calibration",
    title="Nothing is calibrated on validation tokens",
    breach="Calibration on validation tokens",
    illegal="INVALID",
    authority="README",
    ruling="#1019",
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
_MEASURED = """
def measure(net, sequences):
    peak = torch.zeros(())
    def hook(module, inputs, output):
        peak.copy_(torch.maximum(peak, output.abs().max()))
    handles = [m.register_forward_hook(hook) for m in net.modules()]
    with torch.no_grad():
        for s in sequences:
            net(s)  #!
    for h in handles:
        h.remove()
    return {"peak": float(peak.item())}

def main():
    stats = measure(model, [val[None, i * 512 : i * 512 + 512] for i in range(64)])
    USE
    torch.save(model.state_dict(), "final_model.pt")
    scored = Model()
    scored.load_state_dict(torch.load("final_model.pt"))
    print(f"val_bpb:{evaluate(scored, val):.4f}")

main()
"""
ILLEGAL.append(
    example("a peak on validation tokens sets a scale", _MEASURED.replace("USE", "model.head.weight.data.div_(stats['peak'])"))
)
LEGAL = [
    example(
        "a peak on validation tokens is printed",
        _MEASURED.replace("USE", "print(f\"peak:{stats['peak']:.2f}\")").replace("  #!", ""),
    ),
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
    # In the run into closed branches, whose events have numbers of their own, what is stored after them.
    last_there = max((e.id for e in ctx.trace.shadow.values() if e.kind in ("SAVE", "RESTORE")), default=0)
    scored = max((e.id for e in ctx.trace.of("SCORE") if e.on_val), default=0)
    kept = {e.id for e in events if e.id < (last_there if e.active == "no" else last_save)}
    used = [e for e in events if e.on_val and (e.id in kept or e.detail.get("rewritten", scored) < scored)]
    bad = places([e for e in used if "rewritten" in e.detail or not _only_told(ctx, e)])
    found = [
        event_finding(RULE, e, message, steps=_steps(ctx, e, message))
        for e in bad
        for use in ["what is stored" if e.id in kept else "weights that are then set with them"]
        for message in [f"{e.function} collects statistics of the model on validation tokens for {use}"]
    ]
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
    elif (gap := unread(RULE, ctx, need_scores=False)) is not None:
        yield gap
    else:
        fed = sorted({_source(e) for e in events if e.active != "no" and not e.on_val})
        yield holds(RULE, f"calibration runs on {' and '.join(fed)} tokens" if fed else "no calibration run was found")


def _steps(ctx: Context, e: Event, message: str) -> tuple[Step, ...]:
    """The tokens, the hook that sees what the model makes of them, and what is stored afterwards."""
    steps = Steps()
    steps.reading(e)
    steps.taking(e, "the tokens come from here")
    if (hook := e.detail.get("hook")) is not None:
        path, line, stack = hook
        steps.at(path, line, stack, "what the model computes is looked at by this hook")
    steps.to(e, message)
    stored = next((s for s in ctx.trace.of("SAVE") if s.id > e.id and s.detail.get("weights")), None)
    if stored is not None:
        steps.to(stored, "the artifact is written afterwards")
    return steps.done()


def _only_told(ctx: Context, e: Event) -> bool:
    """Statistics that end in a log line: the function gives plain numbers, and its caller only prints them."""
    module = ctx.module_at(e.path)
    fn = next((f for f in ir.functions(module.body) if f.name == e.function), None) if module is not None else None
    if fn is None or not e.stack:
        return False
    kept_elsewhere = any(
        isinstance(n, ir.Scope) or (isinstance(n, (ir.Assign, ir.AugAssign)) and any(isinstance(t, ir.Attr) for t in _targets(n)))
        for n in ir.walk(fn.body)
    )
    given = [n.value for n in ir.walk(fn.body, into_functions=False) if isinstance(n, ir.Return)]
    if kept_elsewhere or not given or not all(_number(value) for value in given):
        return False
    path, line, _name = e.stack[-1]
    home = ctx.module_at(path)
    for caller in ir.functions(home.body) if home is not None else ():
        nodes = list(ir.walk(caller.body, into_functions=False))
        made = [n for n in nodes if isinstance(n, ir.Assign) and n.line <= line <= n.end_line and isinstance(n.value, ir.Call)]
        if len(made) == 1 and isinstance(name := made[0].targets[0], ir.Name):
            told = {id(x) for n in nodes if isinstance(n, (ir.FString, ir.Compare)) for x in ir.walk(n)}
            stored = {id(t) for n in nodes if isinstance(n, (ir.Assign, ir.AugAssign)) for t in _targets(n)}
            read = [n for n in nodes if isinstance(n, ir.Name) and n.id == name.id and id(n) not in stored]
            return all(id(n) in told or _looped(n, nodes) for n in read)
    return False


def _targets(n: ir.Assign | ir.AugAssign) -> list[ir.Expr]:
    return [n.target] if isinstance(n, ir.AugAssign) else n.targets


def _looped(name: ir.Name, nodes: list[Any]) -> bool:
    """``",".join(f"{v:.2f}" for v in stats["layers"])``: what is walked to be printed."""
    texts = [n for n in nodes if isinstance(n, ir.Comp) and isinstance(n.elt, ir.FString)]
    return any(x is name for n in texts for part in n.generators for x in ir.walk(part.iter))


def _number(e: ir.Expr | None) -> bool:
    """Nothing, a plain number, or a collection of them: no tensor is handed on."""
    if e is None or isinstance(e, ir.Const):
        return True
    if isinstance(e, ir.Dict):
        return all(_number(value) for _key, value in e.items)
    if isinstance(e, ir.Collection):
        return all(_number(value) for value in e.elts)
    if isinstance(e, ir.Comp):
        return _number(e.elt)
    if isinstance(e, ir.Call):
        return (isinstance(e.func, ir.Name) and e.func.id in ("float", "int", "round")) or (
            isinstance(e.func, ir.Attr) and e.func.attr in ("item", "tolist")
        )
    return False


def _source(e: Event) -> str:
    return "generated" if e.flags & GEN else "training" if e.flags & TRAIN else "random" if e.flags & RAND else "other"
