"""D2 full validation set: the score is over all 50,000 validation documents.

**What.** The bytes that the reported score was divided by, ``val_tokens x val_loss / (ln 2 x val_bpb)``,
must be those of the full set: 151.06 to 151.10 million. A set of 9,662,464 tokens is the first 10,000
documents, 49,999,872 is a set cut at 50 million tokens, and so on.

**Why.** Part of the set, or another set, is another contest. The score cannot be compared.

**Ruling.** README: "Validation always runs on the full fineweb_val_* split, which is the fixed
first-50k-document set." Preparation scripts with a default of 10,000 documents put many submissions
on a fifth of the set (#1854, #1883, #2039).

**How it is decided.** On intervals from the printed digits, only when the whole interval lies
outside, and only for evaluations whose printed score is the reported one. Trimming to whole
sequences is inside the limits. Where the token count is the full set's and the product is off by less
than two per cent, loss and score were averaged over slightly different tokens (a tail left out, chunks
weighted unequally): accepted records have that, and it is a warning. Off by more than half a per cent, and
no other reported line right, it is undetermined: a part of the set has other bytes per token than the whole.
``submission.json`` may say itself how many tokens the score is over; that counts where no log shows the full set.
Where the source keeps every reported evaluation to a known number of tokens and the log prints no count, bytes per
token that come near a known tokenizer's and differ from it say that it did (the beginning of the set has others); so do bytes per token
that are off by more than half a per cent where the log prints the count of the set that was loaded.
The same where the source cuts the stream to a number of tokens, or its documents or the list of its windows to some of them, that no setting changes, or
whose setting the log of the reported run prints (or the command that the papers give, where it is the script's default as well), and
the papers state a score.
Where no paper settles it and the source keeps every reported evaluation to a known number of tokens or turns, as
configured, it is undetermined: a part of the set was scored, unless the reported run had other settings. So are windows that a
test of their tokens picks.

**Look-alikes.** Other tokenizers (the identity does not depend on the tokenizer); smoke tests and
ablations on few tokens beside the reported run; totals that include a trimmed tail.

**See also.** M1 (the byte table), D1 (training documents in the validation set), M3.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.context import Context
from audit.evidence.identities import (
    FULL_BYTES,
    LEAST_TOKENS,
    Reading,
    Tokenizer,
    nearest_tokenizer,
    readings,
    right_elsewhere,
    tokenizer_of_count,
    tokenizer_of_ratio,
)
from audit.evidence.runs import Evidence, Run
from audit.model import Fact, Finding, Obligation, Step
from audit.rules.base import Example, Rule
from audit.rules.flow import PRELUDE
from audit.rules.papers import confidence_of, distinct, evidence, paper_finding
from audit.trace.coverage import Cut, cut_of

#: share by which loss and score of the whole set may miss each other
FAR = 0.005

RULE = Rule(
    id="D2",
    name="full-validation-set",
    title="The score is over the full validation set",
    breach="Score over a part of the validation set",
    illegal="INVALID",
    authority="README",
    severity="violation",
    needs=("log", "source"),
)

_SCRIPT = "print('see the log')\n"


def _log(tokens: int, loss: float, bpb: float) -> str:
    return (
        f"val_loader:shards pattern=./data/fineweb_val_*.bin tokens:{tokens}\nmodel_params:1000000\n"
        f"final_int6_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}\n"
    )


ILLEGAL = [
    Example(
        name="the first 10,000 documents",
        code=_SCRIPT,
        files=(
            ("train_seed1.log", _log(9_662_464, 2.35, 1.09366)),
            ("submission.json", '{"val_bpb": 1.0937}'),
        ),
        lines=(3,),
    ),
    Example(
        name="a set cut at fifty million tokens",
        code=_SCRIPT,
        files=(
            ("train_seed1.log", _log(49_999_872, 2.75, 1.002148)),
            ("submission.json", '{"val_bpb": 1.00215}'),
        ),
        lines=(3,),
    ),
    Example(
        name="the first million tokens, by the metadata alone",
        code=_SCRIPT,
        files=(("submission.json", '{"val_bpb": 1.1876,\n "validation": {"type": "slice", "eval_tokens": 1048576}}'),),
        lines=(2,),
    ),
    Example(
        name="the first half million tokens, by the script and by bytes per token",
        code=PRELUDE + 'val = val[:500_001]\nprint(f"val_bpb:{evaluate(model, val):.4f}")\n',
        files=(
            ("train_seed1.log", "final_int6_exact val_loss:2.0515 val_bpb:1.2350\n"),
            ("submission.json", '{"val_bpb": 1.2350}'),
        ),
        lines=(1,),
    ),
    Example(
        name="a number of tokens by the script, and bytes per token that no full set of the count in the log has",
        code=PRELUDE + 'val = val[: int(os.environ.get("VAL_TOKENS", "131072")) + 1]\nprint(f"val_bpb:{evaluate(model, val):.4f}")\n',
        files=(
            ("train_seed1.log", _log(62_021_632, 2.91930576, 1.75095611)),
            ("submission.json", '{"val_bpb": 1.75095611}'),
        ),
        lines=(3,),
    ),
    Example(
        name="a number of tokens that stands in the script",
        code=(code := PRELUDE + 'val = val[:500_001]\nprint(f"val_bpb:{evaluate(model, val):.4f}")\n'),
        files=(("submission.json", '{"val_bpb": 1.2350}'),),
        lines=(code.count("\n") - 1,),
    ),
]
_DOCUMENTS = (
    PRELUDE + "import random\n"
    "cut = (val == 1).nonzero()[:, 0].tolist() + [val.numel() - 1]\n"
    "docs, total = list(zip(cut[:-1], cut[1:])), torch.zeros(())\n"
    "@"
    "for a, b in docs:\n"
    "    with torch.no_grad():\n"
    "        total += nll(model, val[None, a:b], val[None, a + 1 : b + 1]).sum()\n"
    'print(f"val_bpb:{total.item() / 0.6931471805599453 / n_bytes:.4f}")\n'
)
_STATED = (("submission.json", '{"val_bpb": 1.2350}'),)
ILLEGAL += [
    Example(name=name, code=_DOCUMENTS.replace("@", line), files=_STATED, lines=(PRELUDE.count("\n") + 4,))
    for name, line in (
        ("the first 10,000 documents, by the script", "docs = docs[:10_000]\n"),
        ("a tenth of the documents at random", "docs = random.sample(docs, len(docs) // 10)\n"),
    )
]
LEGAL = [
    Example(name="the documents in another order", code=_DOCUMENTS.replace("@", "random.shuffle(docs)\n"), files=_STATED),
    Example(
        name="a number of tokens that stands in the script, where no score is stated",
        code=code,
        files=(("submission.json", '{"name": "a smoke test"}'),),
    ),
    Example(
        name="the full set, eight digits",
        code=_SCRIPT,
        files=(
            ("train_seed1.log", _log(62_021_632, 1.88, 1.11344758)),
            ("submission.json", '{"val_bpb": 1.1134}'),
        ),
    ),
    Example(
        name="the full set in the log of a run with another setting",
        code=PRELUDE + 'val = val[: int(os.environ.get("VAL_TOKENS", "131072")) + 1]\nprint(f"val_bpb:{evaluate(model, val):.4f}")\n',
        files=(
            ("train_seed1.log", _log(62_021_632, 1.88, 1.11344758)),
            ("submission.json", '{"val_bpb": 1.1134}'),
        ),
    ),
    Example(
        name="a smoke test beside the reported run",
        code=_SCRIPT,
        files=(
            ("smoke.log", _log(262_144, 3.0, 1.776778)),
            ("train_seed1.log", _log(62_021_632, 1.88, 1.11344758)),
            ("submission.json", '{"val_bpb": 1.1134}'),
        ),
    ),
]


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    yield from distinct(_check(ctx))


def _check(ctx: Context) -> Iterator[Finding | Obligation]:
    found = evidence(ctx)
    full, short, unknown, apart = [], False, "", None
    uneven: list[tuple[Run, Finding]] = []
    for reading in readings(found):
        place = reading.evaluation.bpb
        others = tuple(f for f in (reading.tokens, reading.evaluation.loss) if f is not None)
        if reading.kind == "subset":
            short = True
            yield paper_finding(
                RULE, place, reading.message, confidence=confidence_of(found, reading.run), steps=others
            )
        elif reading.kind == "unequal":
            apart = reading if reading.run.link and _far(reading) else apart
            uneven.append((reading.run, paper_finding(RULE, place, reading.message, severity="warning", steps=others)))
        elif reading.kind == "full":
            full.append(reading)
        else:
            unknown = unknown or reading.message
    if not full and not short:
        for fact in found.paper("stated_tokens"):
            if 0 < int(fact.value) < LEAST_TOKENS:
                message = f"the stated score is over {int(fact.value):,} tokens; the 50,000 documents have 36 million or more"
                yield paper_finding(RULE, fact, message)
    cut = _cut(ctx) if not full else None
    off = _off_the_table(found) if cut is not None and not short else None
    yield from (finding for run, finding in uneven if off is None or run is not off[0].run)
    if full:
        yield Obligation(rule=RULE.id, status="holds", reason=f"{full[0].run.path}: {full[0].message}")
    elif cut is not None and off is not None:
        reading, near = off
        message = (
            f"{cut.said}, and loss and score give {_mean(reading):.4f} bytes a token; the full set has {near.ratio} with {near.name}"
        )
        others = tuple(f for f in (reading.tokens, reading.evaluation.loss) if f is not None)
        yield paper_finding(RULE, reading.evaluation.bpb, message, confidence="medium", steps=others)
    elif (
        cut is not None and not short and cut.unit != "turns" and cut.sure
        and (stated := _of_this_script(ctx, found)) is not None and (why := _fixed(ctx, found, cut))
    ):  # fmt: skip
        message = f"{cut.said}, {why}, and the papers state a score"
        yield Finding(
            rule=RULE.id, name=RULE.name, severity="violation", authority=RULE.authority, confidence="medium",
            message=message, path=cut.path, line=cut.line, end_line=cut.line, basis="source",
            trace=(Step(path=stated.path, line=stated.line, message=f"the stated score: {stated.raw}"),),
        )  # fmt: skip
    elif cut is not None:
        yield Obligation(rule=RULE.id, status="undetermined", reason=f"{cut}, and no log shows the full set")
    elif apart is not None and not short:
        place = apart.evaluation.bpb
        yield Obligation(rule=RULE.id, status="undetermined", reason=f"{place.path}:{place.line}: {apart.message}")
    else:
        yield Obligation(
            rule=RULE.id, status="not-applicable",
            reason=unknown or "no log prints a validation token count with loss and score",
        )  # fmt: skip


def _off_the_table(found: Evidence) -> tuple[Reading, Tokenizer] | None:
    """A reported score whose bytes per token come near those of a known tokenizer's full set, and are others.

    A log that prints the full set's token count says what was loaded, not what was scored. There the figures have to be
    further off than means of different tokens put them, and no other line of the run may be right.
    """
    for reading in readings(found):
        if reading.run.link != "score" or reading.ratio is None:
            continue
        if reading.tokens is None:
            near = nearest_tokenizer(reading.ratio) if tokenizer_of_ratio(reading.ratio) is None else None
        else:
            uneven = reading.kind == "unequal" and _far(reading) and right_elsewhere(reading) is None
            near = tokenizer_of_count(int(reading.tokens.value)) if uneven else None
        if near is not None:
            return reading, near
    return None


def _of_this_script(ctx: Context, found: Evidence) -> Fact | None:
    """A score that is stated in the script's folder, or one above or below: elsewhere it may be that of another script."""
    own = ctx.primary.rpartition("/")[0]
    for fact in found.stated:
        folder = fact.path.rpartition("/")[0]
        if folder == own or (folder and own.startswith(folder + "/")) or (own and folder.startswith(own + "/")):
            return fact
    return None


