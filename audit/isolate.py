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
from typing import Generic, TypeVar

T = TypeVar("T")


class Lost(Exception):
    """The child died or was stopped; the message says how."""


def isolated(work: Callable[[], T], limit_s: float) -> T:
    """The result of ``work`` (picklable), or what it raised. Raises `Lost` if there is neither."""
    return Started(work, limit_s).result()


class Started(Generic[T]):
    """``work`` begun in a child, while the caller goes on; `result` waits for it.

    The child may use ``limit_s`` seconds of processor time, so that it ends even where its parent was stopped.
    """

    def __init__(self, work: Callable[[], T], limit_s: float) -> None:
        self.limit_s = limit_s
        self.work = work
        self.child = 0
        if not hasattr(os, "fork"):
            return
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by the caller (`>&-`)
                stream.flush()
        self.reader, writer = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(self.reader)
            _child(work, writer, limit_s)
        os.close(writer)

    def result(self) -> T:
        """As `isolated`; to be called once."""
        if not self.child:
            return self.work()
        try:
            data = _read(self.reader, self.limit_s)
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            raise
        finally:
            os.close(self.reader)
        _pid, status = os.waitpid(self.child, 0)
        if not data:
            if os.WIFSIGNALED(status):
                raise Lost(f"its process was ended by {signal.Signals(os.WTERMSIG(status)).name}")
            raise Lost(f"its process ended with exit code {os.waitstatus_to_exitcode(status)}")
        worked, result = pickle.loads(data)
        if worked:
            return result  # type: ignore[no-any-return]
        raise result


def _child(work: Callable[[], T], writer: int, limit_s: float) -> None:
    """Never returns: nothing of the parent's clean-up may run twice."""
    code = 1
    gc.disable()  # the process ends with its one piece of work
    try:
        _bound(limit_s)
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


def _bound(limit_s: float) -> None:
    """Ends this process after so much processor time; the waiting side keeps the clock on the wall."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    with suppress(OSError, ValueError):  # a lower limit stands already
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 2))


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
