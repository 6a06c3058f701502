"""How fast the strict evaluator scores, what its proof costs, and how far both are from the machine's limit.

    python benchmarks/evaluator.py                       # on a GPU: the model of PR 726, context 2,048, stride 64
    python benchmarks/evaluator.py --size tiny           # on a CPU, in about a minute

Measured side by side in one process: a naive evaluator of the shape that contest scripts share (full logits, a
host loop over windows, batches of 32), the same model's bare compiled forward without any bookkeeping, the
strict evaluator with and without its proof (paired, in turns), and the strict evaluator with the score-first
adaptation of PR 726. Weights are random but not zero, tokens follow Zipf's law. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from harness.evaluate.run import Evaluation, Options
from harness.evaluate.score import Numerics
from harness.evaluate.stream import Stream
from reference_model.config import ModelConfig
from reference_model.model.attention import attend
from reference_model.model.count import parameters
from reference_model.model.golf import Golf
from reference_model.model.mlp import leaky_square

LN2 = 0.6931471805599453


@dataclass(frozen=True, kw_only=True)
class Size:
    """One experiment: model, windows, how many targets each part scores."""

    config: ModelConfig
    context: int
    stride: int
    batch: int
    naive_targets: int
    targets: int
    ttt_targets: int
    ttt: dict[str, Any]
    probes: int
    repeats: int


REAL = Size(
    config=ModelConfig(
        layers=11, dim=512, heads=8, kv_heads=4, mlp_hidden=1536, xsa_layers=4, rope_dims=16, bigram_size=2048,
        bigram_dim=128, value_dim=128, value_layers=(9, 10), smear=True, unet=True, norm_scale=True,
        residual_mix=True, branch_scale=True,
    ),
    context=2048, stride=64, batch=128, naive_targets=131_072, targets=1_572_864, ttt_targets=786_432,
    ttt={}, probes=1, repeats=2,
)  # fmt: skip
TINY = Size(
    config=ModelConfig(
        layers=4, dim=160, heads=5, kv_heads=5, mlp_hidden=480, xsa_layers=1, rope_dims=16, bigram_size=1024,
        bigram_dim=64, smear=True, unet=True, norm_scale=True, residual_mix=True, branch_scale=True,
    ),
    context=256, stride=64, batch=16, naive_targets=8_192, targets=24_576, ttt_targets=16_384,
    ttt={"chunk": 4096, "freeze": 0, "epochs": 1}, probes=0, repeats=5,
)  # fmt: skip
SMOKE = Size(
    config=ModelConfig(layers=2, dim=32, heads=2, kv_heads=1, mlp_hidden=64, bigram_size=64, bigram_dim=8),
    context=64, stride=16, batch=8, naive_targets=1024, targets=2048, ttt_targets=2048,
    ttt={"chunk": 512, "freeze": 0, "epochs": 1}, probes=0, repeats=1,
)  # fmt: skip
SIZES = {"real": REAL, "tiny": TINY, "smoke": SMOKE}


def say(text: str) -> None:
    print(text, flush=True)


def make_model(config: ModelConfig, device: str) -> Golf:
    """A model with no zero matrix: zero-initialised projections would flatter every figure."""
    torch.manual_seed(1)
    model = Golf(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2 and not p.any():
                p.normal_(std=0.02)
    return model.to(device).eval().requires_grad_(False)


def make_stream(targets: int, vocab: int) -> Stream:
    rng = np.random.default_rng(0)
    weights = 1.0 / np.arange(1, vocab + 1)
    tokens = rng.choice(vocab, targets + 1, p=weights / weights.sum()).astype(np.uint16)
    return Stream.of(tokens, vocab=vocab, target_bytes=rng.integers(1, 5, targets).astype(np.uint16), bos=vocab)


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Wall time of ``run`` with the device idle at both ends."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def flops_per_window(c: ModelConfig, context: int, last: int) -> float:
    """Operations that no exact evaluator can avoid for one window of which ``last`` positions are scored.

    All layers but the last for all positions; of the last, keys and values for all, the rest for ``last``;
    attention counts its causal half.
    """
    kv = 2 * c.dim * c.kv_heads * c.head_dim
    rest = 2 * c.dim * c.dim + 2 * c.dim * c.mlp_hidden
    whole = 2.0 * context * (kv + rest) + 4.0 * c.dim * context * (context + 1) / 2
    final = 2.0 * (context * kv + last * rest) + 4.0 * c.dim * last * (context - last / 2)
    tables = context * c.dim * c.bigram_dim * 2.0 if c.bigram_size else 0.0
    values = context * c.value_dim * c.kv_heads * c.head_dim * 2.0 if c.value_layers else 0.0
    return (c.layers - 1) * whole + final + tables + values + 2.0 * last * c.dim * c.vocab


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product: the ceiling of this machine, measured."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    times = [seconds(lambda: [a @ b for _ in range(5)], device) / 5 for _ in range(5)]
    return 2.0 * n**3 / statistics.median(times)


# -- the two yardsticks ----------------------------------------------------------------------------------


def naive(model: Golf, forward: Callable[[torch.Tensor], torch.Tensor], stream: Stream, size: Size) -> tuple[float, int]:
    """Sliding evaluation as contest scripts write it; returns bits per byte and the targets scored."""
    device = next(model.parameters()).device
    tokens = torch.from_numpy(stream.tokens.astype(np.int64))
    table = torch.from_numpy(stream.target_bytes.astype(np.int16)).to(device)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    count = torch.zeros((), dtype=torch.float64, device=device)
    total = len(tokens) - 1
    windows = [w for w in range(0, total, size.stride) if min(w + size.context, total) - w >= size.stride or w == 0]
    scored = 0
    with torch.no_grad():
        for at in range(0, len(windows), 32):
            rows = windows[at : at + 32]
            x = torch.zeros(32, size.context, dtype=torch.int64, device=device)
            y = torch.zeros(32, size.context, dtype=torch.int64, device=device)
            lengths = []
            for i, w in enumerate(rows):
                end = min(w + size.context, total)
                lengths.append(end - w)
                part = tokens[w : end + 1].to(device)
                x[i, : end - w] = part[:-1]
                y[i, : end - w] = part[1:]
            logits = forward(x)
            nll = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), reduction="none").view(32, -1)
            for i, w in enumerate(rows):
                first = 0 if w == 0 else max(lengths[i] - size.stride, 0)
                nats += nll[i, first : lengths[i]].double().sum()
                count += table[w + first : w + lengths[i]].double().sum()
                scored += lengths[i] - first
        return float(nats / LN2 / count), scored


def bare(forward: Callable[[torch.Tensor], torch.Tensor], size: Size, rows: int, device: torch.device) -> float:
    """Targets per second of nothing but the forward pass, ``stride`` targets per window."""
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randint(0, size.config.vocab, (rows, size.context), generator=draw).to(device) for _ in range(3)]
    with torch.no_grad():
        forward(inputs[0])
        rounds = 12 if device.type == "cuda" else 3
        took = [seconds(lambda x=inputs[i % 3]: forward(x), device) for i in range(rounds)]
    return rows * size.stride / statistics.median(took)


# -- the strict evaluator -----------------------------------------------------------------------------------


class Strict:
    """Runs evaluations of one model; a fresh copy of its weights each time, since adaptation changes them."""

    def __init__(self, model: Golf, size: Size, numerics: Numerics) -> None:
        self.model, self.size, self.numerics = model, size, numerics
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.folder = Path(tempfile.mkdtemp())

    def __call__(self, stream: Stream, *, ttt: str = "none", proof: bool = True) -> dict[str, Any]:
        self.model.load_state_dict(self.weights)
        shutil.rmtree(self.folder / "card", ignore_errors=True)
        options = Options(
            context=self.size.context, stride=self.size.stride, ttt=ttt, proof=proof, numerics=self.numerics,
            ttt_set=self.size.ttt if ttt != "none" else {}, probes=self.size.probes, snapshot_seconds=1e9,
        )  # fmt: skip
        identity = {"name": "benchmark", "sha256": "0" * 64, "bytes": 0, "family": "golf"}
        run = Evaluation(self.model, stream, options, identity=identity)
        if self.numerics.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        begun = time.process_time()
        result = run.run(self.folder / "card")
        took = dict(result.seconds)
        took["cpu"] = time.process_time() - begun
        took["work"] = took["score"] + took["adapt"]
        took["loop"] = took["wall"] - took["probe"]
        peak = torch.cuda.max_memory_allocated() if self.numerics.device != "cpu" else 0
        return {"seconds": took, "bpb": result.bits_per_byte, "claims": result.claims, "peak": peak}


def paired(run: Strict, stream: Stream, ttt: str, repeats: int) -> dict[str, Any]:
    """Runs with and without the proof in turns; medians and the ratio of each pair."""
    # Everything compiled, every cache warm: with TTT the shortest run that trains has two chunks.
    least = 2 * (run.size.ttt.get("chunk", 32_768) if ttt != "none" else 32_768)
    warm = run(make_stream(min(least, stream.targets), run.size.config.vocab), ttt=ttt)
    say(f"warm-up {ttt}: {warm['seconds']}")
    on, off = [], []
    for turn in range(repeats):
        order = (True, False) if turn % 2 == 0 else (False, True)
        for proof in order:
            (on if proof else off).append(run(stream, ttt=ttt, proof=proof))
    # On a CPU the proof competes for the same cores as the model, so its cost is processor time, which other
    # jobs on the machine do not disturb; on a GPU it is the time that the run takes longer.
    clock = "loop" if run.numerics.device != "cpu" else "cpu"
    ratios = [a["seconds"][clock] / b["seconds"][clock] for a, b in zip(on, off, strict=True)]
    loop = statistics.median(r["seconds"]["loop"] for r in on)
    return {
        "targets_per_s": stream.targets / loop,
        "targets_per_s_without_proof": stream.targets / statistics.median(r["seconds"]["loop"] for r in off),
        "overhead_clock": "wall" if clock == "loop" else "processor time",
        "overhead_percent": 100 * (statistics.median(ratios) - 1),
        "overhead_percent_each": [100 * (r - 1) for r in ratios],
        "seconds": {k: statistics.median(r["seconds"][k] for r in on) for k in ("score", "adapt", "probe", "wall")},
        "same_result": len({r["bpb"] for r in on + off}) == 1,
        "bits_per_byte": on[0]["bpb"],
        "p1": on[0]["claims"]["P1"]["status"],
        "p2": on[0]["claims"]["P2"]["status"],
        "peak_memory_gib": max(r["peak"] for r in on) / 2**30,
    }  # fmt: skip


# -- attention backends and kernels: which variant of the forward pass is fastest here -----------------------


@contextlib.contextmanager
def variant(model: Golf, name: str) -> Iterator[None]:
    """Forward variants ``<attention>+<mlp>``: flash|cudnn and eager|fused|mega."""
    attention, _, mlp = name.partition("+")
    if torch.cuda.is_available():
        torch.backends.cuda.enable_flash_sdp(attention != "cudnn")
        torch.backends.cuda.enable_cudnn_sdp(attention == "cudnn")
    if mlp != "eager":
        model.use_kernels(mlp=mlp)
    try:
        yield
    finally:
        model.use_kernels()
        if torch.cuda.is_available():
            torch.backends.cuda.enable_flash_sdp(True)
            torch.backends.cuda.enable_cudnn_sdp(True)


def parts(model: Golf, size: Size, rows: int, device: torch.device, names: list[str]) -> dict[str, float]:
    """Milliseconds of the two parts in which variants differ, attention and the MLP's first half, per layer."""
    c = size.config
    draw = torch.Generator(device).manual_seed(0)
    q, k, v = (torch.randn(rows, size.context, h, c.head_dim, generator=draw, device=device).bfloat16()
               for h in (c.heads, c.kv_heads, c.kv_heads))  # fmt: skip
    x = torch.randn(rows, size.context, c.dim, generator=draw, device=device).bfloat16()
    plain = torch.compile(lambda y: leaky_square(F.linear(y, model.blocks[0].mlp.up.weight.to(y.dtype)), c.mlp_slope))
    found: dict[str, float] = {}
    for name in names:
        attention, _, mlp = name.partition("+")
        try:
            with torch.no_grad(), variant(model, name):
                if attention not in found:
                    found[attention] = median_ms(lambda: attend(q, k, v), device)
                if mlp not in found:
                    found[mlp] = median_ms(lambda m=mlp: plain(x) if m == "eager" else model.blocks[0].mlp.hidden(x), device)
        except Exception as error:  # a kernel that this machine cannot build is no reason to stop
            say(f"variant {name}: {type(error).__name__}: {str(error)[:300]}")
    return found


