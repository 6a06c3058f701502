"""Runs a piece of work in a process whose death or hang is an answer and not the end.

A parser written in another language can exhaust its stack on two thousand brackets and take the
interpreter with it. The work runs in a forked child, which starts at once and shares what the parent
has already read; only the result comes back. Where the system cannot fork, it runs in place.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Lost(Exception):
    """The child died or was stopped; the message says how."""


def isolated(work: Callable[[], T], limit_s: float) -> T:
    """The result of ``work`` (picklable), or what it raised. Raises `Lost` if there is neither."""
    if not hasattr(os, "fork"):
        return work()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the caller (`>&-`)
            stream.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(work, writer)
    os.close(writer)
    try:
        data = _read(reader, limit_s)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(reader)
    _pid, status = os.waitpid(child, 0)
    if not data:
        if os.WIFSIGNALED(status):
            raise Lost(f"its process was ended by {signal.Signals(os.WTERMSIG(status)).name}")
        raise Lost(f"its process ended with exit code {os.waitstatus_to_exitcode(status)}")
    worked, result = pickle.loads(data)
    if worked:
        return result  # type: ignore[no-any-return]
    raise result


def _child(work: Callable[[], T], writer: int) -> None:
    """Never returns: nothing of the parent's clean-up may run twice."""
    code = 1
    gc.disable()  # the process ends with its one piece of work
    try:
        try:
            data = pickle.dumps((True, work()))
        except Exception as error:
            try:
                data = pickle.dumps((False, error))
            except Exception:
                data = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        with os.fdopen(writer, "wb") as handle:
            handle.write(data)
        code = 0
    finally:
        os._exit(code)


def _read(reader: int, limit_s: float) -> bytes:
    pieces: list[bytes] = []
    end = time.monotonic() + limit_s
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise Lost(f"it took longer than {limit_s:g} s")
        piece = os.read(reader, 1 << 20)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
