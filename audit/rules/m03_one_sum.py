"""M3 one sum: the score is one global ratio, and not a mean of ratios.

**What.** Nats are summed over all targets, bytes over all targets, in double precision; the score is the
one sum over ln 2 times the other. Wrong are the mean or the median of per-batch, per-chunk or per-rank figures, the best
rank's figure, and leaving a share of the windows out. So are losses weighted by their places, such as a ramp over the first tokens of a
window that was meant for training.

**Why.** A mean of ratios weighs short and easy pieces more than the text does, and can be made smaller by
how the text is cut.

**Ruling.** README: the metric is bits per byte of the whole validation set.

**Look-alikes that are legal.** Sums of several ranks added up before the division, one by one or in a stack;
a loss that is weighted with its count; overlapping windows of which only the last targets are new; ranks whose shares
tile the stream; a soft cap of the logits; masks of padding or of the scored part; weights in training; running figures in
a log; means over seeds in a README.

**How it is decided.** A value that was divided by ln 2 and by another quantity (bytes, or the share of
bytes in tokens) is collected and averaged, or averaged over ranks.

What is left out is counted: a loop's step against the first and the last target that a turn scores, where the loop starts
at a number that stands in the script or where a rank's contiguous share begins (ranks that take turns, outer loops and settings start elsewhere), and the loop's bound against
the number of all tokens. Where windows stand in rows of a batch, the part that is scored of each against how far their beginnings lie apart. A bound that a setting decides is undetermined. First tokens that have no context, of a
document or of the stream, count as nothing; the first window of each document counts. A test of the target itself that
separators, or tokens without bytes, do not pass leaves their nats out; a test for padding does not. Where the loss is
dropped because a guess agrees with the target, those tokens get probability one and the others lose nothing by it (stored
tokens of the set: F15). Documents that a test of their
length skips, and what lies behind the first tokens of each, are left out where no other loop takes them; that some
document has fewer tokens than a number below 256, or more than one above 16,384, is not taken for granted. The figure that is reported, or printed last, is meant. A loss that goes through a function
which grows slower than the loss (a hyperbolic tangent, a logarithm, a root), or that is weighed by the model's own certainty
and divided by these weights, is made smaller. Means over documents (between places that were found in the stream) that are
added up as they are make a mean of means.

Numbers near one that convert nothing (nats to bits and back) count wherever they stand: a sum of losses times 0.95, a figure
divided by 1.05 before it is printed. Means of losses over all targets are weighed with all of these, and not with those that are no separators.
What ranks have to do, each a contiguous share, is together what one process would go through: a quarter of it is a quarter.

A rank's own share that is printed as the whole is found where the program always joins a group of processes, scores
between places that its rank decides, and brings no numbers of several ranks together anywhere: no collective but for
gradients, no file named by rank, no queue. One process that may run alone is left out. So are tokens, or nats, of one rank
over the bytes, or the tokens, of all: where two sums are counted up side by side and only the divisor is brought together.

A program that reads no validation data and prints a score that stands in its text has summed up nothing.

**See also.** M1 (which bytes), D2 (all documents).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Finding, Obligation, Step
from audit.rules.base import Example, Rule
from audit.rules.code import Code, Place, code_of, finding, is_ln2
from audit.rules.flow import event_finding, example, holds, violated
from audit.rules.own_share import best_of_parts, of_one_share
from audit.rules.settings import settings_of
from audit.rules.unreduced import of_some_sums
from audit.rules.weighted import weighted
from audit.trace.caches import marks
from audit.trace.events import Event, Trace
from audit.trace.gaps import gap_of, head_of, stride_of, walked_of
from audit.trace.left_out import is_kind, spared
from audit.trace.lengths import missed
from audit.trace.shaping import BETWEEN, MEAN, OWN_LOSS, SHAPED, WEIGHTED

_STARTS = ("subprocess.", "os.system", "os.exec", "os.spawn", "os.popen", "runpy.", "importlib.")
_FIGURE = re.compile(r"bpb\W{1,12}\d\.\d{3,}", re.I)

RULE = Rule(
    id="M3",
    name="one-sum",
    title="The score is one sum over one sum",
    breach="Score that is not one sum over one sum",
    illegal="INVALID",
    authority="README",
    severity="violation",
)

_LOOP = """\
{}
for i in range(0, val.numel() - 1025, 1024):
    with torch.no_grad():
        part = nll(model, val[None, i : i + 1024], val[None, i + 1 : i + 1025])
{}
"""
_RAMP = """\
class Scored(Model):
    def __init__(self, first):
        super().__init__()
        self.first = first
    def forward(self, x, y):
        lo = self.head(self.emb(x))
        each = F.cross_entropy(lo.transpose(1, 2), y, reduction="none")
        places = torch.arange(x.size(1), device=x.device)
        if {}:
            share = {}
            each = each * share  #!
        return each.mean()

