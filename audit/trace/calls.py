"""Calls: inlining of the program's own functions, construction of objects, model calls."""

from __future__ import annotations

from typing import Any

from audit import ir
from audit.trace.folded import one_number
from audit.trace.hooks import adds_up
from audit.trace.own_loss import predicts_next, returns_loss
from audit.trace.positions import tokens_in
from audit.trace.repeats import seen
from audit.trace.shaping import OWN_LOSS
from audit.trace.spans import WINDOWS, but_first
from audit.trace.spellings import CUTS, WRITES
from audit.trace.strides import held_by_target
from audit.trace.terms import bent
from audit.trace.values import (
    ART,
    BPB,
    EMPTY,
    FILE,
    GRAD,
    LOGITS,
    LOSS,
    META,
    ORDER,
    PARAM,
    SOURCES,
    TGT,
    TRAIN,
    UNREAD,
    VAL,
    ClassV,
    Closure,
    Instance,
    Optimizer,
    V,
    changed,
    clone,
    const,
    derive,
    join,
    linked,
    mapping,
    members,
    models_in,
    restrict,
    seq,
    summary,
    with_deps,
)  # fmt: skip

MAX_DEPTH = 36
SPELLED = CUTS | WRITES.keys()
PLAIN = frozenset(
    ["to", "cuda", "cpu", "bfloat16", "float", "half", "eval", "train", "requires_grad_", "double", "compile", "share_memory"]
)
WIPES = frozenset(["zero_", "fill_", "normal_", "uniform_", "kaiming_uniform_", "kaiming_normal_", "zeros_", "constant_", "xavier_uniform_"])
DATA_CALLS = frozenset(["cross_entropy", "backward", "linear", "matmul", "softmax", "load_state_dict"])


def knows_stream(v: V, depth: int = 0) -> bool:
    """Is it, or does it hold, a table that took in tokens: what reads it has to be followed."""
    if v.kind == "obj":
        return not v.models and depth < 2 and any(knows_stream(x, depth + 1) for x in v.data.attrs.values())
    if v.kind in ("seq", "dict"):
        members = [*(v.data.values() if v.kind == "dict" else v.data or [])][:16]
        return bool(v.taint) or (depth < 3 and any(
            knows_stream(x, depth + 1) for x in [*members, *([v.rest] if v.rest is not None else [])]
        ))  # fmt: skip
    return v.kind == "val" and bool(v.taint) and not v.models and not v.flags & (LOSS | LOGITS)