def _fixed(ctx: Context, found: Evidence, cut: Cut) -> str:
    """Why the reported run had this limit; "" where it may have had another."""
    if any((v := ctx.knobs.lookup(name)) is not None and v.source != "log" and not _same(v.value, ctx.knobs.default(name)) for name in cut.under):
        return ""  # a command opens the branch: of another run, perhaps
    if not cut.settings and not cut.knobs:
        return "no setting changes that"
    values = [ctx.knobs.lookup(name) for name in cut.settings]
    printed = all(v is not None and v.source == "log" and not v.ambiguous for v in values)
    shown = any(run.link == "score" and all(run.knob(name) is not None for name in cut.settings) for run in found.behind)
    if cut.settings and printed and shown:
        return "the log of the reported run prints that setting"
    typed = all(v is not None and v.source == "command" and not v.ambiguous for v in values)
    usual = typed and all(_same(v.value, ctx.knobs.default(name)) for v, name in zip(values, cut.settings, strict=True))  # type: ignore[union-attr]
    return "the command in the papers sets that as the script does by default" if cut.settings and usual else ""


def _same(value: str, default: str | None) -> bool:
    try:
        return default is not None and float(value) == float(default)
    except ValueError:
        return False


def _far(reading: Reading) -> bool:
    """Are loss and score further apart than means over batches, or the odd tokens at a stream's end, can put them."""
    implied = reading.implied
    return implied is not None and (implied.below(FULL_BYTES.low * (1 - FAR)) or implied.low > FULL_BYTES.high * (1 + FAR))


def _mean(reading: Reading) -> float:
    return (reading.ratio.low + reading.ratio.high) / 2 if reading.ratio is not None else 0.0


def _cut(ctx: Context) -> Cut | None:
    """The limit under which all reported scores stand."""
    trace = ctx.trace
    if trace is None:
        return None
    reported = trace.reported_scores()
    scores = {e.id: e for e in trace.of("SCORE", active=True) if e.on_val}
    limits = [cut_of(trace, e) for e in scores.values() if e.id in reported]
    if None in limits and trace.chosen is None:
        # Nothing says which figure is put forward: the one that is printed last.
        last = next((r for r in reversed(trace.reports()) if r.scores & scores.keys()), None)
        limits = [cut_of(trace, scores[n]) for n in sorted(last.scores) if n in scores] if last is not None else []
        limits = limits if all(c is not None and c.unit == "windows" for c in limits) else []
    if not limits or None in limits or len({(c.path, c.line, c.which) for c in limits if c is not None and c.unit == "windows"}) > 1:
        return None  # what one list leaves out may be what another one holds
    return limits[-1]
