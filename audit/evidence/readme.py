"""Reads README files: tables and sentences that state scores, sizes, times, seeds and settings.

Only what the text states about this submission counts. Tables of other people's runs, columns of
differences and sentences about limits or baselines state nothing here; precision matters more than
coverage, since every fact may become half of a contradiction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

from audit.evidence.comparable import REMARK
from audit.evidence.digits import value
from audit.evidence.words import OTHER, Quantity, measure, quantity, seed_of
from audit.model import Fact

MAX_LINES = 6000
#: bits per byte; what a sentence states below this is a difference and no score
LEAST = 0.2
#: letters; a longer sentence speaks of more than the submission's own settings
LONG = 160
#: lines; the submission's own score stands at its README's head
NEAR = 30
Maker = Callable[..., Fact]
_RULE = re.compile(r"^\s*\|?[\s:|+-]*-[\s:|+-]*$")
_ELSEWHERE = re.compile(
    r"\b(?:ablation|comparison|history|previous|prior|baseline|leaderboard|experiments?|failed|negative|sweep|lineage|credits|"
    r"progress|journey|decision|what didn|tried|explored|attempt|related|roadmap|plan|proxy|smoke|local|diagnos|screen|"
    r"timeline|appendix|superseded|old|context|days? \d|phase \d|research|ladder|exploration|curve|trajectory|"
    r"progression|seeds? variance of|vs\.?|versus|why|future|expected|projected|reference|budget breakdown)\b",
    re.I,
)
_OURS = re.compile(
    r"^(?:this(?: \w+)?|ours?|value|result|final|actual|measured|submission|this submission|this pr|score)$",
    re.I,
)
_METRIC = re.compile(
    r"^(?:metric|measure|quantity|item|property|info|stage|eval(?:uation)?(?: stage)?|setting|parameter|)$",
    re.I,
)
_MEAN_ROW = re.compile(r"\b(?:mean|average|avg)\b", re.I)
_STD_ROW = re.compile(r"\b(?:std|stdev|σ)\b", re.I)
_SCORE = re.compile(
    r"(?:\bval[_ ]bpb\b|\bbpb\b|\bbits per byte\b)[`*]*\s*(?:\([^)]{0,40}\))?\s*(?:of|is|=|:|→|at)?\s*[`*]*\s*(?P<a>~?\d\.\d{3,10})\b"
    r"|\b(?P<b>\d\.\d{3,10})[`*]*\s*(?:val[_ ])?bpb\b(?!\s*[:=])",
    re.I,
)
_SIZE = re.compile(r"(?P<about>[~≈]\s*)?(?P<n>\d[\d,_]*(?:\.\d+)?)[`*]*\s*(?P<u>MB|MiB|bytes|B)\b")
_SIZE_WORD = re.compile(
    r"artifact|submission size|total size|bytes_total|total bytes|code \+ model|compressed (?:size|total)",
    re.I,
)
_LIMIT = re.compile(
    r"limit|\bcap\b|budget|under|less than|below|headroom|margin|fits?\b|constraint|[<≤]|within|max(?:imum)?\b|could|would",
    re.I,
)
_STEP_MS = re.compile(r"(?P<about>[~≈]\s*)?(?P<n>\d[\d,]*(?:\.\d+)?)\s*(?P<u>ms|s)\s*(?:/|per)\s*step", re.I)
_STEPS = re.compile(
    r"(?P<about>[~≈]\s*)?(?<![\w.])(?P<n>\d[\d,]{2,})\s+(?:training |optimi[sz]er )?steps\b", re.I
)
_SEED_LINE = re.compile(r"\bseed[ _=:#]*(\d{1,7})\b", re.I)
_PRUNE = re.compile(
    r"(\d+(?:\.\d+)?)\s*%\s*(?:magnitude\s+|weight\s+|selective\s+)?prun|prun\w*\s*[:=(]?\s*(\d+(?:\.\d+)?)\s*%",
    re.I,
)
_INT = re.compile(r"\bint([3-8])\b", re.I)
_LAYERS = re.compile(r"(?<![\w.-])(\d{1,2})(?:\s*(?:transformer\s+)?layers?\b|L\b(?=[ /,x×]|$))")
_LAYERS_IS = re.compile(r"\b(?:num_)?layers\s*[=:]\s*(\d{1,2})\b", re.I)
_SELF_GENERATED = re.compile(r"self[- ]gen\w*|model[- ]generated|generated (?:by|from) the model", re.I)
_PLAIN_HEAD = re.compile(r"^\s*seeds?\s{1,}(?=.*\b(?:bpb|artifact|steps?|size|val_loss)\b)[^|:]*$", re.I)
_PLAIN_ROW = re.compile(r"^\s*(\d{1,7})\s+(?=\S*\d)(.*)$")
_PARAMS = re.compile(r"([~≈]\s*)?(\d+(?:\.\d+)?)\s*M\s+(?:unique\s+|total\s+)?param(?:eter)?s\b", re.I)
_FASTER = re.compile(
    r"(?P<a>\d+(?:\.\d+)?)\s*ms(?:/step)?\b.{0,60}?(?:vs\.?|versus|against|instead of|compared (?:to|with)|from|down from)\s*\(?~?"
    r"(?P<b>\d+(?:\.\d+)?)\s*ms.{0,60}?(?P<p>\d+(?:\.\d+)?)\s*%\s*(?:more|additional|extra)\s*(?:\w+\s+)?steps",
    re.I | re.S,
)


def read_readme(path: str, text: str) -> Iterator[Fact]:
    """Facts of one Markdown text. Scope is ``""``, or ``seed:N`` where a figure is one seed's."""
    lines = text.splitlines()[:MAX_LINES]
    heading, fenced, title, at = "", False, False, 0
    trail: list[str] = []
    while at < len(lines):
        line = lines[at]
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            at += 1
            continue
        if not fenced and (mark := re.match(r"\s{0,3}(#{1,6})\s+(.*)", line)):
            depth = len(mark.group(1))
            trail = [*trail[: depth - 1], mark.group(2)]
            heading = mark.group(2)
            yield from _sentence(path, at + 1, mark.group(2), "", "heading" if title else "title")
            title = True
        elif (
            not fenced
            and "|" in line
            and at + 1 < len(lines)
            and "|" in lines[at + 1]
            and _RULE.match(lines[at + 1])
        ):
            end = at + 2
            while end < len(lines) and "|" in lines[end] and lines[end].strip():
                end += 1
            if not any(_ELSEWHERE.search(t) for t in trail[1:] or trail[:0]):
                yield from _table(path, lines, at, end)
            at = end
            continue
        elif (
            not fenced and _PLAIN_HEAD.match(line) and at + 1 < len(lines) and _PLAIN_ROW.match(lines[at + 1])
        ):
            at += 1
            while at < len(lines) and (row := _PLAIN_ROW.match(lines[at])):
                yield from _plain_row(path, at + 1, int(row[1]), row[2], line)
                at += 1
            continue
        elif not fenced and line.strip():
            opens = at == 0 or not lines[at - 1].strip() or bool(_OPENS.match(line)) or bool(_OPENS.match(lines[at - 1]))
            for part in _parts(line):
                yield from _sentence(path, at + 1, part, heading, "opens" if opens else "goes on")
            if match := _FASTER.search(" ".join(lines[at : at + 2])):
                start = match.start()
                if start < len(line):
                    raw = f"{match['a']} ms {match['b']} ms {match['p']} %"
                    yield Fact(
                        name="claim.more_steps", value=float(match["p"]), path=path, line=at + 1, raw=raw
                    )
        at += 1


