"""Parts of models: what a constructor builds, with which settings, and what it leaves out.

The trace keeps modules opaque. Rules that read their layers ask what the layers were built with: a method that starts
with ``if not self.routed: return x`` does nothing where ``routed`` is False.
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.values import META, VAL, Closure, Instance, V, const

#: how far down the parts of parts are followed
DEPTH = 3
#: layers whose numbers are tried one by one
MAX_TURNS = 64
_PLAIN = (ir.Name, ir.Attr, ir.Const, ir.BinOp, ir.BoolOp, ir.UnaryOp, ir.Compare, ir.IfExp)


def holds_stream(v: V) -> bool:
    """Does it hold the stream's tokens, or a table that took some in."""
    return v.kind == "val" and not v.models and (bool(v.taint) or bool(v.flags & VAL and v.atoms and not v.flags & META))


def given_to(stmt: Any, this: str) -> list[Any]:
    """What ``self.counts = …``, ``self.net, self.counts = net, …`` and ``self.register_buffer(name, …)`` give to the module."""
    if isinstance(stmt, ir.ExprStmt) and isinstance(stmt.value, ir.Call):
        f = stmt.value.func
        named = isinstance(f, ir.Attr) and f.attr in ("register_buffer", "register_parameter")
        return [*stmt.value.args[1:2], *(x for k, x in stmt.value.keywords if k in ("tensor", "param"))] if named else []
    if not isinstance(stmt, ir.Assign):
        return []
    pairs: list[tuple[Any, Any]] = [(t, stmt.value) for t in stmt.targets]
    if isinstance(stmt.targets[0], ir.Collection) and isinstance(stmt.value, ir.Collection):
        pairs = list(zip(stmt.targets[0].elts, stmt.value.elts, strict=False))
    return [x for t, x in pairs if isinstance(t, ir.Attr) and isinstance(t.value, ir.Name) and t.value.id == this]


def kept_by(body: list[Any]) -> dict[str, Any]:
    """What a constructor assigns to attributes of its object once, where that calls nothing."""
    found: dict[str, list[Any]] = {}
    for s in ir.walk(body):
        value = s.value if isinstance(s, (ir.Assign, ir.AnnAssign)) else None
        for target in s.targets if isinstance(s, ir.Assign) else [s.target] if isinstance(s, (ir.AnnAssign, ir.AugAssign)) else []:
            for t, given in ir.paired(target, value):
                if isinstance(t, ir.Attr) and isinstance(t.value, ir.Name):
                    plain = isinstance(given, _PLAIN) and not any(isinstance(x, ir.Call) for x in ir.walk(given))
                    found.setdefault(t.attr, []).append(given if plain else None)
    return {name: values[0] for name, values in found.items() if len(values) == 1 and values[0] is not None}


def locals_of(body: list[Any]) -> list[tuple[str, Any]]:
    """Numbers that a constructor reckons with, in its order: names that it assigns once, not in a branch or a loop."""
    stored = [x.id for s in ir.walk(body) for t in _targets(s) for x in ir.walk(t) if isinstance(x, ir.Name)]
    found = []
    for s in body:
        if isinstance(s, ir.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ir.Name) and stored.count(s.targets[0].id) == 1:
            if all(isinstance(x, _PLAIN) or _reckons(x) for x in ir.walk(s.value)):
                found.append((s.targets[0].id, s.value))
    return found


def _targets(s: Any) -> list[Any]:
    if isinstance(s, ir.Assign):
        return s.targets
    return [s.target] if isinstance(s, (ir.AnnAssign, ir.AugAssign, ir.For, ir.CompFor, ir.NamedExpr)) else []


def _reckons(x: Any) -> bool:
    return isinstance(x, ir.Call) and isinstance(x.func, ir.Name) and x.func.id in ("max", "min", "int", "round", "abs", "bool")


