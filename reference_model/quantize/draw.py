"""``referee quantize --frontier``: measures the curve of bytes against bits per byte and draws it as one HTML page."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

import numpy as np
import torch

from audit.contracts import InputError
from audit.render.page import page
from harness.artifact.inspection import CAP
from harness.artifact.models import build_from
from harness.tokens.bytes import ByteTable
from harness.tokens.folder import find_tokenizer
from harness.tokens.shards import ShardSet
from harness.tokens.tokenizer import load_tokenizer
from reference_model.quantize.checkpoint import load_checkpoint
from reference_model.quantize.frontier import (
    Point,
    bytes_at,
    dominating,
    on,
    rate_points,
    submission_points,
)
from reference_model.quantize.hessian import Hessians, collect, from_state
from reference_model.quantize.run import device_of, save_json, settings, source_of
from reference_model.train.validate import Validation


def frontier(args: argparse.Namespace) -> Iterator[str]:
    """Yields one line per point; writes the page to ``--out`` and the figures beside it as JSON."""
    if args.data is None:
        raise InputError("--frontier needs --data: train shards to calibrate on, val shards to measure on")
    if args.points < 2 or args.targets < 1:
        raise InputError("--points must be at least 2 and --targets at least 1")
    checkpoint = load_checkpoint(args.checkpoint)
    chosen = settings(args, checkpoint) | {"calibration": args.calibration or "train"}
    device = device_of(args)
    vocab = int(checkpoint.config.get("vocab", 0))
    stream = ShardSet.open(args.val or args.data, "val", vocab_size=vocab)
    table = ByteTable.from_tokenizer(load_tokenizer(find_tokenizer(args.data)), vocab)
    head = stream.slice(0, min(stream.total, args.targets + 1))
    yardstick = Validation.of(head, table, chosen["length"], args.targets)
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.state.items()}
    model: Any = build_from(checkpoint.family, checkpoint.config, arrays, str(device))
    state = on(device, checkpoint.state)

    def measure(weights: Mapping[str, np.ndarray]) -> float:
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
        return yardstick.measure(model, batch_tokens=16_384)[1]

    # Writing text token by token is the slow part; 16 sequences serve both methods that want it.
    fewer = chosen | {"calibration": "self", "sequences": min(16, chosen["sequences"])}

    @cache
    def hessians_of(kind: str, fisher: bool = False) -> Hessians:
        model.load_state_dict(state)
        if kind == "online" and "hessians" in checkpoint.extra:
            return from_state(checkpoint.extra["hessians"])
        kind = "train" if kind == "online" else kind
        wanted = fewer if kind == "self" else chosen | {"calibration": kind}
        return collect(model, source_of(wanted, args, model, vocab), fisher=fisher)

    exact = measure(arrays)
    yield f"{args.checkpoint}: {exact:.5f} bits per byte unquantized, over {yardstick.targets.size:,} targets"
    points: list[Point] = []
    for point in submission_points(state, hessians_of, measure, exact, config=checkpoint.config):
        points.append(point)
        yield _line(point)
    hessians = hessians_of(chosen["calibration"], fisher=True)
    steps = [chosen["step"] * 2.0 ** (i - args.points // 2 + 0.5) for i in range(args.points)]
    more = {} if chosen["lagrangian"] is None else {"lagrangian": chosen["lagrangian"]}
    for point in rate_points(state, hessians, measure, exact, steps, config=checkpoint.config, **more):
        points.append(point)
        yield _line(point)
    curve = [p for p in points if p.kind == "rate"]
    for point in points:
        if point.kind == "submission":
            ours = bytes_at(curve, point.bits_per_byte)
            less = (
                "the curve does not reach its loss"
                if ours is None
                else f"{1 - ours / point.bytes:.1%} fewer bytes"
            )
            beaten = "dominated" if dominating(curve, point) else "not dominated"
            yield f"{point.name}: {beaten}; at equal bits per byte {less}"
    parameters = sum(tensor.numel() for tensor in state.values())
    figures = {
        "checkpoint": str(args.checkpoint), "parameters": parameters, "exact": exact,
        "targets": yardstick.targets.size, "points": [p.as_dict() for p in points],
    }  # fmt: skip
    save_json(args.out.with_suffix(".json"), figures)
    try:
        args.out.write_text(page("Bytes against bits per byte", body(points, figures)), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{args.out}: cannot be written: {error.strerror}") from error
    yield f"wrote {args.out} and {args.out.with_suffix('.json')}"


def _line(point: Point) -> str:
    return f"{point.name:14} {point.bytes:>12,} bytes  {point.bits_per_byte:.5f} bits per byte ({point.loss:+.5f})  {point.note}"


def body(points: Sequence[Point], figures: Mapping[str, Any]) -> str:
    """The page's content: the picture and the table of its points."""
    rows = "".join(
        f"<tr><td>{escape(p.name)}</td><td class=num>{p.bytes:,}</td>"
        f"<td class=num>{8 * p.bytes / figures['parameters']:.3f}</td><td class=num>{p.bits_per_byte:.5f}</td>"
        f"<td class=num>{p.loss:+.5f}</td><td>{escape(p.note)}</td></tr>"
        for p in points
    )
    return (
        f"<h1>Bytes against bits per byte</h1><p class=dim>{escape(figures['checkpoint'])}: "
        f"{figures['parameters']:,} parameters, {figures['exact']:.5f} bits per byte unquantized, "
        f"{figures['targets']:,} targets. Whole artifacts, code not counted.</p>{picture(points)}"
        "<div class=scroll><table><tr><th>point</th><th class=num>bytes</th><th class=num>bits/weight</th>"
        f"<th class=num>bits per byte</th><th class=num>loss</th><th>what</th></tr>{rows}</table></div>"
    )


