"""Which of the printed figures is the one that the papers report.

A script may print several: a round trip, a sliding window, a second pass that nobody reports. The log line whose
figure meets the stated score names the report by the text before the figure, and the trace knows what text each of
its reports begins with. What reaches only figures that the run behind the score did not print, or that are worse than
the stated score, bears on no reported number ("a verdict concerns the submission as reported"). A better figure is put
forward by whoever prints it, and counts. Where no line can be matched, every printed figure counts; of a script of which
no score is stated at all, every one but remarks that come before the figure (`set_aside`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from audit.model import Fact
from audit.trace.events import Event, Trace
from audit.trace.positions import EVENTS

_FIGURE = re.compile(r"(?:\b(?:val_loss|val loss|vl|loss|val_bpb|val bpb|bpb)|(?:\b|_)mix_bpb)\b\s*[:=]?", re.I)
_LETTERS = re.compile(r"[^a-z]+")
#: a label of fewer letters could be anything
SHORTEST = 4
#: a line that gives nothing but the contest's figure, and words by which a line may put a figure forward
_NAMED = re.compile(r"(?:\b|_)bpb\W*$", re.I)
_SCORE = re.compile(r"bpb|bpc|bits|loss|nll|score|final|result|metric|record|perplex|ppl", re.I)
#: compressors: a label that names one often outlives the change to another
_PACKERS = frozenset(["zlib", "zstd", "lzma", "xz", "brotli", "bz", "gzip", "lrzip", "lz"])


def label_of(text: str) -> tuple[str, bool]:
    """The letters of a printed line before its figure, and whether the figure's name was reached."""
    found = _FIGURE.search(text)
    plain = _LETTERS.sub(" ", (text[: found.start()] if found else text).lower()).strip()
    return plain, found is not None


def could_print(report: Event, label: str) -> bool | None:
    """Could this report have printed a line with that label: True, False, or None where its text is unknown."""
    text = report.detail.get("text")
    if text is None:
        return None
    own, whole = label_of(text)
    if whole:
        return own == label
    return label.startswith(own) if own else None


def renamed(label: str, reports: Iterable[Event]) -> str:
    """The one label of the program's own that names another compressor than the log's and says the same besides."""
    own = {label_of(str(text)) for e in reports if (text := e.detail.get("text")) is not None}

    def rest(x: str) -> list[str]:
        return ["" if word in _PACKERS else word for word in x.split()]

    near = [x for x, whole in own if whole and x != label and "" in rest(x) and rest(x) == rest(label)]
    return near[0] if len(near) == 1 else label


def reached(sites: dict[tuple, list[int]], printed: int) -> set[int]:
    """Of the places that print one label, in the order of the run, as many as the log has lines of it."""
    kept = list(sites.values())[:printed] if 0 < printed < len(sites) else sites.values()
    return {number for numbers in kept for number in numbers}


def narrow(
    trace: Trace,
    stated: Mapping[str, int],
    better: Mapping[str, Fact] | None = None,
    written: Callable[[str], str | None] = lambda _: None,
    printable: Callable[[str], bool] = lambda _: True,
) -> None:
    """Sets ``trace.chosen`` to the reports that count, where one certainly prints the stated score.

    ``stated``: what the log lines that print the stated score say before the figure, and how many lines of one run
    say so, whatever the figure; ``better``: the same texts of the lines that print a better one, with it; ``written``: where the
    program's source holds a text; ``printable``: whether the submitted files could print a line that begins so. A line
    that the program itself prints, and that none of its reports could have printed, is noted in ``trace.unfollowed``, and
    so is a stated score that nothing of the submission prints.
    """
    lines: dict[str, int] = {}
    for text, number in stated.items():
        if len(plain := label_of(text)[0]) >= SHORTEST:
            lines[plain] = lines.get(plain, 0) + number
    wanted = lines.keys()
    active = [e for e in trace.of("REPORT", active=True) if e.scores]
    found: set[int] = set()
    unprinted: dict[str, bool] = {}  # lines of no known report, and whether some report's text is not known
    for label in wanted:
        said = {e.id: could_print(e, label) for e in active}
        if not any(said.values()) and (other := renamed(label, active)) != label:
            said = {e.id: could_print(e, other) for e in active}
        if not any(said.values()):
            unprinted[label] = None in said.values()
            continue
        sites: dict[tuple, list[int]] = {}
        for e in active:
            if said[e.id]:
                sites.setdefault(e.stack[:2], []).append(e.id)
        found |= reached(sites, lines[label]) | {number for number, could in said.items() if could is None}
    if unprinted:
        # Printed by something that was not followed: nothing is ruled out, nor shown where the program prints it.
        where = next((at for text in stated if unprinted.get(label_of(text)[0]) is False and (at := written(text))), None)
        if where is not None and len(unprinted) == len(wanted):
            trace.unfollowed.append(f"{where} prints the stated score, and how that comes about was not followed")
        elif len(unprinted) == len(wanted) and not printable(longest := max(stated, key=len)):
            trace.unfollowed.append(
                f"nothing of the submission prints the stated score's line ({longest.strip()!r}): another program ran"
            )
        return
    shown = {label_of(text)[0]: figure for text, figure in (better or {}).items()}
    for e in active:
        figures = [figure for label, figure in shown.items() if could_print(e, label)]
        if figures and e.id not in found:
            trace.beside[e.id] = min(figures, key=lambda f: float(f.value))
    found |= trace.beside.keys()
    if wanted and len(found) < len(active):
        _choose(trace, frozenset(found))


