"""What `ast` lowers in a sweep is what libcst lowers; what it may not lower is handed on."""

from __future__ import annotations

import sys

import libcst
import pytest

from audit import ir
from audit.lower import quick
from audit.lower.cursor import Cursor
from audit.lower.from_libcst import lower_libcst
from audit.lower.pieces import _all, split
from tests.audit.lower.test_front_ends import ROOT, SNIPPETS, flat


@pytest.mark.parametrize("text", SNIPPETS)
def test_snippets(text: str) -> None:
    found = quick.plain(text)
    if found is not None:
        assert flat(found) == flat(lower_libcst(libcst.parse_module(text), "x", Cursor(text)).body)


@pytest.mark.parametrize("package", ["audit/rules", "audit/render", "reference_model"])
def test_pieces_of_whole_files(package: str) -> None:
    done = 0
    for path in sorted((ROOT / package).rglob("*.py"))[:25]:
        for piece in _all(split(path.read_text(encoding="utf-8"))):
            found = quick.plain(piece.source)
            if found is not None:
                by_libcst = lower_libcst(libcst.parse_module(piece.source), "x", Cursor(piece.source))
                assert flat(found) == flat(by_libcst.body), (path, piece.first)
                done += 1
    assert done > 10


@pytest.mark.parametrize(
    "text",
    [
        "if x:\n  \\\n  y\n", "match x:\n  case 1: pass\n", "(a): int = 1\n", "def f(*a: *T): pass\n", "ﬁ = 1\n",
        "def f[T](a): pass\n", "type X = int\n", "x = (\n", "x = 1 +\n", "x = '\ud800'\n",
    ],
)  # fmt: skip
def test_what_the_two_may_see_otherwise_is_handed_on(text: str) -> None:
    assert quick.plain(text) is None


def test_a_place_that_ast_does_not_know() -> None:
    assert (quick.plain("x = f'''\n{a}\n'''\n") is None) == (sys.version_info < (3, 12))


@pytest.mark.parametrize(
    "text",
    [
        'x = (f"a {b}"\n   "c"\n      f"{d:{e}} {g!r}")\n',
        "def f():\n    log(\n        f'é {a.b(c)[d]} '\n        f'{(e + 1) * k:.3f} {{x}}' 'y'\n        rf'\\d{h}')\n",
        'if 1:\n    raise V(\n        "first"\n        f"{m(1, n=o)} {p if q else r}"\n    )\n',
    ],
)
def test_names_in_literals_that_are_joined_over_lines_stand_where_libcst_sees_them(text: str) -> None:
    def names(body: list[ir.Stmt]) -> list[tuple]:
        return [(type(n).__name__, n.line, n.col, n.end_line) for n in ir.walk(body)]

    found = quick.plain(text)
    assert found is not None
    assert names(found) == names(lower_libcst(libcst.parse_module(text), "x", Cursor(text)).body)