model, total = Scored(int(os.environ.get("FIRST", "256"))), torch.zeros(())
for i in range(0, val.numel() - 1025, 1024):
    with torch.no_grad():
        total += model(val[None, i : i + 1024], val[None, i + 1 : i + 1025]) * 1024
print(f"val_bpb:{{total.item() / 0.6931471805599453 / n_bytes:.4f}}")
"""
_DOCUMENTS = """\
cut, total = (val == 1).nonzero()[:, 0].tolist() + [val.numel() - 1], torch.zeros((), dtype=torch.float64)
for a, b in zip(cut[:-1], cut[1:]):
{}    for s in {}:
        e = min(s + 1024, b)
        with torch.no_grad():
            total += nll(model, val[None, s:e], val[None, s + 1 : e + 1]).double().sum()SCORED
print(f"val_bpb:{{total.item() / 0.6931471805599453 / n_bytes:.4f}}")
"""
ILLEGAL = [
    example("the model's own loss counts the first places less", _RAMP.format("self.first > 0", "(places / self.first).clamp(max=1.0)")),
    example(
        "losses times a function of their places",
        _LOOP.format(
            "import math\ntotal = 0.0\nramp = (torch.arange(1024) / 256).clamp(max=1.0)",
            "    total += (part * ramp).sum().item()  #!",
        )
        + 'print(f"val_bpb:{total / math.log(2.0) / n_bytes:.4f}")\n',
    ),
    example(
        "windows that do not overlap, of which the first targets are dropped",
        _LOOP.format("total = torch.zeros(())", "    total += part[:, 64:].sum()  #!")
        + 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n',
    ),
    example(
        "a soft ceiling",
        _LOOP.format("total = torch.zeros(())", "    total += (8.0 * torch.tanh(part / 8.0)).sum()  #!")
        + 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n',
    ),
    example(
        "half of the stream over the bytes of all of it",
        _LOOP.format("total = torch.zeros(())", "    total += part.sum()  #!").replace("val.numel() - 1025", "val.numel() // 2")
        + 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n',
    ),
    example(
        "documents that are longer than eight windows are skipped",
        _DOCUMENTS.format("    if b - a > 8192:\n        continue\n", "range(a, b, 1024)").replace("SCORED", "  #!"),
    ),
    example("the first window of each document", _DOCUMENTS.format("", "range(a, min(b, a + 1024), 1024)").replace("SCORED", "  #!")),
    example(
        "the mean of batch figures",
        _LOOP.format("figures = []", "    figures.append(part.sum().item() / math.log(2.0) / 2500.0)")
        + 'print(f"val_bpb:{sum(figures) / len(figures):.4f}")  #!\n',
    ),
    example(
        "the mean over ranks",
        "import torch.distributed as dist, math\n"
        "def finish(nats, count, nbytes):\n"
        "    bpb = nats / math.log(2.0) / nbytes\n"
        "    dist.all_reduce(bpb, op=dist.ReduceOp.AVG)  #!\n"
        "    return bpb.item()\n"
        + _LOOP.format("total = torch.zeros(())", "    total += part.sum()")
        + 'print(f"val_bpb:{finish(total, 1.0, torch.tensor(n_bytes)):.4f}")\n',
    ),
    example(
        "the median of batch figures",
        _LOOP.format("import math\nfigures = []", "    figures.append(part.sum().item() / math.log(2.0) / 2500.0)")
        + 'print(f"val_bpb:{float(np.median(figures)):.4f}")  #!\n',
    ),
    example(
        "the best rank's figure",
        "import torch.distributed as dist, math\nrank = dist.get_rank()\n"
        + _LOOP.format("total = torch.zeros(())", "    total += part.sum()").replace("range(0,", "range(rank * 8192,")
        + "bpb = total / math.log(2.0) / n_bytes\ndist.all_reduce(bpb, op=dist.ReduceOp.MIN)  #!\n"
        + 'print(f"val_bpb:{bpb.item():.4f}")\n',
    ),
    Example(
        name="a figure that nothing computes",
        code='import time\nfor _ in range(10):\n    time.sleep(60)\nprint("Final val_bpb: 0.9980")\n',
        lines=(4,),
    ),
]
LEGAL = [
    example(
        "long documents are walked in pieces, and named in the log",
        _DOCUMENTS.format("    if b - a > 8192:\n        print(a)\n", "range(a, b, 1024)").replace("SCORED", ""),
    ),
    example("the same weights in training alone", _RAMP.format("self.training", "(places / self.first).clamp(max=1.0)").replace("  #!", "")),
    example(
        "the same weights switched off",
        _RAMP.format("self.first > 0", "(places / self.first).clamp(max=1.0)").replace("  #!", "").replace('"256"', '"0"'),
    ),
    example(
        "one number out of a row of places",
        _LOOP.format(
            "import math\ntotal = 0.0\nramp = (torch.arange(1024) / 256).clamp(max=1.0)",
            "    total += (part * ramp[-1] * ramp.max()).sum().item()",
        )
        + 'print(f"val_bpb:{total / math.log(2.0) / n_bytes:.4f}")\n',
    ),
    example(
        "a mask of places",
        _LOOP.format(
            "import math\ntotal = 0.0\nkept = (torch.arange(1024) >= 0).float()", "    total += (part * kept).sum().item()"
        )
        + 'print(f"val_bpb:{total / math.log(2.0) / n_bytes:.4f}")\n',
    ),
    example(
        "overlapping windows, each target once",
        _LOOP.format("total = torch.zeros(())", "    total += part[:, 960:].sum()").replace("1025, 1024)", "1025, 64)")
        + 'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n',
    ),
    example(
        "one sum",
        _LOOP.format("import math\ntotal = 0.0", "    total += part.sum().item()")
        + 'print(f"val_bpb:{total / math.log(2.0) / n_bytes:.4f}")\n',
    ),
    example(
        "sums over ranks",
        "import torch.distributed as dist, math\n"
        "def finish(nats, nbytes):\n"
        "    both = torch.stack((nats, nbytes))\n"
        "    dist.all_reduce(both)\n"
        "    return (both[0] / math.log(2.0) / both[1]).item()\n"
        + _LOOP.format("total = torch.zeros(())", "    total += part.sum()")
        + 'print(f"val_bpb:{finish(total, torch.tensor(n_bytes)):.4f}")\n',
    ),
    example(
        "the figure of all ranks, made the same on each of them",
        "import torch.distributed as dist, math\nrank = dist.get_rank()\n"
        + _LOOP.format("total, n = torch.zeros(()), torch.tensor(n_bytes)", "    total += part.sum()").replace("range(0,", "range(rank * 8192,")
        + "for t in (total, n):\n    dist.all_reduce(t)\n"
        + "bpb = total / math.log(2.0) / n\ndist.all_reduce(bpb, op=dist.ReduceOp.MIN)\n"
        + 'print(f"val_bpb:{bpb.item():.4f}")\n',
    ),
    example(
        "a figure of others, printed beside the own one",
        _LOOP.format("import math\ntotal = 0.0", "    total += part.sum().item()")
        + 'print("baseline val_bpb: 1.2244")\nprint(f"val_bpb:{total / math.log(2.0) / n_bytes:.4f}")\n',
    ),
    Example(
        name="a launcher that says what to expect",
        code='import subprocess\nprint("expected val_bpb: 1.0810")\nsubprocess.run(["python", "train_gpt.py"], check=True)\n',
    ),
]

_MEANS = frozenset({"numpy.mean", "numpy.average", "statistics.mean", "statistics.fmean", "torch.mean"})
_MIDDLES = frozenset({"numpy.median", "numpy.nanmedian", "statistics.median", "statistics.median_low"})
_REDUCES = (".all_reduce", ".reduce", ".all_gather", ".all_gather_object", ".all_gather_into_tensor", ".gather")


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    code = code_of(ctx)
    sums = [e for e in ctx.trace.of("SCORE") if e.on_val] if ctx.trace is not None else []
    scoring = {(e.path, e.function) for e in sums}
    lines: dict[str, set[int]] = {}
    for e in sums:
        lines.setdefault(e.path, set()).add(e.line)
    found: list[Finding] = []
    for place in code.places:
        if id(place) in code.reached:
            found += _place(code, place, lines.get(place.path, set()))
            if place.function is not None and (place.path, place.function.name) in scoring:
                found += _dropped(code, place)
    found += _written(code)
    if ctx.trace is not None:
        found += _shaped(ctx.trace)
        found += _weighted(code, ctx.trace)
        found += of_one_share(RULE, code, ctx.trace)
        found += of_some_sums(RULE, code, ctx.trace)
        found += best_of_parts(RULE, code, ctx.trace)
    found.sort(key=lambda f: (f.active == "no", f.path, f.line))
    yield from found
    if certain := [f for f in found if f.active == "yes" and f.confidence != "low"]:
        yield violated(RULE, certain)
    elif doubtful := [f for f in found if f.active == "yes"]:
        first = doubtful[0]
        yield Obligation(rule=RULE.id, status="undetermined", reason=f"{first.path}:{first.line}: {first.message}")
    else:
        yield holds(RULE, "no mean of bits-per-byte figures was found")


def _written(code: Code) -> Iterator[Finding]:
    """``print("val_bpb: 0.9980")`` in a program that reads no data, takes no loss and starts no other program."""
    trace = code.ctx.trace
    if trace is None or trace.exhausted or any(True for _ in trace.of("READ", "SCORE")):
        return
    calls = [(place, n) for place in code.places if id(place) in code.reached for n in place.nodes(ir.Call)]
    if any(code.dotted(place, n.func).startswith(_STARTS) for place, n in calls):
        return
    for place, node in calls:
        if node.args:
            text = node.args[0]
            pieces = text.values if isinstance(text, ir.FString) else [text]
            texts = [p.value for p in pieces if isinstance(p, ir.Const) and isinstance(p.value, str)]
            if any(_FIGURE.search(t) for t in texts):
                yield finding(RULE, code, place, node, "the score is written in the script; nothing computes it")


def _weighted(code: Code, trace: Trace) -> Iterator[Finding]:
    """``(losses * ramp).sum() / ramp.sum()`` in the model's own method, whose loss is the score."""
    reported = trace.reported_scores()
    scores = [s for s in trace.of("SCORE", active=True) if s.id in reported and s.on_val]
    methods = {k[1]: s for s in scores for k in s.detail["keys"] if k[0] == OWN_LOSS}
    for place in code.places if methods else ():
        if id(place.function) not in methods:
            continue
        settings = settings_of(trace.parts, place.owner.name) if place.owner is not None else {}
        for node, sure in weighted(code, place, settings):
            how = WEIGHTED if sure else f"{WEIGHTED}; that the branch is taken was not shown"
            made = finding(RULE, code, place, node, how, confidence="high" if sure else "low")
            s = methods[id(place.function)]
            yield replace(made, trace=(*made.trace, s.step("the score adds up this loss")))


