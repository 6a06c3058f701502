"""libcst's expressions to the intermediate representation; see `audit.lower.from_libcst`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import libcst as cst

from audit import ir
from audit.lower.cursor import Cursor, Mismatch
from audit.lower.strings import MAX_TABLE, fstring_text, literal_value, merge_pieces

UNARY = {cst.Minus: "-", cst.Plus: "+", cst.BitInvert: "~", cst.Not: "not"}
BINARY = {
    cst.Add: "+", cst.Subtract: "-", cst.Multiply: "*", cst.Divide: "/", cst.FloorDivide: "//", cst.Modulo: "%",
    cst.Power: "**", cst.MatrixMultiply: "@", cst.LeftShift: "<<", cst.RightShift: ">>", cst.BitAnd: "&",
    cst.BitOr: "|", cst.BitXor: "^",
}  # fmt: skip
COMPARE = {
    cst.Equal: "==", cst.NotEqual: "!=", cst.LessThan: "<", cst.LessThanEqual: "<=", cst.GreaterThan: ">",
    cst.GreaterThanEqual: ">=", cst.Is: "is", cst.IsNot: "is not", cst.In: "in", cst.NotIn: "not in",
}  # fmt: skip


class Expressions:
    """Visits expressions in source order.

    Each method consumes exactly the tokens of its node, brackets and operators included. ``outer`` is
    where the expression visited last begins, its own parentheses counted (a compound expression starts
    there).
    """

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.seek = cursor.seek
        self.at = cursor.at
        self.outer = 0
        self.table: dict[type, Callable[[Any], Any]] = {
            cls: getattr(self, "on_" + name)
            for name, cls in vars(cst).items()
            if isinstance(cls, type) and hasattr(self, "on_" + name)
        }

    # ------------------------------------------------------------- plumbing

    def expr(self, n: Any) -> Any:
        method = self.table.get(type(n))
        if method is None:
            raise Mismatch(f"{type(n).__name__} is not lowered from libcst")
        lpar = n.lpar
        if not lpar:
            return method(n)
        own = isinstance(n, (cst.Tuple, cst.GeneratorExp))
        outer = [self.seek("(") for _ in lpar]
        if own:
            self.outer = outer[-1]
            node = method(n)
            closing = len(lpar) - 1
        else:
            node = method(n)
            closing = len(lpar)
        for _ in range(closing):
            self.seek(")")
        self.outer = outer[0]
        return node

    def opt(self, n: Any) -> Any:
        return None if n is None else self.expr(n)

    # ---------------------------------------------------------- expressions

    def on_Name(self, n: cst.Name) -> ir.Expr:
        start = self.seek(n.value)
        self.outer = start
        if n.value in ("True", "False", "None"):
            return ir.Const({"True": True, "False": False, "None": None}[n.value], **self.at(start))
        return ir.Name(n.value, **self.at(start))

    def number(self, n: Any, value: Any) -> ir.Expr:
        start = self.outer = self.cursor.literal(n.value)
        return ir.Const(value, **self.at(start))

    def on_Integer(self, n: cst.Integer) -> ir.Expr:
        text = n.value.replace("_", "")
        return self.number(n, int(text, 0) if text.strip("0") else 0)

    def on_Float(self, n: cst.Float) -> ir.Expr:
        return self.number(n, float(n.value.replace("_", "")))

    def on_Imaginary(self, n: cst.Imaginary) -> ir.Expr:
        return self.number(n, complex(n.value.replace("_", "")))

    def on_Ellipsis(self, n: cst.Ellipsis) -> ir.Expr:
        start = self.outer = self.seek("...")
        return ir.Const(..., **self.at(start))

    def on_SimpleString(self, n: cst.SimpleString) -> ir.Expr:
        start = self.outer = self.cursor.literal(n.value)
        return ir.Const(literal_value(n.value), **self.at(start))

    def on_ConcatenatedString(self, n: cst.ConcatenatedString) -> ir.Expr:
        parts: list[Any] = []
        rest: Any = n
        while isinstance(rest, cst.ConcatenatedString) and (rest is n or not rest.lpar):
            parts.append(rest.left)
            rest = rest.right
        parts.append(rest)
        pieces: list[Any] = []
        start = -1
        formatted = False
        for part in parts:
            if isinstance(part, cst.SimpleString):
                at = self.cursor.literal(part.value)
                pieces.append(literal_value(part.value))
            else:
                formatted = True
                at = self.fstring(part, pieces)
            start = at if start < 0 else start
        self.outer = start
        at_ = self.at(start)
        if formatted:
            return ir.FString(merge_pieces(pieces, at_), **at_)
        return ir.Const((b"" if isinstance(pieces[0], bytes) else "").join(pieces), **at_)

    def on_FormattedString(self, n: cst.FormattedString) -> ir.Expr:
        pieces: list[Any] = []
        start = self.fstring(n, pieces)
        self.outer = start
        at = self.at(start)
        return ir.FString(merge_pieces(pieces, at), **at)

    def fstring(self, n: cst.FormattedString, out: list[Any]) -> int:
        start = self.cursor.literal(n.start)
        is_raw = "r" in n.start.lower()
        for part in n.parts:
            if isinstance(part, cst.FormattedStringText):
                self.cursor.exactly(part.value)
                out.append(fstring_text(part.value, is_raw))
            else:
                self.field(part, out)
        self.cursor.exactly(n.end)
        return start

    def field(self, part: Any, out: list[Any]) -> None:
        self.cursor.exactly("{")
        start = self.cursor.pos
        value = self.expr(part.expression)
        if part.equal is not None:
            # `{b=}` prints its own text first.
            self.seek("=")
            stop = self.cursor.pos
            while self.cursor.text[stop : stop + 1].isspace():
                stop += 1
            out.append(self.cursor.text[start:stop])
        out.append(value)
        if part.conversion is not None:
            # `!r`: the letter would look like a name to the cursor.
            self.seek("!")
            self.seek(part.conversion)
        if part.format_spec is not None:
            self.seek(":")
            for inner in part.format_spec:
                if isinstance(inner, cst.FormattedStringText):
                    self.cursor.exactly(inner.value)
                else:
                    self.field(inner, out)
            self.cursor.exactly("}")
            return
        self.seek("}")

    def on_Attribute(self, n: cst.Attribute) -> ir.Expr:
        value = self.expr(n.value)
        start = self.outer
        self.seek(n.attr.value)
        self.outer = start
        return ir.Attr(value, n.attr.value, **self.at(start))

    def on_Subscript(self, n: cst.Subscript) -> ir.Expr:
        value = self.expr(n.value)
        start = self.outer
        self.seek("[")
        parts: list[ir.Expr] = []
        first = -1
        for element in n.slice:
            parts.append(self.index(element.slice))
            first = self.outer if first < 0 else first
        index = parts[0]
        if len(parts) > 1 or isinstance(n.slice[0].comma, cst.Comma) or isinstance(index, ir.Starred):
            index = ir.Collection("tuple", parts, **self.at(first))
        self.seek("]")
        self.outer = start
        return ir.Sub(value, index, **self.at(start))

    def index(self, s: Any) -> ir.Expr:
        if isinstance(s, cst.Index):
            if s.star:
                start = self.seek("*")
                value = self.expr(s.value)
                self.outer = start
                return ir.Starred(value, **self.at(start))
            return self.expr(s.value)  # type: ignore[no-any-return]
        start = -1
        lower = upper = step = None
        if s.lower is not None:
            lower = self.expr(s.lower)
            start = self.outer
        colon = self.seek(":")
        start = colon if start < 0 else start
        upper = self.opt(s.upper)
        if isinstance(s.second_colon, cst.Colon):
            self.seek(":")
        step = self.opt(s.step)
        self.outer = start
        return ir.Slice(lower, upper, step, **self.at(start))

    def on_Call(self, n: cst.Call) -> ir.Expr:
        func = self.expr(n.func)
        start = self.outer
        opening = self.seek("(")
        args: list[ir.Expr] = []
        keywords: list[tuple[str | None, ir.Expr]] = []
        for arg in n.args:
            self.argument(arg, args, keywords)
        self.seek(")")
        if len(n.args) == 1 and isinstance(args[0] if args else None, ir.Comp):
            only = n.args[0].value
            if isinstance(only, cst.GeneratorExp) and not only.lpar:
                # The call's parentheses are the generator's own.
                at = self.at(opening)
                args[0].line, args[0].col, args[0].end_line = at["line"], at["col"], at["end_line"]
        self.outer = start
        return ir.Call(func, args, keywords, **self.at(start))

    def argument(self, arg: cst.Arg, args: list[ir.Expr], keywords: list[tuple[str | None, ir.Expr]]) -> None:
        if arg.star == "*":
            star = self.seek("*")
            value = self.expr(arg.value)
            args.append(ir.Starred(value, **self.at(star)))
        elif arg.star == "**":
            self.seek("**")
            keywords.append((None, self.expr(arg.value)))
        elif arg.keyword is not None:
            self.seek(arg.keyword.value)
            keywords.append((arg.keyword.value, self.expr(arg.value)))
        else:
            args.append(self.expr(arg.value))

    def on_BinaryOperation(self, n: cst.BinaryOperation) -> ir.Expr:
        # Left-leaning chains are walked in a loop: thousands of `"…" + "…"` occur in real files.
        chain = [n]
        left: Any = n.left
        while isinstance(left, cst.BinaryOperation) and not left.lpar:
            chain.append(left)
            left = left.left
        value = self.expr(left)
        start = self.outer
        for link in reversed(chain):
            op = BINARY[type(link.operator)]
            self.seek(op)
            right = self.expr(link.right)
            value = ir.BinOp(op, value, right, **self.at(start))
        self.outer = start
        return value  # type: ignore[no-any-return]

    def on_BooleanOperation(self, n: cst.BooleanOperation) -> ir.Expr:
        kind = type(n.operator)
        parts: list[Any] = []
        left: Any = n
        while (
            isinstance(left, cst.BooleanOperation)
            and type(left.operator) is kind
            and (left is n or not left.lpar)
        ):
            parts.append(left.right)
            left = left.left
        parts.append(left)
        values = []
        start = -1
        for part in reversed(parts):
            values.append(self.expr(part))
            start = self.outer if start < 0 else start
        self.outer = start
        return ir.BoolOp("and" if kind is cst.And else "or", values, **self.at(start))

    def on_UnaryOperation(self, n: cst.UnaryOperation) -> ir.Expr:
        op = UNARY[type(n.operator)]
        start = self.seek(op)
        operand = self.expr(n.expression)
        self.outer = start
        return ir.UnaryOp(op, operand, **self.at(start))

    def on_Comparison(self, n: cst.Comparison) -> ir.Expr:
        left = self.expr(n.left)
        start = self.outer
        ops, others = [], []
        for target in n.comparisons:
            op = COMPARE.get(type(target.operator))
            if op is None or getattr(target.operator, "value", "") == "<>":
                raise Mismatch("unknown comparison")
            for word in op.split():
                self.seek(word)
            ops.append(op)
            others.append(self.expr(target.comparator))
        self.outer = start
        return ir.Compare(left, ops, others, **self.at(start))

    def on_IfExp(self, n: cst.IfExp) -> ir.Expr:
        body = self.expr(n.body)
        start = self.outer
        test = self.expr(n.test)
        orelse = self.expr(n.orelse)
        self.outer = start
        return ir.IfExp(test, body, orelse, **self.at(start))

    def elements(self, elements: Sequence[Any]) -> tuple[list[ir.Expr], int]:
        found: list[ir.Expr] = []
        first = -1
        for e in elements:
            if isinstance(e, cst.StarredElement):
                outer = [self.seek("(") for _ in e.lpar]
                start = self.seek("*")
                value = self.expr(e.value)
                found.append(ir.Starred(value, **self.at(start)))
                for _ in e.rpar:
                    self.seek(")")
                self.outer = outer[0] if outer else start
            else:
                found.append(self.expr(e.value))
            first = self.outer if first < 0 else first
        if len(found) > MAX_TABLE and all(isinstance(e, ir.Const) for e in found):
            del found[MAX_TABLE:]
        return found, first

    def on_Tuple(self, n: cst.Tuple) -> ir.Expr:
        start = self.outer
        elts, first = self.elements(n.elements)
        if n.lpar:
            self.seek(")")
        else:
            start = first
        self.outer = start
        return ir.Collection("tuple", elts, **self.at(start))

    def on_List(self, n: cst.List) -> ir.Expr:
        start = self.seek("[")
        elts, _ = self.elements(n.elements)
        self.seek("]")
        self.outer = start
        return ir.Collection("list", elts, **self.at(start))

    def on_Set(self, n: cst.Set) -> ir.Expr:
        start = self.seek("{")
        elts, _ = self.elements(n.elements)
        self.seek("}")
        self.outer = start
        return ir.Collection("set", elts, **self.at(start))

    def on_Dict(self, n: cst.Dict) -> ir.Expr:
        start = self.seek("{")
        items: list[tuple[ir.Expr | None, ir.Expr]] = []
        for e in n.elements:
            if isinstance(e, cst.StarredDictElement):
                self.seek("**")
                items.append((None, self.expr(e.value)))
            else:
                assert isinstance(e, cst.DictElement)
                key = self.expr(e.key)
                items.append((key, self.expr(e.value)))
        self.seek("}")
        self.outer = start
        return ir.Dict(items, **self.at(start))

    def loops(self, n: cst.CompFor) -> list[ir.CompFor]:
        found = []
        loop: cst.CompFor | None = n
        while loop is not None:
            target = self.expr(loop.target)
            source = self.expr(loop.iter)
            ifs = [self.expr(i.test) for i in loop.ifs]
            end = (ifs[-1] if ifs else source).end_line
            found.append(ir.CompFor(target, source, ifs, line=target.line, col=target.col, end_line=end))
            loop = loop.inner_for_in
        return found

    def comp(self, kind: str, n: Any, start: int, close: str | None, key: Any = None) -> ir.Expr:
        first = self.opt(key)
        elt = self.expr(n.value if key is not None else n.elt)
        start = self.outer if start < 0 else start
        generators = self.loops(n.for_in)
        if close is not None:
            self.seek(close)
        self.outer = start
        return ir.Comp(kind, elt, first, generators, **self.at(start))

    def on_ListComp(self, n: cst.ListComp) -> ir.Expr:
        return self.comp("list", n, self.seek("["), "]")

    def on_SetComp(self, n: cst.SetComp) -> ir.Expr:
        return self.comp("set", n, self.seek("{"), "}")

    def on_DictComp(self, n: cst.DictComp) -> ir.Expr:
        return self.comp("dict", n, self.seek("{"), "}", n.key)

    def on_GeneratorExp(self, n: cst.GeneratorExp) -> ir.Expr:
        return self.comp("generator", n, self.outer if n.lpar else -1, ")" if n.lpar else None)

    def on_Lambda(self, n: cst.Lambda) -> ir.Expr:
        start = self.seek("lambda")
        params = self.params(n.params)
        body = self.expr(n.body)
        self.outer = start
        return ir.Lambda(params, body, **self.at(start))

    def on_Await(self, n: cst.Await) -> ir.Expr:
        start = self.seek("await")
        value = self.expr(n.expression)
        self.outer = start
        return ir.Await(value, **self.at(start))

    def on_Yield(self, n: cst.Yield) -> ir.Expr:
        start = self.seek("yield")
        is_from = isinstance(n.value, cst.From)
        value = self.expr(n.value.item) if isinstance(n.value, cst.From) else self.opt(n.value)
        self.outer = start
        return ir.Yield(value, is_from, **self.at(start))

    def on_NamedExpr(self, n: cst.NamedExpr) -> ir.Expr:
        target = self.expr(n.target)
        start = self.outer
        value = self.expr(n.value)
        self.outer = start
        return ir.NamedExpr(target, value, **self.at(start))

    def params(self, p: cst.Parameters) -> list[ir.Param]:
        found: list[ir.Param] = []

        def add(param: cst.Param, kind: str) -> None:
            if kind in ("vararg", "kwarg"):
                self.seek("*" if kind == "vararg" else "**")
            start = self.seek(param.name.value)
            annotation = None if param.annotation is None else self.expr(param.annotation.annotation)
            at = self.at(start)
            default = self.opt(param.default)
            found.append(ir.Param(param.name.value, default, annotation, kind, **at))

        for param in p.posonly_params:
            add(param, "posonly")
        if isinstance(p.posonly_ind, cst.ParamSlash) or p.posonly_params:
            self.seek("/")
        for param in p.params:
            add(param, "pos")
        if isinstance(p.star_arg, cst.Param):
            add(p.star_arg, "vararg")
        elif isinstance(p.star_arg, cst.ParamStar) or p.kwonly_params:
            self.seek("*")
        for param in p.kwonly_params:
            add(param, "kwonly")
        if p.star_kwarg is not None:
            add(p.star_kwarg, "kwarg")
        return found
