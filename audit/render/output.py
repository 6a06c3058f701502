"""Where rendered text goes: standard output or a file."""

from __future__ import annotations

from pathlib import Path

from audit.contracts import InputError
from audit.streams import silence, standard_output


def emit(text: str, output: str | None) -> None:
    """Prints, or writes to a file; InputError where that fails.

    A submission's source may hold characters that the terminal's encoding lacks; they are replaced. A reader who
    has seen enough (``| head``) is no failure: what was found out, and its exit code, stand.
    """
    if output is None:
        out = standard_output()
        encoding = out.encoding or "utf-8"
        try:
            print(text.encode(encoding, "replace").decode(encoding), file=out, flush=True)
        except BrokenPipeError:
            silence()
        except OSError as error:
            silence()
            raise InputError(f"cannot write to standard output: {error.strerror}") from None
        return
    try:
        Path(output).write_text(text + "\n", encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from None
