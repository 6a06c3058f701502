"""Layers: finds what a script runs in place of its own text, and goes on until nothing is packed."""

from __future__ import annotations

import ast
import builtins
import posixpath
import re
import symtable
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from audit.peel.interpret import Interpreter, Launch, World
from audit.peel.limits import MAX_DEPTH, Bomb, Budget
from audit.peel.pure import MODULE
from audit.peel.values import UNKNOWN, VPath
from audit.text import decode

_STARTS = r"\s*\.\s*(?:run|call|check_call|Popen|exec\w+|system)\b"
#: Only texts with one of these can run code that is not theirs.
#: Each by itself, its first letters first: `re` skips to them ten times faster than to a choice or a lookbehind.
_GATES = [
    re.compile(pattern)
    for pattern in (
        r"exec(?<!\wexec)\b", r"runpy(?<!\wrunpy)\b", r"exec_module(?<!\wexec_module)\b",
        r"SourceFileLoader(?<!\wSourceFileLoader)\b", r"subprocess(?<!\wsubprocess)" + _STARTS, r"os(?<!\wos)" + _STARTS,
        r"eval(?<!\weval)\s*\(\s*(?:compile|zlib|lzma|__import__|base64|b)",
    )
]  # fmt: skip
#: A script with its own training or scoring is not a wrapper, whatever else it starts.
_LEARNS = re.compile(r"\.backward\s*\(|cross_entropy|value_and_grad|log_softmax|state_dict\s*\(")
_DECODES = re.compile(
    r"b64decode|b85decode|a85decode|b32decode|b16decode|\.decompress\s*\(|fromhex|unhexlify|marshal\s*\.\s*loads"
    r"|codecs\s*\.\s*decode|\bexec\s*\(\s*\w*\s*\(?"
)
#: Starting programs alone makes no wrapper of a script that learns; these run Python text in place.
_RUNS_TEXT = [
    re.compile(pattern)
    for pattern in (
        r"exec(?<![.\w]exec)\s*\(", r"eval(?<![.\w]eval)\s*\(", r"runpy(?<!\wrunpy)\b",
        r"exec_module(?<!\wexec_module)\b", r"SourceFileLoader(?<!\wSourceFileLoader)\b",
    )
]  # fmt: skip
_LONG = re.compile(r"(\"\"\"|\'\'\')(?:(?!\1).){400,}?\1|\"[^\"\n]{400,}\"|'[^'\n]{400,}'", re.S)
_C_SUFFIXES = (".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".py")


@dataclass(slots=True, kw_only=True)
class Peeled:
    """What a script runs after unpacking.

    ``layers``: what was undone, outermost first ("lzma+b85", "exec-sibling", …), empty for a plain
    file. ``path``: the file that positions refer to where it is not the wrapper's own (a sibling
    that is exec'd). ``extra_files``: further unpacked files, path relative to the script's folder ->
    text. ``opaque``: why unpacking stopped, None if it did not. ``line``: where the wrapper's call
    stands. ``env_defaults``: environment variables that the wrapper set before it ran the payload.
    ``bomb``: unpacking hit a size or depth limit.
    """

    text: str
    layers: list[str] = field(default_factory=list)
    path: str | None = None
    extra_files: dict[str, str] = field(default_factory=dict)
    opaque: str | None = None
    line: int = 1
    env_defaults: dict[str, str] = field(default_factory=dict)
    bomb: bool = False


#: before the number of a source that a script runs under no name
EMBEDDED = "__embedded_"


def peel(data: bytes | str, path: str, siblings: Callable[[str], bytes | None] = lambda name: None) -> Peeled:
    """Unpacks ``data``, the script at ``path``; ``siblings`` reads files beside it by name.

    Never executes anything and never raises for what the script contains: a payload that cannot be
    followed is ``opaque``, one that exceeds the limits a ``bomb``.
    """
    result = Peeled(text=decode(data) if isinstance(data, bytes) else data)
    budget = Budget()
    seen = {result.text}
    try:
        for depth in range(MAX_DEPTH + 1):
            if depth == MAX_DEPTH:
                raise Bomb(f"more than {MAX_DEPTH} wrappers inside one another")
            if not _layer(result, path, siblings, budget):
                return result
            if result.text in seen:
                result.opaque = "the wrapper unpacks to itself"
                return result
            seen.add(result.text)
    except Bomb as limit:
        result.bomb, result.opaque = True, str(limit)
    except RecursionError:
        result.bomb, result.opaque = True, "the wrapper nests too deeply to be followed"
    return result


def _layer(result: Peeled, path: str, siblings: Callable[[str], bytes | None], budget: Budget) -> bool:
    """Undoes one wrapper in place; False if the text is not one."""
    text = result.text
    if not any(gate.search(text) for gate in _GATES):
        return False
    if not any(runs.search(text) for runs in _RUNS_TEXT) and _LEARNS.search(_LONG.sub("", text)):
        return False
    tree = parse(text)
    if tree is None:
        return False
    budget.steps = 0
    world = World(budget=budget, path=path, own_text=text, read=siblings)
    plain = bool(_LEARNS.search(_without_strings(tree, text)))
    try:
        Interpreter(world).run(tree)
    except (Bomb, RecursionError):
        if plain:
            return False
        if not result.layers:
            result.line = world.line
        raise
    launch = _chosen([x for x in world.launches if not x.name.startswith(MODULE)])
    for index, other in enumerate(world.launches):
        source = _text(other.source)
        if source and _looks_like_python(source) and other.name.startswith(MODULE):
            # Modules that are carried as text and made under their names.
            stem = other.name.removeprefix(MODULE).replace(".", "/")
            result.extra_files[f"{stem}.py"] = source
        elif source and plain and _looks_like_python(source) and other.how == "exec" and source.count("\n") > 3:
            # A script of its own that also starts other sources: keep them beside it.
            result.extra_files[f"{EMBEDDED}{index}__.py"] = source
    if plain:
        return False
    if launch is None:
        unknown = next((x for x in world.launches if x.source is UNKNOWN), None)
        if unknown is not None and (_DECODES.search(text) or unknown.how != "exec"):
            result.opaque = f"what line {unknown.line} runs ({unknown.how}) could not be unpacked"
            result.line = unknown.line
        return False
    source = _text(launch.source) or ""
    if launch.how == "exec" and (handed := _handed_on(tree.body, launch.line, source)):
        result.opaque = f"what line {launch.line} runs uses {handed}, which the wrapper made: the two were not followed together"
        result.line = result.line or launch.line
        return False
    if rest := _afterwards(tree.body, launch.line):
        if launch.how != "exec":
            return False  # a script that uses what it loaded: followed as it stands, with the other as a module
        source += "\n" + "\n".join(ast.unparse(s) for s in rest) + "\n"
    if not result.layers:
        result.line = launch.line
    result.layers.append(_layer_name(launch, world))
    if launch.name and launch.name not in world.files:
        result.path = launch.name.removeprefix(VPath.ROOT).lstrip("/")
    elif result.layers[-1] == "exec-sibling":
        same = (name for name, data in world.siblings.items() if decode(data) == source)
        if (name := next(same, None)) is not None:
            result.path = posixpath.join(posixpath.dirname(path), name)
    result.env_defaults = {**world.env, **result.env_defaults}
    own = {launch.name}
    roots = [p for p in world.files if p not in own]
    for file in roots:
        if file.endswith(_C_SUFFIXES):
            result.extra_files[_relative(file, launch.name)] = world.files[file].decode("utf-8", "replace")
    result.text = source
    return True


def parse(text: str) -> ast.Module | None:
    """The text's tree, None where it has none; never raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _without_strings(tree: ast.Module, text: str) -> str:
    """The script's own code for the question whether it learns: long literals are cut out."""
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and len(node.value) > 400:
            first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            for number in range(first, min(last + 1, len(lines))):
                lines[number] = ""
    return "\n".join(lines)


def _afterwards(body: list[ast.stmt], line: int) -> list[ast.stmt]:
    """What the wrapper itself does once the text that it runs at ``line`` has run: the figure may be changed there."""
    for n, stmt in enumerate(body):
        # Several statements may share a line: the one that runs a text is meant.
        if stmt.lineno <= line <= (stmt.end_lineno or stmt.lineno) and any(gate.search(ast.unparse(stmt)) for gate in _GATES):
            if isinstance(stmt, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                return []
            inner = [s for name in ("body", "orelse", "finalbody") for s in _afterwards(getattr(stmt, name, []), line)]
            return [*inner, *(s for s in body[n + 1 :] if not _idle(s))]
    return []


def _handed_on(body: list[ast.stmt], line: int, source: str) -> str:
    """A name that the wrapper gives a value and that the text it runs reads without giving it one."""
    before = [s for s in body if (s.end_lineno or s.lineno) < line]
    bound = {n.id for s in before for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {s.name for s in before if isinstance(s, (ast.FunctionDef, ast.ClassDef))}
    try:
        return min(bound & _free_names(source), default="") if bound else ""
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def _free_names(source: str) -> set[str]:
    """Names that a text reads from its surroundings."""
    top = symtable.symtable(source.removeprefix("\ufeff"), "text", "exec")
    own = {x.get_name() for x in top.get_symbols() if x.is_assigned() or x.is_imported()}
    found: set[str] = set()
    todo = [top]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        names = {x.get_name() for x in table.get_symbols() if x.is_referenced() and (table is top or x.is_global())}
        own |= {x.get_name() for x in table.get_symbols() if x.is_declared_global() and x.is_assigned()}
        found |= names
    return found - own - set(dir(builtins))


def _idle(stmt: ast.stmt) -> bool:
    """An import, a constant, a message without figures, the end of the program."""
    if isinstance(stmt, (ast.Import, ast.ImportFrom, ast.Pass, ast.Delete)):
        return True
    if not isinstance(stmt, ast.Expr):
        return False
    call = stmt.value
    if not isinstance(call, ast.Call):
        return isinstance(call, ast.Constant)
    name = ast.unparse(call.func)
    return name in ("sys.exit", "exit", "quit") or (name in ("print", "sys.stdout.flush") and all(isinstance(a, ast.Constant) for a in call.args))


def _text(source: object) -> str | None:
    if isinstance(source, bytes):
        return decode(source)
    return source if isinstance(source, str) else None


def _chosen(launches: list[Launch]) -> Launch | None:
    """The launch that stands for the script: of those that were followed, the largest source."""
    known = [x for x in launches if (t := _text(x.source)) is not None and _looks_like_python(t)]
    return max(known, key=lambda x: len(_text(x.source) or ""), default=None)


def _looks_like_python(text: str) -> bool:
    return len(text) > 20 and bool(re.search(r"\bimport\b|\bexec\b|=|\(", text)) and "\x00" not in text


def _layer_name(launch: Launch, world: World) -> str:
    coded = [op for op in dict.fromkeys(launch.ops) if op != "sibling"]
    parts = [*reversed(coded)] or ["source"]
    name = "+".join(parts)
    if launch.how != "exec":
        name = f"{launch.how}:{name}"
    elif not coded:
        name = "exec-sibling" if "sibling" in launch.ops else "exec-source"
    return name


def _relative(file: str, launched: str) -> str:
    root = posixpath.dirname(launched) if launched else ""
    if root and file.startswith(root + "/"):
        return file[len(root) + 1 :]
    return posixpath.basename(file)
