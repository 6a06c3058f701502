"""``referee verify``: checks a scorecard offline, without torch; replays chunks of it on request."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from audit.contracts import Command, InputError
from harness.scorecard.results import verify_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scorecard", metavar="SCORECARD", help="the scorecard's folder")
    parser.add_argument("--artifact", metavar="FILE", help="check that this is the artifact that was scored")
    parser.add_argument("--data", "--shards", metavar="DIR", help="validation shards: recount bytes, check digests")
    parser.add_argument("--tokenizer", metavar="FILE", help="the shards' tokenizer (default: the one in the data folder)")
    parser.add_argument("--byte-sidecar", metavar="PATH", help="the byte-count shards, if the run used them")
    parser.add_argument("--replay", type=int, default=0, metavar="K",
                        help="execute K randomly chosen chunks again (needs torch, --artifact, --data, --tokenizer)")  # fmt: skip
    parser.add_argument("--decode", type=int, default=0, metavar="N",
                        help="decode the first N targets from the artifact and a bit stream alone (needs the same)")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="device for --replay and --decode (default cpu)")
    parser.add_argument("--statement", metavar="FILE", help="also write the result as an in-toto statement")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(args: argparse.Namespace) -> int:
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise InputError("verify needs numpy; install it with: pip install numpy") from None
    from harness.scorecard.verify import verify

    if args.data and not args.tokenizer:
        from harness.tokens.folder import find_tokenizer

        args.tokenizer = str(find_tokenizer(args.data))
    again = args.replay > 0 or args.decode > 0
    if again and not (args.artifact and args.data):
        raise InputError("--replay and --decode need --artifact and --data")
    verdict = verify(
        args.scorecard, artifact=args.artifact, tokenizer=args.tokenizer, data=args.data, sidecar=args.byte_sidecar
    )
    if again and verdict.complete and not verdict.problems:
        execute_again(verdict, args)
    elif again:
        verdict.notes.append("nothing was executed again: only a complete scorecard without problems can be")
    if args.statement:
        from harness.scorecard.statement import write_statement

        write_statement(args.statement, args.scorecard, verdict)
    summary = verdict.summary()
    print(json.dumps(summary, indent=1) if args.format == "json" else verify_text(summary))
    return int(verdict.exit)


def execute_again(verdict: Any, args: argparse.Namespace) -> None:
    """Replays and decodes as asked; what they find becomes claim P4."""
    # On shared cores OpenMP threads that spin while waiting cost more than they compute; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from harness.evaluate.replay import decode, replay
    except ImportError as error:
        raise InputError(f"--replay and --decode need torch ({error}); install the eval extra") from None
    found = []
    for wanted, action in ((args.replay, replay), (args.decode, decode)):
        if wanted:
            found.append(action(
                args.scorecard, wanted, args.artifact, args.data, args.tokenizer,
                sidecar=args.byte_sidecar, device=args.device,
            ))  # fmt: skip
    status = "violated" if any(f.status == "violated" for f in found) else "shown"
    if not args.replay and status == "shown":
        status = "not shown"  # decoding the first targets says nothing about the rest
    verdict.claims["P4"] = {"status": status, "reason": "; ".join(f.reason for f in found)}


COMMAND = Command(
    name="verify",
    help="check a scorecard offline: chain, coverage, order, sums, bytes, bits per byte; replay chunks of it",
    add_arguments=add_arguments,
    run=run,
    epilog="Exit codes: 0 verified, 1 tampered or violated, 2 unreadable input, 3 incomplete or order not shown.",
)
