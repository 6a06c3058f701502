"""What an audit says: facts, findings, obligations and the submission that carries them.

These classes are the JSON contract ``referee.audit/1``; ``as_json`` of a `Submission` is one entry
of ``submissions`` there and one line of a sweep.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: schema of a finished audit
SCHEMA = "referee.audit/1"

Verdict = Literal["violation", "clean", "undetermined"]
Severity = Literal["violation", "warning", "note"]
Authority = Literal["README", "MAINT", "MERGED", "COMM", "DISPUTED", "UNRULED"]
Confidence = Literal["high", "medium", "low"]
Tristate = Literal["yes", "no", "unknown"]
Basis = Literal["source", "log", "dynamic"]
Status = Literal["holds", "violated", "undetermined", "not-applicable"]
TttKind = Literal[
    "none", "score-first-chunk", "score-first-document", "phased", "pre-eval",
    "train-then-score", "slot", "context-slot", "other",
]  # fmt: skip
CacheKind = Literal["none", "input-embedding", "context-only", "target-in-key", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the path a value took, for code flows."""

    path: str
    line: int
    message: str
    #: 1-based, 0 where it is not known; a place is told from others by its line alone
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim about the submission, with the place that shows it.

    ``active``: does the submitted configuration reach it; ``gate`` names the knob or branch that
    decides. ``path`` is relative to the submission's root; lines refer to the peeled source. ``function`` is the
    one around the line, with the classes and functions around it (``Model.forward``). ``settings`` says of each setting
    in the gate who made it, and what the code's default is.
    """

    rule: str
    name: str
    severity: Severity
    authority: Authority
    confidence: Confidence
    message: str
    path: str
    line: int
    end_line: int
    active: Tristate = "yes"
    gate: str | None = None
    settings: tuple[str, ...] = ()
    basis: Basis = "source"
    function: str = ""
    trace: tuple[Step, ...] = ()
    column: int = field(default=0, compare=False)
    #: why the finding does not count ("baseline", or the words of a suppression in the source)
    suppressed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """What a rule demands and whether it was shown. ``not-applicable`` says what input was absent."""

    rule: str
    status: Status
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One stated quantity with its place. Facts from different places are compared, never merged.

    ``raw`` is the text as printed: its digits decide the interval that the value stands for.
    ``scope`` tells runs apart (a log's file name, a seed), ``""`` for the whole submission.
    ``label`` is the place's own word for the quantity (an evaluation's name, a column's head).
    """

    name: str
    value: Any
    path: str
    line: int
    raw: str = ""
    scope: str = ""
    label: str = ""


@dataclass(slots=True, kw_only=True)
class Submission:
    """The result of one audit of one primary script."""

    target: str
    commit: str | None = None
    primary: str | None = None
    sha256: str | None = None
    peeled: list[str] = field(default_factory=list)
    verdict: Verdict = "undetermined"
    reason: str = ""
    ttt: dict[str, str] = field(default_factory=lambda: {"kind": "none", "active": "no"})
    cache: dict[str, str] = field(default_factory=lambda: {"kind": "none", "active": "no"})
    facts: list[Fact] = field(default_factory=list)
    record_ready: dict[str, Any] = field(default_factory=lambda: {"ready": False, "missing": []})
    findings: list[Finding] = field(default_factory=list)
    obligations: list[Obligation] = field(default_factory=list)
    #: path -> line number -> source line, around every finding, so that a saved result can be
    #: rendered with its code again without the submission
    excerpts: dict[str, dict[str, str]] = field(default_factory=dict)
    #: path whose lines are those of an unpacked source -> the submitted file that holds it, and the payload's
    #: lines there (0: the file is plain, and the lines are its own)
    packed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object of schema ``referee.audit/1``; ``suppressed``, ``column`` and ``packed`` only appear where they are set."""
        found = asdict(self)
        for finding in found["findings"]:
            if finding["suppressed"] is None:
                del finding["suppressed"]
            for place in (finding, *finding["trace"]):
                if not place["column"]:
                    del place["column"]
        if not self.packed:
            del found["packed"]
        return found
