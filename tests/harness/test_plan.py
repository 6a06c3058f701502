"""Every target exactly once, with the longest context that the stride allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.contracts import InputError
from harness.evaluate.plan import plan

sizes = st.tuples(st.integers(1, 400), st.integers(1, 64), st.integers(1, 64), st.none() | st.integers(1, 130))


@given(sizes)
@settings(max_examples=300, deadline=None)
def test_every_target_is_scored_once_in_order_with_the_longest_context(case):
    total, context, stride, chunk = case
    stride = min(stride, context)
    p = plan(total, context=context, stride=stride, chunk=chunk)
    at = 0
    for s, n, a, b in zip(p.starts, p.lengths, p.score_from, p.score_to, strict=True):
        assert a == at and b > a and n <= context and s >= 0
        assert s + n == b  # a window shows no input after its last target's
        for t in range(a, b):
            assert t - s + 1 >= min(t + 1, context - stride + 1)
        at = b
    assert at == total and p.repeats == 0
    for c in range(p.chunks):  # no window crosses a chunk's end
        lo, hi = p.chunk_targets[c], p.chunk_targets[c + 1]
        w0, w1 = p.chunk_windows[c], p.chunk_windows[c + 1]
        assert (p.score_from[w0:w1] >= lo).all() and (p.score_to[w0:w1] <= hi).all()
        assert p.scored(c) == (lo, hi)
    assert p.lengths[-1] == min(context, total) or p.windows == 1  # shifted left, not cut


@given(sizes, st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=150, deadline=None)
def test_document_chunks_begin_at_documents(case, documents):
    total, context, stride, chunk = case
    p = plan(total, context=context, stride=min(stride, context), chunk=chunk, documents=documents)
    edges = set(p.chunk_targets.tolist())
    assert {d for d in documents if d < total} <= edges
    assert (p.score_from == np.concatenate([[0], p.score_to[:-1]])).all() and p.score_to[-1] == total


@given(sizes)
@settings(max_examples=200, deadline=None)
def test_official_plan_is_the_scripts_loop(case):
    total, context, stride, chunk = case
    stride = min(stride, context)
    kept = [ws for ws in range(0, total, stride) if min(ws + context, total) - ws >= stride or ws == 0]
    if min(kept[-1] + context, total) < total:
        with pytest.raises(InputError, match="would drop"):
            plan(total, context=context, stride=stride, chunk=chunk, variant="official")
        return
    p = plan(total, context=context, stride=stride, chunk=chunk, variant="official")
    want, size = [], chunk or total
    for ws in range(0, total, stride):
        end = min(ws + context, total)
        if not (end - ws >= stride or ws == 0):
            continue
        s = 0 if ws == 0 else max(end - ws - stride, 0)
        want.append((ws, end - ws, ws + s, end, min((ws + s) // size, -(-total // size) - 1)))
    owner = np.searchsorted(p.chunk_windows, np.arange(p.windows), side="right") - 1
    got = list(zip(p.starts, p.lengths, p.score_from, p.score_to, owner, strict=True))
    assert [tuple(int(v) for v in row) for row in got] == want
    counted = np.zeros(total, int)
    for a, b in zip(p.fresh_from, p.score_to, strict=True):
        counted[a:b] += 1
    assert (counted == 1).all()
    for c in range(p.chunks):  # a chunk's targets are all scored before it is adapted on
        assert p.score_to[: p.chunk_windows[c + 1]].max() >= p.chunk_targets[c + 1]


@given(sizes, st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_batches_hold_one_shape_and_ranks_share_all_windows(case, size, world):
    total, context, stride, chunk = case
    p = plan(total, context=context, stride=min(stride, context), chunk=chunk)
    seen = []
    for c in range(p.chunks):
        for r in range(world):
            for a, b in p.batches(c, size, r, world):
                assert b - a <= size and len(set(p.lengths[a:b])) == 1
                assert len(set((p.score_to - p.score_from)[a:b])) == 1
                seen.extend(range(a, b))
    assert seen == list(range(p.windows))


@pytest.mark.parametrize("bad", [dict(total=0), dict(stride=0), dict(stride=9), dict(chunk=0), dict(variant="x")])
def test_impossible_plans_are_input_errors(bad):
    args = dict(total=10, context=8, stride=4) | bad
    with pytest.raises(InputError):
        plan(args.pop("total"), **args)


def test_digest_tells_plans_apart():
    digests = {plan(100, context=16, stride=s, chunk=c).digest() for s in (1, 4, 16) for c in (None, 32)}
    assert len(digests) == 6
