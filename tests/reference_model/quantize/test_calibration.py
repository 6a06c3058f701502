"""Calibration sources and the Hessians collected from them; validation tokens cannot get in."""

import numpy as np
import pytest
import torch

from audit.contracts import InputError
from harness.provenance.tracked import track
from harness.tokens.shards import ShardSet, write_shard
from reference_model.config import ModelConfig
from reference_model.model import Golf
from reference_model.quantize import hessian
from reference_model.quantize.calibration import HeldOut, SelfGenerated, TrainTokens, UniformRandom

CONFIG = ModelConfig(
    vocab=48, layers=2, dim=32, heads=4, kv_heads=2, mlp_hidden=64, bigram_size=32, bigram_dim=16,
    value_dim=16, value_layers=(1,), smear=True,
)  # fmt: skip


def model(seed=0):
    torch.manual_seed(seed)
    made = Golf(CONFIG)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return made.eval()


def shards(folder, split="train", count=5000):
    tokens = np.random.default_rng(0).integers(0, 48, count).astype(np.uint16)
    write_shard(folder / f"x_{split}_000000.bin", tokens)
    return ShardSet.open(folder, split), tokens


def test_held_out_text_is_the_tail_of_the_training_split(tmp_path):
    found, tokens = shards(tmp_path)
    source = HeldOut(train=TrainTokens(found), sequences=5, length=100, batch=2)
    batches = list(source.batches())
    assert [tuple(b.shape) for b in batches] == [(2, 100), (2, 100), (1, 100)]
    np.testing.assert_array_equal(torch.cat(batches).reshape(-1), tokens[-500:])
    assert source.describe()["train_digest"] == found.digest()


def test_validation_tokens_are_refused_by_type_by_split_and_by_name(tmp_path):
    validation, tokens = shards(tmp_path, "val")
    with pytest.raises(InputError, match="forbidden"):
        TrainTokens(validation)
    with pytest.raises(InputError, match="forbidden"):
        TrainTokens(ShardSet.open(tmp_path / "x_val_000000.bin", "train"))
    with pytest.raises(TypeError):
        TrainTokens(tokens)
    with pytest.raises(TypeError):
        HeldOut(train=tokens)
    train = TrainTokens(shards(tmp_path)[0])
    with pytest.raises(AttributeError):
        train.tokens = tokens
    for raw in ([torch.zeros(1, 8, dtype=torch.long)], torch.zeros(1, 8, dtype=torch.long), validation):
        with pytest.raises(TypeError, match="calibration source"):
            hessian.collect(model(), raw)


def test_tokens_that_carry_stream_positions_are_refused():
    ids = torch.zeros(1, 8, dtype=torch.long)
    stream = track(ids, torch.arange(8, dtype=torch.int32)[None], None, None)
    with pytest.raises(InputError, match="evaluation stream"):
        hessian.refuse_stream(stream)
    hessian.refuse_stream(ids)
    with pytest.raises(InputError, match="evaluation stream"):
        hessian.OnlineHessians(1).step(model(), 0, stream)


def test_a_split_shorter_than_one_sequence_is_an_input_error(tmp_path):
    source = HeldOut(train=TrainTokens(shards(tmp_path, count=50)[0]), length=100)
    with pytest.raises(InputError, match="100 tokens"):
        list(source.batches())


@pytest.mark.parametrize("change", [{"sequences": 0}, {"length": 0}, {"batch": -1}])
def test_impossible_options_are_input_errors(change):
    with pytest.raises(InputError, match="at least 1"):
        UniformRandom(vocab=9, **change)


def test_random_tokens_cover_the_vocabulary_and_follow_the_seed():
    def draw(seed):
        return torch.cat(list(UniformRandom(vocab=48, sequences=9, length=50, batch=4, seed=seed).batches()))

    assert draw(0).shape == (9, 50)
    assert set(draw(0).reshape(-1).tolist()) == set(range(48))
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


