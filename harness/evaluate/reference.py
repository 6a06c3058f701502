"""The evaluator that all others are measured against: float64, one window at a time, nothing clever.

No batching, no ``last``, no compiled code: for every window the model answers all positions, a log-softmax over
the whole vocabulary is taken, and the window's targets are picked. Slow on purpose.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from harness.evaluate.plan import Plan, plan


@torch.no_grad()
def reference_scores(
    model: torch.nn.Module, tokens: np.ndarray, *, context: int, stride: int,
    windows: Plan | None = None, until: int | None = None,
) -> np.ndarray:  # fmt: skip
    """First scores in nats, float64 (T,), of ``tokens`` (T + 1,) under a frozen model.

    ``windows`` defaults to the strict plan without chunks; ``until`` stops after so many targets. The model is copied, not changed.
    """
    model = copy.deepcopy(model).cpu().double().eval()
    if hasattr(model, "compute_dtype"):
        setattr(model, "compute_dtype", torch.float64)  # noqa: B010
    forward = getattr(model, "forward_logits", None) or model.forward
    p = windows or plan(len(tokens) - 1, context=context, stride=stride)
    stream = torch.from_numpy(tokens.astype(np.int64))
    out = np.full(p.total, np.nan)
    until = p.total if until is None else until
    for w in range(p.windows):
        if p.score_from[w] >= until:
            break
        start, length = int(p.starts[w]), int(p.lengths[w])
        logits = forward(stream[None, start : start + length]).double()[0]  # (T, V)
        logp = torch.log_softmax(logits, 1)
        for t in range(max(int(p.fresh_from[w]), int(p.score_from[w])), int(p.score_to[w])):
            out[t] = -float(logp[t - start, stream[t + 1]])
    return out[:until]
