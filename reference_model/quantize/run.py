"""What ``referee quantize`` does, step by step; yields the lines it prints."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from harness.artifact.container import write_artifact
from reference_model.quantize.checkpoint import load_checkpoint
from reference_model.quantize.export import export_rtn
from reference_model.quantize.policy import Policy, parse_overrides


def quantize(args: argparse.Namespace) -> Iterator[str]:
    """Reads the checkpoint, quantizes, writes the artifact; one line per stage."""
    checkpoint = load_checkpoint(args.checkpoint)
    policy = Policy(bits=args.bits, overrides=parse_overrides(args.class_bits), control=args.control)
    count = sum(tensor.numel() for tensor in checkpoint.state.values())
    yield f"{args.checkpoint}: {len(checkpoint.state)} tensors, {count:,} parameters"
    started = time.perf_counter()
    records = export_rtn(checkpoint.state, policy, args.clip)
    yield f"quantized by {args.method}, {args.bits} bits, clip {args.clip}, in {time.perf_counter() - started:.1f} s"
    recipe = {
        "method": args.method,
        "bits": args.bits,
        "class_bits": dict(policy.overrides),
        "clip": args.clip,
    }
    started = time.perf_counter()
    written = write_artifact(
        args.out,
        family=checkpoint.family,
        config=checkpoint.config,
        tensors=records,
        compressor=args.compressor,
        recipe=recipe,
    )
    yield (
        f"{args.out}: {written.file_bytes:,} bytes ({written.file_bytes / max(1, count):.3f} per parameter), "
        f"compressed with {args.compressor} in {time.perf_counter() - started:.1f} s"
    )
    yield f"sha256 {written.digest}"
