"""Each kernel against eager and compiled code at the recipes' shapes: time, memory, error.

    python benchmarks/kernels.py [--rows 98304]

Needs a CUDA device for times; without one it only compares results on small shapes, through Triton's
interpreter. Prints a table and, on the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from reference_model.kernels.attention import prepare_fused
from reference_model.kernels.mlp import linear_leaky_square, mlp_residual, up_forward
from reference_model.model.attention import prepare
from reference_model.model.layers import rms_norm, rope_tables
from reference_model.model.mlp import leaky_square

Case = tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor], list[torch.Tensor]]


def cases(rows: int, device: str, dtype: torch.dtype) -> dict[str, Case]:
    """name -> (fused, eager, inputs) at width 512, hidden 1,536, 8 heads of 64; sequences of 2,048."""
    width, hidden, heads, length = (512, 1536, 8, 2048) if device == "cuda" else (32, 48, 2, 16)
    draw = lambda *shape: torch.randn(shape, device=device, dtype=dtype)  # noqa: E731
    x, up, down = draw(rows, width), draw(hidden, width) / width**0.5, draw(width, hidden) / hidden**0.5
    scale, norm = draw(width), torch.tensor(0.5, device=device)
    q, gain = draw(rows // length, length, heads, width // heads), draw(heads)
    cos, sin = rope_tables(length, width // heads // 4, 1e4, 0, torch.device(device))

    def branch(x: torch.Tensor, up: torch.Tensor, down: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x + leaky_square(rms_norm(x) * norm.to(x.dtype) @ up.mT, 0.5) @ down.mT * scale

    return {
        "linear_leaky_square": (lambda x, w: linear_leaky_square(x, w, 0.5), lambda x, w: leaky_square(x @ w.mT, 0.5), [x, up]),
        "mlp_residual": (lambda x, u, d, s: mlp_residual(x, u, d, s, norm, 0.5), branch, [x, up, down, scale]),
        "prepare": (
            lambda q, g: prepare_fused(q, cos, sin, g, True), lambda q, g: prepare(q, cos, sin, g, True), [q, gain],
        ),
    }  # fmt: skip


def error(fused: Any, eager: Any, inputs: list[torch.Tensor]) -> dict[str, float]:
    got = fused(*inputs).double().flatten()
    want = eager(*[t.double() for t in inputs]).flatten()
    plain = eager(*inputs).double().flatten()
    cosine = torch.nn.functional.cosine_similarity(got, plain, dim=0)
    return {"error": float((got - want).norm() / want.norm()), "eager_error": float((plain - want).norm() / want.norm()),
            "cosine_to_eager": float(cosine)}  # fmt: skip


def timed(function: Any, inputs: list[torch.Tensor]) -> dict[str, float]:
    """Median milliseconds of forward and of forward with backward; peak MiB over the inputs."""
    from triton.testing import do_bench

    live = [t.detach().clone().requires_grad_() for t in inputs]
    cotangent = torch.randn_like(function(*live))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = function(*live)
    torch.cuda.synchronize()
    kept = torch.cuda.memory_allocated() - before  # what the backward pass will need
    y.backward(cotangent)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    forward = do_bench(lambda: function(*live), warmup=20, rep=80, return_mode="median")
    both = do_bench(lambda: function(*live).backward(cotangent), warmup=20, rep=80, return_mode="median")
    return {"forward_ms": forward, "both_ms": both, "kept_mib": kept / 2**20, "peak_mib": peak / 2**20}


def paths(x: torch.Tensor, w: torch.Tensor, descriptors: bool) -> dict[str, float]:
    """Forward pass alone through one of the two ways to load tiles."""
    from triton.testing import do_bench

    ms = do_bench(lambda: up_forward(x, w, 0.5, descriptors), warmup=20, rep=80, return_mode="median")
    return {"ms": ms, "tflops": 2 * x.size(0) * x.size(1) * w.size(0) / ms / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=98_304, help="tokens per pass")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    found: dict[str, Any] = {
        "benchmark": "kernels",
        "device": torch.cuda.get_device_name() if gpu else "cpu, interpreter",
    }
    for name, (fused, eager, inputs) in cases(4096 if gpu else 32, device, dtype).items():
        found[name] = error(fused, eager, inputs)
    if gpu:
        for name, (fused, eager, inputs) in cases(arguments.rows, device, dtype).items():
            found[name] |= {
                "fused": timed(fused, inputs), "eager": timed(eager, inputs),
                "compiled": timed(torch.compile(eager, dynamic=False), inputs),
            }  # fmt: skip
            if name == "linear_leaky_square":
                found[name]["paths"] = {
                    d: paths(*inputs, d == "descriptors") for d in ("descriptors", "pointers")
                }
    for name, result in found.items():
        if isinstance(result, dict):
            print(
                f"{name}: error {result['error']:.2e} (eager {result['eager_error']:.2e}), cosine {result['cosine_to_eager']:.7f}"
            )
            for kind in ("fused", "compiled", "eager"):
                if kind in result:
                    t = result[kind]
                    print(f"  {kind:<9} forward {t['forward_ms']:.3f} ms, with backward {t['both_ms']:.3f} ms, "
                          f"kept {t['kept_mib']:,.0f} MiB, peak {t['peak_mib']:,.0f} MiB")  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
