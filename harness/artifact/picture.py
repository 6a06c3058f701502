"""The report of ``referee inspect`` as a text table and as a self-contained HTML page."""

from __future__ import annotations

import html
from typing import Any

_COLOURS = {"int": "#3b6ea8", "fp": "#b0793a", "bf": "#b0793a"}


def table(report: dict[str, Any]) -> str:
    """A plain-text table, one tensor a line, with totals."""
    width = max([len("tensor"), *(len(row["name"]) for row in report["tensors"])])
    shape_width = max([len("shape"), *(len(_shape(row)) for row in report["tensors"])])
    lines = [
        f"{report['path']}: {report['file_bytes']:,} bytes, {report['parameters']:,} parameters, "
        f"{report['bytes_per_parameter']:.4f} bytes each",
        f"family {report['family']}, recipe {report['recipe']}",
        f"sha256 {report['sha256']}",
        "",
        f"{'tensor':{width}}  {'shape':>{shape_width}}  {'grid':5} {'bits/w':>7} {'entropy':>7} {'bytes':>11} {'share':>7}",
    ]
    for row in report["tensors"]:
        entropy = "" if row["entropy"] is None else f"{row['entropy']:.3f}"
        lines.append(
            f"{row['name']:{width}}  {_shape(row):>{shape_width}}  {row['grid']:5} {row['bits_per_weight']:7.3f} "
            f"{entropy:>7} {row['bytes']:11,.0f} {row['share']:7.2%}"
        )
    lines.append("")
    for section in report["sections"]:
        lines.append(
            f"{section['plane']:7} {section['codec']:7} {section['raw']:>12,} -> {section['packed']:>12,} bytes"
        )
    lines.append(
        f"header and preamble {report['file_bytes'] - sum(s['packed'] for s in report['sections']):,} bytes"
    )
    return "\n".join(lines)


def _shape(row: dict[str, Any]) -> str:
    return "x".join(str(axis) for axis in row["shape"]) or "scalar"


def _colour(grid: str) -> str:
    return next(colour for prefix, colour in _COLOURS.items() if grid.startswith(prefix))


def _bars(report: dict[str, Any]) -> str:
    """Horizontal bars, one per tensor, length by bytes; a notch marks the order-0 entropy."""
    rows = report["tensors"]
    longest = max([1.0, *(row["bytes"] for row in rows)])
    height, left, wide = 18, 300, 600
    parts = []
    for index, row in enumerate(rows):
        y = index * height
        length = wide * row["bytes"] / longest
        name = html.escape(row["name"])
        size = 1
        for axis in row["shape"]:
            size *= axis
        title = (
            f"{name}: {row['bytes']:,.0f} bytes, {row['bits_per_weight']:.3f} bits per weight, {row['grid']}"
        )
        parts.append(
            f'<g><title>{title}</title><text x="{left - 8}" y="{y + 13}" text-anchor="end">{name}</text>'
            f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="{height - 6}" fill="{_colour(row["grid"])}"/>'
        )
        label = left + length
        if row["entropy"] is not None:
            notch = left + wide * row["entropy"] * size / 8 / longest
            parts.append(
                f'<line x1="{notch:.1f}" x2="{notch:.1f}" y1="{y + 1}" y2="{y + height - 1}" stroke="#c33" stroke-width="2"/>'
            )
            label = max(label, notch)
        parts.append(f'<text x="{label + 6:.1f}" y="{y + 13}">{row["bytes"]:,.0f}</text></g>')
    return (
        f'<svg viewBox="0 0 1020 {max(1, len(rows)) * height}" role="img" '
        f'aria-label="bytes per tensor">{"".join(parts)}</svg>'
    )


def page(report: dict[str, Any]) -> str:
    """One self-contained HTML page: the totals, the bars, the table."""
    share = report["file_bytes"] / report["cap"]
    head = "".join(
        f"<th>{name}</th>" for name in ("tensor", "shape", "grid", "bits/weight", "entropy", "bytes", "share")
    )
    body = "".join(
        "<tr>"
        f"<td>{html.escape(row['name'])}</td><td>{_shape(row)}</td><td>{row['grid']}</td>"
        f"<td>{row['bits_per_weight']:.3f}</td>"
        f"<td>{'' if row['entropy'] is None else format(row['entropy'], '.3f')}</td>"
        f"<td>{row['bytes']:,.0f}</td><td>{row['share']:.2%}</td></tr>"
        for row in report["tensors"]
    )
    sections = "".join(
        f"<tr><td>{s['plane']}</td><td>{s['codec']}</td><td>{s['raw']:,}</td><td>{s['packed']:,}</td></tr>"
        for s in report["sections"]
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Artifact {html.escape(report["sha256"][:12])}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.5 system-ui, sans-serif; max-width: 1060px; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; margin: 1em 0; }} td, th {{ padding: 1px 10px; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }} tr:nth-child(even) {{ background: #8881; }}
svg {{ width: 100%; font-size: 11px; }} svg text {{ fill: currentColor; }}
.meter {{ background: #8883; height: 12px; }} .meter div {{ background: #3b6ea8; height: 12px; }}
code {{ overflow-wrap: anywhere; }}
</style>
<h1>{html.escape(report["path"])}</h1>
<p>{report["file_bytes"]:,} bytes, {report["parameters"]:,} parameters, {report["bytes_per_parameter"]:.4f} bytes each;
{share:.1%} of the {report["cap"]:,}-byte cap, code not counted.</p>
<div class="meter"><div style="width:{min(100.0, 100 * share):.1f}%"></div></div>
<p>Family <code>{html.escape(report["family"])}</code>, recipe <code>{html.escape(str(report["recipe"]))}</code>,
SHA-256 <code>{report["sha256"]}</code></p>
<h2>Bytes per tensor</h2>
<p>Blue: integer grids; brown: floating point. The red notch is the order-0 entropy of the integers.</p>
{_bars(report)}
<h2>Sections</h2>
<table><tr><th>plane</th><th>compressor</th><th>raw</th><th>packed</th></tr>{sections}</table>
<h2>Tensors</h2>
<table><tr>{head}</tr>{body}</table>
</html>
"""
