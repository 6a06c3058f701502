"""Modules that a sweep has parsed already: the same nodes, under the path that asks."""

from __future__ import annotations

import pytest

from audit import ir, lower
from audit.lower import store

TEXT = "import torch\n\ndef f(x, *, k=1):\n    return [y for y in x if y > k]\n"


@pytest.fixture
def folder(tmp_path):
    store.keep_in(str(tmp_path))
    yield tmp_path
    store.keep_in(None)


def shape(module: ir.Module) -> list[tuple]:
    return [(type(n).__name__, n.line, n.col, n.end_line) for n in ir.walk(module.body)]


def test_a_second_reading_gives_the_same_module_without_parsing(folder, monkeypatch):
    first = lower.lower(TEXT, "a/train_gpt.py")
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(lower, "_best", lambda *a: pytest.fail("parsed again"))
    second = lower.lower(TEXT, "b/helper.py")
    assert shape(first) == shape(second)
    assert (first.path, second.path) == ("a/train_gpt.py", "b/helper.py")
    assert (second.lines, second.sha256, second.frontend) == (first.lines, first.sha256, first.frontend)


def test_another_text_a_torn_file_and_no_folder_are_parsed(folder):
    lower.lower(TEXT, "a.py")
    assert shape(lower.lower(TEXT + "f(2)\n", "a.py")) != shape(lower.lower(TEXT, "a.py"))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert shape(lower.lower(TEXT, "a.py"))
    store.keep_in(str(folder / "gone"))
    assert shape(lower.lower(TEXT, "a.py"))


def test_what_nests_too_deeply_to_be_kept_is_parsed_each_time(folder):
    deep = "x = " + "-" * 400 + "1\n"
    assert shape(lower.lower(deep, "a.py")) == shape(lower.lower(deep, "a.py"))
    assert [p for p in folder.iterdir() if "." in p.name] == []