def _parts(line: str) -> list[str]:
    """A long paragraph on one line, sentence by sentence."""
    return [line] if len(line) < 300 else re.split(r"(?<=[.;!?])\s+(?=[A-Z0-9*`#-])", line)[:400]


def _plain_row(path: str, line: int, seed: int, rest: str, head: str) -> Iterator[Fact]:
    """A row of a table whose bars were lost in copying: figures are told apart by their shape."""
    scope = f"seed:{seed}"

    def fact(name: str, found: object, raw: str) -> Fact:
        return Fact(
            name=name, value=found, path=path, line=line, raw=raw, scope=scope, label=head.strip()[:60]
        )

    yield fact("seed", seed, str(seed))
    sizes = list(_SIZE.finditer(rest))
    if sizes and (measured := measure("bytes_total", f"{sizes[0]['n']} {sizes[0]['u']}")):
        yield fact("bytes_total", measured[0], measured[1])
    scores = re.findall(r"(?<![\w.])\d\.\d{3,8}(?![\w.])", rest)
    for raw in scores if "bpb" in head.lower() else ():
        yield fact("val_bpb", float(raw), raw)
    pace = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)\s*ms\b", rest)
    if pace and re.search(r"step avg|ms/step|step time", head, re.I):
        yield fact("step_avg_ms", float(pace[1]), pace[1])
    steps = re.match(r"(\d[\d,]{2,})\s", rest)
    if steps and re.match(r"\s*seeds?\s+steps\b", head, re.I):
        yield fact("steps", int(steps[1].replace(",", "")), steps[1])


