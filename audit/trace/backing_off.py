"""Which of several contexts answers for a token, and whether one does at all, where the token's own entry decides.

``for order in (5, 4, 3): if token in row: p = row[token] / n; break``: a token that the long context has not seen gets what
a shorter one, or the model, gives it, and nothing was taken off the others for that. Three forms: the loop ends, or the
function returns, where the token was seen; it goes on where not; the function returns None and its caller keeps what the
model says. What a test asks is compared with the scored token by the rule (`audit.trace.caches.splits`).

No such thing where the context alone is asked for, where an unseen token gets nothing, or where every miss takes a share
off what follows (the escapes of PPM).
"""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.gates import mixed, within
from audit.trace.values import COUNT, LOSS, META, VAL, V, clone, kinds, seq

_COPIES = (ir.Name, ir.Sub, ir.Attr)


def answer(v: V) -> bool:
    """Something that a table says, and no loss or score yet."""
    return v.kind == "val" and mixed(v) and bool(v.flags & COUNT) and not v.flags & META and not v.scores


def leaves(way: list[ir.Stmt], *jumps: str) -> bool:
    return bool(way) and isinstance(way[-1], ir.Jump) and way[-1].kind in jumps


def after(body: list[ir.Stmt], s: ir.Stmt) -> list[ir.Stmt] | None:
    """What follows a statement in its own block and in those around it, up to a loop; None where it is not in the body."""
    for n, x in enumerate(body):
        if x is s:
            return body[n + 1 :]
        ways = [x.body, x.orelse] if isinstance(x, ir.If) else [x.body] if isinstance(x, (ir.With, ir.Try)) else []
        for way in ways:
            if (rest := after(way, s)) is not None:
                return [*rest, *body[n + 1 :]]
    return None


def shares(body: list[ir.Stmt], taken: list[ir.Stmt]) -> bool:
    """Does a turn change a figure that it hands on (``escape *= m / (n + m)``) other than where the token was found."""
    own = {id(n) for n in ir.walk(taken)}
    for n in ir.walk(body):
        if id(n) in own:
            continue
        if isinstance(n, ir.AugAssign) and (n.op in ("*", "/") or not isinstance(n.value, ir.Const)):
            return True
        if isinstance(n, ir.Assign) and isinstance(n.value, ir.BinOp):
            names = {t.id for t in n.targets if isinstance(t, ir.Name)}
            if any(isinstance(x, ir.Name) and x.id in names for x in ir.walk([n.value])):
                return True
    return False


def given_to(name: str, way: list[ir.Stmt]) -> list[ir.Expr]:
    return [n.value for n in way if isinstance(n, ir.Assign) and any(isinstance(t, ir.Name) and t.id == name for t in n.targets)]


