"""One way to report progress: whoever works calls a Progress, whoever shows it gives one."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """What long work reports to."""

    def step(self, text: str) -> None:
        """Begin a step; the one before is done."""

    def advance(self, done: int, total: int | None = None) -> None:
        """Tell how much of the present step is done, in bytes or items; None is unknown."""


class Silent:
    """Progress that nobody watches."""

    def step(self, text: str) -> None:
        """Ignore the step."""

    def advance(self, done: int, total: int | None = None) -> None:
        """Ignore the amount."""
