"""Is the score that the papers state the one of the model before it was quantized?

Training prints a validation score at its last step, and many programs print one more before they quantize. The artifact's
own figure, after the round trip, is as a rule worse. Where the stated score is printed by such an early line and by no
other, it is not the figure of what was counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.evidence.digits import interval
from audit.evidence.runs import Evidence, headline, prints
from audit.model import Fact

_BEFORE = re.compile(r"pre[-_ ]?quant|before[-_ ]?quant|unquant|post[-_ ]?ema|raw[-_ ]model", re.I)
#: bits per byte by which the artifact's figure is worse than the stated one, beyond what runs differ by
WORSE = 0.001


def unquantized(found: Evidence) -> Iterator[tuple[Fact, Fact | None]]:
    """(the early line that prints the stated score, the artifact's figure in that run; None where it prints none)."""
    targets = headline(found.stated)
    early: list[tuple[Fact, Fact | None]] = []
    for run in found.runs:
        after = [e.bpb for e in run.evaluations if e.bpb.name == "val_bpb" and not _BEFORE.search(e.label)]
        before = [e.bpb for e in run.evaluations if e.bpb not in after]
        before += [f for f in run.named("step_val_bpb") if f not in before]
        if any(prints(f, t) for f in after for t in targets):
            return
        said = next((f for f in before if any(prints(f, t) for t in targets)), None)
        if said is None:
            continue
        final = after[-1] if after else None
        if final is not None and final.line > said.line and interval(final.raw).low > interval(said.raw).high + WORSE:
            early.append((said, final))
        elif final is None and _BEFORE.search(said.label):
            early.append((said, None))
    yield from early


__all__ = ["WORSE", "unquantized"]
