#!/usr/bin/env python3
"""How much of the papers of real submissions is read, how rightly, how fast.

usage: evidence.py REPO [--labels LABELS] [--split dev|held-out|all] [--no-speed]

REPO is a local git repository with pull-request heads (refs/pull/N/head); nothing is checked out and
nothing executed. Printed are

- coverage: of all submissions with a log, how many give a fact of each kind;
- precision: the facts of the folders in ``fixtures/records/readings.json``, which were read by a person,
  extracted again: how many of those that are still extracted were marked right;
- labels (with --labels): of the submissions that LABELS calls illegal for size, byte accounting, overlap
  or a partial set (B1, M1, D1, D2), how many the papers alone accuse by that rule, and who is accused
  that is legal. The split is by the pull-request number: int(sha256(str(pr))) % 10 < 7 is dev;
- speed: seconds for 200 MB of generated logs on one core (no limit is asserted).

The last line is the result as one JSON object.
"""

from __future__ import annotations

import argparse
import collections
import csv
import hashlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from audit.context import Context, Facts  # noqa: E402
from audit.evidence import read_facts  # noqa: E402
from audit.evidence.logs import read_log  # noqa: E402
from audit.model import Fact, Finding  # noqa: E402
from audit.rules.base import rule_modules  # noqa: E402
from audit.source import SubmissionFiles, load_program, open_git  # noqa: E402
from audit.source.git import open_repository  # noqa: E402

READINGS = ROOT / "fixtures" / "records" / "readings.json"
SPEED_BYTES = 200_000_000
OWN = {"B1", "D1", "D2", "M1"}


def heads(repo: Any) -> list[str]:
    found = [r for r in repo.references if r.startswith("refs/pull/") and r.endswith("/head")]
    return sorted(found, key=lambda r: int(r.split("/")[2]))


def kind_of(fact: Fact) -> str:
    """The fact's kind and the paper it comes from: ``log.val_bpb``, ``readme.steps``, ``json.bytes_total``."""
    name = "setting" if fact.name.startswith(("setting.", "knob.")) else fact.name
    name = "claim" if name.startswith("claim.") else name
    low = fact.path.lower()
    source = "json" if low.endswith(".json") else "readme" if low.endswith((".md", ".rst")) else "log"
    return f"{source}.{name}"


def coverage(repo: Any) -> dict[str, Any]:
    kinds: collections.Counter[str] = collections.Counter()
    total = with_log = with_fact = crashes = 0
    for ref in heads(repo):
        try:
            opened = open_git(repo, ref)
        except Exception as error:
            crashes += 1
            print(f"{ref}: {type(error).__name__}: {error}")
            continue
        for files in opened:
            if files.primary is None:
                continue
            total += 1
            try:
                facts = read_facts(files)
            except Exception as error:
                crashes += 1
                print(f"{ref} {files.primary}: {type(error).__name__}: {error}")
                continue
            if files.logs():
                with_log += 1
                found = {kind_of(f) for f in facts}
                with_fact += any(k.startswith("log.") for k in found)
                kinds.update(found)
    print(
        f"{total} submissions, {with_log} with a log, {with_fact} of these with a fact from a log, {crashes} crashes"
    )
    for name, count in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"  {name:28} {count:5}  {count / max(with_log, 1):6.1%}")
    return {
        "submissions": total, "with_log": with_log, "with_log_fact": with_fact, "crashes": crashes,
        "share": round(with_fact / max(with_log, 1), 4),
        "kinds": {name: round(count / max(with_log, 1), 4) for name, count in sorted(kinds.items())},
    }  # fmt: skip


def precision(repo: Any) -> dict[str, Any]:
    """Extracts the read folders again; a fact is known by name, value, file and line."""
    readings = json.loads(READINGS.read_text(encoding="utf-8"))
    right: collections.Counter[str] = collections.Counter()
    wrong: collections.Counter[str] = collections.Counter()
    gone = 0
    for folder in readings["folders"]:
        files = next(s for s in open_git(repo, folder["commit"]) if s.primary == folder["primary"])
        found = {(f.name, str(f.value), f.path.rpartition("/")[2], f.line): f for f in read_facts(files)}
        for name, value, path, line, ok in folder["facts"]:
            fact = found.get((name, value, path, line))
            if fact is None:
                gone += ok
            else:
                (right if ok else wrong)[kind_of(fact)] += 1
    rows = {}
    for kind in sorted({*right, *wrong}):
        read = right[kind] + wrong[kind]
        rows[kind] = {"read": read, "right": right[kind]}
        print(f"  {kind:28} {right[kind]:4} of {read:4} right")
    whole = sum(right.values()) + sum(wrong.values())
    print(
        f"{len(readings['folders'])} folders: {sum(right.values())} of {whole} facts right, {gone} right ones no longer found"
    )
    return {
        "folders": len(readings["folders"]), "read": whole, "right": sum(right.values()), "no_longer_found": gone,
        "precision": round(sum(right.values()) / max(whole, 1), 4), "kinds": rows,
    }  # fmt: skip


