"""GPTQ over a whole model: layers of equal shape are solved together, and every layer leaves a log entry.

One-shot, as in the records: all Hessians come from the unquantized model, so that layers are independent
and those of equal shape are one batch on the GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import torch

from audit.contracts import InputError
from reference_model.quantize import gptq
from reference_model.quantize.rounding import Rounded, round_to_nearest

#: Chooses half-precision scales: (weight, clip range, importance of columns or None) -> (rows,).
ScaleSearch = Callable[[torch.Tensor, int, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class GptqOptions:
    """``refine``: passes of coordinate descent after the sweep. ``plain_fallback``: rows never worse than plain."""

    block: int = 64
    damping: float = gptq.DAMPING
    act_order: bool = True
    refine: int = 1
    plain_fallback: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLog:
    """What one layer's solution was like. Errors are tr((W - Q) H (W - Q)^T); ``plain_error`` is rounding's.

    ``damping`` is the fraction of the mean diagonal that was used; ``escalations``: how often it had to grow
    tenfold first. ``plain_rows``: rows that kept the plain codes since compensation did not help them.
    """

    name: str
    rows: int
    columns: int
    damping: float
    escalations: int
    dead_columns: int
    error: float
    plain_error: float
    plain_rows: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    rounded: Rounded
    log: LayerLog


def batches_of(
    weights: Mapping[str, torch.Tensor], kind: Callable[[str], object], most: int = 1 << 26
) -> Iterator[list[str]]:
    """Names grouped by shape and ``kind``, at most ``most`` weights to a group."""
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, weight in weights.items():
        groups[(*weight.shape, kind(name))].append(name)
    for names in groups.values():
        per = max(1, most // max(1, weights[names[0]].numel()))
        for start in range(0, len(names), per):
            yield names[start : start + per]


def escalations(used: float, first: float) -> int:
    """How many tenfold steps lie between two damping values."""
    return round(torch.log10(torch.tensor(used / first)).item()) if first > 0 else 0


def compensate(
    weights: Mapping[str, torch.Tensor],
    hessians: Mapping[str, torch.Tensor],
    clip_of: Callable[[str], int],
    search: ScaleSearch,
    options: GptqOptions | None = None,
    progress: Callable[[LayerLog], None] = lambda log: None,
) -> dict[str, Solved]:
    """GPTQ codes and scales of every matrix (rows, columns) that has a Hessian (columns, columns).

    Scales minimise the error weighted by the Hessian's diagonal. Each row takes whichever is best under the
    full Hessian: the compensated codes, plain rounding on the same scales, or plain rounding on scales
    searched without weights, so that no layer is ever worse than round-to-nearest.
    """
    options = options or GptqOptions()
    found: dict[str, Solved] = {}
    for names in batches_of(weights, clip_of):
        clip = clip_of(names[0])
        weight = torch.stack([weights[n].float() for n in names])
        for name in names:
            if hessians[name].shape != (weight.shape[2], weight.shape[2]):
                raise InputError(f"tensor {name}: its Hessian has shape {tuple(hessians[name].shape)}")
        hessian = torch.stack([hessians[n].to(weight.device).float() for n in names])
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        scales = torch.stack([search(w, clip, d) for w, d in zip(weight, diagonal, strict=True)])
        factor = gptq.factorise(hessian, damping=options.damping, act_order=options.act_order)
        choose = gptq.nearest(clip)
        codes = gptq.sweep(weight, factor, scales.float(), choose, block=options.block)
        if options.refine:
            codes = gptq.refine(weight, codes, hessian, scales.float(), choose, passes=options.refine)
        best = gptq.layer_error(weight, codes * scales.float()[:, :, None], hessian)
        plain_scales = torch.stack([search(w, clip, None) for w in weight])
        plain = [
            Rounded(codes=torch.stack([r.codes for r in rounded]), scales=s)
            for s in (plain_scales, scales)
            for rounded in [[round_to_nearest(w, x, clip) for w, x in zip(weight, s, strict=True)]]
        ]
        plain_error = gptq.layer_error(
            weight, plain[0].codes.float() * plain[0].scales.float()[:, :, None], hessian
        )
        kept = torch.zeros_like(best, dtype=torch.bool)
        for candidate in plain if options.plain_fallback else ():
            error = gptq.layer_error(
                weight, candidate.codes.float() * candidate.scales.float()[:, :, None], hessian
            )
            better = error < best
            best = torch.where(better, error, best)
            scales = torch.where(better, candidate.scales, scales)
            codes = torch.where(better[:, :, None], candidate.codes.float(), codes)
            kept |= better
        small = codes.to(torch.int8)
        for i, name in enumerate(names):
            log = LayerLog(
                name=name, rows=weight.shape[1], columns=weight.shape[2], damping=float(factor.damping[i]),
                escalations=escalations(float(factor.damping[i]), options.damping),
                dead_columns=int(factor.dead[i]), error=float(best[i].sum()),
                plain_error=float(plain_error[i].sum()), plain_rows=int(kept[i].sum()),
            )  # fmt: skip
            found[name] = Solved(rounded=Rounded(codes=small[i], scales=scales[i]), log=log)
            progress(log)
    return found
