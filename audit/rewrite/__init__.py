"""Random rewrites of a submission: the same verdict in other words, or the opposite one.

``random_rewrite(text, seed, kind)`` is a pure function. ``preserve`` chooses some of: new names for
everything (lying ones too), sums and counted loops written out, definitions in another order, an expression or a run of statements moved
into a helper, a helper put back in its place, other names for the imports, minified spacing, a
self-extracting wrapper. ``flip`` turns a legal order into an illegal one or back: the update above
the score, the target into the key of a memory, the fitted positions onto the scored ones.

Nothing here asks what the auditor thinks: the rewrites look at syntax alone, so that they can be
used to test it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from audit.rewrite.base import NothingToRewrite, parse
from audit.rewrite.flip import FLIPS
from audit.rewrite.helpers import extract_expression, extract_statements, inline
from audit.rewrite.names import alias_imports, rename
from audit.rewrite.order import reorder
from audit.rewrite.pack import minify, pack
from audit.rewrite.spelling import (
    branches_as_expressions,
    counters_of_their_own,
    parts_named,
    sums_written_out,
)

__all__ = ["NothingToRewrite", "random_rewrite"]

Rewrite = Callable[[str, random.Random], tuple[str, str]]

#: in the order in which they are applied: text comes last, a wrapper very last
PRESERVING: tuple[Rewrite, ...] = (
    sums_written_out, counters_of_their_own, branches_as_expressions, parts_named,
    inline, extract_statements, extract_expression, reorder, rename, alias_imports, minify, pack,
)  # fmt: skip


def random_rewrite(
    text: str, seed: int | str, kind: Literal["preserve", "flip"] = "preserve"
) -> tuple[str, str]:
    """The rewritten script and one sentence that says what was done; the same for the same seed.

    A self-extracting script is unpacked first. Raises NothingToRewrite where the script has no place
    for the rewrite (a flip needs an update and a score in one loop, a memory's key, or a mask of
    fitted positions) or cannot be parsed; ValueError for another ``kind``.
    """
    if kind not in ("preserve", "flip"):
        raise ValueError(f"kind {kind!r} is neither 'preserve' nor 'flip'")
    chance = random.Random(f"{kind}:{seed}")
    text, said = _unpacked(text)
    parse(text)
    if kind == "flip":
        order = list(FLIPS)
        chance.shuffle(order)
        reasons = []
        for flip in order:
            try:
                text, what = flip(text, chance)
                return text, "; ".join([*said, what])
            except NothingToRewrite as none:
                reasons.append(str(none))
        raise NothingToRewrite("no place to flip: " + "; ".join(sorted(reasons)))
    chosen = [rewrite for rewrite in PRESERVING if chance.random() < 0.4]
    for rewrite in chosen or [chance.choice(PRESERVING)]:
        try:
            text, what = rewrite(text, chance)
            said.append(what)
        except NothingToRewrite:
            continue
    if not said:
        text, what = pack(text, chance)
        said.append(what)
    return text, "; ".join(said)


def _unpacked(text: str) -> tuple[str, list[str]]:
    from audit.peel import peel

    peeled = peel(text.encode("utf-8", "surrogateescape"), "train_gpt.py", lambda _name: None)
    if peeled.opaque or peeled.bomb:
        raise NothingToRewrite(f"the script cannot be unpacked: {peeled.opaque}")
    if not peeled.layers:
        return text, []
    return peeled.text, [f"unpacked {' > '.join(peeled.layers)}"]
