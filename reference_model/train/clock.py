"""The training clock: counts what the contest's 600 seconds count.

Inside: every optimizer step, and calibration on training data (rule B1: it is training). Outside:
compilation warm-up, validation, writing checkpoints. The count survives a resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    def __init__(self, elapsed: float = 0.0, now: Callable[[], float] = time.perf_counter) -> None:
        self._elapsed, self._now = elapsed, now
        self._started: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds counted so far."""
        running = 0.0 if self._started is None else self._now() - self._started
        return self._elapsed + running

    def start(self) -> None:
        if self._started is None:
            self._started = self._now()

    def stop(self) -> None:
        self._elapsed, self._started = self.elapsed, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Work that the contest does not count."""
        running = self._started is not None
        self.stop()
        try:
            yield
        finally:
            if running:
                self.start()
