"""The auditor's commands: ``referee audit``, ``rules`` and ``explain``.

This front parses, calls the engine and prints; it must start fast and import no heavy library, so
everything beyond argparse is imported when a command runs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from audit.contracts import RULESET, Command, Exit, InputError

#: One submission takes a second or two; what takes this long has hung.
LIMIT_S = 120.0
FORMATS = ("text", "json", "markdown", "sarif", "html")


def audit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a script or a submission folder")
    git = parser.add_argument_group("a revision of a local git repository instead of a target")
    git.add_argument("--repo", metavar="DIR", help="the repository; nothing is checked out")
    git.add_argument("--pr", type=int, metavar="N", help="pull request N (refs/pull/N/head)")
    git.add_argument("--rev", metavar="REV", help="any revision")
    git.add_argument("--base", metavar="REV", help="what the revision is compared with (default: main)")
    out = parser.add_argument_group("output")
    out.add_argument("--format", choices=FORMATS, default="text", help="default: %(default)s")
    out.add_argument("--output", "-o", metavar="FILE", help="write to FILE instead of standard output")
    out.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: %(default)s"
    )
    out.add_argument("--no-color", dest="color", action="store_const", const="never", help="as --color never")
    out.add_argument("--verbose", "-v", action="store_true", help="text: show notes and every obligation")
    out.add_argument(
        "--dump-source",
        metavar="DIR",
        help="write the unpacked sources to DIR (of several targets: to DIR/1, DIR/2, …)",
    )
    out.add_argument("--timings", action="store_true", help="time per stage and rule on standard error")
    judge = parser.add_argument_group("judging")
    judge.add_argument("--policy", choices=("precedent", "strict"), default="precedent",
                       help="strict counts disputed and unruled matters too (default: %(default)s)")  # fmt: skip
    judge.add_argument(
        "--against", metavar="RECORD",
        help="test the seeds' gain over RECORD: a records folder, its submission.json, or scores as 1.0810,1.0812",
    )  # fmt: skip
    judge.add_argument(
        "--ruleset", default=RULESET, metavar="DATE", help="rules in force on DATE (default: %(default)s)"
    )
    judge.add_argument(
        "--env", action="append", default=[], metavar="K=V", help="set an environment knob; repeatable"
    )
    judge.add_argument("--baseline", metavar="FILE", help="findings in FILE are known and do not count")
    judge.add_argument("--write-baseline", metavar="FILE", help="write all findings to FILE as known")
    judge.add_argument(
        "--ignore-suppressions", action="store_true", help="let no comment in the source silence a rule"
    )


def parse_env(pairs: list[str]) -> dict[str, str]:
    """``K=V`` pairs; InputError for anything else."""
    env = {}
    for pair in pairs:
        name, sep, value = pair.partition("=")
        if not sep or not name:
            raise InputError(f"--env {pair!r} is not of the form NAME=VALUE")
        env[name] = value
    return env


def revision(args: argparse.Namespace) -> str:
    """The revision that ``--rev`` or ``--pr`` names; InputError where the pull request's head was not fetched."""
    if args.pr is None:
        return str(args.rev)
    from audit.source import git

    return git.pull_request_ref(git.open_repository(args.repo), args.pr)


def run_audit(args: argparse.Namespace) -> int:
    from audit import baseline
    from audit.context import Options
    from audit.engine import Timings, audit_revision, audit_target
    from audit.render import report, write
    from audit.streams import say, standard_output
    from audit.verdict import exit_code
    from audit.wording import counted

    if (args.pr is not None or args.rev is not None) and args.repo is None:
        raise InputError("--pr and --rev need --repo DIR")
    if args.repo is not None and (args.pr is None) == (args.rev is None):
        raise InputError("--repo needs either --pr N or --rev REV")
    if not args.targets and args.repo is None:
        raise InputError("nothing to audit: name a script, a folder, or --repo DIR with --pr N or --rev REV")
    if args.output is None:
        standard_output()  # before the work, not after it
    if args.against is not None:
        from audit.evidence.significance import read_record

        read_record(args.against)  # one clear line now, not one per submission
    options = Options(
        ruleset=args.ruleset,
        policy=args.policy,
        env=parse_env(args.env),
        ignore_suppressions=args.ignore_suppressions,
        baseline=baseline.read(args.baseline) if args.baseline else frozenset(),
        base=args.base,
        against=args.against,
        dump_source=args.dump_source,
        limit_s=LIMIT_S,
        warn=True,
    )
    timings = Timings()
    submissions = []
    for number, target in enumerate(args.targets, 1):
        if args.dump_source and len(args.targets) > 1:
            # Paths are relative to each submission's root: several would overwrite each other.
            options = replace(options, dump_source=str(Path(args.dump_source) / str(number)))
        submissions += audit_target(target, options, timings)
    if args.repo is not None:
        submissions += audit_revision(args.repo, revision(args), options, timings)
    if args.write_baseline:
        count = baseline.write(args.write_baseline, submissions)
        say(f"{args.write_baseline}: {counted(count, 'finding')}")
    with timings.stage("render"):
        document = report(submissions, ruleset=args.ruleset)
        write(document, args.format, args.output, color=args.color, verbose=args.verbose)
    if args.timings:
        for name, seconds in timings.stages.items():
            say(f"{name:>12} {seconds:8.3f} s")
        for name, seconds in sorted(timings.rules.items(), key=lambda item: -item[1]):
            say(f"{'rule ' + name:>12} {seconds:8.3f} s")
    return int(exit_code(submissions))


def rules_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ruleset", default=RULESET, metavar="DATE", help="rules in force on DATE (default: %(default)s)"
    )
    parser.add_argument(
        "--format", choices=("text", "markdown", "json"), default="text", help="default: %(default)s"
    )
    parser.add_argument("--output", "-o", metavar="FILE", help="write to FILE instead of standard output")
    parser.add_argument("--full", action="store_true", help="markdown: every rule's page, not only the table")


def run_rules(args: argparse.Namespace) -> int:
    from audit.render.output import emit
    from audit.render.rulebook import rulebook

    emit(rulebook(args.ruleset, args.format, full=args.full), args.output)
    return int(Exit.OK)


def explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rule", metavar="RULE", help="a rule id or name, for example F8 or target-in-key")


def run_explain(args: argparse.Namespace) -> int:
    from audit.render.output import emit
    from audit.render.rulebook import explain

    emit(explain(args.rule), None)
    return int(Exit.OK)


AUDIT = Command(
    name="audit",
    help="read a submission's source and evidence and judge it",
    add_arguments=audit_arguments,
    run=run_audit,
    epilog=(
        "examples:\n"
        "  referee audit train_gpt.py\n"
        "  referee audit records/track_10min_16mb/my_submission --format markdown -o review.md\n"
        "  referee audit --repo parameter-golf.git --pr 1413 --env TTT_ENABLED=1"
    ),
)
RULES = Command(name="rules", help="list the rules in force", add_arguments=rules_arguments, run=run_rules)
EXPLAIN = Command(
    name="explain", help="explain one rule, with an illegal and a legal example",
    add_arguments=explain_arguments, run=run_explain,
)  # fmt: skip
