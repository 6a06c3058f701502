"""What cache a submission contains, in the words of ``referee.audit/1``.

``target-in-key``: a table read at an address that holds the scored token. ``context-only``: the address is made of
earlier tokens. ``other``: a table read for all candidates, a mixture over bytes, or a gate that looks at the token.
``input-embedding``: the model itself embeds a hash of its inputs. The first of these that the submitted configuration
reaches names it; where it reaches none, the first that is there.
"""

from __future__ import annotations

from audit.model import CacheKind, Tristate
from audit.trace import Trace
from audit.trace.caches import RANK, byte_mixtures, cache_reads, proposals
from audit.trace.hashed_inputs import HashedInput

ORDER: tuple[CacheKind, ...] = ("target-in-key", "other", "context-only", "input-embedding")


def cache(trace: Trace) -> tuple[CacheKind, Tristate]:
    """The kind of cache and whether the submitted configuration reaches it."""
    found: dict[CacheKind, Tristate] = {}

    def add(kind: CacheKind, active: Tristate) -> None:
        if kind not in found or RANK[active] < RANK[found[kind]]:
            found[kind] = active

    mixtures = byte_mixtures(trace)
    for x in mixtures:
        add("other", x.active)
    # What a byte model reads is part of the mixture, and no cache of tokens.
    inside = {x.score.id for x in mixtures if x.score is not None}
    for r in cache_reads(trace):
        if all(s.id in inside for s in r.scores):
            continue
        if r.target and r.context:
            add("target-in-key", r.active)
        elif any(k[0] == "candidates" for k in r.read.detail["keys"] | r.read.detail["made"]):
            add("other", r.active)  # read for every candidate token
        elif r.context:
            add("context-only", r.active)
        elif r.target:
            add("context-only", r.active)  # a row over all tokens, read at the one that came
    for p in proposals(trace):
        if p.source.detail.get("edit"):
            continue  # a prediction changed at its own token: a breach, and no cache
        if p.shut is None and p.leak:
            add("target-in-key" if p.keyed else "other", p.active)
        elif p.source.kind == "COMPILE" and (p.helper is None or p.helper.hints):
            add("context-only", max(p.score.active, p.source.active, key=lambda a: RANK[a]))
    for kind in ORDER:
        if found.get(kind) in ("yes", "unknown"):
            return kind, found[kind]
    if any(_built(trace, h) for h in trace.hashed):
        return "input-embedding", "yes"
    return next(((kind, found[kind]) for kind in ORDER if kind in found), ("none", "no"))


def _built(trace: Trace, h: HashedInput) -> bool:
    """Is the class made, or the function run."""
    if not h.functions:
        return not trace.leaves_out(h.owner)
    return h.functions[0] in trace.entered or (
        h.functions[0] not in trace.dormant_entered and any(f in trace.entered for f in h.functions)
    )


__all__ = ["cache"]
