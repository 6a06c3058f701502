"""What ``referee quantize`` does, step by step; yields the lines it prints."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from audit.contracts import InputError
from harness.artifact.container import COMPRESSORS, to_bytes, write_artifact
from harness.artifact.decoder import decoder_bytes
from harness.artifact.grids import Record
from harness.artifact.models import build_from
from harness.tokens.shards import ShardSet
from reference_model.quantize.calibration import HeldOut, SelfGenerated, Source, TrainTokens, UniformRandom
from reference_model.quantize.checkpoint import Checkpoint, load_checkpoint
from reference_model.quantize.compensate import GptqOptions
from reference_model.quantize.export import export_gptq, export_rate, export_rtn, scale_search
from reference_model.quantize.frontier import on
from reference_model.quantize.hessian import Hessians, collect, from_state
from reference_model.quantize.methods import pruned
from reference_model.quantize.policy import Policy, parse_overrides
from reference_model.quantize.prune import TOLERANCE, prune_to_size
from reference_model.quantize.rate import RateOptions

#: What holds where neither the command line nor the checkpoint's recipe says anything.
DEFAULTS: dict[str, Any] = {
    "method": "rtn", "bits": 6, "clip": "wide", "calibration": "self", "sequences": None, "length": 256,
    "temperature": 0.8, "block": 64, "damping": None, "prune": 0.0, "target_bytes": 0, "step": 1e-4, "lagrangian": None,
    "compressor": None,
}  # fmt: skip
_DAMPING = {"gptq": 0.01, "rate": 1e-3}


def settings(args: argparse.Namespace, checkpoint: Checkpoint) -> dict[str, Any]:
    """The command line over the recipe's ``[quantize]`` over the defaults. Raises ``InputError`` for a bad value."""
    recipe = checkpoint.extra.get("recipe") or {}
    wanted = recipe.get("quantize", {}) if isinstance(recipe, dict) else {}
    found = DEFAULTS | {key: value for key, value in wanted.items() if key in DEFAULTS}
    found |= {key: getattr(args, key) for key in DEFAULTS if getattr(args, key, None) is not None}
    if found["method"] not in _DAMPING | {"rtn": 0}:
        raise InputError(f"the recipe's quantize.method is {found['method']!r}; known: rtn, gptq, rate")
    found["compressor"] = found["compressor"] or ("rows" if found["method"] == "rate" else "zstd")
    if found["compressor"] not in (*COMPRESSORS, "auto"):
        raise InputError(f"unknown compressor {found['compressor']!r}; known: auto, {', '.join(COMPRESSORS)}")
    if found["sequences"] is None:
        # Written token by token without a cache: four times fewer, or a CPU is busy for minutes.
        found["sequences"] = 16 if found["calibration"] == "self" else 64
    if found["damping"] is None:
        found["damping"] = _DAMPING.get(found["method"], 0.0)
    if found["damping"] < 0 or found["block"] < 1:
        raise InputError("--damping may not be negative and --block must be at least 1")
    scale_search(found["clip"])
    Policy(bits=found["bits"])
    return found


def device_of(args: argparse.Namespace) -> torch.device:
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is visible to torch")
    return torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def source_of(chosen: Mapping[str, Any], args: argparse.Namespace, model: Any, vocab: int) -> Source:
    """The calibration source by name (all but ``online``, which needs no text)."""
    size = {"sequences": chosen["sequences"], "length": chosen["length"]}
    if chosen["calibration"] == "random":
        return UniformRandom(vocab=vocab, seed=args.seed, **size)
    if chosen["calibration"] == "self":
        return SelfGenerated(
            model=model,
            temperature=chosen["temperature"],
            seed=args.seed,
            window=chosen["length"],
            batch=chosen["sequences"],
            **size,
        )
    if args.data is None:
        raise InputError("--calibration train needs --data, a folder with train shards")
    return HeldOut(train=TrainTokens(ShardSet.open(args.data, "train", vocab_size=vocab)), **size)