def _cells(line: str) -> list[str]:
    return [re.sub(r"[*`]", "", c).strip() for c in line.strip().strip("|").split("|")]


def _table(path: str, lines: list[str], start: int, end: int) -> Iterator[Fact]:
    head = _cells(lines[start])
    rows = [(at + 1, _cells(lines[at])) for at in range(start + 2, end)]
    columns = [quantity(h) for h in head]
    seed_column = next((i for i, h in enumerate(head) if re.match(r"seeds?\b(?!\s*\d)", h, re.I)), None)
    seeds_across = [seed_of(h) if re.match(r"seed|s?\d", h, re.I) else None for h in head]
    if (seed_column is None and sum(s is not None for s in seeds_across) >= 1) or (
        seed_column is None and any(_OURS.match(h) for h in head[1:]) and not any(columns[1:])
    ):
        yield from _metric_rows(path, head, rows, seeds_across)
    elif seed_column is None and len(head) == 2 and _METRIC.match(head[0]):
        yield from _metric_rows(path, ["", "value"], rows, seeds_across)
    elif any(columns):
        yield from _quantity_columns(path, head, columns, rows, seed_column)


def _metric_rows(
    path: str, head: list[str], rows: list[tuple[int, list[str]]], seeds: list[int | None]
) -> Iterator[Fact]:
    """One quantity per row; the columns are seeds, means, or this submission's value."""
    for number, row in rows:
        found = quantity(row[0]) if row else None
        for i, cell in enumerate(row[1:], start=1):
            if i >= len(head) or found is None:
                continue
            seed, title = seeds[i], head[i]
            if seed is None and not (_OURS.match(title) or _MEAN_ROW.search(title) or _STD_ROW.search(title)):
                continue
            statistic = found.statistic or (
                "std" if _STD_ROW.search(title) else "mean" if _MEAN_ROW.search(title) else ""
            )
            yield from _cell(
                path, number, found, cell, row[0], f"seed:{seed}" if seed is not None else "", statistic
            )


def _quantity_columns(
    path: str,
    head: list[str],
    columns: list[Quantity | None],
    rows: list[tuple[int, list[str]]],
    seed_column: int | None,
) -> Iterator[Fact]:
    """One quantity per column; the rows are seeds, their mean and deviation, or this submission."""
    for number, row in rows:
        key = (
            row[seed_column] if seed_column is not None and seed_column < len(row) else row[0] if row else ""
        )
        seed = seed_of(key) if seed_column is not None else None
        statistic = (
            "std"
            if _STD_ROW.search(key) and not _MEAN_ROW.search(key)
            else "mean"
            if _MEAN_ROW.search(key)
            else ""
        )
        if (
            seed is None
            and not statistic
            and not (
                _OURS.match(key)
                or re.search(r"\bthis\b|\bours\b|this submission", key, re.I)
                or (len(rows) == 1 and not OTHER.search(key))
            )
        ):
            continue  # somebody else's row, or a variant
        if OTHER.search(key) or (row and OTHER.search(row[0]) and not _OURS.match(row[0])):
            continue
        scope = f"seed:{seed}" if seed is not None else ""
        if seed is not None:
            yield Fact(
                name="seed",
                value=seed,
                path=path,
                line=number,
                raw=key,
                scope=scope,
                label=head[seed_column or 0],
            )
        for i, cell in enumerate(row[: len(columns)]):
            found = columns[i]
            if found is not None and i != seed_column:
                yield from _cell(path, number, found, cell, head[i], scope, found.statistic or statistic)


def _cell(
    path: str, line: int, found: Quantity, cell: str, label: str, scope: str, statistic: str
) -> Iterator[Fact]:
    measured = measure(found.name, cell, found.unit)
    if measured is None:
        return
    suffix = f"_{statistic}" if statistic in {"std", "mean"} else ""
    yield Fact(
        name=found.name + suffix,
        value=measured[0],
        path=path,
        line=line,
        raw=measured[1],
        scope=scope,
        label=label,
    )
    spread = re.search(r"(?:±|\+/-|\(?std:?\s*=?)\s*(\d\.\d+)", cell)
    if spread and found.name in {"val_bpb", "val_loss"} and not suffix.endswith("std"):
        yield Fact(
            name=f"{found.name}_std", value=float(spread[1]), path=path, line=line, raw=spread[1], scope=scope,
            label=label,
        )  # fmt: skip


