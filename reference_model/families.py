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
    ``state_dict`` name. Raises InputError when a name or a shape does not fit, and before anything is
    built when the header promises more than the arrays could hold: nobody vouches for a header.
    """
    shape = model_config(config)
    elements = sum(int(array.size) for array in arrays.values())
    if max(shape.layers, shape.gated_repeats, len(shape.repeat_layers)) > len(arrays) or shape.loops > 1000:
        raise InputError(f"golf model: {len(arrays)} tensors are too few for {shape.layers} layers")
    tables = (shape.vocab * shape.dim, shape.mlp_hidden * shape.dim, shape.bigram_size * shape.bigram_dim,
              shape.value_dim * shape.vocab if shape.value_layers else 0, shape.dim * shape.dim)  # fmt: skip
    if max(tables) > elements:
        raise InputError(f"golf model: {elements} elements are too few for the shapes in the header")
    with torch.device("meta"):  # shapes only: neither memory nor the slow initialisation
        want = {name: tuple(t.shape) for name, t in Golf(shape).state_dict().items()}
    have = {name: tuple(array.shape) for name, array in arrays.items()}
    if want != have:
        wrong = sorted(set(want.items()) ^ set(have.items()))
        raise InputError(
            f"golf model: tensors do not fit the configuration, first at {wrong[0][0]} {wrong[0][1]}"
        )
    model = Golf(shape, initialize=False)
    state = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in arrays.items()}
    model.load_state_dict(state)
    return model.eval()
