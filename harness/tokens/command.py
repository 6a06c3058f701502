"""The command ``referee data``: build, inspect and fetch shards and tokenizers."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from audit.contracts import Command, Exit, InputError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    build = actions.add_parser(
        "build",
        help="turn JSON lines or plain text into a tokenizer, validation and training shards",
        description="Turns documents into a data folder: tokenizer, validation and training shards, manifest. "
        "The first documents are the validation split; training documents equal to one of them are dropped.",
    )
    build.add_argument(
        "inputs", nargs="*", metavar="INPUT",
        help=".jsonl or text files (also .zst) or folders of them; none: documentation found on this machine",
    )  # fmt: skip
    build.add_argument("--out", required=True, metavar="DIR", help="data folder to write")
    build.add_argument(
        "--val-documents",
        type=int,
        metavar="N",
        help="validation documents (default: one in 20, at most 50000)",
    )
    build.add_argument(
        "--vocab-size",
        type=int,
        default=1024,
        metavar="V",
        help="pieces of a tokenizer trained here (default 1024)",
    )
    build.add_argument("--tokenizer", metavar="FILE", help="use this tokenizer instead of training one")
    build.add_argument(
        "--field", default="text", metavar="NAME", help="JSON field that holds the text (default: text)"
    )
    build.add_argument(
        "--whole-files",
        action="store_true",
        help="a plain-text file is one document (default: one per paragraph)",
    )
    build.add_argument(
        "--shard-tokens",
        type=int,
        default=100_000_000,
        metavar="N",
        help="tokens per shard (default 100000000)",
    )
    build.add_argument("--threads", type=int, default=1, metavar="N", help="encoding threads (default 1)")
    build.set_defaults(act=_build)

    inspect = actions.add_parser(
        "inspect",
        help="say what a data folder, shard or tokenizer holds",
        description="Counts documents, tokens and bytes of text in a data folder or shard, and compares the "
        "manifest's digests with the files.",
    )
    inspect.add_argument("where", metavar="PATH", help="data folder, shard, or tokenizer model")
    inspect.add_argument(
        "--tokenizer", metavar="FILE", help="tokenizer of the shards (default: the one found beside them)"
    )
    inspect.add_argument("--format", choices=("text", "json"), default="text")
    inspect.set_defaults(act=_inspect)

    fetch = actions.add_parser(
        "fetch",
        help="fetch the contest's published shards and tokenizer",
        description="Fetches the contest's published shards and tokenizer from the Hugging Face hub. Run again "
        "after an interruption: finished files are kept, an unfinished one goes on where it stopped.",
    )
    fetch.add_argument("--out", default="data", metavar="DIR", help="folder to fetch into (default: data)")
    fetch.add_argument(
        "--variant", default="sp1024", help="tokenizer family, for example sp1024 or byte260 (default sp1024)"
    )
    fetch.add_argument(
        "--train-shards",
        type=int,
        default=80,
        metavar="N",
        help="training shards of 100 M tokens (default 80)",
    )
    fetch.add_argument(
        "--repository", default="willdepueoai/parameter-golf", metavar="ID", help="dataset on the hub"
    )
    fetch.add_argument("--revision", metavar="REV", help="revision of the dataset (default: its newest)")
    fetch.set_defaults(act=_fetch)


def _run(args: argparse.Namespace) -> int:
    return args.act(args)


def _build(args: argparse.Namespace) -> int:
    from harness.tokens.build import build
    from harness.tokens.corpus import harvest
    from harness.tokens.documents import FileSource
    from harness.tokens.progress import Ticker

    with Ticker() as ticker:
        if args.inputs:
            documents: Any = FileSource.open(args.inputs, field=args.field, whole_files=args.whole_files)
            source = ", ".join(str(p) for p in documents.paths)
        else:
            documents = harvest(progress=lambda found: ticker("harvesting documentation", found, "bytes"))
            source = "documentation found on this machine"
        val = args.val_documents
        if val is None:
            ticker("counting documents", 0, "")
            val = max(1, min(50_000, sum(1 for d in documents if d.strip()) // 20))
        manifest = build(
            documents,
            args.out,
            val_documents=val,
            vocab_size=args.vocab_size,
            tokenizer=args.tokenizer,
            shard_tokens=args.shard_tokens,
            source=source,
            threads=args.threads,
            progress=lambda stage, done: ticker(
                "reading text for the tokenizer" if stage == "tokenizer" else f"encoding {stage}",
                done,
                "documents",
            ),
        )
    for split in ("val", "train"):
        entry = manifest["splits"][split]
        print(
            f"{split:5}  {entry['documents']:>9,} documents  {entry['tokens']:>12,} tokens  {entry['bytes']:>13,} bytes  "
            f"{entry['bytes'] / entry['tokens']:.3f} bytes per token  {len(entry['files'])} shard(s)"
        )
    if manifest["splits"]["train"]["dropped_as_validation"]:
        print(
            f"dropped {manifest['splits']['train']['dropped_as_validation']} training documents equal to validation ones"
        )
    print(f"tokenizer of {manifest['tokenizer']['vocab_size']} pieces; manifest in {args.out}/manifest.json")
    return int(Exit.OK)


def _inspect(args: argparse.Namespace) -> int:
    from harness.tokens.folder import describe, describe_tokenizer
    from harness.tokens.tokenizer import load_tokenizer

    if args.where.endswith((".model", ".json")):
        found: dict[str, Any] = {
            "schema": "referee.data-inspect/1",
            "tokenizer": describe_tokenizer(load_tokenizer(args.where)),
        }
    else:
        found = describe(args.where, args.tokenizer)
    if args.format == "json":
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_lines(found)))
    manifest = found.get("manifest")
    if manifest is not None and not manifest["agrees"]:
        raise InputError(
            f"{args.where}: the files contradict the manifest: " + "; ".join(manifest["differences"])
        )
    return int(Exit.OK)


def _lines(found: dict[str, Any]) -> list[str]:
    tokenizer = found["tokenizer"]
    if "missing" in tokenizer:
        lines = [f"tokenizer  none: {tokenizer['missing']} (so no byte counts)"]
    else:
        kinds = ", ".join(f"{n} {k}" for k, n in tokenizer["pieces"].items())
        lines = [
            f"tokenizer  {tokenizer['path']}",
            f"           {tokenizer['vocab_size']} pieces: {kinds}; sha256 {tokenizer['sha256']}",
        ]
    for split, entry in found.get("splits", {}).items():
        lines.append(
            f"{split:9}  {entry['tokens']:,} tokens in {len(entry['files'])} shard(s), {entry['documents']:,} documents"
        )
        if entry["bytes"] is not None:
            lines.append(
                f"           {entry['bytes']:,} bytes of text, {entry['bytes_per_token']:.4f} bytes per token"
            )
        lengths = entry["tokens_per_document"]
        if lengths:
            lines.append(
                f"           tokens per document: mean {lengths['mean']:.0f}, median {lengths['median']:.0f}, longest {lengths['longest']:,}"
            )
        lines.append(f"           digest {entry['digest']}")
        if entry["starts_with"]:
            lines.append(f"           starts with: {entry['starts_with'][:100]!r}")
    manifest = found.get("manifest")
    if manifest is not None:
        lines.append(
            "manifest   agrees with the files"
            if manifest["agrees"]
            else "manifest   contradicted by the files"
        )
    elif "splits" in found:
        lines.append("manifest   none")
    return lines


def _fetch(args: argparse.Namespace) -> int:
    from harness.tokens.fetch import HuggingFace, fetch

    hub = HuggingFace(args.repository, args.revision)
    print(f"fetching {args.variant} from {args.repository} into {args.out}", file=sys.stderr)
    fetched = present = 0
    for done, total, item, how in fetch(
        args.out, hub=hub, variant=args.variant, train_shards=args.train_shards
    ):
        fetched += how == "fetched"
        present += how == "present"
        print(f"[{done}/{total}] {how}: {item.local}", file=sys.stderr, flush=True)
    print(f"{fetched} file(s) fetched, {present} already there, digests checked; data in {args.out}")
    return int(Exit.OK)


COMMAND = Command(
    name="data",
    help="build, inspect and fetch token shards and tokenizers",
    add_arguments=_add_arguments,
    run=_run,
    extra="eval",
    epilog="examples:\n"
    "  referee data build --out runs/data                     documentation found on this machine\n"
    "  referee data build articles.jsonl.zst --out runs/wiki --val-documents 500\n"
    "  referee data inspect runs/data\n"
    "  referee data fetch --variant sp1024 --train-shards 1",
)
