"""F17 causal model: no score depends on later tokens through the architecture.

**What.** Attention without a causal mask, or with one whose direction lets positions see later ones, in the library's
spellings, its encoder and decoder layers among them, or written out, a recurrence that also runs backwards or whose
last state is put back on every position, a filter padded on both sides or around the window, states or token ids moved
back by one position, ids moved on by one around the window's end (its last token stands before the first), a statistic
over the whole window (its mean, its last state) or over its beginning fed back to every position, in the model or in a
wrapper around it, neighbours merged into groups whose summary each of them gets back, blocks of linear attention whose
state holds the block itself, slots that attend to the window or are filled by a softmax over time and that every
position reads, a layer that only the highest ranked positions of the window pass through, or those above a threshold
that the whole window has a part in (mixture of depths, experts that choose their tokens), experts that get fixed shares
of the positions in the order of their classes, keys times values that are added up over the window and read back
(linear attention without a mask), a square of weights between positions, a norm over time or over all rows of a batch,
a look-up of later places, one number per token (how rare it is) in shares of the window's mean, a kernel that runs along
time (linear attention, a scan) over the window turned around, or whose last state is read back, the window's values in
their order, one scale made of all of them, a model that is given the token that it is asked for and does not move it.

**Why.** The probability of a token may depend on earlier tokens alone. A model that sees the window's end has seen the
token that it is asked for.

**Ruling.** Condition C1 of the community's text (#1017). #1047 and #1028 carried the last state of a sequence into the
next round over the same sequence, behind a knob.

**Look-alikes that are legal.** ``is_causal=True``, or a mask under whatever name the library gives it (MLX says
``mask="causal"``); attention to kept earlier keys, to a memory, within the pieces of one token; a running mean
(``cumsum``); a filter padded on the left, or on both sides with its overhang cut off at the end, or over positions that
were moved on before; groups that are moved on by one before they are put back; blocks that are given the state before
them; a threshold per position, or one that was learned; states moved on by one position, with the first one
overwritten; statistics of weights or over channels; ids, or patches of them, that a model is given and moves on by one
itself; the last position alone, to draw a token; a last state kept for the next window; a state that chunks read before
they are added to it, or that is kept for the next window; shares of numbers that weigh a loss; what is done in training
alone; rounding by a scale per position, of a weight, or fixed; experts whose tokens are sorted and cut at the true
counts, or whose capacity is counted in the order of the text; sorted positions that all go through one layer.

**How it is decided.** Layers are looked up through branches, local names, lists, registries of classes, functions that
build them and what constructors are given; a class that the configuration builds nowhere is inactive. Where a program
ever calls ``eval()``, ``self.training`` is false. A mask that is a function of places (``flex_attention``) is asked
about each pair of a small window, numbers from around it tried out. The axes are followed from the token embedding:
only what is taken along the time axis of activations and put back on all positions counts, also through einsum, a
layer's own methods and what one layer leaves for the next. Where time stands after heads were split off and channels
turned is followed through views and transposes; where that is lost, or an operation is not known, nothing is said. A
shift or a filter counts where its result goes on through the model, not in a loss beside it. A padding that is written
by names is tried with a few numbers of taps; the batch's statistics count where nothing in the program puts a model
into evaluation mode. Branches that the module's settings keep closed are left out; a switch of the program's own level
is as its configuration sets it. A statistic over the window that is only a scale, by which activations are divided
before they are rounded and multiplied afterwards, is a warning: what reaches a position from later ones is where it is
rounded, half a step at most. The largest value that is subtracted counts where no share (``exp``) is made of what is
left. Library layers attend over the batch unless they are built with ``batch_first=True`` or given time in front: that leaves doubt, as does a model that embeds
more than the window, whose encoder may read a memory. A mask's direction is worked out on a few positions, where ones,
infinities, halves of a square and compared positions alone make it and what it hides is written out, and documents that
are told by a certain token among the ids, which then stand for one text; one that something handed in from elsewhere
has a part in counts as causal. A loop's last state counts where it starts without a time axis and each step makes it of
itself and of the next position; a share is fixed where its bounds are made of lengths and settings alone, and counts
where each meets weights of its own. Attention without a mask accuses where queries, keys and values are made of the
same input; where they are not, where a branch before it is not decided, or where a random part of the input is hidden
(masked diffusion), the obligation is undetermined. A model that is given its own targets is followed from the tokens to
its predictions: shifts, patches, slots, filters, attention; where all of that is known it sees them or not, and doubts
about attention on the way are settled. A knob's branch decides whether it is active. A static reading is weak here;
flipping later tokens in a run is the proof.

**See also.** F12 (previous token across documents), F16 (other ranks).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation
from audit.rules.absent import is_absent, part_of_the_model
from audit.rules.attention import hides_at_random, made_of, unmasked
from audit.rules.axes import argument, number
from audit.rules.base import Rule
from audit.rules.block_masks import attends_ahead
from audit.rules.carried import carried_states
from audit.rules.code import Code, Place, code_of, finding
from audit.rules.densities import SHARE, Densities
from audit.rules.expressions import TURNED
from audit.rules.final_states import RECURRENT
from audit.rules.flow import example, holds, unread, violated
from audit.rules.generators import writes_only
from audit.rules.layers import Layers
from audit.rules.reading import BRANCH, Seen, readings
from audit.rules.rounding import ROUNDED
from audit.rules.routing import SHARES, Routing
from audit.rules.sequence import Sequences, sequences_of
from audit.rules.settings import closed_by
from audit.rules.slots import READ
from audit.rules.told import SEEN, sees_targets, shown_apart
from audit.rules.window import STATISTICS, Window, is_level, summarises
from audit.trace.foreign import FOREIGN

RULE = Rule(
    id="F17",
    name="causal-model",
    title="The model sees no later token",
    breach="Model sees a later token",
    illegal="INVALID",
    authority="COMM",
    ruling="#1017",
    severity="violation",
    since="2026-03-27",
)

_MODEL = """\
class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, 64), nn.Linear(64, 1024)
        self.mix = nn.Linear(64, 64)
    def forward(self, ids):
        x = self.emb(ids)
{}
        return self.head(x)

