"""Artifact sizes: what each run's log and each paper state, against the decimal cap.

A log's total is model + code, where code is what the script measured of itself: sometimes the plain
source, although a packed script was submitted, sometimes the packed size, although the plain source
was submitted. Both totals are computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from audit.evidence.digits import Interval, interval, unit
from audit.evidence.runs import Evidence, Run
from audit.model import Fact

#: bytes, decimal, code and compressed model together
CAP = 16_000_000
MIB_PER_MB = 1.048576
#: bytes; a smaller "total" is some other total
LEAST = 50_000
_RAW = re.compile(r"raw|uncompressed|fp32|fp16|bf16|unquant|torch", re.I)


@dataclass(frozen=True, slots=True)
class Size:
    """One stated total in bytes. ``run`` is None for a paper's figure; ``parts`` explain a sum."""

    fact: Fact
    total: Interval
    run: Run | None = None
    parts: str = ""

    @property
    def over(self) -> bool:
        return self.total.low > CAP


def run_total(run: Run, shipped_code: int | None) -> Size | None:
    """The run's final artifact. ``shipped_code``: bytes of the submitted script where it is packed.

    A log prints totals for several exports at times (raw weights, a trial grid): the submitted one is
    the smallest that stands after the last serialized model. None where the log prints no total.
    """
    totals = [f for f in run.named("bytes_total") if not _RAW.search(f.label) and f.value > LEAST]
    if not totals:
        return None
    best = min(totals, key=lambda f: f.value)
    stated = interval(best.raw) if unit(best.raw) == 1 and " " not in best.raw else _as_bytes(best)
    codes = [int(f.value) for f in run.named("bytes_code")]
    if shipped_code is not None and codes and shipped_code < max(codes):
        model = [int(f.value) for f in run.named("bytes_model") if f.value < best.value]
        if model:
            packed = min(stated.low, max(model) + shipped_code)
            if packed < stated.low:
                parts = f"{max(model):,} model + {shipped_code:,} packed script as submitted"
                return Size(best, Interval(packed, packed), run, parts)
    return Size(best, stated, run)


def _as_bytes(fact: Fact) -> Interval:
    """The interval of a figure that carries its unit (``15.38 MB``, ``16024793 bytes``)."""
    raw = fact.raw.lstrip("~")
    number, _, suffix = raw.partition(" ")
    scale = {"MB": 1e6, "MiB": 2.0**20, "KB": 1e3, "KiB": 1024.0, "GB": 1e9}.get(suffix, 1.0)
    found = interval(number, scale, truncated=scale > 1)
    return found if scale > 1 else Interval(fact.value, fact.value)


def stated_sizes(evidence: Evidence) -> list[Size]:
    """Totals of the papers (metadata and README), approximate ones left out."""
    return [
        Size(f, _as_bytes(f))
        for f in evidence.papers
        if f.name == "bytes_total" and not f.raw.startswith("~")
    ]


def stated_models(evidence: Evidence) -> list[Size]:
    """Exact sizes of compressed models alone that the metadata state: the artifact is larger by its code."""
    return [
        Size(f, _as_bytes(f), parts="the model alone")
        for f in evidence.papers
        if f.name == "bytes_model" and f.path.endswith("submission.json") and not _RAW.search(f.label) and f.value > LEAST and " " not in f.raw.removesuffix(" bytes")
    ]  # fmt: skip


def mebibytes(sizes: list[Size]) -> Iterator[tuple[Size, Size]]:
    """(figure in "MB" that is in fact MiB, the exact one), where both are of one seed.

    The pair shows itself: the exact figure over 1,048,576 rounds to the other, and over a million does not.
    """
    for small in sizes:
        if not small.fact.raw.endswith(" MB"):
            continue
        as_mib = Interval(small.total.low * MIB_PER_MB, small.total.high * MIB_PER_MB)
        for exact in sizes:
            same = exact.fact.scope == small.fact.scope and exact is not small
            if same and exact.total.meets(as_mib) and not exact.total.meets(small.total):
                yield small, exact