def asked(test: Any, this: str, kept: dict[str, Any], depth: int = 4) -> Any:
    """A condition, with what an attribute of the object was assigned in its place: ``self.routed`` for ``experts > 1``."""
    if isinstance(test, ir.Attr) and isinstance(test.value, ir.Name) and test.value.id == this and depth:
        return asked(kept[test.attr], this, kept, depth - 1) if test.attr in kept else test
    if isinstance(test, ir.UnaryOp):
        return ir.UnaryOp(test.op, asked(test.operand, this, kept, depth), line=test.line)
    if isinstance(test, ir.BoolOp):
        return ir.BoolOp(test.op, [asked(v, this, kept, depth) for v in test.values], line=test.line)
    if isinstance(test, ir.Compare):
        return ir.Compare(asked(test.left, this, kept, depth), test.ops, test.comparators, line=test.line)
    return test


class Parts:
    """Mixed into the machine; see `audit.trace.machine`."""

    def model_attributes(self: Any, inst: Instance, init: Any, args: list[V], kwargs: dict[str, V]) -> None:
        """`self.x = x` of a model's constructor; the rest of it builds layers."""
        params = [p.name for p in init.params][1:]
        given = dict(zip(params, args, strict=False))
        given.update({k: v for k, v in kwargs.items() if k in params})
        for stmt in init.body:
            if (
                isinstance(stmt, ir.Assign) and isinstance(stmt.value, ir.Name) and isinstance(stmt.targets[0], ir.Attr)
                and isinstance(stmt.targets[0].value, ir.Name) and stmt.value.id in given
            ):  # fmt: skip
                inst.attrs[stmt.targets[0].attr] = given[stmt.value.id]

    def note_taken_in(self: Any, inst: Instance, init: Closure, args: list[V], kwargs: dict[str, V]) -> None:
        """What a constructor makes of the stream's tokens that it was given, or of counts of them, is the module's from then on."""
        if not any(holds_stream(a) for a in (*args, *kwargs.values())):
            return
        scope = type(self.scope)(init.scope, init.scope.globals_, "__init__", init.path)
        this = init.node.params[0].name if init.node.params else "self"
        self.bind_params(init.node, init, scope, [V("val"), *args], kwargs)
        outer, self.scope = self.scope, scope
        try:
            for stmt in init.node.body:
                names = {n.id for n in ir.walk(stmt) if isinstance(n, ir.Name)}
                local = this not in names
                if not any((v := scope.names.get(name)) is not None and holds_stream(v) for name in names):
                    if not (local and isinstance(stmt, ir.Assign)):
                        continue
                if local:
                    self.block([stmt])
                    continue
                for value in given_to(stmt, this):
                    made = self.ev(value)
                    if made.kind == "val" and not made.models:
                        inst.state.taint = inst.state.taint | made.taint
                        self.note_buffer(inst, stmt, made)
        finally:
            self.scope = outer

    def note_parts(
        self: Any, inst: Instance, init: Closure, args: list[V], kwargs: dict[str, V], depth: int = 0
    ) -> None:
        """Notes an instance with its settings, the parts that its constructor builds, and those that it leaves out
        (`Hash(n, d) if n > 0 else None` with n = 0)."""
        scope = type(self.scope)(init.scope, init.scope.globals_, "__init__", init.path)
        self.bind_params(init.node, init, scope, [V("val"), *args], kwargs)
        outer, self.scope = self.scope, scope
        try:
            dead: set[int] = set()
            kept = kept_by(init.node.body)
            this = init.node.params[0].name if init.node.params else ""
            for name, value in locals_of(init.node.body):
                scope.names[name] = self.ev(value)
            counts = self.counts_in(init.node.body)
            for n in ir.walk(init.node.body):
                if isinstance(n, (ir.IfExp, ir.If)) and id(n) not in dead:
                    own = any(isinstance(x, ir.Attr) and x.attr in kept for x in ir.walk(n.test))
                    test = self.in_all_turns(asked(n.test, this, kept) if own else n.test, counts, scope)
                    if test is not None:
                        dead.update(id(x) for x in ir.walk(n.orelse if test else n.body))
            every = [n for n in ir.walk(init.node.body) if isinstance(n, ir.Call)]
            for n in every:
                if id(n) not in dead and isinstance(n.func, ir.Attr) and n.args and isinstance(n.args[0], (ir.Name, ir.Attr)):
                    self.note_met(n, [self.ev(n.args[0])])
            calls = [n for n in every if isinstance(n.func, ir.Name)]
            for n in calls:
                if id(n) in dead:
                    self.trace.left_out |= self.classes_under(n)
                elif depth == DEPTH:
                    self.trace.deeper |= self.classes_under(n)
            part = Instance(inst.cls, 0, inst.line)
            for n in init.node.body:
                for target, value in ir.paired(n.targets[0], n.value) if isinstance(n, ir.Assign) else ():
                    if isinstance(value, _PLAIN) and isinstance(target, ir.Attr):
                        part.attrs[target.attr] = self.ev(value)
            for p in init.node.params[1:]:
                given = scope.names.get(p.name)
                part.attrs[f"__init__.{p.name}"] = given if given is not None and given.kind == "const" else V("val")
            self.trace.parts.append(part)
            for n in calls if depth < DEPTH else ():
                if id(n) not in dead:
                    self.note_part(n, depth + 1)
        finally:
            self.scope = outer

    def classes_under(self: Any, call: ir.Call) -> set[str]:
        """The class that is called, and those that its constructor calls, and theirs."""
        found: set[str] = set()
        todo = [call]
        while todo:
            name = todo.pop().func.id  # type: ignore[attr-defined]
            if name in found:
                continue
            found.add(name)
            cls = self.scope.get(name)
            init = cls.data.find("__init__") if cls is not None and cls.kind == "class" and cls.data.is_model else None
            if init is not None and init.kind == "func":
                todo += [n for n in ir.walk(init.data.node.body) if isinstance(n, ir.Call) and isinstance(n.func, ir.Name)]
        return found

    def counts_in(self: Any, body: list[Any]) -> dict[str, range]:
        """Loops of a constructor over a known range: ``for i in range(num_layers)``, in a statement or a comprehension."""
        found: dict[str, range] = {}
        for n in ir.walk(body):
            if isinstance(n, (ir.For, ir.CompFor)) and isinstance(n.target, ir.Name) and isinstance(n.iter, ir.Call):
                walks = isinstance(n.iter.func, ir.Name) and n.iter.func.id == "range" and not n.iter.keywords
                bounds = [self.ev(a) if isinstance(a, _PLAIN) else V("val") for a in n.iter.args] if walks else []
                known = bool(bounds) and all(b.kind == "const" and type(b.const) is int for b in bounds) and n.target.id not in found
                turns = range(*(b.const for b in bounds)) if known and not (len(bounds) > 2 and bounds[2].const == 0) else range(0)
                found[n.target.id] = turns if len(turns) <= MAX_TURNS else range(0)
        return found

    def in_all_turns(self: Any, test: Any, counts: dict[str, range], scope: Any) -> bool | None:
        """The answer to a test, where every layer's number gives the same: ``margin <= i < num_layers - margin``."""
        counter = next((x.id for x in ir.walk(test) if type(x) is ir.Name and counts.get(x.id)), None)
        if counter is None:
            return self.truth(self.ev(test))  # type: ignore[no-any-return]
        before, answers = scope.names.get(counter), set()
        for number in counts[counter]:
            scope.names[counter] = const(number)
            answers.add(self.truth(self.ev(test)))
        scope.names[counter] = before if before is not None else V("val")
        return answers.pop() if len(answers) == 1 else None

    def note_part(self: Any, call: ir.Call, depth: int) -> None:
        """The same for a part, where the call is that of a class of the script's own."""
        cls = self.ev(call.func)
        if cls.kind != "class" or not cls.data.is_model or any(isinstance(a, ir.Starred) for a in call.args):
            return
        init = cls.data.find("__init__")
        if init is None or init.kind != "func":
            return
        args = [self.ev(a) if isinstance(a, _PLAIN) else V("val") for a in call.args]
        kwargs = {
            k: self.ev(v) if isinstance(v, _PLAIN) else V("val") for k, v in call.keywords if k is not None
        }
        self.note_parts(Instance(cls.data, 0, call.line), init.data, args, kwargs, depth)
