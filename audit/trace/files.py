"""Files and modules: environment, imports, reading, writing, reports."""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.bests import alone
from audit.trace.floors import divided_by
from audit.trace.reach import TYPED
from audit.trace.repeats import Outside
from audit.trace.scaled import figures
from audit.trace.shares import OF_WORLD
from audit.trace.started import named
from audit.trace.values import (
    ART,
    BPB,
    COUNT,
    FILE,
    PARAM,
    RAND,
    RATIO,
    SOURCES,
    TRAIN,
    VAL,
    WHOLE_ATOMS,
    Link,
    V,
    clone,
    const,
    derive,
    summary,
)
from audit.trace.words import OFF, canonical, pointed


class Files:
    """Mixed into the machine; see `audit.trace.machine`."""

    # ------------------------------------------------------------------ environment
    def env_present(self: Any, name: str) -> bool:
        """Is the variable set; what nobody is known to have set is not, as for ``environ.get``."""
        return self.knobs.value(name, None)[0] is not None

    def env_set(self: Any, name: Any, value: V) -> None:
        self.environ_set[name] = value

    def environ(self: Any, args: list[V], node: Any, required: bool = False) -> V:
        if not args or args[0].kind != "const" or not isinstance(args[0].const, str):
            return V("val")
        name = args[0].const
        default = args[1] if len(args) > 1 else const(None)
        Outside.reads += 1  # the program may set it later
        if name in self.environ_set:
            return self.environ_set[name]
        plain = default.const if default.kind == "const" else None
        got = self.knobs.value(name, plain)
        value = got[0]
        self.trace.knobs_read[name] = got
        self.trace.knob_places.setdefault(name, (self.scope.path, getattr(node, "line", 0)))
        if name in ("RANK", "LOCAL_RANK"):
            out = V("val")
            return out
        if value is None or value == plain:
            out = clone(default)
            if out.kind != "const" and value is None:
                return out
            if required and value is None:
                return V("val")
            if value is not None:
                out = const(value)
        else:
            out = const(value)
        if name != "WORLD_SIZE":
            out.knobs = default.knobs | {(name, str(value) if value is not None else "unset")}
        else:
            out.keys = frozenset([OF_WORLD])
        if type(out.const) is str:
            out.flags = self.text_flags(out.const)
        return out

    def given_by_hand(self: Any, word: V, words: V) -> V | None:
        """``"PREPARE" in os.environ`` or ``"--prepare" in sys.argv``, by what the papers say was set or typed."""
        if word.kind != "const" or not isinstance(word.const, str):
            return None
        if words.kind == "lib" and words.data == "os.environ":
            if word.const in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
                return const(True)
            given = self.env_present(word.const)
        elif words.kind == "seq" and words.rest is not None and TYPED in words.rest.keys and word.const.startswith("-"):
            value = self.knobs.value(word.const, None)[0]
            given = value is not None and str(value) not in OFF
        else:
            return None
        out = const(given)
        out.knobs = frozenset([(word.const, "given" if given else "not given")])
        return out

    # ------------------------------------------------------------------ imports and names
    def do_import(self: Any, s: ir.Import) -> None:
        for name, alias in s.names:
            if not s.is_from:
                if (found := self.local_module(name)) is not None and alias is None and "." not in name:
                    self.scope.set(name, found)
                elif found is not None:
                    self.scope.set(alias or name.split(".")[0], found)
                else:
                    self.note_absent(name)
                    self.scope.set(alias or name.split(".")[0], V("lib", data=canonical(name if alias else name.split(".")[0])))
                continue
            module = s.module or ""
            found = self.local_module(module)
            if found is not None:
                scope = found.data
                if name == "*":
                    listed = scope.names.get("__all__")
                    public = {x.const for x in listed.data or () if x.kind == "const"} if listed is not None and listed.kind == "seq" else None
                    for k, v in list(scope.names.items()):
                        if k in public if public is not None else not k.startswith("_"):
                            self.scope.set(k, v)
                else:
                    v = scope.names.get(name)
                    self.scope.set(alias or name, v if v is not None else V("val"))
            elif name != "*":
                if module in ("", ".") and (found := self.local_module(name)) is not None:
                    self.scope.set(alias or name, found)
                else:
                    self.note_absent(module)
                    dotted = canonical(f"{module}.{name}")
                    self.scope.set(alias or name, self.patched.get(dotted) or V("lib", data=dotted))

    def local_module(self: Any, name: str) -> V | None:
        """A module of the submission: executed once in a scope of its own."""
        if not name:
            return None
        tail = name.replace(".", "/") + ".py"
        # Beside the importing file first: several folders of one submission may hold the same name.
        folder = self.scope.path.rpartition("/")[0]
        near = f"{folder}/{tail}" if folder else tail
        names = [p for p in self.modules if p != self.primary and (p == tail or p.endswith("/" + tail))]
        path = near if near in names else next(iter(names), None)
        return self.load_module(path, name) if path is not None else None

    def module_file(self: Any, file: str, name: str | None = None) -> V | None:
        """The module that is read from this file, of whose path the end is known; beside the script that asks for it, or else the nearest above.

        ``name``: what it is called while it runs, the file's own name where None.
        """
        file = file.removeprefix("./").lstrip("/")
        names = [p for p in self.modules if p not in (self.primary, self.scope.path) and (p == file or p.endswith("/" + file))]
        folder = self.scope.path.rpartition("/")[0]
        while folder:
            if f"{folder}/{file}" in names:
                break
            folder = folder.rpartition("/")[0]
        path = f"{folder}/{file}" if folder else file if file in names else next(iter(names), None)
        return self.load_module(path, name or file.rpartition("/")[2].removesuffix(".py")) if path is not None else None

    def load_module(self: Any, path: str, name: str) -> V:
        """Executes a module's file, the first time that it is asked for."""
        if path in self.loaded:
            found: V = self.loaded[path]
            return found
        scope = self.module_scope(path, name)
        self.loaded[path] = v = V("module", data=scope)
        self.run_module(path, scope)
        return v

    def running_module(self: Any, name: V) -> V | None:
        """``sys.modules[name]``: the module that asks, or one that was imported."""
        scope = self.scope.globals_
        own = scope.names.get("__name__")
        if name.kind == "const" and own is not None and name.const == own.const:
            return V("module", data=scope)
        return self.local_module(name.const) if name.kind == "const" and isinstance(name.const, str) else None

    def module_scope(self: Any, path: str, name: str) -> Any:
        scope = type(self.scope)(None, None, "<module>", path)
        scope.names.update({"__name__": const(name), "__file__": const(path)})
        return scope

    def run_module(self: Any, path: str, scope: Any) -> None:
        """Executes the module's statements in that scope."""
        outer, self.scope = self.scope, scope
        self.returns.append([])
        try:
            self.block(self.modules[path].body)
        finally:
            self.scope = outer
            self.returns.pop()

    # ------------------------------------------------------------------ files
    def path_join(self: Any, args: list[V]) -> V:
        if args and all(a.kind == "const" for a in args):
            out = const("/".join(str(a.const) for a in args))
            for a in args:
                out.knobs |= a.knobs
            out.flags = self.text_flags(out.const)
            return out
        return named(derive(args), args[-1]) if args else derive(args)

    def read(self: Any, last: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        src = args[0]
        mode = args[1] if len(args) > 1 else kwargs.get("mode")
        if last == "open" and mode is not None and mode.kind == "const" and isinstance(mode.const, str) and set(mode.const) & set("wax"):
            out = V("file", data=src)
            return out
        if last == "open":
            out = derive([src])
            if (src.kind == "const" and isinstance(src.const, str)) or begun(src) is not None:
                out.const = ("path", src.const)
            return self.with_file(out, src)
        if last in ("frombuffer", "load", "from_buffer", "unpack", "fromstring") and not src.flags & (VAL | TRAIN) and src.kind == "val":
            if last == "load" and not src.flags and "*" in self.files:
                return self.with_file(derive([src]), src)  # a path that is not known, or a buffer
            return derive([src])
        out = derive([src])
        out = self.with_file(out, src)
        if not out.flags & (VAL | TRAIN | ART):
            out.flags |= FILE
        if out.flags & VAL:
            out.atoms = WHOLE_ATOMS
            self.note_read_file(out, node)
        elif out.flags & TRAIN:
            self.note_read_file(out, node)
        return out

    def note_read_file(self: Any, out: V, node: Any) -> None:
        """Tokens come from a file here: the first step of their path, unless this run wrote it."""
        self.event("READ", node, out)
        if out.flags & ART:
            return
        line = getattr(node, "line", 0)
        out.via = (Link(self.scope.path, line, tuple(self.stack), out.flags, out.keys, out.via, read=True),)

    def with_file(self: Any, out: V, src: V) -> V:
        key = str(src.const) if src.kind == "const" else begun(src)
        stored = self.files.get(key) if key is not None else None
        if stored is None and (key is None or begun(src) is not None) and not src.flags & (VAL | TRAIN):
            stored = self.files.get("*")
        if stored is not None and stored.flags & SOURCES == RAND and src.flags & (VAL | TRAIN):
            stored = None  # made up where there was no such shard
        if stored is not None:
            Outside.reads += 1
            out.absorb(stored)
            out.models |= stored.models
            out.flags |= ART
            out.flags &= ~PARAM
        if out.flags & VAL and not out.atoms and not out.flags & ART:
            out.atoms = WHOLE_ATOMS
        return out

    def save(self: Any, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        values = [summary(a) for a in [*args, *kwargs.values()]]
        content = derive([v for v in values if v.kind != "file"])
        targets = [a for a in args if a.kind == "const" and isinstance(a.const, str)]
        files = [a.data for a in args if a.kind == "file"]
        where = targets[-1] if targets else files[0] if files else None
        if where is None:
            buffers = [a for a in args if a.kind == "val" and not a.flags]
            if buffers:
                buffers[-1].absorb(content)
                buffers[-1].models |= content.models
                return const(None)
            self.write_file(None, content, node)
            return const(None)
        self.write_file(where, content, node)
        return const(None)

    def written_to(self: Any, file: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        """``path.write_text(content)``, ``path.write_bytes(content)``: a figure that is written as text is told."""
        if name == "write_text" and args[0].flags & BPB and args[0].scores:
            told: V = self.report(args, kwargs, node)
            return told
        self.write_file(file, summary(args[0]), node)
        return const(None)

    def write_file(self: Any, where: V | None, content: V, node: Any) -> None:
        key = "*" if where is None else str(where.const) if where.kind == "const" else begun(where) or "*"
        for k in {key, "*"}:
            if k in self.files:
                old = self.files[k]
                if k != "*" and not self.dormant:
                    old = V("val")
                merged = derive([old, content])
                merged.kind = "val"
                self.files[k] = merged
            else:
                self.files[k] = derive([content])
        self.event("SAVE", node, content, path=key, weights=bool(content.models or content.flags & PARAM))

    # ------------------------------------------------------------------ reports
    def report(self: Any, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        told = [summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()]]
        out = derive(told)
        if out.flags & BPB and out.scores:
            assumed = sorted(k[1:] for k in out.keys if k[0] == "assumed")
            said = {"text": printed_text(args), "words": written(args), "beside": told_beside(args)}
            self.event("REPORT", node, out, taint_ids=out.taint, assumed=assumed, best=alone(told), smaller=figures(out), **divided_by(out), **said)
        return const(None)

    def native(self: Any, args: list[V], kwargs: dict[str, V], node: Any, name: str) -> V:
        """A compiled helper: every array argument may be filled from every other."""
        args = [pointed(a) for a in args]
        values = [summary(a) for a in [*args, *kwargs.values()]]
        out = derive(values)
        helper = self.natives.get(name)
        written = node.args if isinstance(node, ir.Call) and len(node.args) == len(args) else []
        if helper is not None and helper.outputs:
            for i, part in enumerate(written):  # ``f(x, out[1:])`` fills ``out``
                if i in helper.outputs and isinstance(part, ir.Sub) and isinstance(part.value, ir.Name):
                    args[i] = self.ev(part.value)
        e = self.event("COMPILE", node, out, function=name, helper=helper, doubt=helper is not None and bool(helper.leaks) and all(o.doubt for o in helper.leaks))
        if helper is not None and helper.outputs:
            for i, a in enumerate(args):
                o = helper.outputs.get(i)
                if o is None or a.kind not in ("val", "bound"):
                    continue
                a.keys = a.keys | {("leak" if o.leak else "hint", e.id)}
                a.flags |= (out.flags & VAL) | COUNT | (RATIO if o.ratio else 0)
            return out
        for a in args:
            if a.kind == "val" and not a.flags & VAL:
                a.absorb(out)
                a.keys = a.keys | {("hint", e.id)}
        return out


def begun(path: V) -> str | None:
    """The key of a path of which only the beginning is known (``f"/tmp/counter_{run}"``): the same text is the same file."""
    return str(path.const) if isinstance(path.const, tuple) and path.const[:1] == ("text",) and path.const[1] else None


def printed_text(args: list[V]) -> str | None:
    """What the printed line certainly begins with; None where that is not known."""
    if not args:
        return None
    first = args[0]
    if first.kind == "const" and isinstance(first.const, str):
        return first.const
    if isinstance(first.const, tuple) and first.const[:1] == ("text",):
        return str(first.const[1]) or None
    return None


def written(args: list[V]) -> str | None:
    """Everything that the printed line says besides its figures; None where that is not known."""
    said = args[0].const if len(args) == 1 else None
    return said[2] if isinstance(said, tuple) and said[:1] == ("text",) and len(said) > 2 else None


def told_beside(args: list[V]) -> frozenset:
    """The scores of figures that the printed line tells beside the one that bears the contest's name."""
    said = args[0].const if len(args) == 1 else None
    return said[3] if isinstance(said, tuple) and said[:1] == ("text",) and len(said) > 3 else frozenset()
