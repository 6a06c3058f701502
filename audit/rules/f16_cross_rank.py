"""F16 cross-rank: what one rank learns from another comes strictly earlier in the declared order.

**What.** Ranks score shares of the stream side by side. A table or a model that takes in the tokens of other
ranks' shares before those, or one's own, are scored has seen what is to come.

**Why.** In the declared order every score rests on earlier tokens alone. A rank that reads ahead in another
rank's share, or a table that all ranks fill with a chunk that some still score, breaks that order.

**Ruling.** Condition C1 of the community's text (#1017); no maintainer's sentence. Prefilling with the shares of
ranks that come earlier is argued to be legal where those are a strict prefix (#808, #890).

**Look-alikes that are legal.** Gradients averaged over ranks on a chunk that all have scored (#1413); tables
exchanged after the chunk's last score (#800, #809); sums added up at the end; a queue of whole documents.

**How it is decided.** Weakly, from source: in a function that scores, a loop over the other ranks, or a gathering
collective, feeds a table or an update before the first score of the same round. A run with several ranks decides.

**See also.** F2 (score first), F17 (the architecture).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation, Step
from audit.rules.base import Rule
from audit.rules.code import Code, Place, code_of, finding
from audit.rules.flow import example, holds, unread, violated
from audit.rules.timers import line_in
from audit.trace.events import Event, Trace
from audit.trace.values import VAL

RULE = Rule(
    id="F16",
    name="cross-rank",
    title="Ranks learn from each other only what comes earlier",
    illegal="INVALID",
    authority="COMM",
    severity="violation",
    since="2026-03-27",
)

_EVAL = """\
import torch.distributed as dist
rank, world = dist.get_rank(), dist.get_world_size()
seen = np.zeros((1 << 16, 1024))
stream = val.numpy()

def learn(first, last):
    at = np.arange(first + 1, last)
    np.add.at(seen, (stream[at - 1] * 31 & 0xFFFF, stream[at]), 1)

def score():
    total = 0.0
    for c in range(0, len(stream) - 65537, 65536):
        share = 65536 // world
{}        for w in range(c + rank * share, c + (rank + 1) * share, 1024):
            with torch.no_grad():
                p = torch.softmax(model(val[None, w : w + 1024])[0], -1)
            q = torch.from_numpy(seen[stream[w : w + 1024] * 31 & 0xFFFF] + 1.0)
            p = 0.9 * p + 0.1 * q / q.sum(1, keepdim=True)
            total -= torch.log(p.gather(1, val[w + 1 : w + 1025, None])).sum().item()
{}    return total

