"""Every switch of the model against the definitions, written a second time in ``plain_golf``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from audit.contracts import InputError
from reference_model import config as recipes
from reference_model.config import ModelConfig
from reference_model.model import Golf
from reference_model.model.golf import visits

_spec = importlib.util.spec_from_file_location("plain_golf", Path(__file__).with_name("plain_golf.py"))
plain = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain)

SMALL = {"vocab": 32, "layers": 4, "dim": 16, "heads": 4, "kv_heads": 2, "mlp_hidden": 24}
IDS = [1, 5, 9, 30, 1, 7, 7, 12, 3]

SWITCHES = {
    "plain": {},
    "untied": {"tied": False},
    "mha": {"kv_heads": 4},
    "one_key_head": {"kv_heads": 1},
    "no_qk_norm": {"qk_norm": False},
    "slope": {"mlp_slope": 0.9},
    "relu": {"mlp_slope": 0.0},
    "wide": {"mlp_hidden": 40},
    "moe": {"moe_experts": 3},
    "partial_rope": {"rope_dims": 2},
    "rope_base": {"rope_base": 100.0},
    "rope_longer": {"rope_reference": 4},
    "xsa_last": {"xsa_layers": 2},
    "xsa_all": {"xsa_layers": 4, "kv_heads": 4},
    "smear": {"smear": True},
    "smear_unmasked": {"smear": True, "smear_document_mask": False},
    "bigram": {"bigram_size": 11, "bigram_dim": 6},
    "value": {"value_dim": 6, "value_layers": (1, 3)},
    "value_mha": {"value_dim": 6, "value_layers": (3,), "kv_heads": 4, "xsa_layers": 4},
    "unet": {"unet": True},
    "unet_odd": {"unet": True, "layers": 5},
    "unet_encoder": {"unet": True, "unet_encoder": 1},
    "norm_scale": {"norm_scale": True},
    "residual_mix": {"residual_mix": True},
    "branch_scale": {"branch_scale": True},
    "loops": {"loop_from": 1, "loop_to": 2, "loops": 3},
    "loops_unet": {"loop_from": 1, "loop_to": 2, "loops": 2, "unet": True},
    "gated": {"gated_layer": 1, "gated_repeats": 3},
    "repeat": {"repeat_layers": (1, 2)},
    "repeat_unet": {"repeat_layers": (2,), "unet": True},
    "lanes": {"lanes_from": 2},
    "lanes_all_unet": {"lanes_from": 0, "unet": True, "residual_mix": True, "branch_scale": True},
    "no_softcap": {"softcap": 0.0},
    "tight_softcap": {"softcap": 1.5},
}


def shaken(seed=0, **changes):
    """A float64 model in which no parameter sits at a value that would hide its effect."""
    torch.manual_seed(seed)
    model = Golf(ModelConfig(**(SMALL | changes))).double()
    model.compute_dtype = torch.float64
    with torch.no_grad():
        for name, param in model.named_parameters():
            scale = 0.35 if param.dim() == 2 and "scale" not in name else 0.3
            param.add_(scale * torch.randn_like(param))
    if changes.get("repeat_layers"):
        model.visits = visits(model.config, True)
    return model


@pytest.mark.parametrize("switch", SWITCHES)
def test_outputs_and_gradients_follow_the_definition(switch):
    changes = SWITCHES[switch]
    model = shaken(**changes)
    ids = torch.tensor([IDS])
    targets = torch.tensor([[*IDS[1:], 4]])
    got = model.forward_logits(ids).double()
    state = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    want = plain.logits(model.config, state, IDS, repeats=bool(changes.get("repeat_layers")))
    torch.testing.assert_close(got[0], want, rtol=1e-4, atol=1e-5)
    F.cross_entropy(want, targets[0]).backward()
    model(ids, targets).double().backward()
    for name, param in model.named_parameters():
        mine = torch.zeros_like(param) if param.grad is None else param.grad
        theirs = torch.zeros_like(param) if state[name].grad is None else state[name].grad
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("switch", [s for s in SWITCHES if s != "plain"])
def test_a_switch_is_not_the_neutral_setting(switch):
    """With every shared parameter equal, switching the part on moves the logits."""
    on = shaken(**SWITCHES[switch])
    changed = SWITCHES[switch].get("layers", SMALL["layers"])
    off = shaken(layers=changed)
    own = off.state_dict()
    shared = {n: p for n, p in on.state_dict().items() if n in own and own[n].shape == p.shape}
    off.load_state_dict(shared, strict=False)
    ids = torch.tensor([IDS])
    assert (on.forward_logits(ids) - off.forward_logits(ids)).abs().max() > 1e-4


@pytest.mark.parametrize("switch", SWITCHES)
def test_last_positions_alone_equal_the_whole(switch):
    model = shaken(**SWITCHES[switch])
    ids = torch.tensor([IDS, IDS[::-1]])
    whole = model.forward_logits(ids)
    for n in (1, 3, len(IDS), len(IDS) + 5):
        torch.testing.assert_close(model.forward_logits(ids, last=n), whole[:, -n:], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("switch", SWITCHES)
def test_no_output_depends_on_a_later_input(switch):
    model = shaken(**SWITCHES[switch])
    assert_causal(model, torch.tensor([IDS]))


def assert_causal(model, ids):
    """Changing input t changes no output before t, and does change the one at t."""
    base = model.forward_logits(ids).double()
    for t in range(ids.size(1)):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 11) % model.config.vocab
        moved = (model.forward_logits(changed).double() - base).abs().amax((0, 2))
        assert t == 0 or moved[:t].max() <= 1e-9
        assert moved[t] > 1e-9


def test_smear_mask_stops_at_a_document_start():
    """What a document's first token becomes must not depend on the document before it."""
    ids = torch.tensor([[1, 5, 9, 1, 7]])
    other = torch.tensor([[1, 8, 4, 1, 7]])
    masked, open_ = shaken(smear=True), shaken(smear=True, smear_document_mask=False)
    assert torch.equal(masked.embedded(ids)[:, 3:], masked.embedded(other)[:, 3:])
    assert not torch.equal(open_.embedded(ids)[:, 3], open_.embedded(other)[:, 3])


