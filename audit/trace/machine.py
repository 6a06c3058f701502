"""The abstract machine: scopes, guards, loops, events, and the state that survives calls.

`Machine` is put together from its base classes, one a module: statements, expressions, calls, the library's
semantics, gates and the rest.
It runs a program once from its entry point. Undecided branches run both ways and their results are
joined; loop bodies run twice (the first and a later iteration), so that state carried from one
iteration to the next shows. A second run with ``dormant=True`` also enters branches that the submitted
configuration closes; what is found only there is inactive.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Any

from audit import ir
from audit.trace.backing_off import BackingOff
from audit.trace.bests import Bests
from audit.trace.buckets import Buckets
from audit.trace.calls import Calls
from audit.trace.carried import Carried
from audit.trace.choices import Choices
from audit.trace.chosen_weights import ChosenWeights
from audit.trace.counters import Counters
from audit.trace.coverage import Coverage
from audit.trace.documents import Documents
from audit.trace.emptied import Emptied
from audit.trace.entries import Entries
from audit.trace.even import Evens
from audit.trace.events import Event, Trace
from audit.trace.expressions import Expressions
from audit.trace.floors import Floors
from audit.trace.foreign import Foreign
from audit.trace.gates import Gates
from audit.trace.hooks import Hooks
from audit.trace.interest import Interest
from audit.trace.left_out import LeftOut
from audit.trace.lengths import Lengths
from audit.trace.library import Library
from audit.trace.once import Once
from audit.trace.parts import Parts
from audit.trace.queues import Queues
from audit.trace.reach import Reaching
from audit.trace.repeats import FIXED, Outside, Repeats
from audit.trace.scaled import Scaled
from audit.trace.selection import Selection
from audit.trace.shaping import Shaping
from audit.trace.spellings import Spellings
from audit.trace.started import Started
from audit.trace.statements import Statements
from audit.trace.stripped import Stripped
from audit.trace.switches import Gate, Switches, closing, said
from audit.trace.tallies import Tallies
from audit.trace.terms import TermsOfSums
from audit.trace.threads import Threads
from audit.trace.values import EMPTY, TRAIN, VAL, V, const
from audit.trace.walks import Walks
from audit.trace.weights import Weights

VAL_PATH = re.compile(r"fineweb_val|(?<![a-z])val(?:id|idation)?(?![a-z]).*(?:\.bin|\*|\.npy|\.pt)|(?:\.bin|/).*(?<![a-z])val(?:id|idation)?_(?:\*|0)")
TRAIN_PATH = re.compile(r"fineweb_train|(?<![a-z])train(?:ing)?(?![a-z]).*(?:\.bin|\*|\.npy)")
#: shards of both splits
BOTH = re.compile(r"fineweb_\*(?:_\*)?\.bin$|fineweb_\[[a-z]+\]\*\.bin$")


@lru_cache(maxsize=4096)
def _path_flags(text: str) -> int:
    if BOTH.search(text):
        return VAL | TRAIN
    return (VAL if VAL_PATH.search(text) else 0) | (TRAIN if TRAIN_PATH.search(text) else 0)


class Exhausted(Exception):
    """A budget ran out; the trace is incomplete."""


class Scope:
    """Names of one function call, class body or module; ``outer`` is the lexically enclosing scope."""

    __slots__ = ("asked", "body", "function", "globals_", "meaning", "names", "outer", "path", "redirect")

    def __init__(self, outer: Scope | None, globals_: Scope | None, function: str, path: str) -> None:
        self.names: dict[str, V] = {}
        self.outer = outer
        self.globals_: Scope = globals_ if globals_ is not None else self
        self.redirect: dict[str, Scope] = {}
        self.meaning: dict[str, ir.Expr] = {}  # arithmetic that a local name stands for
        self.body: list[Any] = []  # of a function's call: its statements
        self.asked: list[tuple[V, Any]] = []  # tests that would have ended it with None
        self.function = function
        self.path = path

    def get(self, name: str) -> V | None:
        scope: Scope | None = self
        if name in self.redirect:
            scope = self.redirect[name]
        while scope is not None:
            found = scope.names.get(name)
            if found is not None:
                if scope is not self:
                    if found.kind not in FIXED:
                        Outside.reads += 1
                    elif Outside.watching and found.kind == "const":
                        Outside.numbers.append((scope, name, found))
                return found
            scope = scope.outer
        return None

    def set(self, name: str, value: V) -> None:
        (self.redirect.get(name, self) if self.redirect else self).names[name] = value


class Machine(
    Statements, Expressions, Calls, Parts, Library, Gates, Weights, Shaping, Choices, Selection, Coverage, Documents, Walks, Reaching, Started,
    Entries, Once, Hooks, Queues, Tallies, Buckets, Bests, LeftOut, Lengths, Floors, Scaled, Emptied, ChosenWeights, Switches, BackingOff,
    Foreign, TermsOfSums, Counters, Spellings, Carried, Repeats, Evens, Stripped, Threads,
):  # fmt: skip
    def __init__(
        self,
        modules: dict[str, ir.Module],
        primary: str,
        knobs: Any,
        *,
        dormant: bool,
        seconds: float,
        max_steps: int,
        interest: Interest | None = None,
        natives: dict[str, Any] | None = None,
    ) -> None:
        self.modules = modules
        self.primary = primary
        self.knobs = knobs
        self.dormant = dormant
        self.trace = Trace()
        self.interest = interest if interest is not None else Interest(list(modules.values()))
        self.steps = 0
        self.max_steps = max_steps
        self.look_at = min(256, max_steps + 1)
        self.deadline = time.process_time() + seconds
        self.next_id = 1
        self.next_loop = 1
        self.next_serial = 1
        self.scope: Scope = Scope(None, None, "<module>", primary)
        self.loops: list[tuple[int, int]] = []
        self.moving: dict[int, frozenset[str]] = {}  # of open loops: attributes that their bodies count up
        self.guards: list[tuple[str, Gate]] = []  # (state, the settings that decide)
        self.guarded: dict[tuple, tuple[str, str | None]] = {}  # `guard_state` of the guards met so far
        self.certain: set[int] = set()  # updates under no branch that could not be decided
        self.forks = 0  # branches open that could not be decided
        self.sized = 0  # of these, such as the full set's number of tokens decides
        self.taken_from: dict[int, int] = {}  # elements taken so far, per queue (`audit.trace.containers`)
        self.stack: list[tuple[str, int, str]] = []
        self.active_calls: dict[int, int] = {}
        self.frames: list[int] = []  # the functions being executed, and the bodies that wait for one's ``yield``
        self.around: list[Any] = []
        self.files: dict[str, V] = {}
        self.known_calls: dict[tuple, Any] = {}  # `audit.trace.repeats`
        self.pending: list[V] = []
        self.pending_stepped = False
        self.backward_at: Any = None  # path, line and calls of the last one
        self.hooks = 0
        self.hook_at: Any = None  # path, line and calls of the last one that was set
        self.hooked: list[tuple[Any, set[str]]] = []  # of the script's own hooks that are set: their scopes, and the names that they fill
        self.own_losses: dict[int, bool] = {}  # of model methods: do they give back a loss and nothing else
        self.loaded: dict[str, V] = {}
        self.environ_set: dict[str, V] = {}  # settings that the program itself makes
        self.entries: list[V] = []  # functions that a framework's command line begins
        self.functions: list[V] = []  # those that it runs on another machine
        self.started: set[str] = set()  # scripts that were begun as programs of their own
        self.returns: list[list[V]] = []
        self.yielded: dict[int, tuple[tuple, tuple, int]] = {}  # per generator: loops, calls and line of its last ``yield``
        self.yields: list[list[V]] = []
        self.no_grad = 0
        self.score_taint: dict[int, frozenset] = {}
        self.serials: dict[int, V] = {}
        self.natives = natives or {}
        self.score_keys: dict[int, frozenset] = {}
        self.terms: list[tuple[frozenset, frozenset]] = []  # losses: their tokens, and the updates that they depend on
        self.made: list[tuple[frozenset, int, tuple]] = []  # of each: its tokens, the next event's number, the open turns
        self.term_numbers: dict[tuple[frozenset, frozenset], int] = {}
        self.tables: dict[int, tuple[Any, int]] = {}  # what has a number of its own, by identity
        self.born: dict[int, tuple[V, tuple]] = {}  # fresh arrays by id (kept alive), with the loops open at that time
        #: loops over all places of the stream
        self.whole_walks: set[int] = set()
        self.steps_of: dict[int, Any] = {}  # loop -> by how many places it goes on, where that is no number
        self.counters: dict[int, dict[str, Any]] = {}  # loop -> its counters and by what they go on (`audit.trace.queues`)
        self.several: set[int] = set()  # loops that have more turns than one
        self.made_empty: dict[int, tuple[V, frozenset]] = {}  # lists made with nothing in them (kept alive), with the turns open at that time
        self.turns_of: dict[int, Any] = {}  # loops that have a known number of turns (`audit.trace.coverage`)
        self.one_by_one: set[int] = set()  # loops whose number is that of the element
        self.turn_of: dict[tuple, V] = {}  # what a loop's variable was in each of its turns
        self.bodies: list[list] = []  # per open loop: its statements
        self.early: list[list[dict]] = []  # per open loop: names as a break or continue left them
        self.loss_tests: list[tuple[frozenset, Any, str]] = []  # tests of losses that this turn of the loop went past
        self.chosen_from: dict[tuple[int, str], tuple[V, Event]] = {}  # choices by losses, by the losses' identity (kept alive)
        self.place_tests: list[frozenset] = []  # what the tests of places depend on that this turn is under, or went past
        self.turn_starts: list[dict[str, V]] = []  # per open loop: names as its turn began
        self.passed: list[tuple[V, Any, dict[str, V]]] = []  # tests of tables that this turn of the loop went past
        self.asking: list[tuple[V, Any, int]] = []  # tests of tables whose branches are being executed, with the depth of calls
        self.patched: dict[str, V] = {}  # functions of libraries that the script put its own in place of
        self.absent = self.trace.absent  # imported modules that are neither submitted nor libraries
        self.working: list[Any] = []  # what the threads do that are being executed (`audit.trace.threads`)
        self.waiting: dict[int, tuple[V, Any]] = {}  # queues that held nothing when a thread asked (kept alive), with what it does
        self.handed: dict[int, V] = {}  # what is being put in such a queue
        self.comparing: list[V] = []  # comparisons of losses whose branches are being executed
        self.ways: tuple[dict[str, V], dict[str, V]] = ({}, {})  # names as the two ways of the last branch left them
        self.picks: list[V] = []  # what numbers were picked by (`audit.trace.chosen_weights`)
        self.gates: list[frozenset] = []  # tokens that open branches were decided by
        self._prepare_dispatch()

    # ------------------------------------------------------------------ budget
    def tick(self) -> None:
        """Counts one step. `ev` and `block`, which take nearly all of them, count by themselves."""
        self.steps += 1
        if self.steps >= self.look_at:
            self.look()

    def look(self) -> None:
        """At step ``look_at``: is there budget left."""
        if self.steps > self.max_steps:
            raise Exhausted(f"step budget of {self.max_steps} used up")
        if not self.steps & 255 and time.process_time() > self.deadline:
            raise Exhausted("time budget used up")
        self.look_at = min((self.steps | 255) + 1, self.max_steps + 1)

    def note_read(self, place: tuple) -> None:
        """Remembers the latest token read per group of symbols (`audit.trace.positions`)."""
        symbols, offset = place
        if offset > self.trace.newest.get(symbols, -(1 << 60)):
            self.trace.newest[symbols] = offset

    # ------------------------------------------------------------------ events
    def guard_state(self, chosen: frozenset = EMPTY) -> tuple[str, str | None]:
        """('yes' | 'no', gate text) of the code being executed, on data that the settings ``chosen`` chose.

        What only the run into closed branches sees does not hang on the branches that are open.
        """
        key = (*self.guards, chosen)
        found = self.guarded.get(key)
        if found is None:
            shut = next((gate for s, gate in self.guards if s == "no"), None)
            opened = () if self.dormant else [gate for _, gate in self.guards]
            found = ("no", closing(shut)) if shut is not None else ("yes", said(opened, chosen))
            self.guarded[key] = found
        return found

    def event(self, kind: str, node: Any, value: V | None = None, **detail: Any) -> Event:
        # In closed branches everything meets data of everywhere: only what is fed with them tells.
        chosen = value.choice if value is not None and (not self.dormant or kind == "CALIBRATE") else EMPTY
        state, gate = self.guard_state(chosen)
        e = Event(
            kind=kind, id=self.next_id, path=self.scope.path, line=getattr(node, "line", 0),
            end_line=getattr(node, "end_line", 0) or getattr(node, "line", 0),
            column=getattr(node, "col", -1) + 1,
            loops=tuple(self.loops), stack=tuple(self.stack), active=state, gate=gate,  # type: ignore[arg-type]
            function=self.scope.function, detail=detail,
        )  # fmt: skip
        self.next_id += 1
        if value is not None:
            e.flags, e.atoms, e.taint, e.scores, e.via = value.flags, value.atoms, value.taint, value.scores, value.via
            if kind in ("STORE", "UPDATE", "SCORE"):
                detail["upto"] = value.upto
        if len(self.trace.events) < 6000:
            self.trace.events.append(e)
        return e

    # ------------------------------------------------------------------ strings and files
    def text_flags(self, text: str) -> int:
        return _path_flags(text) if len(text) <= 300 else 0

    # ------------------------------------------------------------------ running
    def run(self) -> Trace:
        try:
            module = self.modules[self.primary]
            scope = self.scope
            scope.names["__name__"] = const("__main__")
            scope.names["__file__"] = const(self.primary)
            scope.names["__doc__"] = const(None)
            self.block(module.body)
            self.begin(module)
            self.trace.constants = {k: v.const for k, v in scope.names.items() if v.kind == "const" and isinstance(v.const, (bool, int, float, str))}
        except Exhausted as e:
            self.trace.exhausted = str(e)
        except RecursionError:
            self.trace.exhausted = "calls nested too deeply"
        self.trace.steps = self.steps
        return self.trace
