"""Builds the model that an artifact describes, through whoever registered its family.

The harness does not know any model: a wing registers ``family -> "module:builder"`` under the entry-point
group ``referee.models``; ``builder(config, arrays)`` takes the header's config and the float32 arrays by name
and answers a ``torch.nn.Module`` with ``forward_logits``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit.contracts import InputError
from audit.program import load, registered
from harness.artifact.container import Artifact

if TYPE_CHECKING:
    import torch


def build_from(
    family: str, config: dict[str, Any], arrays: dict[str, Any], device: str = "cpu"
) -> torch.nn.Module:
    """A model of ``family`` in evaluation mode on ``device``, its gradients switched off."""
    builders = dict(registered("referee.models"))
    if family not in builders:
        known = ", ".join(sorted(builders)) or "none"
        raise InputError(f"no builder is registered for the model family {family!r}; known: {known}")
    builder: Any = load(builders[family])
    try:
        model = builder(config, arrays)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the family {family!r} cannot build this config and these tensors: {error}"
        ) from error
    return model.to(device).eval().requires_grad_(False)


def build_model(artifact: Artifact, device: str = "cpu") -> torch.nn.Module:
    """The artifact's model, dequantized, on ``device``."""
    return build_from(artifact.family, artifact.config, artifact.arrays(), device)
