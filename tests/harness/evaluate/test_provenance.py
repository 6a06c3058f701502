"""Tracked tensors, the ledger and the digests: positions survive every move, writes are attributed, escapes are seen."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.provenance.digest import BackgroundDigests, combine, fold_all, state_sha256
from harness.provenance.positions import Positions
from harness.provenance.tracked import Tracked, plain, positions_of, track
from harness.provenance.watch import Ledger


class Heard:
    def __init__(self):
        self.escapes, self.writes, self.backwards = [], [], []

    def escaped(self, how, positions, where):
        self.escapes.append((how, positions.intervals))

    def written(self, target, positions):
        self.writes.append((id(target), positions.intervals))

    def backward(self, positions, run):
        self.backwards.append(positions.intervals)
        return run()


def tracked(lo, hi, listener=None):
    return track(torch.arange(lo, hi) % 7, torch.arange(lo, hi, dtype=torch.int32), Positions.span(lo, hi), listener)


MOVES = {
    "slice": lambda t: t[3:9],
    "stride": lambda t: t[::3],
    "index": lambda t: t[torch.tensor([5, 1, 1])],
    "mask": lambda t: t[torch.arange(len(t)) % 2 == 0],
    "reshape": lambda t: t.reshape(3, 4).transpose(0, 1)[1:],
    "cast": lambda t: t.float().long().to(torch.int16),
    "stack": lambda t: torch.stack([t[:4], t[4:8]]),
    "cat": lambda t: torch.cat([t[8:], t[:2]]),
    "gather": lambda t: torch.gather(t, 0, torch.tensor([2, 2, 7])),
    "index_select": lambda t: t.index_select(0, torch.tensor([11, 0])),
    "take": lambda t: torch.take(t, torch.tensor([1, 10])),
    "unfold": lambda t: t.unfold(0, 4, 2),
    "flip": lambda t: t.flip(0)[:3],
    "roll": lambda t: t.roll(2)[:3],
    "expand": lambda t: t[:2, None].expand(2, 3),
    "as_strided": lambda t: t.as_strided((2, 3), (3, 1), 1),
    "split": lambda t: t.split(5)[1],
    "clone": lambda t: t.clone().contiguous().detach()[1:2],
    "narrow": lambda t: t.narrow(0, 2, 5),
}


@pytest.mark.parametrize("name", MOVES)
def test_every_element_keeps_its_own_position_through_moves(name):
    moved = MOVES[name](tracked(100, 112))
    expected = MOVES[name](torch.arange(100, 112))
    assert isinstance(moved, Tracked)
    assert (moved.shadow == expected).all()
    assert (plain(moved).long() == expected % 7).all()


def test_arithmetic_leaves_the_union():
    found = tracked(10, 20)[2:4].float() @ torch.ones(2) + tracked(50, 60)[1:2].float()
    assert positions_of(found).intervals == ((12, 14), (51, 52))


def test_ways_out_are_reported():
    heard = Heard()
    t = tracked(5, 9, heard)
    t[1].item(), t.tolist(), t.numpy(), t.data, bool(t[0] == 5), t.data_ptr()
    assert [h for h, _p in heard.escapes] == [".item()", ".tolist()", ".numpy()", ".data", ".__bool__()", ".data_ptr()"]
    assert heard.escapes[0][1] == ((6, 7),)


def test_writes_into_other_tensors_are_reported_with_their_positions():
    heard = Heard()
    t = tracked(5, 9, heard).float()
    original = buffer = torch.zeros(4)
    buffer += t  # rebinds the name to a tracked alias; the writes below still reach the original
    buffer.copy_(t)
    buffer[1:3] = t[:2]
    torch.add(t, 1.0, out=original)
    targets = [p for i, p in heard.writes if i == id(original)]
    assert targets == [((5, 9),)] * 4


intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda x: (x[0], x[0] + x[1])), max_size=6)


@settings(max_examples=150, deadline=None)
@given(intervals, intervals)
def test_unions_of_positions_are_unions_of_sets(a, b):
    def points(rows):
        return {i for lo, hi in rows for i in range(lo, hi)}

    one, two = Positions.unite(Positions.span(*r) for r in a), Positions.unite(Positions.span(*r) for r in b)
    both = one | two
    assert points(both.intervals) == points(a) | points(b)
    assert all(x[1] < y[0] for x, y in zip(both.intervals, both.intervals[1:], strict=False))
    assert Positions.points(np.array([*sorted(points(a)), -1])).intervals == one.intervals


# -- the ledger ----------------------------------------------------------------------------------------------


@pytest.fixture
def watched():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7))
    module.register_buffer("seen", torch.zeros(7))
    ledger = Ledger(module)
    ledger.baseline()
    ledger.scored = 10
    yield module, ledger
    ledger.close()


def train(module, ledger, lo, hi, optimizer):
    tokens = tracked(lo, hi, ledger)
    logits = module(plain(tokens[:-1]))
    logits = track(logits, None, positions_of(tokens[:-1]), ledger)
    torch.nn.functional.cross_entropy(logits, tokens[1:]).backward()
    optimizer.step()


def test_a_gradient_at_the_address_of_one_that_was_dropped_is_another_gradient(watched):
    module, ledger = watched
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ledger.update_begins()
    train(module, ledger, 0, 5, optimizer)
    ledger.update_ends()
    addresses = {id(p): id(p.grad) for p in module.parameters()}
    optimizer.zero_grad(set_to_none=True)
    reused, kept = 0, []
    for p in module.parameters():
        for _ in range(2000):
            fresh = torch.ones_like(p)
            if id(fresh) == addresses[id(p)]:
                p.grad, reused = fresh, reused + 1
                break
            kept.append(fresh)
    if not reused:
        pytest.skip("this interpreter gave no address away twice")
    ledger.update_begins()
    optimizer.step()
    assert "no tracked backward pass" in ledger.update_ends().unexplained[0]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_any_optimizers_step_is_traced_to_the_tokens_behind_its_gradients(watched, make):
    module, ledger = watched
    ledger.update_begins()
    train(module, ledger, 0, 11, make(module.parameters(), lr=0.1))
    update = ledger.update_ends()
    assert (update.used.intervals, update.steps, update.unexplained, update.harmful) == (((0, 11),), 1, [], [])
    ledger.update_begins()
    train(module, ledger, 0, 12, make(module.parameters(), lr=0.1))
    assert "only 10 targets were scored" in ledger.update_ends().harmful[0]


def test_accumulated_gradients_keep_the_tokens_of_all_their_parts(watched):
    module, ledger = watched
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ledger.update_begins()
    for lo, hi in ((0, 4), (6, 11)):
        tokens = tracked(lo, hi, ledger)
        logits = track(module(plain(tokens[:-1])), None, positions_of(tokens[:-1]), ledger)
        torch.nn.functional.cross_entropy(logits, tokens[1:]).backward()
    optimizer.step()
    assert ledger.update_ends().used.intervals == ((0, 4), (6, 11))


def test_writes_that_nothing_explains_are_listed(watched):
    module, ledger = watched
    ledger.update_begins()
    module[1].bias.data += 1.0
    module[0] = torch.nn.Embedding(7, 4)
    assert {u.split(" ")[0] for u in ledger.update_ends().unexplained} == {"1.bias", "0.weight"}


def test_in_place_writes_of_tracked_values_are_attributed(watched):
    module, ledger = watched
    ledger.update_begins()
    with torch.no_grad():
        module[1].bias.add_(tracked(0, 7, ledger))
        module.seen.copy_(tracked(2, 9, ledger))
    update = ledger.update_ends()
    assert (update.used.intervals, update.unexplained, update.written) == (((0, 9),), [], 2)


def test_a_return_to_the_untouched_state_is_harmless(watched):
    module, ledger = watched
    kept = {k: v.clone() for k, v in module.state_dict().items()}
    ledger.update_begins()
    train(module, ledger, 0, 11, torch.optim.SGD(module.parameters(), lr=0.1))
    ledger.update_ends()
    ledger.update_begins()
    module.load_state_dict(kept)
    assert ledger.update_ends().unexplained == []


@pytest.mark.parametrize(
    "write",
    [
        lambda m: m[1].bias.data.add_(1e-3),
        lambda m: m.seen.add_(1),
        lambda m: setattr(m, "cache", torch.ones(3)),
        lambda m: m[1].weight.detach().numpy().__setitem__((0, 0), 9.0),
        lambda m: m.__setitem__(1, torch.nn.Linear(4, 7)),
    ],
    ids=["data", "buffer", "new attribute", "numpy view", "module"],
)  # fmt: skip
def test_any_change_of_state_while_scoring_is_an_alarm(watched, write):
    module, ledger = watched
    assert ledger.scoring_done(0) == []
    write(module)
    assert ledger.scoring_done(1)


def test_a_step_outside_an_update_is_an_alarm(watched):
    module, ledger = watched
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    train(module, ledger, 0, 20, optimizer)
    assert "outside any declared update" in ledger.alarms[0]


def test_a_strangers_optimizer_is_left_alone(watched):
    _module, ledger = watched
    other = torch.nn.Parameter(torch.ones(2))
    other.sum().backward()
    torch.optim.SGD([other], lr=0.1).step()
    assert ledger.alarms == []


# -- digests -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.data())
def test_a_change_of_one_word_changes_exactly_its_tensors_fingerprint(sizes, data):
    tensors = [torch.randn(n) for n in sizes]
    before = fold_all(tensors)
    which = data.draw(st.integers(0, len(sizes) - 1))
    at = data.draw(st.integers(0, sizes[which] - 1))
    tensors[which].view(torch.int32)[at] ^= 1 << data.draw(st.integers(0, 31))
    after = fold_all(tensors)
    assert [i for i in range(len(sizes)) if before[i] != after[i]] == [which]
    assert combine("abcd"[: len(sizes)], before) != combine("abcd"[: len(sizes)], after)


def test_fingerprints_see_order_type_and_odd_sizes():
    assert fold_all([torch.tensor([1.0, 2.0])]) != fold_all([torch.tensor([2.0, 1.0])])
    for tensor in (torch.ones(3, dtype=torch.bfloat16), torch.ones(5, dtype=torch.bool), torch.ones(3, dtype=torch.uint8)):
        other = tensor.clone()
        other[0] = 0
        assert fold_all([tensor]) != fold_all([other])
    assert fold_all([torch.empty(0)]) == [0]


def test_sha256_names_every_tensor():
    state = [("a", torch.ones(2)), ("b", torch.zeros(3, dtype=torch.bfloat16)), ("c", torch.empty(0)), ("d", torch.tensor(1))]
    assert state_sha256(state) == state_sha256(state[::-1])
    assert state_sha256(state) != state_sha256([("x", state[0][1]), *state[1:]])
    assert state_sha256(state) != state_sha256([("a", torch.ones(2, dtype=torch.float64)), *state[1:]])


def test_background_digests_report_what_the_state_was_and_skip_when_busy():
    reported, gate = [], threading.Event()
    digests = BackgroundDigests(lambda label, digest: reported.append((label, digest)), seconds=0.0)
    value = torch.ones(4)
    hashing = digests._hash
    digests._hash = lambda *a: (gate.wait(10), hashing(*a))
    digests.offer(1, lambda: [("w", value)])
    truth = state_sha256([("w", value)])
    value += 1  # the snapshot is unaffected
    digests.offer(2, lambda: [("w", value)])  # still busy: skipped
    gate.set()
    digests.collect(wait=True)
    assert reported == [(1, truth)]


# -- whole runs --------------------------------------------------------------------------------------------------


def test_a_warm_up_that_changes_a_parameter_is_a_violation(lab, tmp_path):
    model = lab.model()
    plain_forward = model.forward_logits

    def forward(inputs, *, last=None):
        with torch.no_grad():
            if not hasattr(model, "warm"):
                model.warm = True
                model.head.bias += 0.1
        return plain_forward(inputs, last=last)

    model.forward_logits = forward
    result = lab.evaluation(model=model).run(tmp_path / "card")
    assert result.claims["P1"] == {"status": "violated", "reason": "warming up changed head.bias", "count": 1}


def test_a_compiled_model_is_one_opaque_step(lab, tmp_path, monkeypatch):
    """The same positions are attributed as in eager mode; the compiler's backend does not matter to that."""
    from functools import partial

    from harness.evaluate.run import Evaluation, Options
    from harness.evaluate.score import Numerics
    from harness.scorecard.writer import read_events

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    used = {}
    for compiled in (False, True):
        numerics = Numerics(precision="float64", batch=8, compile=compiled)
        options = Options(context=32, stride=8, ttt="sgd", ttt_set={"chunk": 64, "freeze": 0, "lr": 0.1}, probes=2, numerics=numerics)
        identity = {"name": "lab", "sha256": "0" * 64, "bytes": 0, "family": "lab"}
        result = Evaluation(lab.model(), lab.stream, options, identity=identity).run(tmp_path / str(compiled))
        assert result.claims["P1"]["status"] == "shown"
        used[compiled] = ([e["used"] for e in read_events(result.out) if e["kind"] == "update"], result.nats)
    assert used[True][0] == used[False][0]
    assert used[True][1] == pytest.approx(used[False][1], rel=1e-9)


def test_progress_is_told_inside_a_chunk(lab, tmp_path, monkeypatch):
    from harness.evaluate import run as running

    clock = iter(range(10_000))
    monkeypatch.setattr(running.time, "monotonic", lambda: float(next(clock)))
    told = []
    lab.evaluation().run(tmp_path / "card", progress=lambda done, total, bpb: told.append((done, bpb)))
    assert [d for d, _b in told] == sorted(d for d, _b in told)
    assert len(told) > 4 and np.isnan(told[0][1]) and np.isfinite(told[-1][1])
