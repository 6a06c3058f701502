"""Facts about the machine and the code that a scorecard's header records."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from audit.contracts import RULESET
from audit.program import version


def environment(device: torch.device, world: int) -> dict[str, Any]:
    """Versions, device and ranks. Nothing personal: no host name, user or path."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(), "torch": torch.__version__, "system": sys.platform,
        "device": device.type, "device_name": name, "threads": torch.get_num_threads(), "world": world,
    }  # fmt: skip


def harness_digest() -> dict[str, str]:
    """The program's version and the SHA-256 over the harness's own source files, in sorted order."""
    root = Path(__file__).resolve().parent.parent
    state = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        state.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return {"version": version(), "sha256": state.hexdigest(), "ruleset": RULESET}