def test_bigram_rows_see_inputs_only_and_stay_exact_for_large_vocabularies():
    model = Golf(ModelConfig(**(SMALL | {"vocab": 65536, "bigram_size": 6144})))
    ids = torch.tensor([[65535, 65535, 40000]])
    want = [6143, ((36313 * 65535) ^ (27191 * 65535)) % 6143, ((36313 * 40000) ^ (27191 * 65535)) % 6143]
    assert model.bigram.rows(ids).tolist() == [want]


def test_repeated_layers_start_as_copies_and_begin_when_told():
    model = shaken(repeat_layers=(1, 2))
    model.visits = visits(model.config, False)
    ids = torch.tensor([IDS])
    before = model.forward_logits(ids)
    model.activate_repeats()
    for layer in (1, 2):
        assert torch.equal(model.blocks[layer].repeat_mlp.up.weight, model.blocks[layer].mlp.up.weight)
    assert (model.forward_logits(ids) - before).abs().max() > 1e-4
    assert [v.layer for v in model.visits] == [0, 1, 1, 2, 2, 3]


def test_the_router_gets_no_gradient_from_its_choice():
    model = shaken(moe_experts=3)
    ids = torch.tensor([IDS])
    model(ids, ids).backward()
    for block in model.blocks:
        assert block.mlp.router.weight.grad is None
        assert block.mlp.up.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["orthogonal", "normal"])
def test_initial_weights(kind):
    torch.manual_seed(3)
    model = Golf(ModelConfig(**(SMALL | {"init": kind, "bigram_size": 64, "embed_std": 0.005, "dim": 64})))
    q = model.blocks[0].attn.q.weight
    is_orthogonal = torch.allclose(q @ q.T, torch.eye(64), atol=1e-5)
    assert is_orthogonal == (kind == "orthogonal")
    for block in model.blocks:
        assert block.attn.o.weight.abs().max() == 0 and block.mlp.down.weight.abs().max() == 0
    assert 0.003 < model.embed.weight.std() < 0.007
    assert model.bigram.embed.weight.abs().max() == 0 and model.bigram.scale == 0.05
    # Nothing but the embedding speaks before the first update: the loss is that of a uniform guess.
    ids = torch.randint(0, 32, (4, 16))
    assert abs(model(ids, ids.roll(-1, 1)).item() - torch.log(torch.tensor(32.0)).item()) < 0.15


def test_the_two_forms_of_loss_agree():
    model = shaken()
    ids = torch.tensor([IDS, IDS[::-1]])
    each = model(ids, ids.flip(0), reduction="none")
    assert each.shape == (2 * len(IDS),)
    torch.testing.assert_close(each.mean(), model(ids, ids.flip(0)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"heads": 3}, "no multiple of heads"),
        ({"kv_heads": 3}, "no multiple of kv_heads"),
        ({"rope_dims": 6}, "exceeds the head"),
        ({"rope_dims": 3}, "odd"),
        ({"xsa_layers": 5}, "exceeds layers"),
        ({"value_layers": (4,), "value_dim": 4}, "layers are 0..3"),
        ({"value_layers": (1,)}, "value_dim"),
        ({"moe_experts": 5}, "moe_experts"),
        ({"lanes_from": 4}, "lanes_from"),
        ({"loops": 2, "loop_from": 3, "loop_to": 1}, "loop_from"),
        ({"gated_repeats": 2, "lanes_from": 1}, "combine"),
    ],
)
def test_impossible_shapes_are_refused_in_one_line(changes, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        recipes.model_config(SMALL | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_heads_are_shared_out_where_no_kernel_reads_groups(kv_heads, monkeypatch):
    """Float32 on GPUs: repeated keys and values give what grouped heads give, gradients included."""
    from reference_model.model import attention

    results = []
    for lacking in (False, True):
        monkeypatch.setattr(attention, "_lacks_grouped_kernel", lambda q, lacking=lacking: lacking)
        generator = torch.Generator().manual_seed(3)
        q, k, v = (
            torch.randn(2, 7, heads, 6, generator=generator, requires_grad=True)
            for heads in (4, kv_heads, kv_heads)
        )
        y = attention.attend(q, k, v)
        y.square().sum().backward()
        results.append((y.detach(), q.grad, k.grad, v.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
