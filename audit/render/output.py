"""Where rendered text goes: standard output or a file."""

from __future__ import annotations

import sys
from pathlib import Path

from audit.contracts import InputError


def emit(text: str, output: str | None) -> None:
    """Prints, or writes to a file; InputError where that fails.

    A submission's source may hold characters that the terminal's encoding lacks; they are replaced.
    """
    if output is None:
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding))
        return
    try:
        Path(output).write_text(text + "\n", encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from None
