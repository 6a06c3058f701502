#!/usr/bin/env python3
"""How often the auditor is right on labelled submissions.

usage: audit_accuracy.py REPO LABELS.csv [--split dev|held-out|all] [--misses] [--jobs N]

Audits every labelled commit of the local git repository REPO and compares the verdicts with the
labels. LABELS has the columns pr, head_sha, path, verdict (legal | illegal | grey), rules,
ttt_kind, cache_kind and authority. A label is matched by commit and path; without a path match,
by the worst verdict among the commit's submissions. Grey labels are not counted.

The split depends on the pull-request number alone: those with int(sha256(str(pr))) % 10 < 7 are
``dev``, on which the auditor was developed; the rest are ``held-out`` and were only measured.

Counted is what the source shows: illegal labels whose every rule needs logs or data, and accusations
by such rules alone, are left out (``--with-evidence`` counts them). The last line is the result as
one JSON object, with a section for each split.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from audit.context import Options
from audit.contracts import InputError
from audit.sweep import Cache, Plan, Ref, sweep_refs

FAMILY = {
    rule: family
    for family, rules in {
        "order": "F1 F2 F3 F13", "slot": "F5 F6", "cache": "F4 F8 F9 F10", "gate": "F7 F16 F17",
        "calibration": "F11 F14", "content": "F15", "boundary": "F12", "overlap": "D1",
        "metric": "D2 M1 M2 M3", "size": "B1 B2", "time": "B3 B4", "network": "B5",
    }.items()
    for rule in rules.split()
}  # fmt: skip
#: rules that a script alone cannot show
EVIDENCE = frozenset(["B1", "D1", "D2", "B3", "B4", "M1", "F12", "other"])
WORST = {"violation": 2, "undetermined": 1, "clean": 0}
SPLITS = ("dev", "held-out")

Row = dict[str, str]
Line = dict[str, Any]


def split_of(pr: str) -> str:
    return "dev" if int(hashlib.sha256(pr.encode()).hexdigest(), 16) % 10 < 7 else "held-out"


def judge(row: Row, lines: list[Line], source_only: bool) -> tuple[str, list[str], Line | None]:
    """(verdict, rules that accuse, the line whose kinds count) of one label; verdict "absent" without lines."""
    found = [x for x in lines if x["primary"] == row["path"]] or lines
    if not found:
        return "absent", [], None
    verdict = max((x["verdict"] for x in found), key=lambda v: WORST.get(v, 1))
    hits = [
        f["rule"]
        for x in found
        for f in x["findings"]
        if f["severity"] == "violation" and f["active"] != "no"
    ]
    if source_only and verdict == "violation" and hits and all(h in EVIDENCE for h in hits):
        verdict, hits = "clean", []
    return verdict, hits, found[0]


def score(rows: list[Row], by_commit: dict[str, list[Line]], source_only: bool) -> tuple[Line, list[str]]:
    """The figures of one split, and its misses in words."""
    n: Counter[str] = Counter()
    families = 0
    misses = []
    for row in rows:
        rules = [r for r in row["rules"].split(";") if r]
        label = row["verdict"]
        if source_only and label == "illegal" and all(r in EVIDENCE for r in rules):
            continue
        verdict, hits, line = judge(row, by_commit.get(row["head_sha"], []), source_only)
        n[label] += 1
        n[f"{label} {verdict}"] += 1
        if label == "legal" and row["authority"] == "merged":
            n["merged"] += 1
            n[f"merged {verdict}"] += 1
        wrong = []
        if line is not None:
            n["kinds"] += 1
            for kind in ("ttt", "cache"):
                right = line[kind]["kind"] == row[f"{kind}_kind"]
                n[f"{kind} right"] += right
                if not right:
                    wrong.append(f"{kind} {row[f'{kind}_kind']} got {line[kind]['kind']}")
        family_right = True
        if label == "illegal" and verdict == "violation":
            accused = {FAMILY.get(h, h) for h in hits}
            family_right = bool(accused & {FAMILY.get(r, r) for r in rules})
            n["family right"] += family_right
            n["rule right"] += bool(set(hits) & set(rules))
            families += len(accused)
        expected = {"illegal": "violation", "legal": "clean"}.get(label, verdict)
        if verdict != expected or not family_right or wrong:
            said = "+".join(sorted(set(hits))) or "-"
            why = line["reason"][:150] if line is not None and verdict == "undetermined" else ""
            misses.append(
                f"#{row['pr']} {label} [{row['rules']}] ({row['authority']}) got {verdict} by {said} "
                f"{'; '.join(wrong)} {row['path']} {why}"
            )

    def share(part: str, whole: str) -> float | None:
        return round(n[part] / n[whole], 4) if n[whole] else None

    figures = {
        "illegal": n["illegal"], "illegal_found": share("illegal violation", "illegal"),
        "illegal_called_clean": share("illegal clean", "illegal"),
        "illegal_undetermined": share("illegal undetermined", "illegal"),
        "legal": n["legal"], "legal_clean": share("legal clean", "legal"),
        "legal_accused": share("legal violation", "legal"), "legal_undetermined": share("legal undetermined", "legal"),
        "merged": n["merged"], "merged_accused": n["merged violation"], "merged_clean": n["merged clean"],
        "family_right": share("family right", "illegal violation"), "rule_right": share("rule right", "illegal violation"),
        "families_per_accusation": round(families / n["illegal violation"], 3) if n["illegal violation"] else None,
        "ttt_kind_right": share("ttt right", "kinds"), "cache_kind_right": share("cache right", "kinds"),
        "grey": n["grey"], "grey_violation": n["grey violation"],
        "absent": n["illegal absent"] + n["legal absent"] + n["grey absent"],
    }  # fmt: skip
    return figures, misses


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("labels", metavar="LABELS")
    parser.add_argument("--split", choices=(*SPLITS, "all"), default="all")
    parser.add_argument("--with-evidence", action="store_true", help="count what only logs and data show")
    parser.add_argument("--misses", action="store_true", help="print every label that is not met")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cache", type=Path, help="a sweep's cache file to use (default: none)")
    args = parser.parse_args()
    try:
        with open(args.labels, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        chosen = [s for s in SPLITS if args.split in (s, "all")]
        rows = [r for r in rows if split_of(r["pr"]) in chosen]
        refs = [Ref(f"#{pr}", sha) for sha, pr in {r["head_sha"]: r["pr"] for r in rows}.items()]
        start = time.monotonic()
        plan = Plan(repo=args.repo, globs=(), options=Options(), jobs=args.jobs)
        by_commit: dict[str, list[Line]] = defaultdict(list)
        for _ref, lines, _cached in sweep_refs(refs, plan, Cache(args.cache)):
            for line in lines:
                by_commit[line["commit"]].append(line)
    except (OSError, KeyError, UnicodeDecodeError) as error:
        print(f"audit_accuracy: {args.labels}: not a table of labels ({error})", file=sys.stderr)
        return 2
    except InputError as error:
        print(f"audit_accuracy: {error}", file=sys.stderr)
        return 2
    result: Line = {"benchmark": "audit_accuracy", "source_only": not args.with_evidence}
    for split in chosen:
        part = [r for r in rows if split_of(r["pr"]) == split]
        figures, misses = score(part, by_commit, not args.with_evidence)
        result[split] = figures
        print(f"{split}:")
        for name, value in figures.items():
            print(f"  {name:<26}{value}")
        if args.misses:
            print("\n".join(f"    {miss}" for miss in misses))
    result["seconds"] = round(time.monotonic() - start, 1)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
