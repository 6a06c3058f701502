"""Other scripts of the submission that a script starts: what they do is part of the run.

``subprocess.run([sys.executable, "score.py"])`` is executed where it stands, like an imported module whose main guard is
open. A started script that prints a score of its own which could not be followed leaves the score undetermined: what the
starting script shows is then not the whole run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from audit.trace.values import V, const

#: what begins a program; its name stands somewhere in the arguments
STARTS = frozenset(
    f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen", "getoutput", "getstatusoutput")
) | {"os.system", "os.popen", "os.execv", "os.execvp", "os.execve", "os.execl", "os.execlp", "os.spawnv", "os.spawnl"}
SCRIPT = "script"
FOLDER = "folder"
_SETTING = re.compile(r"(?:^|\s)([A-Z][A-Z0-9_]*)=(\S+)(?=\s)")
_WORD = re.compile(r"[\w./-]+\.py\b")
_SCORE = re.compile(r"bpb|bits[ _]per[ _]byte", re.I)


def named(path: V, last: V, before: V | None = None) -> V:
    """A path that ends in ``last``: which script it is stays known, wherever that lies; with the folders that were named on the way there."""
    if last.kind != "const" or not isinstance(last.const, str):
        return path
    folder = _folder(before) if before is not None else ""
    if last.const.endswith(".py"):
        if folder and not path.flags:
            script = const(f"{folder}/{last.const}")
            script.knobs = path.knobs
            return script
        path.keys = path.keys | {(SCRIPT, last.const.rpartition("/")[2])}
    elif folder and not path.flags and "." not in last.const and "*" not in last.const:
        path.const = (FOLDER, f"{folder}/{last.const}")
    return path


def _folder(v: V) -> str:
    """A path's folders as far as they are known: ``records/x`` of ``ROOT / "records" / "x"``."""
    if isinstance(v.const, tuple) and v.const[:1] == (FOLDER,):
        return str(v.const[1])
    return v.const if v.kind == "const" and isinstance(v.const, str) and "." not in v.const and not v.flags else ""


def _names(v: V, depth: int = 0) -> Iterator[str]:
    """File names of scripts in the words of a command."""
    yield from (k[1] for k in v.keys if k[0] == SCRIPT)
    if v.kind == "const":
        words = v.const if isinstance(v.const, (list, tuple)) else [v.const]
        for word in words:
            if isinstance(word, str):
                yield from (m.rpartition("/")[2] for m in _WORD.findall(word))
    elif v.kind in ("seq", "dict") and depth < 3:
        for member in v.data.values() if v.kind == "dict" else v.data or ():
            yield from _names(member, depth + 1)
        if v.rest is not None:
            yield from _names(v.rest, depth + 1)


def _settings(v: V, depth: int = 0) -> Iterator[tuple[str, str]]:
    """``env={..., "TTT_ENABLED": "1"}`` and ``TTT_ENABLED=1 python score.py``."""
    if v.kind == "dict":
        for name, value in (v.data or {}).items():
            if isinstance(name, str) and value.kind == "const" and isinstance(value.const, (str, int, float)):
                yield name, str(value.const)
    elif v.kind == "const" and isinstance(v.const, str):
        yield from _SETTING.findall(v.const.partition(".py")[0])
    elif v.kind == "seq" and depth < 2:
        for member in v.data or ():
            yield from _settings(member, depth + 1)


class Started:
    """Mixed into the machine; see `audit.trace.machine`."""

    def start(self: Any, args: list[V], node: Any) -> None:
        """A program is begun with this command, and with the settings that it is given."""
        given = dict(x for a in args for x in _settings(a))
        before = self.environ_set
        self.environ_set = {**before, **{name: const(value) for name, value in given.items()}}
        try:
            self.start_all(args, node)
        finally:
            self.environ_set = before if given else self.environ_set

    def start_all(self: Any, args: list[V], node: Any) -> None:
        folder = self.scope.path.rpartition("/")[0]
        for name in dict.fromkeys(x for a in args for x in _names(a)):
            path = f"{folder}/{name}" if folder else name
            if path in self.modules and path not in (self.primary, self.scope.path) and path not in self.started:
                self.started.add(path)
                self.run_script(path, node)

    def run_script(self: Any, path: str, node: Any) -> None:
        at, name, begun = (self.scope.path, getattr(node, "line", 0)), path.rpartition("/")[2], len(self.trace.events)
        scope = self.module_scope(path, "__main__")
        scope.names["__doc__"] = const(None)
        self.stack.append((*at, name))
        loops, self.loops = self.loops, []
        try:
            self.run_module(path, scope)
        finally:
            self.loops = loops
            self.stack.pop()
        if self.guard_state()[0] == "no" or any(e.kind == "SCORE" for e in self.trace.events[begun:]):
            return
        if any(_SCORE.search(line) and "print" in line for line in self.modules[path].lines):
            self.trace.unfollowed.append(f"{at[0]}:{at[1]} starts {name}, which prints a score that was not followed")


__all__ = ["STARTS", "Started", "named"]
