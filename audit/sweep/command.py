"""``referee sweep``: audits every matching ref of a local repository into a JSON Lines file."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from audit.contracts import RULESET, Command, Exit, InputError
from audit.streams import say, standard_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repo", metavar="REPO", help="a local git repository; nothing is checked out")
    parser.add_argument(
        "--refs",
        action="append",
        metavar="GLOB",
        help="refs to audit; repeatable (default: refs/pull/*/head)",
    )
    parser.add_argument(
        "--base", metavar="REV", help="what each ref is compared with (default: the remote's main)"
    )
    parser.add_argument(
        "--jobs",
        "-j",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: %(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=20.0,
        metavar="S",
        help="seconds for one submission (default: %(default)g)",
    )
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out", "--output", "-o", metavar="FILE", help="one JSON object per line (default: standard output)"
    )
    out.add_argument("--html", metavar="FILE", help="write an overview to sort and filter")
    out.add_argument("--quiet", "-q", action="store_true", help="no progress and no table on standard error")
    judge = parser.add_argument_group("judging")
    judge.add_argument("--policy", choices=("precedent", "strict"), default="precedent",
                       help="strict counts disputed and unruled matters too (default: %(default)s)")  # fmt: skip
    judge.add_argument(
        "--ruleset", default=RULESET, metavar="DATE", help="rules in force on DATE (default: %(default)s)"
    )
    judge.add_argument(
        "--ignore-suppressions", action="store_true", help="let no comment in the source silence a rule"
    )
    kept = parser.add_argument_group("cache")
    kept.add_argument(
        "--cache",
        metavar="FILE",
        help="where results are kept (default: sweep.sqlite in the user's cache folder)",
    )
    kept.add_argument("--no-cache", action="store_true", help="neither read nor keep results")


def run(args: argparse.Namespace) -> int:
    from audit.context import Options
    from audit.sweep.cache import Cache, default_folder
    from audit.sweep.drive import Plan, sweep
    from audit.sweep.summary import Tally
    from audit.verdict import in_force

    if args.jobs < 1 or args.limit <= 0:
        raise InputError("--jobs and --limit must be positive")
    in_force((), args.ruleset)
    options = Options(
        ruleset=args.ruleset, policy=args.policy, ignore_suppressions=args.ignore_suppressions, base=args.base
    )
    plan = Plan(
        repo=args.repo,
        globs=tuple(args.refs or ["refs/pull/*/head"]),
        options=options,
        jobs=args.jobs,
        limit_s=args.limit,
    )
    path = None if args.no_cache else Path(args.cache) if args.cache else default_folder() / "sweep.sqlite"
    if args.cache and path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"cannot write {path}: its folder does not exist; make it, or name another file with --cache")
    cache, tally, rows, start = Cache(path), Tally(), [], time.monotonic()
    out = _open(args.out)
    progress = not args.quiet and sys.stderr is not None and sys.stderr.isatty()
    try:
        for ref, lines, cached in sweep(plan, cache):
            tally.add(lines, cached)
            for line in lines:
                out.write(json.dumps(line, ensure_ascii=True) + "\n")
            out.flush()
            if args.html:
                rows += [_row(line) for line in lines]
            if progress:
                print(
                    f"\r{tally.refs} refs, {time.monotonic() - start:.0f} s, {ref:<40}",
                    end="",
                    file=sys.stderr,
                )
    finally:
        cache.close()
        if out is not sys.stdout:
            out.close()
    if progress:
        print("\r" + " " * 70 + "\r", end="", file=sys.stderr)
    if args.html:
        from audit.render import sweep_html
        from audit.render.output import emit

        emit(sweep_html(rows, f"Sweep of {Path(args.repo).name}"), args.html)
    if not args.quiet:
        say(tally.table())
        say(f"\n{time.monotonic() - start:.1f} s with {args.jobs} processes")
    return int(Exit.OK)


def _open(path: str | None) -> TextIO:
    if path is None:
        return standard_output()
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what an overview does not show: facts and excerpts are most of its size."""
    from audit.render.overview import is_stated

    return {**line, "facts": [f for f in line.get("facts", ()) if is_stated(f)], "excerpts": {}}


COMMAND = Command(
    name="sweep",
    help="audit every ref of a repository into one JSON Lines file",
    add_arguments=add_arguments,
    run=run,
    epilog=(
        "examples:\n"
        "  referee sweep parameter-golf.git --out sweep.jsonl --html sweep.html\n"
        "  referee sweep . --refs 'refs/heads/*' --base main --jobs 4"
    ),
)
