"""How fast a scorecard of the contest's full validation split is verified, and in how much memory.

    python benchmarks/verifier.py                       # 62,021,632 targets: about 500 MB of scratch space
    python benchmarks/verifier.py --targets 1000000     # small

The scorecard holds invented scores (see harness/scorecard/forge.py): the verifier's work is the same. It runs as
`referee verify` does, in a process of its own, once on the files alone and once with shards and tokenizer, for a
run without adaptation (chunks of 262,144) and one with (32,768). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness.evaluate.stream import open_stream
from harness.scorecard.forge import forge
from harness.tokens.shards import write_shard

CONTEXT, STRIDE = 2048, 64
_CHILD = "import sys; from harness.cli import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"


def timed(arguments: list[str]) -> dict[str, Any]:
    """Runs the verifier in a fresh process: seconds, exit code and its children's peak memory so far."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _CHILD, "verify", *arguments, "--format", "json"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    took = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    if done.returncode:
        raise SystemExit(f"the verifier rejected the benchmark's scorecard:\n{done.stdout}{done.stderr}")
    return {"seconds": round(took, 2), "peak_memory_gib": round(peak, 3), "targets": json.loads(done.stdout)["scored"]}


def make_data(folder: Path, targets: int) -> None:
    """A validation shard of the pure-byte vocabulary, and its tokenizer."""
    config = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    vocabulary = {"tokenizer_type": "pure_byte", "config": config, "vocab_size": 260}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokens = np.random.default_rng(0).integers(4, 260, targets + 1).astype(np.uint16)
    tokens[::1000] = 1
    write_shard(folder / "fineweb_val_000000.bin", tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=62_021_632)
    args = parser.parse_args()
    targets = max(args.targets // CONTEXT, 1) * CONTEXT
    folder = Path(tempfile.mkdtemp())
    try:
        make_data(folder, targets)
        tokenizer = folder / "tokenizer.json"
        stream = open_stream(folder, tokenizer, context=CONTEXT)
        nll = np.random.default_rng(1).gamma(2.0, 0.5, targets).astype(np.float32)
        found: dict[str, Any] = {"benchmark": "verifier", "targets": targets}
        for name, chunk in (("none", 262_144), ("sgd", 32_768)):
            card = folder / name
            forge(card, stream, nll, context=CONTEXT, stride=STRIDE, chunk=chunk, adaptation=name)
            for label, more in (("files", []), ("inputs", ["--data", str(folder), "--tokenizer", str(tokenizer)])):
                found[f"{name}_{label}"] = timed([str(card), *more])
                print(f"{name}, {label}: {found[f'{name}_{label}']}", flush=True)
        runs = [v for v in found.values() if isinstance(v, dict)]
        found["seconds"] = max(r["seconds"] for r in runs)
        found["peak_memory_gib"] = max(r["peak_memory_gib"] for r in runs)
        print(json.dumps(found))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