def judge(files: SubmissionFiles) -> list[Finding]:
    """What the papers alone say by B1, D1, D2 and M1 (the script is unpacked for its size, not traced)."""
    ctx = Context(files=files, primary=files.primary or "", facts=Facts(read_facts(files)))
    program = load_program(files)
    ctx.modules, ctx.sources, ctx.peeled = program.modules, program.sources, program.peeled
    found = []
    for rule in sorted(OWN):
        for item in rule_modules()[rule].check(ctx):
            if (
                isinstance(item, Finding)
                and item.severity == "violation"
                and item.confidence != "low"
                and item.basis == "log"
            ):
                found.append(item)
    return found


def labels(repo: Any, path: str, split: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for part in ("dev", "held-out") if split == "all" else (split,):
        found = illegal = legal = accused = merged_accused = 0
        missed: list[str] = []
        with open(path, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            dev = int(hashlib.sha256(row["pr"].encode()).hexdigest(), 16) % 10 < 7
            if dev != (part == "dev"):
                continue
            ids = set(row["rules"].split(";")) & OWN
            if row["verdict"] == "grey" or (row["verdict"] == "illegal" and not ids):
                continue
            opened = open_git(repo, row["head_sha"])
            chosen = [s for s in opened if s.primary == row["path"]] or opened
            hits = {f.rule for s in chosen if s.primary for f in judge(s)}
            if row["verdict"] == "illegal":
                illegal += 1
                found += bool(hits & ids)
                if not hits & ids:
                    missed.append(row["pr"])
            else:
                legal += 1
                accused += bool(hits)
                merged_accused += bool(hits) and row["authority"] == "merged"
        print(
            f"{part}: {found} of {illegal} illegal by their own rule ({found / max(illegal, 1):.3f}); "
            f"{accused} of {legal} legal accused, {merged_accused} of them merged"
            + (f"; missed {', '.join(missed)}" if part == "dev" and missed else "")
        )
        out[part] = {
            "illegal": illegal, "found_by_own_rule": found, "recall": round(found / max(illegal, 1), 4),
            "legal": legal, "accused": accused, "merged_accused": merged_accused,
        }  # fmt: skip
    return out


class Generated(io.RawIOBase):
    """A stream of logs in two dialects, repeated up to a size, that is never held as a whole."""

    def __init__(self, size: int) -> None:
        sys.path.insert(0, str(ROOT / "fixtures" / "records"))
        from build import Seed, spaced, tight

        run = Seed(seed=1337, bpb=1.1145)
        steps = "".join(
            f"step:{n}/20000 train_loss:{2.9 - n / 9000:.4f} train_time:{95 * n}ms step_avg:95.00ms\n"
            for n in range(1, 6331)
        )
        chunks = "".join(
            f"  ttt_chunk [{n}/1893] bpb={1.2 - n / 30000:.6f} time={n * 0.2:.1f}s\n" for n in range(1893)
        )
        self.block = (
            tight(run).replace("stopping_early", steps + "stopping_early") + chunks + spaced(run)
        ).encode()
        self.left, self.at = size, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = min(size if size >= 0 else self.left, self.left)
        parts, need = [], size
        while need > 0:
            part = self.block[self.at : self.at + need]
            parts.append(part)
            need -= len(part)
            self.at = (self.at + len(part)) % len(self.block)
        self.left -= size
        return b"".join(parts)


def speed() -> dict[str, Any]:
    start = time.process_time()
    facts = sum(1 for _ in read_log("generated.log", Generated(SPEED_BYTES)))  # type: ignore[arg-type, misc]
    seconds = time.process_time() - start
    print(f"{SPEED_BYTES / 1e6:.0f} MB of logs: {seconds:.2f} s on one core, {facts} facts")
    return {"megabytes": SPEED_BYTES / 1e6, "seconds": round(seconds, 2), "facts": facts}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repo", metavar="REPO", nargs="?")
    parser.add_argument("--labels")
    parser.add_argument("--split", choices=("dev", "held-out", "all"), default="all")
    parser.add_argument("--no-speed", action="store_true")
    args = parser.parse_args(argv)
    result: dict[str, Any] = {}
    if args.repo:
        repo = open_repository(args.repo)
        result["coverage"] = coverage(repo)
        if READINGS.is_file():
            result["precision"] = precision(repo)
        if args.labels:
            result["labels"] = labels(repo, args.labels, args.split)
    if not args.no_speed:
        result["speed"] = speed()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
