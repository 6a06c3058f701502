"""English text that every machine with Python already holds, for runs without any data at hand.

Sources, in order: the help topics of pydoc, the docstrings of the standard library, licence texts,
and the docstrings of installed scientific packages. Files are parsed, never imported. The result is
the same for the same environment: files are visited in sorted order, nothing depends on time or
hashing seeds, and the documents are finally put in the order of their SHA-256, so that the first N
(the validation split of `harness.tokens.build`) are a fair sample of all sources.

Documentation repeats itself (parameter descriptions, licences). A paragraph seen before is dropped
everywhere, so no validation paragraph of any length worth learning occurs in training text. Bits per
byte on this text say that a model learns; they are not comparable with the contest's.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

#: Installed packages worth reading: written documentation, large, and dependencies of this project.
PACKAGES = (
    "numpy", "scipy", "torch", "networkx", "sympy", "huggingface_hub", "rich", "jinja2", "libcst",
    "pygments", "hypothesis", "mpmath", "setuptools", "pip",
)  # fmt: skip
#: Folders whose docstrings are test names or generated code.
SKIPPED_FOLDERS = frozenset({
    "site-packages", "dist-packages", "test", "tests", "testing", "__pycache__", "lib2to3", "_vendor",
    "_inductor", "_dynamo", "_C", "include", "bin", "lib", "_refs", "_decomp", "polys", "parsing",
})  # fmt: skip
DEFAULT_BYTES = 10_000_000
TARGET_CHARS = 3_000  # about the mean length of a contest document
MINIMUM_CHARS = 200
REPEATED_CHARS = 60  # a paragraph of at least this length counts as text that can be repeated
_PROSE = 0.72  # least share of letters and blanks in a paragraph that reads as English
_MAXIMUM_SOURCE = 2_000_000


def harvest(max_bytes: int = DEFAULT_BYTES, progress: Callable[[int], None] | None = None) -> list[str]:
    """Documents of about `TARGET_CHARS` characters, ``max_bytes`` of UTF-8 in all at most.

    ``progress`` is called with the bytes found so far.
    """
    seen: set[bytes] = set()
    documents: list[str] = []
    total = 0
    for units in _sources():
        for document in _pack(_fresh(units, seen)):
            size = len(document.encode())
            if total + size > max_bytes:
                return _ordered(documents)
            documents.append(document)
            total += size
        if progress is not None:
            progress(total)
    return _ordered(documents)


def _ordered(documents: list[str]) -> list[str]:
    return sorted(documents, key=lambda d: hashlib.sha256(d.encode()).digest())


def _sources() -> Iterator[list[str]]:
    """Lists of text units, one list per file or topic, in a fixed order."""
    paths = sysconfig.get_paths()
    stdlib = Path(paths["stdlib"])
    for text in _topics(stdlib / "pydoc_data" / "topics.py"):
        yield [text]
    for file in _python_files(stdlib):
        yield _docstrings(file)
    for file in _licences(stdlib, Path(paths["purelib"])):
        yield [_read(file)]
    roots = sorted({Path(paths["purelib"]), Path(paths["platlib"])})
    for package in PACKAGES:
        for root in roots:
            if (root / package).is_dir():
                for file in _python_files(root / package):
                    yield _docstrings(file)


def _python_files(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(s for s in subfolders if s not in SKIPPED_FOLDERS)
        for name in sorted(files):
            path = Path(folder, name)
            if name.endswith(".py") and path.stat().st_size <= _MAXIMUM_SOURCE:
                yield path


def _licences(stdlib: Path, site: Path) -> Iterator[Path]:
    fixed = [stdlib / "LICENSE.txt", Path(sys.base_prefix) / "LICENSE.txt"]
    shared = sorted(Path("/usr/share/common-licenses").glob("*"))
    wheels = sorted(
        p for p in site.glob("*.dist-info/**/*") if re.match(r"(?i)(licen[cs]e|copying|notice)", p.name)
    )
    for path in (*fixed, *shared, *wheels):
        if path.is_file() and path.stat().st_size <= _MAXIMUM_SOURCE:
            yield path


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def _parse(path: Path) -> ast.Module | None:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's docstrings
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return None


def _topics(path: Path) -> list[str]:
    tree = _parse(path)
    if tree is None:
        return []
    tables = [n for n in ast.walk(tree) if isinstance(n, ast.Dict)]
    return [
        v.value for t in tables for v in t.values if isinstance(v, ast.Constant) and isinstance(v.value, str)
    ]


def _docstrings(path: Path) -> list[str]:
    """Docstrings of a file in source order, and long string arguments of ``add_docstr``-like calls."""
    tree = _parse(path)
    if tree is None:
        return []
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                found.append((getattr(node, "lineno", 0), text))
        elif isinstance(node, ast.Call) and "doc" in ast.unparse(node.func).rpartition(".")[2]:
            # Compiled functions of numpy and torch get their documentation through such calls.
            strings = [a for a in ast.walk(node) if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            found += [
                (a.lineno, inspect.cleandoc(str(a.value)))
                for a in strings
                if len(str(a.value)) >= MINIMUM_CHARS
            ]
    return [text for _line, text in sorted(found, key=lambda item: item[0])]


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs that read as English: no interpreter sessions, tables, markup rules or code."""
    for block in re.split(r"\n\s*\n", text.replace("\t", "    ").replace("\r", "")):
        if ">>>" in block:
            block = block.split(">>>", 1)[0]
        lines = [line.strip() for line in block.splitlines()]
        lines = [line for line in lines if re.search(r"\w", line)]  # underlines and separators
        joined = " ".join(lines)
        wordy = sum(c.isalpha() or c == " " for c in joined)
        if joined and wordy >= _PROSE * len(joined) and joined.count(" ") >= 2:
            yield joined


def _fresh(units: list[str], seen: set[bytes]) -> Iterator[str]:
    """The paragraphs of ``units`` that no earlier unit held."""
    for unit in units:
        for paragraph in _paragraphs(unit):
            if len(paragraph) >= REPEATED_CHARS:
                key = hashlib.blake2b("".join(paragraph.lower().split()).encode(), digest_size=16).digest()
                if key in seen:
                    continue
                seen.add(key)
            yield paragraph


def _pack(paragraphs: Iterator[str]) -> Iterator[str]:
    """Joins a file's paragraphs into documents; leftovers too short for a document are dropped."""
    held: list[str] = []
    size = 0
    for paragraph in paragraphs:
        held.append(paragraph)
        size += len(paragraph) + 1
        if size >= TARGET_CHARS:
            yield "\n".join(held)
            held, size = [], 0
    if size >= MINIMUM_CHARS:
        yield "\n".join(held)
