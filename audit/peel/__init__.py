"""Undoes self-extracting wrappers without executing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Peeled:
    """What a script runs after unpacking.

    ``layers``: what was undone, outermost first ("lzma+b85", "exec-sibling", …), empty for a plain
    file. ``path``: the file that positions refer to where it is not the wrapper's own (a sibling
    that is exec'd). ``extra_files``: further unpacked files, path relative to the script's folder ->
    text. ``opaque``: why unpacking stopped, None if it did not. ``line``: where the wrapper's call
    stands. ``env_defaults``: environment variables that the wrapper set before it ran the payload.
    ``bomb``: unpacking hit a size or depth limit.
    """

    text: str
    layers: list[str] = field(default_factory=list)
    path: str | None = None
    extra_files: dict[str, str] = field(default_factory=dict)
    opaque: str | None = None
    line: int = 1
    env_defaults: dict[str, str] = field(default_factory=dict)
    bomb: bool = False


def peel(data: bytes | str, path: str, siblings: Callable[[str], bytes | None] = lambda name: None) -> Peeled:
    """Unpacks ``data``, the script at ``path``; ``siblings`` reads files beside it by name."""
    from audit.source.text import decode

    return Peeled(text=decode(data) if isinstance(data, bytes) else data)
