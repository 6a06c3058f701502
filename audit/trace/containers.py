"""Methods of lists, dictionaries, strings and parsers of the command line."""

from __future__ import annotations

import re
from typing import Any

from audit.trace.gates import holds_tokens
from audit.trace.positions import one_of
from audit.trace.queues import FEED
from audit.trace.selection import listed
from audit.trace.shaping import found_at
from audit.trace.subscripts import VAL_SHARD, filed_by_tokens, names_shard, without_shard
from audit.trace.threads import TAKES
from audit.trace.values import (
    COUNT,
    EMPTY,
    LOSS,
    META,
    TRAIN,
    VAL,
    ClassV,
    V,
    clone,
    const,
    derive,
    filed,
    join,
    kinds,
    mapping,
    seq,
    summary,
    with_deps,
)
from audit.trace.words import OFF, STRING_METHODS

#: numbers of queues beside those of loops: each element that is taken is a turn of its own
FIRST_QUEUE = 1 << 30


def reach_list(recv: V, item: V) -> None:
    """``buckets[i].append(x)``: the list that was looked up there has it too."""
    home = recv.origin
    if home is not None and home is not recv and home.kind == "seq":
        home.rest = item if home.rest is None else join(home.rest, item)


def only_training(opened: V) -> bool:
    """Are training shards all that was opened and kept so far: a validation shard is not among them."""
    return opened.rest is not None and bool(opened.rest.flags & TRAIN) and not opened.rest.flags & VAL