class Successor(torch.nn.Module):
    """Says that each token is followed by its successor, and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shown = []

    def forward_logits(self, ids, *, last=None):
        self.shown.append(ids.clone())
        return 30.0 * torch.nn.functional.one_hot((ids[:, -1:] + 1) % 11, 11).float()


def test_self_generated_text_continues_its_own_samples():
    teller = Successor()
    source = SelfGenerated(model=teller, bos=3, sequences=5, length=9, batch=2, window=4, temperature=1.0)
    rows = torch.cat(list(source.batches()))
    assert rows.shape == (5, 9)
    assert rows[0].tolist() == [(3 + i) % 11 for i in range(9)]
    assert all(ids.shape[1] <= 4 for ids in teller.shown)
    # Really autoregressive: each call sees what earlier calls drew.
    assert teller.shown[5][0].tolist() == [5, 6, 7, 8]


def test_temperature_spreads_self_generated_text():
    made = model()
    texts = {
        t: torch.cat(list(SelfGenerated(model=made, sequences=8, length=40, temperature=t).batches()))
        for t in (0.05, 5.0)
    }
    assert texts[0.05].unique().numel() < texts[5.0].unique().numel()
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="temperature"):
            SelfGenerated(model=made, temperature=bad)


def source(**changes):
    return UniformRandom(**({"vocab": 48, "sequences": 6, "length": 24, "batch": 4} | changes))


def test_hessians_are_the_mean_outer_products_of_the_layers_inputs():
    made = model()
    found = hessian.collect(made, source())
    inputs = {}
    for name, layer in made.quantizable().items():
        layer.register_forward_pre_hook(
            lambda _m, args, name=name: inputs.setdefault(name, []).append(
                args[0].reshape(-1, args[0].shape[-1])
            )
        )
    hidden = []
    with torch.no_grad():
        for ids in source().batches():
            hidden.append(made.body(ids).reshape(-1, 32))
    assert set(found.inputs) == set(made.quantizable()) | {"embed.weight"}
    for name, parts in (*inputs.items(), ("embed.weight", hidden)):
        x = torch.cat(parts)
        torch.testing.assert_close(found.inputs[name], x.T @ x / len(x), rtol=1e-4, atol=1e-5)
        assert found.samples[name] == 6 * 24


def test_collecting_leaves_the_model_as_it_was():
    made = model().train()
    made.requires_grad_(False)
    before = {n: t.clone() for n, t in made.state_dict().items()}
    hessian.collect(made, source(), fisher=True)
    assert made.training
    assert not any(p.requires_grad for p in made.parameters())
    assert all(p.grad is None for p in made.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in made.modules())
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_fisher_weights_predict_what_a_perturbation_costs():
    """Twice the expected loss of a small random change, against the Kullback-Leibler divergence it causes."""
    made = model()
    found = hessian.collect(made, source(sequences=64), fisher=True)
    ids = torch.cat(list(source(sequences=64).batches()))
    with torch.no_grad():
        base = torch.log_softmax(made.forward_logits(ids), -1)
    generator = torch.Generator().manual_seed(5)
    names = [
        "blocks.1.mlp.down.weight",
        "blocks.0.attn.o.weight",
        "blocks.1.attn.v.weight",
        "embed.weight",
        "bigram.embed.weight",
    ]
    for name in names:
        weight = made.state_dict()[name]
        delta = 0.01 * torch.randn(weight.shape, generator=generator)
        predicted = 0.5 * float((((delta @ found.inputs[name]) * delta).sum(1) * found.rows[name]).sum())
        with torch.no_grad():
            weight.add_(delta)
            moved = torch.log_softmax(made.forward_logits(ids), -1)
            weight.sub_(delta)
        divergence = float((base.exp() * (base - moved)).sum(-1).mean())
        # Values mix over positions before they are scored, which a diagonal estimate cannot see.
        low = 0.4 if name.endswith("v.weight") else 0.8
        assert low < predicted / divergence < 1.25, (name, predicted, divergence)


def _greedy(odds, count, generator=None):
    return odds.argmax(dim=1, keepdim=True)


@pytest.mark.parametrize("fisher", [False, True])
def test_large_batches_go_through_in_small_passes(fisher, monkeypatch):
    """Same sums, while no pass sees more tokens than allowed or keeps more activations than they need."""
    monkeypatch.setattr(torch, "multinomial", _greedy)  # a draw per token would follow the passes
    made = model()
    found, kept = [], []
    for tokens in (10**6, 48):
        monkeypatch.setattr(hessian, "FORWARD_TOKENS", tokens)
        monkeypatch.setattr(hessian, "BACKWARD_TOKENS", tokens)
        sizes, saved = [], [0]

        def see(_module, args, sizes=sizes, saved=saved):
            sizes.append(args[0].numel())
            saved.append(0)

        def keep(tensor, saved=saved):
            saved[-1] += tensor.nbytes
            return tensor

        handle = made.embed.register_forward_pre_hook(see)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found.append(hessian.collect(made, source(sequences=10, batch=10), fisher=fisher))
        handle.remove()
        assert sizes == ([240] if tokens > 240 else [48] * 5)
        kept.append(max(saved))
    assert (kept[1] < kept[0] / 3) if fisher else kept == [0, 0]
    for name, gram in found[0].inputs.items():
        torch.testing.assert_close(found[1].inputs[name], gram, rtol=1e-4, atol=1e-6)
        assert found[0].samples[name] == found[1].samples[name] == 240
    assert set(found[0].rows) == set(found[1].rows) and bool(found[0].rows) == fisher
    for name, rows in found[0].rows.items():
        torch.testing.assert_close(found[1].rows[name], rows, rtol=1e-4, atol=1e-7)


def test_a_sequence_longer_than_a_pass_still_goes_through(monkeypatch):
    monkeypatch.setattr(hessian, "FORWARD_TOKENS", 5)
    assert hessian.collect(model(), source()).samples["embed.weight"] == 6 * 24


def test_self_generated_text_asks_for_the_last_position_only():
    made = model()
    seen = []
    whole = made.logits

    def logits(x):
        seen.append(tuple(x.shape))
        return whole(x)

    made.logits = logits
    list(SelfGenerated(model=made, sequences=5, length=12, batch=2, window=8).batches())
    assert {shape[0] for shape in seen} == {2, 1} and {shape[1] for shape in seen} == {1}


@pytest.mark.parametrize("fisher", [False, True])
def test_writing_the_text_does_not_count_as_reading_it(fisher, monkeypatch):
    """Self-generated text: the passes that draw it leave nothing in the Hessians and nothing in memory."""
    monkeypatch.setattr(torch, "multinomial", _greedy)
    made = model()
    text = SelfGenerated(model=made, sequences=4, length=20, batch=2)
    adds = []
    add = hessian._Accumulator.add

    def watched(self, name, x):
        adds.append(len(self._keep))
        add(self, name, x)

    monkeypatch.setattr(hessian._Accumulator, "add", watched)
    found = hessian.collect(made, text, fisher=fisher)
    layers = len(made.quantizable()) + 1
    assert len(adds) == 2 * layers  # two batches, not one more for each token drawn
    assert max(adds) < layers
    fixed = hessian._collect(made, list(text.batches()), fisher)
    for name, gram in fixed.inputs.items():
        torch.testing.assert_close(found.inputs[name], gram, rtol=1e-5, atol=1e-7)
        assert found.samples[name] == fixed.samples[name] == 4 * 20


def test_online_hessians_average_over_steps_and_fade():
    made = model()
    online = hessian.OnlineHessians(every=2, decay=0.5)
    with pytest.raises(InputError, match="no online Hessian"):
        online.hessians()
    batches = list(source(sequences=3, batch=1).batches())
    assert [online.step(made, step, ids) for step, ids in ((1, batches[0]), (2, batches[0]), (3, batches[1]), (4, batches[1]))] == [
        False, True, False, True,
    ]  # fmt: skip
    single = [hessian._collect(made, [ids]).inputs["blocks.0.attn.q.weight"] for ids in batches[:2]]
    torch.testing.assert_close(
        online.hessians().inputs["blocks.0.attn.q.weight"],
        (0.5 * single[0] + single[1]) / 1.5,
        rtol=1e-4,
        atol=1e-6,
    )
    again = hessian.from_state(online.state())
    assert set(again.inputs) == set(made.quantizable()) | {"embed.weight"}


def test_a_source_that_yields_nothing_is_an_input_error():
    with pytest.raises(InputError, match="no tokens"):
        hessian._collect(model(), [])