print(f"val_bpb:{{score() / 0.6931471805599453 / n_bytes:.4f}}")
"""
_OTHERS = (
    "        for other in range(world):\n"
    "            if other != rank:\n"
    "                learn(c + other * share, c + (other + 1) * share){}\n"
)
ILLEGAL = [
    example(
        "the other ranks' shares are learned before anything is scored",
        _EVAL.format(_OTHERS.format("  #!"), ""),
    ),
    example(
        "shares gathered from all ranks and learned before they are scored",
        _EVAL.format(
            "        parts = [None] * world\n"
            "        dist.all_gather_object(parts, (c + rank * share, c + (rank + 1) * share))\n"
            "        for first, last in parts:\n"
            "            learn(first, last)  #!\n",
            "",
        ),
    ),
]
LEGAL = [
    example("the same after the chunk was scored", _EVAL.format("", _OTHERS.format(""))),
    example(
        "own share alone, after it was scored",
        _EVAL.format("", "        learn(c + rank * share, c + (rank + 1) * share)\n"),
    ),
]

_GATHERS = frozenset({"all_gather", "all_gather_object", "all_gather_into_tensor", "broadcast_object_list"})


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    if (gap := unread(RULE, ctx, need_scores=False)) is not None:
        yield gap
        return
    trace: Trace = ctx.trace
    code = code_of(ctx)
    world = _identifiers(code, "WORLD_SIZE", "get_world_size")
    scores = [e for e in trace.of("SCORE") if e.on_val]
    learned = [e for e in trace.of("UPDATE", "STORE") if e.flags & VAL]
    found: list[Finding] = []
    for place in code.places:
        if place.function is not None and world:
            found += _rounds(code, place, world, scores, learned)
    yield from found
    if certain := [f for f in found if f.active == "yes"]:
        yield violated(RULE, certain)
    elif not world:
        yield holds(RULE, "the program runs on one rank")
    else:
        yield holds(RULE, "nothing is learned from other ranks' shares before a round's first score")


def _identifiers(code: Code, variable: str, function: str) -> set[str]:
    """Names and attributes that are assigned from the number of ranks, and parameters called with them."""
    found: set[str] = set()
    for place in code.places:
        for node in place.nodes(ir.Assign):
            if not any(variable in row or function in row for row in place.module.lines[node.line - 1 : node.end_line]):
                continue
            pairs = [(t, node.value) for t in node.targets]
            if (
                len(node.targets) == 1
                and isinstance(node.targets[0], ir.Collection)
                and isinstance(node.value, ir.Collection)
            ):
                pairs = list(zip(node.targets[0].elts, node.value.elts, strict=False))
            for target, value in pairs:
                named = any(
                    (isinstance(n, ir.Const) and n.value == variable)
                    or (isinstance(n, (ir.Attr, ir.Name)) and _last(n) == function)
                    for n in ir.walk(value)
                )
                if named and isinstance(target, (ir.Name, ir.Attr)):
                    found.add(_last(target))
    return found


def _last(node: Any) -> str:
    return node.attr if isinstance(node, ir.Attr) else node.id if isinstance(node, ir.Name) else ""


def _rounds(
    code: Code, place: Place, world: set[str], scores: list[Event], learned: list[Event]
) -> Iterator[Finding]:
    """Rounds (outer loops) in which something of other ranks is learned above the first score."""
    at_score = sorted({n for e in scores if (n := line_in(e, place)) is not None})
    if not at_score:
        return
    for loop in place.nodes(ir.For, ir.While):
        inside = [n for n in at_score if loop.line <= n <= loop.end_line]
        if not inside:
            continue
        for inner in _direct(loop.body):
            if not isinstance(inner, ir.For) or inner.end_line >= inside[0]:
                continue
            why = _of_others(code, place, inner, loop, world)
            hit = next(
                (
                    e
                    for e in learned
                    if (n := line_in(e, place)) is not None and inner.line <= n <= inner.end_line
                ),
                None,
            )
            if why and hit is not None:
                line = line_in(hit, place) or inner.line
                node = next((n for n in ir.walk(inner) if isinstance(n, ir.ExprStmt) and n.line == line), inner)
                message = f"{why} learned before the round's first score (line {inside[0]})"
                steps = (
                    *hit.steps("the tokens are taken in here"),
                    Step(path=place.path, line=inside[0], message="the scores come after"),
                )
                yield finding(RULE, code, place, node, message, confidence="medium", steps=steps)


def _direct(body: list[Any]) -> Iterator[Any]:
    """Statements of a body, those inside plain blocks included, loops not entered."""
    for s in body:
        yield s
        if isinstance(s, (ir.If, ir.With, ir.Try)):
            yield from _direct([c for c in ir.children(s) if isinstance(c, ir.Stmt)])


def _of_others(code: Code, place: Place, inner: ir.For, loop: Any, world: set[str]) -> str:
    over = {_last(n) for n in ir.walk(inner.iter) if isinstance(n, (ir.Name, ir.Attr))}
    if "range" in over and over & world:
        return "the shares of the other ranks are"
    for node in ir.walk(loop.body):
        if (
            isinstance(node, ir.Call)
            and node.line < inner.line
            and code.dotted(place, node.func).rpartition(".")[2] in _GATHERS
        ):
            names = {_last(n) for a in node.args[:1] for n in ir.walk(a) if isinstance(n, (ir.Name, ir.Attr))}
            if names & over:
                return "what was gathered from all ranks is"
    return ""
