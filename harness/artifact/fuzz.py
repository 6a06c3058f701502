"""Feeds the artifact reader with damaged and hostile files: ``python -m harness.artifact.fuzz --count 100000``.

Two kinds. *Damaged* files are an intact one with bytes flipped, cut, added, moved or mixed with another file.
*Forged* ones get past the digest: the header's JSON or the compressed planes are changed and every length and
digest around them is made right again, as an attacker would. Each must end in ``Corrupt`` or in tensors whose
planes match the digest that the header states; a damaged file that reads must be the identical model.

The reader runs under a time limit per file and a limit on the memory that the process may grow by.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import lzma
import random
import resource
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import brotli
import numpy as np

from harness.artifact.codecs import ENCODERS, Corrupt
from harness.artifact.container import COMPRESSORS, PREAMBLE, from_bytes, to_bytes
from harness.artifact.grids import Record, float_record, quantized_record
from harness.artifact.layout import PLANES, planes

#: Cap that the reader is given, seconds per file, and how much the process may grow.
CAP, SECONDS, GROWTH = 8 << 20, 5, 32 << 20


@dataclass(slots=True)
class Outcome:
    """Counts of what happened; ``failures`` names each file that broke the reader's promise."""

    files: int = 0
    refused: int = 0
    identical: int = 0
    consistent: int = 0
    slowest: float = 0.0
    growth: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def samples() -> list[bytes]:
    """Small artifacts, one per compressor, with every kind of tensor."""
    rng = np.random.default_rng(0)
    codes = np.clip(np.rint(rng.normal(0, 9, (24, 40))), -31, 31).astype(np.int8)
    scales = np.abs(rng.normal(0.01, 0.002, 24)).astype(np.float16)
    tensors: list[Record] = [
        quantized_record("a", (24, 40), "int6", codes, scales),
        quantized_record("b", (24, 40), "int5", codes // 3, scales, by_column=True),
        quantized_record("c", (2, 12, 40), "int8", codes, scales[:1], column_factors=np.ones(40)),
        quantized_record("z", (64, 64), "int6", np.zeros((64, 64), np.int8), np.ones(1)),
        float_record("d", rng.normal(size=33)),
        float_record("e", rng.normal(size=(3, 5)), "bf16"),
        float_record("f", rng.normal(size=9), "fp32"),
    ]
    return [
        to_bytes(family="golf", config={"n": 1, "t": [1, 2]}, tensors=tensors, compressor=name)[0]
        for name in (*COMPRESSORS, "auto")
    ]


# ---- damaged files ------------------------------------------------------------------------------


def _flip(rng: random.Random, data: bytearray, _: bytes) -> None:
    for _i in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray, _: bytes) -> None:
    at, size = rng.randrange(len(data)), rng.choice((1, 4, 8, 64))
    data[at : at + size] = rng.choice((b"\0", b"\xff", rng.randbytes(1))) * len(data[at : at + size])


def _cut(rng: random.Random, data: bytearray, _: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def _insert(rng: random.Random, data: bytearray, _: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 7, 300)))


def _remove(rng: random.Random, data: bytearray, _: bytes) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 7, 300))]


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


def _preamble(rng: random.Random, data: bytearray, _: bytes) -> None:
    values = list(PREAMBLE.unpack_from(data))
    place = rng.choice((1, 2, 3, 4))
    limit = {1: 1 << 16, 2: 1 << 16, 3: 1 << 32, 4: 1 << 64}[place]
    values[place] = rng.choice((0, 1, limit - 1, rng.randrange(limit), (values[place] + 1) % limit))
    data[: PREAMBLE.size] = PREAMBLE.pack(*values)


DAMAGE: list[Callable[[random.Random, bytearray, bytes], None]] = [
    _flip, _flip, _overwrite, _cut, _insert, _remove, _splice, _preamble,
]  # fmt: skip

# ---- forged files -------------------------------------------------------------------------------


def _seal(header: bytes, body: bytes) -> bytes:
    packed = zlib.compress(header, 1)
    start = PREAMBLE.pack(b"PGARTFCT", 1, 0, len(packed), len(body), b"\0" * 32)[:24]
    return start + hashlib.sha256(start + packed + body).digest() + packed + body


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = PREAMBLE.unpack_from(data)[3]
    return json.loads(zlib.decompress(data[PREAMBLE.size : PREAMBLE.size + length])), data[
        PREAMBLE.size + length :
    ]


def _nasty(rng: random.Random) -> Any:
    return rng.choice(
        (0, 1, -1, 2, 39, 41, 1 << 20, 1 << 31, 1 << 40, 1 << 63, 10**30, 0.5, 1e308, True, None, "", "int6", "rows",
         "fp32", "zlib", "x" * 600, [], [[]], {}, [1 << 40, 0], [0, 1 << 40], [3, 320], [1] * 9, "none", "lzma", "bits")
    )  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        found += _places(child, (*path, key))
    return found


