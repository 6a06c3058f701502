"""Standard output and standard error, as they may be: closed, full, or read by somebody who has gone."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from audit.contracts import InputError


def standard_output() -> TextIO:
    """Standard output; InputError where the caller closed it (``>&-``)."""
    if sys.stdout is None:
        raise InputError("standard output is closed; write to a file with --output FILE, or let it go to /dev/null")
    return sys.stdout


def silence() -> None:
    """Lets what is still buffered, and all that follows, go nowhere, so that the interpreter can end in peace."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def say(text: str) -> None:
    """One line on standard error; nothing where that is closed (print would turn to standard output)."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)
