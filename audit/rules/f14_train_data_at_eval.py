"""F14 training data at evaluation: no training shard is read once the artifact is being scored.

**What.** Training tokens are read after the artifact was loaded back (to prefill a table, to adapt, to calibrate), a
table that was filled in training is read from memory for the score while no artifact holds it (also as a buffer of the
scored model that its state dict is written without), or statistics are taken
from training shards after a training loop that used the whole time limit.

**Why.** What is sent from training to evaluation has to be paid for in the 16 MB.

**Ruling.** README: no training data during evaluation unless you pay for those bits. #593 and #609 were turned down in
March 2026 for Hessians collected from training shards after the 600 s; #677 (valerio-oai, 2026-03-27): whatever
reads training data counts as training time. #634 and later submissions reserve time for it.

**Look-alikes that are legal.** Calibration on training shards inside the limit (a reserve is subtracted from it:
#1060, #1394); a logit scale of a few numbers fitted on a training slice (#1924 passed; a warning here); tables that are part of the artifact; buffers left out of it that nothing but training reads, or that hold no data
(rotary caches, masks); a data loader that is still alive but no longer read.

**How it is decided.** The order of reads, updates and calibration runs on training tokens against the point where the
scored model is read back from the artifact (what a later write and read back of the artifact follows belongs to making
it); for a table, whether anything that is written contains it; and for calibration after training, whether the loop's
time limit is reduced by any reserve.

**See also.** F11, B3 (the time itself), B7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation, Step
from audit.rules.base import Rule
from audit.rules.code import code_of
from audit.rules.flow import event_finding, example, holds, unread, violated
from audit.rules.steps import Steps
from audit.trace import Event, Trace
from audit.trace.adaptation import is_leaf_update, places
from audit.trace.caches import cache_reads
from audit.trace.events import Limit
from audit.trace.values import ART, FILE, GEN, TRAIN, VAL

RULE = Rule(
    id="F14",
    name="train-data-at-eval",
    title="No training data is read at evaluation",
    breach="Training data read at evaluation",
    illegal="INVALID",
    authority="README",
    ruling="#593, #609, #677",
    severity="violation",
)

_COUNTED = """\
pairs = torch.zeros(1024, 1024)
for i in range(0, 1_000_000, 1024):
    pairs.index_put_((train[i : i + 1024], train[i + 1 : i + 1025]), torch.ones(1024), accumulate=True)
@@
total = torch.zeros(())
for i in range(0, val.numel() - 1025, 1024):
    x, y = val[None, i : i + 1024], val[None, i + 1 : i + 1025]
    rows = pairs[x[0]] + 0.01
    p = 0.9 * torch.softmax(model(x), -1)[0] + 0.1 * rows / rows.sum(-1, keepdim=True)
    total -= p.gather(1, y[0, :, None]).log().sum()
print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")
"""
_WEIGHTS_ALONE = """\
torch.save(model.state_dict(), "final_model.pt")
model.load_state_dict(torch.load("final_model.pt"))"""
_WITH_THE_TABLE = """\
torch.save({"model": model.state_dict(), "pairs": pairs.to(torch.uint8)}, "final_model.pt")
model.load_state_dict(torch.load("final_model.pt")["model"])"""

ILLEGAL = [
    example(
        "the reloaded model is tuned on a training shard before it is scored",
        """\
torch.save(model.state_dict(), "final_model.pt")
scored = Model()
scored.load_state_dict(torch.load("final_model.pt"))
opt = torch.optim.SGD(scored.parameters(), lr=1e-3)
tail = shard("data/fineweb_train_*.bin")
for i in range(0, 100_000, 1024):
    opt.zero_grad()
    nll(scored, tail[None, i : i + 1024], tail[None, i + 1 : i + 1025]).mean().backward()
    opt.step()  #!