print(f"val_bpb:{{evaluate(Wide(), val):.4f}}")
"""
_BLOCKS = """\
class Part(nn.Module):
    def __init__(self, dim, share=0.5, routed=True):
        super().__init__()
        self.routed = routed and share < 1.0
        self.share, self.score, self.mix = share, nn.Linear(dim, 1), nn.Linear(dim, dim)
    def forward(self, x):
        out = self.mix(x)
        if not self.routed:
            return x + out
        rank = self.score(x).squeeze(-1)
        kept = rank.topk(int(self.share * x.size(1)), dim=1).indices  #!
        gate = torch.zeros_like(rank).scatter(1, kept, 1.0)
        return x + gate[..., None] * out

class Deep(nn.Module):
    def __init__(self, dim=64, share=0.5, routed=True):
        super().__init__()
        self.emb, self.head = nn.Embedding(1024, dim), nn.Linear(dim, 1024)
        self.blocks = nn.ModuleList([Part(dim, share, routed=routed) for _ in range(2)])
    def forward(self, ids):
        x = self.emb(ids)
        for i in range(2):
            x = self.blocks[i](x)
        return self.head(x)

print(f"val_bpb:{evaluate(Deep(), val):.4f}")
"""
ILLEGAL = [
    example(
        "attention without a mask",
        _MODEL.format(
            "        x = x + F.scaled_dot_product_attention(x, self.mix(x), x, is_causal=False)  #!"
        ),
    ),
    example(
        "the window's mean on every position",
        _MODEL.format("        x = x - x.mean(dim=1, keepdim=True)  #!"),
    ),
    example(
        "slots filled by a softmax over time, read back by every position",
        _MODEL.format(
            """\
        scores = torch.einsum("btd,nd->btn", x, self.mix.weight[:8])
        share = torch.softmax(scores, dim=1)  #!
        slots = torch.einsum("btn,btd->bnd", share, x)
        x = x + torch.einsum("btn,bnd->btd", share, slots)"""
        ),
    ),
    example("a layer that only the best half of the window's positions pass through", _BLOCKS),
    example(
        "a mask that keeps the wrong half",
        _MODEL.format(
            """\
        keep = torch.ones(x.size(1), x.size(1)).triu()
        scores = (self.mix(x) @ x.transpose(1, 2)).masked_fill(keep == 0, float("-inf"))
        x = x + torch.softmax(scores / 8, dim=-1) @ x  #!"""
        ),
    ),
]
LEGAL = [
    example(
        "attention with a mask",
        _MODEL.format("        x = x + F.scaled_dot_product_attention(x, self.mix(x), x, is_causal=True)"),
    ),
    example(
        "a mask that keeps the earlier half",
        _MODEL.format(
            """\
        keep = torch.ones(x.size(1), x.size(1)).tril()
        scores = (self.mix(x) @ x.transpose(1, 2)).masked_fill(keep == 0, float("-inf"))
        x = x + torch.softmax(scores / 8, dim=-1) @ x"""
        ),
    ),
    example(
        "a running mean",
        _MODEL.format("        x = x - x.cumsum(dim=1) / torch.arange(1, x.size(1) + 1)[None, :, None]"),
    ),
    example(
        "a softmax over slots, each position by itself",
        _MODEL.format(
            """\
        share = torch.softmax(torch.einsum("btd,nd->btn", x, self.mix.weight[:8]), dim=-1)
        x = x + torch.einsum("btn,nd->btd", share, self.mix.weight[:8])"""
        ),
    ),
    example(
        "such a layer, built so that all positions pass through it",
        _BLOCKS.replace("Deep()", "Deep(routed=False)").replace("  #!", ""),
    ),
    example(
        "each position picks two of its experts",
        _BLOCKS.replace("nn.Linear(dim, 1)", "nn.Linear(dim, 8)")
        .replace("self.score(x).squeeze(-1)", "self.score(x.reshape(-1, 64))")
        .replace("rank.topk(int(self.share * x.size(1)), dim=1)", "rank.topk(2, dim=1)")
        .replace("gate[..., None] * out", "gate.sum(-1).reshape(x.shape[:2])[..., None] * out")
        .replace("  #!", ""),
    ),
]

