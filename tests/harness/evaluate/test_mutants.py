"""Every cheat is caught by its mechanism, no look-alike is accused, and the published table says just that."""

from pathlib import Path

import pytest

from harness.mutants.cases import entries
from harness.mutants.table import markdown, run_all

DOC = Path(__file__).resolve().parents[3] / "docs" / "mutants.md"
ENTRIES = list(entries())


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return {row.entry.name: row for row in run_all(tmp_path_factory.mktemp("mutants"))}


@pytest.mark.parametrize("name", [e.name for e in ENTRIES if e.expected is not None])
def test_a_cheat_is_caught_by_the_mechanism_that_is_named_for_it(rows, name):
    row = rows[name]
    assert row.entry.expected in row.mechanisms, [f.what for f in row.fired]


@pytest.mark.parametrize("name", [e.name for e in ENTRIES if e.expected is None])
def test_a_look_alike_is_accused_of_nothing(rows, name):
    assert [f.what for f in rows[name].fired] == []


def test_a_cheat_that_changes_the_score_really_changes_it(rows):
    honest = rows["chunked"].bits_per_byte
    unmoved = {n for n, r in rows.items() if r.entry.expected and r.bits_per_byte == honest}
    # These change the record only: what the clock says, and what several ranks would have scored.
    assert unmoved == {"stopped clock", "rank reads ahead"}


def test_there_are_enough_of_both():
    assert sum(e.expected is not None for e in ENTRIES) >= 25
    assert sum(e.expected is None for e in ENTRIES) >= 10


def test_the_published_table_is_what_the_command_prints(rows):
    assert DOC.read_text(encoding="utf-8") == markdown(list(rows.values()))
