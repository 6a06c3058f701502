"""One line that says what is being done: rewritten on a terminal, now and then a new line in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_TERMINAL_SECONDS = 0.1
_LOG_SECONDS = 5.0


class Ticker:
    """Call it with a stage, an amount and a unit as often as you like; it prints as often as is useful."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._every = _TERMINAL_SECONDS if self._terminal else _LOG_SECONDS
        self._last = 0.0
        self._stage = ""
        self._width = 0

    def __enter__(self) -> Ticker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()

    def __call__(self, stage: str, amount: int, unit: str) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._last < self._every:
            return
        self._stage, self._last = stage, now
        line = f"{stage}: {amount:,} {unit}" if amount else f"{stage} …"
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
