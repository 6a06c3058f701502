"""Definitions in another order: neighbours that do not need each other to be defined."""

from __future__ import annotations

import ast
import random

import libcst as cst

from audit.rewrite.base import NothingToRewrite, concrete, parse


def _needed_at_once(node: ast.stmt) -> set[str]:
    """Names that are read when the definition itself is executed, not when it is called."""
    names: set[str] = set()

    def visit(n: ast.AST) -> None:
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in (*n.decorator_list, *n.args.defaults, *(d for d in n.args.kw_defaults if d)):
                visit(part)
            for a in (*n.args.args, *n.args.posonlyargs, *n.args.kwonlyargs):
                if a.annotation:
                    visit(a.annotation)
            if n.returns:
                visit(n.returns)
            return
        if isinstance(n, ast.Lambda):
            return
        if isinstance(n, ast.Name):
            names.add(n.id)
        for child in ast.iter_child_nodes(n):
            visit(child)

    visit(node)
    return names


def reorder(text: str, chance: random.Random) -> tuple[str, str]:
    """Shuffles runs of neighbouring definitions at the top level."""
    tree = parse(text)
    module = concrete(text)
    if len(tree.body) != len([s for s in module.body]):
        # A semicolon line is several statements in one tree and one in the other.
        flat = sum(len(s.body) if isinstance(s, cst.SimpleStatementLine) else 1 for s in module.body)
        if flat != len(tree.body):
            raise NothingToRewrite("the two parsers disagree about the top level")
    plain: list[ast.stmt | None] = []
    at = 0
    for statement in module.body:
        width = len(statement.body) if isinstance(statement, cst.SimpleStatementLine) else 1
        plain.append(tree.body[at] if not isinstance(statement, cst.SimpleStatementLine) else None)
        at += width
    body = list(module.body)
    moved = 0
    start = 0
    while start < len(body):
        stop = start
        defined: set[str] = set()
        while stop < len(body):
            node = plain[stop]
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                break
            if node.name in defined or _needed_at_once(node) & defined:
                break
            if any(node.name in _needed_at_once(p) for p in plain[start:stop] if p is not None):
                break
            defined.add(node.name)
            stop += 1
        if stop - start > 1:
            piece = body[start:stop]
            chance.shuffle(piece)
            moved += sum(a is not b for a, b in zip(piece, body[start:stop], strict=True))
            body[start:stop] = piece
        start = max(stop, start + 1)
    if not moved:
        raise NothingToRewrite("no two neighbouring definitions can change places")
    return module.with_changes(body=body).code, f"moved {moved} definitions"
