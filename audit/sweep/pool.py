"""Worker processes that may die or hang: the pool replaces them and says what was lost.

`concurrent.futures` gives up on every pending task when one process dies. Here a task streams its
messages; when its process dies (a parser's stack overflow) or is silent for too long, the caller
learns what was said until then and may submit the rest again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

Handler = Callable[[Any], Iterable[Any]]

#: A worker is replaced after so many tasks: long sweeps must not add up what parsers leak.
RECYCLE = 150
#: Silence is measured on the worker's own processor time where the system tells it; a starved
#: worker on a busy machine gets this many times the limit before it counts as hung.
PATIENCE = 6


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a task."""

    task: Any
    message: Any


@dataclass(frozen=True, slots=True)
class Done:
    """The task ended."""

    task: Any


@dataclass(frozen=True, slots=True)
class Lost:
    """The task's process died or was stopped; ``reason`` says how."""

    task: Any
    reason: str


def _work(handler: Handler, pipe: connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, OSError):
        while True:
            task = pipe.recv()
            if task is None:
                return
            for message in handler(task[0]):
                pipe.send((False, message))
            pipe.send((True, None))


class _Worker:
    def __init__(self, context: Any, handler: Handler) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(handler, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Any = None
        self.tasks = 0
        self.since = self.cpu = 0.0

    def give(self, task: Any) -> None:
        self.task = task
        self.tasks += 1
        self.heard()
        self.pipe.send((task,))

    def heard(self) -> None:
        self.since, self.cpu = time.monotonic(), self.processor_time() or 0.0

    def silent(self, limit: float) -> bool:
        waited = time.monotonic() - self.since
        if waited <= limit:
            return False
        used = self.processor_time()
        return used is None or used - self.cpu > limit or waited > limit * PATIENCE

    def processor_time(self) -> float | None:
        try:
            with open(f"/proc/{self.process.pid}/stat", "rb") as handle:
                fields = handle.read().rpartition(b")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None

    def stop(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join(5)

    def death(self) -> str:
        self.process.join(5)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


def run(handler: Handler, tasks: Iterable[Any], jobs: int, limit_s: float) -> Iterator[Said | Done | Lost]:
    """Hands ``tasks`` to ``jobs`` processes and yields what happens, in the order in which it does.

    ``handler`` (picklable) turns a task into messages. A message that takes longer than
    ``limit_s`` loses the task. Closing the iterator stops all processes.
    """
    context = multiprocessing.get_context("spawn")
    waiting = deque(tasks)
    workers: list[_Worker] = []
    try:
        while waiting or any(w.task is not None for w in workers):
            for worker in [w for w in workers if w.task is None and w.tasks >= RECYCLE]:
                worker.stop()
                workers.remove(worker)
            busy = sum(w.task is not None for w in workers)
            while len(workers) < min(jobs, busy + len(waiting)):
                workers.append(_Worker(context, handler))
            for worker in workers:
                if worker.task is None and waiting:
                    worker.give(waiting.popleft())
            pipes = {w.pipe: w for w in workers if w.task is not None}
            for ready in connection.wait(list(pipes), timeout=0.5):
                worker = pipes[ready]  # type: ignore[index]
                try:
                    over, message = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    reason = worker.death()
                    worker.stop()
                    yield Lost(worker.task, reason)
                    continue
                worker.heard()
                if over:
                    task, worker.task = worker.task, None
                    yield Done(task)
                else:
                    yield Said(worker.task, message)
            for worker in [w for w in workers if w.task is not None and w.silent(limit_s)]:
                workers.remove(worker)
                worker.stop()
                yield Lost(worker.task, f"it took longer than {limit_s:g} s")
    finally:
        for worker in workers:
            worker.stop()
