"""A result without its repetitions, for people: what is said of several rules, seeds or places is said once.

Text and Markdown are made from this form. The document itself, and so JSON and SARIF, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: the worst comes first
_ORDER = {"violation": 0, "undetermined": 1, "clean": 2}
_FIGURE = re.compile(r"[\w./-]*\.(?:log|txt|out|json|md):\d+|[-+]?\d[\d,_]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
#: beginning of a reason -> what whoever reads it can do
_ADVICE = {
    "no place was found where validation tokens are scored": "audit the script that evaluates, or the folder that holds it "
    "and what it imports",
    "the known settings score no validation token": "give the settings of the evaluation: --env NAME=VALUE",
    "nothing of the submission prints the stated score's line": "submit the script that printed it",
    "the program could not be traced": "see what S1, S2 and S3 could not read",
}


def for_people(submissions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The worst first; of several scripts of one target each with its own in its heading."""
    found = sorted(submissions, key=lambda s: _ORDER.get(s["verdict"], 1))
    targets = [s.get("target") for s in found]
    return [_condensed(s, several=targets.count(s.get("target")) > 1) for s in found]


def _condensed(s: dict[str, Any], several: bool) -> dict[str, Any]:
    name = s.get("target") or ""
    if several and s.get("primary") and s["primary"] != name:
        name = f"{name} {s['primary']}"
    return {**s, "heading": name, "findings": findings(s["findings"]), "obligations": obligations(s["obligations"])}


def obligations(several: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """What was not shown for one and the same reason, as one line that names its rules: ``F1–F10, D3``."""
    groups: dict[tuple[str, str], list[str]] = {}
    whole = list(several)
    for o in whole:
        if o["status"] == "undetermined":
            groups.setdefault((o["status"], o["reason"]), []).append(o["rule"])
    out = []
    for o in whole:
        if o["status"] != "undetermined":
            out.append(o)
        elif rules := groups.pop((o["status"], o["reason"]), []):
            out.append({**o, "rule": ranges(rules), "advice": advice(o["reason"])})
    return out


def ranges(rules: list[str]) -> str:
    """``F1 F2 F3 F10 D3`` -> ``F1–F3, F10, D3``."""
    runs: list[list[str]] = []
    for rule in rules:
        letter, number = rule[:1], rule[1:]
        last = runs[-1][-1] if runs else ""
        if runs and number.isdigit() and last[:1] == letter and last[1:].isdigit() and int(number) == int(last[1:]) + 1:
            runs[-1].append(rule)
        else:
            runs.append([rule])
    return ", ".join(f"{run[0]}\N{EN DASH}{run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


def advice(reason: str) -> str:
    """What can be done about a reason; "" where nothing general can be said."""
    return next((text for start, text in _ADVICE.items() if reason.startswith(start)), "")


def findings(several: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Findings from papers that differ by their figures alone (one per seed, say) as one, with ``also``: the others' places."""
    out: list[dict[str, Any]] = []
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for f in several:
        shown = {**f, "trace": steps(f), "also": []}
        key = _kind(f)
        if key is not None and (one := first.get(key)) is not None:
            _add(one["also"], f["path"], f["line"])
            continue
        if key is not None:
            first[key] = shown
        out.append(shown)
    return out


def _add(places: list[str], path: str, line: int) -> None:
    """One entry per file: ``train_seed42.log:106, 107``."""
    if places and places[-1].startswith(f"{path}:"):
        places[-1] += f", {line}"
    else:
        places.append(f"{path}:{line}")


def _kind(f: dict[str, Any]) -> tuple[Any, ...] | None:
    """What a finding from papers has in common with one of another seed; None for others: their source lines tell them apart."""
    if f.get("basis", "source") != "log" or f["severity"] == "note" or f.get("suppressed"):
        return None
    message = re.sub(r"# to #", "#", _FIGURE.sub("#", f["message"]))
    return (f["rule"], f["severity"], f["authority"], f["confidence"], f["active"], f.get("gate"), message)


def steps(f: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a finding that say more than it does itself: no step twice, and none alone that repeats its message or line."""
    out: list[dict[str, Any]] = []
    papers = f.get("basis", "source") == "log"
    seen = {(f["path"], f["line"])} if papers else set()
    for step in f["trace"]:
        place = (step["path"], step["line"])
        if place in seen and (papers or (out and out[-1] == step)):
            continue
        seen.add(place)
        out.append(step)
    if len(out) == 1 and (out[0]["message"] in f["message"] or _same(out[0], f)):
        return []
    return out


def _same(step: dict[str, Any], f: dict[str, Any]) -> bool:
    return (step["path"], step["line"], step["message"]) == (f["path"], f["line"], f["message"])
