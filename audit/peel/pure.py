"""What the evaluator may compute: operators, methods and functions without effects outside memory."""

from __future__ import annotations

import json
import posixpath
from typing import TYPE_CHECKING, Any

from audit.peel.decode import CONSTANTS, DECODERS, decode
from audit.peel.limits import Bomb, Budget
from audit.peel.values import UNKNOWN, Code, Instance, Method, Ref, VFile, VPath, is_known

if TYPE_CHECKING:
    from audit.peel.interpret import World

BUILTINS = frozenset(
    [
        "exec",
        "eval",
        "compile",
        "open",
        "bytes",
        "bytearray",
        "str",
        "int",
        "float",
        "len",
        "range",
        "chr",
        "ord",
        "dict",
        "list",
        "tuple",
        "zip",
        "map",
        "sorted",
        "reversed",
        "enumerate",
        "sum",
        "min",
        "max",
        "abs",
        "bool",
        "getattr",
        "globals",
        "locals",
        "__import__",
        "isinstance",
        "print",
        "exit",
        "quit",
        "vars",
        "setattr",
    ]
)
#: Calls that run code.
RUNNERS = frozenset(
    [
        "builtins.exec",
        "builtins.eval",
        "exec_module",
        "runpy.run_path",
        "runpy.run_module",
        "subprocess.run",
        "subprocess.call",
        "subprocess.check_call",
        "subprocess.check_output",
        "subprocess.Popen",
        "os.system",
        "os.execv",
        "os.execvp",
        "os.execve",
        "os.execvpe",
        "os.execl",
        "os.execlp",
    ]
)
_TEXT_METHODS = frozenset(
    [
        "join",
        "replace",
        "strip",
        "lstrip",
        "rstrip",
        "split",
        "rsplit",
        "splitlines",
        "encode",
        "decode",
        "lower",
        "upper",
        "swapcase",
        "translate",
        "format",
        "startswith",
        "endswith",
        "partition",
        "rpartition",
        "removeprefix",
        "removesuffix",
        "hex",
        "count",
        "find",
        "index",
        "tobytes",
        "zfill",
        "ljust",
        "rjust",
        "title",
    ]
)
_CONTAINER_METHODS = frozenset(
    [
        "items",
        "keys",
        "values",
        "get",
        "append",
        "extend",
        "pop",
        "insert",
        "reverse",
        "sort",
        "setdefault",
        "update",
        "copy",
    ]
)
_SELF_CONTAINED = (str, bytes, bytearray)


def reference(name: str) -> Any:
    """The value of a dotted name: a constant, or a `Ref`."""
    return CONSTANTS.get(name, Ref(name))


#: before the name of a module that the source is run as
MODULE = "module:"


def attribute(owner: Any, name: str) -> Any:
    if isinstance(owner, Ref):
        return reference(f"{owner.name}.{name}" if owner.name != "builtins.bytes" else f"bytes.{name}")
    if isinstance(owner, VPath):
        if name == "parent":
            return VPath(posixpath.dirname(owner.path))
        if name == "parents":
            return Instance("parents", owner.path)
        if name in ("name", "stem", "suffix"):
            base = posixpath.basename(owner.path)
            return {"name": base, "stem": posixpath.splitext(base)[0], "suffix": posixpath.splitext(base)[1]}[
                name
            ]
    if isinstance(owner, VFile) and name == "name":
        return VPath(owner.path)
    if isinstance(owner, Instance) and owner.kind == "spec" and name == "loader":
        return Instance("loader", owner.state)
    if isinstance(owner, Instance) and owner.kind == "made" and name == "__dict__":
        return owner
    if owner is UNKNOWN or owner is None:
        return UNKNOWN
    return Method(owner, name)


def iterable(value: Any) -> list[Any] | None:
    if isinstance(value, (list, tuple, str, bytes, bytearray, range)):
        return list(value) if len(value) <= 2_000_000 else None
    return list(value) if isinstance(value, dict) else None


def _text(value: Any) -> Any:
    return value.path if isinstance(value, VPath) else value


