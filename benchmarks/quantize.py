"""Quantization measured on trained weights: bytes against entropy, loss per method, the frontier, times.

    python benchmarks/quantize.py --checkpoint run/checkpoint.pt --data DIR [--val FILE]
    python benchmarks/quantize.py --train pr726 --seconds 90 --data DIR [--val FILE]

``--data`` holds train shards (calibration) and, unless ``--val`` names a file, val shards (measuring only).
Everything is measured side by side on the same weights, the submissions' methods included. Progress goes to
stderr; the last line of stdout is one JSON object. ``--out`` holds the same object and is written anew after every method,
so that a run that is cut short leaves what it had. A method that fails is listed under ``failed``; the others go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from audit.contracts import InputError
from harness.artifact.codecs import ENCODERS
from harness.artifact.container import read_artifact, to_bytes
from harness.artifact.decoder import decoder_bytes
from harness.artifact.grids import Record
from harness.artifact.inspection import order0_bits
from harness.artifact.rowcoder import encode_plane
from harness.tokens.bytes import ByteTable
from harness.tokens.folder import find_tokenizer
from harness.tokens.shards import ShardSet
from harness.tokens.tokenizer import load_tokenizer
from reference_model import config as recipes
from reference_model.families import build
from reference_model.model import Golf
from reference_model.quantize.calibration import HeldOut, SelfGenerated, TrainTokens, UniformRandom
from reference_model.quantize.checkpoint import Checkpoint, load_checkpoint
from reference_model.quantize.compensate import GptqOptions
from reference_model.quantize.export import export_gptq, export_rtn, matrices
from reference_model.quantize.frontier import Point, bytes_at, dense, dominating, on, rate_records
from reference_model.quantize.hessian import Hessians, collect, from_state
from reference_model.quantize.methods import SUBMISSIONS, Method, apply
from reference_model.quantize.policy import Policy
from reference_model.train.validate import Validation

STARTED = time.perf_counter()


def say(text: str) -> None:
    print(f"[{time.perf_counter() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


def train(args: argparse.Namespace, folder: Path) -> Path:
    """Trains the recipe's shape for some seconds with a small batch; without compilation where that fails."""
    changes = [
        f"data.batch_tokens={args.batch_tokens}", f"data.micro_tokens={args.batch_tokens}",
        "schedule.warmdown_fraction=0.5", "schedule.warmup=10", "optim.momentum_warmup=200", "average.ema=0.98",
        "run.validate_tokens=0", "run.log_every=50", *args.set,
    ]  # fmt: skip
    for compile_ in (args.compile, "off"):
        command = [sys.executable, "-m", "reference_model", "train", args.train, "--data", str(args.data)]
        command += ["--out", str(folder), "--seconds", str(args.seconds), "--quiet", "--fresh"]
        for change in (*changes, f"run.compile={compile_}"):
            command += ["--set", change]
        say(f"training {args.train} for {args.seconds} s (compile {compile_})")
        root = Path(__file__).resolve().parent.parent
        environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        if subprocess.run(command, env=environment, check=False).returncode == 0:
            return folder / "checkpoint.pt"
    sys.exit("training failed")