_POOLS = frozenset({"avg_pool1d", "max_pool1d", "conv1d", "lp_pool1d"})


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    code = code_of(ctx)
    along = sequences_of(code)
    layers = Layers(code, along)
    classes = _classes(code, layers)
    whole = any(p.names & RECURRENT or (p.owner is not None and summarises(p)) for p in code.places)
    found = [
        f if p.owner is None else _built(code, p.owner.name, f)
        for p in code.places if p.function is not None for f in _place(code, along, p, classes, layers, whole)
    ]  # fmt: skip
    found += _read(code, along, layers)
    for place, mask in attends_ahead(code):
        seen = finding(RULE, code, place, mask, TURNED, confidence="low" if hides_at_random(code) else "high")
        found.append(seen if place.owner is None else _built(code, place.owner.name, seen))
    for place, node, layer in carried_states(code):
        message = f"the state that {layer} has at the window's end starts its next run over the same window"
        made = finding(RULE, code, place, node, message)
        found.append(_built(code, layer, made))
    for a in sees_targets(code):
        found.append(finding(RULE, code, a.place, a.loss, SEEN, confidence="low" if hides_at_random(code) else "high"))
    apart = shown_apart(code) if any(f.confidence == "low" for f in found) else frozenset()
    found = [f for f in found if f.confidence != "low" or (f.path, f.line) not in apart]
    found.sort(key=lambda f: (f.active == "no", f.path, f.line))
    once: dict[tuple[str, int, str], Finding] = {}
    for f in found:
        once.setdefault((f.path, f.line, "" if f.message == READ else f.message), f)
    said = {(f.path, f.line) for f in once.values() if f.message != READ and f.confidence != "low"}
    found = _surest(f for f in once.values() if f.message != READ or (f.path, f.line) not in said)
    yield from found
    active = [f for f in found if f.active == "yes" and f.severity == "violation"]
    doubtful = [f for f in active if f.confidence == "low"]
    if certain := [f for f in active if f.confidence != "low"]:
        yield violated(RULE, certain)
    elif (gap := unread(RULE, ctx, need_scores=False)) is not None:
        yield gap
    elif doubtful:
        first = doubtful[0]
        reason = f"{first.path}:{first.line}: {first.message}"
        yield Obligation(rule=RULE.id, status="undetermined", reason=reason)
    elif absent := _not_submitted(ctx):
        yield Obligation(rule=RULE.id, status="undetermined", reason=f"what is scored comes from `{absent}`, which is not among the submitted files")
    elif part := part_of_the_model(code, layers):
        why = f"the model is made with {part[0]} from `{part[1]}`, which is not among the submitted files"
        yield Obligation(rule=RULE.id, status="undetermined", reason=why)
    else:
        rounded = [f for f in found if f.active == "yes" and f.message == ROUNDED]
        but = f", but for the rounding in line {rounded[0].line}" if rounded else ""
        yield holds(RULE, f"no statistic, filter or attention was found that reaches over the whole window{but}")


