"""Adaptation settings as they stand on a command line or in a header: a name and ``key=value`` pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from audit.contracts import InputError
from harness.adapt.lora import DocumentLoRA
from harness.adapt.recipes import Adaptation, ChunkTTT, NoAdaptation, PeriodicReset, Phased
from harness.adapt.select import Discriminative, FreezeFirst, LastBlocks, constant, cosine

#: What each named recipe starts from; every key can be overridden.
DEFAULTS: dict[str, dict[str, Any]] = {
    "none": {"chunk": 65_536},
    "sgd": {"chunk": 32_768, "lr": 0.002, "momentum": 0.9, "epochs": 3, "rows": 32, "clip": 1.0, "freeze": 2,
            "last": 0, "decay": 1.0, "schedule": "cosine", "reset": 0},
    "adamw": {"chunk": 262_144, "lr": 1e-4, "epochs": 5, "rows": 32, "clip": 1.0, "freeze": 0, "last": 2,
              "decay": 1.0, "schedule": "cosine", "reset": 0},
    "lora": {"chunk": 1024, "lr": 0.01, "rank": 8, "scale": 1.0, "epochs": 1, "rows": 32, "seed": 0},
    "phased": {"chunk": 32_768, "documents": 50, "lr": 0.001, "momentum": 0.9, "epochs": 1, "rows": 32, "clip": 1.0,
               "freeze": 0, "last": 0, "decay": 1.0, "schedule": "constant"},
}  # fmt: skip
NAMES = tuple(DEFAULTS)


def settings(name: str, overrides: Mapping[str, str | float | int] | None = None) -> dict[str, Any]:
    """The full settings of a recipe. Raises `InputError` for an unknown name, key or value."""
    if name not in DEFAULTS:
        raise InputError(f"unknown adaptation {name!r}; choose one of {', '.join(NAMES)}")
    found = dict(DEFAULTS[name])
    for key, value in (overrides or {}).items():
        if key not in found:
            raise InputError(f"adaptation {name} has no setting {key!r}; it has {', '.join(sorted(found))}")
        kind = type(found[key])
        try:
            found[key] = kind(float(value)) if kind is int else kind(value)
        except ValueError:
            raise InputError(f"adaptation {name}: {key}={value} is no {kind.__name__}") from None
    if "schedule" in found and found["schedule"] not in ("cosine", "constant"):
        raise InputError(f"adaptation {name}: schedule {found['schedule']!r}; choose cosine or constant")
    if found["chunk"] < 1:
        raise InputError(f"adaptation {name}: chunk {found['chunk']} must be at least 1 target")
    return found


def build(name: str, chosen: Mapping[str, Any], context: int) -> Adaptation:
    """The recipe of these (full) settings; training rows have the length of the context."""
    if name == "none":
        return NoAdaptation(chosen["chunk"])
    if name == "lora":
        return DocumentLoRA(length=context, **chosen)
    if name == "adamw":
        make: Any = partial(torch.optim.AdamW, weight_decay=0.0, betas=(0.9, 0.999))
    else:
        make = partial(torch.optim.SGD, momentum=chosen["momentum"])
    select: Any = LastBlocks(count=chosen["last"]) if chosen["last"] else FreezeFirst(count=chosen["freeze"])
    inner = ChunkTTT(
        make=make, lr=chosen["lr"], select=select, length=context, chunk=chosen["chunk"],
        rates=Discriminative(decay=chosen["decay"]) if chosen["decay"] != 1.0 else None,
        schedule=cosine if chosen["schedule"] == "cosine" else constant,
        epochs=chosen["epochs"], rows=chosen["rows"], clip=chosen["clip"] or None,
    )  # fmt: skip
    if name == "phased":
        return Phased(inner=inner, documents=chosen["documents"])
    return PeriodicReset(inner=inner, every=chosen["reset"]) if chosen.get("reset") else inner
