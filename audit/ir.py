"""The intermediate representation: what rules and the trace see instead of any parser's tree.

One visit of a parser's tree (libcst, or ``ast`` as the fallback) produces it; both front ends must
yield the same IR for the same text. Every node carries its position in the peeled source
(1-based line, 0-based column of its first token, last line). Nodes are plain slotted
dataclasses; nothing here refers to a parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True, eq=False, kw_only=True)
class Node:
    line: int = 0
    col: int = 0
    end_line: int = 0


# ---------------------------------------------------------------- expressions


class Expr(Node):
    __slots__ = ()


@dataclass(slots=True, eq=False)
class Const(Expr):
    """A literal: None, bool, int, float, complex, str, bytes or Ellipsis."""

    value: Any


@dataclass(slots=True, eq=False)
class Name(Expr):
    id: str


@dataclass(slots=True, eq=False)
class Attr(Expr):
    value: Expr
    attr: str


@dataclass(slots=True, eq=False)
class Sub(Expr):
    """``value[index]``; several indices are a Tuple."""

    value: Expr
    index: Expr


@dataclass(slots=True, eq=False)
class Slice(Expr):
    lower: Expr | None
    upper: Expr | None
    step: Expr | None


@dataclass(slots=True, eq=False)
class Call(Expr):
    """``keywords`` pairs (name, value); a name of None is ``**value``. ``args`` may hold Starred."""

    func: Expr
    args: list[Expr]
    keywords: list[tuple[str | None, Expr]]


@dataclass(slots=True, eq=False)
class BinOp(Expr):
    """``op`` is the source operator: ``+ - * / // % ** @ << >> & | ^``."""

    op: str
    left: Expr
    right: Expr


@dataclass(slots=True, eq=False)
class UnaryOp(Expr):
    """``op``: ``- + ~ not``."""

    op: str
    operand: Expr


@dataclass(slots=True, eq=False)
class BoolOp(Expr):
    """``op``: ``and`` or ``or``; chains are flattened as ``ast`` does."""

    op: str
    values: list[Expr]


@dataclass(slots=True, eq=False)
class Compare(Expr):
    """``ops``: ``== != < <= > >= is 'is not' in 'not in'``."""

    left: Expr
    ops: list[str]
    comparators: list[Expr]


@dataclass(slots=True, eq=False)
class IfExp(Expr):
    test: Expr
    body: Expr
    orelse: Expr


@dataclass(slots=True, eq=False)
class Collection(Expr):
    """``kind``: ``tuple``, ``list`` or ``set``."""

    kind: str
    elts: list[Expr]


@dataclass(slots=True, eq=False)
class Dict(Expr):
    """A key of None is ``**value``."""

    items: list[tuple[Expr | None, Expr]]


@dataclass(slots=True, eq=False)
class Lambda(Expr):
    params: list[Param]
    body: Expr


@dataclass(slots=True, eq=False)
class CompFor(Node):
    target: Expr
    iter: Expr
    ifs: list[Expr]


@dataclass(slots=True, eq=False)
class Comp(Expr):
    """``kind``: ``list``, ``set``, ``dict`` or ``generator``; ``key`` only for dict."""

    kind: str
    elt: Expr
    key: Expr | None
    generators: list[CompFor]


@dataclass(slots=True, eq=False)
class FString(Expr):
    """``values`` alternates str pieces (as Const) and expressions; format specs are dropped into values."""

    values: list[Expr]


@dataclass(slots=True, eq=False)
class Starred(Expr):
    value: Expr


@dataclass(slots=True, eq=False)
class Await(Expr):
    value: Expr


@dataclass(slots=True, eq=False)
class Yield(Expr):
    value: Expr | None
    is_from: bool = False


@dataclass(slots=True, eq=False)
class NamedExpr(Expr):
    target: Name
    value: Expr


# ----------------------------------------------------------------- statements


class Stmt(Node):
    __slots__ = ()


