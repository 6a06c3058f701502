"""F18 selection: no checkpoint, average or temperature is picked by its validation score inside the run.

**What.** Several candidates (raw weights, EMA, SWA, blends, temperatures, epochs) are evaluated on the validation set and
the better one is exported or used for the reported figure.

**Why.** A few bits of validation information reach the artifact; with many candidates more than a few.

**Ruling.** None. #635, #838, #1171 and #1495 have the shape; nobody ruled on it. A warning, never a violation
under the default policy.

**Look-alikes that are legal.** Remembering the best score for a log line; early stopping by the clock; choosing by
training loss.

**How it is decided.** A branch whose condition compares validation scores, and which assigns something else than
scores. The best of several evaluations (``min``, ``sorted(...)[0]``, ``argmin``), where the reported figure is the best one,
or where something that is picked by them (a rate, a temperature, a checkpoint) goes anywhere but into a log line. Of the figures of
parts of the stream, which later parts may learn from, nothing is said.

**See also.** F11, B6 (what was tuned outside the run).
"""

from __future__ import annotations

from collections.abc import Iterator

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread
from audit.trace import Event, Trace
from audit.trace.adaptation import places
from audit.trace.bests import BEST
from audit.trace.words import LOGGERS

RULE = Rule(
    id="F18",
    name="selection",
    title="Nothing is picked by its validation score inside the run",
    breach="Something picked by its validation score inside the run",
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
    example(
        "the smaller of two full evaluations is the figure that counts",
        """\
other = Model()
other.load_state_dict({n: t * 0.99 for n, t in model.state_dict().items()})
results = {"raw": evaluate(model, val), "decayed": evaluate(other, val)}
for name, score in results.items():
    print(f"{name} bpb:{score:.4f}")
best = min(results, key=results.get)  #!
print(f"final {best} val_bpb:{results[best]:.4f}")
""",
    ),
    example(
        "a temperature that a part of the validation set was tried with",
        """\
def at(temperature, tokens):
    total = torch.zeros(())
    for i in range(0, tokens.numel() - 1, 1024):
        with torch.no_grad():
            logits = model(tokens[None, i : i + 1024]) / temperature
            total += F.cross_entropy(logits.transpose(1, 2), tokens[None, i + 1 : i + 1025], reduction="sum")
    return total.item() / 0.6931471805599453 / n_bytes

tried = [(at(t, val[:500_000]), t) for t in (0.9, 1.0, 1.1)]
best = min(tried)[1]  #!
print(f"val_bpb:{at(best, val):.4f}")
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
    example(
        "the best of a table is told, and the last evaluation counts",
        """\
table = [evaluate(model, val) for _ in range(3)]
print(f"best of the table bpb:{min(table):.4f}")
print(f"val_bpb:{evaluate(model, val):.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    for e in places([e for e in ctx.trace.of("CHOOSE") if e.on_val and "how" not in e.detail]):
        yield event_finding(
            RULE, e, f"{e.function} decides by validation scores what is kept ({', '.join(e.detail['assigned'][:3])})",
            confidence="medium",
        )  # fmt: skip
    picks = [(e, use) for e in ctx.trace.of("CHOOSE") if e.on_val and "how" in e.detail for use in [_use(ctx, ctx.trace, e)] if use]
    uses = dict(reversed([(e.id, use) for e, use in picks]))
    for e in places([e for e, _ in picks]):
        yield event_finding(RULE, e, f"{e.function} picks the best of several by validation scores ({e.detail['how']}); {uses[e.id]}", confidence="medium")
    yield unread(RULE, ctx, need_scores=False) or holds(RULE, "no branch on a validation score decides what is kept")


def _use(ctx: Context, trace: Trace, e: Event) -> str:
    """What is done with the best one besides telling it; "" where nothing is, or where that is not known."""
    mark = (BEST, e.id)
    figures = [r for r in trace.of("REPORT", active=True) if r.scores]
    if trace.chosen is not None:
        counted = [r for r in figures if r.id in trace.chosen]
    else:
        counted = figures[-1:] if not e.detail["running"] else []  # the best so far may be told after the last figure
    if any(mark in r.detail["best"] for r in counted):
        return "its figure is the reported one"
    if not e.detail["picks"]:
        return ""
    reported = trace.reported_scores()
    later = next((s for s in trace.of("SCORE") if s.id > e.id and s.id in reported and mark in s.detail.get("keys", ())), None)
    if later is not None:
        return f"line {later.line} scores with it"
    return f"{name} is used afterwards" if (name := _handed_on(ctx, e)) else ""


def _handed_on(ctx: Context, e: Event) -> str:
    """The name of a pick that is used for more than a log line in the function that makes it; ""."""
    module = ctx.module_at(e.path)
    if module is None:
        return ""
    bodies = [f.body for f in ir.functions(module.body) if f.name == e.function] or [module.body]
    own = {f.name for f in ir.functions(module.body)}
    for body in bodies:
        nodes = list(ir.walk(body, into_functions=False))
        made = [n for n in nodes if isinstance(n, ir.Assign) and n.line <= e.line <= n.end_line and not isinstance(n.value, ir.Lambda)]
        names = {t.id for n in made for target in n.targets for t in ir.walk(target) if isinstance(t, ir.Name)}
        told = {id(x) for n in nodes if isinstance(n, (ir.FString, ir.Compare)) or _tells(n) for x in ir.walk(n)}
        told -= {id(x) for n in nodes if isinstance(n, ir.Call) and isinstance(n.func, ir.Name) and n.func.id in own and not _tells(n) for x in ir.walk(n)}
        stored = {id(t) for n in nodes if isinstance(n, ir.Assign) for target in n.targets for t in ir.walk(target) if isinstance(t, ir.Name)}
        for n in nodes:
            if isinstance(n, ir.Name) and n.id in names and n.line > e.line and id(n) not in told | stored:
                return n.id
    return ""


def _tells(n: object) -> bool:
    """``print(...)``, ``log(...)``, ``log0(...)``, ``logger.info(...)``"""
    if not isinstance(n, ir.Call):
        return False
    name = ir.called(n)
    return name == "print" or name in LOGGERS or name.startswith("log")
