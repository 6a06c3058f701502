"""Tokens per second of the training loader on one thread, against the loop that one would write first.

    python benchmarks/loader.py [--data DIR] [--batches 40]

Without --data it writes four shards of 20 million random tokens to a temporary folder. The naive loop reads
the same windows one by one out of the memory map and widens each to int64 before stacking, as a plain
``Dataset`` does. Both run on one thread over files that are in the page cache. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from harness.tokens.shards import ShardSet, write_shard
from reference_model.config import DataConfig
from reference_model.data import Loader, Sampler
from reference_model.schedule import shard_alpha

#: Tokens per second that the fastest recipe trains on one H200 (docs/recipes.md); the loader should give tenfold.
CONSUMED = 1.2e6


def sampler(shards: ShardSet, context: int, batch: int) -> Sampler:
    data = DataConfig(context=context, batch_tokens=batch)
    return Sampler(
        [len(a) for a in shards.arrays],
        context,
        batch // context,
        1337,
        lambda i: shard_alpha(data, i / 1000),
    )


def naive(shards: ShardSet, source: Sampler) -> torch.Tensor:
    rows = []
    for shard, first in source.batch().tolist():
        window = shards.arrays[shard][first : first + source.context + 1]
        rows.append(torch.from_numpy(np.asarray(window).astype(np.int64)))
    return torch.stack(rows)


def rate(step: object, batches: int, tokens: int) -> float:
    """Median over batches of tokens per second."""
    times = []
    for _ in range(batches):
        start = time.perf_counter()
        step()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return tokens / float(np.median(times))


def measure(folder: Path, context: int, batch: int, batches: int) -> dict[str, float]:
    """Each contender maps the shards anew, so that all of them pay for touching pages the first time."""
    shards = ShardSet.open(folder, "train")
    plain = sampler(shards, context, batch)
    found = {"naive": rate(lambda: naive(shards, plain), batches, batch)}
    shards = ShardSet.open(folder, "train")
    loader = Loader(shards.arrays, sampler(shards, context, batch), ahead=0)
    found["loader"] = rate(loader.build, batches, batch)
    shards = ShardSet.open(folder, "train")
    threaded = Loader(shards.arrays, sampler(shards, context, batch), ahead=2)
    stream = iter(threaded)
    next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    found["loader_thread"] = batches * batch / (time.perf_counter() - start)
    threaded.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--batches", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.data
        if folder is None:
            folder = Path(temporary)
            source = np.random.default_rng(0)
            for i in range(4):
                write_shard(
                    folder / f"fineweb_train_{i:06d}.bin",
                    source.integers(0, 1024, 20_000_000, dtype=np.uint16),
                )
        cases = {f"context {c}": measure(folder, c, 786_432, arguments.batches) for c in (1024, 2048)}
    for name, found in cases.items():
        print(f"{name}: naive {found['naive'] / 1e6:.1f} M tokens/s, loader {found['loader'] / 1e6:.1f} M, "
              f"behind its thread {found['loader_thread'] / 1e6:.1f} M")  # fmt: skip
    slowest = min(found["loader"] for found in cases.values())
    ratio = min(found["loader"] / found["naive"] for found in cases.values())
    print(json.dumps({"benchmark": "loader", "tokens_per_s": cases, "over_naive": ratio,
                      "consumed_tokens_per_s": CONSUMED, "over_consumed": slowest / CONSUMED}))  # fmt: skip


if __name__ == "__main__":
    main()