@dataclass(slots=True, eq=False)
class Param(Node):
    """``kind``: ``pos``, ``posonly``, ``vararg``, ``kwonly``, ``kwarg``."""

    name: str
    default: Expr | None = None
    annotation: Expr | None = None
    kind: str = "pos"


@dataclass(slots=True, eq=False)
class FunctionDef(Stmt):
    name: str
    params: list[Param]
    body: list[Stmt]
    decorators: list[Expr]
    returns: Expr | None = None
    is_async: bool = False


@dataclass(slots=True, eq=False)
class ClassDef(Stmt):
    name: str
    bases: list[Expr]
    keywords: list[tuple[str | None, Expr]]
    body: list[Stmt]
    decorators: list[Expr]


@dataclass(slots=True, eq=False)
class Assign(Stmt):
    targets: list[Expr]
    value: Expr


@dataclass(slots=True, eq=False)
class AnnAssign(Stmt):
    target: Expr
    annotation: Expr
    value: Expr | None


@dataclass(slots=True, eq=False)
class AugAssign(Stmt):
    """``op`` without the ``=``."""

    target: Expr
    op: str
    value: Expr


@dataclass(slots=True, eq=False)
class ExprStmt(Stmt):
    value: Expr


@dataclass(slots=True, eq=False)
class Return(Stmt):
    value: Expr | None


@dataclass(slots=True, eq=False)
class If(Stmt):
    test: Expr
    body: list[Stmt]
    orelse: list[Stmt]


@dataclass(slots=True, eq=False)
class For(Stmt):
    target: Expr
    iter: Expr
    body: list[Stmt]
    orelse: list[Stmt]
    is_async: bool = False


@dataclass(slots=True, eq=False)
class While(Stmt):
    test: Expr
    body: list[Stmt]
    orelse: list[Stmt]


@dataclass(slots=True, eq=False)
class With(Stmt):
    items: list[tuple[Expr, Expr | None]]
    body: list[Stmt]
    is_async: bool = False


@dataclass(slots=True, eq=False)
class Handler(Node):
    type: Expr | None
    name: str | None
    body: list[Stmt]


@dataclass(slots=True, eq=False)
class Try(Stmt):
    body: list[Stmt]
    handlers: list[Handler]
    orelse: list[Stmt]
    finalbody: list[Stmt]


@dataclass(slots=True, eq=False)
class Match(Stmt):
    """Patterns are kept as the names they bind and the constants they compare, if simple."""

    subject: Expr
    cases: list[MatchCase]


@dataclass(slots=True, eq=False)
class MatchCase(Node):
    binds: list[str]
    values: list[Expr]
    guard: Expr | None
    body: list[Stmt]


@dataclass(slots=True, eq=False)
class Raise(Stmt):
    exc: Expr | None


@dataclass(slots=True, eq=False)
class Assert(Stmt):
    test: Expr
    msg: Expr | None


@dataclass(slots=True, eq=False)
class Delete(Stmt):
    targets: list[Expr]


@dataclass(slots=True, eq=False)
class Import(Stmt):
    """``import a.b as c``: names [("a.b", "c")]. From-imports carry ``module`` and ``level``; ``("*", None)`` for star."""

    names: list[tuple[str, str | None]]
    module: str | None = None
    level: int = 0
    is_from: bool = False


@dataclass(slots=True, eq=False)
class Scope(Stmt):
    """``global`` or ``nonlocal``."""

    kind: str
    names: list[str]


@dataclass(slots=True, eq=False)
class Jump(Stmt):
    """``pass``, ``break`` or ``continue``."""

    kind: str


@dataclass(slots=True, eq=False)
class Module(Node):
    path: str
    body: list[Stmt]
    sha256: str = ""
    frontend: str = "libcst"  # or "ast", "repaired"
    lines: list[str] = field(default_factory=list)


# -------------------------------------------------------------------- visiting


def children(node: Node) -> list[Any]:
    """The nodes directly below ``node`` in field order, lists and pairs flattened."""
    cls = type(node)
    read = _READERS.get(cls)
    if read is None:
        read = _READERS[cls] = _reader(cls)
    return read(node)


