"""Runs every case and prints who was caught by what: ``python -m harness.mutants``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from audit.contracts import Exit
from harness.mutants.cases import Entry, entries
from harness.mutants.lab import make_lab
from harness.probe.probes import Fired

HEAD = """# Cheats and look-alikes

Made by `python -m harness.mutants --write docs/mutants.md`; a test makes it again and compares.

Every cheat below changes the score or the record of an evaluation in a way that matters, and is caught by the
mechanism in bold. The mechanisms see artifact, tokenizer, shards, scorecard and black-box answers; none of them
looks at the cheat's code, and no cheat tells on itself. Further mechanisms that fired are named after it. Of the
benign cases none may be accused of anything.

*Evaluators* own their whole loop and are probed from outside (`harness/probe`). *Adaptation* and *model* cases run
inside the strict evaluator. *Scorecard* cases tamper with what it wrote. Bits per byte are those of a laboratory
model with random weights: they show that a number moved, nothing more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case and what fired. ``right``: caught by its mechanism, or benign and silent."""

    entry: Entry
    fired: list[Fired]
    bits_per_byte: float | None

    @property
    def mechanisms(self) -> list[str]:
        return list(dict.fromkeys(f.mechanism for f in self.fired))

    @property
    def right(self) -> bool:
        return not self.fired if self.entry.expected is None else self.entry.expected in self.mechanisms


def run_all(folder: Path, tell: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """Every case in a laboratory of its own under ``folder``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are too small for more
    try:
        lab = make_lab(folder / "lab")
        rows = []
        for number, entry in enumerate(entries()):
            fired, bpb = entry.run(lab, folder / f"{number:02d}")
            rows.append(Row(entry=entry, fired=fired, bits_per_byte=bpb))
            tell(rows[-1])
        return rows
    finally:
        torch.set_num_threads(threads)


def markdown(rows: list[Row]) -> str:
    """The page ``docs/mutants.md``."""
    cheats = [r for r in rows if r.entry.expected is not None]
    benign = [r for r in rows if r.entry.expected is None]
    honest = next(r.bits_per_byte for r in benign if r.bits_per_byte is not None)
    lines = [HEAD, f"## {len(cheats)} cheats", "", "| cheat | where | what it does | caught by | bits per byte |", "|---|---|---|---|---|"]
    for r in cheats:
        named = [m for m in r.mechanisms if m != r.entry.expected]
        found = f"**{r.entry.expected}**" + (f", {', '.join(named)}" if named else "") if r.right else "**not caught**"
        lines.append(f"| {r.entry.name} | {r.entry.where} | {r.entry.what} | {found} | {_figure(r, honest)} |")
    lines += ["", f"## {len(benign)} benign cases", "", "| case | where | what it does | accused of |", "|---|---|---|---|"]
    for r in benign:
        lines.append(f"| {r.entry.name} | {r.entry.where} | {r.entry.what} | {', '.join(r.mechanisms) or 'nothing'} |")
    return "\n".join(lines) + "\n"


def _figure(row: Row, honest: float | None) -> str:
    if row.bits_per_byte is None or honest is None:
        return "as recorded"
    return f"{row.bits_per_byte:.2f} (honest {honest:.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.mutants", description=__doc__)
    parser.add_argument("--write", metavar="FILE", help="also write the table as Markdown")
    args = parser.parse_args()

    def tell(row: Row) -> None:
        verdict = "ok  " if row.right else "FAIL"
        said = row.fired[0].what if row.fired else "nothing fired"
        print(f"{verdict} {row.entry.name:<24} {', '.join(row.mechanisms) or '-':<50} {said[:100]}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        rows = run_all(Path(folder), tell)
    wrong = [r for r in rows if not r.right]
    cheats = sum(r.entry.expected is not None for r in rows)
    print(f"{cheats} cheats, {len(rows) - cheats} benign cases, {len(wrong)} judged wrongly")
    if args.write:
        Path(args.write).write_text(markdown(rows), encoding="utf-8")
    return int(Exit.VIOLATION if wrong else Exit.OK)


if __name__ == "__main__":
    sys.exit(main())
