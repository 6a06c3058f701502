"""B1 artifact cap: code and compressed model have at most 16,000,000 bytes, for every seed.

**What.** The cap is decimal, counts code and model together, and holds for the largest seed, not for
the mean. Totals are taken from the logs of the runs behind the score, from ``submission.json`` and
from the README.

**Why.** The contest is about what fits into sixteen million bytes.

**Ruling.** README. regina-openai called 16,024,793 bytes ineligible (#1809) and flagged 16,071,321
(#1835).

**Traps.** A log's total counts the *plain* source at times, although the packed script was submitted:
then the total is computed again with the submitted script's size. ``15.38 MB`` may mean MiB, which
are 16.13 million bytes: where a second figure of the same seed shows it, the exact one counts. Raw
weights, and exports of trial grids, are no artifact.

**Look-alikes.** A log that prints the raw model's size first; superseded runs beside the reported one.

**See also.** B2 (what counts as code), E4 (sizes that contradict each other).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.context import Context
from audit.evidence.digits import Interval
from audit.evidence.runs import Run, headline, prints
from audit.evidence.sizes import CAP, Size, mebibytes, run_total, stated_models, stated_sizes
from audit.model import Finding, Obligation
from audit.rules.base import Example, Rule
from audit.rules.papers import confidence_of, distinct, evidence, paper_finding

RULE = Rule(
    id="B1",
    name="artifact-cap",
    title="Code and model fit into 16,000,000 bytes",
    breach="Code and model exceed 16,000,000 bytes",
    illegal="INELIGIBLE",
    authority="MAINT",
    ruling="#1809, #1835",
    severity="violation",
    needs=("log",),
)

_SCRIPT = "print('see the log')\n"


def _log(total: int) -> str:
    return (
        f"model_params:1000000\nCode size: 50000 bytes\nTotal submission size: 67183487 bytes\n"
        f"Serialized model int6+lzma: {total - 50000} bytes\nTotal submission size int6+lzma: {total} bytes\n"
        "final_int6_exact val_loss:1.88000000 val_bpb:1.11344758\n"
    )


_SAID = ("submission.json", '{"val_bpb": 1.1134}')
ILLEGAL = [
    Example(
        name="24,793 bytes over",
        code=_SCRIPT,
        files=(("train_seed1.log", _log(16_024_793)), _SAID),
        lines=(5,),
    ),
    Example(
        name="a compressed model over the cap, without its code",
        code=_SCRIPT,
        files=(("submission.json", '{"val_bpb": 1.1134,\n"compressed_size_bytes": 16349337}'),),
        lines=(2,),
    ),
    Example(
        name="mebibytes dressed as megabytes",
        code=_SCRIPT,
        files=(
            ("README.md", "# X\n\n| Seed | Artifact | Size |\n|---|---|---|\n| 7 | 15.38 MB | 16.12 MB |\n"),
        ),
        lines=(5,),
    ),
]
LEGAL = [
    Example(
        name="a variant over the cap in the README's text, where the metadata state the submitted size",
        code=_SCRIPT,
        files=(
            ("README.md", "# X\n\nSeed 42's artifact was 16.4MB with seven bits, so that was left out.\n"),
            ("submission.json", '{"val_bpb": 1.1134, "bytes_total": 15533063}'),
        ),
    ),
    Example(
        name="a larger export beside the submitted model",
        code=_SCRIPT,
        files=(("submission.json", '{"val_bpb": 1.3246, "bytes_model_int6_zlib": 14784469, "bytes_model_int8_zlib": 18612195}'),),
    ),
    Example(
        name="one byte short of the cap", code=_SCRIPT, files=(("train_seed1.log", _log(15_999_999)), _SAID)
    ),
    Example(
        name="two experiments of one seed in the README, one of them over the cap",
        code=_SCRIPT,
        files=(
            ("README.md", "# X\n\nExperiment 1 scores val_bpb 1.11999999, over the cap.\nExperiment 2 scores val_bpb 1.11344758.\n"),
            ("exp1.log", _log(16_024_793).replace("1.11344758", "1.11999999")),
            ("exp2.log", _log(15_999_999)),
        ),
    ),
    Example(
        name="a superseded run over the cap beside the reported one",
        code=_SCRIPT,
        files=(
            ("old.log", _log(16_024_793).replace("1.11344758", "1.11999999")),
            ("train_seed1.log", _log(15_999_999)),
            _SAID,
        ),
    ),
]


#: said of what is a seed's of which the stated score is not
_ANOTHER = "; the stated score is another seed's"


def check(ctx: Context) -> Iterator[Finding | Obligation]:
    yield from distinct(_check(ctx))


def _check(ctx: Context) -> Iterator[Finding | Obligation]:
    found = evidence(ctx)
    packed = _packed_size(ctx)
    sizes = [s for run in found.behind if (s := run_total(run, packed)) is not None]
    stated, models = stated_sizes(found), stated_models(found)
    # The mean of several runs is printed by none of them.
    heads = headline(found.stated) if sum(run.link == "score" for run in found.behind) == 1 else None
    for size in sizes:
        if not size.over or size.run is None:
            continue
        if (other := _stated_otherwise(size.run, size, stated, heads)) is not None:
            message = f"{_over(size)}; the log does not print the stated score, and {other.total.low:,.0f} bytes are stated for it"
            yield paper_finding(RULE, size.fact, message, severity="warning", steps=(other.fact,))
        elif not found.rests_on(size.run):
            yield paper_finding(RULE, size.fact, _over(size) + _ANOTHER, severity="warning")
        elif not _prints(size.run, heads or []) and (other := _of_the_same_seed(size.run, size, sizes)) is not None:
            message = f"{_over(size)}; nothing says that this run is meant and not another one of the same seed, with {other.total.low:,.0f} bytes"
            yield paper_finding(RULE, size.fact, message, severity="warning", steps=(other.fact,))
        else:
            yield paper_finding(RULE, size.fact, _over(size), confidence=confidence_of(found, size.run))
    dressed = {id(small): exact for small, exact in mebibytes([*stated, *(m for m in models if m.over)])}
    for size in stated:
        if not size.over or _refuted(size, sizes) or _of_another(size, stated):
            continue
        if not found.counts(size.fact.scope):
            yield paper_finding(RULE, size.fact, _over(size) + _ANOTHER, severity="warning")
        else:
            yield paper_finding(
                RULE, size.fact, _over(size), confidence="high" if " MB" not in size.fact.raw else "medium"
            )
    for small in stated:
        if (exact := dressed.get(id(small))) is not None:
            yield paper_finding(
                RULE, small.fact,
                f"{small.fact.raw} are mebibytes: {exact.fact.raw} are stated for the same seed, "
                f"{small.fact.value / 1e6:.2f} x 1,048,576 = {small.fact.value * 1.048576:,.0f} bytes",
                severity="warning", steps=(exact.fact,),
            )  # fmt: skip
    kept = [s for s in (*sizes, *stated) if not s.over and id(s) not in dressed]
    if models and not kept and (least := min(models, key=lambda s: s.total.low)).over:
        yield paper_finding(RULE, least.fact, _over(least))
    if kept:
        largest = max(kept, key=lambda s: s.total.high)
        yield Obligation(
            rule=RULE.id, status="holds",
            reason=f"{largest.fact.path}:{largest.fact.line}: the largest stated total is {largest.total.high:,.0f} bytes",
        )  # fmt: skip
    else:
        yield Obligation(rule=RULE.id, status="not-applicable", reason="no paper states a total size")


def _over(size: Size) -> str:
    parts = f" ({size.parts})" if size.parts else ""
    if " MB" in size.fact.raw:
        return f"{size.fact.raw} are more than {CAP:,} bytes"
    return f"{size.total.low:,.0f} bytes{parts}, {size.total.low - CAP:,.0f} over the cap of {CAP:,}"


def _stated_otherwise(run: Run, size: Size, stated: list[Size], heads: list[Interval] | None) -> Size | None:
    """The exact size that the metadata state for the seed of a run that printed another score, where it is under the cap."""
    scopes = {f"seed:{run.seed}"}
    if run.link == "score" and heads is not None and not _prints(run, heads):
        scopes.add("")  # it printed some other figure of the papers, a smaller evaluation's perhaps
    elif run.link != "seed":
        return None
    of_seed = [s for s in stated if s.fact.scope in scopes and s.fact.path.endswith(".json") and " MB" not in s.fact.raw]
    return next((s for s in of_seed if not s.over), None) if not any(s.total.meets(size.total) for s in of_seed) else None


def _prints(run: Run, heads: list[Interval]) -> bool:
    """Is a score that the papers tie a run to the one that they put forward."""
    return any(prints(e.bpb, head) for e in run.reported for head in heads)


def _of_the_same_seed(run: Run, size: Size, sizes: list[Size]) -> Size | None:
    """The size of another run of the seed that is under the cap, where the papers state both scores or neither: one is a variant."""
    for other in sizes:
        beside = other.run
        if beside is None or beside.path == run.path or other.over or beside.seed != run.seed or run.seed is None or beside.link != run.link:
            continue
        scores = [{e.bpb.raw for e in r.reported} or {r.final.bpb.raw if r.final else ""} for r in (run, beside)]
        if scores[0].isdisjoint(scores[1]):
            return other
    return None


def _refuted(size: Size, runs: list[Size]) -> bool:
    """The logs behind the score show, for every run, a smaller artifact than this paper states."""
    return bool(runs) and all(not r.over for r in runs) and not any(r.total.meets(size.total) for r in runs)


def _of_another(size: Size, stated: list[Size]) -> bool:
    """A rough figure in the text of a README, where the metadata state an exact size under the cap: of another run."""
    rough = " MB" in size.fact.raw and not size.fact.path.endswith(".json")
    return rough and any(s.fact.path.endswith("submission.json") and not s.over and " MB" not in s.fact.raw for s in stated)


#: layers that shrink or encode; a launcher that only runs its neighbour packs nothing
_PACKED = re.compile(r"lzma|xz|zlib|gzip|brotli|zst|bz2|b85|b64|a85", re.I)
_WRAPPER = re.compile(rb"\b(?:exec|runpy)\b")
_DECODER = re.compile(rb"b85decode|b64decode|a85decode|decompress")


def _packed_size(ctx: Context) -> int | None:
    """Bytes of the submitted script where it, or a copy beside it, is packed.

    A folder may hold the readable script and the self-extracting one that counts: a short file with
    nothing but a decoder, a payload and an exec.
    """
    if ctx.files is None:
        return None
    data = ctx.files.read(ctx.primary)
    layers = " ".join(getattr(ctx.peeled, "layers", None) or ())
    if data and _PACKED.search(layers):
        return len(data)
    for path in ctx.files.ending(".py"):
        if path == ctx.primary or path.rpartition("/")[0] != ctx.files.folder:
            continue
        beside = ctx.files.read(path) or b""
        short = data is not None and 0 < len(beside) < len(data) and beside.count(b"\n") < 40
        if short and _WRAPPER.search(beside) and _DECODER.search(beside):
            return len(beside)
    return None
