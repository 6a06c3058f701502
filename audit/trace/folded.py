"""Runs of tokens that become one number: hashes, sums of products, what a loop over a run leaves behind.

Such a number is an address of the whole run, its last token included (`audit.trace.positions.whole`); arrays that are worked
on element by element stay runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from audit import ir
from audit.trace.gates import holds_tokens
from audit.trace.positions import one_of, walk_stream, whole
from audit.trace.spans import ROWS, WINDOWS
from audit.trace.values import V, clone, kinds

_ONE = frozenset(
    """int item hash tobytes bytes from_bytes dot vdot reduce crc32 adler32 md5 sha1 sha256 sha512 blake2b blake2s digest hexdigest
    intdigest xxh32 xxh64 xxh32_intdigest xxh64_intdigest""".split()
)
_SUMS = frozenset(["sum", "prod"])
#: what gives one token of a run
_TAKES = frozenset(["max", "min", "choice"])
#: each time another one
_POPS = frozenset(["pop", "popleft", "next"])


def one_number(e: ir.Call, f: V, args: list[V], out: V) -> V:
    """The result of a call that makes one number, or one string of bytes, of a run of tokens, or takes one of them."""
    name = e.func.attr if isinstance(e.func, ir.Attr) else e.func.id if isinstance(e.func, ir.Name) else ""
    if name in _TAKES:
        return one_of(out)
    if name in _POPS and "t" in kinds(out) and holds_tokens(out):
        out = clone(out)
        walk_stream(out)
        out.pos = None
        return out
    if name not in _ONE and not (name in _SUMS and not e.keywords and len(args) == (0 if f.kind == "bound" else 1)):
        return out
    return of_whole_run(out)


def of_whole_run(v: V) -> V:
    if "e" not in kinds(v) or not holds_tokens(v) or ROWS in v.keys or WINDOWS in v.keys:
        return v
    out = clone(v)
    out.keys = whole(v.keys)
    return out


def after_walk(run: V, names: dict[str, V], assigned: Iterable[str]) -> None:
    """``for t in run: h = h * 31 + t``: what was made of all its tokens was made of the last one as well."""
    if run.kind == "iter" and run.data[0] == "enumerate":
        run = run.data[1]
    if run.kind != "val" or "e" not in kinds(run) or not holds_tokens(run):
        return
    begins = [k[1] for k in run.keys if k[0] == "t"]
    ends = frozenset(("t", *k[1:]) for k in run.keys if k[0] == "e")
    for name in assigned:
        v = names.get(name)
        if v is not None and holds_tokens(v) and any(_within(at, k[1]) for k in v.keys if k[0] == "t" for at in begins):
            out = clone(v)
            out.keys = v.keys | ends
            names[name] = out


def _within(run: tuple[int, ...], token: tuple[int, ...]) -> bool:
    """Is it the place of an element that a loop took out of the run."""
    return len(token) == len(run) + 1 and all(token.count(s) >= run.count(s) for s in run)


__all__ = ["after_walk", "of_whole_run", "one_number"]