class BackingOff:
    """Mixed into the machine; see `audit.trace.machine`."""

    def goes_on(self: Any, s: ir.If, test: V, taken: list[ir.Stmt]) -> bool:
        """Does the innermost loop, one over contexts and not over tokens, look further where ``taken`` is not."""
        if not self.bodies or not self.loops:
            return False
        body = self.bodies[-1]
        rest = after(body, s)
        if rest is None or any((isinstance(n, ir.Jump) and n.kind == "break") or isinstance(n, ir.Return) for n in rest):
            return False
        other = s.orelse if taken is s.body else s.body
        if leaves(other, "break") or any(isinstance(n, ir.Return) for n in other):
            return False
        return self.over_contexts(test) and not shares(body, taken)

    def over_contexts(self: Any, test: V, loop: int = 0) -> bool:
        """Is something looked up for a token that the (innermost) loop did not choose."""
        loop = loop or self.loops[-1][0]
        asked = {k[1] for k in test.keys if k[0] == "lookup"}
        return any(
            e.id in asked and e.kind == "LOOKUP" and all(x != loop for chosen, _, _ in e.atoms for x, _ in chosen)
            for e in reversed(self.trace.events)
        )

    def note_first_seen(self: Any, s: ir.If, test: V, before: dict[str, V], left: list[dict[str, V]]) -> None:
        """``if row[token] > 0: q = row[token] / n; break``"""
        taken = s.body if leaves(s.body, "break") else s.orelse if leaves(s.orelse, "break") else None
        if taken is None or not left or not self.goes_on(s, test, taken):
            return
        for changed in left:
            for name, now in changed.items():
                if answer(now) and now is not before.get(name):
                    changed[name] = self.split(now, test, s)

    def note_unseen_skipped(self: Any, tests: list[tuple[V, ir.If, dict[str, V]]], loop: int) -> None:
        """At the end of a turn that ends the loop: what was found after ``if token not in row: continue``."""
        names = self.scope.names
        for test, s, before in tests:
            if leaves(s.body, "continue") and self.over_contexts(test, loop) and not shares(self.bodies[-1], []):
                for name, now in list(names.items()):
                    if answer(now) and now is not before.get(name):
                        names[name] = self.split(now, test, s)

    def note_asked(self: Any, s: ir.If, test: V) -> None:
        """``if row[token] == 0: return None``: what is returned afterwards was found."""
        if len(s.body) == 1 and isinstance(s.body[0], ir.Return) and gives_nothing(s.body[0]) and not s.orelse:
            self.scope.asked.append((test, s))

    def known_nothing(self: Any, e: ir.Expr, v: V) -> V:
        """``q or 0.0``, ``q if q is not None else 0.0``: nothing is found, and nothing is given."""
        if not isinstance(e, ir.Const) or e.value is None or "split" not in kinds(v):
            return v
        nothing = {("split", x.id) for x in self.trace.events if x.kind == "SPLIT" and x.detail.get("nothing")}
        out = clone(v)
        out.keys = v.keys - nothing
        return out

    def note_made_zero(self: Any, s: ir.If) -> None:
        """``if q is None: q = 0.0``"""
        if not isinstance(s.test, ir.Compare) or s.test.ops != ["is"] or not isinstance(asked := s.test.left, ir.Name) or s.orelse:
            return
        for value in given_to(asked.id, s.body) if asked.id in self.scope.names else ():
            self.scope.names[asked.id] = self.known_nothing(value, self.scope.names[asked.id])

    def as_returned(self: Any, s: ir.Return, v: V) -> V:
        """What a function returns where the token was seen, while elsewhere it looks further or returns None."""
        if v.kind == "seq" and v.data and v.rest is None:
            parts = [self.as_returned(s, x) for x in v.data]
            return seq(parts) if any(x is not y for x, y in zip(parts, v.data, strict=True)) else v
        if not answer(v):
            return v
        for test, asked in self.scope.asked:
            if asked.line <= s.line:
                return self.found(v, test, asked)
        for test, asked, depth in reversed(self.asking):
            if depth != len(self.stack):
                break
            taken = asked.body if within(s.line, asked.body) else asked.orelse
            if self.goes_on(asked, test, taken):
                return self.split(v, test, asked)  # type: ignore[no-any-return]
            if self.ends_with_nothing(asked):
                return self.found(v, test, asked)
        for test, asked, _before in self.passed:
            if not self.bodies or after(self.bodies[-1], asked) is None or not within(s.line, self.bodies[-1]):
                continue
            if leaves(asked.body, "continue") and self.over_contexts(test) and not shares(self.bodies[-1], []):
                return self.split(v, test, asked)  # type: ignore[no-any-return]
        return v

    def found(self: Any, v: V, test: V, node: ir.If) -> V:
        out: V = self.split(v, test, node)
        self.trace.events[-1].detail["nothing"] = True
        return out

    def ends_with_nothing(self: Any, s: ir.If) -> bool:
        """Does the function go on after this branch, the last statement but one, to return None."""
        body = self.scope.body
        if s.orelse or not any(s is x for x in body):
            return False
        rest = after(body, s)
        return not rest or (len(rest) == 1 and isinstance(rest[0], ir.Return) and gives_nothing(rest[0]))

    def note_two_ways(self: Any, s: ir.If, test: V) -> None:
        """``if q > 0: lp = log(mix(p, q))`` / ``else: lp = model_lp``"""
        if not s.orelse:
            return
        one, other = self.ways
        names = self.scope.names
        for name in self.interest.assigned(s.body)[0] & self.interest.assigned(s.orelse)[0]:
            a, b = one.get(name), other.get(name)
            if a is None or b is None or not a.kind == b.kind == "val" or not (a.flags & b.flags & LOSS and a.flags & b.flags & VAL):
                continue
            if mixed(a) == mixed(b) or name not in names or "split" in kinds(names[name]):
                continue
            copied = given_to(name, s.orelse if mixed(a) else s.body)
            if copied and all(self.untouched_copy(x) for x in copied):
                names[name] = self.split(names[name], test, s)


    def untouched_copy(self: Any, e: ir.Expr, depth: int = 0) -> bool:
        """A name for what the model says, from which no room was taken for something else."""
        if isinstance(e, ir.Name) and depth < 4 and (meant := self.scope.meaning.get(e.id)) is not None:
            return not any(isinstance(n, ir.BinOp) for n in ir.walk([meant])) and (not isinstance(meant, ir.Name) or bool(self.untouched_copy(meant, depth + 1)))
        return isinstance(e, _COPIES)


def gives_nothing(s: ir.Return) -> bool:
    return s.value is None or (isinstance(s.value, ir.Const) and s.value.value is None)


__all__ = ["BackingOff"]