print(f"val_bpb:{evaluate(scored, val):.4f}")
""",
    ),
    example(
        "a table counted in training stays in memory, outside the artifact, and is mixed in",
        _COUNTED.replace("accumulate=True)", "accumulate=True)  #!").replace("@@", _WEIGHTS_ALONE),
    ),
]
LEGAL = [
    example(
        "a table counted in training travels in the artifact",
        _COUNTED.replace("@@", _WITH_THE_TABLE),
    ),
    example(
        "a first artifact is looked at, then the weights are tuned on and the artifact that counts is written",
        """\
torch.save(model.state_dict(), "raw_model.pt")
torch.save(model.state_dict(), "first_model.pt")
model.load_state_dict(torch.load("first_model.pt"))
print(f"diagnostic val_bpb:{evaluate(model, val):.4f}")
model.load_state_dict(torch.load("raw_model.pt"))
for i in range(0, 100_000, 1024):
    optimizer.zero_grad()
    nll(model, train[None, i : i + 1024], train[None, i + 1 : i + 1025]).mean().backward()
    optimizer.step()
torch.save(model.state_dict(), "final_model.pt")
model.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(model, val):.4f}")
""",
    ),
    example(
        "tuned on a training shard before the artifact is written",
        """\
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
tail = shard("data/fineweb_train_*.bin")
for i in range(0, 100_000, 1024):
    opt.zero_grad()
    nll(model, tail[None, i : i + 1024], tail[None, i + 1 : i + 1025]).mean().backward()
    opt.step()
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
    found = [
        event_finding(RULE, e, message, confidence="low" if is_leaf_update(e) else "high", steps=_at_evaluation(ctx.trace, e, message))
        for e in places(_after_reload(ctx.trace))
        for message in [f"{e.function} works on training tokens after the artifact was loaded for scoring"]
    ]
    found += [
        event_finding(RULE, e, message, steps=_after_the_loop(ctx, e, message))
        for e in places(_after_the_limit(ctx.trace))
        for message in [f"{e.function} collects statistics from training tokens after a training loop that is given "
                        "the whole time limit; nothing is reserved for it"]
    ]  # fmt: skip
    taught = {(e.path, e.line) for e in ctx.trace.of("STORE")}
    for e in places(_filled_after_reload(ctx.trace)):
        message = "a table is filled from training tokens after the artifact was loaded for scoring"
        f = event_finding(RULE, e, message, steps=_at_evaluation(ctx.trace, e, message))
        if (e.path, e.line) in taught and e.stack:
            # The same line teaches the table validation tokens, which is legal: what is wrong is this call of it.
            path, line, _ = e.stack[-1]
            f = replace(f, path=path, line=line, end_line=line, column=0)
        found.append(f)
    named = {(f.path, f.line) for f in found}
    found += [
        event_finding(RULE, e, message, steps=_at_evaluation(ctx.trace, e, message))
        for e in places(_left_outside(ctx.trace)) if (e.path, e.line) not in named
        for message in ["a table filled from training tokens is read for the score, and no artifact holds it"]
    ]  # fmt: skip
    named = {(f.path, f.line) for f in found}
    found += [
        event_finding(RULE, e, message, steps=_left_in_memory(e, name, place, message, score))
        for e, name, place, score in _stripped(ctx) if (e.path, e.line) not in named
        for message in ["a table filled from training tokens is a buffer of the scored model, and the artifact is written without it"]
    ]  # fmt: skip
    yield from found
    if any(f.active == "yes" for f in found):
        yield violated(RULE, found)
    elif (gap := unread(RULE, ctx, need_scores=False)) is not None:
        yield gap
    else:
        yield holds(RULE, "training tokens are only used before the artifact is loaded back")


def _at_evaluation(trace: Trace, e: Event, message: str) -> tuple[Step, ...]:
    """The tokens, the artifact's return, what is done with the tokens, and the table's use where it is one."""
    steps = Steps()
    back = next((r for r in trace.of("RESTORE", active=True) if r.flags & ART), None)
    if back is not None and back.id < e.id:
        steps.to(back, "the artifact is loaded for scoring here")
    steps.reading(e)
    steps.taking(e, "its tokens come from here")
    steps.to(e, message)
    if back is not None and back.id > e.id:
        steps.to(back, "the artifact is loaded for scoring here")
    read = next((r for r in _reported_reads(trace) if r.id > e.id and _holds(r, e)), None) if e.kind == "FILL" else None
    if read is not None:
        steps.to(read, "the table is read for the score")
    return steps.done()


