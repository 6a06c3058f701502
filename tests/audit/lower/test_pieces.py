"""Modules lowered in pieces: the nodes of a whole parse, and no text parsed twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import libcst
import pytest

from audit import ir, lower
from audit.lower import pieces, quick, store
from tests.audit.lower.test_front_ends import SNIPPETS, flat

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path):
    store.keep_in(str(tmp_path))
    yield tmp_path
    store.keep_in(None)


@pytest.fixture
def parsed(monkeypatch):
    """The texts that were parsed, by libcst or in its place."""
    texts: list[str] = []
    parse, plain = libcst.parse_module, quick.plain

    def noted(text):
        texts.append(text)
        return parse(text)

    def noted_if_plain(text):
        if (found := plain(text)) is not None:
            texts.append(text)
        return found

    monkeypatch.setattr(libcst, "parse_module", noted)
    monkeypatch.setattr(quick, "plain", noted_if_plain)
    return texts


def whole(text: str) -> ir.Module:
    """The module as libcst parses it in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "split", lambda _: 1 / 0)
        return lower.lower(text, "train_gpt.py")


def function(name: str, turns: int = 12, tail: str = "") -> str:
    body = "".join(
        f"    for i{n} in range({n}):\n        total += f(i{n},\n  key={n})\n    rest = total\n" for n in range(turns)
    )
    return f"@torch.no_grad()\ndef {name}(\n    x: dict[str, int] = {{}},  # a (comment:\n):\n    # first\n    total = 0\n{body}{tail}\n"


CASES = [
    '"""\nThis line looks like a statement\ndef nor_is(this): one\n' + "".join(f"neither number {n}\n" for n in range(40)) + '"""\nimport a\n' + function("g"),
    function("g") + function("h", tail="    return total\n# at the margin\n") + "if x:\n    y\nelse:\n    z\n",
    "class A(B):\n" + "".join("    " + row + "\n" for row in function("m", 9).splitlines()) + "    x = 1\n",
    function("g", tail="'''\n    a text, then one at the margin\n'''\n"),
    "x = a \\\n@ b\ndef f():\n    pass\n",
    "x = (\na,\nb)\n" + function("g"),
    "x = f'''{\na\n}'''\n" + function("g").replace("    ", "\t"),
    function("g", tail="    return f\"{total['a']} it's {total!r}\"\n") * 2,
    "def long(a): return 1\n" + "async def f(): pass\n" * 40,
    "@a\n@b(\n  1)\nclass C: pass\n\n\n# nothing else\n",
    # No line begins as statements do.
    "(lambda: exec(open('body.py').read()))()\n",
    "# first\n[run(x)\n  for x in y]\n",
    "def f():\n" + "    [\n" + "    1,\n" * 40 + "    ][0].run()\n",
]


@pytest.mark.parametrize("text", [*CASES, "".join(SNIPPETS)])
def test_the_nodes_of_a_whole_parse(folder, text):
    expected = whole(text)
    for _first_then_from_the_store in range(2):
        module = lower.lower(text, "train_gpt.py")
        assert flat(module.body) == flat(expected.body)
        assert (module.end_line, module.frontend, module.sha256) == (expected.end_line, expected.frontend, expected.sha256)


@pytest.mark.parametrize("text", [*CASES, "".join(SNIPPETS), function("g") * 3])
def test_the_same_without_a_store(text):
    assert not store.active()
    found = lower.lower(text, "train_gpt.py")
    assert flat(found.body) == flat(whole(text).body)
    assert len({id(n) for n in ir.walk(found.body)}) == len(list(ir.walk(found.body)))


@pytest.mark.parametrize("package", ["audit/trace", "audit/rules", "fixtures/submissions"])
def test_whole_files(folder, package):
    paths = [p for p in sorted((ROOT / package).rglob("*.py")) if "packed" not in p.parent.name][:25]
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert flat(lower.lower(text, path.name).body) == flat(whole(text).body), path


def test_a_copy_is_not_parsed_and_an_edit_costs_its_own_lines(folder, parsed):
    text = function("g") + function("h", 15) + "g()\nh()\n"
    lower.lower(text, "a.py")
    assert len(parsed) > 5
    parsed.clear()
    lower.lower(text, "b.py")
    assert parsed == []
    edited = "import torch\n" + text.replace("i14)", "i13)")
    assert edited != text and flat(lower.lower(edited, "c.py").body) == flat(whole(edited).body)
    assert sum(map(len, parsed[:-1])) < len(text) / 8  # the last is the whole one, to compare with


LONG_BLOCK = "    x = 1\n    f(x)\n" * 20


@pytest.mark.parametrize("text", [*CASES, f"if a:\n{LONG_BLOCK}else:\n{LONG_BLOCK}", f"for a in b:\n{LONG_BLOCK}\nwhile c:\n{LONG_BLOCK}"])
def test_cuts_are_right_the_first_time(folder, parsed, text):
    lower.lower(text, "a.py")
    cut = {p.source for p in pieces._all(pieces.split(text))}
    assert set(parsed) == cut and len(parsed) == len(cut)  # and no whole parse after them


def test_every_place_has_nodes_of_its_own(folder):
    twice = lower.lower(function("g") + function("g"), "a.py")
    first, second = twice.body
    assert first.line != second.line and not {id(n) for n in ir.walk(first)} & {id(n) for n in ir.walk(second)}


def test_a_cut_in_a_wrong_place_means_a_whole_parse(folder, monkeypatch):
    text = function("g") + "x = [\n1]\n"
    monkeypatch.setattr(pieces, "split", lambda t: [pieces.Piece(0, t[:-3], False), pieces.Piece(9, t[-3:], False)])
    assert flat(lower.lower(text, "a.py").body) == flat(whole(text).body)


def test_a_torn_store_and_none_are_parsed(folder, parsed):
    text = function("g")
    lower.lower(text, "a.py")
    with sqlite3.connect(folder / "lowered") as opened:
        opened.execute("UPDATE lowered SET nodes = substr(nodes, 1, 9)")
    opened.close()
    assert flat(lower.lower(text, "a.py").body) == flat(whole(text).body)
    store.keep_in(str(folder / "gone"))
    assert not store.active() and lower.lower(text, "a.py").body
    store.keep_in(str(folder))
    (folder / "lowered").write_bytes(b"no database")
    assert flat(lower.lower(text, "a.py").body) == flat(whole(text).body)


def test_what_nests_too_deeply_to_be_kept_is_parsed_each_time(folder):
    deep = "x = " + "-" * 400 + "1\n"
    for _again in range(2):
        assert flat(lower.lower(deep, "a.py").body) == flat(whole(deep).body)


@pytest.mark.parametrize("text", ["\xa7\xff(((] \xb1 = \xd7", "\x00\x01\xff(((\x00", "(((\n"])
def test_what_no_parser_takes_is_no_empty_module(text):
    with pytest.raises(lower.Unparsable):
        lower.lower(text, "train_gpt.py")
