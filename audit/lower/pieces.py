"""A module in pieces: statements that many scripts of a contest's history share are parsed once.

A third of the scripts in a history are copies, and two thirds of the text of the others stand in another one too,
mostly whole functions and stretches of long ones. A sweep therefore cuts a script at statements (`split`), looks up
what it has lowered before (`audit.lower.store`) and parses the rest piece by piece, most of it with `audit.lower.quick`.

A cut needs no parser: it is made before a line that begins a statement by its indentation, outside strings of several
lines. A cut in the wrong place cannot go unseen, because the piece before it ends inside a string or a bracket, which
no parser takes; then the module is parsed whole. The nodes are those of a whole parse, positions included.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from audit import ir
from audit.lower import packing, store

_STATEMENT = re.compile(r"[^\W\d]|@|\"\"\"|'''")
_CONTINUES = re.compile(r"(?:else|elif|except|finally|case)\b")
_OPENS = re.compile(r"(?:async[ \t]+)?(?:def|class|for|while|with|if)\b")
_HEADER_ENDS = re.compile(r":[ \t]*(?:#.*)?$")
_QUOTED = re.compile(r"'[^'\n\\]*'|\"[^\"\n\\]*\"|#.*")
_LITERAL = re.compile(
    r"""#[^\n]*|\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.S
)
#: lines from which a statement is a piece of its own, and from which it is cut inside
ALONE, LONG = 8, 30
#: one in so many short statements ends a piece; which ones, their text decides, so that copies are cut alike
ENDS = 6
#: a block needs a statement around it to be parsed alone
_AROUND = "if 1:\n"


@dataclass(frozen=True)
class Piece:
    """Statements. ``first``: index of the line that ``text`` begins at. ``nested``: they are indented."""

    first: int
    text: str
    nested: bool

    @property
    def source(self) -> str:
        return _AROUND + self.text if self.nested else self.text

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Block:
    """A compound statement with one block: its header with ``pass`` for a body, and the pieces of its body."""

    head: Piece
    body: list[Piece | Block]


def lower_pieces(text: str, path: str, parse: Callable[[str], list[ir.Stmt]]) -> ir.Module:
    """The module, with what the store holds taken from there.

    ``parse`` lowers one text and may raise anything. Raises that, or ValueError: then the module has to be parsed whole.
    """
    parts = split(text)
    pieces = {piece.key: piece for piece in _all(parts)}
    packed = store.kept(list(pieces))
    fresh = {key: packing.with_nodes(parse(piece.source)) for key, piece in pieces.items() if key not in packed}
    if store.active():
        new = {key: packing.pack(nodes) for key, nodes in fresh.items()}
        store.keep(new)
        packed |= new

    def nodes(piece: Piece) -> list[ir.Stmt]:
        # Every place in the text has nodes of its own.
        key = piece.key
        if key in fresh:
            found, inside = fresh.pop(key)
        elif key in packed:
            found, inside = packing.unpack(packed[key])
        else:
            found, inside = packing.with_nodes(parse(piece.source))
        offset = piece.first
        if piece.nested:
            (around,) = found
            assert isinstance(around, ir.If)
            found, offset = around.body, offset - 1
        for node in inside:
            node.line += offset
            node.end_line += offset
        return found

    def build(part: Piece | Block) -> list[ir.Stmt]:
        if isinstance(part, Piece):
            return nodes(part)
        (head,) = nodes(part.head)
        if not isinstance(head, (ir.FunctionDef, ir.ClassDef, ir.For, ir.While, ir.With, ir.If)):
            raise ValueError("a header with something before it")
        head.body = [statement for inner in part.body for statement in build(inner)]
        head.end_line = head.body[-1].end_line
        return [head]

    body = [statement for part in parts for statement in build(part)]
    return ir.Module(path, body, line=1, col=0, end_line=text.count("\n") + 1)


def _all(parts: list[Piece | Block]) -> Iterator[Piece]:
    for part in parts:
        if isinstance(part, Piece):
            yield part
        else:
            yield part.head
            yield from _all(part.body)


def split(text: str) -> list[Piece | Block]:
    """Cuts ``text``; every line is in a piece, in order."""
    return _Cutter(text).block(0, text.count("\n") + 1, "")


class _Cutter:
    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        #: lines that begin inside a string, or that a backslash joins to the one before
        self.inside: set[int] = set()
        line = at = 0
        for match in _LITERAL.finditer(text):
            if (breaks := match[0].count("\n")) > 0:
                line += text.count("\n", at, match.start())
                self.inside.update(range(line + 1, line + breaks + 1))
                line, at = line + breaks, match.end()
        self.inside.update(i + 1 for i, row in enumerate(self.lines) if row.endswith("\\"))

    def piece(self, start: int, end: int, indent: str) -> Piece:
        return Piece(start, "\n".join(self.lines[start:end]) + "\n", bool(indent))

    def block(self, start: int, end: int, indent: str) -> list[Piece | Block]:
        """The pieces of the lines from ``start`` to before ``end``, whose statements are indented by ``indent``."""
        # What stands before the first line that looks like a statement goes with it, be it all there is.
        starts = [start, *list(self.statements(start, end, indent))[1:], end]
        out: list[Piece | Block] = []
        open_at = start
        for at, behind in pairwise(starts):
            if behind - at >= ALONE:
                if open_at < at:
                    out.append(self.piece(open_at, at, indent))
                inner = self.inside_of(at, behind, indent) if behind - at > LONG else None
                out.append(inner or self.piece(at, behind, indent))
            elif behind < end and zlib.crc32("\n".join(self.lines[at:behind]).encode("utf-8", "surrogatepass")) % ENDS:
                continue
            else:
                out.append(self.piece(open_at, behind, indent))
            open_at = behind
        return out

    def statements(self, start: int, end: int, indent: str) -> Iterator[int]:
        """Lines that begin a statement; a decorated one begins at its first decorator."""
        width, decorated = len(indent), False
        for at in range(start, end):
            line = self.lines[at]
            if not line.startswith(indent) or not _STATEMENT.match(line, width) or at in self.inside:
                continue
            if _CONTINUES.match(line, width):
                continue
            if not decorated:
                yield at
            decorated = line[width] == "@"

    def inside_of(self, start: int, end: int, indent: str) -> Block | None:
        """A compound statement cut inside; None where its header is not plain."""
        width, at = len(indent), start
        while at < end and self.lines[at].startswith(indent + "@"):
            at += 1
        if at == end or not _OPENS.match(self.lines[at], width):
            return None
        depth = 0
        while at < end:
            bare = _QUOTED.sub("", self.lines[at])
            depth += sum(bare.count(c) for c in "([{") - sum(bare.count(c) for c in ")]}")
            at += 1
            if depth == 0 and _HEADER_ENDS.search(bare):
                break
        body = next((i for i in range(at, end) if self.lines[i].strip() and not self.lines[i].lstrip().startswith("#")), end)
        if body == end:
            return None
        inner = self.lines[body][: len(self.lines[body]) - len(self.lines[body].lstrip())]
        if len(inner) <= width or not inner.startswith(indent):
            return None
        if any(self.lines[i].startswith(indent) and _CONTINUES.match(self.lines[i], width) for i in range(at, end)):
            return None  # the statement has another block
        head = Piece(start, "\n".join([*self.lines[start:at], inner + "pass\n"]), bool(indent))
        return Block(head, self.block(at, end, inner))


__all__ = ["lower_pieces", "split"]