#: words around a score that say no more of it than that it is the submission's
_STATING = re.compile(
    r"(?:[\W\d_]|\b(?:val|validation|bpb|bpp|bits|per|byte|scores?|mean|avg|average|exact|final|std|official|reported|headline|main|"
    r"results?|value|seeds?|all|three|our|ours|this|submission|record|overall|primary|metric|the|a|an|is|of|with|at|and|we|gets?|"
    r"reach(?:es|ed)?|achiev(?:es|ed)|obtains?|new|current|best|n|over|across|in|on)\b)*",
    re.I,
)


def _states(plain: str, found: re.Match[str], seed: bool, title: bool) -> bool:
    """Does a sentence state this score of the submission, or only mention it: of a step, a variant, another run.

    What stands before the number, and in brackets after it, may not qualify it; in a title the submission's
    name stands there.
    """
    before = plain[: found.start()]
    after = re.match(r"\s*\(([^)]*)\)", plain[found.end() :])
    if seed and _MEAN_ROW.search(before):
        return False  # "Mean val_bpb: 1.128. Submitted: seed 1337"
    inside = re.search(r"\(([^)]*)\)", found.group())
    parts = [*([] if title else [before]), *(m.group(1) for m in (inside, after) if m)]
    return all(_STATING.fullmatch(part) for part in parts) and not (title and _QUALIFIED.search(plain))


_QUALIFIED = re.compile(r"pre[- ]?quant|no[- ]ttt|without|diagnos|neural[- ]only|pre[- ]?ttt", re.I)


#: "Trained on 8×H100 SXM", "Training time: 10 minutes on 8xH100"
_MACHINE = re.compile(r"\b(?:trained\b|training(?: time)?:)[^.;|]{0,40}\bon (?:an? )?(\d+) ?[x×] ?H100", re.I)

#: the beginning of a paragraph, an item or a heading
_OPENS = re.compile(r"\s{0,3}(?:[#>|*-]|\d+[.)]\s)")


def _sentence(
    path: str, line: int, text: str, heading: str, where: Literal["title", "heading", "opens", "goes on"]
) -> Iterator[Fact]:
    """What one line of prose states. Lines that compare or set limits state no sizes or scores.

    ``where``: the README's title, another heading, the first line of a paragraph or item, or a later one.
    The label is ``sentence``, or ``remark`` where a figure is mentioned and not stated of the submission.
    """

    def fact(name: str, found: object, raw: str, scope: str = "", label: str = "sentence") -> Fact:
        return Fact(name=name, value=found, path=path, line=line, raw=raw, scope=scope, label=label)

    if len(text) > 2000 or _ELSEWHERE.search(heading):
        return
    plain = re.sub(r"[*`]", "", text)
    seed = _SEED_LINE.search(plain)
    alone = seed is not None and len(_SEED_LINE.findall(plain)) == 1
    scope = f"seed:{seed.group(1)}" if seed and alone else ""
    compares = OTHER.search(plain) or re.search(r"\bfrom\b|→|->|compared|than\b|instead", plain, re.I)
    if not compares:
        scores = list(_SCORE.finditer(plain))
        if len(scores) == 1 and (line <= 60 or seed):
            raw = scores[0]["a"] or scores[0]["b"]
            if (
                value(raw) < LEAST
                or raw.startswith("~")
                or re.search(r"[~≈]\s*$", plain[: scores[0].start()])
            ):
                return  # a difference, or an impression
            mean = "_mean" if _MEAN_ROW.search(plain) and not scope else ""
            near = where != "goes on" and (line <= NEAR or seed is not None)
            stated = near and _states(plain, scores[0], seed is not None, where == "title")
            label = "sentence" if stated else REMARK
            yield fact(f"val_bpb{mean}", float(raw.lstrip("~")), raw, scope, label)
            spread = re.search(r"(?:±|\+/-|\bstd(?:ev)?\b[^\d]{0,4})\s*(0\.\d+)", plain, re.I)
            if spread and not scope:
                yield fact("val_bpb_std", float(spread[1]), spread[1], "", label)
    if not OTHER.search(re.sub(r"\bunder\b|\bbudget\b|\bcap\b|\blimit\b", "", plain, flags=re.I)):
        sizes = [m for m in _SIZE.finditer(plain) if m["u"] != "B" or len(m["n"]) > 5]
        if _SIZE_WORD.search(plain) and not re.search(r"code|model|tokens", plain, re.I) and len(sizes) == 1:
            match = sizes[0]
            before = plain[max(0, match.start() - 14) : match.start()]
            measured = measure("bytes_total", f"{match['n']} {match['u']}")
            spans = re.search(r"\d\s*(?:[-–—]|to)\s*$", before)  # "13-17 MB": of several runs
            if measured and not spans and not _LIMIT.search(before) and not 15.99e6 < measured[0] < 16.0001e6:
                about = "~" if match["about"] else ""
                yield fact("bytes_total", measured[0], about + measured[1], scope)
    if not compares and line <= 60 and len(machines := {m[1] for m in _MACHINE.finditer(plain)}) == 1:
        raw = machines.pop()
        yield fact("gpus", int(raw), raw)
    if not compares or (re.search(r"->|→", plain) and not OTHER.search(plain)):
        yield from _pace(fact, plain, scope)
    aside = line > 2 * NEAR or len(plain) > LONG or _TRIED.search(plain) or (where == "heading" and _ELSEWHERE.search(plain))
    yield from _settings(fact, plain, REMARK if aside else "sentence")


