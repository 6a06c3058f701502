"""Trains several recipes on the same data, batch and wall clock, and measures them on the same texts.

    python benchmarks/recipes.py --data DIR --out DIR [--seconds 120 | --steps 200] \
        [--text NAME=SHARD …] RECIPE[:key=value,key=value] …

Each recipe is a process of its own; with several GPUs they run side by side, one GPU each. ``--seconds``
compares at equal wall clock with every schedule as the recipe states it; ``--steps`` stops at a step and
leaves the schedules alone. ``--batch`` gives all of them the same tokens per step.

Shards may be stored as ``*.bin.xz``; they are unpacked into --out first. Every text is measured in bits
per byte with non-overlapping contexts, twice: for the last weights and for the exported average.

Prints a line per recipe as it ends, then a Markdown table and, on the last line, one JSON object. OUT/results.json and
OUT/table.md are written anew after every recipe; recipes that were not started or failed are in both, with
the reason. Curves are in OUT/<run>/train.jsonl.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def unpacked(source: Path, target: Path) -> Path:
    """A folder with the shards as plain files: ``source`` itself where nothing is compressed."""
    packed = sorted(source.glob("*.xz"))
    if not packed:
        return source
    target.mkdir(parents=True, exist_ok=True)

    def one(path: Path) -> None:
        with lzma.open(path) as reader, (target / path.name.removesuffix(".xz")).open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 24)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, packed))
    for path in source.iterdir():
        if path.suffix != ".xz":
            shutil.copy(path, target / path.name)
    return target


def seconds_per_step(rows: list[dict[str, Any]], whole: float, steps: int) -> float:
    """Training-clock seconds per step in the steady state: between the first report after step 5 and the last one.

    ``rows`` are the loss reports of a run. A run too short for two such reports is measured from its first report,
    and one with a single report by its whole time. Never zero.
    """
    for after in (5, 0):
        spans = [row for row in rows if row["step"] > after]
        if len(spans) > 1 and spans[-1]["elapsed_s"] > spans[0]["elapsed_s"]:
            return (spans[-1]["elapsed_s"] - spans[0]["elapsed_s"]) / (spans[-1]["step"] - spans[0]["step"])
    return max(whole, 1e-9) / max(1, steps)


def worker(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains one recipe in this process and measures it."""
    import torch

    from harness.tokens.bytes import ByteTable
    from harness.tokens.folder import find_tokenizer
    from harness.tokens.shards import read_shard
    from harness.tokens.tokenizer import load_tokenizer
    from reference_model import config
    from reference_model.model.count import parameters
    from reference_model.train import ranks
    from reference_model.train.logs import Logs
    from reference_model.train.loop import Trainer
    from reference_model.train.validate import Validation

    name, _, changes = arguments.worker.partition(":")
    settings = [
        f"validate_every={arguments.every}",
        f"validate_tokens={arguments.curve_tokens}",
        "log_every=5",
    ]
    if arguments.steps:
        settings += ["schedule.seconds=0", f"stop_after={arguments.steps}"]
    else:
        settings.append(f"schedule.seconds={arguments.seconds}")
    if arguments.batch:
        settings.append(f"batch_tokens={arguments.batch}")
    settings += [part for part in changes.split(",") if part]
    recipe = config.load(name)
    if arguments.shrink:
        recipe = config.shrink(recipe)
    recipe = config.change(recipe, settings)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "resume.pt").unlink(missing_ok=True)
    texts = dict(pair.split("=", 1) for pair in arguments.text)
    table = ByteTable.from_tokenizer(load_tokenizer(find_tokenizer(arguments.data)), recipe.model.vocab)

    def measured(trainer: Trainer) -> dict[str, float]:
        found = {}
        with torch.compiler.set_stance("force_eager"):
            for label, path in texts.items():
                tokens = read_shard(path, recipe.model.vocab)[: arguments.text_tokens]
                whole = Validation.of(tokens, table, recipe.data.context, len(tokens))
                found[label] = whole.measure(trainer.model)[1]
        return found

    begun = time.perf_counter()
    with Logs(out, quiet=True) as logs:
        trainer = Trainer(recipe, Path(arguments.data), out, ranks.start(), logs)
        raw: dict[str, float] = {}
        export = trainer.export

        def export_after_measuring() -> Path:
            raw.update(measured(trainer))
            return export()

        trainer.export = export_after_measuring  # type: ignore[method-assign]
        outcome = trainer.run()
        exported = measured(trainer)
    (out / "checkpoint.pt").unlink()
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    losses = [row for row in rows if "loss" in row]
    pace = seconds_per_step(losses, outcome.seconds, outcome.steps)
    return {
        "recipe": arguments.worker, "parameters": parameters(trainer.model), "steps": outcome.steps,
        "train_s": outcome.seconds, "ms_per_step": 1e3 * pace, "tokens_per_s": recipe.data.batch_tokens / pace,
        "mfu": losses[-1]["mfu"], "memory_mib": losses[-1]["memory_mib"], "first_loss": losses[0]["loss"],
        "last_loss": losses[-1]["loss"],
        "loss_at_200": next((r["loss"] for r in losses if r["step"] == 200), None), "finite": all(row["loss"] == row["loss"] for row in losses),
        "batch_tokens": recipe.data.batch_tokens, "raw_bpb": raw, "bpb": exported,
        "curve": [[row["step"], round(row["elapsed_s"], 2), row["bpb"]] for row in rows if row.get("event") == "validation"],
        "whole_s": time.perf_counter() - begun,
    }  # fmt: skip


