"""The arithmetic coder: what goes in comes out, in about as many bits as the scores say."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluate.coder import Decoder, Encoder, frequencies


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(2, 300), st.floats(0.01, 20))
def test_symbols_come_back_and_cost_their_information(seed, count, vocab, sharpness):
    rng = np.random.default_rng(seed)
    tables = rng.normal(size=(count, vocab)) * sharpness
    p = np.exp(tables - tables.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    symbols = [int(rng.choice(vocab, p=row)) if i % 5 else int(row.argmin()) for i, row in enumerate(p)]
    encoder = Encoder()
    for row, symbol in zip(p, symbols, strict=True):
        encoder.encode(symbol, frequencies(row))
    bits = encoder.finish()
    decoder = Decoder(bits)
    assert [decoder.decode(frequencies(row)) for row in p] == symbols
    tables_used = [frequencies(row) for row in p]
    information = sum(np.log2(t[-1] / (t[s + 1] - t[s])) for t, s in zip(tables_used, symbols, strict=True))
    assert information - 1 <= len(bits) <= information + 3


def test_every_symbol_keeps_a_frequency_and_the_total_fits_the_registers():
    p = np.zeros(1000)
    p[3] = 1.0
    table = frequencies(p)
    assert (np.diff(table) >= 1).all() and table[-1] < 2**26
