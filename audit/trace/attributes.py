"""Attributes of objects, modules, values and the library: what is read there, and what is put there."""

from __future__ import annotations

from itertools import count
from typing import Any

from audit import ir
from audit.trace.emptied import TABLES
from audit.trace.repeats import held
from audit.trace.values import (
    EMPTY,
    GRAD,
    LOGITS,
    LOSS,
    META,
    PARAM,
    VAL,
    ClassV,
    V,
    derive,
    join,
)  # fmt: skip
from audit.trace.words import canonical

_numbers = count(1)
SHAPE_ATTRS = frozenset(["shape", "size", "ndim", "dtype", "device", "itemsize", "nbytes"])
TRANSPARENT_ATTRS = frozenset(["data", "T", "module", "real", "_orig_mod", "mT", "detach"])
MODEL_METHODS = frozenset(
    ["parameters", "named_parameters", "state_dict", "load_state_dict", "to", "cuda", "cpu", "bfloat16", "float", "half", "eval", "train", "modules", "named_modules", "buffers", "named_buffers", "requires_grad_", "zero_grad", "apply", "compile", "forward", "register_forward_hook", "register_forward_pre_hook", "register_buffer", "update", "children", "named_children", "get_submodule", "trainable_parameters", "freeze", "unfreeze", "load_weights"]
)


class Attributes:
    """Mixed into the machine; see `audit.trace.machine`."""

    def x_attr(self: Any, e: ir.Attr) -> V:
        return self.get_attr(self.ev(e.value), e.attr, e)

    def get_attr(self: Any, v: V, name: str, node: Any) -> V:
        k = v.kind
        if k == "lib":
            return self.lib_attr(v, name)
        if k == "obj":
            inst = v.data
            found = inst.attrs.get(name)
            if found is not None:
                if v.deps and not v.models:
                    found = self.of_record(found, v.deps)
                return self.counted(found, inst, name) if self.moving else found
            cls = inst.cls
            if isinstance(cls, ClassV):
                if name == "__class__":
                    return V("class", data=cls)
                found = cls.find(name)
                if found is not None:
                    if found.kind == "func" and found.data.owner is not None:
                        if found.const in ("property", "cached"):
                            got = self.call_closure(found, [v], {}, node)
                            if found.const == "cached":
                                inst.attrs[name] = got
                            return got
                        return V("bound", data=(v, name))
                    return held(found)
                if cls.is_model or cls.is_optimizer:
                    if name in ("module", "_orig_mod", "data"):
                        return v
                    if cls.is_model and name not in MODEL_METHODS:
                        part = V("bound", data=(v, name))
                        part.models = frozenset([inst.serial])
                        part.taint = inst.state.taint
                        part.flags = PARAM
                        return part
            return V("bound", data=(v, name))
        if k == "class":
            found = v.data.find(name)
            if found is not None:
                if found.kind == "func" and found.const == "classmethod":
                    return V("bound", data=(v, name))
                return held(found)
            return V("bound", data=(v, name))
        if k == "module":
            found = v.data.names.get(name)
            return held(found) if found is not None else V("bound", data=(v, name))
        if k == "alt":
            parts = [self.get_attr(x, name, node) for x in v.data]
            out = parts[0]
            for p in parts[1:]:
                out = join(out, p)
            return out
        if k == "opt":
            if name in ("param_groups", "state", "defaults"):
                if name == "state":
                    v.data.moments = EMPTY  # emptied or set to zero by hand, perhaps
                return V("val")
            return V("bound", data=(v, name))
        if k == "val" or k == "const" or k == "bound":
            if name in SHAPE_ATTRS and k != "const" and not (k == "bound" and name == "size"):
                if name == "size":
                    # numpy's attribute or torch's method
                    out = V("bound", data=(v, name))
                    out.deps, out.flags, out.knobs = v.deps, META, v.knobs
                    self.note_counted(v, out)
                    return out
                out = V("val")
                out.deps, out.flags, out.knobs = v.deps, META, v.knobs
                out.shape0 = v.shape0
                if name == "shape":
                    self.note_counted(v, out)
                return out
            if name == "grad":
                out = derive([v, *self.pending])
                out.flags = (out.flags | GRAD) & ~(LOSS | LOGITS)
                return out
            if name in TRANSPARENT_ATTRS and name != "detach":
                return v
            out = V("bound", data=(v, name))
            if k != "const":
                out.flags, out.atoms, out.deps, out.taint = v.flags, v.atoms, v.deps, v.taint
                out.scores, out.models, out.knobs, out.keys = v.scores, v.models, v.knobs, v.keys
                out.via = v.via
            return out
        return V("bound", data=(v, name))

    def set_attr(self: Any, v: V, name: str, value: V, node: Any) -> None:
        if self.not_given(value) and v.kind != "alt":
            return
        if name == "forward":
            self.note_put_around(v, value, node)
        if v.kind == "obj":
            self.note_link(value, node)
            if self.forks and value.kind in TABLES:
                value = self.replaced(v.data.attrs.get(name), value, node, joined=False)
            v.data.attrs[name] = value
            if self.loops and self.is_number(value):
                v.data.begun[name] = frozenset(self.loops) - value.deps
            if isinstance(v.data.cls, ClassV) and v.data.cls.is_model and value.flags & (VAL | GRAD) and value.kind == "val":
                self.write_model(v, value, node)
        elif v.kind == "opt" and name == "state":
            v.data.moments = EMPTY
        elif v.kind == "class":
            v.data.attrs[name] = value
        elif v.kind == "alt":
            for x in v.data:
                self.set_attr(x, name, value, node)
        elif v.kind in ("val", "bound") and name == "data":
            if self.restores(v, value):
                return
            self.write_param(v, value, node)
            v.absorb(value)
        elif v.kind == "module":
            v.data.names[name] = value
        elif value.kind in ("obj", "alt") and v.flags & PARAM:
            self.put_into(v, node, value)
        elif v.kind == "lib" and v.data in self.loaded:
            scope = self.loaded[v.data]
            scope.data.names[name] = value
        elif v.kind == "lib" and value.kind in ("func", "partial", "lib", "bound"):
            self.patched[canonical(f"{v.data}.{name}")] = value  # ``F.cross_entropy = mine``
        elif v.kind == "val" and name != "requires_grad" and name != "grad":
            v.absorb(value)

    def not_given(self: Any, value: V) -> bool:
        """``if given.steps is not None: args.steps = given.steps`` in a branch that only the run into closed branches enters:
        what would be given there is not known, and it is not the None that closes the branch."""
        none = value.kind == "const" and value.const is None and value.knobs
        return bool(none and self.dormant and any(state == "no" for state, _ in self.guards))

    def table_id(self: Any, base: V) -> int:
        """One number per table; elements of one container count as one table."""
        home = base.origin if base.origin is not None else base
        return int(self.number_of(home.data if home.data is not None else home))

    def number_of(self: Any, thing: Any) -> int:
        """A number that no other thing has, in this run or in the one into closed branches; it is kept alive with it."""
        if id(thing) not in self.tables:
            self.tables[id(thing)] = (thing, next(_numbers))
        return int(self.tables[id(thing)][1])
