"""Every recipe that ships: its size, its causality, and that it trains when shrunken."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from audit.contracts import InputError
from reference_model import config
from reference_model.model import Golf
from reference_model.model.count import flops_per_token, parameters
from reference_model.train.logs import Logs
from reference_model.train.loop import Trainer
from reference_model.train.ranks import Ranks

#: What the submissions' scripts print, or what their definitions come to (see docs/recipes.md).
SIZES = {
    "pr726": 26_993_756,
    "pr1171": 33_317_980,
    "pr1072": 27_255_900,
    "pr827": 19_160_145,
    "megakernel": 27_067_484,
    "ttt-reset": 27_038_812 + (4096 - 2816) * 112,
}
ALL = config.names()


def shrunken(name):
    return config.shrink(config.load(name))


@pytest.mark.parametrize("name", SIZES)
def test_full_size_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        assert parameters(Golf(config.load(name).model)) == SIZES[name]


def test_the_logged_run_of_pr_1072_had_a_smaller_table_than_its_text_says():
    with torch.device("meta"):
        model = config.load("pr1072", ["model.bigram_size=3072"]).model
        assert parameters(Golf(model)) == 27_124_828


def test_pr_827s_own_forms_account_for_the_difference():
    ours = SIZES["pr827"]
    own_table, own_smear = 1536 * 512, 10 * 512
    our_table, our_smear = 1536 * 128 + 128 * 512 + 1, 512
    assert ours - our_table - our_smear + own_table + own_smear == 19_689_040


@pytest.mark.parametrize("name", ALL)
def test_no_output_depends_on_a_later_input(name):
    """For the combination of parts that the recipe uses, and with all that comes alive in training."""
    torch.manual_seed(0)
    recipe = shrunken(name)
    model = Golf(recipe.model)
    if recipe.model.repeat_layers:
        model.activate_repeats()
    model = model.double().eval()
    model.compute_dtype = torch.float64
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.1 * torch.randn_like(param))
        ids = torch.randint(2, recipe.model.vocab, (1, 24))
        ids[0, 9] = recipe.model.bos
        base = model.forward_logits(ids)
        for t in (0, 1, 8, 9, 10, 23):
            other = ids.clone()
            other[0, t] = (other[0, t] + 5) % recipe.model.vocab
            moved = (model.forward_logits(other) - base).abs().amax((0, 2))
            assert t == 0 or moved[:t].max() < 1e-9
            assert moved[t] > 1e-7


@pytest.mark.parametrize("name", ALL)
def test_a_shrunken_recipe_trains(name, data_folder, tmp_path):
    """Every part alive: late parts are moved to where a run of a few steps meets them."""
    torch.set_num_threads(1)
    recipe = shrunken(name)
    steps = 14
    recipe = dataclasses.replace(
        recipe,
        schedule=dataclasses.replace(recipe.schedule, seconds=0, steps=steps, warmdown=8, repeat_start=4),
        average=dataclasses.replace(
            recipe.average, ema=min(recipe.average.ema, 0.8), swa_every=min(recipe.average.swa_every, 1)
        ),
        optim=dataclasses.replace(recipe.optim, momentum_warmup=5),
        compress=dataclasses.replace(
            recipe.compress,
            hessian_every=min(recipe.compress.hessian_every, 5),
            qat_below=max(recipe.compress.qat_below, 0.5),
        ),
        run=dataclasses.replace(recipe.run, validate_tokens=512),
    ).check()
    with Logs(tmp_path, quiet=True) as logs:
        trainer = Trainer(
            recipe, data_folder, tmp_path, Ranks(rank=0, world=1, device=torch.device("cpu")), logs
        )
        outcome = trainer.run()
    records = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in records if "loss" in r]
    assert len(losses) == steps and all(map(math.isfinite, losses))
    assert sum(losses[-3:]) / 3 < losses[0] - 0.5
    assert outcome.last_bpb < outcome.first_bpb - 0.3
    saved = torch.load(outcome.checkpoint, weights_only=True)
    assert ("hessians" in saved) == bool(recipe.compress.hessian_every)
    if recipe.compress.prune:
        assert (saved["state"]["blocks.0.attn.q.weight"] == 0).float().mean() >= recipe.compress.prune * 0.9
    if recipe.model.repeat_layers:
        assert saved["config"]["repeat_active"] is True


def test_recipe_files_say_only_what_exists_and_round_trip():
    for name in ALL:
        recipe = config.load(name)
        assert recipe.name == name and recipe.source
        assert config.from_dict(recipe.as_dict()) == recipe


def test_digest_follows_every_value():
    one, two = config.load("demo"), config.load("demo", ["optim.matrix_lr=0.031"])
    assert one.digest() == config.load("demo").digest() != two.digest()


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["nonsense=1"], "no section has it"),
        (["model.nonsense=1"], "unknown key"),
        (["kitchen.sink=1"], "unknown section"),
        (["layers"], "expected key=value"),
        (["layers=many"], "is no int"),
        (["layers=2.5"], "is no int"),
        (["model.smear=perhaps"], "is no bool"),
        (["clip=1", "model.layers=3", "value_layers=9"], "layers are"),
        (["use=best"], "none of raw, ema, swa, blend"),
        (["batch_tokens=1000"], "no multiple of context"),
        (["orthogonalizer=svd"], "neither ns5 nor polar"),
        (["shape=cosine"], "neither linear nor sqrt"),
        (["prune=1.5"], "no share"),
        (["qat_bits=3"], "none of 0"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(overrides, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        config.load("demo", overrides)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(InputError, match="pr726"):
        config.load("pr9999")


def test_flops_count_what_a_token_costs():
    """6 per weight used and visit, plus the causal half of attention; checked by hand for two shapes."""
    small = config.ModelConfig(vocab=32, layers=2, dim=16, heads=4, kv_heads=2, mlp_hidden=24)
    per_layer = 16 * 16 * 2 + 16 * 8 * 2 + 2 * 16 * 24
    attention = 6.0 * 16 * 64
    assert flops_per_token(Golf(small), 64) == 6 * (2 * per_layer + 32 * 16) + 2 * attention
    looped = dataclasses.replace(small, loops=3, loop_from=0, loop_to=1)
    assert flops_per_token(Golf(looped), 64) == 6 * (6 * per_layer + 32 * 16) + 6 * attention


@pytest.mark.slow
def test_compiled_blocks_train_like_eager_ones(data_folder, tmp_path, monkeypatch):
    """Through the compiler's graph capture and autograd, without its code generator, which wants a GPU.

    Late quantization, repeated layers and online Hessians all switch what runs while it runs.
    """
    torch.set_num_threads(1)
    plain, module_compile = torch.compile, torch.nn.Module.compile
    monkeypatch.setattr(torch, "compile", lambda f, **o: plain(f, **(o | {"backend": "aot_eager"})))
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **o: module_compile(self, **(o | {"backend": "aot_eager"}))
    )
    small = ["model.layers=2", "value_layers=1", "repeat_layers=1", "repeat_start=2", "schedule.seconds=0", "steps=4",
             "warmdown=3", "compress.qat_below=0.6", "hessian_every=3", "validate_tokens=512", "xsa_layers=1"]  # fmt: skip
    losses = []
    for how in ("off", "block"):
        recipe = config.change(shrunken("pr827-stack"), [*small, f"compile={how}"])
        out = tmp_path / how
        out.mkdir()
        with Logs(out, quiet=True) as logs:
            alone = Ranks(rank=0, world=1, device=torch.device("cpu"))
            Trainer(recipe, data_folder, out, alone, logs).run()
        rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
        losses.append([r["loss"] for r in rows if "loss" in r] + [r["bpb"] for r in rows if "bpb" in r])
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)