def _not_submitted(ctx: Context) -> str | None:
    """The absent module that a score's predictions were made with."""
    scores = ctx.trace.of("SCORE", active=True) if ctx.trace is not None else ()
    return next((k[1] for s in scores if s.on_val for k in sorted(s.detail.get("keys", ()), key=str) if k[0] == FOREIGN and is_absent(ctx, k[1])), None)


def _surest(found: Iterable[Finding]) -> list[Finding]:
    """One finding in doubt per line, and none where the same line is accused."""
    found = list(found)
    best: dict[tuple[str, int, str], Finding] = {}
    for f in sorted(found, key=lambda f: f.confidence == "low"):
        best.setdefault((f.path, f.line, f.active), f)
    return [f for f in found if f.confidence != "low" or best[f.path, f.line, f.active] is f]


def _read(code: Code, along: Sequences, layers: Layers) -> Iterator[Finding]:
    """What is seen where the axes are followed through every method."""
    seen: dict[int, Seen] = {}
    for p in code.places:
        for s in readings(code, along, layers, p):
            if id(s.node) not in seen or not s.lacks:
                seen[id(s.node)] = s
    routing = Routing(layers)
    for place, cut, doubt in routing.cuts():
        seen.setdefault(id(cut), Seen(place, cut, SHARES, BRANCH if doubt else ""))
    for place, share in Densities(layers).weigh():
        doubt_or_shut = routing.doubtful(place, share)
        if doubt_or_shut is not None:
            seen.setdefault(id(share), Seen(place, share, SHARE, BRANCH if doubt_or_shut else ""))
    hidden = hides_at_random(code) if seen else False
    for s in seen.values():
        message = s.message
        if message == ROUNDED and (s.lacks or hidden):
            continue  # what only training may do
        if hidden:
            message += "; a random part of the input is hidden, and that no hidden token is seen was not shown"
        elif s.lacks:
            message += f"; {s.lacks} was not shown"
        sure = not s.lacks and not hidden
        made = finding(RULE, code, s.place, s.node, message, confidence="high" if sure else "low")
        made = replace(made, severity="warning") if message == ROUNDED else made
        yield made if s.place.owner is None else _built(code, s.place.owner.name, made)