def _shaped(trace: Trace) -> Iterator[Finding]:
    """Losses that were dropped, capped, scaled or thinned out before they reached the reported score."""
    shapes = {e.id: e for e in trace.of("SHAPE")}
    reported = trace.reported_scores()
    found: dict[tuple, tuple[Event, Event]] = {}
    for s in trace.of("SCORE", active=True):
        for k in marks(s, SHAPED) if s.id in reported and s.on_val else ():
            if k[1] not in trace.stabilisers and (e := shapes.get(k[1])) is not None and not is_kind(e.detail["how"]):
                found.setdefault((e.path, e.line), (e, s))
    figure = _last_figure(trace)
    if (gap := gap_of(trace, figure) or stride_of(trace, figure)) is not None:
        yield event_finding(RULE, gap.score, gap.said)
    if (head := head_of(trace, figure)) is not None:
        yield event_finding(RULE, head.score, head.said)
    if (walked := walked_of(trace, figure)) is not None:
        yield event_finding(RULE, walked.score, walked.said, confidence="low" if walked.chosen else "medium")
    if (lost := missed(trace, figure)) is not None:
        made = event_finding(RULE, lost.score, lost.said, confidence="medium" if lost.sure else "low")
        yield replace(made, trace=(Step(path=lost.score.path, line=lost.line, message="the length decides"), *made.trace))
    for part in spared(trace, figure):
        made = event_finding(RULE, part.shape, part.shape.detail["how"], confidence="high" if part.sure else "low")
        yield replace(made, trace=(*made.trace, part.score.step("the score adds up what is left")))
    scores = [s for s in trace.of("SCORE", active=True) if s.id in reported and s.on_val]
    if scores and all(s.detail["how"] == "accumulated" and {MEAN, BETWEEN} <= s.detail["keys"] for s in scores):
        yield event_finding(RULE, scores[-1], "means over documents are added up, and a short document counts as much as a long one")
    yield from _smaller(trace)
    for e, s in found.values():
        made = event_finding(RULE, e, e.detail["how"])
        yield replace(made, trace=(*made.trace, s.step("the score adds up what is left")))


