"""F16 cross-rank: what one rank learns from another comes strictly earlier in the declared order.

**What.** Ranks score shares of the stream side by side. A table or a model that takes in the tokens of other
ranks' shares before those, or one's own, are scored has seen what is to come.

**Why.** In the declared order every score rests on earlier tokens alone. A rank that reads ahead in another
rank's share, a table that all ranks fill with a chunk that some still score, or one model that learns from all ranks
at once, each of which goes through an eighth of the stream, breaks that order.

**Ruling.** Condition C1 of the community's text (#1017); no maintainer's sentence. Prefilling with the shares of
ranks that come earlier is argued to be legal where those are a strict prefix (#808, #890).

**Look-alikes that are legal.** Gradients averaged over ranks on a chunk that all have scored (#1413); tables
exchanged after the chunk's last score (#800, #809); sums added up at the end; a queue of whole documents; ranks that take
turns window by window, and add up what they learned after every turn; what lies before one's own share (#808, #890).

**How it is decided.** Weakly, from source: in a function that scores, a loop over the other ranks, or a gathering
collective, feeds a table or an update before the first score of the same round; or ranks score contiguous shares of
the whole stream and average the gradients of every step, or the weights. So with the shares of a chunk (between ``rank * size`` and
``(rank + 1) * size``) if each turn scores a window, learns from it and adds up gradients or a table over the ranks, and a
later turn's score rests on that. What lies behind a rank's share may not be learned before the share is scored. Documents,
which are in no order, are left alone. A run with several ranks decides.

**See also.** F2 (score first), F17 (the architecture).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation, Step
from audit.rules.base import Rule
from audit.rules.code import Code, Place, code_of, finding
from audit.rules.flow import example, holds, unread, violated
from audit.rules.rank_shares import Shares, identifiers, last
from audit.rules.timers import line_in
from audit.trace.adaptation import conflicts
from audit.trace.events import Event, Trace
from audit.trace.left_out import ENDS, WITHIN
from audit.trace.shaping import BETWEEN
from audit.trace.values import MASK, VAL

RULE = Rule(
    id="F16",
    name="cross-rank",
    title="Ranks learn from each other only what comes earlier",
    breach="Ranks learn from each other what comes later",
    illegal="INVALID",
    authority="COMM",
    ruling="#1017",
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
_STREAM = """\
import torch.distributed as dist
rank, world = dist.get_rank(), dist.get_world_size()
opt = torch.optim.SGD(model.parameters(), lr=1e-3)

def mean():
    for p in model.parameters():
        dist.all_reduce(p.grad, op=dist.ReduceOp.AVG)

def score():
    total = torch.zeros(())
    starts = list(range(0, val.numel() - 1025, 1024))
{}    return total.item()

print(f"val_bpb:{{score() / 0.6931471805599453 / n_bytes:.4f}}")
"""
_STEP = """\
w = mine[i]
loss = nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025])
total += loss.detach().sum()
opt.zero_grad()
loss.mean().backward()
"""


def _stream(mean: str) -> str:
    share = "mine = starts[len(starts) * rank // world : len(starts) * (rank + 1) // world]\nfor i in range(len(mine)):\n"
    share += "".join(f"    {line}\n" for line in (_STEP + mean + "opt.step()\n").splitlines())
    return _STREAM.format("".join(f"    {line}\n" for line in share.splitlines()))


_CHUNKS = """\
    for c in range(0, len(starts), 64):
        mine = starts[c : c + 64][64 * rank // world : 64 * (rank + 1) // world]
        for w in mine:
            with torch.no_grad():
                total += nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025]).sum()
        dist.barrier()
        for w in mine:
            opt.zero_grad()
            nll(model, val[None, w : w + 1024], val[None, w + 1 : w + 1025]).mean().backward()
            mean()
            opt.step()
