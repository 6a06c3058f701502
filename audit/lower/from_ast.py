"""The fallback front end: the standard library's ``ast`` to the intermediate representation.

It exists because libcst rejects some texts that Python runs (and the other way round: Python 3.11's
grammar lacks the f-strings of PEP 701). Both front ends must build the same nodes, so every
convention that is not obvious is stated in ``audit.lower``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, ClassVar

from audit import ir
from audit.lower.strings import MAX_TABLE, merge_pieces

BIN_OPS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.MatMult: "@", ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
}  # fmt: skip
UNARY_OPS = {ast.USub: "-", ast.UAdd: "+", ast.Invert: "~", ast.Not: "not"}
COMPARE_OPS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


def lower_ast(tree: ast.Module, path: str, lines: list[str]) -> ir.Module:
    """Turns a parsed tree into IR. ``lines`` are the source lines, for byte to character columns."""
    return Lowerer(lines).module(tree, path)


class Lowerer:
    #: the method for each class of `ast`
    handlers: ClassVar[dict[type, str]]

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        # `ast` counts columns in UTF-8 bytes; only lines with wider characters need a conversion.
        self.wide = {number for number, line in enumerate(lines, 1) if not line.isascii()}
        self.table: dict[type, Callable[[Any], Any]] = {cls: getattr(self, name) for cls, name in self.handlers.items()}

    # ------------------------------------------------------------- plumbing

    def at(self, node: Any) -> dict[str, int]:
        line, col = node.lineno, node.col_offset
        if line in self.wide:
            raw = self.lines[line - 1].encode("utf-8", "surrogatepass")
            col = len(raw[:col].decode("utf-8", "replace"))
        return {"line": line, "col": col, "end_line": node.end_lineno or line}

    def go(self, node: Any) -> Any:
        return self.table[type(node)](node)

    def opt(self, node: Any) -> Any:
        return None if node is None else self.table[type(node)](node)

    def all(self, nodes: list[Any]) -> list[Any]:
        table = self.table
        return [table[type(node)](node) for node in nodes]

    def module(self, tree: ast.Module, path: str) -> ir.Module:
        return ir.Module(path, self.all(tree.body), line=1, col=0, end_line=max(1, len(self.lines)))

    # ---------------------------------------------------------- expressions

    def on_Constant(self, n: ast.Constant) -> ir.Expr:
        return ir.Const(n.value, **self.at(n))

    def on_Name(self, n: ast.Name) -> ir.Expr:
        return ir.Name(n.id, **self.at(n))

    def on_Attribute(self, n: ast.Attribute) -> ir.Expr:
        return ir.Attr(self.go(n.value), n.attr, **self.at(n))

    def on_Subscript(self, n: ast.Subscript) -> ir.Expr:
        return ir.Sub(self.go(n.value), self.go(n.slice), **self.at(n))

    def on_Slice(self, n: ast.Slice) -> ir.Expr:
        return ir.Slice(self.opt(n.lower), self.opt(n.upper), self.opt(n.step), **self.at(n))

    def on_Call(self, n: ast.Call) -> ir.Expr:
        keywords = [(k.arg, self.go(k.value)) for k in n.keywords]
        return ir.Call(self.go(n.func), self.all(n.args), keywords, **self.at(n))

    def on_BinOp(self, n: ast.BinOp) -> ir.Expr:
        # Left-leaning chains are walked in a loop: thousands of `"…" + "…"` occur in real files.
        chain = []
        left: ast.expr = n
        while isinstance(left, ast.BinOp):
            chain.append(left)
            left = left.left
        value = self.go(left)
        for link in reversed(chain):
            value = ir.BinOp(BIN_OPS[type(link.op)], value, self.go(link.right), **self.at(link))
        return value

    def on_UnaryOp(self, n: ast.UnaryOp) -> ir.Expr:
        return ir.UnaryOp(UNARY_OPS[type(n.op)], self.go(n.operand), **self.at(n))

    def on_BoolOp(self, n: ast.BoolOp) -> ir.Expr:
        return ir.BoolOp("and" if isinstance(n.op, ast.And) else "or", self.all(n.values), **self.at(n))

    def on_Compare(self, n: ast.Compare) -> ir.Expr:
        ops = [COMPARE_OPS[type(op)] for op in n.ops]
        return ir.Compare(self.go(n.left), ops, self.all(n.comparators), **self.at(n))

    def on_IfExp(self, n: ast.IfExp) -> ir.Expr:
        return ir.IfExp(self.go(n.test), self.go(n.body), self.go(n.orelse), **self.at(n))

    def elements(self, elts: list[ast.expr]) -> list[ir.Expr]:
        if len(elts) > MAX_TABLE and all(isinstance(e, ast.Constant) for e in elts):
            elts = elts[:MAX_TABLE]
        return self.all(elts)

    def on_Tuple(self, n: ast.Tuple) -> ir.Expr:
        return ir.Collection("tuple", self.elements(n.elts), **self.at(n))

    def on_List(self, n: ast.List) -> ir.Expr:
        return ir.Collection("list", self.elements(n.elts), **self.at(n))

    def on_Set(self, n: ast.Set) -> ir.Expr:
        return ir.Collection("set", self.elements(n.elts), **self.at(n))

    def on_Dict(self, n: ast.Dict) -> ir.Expr:
        items = [(self.opt(k), self.go(v)) for k, v in zip(n.keys, n.values, strict=True)]
        return ir.Dict(items, **self.at(n))

    def on_Lambda(self, n: ast.Lambda) -> ir.Expr:
        return ir.Lambda(self.params(n.args), self.go(n.body), **self.at(n))

    def comp(self, kind: str, n: Any, elt: ast.expr, key: ast.expr | None = None) -> ir.Expr:
        loops = []
        for g in n.generators:
            target, source, ifs = self.go(g.target), self.go(g.iter), self.all(g.ifs)
            end = (ifs[-1] if ifs else source).end_line
            loops.append(ir.CompFor(target, source, ifs, line=target.line, col=target.col, end_line=end))
        return ir.Comp(kind, self.go(elt), self.opt(key), loops, **self.at(n))

    def on_ListComp(self, n: ast.ListComp) -> ir.Expr:
        return self.comp("list", n, n.elt)

    def on_SetComp(self, n: ast.SetComp) -> ir.Expr:
        return self.comp("set", n, n.elt)

    def on_GeneratorExp(self, n: ast.GeneratorExp) -> ir.Expr:
        return self.comp("generator", n, n.elt)

    def on_DictComp(self, n: ast.DictComp) -> ir.Expr:
        return self.comp("dict", n, n.value, n.key)

    def on_JoinedStr(self, n: ast.JoinedStr) -> ir.Expr:
        at = self.at(n)
        values: list[Any] = []
        self.pieces(n, values)
        return ir.FString(merge_pieces(values, at), **at)

    def pieces(self, n: ast.JoinedStr, out: list[Any]) -> None:
        for value in n.values:
            if isinstance(value, ast.Constant):
                out.append(value.value)
            elif isinstance(value, ast.FormattedValue):
                out.append(self.go(value.value))
                self.spec(value, out)

    def spec(self, value: ast.FormattedValue, out: list[Any]) -> None:
        if isinstance(value.format_spec, ast.JoinedStr):
            for inner in value.format_spec.values:
                if isinstance(inner, ast.FormattedValue):
                    out.append(self.go(inner.value))
                    self.spec(inner, out)

    def on_Starred(self, n: ast.Starred) -> ir.Expr:
        return ir.Starred(self.go(n.value), **self.at(n))

    def on_Await(self, n: ast.Await) -> ir.Expr:
        return ir.Await(self.go(n.value), **self.at(n))

    def on_Yield(self, n: ast.Yield) -> ir.Expr:
        return ir.Yield(self.opt(n.value), False, **self.at(n))

    def on_YieldFrom(self, n: ast.YieldFrom) -> ir.Expr:
        return ir.Yield(self.go(n.value), True, **self.at(n))

    def on_NamedExpr(self, n: ast.NamedExpr) -> ir.Expr:
        return ir.NamedExpr(self.go(n.target), self.go(n.value), **self.at(n))

    # ----------------------------------------------------------- statements

    def params(self, args: ast.arguments) -> list[ir.Param]:
        found = []

        def add(arg: ast.arg, default: ast.expr | None, kind: str) -> None:
            annotation = self.opt(arg.annotation)
            found.append(ir.Param(arg.arg, self.opt(default), annotation, kind, **self.at(arg)))

        positional = [(a, "posonly") for a in args.posonlyargs] + [(a, "pos") for a in args.args]
        missing: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
        for (arg, kind), default in zip(positional, missing + list(args.defaults), strict=True):
            add(arg, default, kind)
        if args.vararg:
            add(args.vararg, None, "vararg")
        for arg, kw_default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
            add(arg, kw_default, "kwonly")
        if args.kwarg:
            add(args.kwarg, None, "kwarg")
        return found

    def function(self, n: Any, is_async: bool) -> ir.Stmt:
        decorators = self.all(n.decorator_list)
        params, returns = self.params(n.args), self.opt(n.returns)
        return ir.FunctionDef(n.name, params, self.all(n.body), decorators, returns, is_async, **self.at(n))

    def on_FunctionDef(self, n: ast.FunctionDef) -> ir.Stmt:
        return self.function(n, False)

    def on_AsyncFunctionDef(self, n: ast.AsyncFunctionDef) -> ir.Stmt:
        return self.function(n, True)

    def on_ClassDef(self, n: ast.ClassDef) -> ir.Stmt:
        keywords = [(k.arg, self.go(k.value)) for k in n.keywords]
        decorators = self.all(n.decorator_list)
        return ir.ClassDef(n.name, self.all(n.bases), keywords, self.all(n.body), decorators, **self.at(n))

    def on_Assign(self, n: ast.Assign) -> ir.Stmt:
        return ir.Assign(self.all(n.targets), self.go(n.value), **self.at(n))

    def on_TypeAlias(self, n: Any) -> ir.Stmt:
        return ir.Assign([self.go(n.name)], self.go(n.value), **self.at(n))

    def on_AnnAssign(self, n: ast.AnnAssign) -> ir.Stmt:
        return ir.AnnAssign(self.go(n.target), self.go(n.annotation), self.opt(n.value), **self.at(n))

    def on_AugAssign(self, n: ast.AugAssign) -> ir.Stmt:
        return ir.AugAssign(self.go(n.target), BIN_OPS[type(n.op)], self.go(n.value), **self.at(n))

    def on_Expr(self, n: ast.Expr) -> ir.Stmt:
        return ir.ExprStmt(self.go(n.value), **self.at(n))

    def on_Return(self, n: ast.Return) -> ir.Stmt:
        return ir.Return(self.opt(n.value), **self.at(n))

    def on_If(self, n: ast.If) -> ir.Stmt:
        # `elif` chains nest to the right; unroll them so that long ones do not recurse.
        links = [n]
        while len(links[-1].orelse) == 1 and isinstance(links[-1].orelse[0], ast.If):
            links.append(links[-1].orelse[0])
        orelse = self.all(links[-1].orelse)
        for link in reversed(links):
            built = ir.If(self.go(link.test), self.all(link.body), orelse, **self.at(link))
            orelse = [built]
        return built

    def loop(self, n: Any, is_async: bool) -> ir.Stmt:
        target, source = self.go(n.target), self.go(n.iter)
        return ir.For(target, source, self.all(n.body), self.all(n.orelse), is_async, **self.at(n))

    def on_For(self, n: ast.For) -> ir.Stmt:
        return self.loop(n, False)

    def on_AsyncFor(self, n: ast.AsyncFor) -> ir.Stmt:
        return self.loop(n, True)

    def on_While(self, n: ast.While) -> ir.Stmt:
        return ir.While(self.go(n.test), self.all(n.body), self.all(n.orelse), **self.at(n))

    def with_(self, n: Any, is_async: bool) -> ir.Stmt:
        items = [(self.go(i.context_expr), self.opt(i.optional_vars)) for i in n.items]
        return ir.With(items, self.all(n.body), is_async, **self.at(n))

    def on_With(self, n: ast.With) -> ir.Stmt:
        return self.with_(n, False)

    def on_AsyncWith(self, n: ast.AsyncWith) -> ir.Stmt:
        return self.with_(n, True)

    def on_Try(self, n: Any) -> ir.Stmt:
        handlers = [ir.Handler(self.opt(h.type), h.name, self.all(h.body), **self.at(h)) for h in n.handlers]
        return ir.Try(self.all(n.body), handlers, self.all(n.orelse), self.all(n.finalbody), **self.at(n))

    on_TryStar = on_Try

    def on_Match(self, n: ast.Match) -> ir.Stmt:
        cases = []
        for case in n.cases:
            binds: list[str] = []
            values: list[ir.Expr] = []
            self.pattern(case.pattern, binds, values)
            body = self.all(case.body)
            at = self.at(case.pattern) | {"end_line": body[-1].end_line}
            cases.append(ir.MatchCase(binds, values, self.opt(case.guard), body, **at))
        return ir.Match(self.go(n.subject), cases, **self.at(n))

    def pattern(self, p: Any, binds: list[str], values: list[ir.Expr]) -> None:
        if isinstance(p, ast.MatchValue):
            values.append(self.go(p.value))
        elif isinstance(p, ast.MatchSingleton):
            values.append(ir.Const(p.value, **self.at(p)))
        elif isinstance(p, ast.MatchStar):
            binds += [p.name] if p.name else []
        elif isinstance(p, ast.MatchAs):
            if p.pattern is not None:
                self.pattern(p.pattern, binds, values)
            binds += [p.name] if p.name else []
        elif isinstance(p, ast.MatchMapping):
            for key, inner in zip(p.keys, p.patterns, strict=True):
                values.append(self.go(key))
                self.pattern(inner, binds, values)
            binds += [p.rest] if p.rest else []
        else:  # MatchSequence, MatchOr, MatchClass
            if isinstance(p, ast.MatchClass):
                values.append(self.go(p.cls))
            for inner in [*p.patterns, *getattr(p, "kwd_patterns", [])]:
                self.pattern(inner, binds, values)

    def on_Raise(self, n: ast.Raise) -> ir.Stmt:
        return ir.Raise(self.opt(n.exc), **self.at(n))

    def on_Assert(self, n: ast.Assert) -> ir.Stmt:
        return ir.Assert(self.go(n.test), self.opt(n.msg), **self.at(n))

    def on_Delete(self, n: ast.Delete) -> ir.Stmt:
        return ir.Delete(self.all(n.targets), **self.at(n))

    def on_Import(self, n: ast.Import) -> ir.Stmt:
        names = [(a.name, a.asname) for a in n.names]
        return ir.Import(names, None, 0, False, **self.at(n))

    def on_ImportFrom(self, n: ast.ImportFrom) -> ir.Stmt:
        names = [(a.name, a.asname) for a in n.names]
        return ir.Import(names, n.module, n.level, True, **self.at(n))

    def on_Global(self, n: ast.Global) -> ir.Stmt:
        return ir.Scope("global", list(n.names), **self.at(n))

    def on_Nonlocal(self, n: ast.Nonlocal) -> ir.Stmt:
        return ir.Scope("nonlocal", list(n.names), **self.at(n))

    def on_Pass(self, n: ast.Pass) -> ir.Stmt:
        return ir.Jump("pass", **self.at(n))

    def on_Break(self, n: ast.Break) -> ir.Stmt:
        return ir.Jump("break", **self.at(n))

    def on_Continue(self, n: ast.Continue) -> ir.Stmt:
        return ir.Jump("continue", **self.at(n))


Lowerer.handlers = {
    cls: name for cls in vars(ast).values() if isinstance(cls, type) and hasattr(Lowerer, name := "on_" + cls.__name__)
}
