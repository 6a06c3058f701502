"""The library's attention layers (``nn.TransformerEncoder`` and its like): what attends to what in a call of one.

No rule lives here. They hide nothing by themselves: a call sees the whole sequence unless it hands over a mask. What is
not known counts as a mask. Without ``batch_first=True`` the sequence is axis 0, and (B, T, C) attend over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from audit import ir
from audit.rules.attention import Reads, made_of, spread
from audit.rules.axes import argument
from audit.rules.code import Place
from audit.rules.layers import Layers
from audit.rules.sequence import Sequences

#: per layer: (queries, keys, mask) as (position, names) each, of the attentions in it
_Argument = tuple[int, tuple[str, ...]]
_SOURCE: _Argument = (0, ("src",))
_TARGET: _Argument = (0, ("tgt",))
_DECODER = (
    (_TARGET, _TARGET, (2, ("tgt_mask", "tgt_is_causal"))),
    (_TARGET, (1, ("memory",)), (3, ("memory_mask", "memory_is_causal"))),
)
_ATTENTIONS: dict[str, tuple[tuple[_Argument, _Argument, _Argument], ...]] = {
    "MultiheadAttention": (((0, ("query",)), (1, ("key",)), (5, ("attn_mask", "is_causal"))),),
    "TransformerEncoderLayer": ((_SOURCE, _SOURCE, (1, ("src_mask", "is_causal"))),),
    "TransformerEncoder": ((_SOURCE, _SOURCE, (1, ("mask", "is_causal"))),),
    "TransformerDecoderLayer": _DECODER,
    "TransformerDecoder": _DECODER,
}
#: where ``batch_first`` stands among a constructor's arguments
_BATCH_FIRST = {"MultiheadAttention": 8, "TransformerEncoderLayer": 6, "TransformerDecoderLayer": 6}
_STACKS = frozenset({"TransformerEncoder", "TransformerDecoder"})


def attends(call: ir.Call, kind: str, reads: Reads, opened: Callable[[Any], bool]) -> Iterator[tuple[Any, Any, bool]]:
    """(queries, keys, is there a mask) of every attention in a call of a layer that nothing keeps from later positions.

    ``opened``: does a mask that is known leave them in sight.
    """
    if spread(call):
        return
    for queries, keys, (at, names) in _ATTENTIONS[kind]:
        masks = [v for k, v in call.keywords if k in names]
        if len(call.args) > at:
            masks.append(call.args[at])
        q, k = (argument(call.args, n, call.keywords, *words) for n, words in (queries, keys))
        given = [m for m in masks if reads(m) not in ((True, None), (True, False))]
        if q is not None and k is not None and all(opened(m) for m in given):
            yield q, k, bool(given)


def sequence_axis(layers: Layers, place: Place, made: ir.Call, kind: str) -> int | None:
    """Which axis such a layer attends over; None where its constructor does not say."""
    if kind in _STACKS:
        inner = layers.built(place, argument(made.args, 0, made.keywords, "encoder_layer", "decoder_layer"))
        if inner is None or layers.kind(place, inner) != kind + "Layer":
            return None
        made, kind = inner, kind + "Layer"
    if spread(made):
        return None
    first = argument(made.args, _BATCH_FIRST[kind], made.keywords, "batch_first")
    if first is None:
        return 0
    return int(first.value) if isinstance(first, ir.Const) and isinstance(first.value, bool) else None


def other_inputs(along: Sequences, place: Place) -> bool:
    """Does a method, or one that calls it, embed more than the window: an earlier text, a part of the ids.

    What such a layer reads may then be a memory, which everybody may see whole.
    """
    callers = [
        p for p in along.code.places if p.owner is not None and p.function is not None
        for n in p.nodes(ir.Call) if n.args and any(t is place for t, _ in along.parameters(p, n, [0]))
    ]  # fmt: skip
    return any(_embeds_several(along, p) for p in (place, *callers))


def _embeds_several(along: Sequences, place: Place) -> bool:
    tables = along.embeddings.tables
    looked_up = [n.args[0] for n in place.nodes(ir.Call) if isinstance(n.func, ir.Attr) and n.func.attr in tables and n.args]
    names = frozenset().union(*(made_of(place, a) for a in looked_up))
    bounds = [s for a in looked_up for s in ir.walk([a, *_made(place, a)]) if isinstance(s, ir.Slice)]
    return len(names) > 1 or any(s.lower is not None or s.upper is not None for s in bounds)


def _made(place: Place, node: Any) -> list[Any]:
    """What the names in an expression were assigned in the method."""
    names = dict.fromkeys(x.id for x in ir.walk(node) if isinstance(x, ir.Name))
    return [value for name in names for value in place.assigned(name)]


def is_encoder(kind: str) -> bool:
    return kind in _ATTENTIONS


__all__ = ["attends", "is_encoder", "other_inputs", "sequence_axis"]
