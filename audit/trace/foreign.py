"""What comes from modules that are neither submitted nor libraries: a model of which nobody can say what it sees."""

from __future__ import annotations

import sys
from typing import Any

from audit.trace.values import V, clone

#: installed, not submitted
LIBRARIES = frozenset(
    "torch numpy sentencepiece triton flash_attn flash_attn_interface kernels datasets transformers huggingface_hub mlx modal brotli zstandard "
    "tiktoken tokenizers tqdm wandb requests pyarrow jax flax numba scipy sklearn matplotlib psutil einops pandas safetensors yaml fla cupy cffi "
    "torchao pynvml liger_kernel cut_cross_entropy mamba_ssm causal_conv1d torch_xla cutlass ray fire typer click hydra omegaconf dotenv".split()
)

FOREIGN = "foreign"


def is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return top in LIBRARIES or top in sys.stdlib_module_names


class Foreign:
    """Mixed into the machine; see `audit.trace.machine`."""

    def note_absent(self: Any, module: str) -> None:
        """An import that no file of the submission answers."""
        if module.strip(".") and not is_library(module.lstrip(".")):
            self.absent.add(module.lstrip(".").partition(".")[0])

    def brought_in(self: Any, name: str, made: V) -> V:
        """What a function or a class of an absent module gives, marked with the module."""
        top = name.partition(".")[0]
        if top not in self.absent or made.kind != "val":
            return made
        out = clone(made)
        out.keys = made.keys | {(FOREIGN, top)}
        return out


__all__ = ["FOREIGN", "Foreign", "is_library"]
