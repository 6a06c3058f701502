"""What one audit knows: the bundle that every rule's ``check`` reads, and the options it ran under.

A rule never opens files or parses text; it asks the context. Fields are filled by the engine in
the order peel, lower, knobs, trace, evidence; a stage that could not run leaves its field empty and
an entry in ``problems``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from audit import ir
from audit.contracts import RULESET
from audit.model import Fact

Policy = Literal["precedent", "strict"]
ProblemKind = Literal["opaque", "unparsable", "bomb", "missing", "internal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to audit. Picklable, so that a sweep can hand it to its workers.

    ``env`` overrides environment knobs; ``budget_s`` bounds the trace of one submission in seconds;
    ``base`` is the revision a git target is compared with (None: the repository's main). ``limit_s``
    audits each submission in a process of its own for at most so many seconds (None: in this one).
    ``against`` names the record that rule E3 compares with (a folder, a submission.json, or scores). ``warn``: say on
    standard error which of the settings and suppressions have no effect.
    """

    ruleset: str = RULESET
    policy: Policy = "precedent"
    env: Mapping[str, str] = field(default_factory=dict)
    ignore_suppressions: bool = False
    baseline: frozenset[str] = frozenset()
    budget_s: float = 15.0
    limit_s: float | None = None
    base: str | None = None
    against: str | None = None
    dump_source: str | None = None
    rules: frozenset[str] | None = None
    warn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What kept a part of the submission from being read; ``line`` is 0 where none applies."""

    kind: ProblemKind
    path: str
    line: int
    reason: str


class Facts:
    """All stated quantities, in the order read, with an index by name."""

    __slots__ = ("_all", "_named")

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self._all = list(facts)
        self._named: dict[str, list[Fact]] = {}
        for fact in self._all:
            self._named.setdefault(fact.name, []).append(fact)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def named(self, name: str) -> list[Fact]:
        return list(self._named.get(name, ()))

    def first(self, name: str) -> Fact | None:
        found = self._named.get(name)
        return found[0] if found else None


@dataclass(slots=True, kw_only=True)
class Context:
    """Everything a rule may look at.

    ``modules`` and ``sources`` are keyed by path relative to the submission's root (the primary and
    its local imports, peeled); ``available`` holds which inputs exist ("source", "log", "data",
    "run"), against which a rule's ``needs`` is matched.
    """

    files: Any = None
    primary: str = ""
    modules: dict[str, ir.Module] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    peeled: Any = None
    knobs: Any = None
    trace: Any = None
    facts: Facts = field(default_factory=Facts)
    problems: list[Problem] = field(default_factory=list)
    #: what several rules need and the first one computes, by name
    shared: dict[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    available: frozenset[str] = frozenset({"source"})

    @property
    def module(self) -> ir.Module | None:
        """The primary script's module, None where it could not be parsed."""
        return self.modules.get(self.primary)

    def module_at(self, path: str) -> ir.Module | None:
        """The module whose lines a finding or an event at ``path`` means."""
        return self.modules.get(path) or next((m for m in self.modules.values() if m.path == path), None)

    def line_text(self, path: str, line: int) -> str:
        """One source line (1-based) of the peeled text, "" outside the file."""
        lines = self.sources.get(path, "").splitlines()
        return lines[line - 1] if 0 < line <= len(lines) else ""
