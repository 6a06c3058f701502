"""From a command line's arguments to finished scorecards: reads the inputs, shows progress, handles Ctrl-C."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from audit.contracts import InputError
from harness.adapt.grant import Ranks
from harness.artifact.container import Artifact, read_artifact
from harness.artifact.models import build_model
from harness.evaluate.outcome import exit_of
from harness.evaluate.run import Evaluation, Options, Progress
from harness.evaluate.score import Numerics
from harness.evaluate.stream import Stream, open_stream
from harness.tokens.folder import find_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What ``referee eval`` was asked for; its options under their own names, with their defaults."""

    artifact: str
    data: str
    out: str
    tokenizer: str | None = None  # None: the one that belongs to the data folder
    context: int = 2048
    stride: int = 64
    plan: str = "strict"
    max_tokens: int | None = None
    byte_sidecar: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    compile: bool | None = None  # None: on a GPU
    attention: str = "auto"
    deterministic: bool = False
    threads: int | None = None
    seed: int = 0
    probes: int = 16
    resume: bool = False
    quiet: bool = False


def numerics_of(args: Request) -> Numerics:
    """Device, precision and batch, with what `auto` stands for filled in."""
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {device}: no CUDA device here; use --device cpu")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise InputError(f"--device {device}: no such device; use cpu, cuda or auto") from None
    if kind == "cuda" and (local := os.environ.get("LOCAL_RANK")) is not None:
        device = f"cuda:{local}"
    precision = args.precision if args.precision != "auto" else "bf16" if kind == "cuda" else "float32"
    return Numerics(
        device=device, precision=precision, attention=args.attention,
        compile=args.compile if args.compile is not None else kind == "cuda", deterministic=args.deterministic,
        seed=args.seed, batch=args.batch if args.batch is not None else 128 if kind == "cuda" else 16,
    )  # fmt: skip


def identity_of(artifact: Artifact) -> dict[str, Any]:
    """How a scorecard's header names an artifact."""
    return {"name": Path(artifact.path).name, "sha256": artifact.digest, "bytes": artifact.file_bytes,
            "family": artifact.family}  # fmt: skip


@contextlib.contextmanager
def ranks_of(numerics: Numerics) -> Iterator[Ranks]:
    """The process group of a ``torchrun``; a single rank otherwise."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    if numerics.device.startswith("cuda"):
        torch.cuda.set_device(numerics.device)  # objects travel through the current device
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("nccl" if numerics.device.startswith("cuda") else "gloo")
    try:
        yield Ranks(rank=dist.get_rank(), world=dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()


def running(bpb: float) -> str:
    """Bits per byte so far; nothing before the first chunk is committed."""
    return "" if math.isnan(bpb) else f"{bpb:.4f} bits per byte"


@contextlib.contextmanager
def progress_bar(total: int, label: str, quiet: bool) -> Iterator[Progress | None]:
    """A bar on a terminal, a line every ten seconds elsewhere; always on stderr."""
    if quiet:
        yield None
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn(label), BarColumn(), TextColumn("{task.completed:,}/{task.total:,}"),
                   TimeRemainingColumn(), TextColumn("{task.fields[bpb]}"))  # fmt: skip
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total, bpb="")
            yield lambda done, _all, bpb: bar.update(task, completed=done, bpb=running(bpb))
        return
    last = [time.monotonic()]

    def line(done: int, everything: int, bpb: float) -> None:
        if time.monotonic() - last[0] >= 10 or done == everything:
            last[0] = time.monotonic()
            print(f"{label}: {done:,} of {everything:,} targets {running(bpb)}", file=sys.stderr, flush=True)

    yield line


def load_inputs(args: Request) -> tuple[Artifact, Stream]:
    """Reads and checks the artifact and the validation stream."""
    artifact = read_artifact(args.artifact)
    tokenizer = args.tokenizer or find_tokenizer(args.data)
    stream = open_stream(
        args.data, tokenizer, context=args.context, max_tokens=args.max_tokens, sidecar=args.byte_sidecar
    )
    return artifact, stream


def options_of(args: Request, ttt: str, chosen: Mapping[str, Any]) -> Options:
    return Options(
        context=args.context, stride=args.stride, variant=args.plan, ttt=ttt, ttt_set=dict(chosen),
        numerics=numerics_of(args), probes=args.probes,
    )  # fmt: skip


def evaluate(
    args: Request,
    ttt: str = "none",
    chosen: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    inputs: tuple[Artifact, Stream] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """One evaluation under the adaptation ``ttt`` with ``chosen`` settings; scorecard in ``out`` or ``args.out``.

    ``progress(scored, targets, running bits per byte)`` replaces the bar on stderr. Returns the summary
    (schema ``referee.eval/1``), or None on ranks other than the first. Raises `InputError` for inputs that do
    not fit, KeyboardInterrupt after leaving an incomplete scorecard.
    """
    out = Path(args.out if out is None else out)
    if args.threads is not None:
        if args.threads < 1:
            raise InputError(f"--threads {args.threads} must be at least 1")
        torch.set_num_threads(args.threads)
    artifact, stream = inputs or load_inputs(args)
    options = options_of(args, ttt, chosen or {})
    with ranks_of(options.numerics) as ranks:
        quiet = args.quiet or ranks.rank > 0
        model = build_model(artifact, options.numerics.device)
        evaluation = Evaluation(model, stream, options, identity=identity_of(artifact), ranks=ranks)
        if not quiet:
            print(f"eval: {stream.targets:,} targets, context {args.context}, stride {args.stride}, adaptation {ttt}, "
                  f"{options.numerics.precision} on {options.numerics.device}", file=sys.stderr, flush=True)  # fmt: skip
        with progress_bar(stream.targets, f"eval {ttt}", quiet or progress is not None) as bar:
            try:
                result = evaluation.run(out, resume=args.resume, progress=progress or bar)
            except KeyboardInterrupt:
                print(f"eval: interrupted; {out} holds an incomplete scorecard, continue it with --resume", file=sys.stderr)
                raise
        if ranks.rank > 0:
            return None
    footer = {k: v for k, v in result.footer.items() if k not in ("state",)}
    return {"schema": "referee.eval/1", "out": str(out), **footer, "exit": int(exit_of(result.claims))}


def sweep(args: Request, settings: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Several adaptation settings on one artifact, each with a scorecard of its own under ``--out``."""
    inputs = load_inputs(args)
    rows = []
    for number, (name, chosen) in enumerate(settings):
        label = name + (":" + ",".join(f"{k}={v}" for k, v in chosen.items()) if chosen else "")
        summary = evaluate(args, name, chosen, out=Path(args.out) / f"{number:02d}-{name}", inputs=inputs)
        if summary is not None:
            rows.append({"setting": label, **summary})
    return rows
