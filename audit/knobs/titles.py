"""What a submission's title says was switched on, where nothing else says anything.

A submission without logs and without commands leaves its switches at their defaults, or does not say how they were
set. Where its title names what a switch turns on ("… + standard TTT", and ``TTT_ENABLED`` is off by default), the
title is the only statement that there is, and the weakest: the switch is marked as ambiguous, and judged both ways.
It is certain where the papers call the submission's own score the one after it ("Post-TTT val_bpb | **1.1100**").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from audit.knobs.declared import spelled
from audit.knobs.model import Declaration, KnobValue
from audit.model import Fact
from audit.source.files import SubmissionFiles

_OFF = ("0", "False", "false")
#: words of a switch's name that say nothing about what it turns on
_EMPTY = frozenset(["RANK", "ENABLED", "ENABLE", "USE", "ON", "RUN", "DO", "WITH", "EVAL", "FINAL", "ACTIVE"])


def doubtful(
    files: SubmissionFiles, declared: Mapping[str, Declaration], facts: Sequence[Fact] = ()
) -> Iterator[tuple[str, KnobValue]]:
    """Switches that are off by default and named in the title. ``facts``: the figures that the papers state."""
    titles = list(_titles(files))
    for name, item in declared.items():
        words = {w for w in name.upper().lstrip("-").replace("-", "_").split("_") if w not in _EMPTY}
        if item.default not in _OFF or not any(len(w) >= 3 for w in words):
            continue
        for path, line, text in titles:
            if words <= set(re.findall(r"[A-Z0-9]+", text.upper())) and not any(
                _denied(text, w) for w in words
            ):
                yield (
                    name,
                    KnobValue(
                        value=spelled("True", item.default),
                        source="command",
                        path=path,
                        line=line,
                        ambiguous=not _scored_with(words, facts),
                    ),
                )
                break


def _denied(text: str, word: str) -> bool:
    return (
        re.search(
            rf"\b(?:no|not|non|without|w/o|sans|minus|excluding|instead of|before|pre)\W+(?:\w+\W+)?{word}\b",
            text,
            re.I,
        )
        is not None
    )


def _scored_with(words: set[str], facts: Sequence[Fact]) -> bool:
    """Does a table call the stated score the one after what the switch turns on."""
    scores = [f for f in facts if f.name in ("val_bpb", "val_bpb_mean")]
    stated = [f.raw for f in scores if f.label == "sentence" or f.path.endswith("submission.json")]
    for f in scores:
        named = {m.upper() for m in re.findall(r"\b(?:post|after|with)\W+(\w+)", f.label, re.I)}
        if named & words and f.path.endswith(".md") and any(_rounds(head, f.raw) for head in stated):
            return True
    return False


def _rounds(exact: str, shown: str) -> bool:
    """Is ``shown``, of three decimals or more, what ``exact`` rounds to."""
    decimals = len(shown.partition(".")[2])
    try:
        return decimals >= 3 and round(float(exact), decimals) == float(shown)
    except ValueError:
        return False


def _titles(files: SubmissionFiles) -> Iterator[tuple[str, int, str]]:
    for path in files.readmes()[:1]:
        for number, line in enumerate((files.text(path) or "").split("\n")[:20], 1):
            if line.startswith("# "):
                yield path, number, line
                break
    for path in files.ending("submission.json")[:1]:
        try:
            document = json.loads(files.text(path) or "")
        except (ValueError, RecursionError):
            continue
        for key in ("name", "blurb"):
            if isinstance(document, dict) and isinstance(text := document.get(key), str):
                yield path, 1, text


__all__ = ["doubtful"]