def _forge_header(rng: random.Random, data: bytes) -> bytes:
    header, body = _split(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        path = rng.choice(_places(header))
        target: Any = header
        for key in path[:-1]:
            target = target[key]
        what = rng.randrange(4)
        if what == 0 and isinstance(target, list):
            del target[path[-1]]
        elif what == 1 and isinstance(target, list):
            target.insert(path[-1], rng.choice(target))
        else:
            target[path[-1]] = _nasty(rng)
    return _seal(json.dumps(header).encode(), body)


def _forge_text(rng: random.Random, data: bytes) -> bytes:
    header, body = _split(data)
    text = bytearray(json.dumps(header).encode())
    rng.choice((_flip, _overwrite, _cut, _insert, _remove))(rng, text, b"")
    return _seal(bytes(text), body)


def _forge_body(rng: random.Random, data: bytes) -> bytes:
    """Damages one compressed plane and, half the time, states its length correctly."""
    header, body = _split(data)
    ends = np.cumsum([0] + [section[3] for section in header["sections"]])
    index = rng.choice((0, 0, 1, 2))
    part = bytearray(body[ends[index] : ends[index + 1]] or b"\0")
    rng.choice((_flip, _overwrite, _cut, _insert, _remove))(rng, part, b"")
    if rng.randrange(2):
        header["sections"][index][3] = len(part)
    return _seal(json.dumps(header).encode(), body[: ends[index]] + bytes(part) + body[ends[index + 1] :])


@cache
def _bomb(codec: str) -> bytes:
    data = bytes(64 << 20)
    if codec == "brotli":
        return brotli.compress(data, quality=1)  # the strongest setting takes its time over 64 MiB
    if codec == "lzma":
        return lzma.compress(data, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])
    return ENCODERS[codec](data)


def _forge_bomb(rng: random.Random, data: bytes) -> bytes:
    """A plane that unpacks to 64 MiB while the tensor table asks for a few kilobytes."""
    header, body = _split(data)
    ends = np.cumsum([0] + [section[3] for section in header["sections"]])
    index, codec = rng.randrange(3), rng.choice(("zlib", "zstd", "lzma", "brotli"))
    bomb = _bomb(codec)
    header["sections"][index][1], header["sections"][index][3] = codec, len(bomb)
    return _seal(json.dumps(header).encode(), body[: ends[index]] + bomb + body[ends[index + 1] :])


FORGERIES = [_forge_header, _forge_header, _forge_text, _forge_body, _forge_body, _forge_bomb]

# ---- the run --------------------------------------------------------------------------------------


def _peak() -> int:
    """Peak resident bytes; on Linux since the last ``_forget_peak``."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget_peak() -> None:
    # What making the bombs took must not hide what reading them takes.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _planes_digest(tensors: list[Record]) -> str:
    raw = planes(tensors)
    return hashlib.sha256(b"".join(raw[plane] for plane in PLANES)).hexdigest()


def _late(*_: object) -> None:
    raise TimeoutError


def one(name: str, data: bytes, original: str | None, outcome: Outcome) -> None:
    """Reads one file and books what happened. ``original``: the intact file's plane digest for damaged ones."""
    started = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        header, tensors = from_bytes(data, max_bytes=CAP)
        digest = _planes_digest(tensors)
        if digest != header["sha256"] or (original is not None and digest != original):
            outcome.failures.append(f"{name}: read a model that is not the one sealed")
        elif original is not None:
            outcome.identical += 1
        else:
            outcome.consistent += 1
    except Corrupt as error:
        outcome.refused += 1
        outcome.messages[str(error)[:40]] += 1
        if "\n" in str(error) or not str(error):
            outcome.failures.append(f"{name}: its error is not one line")
    except TimeoutError:
        outcome.failures.append(f"{name}: no answer in {SECONDS} s")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of native code is no Exception
        outcome.failures.append(f"{name}: {type(error).__name__}: {str(error)[:100]}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    outcome.files += 1
    outcome.slowest = max(outcome.slowest, time.perf_counter() - started)


def run(count: int, seed: int, progress: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
    """``count`` mutated files, half damaged, half forged; the same seed gives the same files."""
    bases = samples()
    digests = [_split(base)[0]["sha256"] for base in bases]
    outcome = Outcome()
    previous = signal.signal(signal.SIGALRM, _late)
    for codec in ("zlib", "zstd", "lzma", "brotli"):
        _bomb(codec)
    for base in bases:
        from_bytes(base)  # first use of each codec loads its library; that is no overshoot
    _forget_peak()
    before = _peak()
    try:
        for index in range(count):
            rng = random.Random(f"{seed}/{index}")
            which = rng.randrange(len(bases))
            if index % 2:
                data = rng.choice(FORGERIES)(rng, bases[which])
                one(f"forged {seed}/{index}", data, None, outcome)
            else:
                damaged = bytearray(bases[which])
                rng.choice(DAMAGE)(rng, damaged, rng.choice(bases))
                one(f"damaged {seed}/{index}", bytes(damaged), digests[which], outcome)
            if index % 2000 == 1999:
                progress(outcome)
    finally:
        signal.signal(signal.SIGALRM, previous)
    outcome.growth = _peak() - before
    if outcome.growth > GROWTH:
        outcome.failures.append(f"the process grew by {outcome.growth:,} bytes")
    return outcome


def main() -> int:
    """Prints one JSON object last; exit code 1 if any file broke the promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.perf_counter()

    def show(outcome: Outcome) -> None:
        print(
            f"\r{outcome.files:,} files, {outcome.refused:,} refused, {len(outcome.failures)} failures",
            end="", file=sys.stderr, flush=True,
        )  # fmt: skip

    outcome = run(args.count, args.seed, show)
    print(file=sys.stderr)
    for line in outcome.failures[:20]:
        print(line)
    print(
        json.dumps(
            {
                "files": outcome.files, "refused": outcome.refused, "identical": outcome.identical,
                "consistent": outcome.consistent, "failures": len(outcome.failures),
                "different_errors": len(outcome.messages), "slowest_s": round(outcome.slowest, 4),
                "memory_growth_bytes": outcome.growth, "seconds": round(time.perf_counter() - started, 1),
                "seed": args.seed,
            }
        )
    )  # fmt: skip
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
