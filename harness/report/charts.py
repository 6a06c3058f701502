"""Pictures as inline SVG: line charts and the time line of an evaluation. No script, no external file.

Every picture carries a title and a description for screen readers, and its numbers also stand in a
table of the page that shows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1000.0, 62.0, 18.0, 30.0, 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: ``x`` and ``y`` of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values between ``low`` and ``high``: 1, 2 or 5 times a power of ten apart."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    found = []
    while first * step <= high + 1e-9 * step:
        found.append(first * step)
        first += 1
    return found


def number(value: float) -> str:
    """A tick's label, as short as it can be without lying."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def line_chart(
    series: Sequence[Series], *, title: str, x_label: str, y_label: str, height: float = 300.0
) -> str:
    """A line chart; the legend stands in a row above it. Empty series are left out."""
    drawn = [s for s in series if len(s.x)]
    if not drawn:
        return f'<p class="dim">{escape(title)}: nothing was recorded.</p>'
    xs = [float(v) for s in drawn for v in s.x]
    ys = [float(v) for s in drawn for v in s.y if math.isfinite(v)]
    x0, x1 = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    y0, y1 = min(ys), max(ys)
    pad = (y1 - y0) * 0.06 or abs(y1) * 0.06 or 1.0
    y0, y1 = y0 - pad, y1 + pad

    def px(v: float) -> float:
        return LEFT + (v - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def py(v: float) -> float:
        return TOP + (y1 - v) / (y1 - y0) * (height - TOP - BOTTOM)

    parts = [_open(height, title, f"{y_label} against {x_label}: " + ", ".join(s.name for s in drawn))]
    for v in ticks(y0, y1):
        y = py(v)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(v)}</text>')
    for v in ticks(x0, x1, 8):
        parts.append(
            f'<text x="{px(v):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{number(v)}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    at = WIDTH - RIGHT - sum(48 + 7.0 * len(s.name) for s in drawn)
    for n, s in enumerate(drawn):
        points = " ".join(
            f"{px(float(x)):.1f},{py(float(y)):.1f}" for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)
        )
        # A second look besides the colour: every other line is dashed.
        dash = ' stroke-dasharray="7 4"' if n % 2 else ""
        parts.append(
            f'<polyline class="s{n % 2}" fill="none" stroke-width="2"{dash} points="{points}"/>'
            f'<line class="s{n % 2}" stroke-width="2"{dash} x1="{at:.1f}" x2="{at + 28:.1f}" y1="12" y2="12"/>'
            f'<text x="{at + 33:.1f}" y="16">{escape(s.name)}</text>'
        )
        at += 48 + 7.0 * len(s.name)
    parts.append(f'<text x="{LEFT}" y="16">{escape(y_label)}</text></svg>')
    return "".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One event of a time line, in order: a ``score`` or an ``update`` over targets, ``seconds`` long."""

    kind: str
    chunk: int
    seconds: float
    label: str


def time_line(blocks: Sequence[Block], *, title: str) -> str:
    """Score and update events in the order of the record, each as wide as it took, two lanes.

    The upper lane holds scoring, the lower one updates: the picture of score-first is that no lower
    block of a chunk begins before the upper one of the same chunk has ended.
    """
    if not blocks:
        return f'<p class="dim">{escape(title)}: no events.</p>'
    height, lane = 132.0, 34.0
    whole = sum(max(b.seconds, 1e-6) for b in blocks)
    scale = (WIDTH - LEFT - RIGHT) / whole
    parts = [_open(height, title, f"{len(blocks)} events over {whole:.1f} seconds, in the order of the record")]
    for row, name in enumerate(("score", "update")):
        parts.append(f'<text x="{LEFT - 8}" y="{TOP + row * 42 + 22}" text-anchor="end">{name}</text>')
    at = LEFT
    for b in blocks:
        width = max(b.seconds, 1e-6) * scale
        row = 0 if b.kind == "score" else 1
        parts.append(
            f'<rect class="f{row}" x="{at:.2f}" y="{TOP + row * 42}" width="{max(width - 0.6, 0.6):.2f}" height="{lane}" rx="2">'
            f"<title>{escape(b.label)}</title></rect>"
        )
        at += width
    for v in ticks(0.0, whole, 8):
        parts.append(f'<text x="{LEFT + v * scale:.1f}" y="{TOP + 104}" text-anchor="middle">{number(v)} s</text>')
    parts.append("</svg>")
    return "".join(parts)


def _open(height: float, title: str, description: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    )