def _pace(make: Maker, plain: str, scope: str) -> Iterator[Fact]:
    paces, steps = list(_STEP_MS.finditer(plain)), list(_STEPS.finditer(plain))
    if len(paces) == 1:
        match = paces[0]
        number = float(match["n"].replace(",", "")) * (1000.0 if match["u"].lower() == "s" else 1.0)
        yield make(
            "step_avg_ms", number, ("~" if match["about"] else "") + f"{match['n']} {match['u']}", scope
        )
    if len(steps) == 1 and not re.search(
        r"warm|every|last|first|over\b|per\b|ramp|momentum|more\b", plain, re.I
    ):
        raw = steps[0]["n"]
        yield make("steps", int(raw.replace(",", "")), ("~" if steps[0]["about"] else "") + raw, scope)


#: models that are not the submitted one
_ANOTHERS_MODEL = re.compile(r"\b(?:pilots?|everyone|others?|typical\w*|most|usual\w*|common\w*|ideal\w*|would|could)\b", re.I)
#: pruning by steps, until the artifact fits
_RETRY = re.compile(r"retry|retries|\bper\b|each|more\b|additional|until|step", re.I)
_ANOTHERS = re.compile(
    r"instead|standard|\bvs\b|than\b|from\b|baseline|→|->|PR ?#|rather|unlike|not\b|without|future", re.I
)
#: what stands before another's width: "instead of 63 (INT6)", "0.64 for INT6"
_ANOTHERS_WIDTH = re.compile(
    r"instead of|standard|\bvs\.?|than|unlike|baseline|\bfor\s*$|\bof \d+ \($|→|->", re.I
)
_SOME_LAYERS = re.compile(
    r"last|first|top|deep|bottom|family|xsa|recur|unique|shared|physical|loop|all \d|freez|unfro|blocks?\b",
    re.I,
)


#: a setting that was tried, or whose effect is told
_TRIED = re.compile(r"\btried|trying|first few|impact|effect of|ablat|baseline|experiment|would|could", re.I)


def _settings(make: Maker, plain: str, label: str) -> Iterator[Fact]:
    """Pruning, width of the quantized weights, layers, parameters, calibration text."""
    if _SELF_GENERATED.search(plain) and re.search(r"calib|hessian|gptq", plain, re.I):
        yield make("setting.calibration", "self-generated", "self-generated")
    own = [
        m
        for m in _INT.finditer(plain)
        if not _ANOTHERS_WIDTH.search(plain[max(0, m.start() - 30) : m.start()])
    ]
    if len({m[1] for m in own}) == 1:
        yield make("setting.weight_bits", int(own[0][1]), own[0].group(), "", label)
    if _ANOTHERS.search(plain):
        return
    if match := _PRUNE.search(plain):
        raw = match[1] or match[2]
        yield make("setting.prune_percent", float(raw), f"{raw}%", "", REMARK if _RETRY.search(plain) else label)
    layers = [m for m in _LAYERS.finditer(plain) if 2 <= int(m[1]) <= 40] or list(_LAYERS_IS.finditer(plain))
    if len(layers) == 1 and not _SOME_LAYERS.search(plain[: layers[0].end() + 10]):
        yield make("setting.num_layers", int(layers[0][1]), layers[0].group(), "", label)
    if (match := _PARAMS.search(plain)) and not OTHER.search(plain):
        about = REMARK if len(_PARAMS.findall(plain)) > 1 or _ANOTHERS_MODEL.search(plain) else label
        yield make("model_params", float(match[2]) * 1e6, f"{'~' if match[1] else ''}{match[2]} M", "", about)
