"""What is known about environment knobs: claims about their values and the value settled on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Source = Literal["env", "command", "log", "wrapper", "default"]
#: set by the launcher of the processes, and by no choice between configurations
WORLD_SIZE = "WORLD_SIZE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Where a script reads a knob.

    ``name``: the environment variable, or the option with its dashes. ``default``: the default's
    literal text without quotes, None where it is computed or absent. ``attr``: the variable or
    attribute that receives the value (hyper-parameter dumps print it under that name).
    """

    name: str
    default: str | None
    attr: str
    path: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement that the reported run had ``name`` at ``value``.

    ``rank`` orders kinds of statement: what a run printed stands above the command that was
    written down for it, and that above a launcher lying in the folder or a word in the prose.
    """

    name: str
    value: str
    source: Source
    path: str
    line: int
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobValue:
    """The value that the reported run had, and who says so.

    ``ambiguous``: statements of the same standing contradict each other; ``value`` is then the
    more frequent one.
    """

    value: str
    source: Source
    path: str = ""
    line: int = 0
    ambiguous: bool = False


@dataclass(slots=True, kw_only=True)
class Knobs:
    """All knobs of a submission. ``lookup`` answers None for what nobody set: the code's default holds."""

    values: Mapping[str, KnobValue] = field(default_factory=dict)
    declared: Mapping[str, Declaration] = field(default_factory=dict)
    claims: Mapping[str, tuple[Claim, ...]] = field(default_factory=dict)

    def lookup(self, name: str) -> KnobValue | None:
        return self.values.get(name)

    def default(self, name: str) -> str | None:
        """The default's literal text as declared last, None if unknown."""
        found = self.declared.get(name)
        return found.default if found else None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)
