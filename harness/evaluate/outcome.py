"""What an evaluation's summary means: its exit code, and its form for people. Imports no torch."""

from __future__ import annotations

from typing import Any

from audit.contracts import Exit


def exit_of(claims: dict[str, dict[str, Any]]) -> Exit:
    """Violated anywhere: 1. Order not shown: 3. Else 0."""
    if any(c["status"] == "violated" for c in claims.values()):
        return Exit.VIOLATION
    return Exit.OK if claims["P1"]["status"] == "shown" else Exit.UNDETERMINED


def claims_table(claims: dict[str, dict[str, Any]]) -> list[str]:
    """One line per claim; the four are never folded into one."""
    names = {"P1": "order", "P2": "causality", "P3": "normalisation", "P4": "replay"}
    return [f"{n} {names.get(n, ''):<14} {c['status']:<10} {c['reason']}" for n, c in sorted(claims.items())]


def text_of(summary: dict[str, Any]) -> str:
    """The result for people."""
    partial = "  PARTIAL: only the first tokens of the split" if summary["partial"] else ""
    seconds = summary["seconds"]
    rate = summary["targets"] / max(seconds["score"], 1e-9)
    lines = [
        f"bits per byte    {summary['bits_per_byte']:.6f}{partial}",
        f"nats per target  {summary['nats_per_target']:.6f}   targets {summary['targets']:,}   bytes {summary['bytes']:,}",
        f"time             scoring {seconds['score']:.1f} s ({rate:,.0f} targets/s), adaptation {seconds['adapt']:.1f} s",
    ]
    if summary.get("official"):
        o = summary["official"]
        repeats = o["targets"] - summary["targets"]
        lines.append(f"official         {o['bits_per_byte']:.6f} counting the {repeats} targets that its windows repeat")
    lines += claims_table(summary["claims"])
    lines.append(f"scorecard        {summary['out']}")
    return "\n".join(lines)


def sweep_text(rows: list[dict[str, Any]]) -> str:
    """One line per setting, in the order asked for."""
    width = max(7, *(len(row["setting"]) for row in rows))
    lines = [f"{'setting':<{width}}  bits/byte  P1         seconds"]
    for row in rows:
        mark = "  PARTIAL" if row["partial"] else ""
        lines.append(
            f"{row['setting']:<{width}}  {row['bits_per_byte']:.6f}   {row['claims']['P1']['status']:<9}  "
            f"{row['seconds']['wall']:.1f}{mark}"
        )
    return "\n".join(lines)