def _built(code: Code, layer: str, found: Finding) -> Finding:
    """The finding, inactive where the configuration builds no such layer."""
    trace = code.ctx.trace
    left_out = trace is not None and trace.leaves_out(layer)
    return replace(found, active="no", gate=f"{layer} is not built") if left_out else found


#: of a class: its methods by name, and what its instances' attributes are known to be
_Class = tuple[dict[str, Place], dict[str, Any]]


def _classes(code: Code, layers: Layers) -> dict[int, _Class]:
    found: dict[int, _Class] = {}
    for p in code.places:
        if p.function is not None and p.owner is not None:
            if id(p.owner) not in found:
                found[id(p.owner)] = {}, layers.settings(p)
            found[id(p.owner)][0][p.function.name] = p
    return found


def _place(
    code: Code, along: Sequences, place: Place, classes: dict[int, _Class], layers: Layers, whole: bool
) -> Iterator[Finding]:
    """``whole``: something in the program may sum up a window."""
    settings = classes[id(place.owner)][1] if place.owner is not None and place.function is not None else {}
    shut = set(closed_by(place.function.body, settings)) if settings and place.function is not None else set()
    direct = list(_direct(code, along, place, shut, layers))
    yield from direct
    if direct or place.owner is None or not whole:
        return
    methods, _ = classes[id(place.owner)]
    if along.touches(place) or any(along.touches(m) for m in methods.values()):
        for node in Window(along, place, *classes[id(place.owner)], layers=layers).put_back():
            message = "what is computed over many positions of the window comes back on each of them"
            yield finding(RULE, code, place, node, message)


def _constant(node: Any) -> tuple[bool, Any]:
    return isinstance(node, ir.Const), getattr(node, "value", None)


def _direct(code: Code, along: Sequences, place: Place, shut: set[int], layers: Layers) -> Iterator[Finding]:
    # A result that is sliced right away is a causal filter whose overhang is cut off.
    cut = {id(n.value) for n in place.nodes(ir.Sub)}
    open_, rounded = _under_parameters(place), layers.rounding(place).sides
    kinds = (ir.Call, ir.BinOp, ir.AugAssign) if along.touches(place) else (ir.Call,)
    for node in place.nodes(*kinds):
        if id(node) in shut:
            continue
        if isinstance(node, ir.Call):
            name = code.dotted(place, node.func)
            last = name.rpartition(".")[2] or (node.func.attr if isinstance(node.func, ir.Attr) else "")
            if last == "scaled_dot_product_attention" and place.owner is not None and unmasked(node, _constant, lambda _: False):
                made = _attention(code, place, node)
                if made.confidence == "low" and writes_only(code, place):
                    continue
                if id(node) in open_ and made.confidence == "high":
                    why = f"{made.message}, where {open_[id(node)]} says so; that any call does was not shown"
                    made = replace(made, confidence="low", message=why)
                yield made
            elif last in ("GRU", "LSTM", "RNN") and _keyword(node, "bidirectional", True):
                yield finding(RULE, code, place, node, f"the {last} also runs from the window's end")
            elif (
                last in _POOLS
                and id(node) not in cut
                and node.args
                and _time_last(along, place, node.args[0])
            ) and _padded(node, last):
                yield finding(
                    RULE,
                    code,
                    place,
                    node,
                    "the filter is padded on both sides: it reaches later positions",
                )
        elif isinstance(node, ir.BinOp) and node.op in "+-*/":
            for part, other in () if id(node) in rounded else ((node.left, node.right), (node.right, node.left)):
                whole = _whole_window(along, place, part)
                cancels = node.op == "-" and part is node.right and is_level(place, part)
                if whole and along.along(place, other) and not cancels:
                    yield finding(
                        RULE, code, place, node, f"{whole} is put back on every position of the window"
                    )
                    break
        elif isinstance(node, ir.AugAssign):
            whole = _whole_window(along, place, node.value)
            if whole and along.along(place, node.target):
                yield finding(RULE, code, place, node, f"{whole} is put back on every position of the window")