def binary(budget: Budget, op: str, left: Any, right: Any) -> Any:
    if op == "Div" and isinstance(left, VPath) and isinstance(right, (str, VPath)):
        return VPath(_join(left.path, str(_text(right))))
    left, right = _text(left), _text(right)
    if not (is_known(left) and is_known(right)):
        return UNKNOWN
    sized = (str, bytes, bytearray, list, tuple)
    try:
        if op == "Add":
            if isinstance(left, sized):
                budget.spend(len(left) + len(right))
            return left + right
        if op == "Mult":
            length = (
                len(left) * right
                if isinstance(left, sized)
                else len(right) * left
                if isinstance(right, sized)
                else 0
            )
            if length:
                budget.spend(max(0, int(length)))
            return left * right
        if op == "Mod":
            # `"%9999999999d" % 1` builds what it says; no wrapper needs it.
            return left % right if isinstance(left, int) and isinstance(right, int) else UNKNOWN
        if (
            op in ("Sub", "FloorDiv", "BitXor", "BitAnd", "BitOr")
            and isinstance(left, int)
            and isinstance(right, int)
        ):
            return {
                "Sub": left - right,
                "BitXor": left ^ right,
                "BitAnd": left & right,
                "BitOr": left | right,
            }.get(op, left // right if right and op == "FloorDiv" else UNKNOWN)
    except (TypeError, ValueError, OverflowError):
        pass
    return UNKNOWN


def compare(op: str, left: Any, right: Any) -> Any:
    left, right = _text(left), _text(right)
    if not (is_known(left) and is_known(right)):
        return UNKNOWN
    try:
        return {
            "Eq": lambda: left == right, "NotEq": lambda: left != right, "In": lambda: left in right,
            "NotIn": lambda: left not in right, "Is": lambda: left is right, "IsNot": lambda: left is not right,
            "Lt": lambda: left < right, "Gt": lambda: left > right, "LtE": lambda: left <= right,
            "GtE": lambda: left >= right,
        }[op]()  # fmt: skip
    except TypeError:
        return UNKNOWN


def subscript(owner: Any, key: Any) -> Any:
    if isinstance(owner, (str, bytes, bytearray, list, tuple, dict)) and (
        is_known(key) or isinstance(key, slice)
    ):
        try:
            return owner[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError, ValueError):
            return UNKNOWN
    if isinstance(owner, Instance) and owner.kind == "parents" and isinstance(key, int) and 0 <= key < 64:
        path = owner.state
        for _ in range(key + 1):
            path = posixpath.dirname(path)
        return VPath(path)
    return UNKNOWN


def _join(*parts: str) -> str:
    return posixpath.normpath(posixpath.join(*parts))


def call(world: World, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """A call by dotted name; UNKNOWN for what is not whitelisted."""
    if name in DECODERS:
        values = [_decodable(a) for a in args]
        if not values or not is_known(values[0]) or any(not is_known(v) for v in kwargs.values()):
            return UNKNOWN
        world.ops.append(DECODERS[name][0])
        try:
            return decode(world.budget, name, values, kwargs)
        except ValueError:
            return UNKNOWN
    handler = _FUNCTIONS.get(name)
    if handler is not None:
        try:
            return handler(world, *args, **kwargs)
        except Bomb:
            raise
        except Exception:  # wrong arity, wrong types: the call would fail or is not what we think
            return UNKNOWN
    if name.startswith("os.environ."):
        return _environ(world, name.rpartition(".")[2], args)
    return UNKNOWN


def _decodable(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray) else value


def _environ(world: World, method: str, args: list[Any]) -> Any:
    if method == "setdefault" and len(args) == 2 and isinstance(args[0], str):
        world.touched = True
        if isinstance(args[1], str):
            return world.env.setdefault(args[0], args[1])
    if method == "update" and args and isinstance(args[0], dict):
        world.env.update({k: v for k, v in args[0].items() if isinstance(k, str) and isinstance(v, str)})
    if method == "copy":
        return dict(world.env)
    return UNKNOWN


def _open(world: World, path: Any, mode: str = "r", *_: Any, **__: Any) -> Any:
    return VFile(str(_text(path)), mode) if isinstance(path, (str, VPath)) else UNKNOWN


def _bytes(world: World, value: Any = b"", *rest: Any) -> Any:
    if isinstance(value, int):
        world.budget.spend(value)
    return bytes(value, *rest) if is_known(value) else UNKNOWN


def _str(world: World, value: Any = "", *rest: Any) -> Any:
    if isinstance(value, VPath):
        return value
    return str(value, *rest) if is_known(value) else UNKNOWN


def _import(world: World, name: Any, *_: Any, **__: Any) -> Any:
    return Ref(name) if isinstance(name, str) else UNKNOWN


def _getattr(world: World, owner: Any, name: Any, *_: Any) -> Any:
    return attribute(owner, name) if isinstance(name, str) else UNKNOWN


def _spec(world: World, name: Any = "", location: Any = None, *_: Any, **__: Any) -> Any:
    return Instance("spec", (str(name), _text(location)))


def _range(world: World, *args: int) -> Any:
    out = range(*args)
    return out if len(out) <= 2_000_000 else UNKNOWN


def _list(world: World, value: Any = ()) -> Any:
    items = iterable(value)
    return UNKNOWN if items is None else items


def _dict(world: World, value: Any = (), **kwargs: Any) -> Any:
    return dict(value, **kwargs) if isinstance(value, (dict, list, tuple)) else UNKNOWN


def _temp(world: World, *_: Any, **kwargs: Any) -> Any:
    return VPath(f"{VPath.TEMP}/{len(world.files)}")


def _temp_file(world: World, *args: Any, **kwargs: Any) -> Any:
    return VFile(f"{VPath.TEMP}/file{len(world.files)}{kwargs.get('suffix', '')}", "w+")


def _path(world: World, *parts: Any) -> Any:
    texts = [_text(p) for p in parts]
    return VPath(_join(*texts)) if all(isinstance(t, str) for t in texts) else UNKNOWN


def _dirname(world: World, path: Any) -> Any:
    return VPath(posixpath.dirname(_text(path)))


_FUNCTIONS: dict[str, Any] = {
    "builtins.open": _open,
    "io.open": _open,
    "codecs.open": _open,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.str": _str,
    "builtins.compile": lambda w, source, *a, **k: Code(source),
    "builtins.__import__": _import,
    "importlib.import_module": _import,
    "builtins.getattr": _getattr,
    "builtins.globals": lambda w: {},
    "builtins.locals": lambda w: {},
    "builtins.dict": _dict,
    "builtins.list": _list,
    "builtins.tuple": lambda w, v=(): tuple(_list(w, v)),
    "builtins.range": _range,
    "builtins.reversed": lambda w, v: list(reversed(_list(w, v))),
    "builtins.sorted": lambda w, v: sorted(_list(w, v)),
    "builtins.zip": lambda w, *v: list(zip(*(_list(w, x) for x in v), strict=False)),
    "builtins.enumerate": lambda w, v, start=0: list(enumerate(_list(w, v), start)),
    "builtins.len": lambda w, v: len(v) if is_known(v) else UNKNOWN,
    "builtins.int": lambda w, v=0, *b: (
        int(v, *b) if isinstance(v, (str, bytes, int, float)) and len(str(v)) < 4000 else UNKNOWN
    ),
    "builtins.float": lambda w, v=0.0: float(v),
    "builtins.chr": lambda w, v: chr(v),
    "builtins.ord": lambda w, v: ord(v),
    "builtins.bool": lambda w, v=False: bool(v),
    "builtins.isinstance": lambda w, *a: UNKNOWN,
    "str.maketrans": lambda w, *a: str.maketrans(*a),
    "builtins.str.maketrans": lambda w, *a: str.maketrans(*a),
    "json.loads": lambda w, v, **k: json.loads(v) if isinstance(v, (str, bytes)) else UNKNOWN,
    "base64.b64encode": lambda w, v: UNKNOWN,
    "os.path.join": _path,
    "os.path.dirname": _dirname,
    "os.path.abspath": lambda w, p: VPath(w.full(_text(p))),
    "os.path.realpath": lambda w, p: p,
    "os.path.normpath": lambda w, p: p,
    "os.path.basename": lambda w, p: posixpath.basename(_text(p)),
    "os.fspath": lambda w, p: p,
    "os.getcwd": lambda w: VPath(w.here),
    "pathlib.Path": lambda w, *p: _path(w, *(p or (w.here,))),
    "pathlib.Path.cwd": lambda w: VPath(w.here),
    "pathlib.PurePath": _path,
    "tempfile.mkdtemp": _temp,
    "tempfile.gettempdir": _temp,
    "tempfile.TemporaryDirectory": _temp,
    "tempfile.mkstemp": lambda w, *a, **k: (
        UNKNOWN,
        VPath(f"{VPath.TEMP}/file{len(w.files)}{k.get('suffix', '')}"),
    ),
    "tempfile.NamedTemporaryFile": _temp_file,
    "io.BytesIO": lambda w, v=b"": Instance("bytesio", v),
    "importlib.util.spec_from_file_location": _spec,
    "importlib.machinery.SourceFileLoader": lambda w, name, path: Instance(
        "loader", (str(name), _text(path))
    ),
    "types.ModuleType": lambda w, name=UNKNOWN, doc=None: Instance("made", name),
    "importlib.util.module_from_spec": lambda w, spec: Instance("module", getattr(spec, "state", None)),
    "zstandard.ZstdDecompressor": lambda w, *a, **k: Instance("object", "zstandard.ZstdDecompressor"),
    "zstd.ZstdDecompressor": lambda w, *a, **k: Instance("object", "zstandard.ZstdDecompressor"),
    "lzma.LZMADecompressor": lambda w, *a, **k: Instance("lzma", (a, k)),
    "zlib.decompressobj": lambda w, *a, **k: Instance("object", "zlib"),
    "lzma.open": lambda w, f, *a, **k: Instance("opened", ("lzma.decompress", f)),
    "gzip.open": lambda w, f, *a, **k: Instance("opened", ("gzip.decompress", f)),
    "gzip.GzipFile": lambda w, *a, fileobj=None, **k: Instance("opened", ("gzip.decompress", fileobj)),
    "bz2.open": lambda w, f, *a, **k: Instance("opened", ("bz2.decompress", f)),
}


def method(world: World, owner: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """A method of a value; UNKNOWN for what is not whitelisted."""
    try:
        if isinstance(owner, VPath):
            return _path_method(world, owner, name, args)
        if isinstance(owner, VFile):
            return _file_method(world, owner, name, args)
        if isinstance(owner, Instance):
            return _instance_method(world, owner, name, args)
        if isinstance(owner, _SELF_CONTAINED) and name in _TEXT_METHODS:
            args = [_text(a) for a in args]
            if all(_clean(a) for a in args) and all(is_known(v) for v in kwargs.values()):
                world.budget.spend(_size_after(owner, name, args))
                return getattr(owner, name)(*args, **kwargs)
        if isinstance(owner, (dict, list)) and name in _CONTAINER_METHODS:
            out = getattr(owner, name)(*args)
            return list(out) if name in ("items", "keys", "values") else out
    except Bomb:
        raise
    except Exception:  # the call would fail, or is not what we think
        pass
    return UNKNOWN


def _clean(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(v, (str, bytes, bytearray)) for v in value)
    return is_known(value) or isinstance(value, range)


def _size_after(owner: Any, name: str, args: list[Any]) -> int:
    if name == "join" and args:
        return sum(len(x) + len(owner) for x in args[0])
    if name == "replace" and len(args) >= 2:
        return len(owner) + owner.count(args[0]) * len(args[1])
    if name in ("zfill", "ljust", "rjust") and args:
        return int(args[0])
    if name in ("format", "translate"):
        return len(owner) * 8
    return len(owner)


def _path_method(world: World, owner: VPath, name: str, args: list[Any]) -> Any:
    if name in ("resolve", "absolute"):
        return VPath(world.full(owner.path))
    if name in ("expanduser", "__enter__", "as_posix", "__fspath__", "__str__"):
        return owner
    if name in ("with_name", "joinpath", "with_suffix"):
        texts = [str(_text(a)) for a in args]
        if name == "joinpath":
            return VPath(_join(owner.path, *texts))
        if name == "with_name":
            return VPath(_join(posixpath.dirname(owner.path), *texts))
        return VPath(posixpath.splitext(owner.path)[0] + texts[0])
    if name == "open":
        return VFile(owner.path, args[0] if args else "r")
    if name in ("read_text", "read_bytes"):
        return _read(world, owner.path, "b" if name == "read_bytes" else "")
    if name in ("write_text", "write_bytes"):
        _write(world, owner.path, args[0], append=False)
        return None
    if name in ("exists", "is_file"):
        return True if world.load(owner.path) is not None else UNKNOWN
    return UNKNOWN


def _read(world: World, path: str, mode: str) -> Any:
    data = world.load(path)
    if data is None:
        return UNKNOWN
    if world.full(path) not in world.files and world.full(path) != world.self_path:
        world.ops.append("sibling")
    return data if "b" in mode else data.decode("utf-8", "replace").replace("\r\n", "\n")


def _write(world: World, path: str, value: Any, append: bool) -> None:
    if isinstance(value, (str, bytes, bytearray)):
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
        world.budget.spend(len(data))
        path = world.full(path)
        world.files[path] = world.files.get(path, b"") + data if append else data
        world.touched = True


def _file_method(world: World, owner: VFile, name: str, args: list[Any]) -> Any:
    if name == "read":
        return _read(world, owner.path, owner.mode)
    if name == "readlines":
        data = _read(world, owner.path, owner.mode)
        return data.splitlines(keepends=True) if isinstance(data, (str, bytes)) else UNKNOWN
    if name == "write":
        _write(world, owner.path, args[0], append=True)
        return None
    return owner if name in ("__enter__",) else None if name in ("close", "flush") else UNKNOWN


def _instance_method(world: World, owner: Instance, name: str, args: list[Any]) -> Any:
    if owner.kind == "object" and name == "decompress":
        target = f"{owner.state}.decompress"
        return call(world, target, args, {})
    if owner.kind == "lzma" and name == "decompress":
        return call(world, "lzma.decompress", [*args, *owner.state[0]], owner.state[1])
    if owner.kind == "bytesio" and name in ("read", "getvalue"):
        return owner.state
    if owner.kind == "opened" and name == "read":
        decoder, source = owner.state
        data = source.state if isinstance(source, Instance) else _read(world, str(_text(source)), "b")
        return call(world, decoder, [data], {})
    if owner.kind == "loader" and name in ("load_module",):
        return UNKNOWN
    return UNKNOWN


def launched(world: World, how: str, args: list[Any], kwargs: dict[str, Any]) -> tuple[str, Any, str] | None:
    """(kind, source or UNKNOWN, file name) of what a runner call would run; None if no Python code."""
    if how in ("builtins.exec", "builtins.eval"):
        if not args:
            return None
        source = args[0].source if isinstance(args[0], Code) else args[0]
        home = args[1] if len(args) > 1 else None
        module = home.state if isinstance(home, Instance) and home.kind == "made" and isinstance(home.state, str) else ""
        return "exec", source if isinstance(source, (str, bytes)) else UNKNOWN, MODULE + module if module else ""
    if how in ("exec_module", "runpy.run_path", "runpy.run_module"):
        if not args:
            return None
        target = args[0][1] if how == "exec_module" and isinstance(args[0], tuple) else _text(args[0])
        if not isinstance(target, str):
            return how.rpartition(".")[2], UNKNOWN, ""
        if how == "runpy.run_module":
            target = target.replace(".", "/") + ".py"
        data = world.load(target)
        return how.rpartition(".")[2], UNKNOWN if data is None else data, world.full(target)
    return _subprocess(world, args)


def _subprocess(world: World, args: list[Any]) -> tuple[str, Any, str] | None:
    words: list[Any] = []
    for arg in args[:2]:
        if isinstance(arg, str):
            words += arg.split()
        elif isinstance(arg, (list, tuple)):
            words += arg
    for word in words:
        name = _text(word)
        if isinstance(name, str) and name.endswith(".py") and world.full(name) != world.self_path:
            data = world.load(name)
            return None if data is None else ("subprocess", data, world.full(name))
    return None