class Calls:
    """Mixed into the machine; see `audit.trace.machine`."""

    def x_call(self: Any, e: ir.Call) -> V:
        if type(e.func) is ir.Attr and e.func.attr in SPELLED and (out := self.spelled(e)) is not None:
            return out
        f = self.ev(e.func)
        args: list[V] = []
        extra: V | None = None
        for a in e.args:
            if isinstance(a, ir.Starred):
                v = self.ev(a.value)
                if v.kind == "seq" and v.rest is None and v.data is not None:
                    args.extend(v.data)
                elif v.kind == "const" and isinstance(v.const, (tuple, list)):
                    args.extend(const(x) for x in v.const)
                else:
                    extra = self.element(v)
            else:
                args.append(self.ev(a))
        kwargs: dict[str, V] = {}
        for name, a in e.keywords:
            v = self.ev(a)
            if name is not None:
                kwargs[name] = v
            elif v.kind == "dict":
                kwargs.update({k: x for k, x in (v.data or {}).items() if isinstance(k, str)})
            # other ** values add nothing that is known
        if extra is not None:
            if f.kind == "lib" and f.data == "builtins.zip" and not args and extra.kind == "seq" and extra.data and extra.rest is None:
                return seq([seq([], x) for x in extra.data])  # ``zip(*rows)``: columns
            args.append(extra)
        met = self.trace.reach.met.get(id(e))
        if met is None or met.active != "yes":
            self.note_met(e, args)
        out = self.call_value(f, args, kwargs, e)
        self.note_even_used(f, args, kwargs, out)
        # What the script's own functions did was followed.
        own = f.kind in ("func", "class", "obj", "partial", "alt") or (f.kind == "bound" and f.data[0].kind in ("obj", "class"))
        if own or out.kind not in ("val", "seq"):
            return out
        if out.flags & LOSS:
            out = self.as_terms(out, product=bent(e.func))
        return one_number(e, f, args, self.after_call(e, f, args, out)) if out.keys or out.kind == "seq" else out

    def call_value(self: Any, f: V, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        k = f.kind
        if k == "func":
            return self.call_closure(f, args, kwargs, node)
        if k == "bound":
            return self.call_method(f, args, kwargs, node)
        if k == "lib":
            made = self.call_lib(f.data, args, kwargs, node, f)
            return self.brought_in(f.data, made, [*args, *kwargs.values()]) if self.absent else made
        if k == "obj":
            inst = f.data
            if isinstance(inst.cls, ClassV):
                if inst.cls.is_model:
                    return self.call_model(f, "forward", args, kwargs, node)
                if inst.cls.find("__call__") is not None:
                    return self.call_method(V("bound", data=(f, "__call__")), args, kwargs, node)
            return self.opaque([f, *args, *kwargs.values()], node)
        if k == "class":
            return self.instantiate(f, args, kwargs, node)
        if k == "partial":
            inner, first, named = f.data
            return self.call_value(inner, [*first, *args], {**named, **kwargs}, node)
        if k == "alt":
            results = [self.call_value(x, args, kwargs, node) for x in f.data[:3]]
            out = results[0]
            for r in results[1:]:
                out = join(out, r)
            return out
        if k == "val" and f.models and not f.flags & (LOSS | LOGITS):
            return self.model_result(f, args, kwargs, node, None)
        return self.opaque([f, *args, *kwargs.values()], node)

    def opaque(self: Any, values: list[V], node: Any) -> V:
        """Unknown code: the result may depend on everything that went in."""
        out = derive([v for v in values if v.kind not in ("obj", "opt")])
        if out.flags & BPB:
            out.keys = out.keys | {UNREAD}  # what was done to the figure there nobody knows
        return out

    # ------------------------------------------------------------------ own functions
    def call_closure(self: Any, f: V, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        fn = f.data.node
        if len(self.stack) >= MAX_DEPTH or self.active_calls.get(id(fn), 0) >= 2:
            return self.opaque([*args, *kwargs.values()], node)
        if isinstance(fn, ir.Lambda):
            return self.run_closure(f, args, kwargs, node)
        if not self.interest.wanted(fn) and not any(knows_stream(a) for a in [*args, *kwargs.values()]):
            return self.opaque([summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()]], node)
        if self.loops and self.loads(fn):
            return self.call_again(f, args, kwargs, node)
        return self.run_closure(f, args, kwargs, node)

    def run_closure(self: Any, f: V, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        """Executes the body; see `call_closure`."""
        c: Closure = f.data
        fn = c.node
        is_lambda = isinstance(fn, ir.Lambda)
        key = id(fn)
        depth = self.active_calls.get(key, 0)
        self.trace.entered.add(key)
        outer_scope = self.scope
        scope = type(outer_scope)(c.scope, c.scope.globals_, getattr(fn, "name", "<lambda>"), c.path)
        self.bind_params(fn, c, scope, args, kwargs)
        line = getattr(node, "line", 0)
        name = c.owner.name if scope.function in ("__init__", "__post_init__") and c.owner is not None else scope.function
        self.stack.append((outer_scope.path, line, name))
        self.active_calls[key] = depth + 1
        self.frames.append(key)
        self.scope = scope
        try:
            if is_lambda:
                return self.ev(fn.body)
            generator = self.interest.summary(fn).has_yield
            self.yielded.pop(key, None)
            self.returns.append([])
            scope.body = fn.body
            if generator:
                self.yields.append([])
            hooks = self.hooks
            status = self.block(fn.body)
            returned = self.returns.pop()
            if self.hooks > hooks:
                self.drop_hooks(hooks, [*returned, *(v for v in scope.names.values() if v.kind == "obj")])
            if generator:
                items = self.yields.pop()
                return self.iterator(seq(items))
            if not returned:
                return V("never") if status == 4 and not self.dormant and self.always_raises(fn) else const(None)
            # A later return usually carries the full result; early ones are guards.
            out = returned[-1]
            for r in reversed(returned[:-1]):
                out = join(out, r)
            return out
        finally:
            self.scope = outer_scope
            self.stack.pop()
            self.frames.pop()
            self.yielded.pop(key, None)
            self.active_calls[key] = depth

    def always_raises(self: Any, fn: Any) -> bool:
        return bool(fn.body) and isinstance(fn.body[-1], ir.Raise)

    def bind_params(self: Any, fn: Any, c: Closure, scope: Any, args: list[V], kwargs: dict[str, V]) -> None:
        names = scope.names
        position = 0
        used: set[str] = set()
        for p in fn.params:
            kind = p.kind
            if kind in ("pos", "posonly"):
                if position < len(args):
                    names[p.name] = args[position]
                    position += 1
                elif p.name in kwargs:
                    names[p.name] = kwargs[p.name]
                    used.add(p.name)
                elif p.name in c.defaults:
                    names[p.name] = seen(c.defaults[p.name])
                else:
                    names[p.name] = V("val")
            elif kind == "vararg":
                names[p.name] = seq(list(args[position:]))
                position = len(args)
            elif kind == "kwonly":
                if p.name in kwargs:
                    names[p.name] = kwargs[p.name]
                    used.add(p.name)
                elif p.name in c.defaults:
                    names[p.name] = seen(c.defaults[p.name])
                else:
                    names[p.name] = V("val")
            elif kind == "kwarg":
                names[p.name] = mapping({k: v for k, v in kwargs.items() if k not in used and k not in names})

    # ------------------------------------------------------------------ objects
    def instantiate(self: Any, f: V, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        cls: ClassV = f.data
        line = getattr(node, "line", 0)
        if cls.is_optimizer:
            return self.make_optimizer(args, kwargs, node)
        inst = Instance(cls, self.next_serial, line, tuple(self.loops))
        self.next_serial += 1
        v = V("obj", data=inst)
        if cls.is_model:
            v.models = frozenset([inst.serial])
            self.serials[inst.serial] = v
            self.trace.models[inst.serial] = inst
            init = cls.find("__init__")
            if init is not None and init.kind == "func" and len(self.stack) < 8:
                # Only plain attributes matter; submodules stay opaque.
                self.model_attributes(inst, init.data.node, args, kwargs)
                self.note_taken_in(inst, init.data, args, kwargs)
                if not self.dormant:
                    self.note_parts(inst, init.data, args, kwargs)
            return v
        init = cls.find("__init__")
        if init is not None and init.kind == "func":
            self.call_closure(init, [v, *args], kwargs, node)
        elif cls.is_data:
            for name, a in zip(cls.fields, args, strict=False):
                inst.attrs[name] = a
            inst.attrs.update(kwargs)
            post = cls.find("__post_init__")
            if post is not None and post.kind == "func":
                self.call_closure(post, [v], {}, node)
        elif args or kwargs:
            inst.attrs.update(kwargs)
        return v

    def named_tuple(self: Any, args: list[V], node: Any) -> V:
        """``namedtuple("Sums", "nats tokens")``"""
        names = args[1] if len(args) > 1 else V("val")
        fields = [x.const for x in names.data or ()] if names.kind == "seq" else str(names.const or "").replace(",", " ").split()
        cls = ClassV(str(args[0].const) if args else "", None, self.scope.path)
        cls.is_data, cls.fields = True, [f for f in fields if isinstance(f, str)]
        return V("class", data=cls)

    def wipes(self: Any, fn: Any, depth: int = 0) -> bool:
        """Does a method set parameters to fixed or random values (a reset between documents)."""
        calls = self.interest.summary(fn).calls
        if fn.name == "forward" or calls & DATA_CALLS:
            return False
        if calls & WIPES:
            return True
        inner = [f for name in calls for f in self.interest.nodes.get(name, ()) if f is not fn] if depth == 0 else []
        return any(self.wipes(f, 1) for f in inner)

    def make_optimizer(self: Any, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        params = args[0] if args else kwargs.get("params")
        models: set[int] = set()
        leaves: list[V] = []
        if params is not None:
            self.collect_params(params, models, leaves, 0)
        momentum = kwargs.get("momentum", args[2] if len(args) > 2 else const(0))
        name = node.func.attr if isinstance(getattr(node, "func", None), ir.Attr) else getattr(getattr(node, "func", None), "id", "")
        forgets = name == "SGD" and momentum.kind == "const" and not momentum.const
        out = V("opt", data=Optimizer(frozenset(models), leaves, getattr(node, "line", 0), forgets))
        out.models = frozenset(models)
        return out

    def collect_params(self: Any, v: V, models: set[int], leaves: list[V], depth: int) -> None:
        if depth > 4:
            return
        if v.kind in ("seq", "dict"):
            for x in members(v):
                self.collect_params(x, models, leaves, depth + 1)
        elif v.kind == "obj":
            models.update(v.models)
        elif v.kind == "alt":
            for x in v.data:
                self.collect_params(x, models, leaves, depth + 1)
        elif v.kind in ("val", "bound"):
            if v.models:
                models.update(v.models)
            elif v.kind == "val":
                leaves.append(v)
                for x in v.either:
                    self.collect_params(x, models, leaves, depth + 1)

    # ------------------------------------------------------------------ models
    def call_model(self: Any, f: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        """A call of a user's module: opaque algebra unless its code adapts or reads data itself."""
        cls: ClassV = f.data.cls
        method = cls.find(name)
        if method is not None and method.kind == "func" and self.model_method_acts(method.data.node):
            self.note_given([*args, *kwargs.values()], node)
            return self.call_closure(method, [f, *args], kwargs, node)
        return self.model_result(f, args, kwargs, node, method.data.node if method is not None and method.kind == "func" else None)

    def note_given(self: Any, values: list[V], node: Any) -> None:
        """Is a model given validation tokens here, in this turn or another."""
        if not self.trace.given.get(id(node), False):
            self.trace.given[id(node)] = any((summary(v) if v.kind in ("seq", "dict") else v).flags & VAL for v in values)

    def model_method_acts(self: Any, fn: Any) -> bool:
        found = self.acts.get(id(fn)) if hasattr(self, "acts") else None
        if not hasattr(self, "acts"):
            self.acts: dict[int, bool] = {}
        if found is None:
            calls = self.interest.summary(fn).calls
            found = bool(calls & {"backward", "fromfile", "open", "memmap", "step", "load", "glob"}) and fn.name != "forward"
            found = found or {"backward", "step"} <= calls  # a forward that learns
            if not found and fn.name != "forward":
                found = any(self.learns(f) for f in self.hands_itself_to(fn))
            if not found:
                stores = calls & {"load_state_dict", "copy_", "zero_", "parameters", "named_parameters", "state_dict"}
                found = bool(stores) and not calls & {"cross_entropy", "linear", "matmul", "rms_norm", "einsum", "softmax"}
            self.acts[id(fn)] = found
        return found

    def learns(self: Any, fn: Any) -> bool:
        return bool(self.interest.summary(fn).calls & {"backward", "step"})

    def hands_itself_to(self: Any, fn: Any) -> list[Any]:
        """The program's functions that a method calls with its own object (``fit(self, tokens)``)."""
        return [
            f for n in ir.walk(fn.body)
            if isinstance(n, ir.Call) and isinstance(n.func, ir.Name) and any(isinstance(a, ir.Name) and a.id == "self" for a in n.args)
            for f in self.interest.nodes.get(n.func.id, ())
        ]  # fmt: skip

    def model_result(self: Any, f: V, args: list[V], kwargs: dict[str, V], node: Any, fn: Any) -> V:
        values = [summary(a) if a.kind in ("seq", "dict") else a for a in [*args, *kwargs.values()]]
        self.note_given(values, node)
        values = [v for v in values if v.kind in ("val", "const", "bound")]
        data = [v for v in values if v.flags & SOURCES and not v.flags & META]
        tensors = [v for v in values if v.kind == "val" and not v.flags & PARAM]
        out = derive(values)
        out.models = f.models
        for a in [*args, *kwargs.values()]:
            if a.kind in ("obj", "alt", "seq"):
                out.models = out.models | models_in(a)
            elif a.models and not a.flags & SOURCES:
                out.models = out.models | a.models  # what a module hands out of itself: adapters, no activations
        out.flags &= ~(TGT | META)
        out.shape0 = None
        out.mask = None
        for serial in out.models:
            owner = self.serials.get(serial)
            if owner is not None:
                out.taint = out.taint | learned(owner)
        targets = [v for v in data if v.flags & TGT] or data[1:2]
        # A label that comes with the tokens and a forward that computes a loss: the loss itself.
        if not targets and data and fn is not None and self.gives_loss(f, fn):
            targets = [clone(data[0])]
            targets[0].span = but_first(data[0].span) if predicts_next(fn) else None
        elif not (len(tensors) >= 2 and len(data) >= 2 and self.computes_loss(f, fn)):
            targets = []
        if targets:
            out.flags |= LOSS | (targets[0].flags & ORDER)
            out.span = targets[0].span
            held_by_target(targets[0], out)
            out.via = linked(targets[0].via, out.via)
            if targets[0].atoms:
                out.atoms = targets[0].atoms
            if fn is not None:
                out.keys = out.keys | {(OWN_LOSS, id(fn))}
        else:
            out.flags |= LOGITS
        if self.hooks > 0 and data:
            self.calibrated(self.event("CALIBRATE", node, out, how="hooks", hook=self.hook_at))
        return out

    def gives_loss(self: Any, f: V, fn: Any) -> bool:
        """``model.loss(batch)``: tokens and targets are the method's to tell apart (`audit.trace.own_loss`)."""
        found = self.own_losses.get(id(fn))
        if found is None:
            cls = f.data.cls if f.kind == "obj" and isinstance(f.data, Instance) else None

            def method(name: str) -> Any:
                m = cls.find(name) if isinstance(cls, ClassV) else None
                return m.data.node if m is not None and m.kind == "func" else None

            found = self.own_losses[id(fn)] = returns_loss(fn, method)
        return bool(found)

    def computes_loss(self: Any, f: V, fn: Any) -> bool:
        if fn is None:
            return True
        s = self.interest.summary(fn)
        if s.calls & {"cross_entropy", "nll_loss", "log_softmax", "logsumexp", "lse", "gather"}:
            return True
        cls = f.data.cls if f.kind == "obj" and isinstance(f.data, Instance) else None
        if isinstance(cls, ClassV):
            for name in s.calls:
                m = cls.find(name)
                if m is not None and m.kind == "func" and m.data.node is not fn:
                    if self.interest.summary(m.data.node).calls & {"cross_entropy", "nll_loss", "log_softmax", "logsumexp"}:
                        return True
        for name in s.calls:
            for other in self.interest.by_name.get(name, ()):
                if other is not s and other.calls & {"cross_entropy", "nll_loss", "log_softmax", "logsumexp", "tl"}:
                    return True
        return "loss" in s.calls or "apply" in s.calls or (isinstance(cls, ClassV) and self.part_computes_loss(f, cls, fn))

    def part_computes_loss(self: Any, f: V, cls: ClassV, fn: Any) -> bool:
        """``return self.inner(tokens, targets)``: the loss is the inner module's."""
        init = cls.find("__init__")
        if init is None or init.kind != "func" or init.data.node is fn:
            return False
        handed = {
            n.func.attr for n in ir.walk(fn.body)
            if isinstance(n, ir.Call) and len(n.args) + len(n.keywords) > 1 and isinstance(n.func, ir.Attr)
            and isinstance(n.func.value, ir.Name) and n.func.value.id == "self" and cls.find(n.func.attr) is None
        }  # fmt: skip
        for n in ir.walk(init.data.node.body) if handed else ():
            if isinstance(n, ir.Assign) and isinstance(n.targets[0], ir.Attr) and n.targets[0].attr in handed:
                made = n.value.func if isinstance(n.value, ir.Call) else None
                inner = init.data.scope.get(made.id) if isinstance(made, ir.Name) else None
                forward = inner.data.find("forward") if inner is not None and inner.kind == "class" and inner.data is not cls else None
                if forward is not None and forward.kind == "func" and self.computes_loss(f, forward.data.node):
                    return True
        return False

    # ------------------------------------------------------------------ updates
    def step(self: Any, opt: Optimizer, node: Any) -> None:
        self.pending_stepped = True
        # Gradients on training tokens that another model was left with are none of this one's.
        mine = [v for v in self.pending if v.flags & VAL or not (v.models and opt.models) or v.models & opt.models]
        if not mine:
            return
        data = derive(mine)
        data.flags &= ~TGT
        data.taint = data.taint | opt.moments
        ids = self.update(data, node, opt.models, opt.leaves, "optimizer", frozenset(v.span for v in mine), self.backward_at)
        if not opt.forgets:
            opt.moments = opt.moments | ids

    def update(
        self: Any, data: V, node: Any, models: frozenset, leaves: list[V], how: str, spans: frozenset = EMPTY, backward: Any = None
    ) -> frozenset:
        """What is learned from becomes what the parameters depend on; returns the ids of updates on validation tokens."""
        if not data.flags & SOURCES:
            return EMPTY
        e = self.event("UPDATE", node, data, how=how, spans=spans, models=models, leaves=len(leaves), fresh=self.fresh(models),
                       stored=bool(models) and all(self.serials[m].data.stored for m in models if m in self.serials),
                       shared=any(x.shape0 == 1 for x in leaves), windows=WINDOWS in data.keys, reads=tokens_in(data.keys), leaf_line=leaves[0].line if leaves else 0)  # fmt: skip
        if backward is not None:
            e.detail["backward"] = backward
        if not self.forks:
            self.certain.add(e.id)
        if self.place_tests:
            e.atoms = frozenset((deps | self.picked_by_place(self.place_tests, deps), low, high) for deps, low, high in e.atoms)
        if (handed := self.after_yield()) is not None:
            e.detail["after_yield"] = handed
        ids = frozenset([e.id]) if data.flags & VAL else EMPTY
        for serial in models:
            owner = self.serials.get(serial)
            if owner is not None:
                state = owner.data.state
                state.flags |= data.flags & SOURCES
                owner.data.trained |= bool(data.flags & TRAIN)
                state.taint = state.taint | ids | data.taint
                if ids:
                    for part in parts_of(owner):
                        part.data.state.taint = part.data.state.taint | ids | data.taint
        for leaf in leaves:
            leaf.taint = leaf.taint | ids | data.taint
        return ids

    def after_yield(self: Any) -> tuple[tuple, int] | None:
        """The calls and the line of a ``yield`` that this turn of an open generator went past.

        Generators run to their end where they are made here; in truth who asked for the element acts before what follows.
        """
        for frame in reversed(self.frames):
            loops, calls, line = self.yielded.get(frame, (None, (), 0))
            if loops is not None and tuple(self.loops[: len(loops)]) == loops:
                return calls, int(line)
        return None

    def fresh(self: Any, models: frozenset) -> bool:
        """Were all these models built or reset within a loop that is open now (adapters per document)."""
        open_loops = {loop for loop, _ in self.loops}
        owners = [self.serials[m].data for m in models if m in self.serials]
        return bool(owners) and all(
            open_loops & o.wiped or open_loops & {loop for loop, _ in o.born} for o in owners
        )

    def write_param(self: Any, target: V, value: V, node: Any) -> None:
        """`p.data.add_(…)`: a write to parameters outside an optimizer."""
        if not target.models or not (target.flags & PARAM or target.kind == "bound"):
            return
        self.note_rewritten(value)
        value = self.taught(value)
        for serial in target.models:
            owner = self.serials.get(serial)
            if owner is not None:
                self.write_model(owner, value, node)

    def note_reset(self: Any, target: V, value: V, node: Any) -> None:
        """`p.zero_()` in a walk over parameters: some of them start afresh; which, is not followed."""
        # A method of the model that lists parameters gives, like every method, something of the model's.
        given = target.flags & SOURCES and not target.flags & PARAM
        owners = [self.serials[m].data for m in target.models if m in self.serials]
        adapter = bool(self.stack) and all(not (o.stored or o.trained) for o in owners)  # nothing else would be lost
        if (self.loops or adapter) and target.models and not (given or target.flags & (GRAD | LOSS) or value.flags):
            inner = [p.models for m in target.models if m in self.serials for p in parts_of(self.serials[m])]
            self.event("RESET", node, target, models=target.models.union(*inner))

    def restores(self: Any, target: V, value: V) -> bool:
        """`p.data.copy_(saved[name])`: the model's own earlier parameters come back, and with them what they had seen.

        Only for a walk over the parameters: one of them put back by its name leaves the others as they are.
        """
        root = target
        while root.kind == "bound":
            root = root.data[0]
        if root.kind != "val":
            return False
        if not (target.models and value.models == target.models and value.flags & PARAM and not value.flags & (LOSS | LOGITS | GRAD)):
            return False
        owners = [self.serials[m] for m in target.models if m in self.serials]
        if not owners or any(not value.taint < learned(o) for o in owners):
            return False
        for o in owners:
            for x in (o, *parts_of(o)):
                x.data.state.taint = value.taint
        return True

    def write_model(self: Any, owner: V, value: V, node: Any) -> None:
        state = owner.data.state
        if value.flags & (VAL | TRAIN) and (value.flags & GRAD or (value.flags & (LOSS | LOGITS) and not value.flags & META)):
            self.update(value, node, owner.models, [], "in place")
        elif value.taint:
            state.taint = state.taint | value.taint

    # ------------------------------------------------------------------ methods
    def call_method(self: Any, f: V, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        recv, name = f.data
        if recv.kind == "obj" and isinstance(recv.data.cls, ClassV):
            cls = recv.data.cls
            if name == "_replace" and cls.is_data:
                return changed(recv, kwargs)
            method = cls.find(name)
            if method is not None and method.kind == "func":
                if cls.is_model and method.const not in ("static", "classmethod"):
                    if self.loops and not any(a.flags & SOURCES for a in args) and self.wipes(method.data.node):
                        recv.data.wiped.update(loop for loop, _ in self.loops)
                    return self.call_model(recv, name, args, kwargs, node)
                if method.const == "static":
                    return self.call_closure(method, args, kwargs, node)
                if method.const == "classmethod":
                    return self.call_closure(method, [V("class", data=cls), *args], kwargs, node)
                return self.call_closure(method, [recv, *args], kwargs, node)
            if method is not None:
                return self.call_value(method, args, kwargs, node)
            if cls.is_model:
                return self.model_builtin(recv, name, args, kwargs, node)
            if f.models and recv.models:
                pass
        if recv.kind == "class" and (method := recv.data.find(name)) is not None:
            if method.const == "classmethod":
                return self.call_closure(method, [recv, *args], kwargs, node)
            return self.call_value(method, args, kwargs, node)
        if recv.kind == "opt":
            if name == "step":
                if args and args[0].kind == "func":
                    self.pending.clear()
                    self.call_value(args[0], [], {}, node)
                self.step(recv.data, node)
            elif name == "load_state_dict":
                recv.data.moments = summary(args[0]).taint if args else EMPTY
            elif name == "state_dict":
                kept = V("val")
                kept.taint = recv.data.moments
                return mapping({}, kept)
            elif name == "zero_grad":
                if self.pending_stepped:
                    self.pending.clear()
                    self.pending_stepped = False
            elif name == "update" and len(args) >= 2:
                # MLX: optimizer.update(model, gradients)
                models = frozenset(recv.models | args[0].models)
                self.update(summary(args[1]), node, models, [], "optimizer")
            return V("val")
        if recv.kind == "bound" and recv.models and recv.flags & PARAM and name not in PLAIN:
            # A submodule of a model (`model.blocks[0].attn.rotary(x)`).
            if name in ("register_forward_hook", "register_forward_pre_hook") and args and adds_up(args[0]):
                return self.add_hook(args, kwargs, node)
            if name in ("parameters", "named_parameters", "state_dict"):
                return f
            if name in ("add_module", "register_module") and len(args) > 1:
                self.put_into(recv, node, args[1])
            if name == "load_state_dict" and args:
                self.restore_part(recv, summary(args[0]), node)
                return V("val")
            if name.endswith("_"):
                if name in WIPES:
                    self.note_reset(recv, derive(args), node)
                self.write_param(recv, derive(args), node)
                return recv
            # What weights were multiplied with is an activation where it holds a part of the stream.
            if any(a.flags & SOURCES for a in args) and (not args[0].flags & PARAM or args[0].atoms):
                return self.model_result(recv, args, kwargs, node, None)
            return f
        if recv.kind == "func" and (handed := self.handed_on(recv, name, args, kwargs, node)) is not None:
            return handed
        return self.lib_method(recv, name, args, kwargs, node, f)

    def put_into(self: Any, part: V, where: Any, value: V) -> None:
        """``block.attn.q = LoRA(block.attn.q)``, ``setattr(parent, name, …)``: a module takes a place within an opaque part of a model."""
        for x in value.data if value.kind == "alt" else (value,):
            if x.kind != "obj" or not x.models:
                continue
            for serial in part.models - x.models:
                if serial in self.serials:
                    self.serials[serial].data.put_in[where, x.data.line] = x

    def restore_part(self: Any, part: V, given: V, node: Any) -> None:
        """A submodule takes other parameters: the model is then no longer what the file held."""
        for serial in part.models:
            if serial in self.serials and given.models and not given.flags & (ART | FILE):
                owner = self.serials[serial].data
                owner.stored = False
                self.event("RESTORE", node, given, models=part.models, origin=given.models, loose=True)
                owner.trained |= any(self.serials[m].data.trained for m in given.models if m in self.serials)

    def model_builtin(self: Any, recv: V, name: str, args: list[V], kwargs: dict[str, V], node: Any) -> V:
        inst: Instance = recv.data
        if name in PLAIN or name in ("requires_grad_", "apply", "freeze", "unfreeze", "set_dtype"):
            return recv
        if name in ("parameters", "buffers", "modules", "children", "trainable_parameters"):
            p = V("val", flags=PARAM)
            p.models = recv.models
            p.taint = learned(recv)
            return p
        if name in ("named_parameters", "named_buffers", "named_modules", "named_children"):
            p = V("val", flags=PARAM)
            p.models, p.taint = recv.models, learned(recv)
            return seq([], seq([V("val"), p]))
        if name == "state_dict":
            p = V("val", flags=PARAM)
            p.models, p.taint = recv.models, learned(recv)
            p.flags |= inst.state.flags & SOURCES
            return mapping({}, p)
        if name in ("load_state_dict", "load_weights", "update"):
            sd = summary(args[0]) if args else V("val")
            if name == "load_state_dict" and any(m != inst.serial for m in sd.models):
                pass
            origin = [self.serials[m].data for m in sd.models if m in self.serials]
            inst.stored = bool(sd.flags & (ART | FILE))
            inst.trained = inst.trained or any(o.trained for o in origin)
            # ``if turn % 64 == 0: model.load_state_dict(start)``: it may go on with what it learned, other than where it
            # learns under a test as well, which may be the same.
            kept = inst.state.taint & self.certain if self.forks and self.loops else EMPTY
            inst.state = V("val", flags=sd.flags & SOURCES)
            inst.state.taint = sd.taint | kept
            self.keep_buffers(inst, kwargs.get("strict", args[1] if len(args) > 1 else None))
            for part in parts_of(recv):
                part.data.state.taint = sd.taint | (part.data.state.taint & kept)
            if kept - sd.taint:
                self.event("RESET", node, recv, models=recv.models)
            self.event("RESTORE", node, sd, models=recv.models, origin=sd.models)
            return V("val")
        if name in ("add_module", "register_module") and len(args) > 1:
            self.put_into(recv, node, args[1])
            return V("val")
        if name in ("register_forward_hook", "register_forward_pre_hook"):
            return self.add_hook(args, kwargs, node)
        found = inst.attrs.get(name)
        if found is not None:
            return self.call_value(found, args, kwargs, node)
        return self.model_result(recv, args, kwargs, node, None)


def learned(owner: V) -> frozenset:
    """The updates that a module's parameters depend on, be they its own or those of a part (an adapter put into it)."""
    return frozenset().union(owner.data.state.taint, *(part.data.state.taint for part in parts_of(owner)))


def parts_of(owner: V) -> list[V]:
    """The modules that a module holds in attributes and lists, or that were put into its opaque parts: its parameters are theirs."""
    found: list[V] = []
    todo = [(x, 0) for x in (*owner.data.attrs.values(), *owner.data.put_in.values())]
    while todo and len(found) < 64:
        v, depth = todo.pop()
        if v.kind == "obj" and v.models and v is not owner and all(v.data is not f.data for f in found):
            found.append(v)
            todo += [(x, depth + 1) for x in (*v.data.attrs.values(), *v.data.put_in.values())] if depth < 3 else []
        elif v.kind in ("seq", "dict") and depth < 4:
            todo += [(x, depth + 1) for x in members(v)]
    return found


__all__ = ["Calls", "clone", "restrict", "with_deps"]
