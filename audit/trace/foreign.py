"""What comes from modules that are neither submitted nor libraries: a model of which nobody can say what it sees."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

from audit.trace.values import VAL, V, clone, summary

#: installed, not submitted
LIBRARIES = frozenset(
    "torch numpy sentencepiece triton flash_attn flash_attn_interface kernels datasets transformers huggingface_hub mlx modal brotli zstandard "
    "tiktoken tokenizers tqdm wandb requests pyarrow jax flax numba scipy sklearn matplotlib psutil einops pandas safetensors yaml fla cupy cffi "
    "torchao pynvml liger_kernel cut_cross_entropy mamba_ssm causal_conv1d torch_xla cutlass ray fire typer click hydra omegaconf dotenv "
    "flash_attn_3 flash_attn_2_cuda causal_conv1d_cuda selective_scan_cuda transformer_engine xformers peft gram_newton_schulz "
    "python_minifier lz4 zstd constriction".split()
)

FOREIGN = "foreign"
TOKENS = "tokens"


def is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return top in LIBRARIES or top in sys.stdlib_module_names


class Foreign:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_absent(self: Any, module: str) -> None:
        """An import that no file of the submission answers."""
        if module.strip(".") and not is_library(module.lstrip(".")):
            self.absent.add(module.lstrip(".").partition(".")[0])

    def brought_in(self: Any, name: str, made: V, given: list[V]) -> V:
        """What a function or a class of an absent module gives, marked with the module, and whether it got validation tokens."""
        top = name.partition(".")[0]
        if top not in self.absent or made.kind != "val":
            return made
        out = clone(made)
        on_val = any((summary(v) if v.kind in ("seq", "dict") else v).flags & VAL for v in given if v.kind != "const")
        out.keys = made.keys | {(FOREIGN, top, TOKENS) if on_val else (FOREIGN, top)}
        return out

    def note_foreign_figure(self: Any, parts: list[V]) -> None:
        """A line that tells the contest's figure as such a module gave it: it may have scored the validation tokens itself."""
        for before, part in pairwise(parts):
            if before.kind == "const" and isinstance(before.const, str) and "bpb" in before.const[-24:].lower():
                self.trace.told_by |= {k[1] for k in part.keys if k[0] == FOREIGN}


__all__ = ["FOREIGN", "TOKENS", "Foreign", "is_library"]