def put_forward(trace: Trace, path: str, line: int, also: Iterable[tuple[str, int]] = ()) -> Fact | None:
    """The better figure for which alone something counts that happens at a place; None where the headline rests on it.

    ``also``: the places of scores that depend on it, for where no event at the place tells which ones do.
    """
    if not trace.beside:
        return None
    main: set[int] = set()
    for e in trace.of("REPORT", active=True):
        if e.id not in trace.beside and (trace.chosen is None or e.id in trace.chosen):
            main |= e.scores
    causes = {e.id for e in trace.events if (e.path, e.line) == (path, line)}
    scores = list(trace.of("SCORE", active=True))
    resting = {
        s.id for s in scores if s.taint & causes or any(k[0] in EVENTS and k[1] in causes for k in s.detail.get("keys", ()))
    }
    if not resting:
        places = {(path, line), *also}
        resting = {s.id for s in scores if (s.path, s.line) in places}
    if not resting or resting & main:
        return None
    reports = {e.id: e for e in trace.of("REPORT")}
    figures = [figure for number, figure in trace.beside.items() if reports[number].scores & resting]
    return min(figures, key=lambda f: float(f.value), default=None)


def set_aside(trace: Trace) -> None:
    """For a script of which nothing is stated: sets ``trace.chosen`` to all reports but those of other figures.

    Where the last line that is printed ends in the contest's figure, under its name, earlier lines whose words say of
    no score that it is one are remarks (``drift on tokens already trained on:1.07``). Whoever puts such a figure
    forward prints it last, or under the name. The same goes for what the last line tells beside the figure
    (``val_bpb:1.09 fit:1.02``).
    """
    active = [e for e in trace.of("REPORT", active=True) if e.scores]
    words = active[-1].detail.get("words") if active else None
    if trace.chosen is not None or trace.unfollowed or words is None:
        return
    if beside := active[-1].detail["beside"]:
        active[-1].scores -= beside
    elif not _NAMED.search(words):
        return
    asides = {e.id for e in active[:-1] if (said := e.detail.get("words")) and _LETTERS.sub("", said.lower()) and not _SCORE.search(said)}
    if any(e.scores & active[-1].scores for e in active if e.id in asides):
        asides.clear()
    if asides or beside:
        _choose(trace, frozenset(e.id for e in active if e.id not in asides))


def scores_beside(figures: Iterable[tuple[str, frozenset]]) -> frozenset:
    """The scores that a line only tells of, beside the contest's figure under its name.

    ``figures``: what is written right before each figure, and the scores that it is made of.
    """
    under_the_name: set[int] = set()
    others: set[int] = set()
    for words, scores in figures:
        if _NAMED.search(words):
            under_the_name |= scores
        elif _LETTERS.sub("", words.lower()) and not _SCORE.search(words):
            others |= scores
        else:
            return frozenset()
    return frozenset(others - under_the_name) if under_the_name else frozenset()


def _choose(trace: Trace, reports: frozenset[int]) -> None:
    trace.chosen = reports
    reported = trace.reported_scores()
    for c in trace.conflicts:
        c.reported = bool(c.scores & reported)
    for s in trace.dormant_scores:
        if s.detail.get("reported"):
            s.detail["reported"] = any((x.path, x.line) == (s.path, s.line) and x.id in reported for x in trace.of("SCORE"))


__all__ = ["narrow", "put_forward", "scores_beside", "set_aside"]
