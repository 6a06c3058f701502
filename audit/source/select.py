"""Which scripts of a submission are the ones to judge: those that train or score.

A records folder holds more than its script: helpers that the script imports, data preparation,
launchers, sweeps, plots. A helper is read when something imports it; tools are read only when
nothing else is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from audit.source.imports import imported_names

#: Scripts of one submission that are judged, the records folders' own first; more than this is no submission.
MAX_PRIMARIES = 120
#: Files looked into for a script to judge, those named like one first.
MAX_READ = 200

_TOOL = re.compile(
    r"(^|[_\-/])(prepare|prep|download|fetch|launch(er)?|sweep|plot|analy[sz]e|analysis|tests?|conftest|setup|"
    r"tokenize|retokenize|build|convert|debug|verify|check|profile|bench(mark)?|monitor|upload|parse|summari[sz]e|"
    r"modal|runpod|run|make|generate|gen|compress|pack|estimate|orchestrat\w*|patch\w*|smoke|sanity)([_\-.]|\.py$)",
    re.I,
)
#: what a tool is tested on is no submission
_FIXTURE = re.compile(r"(^|/)(tests?|fixtures|testdata)/", re.I)
_LEARNS = re.compile(r"\.backward\s*\(|cross_entropy|val_bpb|value_and_grad|log_softmax")
#: A word about the metric also stands in log readers and launchers; these compute something.
_COMPUTES = re.compile(r"\.backward\s*\(|cross_entropy|value_and_grad|log_softmax")
_PACKED = re.compile(r"\bexec\s*\(|\brunpy\b|exec_module|\bb85decode\b|a85decode|b64decode")
_LAUNCHES = re.compile(r"subprocess|os\.exec|os\.system|import_module|run_path|spec_from_file_location")
#: A library module has no effect when it is run; a script has a main guard or calls at top level.
_RUNS = re.compile(r"__main__|^[A-Za-z_][\w.]*\(", re.M)


def primary_scripts(paths: Iterable[str], read: Callable[[str], str | None]) -> list[str]:
    """The primary scripts among ``paths`` (changed .py files), best first; empty if there is none."""
    paths = set(paths)
    scripts = sorted(p for p in paths if p.endswith(".py"))
    scripts = [p for p in scripts if not _FIXTURE.search(p)] or scripts
    records = [p for p in scripts if _in_record(p, paths)]
    named = [p for p in records if _is_train_gpt(p)]
    named = named or [p for p in scripts if _is_train_gpt(p)]
    pool = named + [p for p in records or scripts if p not in named]
    texts = {p: read(p) or "" for p in pool[: max(MAX_READ, len(named))]}
    imported = _imported(texts)
    found = []
    for path, text in texts.items():
        if _is_train_gpt(path):
            found.append(path)
        elif path not in imported and not _is_tool(path) and _RUNS.search(text):
            if _COMPUTES.search(text) or (_scores_by(path, text, texts) and _is_run(path, paths, read)):
                found.append(path)
    found = [p for p in found if not _only_launches(p, texts[p], found)] or found
    if not found and records:
        return primary_scripts([p for p in scripts if not _in_record(p, paths)], read) or _fallback(texts)
    if not found:
        return _fallback(texts)
    return sorted(found, key=_preference)


def _fallback(texts: dict[str, str]) -> list[str]:
    """Nothing looks like the script: take what learns, then what is packed, then nothing."""
    for pattern in (_COMPUTES, _PACKED):
        chosen = [p for p, text in texts.items() if pattern.search(text)]
        if pattern is _PACKED:
            chosen = [p for p in chosen if not _is_tool(p)]
        if chosen:
            return sorted(chosen, key=_preference)[:1]
    return []


def _in_record(path: str, paths: set[str]) -> bool:
    """In the records folders, or in a folder elsewhere that has a record's metadata (``SUBMISSION_FINAL/``)."""
    folder = path.rpartition("/")[0]
    return path.startswith("records/") or bool(folder and f"{folder}/submission.json" in paths)


def _is_train_gpt(path: str) -> bool:
    return PurePosixPath(path).name.startswith("train_gpt") and not path.endswith("_test.py")


def _is_tool(path: str) -> bool:
    return bool(_TOOL.search(PurePosixPath(path).name))


def _only_launches(path: str, text: str, found: list[str]) -> bool:
    """A stub that starts a sibling, which is judged itself."""
    if _LEARNS.search(text) or not _LAUNCHES.search(text) or _PACKED.search(text):
        return False
    folder = path.rpartition("/")[0]
    return any(
        other != path and other.rpartition("/")[0] == folder and PurePosixPath(other).name in text
        for other in found
    )


def _scores_by(path: str, text: str, texts: dict[str, str]) -> bool:
    """Does a script that computes nothing itself import what does: ``from train_gpt import GPT``."""
    return any(_COMPUTES.search(texts[m]) for m in _modules(path, text) if m in texts)


def _is_run(path: str, paths: set[str], read: Callable[[str], str | None]) -> bool:
    """Do the papers beside a script say that it is run: a second step of the submission, and no leftover."""
    folder, _, name = path.rpartition("/")
    command = re.compile(rf"\b(?:torchrun|python[\d.]*|uv run|accelerate)\b[^\n]*(?<![\w-]){re.escape(name)}")
    papers = sorted(p for p in paths if p.rpartition("/")[0] == folder and p.endswith((".md", ".sh", ".txt")))
    return any(command.search((read(p) or "").replace("\\\n", " ")) for p in papers)


def _modules(path: str, text: str) -> list[str]:
    """The files beside a script, and below, that its imports may name."""
    folder = path.rpartition("/")[0]
    return [f"{folder}/{name.replace('.', '/')}.py".lstrip("/") for name in imported_names(text)]


def _imported(texts: dict[str, str]) -> set[str]:
    used: set[str] = set()
    for path, text in texts.items():
        used.update(m for m in _modules(path, text) if m in texts and m != path)
    return used


def _preference(path: str) -> tuple[bool, bool, bool, int, str]:
    name = PurePosixPath(path).name
    return (
        not path.startswith("records/"),
        name != "train_gpt.py",
        not name.startswith("train"),
        len(path),
        path,
    )
