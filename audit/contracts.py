"""What all three wings agree on: exit codes, input errors, and the shape of a command.

This module sits in the lowest wing so that the others can import it; it imports nothing but the
standard library.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

RULESET = "2026-05-02"
#: the day of the first rules: an earlier ruleset has none
FIRST_RULESET = "2026-03-18"


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    VIOLATION = 1
    INPUT = 2
    UNDETERMINED = 3
    INTERNAL = 70


class InputError(Exception):
    """A user's mistake or a bad file: one line that says what is wrong, where, and what to do.

    Any command may raise it; the program prints it on stderr and exits with ``Exit.INPUT``.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One subcommand of ``referee``, registered under the entry-point group ``referee.commands``.

    The module that holds it must import without torch; ``run`` imports what it needs.
    ``extra`` names the install extra ("eval" or "train") whose absence is reported in one line;
    None means the base install suffices.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    extra: str | None = None
    epilog: str | None = None
