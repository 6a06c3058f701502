"""Events: what the program does to validation data, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from audit.model import Fact, Step, Tristate
from audit.trace.ahead import Turns, wholly_before
from audit.trace.reach import Reach
from audit.trace.spans import Advances
from audit.trace.terms import spared
from audit.trace.values import BYTES, VAL, Atom, Link, disjoint, in_order, left_late


@dataclass(slots=True, kw_only=True, eq=False)
class Event:
    """One thing that happened at ``path:line``.

    ``kind``: SCORE (a loss was added to a total, stored or converted to bits), UPDATE (parameters or a
    leaf tensor changed from a loss), STORE (a table took stream content), LOOKUP (a table was read at an
    address that holds stream content), CALIBRATE (a model with hooks ran on data), SELECT (a choice among
    losses), SAVE and LOAD (files), READ (shards), REPORT (a bits-per-byte figure left the program),
    GENERATE (tokens drawn from the model), COMPILE (a native helper was called).

    ``flags`` are those of the data involved, ``atoms`` the parts of the validation stream, ``taint`` the
    ids of updates on validation data that the value depended on, ``loops`` the loop iterations open at that
    time, outermost first, ``stack`` the calls that led here, ``gate`` the knobs that decide whether it runs, ``via`` where
    what it is about was given its names (see `audit.trace.values.Link`).
    """

    kind: str
    id: int
    path: str
    line: int
    end_line: int = 0
    column: int = 0
    flags: int = 0
    atoms: frozenset = frozenset()
    taint: frozenset = frozenset()
    scores: frozenset = frozenset()
    loops: tuple = ()
    stack: tuple[tuple[str, int, str], ...] = ()
    active: Tristate = "yes"
    gate: str | None = None
    function: str = ""
    via: tuple[Link, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def on_val(self) -> bool:
        return bool(self.flags & VAL)

    def steps(self, message: str) -> list[Step]:
        """The calls that lead to the event, then the event itself."""
        path = [Step(path=p, line=n, message=f"calls {name}") for p, n, name in self.stack[-4:]]
        return [*path, self.step(message)]

    def step(self, message: str) -> Step:
        """The event itself."""
        return Step(path=self.path, line=self.line, column=self.column, message=message)


@dataclass(slots=True, kw_only=True, eq=False)
class Conflict:
    """A score that depends on an update whose tokens are not shown to be other tokens than the scored ones.

    ``before``: the same tokens had been scored earlier, before the update (rescoring).
    ``shared_loop``: update and score lie in one loop nest over the stream (chunk loop, epoch loop).
    ``revisited``: the two lie in different iterations of a loop that does not select the tokens (epochs).
    ``saved_after``: an artifact that depends on the update was written after it (so it came before quantization).
    ``reported``: the score reaches a printed or returned bits-per-byte figure.
    """

    update: Event
    score: Event
    update_atom: Atom
    score_atom: Atom
    before: Event | None = None
    shared_loop: bool = False
    revisited: bool = False
    saved_after: bool = False
    saved: Event | None = None
    #: the update is a table that took in the whole stream, and is not read while it does
    prefilled: bool = False
    #: so many tokens past what its own turn scores, where that is all that is wrong (`audit.trace.ahead.SOME`: some)
    past: int = 0
    reported: bool = False
    #: it reaches some printed figure, be it the reported one or not
    printed: bool = False
    #: all scores of this place that the update reaches
    scores: set[int] = field(default_factory=set)
    active: Tristate = "yes"
    gate: str | None = None


@dataclass(slots=True, eq=False)
class Limit:
    """A clock is compared with so many ``seconds``: ``written`` is the expression, ``knobs`` what it was made of."""

    path: str
    line: int
    stack: tuple
    seconds: float
    written: Any
    knobs: frozenset


@dataclass(slots=True, kw_only=True)
class Trace:
    """The result of abstract execution; see the package docstring."""

    events: list[Event] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    entered: set[int] = field(default_factory=set)
    exhausted: str | None = None
    #: imported modules that are neither submitted nor libraries, and those of them whose figure was printed as the score
    absent: set[str] = field(default_factory=set)
    told_by: set[str] = field(default_factory=set)
    #: calls of models and their methods, by the id of the node: was any given validation tokens
    given: dict[int, bool] = field(default_factory=dict)
    #: what prints a score that was not followed, in words
    unfollowed: list[str] = field(default_factory=list)
    models: dict[int, Any] = field(default_factory=dict)
    steps: int = 0
    knobs_read: dict[str, Any] = field(default_factory=dict)
    #: knobs that some condition or some number of turns depends on
    deciding: set[str] = field(default_factory=set)
    #: where the stream, or the number of turns of a loop over it, is limited (`audit.trace.coverage`)
    cuts: list[tuple[int, Any]] = field(default_factory=list)  # with the next event's id
    stops: dict[int, Any] = field(default_factory=dict)
    #: loops over places of the stream, with their steps (`audit.trace.walks`)
    walks: dict[int, Any] = field(default_factory=dict)
    #: how far the loops' counters go per turn (`audit.trace.spans`)
    advances: Advances = field(default_factory=Advances)
    #: windows sorted into chunks: turn -> where those of that turn begin to be scored (`audit.trace.buckets`)
    floors: dict[tuple[int, int], Any] = field(default_factory=dict)
    #: the lists that loops go through
    lists: dict[int, Any] = field(default_factory=dict)
    #: knobs that seed a generator: runs with other values of them are the same configuration
    seeds: set[str] = field(default_factory=set)
    #: comparisons of a clock with a number near the contest's limit: (next event's id, is it below the limit)
    time_limits: list[tuple[int, bool]] = field(default_factory=list)
    #: where these comparisons stand
    limits: list[Limit] = field(default_factory=list)
    #: where knobs are read
    knob_places: dict[str, tuple[str, int]] = field(default_factory=dict)
    #: assignments of a clock's reading, by the id of the node: the next event's id each time
    clocks: dict[int, list[int]] = field(default_factory=dict)
    dormant_entered: set[int] = field(default_factory=set)
    #: which calls were got to, and what constants close (`audit.trace.reach`)
    reach: Reach = field(default_factory=Reach)
    #: the highest offset at which the stream was read, per group of symbols (`audit.trace.positions`)
    newest: dict[tuple[int, ...], int] = field(default_factory=dict)
    #: classes that embed a hash of their inputs (`audit.trace.hashed_inputs`)
    hashed: list[Any] = field(default_factory=list)
    #: buffers that a state dict was saved without: (class, buffer, what it was taken in by, path, line)
    stripped: list[tuple[Any, str, frozenset, str, int]] = field(default_factory=list)
    #: names of the program's own level that hold a number, a text or a switch when all has run
    constants: dict[str, Any] = field(default_factory=dict)
    #: parts of a model that its constructor builds only under a condition which the configuration closes
    left_out: set[str] = field(default_factory=set)
    deeper: set[str] = field(default_factory=set)  # classes below the parts that were followed: built, perhaps
    #: instances of modules with the settings they were built with, parts of models included (`audit.trace.parts`)
    parts: list[Any] = field(default_factory=list)
    #: outputs of helpers whose confidence is compared with a threshold: ("leak" or "hint" or "gate", event) -> the
    #: knobs of a threshold that no quotient reaches, or None once some threshold can be reached
    thresholds: dict[tuple, Any] = field(default_factory=dict)
    #: scores that only the run into closed branches saw mixed with something, and that run's other events by id
    dormant_scores: list[Event] = field(default_factory=list)
    shadow: dict[int, Event] = field(default_factory=dict)
    #: what that run printed where the first run prints as well
    dormant_reports: list[Event] = field(default_factory=list)
    #: what compiled helpers do (`audit.native`), filled by the engine
    native: list[Any] = field(default_factory=list)
    #: choices of the larger of two values that only keep a sum of exponentials finite, by their SELECT's id
    stabilisers: set[int] = field(default_factory=set)
    #: what `audit.trace.caches.cache_reads` found, for a choice of reports
    cache_reads: Any = None
    #: ids of the reports that print the stated score; None: not known, every printed figure counts
    chosen: frozenset[int] | None = None
    #: reports of other figures than the stated one that count because they are better, with the figure that was printed
    beside: dict[int, Fact] = field(default_factory=dict)

    def of(self, *kinds: str, active: bool | None = None) -> Iterator[Event]:
        """Events of these kinds in order; ``active=True`` leaves out what the configuration cannot reach."""
        for e in self.events:
            if e.kind in kinds and (active is None or (e.active != "no") == active):
                yield e

    def event(self, number: int) -> Event | None:
        return self._index().get(number)

    def _index(self) -> dict[int, Event]:
        return {e.id: e for e in self.events}

    def leaves_out(self, name: str) -> bool:
        """Does the configuration keep the class from being built anywhere."""
        return name in self.left_out and name not in self.deeper and all(p.cls.name != name for p in self.parts)

    def reports(self, active: bool | None = True) -> list[Event]:
        return list(self.of("REPORT", active=active))

    def reported_scores(self) -> set[int]:
        """Ids of SCORE events that reach the reported bits-per-byte figure (any printed one where that is unknown)."""
        found: set[int] = set()
        for e in self.of("REPORT"):
            if self.chosen is None or e.active == "no" or e.id in self.chosen:
                found |= e.scores
        return found

    def headline(self) -> Event | None:
        """The last active REPORT that rests on scores of validation data."""
        last = None
        for e in self.of("REPORT", active=True):
            if e.scores and e.flags & VAL:
                last = e
        return last


def another_way(e: Event, s: Event) -> bool:
    """``if short: total += nll; continue`` and what the rest of that turn scores: never both."""
    if "left" not in e.detail:
        return False
    loops, call = e.detail["left"]
    return s.loops[: len(loops)] == loops and (call is None or s.stack[: len(call)] == call)


def same_visit(before: Event, u: Event, s: Event) -> bool:
    """Was ``s`` scored for these tokens at ``before`` already, in the turn that then learned: its branch takes each piece once."""
    if s.detail.get("once") is None or s.detail.get("once") != before.detail.get("once"):
        return False
    at = dict(u.loops)
    return all(at.get(loop, turn) == turn for loop, turn in before.loops)


def piecewise(u: Event, s: Event) -> bool:
    """Bytes of a token, read through a table of pieces, that the turn which scores the token stores one by one."""
    kinds = {k[0] for k in u.detail.get("keys", ())} & {"t", "l", "e"}
    return bool(u.flags & BYTES) and kinds == {"l"} and len(u.loops) > len(s.loops) > 0 and u.loops[: len(s.loops)] == s.loops


def _reset_between(resets: list[Event], u: Event, s: Event) -> Event | None:
    """Where parameters of the updated model are set to a constant or at random, after ``u`` and before the run that ends in ``s``."""
    trained = u.detail.get("models") or frozenset()
    learning = u.loops[-1][0] if u.loops else None  # a reset inside that loop is part of the learning
    return next(
        (
            r
            for r in resets
            if u.id < r.id < s.id and r.active != "no" and r.detail["models"] & trained and all(x != learning for x, _ in r.loops)
        ),
        None,
    )


def handed_on(u: Event, s: Event, clash: tuple[Atom, Atom]) -> int | None:
    """The line of the generator that hands the tokens on before it learns from them, where ``s`` scores what was handed on."""
    calls, line = u.detail.get("after_yield", ((), 0))
    outside = bool(line) and s.stack[: len(calls)] != calls
    return line if outside and dict(clash[1][0]).keys() & dict(u.loops).keys() else None


def picked_by_test(u: Event, s: Event, clash: tuple[Atom, Atom]) -> bool:
    """Did a test of places pick what ``u`` learned from for its turn of the loop whose turns choose what is scored."""
    mine, scored = dict(clash[0][0]), dict(clash[1][0])
    return any(loop < 0 and -loop in scored and -loop not in mine and -loop in dict(u.loops) and -loop in dict(s.loops) for loop in mine)


def find_conflicts(trace: Trace) -> list[Conflict]:
    """All (update, score) pairs where a score may rest on an update that saw the scored tokens."""
    by_id = {e.id: e for e in trace.events}
    turns = Turns(trace)
    found: list[Conflict] = []
    pairs: dict[tuple, Conflict] = {}
    scored: list[Event] = []
    reported = trace.reported_scores()
    saves: dict[int, Event] = {}
    resets: list[Event] = []
    for e in trace.events:
        if e.kind == "SAVE" and e.detail.get("weights"):
            for uid in e.taint:
                saves.setdefault(uid, e)
        elif e.kind == "RESET":
            resets.append(e)
    read_in = {(e.detail.get("table"), e.line, loop) for e in trace.events if e.kind == "LOOKUP" for loop, _ in e.loops}
    for s in trace.events:
        if s.kind != "SCORE" or not s.flags & VAL:
            continue
        parts, terms = in_order(s.atoms), s.detail.get("terms", ())
        for uid in sorted(s.taint):
            u = by_id.get(uid)
            if u is None:
                continue
            if u.kind == "STORE" and (any(k[0] == "spread" for k in s.detail.get("keys", ())) or piecewise(u, s)):
                continue  # scored byte by byte: earlier bytes of the same token are its past
            if u.kind == "STORE" and (another_way(u, s) or wholly_before(trace, u, s)):
                continue
            about = [b for b in parts if not spared(terms, uid, b)] if terms else parts
            if not about:
                continue
            pairs_of = [(a, b) for a in in_order(u.atoms) for b in about]
            clash = next((p for p in pairs_of if not disjoint(*p)), None)
            late = next((p for p in pairs_of if u.kind == "UPDATE" and left_late(*p)), None)
            past = turns.past(u, s) if late is None else None
            if past is not None and past <= 0:
                continue
            if clash is None:
                clash = late
            if clash is None:
                if past is None:
                    continue
                clash = in_order(u.atoms)[0], about[0]
            else:
                past = 0
            mine = {loop for loop, _ in u.loops}
            before = next(
                (
                    e
                    for e in scored
                    if e.id < u.id and e.id in reported and not another_way(e, s) and mine & {loop for loop, _ in e.loops}
                    and any(not disjoint(clash[0], b) for b in e.atoms)
                    and (e.function == u.function or u.kind == "STORE")
                ),
                None,
            )  # fmt: skip
            if past or clash is late:
                before = None  # the turns before did not score those
            if before is not None and u.detail.get("passing"):
                continue  # a row made of tokens scored before, for this iteration alone (a pointer, a neural cache)
            if before is not None and same_visit(before, u, s):
                continue
            shared = mine & {loop for loop, _ in s.loops}
            key = (u.kind, u.path, u.line, s.path, s.line, before is not None, bool(shared))
            old = pairs.get(key)
            if old is not None:
                old.reported |= s.id in reported
                old.printed = old.reported
                old.scores.add(s.id)
                continue
            at_u, at_s = dict(u.loops), dict(s.loops)
            state = "no" if "no" in (u.active, s.active) else "unknown" if "unknown" in (u.active, s.active) else "yes"
            closed = u.gate if u.active == "no" else s.gate if s.active == "no" else u.gate or s.gate
            if state == "yes" and u.kind == "UPDATE" and (reset := _reset_between(resets, u, s)) is not None:
                state, closed = "unknown", f"line {reset.line} resets parameters in between; whether all that had learned is not shown"
            if state == "yes" and (line := handed_on(u, s, clash)) is not None:
                state, closed = "unknown", f"line {line} yields before it learns; whether the tokens are scored in between was not followed"
            if state == "yes" and picked_by_test(u, s, clash):
                state, closed = "unknown", "a test of places picks the tokens; whether they were scored before is not shown"
            chosen = {loop for loop, _ in clash[0][0]} & {loop for loop, _ in clash[1][0]}
            prefilled = bool(u.detail.get("whole")) and not shared and not any(
                table == u.detail.get("table") and line != u.line and loop in mine for table, line, loop in read_in
            )
            c = Conflict(
                update=u, score=s, update_atom=clash[0], score_atom=clash[1], before=before,
                shared_loop=bool(shared), revisited=any(at_u[x] != at_s[x] for x in shared - chosen),
                prefilled=prefilled, past=past,
                saved_after=uid in saves, saved=saves.get(uid), reported=s.id in reported, printed=s.id in reported, scores={s.id},
                active=state, gate=closed,  # type: ignore[arg-type]
            )  # fmt: skip
            pairs[key] = c
            found.append(c)
        scored.append(s)
    return found
