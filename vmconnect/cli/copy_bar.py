"""The progress of a copy on standard error, if that is a terminal: how much, how fast, how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.cli.progress import Bar
from vmconnect.cli.voice import line, say

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["CopyBar"]

_NAME_COLUMNS = 20


class CopyBar(Bar):
    """A `Bar` that counts bytes; what fails meanwhile is said above it."""

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            if self._bar is None:
                say(text)
            else:
                # As `say` has it: a name is neither marked up nor broken into lines.
                self._bar.console.out(line(text).rstrip(), highlight=False)

    def _new_bar(self) -> Progress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        # One line of a terminal with 80 columns, however long the machine's name.
        name = Column(no_wrap=True, max_width=_NAME_COLUMNS)
        return Progress(
            TextColumn("{task.description}", markup=False, table_column=name),
            BarColumn(bar_width=24),
            DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
            TransferSpeedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )
