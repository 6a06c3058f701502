"""What a submission's papers say was typed: README code blocks, shell scripts, ``submission.json``.

Only knobs that the program reads count, so that ordinary shell variables and prose do no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from audit.knobs.declared import spelled
from audit.knobs.model import WORLD_SIZE, Claim, Declaration
from audit.source.files import SubmissionFiles

BLOCK, JSON, SCRIPT, LAUNCHER, PROSE = 50, 45, 40, 30, 20
MAX_TEXT = 400_000

_SET = re.compile(r"""(?<![\w$.{-])([A-Za-z_]\w*)=("[^"\n]*"|'[^'\n]*'|[^\s;|&`"'()]*)""")
_PAIR = re.compile(
    r"""["']([A-Z][A-Z0-9_]+)["']\s*(?::|\]\s*=)\s*(?:str\(\s*)?(["'][^"'\n]*["']|[-+]?[\d.]+|True|False)"""
)
_FENCE = re.compile(r"^\s*(```+|~~~+)\s*([\w+-]*)")
_RUNS = re.compile(r"\b(?:torchrun|python[\d.]*|accelerate|uv|srun|modal|mpirun|deepspeed)\b")
_SCRIPT = re.compile(r"([\w./-]+\.py)\b")
_OPTION = re.compile(r"""(?<!\S)(--[A-Za-z][\w-]*)(?:[= ]\s*("[^"]*"|'[^']*'|(?!--)[^\s\\]+))?""")
#: the launcher's option that becomes the processes' WORLD_SIZE, as typed or as words of a list
_PROCESSES = re.compile(
    r"""--(?:nproc[-_]per[-_]node|num_processes)(?:["']?\s*,\s*["']|=["']?|\s+["']?)(\d+|\$\{\w+:?[-=]\d+\})(?![\w{])"""
)
_COUNT = re.compile(r"""(--nproc[-_]per[-_]node(?:=|\s+))["']?\$\{?(\w+)\}?["']?(?![\w:-])""")
_NODES = re.compile(r"""--nnodes(?:["']?\s*,\s*["']|=|\s+)(\d+)""")
_LAUNCHES = re.compile(r"\btorchrun\b|\btorch\.distributed\.(?:run|launch)\b|\baccelerate\b")
_DEFAULTED = re.compile(r"^\$\{\w+:?[-=](.*)\}$")
#: a script whose commands are ways of one choice
_MODES = re.compile(r"^\s*(?:case\b.*\bin\b|elif\b)", re.M)
_CODE = re.compile(r"`([^`\n]+)`")
_TO = r"\bto (?:re-?)?(?:enable|disable|activate|deactivate|fall back|turn (?:\w+ )?o(?:n|ff)|switch (?:\w+ )?o(?:n|ff))\b"
#: "`X=1` to re-enable it", "to disable it: `X=0`" in prose
_OTHER_WAY = re.compile(rf"`…`[^`.;]{{0,20}}{_TO}|{_TO}[^`.;]{{0,40}}`…`", re.I)
_HISTORY = re.compile(
    r"ablat|baseline|previous|negative|did ?n.t|fail|prior|optional|alternativ|smoke|debug|sanity|prepare|data prep",
    re.I,
)

_VARIES = re.compile(r"ablat|baseline|experiment|variant", re.I)
#: a script that only tries out whether everything runs
_TRIED = re.compile(r"smoke|debug|sanity", re.I)
#: a named set of values in a launcher: ``"small": {``
_PRESET = re.compile(r"""^(\s*)["']([\w .-]+)["']\s*:\s*(?:\{|dict\()\s*$""")
#: a sentence before a command: how to have it otherwise, or to try it out
_ASIDE = re.compile(
    r"\boverrid\w*\b.{0,30}\bif (?:needed|desired|you)|\bcan (?:be )?overrid|\baccepts overrides|^\W*optional\b|\bfor ablation"
    r"|^\W*(?:to )?(?:re-?)?(?:enable|disable|turn o(?:n|ff)|skip|toggle)\b|\b(?:smoke|debug|sanity)\b.{0,12}\b(?:run|test|command|check)",
    re.I,
)


def claims(files: SubmissionFiles, declared: Mapping[str, Declaration]) -> Iterator[Claim]:
    """Every statement of the papers near the primary script about a declared knob."""
    for path in files.readmes()[:4]:
        if text := _text(files, path):
            yield from _readme(files, declared, path, text)
    for path in files.ending("submission.json", "config.json", "run.json", "metadata.json"):
        if text := _text(files, path):
            yield from _json(declared, path, text)
    for path in files.shell_scripts():
        if text := _text(files, path):
            yield from _shell(files, declared, path, text)
    for path in files.ending(".py"):
        if path != files.primary and (text := _text(files, path)) and ("environ" in text or _PROCESSES.search(text)):
            yield from _launcher(files, declared, path, text)


def _text(files: SubmissionFiles, path: str) -> str:
    text = files.text(path) or ""
    return text if len(text) <= MAX_TEXT else ""


def _value(raw: str) -> str | None:
    """The literal value of a shell word; None where it depends on another variable."""
    value = raw[1:-1] if raw[:1] in "\"'" and raw[-1:] == raw[:1] else raw
    if match := _DEFAULTED.match(value):
        value = match[1].strip("\"'")
    value = value.rstrip(",;.")
    return None if "$" in value or value.startswith(("<", "...")) else value


def _runs_another(files: SubmissionFiles, line: str) -> bool:
    """Whether the command runs a different script of the submission than the one being judged."""
    if not _RUNS.search(line):
        return False
    named = {m.rpartition("/")[2] for m in _SCRIPT.findall(line)}
    primary = (files.primary or "").rpartition("/")[2]
    if primary in named:
        return False
    beside = [p for p in files.ending(".py") if p.rpartition("/")[2] in named]
    # A launcher that names the script passes the knobs on to it.
    return any(primary not in (files.text(p) or "") for p in beside)


def _assignments(
    declared: Mapping[str, Declaration], line: str, path: str, number: int, rank: int
) -> Iterator[Claim]:
    for match in _SET.finditer(line):
        name = match[1]
        value = _value(match[2])
        if name in declared and value is not None:
            yield _claim(declared, name, value, path, number, rank)
        elif value and ("=" in value) and match[2][:1] in "\"'":
            # A launcher's own option may hold a list of assignments: "A=1;B=2" or "A=1,B=2".
            yield from _assignments(declared, re.sub(r"[;,](?=[A-Z_]+=)", " ", value), path, number, rank)
    if "=" in line:
        for quoted in re.findall(r"""["']([A-Z_]\w*=[^"'\n]*)["']""", line):
            yield from _assignments(declared, re.sub(r"[;,](?=[A-Z_]+=)", " ", quoted), path, number, rank)
    yield from _world_size(declared, line, path, number, rank)
    script = _SCRIPT.search(line)
    if _RUNS.search(line) and script:
        for match in _OPTION.finditer(line, script.end()):
            if match[1] in declared:
                yield _claim(declared, match[1], _value(match[2] or "True") or "", path, number, rank)


def _world_size(
    declared: Mapping[str, Declaration], line: str, path: str, number: int, rank: int
) -> Iterator[Claim]:
    """``torchrun --nproc_per_node=8 …`` starts eight processes, whose environment says so."""
    if WORLD_SIZE not in declared or not _LAUNCHES.search(line) or any(m[1] == WORLD_SIZE for m in _SET.finditer(line)):
        return
    if (each := _PROCESSES.search(line)) is not None and (count := _value(each[1])) is not None:
        nodes = _NODES.search(line)
        total = int(count) * (int(nodes[1]) if nodes is not None else 1)
        yield _claim(declared, WORLD_SIZE, str(total), path, number, rank)


def _claim(
    declared: Mapping[str, Declaration], name: str, value: str, path: str, line: int, rank: int
) -> Claim:
    if not name.startswith("-"):
        value = spelled(value, declared[name].default)
    return Claim(name=name, value=value, source="command", path=path, line=line, rank=rank)


def _logical(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    """(line, text, comment above it): lines that a backslash continues are joined, comments in between dropped."""
    start, built, comment = 0, "", ""
    for number, line in lines:
        stripped = line.strip()
        if stripped.startswith("#"):
            comment = comment if built else stripped
            continue
        if not built:
            start = number
        if stripped.endswith("\\"):
            built += stripped[:-1] + " "
            continue
        yield start, built + re.sub(r"\s#\s.*$", "", stripped), comment
        if built or stripped:
            built, comment = "", ""
    if built:
        yield start, built, comment


def _counted(lines: Iterable[tuple[int, str, str]]) -> Iterator[tuple[int, str, str]]:
    """The lines, with the launcher's number of processes in place of a variable that an earlier line set to it."""
    numbers: dict[str, str] = {}
    for start, line, comment in lines:
        for match in _SET.finditer(line):
            value = _value(match[2])
            if value is not None and value.isdecimal():
                numbers[match[1]] = value
            else:
                numbers.pop(match[1], None)
        if "$" in line:
            line = _COUNT.sub(lambda m: m[1] + numbers.get(m[2], m[0].removeprefix(m[1])), line)
        yield start, line, comment


class _Runs:
    """Commands that start the script.

    A knob that only a command for something else sets (an ablation, one mode of several) had the code's default in
    the others: their silence is a statement as well. Commands in a row are steps of one run, and say nothing by silence,
    unless comments above them call some of them a baseline, an ablation or an experiment: then each is a run of its own.
    """

    def __init__(self, files: SubmissionFiles) -> None:
        self.primary = (files.primary or "").rpartition("/")[2]
        self.commands: list[tuple[int, set[str]]] = []
        self.aside: set[str] = set()
        self.elsewhere: set[str] = set()
        self.varied: set[str] = set()

    def note(self, number: int, line: str, found: list[Claim], aside: bool = False) -> None:
        names = {c.name for c in found}
        if aside:
            self.aside |= names
        elif not _RUNS.search(line) or self.primary not in line or line.startswith(("echo", "printf")):
            self.elsewhere |= names
        else:
            self.commands.append((number, names))

    def silent(self, declared: Mapping[str, Declaration], path: str, rank: int, modes: bool) -> Iterator[Claim]:
        said = set().union(*(names for _number, names in self.commands))
        # A launcher may say the number of processes in ways that are not read.
        for name in sorted((said if modes else (self.aside - said) | (self.varied & said)) - self.elsewhere - {WORLD_SIZE}):
            default = declared[name].default
            for number, names in self.commands:
                if name not in names and default is not None:
                    yield _claim(declared, name, default, path, number, rank)


def _readme(
    files: SubmissionFiles, declared: Mapping[str, Declaration], path: str, text: str
) -> Iterator[Claim]:
    fence, language, heading, lead = "", "", "", ""
    block: list[tuple[int, str]] = []
    runs = _Runs(files)
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if match and (not fence or match[1].startswith(fence)):
            if fence:
                if language not in ("python", "py", "diff", "cpp", "c", "json"):
                    yield from _block(files, declared, path, block, heading, lead, runs)
                fence, block, lead = "", [], ""
            else:
                fence, language = match[1][:3], match[2].lower()
            continue
        if fence:
            block.append((number, line))
            continue
        if line.startswith("#"):
            heading, lead = line, ""
        elif line.strip():
            lead = line
        for span in _CODE.finditer(line):
            if _OTHER_WAY.search(line[: span.start()][-60:] + "`…`" + line[span.end() :][:40]):
                continue  # how to have it otherwise: by that the reported run did not
            code = span[1]
            rank = SCRIPT if _RUNS.search(code) and ".py" in code else PROSE
            yield from _assignments(declared, code, path, number, rank)
    if block:
        yield from _block(files, declared, path, block, heading, lead, runs)
    yield from runs.silent(declared, path, BLOCK, modes=False)


def _block(
    files: SubmissionFiles,
    declared: Mapping[str, Declaration],
    path: str,
    block: list[tuple[int, str]],
    heading: str,
    lead: str,
    runs: _Runs,
) -> Iterator[Claim]:
    """A block of commands under a heading, after the line of text ``lead``."""
    starts = any(_RUNS.search(line) for _number, line in block)
    lines = [x for x in _counted(_logical(block)) if not _runs_another(files, x[1])]
    named = [comment for _number, line, comment in lines if comment and _RUNS.search(line)]
    apart = len(named) > 1 and any(_VARIES.search(comment) for comment in named)
    # ``LOCAL_SMOKE_TEST=1``: how to try it out, and not how the reported run was made.
    tried = any(_TRIED.search(m[1]) and _value(m[2]) not in (None, "", "0", "False", "false") for _n, line, _c in lines for m in _SET.finditer(line))
    for number, line, comment in lines:
        aside = tried or bool(_HISTORY.search(heading) or _HISTORY.search(comment) or _ASIDE.search(lead))
        found = list(_assignments(declared, line, path, number, PROSE if aside else BLOCK))
        if (starts or not aside) and not tried:  # else a list of switches, which says how to have it otherwise
            yield from found
        if apart and not aside:
            runs.varied |= {c.name for c in found}
        runs.note(number, line, found, aside)


def _shell(
    files: SubmissionFiles, declared: Mapping[str, Declaration], path: str, text: str
) -> Iterator[Claim]:
    lines = list(_counted(_logical(list(enumerate(text.splitlines(), 1)))))
    if files.folder and not path.startswith(files.folder + "/"):
        # From elsewhere in the repository: it must start a script of the judged one's name.
        named = {m.rpartition("/")[2] for _, line, _ in lines if _RUNS.search(line) for m in _SCRIPT.findall(line)}
        if named and (files.primary or "").rpartition("/")[2] not in named:
            return
    runs = _Runs(files)
    rank = PROSE if _TRIED.search(path.rpartition("/")[2]) else SCRIPT
    for number, line, _comment in lines:
        if not _runs_another(files, line):
            found = list(_assignments(declared, line, path, number, rank))
            yield from found
            runs.note(number, line, found)
    yield from runs.silent(declared, path, rank, modes=bool(_MODES.search(text)))


def _launcher(
    files: SubmissionFiles, declared: Mapping[str, Declaration], path: str, text: str
) -> Iterator[Claim]:
    """A Python file beside the script that starts it and sets its environment in a dictionary."""
    primary = (files.primary or "").rpartition("/")[2]
    if primary not in text or not re.search(r"subprocess|os\.exec|os\.system|runpy|modal", text):
        return
    explicit = "environ" in text and re.search(rf"""["']{WORLD_SIZE}["']""", text)
    launches = _LAUNCHES.search(text)
    lines = text.splitlines()
    tried = _tried_out(lines)
    for number, line in enumerate(lines, 1):
        for match in _PAIR.finditer(line) if "environ" in text else ():
            if match[1] in declared and number not in tried:
                yield _claim(declared, match[1], match[2].strip("\"'"), path, number, LAUNCHER)
        if launches is not None and not explicit:
            yield from _world_size(declared, f"{launches[0]} {line}", path, number, LAUNCHER)


def _tried_out(lines: list[str]) -> set[int]:
    """The lines of presets that only try out whether everything runs, where others stand beside them."""
    presets: list[tuple[str, range]] = []
    for number, line in enumerate(lines, 1):
        if match := _PRESET.match(line):
            indent = len(match[1])
            inside = (n for n, x in enumerate(lines[number:], number + 1) if x.strip() and len(x) - len(x.lstrip()) <= indent)
            presets.append((match[2], range(number, next(inside, number))))
    tried = [lines_of for name, lines_of in presets if _TRIED.search(name)]
    others = [lines_of for name, lines_of in presets if not _TRIED.search(name)]
    depth = {_depth(lines[x.start - 1]) for x in others}
    return {n for x in tried if _depth(lines[x.start - 1]) in depth for n in x}


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _json(declared: Mapping[str, Declaration], path: str, text: str) -> Iterator[Claim]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return
    by_attr = {d.attr.lower(): d.name for d in declared.values() if d.attr}

    def line_of(word: str) -> int:
        at = text.find(word)
        return text.count("\n", 0, at) + 1 if at >= 0 else 1

    def walk(value: Any, depth: int, inside: bool) -> Iterator[Claim]:
        if depth > 6:
            return
        if isinstance(value, dict):
            for key, inner in value.items():
                name = key if key in declared else by_attr.get(key.lower()) if inside else None
                if name is not None and isinstance(inner, (str, int, float, bool)):
                    yield _claim(declared, name, str(inner), path, line_of(f'"{key}"'), JSON)
                else:
                    settings = inside or bool(
                        re.search(r"env|hyper|config|knob|setting|param|flag", key, re.I)
                    )
                    yield from walk(inner, depth + 1, settings)
        elif isinstance(value, list):
            for inner in value[:200]:
                yield from walk(inner, depth + 1, inside)
        elif isinstance(value, str) and "=" in value and len(value) < 5000:
            yield from _assignments(declared, value, path, line_of(value[:40]), JSON)

    yield from walk(document, 0, False)