def median_ms(run: Callable[[], Any], device: torch.device) -> float:
    for _ in range(3):
        run()
    return 1000 * statistics.median(seconds(run, device) for _ in range(7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--size", choices=tuple(SIZES), default="real" if cuda else "tiny")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--compile", choices=("yes", "no"), default="yes" if cuda else "no")
    parser.add_argument("--variants", default="cudnn+eager,flash+eager" if cuda else "flash+eager",
                        help="forward variants, e.g. cudnn+fused; the one whose parts time best is used")  # fmt: skip
    parser.add_argument("--batch", type=int, help="windows per forward pass")
    parser.add_argument("--out", help="also write the JSON object to this file")
    args = parser.parse_args()
    begun = time.perf_counter()
    size, device = SIZES[args.size], torch.device(args.device)
    batch = args.batch or size.batch
    compiled = args.compile == "yes"
    precision = "bf16" if device.type == "cuda" else "float32"
    numerics = Numerics(device=args.device, precision=precision, compile=compiled, batch=batch)
    model = numerics.prepare(make_model(size.config, args.device))
    stream, ttt_stream = make_stream(size.targets, size.config.vocab), make_stream(size.ttt_targets, size.config.vocab)
    found: dict[str, Any] = {
        "benchmark": "evaluator", "size": args.size, "parameters": parameters(model), "context": size.context,
        "stride": size.stride, "batch": batch, "compiled": compiled, "precision": precision, "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
    }  # fmt: skip

    def keep(**more: Any) -> None:
        found.update(more)
        for key, value in more.items():
            say(f"[{time.perf_counter() - begun:6.1f} s] {key}: {json.dumps(value)}")
        if args.out:
            Path(args.out).write_text(json.dumps(found, indent=1), encoding="utf-8")

    peak = matmul_peak(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    limit = peak / flops_per_window(size.config, size.context, size.stride) * size.stride
    keep(matmul_tflops=peak / 1e12, gflop_per_target=flops_per_window(size.config, size.context, size.stride) / size.stride / 1e9,
         limit_targets_per_s=limit)  # fmt: skip

    names = args.variants.split(",")
    if device.type == "cuda":
        times = parts(model, size, batch, device, [*names, "cudnn+fused"])
        keep(layer_ms=times)
        # Slower ones stay in the list: what times well by itself may still fail to compile.
        names.sort(key=lambda n: sum(times.get(part, 1e9) for part in n.split("+")))
    torch._dynamo.reset()

    def guarded(what: str, part: Callable[[], None]) -> bool:
        """One part; a failure is told and leaves the others their turn."""
        try:
            part()
        except Exception as error:
            keep(**{f"failed_{what}": f"{type(error).__name__}: {str(error)[:400]}"})
            return False
        return True

    strict = Strict(model, size, numerics)
    naive_stream = make_stream(size.naive_targets, size.config.vocab)

    def scoring(name: str) -> None:
        keep(scoring=paired(strict, stream, "none", size.repeats), variant=name)
        keep(strict_bits_per_byte_of_naive_stream=strict(naive_stream)["bpb"])

    def adapting() -> None:
        keep(with_ttt=paired(strict, ttt_stream, "sgd", size.repeats))

    for name in names:
        with variant(model, name):
            if guarded(f"scoring_{name}", lambda n=name: scoring(n)):
                guarded("with_ttt", adapting)
                break
        torch._dynamo.reset()
    model.load_state_dict(strict.weights)
    model.requires_grad_(False)
    full = torch.compile(model.forward_logits, dynamic=False) if compiled else model.forward_logits

    def yardsticks() -> None:
        keep(bare_forward_targets_per_s=bare(full, size, 32, device),
             bare_eager_targets_per_s=bare(model.forward_logits, size, 32, device))  # fmt: skip
        outcome: list[tuple[float, int]] = []
        naive(model, full, make_stream(32 * size.stride, size.config.vocab), size)
        took = seconds(lambda: outcome.append(naive(model, full, naive_stream, size)), device)
        keep(naive_targets_per_s=outcome[0][1] / took, naive_bits_per_byte=outcome[0][0])

    guarded("yardsticks", yardsticks)
    keep(**headline(found), wall_s=round(time.perf_counter() - begun, 1))
    shutil.rmtree(strict.folder, ignore_errors=True)
    print(json.dumps(found))


def headline(found: dict[str, Any]) -> dict[str, Any]:
    """The figures that are asked for, from the parts that ran."""
    made: dict[str, Any] = {}
    if (scored := found.get("scoring")) is not None:
        speed = scored["targets_per_s"]
        made = {"targets_per_s": speed, "overhead_percent": scored["overhead_percent"],
                "fraction_of_limit": speed / found["limit_targets_per_s"], "peak_memory_gib": scored["peak_memory_gib"]}  # fmt: skip
        for other in ("naive", "bare_forward"):
            if (theirs := found.get(f"{other}_targets_per_s")) is not None:
                made[f"ratio_to_{other}"] = speed / theirs
    if (adapted := found.get("with_ttt")) is not None:
        made |= {"ttt_targets_per_s": adapted["targets_per_s"], "ttt_overhead_percent": adapted["overhead_percent"],
                 "peak_memory_gib": max(adapted["peak_memory_gib"], made.get("peak_memory_gib", 0.0))}  # fmt: skip
    return made


if __name__ == "__main__":
    sys.exit(main())
