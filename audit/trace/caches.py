"""Caches at evaluation: which table reads reach a score, and whether the scored token was in their address.

A read's address is a set of stream places (`audit.trace.positions`). The scored token is the latest place that a
committed loss depends on through the model; an address is *target-in-key* when it holds that place together with
earlier ones. Where read and loss were indexed by unrelated numbers, a pair of reads decides: a count at
(context, token) divided by a count at (context) makes the latest token of the longer address the predicted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from audit.model import Tristate
from audit.trace.events import Event, Trace
from audit.trace.positions import tokens_in, without_steps
from audit.trace.values import COUNT, LOSS

RANK: dict[str, int] = {"yes": 0, "unknown": 1, "no": 2}


@dataclass(slots=True, kw_only=True, eq=False)
class CacheRead:
    """One table read whose result reaches a committed loss."""

    read: Event
    scores: list[Event] = field(default_factory=list)
    target: bool = False
    context: bool = False
    #: a read of the same address without its latest token, if there is one
    sibling: Event | None = None
    reported: bool = False

    @property
    def row(self) -> bool:
        """Is what is read the row of a context, which says something of every token."""
        return bool(self.read.detail.get("row"))

    @property
    def active(self) -> Tristate:
        best: Tristate = min((s.active for s in self.scores), key=lambda a: RANK[a], default="no")
        return max(best, self.read.active, key=lambda a: RANK[a])


def sources(trace: Trace, *kinds: str) -> dict[int, Event]:
    """Events of these kinds by id, those of the run into closed branches included."""
    found = {n: e for n, e in trace.shadow.items() if e.kind in kinds}
    found.update((e.id, e) for e in trace.of(*kinds))
    return found


def marks(e: Event, *kinds: str) -> list[tuple]:
    """An event's keys of these kinds, which name other events, in the order of these; a set has none that two runs share."""
    return sorted((k for k in e.detail.get("keys", ()) if k[0] in kinds), key=lambda k: (k[1], k[0]))


def all_scores(trace: Trace) -> Iterator[Event]:
    """Committed losses, and those that only closed branches mix with something."""
    yield from trace.of("SCORE")
    yield from trace.dormant_scores


def reported_ids(trace: Trace) -> set[int]:
    """Scores that a printed figure rests on, or would if closed branches were open.

    A mixture that only the run into closed branches commits (``scored = -log(mixed)``) reaches the line that prints the
    figure in that run.
    """
    found = trace.reported_scores() | {e.id for e in trace.dormant_scores if e.detail.get("reported")}
    chosen = {(e.path, e.line) for e in trace.of("REPORT") if trace.chosen is None or e.id in trace.chosen}
    for e in trace.dormant_reports:
        if (e.path, e.line) in chosen:
            found |= e.scores
    return found


def cache_reads(trace: Trace) -> list[CacheRead]:
    """Every table read that feeds a score, in order; several passes over one place are one entry."""
    if trace.cache_reads is None or trace.cache_reads[0] is not trace.chosen:
        trace.cache_reads = (trace.chosen, _cache_reads(trace))
    return list(trace.cache_reads[1])