def _after_the_loop(ctx: Context, e: Event, message: str) -> tuple[Step, ...]:
    """The limit, the loop that is given all of it, and what comes afterwards."""
    trace: Trace = ctx.trace
    trained = [u for u in trace.of("UPDATE", active=True) if u.flags & TRAIN and u.id < e.id]
    steps = Steps()
    before = [limit for (number, _), limit in zip(trace.time_limits, trace.limits, strict=True) if number <= e.id]
    for limit in before[-1:]:
        set_at = sorted(trace.knob_places[name] for name, _ in limit.knobs if name in trace.knob_places)
        for path, line in set_at[:1]:
            steps.aside(path, line, f"the limit: {limit.seconds:g} seconds")
        loop, made = _around(ctx, limit)
        if made:
            steps.at(limit.path, made, limit.stack, "the loop's limit is all of it" if set_at else f"the limit: {limit.seconds:g} seconds")
        if loop:
            steps.at(limit.path, loop, limit.stack, "the training loop begins here")
        for u in trained[-1:]:
            steps.to(u, "the model is trained here")
        steps.to(limit, "the loop goes on until the time is up")
    steps.reading(e)
    steps.taking(e, "its tokens come from here")
    steps.to(e, message)
    return steps.done()


def _around(ctx: Context, limit: Limit) -> tuple[int, int]:
    """The lines of the loop around the comparison and of the assignment of the limit's name before it; 0 where there is none."""
    module = ctx.module_at(limit.path)
    if module is None:
        return 0, 0
    around = [n for n in ir.walk(module.body) if n.line <= limit.line <= n.end_line]
    loop = max((n.line for n in around if isinstance(n, (ir.For, ir.While))), default=0)
    scopes = [n.body for n in around if isinstance(n, ir.FunctionDef)] or [module.body]
    names = {n.id for n in ir.walk(limit.written) if isinstance(n, ir.Name)}
    made = [
        n.line for body in scopes for n in ir.walk(body, into_functions=False)
        if isinstance(n, ir.Assign) and n.line < limit.line and any(isinstance(t, ir.Name) and t.id in names for t in n.targets)
    ]  # fmt: skip
    return loop, max(made, default=0)


def _after_reload(trace: Trace) -> list[Event]:
    """Updates and calibration on training tokens between the artifact's return and the last score."""
    loads = [e.id for e in trace.of("RESTORE", active=True) if e.flags & ART]
    reported = trace.reported_scores()
    scored = [s for s in trace.of("SCORE", active=True) if s.on_val and s.id in reported]
    return [
        e for e in trace.of("UPDATE", "CALIBRATE", active=True)
        if e.flags & TRAIN and not e.flags & (GEN | VAL) and loads and loads[0] < e.id and _scored_later(trace, e)
        # What is loaded anew before the score was written after this, which then belongs to making the artifact.
        and any(e.id < s.id and not any(e.id < at < s.id for at in loads) for s in scored)
    ]  # fmt: skip


def _reported_reads(trace: Trace) -> list[Event]:
    """The table reads that the reported score rests on."""
    return [r.read for r in cache_reads(trace) if r.reported and r.active != "no"]


def _filled_after_reload(trace: Trace) -> list[Event]:
    """Tables that take in training tokens after the artifact's return and are read for a score."""
    back = next((e.id for e in trace.of("RESTORE", active=True) if e.flags & ART), None)
    if back is None:
        return []
    reads = _reported_reads(trace)
    return [
        e for e in trace.of("FILL", active=True)
        if not e.flags & (GEN | VAL) and any(back < e.id < r.id and _holds(r, e) for r in reads)
    ]  # fmt: skip


