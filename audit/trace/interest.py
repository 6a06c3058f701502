"""Which functions must be executed abstractly, and which may be treated as opaque arithmetic.

Most of a training script is tensor algebra (attention, quantization, optimizers) that moves
provenance from its arguments to its result and does nothing else. Executing it would cost time and
tell nothing. A function is *interesting* when it, or anything that it may call, reads or writes data,
computes or accumulates losses, updates state, branches on the environment, or writes to its arguments.
"""

from __future__ import annotations

from typing import Any

from audit import ir

EFFECTS = frozenset(
    ["backward", "step", "grad", "value_and_grad", "at", "scatter_add_", "scatter_add", "index_add_", "bincount", "fromfile", "memmap", "load", "open", "read_bytes", "read", "read_text", "frombuffer", "glob", "rglob", "save", "dump", "write", "write_bytes", "savez", "savez_compressed", "load_state_dict", "data_as", "data_ptr", "from_buffer", "cross_entropy", "nll_loss", "log_softmax", "logsumexp", "environ", "getenv", "randint", "multinomial", "register_forward_hook", "register_forward_pre_hook", "CDLL", "append", "extend", "update", "add_", "sub_", "copy_", "mul_", "logaddexp", "log", "log2", "setattr", "exec", "eval", "minimum", "argmin", "topk", "print", "argmax", "parameters", "state_dict", "tokenize", "Encode", "next", "where", "setdefault", "add", "deepcopy", "named_parameters", "CrossEntropyLoss", "compress", "decompress", "get_shared", "ArgumentParser", "add_argument", "readinto"]
)
MARKS = EFFECTS - frozenset(["append", "extend", "update", "add", "next", "setattr", "log", "print", "where", "read", "parameters"]) | {"subprocess", "Popen", "check_call", "execv", "execvp"}


class Summary:
    __slots__ = ("assigned", "calls", "has_yield", "nodes", "own", "scopes", "size")

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self.own = False
        self.size = 0
        self.has_yield = False
        self.scopes: list[ir.Scope] = []
        self.assigned: set[str] = set()


def summarise(fn: ir.FunctionDef) -> Summary:
    s = Summary()
    params = {p.name for p in fn.params}
    calls_param = adds_up = False
    for n in ir.walk(fn):
        s.size += 1
        t = type(n)
        if t is ir.Attr:
            s.calls.add(n.attr)
            if n.attr in MARKS:
                s.own = True
        elif t is ir.Name:
            s.calls.add(n.id)
            if n.id in MARKS:
                s.own = True
        elif t is ir.Scope:
            s.scopes.append(n)
            s.own = True
        elif t is ir.Yield:
            s.has_yield = True
            s.own = True
        elif t is ir.BinOp:
            s.own = s.own or n.op == "^"  # a hash: what it addresses is a table
        elif t is ir.Call:
            calls_param = calls_param or (type(n.func) is ir.Name and n.func.id in params)
        elif t is ir.AugAssign:
            adds_up = True
            s.own = s.own or n.op == "^"
            base: Any = n.target
            while isinstance(base, (ir.Sub, ir.Attr)):
                base = base.value
            if isinstance(base, ir.Name) and base.id in params:
                s.own = True
        elif t is ir.Assign:
            for target in n.targets:
                base = target
                while isinstance(base, (ir.Sub, ir.Attr)):
                    base = base.value
                if base is not target and isinstance(base, ir.Name) and base.id in params:
                    s.own = True
    # A model that is handed in is run, and something added up: an evaluation, whatever it is called.
    s.own = s.own or (calls_param and adds_up)
    return s


class Interest:
    """Answers, per function definition, whether to execute it; names are resolved loosely on purpose."""

    def __init__(self, modules: list[ir.Module]) -> None:
        #: what is asked of one piece of code on every turn through it, by its identity
        self._assigned: dict[int, tuple[set[str], set[str]]] = {}
        self._names: dict[int, frozenset[str]] = {}
        self.shrinking: dict[int, frozenset[str]] = {}  # `audit.trace.carried`
        self.loading: dict[int, bool] = {}  # `audit.trace.repeats`
        self.spelled: dict[int, Any] = {}  # `audit.trace.spellings`
        self.counted: dict[int, frozenset[str]] = {}  # `audit.trace.counters`
        self.moved: dict[int, tuple[set[str], set[str]]] = {}
        self.summaries: dict[int, Summary] = {}
        self.by_name: dict[str, list[Summary]] = {}
        self.nodes: dict[str, list[ir.FunctionDef]] = {}
        for m in modules:
            self._collect(m.body)
        self._settle()

    def _collect(self, root: Any) -> None:
        for n in ir.functions(root):
            s = summarise(n)
            self.summaries[id(n)] = s
            self.by_name.setdefault(n.name, []).append(s)
            self.nodes.setdefault(n.name, []).append(n)

    def _settle(self) -> None:
        hot = {name for name, group in self.by_name.items() if any(s.own for s in group)}
        changed = True
        rounds = 0
        while changed and rounds < 12:
            changed = False
            rounds += 1
            called = hot - {"forward", "__init__"}
            for name, group in self.by_name.items():
                for s in group:  # each of those that share a name: a script's ``main`` and its helper module's
                    if not s.own and not s.calls.isdisjoint(called):
                        s.own = True
                        hot.add(name)
                        changed = True

    def summary(self, fn: ir.FunctionDef) -> Summary:
        s = self.summaries.get(id(fn))
        if s is None:
            s = self.summaries[id(fn)] = summarise(fn)
        return s

    def wanted(self, fn: ir.FunctionDef) -> bool:
        s = self.summary(fn)
        return s.own or s.size <= 160

    def assigned(self, body: list[ir.Stmt]) -> tuple[set[str], set[str]]:
        """`assigned_names`, looked up once per body."""
        found = self._assigned.get(id(body))
        if found is None:
            found = self._assigned[id(body)] = assigned_names(body)
        return found

    def mentions(self, e: ir.Expr, name: str) -> bool:
        names = self._names.get(id(e))
        if names is None:
            names = self._names[id(e)] = frozenset(n.id for n in ir.walk(e) if type(n) is ir.Name)
        return name in names


def assigned_names(body: list[ir.Stmt]) -> tuple[set[str], set[str]]:
    """(names assigned, names changed by augmented assignment) in a loop body, nested functions left out."""
    plain: set[str] = set()
    augmented: set[str] = set()

    def targets(t: Any) -> None:
        if isinstance(t, ir.Name):
            plain.add(t.id)
        elif isinstance(t, ir.Collection):
            for e in t.elts:
                targets(e)
        elif isinstance(t, ir.Starred):
            targets(t.value)

    for stmt in body:
        for n in ir.walk(stmt, into_functions=False):
            if isinstance(n, ir.Assign):
                for t in n.targets:
                    targets(t)
            elif isinstance(n, ir.AugAssign):
                if isinstance(n.target, ir.Name):
                    augmented.add(n.target.id)
            elif isinstance(n, ir.AnnAssign) and n.value is not None:
                targets(n.target)
    return plain, augmented
