"""Other libraries' kernels and layers that run along time from the window's beginning: linear attention, scans, filters.

No rule lives here. Such a kernel is causal for what it is given. Given the window turned around it has seen, at each
position, all that comes after it; so has whoever reads the state that it leaves behind at the window's end.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from audit import ir
from audit.rules.axes import Known, Value
from audit.rules.mixing import BACK, SUMMED

_KERNELS = re.compile(
    r"fla\.ops\..*\.(chunk|fused|parallel|naive)_\w+"
    r"|fla\.layers\.(\w+\.)*[A-Z]\w+"
    r"|fla\.modules\.(\w+\.)*(causal_conv1d|ShortConvolution)"
    r"|mamba_ssm\.(\w+\.)*(\w*scan\w*|Mamba\w*)"
    r"|causal_conv1d\.(\w+\.)*causal_conv1d_fn|selective_scan\w*\.(\w+\.)*selective_scan\w*"
)
#: asked for in words: the state at the window's end
_ASKED = frozenset({"output_final_state", "return_last_state", "return_final_states"})
_STARTS = frozenset({"initial_state", "initial_states"})


def runs(full: str) -> bool:
    """Is that the full name of a kernel or a layer that runs along time."""
    return _KERNELS.fullmatch(full) is not None


def run(node: ir.Call, full: str, args: list[Known], words: dict[Any, Known]) -> Known:
    """What a kernel returns: its result at each position, and the last state where it hands that back as well."""
    given = [*args, *words.values()]
    by_heads = full.startswith("fla.ops")
    values = words.get("v", args[2] if len(args) > 2 else None) if by_heads else args[0] if args else words.get("x", words.get("u"))
    if not isinstance(values, Value) or values.state not in ("", "flip") or values.axes.count("t") != 1 or values.axis(0) == "t":
        return None
    back = any(isinstance(v, Value) and v.state == "flip" for v in given)
    start = next((v for k, v in words.items() if k in _STARTS), None)
    again = isinstance(start, Value) and start.state == "window" and start.origin == values.origin and not values.state
    made = replace(values, ahead=(node, BACK) if back else (node, SUMMED) if again else None, late=0)
    asked = any(k in _ASKED and isinstance(v, ir.Const) and v.value is True for k, v in node.keywords)
    if not by_heads and not full.startswith("fla.modules") and not asked:
        return made
    last = Value(("b", *"." * (len(values.axes) - 1)), values.origin, "window", (node, SUMMED)) if asked and not values.state else None
    return made, last


def turned_back(v: Known, node: Any) -> Value | None:
    """What runs from the beginning of a window that was turned around."""
    return replace(v, ahead=(node, BACK)) if isinstance(v, Value) and v.state == "flip" else None


__all__ = ["run", "runs", "turned_back"]