def _cache_reads(trace: Trace) -> list[CacheRead]:
    reads = sources(trace, "LOOKUP")
    feeds: dict[int, list[Event]] = {}
    for s in all_scores(trace):
        for k in s.detail.get("keys", ()):
            if k[0] == "lookup" and k[1] in reads:
                for number in {k[1], *_rows_behind(reads[k[1]], reads)}:
                    if (fed := feeds.setdefault(number, [])) == [] or fed[-1] is not s:
                        fed.append(s)
    feeds = dict(sorted(feeds.items()))  # keys come in no order that two runs share
    reported = reported_ids(trace)
    found: dict[tuple, CacheRead] = {}
    addresses = {n: tokens_in(reads[n].detail.get("keys", frozenset()), through_tables=True) for n in feeds}
    distinct: dict[Any, Event] = {}
    for n, address in addresses.items():
        distinct.setdefault(frozenset((x, frozenset(o)) for x, o in address.items()), reads[n])
    others = [(o, tokens_in(o.detail.get("keys", frozenset()), through_tables=True)) for o in distinct.values()]
    places = _own_places(all_scores(trace))
    together: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
    for number, scores in feeds.items():
        e = reads[number]
        group = tuple(s.id for s in scores)
        if group not in together:
            scored: dict[tuple[int, ...], int] = {}
            for s in scores:
                for symbols, offset in places[s.id].items():
                    scored[symbols] = max(offset, scored.get(symbols, offset))
            together[group] = scored
        scored = together[group]
        read = _judge(trace, e, scores, addresses[number], scored, others)
        if read.target and not read.context and e.detail.get("row"):
            read.context = _by_itself(number, addresses, reads)
        read.reported = any(s.id in reported for s in scores)
        key = (e.path, e.line, read.target, read.context, e.active == "no")
        old = found.get(key)
        if old is None or (read.reported, -RANK[read.active]) > (old.reported, -RANK[old.active]):
            found[key] = read
    return sorted(found.values(), key=lambda r: (RANK[r.active], r.read.id))


Places = dict[tuple[int, ...], set[int]]


def _rows_behind(r: Event, reads: dict[int, Event]) -> list[int]:
    """``table[keys].gather(1, tokens)``: of the entry of a token, the reads of the same turn that gave the array of rows."""
    rows = [k[1] for k in r.detail.get("made", ()) if k[0] == "lookup" and k[1] in reads]
    return [n for n in rows if not reads[n].detail.get("row") and reads[n].loops == r.loops]


def _by_itself(row: int, addresses: dict[int, Places], reads: dict[int, Event]) -> bool:
    """``rows[token][token]``: the token that is asked for has chosen the row."""
    mine = addresses[row]
    return any(
        ("lookup", row) in reads[n].detail.get("made", ())
        and any(symbols in mine and max(offsets) == max(mine[symbols]) for symbols, offsets in address.items())
        for n, address in addresses.items()
    )


def _own_places(scores: Iterable[Event]) -> dict[int, dict[tuple[int, ...], int]]:
    """The latest token of each score, per place, without those that the same line scored in earlier turns.

    A list of the tokens scored so far, or a state carried along, brings their places into every later score. Where
    all places of a score are old ones, it is a further pass over them, and all count.
    """
    found: dict[int, dict[tuple[int, ...], int]] = {}
    earlier: dict[tuple[str, int], dict[tuple[int, ...], int]] = {}
    for s in sorted({s.id: s for s in scores}.values(), key=lambda s: s.id):
        latest = {x: max(o) for x, o in tokens_in(s.detail.get("keys", frozenset())).items()}
        before = earlier.setdefault((s.path, s.line), {})
        found[s.id] = {x: o for x, o in latest.items() if o > before.get(x, o - 1) and o > before.get(_uncut(x), o - 1)} or latest
        for x, o in latest.items():
            before[x] = max(o, before.get(x, o))
    return found


def _uncut(symbols: tuple[int, ...]) -> tuple[int, ...]:
    """The place without cuts that were counted from the end (``kept[-4096:]``)."""
    return tuple(s for s in symbols if s >= 0)