def _holds(read: Event, e: Event) -> bool:
    """Is what was filled the table that is read, or what the table was made from."""
    return read.detail.get("table") == e.detail["table"] or e.id in read.detail.get("table_taint", ())


def _left_outside(trace: Trace) -> list[Event]:
    """Tables filled in training that the evaluation reads from memory, while nothing that is written contains them."""
    saves = list(trace.of("SAVE", active=True))
    written = frozenset().union(*(s.taint for s in saves))
    back = [e.id for e in trace.of("RESTORE", active=True) if e.flags & ART]
    read = {r.detail.get("table"): r.id for r in _reported_reads(trace) if not r.detail.get("table_flags", 0) & (ART | FILE)}
    return [
        e for e in trace.of("FILL", active=True)
        if back and e.id < back[-1] < read.get(e.detail["table"], 0) and e.id not in written and not e.flags & (GEN | VAL)
    ]  # fmt: skip


def _stripped(ctx: Context) -> list[tuple[Event, str, tuple[str, int], Event]]:
    """Tables that the scored model holds as buffers, left out of all that is written: each with its buffer, where that is
    left out, and a reported score that rests on it after the artifact's return."""
    trace: Trace = ctx.trace
    back = [e.id for e in trace.of("RESTORE", active=True) if e.flags & ART]
    reported = trace.reported_scores()
    scores = [s for s in trace.of("SCORE", active=True) if back and s.on_val and s.id in reported and s.id > back[-1]]
    written = frozenset().union(*(s.taint for s in trace.of("SAVE", active=True)))
    fills = {e.id: e for e in trace.of("FILL", active=True) if not e.flags & (GEN | VAL)}
    found: dict[tuple[str, int], tuple[Event, str, tuple[str, int], Event]] = {}
    for cls, name, taken_in, path, line in trace.stripped:
        for n in sorted(taken_in & fills.keys() - written):
            e = fills[n]
            score = next((s for s in scores if n in s.taint), None)
            if score is not None and n < back[-1] and _read_at_evaluation(ctx, cls.name, name):
                found.setdefault((e.path, e.line), (e, name, (path, line), score))
    return list(found.values())


def _read_at_evaluation(ctx: Context, cls: str, buffer: str) -> bool:
    """Does a method of the class read the buffer outside of what only training runs."""
    for p in code_of(ctx).places:
        if p.owner is None or p.owner.name != cls or p.function is None or p.function.name.startswith("__"):
            continue
        trains = [b for n in p.nodes(ir.If) if any(isinstance(x, ir.Attr) and x.attr == "training" for x in ir.walk(n.test)) for b in n.body]
        alone = {id(x) for x in ir.walk(trains)}
        if any(n.attr == buffer and id(n) not in alone for n in p.nodes(ir.Attr)):
            return True
    return False


def _left_in_memory(e: Event, name: str, place: tuple[str, int], message: str, score: Event) -> tuple[Step, ...]:
    steps = Steps()
    steps.reading(e)
    steps.taking(e, "its tokens come from here")
    steps.to(e, message)
    steps.aside(*place, f"`{name}` is left out of what is written")
    steps.to(score, "the model is scored, which still holds it")
    return steps.done()


def _scored_later(trace: Trace, e: Event) -> bool:
    models = e.detail.get("models") or frozenset()
    if not models:
        return True
    return any(s.id > e.id and s.detail.get("models", frozenset()) & models for s in trace.of("SCORE", active=True))


def _after_the_limit(trace: Trace) -> list[Event]:
    """Calibration on training tokens after a training loop whose limit leaves no time for it."""
    limits = trace.time_limits
    if not limits or any(reserved for _, reserved in limits):
        return []
    trained = max((e.id for e in trace.of("UPDATE", active=True) if e.flags & TRAIN), default=0)
    return [
        e for e in trace.of("CALIBRATE", active=True)
        if e.id > trained > 0 and e.flags & TRAIN and not e.flags & (GEN | VAL)
    ]  # fmt: skip
