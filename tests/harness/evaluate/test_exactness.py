"""The batched scorer against the float64 reference that runs one window at a time."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.evaluate.plan import plan
from harness.evaluate.reference import reference_scores
from harness.evaluate.score import Numerics, Scorer
from harness.evaluate.stream import Stream
from reference_model.config import ModelConfig
from reference_model.model.golf import Golf

VOCAB = 40
#: Every feature of the family that treats positions differently: XSA, partial RoPE, smear, tables, skips.
CONFIG = ModelConfig(
    vocab=VOCAB, layers=3, dim=32, heads=4, kv_heads=2, mlp_hidden=48, xsa_layers=2, rope_dims=4, smear=True,
    bigram_size=32, bigram_dim=8, value_dim=8, value_layers=(2,), unet=True, norm_scale=True, residual_mix=True,
    branch_scale=True,
)  # fmt: skip


def golf(config=CONFIG):
    torch.manual_seed(3)
    model = Golf(config).eval().requires_grad_(False)
    for p in model.parameters():
        if p.ndim == 2:
            p.normal_(std=0.3)
    return model


def scores(model, tokens, precision, batch, windows):
    stream = Stream.of(tokens, vocab=VOCAB)
    numerics = Numerics(precision=precision, batch=batch)
    scorer = Scorer(numerics.prepare(model), stream, windows, numerics)
    found = [scorer.score_chunk(c) for c in range(windows.chunks)]
    assert [x for f in found for x in f.misplaced] == []
    return np.concatenate([f.nll for f in found])


def tokens_of(length, seed=0):
    return np.random.default_rng(seed).integers(1, VOCAB, length + 1).astype(np.uint16)


@st.composite
def shapes(draw):
    context = draw(st.integers(2, 24))
    stride = draw(st.integers(1, context))
    total = draw(st.integers(1, 90))
    chunk = draw(st.none() | st.integers(1, 60))
    variant = "strict"
    if context % stride == 0 and draw(st.booleans()):
        variant, total = "official", max(total // context, 1) * context
    return total, context, stride, chunk, variant


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=shapes(), batch=st.sampled_from([1, 3, 16]))
@example(shape=(90, 16, 4, 22, "strict"), batch=16)  # the chunk is no multiple of the stride
@example(shape=(17, 16, 1, None, "strict"), batch=3)
def test_scores_agree_with_the_reference_in_float64_and_float32(shape, batch):
    total, context, stride, chunk, variant = shape
    windows = plan(total, context=context, stride=stride, chunk=chunk, variant=variant)
    tokens = tokens_of(total)
    truth = reference_scores(golf(), tokens, context=context, stride=stride, windows=windows)
    assert np.isfinite(truth).all()
    assert np.abs(scores(golf(), tokens, "float64", batch, windows) - truth).max() < 1e-9
    assert np.abs(scores(golf(), tokens, "float32", batch, windows) - truth).max() < 1e-5


def test_bf16_has_no_bias():
    windows = plan(4000, context=64, stride=16)
    tokens = tokens_of(4000)
    model = golf()
    truth = reference_scores(model, tokens, context=64, stride=16, windows=windows)
    gap = scores(model, tokens, "bf16", 32, windows) - truth
    assert 1e-4 < np.abs(gap).mean() < 0.1  # it did compute in bf16
    # The mean of n gaps wanders by their spread over sqrt(n); what is beyond that would be bias.
    assert abs(gap.mean()) < 1e-4 + 3 * gap.std() / len(gap) ** 0.5


@pytest.mark.parametrize("change", [{"lanes_from": 1}, {"gated_layer": 1, "gated_repeats": 3}, {"moe_experts": 2},
                                    {"repeat_layers": (1,), "repeat_active": True}])  # fmt: skip
def test_variants_of_the_family_score_the_same_when_only_the_last_positions_are_computed(change):
    import dataclasses

    config = dataclasses.replace(CONFIG, **change)
    windows = plan(60, context=16, stride=4, chunk=20)
    truth = reference_scores(golf(config), tokens_of(60), context=16, stride=4, windows=windows)
    assert np.abs(scores(golf(config), tokens_of(60), "float64", 8, windows) - truth).max() < 1e-9


def test_the_reference_itself_is_the_textbook_sum():
    """Against a hand-written loop over single targets, so that both evaluators cannot share one mistake."""
    model, tokens = golf().double(), tokens_of(30)
    model.compute_dtype = torch.float64
    found = reference_scores(model, tokens, context=8, stride=1)
    for t in range(30):
        start = max(0, t - 7)
        logits = model.forward_logits(torch.from_numpy(tokens[start : t + 1].astype(np.int64))[None])[0, -1].double()
        assert found[t] == pytest.approx(float(torch.logsumexp(logits, 0) - logits[int(tokens[t + 1])]), abs=1e-12)
