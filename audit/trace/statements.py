"""Statements: assignment, branches, loops, definitions."""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.choices import compares
from audit.trace.chosen_weights import learned_of_val
from audit.trace.contexts import Contexts
from audit.trace.emptied import TABLES
from audit.trace.gates import found_by_read, gate_tokens
from audit.trace.loops import BREAK, CONTINUE, NORMAL, RAISE, RETURN, Loops
from audit.trace.positions import TOTAL, one_of, reach_origin
from audit.trace.reach import BY_HAND, TYPED
from audit.trace.shaping import shape_origin
from audit.trace.switches import INSIDE, PASSED, leaves
from audit.trace.totals import Totals
from audit.trace.values import (
    BPB,
    BYTES,
    COUNT,
    LOGITS,
    LOSS,
    META,
    PARAM,
    PROB,
    TIME,
    TRAIN,
    VAL,
    ClassV,
    Closure,
    Link,
    V,
    clone,
    const,
    derive,
    embedded,
    fields_of,
    join,
    join_atoms,
    members,
    seq,
    summary,
    untouched,
)  # fmt: skip

NO_WAYS: tuple[dict[str, V], dict[str, V]] = ({}, {})
KEEPING = frozenset("load_state_dict copy_ save update deepcopy".split())



class Statements(Loops, Contexts, Totals):
    """Mixed into the machine; see `audit.trace.machine`."""

    def _prepare_dispatch(self: Any) -> None:
        self.on_stmt = {
            ir.Assign: self.s_assign, ir.AnnAssign: self.s_annassign, ir.AugAssign: self.s_augassign,
            ir.ExprStmt: self.s_expr, ir.Return: self.s_return, ir.If: self.s_if, ir.For: self.s_for,
            ir.While: self.s_while, ir.With: self.s_with, ir.Try: self.s_try, ir.Match: self.s_match,
            ir.Raise: self.s_raise, ir.Assert: self.s_assert, ir.Delete: self.s_delete, ir.Import: self.s_import,
            ir.Scope: self.s_scope, ir.Jump: self.s_jump, ir.FunctionDef: self.s_function,
            ir.ClassDef: self.s_class,
        }  # fmt: skip
        self.on_expr = {
            ir.Const: self.x_const, ir.Name: self.x_name, ir.Attr: self.x_attr, ir.Sub: self.x_sub,
            ir.Slice: self.x_slice, ir.Call: self.x_call, ir.BinOp: self.x_binop, ir.UnaryOp: self.x_unary,
            ir.BoolOp: self.x_boolop, ir.Compare: self.x_compare, ir.IfExp: self.x_ifexp,
            ir.Collection: self.x_collection, ir.Dict: self.x_dict, ir.Lambda: self.x_lambda,
            ir.Comp: self.x_comp, ir.FString: self.x_fstring, ir.Starred: self.x_starred,
            ir.Await: self.x_await, ir.Yield: self.x_yield, ir.NamedExpr: self.x_named,
        }  # fmt: skip

    def block(self: Any, body: list[ir.Stmt]) -> int:
        on, guards = self.on_stmt, len(self.guards)
        status = NORMAL
        for stmt in body:
            self.steps += 1
            if self.steps >= self.look_at:
                self.look()
            status = on[type(stmt)](stmt)
            if status:
                break
        if len(self.guards) > guards:
            del self.guards[guards:]  # branches that leave, which were passed in this block
        return int(status)

    # ------------------------------------------------------------------ simple
    def s_expr(self: Any, s: ir.ExprStmt) -> int:
        call = s.value
        if isinstance(call, ir.Call) and isinstance(call.func, ir.Attr) and isinstance(way := call.func.value, ir.IfExp):
            # ``(a if test else b).append(x)`` is an if statement.
            place = {"line": s.line, "col": s.col, "end_line": s.end_line}
            ways = [
                ir.ExprStmt(ir.Call(ir.Attr(x, call.func.attr, **place), call.args, call.keywords, **place), **place)
                for x in (way.body, way.orelse)
            ]
            branch = ir.If(way.test, [ways[0]], [ways[1]], **place)
            self.number_of(branch)  # what is known of statements goes by their identity: none may come to stand in its place
            return int(self.s_if(branch))
        v = self.ev(s.value)
        if v.kind == "never":
            return RAISE
        return NORMAL

    def s_return(self: Any, s: ir.Return) -> int:
        v = self.ev(s.value) if s.value is not None else const(None)
        if self.returns:
            self.returns[-1].append(self.as_returned(s, v) if self.asking or self.passed or self.scope.asked else v)
        return RETURN

    def s_jump(self: Any, s: ir.Jump) -> int:
        return BREAK if s.kind == "break" else CONTINUE if s.kind == "continue" else NORMAL

    def s_raise(self: Any, s: ir.Raise) -> int:
        if isinstance(s.exc, ir.Call) and isinstance(s.exc.func, ir.Name) and s.exc.func.id == "SystemExit":
            self.ev(s.exc)  # ``raise SystemExit(main())``
        return RAISE

    def s_assert(self: Any, s: ir.Assert) -> int:
        self.ev(s.test)
        return NORMAL

    def s_delete(self: Any, s: ir.Delete) -> int:
        return NORMAL

    def s_scope(self: Any, s: ir.Scope) -> int:
        scope = self.scope
        for name in s.names:
            if s.kind == "global":
                scope.redirect[name] = scope.globals_
            else:
                outer = scope.outer
                while outer is not None and name not in outer.names:
                    outer = outer.outer
                if outer is not None:
                    scope.redirect[name] = outer
        return NORMAL

    def s_import(self: Any, s: ir.Import) -> int:
        self.do_import(s)
        return NORMAL

    def s_function(self: Any, s: ir.FunctionDef) -> int:
        made = self.make_function(s, None)
        self.scope.set(s.name, made)
        for d in s.decorators:
            given = self.ev(d)
            self.note_entry(d, made)
            if given.kind == "func" and self.interest.summary(given.data.node).calls & {"append", "add", "setdefault", "update"}:
                self.call_value(given, [made], {}, s)  # a register of functions; the name still means the function
        return NORMAL

    def make_function(self: Any, s: Any, owner: ClassV | None) -> V:
        c = Closure(s, self.scope, self.scope.path, owner)
        for p in s.params:
            if p.default is not None:
                c.defaults[p.name] = self.ev(p.default)
        v = V("func", data=c)
        v.line = s.line
        return v

    def s_class(self: Any, s: ir.ClassDef) -> int:
        c = ClassV(s.name, s, self.scope.path)
        for b in s.bases:
            v = self.ev(b)
            if v.kind == "class":
                c.bases.append(v.data)
                c.is_model |= v.data.is_model
                c.is_optimizer |= v.data.is_optimizer
                c.is_data |= v.data.is_data
                c.fields.extend(v.data.fields)
            elif v.kind == "lib":
                name = v.data
                if name.endswith("nn.Module") or name.endswith(".Module"):
                    c.is_model = True
                elif name.endswith(".Optimizer"):
                    c.is_optimizer = True
                elif name.endswith("NamedTuple"):
                    c.is_data = True
        for d in s.decorators:
            v = self.ev(d)
            if "dataclass" in str(v.data) or (v.kind == "bound" and "dataclass" in str(v.data)):
                c.is_data = True
            if isinstance(d, ir.Call) and getattr(self.ev(d.func), "data", None) == "dataclasses.dataclass":
                c.is_data = True
        outer = self.scope
        inner = type(outer)(outer, outer.globals_, outer.function, outer.path)
        self.scope = inner
        try:
            for stmt in s.body:
                if isinstance(stmt, ir.FunctionDef):
                    # Methods see the enclosing scope, not the class body.
                    self.scope = outer
                    f = self.make_function(stmt, c)
                    self.scope = inner
                    wrappers = {d.attr if isinstance(d, ir.Attr) else d.id for d in stmt.decorators if isinstance(d, (ir.Attr, ir.Name))}
                    if wrappers & {"property", "cached_property"}:
                        f.const = "property" if "property" in wrappers else "cached"
                    elif "staticmethod" in wrappers:
                        f.const = "static"
                    elif "classmethod" in wrappers:
                        f.const = "classmethod"
                    inner.names[stmt.name] = f
                else:
                    if isinstance(stmt, ir.AnnAssign) and isinstance(stmt.target, ir.Name):
                        c.fields.append(stmt.target.id)
                    self.tick()
                    self.on_stmt[type(stmt)](stmt)
        finally:
            self.scope = outer
        c.attrs = inner.names
        v = V("class", data=c)
        self.scope.set(s.name, v)
        return NORMAL

    # ------------------------------------------------------------------ assignment
    def s_assign(self: Any, s: ir.Assign) -> int:
        v = self.ev(s.value)
        if v.kind == "never":
            return RAISE
        if v.flags & TIME and type(s.value) is ir.Call:
            self.trace.clocks.setdefault(id(s), []).append(self.next_id)
        for t in s.targets:
            self.bind(t, v, s)
            if type(t) is ir.Name:
                self.note_meaning(t.id, s.value)
        return NORMAL

    def note_meaning(self: Any, name: str, value: Any) -> None:
        """What a local name stands for, so that two ways of writing one bound are the same bound."""
        if isinstance(value, (ir.BinOp, ir.IfExp, ir.Sub, ir.Call)) and not self.interest.mentions(value, name):
            self.scope.meaning[name] = value
        else:
            self.scope.meaning.pop(name, None)

    def s_annassign(self: Any, s: ir.AnnAssign) -> int:
        if s.value is not None:
            self.bind(s.target, self.ev(s.value), s)
        return NORMAL

    def bind(self: Any, target: Any, v: V, stmt: Any) -> None:
        t = type(target)
        if t is ir.Name:
            if self.forks and v.kind in TABLES:
                v = self.replaced(self.scope.get(target.id), v, stmt, joined=target.id not in self.scope.redirect)
            self.scope.set(target.id, v)
            self.note_link(v, stmt)
        elif t is ir.Collection:
            self.unpack(target.elts, v, stmt)
        elif t is ir.Attr:
            self.set_attr(self.ev(target.value), target.attr, v, stmt)
        elif t is ir.Sub:
            self.set_item(self.ev(target.value), target, v, stmt)
        elif t is ir.Starred:
            self.bind(target.value, v if v.kind == "seq" else seq([], v), stmt)

    def note_link(self: Any, v: V, node: Any) -> None:
        """Where tokens, or the files that hold them, were given a name; a list's are given one together."""
        for x in (v,) if v.kind in ("val", "const") else members(v)[:4] if v.kind == "seq" else ():
            if x.flags & (VAL | TRAIN) and x.kind in ("val", "const"):
                line, last = getattr(node, "line", 0), x.via[0] if x.via else None
                if last is None or last.line != line or last.path != self.scope.path:
                    x.via = (Link(self.scope.path, line, tuple(self.stack), x.flags, x.keys, x.via),)

    def unpack(self: Any, targets: list[Any], v: V, stmt: Any) -> None:
        if (held := fields_of(v)) is not None:
            v = seq(held)
        if v.kind == "seq" and v.data and v.rest is None and not any(isinstance(t, ir.Starred) for t in targets):
            if len(v.data) == len(targets):
                for t, x in zip(targets, v.data, strict=True):
                    self.bind(t, x, stmt)
                return
        part = one_of(self.element(v))
        own = v.kind == "seq" and untouched(part) and not part.flags  # ``loss, count = (zeros(()) for _ in range(2))``
        for t in targets:
            self.bind(t, self.another(part) if own else part, stmt)

    def another(self: Any, v: V) -> V:
        """A tensor made where ``v`` was made, that nothing was put into yet either."""
        out = clone(v)
        if id(v) in self.born:
            self.born[id(out)] = (out, self.born[id(v)][1])
        return out

    def element(self: Any, v: V) -> V:
        """Any element of a container or any row of an array."""
        if v.kind in ("seq", "dict"):
            held = members(v)
            if not held:
                return V("val")
            out = held[0]
            for m in held[1:8]:
                out = join(out, m)
            return out
        if v.kind == "alt":
            return self.element(v.data[0])
        if v.kind == "iter":
            return self.first_of(v)
        return v if v.kind == "val" else derive([v])

    def s_augassign(self: Any, s: ir.AugAssign) -> int:
        target = s.target
        old = self.ev(target)
        rhs = self.ev(s.value)
        if old.kind == "obj" and s.op == "+" and isinstance(old.data.cls, ClassV) and old.data.cls.find("__iadd__") is not None:
            self.bind(target, self.call_value(V("bound", data=(old, "__iadd__")), [rhs], {}, s), s)
            return NORMAL
        if s.op in ("+", "-") and self.loops and self.told_by_table(old, rhs):
            rhs = clone(rhs)
            rhs.flags |= LOSS | VAL
        if s.op in ("+", "-") and rhs.flags & LOSS:
            rhs = self.commit_score(rhs, s, "accumulated")
        elif s.op in ("*", "/") and rhs.flags & LOSS and not old.flags & LOSS:
            rhs = clone(rhs)  # ``weights *= exp(-rate * loss)``: how experts did weighs them, and is no score
            rhs.flags &= ~LOSS
        if isinstance(target, ir.Sub) and s.op in "+-|^":
            base = self.ev(target.value)
            index = self.ev(target.index)
            index = summary(index) if index.kind == "seq" and base.kind == "val" else index
            rows = base.kind == "val" and bool(base.flags & (LOGITS | PROB))  # predictions that are changed, and no table
            if index.flags & VAL and not found_by_read(index) and not rows and not rhs.flags & LOSS and base.kind in ("dict", "seq", "val", "obj"):
                self.store(base, index, rhs, s)
                return NORMAL
            self.fill(base, index, rhs, s)
        if old.kind == "seq" and s.op == "+":
            self.scope_extend(old, rhs)
            return NORMAL
        out = self.binary(s.op, old, rhs, s)
        if s.op == "+" and self.loops and rhs.flags & BYTES and not old.flags & ~META and not old.keys:
            out.keys = out.keys | {TOTAL}  # counted up over the stream, from nothing
        if s.op == "+" and self.loops and rhs.flags & BYTES:
            self.note_summed_bytes(rhs, out, s)
        if isinstance(target, ir.Name):
            if old.kind == "val" and (old.flags & PARAM or old.models) and not old.flags & LOSS:
                self.write_param(old, rhs, s)
            if old.kind == "val" and out.kind == "val" and old is not out and (old.pos is None or old.flags & VAL) and old.share == out.share:
                # Tensors change in place, other names for the tensor see it.
                old.flags |= out.flags
                old.atoms, old.taint, old.scores = out.atoms, out.taint, out.scores
                old.deps, old.keys, old.via = out.deps, out.keys, out.via
                reach_origin(old)
                shape_origin(old)
                out = old
            if out.kind in ("val", "const") and self.loops and not out.atoms and not out.flags & (LOSS | BPB):
                if s.op in "+-" and (out.kind == "const" or not out.flags):
                    out = clone(out)
                    out.deps = out.deps | {self.loops[-1]}
            self.scope.set(target.id, out)
            self.note_link(out, s)
            self.scope.meaning.pop(target.id, None)
        elif isinstance(target, ir.Attr):
            self.set_attr(self.ev(target.value), target.attr, out, s)
        elif isinstance(target, ir.Sub):
            self.set_item(self.ev(target.value), target, out, s)
        return NORMAL

    def told_by_table(self: Any, total: V, v: V) -> bool:
        """``total -= math.log(q[token])`` where ``q`` is a row of counts: what a table alone gives the token is a loss as well."""
        started = total.kind == "const" and isinstance(total.const, (int, float)) and not isinstance(total.const, bool)
        if not (started or total.flags & LOSS) or v.kind != "val" or not v.atoms or not v.flags & COUNT or v.flags & (LOSS | LOGITS | META):
            return False
        reads = {k[1] for k in v.keys if k[0] == "lookup"} if ("logp",) in v.keys else ()
        return any(  # the token's own entry of a row that was read before
            e.kind == "LOOKUP" and e.id in reads and any(k[0] in ("lookup", "lut") for k in e.detail["made"]) for e in self.trace.events
        )

    def scope_extend(self: Any, target: V, more: V) -> None:
        part = self.element(more)
        target.rest = part if target.rest is None else join(target.rest, part)

    # ------------------------------------------------------------------ branches
    def truth(self: Any, v: V) -> bool | None:
        k = v.kind
        if k == "const":
            if v.knobs:
                self.trace.deciding.update(name for name, _value in v.knobs - embedded(v))
            try:
                return bool(v.const)
            except Exception:
                return None
        if k in ("func", "class", "lib", "obj", "opt", "bound", "partial", "alt"):
            return True
        if k in ("seq", "dict") and v.data and v.rest is None:
            return True
        return None

    def gate_text(self: Any, v: V) -> str:
        if not v.knobs:
            return ""
        shown = []
        for name, value in sorted(v.knobs, key=str)[:3]:
            shown.append(f"{name}={value}" if value is not None else str(name))
        return ", ".join(shown)

    def s_if(self: Any, s: ir.If) -> int:
        if self.nothing_to_take(s.test, s.body):
            return self.block(s.orelse) if s.orelse else NORMAL
        test = self.ev(s.test)
        known = self.truth(test)
        if known is not None and not (self.dormant and test.knobs):
            live, dead = (s.body, s.orelse) if known else (s.orelse, s.body)
            if not test.knobs:
                self.note_closed(dead, s.line)
            self.note_opened(live)
            gate = self.gate_of(s.test, test, INSIDE if known else PASSED)
            passed = bool(gate) and leaves(dead)
            if not known:
                self.note_made_zero(s)
            if not live or rejects(live):
                if passed:
                    self.guards.append(("yes", gate))  # for the rest of the block
                return NORMAL  # settings that the script refuses are not those of a run that was reported
            before = dict(self.scope.names) if gate else {}
            if gate:
                self.guards.append(("yes", gate))
            begun = len(self.trace.events)
            status = self.block(live)
            if gate:
                if not passed or status:
                    self.guards.pop()
                self.note_choice(gate, before, dead)
            if known:
                self.note_once(s, begun)
            return status
        if known is None:
            self.note_break(s)
            if test.scores and test.flags & VAL and self.asks_scores(s.test) and (kept := self.kept_by(s)):
                self.event("CHOOSE", s.test, test, assigned=kept)
            # Undecided at run time (rank, step, sizes): not a gate of the configuration.
            self.gates.append(gate_tokens(test))
            before, begun = dict(self.scope.names), len(self.trace.events)
            by_hand = (BY_HAND, ()) if TYPED in test.keys else ("", ())
            needed = self.needed(s.test) if not by_hand[0] and test.knobs else ()
            left = len(self.early[-1]) if self.early else 0
            self.place_tests.append(self.tests_places(test))
            counted = bool(test.flags & COUNT)
            if counted:
                self.asking.append((test, s, len(self.stack)))
            compared = compares(test)
            if compared:
                self.comparing.append(test)
            try:
                holds = ("yes", needed) if needed else by_hand
                sized = not self.loops and self.forks == self.sized and self.long_enough(s.test)
                status = self.both(s.body, s.orelse, holds, by_hand, picked=self.selects(s.test), sized=sized)
            finally:
                self.gates.pop()
                if counted:
                    self.asking.pop()
                if compared:
                    self.comparing.pop()
                if not any(way and isinstance(way[-1], ir.Jump) for way in (s.body, s.orelse)):
                    self.place_tests.pop()  # else the rest of the turn is under it as well
            if counted and not status:
                self.note_two_ways(s, test)
                self.note_split(s, test, before, begun)
                gone = self.early[-1][left:] if self.early else []
                self.note_split_off(s, test, before, gone)
                self.note_first_seen(s, test, before, gone)
                self.note_asked(s, test)
            if not status:
                self.note_chosen(s, test, before, begun)
                if learned_of_val(test):
                    self.note_branch(test, self.interest.assigned(s.body)[0] | self.interest.assigned(s.orelse)[0])
                self.note_branch_weights(s, test, before)
            self.note_left_out(s, test, begun)
            self.note_kind_left_out(s, test, begun)
            self.note_later(s, test, begun)
            self.note_by_length(s, test, begun)
            self.note_once(s, begun)
            return status
        gate = self.gate_of(s.test, test)
        live_state, dead_state = ("yes", gate), ("no", gate)
        return self.both(s.body, s.orelse, live_state if known else dead_state, dead_state if known else live_state,
                         live=known)  # fmt: skip

    def asks_scores(self: Any, test: ir.Expr) -> bool:
        """Does a condition ask how large a score is, and not only whether there is any?

        ``if parts:``, ``if best is None:``, ``if window in scores:``, ``if n == 0:`` ask no more than that.
        """
        if isinstance(test, ir.BoolOp):
            return any(self.asks_scores(part) for part in test.values)
        if isinstance(test, ir.UnaryOp) and test.op == "not":
            return self.asks_scores(test.operand)
        if isinstance(test, ir.Compare):
            nothing = all(isinstance(x, ir.Const) and x.value == 0 for x in test.comparators)
            if nothing or set(test.ops) <= {"is", "is not", "in", "not in"}:
                return False
        seen = len(self.trace.events)
        v = self.ev(test)
        del self.trace.events[seen:]  # only looked at
        return bool(v.scores and v.flags & VAL) and v.kind not in {"seq", "dict"}

    def kept_by(self: Any, s: ir.If) -> list[str]:
        """What a branch on a validation score assigns besides scores and counters."""
        kept = []
        for stmt in s.body:
            call = stmt.value if isinstance(stmt, ir.ExprStmt) else None
            if isinstance(call, ir.Call) and isinstance(call.func, ir.Attr) and call.func.attr in KEEPING:
                kept.append(call.func.attr)
            if not isinstance(stmt, ir.Assign):
                continue
            for target in stmt.targets:
                pairs: Any = [(target, stmt.value)]
                if isinstance(target, ir.Collection) and isinstance(stmt.value, ir.Collection):
                    pairs = zip(target.elts, stmt.value.elts, strict=False)
                for t, value in pairs:
                    if isinstance(t, ir.Name) and not isinstance(value, (ir.Const, ir.UnaryOp)):
                        seen = len(self.trace.events)
                        v = self.ev(value)
                        del self.trace.events[seen:]  # only looked at; the branch itself is executed later
                        if not v.flags & (LOSS | BPB) and (v.kind != "const" or v.deps):
                            kept.append(t.id)
        return kept

    def both(
        self: Any, body: list, orelse: list, g1: tuple, g2: tuple, live: bool | None = None, picked: tuple[str, V] | None = None,
        sized: bool = False,
    ) -> int:  # fmt: skip
        names = self.scope.names
        before, begun = dict(names), len(self.trace.events)
        self.note_opened(body)
        self.note_opened(orelse)
        if g1[0]:
            self.guards.append(g1)
        if picked is not None:
            names[picked[0]] = picked[1]
        self.forks += 1
        self.sized += sized
        try:
            first = self.block(body)
        finally:
            self.forks -= 1
            self.sized -= sized
            if g1[0]:
                self.guards.pop()
            if picked is not None and names.get(picked[0]) is picked[1]:
                names[picked[0]] = before[picked[0]]
        after, between = dict(names), len(self.trace.events)
        names.clear()
        names.update(before)
        second = NORMAL
        if orelse:
            if g2[0]:
                self.guards.append(g2)
            self.forks += 1
            try:
                second = self.block(orelse)
            finally:
                self.forks -= 1
                if g2[0]:
                    self.guards.pop()
        self.ways = NO_WAYS
        for left, events in ((first, self.trace.events[begun:between]), (second, self.trace.events[between:])):
            if left in (CONTINUE, RETURN):
                for e in events:
                    if e.kind in ("SCORE", "STORE") and ("left" not in e.detail or left == CONTINUE):
                        # What follows in this turn is another way; after a return, only in this call.
                        e.detail["left"] = (tuple(self.loops), None if left == CONTINUE else tuple(self.stack))
        if first and second:
            # Neither way falls through: the statement after is not reached.
            names.update({k: v for k, v in after.items() if k not in names})
            return first if first == second else RETURN if RETURN in (first, second) and BREAK not in (first, second) \
                and CONTINUE not in (first, second) else max(first, second)  # fmt: skip
        if first and not second:
            # Only the other way goes on (a guard such as `if not ok: raise`).
            if live is True and self.dormant:
                self.guards.append(("no", g2[1]))  # the configuration leaves here: so is the rest of the block
            if live is True and first in (RETURN, RAISE):
                return first if not self.dormant else NORMAL
            if first in (BREAK, CONTINUE):
                self.left_early(before, after)
            return NORMAL
        if second:
            if live is False and self.dormant:
                self.guards.append(("no", g1[1]))
            if second in (BREAK, CONTINUE):
                self.left_early(before, dict(names))
            names.clear()
            names.update(after)
            return NORMAL
        self.ways = (after, dict(names)) if body and orelse else NO_WAYS
        otherwise = dict(names) if live is False else after
        for k, v in after.items():
            other = names.get(k)
            if other is None:
                names[k] = v
            elif other is not v:
                if live is True:
                    names[k] = join(v, other) if v.kind != "const" else v
                elif live is False:
                    names[k] = join(other, v) if other.kind != "const" else other
                else:
                    names[k] = join(v, other)
        if live is not None:
            self.note_closed_choice(g2[1] if live else g1[1], before, otherwise)
        return NORMAL

    def s_match(self: Any, s: ir.Match) -> int:
        subject = self.ev(s.subject)
        plain = subject.kind == "const" and not isinstance(subject.const, tuple)
        gate = self.gate_of(s.subject, subject)
        for case in s.cases:
            values = [self.ev(v) for v in case.values]
            bare = not case.binds and bool(values) and all(v.kind == "const" for v in values)
            for name in case.binds:
                self.scope.set(name, subject if plain and not values else V("val"))
            guard = True if case.guard is None else self.truth(self.ev(case.guard))
            taken: bool | None = None
            if plain and guard is not None and (bare or not values):
                taken = guard and (not values or any(v.const == subject.const for v in values))
            if taken is False and not (self.dormant and subject.knobs):
                continue
            if taken is True and not self.dormant:
                self.guards.append(("yes", gate))
                try:
                    return self.block(case.body)
                finally:
                    self.guards.pop()
            self.both(case.body, [], ("", ()), ("", ()))
        return NORMAL

    def s_try(self: Any, s: ir.Try) -> int:
        """A handler is what always raises: a fallback after a failed import or file access is not what the reported run does."""
        status = self.block(s.body)
        if status == RAISE:
            status = NORMAL
            for h in s.handlers:
                if h.name:
                    self.scope.set(h.name, V("val"))
                status = self.block(h.body)
                break
        elif status == NORMAL and s.orelse:
            status = self.block(s.orelse)
        if s.finalbody:
            final = self.block(s.finalbody)
            return final or status
        return status

    def left_early(self: Any, before: dict, after: dict) -> None:
        if self.early and len(self.early[-1]) < 4:
            changed = {k: v for k, v in after.items() if before.get(k) is not v and v.kind in ("val", "const", "seq")}
            if changed:
                self.early[-1].append(changed)


def rejects(body: list[ir.Stmt]) -> bool:
    """``if bad: raise ValueError(...)``: a check of the settings and nothing else."""
    if len(body) != 1 or not isinstance(body[0], ir.Raise):
        return False
    return not any(isinstance(n, ir.Name) and n.id == "SystemExit" for n in ir.walk(body[0]))


__all__ = ["Statements", "join_atoms", "summary"]
