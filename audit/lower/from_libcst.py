"""The primary front end: libcst's tree to the intermediate representation, in one visit.

The visit is in source order, because the cursor that finds positions moves forward only
(`audit.lower.cursor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import libcst as cst

from audit import ir
from audit.lower.cursor import Cursor, Mismatch
from audit.lower.libcst_expressions import Expressions

AUGMENTED = {
    cst.AddAssign: "+", cst.SubtractAssign: "-", cst.MultiplyAssign: "*", cst.DivideAssign: "/",
    cst.FloorDivideAssign: "//", cst.ModuloAssign: "%", cst.PowerAssign: "**", cst.MatrixMultiplyAssign: "@",
    cst.LeftShiftAssign: "<<", cst.RightShiftAssign: ">>", cst.BitAndAssign: "&", cst.BitOrAssign: "|",
    cst.BitXorAssign: "^",
}  # fmt: skip


def lower_libcst(tree: cst.Module, path: str, cursor: Cursor) -> ir.Module:
    """Turns a parsed tree into IR. Raises `Mismatch` where the text does not follow the tree."""
    return ir.Module(
        path, _Lowerer(cursor).body(tree.body), line=1, col=0, end_line=max(1, len(cursor.starts))
    )


class _Lowerer(Expressions):
    def body(self, statements: Sequence[Any]) -> list[ir.Stmt]:
        out: list[ir.Stmt] = []
        for s in statements:
            if isinstance(s, cst.SimpleStatementLine):
                for small in s.body:
                    out.append(self.statement(small))
            else:
                out.append(self.statement(s))
        return out

    def statement(self, s: Any) -> Any:
        method = self.table.get(type(s))
        if method is None:
            raise Mismatch(f"{type(s).__name__} is not lowered from libcst")
        return method(s)

    def suite(self, block: Any) -> list[ir.Stmt]:
        if isinstance(block, cst.SimpleStatementSuite):
            return [self.statement(s) for s in block.body]
        return self.body(block.body)

    def decorators(self, nodes: Sequence[cst.Decorator]) -> list[ir.Expr]:
        found = []
        for d in nodes:
            self.seek("@")
            found.append(self.expr(d.decorator))
        return found

    def on_FunctionDef(self, n: cst.FunctionDef) -> ir.Stmt:
        if n.type_parameters is not None:
            raise Mismatch("type parameters")
        decorators = self.decorators(n.decorators)
        start = self.seek("async" if n.asynchronous else "def")
        if n.asynchronous:
            self.seek("def")
        self.seek(n.name.value)
        self.seek("(")
        params = self.params(n.params)
        self.seek(")")
        returns = None
        if n.returns is not None:
            self.seek("->")
            returns = self.expr(n.returns.annotation)
        body = self.suite(n.body)
        return ir.FunctionDef(
            n.name.value, params, body, decorators, returns, n.asynchronous is not None, **self.at(start)
        )

    def on_ClassDef(self, n: cst.ClassDef) -> ir.Stmt:
        if n.type_parameters is not None:
            raise Mismatch("type parameters")
        decorators = self.decorators(n.decorators)
        start = self.seek("class")
        self.seek(n.name.value)
        bases: list[ir.Expr] = []
        keywords: list[tuple[str | None, ir.Expr]] = []
        if isinstance(n.lpar, cst.LeftParen):
            self.seek("(")
            for arg in [*n.bases, *n.keywords]:
                self.argument(arg, bases, keywords)
            self.seek(")")
        body = self.suite(n.body)
        return ir.ClassDef(n.name.value, bases, keywords, body, decorators, **self.at(start))

    def on_Assign(self, n: cst.Assign) -> ir.Stmt:
        targets = []
        start = -1
        for t in n.targets:
            targets.append(self.expr(t.target))
            start = self.outer if start < 0 else start
        value = self.expr(n.value)
        return ir.Assign(targets, value, **self.at(start))

    def on_AnnAssign(self, n: cst.AnnAssign) -> ir.Stmt:
        target = self.expr(n.target)
        start = self.outer
        annotation = self.expr(n.annotation.annotation)
        value = self.opt(n.value)
        return ir.AnnAssign(target, annotation, value, **self.at(start))

    def on_AugAssign(self, n: cst.AugAssign) -> ir.Stmt:
        target = self.expr(n.target)
        start = self.outer
        op = AUGMENTED[type(n.operator)]
        self.seek(op + "=")
        value = self.expr(n.value)
        return ir.AugAssign(target, op, value, **self.at(start))

    def on_Expr(self, n: cst.Expr) -> ir.Stmt:
        value = self.expr(n.value)
        return ir.ExprStmt(value, **self.at(self.outer))

    def on_Return(self, n: cst.Return) -> ir.Stmt:
        start = self.seek("return")
        value = self.opt(n.value)
        return ir.Return(value, **self.at(start))

    def on_If(self, n: cst.If) -> ir.Stmt:
        # An `elif` chain nests to the right; walked in a loop so that long ones do not recurse.
        links: list[tuple[int, ir.Expr, list[ir.Stmt]]] = []
        link: cst.If | cst.Else | None = n
        orelse: list[ir.Stmt] = []
        while isinstance(link, cst.If):
            start = self.seek("elif" if links else "if")
            test = self.expr(link.test)
            links.append((start, test, self.suite(link.body)))
            link = link.orelse
        if link is not None:
            orelse = self.suite(link.body)
        built: ir.If | None = None
        for start, test, body in reversed(links):
            built = ir.If(test, body, orelse, **self.at(start))
            orelse = [built]
        assert built is not None
        return built

    def on_For(self, n: cst.For) -> ir.Stmt:
        start = self.seek("async" if n.asynchronous else "for")
        target, source = self.expr(n.target), self.expr(n.iter)
        body = self.suite(n.body)
        orelse = self.suite(n.orelse.body) if n.orelse is not None else []
        return ir.For(target, source, body, orelse, n.asynchronous is not None, **self.at(start))

    def on_While(self, n: cst.While) -> ir.Stmt:
        start = self.seek("while")
        test = self.expr(n.test)
        body = self.suite(n.body)
        orelse = self.suite(n.orelse.body) if n.orelse is not None else []
        return ir.While(test, body, orelse, **self.at(start))

    def on_With(self, n: cst.With) -> ir.Stmt:
        start = self.seek("async" if n.asynchronous else "with")
        if isinstance(n.lpar, cst.LeftParen):
            self.seek("(")
        items: list[tuple[ir.Expr, ir.Expr | None]] = []
        for item in n.items:
            value = self.expr(item.item)
            items.append((value, None if item.asname is None else self.expr(item.asname.name)))
        if isinstance(n.rpar, cst.RightParen):
            self.seek(")")
        body = self.suite(n.body)
        return ir.With(items, body, n.asynchronous is not None, **self.at(start))

    def on_Try(self, n: Any) -> ir.Stmt:
        start = self.seek("try")
        body = self.suite(n.body)
        handlers = []
        for h in n.handlers:
            at = self.seek("except")
            if isinstance(h, cst.ExceptStarHandler):
                self.seek("*")
            kind = self.opt(h.type)
            name = None
            if h.name is not None:
                assert isinstance(h.name.name, cst.Name)
                name = h.name.name.value
                self.seek(name)
            inner = self.suite(h.body)
            handlers.append(ir.Handler(kind, name, inner, **self.at(at)))
        orelse = self.suite(n.orelse.body) if n.orelse is not None else []
        final = self.suite(n.finalbody.body) if n.finalbody is not None else []
        return ir.Try(body, handlers, orelse, final, **self.at(start))

    on_TryStar = on_Try

    def on_Raise(self, n: cst.Raise) -> ir.Stmt:
        start = self.seek("raise")
        exc = self.opt(n.exc)
        if n.cause is not None:
            self.expr(n.cause.item)
        return ir.Raise(exc, **self.at(start))

    def on_Assert(self, n: cst.Assert) -> ir.Stmt:
        start = self.seek("assert")
        test = self.expr(n.test)
        return ir.Assert(test, self.opt(n.msg), **self.at(start))

    def on_Del(self, n: cst.Del) -> ir.Stmt:
        start = self.seek("del")
        if isinstance(n.target, cst.Tuple) and not n.target.lpar:
            targets, _ = self.elements(n.target.elements)
        else:
            targets = [self.expr(n.target)]
        return ir.Delete(targets, **self.at(start))

    def dotted(self, n: Any) -> str:
        name = self.dotted(n.value) + "." + n.attr.value if isinstance(n, cst.Attribute) else n.value
        self.seek(n.attr.value if isinstance(n, cst.Attribute) else n.value)
        return str(name)

    def aliases(self, names: Sequence[cst.ImportAlias]) -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        for alias in names:
            name = self.dotted(alias.name)
            renamed = None
            if alias.asname is not None:
                assert isinstance(alias.asname.name, cst.Name)
                renamed = alias.asname.name.value
                self.seek(renamed)
            found.append((name, renamed))
        return found

    def on_Import(self, n: cst.Import) -> ir.Stmt:
        start = self.seek("import")
        names = self.aliases(n.names)
        return ir.Import(names, None, 0, False, **self.at(start))

    def on_ImportFrom(self, n: cst.ImportFrom) -> ir.Stmt:
        start = self.seek("from")
        module = None if n.module is None else self.dotted(n.module)
        self.seek("import")
        names: list[tuple[str, str | None]]
        if isinstance(n.names, cst.ImportStar):
            self.seek("*")
            names = [("*", None)]
        else:
            if n.lpar is not None:
                self.seek("(")
            names = self.aliases(n.names)
            if n.rpar is not None:
                self.seek(")")
        return ir.Import(names, module, len(n.relative), True, **self.at(start))

    def scope(self, kind: str, names: Sequence[cst.NameItem]) -> ir.Stmt:
        start = self.seek(kind)
        found = [item.name.value for item in names]
        for name in found:
            self.seek(name)
        return ir.Scope(kind, found, **self.at(start))

    def on_Global(self, n: cst.Global) -> ir.Stmt:
        return self.scope("global", n.names)

    def on_Nonlocal(self, n: cst.Nonlocal) -> ir.Stmt:
        return self.scope("nonlocal", n.names)

    def on_Pass(self, n: cst.Pass) -> ir.Stmt:
        start = self.seek("pass")
        return ir.Jump("pass", **self.at(start))

    def on_Break(self, n: cst.Break) -> ir.Stmt:
        start = self.seek("break")
        return ir.Jump("break", **self.at(start))

    def on_Continue(self, n: cst.Continue) -> ir.Stmt:
        start = self.seek("continue")
        return ir.Jump("continue", **self.at(start))
