"""A small pure evaluator for wrapper scripts: enough Python to follow a payload, none to run it.

Statements are walked in order; whatever is not understood becomes `UNKNOWN` and stays it. No name
of the wrapper ever reaches Python's own machinery: calls go to whitelisted pure functions
(`audit.peel.decode`, `audit.peel.pure`), to the wrapper's own functions (evaluated here), or nowhere.
What would *run* code (exec, runpy, a loaded module, a Python subprocess) is reported as a `Launch`.
"""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from audit.peel import pure
from audit.peel.limits import MAX_CALLS, MAX_RECURSION, Budget
from audit.peel.values import UNKNOWN, Function, Instance, Method, Ref, VPath, is_known


@dataclass(slots=True, kw_only=True)
class Launch:
    """Code that the script would run. ``source`` is its text, UNKNOWN if it was not found."""

    how: str
    source: Any
    line: int
    name: str = ""
    ops: tuple[str, ...] = ()


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Stop(Exception):
    """The script would end here (``sys.exit``, ``os.execv``)."""


@dataclass(slots=True, kw_only=True)
class World:
    """Everything a wrapper can touch, in memory.

    ``files``: what it wrote. ``ops``: decoders applied so far. ``env``: environment variables that it
    set. ``read``: files beside the script.
    """

    budget: Budget
    path: str
    own_text: str
    read: Callable[[str], bytes | None]
    files: dict[str, bytes] = field(default_factory=dict)
    ops: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    touched: bool = False
    #: where the wrapper's own statement stands that is being evaluated
    line: int = 1
    #: files beside the script that were read, by name
    siblings: dict[str, bytes] = field(default_factory=dict)

    @property
    def self_path(self) -> str:
        return f"{VPath.ROOT}/{self.path}"

    @property
    def here(self) -> str:
        return posixpath.dirname(self.self_path)

    def full(self, path: str) -> str:
        """An absolute, normal form; relative paths start at the script's folder."""
        return posixpath.normpath(posixpath.join(self.here, path))

    def load(self, path: str) -> bytes | None:
        """A file by the path that the wrapper uses: written before, itself, or beside the script."""
        path = self.full(path)
        if path in self.files:
            return self.files[path]
        if path == self.self_path:
            return self.own_text.encode("utf-8", "surrogatepass")
        data = self.read(self.name_of(path))
        if data is not None:
            self.budget.spend(len(data))
            self.siblings[self.name_of(path)] = data
        return data

    def name_of(self, path: str) -> str:
        """Relative to the script's folder where it lies below it, else to the tree's root."""
        path = self.full(path)
        for prefix in (self.here, VPath.ROOT):
            if path.startswith(prefix + "/"):
                return path[len(prefix) + 1 :]
        return posixpath.basename(path)


