"""What a run's log shows about its knobs: dumps of hyper-parameters, and lines that only one branch prints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from audit import ir
from audit.knobs.branches import Condition, branches, settled
from audit.knobs.declared import spelled
from audit.knobs.model import Claim, Declaration
from audit.source.files import SubmissionFiles

DUMP, BRANCH = 80, 70
#: where no log comes near the stated score, all are of other runs: what README and metadata state stands above them
DUMP_ELSEWHERE, BRANCH_ELSEWHERE = 44, 43
#: bits per byte within which seeds of one configuration lie, and how many of a log's last figures are looked at
NEAR, LAST = 0.02, 4
MAX_LOGS, MAX_LOG, MAX_HEAD = 8, 8 * 2**20, 120_000

_PAIR = re.compile(
    r"""(?<![\w.])["']?(?P<name>[A-Za-z_]\w*)["']?(?P<sep>\s*[:=]\s*)(?P<value>"[^"\n]*"|'[^'\n]*'|[^\s,;})\]]+)"""
)
_LITERAL = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|True|False|true|false")
_WORD = re.compile(r"[\w./+-]{1,80}")
_BPB = re.compile(r"bpb\w*\s*[:=]?\s*(\d\.\d{3,})", re.I)
_RULE = re.compile(r"\n[=\-*#]{20,}")


@dataclass(frozen=True, slots=True)
class Log:
    """A log without the program text that many scripts print first; ``line`` is where ``text`` starts.

    ``behind``: may it be a log of the run that the stated score is of.
    """

    path: str
    text: str
    line: int
    behind: bool = True


def read_logs(files: SubmissionFiles) -> list[Log]:
    """The logs of the reported runs: those with a score that ``submission.json`` states, else all."""
    stated = _stated(files)
    every, reported = [], []
    for path in files.logs()[: 4 * MAX_LOGS]:
        data = files.read(path)
        if data is None or len(data) > MAX_LOG:
            continue
        log = _without_program(path, data.decode("utf-8", "replace"))
        every.append(log)
        if stated and any(_close(float(m), stated) for m in _BPB.findall(log.text)):
            reported.append(log)
    if not reported and stated and every:
        near = [x for x in every if any(_close(float(m), stated, NEAR) for m in _BPB.findall(x.text)[-LAST:])]
        reported = near or [replace(x, behind=False) for x in every]
    return (reported or every)[:MAX_LOGS]


def _stated(files: SubmissionFiles) -> list[tuple[float, float]]:
    """Scores in submission.json with at least four decimals, each with its rounding."""
    found: list[tuple[float, float]] = []
    for path in files.ending("submission.json"):
        for number in re.findall(r"[:\[\s](\d\.\d{4,})", files.text(path) or ""):
            found.append((float(number), 0.51 * 10.0 ** -(len(number) - 2)))
    return [(v, r) for v, r in found if 0.05 < v < 4]


def _close(value: float, stated: list[tuple[float, float]], least: float = 0.0) -> bool:
    return any(abs(value - number) <= max(radius, least) for number, radius in stated)


def _without_program(path: str, text: str) -> Log:
    last = max(text.rfind("\ndef "), text.rfind("\nif __name__"), text.rfind("\n    def "))
    if last < 0:
        return Log(path, text, 1)
    rule = _RULE.search(text, last)
    start = rule.start() + 1 if rule else text.find("\n\n", last)
    start = max(start, 0)
    return Log(path, text[start:], text.count("\n", 0, start) + 1)


def claims(
    files: SubmissionFiles,
    declared: Mapping[str, Declaration],
    modules: Mapping[str, ir.Module],
    commands: Sequence[Claim] = (),
) -> Iterator[Claim]:
    """Statements of the reported runs' logs. A log contributes each knob once.

    ``commands``: what other papers state, for knobs of which a log shows only a condition.
    """
    logs = read_logs(files)
    if not logs:
        return
    names = _names(declared)
    shown = list(branches(declared, modules))
    stated: dict[str, list[str]] = {}
    for claim in sorted(commands, key=lambda c: -c.rank):
        stated.setdefault(claim.name, []).append(claim.value)
    for log in logs:
        seen: dict[str, Claim] = {}
        for claim in _dumped(log, declared, names):
            # A log may begin with a rehearsal: of a switch, what was printed last is the run that ended in the score.
            if claim.name not in seen or claim.value in ("0", "1"):
                seen[claim.name] = claim
        for claim in seen.values():
            yield claim if log.behind else replace(claim, rank=DUMP_ELSEWHERE)
        met: dict[str, tuple[int, list[Condition]]] = {}
        missed: list[tuple[int, Condition]] = []
        for branch in shown:
            if (match := branch.found(log.text)) is not None:
                number = log.line + log.text.count("\n", 0, match.start())
                for condition in branch.conditions:
                    met.setdefault(condition.name, (number, []))[1].append(condition)
            elif log.behind and (match := branch.missed(log.text)) is not None:
                number = log.line + log.text.count("\n", 0, match.start())
                missed += [(number, condition) for condition in branch.otherwise]
        for number, condition in missed:
            if condition.name not in met:
                met[condition.name] = (number, [condition])
        for name, (number, conditions) in met.items():
            value = settled(conditions, stated.get(name, ()), declared[name].default)
            if value is not None:
                rank = BRANCH if log.behind else BRANCH_ELSEWHERE
                yield Claim(name=name, value=value, source="log", path=log.path, line=number, rank=rank)


def _names(declared: Mapping[str, Declaration]) -> dict[str, str]:
    """Printed name -> knob. A name that two knobs share tells nothing."""
    found: dict[str, str] = {}
    shared: set[str] = set()
    for item in declared.values():
        for name in {item.name.lstrip("-").replace("-", "_"), item.attr} - {""}:
            for spelling in {name, name.lower()}:
                if found.setdefault(spelling, item.name) != item.name:
                    shared.add(spelling)
    exact = {d.name: d.name for d in declared.values()}
    return {k: v for k, v in found.items() if k not in shared} | exact


def _dumped(log: Log, declared: Mapping[str, Declaration], names: Mapping[str, str]) -> Iterator[Claim]:
    for offset, line in enumerate(log.text[:MAX_HEAD].split("\n")):
        if len(line) > 20_000 or ("=" not in line and ":" not in line):
            continue
        for match in _PAIR.finditer(line):
            name = names.get(match["name"])
            if name is None:
                continue
            value = match["value"].strip("\"'").rstrip(".")
            alone = line.strip() == match[0].strip()
            known = declared[name].default
            if not _LITERAL.fullmatch(value):
                # Words: only where the whole line is the pair, or the knob holds words.
                if not (alone or (known and not _LITERAL.fullmatch(known))) or not _WORD.fullmatch(value):
                    continue
                if value in (
                    "None",
                    "enabled",
                    "disabled",
                    "on",
                    "off",
                    "loaded",
                    "done",
                    "starting",
                    "start",
                ):
                    continue
            elif not alone and "_" not in match["name"] and value.lower() not in ("true", "false"):
                continue  # `lr: 0.31` in a progress line is not the knob
            yield Claim(
                name=name, value=spelled(value, known) if not name.startswith("-") else value,
                source="log", path=log.path, line=log.line + offset, rank=DUMP,
            )  # fmt: skip
