"""The reader under mutated files; ``python -m harness.artifact.fuzz`` runs 100,000 of them."""

import signal

from harness.artifact import fuzz
from harness.artifact.codecs import Corrupt


def test_mutated_files_are_refused_or_read_as_the_identical_model():
    outcome = fuzz.run(3000, seed=7)
    assert outcome.failures == []
    assert outcome.files == 3000
    assert outcome.refused + outcome.identical + outcome.consistent == 3000
    # Were all mutations caught at the first gate, the deeper ones would not be tested at all.
    assert len(outcome.messages) > 60
    assert outcome.consistent > 5


def test_the_same_seed_mutates_in_the_same_way():
    first, second = fuzz.run(200, seed=3), fuzz.run(200, seed=3)
    assert first.messages == second.messages


def test_a_reader_that_crashes_hangs_or_lies_is_found(monkeypatch):
    def crash(data, max_bytes):
        raise IndexError("boom")

    def hang(data, max_bytes):
        signal.pause()

    def lie(data, max_bytes):
        return {"sha256": "0"}, []

    def talk(data, max_bytes):
        raise Corrupt("two\nlines")

    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    previous = signal.signal(signal.SIGALRM, fuzz._late)
    try:
        for reader, says in (
            (crash, "IndexError"),
            (hang, "no answer"),
            (lie, "not the one"),
            (talk, "one line"),
        ):
            monkeypatch.setattr(fuzz, "from_bytes", reader)
            outcome = fuzz.Outcome()
            fuzz.one("x", b"", "1", outcome)
            assert len(outcome.failures) == 1
            assert says in outcome.failures[0]
    finally:
        signal.signal(signal.SIGALRM, previous)