def devices() -> list[str]:
    """GPU numbers, or one empty string for a CPU."""
    import torch

    return [str(i) for i in range(torch.cuda.device_count())] or [""]


def launch(job: str, device: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    name = job.replace(":", "_").replace(",", "_").replace("=", "")
    command = [sys.executable, __file__, "--worker", job, "--data", str(folder), "--out", str(arguments.out / name),
               "--seconds", str(arguments.seconds), "--steps", str(arguments.steps), "--batch", str(arguments.batch),
               "--every", str(arguments.every), "--curve-tokens", str(arguments.curve_tokens),
               "--text-tokens", str(arguments.text_tokens), *(["--shrink"] if arguments.shrink else []),
               *(part for pair in arguments.text for part in ("--text", pair))]  # fmt: skip
    visible = {"CUDA_VISIBLE_DEVICES": device} if device else {}
    done = subprocess.run(command, env=os.environ | visible, capture_output=True, text=True)
    if done.returncode:
        (arguments.out / f"{name}.err").write_text(done.stderr)
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"recipe": job, "error": reason[0][:300]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=1))
    return result


def run_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    folder = unpacked(arguments.data, arguments.out / "data")
    arguments.text = [
        f"{label}={folder / path if not Path(path).is_file() else path}"
        for label, path in (pair.split("=", 1) for pair in arguments.text)
    ]
    free = devices()
    began = time.perf_counter()
    results: dict[str, dict[str, Any]] = {
        job: {"recipe": job, "error": "not started"} for job in arguments.jobs
    }
    writing = threading.Lock()

    def turn(job: str) -> None:
        device = free.pop(0)
        try:
            if arguments.budget and time.perf_counter() - began > arguments.budget:
                found = {"recipe": job, "error": "not started: out of time"}
            else:
                with writing:
                    results[job]["error"] = "started, not finished"
                    save(arguments, list(results.values()))
                found = launch(job, device, folder, arguments)
        finally:
            free.append(device)
        print(row(found), flush=True)
        with writing:
            results[job] = found
            save(arguments, list(results.values()))

    save(arguments, list(results.values()))
    with ThreadPoolExecutor(len(free)) as pool:
        list(pool.map(turn, arguments.jobs))
    shutil.rmtree(arguments.out / "data", ignore_errors=True)
    return list(results.values())


def report(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON object that the last line prints."""
    return {
        "benchmark": "recipes", "seconds": arguments.seconds, "steps": arguments.steps,
        "not_started": [r["recipe"] for r in results if r.get("error", "").startswith("not started")],
        "failed": [r["recipe"] for r in results if not r.get("error", "not started").startswith("not started")],
        "results": results,
    }  # fmt: skip


def save(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    for name, text in (
        ("results.json", json.dumps(report(arguments, results), indent=1)),
        ("table.md", table(results)),
    ):
        partial = arguments.out / f"{name}.partial"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(arguments.out / name)


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table: bits per byte of the last weights / of the exported average, per text."""
    texts = next((list(r["bpb"]) for r in results if "bpb" in r), [])
    heads = [
        "recipe",
        "parameters",
        "steps",
        "ms per step",
        "tokens/s",
        "MFU",
        "memory",
        "loss",
        "loss at 200",
        *texts,
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for result in results:
        cells = [f"`{result['recipe']}`"]
        if "error" in result:
            cells += [result["error"].replace("|", "/")] + [""] * (len(heads) - 2)
        else:
            at_200 = result["loss_at_200"]
            cells += [
                f"{result['parameters']:,}", f"{result['steps']:,}", f"{result['ms_per_step']:,.1f}",
                f"{result['tokens_per_s']:,.0f}", f"{result['mfu']:.3f}" if result["mfu"] else "",
                f"{result['memory_mib'] / 1024:.1f} GiB" if result["memory_mib"] else "",
                f"{result['first_loss']:.3f} → {result['last_loss']:.3f}", f"{at_200:.3f}" if at_200 else "",
                *(f"{result['raw_bpb'][t]:.4f} / {result['bpb'][t]:.4f}" for t in texts),
            ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def row(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{result['recipe']:<28} {result['error']}"
    bpb = "  ".join(f"{k} {result['raw_bpb'][k]:.4f} / {v:.4f}" for k, v in result["bpb"].items())
    memory = f"{result['memory_mib']:>7,} MiB" if result["memory_mib"] else ""
    return (
        f"{result['recipe']:<28} {result['parameters']:>11,}  {result['steps']:>5} steps {result['ms_per_step']:>8.1f} ms "
        f"{result['tokens_per_s']:>11,.0f} tok/s {memory} loss {result['first_loss']:.3f} -> {result['last_loss']:.3f}  {bpb}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", metavar="RECIPE[:k=v,…]")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument(
        "--text", action="append", default=[], metavar="NAME=SHARD", help="measure on this shard"
    )
    parser.add_argument("--text-tokens", type=int, default=10**9, help="tokens of each text (default all)")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--steps", type=int, default=0, help="stop here instead, schedules unchanged")
    parser.add_argument(
        "--batch", type=int, default=0, help="tokens per step for all (default: the recipe's)"
    )
    parser.add_argument("--every", type=int, default=20, help="steps between points of the curve")
    parser.add_argument("--curve-tokens", type=int, default=262_144)
    parser.add_argument("--budget", type=float, default=0.0, help="start nothing after so many seconds")
    parser.add_argument("--shrink", action="store_true", help="recipes at a size for a CPU")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments)))
        return
    if not arguments.jobs:
        parser.error("name at least one recipe")
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = run_all(arguments)
    print(table(results))
    print(json.dumps(report(arguments, results)))


if __name__ == "__main__":
    main()
