"""``referee quantize``: checkpoint in, artifact out; or the whole curve of bytes against loss."""

from __future__ import annotations

import argparse
from pathlib import Path

from audit.contracts import Command, Exit

CALIBRATION = ("train", "self", "random", "online")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint.pt of referee train")
    parser.add_argument(
        "--out",
        metavar="FILE",
        required=True,
        type=Path,
        help="artifact to write (with --frontier: the HTML page)",
    )
    parser.add_argument(
        "--method",
        choices=["rtn", "gptq", "rate"],
        help="round to nearest, GPTQ, or rate against distortion (default: the recipe's, else rtn)",
    )
    parser.add_argument(
        "--bits",
        type=int,
        choices=range(2, 9),
        metavar="2-8",
        help="bits per weight of rtn and gptq (default 6)",
    )
    parser.add_argument(
        "--class-bits",
        action="append",
        default=[],
        metavar="CLASS=BITS",
        help="another width for one tensor class: embedding (default 8), attention, mlp, matrix; may be repeated",
    )
    parser.add_argument(
        "--clip",
        metavar="SEARCH",
        help="clip search: max, wide or tight (five percentiles a row), grid, exact, std:K",
    )
    parser.add_argument(
        "--control", choices=["fp16", "bf16", "fp32"], default="fp16", help="grid of control tensors"
    )
    parser.add_argument(
        "--compressor",
        metavar="NAME",
        help="zstd, lzma, brotli, zlib, none, bits, rows, or auto (try all, keep the smallest); default zstd, rate: rows",
    )
    calibration = parser.add_argument_group("calibration (gptq and rate)")
    calibration.add_argument(
        "--calibration", choices=CALIBRATION, help="where its text comes from (default self)"
    )
    calibration.add_argument("--data", type=Path, metavar="DIR", help="train shards, for --calibration train")
    calibration.add_argument(
        "--sequences", type=int, metavar="N", help="calibration sequences (default 64; self: 16)"
    )
    calibration.add_argument("--length", type=int, metavar="T", help="tokens of one (default 256)")
    calibration.add_argument(
        "--temperature", type=float, metavar="X", help="of self-generated text (default 0.8)"
    )
    calibration.add_argument("--seed", type=int, default=0)
    gptq = parser.add_argument_group("gptq and rate")
    gptq.add_argument("--block", type=int, metavar="N", help="columns compensated one by one (default 64)")
    gptq.add_argument("--damping", type=float, metavar="X", help="share of H's mean diagonal added to it")
    gptq.add_argument("--no-act-order", action="store_true", help="gptq: take columns as they come")
    gptq.add_argument("--step", type=float, metavar="S", help="rate: the one number between bytes and loss")
    gptq.add_argument(
        "--lagrangian", type=float, metavar="L", help="rate: squared steps a bit is worth (0: none)"
    )
    size = parser.add_argument_group("size")
    size.add_argument(
        "--prune", type=float, metavar="SHARE", help="zero this share of smallest weights first"
    )
    size.add_argument(
        "--target-bytes",
        type=int,
        metavar="N",
        help="artifact, decoder and --code together fit N bytes: rate chooses its step, the others zero codes of +-1",
    )
    size.add_argument(
        "--code", type=Path, metavar="SCRIPT", help="script whose bytes count towards --target-bytes"
    )
    curve = parser.add_argument_group("frontier")
    curve.add_argument(
        "--frontier",
        action="store_true",
        help="measure bytes against bits per byte for this checkpoint, the submissions' methods beside ours",
    )
    curve.add_argument(
        "--val", type=Path, metavar="PATH", help="validation shards to measure on (default: --data)"
    )
    curve.add_argument(
        "--targets", type=int, default=65_536, metavar="N", help="targets measured (default 65,536)"
    )
    curve.add_argument("--points", type=int, default=7, metavar="N", help="points of the curve (default 7)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write what happened to each tensor as JSON")


def _run(args: argparse.Namespace) -> int:
    if args.frontier:
        from reference_model.quantize.draw import frontier

        lines = frontier(args)
    else:
        from reference_model.quantize.run import quantize

        lines = quantize(args)
    for line in lines:
        print(line, flush=True)
    return int(Exit.OK)


COMMAND = Command(
    name="quantize",
    help="turns a checkpoint into an artifact: quantize, compress, seal; or draws bytes against loss",
    add_arguments=_arguments,
    run=_run,
    extra="eval",
    epilog=(
        "examples:\n"
        "  referee quantize run/checkpoint.pt --out model.art --bits 6 --method rtn --compressor auto\n"
        "  referee quantize run/checkpoint.pt --out model.art --method gptq --calibration train --data shards\n"
        "  referee quantize run/checkpoint.pt --out model.art --method rate --target-bytes 16000000 --code train_gpt.py\n"
        "  referee quantize run/checkpoint.pt --out frontier.html --frontier --data shards"
    ),
)
