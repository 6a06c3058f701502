"""B7 scored is artifact: the reported figure comes from weights that were read back from the counted bytes.

**What.** The artifact is written (and often measured once), but the reported evaluation runs on weights that training
left in memory: unquantized averages, best checkpoints, an adapter that was never serialised.

**Why.** README: the artifact must be fully self-contained and reproducible. A figure from other weights is not the
figure of what was counted.

**Ruling.** None; found by reading code. An accepted row has the shape (#1120: the round trip is printed, then the
sliding figure is computed with the unquantized weights); #1270, #2128 and #1114 likewise. A warning, a violation
only under the strict policy.

**Look-alikes that are legal.** Diagnostics on raw weights whose figure is not the reported one; the
dequantized state loaded into the old model object, which is then evaluated.

**How it is decided.** For the last printed figure, where the parameters of the evaluated models were read from. By the
logs, where the stated score is printed by a step of training or a line before quantization and by no other.

**See also.** B1 (the size), F14.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from audit.context import Context
from audit.evidence.unquantized import unquantized
from audit.model import Fact, Finding, Obligation
from audit.rules.base import Rule
from audit.rules.flow import event_finding, example, holds, unread
from audit.rules.papers import evidence, paper_finding
from audit.trace.adaptation import call_of, places

RULE = Rule(
    id="B7",
    name="scored-is-artifact",
    title="The scored model is the one in the artifact",
    breach="Scored model is not the one in the artifact",
    illegal="UNRULED",
    authority="UNRULED",
    severity="warning",
)

_ROUND_TRIP = """\
torch.save({n: t.to(torch.int8) for n, t in model.state_dict().items()}, "final_model.pt")
back = Model()
back.load_state_dict(torch.load("final_model.pt"))
print(f"round trip val_bpb:{evaluate(back, val):.4f}")
"""
ILLEGAL = [
    example(
        "the round trip is printed, the reported figure comes from the weights in memory",
        _ROUND_TRIP + 'print(f"final sliding val_bpb:{evaluate(model, val):.4f}")  #!\n',
    ),
]
LEGAL = [
    example("the reported figure comes from the weights that were read back", _ROUND_TRIP),
    example(
        "raw weights as a diagnostic, the artifact reported last; the old object holds the stored weights",
        """\
print(f"before quantization val_bpb:{evaluate(model, val):.4f}")
torch.save({n: t.to(torch.int8) for n, t in model.state_dict().items()}, "final_model.pt")
model.load_state_dict(torch.load("final_model.pt"))
print(f"val_bpb:{evaluate(model, val):.4f}")
""",
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    early = list(unquantized(evidence(ctx)))
    for said, final in early:
        yield paper_finding(RULE, said, _early(said, final), severity=RULE.severity, steps=(final,) if final is not None else ())
    if early:
        said, final = early[0]
        yield Obligation(rule=RULE.id, status="violated", reason=f"{said.path}:{said.line}: {_early(said, final)}")
    else:
        yield from _by_source(ctx)


def _early(said: Fact, final: Fact | None) -> str:
    shown = "the run prints none of the artifact" if final is None else f"the artifact's is {final.raw}"
    return f"the stated score {said.raw} is that of the model before it was quantized; {shown}"


def _by_source(ctx: Context) -> Iterator[Finding | Obligation]:
    if ctx.trace is None:
        yield unread(RULE, ctx) or holds(RULE, "")
        return
    trace = ctx.trace
    saved = [e for e in trace.of("SAVE", active=True) if e.detail.get("weights")]
    last = trace.headline()
    if not saved or last is None:
        yield Obligation(
            rule=RULE.id,
            status="not-applicable",
            reason="the script writes no artifact" if not saved else "no printed score was found",
        )
        return
    scores = [e for e in trace.of("SCORE", active=True) if e.id in last.scores and e.id > saved[0].id]
    loose = places([e for e in scores if e.detail.get("in_memory")])
    found: dict[tuple[str, int], Finding] = {}
    for e in loose:
        f = event_finding(
            RULE, e, "this evaluation gives the last printed figure, with trained weights that were not read back from a file",
            confidence="medium",
        )  # fmt: skip
        part = next((r for r in trace.of("RESTORE") if r.detail.get("loose") and r.id < e.id), None)
        path, line = (part.path, part.line) if part is not None else call_of(trace, e)
        found.setdefault((path, line), replace(f, path=path, line=line, end_line=line, column=0))
    yield from found.values()
    gap = unread(RULE, ctx)
    if gap is not None:
        yield gap
    elif loose:
        yield Obligation(rule=RULE.id, status="violated", reason=f"line {loose[0].line} scores weights from memory")
    else:
        yield holds(RULE, "the last printed figure is computed with weights that were read back from a file")
