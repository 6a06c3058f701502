"""Is a submission better than a given record: Welch's one-sided test on the seeds.

Two criteria, both from the contest: the README's (the gain exceeds 0.005 nats, p < 0.01), and the one
that was applied from April on (the gain exceeds zero, p < 0.25, #1902).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.contracts import InputError
from audit.evidence.claims import per_seed
from audit.evidence.runs import Evidence, view

GAIN_NATS, STRICT_P, PROGRESS_P = 0.005, 0.01, 0.25


@dataclass(frozen=True, slots=True)
class Scores:
    """Per-seed scores of one submission. ``bpb``: bits per byte; ``loss``: nats per token, may be empty."""

    bpb: tuple[float, ...]
    loss: tuple[float, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Bytes per token, from the first seed."""
        return self.loss[0] / (math.log(2) * self.bpb[0]) if self.loss and self.bpb else None


@dataclass(frozen=True, slots=True)
class Welch:
    """One test of H0: gain <= ``margin``. ``gain``, ``margin`` in ``unit``; ``p`` one-sided."""

    gain: float
    margin: float
    t: float
    df: float
    p: float
    unit: str
    n_new: int
    n_old: int


def scores_of(evidence: Evidence) -> Scores:
    """Final scores per seed: those of the logs behind the headline, else those that the papers state."""
    runs = [r for r in evidence.behind if r.link == "score"]
    by_seed: dict[Any, tuple[float, float | None]] = {}
    for run in runs:
        final = run.final
        if final is not None:
            loss = final.loss.value if final.loss is not None else None
            by_seed[run.seed if run.seed is not None else run.scope] = (float(final.bpb.value), loss)
    stated = per_seed(evidence)
    if len(by_seed) >= len(stated) and by_seed:
        found = list(by_seed.values())
        losses = tuple(loss for _, loss in found if loss is not None)
        return Scores(tuple(b for b, _ in found), losses if len(losses) == len(found) else ())
    return Scores(tuple(float(f.value) for f in stated.values()))


def read_record(target: str) -> Scores:
    """The record to compare with: a records folder, a ``submission.json``, or scores as ``1.081,1.0812``.

    Raises InputError where the target is none of these or holds no score.
    """
    if re.fullmatch(r"\s*\d\.\d+(?:\s*,\s*\d\.\d+)*\s*", target):
        return Scores(tuple(float(part) for part in target.split(",")))
    at = Path(target)
    if at.is_file() and at.suffix == ".json":
        from audit.evidence.metadata import read_metadata

        found = scores_of(view(read_metadata(at.name, at.read_bytes())))
        return found if found.bpb else _only_score(at)
    if not os.path.isdir(target):
        raise InputError(f"{target}: no records folder, no submission.json and no list of scores")
    from audit.evidence.collect import read_facts
    from audit.source import FolderTree, SubmissionFiles

    tree = FolderTree(at)
    paths = list(tree.walk())
    found = scores_of(view(read_facts(SubmissionFiles(target=target, tree=tree, paths=paths, changed=paths))))
    if found.bpb:
        return found
    if (at / "submission.json").is_file():
        return _only_score(at / "submission.json")
    raise InputError(f"{target}: states no score per seed")


def _only_score(at: Path) -> Scores:
    try:
        stated = json.loads(at.read_text(encoding="utf-8-sig"))
        return Scores((float(stated["val_bpb"]),))
    except (ValueError, KeyError, TypeError, OSError):
        raise InputError(f"{at}: states no val_bpb") from None


def compare(new: Scores, old: Scores) -> tuple[Welch, Welch]:
    """(H0: gain <= 0.005 nats, H0: gain <= 0). Nats per token where both tokenizers give the same bytes
    per token, nats per byte otherwise. Raises ValueError with fewer than two scores on both sides.
    """
    same = new.ratio is not None and old.ratio is not None and abs(new.ratio / old.ratio - 1) < 1e-3
    if same:
        a, b, unit = list(new.loss), list(old.loss), "nats per token"
    else:
        a, b = [x * math.log(2) for x in new.bpb], [x * math.log(2) for x in old.bpb]
        unit = "nats per byte"
    return welch(a, b, GAIN_NATS, unit), welch(a, b, 0.0, unit)


def welch(new: Sequence[float], old: Sequence[float], margin: float, unit: str = "nats") -> Welch:
    """Welch's test of H0: mean(old) - mean(new) <= margin. With one score on a side, that score is taken
    as exact and the test is a one-sample one. Raises ValueError where no side has a spread.
    """
    from scipy.special import stdtr

    n, m = len(new), len(old)
    if n == 0 or m == 0 or max(n, m) < 2:
        raise ValueError("a test needs at least two seeds on one side and one on the other")
    mean_new, mean_old = sum(new) / n, sum(old) / m
    var_new = sum((x - mean_new) ** 2 for x in new) / (n - 1) / n if n > 1 else 0.0
    var_old = sum((x - mean_old) ** 2 for x in old) / (m - 1) / m if m > 1 else 0.0
    gain = mean_old - mean_new
    error = math.sqrt(var_new + var_old)
    if error == 0:
        return Welch(
            gain,
            margin,
            math.inf if gain > margin else -math.inf,
            math.inf,
            float(gain <= margin),
            unit,
            n,
            m,
        )
    t = (gain - margin) / error
    df = (var_new + var_old) ** 2 / (
        (var_new**2 / (n - 1) if n > 1 else 0.0) + (var_old**2 / (m - 1) if m > 1 else 0.0)
    )
    return Welch(gain, margin, t, df, float(stdtr(df, -t)), unit, n, m)
