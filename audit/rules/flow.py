"""What the rules on information flow share: findings from conflicts, and the obligation of an unread trace.

No rule lives here. A rule says what is wrong; this module says where, along which path, and whether the
submitted configuration gets there.
"""

from __future__ import annotations

from collections.abc import Sequence

from audit.context import Context
from audit.model import Confidence, Finding, Obligation, Step
from audit.rules.absent import is_absent
from audit.rules.base import Example, Rule
from audit.rules.steps import Steps
from audit.rules.unscored import why_unscored
from audit.trace import Conflict, Event, Trace
from audit.trace.foreign import FOREIGN, TOKENS
from audit.trace.values import TRAIN


def event_finding(
    rule: Rule, e: Event, message: str, *, confidence: Confidence = "high", steps: tuple[Step, ...] = ()
) -> Finding:
    """A finding at the event, with the calls that lead to it."""
    return Finding(
        rule=rule.id, name=rule.name, severity=rule.severity, authority=rule.authority, confidence=confidence,
        message=message, path=e.path, line=e.line, end_line=max(e.end_line, e.line), column=e.column, active=e.active, gate=e.gate,
        trace=steps or tuple(e.steps(message)),
    )  # fmt: skip


def conflict_finding(rule: Rule, c: Conflict, message: str, confidence: Confidence = "high") -> Finding:
    """A finding at the update, with the path: tokens scored first if they were, the update, the score."""
    u, s = c.update, c.score
    table = u.kind == "STORE"
    steps = Steps()
    steps.reading(u)
    if c.before is not None:
        steps.to(c.before, "the tokens are scored here first")
    if line := u.detail.get("leaf_line", 0) if not u.detail.get("models") else 0:
        steps.at(u.path, line, u.stack, "the tensor that is fitted is made here")
    steps.taking(u, "the tokens that the table takes in" if table else "the tokens that it is fitted to")
    steps.backward(u)
    steps.to(u, "the table takes in the tokens" if table else "the state is fitted to the tokens")
    if c.saved is not None and c.saved.id < s.id:
        steps.to(c.saved, "the artifact is written with what was learned")
    steps.reading(s)
    steps.taking(s, "the tokens that are scored")
    steps.to(s, "the same tokens are scored with it")
    if c.saved is not None and c.saved.id > s.id:
        steps.to(c.saved, "the artifact is written with what was learned")
    severity = rule.severity
    if not c.reported:
        severity, message = "note", f"{message}; the reported figure does not rest on it"
    return Finding(
        rule=rule.id, name=rule.name, severity=severity, authority=rule.authority, confidence=confidence,
        message=message, path=u.path, line=u.line, end_line=max(u.end_line, u.line), column=u.column, active=c.active, gate=c.gate,
        trace=steps.done(),
    )  # fmt: skip


def unread(
    rule: Rule, ctx: Context, need_scores: bool = True, found: Sequence[Finding] = ()
) -> Obligation | None:
    """Why nothing can be said to hold: no trace, a trace cut short, or no score found in it. Else None.

    Where the configuration as it is known scores nothing, what no branch does is shown all the same: ``found`` are
    the rule's findings, those in branches that are closed among them.
    """
    trace: Trace | None = ctx.trace
    if trace is None:
        return Obligation(rule=rule.id, status="undetermined", reason="the program could not be traced")
    if trace.exhausted:
        return Obligation(rule=rule.id, status="undetermined", reason=f"the trace is incomplete: {trace.exhausted}")
    if need_scores and not any(e.on_val for e in trace.of("SCORE", active=True)):
        trains = any(e.flags & TRAIN for e in trace.of("UPDATE"))
        scorers = sorted(m for m in trace.told_by if is_absent(ctx, m))
        if scorers:
            why = f"the printed score comes from `{scorers[0]}`, which is not among the submitted files"
            return Obligation(rule=rule.id, status="undetermined", reason=why)
        if trains and not any(e.on_val for e in trace.events):
            return Obligation(
                rule=rule.id, status="not-applicable", reason="the script trains and never reads validation tokens"
            )
        if not any(e.on_val for e in trace.of("SCORE")):
            why = why_unscored(ctx, trace)
        elif found:
            why = f"the known settings score no validation token, and some others breach this rule ({found[0].path}:{found[0].line})"
        else:
            return None  # scored under some setting, and no branch breaches the rule
        return Obligation(rule=rule.id, status="undetermined", reason=why)
    if need_scores and not any(e.scores for e in trace.of("REPORT")):
        why = "validation tokens are scored, and no printed figure was found that rests on these scores"
        return Obligation(rule=rule.id, status="undetermined", reason=why)
    if need_scores and (given := _given_to(ctx, trace)) is not None:
        why = f"validation tokens are given to `{given}`, which is not among the submitted files, and its answer is scored"
        return Obligation(rule=rule.id, status="undetermined", reason=why)
    if need_scores and trace.unfollowed and trace.chosen is None:
        return Obligation(rule=rule.id, status="undetermined", reason=trace.unfollowed[0])
    return None


def _given_to(ctx: Context, trace: Trace) -> str | None:
    """An absent module that got validation tokens and whose answer a score rests on: it may adapt, look up or choose."""
    made = {k[1] for s in trace.of("SCORE", active=True) if s.on_val for k in s.detail.get("keys", ()) if k[0] == FOREIGN and TOKENS in k[2:]}
    return next((m for m in sorted(made) if is_absent(ctx, m)), None)


def holds(rule: Rule, reason: str) -> Obligation:
    return Obligation(rule=rule.id, status="holds", reason=reason)


def violated(rule: Rule, findings: list[Finding]) -> Obligation:
    first = findings[0]
    return Obligation(rule=rule.id, status="violated", reason=f"{first.path}:{first.line}: {first.message}")


#: What every example needs around the few lines that matter: shards, a model, an artifact.
PRELUDE = """\
import glob, os, numpy as np, torch
import torch.nn as nn, torch.nn.functional as F

def shard(pattern):
    return torch.from_numpy(np.fromfile(sorted(glob.glob(pattern))[0], dtype="<u2").astype(np.int64))

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
    def forward(self, x):
        return self.head(self.emb(x))

def nll(model, x, y):
    return F.cross_entropy(model(x).transpose(1, 2), y, reduction="none")

def evaluate(model, val, L=1024):
    total = torch.zeros(())
    for i in range(0, val.numel() - 1, L):
        with torch.no_grad():
            total += nll(model, val[None, i : i + L], val[None, i + 1 : i + L + 1]).sum()
    return total.item() / 0.6931471805599453 / n_bytes

val, train = shard("data/fineweb_val_*.bin"), shard("data/fineweb_train_*.bin")
n_bytes = 151_080_000
model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(1000):
    optimizer.zero_grad()
    nll(model, train[None, step * 64 : step * 64 + 64], train[None, step * 64 + 1 : step * 64 + 65]).mean().backward()
    optimizer.step()

"""


def example(name: str, body: str, files: tuple[tuple[str, str], ...] = (), also: str = "") -> Example:
    """An example: ``PRELUDE`` and ``body``; lines that end in ``#!``, or that contain ``also``, must fire."""
    lines = (PRELUDE + body).splitlines()
    marked = tuple(n for n, line in enumerate(lines, 1) if line.endswith("#!") or (also and also in line))
    code = "\n".join(line[:-2].rstrip() if line.endswith("#!") else line for line in lines) + "\n"
    return Example(name=name, code=code, lines=marked, files=files)
