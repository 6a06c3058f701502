"""Digests of model state: a cheap fingerprint at every chunk, SHA-256 in the background now and then.

SHA-256 over all parameters at every chunk would cost more than scoring. The fingerprint is computed where
the tensors are (a weighted sum of their raw words modulo 2**64, weights by position) and reads memory once;
a write that bypasses version counters (``.data``, a raw pointer) changes it. It is no cryptographic hash:
the SHA-256 digests, taken at the start, the end and whenever the last one is done, are.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence

import torch

_ODD = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
# (device, word counts) -> weights; one layout at a time, since the state of a run rarely changes shape.
_LAYOUT: dict[str, tuple[tuple[int, ...], torch.Tensor]] = {}


def words(tensor: torch.Tensor) -> torch.Tensor:
    """The raw bytes of a tensor as int32 words where they divide evenly, else one word per byte; shape (n,)."""
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.dtype == torch.bool:
        flat = flat.view(torch.uint8)
    if flat.numel() * flat.element_size() % 4 == 0:
        return flat.view(torch.int32)
    return flat.view(torch.uint8).to(torch.int32)


def _weights(counts: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Odd int64 weights, a function of the word's place in its own tensor."""
    known = _LAYOUT.get(str(device))
    if known is None or known[0] != counts:
        place = torch.cat([torch.arange(1, n + 1, dtype=torch.int64, device=device) for n in counts]) * _ODD
        known = (counts, ((place ^ (place >> 29)) * _ODD) | 1)
        _LAYOUT[str(device)] = known
    return known[1]


@torch.no_grad()
def fold_all(tensors: Sequence[torch.Tensor]) -> list[int]:
    """One 64-bit fingerprint per tensor, with a handful of kernels and one synchronisation per device.

    Each weight is odd, so a change of one word always changes the sum.
    """
    out = [0] * len(tensors)
    for device in {t.device for t in tensors}:
        mine = [i for i, t in enumerate(tensors) if t.device == device and t.numel()]
        if not mine:
            continue
        parts = [words(tensors[i]) for i in mine]
        counts = tuple(len(p) for p in parts)
        sums = (torch.cat(parts) * _weights(counts, device)).cumsum_(0)
        ends = torch.tensor(counts, device=device).cumsum(0) - 1
        totals = sums[ends]
        totals[1:] -= sums[ends[:-1]]
        for i, value in zip(mine, totals.tolist(), strict=True):
            out[i] = value
    return out


def combine(names: Iterable[str], folds: Iterable[int]) -> str:
    """The fingerprint of a whole state as 16 hexadecimal digits."""
    text = "".join(f"{n}:{f & (2**64 - 1):016x}\n" for n, f in zip(names, folds, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def state_sha256(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over names, types, shapes and bytes of a state, in sorted order of names."""
    total = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(words(tensor).cpu().numpy().view("u1").data)
    return total.hexdigest()


class BackgroundDigests:
    """Hashes snapshots in one daemon thread; a new snapshot is only taken when the last one is done.

    ``report(label, sha256)`` is called from `collect`, on the caller's thread.
    """

    def __init__(self, report: Callable[[int, str], None]) -> None:
        self._report = report
        self._thread: threading.Thread | None = None
        self._done: list[tuple[int, str]] = []

    def offer(self, label: int, named: Callable[[], list[tuple[str, torch.Tensor]]]) -> None:
        """Snapshots and hashes the state unless the thread is still busy (then this chunk is skipped)."""
        self.collect()
        if self._thread is not None:
            return
        snapshot = [(n, t.detach().clone()) for n, t in named()]
        self._thread = threading.Thread(
            target=lambda: self._done.append((label, state_sha256(snapshot))), daemon=True, name="state digest"
        )
        self._thread.start()

    def collect(self, *, wait: bool = False) -> None:
        """Reports finished digests; with ``wait`` also the one under way."""
        if self._thread is not None:
            if wait:
                self._thread.join()
            if not self._thread.is_alive():
                self._thread = None
                while self._done:
                    self._report(*self._done.pop(0))
