"""Finds the registered commands and runs one: argument parsing, exit codes, one-line errors."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tomllib
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from audit.contracts import Command, Exit, InputError
from audit.streams import say, silence

EXTRA_MODULES = {
    "eval": ("torch", "numpy", "sentencepiece", "zstandard"),
    "train": ("torch", "numpy", "sentencepiece", "zstandard"),
}


def registered(group: str) -> Iterator[tuple[str, str]]:
    """Yields (name, "module:attribute") of an entry-point group.

    In a source tree that was never installed (a bare GPU machine with PYTHONPATH set) the group is
    read from the ``pyproject.toml`` beside the packages.
    """
    found = {e.name: e.value for e in metadata.entry_points(group=group)}
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if pyproject.is_file():
        # The tree next to us is what runs; an older installed registration must not hide it.
        with pyproject.open("rb") as handle:
            found |= tomllib.load(handle)["project"].get("entry-points", {}).get(group, {})
    yield from found.items()


def load(target: str) -> object:
    """Resolves "module:attribute"."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def commands(prefix: str | None = None, only: str | None = None) -> dict[str, Command]:
    """All registered commands, or those whose module lies under ``prefix`` (one wing), or just ``only``.

    An unknown ``only`` gives all of them, so that the parser can name the choices.
    """
    found: dict[str, Command] = {}
    targets = [
        (name, target)
        for name, target in registered("referee.commands")
        if prefix is None or target.startswith(prefix + ".")
    ]
    for _name, target in [t for t in targets if t[0] == only] or targets:
        command = load(target)
        assert isinstance(command, Command), target
        found[command.name] = command
    return found


def missing_extra(command: Command) -> str | None:
    """One line when the command's extra is not installed, else None."""
    for module in EXTRA_MODULES.get(command.extra or "", ()):
        if importlib.util.find_spec(module) is None:
            return (
                f"{command.name} needs {module}, which is not installed; "
                f"install it with: pip install 'parameter-golf-referee[{command.extra}]'"
            )
    return None


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line, as all others are; ``--help`` gives the usage."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help")
        raise SystemExit(int(Exit.INPUT))


def build_parser(prog: str, available: dict[str, Command]) -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog,
        description="Decides whether a submission to a language-model compression contest is legal, and proves it.",
        epilog="Exit codes: 0 clean or ok, 1 violation, 2 usage or input error, 3 undetermined, 70 internal error.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in sorted(available):
        command = available[name]
        child = sub.add_parser(
            name,
            help=command.help,
            description=command.help,
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(child)
    return parser


def version() -> str:
    try:
        return metadata.version("parameter-golf-referee")
    except metadata.PackageNotFoundError:
        return "0+source"


def main(argv: Sequence[str] | None = None, *, prog: str = "referee", prefix: str | None = None) -> int:
    """Parses, runs, and turns every outcome into a documented exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # The other commands' modules are not even imported: an audit must start fast.
    available = commands(prefix, only=words[0] if words else None)
    args = build_parser(prog, available).parse_args(words)
    command = available[args.command]
    if (problem := missing_extra(command)) is not None:
        say(f"{prog}: {problem}")
        return int(Exit.INPUT)
    return _flushed(f"{prog} {command.name}", _outcome(f"{prog} {command.name}", command, args))


def _outcome(name: str, command: Command, args: argparse.Namespace) -> int:
    try:
        return int(command.run(args))
    except InputError as error:
        say(f"{name}: {error}")
        return int(Exit.INPUT)
    except KeyboardInterrupt:
        say(f"{name}: interrupted")
        return 130
    except BrokenPipeError:
        # The reader went away (`referee … | head`); nothing is lost, nothing more can be said.
        silence()
        return int(Exit.OK)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"{name}: {where}{error.strerror or error}")
        return int(Exit.INPUT)
    except Exception:
        say(traceback.format_exc().rstrip())
        say(f"{name}: internal error; this is a bug in the program")
        return int(Exit.INTERNAL)


def _flushed(name: str, code: int) -> int:
    """The code after the last words have left: to a reader who is gone, they need not; to a full disk, they must."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        silence()
    except OSError as error:
        silence()
        say(f"{name}: cannot write to standard output: {error.strerror}")
        return int(Exit.INPUT)
    return code
