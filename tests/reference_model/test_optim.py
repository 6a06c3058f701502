"""Muon, its orthogonalizers and the split of parameters between the optimizers."""

from __future__ import annotations

import pytest
import torch

from reference_model.config import ModelConfig, OptimConfig
from reference_model.model import Golf
from reference_model.optim import Optimizers
from reference_model.optim.build import split
from reference_model.optim.muon import ParallelMuon
from reference_model.optim.orthogonal import NS5, POLAR, SAFETY, normalize_rows, orthogonalize


def polynomial(x, triples):
    """a s + b s^3 + c s^5 applied to singular values, through an explicit SVD."""
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag_embed(s) @ v


@pytest.mark.parametrize("shape", [(6, 6), (10, 4), (4, 10), (3, 7, 5)])
@pytest.mark.parametrize(("kind", "steps"), [("ns5", 5), ("ns5", 4), ("polar", 4), ("polar", 5)])
def test_the_iteration_is_its_polynomial_on_the_singular_values(shape, kind, steps):
    torch.manual_seed(1)
    x = torch.randn(shape, dtype=torch.float64)
    if kind == "ns5":
        start, triples = x / x.norm(dim=(-2, -1), keepdim=True), [NS5] * steps
    else:
        start = x / (x.norm(dim=(-2, -1), keepdim=True) * SAFETY)
        triples = [(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in POLAR[:steps]]
    got = orthogonalize(x, kind, steps, torch.float64)
    torch.testing.assert_close(got, polynomial(start, triples), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "steps", "low", "high"), [("ns5", 5, 0.5, 1.25), ("polar", 5, 0.8, 1.15)])
def test_singular_values_land_near_one(kind, steps, low, high):
    torch.manual_seed(2)
    x = torch.randn(4, 64, 96)
    values = torch.linalg.svdvals(orthogonalize(x, kind, steps))
    assert values.min() > low and values.max() < high


def test_polar_is_closer_to_orthogonal_than_newton_schulz():
    """Newton-Schulz 5 trades accuracy for speed on purpose; Polar Express converges."""
    torch.manual_seed(3)
    x = torch.randn(48, 64)
    error = {k: (torch.linalg.svdvals(orthogonalize(x, k, 5)) - 1).abs().mean() for k in ("ns5", "polar")}
    assert error["polar"] < 0.75 * error["ns5"]


def test_row_normalization_gives_every_row_length_one():
    x = torch.randn(3, 5, 7) * torch.tensor([1e-3, 1.0, 50.0])[:, None, None]
    torch.testing.assert_close(normalize_rows(x).norm(dim=-1), torch.ones(3, 5))
    assert normalize_rows(torch.zeros(2, 3)).abs().max() == 0


def reference_muon(weights, gradients, config, rates, momenta):
    """Muon on single matrices as its papers write it; gradients: per step, per matrix."""
    buffers = [torch.zeros_like(w) for w in weights]
    weights = [w.clone() for w in weights]
    for step, (lr, mu) in enumerate(zip(rates, momenta, strict=True)):
        for i, w in enumerate(weights):
            g = gradients[step][i]
            buffers[i] = mu * buffers[i] + g
            m = g + mu * buffers[i] if config.nesterov else buffers[i]
            if config.row_normalize:
                m = m / m.norm(dim=-1, keepdim=True)
            o = orthogonalize(m, config.orthogonalizer, config.orthogonal_steps)
            w *= 1 - lr * config.weight_decay
            w -= lr * max(1, w.shape[0] / w.shape[1]) ** 0.5 * o
    return weights


@pytest.mark.parametrize(
    "changes",
    [{}, {"nesterov": False}, {"row_normalize": True}, {"orthogonalizer": "polar", "orthogonal_steps": 4},
     {"weight_decay": 0.0}, {"orthogonal_steps": 4}],
)  # fmt: skip
def test_banked_muon_equals_muon_on_single_matrices(changes):
    config = OptimConfig(**({"weight_decay": 0.1} | changes))
    torch.manual_seed(4)
    shapes = [(8, 4), (4, 8), (8, 4), (6, 6)]
    params = [torch.nn.Parameter(torch.randn(s)) for s in shapes]
    start = [p.detach().clone() for p in params]
    gradients = [[torch.randn(s) for s in shapes] for _ in range(3)]
    rates, momenta = [0.1, 0.07, 0.02], [0.85, 0.9, 0.95]
    muon = ParallelMuon([(f"m{i}", p) for i, p in enumerate(params)], config)
    for step in range(3):
        muon.zero_grad()
        for p, g in zip(params, gradients[step], strict=True):
            p.grad.add_(g)
        muon.launch()
        muon.finish(rates[step], momenta[step])
    for p, want in zip(params, reference_muon(start, gradients, config, rates, momenta), strict=True):
        torch.testing.assert_close(p.detach(), want, rtol=1e-4, atol=1e-5)


