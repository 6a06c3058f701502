"""What rules on plain source share: calls under their full names, the function around them, and who reaches it.

No rule lives here. Reachability is by name and over-approximate: a function counts as reached when
reached code mentions its name. The trace corrects it where it went: what it entered only through
branches that the configuration closes is not active.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from audit import ir
from audit.context import Context
from audit.model import Confidence, Finding, Step, Tristate
from audit.rules.base import Rule


@dataclass(eq=False)
class Place:
    """A function (None: the module's own level) of a module, with the class it belongs to."""

    path: str
    module: ir.Module
    function: ir.FunctionDef | None
    owner: ir.ClassDef | None = None
    names: frozenset[str] = field(default_factory=frozenset)
    #: the nodes of this place alone: nested functions and classes are places of their own
    own: list[Any] = field(default_factory=list)
    found: dict[tuple[type, ...], list[Any]] = field(default_factory=dict)

    def nodes(self, *kinds: type) -> list[Any]:
        """The nodes of these classes (all without any), in the order of the text."""
        if not kinds:
            return self.own
        if kinds not in self.found:
            several = [at for kind in kinds for at in self.by_kind.get(kind, ())]
            if len(kinds) > 1:
                several.sort()
            own = self.own
            self.found[kinds] = [own[at] for at in several]
        return self.found[kinds]

    @cached_property
    def by_kind(self) -> dict[type, list[int]]:
        """Where the nodes of each class stand in ``own``."""
        found: dict[type, list[int]] = {}
        for at, n in enumerate(self.own):
            found.setdefault(type(n), []).append(at)
        return found

    @cached_property
    def params(self) -> frozenset[str]:
        return frozenset(p.name for p in self.function.params) if self.function is not None else frozenset()

    @cached_property
    def by_name(self) -> dict[str, list[ir.Assign]]:
        """The assignments to each name here, in the order of the text."""
        found: dict[str, list[ir.Assign]] = {}
        for n in self.nodes(ir.Assign):
            for name in {t.id for t in n.targets if isinstance(t, ir.Name)}:
                found.setdefault(name, []).append(n)
        return found

    def assigned(self, name: str) -> list[Any]:
        """What is assigned to this name here."""
        return [n.value for n in self.by_name.get(name, ())]

    @cached_property
    def steps(self) -> list[Any]:
        """Assignments, calls and returns in the order of the text."""
        return sorted(self.nodes(ir.Assign, ir.Call, ir.Return), key=lambda n: (n.line, n.col))


@dataclass(slots=True)
class _Back:
    """Stands behind a class's body among the nodes to visit: what follows belongs to ``owner`` again."""

    owner: ir.ClassDef | None


def _main_guard(test: Any) -> bool:
    """``__name__ == "__main__"``, either way round."""
    if not isinstance(test, ir.Compare) or len(test.comparators) != 1 or test.ops[0] != "==":
        return False
    return any(isinstance(x, ir.Name) and x.id == "__name__" for x in (test.left, test.comparators[0]))


def code_of(ctx: Context) -> Code:
    """The program's `Code`, built once for all rules that ask for it."""
    if "code" not in ctx.shared:
        ctx.shared["code"] = Code(ctx)
    return ctx.shared["code"]  # type: ignore[no-any-return]


class Code:
    """The program's functions, their names' imports, and which of them the entry point reaches."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.places: list[Place] = []
        self.imports: dict[str, dict[str, str]] = {}
        #: names that were looked up, by place and node: rules ask for the same calls again and again
        self._dotted: dict[tuple[int, int], tuple[str, Place, Any]] = {}
        for key, module in ctx.modules.items():
            self.imports[module.path] = {}
            top = Place(module.path, module, None)
            body: list[Any] = list(module.body)
            guarded: list[Any] = []
            if key != ctx.primary:
                # What stands under a module's main guard does not run on import, but its functions are there.
                guarded = [s for s in body if isinstance(s, ir.If) and _main_guard(s.test)]
                body = [s for s in body if s not in guarded]
            self._visit(top, body)
            for s in guarded:
                self._visit(Place(module.path, module, None), [s], kept=False)
        self.reached = self._reach()

    def _visit(self, place: Place, body: list[Any], kept: bool = True) -> None:
        """Fills a place with its nodes and the names that they mention, then the functions inside it."""
        if kept:
            self.places.append(place)
        mentioned: set[str] = set()
        nested: list[tuple[ir.FunctionDef, ir.ClassDef | None]] = []
        owner: ir.ClassDef | None = None
        todo: list[Any] = list(body)
        nodes = place.own
        while todo:
            node = todo.pop()
            cls = type(node)
            if cls is ir.FunctionDef:
                nested.append((node, owner))
                if owner is None:
                    todo += node.decorators
                    todo += [p.default for p in node.params if p.default is not None]
                continue
            if cls is ir.ClassDef:
                todo += (*node.decorators, *node.bases, _Back(owner), *reversed(node.body))
                owner = node
                continue
            if cls is _Back:
                owner = node.owner
                continue
            nodes.append(node)
            if cls is ir.Name:
                mentioned.add(node.id)
                continue
            if cls is ir.Attr:
                mentioned.add(node.attr)
            elif cls is ir.Const:
                if isinstance(node.value, str) and node.value.isidentifier():
                    mentioned.add(node.value)
                continue
            elif cls is ir.Import:
                self.imports[place.path] |= imported(node)
            below = ir.children(node)
            below.reverse()
            todo += below
        place.names = frozenset(mentioned)
        for function, owner in nested:
            self._visit(Place(place.path, place.module, function, owner), list(function.body))

    def _reach(self) -> set[int]:
        """Ids of the places that module-level code mentions, over any number of steps."""
        by_name: dict[str, list[Place]] = {}
        for p in self.places:
            if p.function is not None:
                by_name.setdefault(p.function.name, []).append(p)
                if p.owner is not None and p.function.name.startswith("__"):
                    by_name.setdefault(p.owner.name, []).append(p)
                if p.function.name == "forward" and p.owner is not None:
                    by_name.setdefault(p.owner.name, []).append(p)
        reached: set[int] = set()
        todo = [p for p in self.places if p.function is None]
        while todo:
            place = todo.pop()
            if id(place) in reached:
                continue
            reached.add(id(place))
            for name in place.names:
                todo += by_name.get(name, ())
        return reached

    def state(self, place: Place, node: Any) -> tuple[Tristate, str | None]:
        """Does the submitted configuration get to a node of the place, and what decides."""
        trace = self.ctx.trace
        if trace is not None:
            met = trace.reach.met.get(id(node))
            if met is not None:
                return met.active, met.gate
            if id(node) in self.shut:
                return "no", self.shut[id(node)]
        return self.active(place), None

    def first_text(self, call: ir.Call) -> str | None:
        """The text that a call is given first, or that a pair given first begins with, where that is known."""
        met = self.ctx.trace.reach.met.get(id(call)) if self.ctx.trace is not None else None
        if met is not None and met.first is not None:
            return met.first
        first: Any = call.args[0] if call.args else None
        if isinstance(first, ir.Collection) and first.elts:
            first = first.elts[0]
        return first.value if isinstance(first, ir.Const) and isinstance(first.value, str) else None

    @cached_property
    def shut(self) -> dict[int, str]:
        """Nodes that constants keep from being run, by id, and what does."""
        return self.ctx.trace.reach.shut() if self.ctx.trace is not None else {}

    def active(self, place: Place) -> Tristate:
        """Does the submitted configuration get to this place."""
        trace = self.ctx.trace
        if place.function is not None and trace is not None:
            key = id(place.function)
            if key in trace.entered:
                return "yes"
            if key in trace.dormant_entered:
                return "no"
        return "yes" if id(place) in self.reached else "no"

    def calls(self) -> Iterator[tuple[Place, ir.Call, str]]:
        """Every call with its place and its dotted name, imports resolved ("" where it has none)."""
        yield from self._calls

    @cached_property
    def _calls(self) -> list[tuple[Place, ir.Call, str]]:
        return [(place, node, self.dotted(place, node.func)) for place in self.places for node in place.nodes(ir.Call)]

    def dotted(self, place: Place, node: Any) -> str:
        """``torch.nn.functional.pad`` for ``F.pad``; "" for what is no name with attributes."""
        key = id(place), id(node)
        known = self._dotted.get(key)
        if known is None:
            known = self._dotted[key] = self._spelled(place, node), place, node  # both stay, so that no other gets their ids
        return known[0]

    def _spelled(self, place: Place, node: Any) -> str:
        parts: list[str] = []
        while isinstance(node, ir.Attr):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ir.Name):
            return ""
        root = node.id if node.id in place.params else self.imports[place.path].get(node.id, node.id)
        if not parts:
            return root
        parts.append(root)
        return ".".join(reversed(parts))


def is_ln2(code: Code, place: Place, node: Any) -> bool:
    """Is an expression ln 2: as a number, as ``math.log(2)``, or by a usual name."""
    if isinstance(node, ir.Const):
        return isinstance(node.value, float) and abs(node.value - 0.693147) < 1e-4
    if isinstance(node, ir.Call) and len(node.args) == 1 and isinstance(node.args[0], ir.Const):
        return node.args[0].value == 2 and code.dotted(place, node.func).rpartition(".")[2] == "log"
    return isinstance(node, ir.Name) and node.id.lower() in ("ln2", "log2", "ln_2", "log_2", "_ln2")


def imported(node: ir.Import) -> dict[str, str]:
    """Local name -> dotted origin."""
    names: dict[str, str] = {}
    for name, alias in node.names:
        if node.is_from:
            names[alias or name] = f"{node.module}.{name}" if node.module else name
        elif alias:
            names[alias] = name
        else:
            names[name.split(".")[0]] = name.split(".")[0]
    return names


def finding(
    rule: Rule,
    code: Code,
    place: Place,
    node: ir.Node,
    message: str,
    *,
    confidence: Confidence = "high",
    steps: tuple[Step, ...] = (),
) -> Finding:
    """A finding at a node of the source."""
    active, gate = code.state(place, node)
    return Finding(
        rule=rule.id, name=rule.name, severity=rule.severity, authority=rule.authority, confidence=confidence,
        message=message, path=place.path, line=max(node.line, 1), end_line=max(node.end_line, node.line, 1), column=node.col + 1,
        active=active, gate=gate,
        trace=steps or (Step(path=place.path, line=max(node.line, 1), column=node.col + 1, message=message),),
    )  # fmt: skip
