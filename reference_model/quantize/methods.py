"""The submissions' own ways from a checkpoint to bytes, re-created: the points that a frontier has to beat.

Each is a combination of parts that live elsewhere (clip search, GPTQ, calibration, pruning, compressor). Embeddings
go to 8 bits and control tensors to half precision in all of them. General compressors get one byte per integer
in the better of row and column order, as the submissions lay them out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from audit.contracts import InputError
from harness.artifact.container import to_bytes
from harness.artifact.grids import Record
from reference_model.quantize.compensate import GptqOptions, LayerLog
from reference_model.quantize.export import State, export_gptq, export_rtn, matrices
from reference_model.quantize.hessian import Hessians
from reference_model.quantize.policy import Policy, tensor_class
from reference_model.quantize.prune import zero_smallest

#: Calibration text by name -> Hessians of the (unquantized) model on it.
HessiansOf = Callable[[str], Hessians]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """``calibration`` (GPTQ only): ``random``, ``self``, ``train`` or ``online``. ``prune``: share set to zero before."""

    name: str
    source: str
    bits: int
    rounding: str  # "rtn" or "gptq"
    clip: str
    compressor: str
    calibration: str = ""
    block: int = 128
    prune: float = 0.0


#: What the four submissions did. PR 1171 speaks of self-generated calibration; its code draws random tokens.
SUBMISSIONS = (
    Method(name="pr726", source="PR 726: GPTQ-lite 6 bit, lzma", bits=6, rounding="rtn", clip="wide", compressor="lzma"),
    Method(
        name="pr1171", source="PR 1171 as coded: GPTQ 5 bit on random tokens, 2 % pruning, zstd 22", bits=5,
        rounding="gptq", clip="wide", compressor="zstd", calibration="random", block=64, prune=0.02,
    ),
    Method(
        name="pr1171-self", source="PR 1171 as described: GPTQ 5 bit on self-generated text, 3 % pruning, zstd 22",
        bits=5, rounding="gptq", clip="wide", compressor="zstd", calibration="self", block=64, prune=0.03,
    ),
    Method(
        name="pr1072", source="PR 1072: GPTQ 6 bit on online Hessians, lzma", bits=6, rounding="gptq", clip="wide",
        compressor="lzma", calibration="online",
    ),
    Method(
        name="pr827", source="PR 827: GPTQ-lite 6 bit with tight clips, zlib", bits=6, rounding="rtn", clip="tight",
        compressor="zlib",
    ),
    Method(
        name="pr827-gptq", source="PR 827, later phase: GPTQ 6 bit on self-generated text, brotli", bits=6,
        rounding="gptq", clip="tight", compressor="brotli", calibration="self",
    ),
)  # fmt: skip


def apply(
    method: Method, state: State, hessians_of: HessiansOf, control: str = "fp16"
) -> tuple[list[Record], list[LayerLog]]:
    """Records that the method makes of a state dict, and GPTQ's log (empty for plain rounding)."""
    policy = Policy(bits=method.bits, control=control)
    if method.prune:
        state = pruned(state, method.prune)
    if method.rounding == "rtn":
        return export_rtn(state, policy, method.clip), []
    if method.rounding != "gptq":
        raise InputError(f"unknown rounding {method.rounding!r}; known: rtn, gptq")
    options = GptqOptions(block=method.block, refine=0, plain_fallback=False)
    return export_gptq(state, policy, hessians_of(method.calibration), method.clip, options)


def pruned(state: State, share: float) -> dict[str, torch.Tensor]:
    """The state with the smallest weights of each attention and MLP matrix at zero."""
    names = [n for n in matrices(state) if tensor_class(n, tuple(state[n].shape)) != "embedding"]
    return {**state, **{name: zero_smallest(state[name], share) for name in names}}


def file_bytes(
    records: Sequence[Record],
    compressor: str,
    family: str = "golf",
    config: Mapping[str, object] | None = None,
) -> int:
    """Bytes of the whole artifact; a general compressor gets the better of row and column order."""
    orders = [list(records)]
    if compressor not in ("rows", "bits"):
        orders.append([dataclasses.replace(r, by_column=r.quantized) for r in records])
    return min(
        len(to_bytes(family=family, config=config or {}, tensors=order, compressor=compressor)[0])
        for order in orders
    )
