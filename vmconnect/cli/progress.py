"""Progress on the terminal, by rich; on anything else, a line a step."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bar", "TerminalProgress"]

_MARK_DONE, _MARK_FAILED = "✔", "✘"


class TerminalProgress:
    """Shows one step after the other, each with its time, on standard error.

    Usable from any thread; a context manager, whose end closes the last step.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._text: str | None = None
        self._started = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self.seconds: dict[str, float] = {}
        """How long each step took, in order."""

    def step(self, text: str) -> None:
        """Begin a step; the one before is done."""
        with self._lock:
            self._finish(_MARK_DONE)
            self._text, self._started = text, time.monotonic()
            if self._bar is not None:
                self._task = self._bar.add_task(text, total=None)

    def done(self) -> None:
        """End the present step; there may be no other."""
        with self._lock:
            self._finish(_MARK_DONE)

    def advance(self, done: int, total: int | None = None) -> None:
        """Tell how much of the present step is done."""
        with self._lock:
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=done, total=total)

    def say(self, text: str) -> None:
        """Print a line that stays, above what moves."""
        with self._lock:
            self._print(text)

    def _finish(self, mark: str) -> None:
        if self._text is None:
            return
        seconds = time.monotonic() - self._started
        self.seconds[self._text] = self.seconds.get(self._text, 0.0) + seconds
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self._print(f"{mark} {self._text}  {seconds:.1f} s")
        self._text = None

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = _rich_progress()
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._finish(_MARK_FAILED if error else _MARK_DONE)
            if self._bar is not None:
                self._bar.stop()
                self._bar = None


class Bar:
    """One piece of work on standard error, if that is a terminal: what, how far, for how long.

    It appears when the work has taken ``delay`` seconds, and leaves nothing behind. Usable from
    any thread; a context manager.
    """

    def __init__(self, text: str = "", delay: float = 1.0) -> None:
        self._text = text
        self._appears = time.monotonic() + delay if sys.stderr.isatty() else float("inf")
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def step(self, text: str) -> None:
        """Say what is being done now."""
        with self._lock:
            self._text = text
            self._update(description=text)

    def advance(self, done: int, total: int | None = None) -> None:
        """Tell how much of it is done."""
        with self._lock:
            self._update(completed=done, total=total)

    def _update(self, **fields: object) -> None:
        if time.monotonic() < self._appears:
            return
        if self._bar is None or self._task is None:
            self._bar = self._new_bar()
            self._task = self._bar.add_task(self._text, total=None)
            self._bar.start()
        self._bar.update(self._task, **fields)  # type: ignore[arg-type]

    def _new_bar(self) -> Progress:
        return _rich_progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
            self._appears = float("inf")


def _rich_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