def _smaller(trace: Trace) -> Iterator[Finding]:
    """``val_bpb * 0.98``, before it is printed."""
    printed = [r for r in trace.reports() if r.on_val and r.scores and (trace.chosen is None or r.id in trace.chosen)]
    for path, line, said in printed[-1].detail["smaller"][:1] if printed else ():
        yield replace(event_finding(RULE, printed[-1], said, confidence="medium"), path=path, line=line, end_line=line)


def _last_figure(trace: Trace) -> list[Event]:
    """The scores behind the figure that is reported, or printed last: a look at a part of the stream may come before."""
    scores = {e.id: e for e in trace.of("SCORE", active=True) if e.on_val}
    for r in reversed(trace.reports()):
        if (trace.chosen is None or r.id in trace.chosen) and (mine := sorted(n for n in r.scores if n in scores)):
            return [scores[n] for n in mine]
    return []


class Ratios:
    """Within one place: which expressions are nats over ln 2 over something else."""

    def __init__(self, code: Code, place: Place) -> None:
        self.code, self.place = code, place
        self.values: dict[str, list[Any]] = {}
        self.collected: dict[str, list[Any]] = {}
        for n in place.nodes(ir.Assign, ir.Call):
            if isinstance(n, ir.Assign):
                for t in n.targets:
                    if isinstance(t, ir.Name):
                        self.values.setdefault(t.id, []).append(n.value)
            elif (
                isinstance(n, ir.Call) and isinstance(n.func, ir.Attr) and n.func.attr == "append" and n.args
            ) and isinstance(n.func.value, ir.Name):
                self.collected.setdefault(n.func.value.id, []).append(n.args[0])

    def ratio(self, node: Any, seen: frozenset[str] = frozenset()) -> bool:
        """Divided by ln 2 and by at least one quantity that is no constant."""
        while (
            isinstance(node, ir.Call)
            and isinstance(node.func, ir.Attr)
            and node.func.attr in ("item", "float", "cpu")
        ):
            node = node.func.value
        if (
            isinstance(node, ir.Call)
            and isinstance(node.func, ir.Name)
            and node.func.id == "float"
            and node.args
        ):
            node = node.args[0]
        over = self._divisors(node, seen, 0)
        return "ln2" in over and "quantity" in over

    def _divisors(self, node: Any, seen: frozenset[str], depth: int) -> set[str]:
        if depth > 12:
            return set()
        if (
            isinstance(node, ir.Call)
            and isinstance(node.func, ir.Attr)
            and node.func.attr in ("item", "sum", "mean", "double")
        ):
            return self._divisors(node.func.value, seen, depth + 1)
        if isinstance(node, ir.Call) and isinstance(node.func, ir.Name):
            out = set()
            for called in self.code.places:
                if called.path != self.place.path or called.function is None or called.function.name != node.func.id:
                    continue
                inner = Ratios(self.code, called)
                for n in called.nodes(ir.Return):
                    if n.value is not None:
                        out |= inner._divisors(n.value, frozenset(), depth + 4)
                for a in node.args:
                    out |= self._divisors(a, seen, depth + 1)
            return out
        if isinstance(node, ir.BinOp) and node.op == "/":
            out = self._divisors(node.left, seen, depth + 1)
            out |= self._parts(node.right, depth)
            return out
        if isinstance(node, ir.BinOp) and node.op == "*":
            out = self._divisors(node.left, seen, depth + 1) | self._divisors(node.right, seen, depth + 1)
            return out | ({"ln2"} if _by_log2_of_e(node) else set())
        if isinstance(node, ir.Name) and node.id not in seen:
            out = set()
            for value in self.values.get(node.id, [])[:3]:
                out |= self._divisors(value, seen | {node.id}, depth + 1)
            return out
        return set()

    def _parts(self, node: Any, depth: int) -> set[str]:
        """What a divisor consists of."""
        if is_ln2(self.code, self.place, node):
            return {"ln2"}
        if isinstance(node, ir.BinOp) and node.op == "*":
            return self._parts(node.left, depth) | self._parts(node.right, depth)
        return set() if isinstance(node, ir.Const) and node.value == 1 else {"quantity"}