def test_parameters_are_views_of_their_banks_and_gradients_accumulate_there():
    model = Golf(ModelConfig(layers=2, dim=16, heads=2, kv_heads=2, mlp_hidden=24, vocab=32))
    muon = Optimizers(model, OptimConfig()).muon
    assert sum(len(b.params) for b in muon.banks) == 2 * 6
    ids = torch.randint(0, 32, (2, 8))
    for _ in range(2):
        model(ids, ids).backward()
    for bank in muon.banks:
        for i, param in enumerate(bank.params):
            assert param.data_ptr() == bank.values[i].data_ptr()
            assert param.grad.data_ptr() == bank.grads[i].data_ptr()
    assert sum(bank.grads.abs().sum() for bank in muon.banks) > 0


def test_every_parameter_has_exactly_one_optimizer():
    config = ModelConfig(
        vocab=32, layers=3, dim=16, heads=2, kv_heads=1, mlp_hidden=24, tied=False, smear=True, bigram_size=9,
        bigram_dim=4, value_dim=4, value_layers=(1,), unet=True, residual_mix=True, branch_scale=True,
        moe_experts=2, repeat_layers=(1,),
    )  # fmt: skip
    model = Golf(config)
    groups = split(model)
    named = [name for members in groups.values() for name, _ in members]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())
    assert {n for n, _ in groups["embed"]} == {
        "embed.weight", "bigram.embed.weight", "value.embed.weight", "head.weight",
    }  # fmt: skip
    assert all(p.dim() == 2 and n.startswith("blocks.") for n, p in groups["matrix"])
    assert "blocks.0.mlp.router.weight" in {n for n, _ in groups["scalar"]}
    assert "blocks.1.repeat_mlp.up.weight" in {n for n, _ in groups["matrix"]}


def test_small_parameters_follow_adamw():
    torch.manual_seed(5)
    model = Golf(ModelConfig(layers=1, dim=16, heads=2, kv_heads=2, mlp_hidden=24, vocab=32, smear=True))
    config = OptimConfig(clip=0.0, embed_lr=0.1, scalar_lr=0.05, adam_decay=0.3)
    optimizers = Optimizers(model, config)
    ids = torch.randint(0, 32, (2, 8))
    state = {n: [p.detach().clone(), 0.0, 0.0] for n, p in model.named_parameters() if "blocks" not in n}
    for t in (1, 2, 3):
        optimizers.zero_grad()
        model(ids, ids.roll(-1, 1)).backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if n in state}
        optimizers.step(0.5, 0.9)
        for name, entry in state.items():
            w, m, v = entry
            lr, decay = (0.05, 0.3) if "embed" in name else (0.025, 0.0)
            m = config.beta1 * m + (1 - config.beta1) * grads[name]
            v = config.beta2 * v + (1 - config.beta2) * grads[name] ** 2
            w = w * (1 - lr * decay)
            w -= lr * (m / (1 - config.beta1**t)) / ((v / (1 - config.beta2**t)).sqrt() + config.eps)
            state[name] = [w, m, v]
    for name, param in model.named_parameters():
        if name in state:
            torch.testing.assert_close(param.detach(), state[name][0], rtol=1e-4, atol=1e-6)


def test_clipping_scales_all_gradients_by_the_global_norm():
    """Adam hides the size of a gradient; its first moment does not."""
    torch.manual_seed(6)
    moments = {}
    for clip in (0.0, 1e-3):
        torch.manual_seed(6)
        model = Golf(ModelConfig(layers=1, dim=16, heads=2, kv_heads=2, mlp_hidden=24, vocab=32))
        optimizers = Optimizers(model, OptimConfig(clip=clip))
        ids = torch.arange(16).view(2, 8)
        model(ids, ids.roll(-1, 1)).backward()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        optimizers.step(1.0, 0.9)
        moments[clip] = optimizers.state_dict()
    ratio = 1e-3 / norm.item()
    free, clipped = moments[0.0], moments[1e-3]
    torch.testing.assert_close(
        clipped["adam"]["embed.weight"]["exp_avg"], ratio * free["adam"]["embed.weight"]["exp_avg"],
        rtol=1e-3, atol=1e-9,
    )  # fmt: skip
    name = "blocks.0.attn.o.weight"
    torch.testing.assert_close(clipped["muon"][name], ratio * free["muon"][name], rtol=1e-3, atol=1e-9)
