"""Builds models of the family "golf" from an artifact's header and arrays (entry point ``referee.models``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from audit.contracts import InputError
from reference_model.config import model_config
from reference_model.model.golf import Golf


def build(config: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Golf:
    """A Golf in evaluation mode, float32 on the CPU.

    ``config`` is a ModelConfig as plain JSON types; ``arrays`` holds every parameter by its
    ``state_dict`` name. Raises InputError when a name or a shape does not fit.
    """
    model = Golf(model_config(config))
    want = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    have = {name: tuple(array.shape) for name, array in arrays.items()}
    if want != have:
        wrong = sorted(set(want.items()) ^ set(have.items()))
        raise InputError(
            f"golf model: tensors do not fit the configuration, first at {wrong[0][0]} {wrong[0][1]}"
        )
    state = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in arrays.items()}
    model.load_state_dict(state)
    return model.eval()
