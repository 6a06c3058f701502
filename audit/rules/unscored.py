"""Why a trace met no place that scores validation tokens, as far as the program's text says so for sure.

No rule lives here. Tools, helper modules, stubs and experiments on made-up data score nothing; whoever reads that nothing
could be shown wants to know which of these it is.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator

from audit import ir
from audit.context import Context
from audit.ir import called
from audit.trace import Trace
from audit.trace.foreign import is_library
from audit.trace.values import RAND, SOURCES, TRAIN, VAL

NOWHERE = "no place was found where validation tokens are scored"
#: what reads data, under whatever name it was imported
_READS = frozenset(
    "fromfile memmap open load loads read read_bytes read_text frombuffer glob rglob iglob listdir iterdir scandir mmap load_dataset "
    "DataLoader ParquetFile read_parquet from_file urlopen urlretrieve download hf_hub_download run Popen check_call check_output".split()
)
#: methods of texts, lists and tables, which run no code of the script
_OF_VALUES = frozenset("split strip join lower upper items keys values append extend update format startswith endswith replace".split())


def why_unscored(ctx: Context, trace: Trace) -> str:
    """One sentence; it begins with ``NOWHERE`` and goes on where more is sure."""
    module = ctx.module
    if module is None:
        return NOWHERE
    if not any(not isinstance(s, ir.ExprStmt) or not isinstance(s.value, ir.Const) for s in module.body):
        return f"{NOWHERE}: the script is empty"
    if not _calls_own(module):
        return f"{NOWHERE}: the script defines functions and classes and calls none of them"
    absent, elsewhere = _unread(ctx, module)
    if absent:
        is_not = "is not" if len(absent) == 1 else "are not"
        return f"{NOWHERE}: {' and '.join(absent[:2])}, which the script imports, {is_not} among the submitted files"
    if elsewhere:
        return NOWHERE
    if any(e.flags & (VAL | TRAIN) for e in trace.events) or any(_reads(m) for m in ctx.modules.values()):
        return NOWHERE
    made_up = next((e for e in trace.of("UPDATE") if e.flags & SOURCES == RAND), None)
    if made_up is not None:
        return f"{NOWHERE}: the script reads no data and trains on random numbers ({made_up.path}:{made_up.line})"
    return f"{NOWHERE}: the script reads no data"


def _calls_own(module: ir.Module) -> bool:
    """May anything at top level run what the module itself defines, or code of a module that is no library."""
    own = {n.name for n in module.body if isinstance(n, (ir.FunctionDef, ir.ClassDef))}
    if not own:
        return True  # it does whatever it does in its own lines
    outside = [n for s in module.body for n in ir.walk([s], into_functions=False)]
    libraries = {
        (alias or name).partition(".")[0]
        for n in outside if isinstance(n, ir.Import)
        for name, alias in n.names
        if is_library((n.module or "") if n.is_from else name)
    }  # fmt: skip
    for n in outside:
        if isinstance(n, (ir.FunctionDef, ir.ClassDef)):
            if n.decorators:
                return True  # who knows what the decorator does with it
        elif isinstance(n, ir.Name) and n.id in own:
            return True
        elif isinstance(n, ir.Call):
            top, name = _top(n.func), n.func.attr if isinstance(n.func, ir.Attr) else ""
            if top == "importlib" or not (top in libraries or hasattr(builtins, top) or name in _OF_VALUES):
                return True
    return False


def _top(called: ir.Expr) -> str:
    while isinstance(called, ir.Attr):
        called = called.value
    return called.id if isinstance(called, ir.Name) else ""


def _unread(ctx: Context, module: ir.Module) -> tuple[list[str], bool]:
    """Imported modules that are neither libraries nor files of the submission; and are there others that were not read."""
    found: dict[str, None] = {}
    elsewhere = False
    files = ctx.files.paths if ctx.files is not None else []
    for name in _imports(module.body):
        top = name.partition(".")[0]
        if not top or is_library(top):
            continue
        stem = name.replace(".", "/")
        if any(p == f"{t}.py" or p.endswith(f"/{t}.py") for p in ctx.modules for t in (top, stem, f"{stem}/__init__", f"{top}/__init__")):
            continue
        if any(f"/{top}.py" == f"/{p}"[-len(top) - 4 :] or f"/{top}/" in f"/{p}" for p in files):
            elsewhere = True
        else:
            found[f"`{name}`"] = None
    return list(found), elsewhere


def _imports(body: list[ir.Stmt]) -> Iterator[str]:
    """Modules that are imported come what may: in no ``try``, at top level or in a function."""
    guarded = {id(n) for s in ir.walk(body) if isinstance(s, ir.Try) for n in ir.walk(s.body)}
    for n in ir.walk(body):
        if isinstance(n, ir.Import) and id(n) not in guarded:
            if n.is_from:
                yield (n.module or "").lstrip(".")
            else:
                yield from (name for name, _ in n.names)


def _reads(module: ir.Module) -> bool:
    """Does a module hold any call that could bring in data."""
    for n in ir.walk(module.body):
        if isinstance(n, ir.Call):
            name = called(n)
            if name in _READS and not (name == "open" and _writes(n)):
                return True
    return False


def _writes(call: ir.Call) -> bool:
    mode = next((v for k, v in call.keywords if k == "mode"), call.args[1] if len(call.args) > 1 else None)
    return isinstance(mode, ir.Const) and isinstance(mode.value, str) and not set(mode.value) & set("r+")


__all__ = ["NOWHERE", "why_unscored"]