def calibrate(
    checkpoint: Checkpoint, chosen: Mapping[str, Any], args: argparse.Namespace, device: torch.device
) -> tuple[Hessians, dict[str, Any]]:
    """Hessians by the chosen calibration, and its description for the recipe."""
    fisher = chosen["method"] == "rate"
    if chosen["calibration"] == "online":
        if fisher:
            raise InputError(
                "--method rate needs row weights, which online Hessians lack; choose train, self or random"
            )
        if "hessians" not in checkpoint.extra:
            raise InputError(
                "this checkpoint carries no online Hessians; train with --set compress.hessian_every=25"
            )
        return from_state(checkpoint.extra["hessians"]), {"source": "online Hessians of training"}
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.state.items()}
    model = build_from(checkpoint.family, checkpoint.config, arrays, str(device))
    source = source_of(chosen, args, model, int(checkpoint.config.get("vocab", 0)))
    return collect(model, source, fisher=fisher), source.describe()


class _Size:
    """Bytes that the artifact may take, and bytes that given records take."""

    def __init__(self, checkpoint: Checkpoint, chosen: Mapping[str, Any], args: argparse.Namespace) -> None:
        self.family, self.config, self.compressor = checkpoint.family, checkpoint.config, chosen["compressor"]
        self.decoder = decoder_bytes()
        self.script = 0
        if args.code is not None:
            try:
                self.script = os.stat(args.code).st_size
            except OSError as error:
                raise InputError(f"{args.code}: cannot be read: {error.strerror}") from error
        self.target = chosen["target_bytes"]
        # The recipe in the header is not known yet; a kilobyte is more than it takes.
        self.budget = self.target - self.decoder - self.script - 1024 if self.target else 0
        if self.target and self.budget <= 0:
            raise InputError(f"code alone takes {self.decoder + self.script:,} of {self.target:,} bytes")

    def of(self, records: Any) -> int:
        return len(
            to_bytes(family=self.family, config=self.config, tensors=records, compressor=self.compressor)[0]
        )

    def lines(self, artifact: int) -> Iterator[str]:
        both = artifact + self.script
        yield f"artifact {artifact:,} + script {self.script:,} = {both:,} bytes; with our decoder ({self.decoder:,}): {both + self.decoder:,}"
        if self.target:
            fits = "fits" if both + self.decoder <= self.target else "OVER"
            yield f"target {self.target:,} bytes: {fits}"


def quantize(args: argparse.Namespace) -> Iterator[str]:
    """Reads the checkpoint, quantizes, prunes to size, writes the artifact; one line per stage."""
    checkpoint = load_checkpoint(args.checkpoint)
    chosen = settings(args, checkpoint)
    policy = Policy(bits=chosen["bits"], overrides=parse_overrides(args.class_bits), control=args.control)
    device = device_of(args)
    size = _Size(checkpoint, chosen, args)
    state: Mapping[str, torch.Tensor] = on(device, checkpoint.state)
    count = sum(tensor.numel() for tensor in state.values())
    yield f"{args.checkpoint}: {len(state)} tensors, {count:,} parameters"
    if chosen["prune"]:
        state = pruned(state, chosen["prune"])
        yield f"pruned: {chosen['prune']:.1%} of each matrix, smallest magnitudes first"
    recipe: dict[str, Any] = {
        "method": chosen["method"],
        "compressor": chosen["compressor"],
        "prune": chosen["prune"],
    }
    tensors: list[dict[str, Any]] = []
    if chosen["method"] == "rtn":
        started = time.perf_counter()
        records = export_rtn(state, policy, chosen["clip"])
        recipe |= {"bits": policy.bits, "class_bits": dict(policy.overrides), "clip": chosen["clip"]}
        yield f"quantized by rtn, {policy.bits} bits, clip {chosen['clip']}, in {time.perf_counter() - started:.1f} s"
    else:
        yield f"calibrating: {chosen['calibration']}, {chosen['sequences']} sequences of {chosen['length']} tokens"
        started = time.perf_counter()
        hessians, description = calibrate(checkpoint, chosen, args, device)
        recipe["calibration"] = description
        yield f"calibrated on {description['source']} in {time.perf_counter() - started:.1f} s"
        how = _gptq if chosen["method"] == "gptq" else _rate
        records, more, lines, tensors = how(state, policy, hessians, chosen, args, size)
        recipe |= more
        yield from lines
    if size.target and chosen["method"] != "rate":
        records, report = prune_to_size(records, size.budget, size.of)
        recipe["pruned_ones"] = report.zeroed
        yield report.line()
    started = time.perf_counter()
    written = write_artifact(
        args.out, family=checkpoint.family, config=checkpoint.config, tensors=records,
        compressor=chosen["compressor"], recipe=recipe,
    )  # fmt: skip
    yield (
        f"{args.out}: {written.file_bytes:,} bytes ({written.file_bytes / max(1, count):.3f} per parameter), "
        f"compressed with {chosen['compressor']} in {time.perf_counter() - started:.1f} s"
    )
    yield from size.lines(written.file_bytes)
    if args.log:
        save_json(
            args.log,
            {"recipe": recipe, "tensors": tensors, "bytes": written.file_bytes, "sha256": written.digest},
        )
    yield f"sha256 {written.digest}"