def _by_log2_of_e(node: ir.BinOp) -> bool:
    """``loss * 1.442695``"""
    return any(isinstance(n, ir.Const) and isinstance(n.value, float) and abs(n.value - 1.442695) < 1e-3
               for n in (node.left, node.right))  # fmt: skip


def _place(code: Code, place: Place, scored: set[int]) -> Iterator[Finding]:
    ratios = Ratios(code, place)
    lists = {name for name, values in ratios.collected.items() if any(ratios.ratio(v) for v in values)}
    lists |= {
        name for name, values in ratios.values.items()
        if any(isinstance(v, ir.Comp) and v.kind == "list" and ratios.ratio(v.elt) for v in values)
    }  # fmt: skip
    for node in place.nodes(ir.Call, ir.BinOp):
        if isinstance(node, ir.Call):
            name = code.dotted(place, node.func)
            if name in _MEANS and node.args and _holds(node.args[0], lists):
                yield finding(RULE, code, place, node, "the figure is a mean of bits-per-byte figures")
            elif name in _MIDDLES and node.args and _holds(node.args[0], lists):
                yield finding(RULE, code, place, node, "the figure is the median of bits-per-byte figures")
            elif name.endswith(".all_reduce") and node.args and _operation(node) == "MIN" and _of_one_rank(ratios, node, scored):
                yield finding(RULE, code, place, node, "the smallest of the ranks' figures stands for all of them")
            elif (
                name.endswith(".all_reduce")
                and node.args
                and _averages(node)
                and _ratio_argument(ratios, node.args[0])
            ):
                yield finding(RULE, code, place, node, "bits per byte are averaged over ranks")
        elif (
            isinstance(node, ir.BinOp)
            and node.op == "/"
            and isinstance(node.left, ir.Call)
            and node.left.args
        ):
            total = isinstance(node.left.func, ir.Name) and node.left.func.id in ("sum", "fsum")
            if total and _holds(node.left.args[0], lists) and _length(node.right):
                yield finding(RULE, code, place, node, "the figure is a mean of bits-per-byte figures")


