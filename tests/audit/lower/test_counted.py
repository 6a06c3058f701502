"""Loops that only count: the same as ``for`` over a range, and left alone where they are not."""

from __future__ import annotations

import pytest

from audit import ir
from audit.lower import lower


def loops(text: str) -> list[tuple[str, int]]:
    found = [(n.line, type(n).__name__) for n in ir.walk(lower(text, "x.py").body) if isinstance(n, (ir.For, ir.While))]
    return [(name, line) for line, name in sorted(found)]


def ranges(text: str) -> list[list[object]]:
    found = [n for n in ir.walk(lower(text, "x.py").body) if isinstance(n, ir.For)]
    return [[a.value if isinstance(a, ir.Const) else type(a).__name__ for a in n.iter.args] for n in found if isinstance(n.iter, ir.Call)]


@pytest.mark.parametrize(
    ("head", "count", "args"),
    [
        ("i = 0\nwhile i < n:", "i += 1", ["Name"]),
        ("i = 0\nwhile i < n:", "i += 4", [0, "Name", 4]),
        ("i = 2\nwhile n > i:", "i = i + 1", [2, "Name"]),
        ("i = first\nwhile i < len(val) - 1:", "i += k", ["Name", "BinOp", "Name"]),
        ("i = 0\nwhile i + k <= val.numel():", "i += k", [0, "BinOp", "Name"]),
        ("i, total = 0, 0.0\nwhile i < n:", "i += 4", [0, "Name", 4]),
        ("i = 0\nprint(n)\nwhile i < n:", "i += 4", [0, "Name", 4]),
    ],
)
def test_a_loop_that_only_counts(head: str, count: str, args: list[object]) -> None:
    text = f"{head}\n    total += score(i)\n    if total > 9:\n        break\n    {count}\nprint(total)\n"
    assert ranges(text) == [args]
    assert [name for name, _ in loops(text)] == ["For"]
    inside = "def f(n):\n" + "".join(f"    {line}\n" for line in text.splitlines())
    assert ranges(inside) == [args]


@pytest.mark.parametrize(
    "text",
    [
        "while i < n:\n    f(i)\n    i += 1\n",
        "i = 0\nwhile i < n:\n    f()\n    i += 1\n",
        "i = 0\nwhile i < n:\n    f(i)\n    i += 1\nprint(i)\n",
        "i = 0\nwhile i < n:\n    if f(i):\n        continue\n    i += 1\n",
        "i = 0\nwhile i < n:\n    n = f(i)\n    i += 1\n",
        "i = 0\nwhile i < n:\n    i += 1\n    f(i)\n",
        "i = 0\nwhile i < n:\n    f(i)\n    i -= 1\n",
        "i = 0\nwhile i < n:\n    f(i)\n    i *= 2\n",
        "i = 0\nwhile i < n:\n    f(i)\n    i += i\n",
        "i = 0\nwhile i < len(queue):\n    queue.append(f(i))\n    i += 1\n",
        "i = 0\nwhile i < more():\n    f(i)\n    i += 1\n",
        "i = 0\nwhile i < n:\n    if f(i):\n        i += 2\n    i += 1\n",
        "i = 0\nwhile i < n and not done:\n    f(i)\n    i += 1\n",
        "i = 0\ni += 3\nwhile i < n:\n    f(i)\n    i += 1\n",
        "i = 0\nwhile i < n:\n    k = f(i)\n    i += k\n",
        "i = 0\nwhile i < n:\n    f(i)\n    i += 1\nelse:\n    g()\n",
        "def f(n):\n    global i\n    i = 0\n    while i < n:\n        g()\n        i += 1\n",
    ],
)
def test_a_loop_that_does_more_than_count(text: str) -> None:
    assert [name for name, _ in loops(text)] == ["While"]


def test_loops_inside_one_another_and_a_counter_that_is_set_anew() -> None:
    text = "i = 0\nwhile i < n:\n    j = 0\n    while j < i:\n        f(j)\n        j += 1\n    i += 2\ni = 5\nprint(i)\n"
    assert loops(text) == [("For", 2), ("For", 4)]