"""

ILLEGAL.append(
    example("shares of the whole stream side by side, with one model", _stream("mean()\n").replace("opt.step()", "opt.step()  #!"))
)
_EITHER = """\
    together = os.environ.get("TOGETHER", "0") == "1"
    if {}:
        mine = starts
    else:
        mine = starts[len(starts) * rank // world : len(starts) * (rank + 1) // world]
    for i in range(len(mine)):
"""
_SWITCHED = "".join(f"        {line}\n" for line in (_STEP + "if together:\n    mean()\nopt.step()\n").splitlines())
ILLEGAL.append(
    example("both at once, by the switch's other end", _STREAM.format(_EITHER.format("not together") + _SWITCHED.replace("opt.step()", "opt.step()  #!")))
)
LEGAL = [
    example("shares of the whole stream or one model, by one switch", _STREAM.format(_EITHER.format("together") + _SWITCHED)),
    example("shares of the whole stream, each rank with a model of its own", _stream("")),
    example("shares of a chunk that all have scored, with one model", _STREAM.format(_CHUNKS)),
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
    world = identifiers(code, "WORLD_SIZE", "get_world_size")
    rank = frozenset(identifiers(code, "RANK", "get_rank"))
    scores = [e for e in trace.of("SCORE") if e.on_val]
    reported = [e for e in scores if e.id in trace.reported_scores()]
    # Trained on the whole set before it is scored (F1): that ranks share the work is no other breach.
    before = {(c.update.path, c.update.line) for c in conflicts(trace, "pre-eval", "train-then-score", reported=False)}
    learned = [e for e in trace.of("UPDATE", "STORE") if e.flags & VAL and (e.path, e.line) not in before]
    found: list[Finding] = []
    for place in code.places:
        if world:
            found += _rounds(code, place, world, rank, scores, learned)
            found += _averaged(code, place, world, scores, learned)
        if world and rank:
            there = {(f.path, f.line) for f in found}
            found += [f for f in _side_by_side(code, place, Shares(place, rank), reported, learned) if (f.path, f.line) not in there]
    yield from found
    if certain := [f for f in found if f.active == "yes"]:
        yield violated(RULE, certain)
    elif not world:
        yield holds(RULE, "the program runs on one rank")
    else:
        yield holds(RULE, "nothing is learned from other ranks' shares before a round's first score")


def _rounds(
    code: Code, place: Place, world: set[str], rank: frozenset[str], scores: list[Event], learned: list[Event]
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
                    if (n := line_in(e, place)) is not None and inner.line <= n <= inner.end_line and not _of_earlier(inner, n, rank)
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


def _of_earlier(inner: ir.For, line: int, rank: frozenset[str]) -> bool:
    """``if other < rank`` around a line: the shares of earlier ranks (#808, #890)."""
    own = {last(n) for n in ir.walk(inner.target) if isinstance(n, ir.Name)}
    for n in ir.walk(inner.body):
        test = n.test if isinstance(n, ir.If) and n.body and n.body[0].line <= line <= n.body[-1].end_line else None
        if isinstance(test, ir.Compare) and len(test.ops) == 1:
            left, right = last(test.left), last(test.comparators[0])
            if (test.ops[0] == "<" and left in own and right in rank) or (test.ops[0] == ">" and left in rank and right in own):
                return True
    return False


def _averaged(
    code: Code, place: Place, world: set[str], scores: list[Event], learned: list[Event]
) -> Iterator[Finding]:
    """Ranks that go through shares of the whole stream side by side, and average their gradients at every step."""
    updates = [(n, e) for e in learned if e.kind == "UPDATE" and (n := line_in(e, place)) is not None]
    if not updates:
        return
    loops = place.nodes(ir.For, ir.While)
    nested = {id(n) for loop in loops for n in ir.walk(loop.body)}
    made = sorted((s for s in place.nodes(ir.Assign) if id(s) not in nested), key=lambda s: s.line)
    shares = _named_shares(made, world)
    for loop in loops:
        over = loop.iter if isinstance(loop, ir.For) else loop.test
        walked = {last(n) for n in ir.walk(over) if isinstance(n, (ir.Name, ir.Attr))}
        if id(loop) in nested or not shares & walked:
            continue
        scored = sorted(n for e in scores if (n := line_in(e, place)) is not None and loop.line <= n <= loop.end_line)
        inside = [(n, e) for n, e in updates if loop.line <= n <= loop.end_line]
        if scored and inside and (mean := _mean_of_gradients(code, place, loop)) is not None:
            if under := _conditions(place, _reached(code, loop, mean)):
                # ``if not together: mine = share`` and ``if together: all_reduce(...)`` never meet.
                others = {(name, not taken) for name, taken in under}
                if not walked & _named_shares([s for s in made if others.isdisjoint(_conditions(place, s.line))], world):
                    continue
            line, e = inside[0]
            message = "each rank goes through its own share of the stream, and all learn from all: early tokens are scored by weights that saw later ones"
            steps = (
                Step(path=place.path, line=loop.line, message="each rank takes one share, from its beginning to its end"),
                Step(path=mean[0], line=mean[1], message="gradients or weights are averaged over the ranks"),
                *e.steps("the weights change"),
                Step(path=place.path, line=scored[0], message="what comes next in each share is scored with them"),
            )
            at = next((n for n in ir.walk(loop.body) if isinstance(n, ir.ExprStmt) and n.line == line), loop)
            yield replace(finding(RULE, code, place, at, message, confidence="medium", steps=steps), active=e.active, gate=e.gate)
            return


def _never_both(code: Code, place: Place, shares: Shares, loop: ir.For, where: tuple[str, int]) -> bool:
    """Is the share taken under a switch that is off where the ranks are added up."""
    under = _conditions(place, _reached(code, loop, where))
    made = [shares.value(n.id, loop.line) for n in ir.walk(loop.iter) if isinstance(n, ir.Name)] if under else []
    return any((name, not taken) in under for m in made if m is not None for name, taken in _conditions(place, m[1]))


def _reached(code: Code, loop: Any, at: tuple[str, int]) -> int:
    """The line of a loop from which a place in it, or in a function that it calls, is reached; 0 where several lead there."""
    path, line = at
    if loop.line <= line <= loop.end_line:
        return line
    names = {p.function.name for p in code.places if p.function is not None and p.path == path and p.function.line <= line <= p.function.end_line}
    calls = [n.line for n in ir.walk(loop.body) if isinstance(n, ir.Call) and isinstance(n.func, ir.Name) and n.func.id in names]
    return calls[0] if len(calls) == 1 else 0


def _named_shares(made: list[ir.Assign], world: set[str]) -> set[str]:
    """Names of a rank's share of everything, and of what is made of them, by assignments in their order."""
    shares: set[str] = set()
    for s in made:
        names = {last(n) for n in ir.walk(s.value) if isinstance(n, (ir.Name, ir.Attr))}
        if names & shares or any(_share(n, world) for n in ir.walk(s.value)):
            shares |= {last(n) for t in s.targets for n in ir.walk(t) if isinstance(n, (ir.Name, ir.Attr))}
    return shares


def _conditions(place: Place, line: int) -> set[tuple[str, bool]]:
    """Local switches that are known to be on or off at a line, by the branches around it; names that are set once."""
    found: set[tuple[str, bool]] = set()
    for n in place.nodes(ir.If):
        for side, taken in ((n.body, True), (n.orelse, False)):
            if side and side[0].line <= line <= side[-1].end_line:
                parts = n.test.values if isinstance(n.test, ir.BoolOp) and n.test.op == ("and" if taken else "or") else [n.test]
                for part in parts:
                    turned = isinstance(part, ir.UnaryOp) and part.op == "not"
                    asked = part.operand if isinstance(part, ir.UnaryOp) and turned else part
                    if isinstance(asked, ir.Name) and len(place.assigned(asked.id)) <= 1:
                        found.add((asked.id, taken is not turned))
    return found


def _side_by_side(
    code: Code, place: Place, shares: Shares, scores: list[Event], learned: list[Event]
) -> Iterator[Finding]:
    """Loops through a rank's share, be it of a chunk, that learn from what the other ranks score in the same turn, and
    those before which the rank learned what comes behind its share.

    The turns of a share take tokens; documents are in no order (D3). A score of the loop has to rest on what was learned.
    """
    at_score = [(n, e) for e in scores if (n := line_in(e, place)) is not None and not _of_documents(e)]
    at_update = [(n, e) for e in learned if (n := line_in(e, place)) is not None and not e.flags & MASK]
    if not at_score or not at_update:
        return
    for loop in shares.loops():
        scored = [(n, e) for n, e in at_score if loop.line < n <= loop.end_line]
        for line, u in at_update:
            resting = [(n, s) for n, s in scored if u.id in s.taint]
            if not resting:
                continue
            if loop.line < line <= loop.end_line:
                inner = {n for n, s in resting if _turns_later(loop, n, u, s, scores)}
                where = _reduced(code, place, loop, u) if inner else None
                if where is None or _never_both(code, place, shares, loop, where):
                    continue
                message = "each rank goes through its own share, and all learn from all: early tokens are scored by what saw later ones"
                steps = (
                    Step(path=place.path, line=loop.line, message="each rank takes one share, from its beginning to its end"),
                    *u.steps("the tokens of the own share are taken in"),
                    Step(path=where[0], line=where[1], message="and those of the other ranks"),
                    Step(path=place.path, line=min(inner), message="what comes next in each share is scored with them"),
                )
            elif line < loop.line and _behind(place, shares, line, loop):
                message = "what lies behind the rank's own share is learned before the share is scored"
                steps = (
                    *u.steps("the tokens behind the share are taken in"),
                    Step(path=place.path, line=resting[0][0], message="the share is scored with them"),
                )
            else:
                continue
            at = next((n for n in place.nodes(ir.ExprStmt, ir.Assign, ir.AugAssign) if n.line == line), loop)
            yield replace(finding(RULE, code, place, at, message, confidence="medium", steps=steps), active=u.active, gate=u.gate)
            return


def _of_documents(score: Event) -> bool:
    """Does what is scored lie between places that were found in the stream."""
    return bool(score.flags & MASK or {BETWEEN, WITHIN, ENDS} & set(score.detail.get("keys", ())))


def _turns_later(loop: ir.For, line: int, u: Event, s: Event, scores: list[Event]) -> bool:
    """Does the score come in a later turn of the share's loop, or of one inside it, than what was learned, which that
    turn had scored: an earlier chunk, which all have scored, may be learned from here."""
    inside = sum(n is not loop and n.line <= line <= n.end_line for n in ir.walk(loop.body) if isinstance(n, (ir.For, ir.While)))
    at = next((i for i, (a, b) in enumerate(zip(u.loops, s.loops, strict=False)) if a != b), None)
    if at is None or not at >= len(s.loops) - 1 - inside >= 0 or u.loops[at][0] != s.loops[at][0] or u.id > s.id:
        return False
    turn = u.loops[: at + 1]
    mine = {a[0] for a in u.atoms if u.loops[at] in a[0]}
    return any(e.loops[: at + 1] == turn and b[0] in mine for e in scores for b in e.atoms)


def _reduced(code: Code, place: Place, loop: ir.For, u: Event) -> tuple[str, int] | None:
    """Where a loop, or a function that it calls, adds up over the ranks what ``u`` changed."""
    if u.kind == "UPDATE":
        return _mean_of_gradients(code, place, loop)
    tables: set[str] = set()
    for near in code.places:
        if near.path == u.path and (near.function is None or near.function.line <= u.line <= near.function.end_line):
            for n in near.nodes(ir.Call, ir.Assign, ir.AugAssign):
                if n.line <= u.line <= n.end_line:
                    filled = [n.func] if isinstance(n, ir.Call) else n.targets if isinstance(n, ir.Assign) else [n.target]
                    tables |= {last(t.value) for t in filled if isinstance(t, (ir.Attr, ir.Sub))}
                    if isinstance(n, ir.Call) and last(n.func) == "at":
                        tables |= {last(a) for a in n.args[:1]}
    for n in ir.walk(loop.body):
        if isinstance(n, ir.Call) and code.dotted(place, n.func).endswith(".all_reduce") and n.args:
            if last(n.args[0]) and last(n.args[0]) in tables:
                return place.path, n.line
    return None


def _behind(place: Place, shares: Shares, line: int, loop: ir.For) -> bool:
    """``absorb(hi, n)`` or ``seen.update(val[hi:])`` at a line, where a rank's share ends at ``hi``."""
    outer = [n for n in place.nodes(ir.For, ir.While) if n.line < loop.line <= n.end_line]
    if any(n.line <= line <= n.end_line and n not in outer for n in place.nodes(ir.For, ir.While)):
        return False
    span = loop.iter.args[:2] if isinstance(loop.iter, ir.Call) and last(loop.iter.func) == "range" and len(loop.iter.args) > 1 else None
    end = span[1] if span is not None else None
    if not isinstance(end, ir.Name) or not shares.ends(end, line) or shares.value(end.id, line) != shares.value(end.id, loop.line):
        return False
    inner = max((n.line for n in outer), default=0)
    made = shares.value(end.id, line)
    if made is None or made[1] < inner or line < inner:
        return False
    for s in place.nodes(ir.ExprStmt, ir.Assign, ir.AugAssign):
        if s.line <= line <= s.end_line:
            for n in ir.walk(s):
                first = n.lower if isinstance(n, ir.Slice) else n.args[0] if isinstance(n, ir.Call) and len(n.args) > 1 else None
                if isinstance(first, ir.Name) and first.id == end.id:
                    return True
    return False


def _share(node: Any, world: set[str]) -> bool:
    """``n * rank // world``: where a rank's share of everything begins or ends."""
    if not (isinstance(node, ir.BinOp) and node.op == "//" and last(node.right) in world):
        return False
    return any(isinstance(n, ir.BinOp) and n.op == "*" for n in ir.walk(node.left))


def _mean_of_gradients(code: Code, place: Place, loop: Any) -> tuple[str, int] | None:
    """Where a loop, or a function that it calls, reduces gradients, or the parameters themselves, over the ranks."""
    called = {n.func.id for n in ir.walk(loop.body) if isinstance(n, ir.Call) and isinstance(n.func, ir.Name)}
    for near in code.places:
        own = near is place
        if not own and (near.function is None or near.function.name not in called):
            continue
        for n in near.nodes(ir.Call):
            reduces = code.dotted(near, n.func).endswith(".all_reduce")
            if reduces and n.args and (not own or loop.line <= n.line <= loop.end_line):
                if any(isinstance(x, ir.Attr) and x.attr == "grad" for x in ir.walk(n.args[0])) or _of_parameters(code, near, n):
                    return near.path, n.line
    return None


def _of_parameters(code: Code, place: Place, call: ir.Call) -> bool:
    """``for p in model.parameters(): all_reduce(p.data)``; ``for t in (loss_sum, count): all_reduce(t)`` adds up figures."""
    reduced = call.args[0].value if isinstance(call.args[0], ir.Attr) and call.args[0].attr == "data" else call.args[0]
    around = [n for n in place.nodes(ir.For) if n.line <= call.line <= n.end_line]
    for n in around if isinstance(reduced, ir.Name) else []:
        named = [x for x in ir.walk(n.target) if isinstance(x, ir.Name) and x.id == last(reduced)]
        over, listed = n.iter, [n.iter]
        if isinstance(over, ir.Name):
            made = [s for where in code.places for s in where.nodes(ir.Assign)]
            listed = [s.value for s in made if any(last(t) == last(over) for t in s.targets)]
        if named and any(isinstance(x, ir.Attr) and x.attr in ("parameters", "named_parameters") for e in listed for x in ir.walk(e)):
            return True
    return False


def _direct(body: list[Any]) -> Iterator[Any]:
    """Statements of a body, those inside plain blocks included, loops not entered."""
    for s in body:
        yield s
        if isinstance(s, (ir.If, ir.With, ir.Try)):
            yield from _direct([c for c in ir.children(s) if isinstance(c, ir.Stmt)])


def _of_others(code: Code, place: Place, inner: ir.For, loop: Any, world: set[str]) -> str:
    over = {last(n) for n in ir.walk(inner.iter) if isinstance(n, (ir.Name, ir.Attr))}
    if "range" in over and over & world:
        return "the shares of the other ranks are"
    for node in ir.walk(loop.body):
        if (
            isinstance(node, ir.Call)
            and node.line < inner.line
            and code.dotted(place, node.func).rpartition(".")[2] in _GATHERS
        ):
            names = {last(n) for a in node.args[:1] for n in ir.walk(a) if isinstance(n, (ir.Name, ir.Attr))}
            if names & over:
                return "what was gathered from all ranks is"
    return ""
