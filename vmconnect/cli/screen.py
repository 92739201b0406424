"""What many machines' commands write, and below it a line that tells how far they are."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vmconnect.cli.voice import printable

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Screen"]

_DELAY_SECONDS = 0.5
_SHOWN = 4


class Screen:
    """The standard streams; the line is there, after a while, if standard error is a terminal.

    Usable from any thread; a context manager, whose end takes the line away.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._lock = threading.RLock()
        self._appears = time.monotonic() + _DELAY_SECONDS
        self._shown = sys.stderr.isatty()
        # What goes to the terminal has to go above the line.
        self._above = [False, *(self._shown and os.isatty(number) for number in (1, 2))]
        self._progress: Progress | None = None
        self.left = False
        """Whether somebody has left who read what was written."""

    def write(self, number: int, data: bytes) -> None:
        """Write whole lines to a descriptor, 1 or 2; raises BrokenPipeError if nobody reads it."""
        with self._lock:
            if self._progress is not None and self._above[number]:
                text = data.decode("utf-8", "replace")
                self._progress.console.out(text, end="", highlight=False)
                return
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(number, view) :]
            except BrokenPipeError:
                self.left = True
                raise

    def update(self, done: int, failed: int, running: Sequence[str]) -> None:
        """Tell how far they are."""
        with self._lock:
            if not self._shown or time.monotonic() < self._appears:
                return
            if self._progress is None:
                self._progress = _line()
                self._progress.add_task("", total=self._total)
                self._progress.start()
            names = ", ".join(map(printable, running[:_SHOWN]))
            more = f" and {len(running) - _SHOWN} more" if len(running) > _SHOWN else ""
            told = f"{failed} failed  " if failed else ""
            self._progress.update(
                self._progress.task_ids[0], completed=done, description=f"{told}{names}{more}"
            )

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the terminal to a question for the time of a block."""
        with self._lock:
            self._take_away()
            try:
                yield
            finally:
                self._appears = time.monotonic() + _DELAY_SECONDS

    def _take_away(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._take_away()
            self._shown = False


def _line() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.table import Column

    return Progress(
        SpinnerColumn(),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        console=Console(stderr=True),
        expand=True,
        transient=True,
    )
