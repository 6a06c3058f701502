"""``referee eval``: the strict evaluation of an artifact, and sweeps of adaptation settings over one artifact."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import fields

from audit.contracts import Command, Exit, InputError
from harness.evaluate.outcome import sweep_text, text_of

TTT = ("none", "sgd", "adamw", "lora", "phased")  # harness.adapt.catalog.NAMES, which needs torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="ARTIFACT", help="packed model, as written by `referee pack`")
    parser.add_argument("--data", "--shards", required=True, metavar="DIR", help="folder, file or glob of validation shards")
    parser.add_argument("--tokenizer", metavar="FILE", help="the shards' tokenizer (default: the one in the data folder)")
    parser.add_argument("--out", default="scorecard", metavar="DIR", help="folder for the scorecard (default: scorecard)")
    parser.add_argument("--context", type=int, default=2048, metavar="N", help="inputs per window (default 2048)")
    parser.add_argument("--stride", type=int, default=64, metavar="N", help="targets per window (default 64)")
    parser.add_argument("--plan", choices=("strict", "official"), default="strict",
                        help="strict: every target once; official: the contest scripts' own windows")  # fmt: skip
    parser.add_argument("--ttt", choices=TTT, default="none", help="adaptation on already scored chunks")
    parser.add_argument("--chunk", type=int, metavar="N", help="targets per chunk (default: the adaptation's own)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="setting of the adaptation, e.g. lr=0.002, chunk=32768, epochs=3 (repeatable)")  # fmt: skip
    parser.add_argument("--sweep", action="append", default=[], metavar="TTT[:K=V,…]",
                        help="evaluate several settings on this artifact, e.g. none sgd:lr=0.01 (repeatable)")  # fmt: skip
    parser.add_argument("--max-tokens", type=int, metavar="N", help="use only the first N tokens; marks the result partial")
    parser.add_argument("--byte-sidecar", metavar="PATH", help="byte-count shards that replace the tokenizer's table")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--precision", choices=("auto", "float64", "float32", "bf16"), default="auto",
                        help="auto: bf16 on a GPU, else float32")  # fmt: skip
    parser.add_argument("--batch", type=int, metavar="N", help="windows per forward pass (default 128 on a GPU, else 16)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None,
                        help="run the model through torch.compile (default: on a GPU)")  # fmt: skip
    parser.add_argument("--attention", choices=("auto", "flash", "cudnn"), default="auto",
                        help="attention kernel on a GPU (default auto: torch's choice)")  # fmt: skip
    parser.add_argument("--deterministic", action="store_true", help="deterministic kernels: same bits again when continued")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what torch chooses)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--probes", type=int, default=16, metavar="N", help="batches probed for causality (default 16)")
    parser.add_argument("--resume", action="store_true", help="continue the incomplete scorecard in --out")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


EPILOG = """The scorecard says for each of four claims whether it is shown, not shown or violated:
P1 order, P2 causality of the forward pass, P3 normalisation, P4 replay.
Check it with: referee verify DIR --artifact ARTIFACT --data DIR --tokenizer FILE

Several processes: torchrun --nproc-per-node N -m harness eval …  (the windows of a chunk are split over the ranks)
A sweep chooses by validation score; the contest has not ruled on reporting the best of one (rule F18).
"""


def pairs(texts: list[str]) -> dict[str, str]:
    """KEY=VALUE texts as a dict. Raises `InputError`."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set {text!r} is not KEY=VALUE")
        found[key] = value
    return found


def chosen_of(args: argparse.Namespace, overrides: dict[str, str]) -> dict[str, str]:
    """The overrides of an adaptation, ``--chunk`` among them."""
    return overrides if args.chunk is None else {"chunk": str(args.chunk), **overrides}


def run(args: argparse.Namespace) -> int:
    # On shared cores OpenMP threads that spin while waiting cost more than they compute; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from harness.evaluate.session import Request, evaluate, sweep

    request = Request(**{f.name: getattr(args, f.name) for f in fields(Request)})
    if args.sweep:
        if args.overrides or args.resume or args.ttt != "none":
            raise InputError("--sweep takes its settings itself; leave out --ttt, --set and --resume")
        settings = []
        for text in args.sweep:
            name, _, rest = text.partition(":")
            settings.append((name, chosen_of(args, pairs([p for p in rest.split(",") if p]))))
        rows = sweep(request, settings)
        if args.format == "json":
            print(json.dumps({"schema": "referee.eval-sweep/1", "rows": rows}, indent=1))
        elif rows:
            print(sweep_text(rows))
            print("Choosing a setting by its validation score is not ruled on by the contest (rule F18).", file=sys.stderr)
        return max((row["exit"] for row in rows), default=0)
    summary = evaluate(request, args.ttt, chosen_of(args, pairs(args.overrides)))
    if summary is None:
        return int(Exit.OK)  # a rank other than the first
    if args.format == "json":
        print(json.dumps(summary, indent=1))
    else:
        print(text_of(summary))
    return int(summary["exit"])


COMMAND = Command(
    name="eval",
    help="strict evaluation of an artifact; writes a scorecard that anyone can verify",
    add_arguments=add_arguments,
    run=run,
    extra="eval",
    epilog=EPILOG,
)