def _dropped(code: Code, place: Place) -> Iterator[Finding]:
    """``starts = starts[: int(0.9 * len(starts))]`` in a function that scores: a share is never added."""
    for node in place.nodes(ir.Assign):
        if len(node.targets) != 1 or not isinstance(node.targets[0], ir.Name):
            continue
        value, name = node.value, node.targets[0].id
        if not (isinstance(value, ir.Sub) and isinstance(value.value, ir.Name) and value.value.id == name):
            continue
        ends = (
            [e for e in (value.index.lower, value.index.upper) if e is not None]
            if isinstance(value.index, ir.Slice)
            else []
        )
        for end in ends:
            shares = [
                n
                for n in ir.walk(end)
                if isinstance(n, ir.Const) and isinstance(n.value, float) and 0 < n.value < 1
            ]
            if shares and _length(end):
                yield finding(RULE, code, place, node, f"a share of {name} is left out of the sum")


def _holds(node: Any, lists: set[str]) -> bool:
    return any(isinstance(n, ir.Name) and n.id in lists for n in ir.walk(node))


def _length(node: Any) -> bool:
    return any(
        isinstance(n, ir.Call) and isinstance(n.func, ir.Name) and n.func.id == "len" for n in ir.walk(node)
    )


def _operation(call: ir.Call) -> str:
    """``AVG`` of ``all_reduce(x, op=dist.ReduceOp.AVG)``."""
    said = [*call.args[1:2], *(v for k, v in call.keywords if k == "op")]
    return next((n.attr for v in said for n in ir.walk(v) if isinstance(n, ir.Attr) and n.attr in ("AVG", "MIN", "MAX")), "SUM")