class Containers:
    """Mixed into the machine; see `audit.trace.machine`."""

    def taken(self: Any, queue: V) -> V:
        """An element that leaves its queue, in a turn of its own: what is taken later is another one."""
        out = one_of(self.element(queue))
        number = FIRST_QUEUE + (self.number_of(queue) if FEED in queue.keys else self.table_id(queue))
        self.taken_from[number] = turn = self.taken_from.get(number, 0) + 1
        deps = frozenset([(number, turn), *self.loops[-1:]])
        return with_deps(out, deps)

    def note_filed(self: Any, recv: V, item: V, node: Any) -> None:
        """``followers[context].append(token)``: a table of lists takes a token in."""
        home = recv.origin
        if home is None or home.kind != "dict" or not holds_tokens(item):
            return
        if home.rest is not None and home.rest.kind == "seq":
            home.rest.rest = item if home.rest.rest is None else join(home.rest.rest, item)
        home.flags |= VAL  # filed under tokens, as in `set_item`
        self.store(home, item, item, node)
        recv.taint = recv.taint | home.taint

    def container(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        first = args[0] if args else None
        if recv.kind == "seq":
            if name in ("append", "add", "appendleft", "insert", "put", "put_nowait") and first is not None:
                if name in ("put", "put_nowait") and self.waiting and self.handed_over(recv, first):
                    return const(None)
                item = args[-1]
                self.note_bucket(item, node)
                if item.flags & LOSS and item.flags & VAL and not item.scores:
                    item = self.commit_score(item, node, "stored")
                if not self.loops and recv.rest is None and recv.data is not None and len(recv.data) < 32:
                    recv.data.append(item)
                elif recv.data is not None and recv.rest is None and item.kind in ("obj", "func", "opt"):
                    if not any(x.data is item.data for x in recv.data) and len(recv.data) < 12:
                        recv.data.append(item)
                else:
                    if not recv.data and recv.rest is None:
                        recv.first = item
                    recv.rest = item if recv.rest is None else join(recv.rest, item)
                    reach_list(recv, item)
                    self.note_filed(recv, item, node)
                return const(None)
            if name in ("extend", "update") and first is not None:
                if first.kind == "seq" and first.rest is None and recv.rest is None and not self.loops and recv.data is not None:
                    recv.data.extend(first.data or [])
                else:
                    part = self.element(first)
                    recv.rest = part if recv.rest is None else join(recv.rest, part)
                    reach_list(recv, part)
                    self.note_filed(recv, part, node)
                return const(None)
            if name in ("pop", "popleft", "get", "get_nowait"):
                if name in TAKES and (given := self.asked(recv)) is not None:
                    return given
                return self.taken(recv)
            if name == "clear":
                if self.may_be_kept(recv, node):
                    return const(None)
                recv.data, recv.rest, recv.first = [], None, None
                return const(None)
            if name in ("sort", "reverse", "remove", "discard"):
                return const(None)
            if name in ("copy",):
                return seq(list(recv.data or []), recv.rest)
            if name in ("index", "count"):
                where = self.place_of_best(first) if name == "index" and first is not None else V("val")
                return found_at(first, where)  # ``losses.index(min(losses))``
            if name == "step" or name == "zero_grad":
                for x in recv.data or []:
                    self.call_value(V("bound", data=(x, name)), args, kwargs, node)
                return const(None)
            return derive([summary(recv), *args])
        # dict
        if name == "items":
            pairs = [seq([const(x), y]) for x, y in list((recv.data or {}).items())[:12]]
            rest = seq([filed(recv), recv.rest]) if recv.rest is not None else None
            out = seq(pairs, rest)
            if recv.flags & COUNT and "lookup" in kinds(recv):
                out.flags, out.keys = COUNT, frozenset(k for k in recv.keys if k[0] == "lookup")
            return out
        if name == "values":
            rest = recv.rest
            if rest is not None and rest.kind == "val" and "lookup" in kinds(recv):
                rest = clone(rest)  # a row of a table of dictionaries: its values were found by that read
                rest.keys, rest.flags = rest.keys | recv.keys, rest.flags | COUNT
            return seq(list((recv.data or {}).values())[:12], rest)
        if name == "keys":
            return seq([const(x) for x in list(recv.data or {})[:12]], filed(recv) if recv.rest is not None else None)
        if name in ("get", "pop", "setdefault") and first is not None:
            default = args[1] if len(args) > 1 else const(None)
            if first.kind == "const":
                try:
                    found = (recv.data or {}).get(first.const)
                except TypeError:
                    found = None
                if found is not None:
                    return self.of_record(found, recv.deps) if recv.deps and name == "get" else found
                if recv.rest is None:
                    if name == "setdefault":
                        recv.data[first.const] = default
                    return default
                return default if first.flags == VAL and only_training(recv) else join(recv.rest, default)
            if name == "setdefault" and first.flags & VAL:
                if recv.rest is None:
                    recv.rest = default
                self.store(recv, first, default, node)
                return recv.rest
            if name == "setdefault" and first.kind == "seq" and summary(first).flags & VAL:
                recv.flags |= VAL  # filed under several tokens, as in `set_item`
                recv.rest = recv.rest if recv.rest is not None else default
            if names_shard(first):
                if (opened := recv.data.get(VAL_SHARD)) is not None:
                    return opened
                if only_training(recv):
                    return default
            found = without_shard(recv) if first.flags & TRAIN and not first.flags & VAL else recv
            if found is not recv and not found.data and found.rest is None:
                return default
            base = self.element(found) if found.data or found.rest is not None else V("val")
            if base.kind == "dict":
                base.origin = recv
            elif filed_by_tokens(first) and base.kind in ("val", "seq") and base.origin is None:
                base = clone(base)
                base.origin = recv
            return self.lookup(recv, first, join(base, default) if default.const is not None else base, node)
        if name == "update":
            if first is not None and first.kind == "dict":
                recv.data.update(first.data or {})
                recv.rest = first.rest if recv.rest is None else recv.rest
            elif first is not None:
                if first.flags & VAL and not first.flags & META:
                    self.store(recv, first, first, node)
            recv.data.update(kwargs)
            return const(None)
        if name == "copy":
            return mapping(dict(recv.data or {}), recv.rest)
        if name == "clear":
            if self.may_be_kept(recv, node):
                return const(None)
            recv.data.clear()
            recv.rest = None
            recv.taint = EMPTY
            return const(None)
        out = derive([summary(recv), *args])
        out.absorb(recv)
        return out

    def formatted(self: Any, text: str, args: list[V], kwargs: dict[str, V], out: V) -> V:
        """``"fineweb_{}_*.bin".format("val")``: plain fields only, nothing is looked up in what is given."""
        if not re.fullmatch(r"(?:[^{}]|\{\w*\})*", text):
            return out
        try:
            value = const(text.format(*(a.const for a in args), **{k: v.const for k, v in kwargs.items()}))
        except (IndexError, KeyError, ValueError):
            return out
        value.flags, value.knobs, value.deps = self.text_flags(value.const) or out.flags, out.knobs, out.deps
        return value

    def const_method(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        x = recv.const
        if isinstance(x, (str, bytes)):
            if name == "format" or name == "join":
                out = derive([recv, *(summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()])])
                if name == "format" and isinstance(x, str):
                    given = [*args, *kwargs.values()]
                    if all(a.kind == "const" and isinstance(a.const, (str, int)) for a in given) and len(x) <= 300:
                        return self.formatted(x, args, kwargs, out)
                    out.const = ("text", x.partition("{")[0])
                return out
            if all(a.kind == "const" for a in args) and name in STRING_METHODS:
                try:
                    value = getattr(x, name)(*(a.const for a in args))
                except Exception:
                    return derive([recv, *args])
                out = seq([const(i) for i in value]) if isinstance(value, (list, tuple)) else const(value)
                if out.kind == "const":
                    out.flags = (self.text_flags(value) if isinstance(value, str) else 0) or recv.flags
                out.knobs = recv.knobs
                for item in out.data or [] if out.kind == "seq" else []:
                    item.knobs = recv.knobs
                return out
            if name in ("glob", "rglob", "joinpath", "resolve", "absolute", "expanduser"):
                joined = self.path_join([recv, *args])
                return listed(joined) if name in ("glob", "rglob") else joined
            if name in ("read_bytes", "read_text", "open", "exists", "stat", "is_file"):
                if name in ("exists", "is_file"):
                    beside = f"{self.scope.path.rpartition('/')[0]}/{x}".lstrip("/") if isinstance(x, str) else ""
                    return const(True) if beside.endswith(".py") and beside in self.modules else V("val")
                if name == "stat":
                    return V("val", flags=META)
                return self.read(name, [recv, *args], kwargs, node)
            if name in ("write_bytes", "write_text") and args:
                return self.written_to(recv, name, args, kwargs, node)
            return derive([recv, *args])
        if name == "item":
            return recv
        return derive([recv, *args])

    def argparse_method(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        if recv.rest is None:
            recv.rest = mapping({})
        if name in ("add_argument_group", "add_mutually_exclusive_group"):
            return recv
        if name == "add_argument":
            self.add_option(recv.rest.data, args, kwargs, node)
            return const(None)
        if name in ("parse_args", "parse_known_args"):
            ns = self.namespace(dict(recv.rest.data), node)
            return seq([ns, seq([])]) if name == "parse_known_args" else ns
        return V("val")

    def add_option(self: Any, held: dict, args: list[V], kwargs: dict[str, V], node: Any) -> None:
        """``add_argument``: of several options for one name the first gives the default, the one that was typed the value."""
        names = [a.const for a in args if a.kind == "const" and isinstance(a.const, str)]
        if not names:
            return
        option = next((x for x in names if x.startswith("--")), None)
        dest = (option or names[0]).lstrip("-").replace("-", "_")
        if "dest" in kwargs and kwargs["dest"].kind == "const":
            dest = kwargs["dest"].const
        action = kwargs["action"].const if "action" in kwargs else None
        value = kwargs.get("default") or const(action == "store_false" if action in ("store_true", "store_false") else None)
        given = self.knobs.value(option, None)[0] if option is not None else None
        if option is not None and value.kind == "const":
            chosen = const(value.const) if given is None or given == value.const else self.typed_value(given, action, kwargs, value, node)
            chosen.knobs = value.knobs | {(option, str(chosen.const))}
            chosen.flags = self.text_flags(chosen.const) if isinstance(chosen.const, str) else 0
            value = chosen
        if dest not in held or given is not None:
            held[dest] = value

    def typed_value(self: Any, given: Any, action: Any, kwargs: dict[str, V], default: V, node: Any) -> V:
        """What the parser makes of an option's text."""
        text, kind = str(given), kwargs.get("type")
        if action in ("store_true", "store_false"):
            return const((text not in OFF) == (action == "store_true"))
        if action == "store_const" and "const" in kwargs and kwargs["const"].kind == "const":
            return const(kwargs["const"].const if text not in OFF else default.const)
        if kind is not None and kind.kind == "func":
            made = self.call_value(kind, [const(text)], {}, node)
            return const(made.const if made.kind == "const" else text)
        if kind is not None and kind.kind == "lib" and kind.data in ("builtins.int", "builtins.float"):
            try:
                return const(int(text) if kind.data.endswith("int") else float(text))
            except ValueError:
                return const(default.const)
        return const(text)

    def namespace(self: Any, kwargs: dict[str, V], node: Any) -> V:
        from audit.trace.values import Instance

        inst = Instance(ClassV("namespace", None, self.scope.path), self.next_serial, getattr(node, "line", 0))
        self.next_serial += 1
        inst.attrs.update(kwargs)
        return V("obj", data=inst)

    def deepcopy(self: Any, v: V, done: dict[int, V] | None = None) -> V:
        from audit.trace.values import Instance

        done = {} if done is None else done
        if v.kind == "obj":
            if id(v.data) in done:
                return done[id(v.data)]
            old = v.data
            inst = Instance(old.cls, self.next_serial, old.line)
            self.next_serial += 1
            out = done[id(old)] = V("obj", data=inst)
            # Modules that it holds are copied as well: what one of them learns the other does not know.
            inst.attrs = {k: self.deepcopy(x, done) if x.kind == "obj" and x.models else x for k, x in old.attrs.items()}
            inst.put_in = {k: self.deepcopy(x, done) for k, x in old.put_in.items()}
            inst.state = clone(old.state)
            inst.stored, inst.trained = old.stored, old.trained
            if isinstance(old.cls, ClassV) and old.cls.is_model:
                out.models = frozenset([inst.serial])
                self.serials[inst.serial] = out
                self.trace.models[inst.serial] = inst
            return out
        if v.kind == "dict":
            return mapping(dict(v.data or {}), clone(v.rest) if v.rest is not None else None)
        return clone(v) if v.kind in ("val", "seq") else v
