"""A sweep in one table: verdicts, the rules behind them, what was not shown and why."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import Any

from audit.wording import counted

VERDICTS = ("violation", "clean", "undetermined")


class Tally:
    """Counts over lines, one at a time: a sweep's lines need not all be in memory."""

    def __init__(self) -> None:
        self.refs = self.lines = self.cached = self.without_script = 0
        self.verdicts: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.lost: list[str] = []

    def add(self, lines: Iterable[dict[str, Any]], cached: bool) -> None:
        self.refs += 1
        self.cached += cached
        for line in lines:
            self.lines += 1
            if line["primary"] is None:
                self.without_script += 1
                continue
            self.verdicts[line["verdict"]] += 1
            found = line["findings"]
            self.rules.update(
                {
                    f"{f['rule']} {f['name']}"
                    for f in found
                    if f["severity"] == "violation" and "suppressed" not in f
                }
            )
            self.warnings.update({f"{f['rule']} {f['name']}" for f in found if f["severity"] == "warning"})
            if line["verdict"] == "undetermined":
                self.open[_kind(line["reason"])] += 1
            if "the audit did not end" in line["reason"] or "the audit failed" in line["reason"]:
                self.lost.append(f"{line['ref']} {line['primary']}: {line['reason']}")

    def as_json(self) -> dict[str, Any]:
        return {
            "refs": self.refs, "lines": self.lines, "cached_refs": self.cached,
            "without_script": self.without_script, "verdicts": {v: self.verdicts[v] for v in VERDICTS},
            "lost": len(self.lost),
        }  # fmt: skip

    def table(self) -> str:
        """For people: the counts, most frequent first."""
        judged = sum(self.verdicts.values())
        rows = [
            f"{counted(self.refs, 'ref')}, {counted(self.lines, 'line')}, {self.without_script} without a script, "
            f"{counted(self.cached, 'ref')} from the cache",
            "",
        ]
        for verdict in VERDICTS:
            share = self.verdicts[verdict] / judged if judged else 0.0
            rows.append(f"  {verdict:<14}{self.verdicts[verdict]:>6}  {share:6.1%}")
        for title, counts in (
            ("violations by rule", self.rules),
            ("warnings by rule", self.warnings),
            ("undetermined because", self.open),
        ):
            if counts:
                rows += ["", f"{title}:"]
                rows += [f"  {count:>6}  {name}" for name, count in counts.most_common(25)]
        if self.lost:
            rows += ["", "audits that did not end:"] + [f"  {line}" for line in self.lost[:20]]
        return "\n".join(rows)


#: what begins and ends every such reason, and is said by the table's title
_FRAME = re.compile(r"^undetermined, because | could not be shown(?=: )| \(and \d+ more\)$")
#: the place that a reason begins with, and settings and places in brackets
_ASIDE = re.compile(r"(?<=: )\S+:\d+: | \((?:[^()]*=[^()]*|[^()\s]+:\d+)\)")
#: a path, a quotation, a setting's value, a number; the names of rules stay
_PARTICULAR = re.compile(r"(?<!\w)'[^']*'|\"[^\"]*\"|\S*/[^\s;,()]+|\b[A-Z][A-Z0-9_]+=[^\s,;)]+|(?<![\w.])\d[\d,._]*(?:e[-+]?\d+)?(?!\w)")
#: letters; where a longer reason is cut, between words
LONGEST = 160


def _kind(reason: str) -> str:
    """A reason without its particulars, so that equal ones add up: ``D2: the evaluation keeps to the first N tokens``."""
    plain = _PARTICULAR.sub(_masked, _ASIDE.sub("", _FRAME.sub("", reason)))
    return textwrap.shorten(plain, LONGEST, placeholder=" …")


def _masked(found: re.Match[str]) -> str:
    said = found.group()
    if said[0].isdigit():
        return "N" + said[len(said.rstrip(",.")) :]  # the comma after a number is no part of it
    return said.partition("=")[0] + "=…" if said[0].isupper() and "=" in said else "…"
