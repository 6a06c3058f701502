"""The unpacked sources as files, for whoever wants to read what a packed script runs."""

from __future__ import annotations

from pathlib import Path

from audit.context import Context
from audit.contracts import InputError
from audit.streams import say


def dump_sources(ctx: Context, folder: str) -> None:
    """Writes the peeled sources below ``folder``, under their own relative paths, and says so on standard error."""
    root = Path(folder).resolve()
    written = []
    for path, text in ctx.sources.items():
        place = (root / path.lstrip("/")).resolve()
        if not place.is_relative_to(root):
            raise InputError(f"{path!r} would be written outside {folder}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise InputError(f"cannot write {place}: {error.strerror}") from None
        written.append(path)
    layers = ctx.peeled.layers if ctx.peeled is not None else []
    how = f"unpacked: {' > '.join(layers)}" if layers else "nothing was packed"
    if not written:
        say(f"{folder}: nothing written, the script could not be read")
    for path in written:
        say(f"{Path(folder) / path.lstrip('/')}: written" + (f" ({how})" if path == ctx.primary else ""))
