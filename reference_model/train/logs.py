"""What a run writes down: ``train.jsonl``, ``train.log`` in the contest's dialect, a progress display.

The text dialect is the one that contest submissions log in (``step:200/20000 train_loss:… train_time:…ms
step_avg:…ms``), so the evidence audit reads our own logs like anybody else's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Logs:
    """Open on rank 0 only; the other ranks get a silent one (``folder`` None)."""

    def __init__(
        self, folder: Path | None, *, resume: bool = False, quiet: bool = False, board: bool = False
    ) -> None:
        self.json: IO[str] | None = None
        self.text: IO[str] | None = None
        self.board: Any = None
        self.console = Console(quiet=quiet or folder is None)
        self.live = self.console.is_terminal and not self.console.quiet
        self.progress: Progress | None = None
        self.task: Any = None
        if folder is not None:
            mode = "a" if resume else "w"
            self.json = (folder / "train.jsonl").open(mode, encoding="utf-8", buffering=1)
            self.text = (folder / "train.log").open(mode, encoding="utf-8", buffering=1)
            if board:
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Logs:
        if self.live:
            self.progress = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
                console=self.console, transient=True,
            )  # fmt: skip
            self.progress.start()
            self.task = self.progress.add_task("train", total=1.0, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self.progress.stop()
        for handle in (self.json, self.text, self.board):
            if handle is not None:
                handle.close()

    def record(self, **values: Any) -> None:
        """One JSON object, one line."""
        if self.json is not None:
            self.json.write(json.dumps(values) + "\n")
        if self.board is not None and "step" in values:
            for key, value in values.items():
                if isinstance(value, float):
                    self.board.add_scalar(key, value, values["step"])

    def line(self, text: str, *, show: bool = False) -> None:
        """One line of the text log; ``show`` prints it as well."""
        if self.text is not None:
            self.text.write(text + "\n")
        if show:
            self.say(text)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def advance(self, done: float, note: str, plain: Callable[[], bool]) -> None:
        """Moves the bar; without a terminal prints the note as a line whenever ``plain`` says so."""
        if self.progress is not None:
            self.progress.update(self.task, completed=done, note=note)
        elif plain():
            self.say(f"{100 * done:3.0f}% {note}")