class Bench:
    """One checkpoint on one device, its calibration Hessians and its yardstick."""

    def __init__(self, checkpoint: Checkpoint, args: argparse.Namespace) -> None:
        self.args, self.checkpoint = args, checkpoint
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.state = on(self.device, checkpoint.state)
        self.parameters = sum(t.numel() for t in self.state.values())
        tokenizer = load_tokenizer(args.tokenizer or find_tokenizer(args.data))
        vocab = checkpoint.config["vocab"]
        stream = ShardSet.open(args.val or args.data, "val", vocab_size=vocab)
        head = stream.slice(0, min(stream.total, args.targets + 1))
        table = ByteTable.from_tokenizer(tokenizer, vocab)
        self.yardstick = Validation.of(head, table, args.context, args.targets)
        self.model = build(checkpoint.config, {n: t.numpy() for n, t in checkpoint.state.items()})
        self.model.to(self.device)
        self.train_tokens = TrainTokens(ShardSet.open(args.data, "train", vocab_size=vocab))
        self._hessians: dict[str, Hessians] = {}
        self.exact = self.measure({n: t.cpu().numpy() for n, t in self.state.items()})

    def measure(self, arrays: Mapping[str, np.ndarray]) -> float:
        """Bits per byte of these weights, float32 (TF32 products on GPUs)."""
        own = self.model.state_dict()
        for name, array in arrays.items():
            own[name].copy_(torch.from_numpy(np.array(array)))
        return self.yardstick.measure(self.model, batch_tokens=32_768)[1]

    def restore(self) -> None:
        self.model.load_state_dict(self.state)

    def held_out(self) -> HeldOut:
        args = self.args
        return HeldOut(
            train=self.train_tokens, sequences=args.sequences, length=args.context, batch=args.batch
        )

    def hessians_of(self, kind: str) -> Hessians:
        """Hessians by calibration text. ``online``: of the training run where it kept them, else held-out tokens."""
        kind = "train" if kind == "online" and "hessians" not in self.checkpoint.extra else kind
        if kind not in self._hessians:
            self.restore()
            args, vocab = self.args, self.checkpoint.config["vocab"]
            random = UniformRandom(
                vocab=vocab, sequences=args.sequences, length=args.context, batch=args.batch
            )
            written = SelfGenerated(
                model=self.model, sequences=args.self_sequences, length=args.self_length, batch=args.self_sequences,
                window=args.self_length,
            )  # fmt: skip
            say(f"calibrating on {kind}")
            if kind == "online":
                self._hessians[kind] = from_state(self.checkpoint.extra["hessians"])
            elif kind == "fisher":
                self._hessians[kind] = collect(self.model, self.held_out(), fisher=True)
            else:
                source = {"random": random, "self": written, "train": self.held_out()}[kind]
                self._hessians[kind] = collect(self.model, source)
        return self._hessians[kind]

    def forget(self, *kinds: str) -> None:
        """Frees Hessians that no later method needs."""
        for kind in kinds:
            self._hessians.pop(kind, None)

    def time_gptq(self) -> dict[str, Any]:
        """Seconds of the whole of GPTQ, from given calibration sequences to codes, twice (cold and warm)."""
        self.restore()
        if self.device.type == "cuda":
            self.model.compute_dtype = torch.bfloat16
        source = self.held_out()
        seconds = []
        for _ in range(2):
            self._synchronize()
            started = time.perf_counter()
            found = collect(self.model, source)
            self._synchronize()
            middle = time.perf_counter()
            _, log = export_gptq(self.state, Policy(), found, "grid", GptqOptions(block=64))
            self._synchronize()
            seconds.append([round(middle - started, 3), round(time.perf_counter() - middle, 3)])
        self.model.compute_dtype = torch.float32
        return {
            "sequences": source.sequences, "length": source.length, "layers": len(log),
            "cold_s": round(sum(seconds[0]), 3), "warm_s": round(sum(seconds[1]), 3), "hessian_solve_s": seconds,
            "escalated": [entry.name for entry in log if entry.escalations],
            "worst_error_ratio": max(entry.error / max(entry.plain_error, 1e-30) for entry in log),
        }  # fmt: skip

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def time_demo() -> dict[str, Any]:
    """Seconds of GPTQ on the demo's shape, 256 sequences, two CPU threads; the weights do not matter for time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    recipe = recipes.load("demo")
    model = Golf(recipe.model)
    state = {name: tensor + 0.02 * torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    source = UniformRandom(vocab=recipe.model.vocab, sequences=256, length=recipe.data.context, batch=32)
    started, spent = time.perf_counter(), time.process_time()
    found = collect(model, source)
    middle = time.perf_counter()
    _, log = export_gptq(state, Policy(), found, "grid", GptqOptions(block=64))
    ended = time.perf_counter()
    torch.set_num_threads(threads)
    return {
        "parameters": sum(t.numel() for t in state.values()), "layers": len(log), "seconds": round(ended - started, 2),
        "hessian_s": round(middle - started, 2), "solve_s": round(ended - middle, 2),
        "cpu_seconds": round(time.process_time() - spent, 2), "threads": 2,
    }  # fmt: skip


def general_bytes(values: np.ndarray) -> dict[str, int]:
    """Bytes of each general compressor on one matrix of codes, the better of row and column order."""
    orders = (values.tobytes(), np.ascontiguousarray(values.T).tobytes())
    return {name: min(len(ENCODERS[name](data)) for data in orders) for name in ("zstd", "lzma", "brotli")}


def row_bytes(record: Record) -> int:
    return len(encode_plane([record]))


def compare_codecs(records: Sequence[Record], pool: ProcessPoolExecutor) -> Callable[[], dict[str, Any]]:
    """Starts the comparison on every tensor over 64 KB; the result is a function that waits for it."""
    large = [r for r in records if r.quantized and r.size > 65_536]
    general = [pool.submit(general_bytes, r.values) for r in large]
    ours = [pool.submit(row_bytes, r) for r in large]
    whole = pool.submit(encode_plane, large)

    def result() -> dict[str, Any]:
        rows = []
        for record, theirs, mine in zip(large, general, ours, strict=True):
            best = min(theirs.result().values())
            rows.append((record.name, mine.result(), best, order0_bits(record) / 8, theirs.result()))
        total = len(whole.result())
        best_total = {name: sum(row[4][name] for row in rows) for name in rows[0][4]}
        return {
            "tensors": len(rows), "tensors_smaller": sum(row[1] < row[2] for row in rows),
            "not_smaller": [row[0] for row in rows if row[1] >= row[2]],
            "ours_bytes": total, "ours_separately_bytes": sum(row[1] for row in rows),
            "best_general_bytes": sum(row[2] for row in rows), "general_bytes": best_total,
            "order0_bytes": round(sum(row[3] for row in rows)),
            "gain_over_best_general": 1 - total / sum(row[2] for row in rows),
            "below_order0": 1 - total / sum(row[3] for row in rows),
        }  # fmt: skip

    return result


def file_size(records: Sequence[Record], compressor: str) -> int:
    return len(to_bytes(family="golf", config={}, tensors=records, compressor=compressor)[0])


@dataclass(slots=True, kw_only=True)
class Waiting:
    """A point whose loss is known and whose bytes are still being counted; the least of ``sizes`` is taken."""

    name: str
    kind: str
    bits_per_byte: float
    loss: float
    sizes: list[Future[int]]
    note: str = ""
    step: float = 0.0

    def point(self) -> Point | None:
        """The finished point, None while a compressor is at work."""
        if not all(size.done() and size.exception() is None for size in self.sizes):
            return None
        return Point(
            name=self.name, kind=self.kind, bytes=min(size.result() for size in self.sizes),
            bits_per_byte=self.bits_per_byte, loss=self.loss, note=self.note, step=self.step,
        )  # fmt: skip


class Ledger:
    """All that is known so far, written to ``path`` after every stage: an end at any time loses one stage at most."""

    def __init__(self, path: Path | None, pool: ProcessPoolExecutor) -> None:
        self.path, self.pool = path, pool
        self.facts: dict[str, Any] = {"benchmark": "quantize"}
        self.waiting: list[Waiting] = []
        self.stages: dict[str, dict[str, Any]] = {}

    @property
    def failed(self) -> dict[str, str]:
        return {name: stage["error"] for name, stage in self.stages.items() if "error" in stage}

    def attempt(self, name: str, stage: Callable[[], None]) -> None:
        """Runs one stage; its failure (out of memory, say) is recorded and the others go on."""
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        entry: dict[str, Any] = {}
        try:
            stage()
        except (RuntimeError, InputError, ValueError) as error:
            entry["error"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
            say(f"{name} failed: {entry['error']}")
        entry["seconds"] = round(time.perf_counter() - started, 2)
        if gpu:
            entry["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        self.stages[name] = entry
        # What the stage left in cycles goes before the next one starts.
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()
        self.save()

    def measure(
        self,
        bench: Bench,
        name: str,
        kind: str,
        records: Sequence[Record],
        compressor: str = "rows",
        **more: Any,
    ) -> None:
        """Starts counting bytes, then measures the loss."""
        orders = [list(records)]
        if compressor != "rows":
            orders.append([dataclasses.replace(r, by_column=r.quantized) for r in records])
        sizes = [self.pool.submit(file_size, order, compressor) for order in orders]
        found = bench.measure(dense(records))
        loss = found - bench.exact
        say(f"{name}: {loss:+.5f} bits per byte")
        self.waiting.append(
            Waiting(name=name, kind=kind, bits_per_byte=found, loss=loss, sizes=sizes, **more)
        )

    def points(self) -> list[Point]:
        return [point for entry in self.waiting if (point := entry.point())]

    def as_dict(self) -> dict[str, Any]:
        done = self.points()
        names = {point.name for point in done}
        open_ = [
            {"name": w.name, "kind": w.kind, "loss": w.loss, "bits_per_byte": w.bits_per_byte}
            for w in self.waiting
            if w.name not in names
        ]
        return {
            **self.facts, "points": [point.as_dict() for point in done], "bytes_unknown": open_, **verdicts(done),
            "stages": self.stages, "failed": self.failed, "seconds": round(time.perf_counter() - STARTED, 1),
        }  # fmt: skip

    def save(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(self.path.name + ".partial")
        unfinished.write_text(json.dumps(self.as_dict()) + "\n", encoding="utf-8")
        unfinished.replace(self.path)


def decode_seconds(records: Sequence[Record]) -> dict[str, Any]:
    """Seconds to read, decompress and dequantize the finest artifact, in one process on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.art"
        path.write_bytes(to_bytes(family="golf", config={}, tensors=records, compressor="rows")[0])
        started, spent = time.perf_counter(), time.process_time()
        arrays = read_artifact(path).arrays()
        return {
            "bytes": path.stat().st_size, "seconds": round(time.perf_counter() - started, 3),
            "cpu_seconds": round(time.process_time() - spent, 3), "tensors": len(arrays),
        }  # fmt: skip


