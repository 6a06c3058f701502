"""The program of a submission: its primary script peeled and lowered, with all local modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from audit import ir
from audit.context import Problem, ProblemKind
from audit.lower import TooDeep, Unparsable, lower
from audit.peel import EMBEDDED, Peeled, peel
from audit.source.files import SubmissionFiles
from audit.source.imports import local_files
from audit.source.tree import MemoryTree, OverlayTree, normal

#: Local modules beyond this are not read (a vendored library beside the script).
MAX_MODULES = 40
#: Folder of an unpacked file that has the wrapper's own name.
UNPACKED = "unpacked"
MAX_SOURCE = 16 * 2**20


@dataclass(slots=True, kw_only=True)
class Program:
    """What the trace runs on.

    ``modules`` and ``sources`` (peeled texts) are keyed by path relative to the tree's root; the
    primary's entry holds what it runs after unpacking, its ``path`` names the file that the
    positions refer to. ``tree`` includes the files that a wrapper unpacked.
    """

    primary: str
    modules: dict[str, ir.Module] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    peeled: Peeled
    problems: list[Problem] = field(default_factory=list)
    #: files that the wrapper unpacked beside itself, by path in the tree
    unpacked: dict[str, str] = field(default_factory=dict)


def load_program(files: SubmissionFiles) -> Program:
    """Peels and lowers the primary of ``files`` and every local module it reaches.

    Never raises for what a submission contains: each failure is an entry of ``problems``.
    """
    assert files.primary is not None
    data = files.read(files.primary)
    prefix = files.folder + "/" if files.folder else ""

    def sibling(name: str) -> bytes | None:
        clean = normal(name)
        if not clean:
            return None
        for candidate in (prefix + clean, clean, prefix + clean.rpartition("/")[2]):
            if candidate != files.primary and (found := files.read(candidate)) is not None:
                return found
        return None

    if data is None:
        problem = Problem(
            kind="missing", path=files.primary, line=0, reason="the script is listed but cannot be read"
        )
        return Program(primary=files.primary, peeled=Peeled(text=""), problems=[problem])
    peeled = peel(data, files.primary, sibling)
    program = Program(primary=files.primary, peeled=peeled)
    if peeled.bomb:
        program.problems.append(
            Problem(
                kind="bomb",
                path=files.primary,
                line=peeled.line,
                reason=peeled.opaque or "decompression bomb",
            )
        )
    elif peeled.opaque:
        program.problems.append(
            Problem(kind="opaque", path=files.primary, line=peeled.line, reason=peeled.opaque)
        )
    if peeled.extra_files:
        # A runner may unpack a module under the wrapper's own name; the two must not share a key.
        program.unpacked = {
            (f"{prefix}{UNPACKED}/{k}" if prefix + k == files.primary else prefix + k): v
            for k, v in peeled.extra_files.items()
        }
        mount(files, program.unpacked)
    _add(program, files, files.primary, peeled.text, peeled.path or files.primary)
    queue = [files.primary]
    twin = f"{prefix}{UNPACKED}/{files.primary.rpartition('/')[2]}"
    if (text := files.text(twin)) is not None and peeled.extra_files:
        _add(program, files, twin, text, twin)
        queue.append(twin)
    # Modules that the script carries as text are made when it starts, whoever asks for them later.
    carried = [p for p in program.unpacked if p.endswith(".py") and not p.rpartition("/")[2].startswith(EMBEDDED)]
    while queue and len(program.modules) < MAX_MODULES:
        at = queue.pop(0)
        for path in [*local_files(program.sources[at], at, files.tree.has), *(carried if at == files.primary else ())]:
            if path in program.sources or len(program.sources) >= MAX_MODULES:
                continue
            inner = files.read(path)
            if inner is None:
                program.problems.append(
                    Problem(
                        kind="missing",
                        path=path,
                        line=0,
                        reason="imported module is listed but cannot be read",
                    )
                )
                continue
            unpacked = peel(inner, path, sibling)
            if unpacked.opaque:
                program.problems.append(
                    Problem(kind="opaque", path=path, line=unpacked.line, reason=unpacked.opaque)
                )
            _add(program, files, path, unpacked.text, path)
            queue.append(path)
    return program


def mount(files: SubmissionFiles, unpacked: Mapping[str, str]) -> None:
    """Lays what a wrapper unpacked over the submission's files."""
    extra = MemoryTree(unpacked)
    files.paths = list(dict.fromkeys([*files.paths, *extra.walk()]))
    files.tree = OverlayTree(extra, files.tree)


def _add(program: Program, files: SubmissionFiles, key: str, text: str, path: str) -> None:
    program.sources[key] = text
    if len(text) > MAX_SOURCE:
        reason = f"source of {len(text) / 2**20:.0f} MB is over the limit of {MAX_SOURCE // 2**20} MB"
        program.problems.append(Problem(kind="unparsable", path=path, line=1, reason=reason))
        return
    try:
        program.modules[key] = lower(text, path)
    except Unparsable as error:
        kind: ProblemKind = "bomb" if isinstance(error, TooDeep) else "unparsable"
        program.problems.append(Problem(kind=kind, path=path, line=error.line, reason=error.reason))
