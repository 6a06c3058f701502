"""Which windows training sees, and that reading them ahead changes nothing."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.contracts import InputError
from reference_model.data import Loader, Sampler
from reference_model.data.loader import Batch, read_windows
from reference_model.data.prefetch import on_device
from reference_model.data.sampler import coprime_stride


def sampler(lengths, context=8, windows=6, seed=3, alpha=0.9):
    return Sampler(lengths, context, windows, seed, lambda batch: alpha)


def shards(*lengths):
    """Tokens that name their own place: shard s, position p -> 1000 s + p."""
    return [np.arange(n, dtype=np.uint16) + 1000 * s for s, n in enumerate(lengths)]


@settings(max_examples=60, deadline=None)
@given(blocks=st.integers(1, 5000), seed=st.integers(0, 2**32 - 1))
def test_a_stride_visits_every_block_once(blocks, seed):
    stride = coprime_stride(blocks, np.random.default_rng(seed))
    assert math.gcd(stride, blocks) == 1 or blocks == 1
    assert len({(7 + k * stride) % blocks for k in range(blocks)}) == blocks


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    context=st.integers(2, 16),
    windows=st.integers(1, 12),
    seed=st.integers(0, 1000),
    alpha=st.floats(0.3, 1.0),
)
def test_an_epoch_covers_every_block_of_every_shard_exactly_once(lengths, context, windows, seed, alpha):
    blocks = [(n - 1) // context for n in lengths]
    total = sum(blocks)
    if not total:
        with pytest.raises(InputError, match="no training shard holds"):
            Sampler(lengths, context, windows, seed, lambda batch: alpha)
        return
    subject = Sampler(lengths, context, windows, seed, lambda batch: alpha)
    seen: list[tuple[int, int]] = []
    while len(seen) < total:
        batch = subject.batch()
        assert batch.shape == (windows, 2)
        seen += map(tuple, batch.tolist())
    # A batch that straddles the epoch's end takes from the next one too; order inside it is random.
    for shard, first in seen:
        assert first >= 0 and first + context + 1 <= lengths[shard]
    again = Sampler(lengths, context, total, seed, lambda batch: alpha)
    epoch = Counter(map(tuple, again.batch().tolist()))
    assert len(epoch) == total and Counter(s for s, _ in epoch.elements()) == Counter(
        {s: b for s, b in enumerate(blocks) if b}
    )
    for shard, count in enumerate(blocks):  # consecutive cuts, none skipped
        firsts = sorted(f for s, f in epoch if s == shard)
        assert firsts == list(range(firsts[0], firsts[0] + count * context, context)) if count else not firsts
    assert not Counter(seen[: total - total % windows]) - epoch


def test_epochs_shift_their_cuts_and_change_their_order():
    subject = sampler([1000 + 5], context=8, windows=125)
    first, second = subject.batch(), subject.batch()
    assert subject.epoch == 1
    assert first.tolist() != second.tolist()


def test_shares_follow_remaining_tokens_to_the_power_alpha():
    """Over many draws, before anything runs out: weights (remaining ** alpha), normalised."""
    blocks = np.array([4000, 1000, 250])
    for alpha in (0.9, 0.5):
        subject = sampler((blocks * 8 + 1).tolist(), windows=50, alpha=alpha)
        counts = np.zeros(3)
        expected = np.zeros(3)
        for _ in range(10):
            weight = ((subject.blocks - subject.used) * 8.0) ** alpha
            expected += 50 * weight / weight.sum()
            counts += np.bincount(subject.batch()[:, 0], minlength=3)
        assert np.abs(counts - expected).max() <= 10  # systematic sampling: within one window a batch
        assert np.abs(counts - expected).max() / expected.min() < 0.25


def test_alpha_decay_mixes_shards_more_evenly_later():
    lengths = [80_001, 8_001]
    steep, flat = (sampler(lengths, windows=100, alpha=a).batch()[:, 0] for a in (0.9, 0.5))
    assert (flat == 1).sum() > (steep == 1).sum() > 0


def test_same_seed_same_batches_other_seed_others():
    one, two, other = sampler([900, 700]), sampler([900, 700]), sampler([900, 700], seed=4)
    a, b, c = ([s.batch().tolist() for _ in range(30)] for s in (one, two, other))
    assert a == b != c


@pytest.mark.parametrize("world", [2, 3, 6])
def test_ranks_share_out_the_same_global_batch(world):
    data = shards(900, 700)
    whole = Loader(data, sampler([900, 700]), ahead=0)
    parts = [Loader(data, sampler([900, 700]), rank=r, world=world, ahead=0) for r in range(world)]
    for _ in range(20):
        want = whole.build().tokens
        got = np.empty_like(want)
        for rank, part in enumerate(parts):
            got[rank::world] = part.build().tokens
        assert np.array_equal(got, want)


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused():
    with pytest.raises(ValueError, match="do not divide"):
        Loader(shards(900), sampler([900]), rank=0, world=4)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), context=st.integers(1, 9))
def test_merged_slabs_equal_single_reads(data, context):
    """Neighbouring windows, repeated ones, and any order: the tokens are those of one read each."""
    arrays = shards(300, 200)
    picks = data.draw(
        st.lists(st.tuples(st.integers(0, 1), st.integers(0, 200 // context - 2)), min_size=1, max_size=30)
    )
    windows = np.array([(s, k * context) for s, k in picks], dtype=np.int64)
    got = read_windows(arrays, windows, context)
    for row, (s, first) in zip(got, windows.tolist(), strict=True):
        assert np.array_equal(row, arrays[s][first : first + context + 1])


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_reading_ahead_changes_nothing_and_resumption_continues(ahead):
    data = shards(900, 700)
    plain = Loader(data, sampler([900, 700]), ahead=0)
    want = [plain.build() for _ in range(12)]
    ahead_loader = Loader(data, sampler([900, 700]), ahead=ahead)
    got = [batch for _, batch in zip(range(5), ahead_loader, strict=False)]
    ahead_loader.close()
    assert [g.tokens.tolist() for g in got] == [w.tokens.tolist() for w in want[:5]]
    resumed = sampler([900, 700])
    resumed.load_state_dict(got[4].state)
    rest = Loader(data, resumed, ahead=ahead)
    later = [batch for _, batch in zip(range(7), rest, strict=False)]
    rest.close()
    assert [g.tokens.tolist() for g in later] == [w.tokens.tolist() for w in want[5:]]


def test_an_error_on_the_reading_thread_reaches_the_trainer():
    subject = sampler([900])
    loader = Loader(shards(300), subject, ahead=2)  # the sampler believes in a longer shard
    with pytest.raises(ValueError):
        for _ in range(50):
            next(iter(loader))
    loader.close()


def test_no_permutation_array_is_kept():
    """State and memory grow with the number of shards, not with their length."""
    big = sampler([10**9, 10**9], context=2048, windows=384)
    big.batch()
    assert len(str(big.state_dict())) < 200
    held = [v for v in vars(big).values() if isinstance(v, np.ndarray)]
    assert sum(v.size for v in held) <= 8


def test_tokens_above_32767_survive_the_way_to_the_device():
    tokens = np.array([[0, 1, 32767], [32768, 40000, 65535]], dtype=np.uint16)

    got, state = next(on_device([Batch(tokens, {"index": 1})], torch.device("cpu")))
    assert got.dtype == torch.int64 and got.tolist() == tokens.tolist() and state == {"index": 1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_prefetch_delivers_the_same_tokens():
    data = shards(900, 700)
    plain = Loader(data, sampler([900, 700]), ahead=0)
    staged = on_device(Loader(data, sampler([900, 700]), ahead=2), torch.device("cuda"))
    for _ in range(20):
        assert next(staged)[0].cpu().tolist() == plain.build().tokens.tolist()