def _judge(
    trace: Trace, e: Event, scores: list[Event], address: Places, scored: dict[tuple[int, ...], int],
    others: list[tuple[Event, Places]],
) -> CacheRead:  # fmt: skip
    """``address``: the tokens in the read's address; ``scored``: the latest token of the scores that it feeds."""
    read = CacheRead(read=e, scores=scores)
    if not any(symbols in scored for symbols in address):
        address, scored = _from_where_loops_began(address, scored)
    latest = {symbols: max(offsets) for symbols, offsets in address.items()}
    known = [symbols for symbols in address if symbols in scored]
    if known:
        read.target = any(latest[symbols] >= scored[symbols] for symbols in known)
        read.context = any(min(address[symbols]) < scored[symbols] for symbols in known) or len(known) < len(address)
    elif address:
        read.sibling = next((o for o, tokens in others if _shorter(address, tokens)), None)
        read.target = read.sibling is not None and any(latest[x] >= trace.newest.get(x, latest[x]) for x in address)
        read.context = sum(len(offsets) for offsets in address.values()) > (1 if read.target else 0)
    if read.target and read.sibling is None:
        read.sibling = next((o for o, tokens in others if _shorter(address, tokens)), None)
    return read


def _from_where_loops_began(
    address: dict[tuple[int, ...], set[int]], scored: dict[tuple[int, ...], int]
) -> tuple[dict[tuple[int, ...], set[int]], dict[tuple[int, ...], int]]:
    """Both with the steps of loops left out, where that makes an address comparable with the score.

    A loop from ``start`` fills an array whose element ``i`` belongs to ``start + i``; the score is over an array cut
    out at ``start``.
    """
    plain: dict[tuple[int, ...], int] = {}
    depths: dict[tuple[int, ...], set[int]] = {}
    for symbols, offset in scored.items():
        short = without_steps(symbols)
        plain[short] = max(offset, plain.get(short, offset))
        depths.setdefault(short, set()).add(len(symbols))
    moved: dict[tuple[int, ...], set[int]] = {}
    for symbols, offsets in address.items():
        short = without_steps(symbols)
        # As many steps on both sides, and others: the address is of another turn, and no farther away than it says.
        other = len(short) < len(symbols) and bool(depths.get(short, set()) - {len(symbols)})
        moved.setdefault(short if other else symbols, set()).update(offsets)
    return (moved, plain) if any(symbols in plain for symbols in moved) else (address, scored)


def _shorter(address: Places, mine: Places) -> bool:
    """Is the second the same address without its latest tokens.

    An array over the whole stream, hashed before, knows no places of the loops: the latest tokens are then read at places
    of their own (``start + 1 + i``).
    """
    if not mine or not mine.keys() <= address.keys():
        return False
    apart = [offsets for x, offsets in address.items() if x and x not in mine]
    if apart and mine.keys() == {()} and all(min(offsets) >= 1 for offsets in apart) and mine[()] == address[()]:
        return True
    return all(mine[x] <= address[x] for x in mine) and any(max(mine[x]) < max(address[x]) for x in mine)


def splits(trace: Trace) -> list[tuple[Event, Event, bool]]:
    """(branch, score, reported): a table mixed in only where its entry for the scored token itself says so."""
    branches = sources(trace, "SPLIT")
    own = {(r.read.path, r.read.line) for r in cache_reads(trace) if r.target}
    reads = sources(trace, "LOOKUP")
    reported = reported_ids(trace)
    places = _own_places(all_scores(trace)) if branches else {}
    found: dict[tuple, tuple[Event, Event, bool]] = {}
    for s in all_scores(trace):
        for e in (branches[k[1]] for k in marks(s, "split") if k[1] in branches):
            asked = [reads[x[1]] for x in e.detail["keys"] if x[0] == "lookup" and x[1] in reads and _of_its_turn(reads[x[1]], s)]
            if any((r.path, r.line) in own or _next_in_row(trace, r, reads) or _at_token(r, places[s.id]) for r in asked):
                old = found.get((e.path, e.line, e.active))
                if old is None or (s.id in reported and not old[2]):
                    found[e.path, e.line, e.active] = (e, s, s.id in reported)
    return list(found.values())


def _of_its_turn(r: Event, s: Event) -> bool:
    """Was it read in the turn of another event; counting in earlier turns reads what it counts up."""
    turns = dict(s.loops)
    return all(turns.get(loop, turn) == turn for loop, turn in r.loops)


