#!/usr/bin/env python3
"""How long an audit takes from a cold process, parse included, and where the time goes.

usage: audit_speed.py FILE... [--repeat N]

Each FILE is audited N times in a fresh interpreter, as ``referee audit FILE`` would do it; wall-clock
time from start to exit counts. Of the repeats the median stands for the file. The stages are those of
``--timings`` (medians over files), "start" is what lies outside them: the interpreter, imports, the
command line. Processor time is given too: on a busy machine it is the steadier figure. The auditor is compiled
to bytecode first, as its installation does; without that (``PYTHONDONTWRITEBYTECODE`` is set, say) each process
compiles some 190 modules anew, which takes longer than the audit. The last line is the result as one JSON object.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_STAGE = re.compile(r"^\s*([a-z]+)\s+([\d.]+) s$", re.M)


def once(path: str) -> tuple[float, float, dict[str, float]]:
    """Seconds of one cold audit, its processor time, and its stages. Raises SystemExit where the audit fails."""
    command = [sys.executable, "-m", "audit", "audit", path, "--format", "json", "--timings"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1, 3):
        print(f"audit_speed: {path}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        raise SystemExit(2)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, {name: float(value) for name, value in _STAGE.findall(done.stderr)}


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="runs per file (default: %(default)s)"
    )
    args = parser.parse_args()
    compileall.compile_dir(ROOT / "audit", quiet=1)
    totals: list[float] = []
    cpus: list[float] = []
    lines: list[int] = []
    stages: dict[str, list[float]] = {}
    for path in args.files:
        if not Path(path).is_file():
            print(f"audit_speed: {path}: no such file", file=sys.stderr)
            return 2
        runs = [once(str(Path(path).resolve())) for _ in range(max(1, args.repeat))]
        seconds, cpu, parts = sorted(runs, key=lambda run: run[0])[len(runs) // 2]
        count = Path(path).read_bytes().count(b"\n") + 1
        totals.append(seconds)
        cpus.append(cpu)
        lines.append(count)
        parts["start"] = max(0.0, seconds - sum(parts.values()))
        for name, value in parts.items():
            stages.setdefault(name, []).append(value)
        print(f"{seconds:7.3f} s {count:6} lines  {path}")
    result = {
        "benchmark": "audit_speed", "files": len(totals), "repeat": args.repeat,
        "median_lines": statistics.median(lines), "median_s": round(statistics.median(totals), 3),
        "p95_s": round(quantile(totals, 0.95), 3), "max_s": round(max(totals), 3),
        "median_cpu_s": round(statistics.median(cpus), 3),
        "stages_median_s": {k: round(statistics.median(v), 4) for k, v in stages.items()},
        "cpus": os.cpu_count(), "python": sys.version.split()[0],
    }  # fmt: skip
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