def _under_parameters(place: Place) -> dict[int, str]:
    """Nodes under a test of one of the method's own parameters, by id: what a caller decides."""
    names = {p.name for p in place.function.params[1:]} if place.function is not None else set()
    found: dict[int, str] = {}
    for node in place.nodes(ir.If, ir.IfExp):
        asked = node.test.operand if isinstance(node.test, ir.UnaryOp) and node.test.op == "not" else node.test
        if isinstance(asked, ir.Name) and asked.id in names:
            ways = (*node.body, *node.orelse) if isinstance(node, ir.If) else (node.body, node.orelse)
            found.update((id(n), asked.id) for way in ways for n in ir.walk(way))
    return found


def _attention(code: Code, place: Place, node: ir.Call) -> Finding:
    """Self-attention without a mask sees later positions; attention to something else may not (earlier keys that
    were kept, the pieces of one token, a memory), nor does it say anything where the input itself is masked."""
    own = [made_of(place, a) for a in node.args[:3]]
    if len(own) < 3 or len(own[0]) != 1 or any(o != own[0] for o in own):
        why = "attention without a mask to something else than its own input; that it holds no later position was not shown"
        return finding(RULE, code, place, node, why, confidence="low")
    if hides_at_random(code):
        why = "attention without a mask over inputs of which a random part is hidden; that no hidden token is seen was not shown"
        return finding(RULE, code, place, node, why, confidence="low")
    return finding(RULE, code, place, node, "attention has no causal mask: every position sees the whole window")


def _keyword(call: ir.Call, name: str, value: Any) -> bool:
    return any(k == name and isinstance(v, ir.Const) and v.value is value for k, v in call.keywords)


def _time_last(along: Sequences, place: Place, node: Any) -> bool:
    """Activations turned to (B, C, T), as filters want them, without padding of their own."""
    if isinstance(node, ir.Attr) and node.attr in ("mT", "T"):
        return along.along(place, node.value)
    if (
        isinstance(node, ir.Call)
        and isinstance(node.func, ir.Attr)
        and node.func.attr in ("transpose", "permute")
    ):
        return along.along(place, node.func.value)
    return False


def _padded(call: ir.Call, name: str) -> bool:
    by = argument(call.args, 4 if name == "conv1d" else 3, call.keywords, "padding")
    return isinstance(by, ir.Const) and by.value not in (0, None, "valid")


def _whole_window(along: Sequences, place: Place, node: Any) -> str:
    """What the expression says about the whole window, "" if nothing."""
    while isinstance(node, ir.BinOp) and node.op in "*/":
        left, right = node.left, node.right
        node = right if isinstance(left, ir.Const) or not _mentions(along, place, left) else left
    if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.attr in STATISTICS | {"norm"}:
        base = node.func.value
        if number(argument(node.args, 0, node.keywords, "dim", "axis")) == 1 and along.along(place, base):
            return f"the {node.func.attr} over all positions"
    if isinstance(node, ir.Sub) and along.along(place, node.value) and _last_position(node.index):
        return "the state at the window's last position"
    return ""


def _mentions(along: Sequences, place: Place, node: Any) -> bool:
    return any(isinstance(n, ir.Name) and along.along(place, n) for n in ir.walk(node))


def _last_position(index: Any) -> bool:
    """``x[:, -1:]`` or ``x[:, -1, None]``."""
    if not isinstance(index, ir.Collection) or len(index.elts) < 2:
        return False
    first, time = index.elts[0], index.elts[1]
    if not (isinstance(first, ir.Slice) and first.lower is None and first.upper is None):
        return False
    if isinstance(time, ir.Slice):
        return time.upper is None and number(time.lower) == -1
    return number(time) == -1 and len(index.elts) > 2
    # a bare ``x[:, -1]`` is (B, C), which draws a token
