"""Reads a training checkpoint: family, config and state dict, without unpickling code."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from typing import Any

import torch

from audit.contracts import InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """``state``: tensors by name as the family's builder takes them, float32 on the CPU.

    ``extra``: whatever else the trainer stored (step, data digests, online Hessians).
    """

    family: str
    config: dict[str, Any]
    state: dict[str, torch.Tensor]
    extra: dict[str, Any] = field(default_factory=dict)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Raises ``InputError`` for anything that is not such a file."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: no checkpoint that can be loaded safely ({first[:120]})") from error
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("state"), dict)
        or not isinstance(found.get("config"), dict)
    ):
        raise InputError(
            f"{path}: a checkpoint needs the entries 'config' and 'state'; train one with referee train"
        )
    state = {}
    for name, value in found["state"].items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: state entry {name!r} is no tensor")
        state[name] = value.detach().float().contiguous()
    extra = {key: value for key, value in found.items() if key not in ("family", "config", "state")}
    return Checkpoint(
        family=str(found.get("family", "golf")), config=found["config"], state=state, extra=extra
    )
