"""Gathers a module and everything of this project that it uses into one source text.

A submission must be one readable file that stands alone, and it must run the code that was tested, not a
copy of it that drifts. So the script is cut out of the package: starting from a module's statements, every
top-level definition that they reach through ``from … import …`` is taken over as it stands, comments and
all, in an order in which it can be executed. Names that two modules define differently are told apart.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OWN = ("reference_model", "harness", "audit")


@dataclass(slots=True, eq=False)
class Piece:
    """One top-level statement: what it defines, its text, and what it refers to."""

    module: str
    index: int
    node: ast.stmt
    text: str
    names: tuple[str, ...]
    uses: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Source:
    """A parsed module. ``imported``: local name -> (module, name) of this project; ``foreign``: import lines."""

    name: str
    text: str
    pieces: list[Piece] = field(default_factory=list)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)


class Bundler:
    """``leave_out``: modules whose lazy imports become an error, such as kernels that a recipe does not use.

    ``texts``: what to read instead of a module's file.
    """

    def __init__(
        self, leave_out: frozenset[str] = frozenset(), texts: Mapping[str, str] | None = None
    ) -> None:
        self.leave_out, self.texts = leave_out, dict(texts or {})
        self.sources: dict[str, Source] = {}
        self.order: list[str] = []
        self.stubs: set[tuple[str, str]] = set()

    def source(self, name: str) -> Source:
        if name not in self.sources:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                raise ValueError(f"{name}: no such module")
            text = self.texts.get(name) or Path(spec.origin).read_text(encoding="utf-8")
            self.sources[name] = self._parse(Source(name, text))
            self.order.append(name)  # after its own imports: definitions come before their users
        return self.sources[name]

    def _parse(self, source: Source) -> Source:
        lines = source.text.splitlines(keepends=True)
        tree = ast.parse(source.text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(source, node, top=node in tree.body)
        end = 0
        for index, node in enumerate(tree.body):
            start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
            first = start
            while first > end and lines[first - 1].lstrip().startswith("#"):
                first -= 1  # the comment above a definition belongs to it
            end = node.end_lineno or node.lineno
            if isinstance(node, ast.Import | ast.ImportFrom) or (index == 0 and isinstance(node, ast.Expr)):
                continue
            tail = lines[end - 1]
            text = "".join(lines[first : end - 1]) + tail
            source.pieces.append(Piece(source.name, index, node, text, tuple(_defined(node))))
        return source

    def _import(self, source: Source, node: ast.Import | ast.ImportFrom, top: bool) -> None:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN:
            assert node.module is not None
            if node.module in self.leave_out:
                self.stubs |= {(alias.asname or alias.name, node.module) for alias in node.names}
                return
            for alias in node.names:
                if importlib.util.find_spec(node.module) is None:
                    raise ValueError(f"{source.name}: {node.module} cannot be found")
                self.source(node.module)
                source.imported[alias.asname or alias.name] = (node.module, alias.name)
        elif top:
            for alias in node.names:
                local = (alias.asname or alias.name).split(".")[0]
                single = (
                    ast.Import([alias])
                    if isinstance(node, ast.Import)
                    else ast.ImportFrom(node.module, [alias], 0)
                )
                source.foreign[local] = ast.unparse(single)

    def _resolve(self, module: str, name: str) -> tuple[str, str] | None:
        """Where a name that a module uses is defined, following imports through packages."""
        source = self.source(module)
        if any(name in piece.names for piece in source.pieces):
            return module, name
        if name in source.imported:
            return self._resolve(*source.imported[name])
        return None

    def bundle(self, root: str) -> str:
        """The text of ``root`` with all that it uses, as one module."""
        start = self.source(root)
        wanted = [piece for piece in start.pieces]
        taken: dict[int, Piece] = {}
        foreign: set[str] = set()
        while wanted:
            piece = wanted.pop()
            if id(piece) in taken:
                continue
            taken[id(piece)] = piece
            source = self.sources[piece.module]
            for name in _used(piece.node):
                found = self._resolve(piece.module, name)
                if found is not None:
                    piece.uses.add(found)
                    wanted += [p for p in self.sources[found[0]].pieces if found[1] in p.names]
                elif name in source.foreign:
                    foreign.add(source.foreign[name])
            # Registrations and other statements about what was taken, such as ``op.register_fake``.
            for other in source.pieces:
                if not other.names and set(_anchors(other.node)) & set(piece.names):
                    wanted.append(other)
        return self._write(root, list(taken.values()), foreign)

    def _write(self, root: str, taken: list[Piece], foreign: set[str]) -> str:
        place = {name: i for i, name in enumerate(self.order)}
        taken.sort(key=lambda p: (place[p.module], p.index))
        owner: dict[str, str] = {}
        renamed: dict[tuple[str, str], str] = {}
        for piece in taken:
            for name in piece.names:
                if owner.setdefault(name, piece.module) != piece.module:
                    renamed[piece.module, name] = f"{name}_{piece.module.rsplit('.', 1)[-1]}"
        used = {n for piece in taken for n in _used(piece.node)}
        self.stubs = {stub for stub in self.stubs if stub[0] in used}
        document = ast.get_docstring(ast.parse(self.sources[root].text), clean=False) or ""
        parts = [f'"""{document}"""\n', "from __future__ import annotations\n"]
        lines = sorted(
            foreign - {"from __future__ import annotations"}, key=lambda s: (s.startswith("from"), s)
        )
        parts.append("\n".join(lines) + "\n")
        for name, module in sorted(self.stubs):
            parts.append(
                f'def {name}(*_: object) -> None:\n    raise RuntimeError("exported without {module}")\n'
            )
        last = ""
        for piece in taken:
            if piece.module != last:
                last = piece.module
                parts.append(
                    f"# ---- {piece.module.split('.', 1)[-1]} " + "-" * (90 - len(piece.module)) + "\n"
                )
            parts.append(self._text(piece, renamed))
        return "\n\n".join(part.strip("\n") for part in parts) + "\n"

    def _text(self, piece: Piece, renamed: dict[tuple[str, str], str]) -> str:
        text = self._without_own_imports(piece)
        for found in sorted(piece.uses | {(piece.module, n) for n in piece.names}):
            if found in renamed:
                text = re.sub(rf"(?<![\w.\"']){re.escape(found[1])}(?![\w\"'])", renamed[found], text)
        for local, (module, name) in self.sources[piece.module].imported.items():
            if local != name and re.search(rf"\b{local}\b", text):
                raise ValueError(f"{piece.module}: {module}.{name} is imported under another name")
        return text

    def _without_own_imports(self, piece: Piece) -> str:
        """The text with lazy imports of this project's modules taken out: they are in the file already."""
        lines = piece.text.splitlines(keepends=True)
        offset = piece.node.end_lineno - len(lines)  # type: ignore[operator]
        for node in ast.walk(piece.node):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN:
                first, last = node.lineno - 1 - offset, (node.end_lineno or node.lineno) - 1 - offset
                gap = last + 1 < len(lines) and not lines[last + 1].strip()
                for i in range(first, last + 1 + gap):
                    lines[i] = ""
        return "".join(lines)


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        if node.name != "_":
            yield node.name
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _anchors(node: ast.stmt) -> Iterator[str]:
    """The names that a statement without a name of its own is about."""
    if isinstance(node, ast.FunctionDef):
        for decorator in node.decorator_list:
            yield from (n.id for n in ast.walk(decorator) if isinstance(n, ast.Name))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield from (n.id for n in ast.walk(node.value.func) if isinstance(n, ast.Name))


def _used(node: ast.stmt) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value.isidentifier():
            yield inner.value  # a quoted annotation
        elif isinstance(inner, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in inner.names)