def walk(root: Any, into_functions: bool = True) -> Iterator[Any]:
    """All nodes below ``root`` (a node, or lists of nodes), itself included, the last in the source first."""
    readers, stack = _READERS, [root]
    while stack:
        node = stack.pop()
        cls = type(node)
        read = readers.get(cls)
        if read is None:
            if cls is list or cls is tuple:
                stack += node
                continue
            if not issubclass(cls, Node):
                continue
            read = readers[cls] = _reader(cls)
        yield node
        if into_functions or node is root or cls not in _SCOPES:
            stack += read(node)


def pieces(text: FString) -> list[str | None]:
    """The texts of an f-string in order; None stands for what is filled in."""
    return [x.value if isinstance(x, Const) and isinstance(x.value, str) else None for x in text.values]


def called(call: Call) -> str:
    """The last name of what is called: ``mean`` of ``x.mean(1)`` and of ``mean(x)``, "" where it has none."""
    func = call.func
    return func.attr if isinstance(func, Attr) else func.id if isinstance(func, Name) else ""


def made_of(e: Expr, kinds: tuple[type, ...], calls: Set[str]) -> bool:
    """Is an expression made of nodes of these kinds and of calls of these names alone."""
    return all(called(n) in calls if isinstance(n, Call) else isinstance(n, kinds) for n in walk(e))


def paired(target: Any, value: Any) -> list[tuple[Any, Any]]:
    """``self.heads, self.width = heads, width``: each target with its own value."""
    if isinstance(target, Collection) and isinstance(value, Collection) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def functions(body: list[Stmt]) -> Iterator[FunctionDef]:
    """All functions below statements, methods and nested ones included, in the order of `walk`."""
    stack: list[Any] = list(body)
    while stack:
        node = stack.pop()
        if type(node) is FunctionDef:
            yield node
        for name in ("body", "handlers", "cases", "orelse", "finalbody"):
            inner = getattr(node, name, None)
            if inner:
                stack += inner


def scope_at(body: list[Stmt], line: int) -> str:
    """The functions and classes around a line, the outermost first (``Model.forward``); "" at the module's level."""
    names: list[str] = []
    stack: list[Any] = list(body)
    while stack:
        node = stack.pop()
        if isinstance(node, Stmt) and not node.line <= line <= node.end_line:
            continue
        if isinstance(node, (FunctionDef, ClassDef)):
            names.append(node.name)
        for name in ("body", "handlers", "cases", "orelse", "finalbody"):
            stack += getattr(node, name, None) or ()
    return ".".join(names)


_SCOPES = frozenset((FunctionDef, Lambda, ClassDef))
_READERS: dict[type, Callable[[Any], list[Any]]] = {}


def _reader(cls: type) -> Callable[[Any], list[Any]]:
    """`children` of one class, with its fields spelled out: trees are walked many millions of nodes per audit.

    The code is made of this module's own annotations alone.
    """
    single: list[str] = []  # a display's elements, as long as only required nodes came
    steps: list[str] = []
    for spec in fields(cls):  # type: ignore[arg-type]
        name, kind = spec.name, str(spec.type)
        if not any(isinstance(t, type) and issubclass(t, Node) for t in _named(kind)):
            continue
        if kind.startswith("list[tuple["):
            steps.append(f"out += [x for pair in n.{name} for x in pair if isinstance(x, Node)]")
        elif kind.startswith("list["):
            steps.append(f"out += n.{name}")
        elif kind.endswith("| None"):
            steps.append(f"if n.{name} is not None: out.append(n.{name})")
        elif steps:
            steps.append(f"out.append(n.{name})")
        else:
            single.append(f"n.{name}")
    body = "\n    ".join([f"out = [{', '.join(single)}]", *steps, "return out"])
    scope: dict[str, Any] = {"Node": Node}
    exec(f"def read(n):\n    {body}", scope)
    return scope["read"]  # type: ignore[no-any-return]


def _named(annotation: str) -> Iterator[Any]:
    for word in re.findall(r"\w+", annotation):
        yield globals().get(word)