def split_weights(state: Mapping[str, torch.Tensor], folder: Path, parts: int) -> None:
    """Saves the weights in half precision, spread over several files of about equal size."""
    flat = sorted(state.items(), key=lambda item: -item[1].numel())
    for part in range(parts):
        torch.save({n: t.half().cpu() for n, t in flat[part::parts]}, folder / f"weights_{part}.pt")


def run(args: argparse.Namespace, pool: ProcessPoolExecutor) -> Ledger:
    path = args.checkpoint or train(args, Path(tempfile.mkdtemp()))
    checkpoint = load_checkpoint(path)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        split_weights(checkpoint.state, args.keep, 5)
    torch.set_float32_matmul_precision("high")
    bench = Bench(checkpoint, args)
    say(f"{bench.parameters:,} parameters, {bench.exact:.4f} bits per byte unquantized")
    state = bench.state
    ledger = Ledger(args.out, pool)
    ledger.facts |= {
        "recipe": args.train or "", "checkpoint": str(args.checkpoint or ""),
        "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu",
        "parameters": bench.parameters, "train_seconds": args.seconds if args.train else None,
        "step": checkpoint.extra.get("step"), "targets": bench.yardstick.targets.size, "exact_bpb": bench.exact,
        "decoder_code_bytes": decoder_bytes(), "quantized_parameters": sum(m.numel() for m in matrices(state).values()),
    }  # fmt: skip
    ledger.save()
    compare: dict[str, Callable[[], dict[str, Any]]] = {}

    def timing() -> None:
        ledger.facts["gptq"] = found = bench.time_gptq()
        say(f"GPTQ in {found['cold_s']} s cold, {found['warm_s']} s warm")

    def submission(method: Method) -> None:
        records, _ = apply(method, state, bench.hessians_of)
        ledger.measure(bench, method.name, "submission", records, method.compressor, note=method.source)
        if method.name in ("pr1171", "pr1072"):
            compare[f"int{method.bits} {method.name}"] = compare_codecs(records, pool)

    def rtn6() -> None:
        records = export_rtn(state, Policy(bits=6), args.rtn_clip)
        ledger.measure(bench, "rtn6", "other", records, note=f"clip {args.rtn_clip}, rows")

    def gptq6() -> None:
        records, _ = export_gptq(state, Policy(bits=6), bench.hessians_of("train"), "wide")
        ledger.measure(bench, "gptq6", "other", records, note="train tokens, clip wide, rows")

    def rate(step: float, kind: str, clip: int = 0) -> None:
        limit = {"clip": clip} if clip else {}
        records = rate_records(state, bench.hessians_of("fisher"), step, **limit)
        ledger.measure(bench, f"{kind} {step:.3g}", kind, records, step=step)
        finest.setdefault(kind, records)

    def tables6() -> None:
        records, _ = export_gptq(state, Policy(bits=6), bench.hessians_of("fisher"), "wide", tables=True)
        ledger.measure(bench, "gptq6 tables", "rate6", records, note="embeddings by GPTQ too")

    def ablation(label: str, changes: dict[str, Any]) -> None:
        records = rate_records(state, bench.hessians_of("fisher"), args.ablate, **changes)
        ledger.measure(bench, label, "ablation", records, note=str(changes))

    finest: dict[str, list[Record]] = {}
    ledger.attempt("gptq timing", timing)
    for method in SUBMISSIONS:
        ledger.attempt(method.name, partial(submission, method))
    bench.forget("random", "self", "online")
    ledger.attempt("rtn6", rtn6)
    ledger.attempt("gptq6", gptq6)
    bench.forget("train")
    for step in args.steps:
        ledger.attempt(f"rate {step:.3g}", partial(rate, step, "rate"))
    for step in args.steps6:
        ledger.attempt(f"rate6 {step:.3g}", partial(rate, step, "rate6", 31))
    ledger.attempt("gptq6 tables", tables6)
    for label, changes in ABLATIONS.items() if args.ablate else ():
        ledger.attempt(f"ablation: {label}", partial(ablation, label, changes))
    bench.forget("fisher")

    say("waiting for the compressors")
    for _ in as_completed([size for entry in ledger.waiting for size in entry.sizes]):
        ledger.save()
    ledger.facts["codecs"] = codecs = {}
    for name, result in compare.items():
        ledger.attempt(f"codecs: {name}", lambda name=name, result=result: codecs.update({name: result()}))  # type: ignore[misc]
    if "rate" in finest:
        ledger.attempt("decode", lambda: ledger.facts.update(decode=decode_seconds(finest["rate"])))
    ledger.attempt("demo", lambda: ledger.facts.update(demo_cpu=time_demo()))
    return ledger


ABLATIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "no lagrangian": {"lagrangian": 0.0},
    "no column steps": {"column_steps": False},
    "no refine": {"refine": 0},
    "equal rows": {"fisher_floor": 1e9},
    "damping 0.01": {"damping": 0.01},
    "damping 1e-4": {"damping": 1e-4},
    "fisher floor 0.01": {"fisher_floor": 0.01},
    "fisher floor 0.3": {"fisher_floor": 0.3},
}


def verdicts(points: Sequence[Point]) -> dict[str, Any]:
    """The comparisons asked for: against each submission at equal bits per byte, and INT6 against plain rounding."""
    curve = [p for p in points if p.kind == "rate"]
    against = {}
    for p in points:
        if p.kind == "submission":
            ours = bytes_at(curve, p.bits_per_byte)
            against[p.name] = {
                "bytes": p.bytes, "loss": p.loss, "ours_at_equal_loss": ours,
                "fewer_bytes": None if ours is None else 1 - ours / p.bytes, "dominated": bool(dominating(curve, p)),
            }  # fmt: skip
    rtn = next((p for p in points if p.name == "rtn6"), None)
    if rtn is None:
        return {"against": against, "int6": None}
    six = [p for p in points if p.kind == "rate6" and p.bytes <= rtn.bytes]
    best = min(six, key=lambda p: p.loss, default=None)
    return {
        "against": against,
        "int6": {
            "rtn_bytes": rtn.bytes, "rtn_loss": rtn.loss, "ours_bytes": best and best.bytes,
            "ours_loss": best and best.loss, "ratio": best and best.loss / rtn.loss,
        },
    }  # fmt: skip


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--checkpoint", type=Path)
    given.add_argument("--train", metavar="RECIPE", choices=recipes.names())
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val", type=Path, help="a file of validation tokens, for measuring alone")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--batch-tokens", type=int, default=131_072)
    parser.add_argument("--compile", default="block")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--targets", type=int, default=1_000_000)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--self-sequences", type=int, default=16)
    parser.add_argument("--self-length", type=int, default=256)
    parser.add_argument("--rtn-clip", default="exact")
    parser.add_argument("--steps", type=numbers, default=[2.0 ** (-16 + i / 2) for i in range(11)])
    parser.add_argument("--steps6", type=numbers, default=[2.0 ** (-18 + i) for i in range(4)])
    parser.add_argument(
        "--ablate", type=float, metavar="STEP", help="also measure the parts' worth at this step"
    )
    parser.add_argument("--workers", type=int, default=min(12, max(1, (os.cpu_count() or 2) - 2)))
    parser.add_argument("--keep", type=Path, metavar="DIR", help="save the weights there in half precision")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        ledger = run(args, pool)
    ledger.save()
    print(json.dumps(ledger.as_dict()))
    if ledger.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