def _at_token(r: Event, scored: dict[tuple[int, ...], int]) -> bool:
    """Is something looked up for the very token that is scored."""
    address = tokens_in(r.detail.get("keys", frozenset()), through_tables=True)
    return any(symbols in scored and max(offsets) >= scored[symbols] for symbols, offsets in address.items())


def _next_in_row(trace: Trace, r: Event, reads: dict[int, Event]) -> bool:
    """``rows[context].get(token)``: the entry of the token that follows the row's context, the latest one read."""
    address = tokens_in(r.detail.get("keys", frozenset()), through_tables=True)
    for k in r.detail.get("made", ()):
        row = reads.get(k[1]) if k[0] == "lookup" else None
        if row is not None and not _of_its_turn(row, r):
            continue
        context = tokens_in(row.detail.get("keys", frozenset()), through_tables=True) if row is not None else {}
        for symbols, offsets in address.items():
            if symbols in context and max(offsets) > max(context[symbols]) and max(offsets) >= trace.newest.get(symbols, max(offsets)):
                return True
    return False


@dataclass(slots=True, kw_only=True, eq=False)
class Proposal:
    """Something that a helper or a gate decides per position and that a score depends on.

    ``source``: the call of a compiled helper (COMPILE) or the gate (GATE). ``leak``: it looks at the token of its own
    position. ``shut``: knobs of a threshold that no confidence can pass, when there is one and no other way.
    """

    source: Event
    score: Event
    leak: bool
    shut: frozenset | None = None
    reported: bool = False

    @property
    def keyed(self) -> bool:
        """Does a compiled helper read its table at an address that holds the token (F8, not F7)."""
        return self.helper is not None and any(o.keyed for o in self.helper.leaks)

    @property
    def helper(self) -> Any:
        return self.source.detail.get("helper")

    @property
    def active(self) -> Tristate:
        if self.shut is not None:
            return "no"
        return max(self.score.active, self.source.active, key=lambda a: RANK[a])


def proposals(trace: Trace) -> list[Proposal]:
    """Hints of compiled helpers and gates on the way to a score; one entry per source and standing."""
    found_at = sources(trace, "COMPILE", "GATE")
    emptied = [*sources(trace, "EMPTIED").values()]
    reads = sources(trace, "LOOKUP") if emptied else {}
    reported = reported_ids(trace)
    own: dict[int, dict[tuple[int, ...], int]] | None = None
    found: dict[tuple, Proposal] = {}

    def keep(p: Proposal) -> None:
        key = (p.source.path, p.source.line, p.leak, p.active)
        old = found.get(key)
        if old is None or (p.reported, not p.source.detail.get("doubt")) > (old.reported, not old.source.detail.get("doubt")):
            found[key] = p

    for s in all_scores(trace):
        places: dict[tuple[int, ...], int] | None = None
        for k in marks(s, "leak", "hint", "gate"):
            if (e := found_at.get(k[1])) is None:
                continue
            leak = k[0] == "leak"
            if k[0] == "gate":
                if places is None:
                    places = {x: max(o) for x, o in tokens_in(s.detail["keys"]).items()}
                at = tokens_in(e.detail.get("keys", frozenset()))
                if e.detail.get("edit"):
                    own = _own_places(all_scores(trace)) if own is None else own
                    if not _among(at, own[s.id]):
                        continue
                    at = {}
                leak = bool(e.detail.get("edit")) or bool(e.detail.get("anchored")) or any(
                    x in places and max(offsets) >= places[x] for x, offsets in at.items()
                )
                if not leak:
                    continue
            keep(Proposal(source=e, score=s, leak=leak, shut=trace.thresholds.get(k), reported=s.id in reported))
        asked = [reads[k[1]] for k in marks(s, "lookup") if k[1] in reads] if emptied else []
        for e in emptied:
            if any(_emptied_before(e, r) for r in asked):
                own = _own_places(all_scores(trace)) if own is None else own
                if _among(tokens_in(e.detail["keys"]), own[s.id]):
                    keep(Proposal(source=e, score=s, leak=True, reported=s.id in reported))
    return sorted(found.values(), key=lambda p: (RANK[p.active], p.source.id))


