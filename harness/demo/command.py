"""``referee demo``: the whole way on real text, on a CPU, in minutes."""

from __future__ import annotations

import argparse

from audit.contracts import Command, InputError

EPILOG = """Every stage is one ordinary command of this program, printed before it runs; run it yourself with other options.
Interrupted (Ctrl-C), the next run with the same options continues. A finished demo starts anew; its data folder is kept.

Exit codes: 0 everything came out as expected, 1 a proof or a verdict did not, 2 usage or input error.

examples:
  referee demo
  referee demo --seed 7 --seconds 120 --out runs/demo-7
  referee demo --data my-shards --out runs/demo-mine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="runs/demo", metavar="DIR", help="folder of the demo (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="a folder of shards and their tokenizer; none: documentation found on this machine",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of training, probes, tampering and rewrites (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="training clock, in seconds (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="train N steps, whatever the clock says: the same figures on every run of one machine",
    )
    parser.add_argument(
        "--fast", action="store_true", help="a quick look: 8 seconds of training, less data, fewer scripts"
    )
    parser.add_argument("--fresh", action="store_true", help="start clean, the data folder included")


def run(args: argparse.Namespace) -> int:
    from harness.demo.run import Demo

    if not args.seconds > 0:
        raise InputError(f"--seconds {args.seconds} must be more than 0")
    if args.steps is not None and args.steps < 1:
        raise InputError(f"--steps {args.steps} must be at least 1")
    return Demo(args).run()


COMMAND = Command(
    name="demo",
    help="the whole way on real text: data, train, quantize, evaluate with proof, verify, audit, report",
    add_arguments=add_arguments,
    run=run,
    extra="train",
    epilog=EPILOG,
)
