"""Digests of model state: a cheap fingerprint at every chunk, SHA-256 in the background now and then.

SHA-256 over all parameters at every chunk would cost more than scoring. The fingerprint is computed where
the tensors are (a weighted sum of their raw words modulo 2**64, weights by position) and reads memory once;
a write that bypasses version counters (``.data``, a raw pointer) changes it. It is no cryptographic hash:
the SHA-256 digests, taken at the start, the end and whenever the last one is done, are.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

_ODD = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
# device -> word counts, weights, last words; one layout at a time: the state of a run rarely changes shape.
_LAYOUT: dict[str, tuple[tuple[int, ...], torch.Tensor, torch.Tensor]] = {}


def words(tensor: torch.Tensor) -> torch.Tensor:
    """The raw bytes of a tensor as int32 words where they divide evenly, else one word per byte; shape (n,)."""
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.dtype == torch.bool:
        flat = flat.view(torch.uint8)
    if flat.numel() * flat.element_size() % 4 == 0:
        return flat.view(torch.int32)
    return flat.view(torch.uint8).to(torch.int32)


def _layout(
    counts: tuple[int, ...], device: torch.device
) -> tuple[tuple[int, ...], torch.Tensor, torch.Tensor]:
    """Odd int64 weights, a function of the word's place in its own tensor; and where each tensor ends."""
    known = _LAYOUT.get(str(device))
    if known is None or known[0] != counts:
        place = torch.cat([torch.arange(1, n + 1, dtype=torch.int64, device=device) for n in counts]) * _ODD
        ends = torch.tensor(counts, device=device).cumsum(0) - 1
        known = (counts, ((place ^ (place >> 29)) * _ODD) | 1, ends)
        _LAYOUT[str(device)] = known
    return known


class Folding:
    """Fingerprints under way: a handful of kernels are queued at once, `values` waits for them.

    One 64-bit fingerprint per tensor; each weight is odd, so a change of one word always changes the sum.
    """

    @torch.no_grad()
    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._count = len(tensors)
        self._queued: list[tuple[list[int], torch.Tensor]] = []
        for device in {t.device for t in tensors}:
            mine = [i for i, t in enumerate(tensors) if t.device == device and t.numel()]
            if not mine:
                continue
            parts = [words(tensors[i]) for i in mine]
            _counts, weights, ends = _layout(tuple(len(p) for p in parts), device)
            sums = torch.cat(parts).mul(weights).cumsum_(0)
            totals = sums[ends]
            totals[1:] -= sums[ends[:-1]]
            self._queued.append((mine, totals))

    def values(self) -> list[int]:
        """The fingerprints, in the order of the tensors; 0 for an empty one."""
        out = [0] * self._count
        for mine, totals in self._queued:
            for i, value in zip(mine, totals.tolist(), strict=True):
                out[i] = value
        return out


def fold_all(tensors: Sequence[torch.Tensor]) -> list[int]:
    """The fingerprints of these tensors, at once."""
    return Folding(tensors).values()


def combine(names: Iterable[str], folds: Iterable[int]) -> str:
    """The fingerprint of a whole state as 16 hexadecimal digits."""
    text = "".join(f"{n}:{f & (2**64 - 1):016x}\n" for n, f in zip(names, folds, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def state_sha256(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over one line per tensor (name, type, shape, SHA-256 of its bytes), in sorted order of names.

    The tensors are hashed in several threads; hashlib lets other threads run meanwhile.
    """
    rows = sorted(named, key=lambda pair: pair[0])
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(lambda pair: _bytes_sha256(pair[1]), rows))
    total = hashlib.sha256()
    for (name, tensor), digest in zip(rows, digests, strict=True):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {digest}\n".encode())
    return total.hexdigest()


def _bytes_sha256(tensor: torch.Tensor) -> str:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
    return hashlib.sha256(flat.cpu().numpy().data).hexdigest()


class BackgroundDigests:
    """Hashes snapshots in one daemon thread, at most one every ``seconds``, and never two at a time.

    On a GPU the snapshot is copied to pinned memory on a stream of its own, so that scoring goes on.
    ``report(label, sha256)`` is called from `collect`, on the caller's thread.
    """

    def __init__(self, report: Callable[[int, str], None], seconds: float = 5.0) -> None:
        self._report, self._seconds, self._last = report, seconds, time.monotonic()
        self._thread: threading.Thread | None = None
        self._done: list[tuple[int, str]] = []
        self._stream: torch.cuda.Stream | None = None
        self._pinned: dict[str, torch.Tensor] = {}

    def offer(self, label: int, named: Callable[[], list[tuple[str, torch.Tensor]]]) -> None:
        """Snapshots and hashes the state, unless it is too early or the thread is still busy."""
        self.collect()
        if self._thread is not None or time.monotonic() - self._last < self._seconds:
            return
        self._last = time.monotonic()
        snapshot = [(n, t.detach().clone()) for n, t in named()]
        ready = None
        if any(t.is_cuda for _n, t in snapshot):
            ready = torch.cuda.Event()
            ready.record()
        self._thread = threading.Thread(
            target=self._hash, args=(label, snapshot, ready), daemon=True, name="state digest"
        )
        self._thread.start()

    def _hash(self, label: int, snapshot: list[tuple[str, torch.Tensor]], ready: torch.cuda.Event | None) -> None:
        if ready is not None:
            snapshot = self._to_host(snapshot, ready)
        self._done.append((label, state_sha256(snapshot)))

    def _to_host(
        self, snapshot: list[tuple[str, torch.Tensor]], ready: torch.cuda.Event
    ) -> list[tuple[str, torch.Tensor]]:
        self._stream = self._stream or torch.cuda.Stream()
        host = []
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            for name, tensor in snapshot:
                target = self._pinned.get(name)
                if target is None or target.shape != tensor.shape or target.dtype != tensor.dtype:
                    target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                    self._pinned[name] = target
                target.copy_(tensor, non_blocking=True)
                host.append((name, target))
            done = torch.cuda.Event()
            done.record()
        while not done.query():  # a blocking wait may hold the interpreter; the scoring thread needs it
            time.sleep(0.001)
        return host

    def collect(self, *, wait: bool = False) -> None:
        """Reports finished digests; with ``wait`` also the one under way."""
        if self._thread is not None:
            if wait:
                self._thread.join()
            if not self._thread.is_alive():
                self._thread = None
                while self._done:
                    self._report(*self._done.pop(0))
