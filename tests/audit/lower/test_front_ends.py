"""Both front ends build the same IR, at the same places, for everything that both accept."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import libcst
import pytest

from audit import ir
from audit.lower import lower
from audit.lower.cursor import Cursor, Mismatch
from audit.lower.from_ast import lower_ast
from audit.lower.from_libcst import lower_libcst

ROOT = Path(__file__).resolve().parents[3]


def flat(node: Any, inside_fstring: bool = False) -> list[Any]:
    """The IR as a list. Places inside f-strings are left out: before 3.12 `ast` did not know them."""
    out: list[Any] = []
    if isinstance(node, ir.Node):
        place = () if inside_fstring else (node.line, node.col, node.end_line)
        out.append((type(node).__name__, *place))
        for field in dataclasses.fields(node):
            if field.name not in ("line", "col", "end_line", "lines", "sha256", "frontend", "path"):
                out += flat(getattr(node, field.name), inside_fstring or isinstance(node, ir.FString))
    elif isinstance(node, (list, tuple)):
        out.append(len(node))
        for item in node:
            out += flat(item, inside_fstring)
    else:
        out.append(repr(node))
    return out


SNIPPETS = [
    "x = 1,\n", "f(x for x in y)\n", "f((x for x in y))\n", "print((a)for a in b)\n",
    "(a).b.c(1)[2:3, ::2, :]\n", "a[(1):(2)], a[x,], a[...], a[:, None]\n", "x = a, *b\n", "(a, b) = c = (d)\n",
    "def f(a, /, b: int=3, *c, d=(1), **e) -> int: return a\n", "def f(*, k): yield from (k)\n", "a = (yield)\n",
    "async def f():\n  async with a as b, c: await d\n  async for x in y: pass\n  return [z async for z in q if z]\n",
    "x = a if b else c\nif a: pass\nelif b: pass\nelif c: pass\nelse: d\n",
    'print(f"{a!r:>{w}} {b=} {c:.3f}" "k" f"{{}}\\n")\n', "x = rf'\\d{a}'\n",
    "del a, b\ndel (c, d)\n", "x: int = (3)\ny: str\n", "@d.e(1)\nclass A(B, m=C): x = 1; y = 2\n",
    "try:\n  a\nexcept (A, B) as e: b\nexcept: c\nelse: d\nfinally: e\n",
    "a = not b is not c not in d\n", "x = -a - -b ** ~c + +d\n", "lambda *a, k=1, **kw: (a, k)\n", "x = lambda: (yield)\n",
    'x = {**a, "b": c, **d}\ny = {*a, b}\nz = {}\nw = {k: v for k, v in q if v if k for r in s}\n',
    "for i in (1, 2),: pass\nelse: x\nwhile a: break\nelse: continue_\n",
    "with (open(a) as f, open(b)): pass\nwith (a): pass\nwith a, b as (c, d): pass\n",
    "from . import (a as b, c)\nfrom ..x.y import *\nimport a.b as c, d\n",
    'x = ("a"\n "b")\ny = b"a" b"c"\n', "w = (a and b) and c or d and (e and f)\n", "raise A from b\nassert a, b\nraise\n",
    "if (n := f(x)) > 3: pass\n", 'é = "ü"; ñ = é + f"{é}" + x\n', "def f():\n  global a, b\n  def g():\n    nonlocal c\n",
    "x = 0xFF + 1_000 + .5 + 1e3 + 2j + 0o17 + 00 + 1.\n", "x = f'''{\n a}\n'''\n", "a = a @ b // c % d << 1 >> 2 & 3 | 4 ^ 5 / 6\n",
    "a @= b; a //= c; a **= d; a >>= e; a |= f\n", "a = (\n  b  # (a comment\n  .c()\n  .d()\n)\n", "f(*a, b, c=d, **e)\n",
    "a < b <= c != d == e is f\n", "x = [\n  1,\n  2,\n]\n\n\nif x: \\\n  y\n", "[*a, *(b), (*c, d)]\n", "x = ...\n",
    "try:\n  a\nexcept* A: b\n", "print(a, (b), ((c)), (d,), ())\n", "x = [i for i in (j for j in k)]\n", "'a' 'b' f'{c}' 'd'\n",
]  # fmt: skip


@pytest.mark.parametrize("text", SNIPPETS)
def test_snippets(text: str) -> None:
    by_ast = lower_ast(ast.parse(text), "x", text.split("\n"))
    by_libcst = lower_libcst(libcst.parse_module(text), "x", Cursor(text))
    assert flat(by_libcst.body) == flat(by_ast.body)


@pytest.mark.parametrize("package", ["audit/trace", "audit/peel", "audit/lower", "fixtures/submissions"])
def test_whole_files(package: str) -> None:
    paths = [p for p in sorted((ROOT / package).rglob("*.py")) if "packed" not in p.parent.name][:25]
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        module = lower(text, path.name)
        try:
            by_ast = lower_ast(ast.parse(text), path.name, text.split("\n"))
        except SyntaxError:
            continue  # newer syntax than this Python's own grammar
        assert module.frontend == "libcst", path
        assert flat(module.body) == flat(by_ast.body), path


def test_a_tree_that_does_not_belong_to_the_text_is_noticed() -> None:
    with pytest.raises(Mismatch):
        lower_libcst(libcst.parse_module("a = b\n"), "x", Cursor("a = c\n"))