_Result = tuple[list[Record], dict[str, Any], list[str], list[dict[str, Any]]]


def _gptq(
    state: Mapping[str, torch.Tensor],
    policy: Policy,
    hessians: Hessians,
    chosen: Mapping[str, Any],
    args: argparse.Namespace,
    size: _Size,
) -> _Result:
    started = time.perf_counter()
    options = GptqOptions(block=chosen["block"], damping=chosen["damping"], act_order=not args.no_act_order)
    records, log = export_gptq(state, policy, hessians, chosen["clip"], options)
    seconds = time.perf_counter() - started
    error, plain = sum(e.error for e in log), sum(e.plain_error for e in log)
    lines = [
        f"quantized by gptq, {policy.bits} bits, {len(log)} layers in {seconds:.1f} s; "
        f"layer error {error / max(plain, 1e-30):.1%} of plain rounding's"
    ]
    lines += [
        f"warning: {e.name}: damping grew {e.escalations} times to {e.damping:.0e} of the mean diagonal"
        for e in log
        if e.escalations
    ]
    more = {
        "bits": policy.bits,
        "class_bits": dict(policy.overrides),
        "clip": chosen["clip"],
        "block": options.block,
    }
    return records, more, lines, [e.as_dict() for e in log]


def _rate(
    state: Mapping[str, torch.Tensor],
    policy: Policy,
    hessians: Hessians,
    chosen: Mapping[str, Any],
    args: argparse.Namespace,
    size: _Size,
) -> _Result:
    started = time.perf_counter()
    more = {} if chosen["lagrangian"] is None else {"lagrangian": chosen["lagrangian"]}

    def at(step: float) -> tuple[list[Record], dict[str, Any]]:
        options = RateOptions(step=step, damping=chosen["damping"], block=chosen["block"], **more)
        return export_rate(state, policy, hessians, options)

    step, trials = chosen["step"], 1
    records, coded = at(step)
    if size.target:
        step, records, coded, trials = _step_for(size, at, step, sum(c.codes.numel() for c in coded.values()))
    loss = sum(c.loss for c in coded.values())
    lines = [
        f"quantized by rate, step {step:.4g}, {len(coded)} matrices in {time.perf_counter() - started:.1f} s "
        f"({trials} trials); expected loss {loss:.5f} nats per token"
    ]
    tensors = [
        {"name": n, "loss": c.loss, "damping": c.damping, "dead_columns": c.dead_columns}
        for n, c in coded.items()
    ]
    return records, {"step": step, **more}, lines, tensors


def _step_for(
    size: _Size, at: Any, first: float, weights: int
) -> tuple[float, list[Record], dict[str, Any], int]:
    """The finest step, within the tolerance, whose artifact fits.

    An octave of the step is worth about one bit per weight, which gives the next guess; a bracket guards it.
    """
    low, high = 2.0**-24, 2.0**-4  # bytes fall as the step grows
    best, step = None, min(max(first, low), high)
    for trial in range(1, 31):
        records, coded = at(step)
        found = size.of(records)
        if found <= size.budget:
            high, best = step, (step, records, coded, trial)
            if found >= size.budget * (1 - TOLERANCE):
                break
        else:
            low = step
        if high / low < 1.0001:
            break
        guess = step * 2.0 ** (8 * (found - size.budget * (1 - TOLERANCE / 2)) / weights)
        step = guess if low < guess < high else (low * high) ** 0.5
    if best is None:
        raise InputError(f"no step makes this model fit {size.target:,} bytes")
    return (*best[:3], trial)


def save_json(path: Path, value: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