class Interpreter:
    """Evaluates one module's statements in one `World`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.globals: dict[str, Any] = {"__name__": "__main__", "__file__": world.self_path}
        self.depth = self.calls = 0

    def run(self, tree: ast.Module) -> None:
        with suppress(_Return, _Stop):
            self.block(tree.body, self.globals)

    # ----------------------------------------------------------- statements

    def block(self, body: list[ast.stmt], scope: dict[str, Any]) -> None:
        for statement in body:
            self.world.budget.step()
            if not self.calls:
                self.world.line = statement.lineno
            handler = getattr(self, "do_" + type(statement).__name__, None)
            if handler is not None:
                handler(statement, scope)

    def do_Expr(self, s: ast.Expr, scope: dict[str, Any]) -> None:
        self.eval(s.value, scope)

    def do_Assign(self, s: ast.Assign, scope: dict[str, Any]) -> None:
        value = self.eval(s.value, scope)
        for target in s.targets:
            self.bind(target, value, scope)

    def do_AnnAssign(self, s: ast.AnnAssign, scope: dict[str, Any]) -> None:
        if s.value is not None:
            self.bind(s.target, self.eval(s.value, scope), scope)

    def do_AugAssign(self, s: ast.AugAssign, scope: dict[str, Any]) -> None:
        value = self.binary(s.op, self.eval(s.target, scope), self.eval(s.value, scope))
        self.bind(s.target, value, scope)

    def do_Import(self, s: ast.Import, scope: dict[str, Any]) -> None:
        for alias in s.names:
            if alias.asname:
                scope[alias.asname] = Ref(alias.name)
            else:
                root = alias.name.partition(".")[0]
                scope[root] = Ref(root)

    def do_ImportFrom(self, s: ast.ImportFrom, scope: dict[str, Any]) -> None:
        for alias in s.names:
            scope[alias.asname or alias.name] = pure.reference(f"{s.module or ''}.{alias.name}")

    def do_FunctionDef(self, s: ast.FunctionDef, scope: dict[str, Any]) -> None:
        scope[s.name] = Function(s.name, s.args, s.body, scope)

    def do_Return(self, s: ast.Return, scope: dict[str, Any]) -> None:
        raise _Return(None if s.value is None else self.eval(s.value, scope))

    def do_If(self, s: ast.If, scope: dict[str, Any]) -> None:
        test = self.eval(s.test, scope)
        if is_known(test):
            self.block(s.body if test else s.orelse, scope)
            return
        # Either branch may run: both are followed, the values of the first stay.
        self.branch(s.orelse, scope)
        self.branch(s.body, scope)

    def branch(self, body: list[ast.stmt], scope: dict[str, Any]) -> None:
        # Whether it returns is unknown, so what follows is looked at too.
        with suppress(_Return, _Stop):
            self.block(body, scope)

    def do_Try(self, s: ast.Try, scope: dict[str, Any]) -> None:
        self.block(s.body, scope)
        self.block(s.orelse, scope)
        self.block(s.finalbody, scope)

    def do_With(self, s: ast.With, scope: dict[str, Any]) -> None:
        for item in s.items:
            value = self.eval(item.context_expr, scope)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value, scope)
        self.block(s.body, scope)

    def do_For(self, s: ast.For, scope: dict[str, Any]) -> None:
        source = pure.iterable(self.eval(s.iter, scope))
        if source is None:
            self.bind(s.target, UNKNOWN, scope)
            self.branch(s.body, scope)
            return
        for item in source:
            self.world.budget.step()
            self.bind(s.target, item, scope)
            self.block(s.body, scope)

    def do_While(self, s: ast.While, scope: dict[str, Any]) -> None:
        self.branch(s.body, scope)

    def do_Delete(self, s: ast.Delete, scope: dict[str, Any]) -> None:
        for target in s.targets:
            if isinstance(target, ast.Name):
                scope.pop(target.id, None)

    def bind(self, target: ast.expr, value: Any, scope: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            items = value if isinstance(value, (tuple, list)) and len(value) == len(target.elts) else None
            for index, inner in enumerate(target.elts):
                self.bind(inner, UNKNOWN if items is None else items[index], scope)
        elif isinstance(target, ast.Subscript):
            holder, key = self.eval(target.value, scope), self.eval(target.slice, scope)
            if isinstance(holder, Ref) and holder.name == "os.environ":
                self.world.touched = True
                if isinstance(key, str) and isinstance(value, str):
                    self.world.env[key] = value
            elif isinstance(holder, (dict, list)) and is_known(key):
                with suppress(TypeError, IndexError, KeyError):
                    holder[key] = value

    # ---------------------------------------------------------- expressions

    def eval(self, e: ast.expr, scope: dict[str, Any]) -> Any:
        self.world.budget.step()
        handler = getattr(self, "on_" + type(e).__name__, None)
        if handler is None or self.depth > MAX_RECURSION:
            return UNKNOWN
        self.depth += 1
        try:
            return handler(e, scope)
        finally:
            self.depth -= 1

    def on_Constant(self, e: ast.Constant, scope: dict[str, Any]) -> Any:
        return e.value

    def on_Name(self, e: ast.Name, scope: dict[str, Any]) -> Any:
        if e.id in scope:
            return scope[e.id]
        if e.id in self.globals:
            return self.globals[e.id]
        return Ref("builtins." + e.id) if e.id in pure.BUILTINS else UNKNOWN

    def on_Attribute(self, e: ast.Attribute, scope: dict[str, Any]) -> Any:
        return pure.attribute(self.eval(e.value, scope), e.attr)

    def on_BinOp(self, e: ast.BinOp, scope: dict[str, Any]) -> Any:
        links = []
        left: ast.expr = e
        while isinstance(left, ast.BinOp):
            links.append(left)
            left = left.left
        value = self.eval(left, scope)
        for link in reversed(links):
            value = self.binary(link.op, value, self.eval(link.right, scope))
        return value

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        return pure.binary(self.world.budget, type(op).__name__, left, right)

    def on_UnaryOp(self, e: ast.UnaryOp, scope: dict[str, Any]) -> Any:
        value = self.eval(e.operand, scope)
        if isinstance(e.op, ast.Not):
            return (not value) if is_known(value) else UNKNOWN
        if isinstance(e.op, ast.USub) and isinstance(value, (int, float)):
            return -value
        return UNKNOWN

    def on_BoolOp(self, e: ast.BoolOp, scope: dict[str, Any]) -> Any:
        value: Any = UNKNOWN
        for part in e.values:
            value = self.eval(part, scope)
            if not is_known(value):
                return UNKNOWN
            if bool(value) != isinstance(e.op, ast.And):
                return value
        return value

    def on_Compare(self, e: ast.Compare, scope: dict[str, Any]) -> Any:
        values = [self.eval(x, scope) for x in (e.left, *e.comparators)]
        if len(e.ops) != 1:
            return UNKNOWN
        return pure.compare(type(e.ops[0]).__name__, values[0], values[1])

    def on_IfExp(self, e: ast.IfExp, scope: dict[str, Any]) -> Any:
        test = self.eval(e.test, scope)
        if not is_known(test):
            return UNKNOWN
        return self.eval(e.body if test else e.orelse, scope)

    def on_Tuple(self, e: ast.Tuple, scope: dict[str, Any]) -> Any:
        return tuple(self.elements(e.elts, scope))

    def on_List(self, e: ast.List, scope: dict[str, Any]) -> Any:
        return self.elements(e.elts, scope)

    def elements(self, elts: list[ast.expr], scope: dict[str, Any]) -> list[Any]:
        out: list[Any] = []
        for item in elts:
            if isinstance(item, ast.Starred):
                inner = pure.iterable(self.eval(item.value, scope))
                out.extend([UNKNOWN] if inner is None else inner)
            else:
                out.append(self.eval(item, scope))
        return out

    def on_Dict(self, e: ast.Dict, scope: dict[str, Any]) -> Any:
        out: dict[Any, Any] = {}
        for key, value in zip(e.keys, e.values, strict=True):
            inner = self.eval(value, scope)
            if key is None:
                out |= inner if isinstance(inner, dict) else {}
            elif isinstance(name := self.eval(key, scope), (str, bytes, int, float, bool, type(None))):
                out[name] = inner
        return out

    def on_JoinedStr(self, e: ast.JoinedStr, scope: dict[str, Any]) -> Any:
        out = []
        for part in e.values:
            value = self.eval(part, scope)
            if isinstance(value, VPath):
                value = value.path
            if not isinstance(value, (str, int, float)):
                return UNKNOWN
            out.append(str(value))
        return "".join(out)

    def on_FormattedValue(self, e: ast.FormattedValue, scope: dict[str, Any]) -> Any:
        return UNKNOWN if e.format_spec is not None else self.eval(e.value, scope)

    def on_Subscript(self, e: ast.Subscript, scope: dict[str, Any]) -> Any:
        return pure.subscript(self.eval(e.value, scope), self.eval(e.slice, scope))

    def on_Slice(self, e: ast.Slice, scope: dict[str, Any]) -> Any:
        parts = [None if p is None else self.eval(p, scope) for p in (e.lower, e.upper, e.step)]
        return slice(*parts) if all(p is None or isinstance(p, int) for p in parts) else UNKNOWN

    def on_NamedExpr(self, e: ast.NamedExpr, scope: dict[str, Any]) -> Any:
        scope[e.target.id] = value = self.eval(e.value, scope)
        return value

    def on_Lambda(self, e: ast.Lambda, scope: dict[str, Any]) -> Any:
        return Function("<lambda>", e.args, [ast.Return(value=e.body)], scope)

    def comprehension(self, e: Any, scope: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> bool:
        def level(index: int, inner: dict[str, Any]) -> bool:
            if index == len(e.generators):
                emit(inner)
                return True
            loop = e.generators[index]
            source = pure.iterable(self.eval(loop.iter, inner))
            if source is None:
                return False
            for item in source:
                self.world.budget.step()
                here = dict(inner)
                self.bind(loop.target, item, here)
                tests = [self.eval(test, here) for test in loop.ifs]
                if not all(is_known(test) for test in tests):
                    return False
                if all(tests) and not level(index + 1, here):
                    return False
            return True

        return level(0, dict(scope))

    def on_ListComp(self, e: Any, scope: dict[str, Any]) -> Any:
        out: list[Any] = []
        return out if self.comprehension(e, scope, lambda s: out.append(self.eval(e.elt, s))) else UNKNOWN

    on_GeneratorExp = on_ListComp

    def on_DictComp(self, e: ast.DictComp, scope: dict[str, Any]) -> Any:
        out: dict[Any, Any] = {}

        def emit(s: dict[str, Any]) -> None:
            key = self.eval(e.key, s)
            if isinstance(key, (str, bytes, int)):
                out[key] = self.eval(e.value, s)

        return out if self.comprehension(e, scope, emit) else UNKNOWN

    # ---------------------------------------------------------------- calls

    def on_Call(self, e: ast.Call, scope: dict[str, Any]) -> Any:
        function = self.eval(e.func, scope)
        args = self.elements(e.args, scope)
        kwargs: dict[str, Any] = {}
        for keyword in e.keywords:
            value = self.eval(keyword.value, scope)
            if keyword.arg is not None:
                kwargs[keyword.arg] = value
            elif isinstance(value, dict):
                kwargs |= {k: v for k, v in value.items() if isinstance(k, str)}
        if isinstance(function, Function):
            return self.user(function, args, kwargs)
        if isinstance(function, Ref):
            return self.named(function.name, args, kwargs, e.lineno)
        if isinstance(function, Method):
            return self.method(function, args, kwargs, e.lineno)
        return UNKNOWN

    def user(self, function: Function, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if self.calls >= MAX_CALLS:
            return UNKNOWN
        scope = dict(function.scope)
        spec = function.args
        names = [a.arg for a in [*spec.posonlyargs, *spec.args]]
        for name, default in zip(reversed(names), reversed(spec.defaults), strict=False):
            scope[name] = self.eval(default, function.scope)
        for arg, kw_default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            scope[arg.arg] = UNKNOWN if kw_default is None else self.eval(kw_default, function.scope)
        for name in names[: len(names) - len(spec.defaults)]:
            scope[name] = UNKNOWN
        scope.update(zip(names, args, strict=False))
        scope.update(kwargs)
        if spec.vararg:
            scope[spec.vararg.arg] = tuple(args[len(names) :])
        self.calls += 1
        try:
            self.block(function.body, scope)
        except _Return as result:
            return result.value
        finally:
            self.calls -= 1
        return None

    def named(self, name: str, args: list[Any], kwargs: dict[str, Any], line: int) -> Any:
        world = self.world
        if name in pure.RUNNERS:
            self.launch(name, args, kwargs, line)
            return UNKNOWN
        if name in ("sys.exit", "builtins.exit", "builtins.quit", "os._exit"):
            raise _Stop
        if name == "builtins.map" and len(args) == 2 and (items := pure.iterable(args[1])) is not None:
            return [self.apply(args[0], [item], line) for item in items]
        if name == "functools.reduce" and len(args) >= 2 and (items := pure.iterable(args[1])) is not None:
            items = [*args[2:3], *items]
            value = items[0] if items else UNKNOWN
            for item in items[1:]:
                value = self.apply(args[0], [value, item], line)
            return value
        return pure.call(world, name, args, kwargs)

    def apply(self, function: Any, args: list[Any], line: int) -> Any:
        if isinstance(function, Function):
            return self.user(function, args, {})
        return self.named(function.name, args, {}, line) if isinstance(function, Ref) else UNKNOWN

    def method(self, bound: Method, args: list[Any], kwargs: dict[str, Any], line: int) -> Any:
        owner, name = bound.owner, bound.name
        if isinstance(owner, Instance) and (owner.kind, name) == ("loader", "exec_module"):
            self.launch("exec_module", [owner.state], {}, line)
            return None
        return pure.method(self.world, owner, name, args, kwargs)

    def launch(self, how: str, args: list[Any], kwargs: dict[str, Any], line: int) -> None:
        found = pure.launched(self.world, how, args, kwargs)
        if found is None:
            return
        kind, source, name = found
        self.world.launches.append(
            Launch(how=kind, source=source, line=line, name=name, ops=tuple(self.world.ops))
        )
        if how.startswith("os.exec"):
            raise _Stop
