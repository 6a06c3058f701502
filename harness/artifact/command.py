"""``referee pack`` and ``referee inspect``: recompress an artifact, and look inside one. No torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from audit.contracts import Command, Exit, InputError


def _pack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="ARTIFACT", help="an artifact, as written by referee quantize")
    parser.add_argument("--out", metavar="FILE", required=True, help="file to write (may be the same)")
    parser.add_argument(
        "--compressor", default="auto", metavar="NAME",
        help="zstd, lzma, brotli, zlib, none, bits, rows, or auto: try all, keep the smallest (default auto)",
    )  # fmt: skip
    parser.add_argument("--code", metavar="SCRIPT", help="submission script whose bytes count too")
    parser.add_argument(
        "--max-bytes", type=int, default=256 << 20, metavar="N",
        help="refuse an artifact that unpacks to more (default 256 MiB)",
    )  # fmt: skip


def _pack(args: argparse.Namespace) -> int:
    from harness.artifact.container import read_artifact, write_artifact
    from harness.artifact.decoder import decoder_bytes
    from harness.artifact.inspection import CAP

    artifact = read_artifact(args.artifact, max_bytes=args.max_bytes)
    written = write_artifact(
        args.out,
        family=artifact.family,
        config=artifact.config,
        tensors=artifact.records,
        compressor=args.compressor,
        recipe=artifact.header["recipe"],
    )
    header = read_artifact(args.out, max_bytes=args.max_bytes).header
    for section in header["sections"]:
        print(
            f"{section['plane']:8} {section['raw']:>12,} -> {section['packed']:>12,} bytes  {section['codec']}"
        )
    print(f"artifact {artifact.file_bytes:,} -> {written.file_bytes:,} bytes  sha256 {written.digest}")
    decoder = decoder_bytes()
    code = 0
    if args.code:
        try:
            code = Path(args.code).stat().st_size
        except OSError as error:
            raise InputError(f"{args.code}: cannot be read: {error.strerror}") from error
    without = written.file_bytes + code
    total = without + decoder
    if args.code:
        print(f"script   {code:,} bytes  {args.code}")
    print(f"decoder  {decoder:,} bytes of code (the reading path as a compressed script)")
    print(f"total    {without:,} bytes without the decoder, {total:,} with it")
    print(f"cap      {CAP:,} bytes: {'fits' if total <= CAP else 'over the cap'}")
    return int(Exit.OK)


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="ARTIFACT")
    parser.add_argument("--html", metavar="FILE", help="also write a self-contained page with a picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument(
        "--max-bytes", type=int, default=256 << 20, metavar="N",
        help="refuse an artifact that unpacks to more (default 256 MiB)",
    )  # fmt: skip


def _inspect(args: argparse.Namespace) -> int:
    import json

    from harness.artifact.container import read_artifact
    from harness.artifact.inspection import examine
    from harness.artifact.picture import page, table

    report = examine(read_artifact(args.artifact, max_bytes=args.max_bytes))
    if args.html:
        try:
            Path(args.html).write_text(page(report), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{args.html}: cannot be written: {error.strerror}") from error
    print(json.dumps(report) if args.json else table(report))
    return int(Exit.OK)


PACK = Command(
    name="pack",
    help="compresses an artifact again, by default with whatever makes it smallest",
    add_arguments=_pack_arguments,
    run=_pack,
    extra="eval",
    epilog="example: referee pack model.art --out smaller.art --compressor auto",
)
INSPECT = Command(
    name="inspect",
    help="shows what is inside an artifact: tensors, grids, bits per weight, entropy, bytes",
    add_arguments=_inspect_arguments,
    run=_inspect,
    extra="eval",
    epilog="example: referee inspect model.art --html model.html",
)
