"""Which local files a script pulls in, read off its text.

A regular expression over-approximates (it sees imports in strings); that is harmless here, because
a name only counts if a file of that name lies beside the script.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_IMPORT = re.compile(
    r"(?:^|[;:])[ \t]*(?:from[ \t]+(?P<module>\.*[\w.]*)[ \t]+import[ \t]*\(?(?P<names>[\w., \t*]+)"
    r"|import[ \t]+(?P<plain>[\w., \t]+))",
    re.M,
)
_FILE = re.compile(r"""["']([\w./\-]+\.py)["']""")
#: a command in one text, as ``os.system`` takes it
_COMMAND = re.compile(r"""["'](?:[A-Za-z_]\w*=\S*[ \t]+)*(?:\S*python[\d.]*|torchrun)\b[^"'\n]*?[ \t]((?:\./)?[\w./\-]+\.py)\b""")
#: ``ROOT / "records" / "x.py"`` and ``os.path.join(ROOT, "records", "x.py")``
_STEPS = re.compile(r"""(?P<base>[\w.()\[\]]*)\s*(?P<steps>(?:/\s*["'][\w.\-/]+["']\s*)*/\s*["'][\w.\-/]+\.py["'])""")
_JOINED = re.compile(r"""path\.join\((?P<base>[^"'\n]*),\s*(?P<steps>(?:["'][\w.\-/]+["']\s*,\s*)*["'][\w.\-/]+\.py["'])""")
_SCRIPT = re.compile(r"""\.py["']""")
_ASSIGNED = re.compile(r"[ \t]*(\w+)\s*=")
#: characters before the end of a script's name in which the parts of its path stand
REACH = 400
_UPWARDS = re.compile(r"parents\[|\.parent\b.*\.parent\b|dirname\(.*dirname\(")
_RUNS_A_FILE = re.compile(r"spec_from_file_location|SourceFileLoader|exec_module|\brunpy\b|\bexec\s*\(")
_DYNAMIC = re.compile(r"""import_module\(\s*["']([\w.]+)["']|__import__\(\s*["']([\w.]+)["']""")


def imported_names(text: str) -> Iterator[str]:
    """Dotted names that the text imports; a relative import without its dots."""
    # An import is read within one line, and few lines have the word.
    for match in _IMPORT.finditer("\n".join(line for line in text.split("\n") if "import" in line)):
        if match["plain"]:
            for part in match["plain"].split(","):
                if words := part.split():
                    yield words[0]
        else:
            module = match["module"].lstrip(".")
            if module:
                yield module
            for part in match["names"].split(","):
                words = part.split()
                if words and words[0] != "*":
                    yield f"{module}.{words[0]}" if module else words[0]
    for match in _DYNAMIC.finditer(text):
        yield match[1] or match[2]


def files_run(text: str) -> Iterator[tuple[str, bool]]:
    """Script files that the text puts together from parts, each with: does it lie in a folder above the script's own."""
    if not _RUNS_A_FILE.search(text):
        return
    above = {m[1] for line in text.split("\n") if _UPWARDS.search(line) and (m := _ASSIGNED.match(line))}
    ends = [m.end() for m in _SCRIPT.finditer(text)]
    for pattern in (_STEPS, _JOINED):
        for end in ends:
            # Searched backwards from where a script's name ends: the patterns may begin at any character.
            m = next((m for m in pattern.finditer(text, max(0, end - REACH), end) if m.end() == end), None)
            if m is not None:
                tail = "/".join(re.findall(r"""["']([^"']+)["']""", m["steps"]))
                base = m["base"].strip()
                yield tail.removeprefix("./"), base in above or bool(_UPWARDS.search(base))


def local_files(text: str, path: str, has: Callable[[str], bool]) -> list[str]:
    """Paths of the local modules that ``text`` (the script at ``path``) imports or names.

    Looked up beside the script first, then at the root; a file named in a string counts only
    beside the script, or where the script runs files and puts the path together (see `files_run`).
    """
    folder = path.rpartition("/")[0]
    prefix = folder + "/" if folder else ""
    found: dict[str, None] = {}
    for name in dict.fromkeys(imported_names(text)):
        stem = name.replace(".", "/")
        for candidate in (
            f"{prefix}{stem}.py",
            f"{prefix}{stem}/__init__.py",
            f"{stem}.py",
            f"{stem}/__init__.py",
        ):
            if candidate != path and has(candidate):
                found[candidate] = None
                break
    for name in dict.fromkeys([*_FILE.findall(text), *_COMMAND.findall(text)]):
        candidate = prefix + name.removeprefix("./").rpartition("/")[2]
        if candidate != path and has(candidate):
            found[candidate] = None
    for tail, above in dict.fromkeys(files_run(text)):
        folders = folder.split("/") if folder else []
        for depth in range(len(folders) - above, -1, -1):
            candidate = "/".join([*folders[:depth], tail])
            if candidate != path and has(candidate):
                found[candidate] = None
                break
    return list(found)
