"""``referee quantize``: checkpoint in, artifact out."""

from __future__ import annotations

import argparse

from audit.contracts import Command, Exit


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint.pt of referee train")
    parser.add_argument("--out", metavar="ARTIFACT", required=True, help="file to write")
    parser.add_argument("--method", choices=["rtn"], default="rtn", help="rounding method (default rtn)")
    parser.add_argument(
        "--bits", type=int, default=6, choices=range(2, 9), metavar="2-8", help="bits per weight (default 6)"
    )
    parser.add_argument(
        "--class-bits",
        action="append",
        default=[],
        metavar="CLASS=BITS",
        help="another width for one tensor class: embedding, attention, mlp, matrix; may be repeated",
    )
    parser.add_argument(
        "--clip",
        default="wide",
        metavar="SEARCH",
        help="clip search: max, wide or tight (five percentiles a row), exact, std:K (default wide)",
    )
    parser.add_argument(
        "--control", choices=["fp16", "bf16", "fp32"], default="fp16", help="grid of control tensors"
    )
    parser.add_argument(
        "--compressor",
        default="zstd",
        metavar="NAME",
        help="zstd, lzma, brotli, zlib, none, bits, rows, or auto (try all, keep the smallest)",
    )


def _run(args: argparse.Namespace) -> int:
    from reference_model.quantize.run import quantize

    for line in quantize(args):
        print(line, flush=True)
    return int(Exit.OK)


COMMAND = Command(
    name="quantize",
    help="turns a checkpoint into an artifact: quantize, compress, seal",
    add_arguments=_arguments,
    run=_run,
    extra="eval",
    epilog="example: referee quantize run/checkpoint.pt --out model.art --bits 6 --method rtn --compressor auto",
)