def picture(points: Sequence[Point]) -> str:
    """Bytes to the right, loss upwards on a logarithmic scale; the curve as a line, submissions as named dots."""
    wide, high, left, bottom = 900, 420, 70, 40
    least = 1e-5
    losses = [math.log10(max(p.loss, least)) for p in points]
    low, top = min(losses) - 0.1, max(losses) + 0.1
    most = max(p.bytes for p in points) * 1.05

    def place(point: Point) -> tuple[float, float]:
        share = (math.log10(max(point.loss, least)) - low) / (top - low)
        return left + (wide - left - 20) * point.bytes / most, (high - bottom) * (1 - share) + 10

    parts = []
    for power in range(math.floor(low), math.ceil(top) + 1):
        if low <= power <= top:
            y = (high - bottom) * (1 - (power - low) / (top - low)) + 10
            parts.append(
                f'<line x1="{left}" x2="{wide - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
                f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
            )
    for share in range(0, 5):
        x = left + (wide - left - 20) * share / 4 / 1.05
        parts.append(
            f'<text x="{x:.1f}" y="{high - 8}" text-anchor="middle">{most * share / 4 / 1.05 / 1e6:.2f} MB</text>'
        )
    if most > CAP:
        x = left + (wide - left - 20) * CAP / most
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{high - bottom}" stroke="var(--bad)" stroke-dasharray="4 4"/>'
        )
    curve = sorted((p for p in points if p.kind == "rate"), key=lambda p: p.bytes)
    track = " ".join("{:.1f},{:.1f}".format(*place(p)) for p in curve)
    parts.append(f'<polyline points="{track}" fill="none" stroke="var(--accent)" stroke-width="2"/>')
    for p in points:
        x, y = place(p)
        ours = p.kind == "rate"
        title = f"{p.name}: {p.bytes:,} bytes, {p.loss:+.5f} bits per byte"
        parts.append(
            f'<g><title>{escape(title)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{3 if ours else 5}" '
            f'fill="var({"--accent" if ours else "--accent2"})"/>'
            + ("" if ours else f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(p.name)}</text>')
            + "</g>"
        )
    return (
        f'<svg viewBox="0 0 {wide + 80} {high}" role="img" aria-label="artifact bytes against loss in bits per byte" '
        f'style="width:100%;font-size:12px;fill:var(--fg)">{"".join(parts)}</svg>'
        "<p class=dim>Right: bytes of the artifact. Up: bits per byte lost, logarithmic. Line: rate against distortion; "
        "dots: the submissions' methods on the same weights; dashed: the cap.</p>"
    )
