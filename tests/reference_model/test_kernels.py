"""Every kernel against the eager code it replaces, forward and backward; on a CPU through the interpreter."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined, hence before their import

pytest.importorskip("triton")

from reference_model.config import ModelConfig
from reference_model.kernels.attention import prepare_fused
from reference_model.kernels.mlp import BACKWARD_ROWS, linear_leaky_square, mlp_residual, up_forward
from reference_model.model import Golf
from reference_model.model.attention import prepare
from reference_model.model.layers import rms_norm, rope_tables
from reference_model.model.mlp import leaky_square

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
DTYPES = [
    torch.float32,
    pytest.param(torch.bfloat16, marks=pytest.mark.skipif(DEVICE == "cpu", reason="GPU only")),
]


def close(got, want, dtype):
    """Relative error in norm against float64."""
    assert got.shape == want.shape and not got.isnan().any()
    error = (got.double() - want).norm() / want.norm().clamp_min(1e-12)
    assert error < TOLERANCE[dtype], float(error)


def compare(fused, eager, inputs, dtype):
    """Outputs and all gradients of ``fused`` in dtype and of ``eager`` in float64, under one random cotangent."""
    low = [None if t is None else t.to(DEVICE, dtype).requires_grad_() for t in inputs]
    high = [None if t is None else t.detach().double().requires_grad_() for t in low]
    got, want = fused(*low), eager(*high)
    close(got, want, dtype)
    cotangent = torch.randn(want.shape, generator=torch.Generator().manual_seed(9)).to(DEVICE)
    got.backward(cotangent.to(dtype))
    want.backward(cotangent.to(dtype).double())
    for a, b in zip(low, high, strict=True):
        if a is not None:
            close(a.grad, b.grad, dtype)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slope", [0.5, 0.0, 0.9])
@pytest.mark.parametrize("shape", [(2, 20, 32, 48), (1, 33, 40, 70), (3, 5, 16, 16)])
def test_linear_leaky_square(shape, slope, dtype):
    b, t, k, n = shape
    compare(
        lambda x, w: linear_leaky_square(x, w, slope), lambda x, w: leaky_square(x @ w.T, slope),
        [draw(b, t, k), draw(n, k)], dtype,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(40, 32, 48), (33, 64, 80)])
def test_descriptor_and_pointer_paths_agree(shape):
    m, k, n = shape
    x, w = draw(m, k).to(DEVICE), draw(n, k).to(DEVICE)
    try:
        with_descriptors = up_forward(x, w, 0.5, descriptors=True)
    except (AttributeError, NotImplementedError) as error:
        pytest.skip(f"this Triton cannot run descriptors here: {error}")
    for a, b in zip(with_descriptors, up_forward(x, w, 0.5, descriptors=False), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("shape", [(2, 10, 32, 48), (1, 19, 24, 40)])
def test_whole_mlp_branch(shape, scaled, dtype):
    b, t, d, n = shape
    norm = torch.tensor(0.7, device=DEVICE)

    def eager(x, up, down, scale):
        y = leaky_square(rms_norm(x) * norm.double() @ up.T, 0.5) @ down.T
        return x + (y if scale is None else y * scale)

    compare(
        lambda x, up, down, scale: mlp_residual(x, up, down, scale, norm, 0.5), eager,
        [draw(b, t, d), draw(n, d) / d**0.5, draw(d, n) / n**0.5, draw(d) if scaled else None], dtype,
    )  # fmt: skip


def test_backward_in_slices_equals_backward_at_once(monkeypatch):
    import reference_model.kernels.mlp as module

    assert BACKWARD_ROWS > 30
    norm = torch.tensor(1.0, device=DEVICE)
    grads = []
    for rows in (BACKWARD_ROWS, 7):
        monkeypatch.setattr(module, "BACKWARD_ROWS", rows)
        inputs = [t.to(DEVICE).requires_grad_() for t in (draw(30, 16), draw(24, 16), draw(16, 24), draw(16))]
        mlp_residual(*inputs, norm, 0.5).square().sum().backward()
        grads.append([t.grad for t in inputs])
    # The two add the same float32 products in another order, so elements that nearly cancel differ by rounding of
    # the large terms in them: the tensor's norm is the measure, as for every other kernel here.
    for a, b in zip(*grads, strict=True):
        close(b, a.double(), torch.float32)
        with pytest.raises(AssertionError):
            close(b * 1.0001, a.double(), torch.float32)


def test_a_row_left_out_of_the_backward_pass_would_be_seen():
    norm = torch.tensor(1.0, device=DEVICE)
    inputs = [t.to(DEVICE).requires_grad_() for t in (draw(30, 16), draw(24, 16), draw(16, 24), draw(16))]
    grads = []
    for rows in (30, 29):  # the weights' gradients without the last of 30 rows
        loss = mlp_residual(inputs[0][:rows], *inputs[1:], norm, 0.5).square().sum()
        grads.append(torch.autograd.grad(loss, inputs[1:]))
    for whole, partial in zip(*grads, strict=True):
        with pytest.raises(AssertionError):
            close(partial, whole.double(), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("gained", [True, False])
@pytest.mark.parametrize("shape", [(2, 9, 4, 16, 4), (1, 5, 2, 16, 16), (1, 7, 3, 24, 8)])
def test_attention_preparation(shape, gained, norm, dtype):
    b, t, h, d, dims = shape
    cos, sin = rope_tables(t, dims, 100.0, 0, torch.device(DEVICE))
    compare(
        lambda x, g: prepare_fused(x, cos, sin, g, norm),
        lambda x, g: prepare(x, cos.double(), sin.double(), g, norm),
        [draw(b, t, h, d), draw(h) if gained else None], dtype,
    )  # fmt: skip


@pytest.mark.parametrize(("mlp", "attention"), [("fused", "eager"), ("mega", "fused")])
def test_a_model_with_kernels_equals_one_without(mlp, attention):
    """Logits of all and of the last positions, and every parameter's gradient."""
    torch.manual_seed(2)
    config = ModelConfig(
        vocab=32, layers=3, dim=32, heads=2, kv_heads=1, mlp_hidden=48, rope_dims=8, unet=True, norm_scale=True,
        residual_mix=True, branch_scale=True, xsa_layers=1,
    )  # fmt: skip
    model = Golf(config).to(DEVICE)
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.2 * torch.randn_like(param))
    ids = torch.randint(0, 32, (2, 12), device=DEVICE)
    results = []
    for choice in ({}, {"mlp": mlp, "attention": attention}):
        model.use_kernels(**choice)
        model.zero_grad()
        model(ids, ids.roll(-1, 1)).backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters()}
        results.append(
            (model.forward_logits(ids).detach(), model.forward_logits(ids, last=2).detach(), grads)
        )
    (whole, last, grads), (kernel_whole, kernel_last, kernel_grads) = results
    torch.testing.assert_close(kernel_whole, whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kernel_last, last, rtol=1e-4, atol=1e-4)
    for name, want in grads.items():
        torch.testing.assert_close(
            kernel_grads[name], want, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_gradcheck_style_fake_shapes():
    """What the compiler is told about the operators is what they return."""
    x, w = draw(8, 16).to(DEVICE), draw(24, 16).to(DEVICE)
    torch.library.opcheck(
        torch.ops.golf.linear_leaky_square.default, (x, w, 0.5), test_utils=("test_schema", "test_faketensor")
    )
