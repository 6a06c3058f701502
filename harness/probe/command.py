"""``referee probe``: black-box probes on an evaluator that implements the protocol."""

from __future__ import annotations

import argparse
import json
import os

from audit.contracts import Command
from harness.scorecard.results import probe_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("evaluator", metavar="EVALUATOR",
                        help="strict, strict:TTT (our own evaluator), or FILE.py:NAME (see harness/probe/protocol.py)")  # fmt: skip
    parser.add_argument("--artifact", required=True, metavar="FILE", help="packed model that the evaluator scores with")
    parser.add_argument("--data", "--shards", required=True, metavar="DIR", help="validation shards")
    parser.add_argument("--tokenizer", metavar="FILE", help="the shards' tokenizer (default: the one in the data folder)")
    parser.add_argument("--trusted", action="store_true", help="run FILE.py in this process; only for code of your own")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="tokens of the stream to use (default 512)")
    parser.add_argument("--context", type=int, default=64, metavar="N")
    parser.add_argument("--stride", type=int, default=16, metavar="N")
    parser.add_argument("--chunk", type=int, default=128, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="setting of the adaptation (strict only; repeatable)")  # fmt: skip
    parser.add_argument("--probes", type=int, default=6, metavar="N", help="positions per probe (default 6)")
    parser.add_argument("--sums", type=int, default=1, metavar="N",
                        help="positions at which all values of a target are tried (default 1; one run per value)")  # fmt: skip
    parser.add_argument("--ranks", action="store_true", help="also compare 1 rank with 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("text", "json"), default="text")


EPILOG = """The probes: exactly-once, sum, bytes, clock, frozen-reference (the state before the first update is the
artifact's), suffix-scramble, target-flip, normalisation, batch-size, world-size. Silence excludes faults only as far
as the printed statement says. Exit codes: 0 silent, 1 something fired, 2 unusable input.
"""


def run(args: argparse.Namespace) -> int:
    # On shared cores OpenMP threads that spin while waiting cost more than they compute; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from harness.probe.session import examine

    result = examine(args)
    if args.format == "json":
        print(json.dumps(result, indent=1))
    else:
        print(probe_text(result))
    return int(result["exit"])


COMMAND = Command(
    name="probe",
    help="black-box probes on an evaluator: does the future leak into its scores, do they sum to one, …",
    add_arguments=add_arguments,
    run=run,
    extra="eval",
    epilog=EPILOG,
)
