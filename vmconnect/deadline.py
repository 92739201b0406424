"""Deadlines: the one way in which vmconnect bounds how long something may take."""

from __future__ import annotations

import time

from vmconnect.errors import DeadlineError

__all__ = ["Deadline"]


class Deadline:
    """A point in monotonic time, handed down through every call that may wait.

    A duration says how long one step may take; a deadline says when all steps together must be
    done, so a retry inside never outlives what the caller asked for.
    """

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None):
        """Set the deadline ``seconds`` from now; None is never."""
        self._at = None if seconds is None else time.monotonic() + seconds

    @classmethod
    def of(cls, value: Deadline | float | None) -> Deadline:
        """Return ``value`` if it is a deadline, else one that many seconds from now."""
        return value if isinstance(value, Deadline) else cls(value)

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return self._at is not None and time.monotonic() >= self._at

    def remaining(self, at_most: float | None = None) -> float | None:
        """Return the seconds left, never negative, None for ever; ``at_most`` caps it."""
        if self._at is None:
            return at_most
        left = max(0.0, self._at - time.monotonic())
        return left if at_most is None else min(left, at_most)

    def sooner(self, seconds: float) -> Deadline:
        """Return a deadline at most ``seconds`` from now, and no later than this one."""
        return Deadline(self.remaining(at_most=seconds))

    def check(self, doing: str) -> None:
        """Raise DeadlineError, saying what took too long, if the time is over."""
        if self.passed:
            raise DeadlineError(f"timed out while {doing}")
