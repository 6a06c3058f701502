"""Building a model from an artifact's header: exact, and not to be talked into building a monster."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from audit.contracts import InputError
from reference_model.config import ModelConfig
from reference_model.families import build
from reference_model.model import Golf

SMALL = ModelConfig(vocab=32, layers=2, dim=16, heads=2, kv_heads=1, mlp_hidden=24, bigram_size=9, bigram_dim=4,
                    smear=True, norm_scale=True)  # fmt: skip


def arrays(config):
    torch.manual_seed(0)
    return {name: tensor.numpy() for name, tensor in Golf(config).state_dict().items()}


def test_the_built_model_is_the_one_that_was_saved():
    torch.manual_seed(0)
    model = Golf(SMALL).eval()
    again = build(dataclasses.asdict(SMALL), {n: t.numpy() for n, t in model.state_dict().items()})
    ids = torch.tensor([[1, 4, 2, 30]])
    assert not again.training and torch.equal(again.forward_logits(ids), model.forward_logits(ids))


@pytest.mark.parametrize(
    "lie",
    [{"layers": 10**9}, {"vocab": 10**9}, {"mlp_hidden": 10**9}, {"bigram_size": 10**9}, {"bigram_dim": 10**9},
     {"dim": 2**30}, {"loops": 10**9, "loop_to": 1}, {"value_layers": (0,), "value_dim": 10**9},
     {"layers": 3}, {"kv_heads": 2}, {"gated_repeats": 10**9}, {"softcap": "deep"}, {"nonsense": 1}],
)  # fmt: skip
def test_a_lying_header_is_refused_before_anything_is_allocated(lie):
    with pytest.raises(InputError) as caught:
        build(dataclasses.asdict(SMALL) | lie, arrays(SMALL))
    assert "\n" not in str(caught.value)


def test_a_missing_or_extra_tensor_is_named():
    have = arrays(SMALL)
    with pytest.raises(InputError, match="do not fit"):
        build(dataclasses.asdict(SMALL), {n: a for n, a in have.items() if n != "smear.gate"})
    with pytest.raises(InputError, match="surplus"):
        build(dataclasses.asdict(SMALL), have | {"a.surplus": np.zeros(3)})
