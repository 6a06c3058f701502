"""The contest's metric: bits per byte of original text.

One global quotient: the summed negative log-likelihood of all targets in nats, over ln 2, over the
bytes those targets stand for (`harness.tokens.bytes`). Never a mean of means: averaging per chunk,
window or rank weights bytes unequally and gives another number. A quotient of bytes rather than of
tokens makes vocabularies comparable.
"""

from __future__ import annotations

import math

from audit.contracts import InputError


def bits_per_byte(nll_sum_nats: float, byte_count: int) -> float:
    """``nll_sum_nats / ln 2 / byte_count``. Raises `InputError` when there are no bytes or no finite sum."""
    if byte_count <= 0:
        raise InputError(f"bits per byte of {byte_count} bytes is undefined; no target stands for any text")
    if not math.isfinite(nll_sum_nats):
        raise InputError(f"negative log-likelihood sums to {nll_sum_nats}; the model's logits are not finite")
    return nll_sum_nats / math.log(2.0) / byte_count


def mean_nats(nll_sum_nats: float, targets: int) -> float:
    """Loss per target in nats, what contest logs call ``val_loss``."""
    if targets <= 0:
        raise InputError("mean loss over no targets is undefined")
    return nll_sum_nats / targets


def implied_bytes(val_loss: float, val_bpb: float, targets: int) -> float:
    """Bytes that a log's ``val_loss`` (nats per target) and ``val_bpb`` imply for ``targets`` targets.

    The contest's full validation split has about 151.08 million whatever the vocabulary (rule D2);
    another figure shows a partial split or a wrong byte table (rule M1).
    """
    if val_bpb <= 0:
        raise InputError(f"val_bpb {val_bpb} implies no byte count")
    return val_loss * targets / (math.log(2.0) * val_bpb)
