"""``referee export RECIPE``: a recipe as a self-contained submission folder. Imports without torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from audit.contracts import Command, Exit
from reference_model import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help=f"one of {', '.join(config.names())}, or a .toml file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change any recipe key")  # fmt: skip
    parser.add_argument("--shrink", action="store_true", help="the recipe's parts at a size for a CPU")


def run(args: argparse.Namespace) -> int:
    from reference_model.export.folder import write

    recipe = config.load(args.recipe, [] if args.shrink else args.overrides)
    if args.shrink:
        recipe = config.change(config.shrink(recipe), args.overrides)
    for path in write(recipe, args.out):
        print(f"{path}: {path.stat().st_size:,} bytes")
    return int(Exit.OK)


COMMAND = Command(
    name="export",
    help="write a recipe as a self-contained submission folder",
    add_arguments=add_arguments,
    run=run,
    epilog="example: referee export pr726 --out submissions/pr726 && referee audit submissions/pr726",
)
