"""Modules that the reported run imports and that the submission lacks: who can tell what a model built of them sees.

No rule lives here. A module counts as absent where the trace came past its import and found no file for it. It does not
where it is a library: one that everybody knows, or one that the submission's requirements and its ``pip install`` lines
name; where a compiled source or a build script beside the script makes it; and where the import may fail
(``try: … except ImportError``), since then the script goes on without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit import ir
from audit.context import Context
from audit.rules.code import Code, Place, imported
from audit.rules.layers import Layers
from audit.rules.rank_shares import last
from audit.rules.settings import closed_by, decided

_BUILDS = re.compile(r"(?:\.(?:cpp|cc|cxx|c|cu|cuh|h|hpp|pyx|rs|sh|toml|cmake)|(?:^|/)(?:setup\.py|Makefile|makefile|CMakeLists\.txt|BUILD))$")
_REQUIREMENTS = re.compile(r"(?:^|/)(?:[\w.-]*requirements[\w.-]*\.(?:txt|in)|environment\.ya?ml)$")
_TELLS = re.compile(r"(?:^|/)(?:README[\w.-]*|[\w.-]+\.sh|Dockerfile)$", re.I)
_INSTALL = re.compile(r"\b(?:pip3?|uv|conda|mamba)\b[^\n]*\b(?:install|add)\b((?:[^\n\\]|\\\n?)*)")
#: ways to ask what something is, which run nothing of it
_ASKS = frozenset({"isinstance", "issubclass", "type", "hasattr"})


def is_absent(ctx: Context, module: str) -> bool:
    """Is a module that the trace found no file for nowhere else either: neither built here nor installed."""
    known: dict[str, bool] = ctx.shared.setdefault("absent", {})
    if module not in known:
        known[module] = not _made_here(ctx, module) and not _installed(ctx, module)
    return known[module]


def _made_here(ctx: Context, module: str) -> bool:
    if ctx.files is None:
        return False
    word = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(module)}(?![A-Za-z0-9_])")
    for path in ctx.files.paths:
        if f"/{module}/" in f"/{path}" or re.search(rf"(?:^|/){re.escape(module)}\.\w", path):
            return True
        if _BUILDS.search(path) and word.search(ctx.files.text(path) or ""):
            return True
    return False


def _installed(ctx: Context, module: str) -> bool:
    if ctx.files is None:
        return False
    name = "[-_.]".join(map(re.escape, re.split("[-_.]", module)))
    line = re.compile(rf"^\s*(?:-\s+)?{name}\s*(?:$|[\[=<>~!;@#,])", re.I | re.M)
    word = re.compile(rf"(?<![\w./-]){name}(?![\w/-])|/{name}(?:\.git)?(?![\w/-])", re.I)
    for path in ctx.files.near():
        if _REQUIREMENTS.search(path) and line.search(ctx.files.text(path) or ""):
            return True
        if _TELLS.search(path) and any(word.search(m[1]) for m in _INSTALL.finditer(ctx.files.text(path) or "")):
            return True
    return False


def part_of_the_model(code: Code, layers: Layers) -> tuple[str, str] | None:
    """A name from an absent module that a model is built of or computes with, and the module."""
    trace = code.ctx.trace
    absent = {m for m in trace.absent if is_absent(code.ctx, m)} if trace is not None else set()
    if not absent:
        return None
    taken = {path: {n: o for n, o in names.items() if o.partition(".")[0] in absent} for path, names in _needed(code)}
    if not any(taken.values()):
        return None
    for place in _of_models(code):
        names = taken.get(place.path)
        if not names or place.names.isdisjoint(names) or code.active(place) != "yes":
            continue
        if place.owner is not None and trace.leaves_out(place.owner.name):
            continue
        for node in _computed_with(place, layers):
            if node.id in names and code.state(place, node)[0] == "yes":
                return node.id, names[node.id].partition(".")[0]
    return None


def _needed(code: Code) -> Iterator[tuple[str, dict[str, str]]]:
    """Per module: what it imports where a failure would end the run."""
    for module in code.ctx.modules.values():
        spared = {
            id(n)
            for t in ir.walk(module.body)
            if isinstance(t, ir.Try) and any(not (h.body and isinstance(h.body[-1], ir.Raise)) for h in t.handlers)
            for n in ir.walk(t.body)
        }
        names: dict[str, str] = {}
        for n in ir.walk(module.body):
            if isinstance(n, ir.Import) and id(n) not in spared:
                names |= imported(n)
        yield module.path, names


def _of_models(code: Code) -> Iterator[Place]:
    """The constructors and forwards of the models' classes, and what of the program these call, over any number of steps."""
    models = {"Module"}
    classes = {p.owner.name: p.owner for p in code.places if p.owner is not None}
    for _ in range(4):
        models |= {name for name, c in classes.items() if any(last(b) in models for b in c.bases)}
    by_name: dict[str, list[Place]] = {}
    for p in code.places:
        if p.function is not None:
            by_name.setdefault(p.function.name, []).append(p)
    todo = [p for name in ("__init__", "forward", "__call__") for p in by_name.get(name, ()) if p.owner is not None and p.owner.name in models]
    seen: set[int] = set()
    while todo:
        p = todo.pop()
        if id(p) in seen:
            continue
        seen.add(id(p))
        yield p
        called = {ir.called(n) for n in p.nodes(ir.Call)}
        todo += [q for name in called for q in by_name.get(name, ()) if q.owner is None or q.owner.name in models]


def _computed_with(place: Place, layers: Layers) -> Iterator[ir.Name]:
    """Names in a place, without those in branches that its settings keep closed and those that only ask for a kind."""
    assert place.function is not None
    settings = layers.settings(place)
    given = {k.removeprefix("__init__."): v for k, v in settings.items() if k.startswith("__init__.")} if place.function.name == "__init__" else {}
    passed = set(closed_by(place.function.body, settings))
    for n in place.nodes(ir.If, ir.IfExp):
        test = decided(n.test, settings, given)
        for way, shut in ((n.body, test is False), (n.orelse, test is True)):
            if shut and way:
                passed |= {id(x) for x in ir.walk(way)}
    for n in place.nodes(ir.Call):
        if isinstance(n.func, ir.Name) and n.func.id in _ASKS:
            passed |= {id(x) for a in n.args for x in ir.walk(a)}
    yield from (n for n in place.nodes(ir.Name) if id(n) not in passed)


__all__ = ["is_absent", "part_of_the_model"]