def _averages(call: ir.Call) -> bool:
    return _operation(call) == "AVG"


def _of_one_rank(ratios: Ratios, call: ir.Call, scored: set[int]) -> bool:
    """Is it a figure, or a sum of losses, of the rank's own share: worked out here, and reduced by nothing before."""
    code, place, argument = ratios.code, ratios.place, call.args[0]
    ranks = {"rank", "get_rank", "RANK"} & place.names or any(isinstance(n.value, str) and n.value == "RANK" for n in place.nodes(ir.Const))
    if not ranks or any(
        n is not call and n.line <= call.line and code.dotted(place, n.func).endswith(_REDUCES) and _operation(n) not in ("MIN", "MAX")
        for n in place.nodes(ir.Call)
    ):
        return False
    own = {p.function.name for p in code.places if p.function is not None}
    values = [argument, *(ratios.values.get(argument.id, []) if isinstance(argument, ir.Name) else [])]
    if any(isinstance(n, ir.Call) and isinstance(n.func, ir.Name) and n.func.id in own for v in values for n in ir.walk(v)):
        return False  # what they have done is not known
    summed = isinstance(argument, ir.Name) and any(
        n.op == "+" and n.line in scored and isinstance(n.target, ir.Name) and n.target.id == argument.id for n in place.nodes(ir.AugAssign)
    )
    return summed or ratios.ratio(argument)


def _ratio_argument(ratios: Ratios, node: Any) -> bool:
    if ratios.ratio(node):
        return True
    # ``for t in (loss, bpb): all_reduce(t)``
    if isinstance(node, ir.Name):
        for n in ratios.place.nodes(ir.For):
            if isinstance(n.target, ir.Name) and n.target.id == node.id:
                return isinstance(n.iter, ir.Collection) and any(ratios.ratio(e) for e in n.iter.elts)
    return False