def _emptied_before(e: Event, read: Event) -> bool:
    """Was the table that is read emptied, or kept, earlier in the same turn of the loops that both stand in."""
    turns = dict(e.loops)
    return (
        e.id < read.id
        and e.id in read.detail["table_taint"]
        and all(turns.get(loop) == turn for loop, turn in read.loops if loop in turns)
    )


def _among(tokens: Places, scored: dict[tuple[int, ...], int]) -> bool:
    """Is one of the tokens among those that a score is for; a score of a part that was cut out stands further on."""
    for symbols, offsets in tokens.items():
        if symbols in scored:
            if max(offsets) >= scored[symbols]:
                return True
        elif symbols and any(set(symbols) < set(at) and max(offsets) >= latest for at, latest in scored.items()):
            return True
    return False


@dataclass(slots=True, kw_only=True, eq=False)
class Spread:
    """A token's loss divided over its bytes, and the score in which the shares were mixed with a byte model.

    ``spread``: the division (SPREAD), or the call of a compiled helper that does it (COMPILE).
    """

    spread: Event
    score: Event | None
    reported: bool = False

    @property
    def active(self) -> Tristate:
        if self.score is None:
            return self.spread.active
        return max(self.score.active, self.spread.active, key=lambda a: RANK[a])


def byte_mixtures(trace: Trace) -> list[Spread]:
    """Every mixture of per-byte shares of a token's loss with table statistics, one entry per place."""
    filled = {e.detail.get("table") for e in trace.of("STORE")}
    divisions = {}
    for e in sources(trace, "SPREAD").values():
        tables = {k[1] for k in e.detail.get("keys", ()) if k[0] == "lut"}
        if not tables or tables - filled:  # a table that evaluation fills is none of byte lengths
            divisions[e.id] = e
    reported = reported_ids(trace)
    found: dict[tuple, Spread] = {}
    for s in all_scores(trace):
        keys = s.detail.get("keys", ())
        mixed = s.flags & COUNT or any(k[0] in ("lookup", "hint", "leak") for k in keys)
        for k in keys:
            if k[0] == "spread" and mixed and (at := divisions.get(k[1])) is not None:
                known = found.get((at.path, at.line, at.active))
                if known is None or (s.id in reported and not known.reported):
                    found[at.path, at.line, at.active] = Spread(spread=at, score=s, reported=s.id in reported)
    for e in trace.of("COMPILE"):
        helper = e.detail.get("helper")
        if helper is not None and helper.spreads and e.flags & LOSS:
            found.setdefault((e.path, e.line, e.active), Spread(spread=e, score=None, reported=True))
    return sorted(found.values(), key=lambda x: (RANK[x.active], x.spread.id))


def foreign_divisors(trace: Trace) -> list[tuple[Event, Event, bool]]:
    """(division, score, reported): a row over all candidates not divided by its own sum."""
    places = sources(trace, "DIVISOR", "UNNORMALISED")
    reported = reported_ids(trace)
    found: dict[tuple, tuple[Event, Event, bool]] = {}
    for s in all_scores(trace):
        for k in marks(s, "divisor", "unnorm", "raised"):
            if (e := places.get(k[1])) is not None:
                if e.detail.get("tilt") and ("norm",) in s.detail["keys"]:
                    continue  # the probability at the proposed token is in it: what the tilt is divided by
                old = found.get((e.path, e.line, e.active))
                if old is None or (s.id in reported and not old[2]):
                    found[e.path, e.line, e.active] = (e, s, s.id in reported)
    return list(found.values())
