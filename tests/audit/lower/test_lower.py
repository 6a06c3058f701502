"""Parsing does not give up before every front end and repair has, and lines stay where they were."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from audit import ir
from audit.lower import TooDeep, Unparsable, lower
from audit.lower.repair import end_of_string, risky, spaced


def first_call_line(module: ir.Module) -> int:
    return next(s.line for s in module.body if isinstance(s, ir.ExprStmt) and isinstance(s.value, ir.Call))


def test_newer_syntax_than_the_running_python() -> None:
    module = lower('x = 1\nprint(f"{x["a"]} {"b"}")\n', "x")
    assert first_call_line(module) == 2


@pytest.mark.parametrize(
    "text", ["x = a if b else.5\n", "x = [(a if b else c)for d in e]\n", "x = 0or 1\n", 'x = a if"b"else c\n']
)
def test_minified_spacing(text: str) -> None:
    module = lower(text + "print(x)\n", "x")
    assert first_call_line(module) == 2


@pytest.mark.parametrize("frontend", ["libcst", "repaired"])
def test_minified_spacing_together_with_newer_syntax(frontend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if frontend == "repaired":  # a libcst that checks what it has parsed
        monkeypatch.setattr("audit.lower._unvalidated", nullcontext)
    module = lower('y = z\nx = 1 if a else.5;w = f"{d["k"]}"\nprint(x)\n', "x")
    assert (module.frontend, first_call_line(module)) == (frontend, 3)
    second = module.body[2]
    # The column is that of the text as submitted, not of the repaired one.
    assert isinstance(second, ir.Assign) and (second.line, second.col) == (2, 18)


def test_byte_order_mark_carriage_returns_and_leading_backslash() -> None:
    assert first_call_line(lower("\ufeffx = 1\r\nprint(x)\r\n", "x")) == 2
    assert first_call_line(lower("\\\n\nx = 1\rprint(x)\n", "x")) == 4


def test_notebook_magics_keep_lines_in_place() -> None:
    module = lower("%%writefile a.py\n!pip install torch\nif a:\n    %time b\nprint(x)\n", "x")
    assert (module.frontend, first_call_line(module)) == ("repaired", 5)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = = 2\n", 2),
        ("Here is my submission.\nimport torch\n", 1),
        ("x = (\n", 1),
        ("lr = 0xEPS\n", 1),
    ],
)
def test_what_no_parser_accepts_has_a_position_and_a_reason(text: str, line: int) -> None:
    with pytest.raises(Unparsable) as caught:
        lower(text, "x")
    assert caught.value.line == line
    assert caught.value.reason


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "(" * 2000 + "1" + ")" * 2000,
        "x = " + "[" * 5000,
        "x = a" + ".b" * 50_000,
        "x = 1" + " + 1" * 50_000,
        "x = " + "-" * 50_000 + "1",
        "x = " + "not " * 20_000 + "1",
        "x = (" + '"a"\n' * 5000 + ")",
        "".join(" " * i + "if a:\n" for i in range(300)),
        "x = " + "lambda: " * 3000 + "1",
        'x = "' + "a" * 5_000_000 + '"',
        "a = 1;" * 150_000,
        "x = " + 'f"{' * 200,
        "\x00\x01\x02", "", "\n" * 10, "é" * 1000, "def", "\udcff = 1",
    ],
)  # fmt: skip
def test_hostile_texts_end_in_a_module_or_unparsable(text: str) -> None:
    try:
        assert isinstance(lower(text, "x"), ir.Module)
    except Unparsable as error:
        assert error.line >= 1


def test_nesting_is_told_from_bad_syntax() -> None:
    for text in (
        "x = " + "(" * 2000 + "1" + ")" * 2000,
        "x = " + "-" * 50_000 + "1",
        "x = a" + ".b" * 50_000,
    ):
        with pytest.raises(TooDeep):
            lower(text, "x")
    with pytest.raises(Unparsable) as caught:
        lower("x = )", "x")
    assert not isinstance(caught.value, TooDeep)


@pytest.mark.parametrize("repeats", [21_000, 250_000])
def test_huge_tables_of_constants_are_cut(repeats: int) -> None:
    module = lower("x = [" + "0, " * repeats + "]\nprint(x)\n", "x")
    table = module.body[0]
    assert isinstance(table, ir.Assign) and isinstance(table.value, ir.Collection)
    assert len(table.value.elts) == 20_000
    assert first_call_line(module) == 2


def test_ordinary_code_is_not_risky() -> None:
    assert not risky("x = [1, 2, 3]\n" * 5000)
    assert risky("x = " + "(" * 100)
    assert risky("x = a" + ".b" * 3000)


def test_strings_end_where_they_end() -> None:
    for text in ("'a\\'b' c", '"""a"b""" c', "rb'\\x' c", 'f"{x["a"]}" c', "f'{{' c", 'f"{a:{b}}" c'):
        end = end_of_string(text, 0)
        assert end is not None and text[end:] == " c", text
    assert end_of_string("'open", 0) is None
    assert end_of_string("name", 0) is None


def test_spaces_are_put_around_keywords_only_and_never_in_strings() -> None:
    text = "x=1if a else.5;y='1if a else.5';z=a.b\n"
    repaired, inserted = spaced(text)
    assert repaired == "x=1 if a else .5;y='1if a else.5';z=a.b\n"
    assert inserted == [3, 13]
